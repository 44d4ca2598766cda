//! A connection on which HTTP/2 is spoken: streams go to the door, answers come back by themselves.
//!
//! All requests that have arrived are taken before the first of them is served, so that answers that are known at once leave
//! together, in one write.

use super::cork::{Cork, Corked, cork};
use super::guard::Heard;
use crate::rpc::door::Door;
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
    let mut speaking = Speaking { connection, cork, door, alive, arrived: Vec::new() };
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
    door: Door,
    alive: Option<Alive>,
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
