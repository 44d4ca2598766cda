//! A connection on which HTTP/2 is spoken: streams go to the door, answers come back by themselves.
//!
//! All requests that have arrived are taken before the first of them is served, so that answers that are known at once leave
//! together, in one write. A client that answers no pings, or that takes none of its answers while they wait, is given up.

use super::cork::{Cork, Corked, cork};
use super::guard::Heard;
use crate::rpc::door::{Connected, Door};
use crate::rpc::undelivered::Undelivered;
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// Requests that are served before others on this thread have their turn.
const REQUESTS_AT_ONCE: usize = 128;

/// Bytes of answers whose client has to take some of them.
const UNTAKEN_BYTES: usize = 1 << 20;
/// How often it is looked whether it does.
const UNTAKEN_LOOK: Duration = Duration::from_secs(10);
/// Looks in a row at a client that takes none, after which it is given up: a minute.
const UNTAKEN_LOOKS: u32 = 6;
/// Bytes of answers whose client has to be quick while they crowd the process.
const MANY_BYTES: usize = 16 << 20;
/// What such a client takes between two looks: a megabyte in a second.
const QUICK_BYTES: usize = 10 << 20;

/// When a client that says nothing is asked whether it is there, and how long it has for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// Serves a connection until its client goes, or gracefully ends it once `stop` is told.
///
/// # Errors
/// What the client did wrong, or the socket's.
pub(super) async fn speak<S>(
    socket: S,
    door: Door,
    terms: (&Builder, Option<Patience>),
    heard: Heard,
    stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut told = stop.clone();
    let (corked, cork) = cork(socket);
    let mut handshake = pin!(terms.0.handshake::<_, Bytes>(corked));
    let greeted = poll_fn(|cx| {
        let greeted = handshake.as_mut().poll(cx);
        // an error shows at the next read or write, too
        let _ = cork.pull(cx);
        greeted
    });
    let mut connection = tokio::select! {
        connection = greeted => connection?,
        _ = told.wait_for(|stop| *stop) => return Ok(()),
    };
    let pings = connection.ping_pong();
    let alive = terms.1.zip(pings).map(|(patience, pings)| Alive::new(patience, pings, heard));
    let mut speaking = Speaking {
        connection,
        cork,
        door: door.connected(),
        alive,
        taking: Taking::new(UNTAKEN_LOOK),
        arrived: Vec::new(),
    };
    tokio::select! {
        result = poll_fn(|cx| speaking.poll(cx)) => return result,
        _ = told.wait_for(|stop| *stop) => {}
    }
    speaking.connection.graceful_shutdown();
    poll_fn(|cx| speaking.poll(cx)).await
}

struct Speaking<S> {
    connection: Connection<Corked<S>, Bytes>,
    cork: Cork<S>,
    door: Connected,
    alive: Option<Alive>,
    taking: Taking,
    /// Requests that were taken and not served yet.
    arrived: Vec<(Request<RecvStream>, SendResponse<Bytes>)>,
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl<S: AsyncRead + AsyncWrite + Unpin> Speaking<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut served = 0;
        let ended = loop {
            let ended = self.take(cx);
            if self.arrived.is_empty() {
                break ended;
            }
            served += self.arrived.len();
            for (request, respond) in self.arrived.drain(..) {
                self.door.serve(request, respond);
            }
            if let Poll::Ready(ended) = ended {
                break Poll::Ready(ended);
            }
            if served >= REQUESTS_AT_ONCE {
                cx.waker().wake_by_ref();
                break Poll::Pending;
            }
        };
        if let Poll::Ready(Err(error)) = self.cork.pull(cx)
            && ended.is_pending()
        {
            return Poll::Ready(Err(error.into()));
        }
        if ended.is_pending() && self.alive.as_mut().is_some_and(|alive| alive.poll(cx).is_ready()) {
            return Poll::Ready(Err("the client answers no pings".into()));
        }
        if ended.is_pending() && self.taking.poll(self.door.undelivered(), cx).is_ready() {
            let reason = "the client does not take its answers";
            tracing::warn!(reason, "closing a client connection that misbehaves");
            return Poll::Ready(Err(reason.into()));
        }
        ended
    }

    /// Takes what has arrived.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        while self.arrived.len() < REQUESTS_AT_ONCE {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(exchange))) => self.arrived.push(exchange),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}

/// Asks a client that has said nothing for a while whether it is there (as Go's gRPC server does, `ServerParameters`).
struct Alive {
    patience: Patience,
    pings: PingPong,
    heard: Heard,
    asked: bool,
    look_at: Pin<Box<Sleep>>,
}

impl Alive {
    fn new(patience: Patience, pings: PingPong, heard: Heard) -> Alive {
        let look_at = Box::pin(tokio::time::sleep(patience.interval));
        Alive { patience, pings, heard, asked: false, look_at }
    }

    /// Ready when the client is given up.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked {
            // that it came is heard; it is fetched so that the next may be sent
            let _ = self.pings.poll_pong(cx);
        }
        while self.look_at.as_mut().poll(cx).is_ready() {
            let wait = if self.heard.take() {
                self.asked = false;
                self.patience.interval
            } else if self.asked {
                return Poll::Ready(());
            } else {
                self.asked = true;
                // refused if an earlier one is still out: its answer will do
                let _ = self.pings.send_ping(Ping::opaque());
                self.patience.timeout
            };
            self.look_at.as_mut().reset(Instant::now() + wait);
        }
        Poll::Pending
    }
}

/// Looks whether a client takes its answers, while there are many.
struct Taking {
    every: Duration,
    look_at: Option<Pin<Box<Sleep>>>,
    /// Bytes it had taken when it was last looked.
    taken: usize,
    /// Bytes there were then.
    bytes: usize,
    /// Looks since it took any.
    idle: u32,
}

impl Taking {
    fn new(every: Duration) -> Taking {
        Taking { every, look_at: None, taken: 0, bytes: 0, idle: 0 }
    }

    /// Ready when the client is given up.
    fn poll(&mut self, undelivered: &Undelivered, cx: &mut Context<'_>) -> Poll<()> {
        if undelivered.bytes() <= UNTAKEN_BYTES {
            self.look_at = None;
            return Poll::Pending;
        }
        let look_at = self.look_at.get_or_insert_with(|| {
            (self.taken, self.bytes, self.idle) = (undelivered.taken(), undelivered.bytes(), 0);
            Box::pin(tokio::time::sleep(self.every))
        });
        while look_at.as_mut().poll(cx).is_ready() {
            let taken = undelivered.taken().wrapping_sub(self.taken);
            self.taken = self.taken.wrapping_add(taken);
            self.idle = if taken == 0 { self.idle + 1 } else { 0 };
            let before = std::mem::replace(&mut self.bytes, undelivered.bytes());
            let is_in_the_way = undelivered.crowd() && before > MANY_BYTES && taken < QUICK_BYTES;
            if self.idle >= UNTAKEN_LOOKS || is_in_the_way {
                return Poll::Ready(());
            }
            look_at.as_mut().reset(Instant::now() + self.every);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const EVERY: Duration = Duration::from_millis(5);

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        run(async {
            for takes in [false, true] {
                let undelivered = Arc::new(Undelivered::new(Arc::default()));
                let mut answer = undelivered.hold(4 << 20);
                let mut taking = Taking::new(EVERY);
                let given_up = poll_fn(|cx| taking.poll(&undelivered, cx));
                let took = async {
                    // a piece in each of more looks than a client has
                    for _ in 0..2 * UNTAKEN_LOOKS {
                        if takes {
                            answer.pop();
                        }
                        tokio::time::sleep(EVERY).await;
                    }
                };
                tokio::select! {
                    () = given_up => assert!(!takes),
                    () = took => assert!(takes),
                }
            }
        });
    }

    #[test]
    fn little_that_is_not_taken_is_not_looked_at() {
        run(async {
            let undelivered = Arc::new(Undelivered::new(Arc::default()));
            let mut taking = Taking::new(EVERY);
            let mut look = async || poll_fn(|cx| Poll::Ready(taking.poll(&undelivered, cx).is_ready())).await;
            let mut answers = vec![undelivered.hold(UNTAKEN_BYTES / 2)];
            assert!(!look().await);
            answers.push(undelivered.hold(UNTAKEN_BYTES));
            assert!(!look().await);
            answers.pop();
            assert!(!look().await);
            assert!(taking.look_at.is_none());
        });
    }

    #[test]
    fn who_is_slow_is_given_up_when_answers_crowd_the_process() {
        run(async {
            for crowd in [false, true] {
                let total = Arc::default();
                let undelivered = Arc::new(Undelivered::new(Arc::clone(&total)));
                let others = Arc::new(Undelivered::new(total));
                let _theirs: Vec<_> =
                    (0..if crowd { 20 } else { 1 }).map(|_| others.hold(32 << 20)).collect();
                let mut answer = undelivered.hold(32 << 20);
                let mut taking = Taking::new(EVERY);
                let given_up = poll_fn(|cx| taking.poll(&undelivered, cx));
                let took = async {
                    for _ in 0..2 * UNTAKEN_LOOKS {
                        answer.pop();
                        tokio::time::sleep(EVERY).await;
                    }
                };
                tokio::select! {
                    () = given_up => assert!(crowd),
                    () = took => assert!(!crowd),
                }
            }
        });
    }
}
