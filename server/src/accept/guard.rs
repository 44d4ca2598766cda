//! Watches what a client sends below HTTP/2, and closes connections that misbehave or stay silent.
//!
//! ```text
//! hyper, h2 ─> Guard ─┬─> socket
//!                     └─ Conduct: reads along, says when it is enough
//! ```
//!
//! Rules kept here:
//! - Bytes pass as they are, uncopied, in both directions; what is not HTTP/2 passes unwatched.
//! - A client whose conduct is an offence is told so by a GOAWAY if the frames going out allow it at that moment, and
//!   its connection is closed at once: waiting for room would leave the end to the offender.
//! - A client that has said nothing within [`GREETING_TIMEOUT`] is closed. After that, idleness is no offence: clients
//!   keep connections in store.
//!
//! It leaves to others: what an offence is ([`conduct`]); resets, CONTINUATION and DATA, which h2 bounds itself.

mod conduct;

use conduct::{Conduct, Offence};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Time for a client to show what it speaks: HTTP/2's preface with the header of a frame, or anything else.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the client has said something since it was last asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Whether it has; from now on it has not.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A socket under watch.
pub(super) struct Guard<S> {
    socket: S,
    heard: Heard,
    conduct: Conduct,
    /// Gone once the client has greeted.
    greeting: Option<Pin<Box<Sleep>>>,
    offence: Option<Offence>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards a socket that was just accepted; `ping_min_time` is the least time between a client's pings, zero for
    /// none.
    pub(super) fn new(socket: S, ping_min_time: Duration) -> Guard<S> {
        Guard {
            socket,
            heard: Heard::default(),
            conduct: Conduct::new(ping_min_time, Instant::now()),
            greeting: Some(Box::pin(tokio::time::sleep(GREETING_TIMEOUT))),
            offence: None,
        }
    }

    /// What is heard of the client.
    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// Tells the client why, as far as that is possible without waiting, and ends the writing side.
    fn part(&mut self, cx: &mut Context<'_>, offence: Offence) -> io::Error {
        self.offence = Some(offence);
        tracing::warn!(reason = offence.text(), "closing a client connection that misbehaves");
        if let Some(goaway) = self.conduct.goaway(offence) {
            // Cut short or refused, it makes no difference to a connection that ends here.
            let _ = Pin::new(&mut self.socket).poll_write(cx, &goaway);
        }
        let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
        refused(offence)
    }

    /// `Pending`, unless the client has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(greeting) = &mut self.greeting else { return Poll::Pending };
        ready!(greeting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client said nothing")))
    }
}

fn refused(offence: Offence) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, offence.text())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(offence) = this.offence {
            return Poll::Ready(Err(refused(offence)));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return this.poll_silence(cx),
        }
        let received = buf.filled().get(before..).unwrap_or_default();
        if !received.is_empty() {
            this.heard.note();
        }
        if let Err(offence) = this.conduct.received(received, Instant::now) {
            buf.set_filled(before);
            return Poll::Ready(Err(this.part(cx, offence)));
        }
        if this.greeting.is_some() && this.conduct.has_greeted() {
            this.greeting = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(offence) = this.offence {
            return Poll::Ready(Err(refused(offence)));
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, buf))?;
        this.conduct.sent(buf.get(..written).unwrap_or(buf));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(offence) = this.offence {
            return Poll::Ready(Err(refused(offence)));
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = buf.get(..left).unwrap_or(buf);
            this.conduct.sent(part);
            left -= part.len();
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn guarded() -> (DuplexStream, Guard<DuplexStream>) {
        let (client, server) = duplex(64 * 1024);
        (client, Guard::new(server, Duration::from_secs(5)))
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn an_offender_is_told_by_a_goaway_and_closed() {
        run(async {
            let (mut client, mut server) = guarded();
            client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
            let mut buf = [0; 1024];
            let read = server.read(&mut buf).await.unwrap();
            assert_eq!(&buf[..read], [PREFACE, SETTINGS].concat());
            server.write_all(SETTINGS).await.unwrap();
            client.write_all(&PING.repeat(4)).await.unwrap();
            let error = server.read(&mut buf).await.unwrap_err();
            assert_eq!(error.to_string(), "too_many_pings");
            assert!(server.read(&mut buf).await.is_err(), "it stays closed");
            assert!(server.write_all(SETTINGS).await.is_err());
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
            let goaway = [&[0, 0, 22, 7, 0, 0, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 0, 11], b"too_many_pings"];
            assert_eq!(told, [SETTINGS, &goaway.concat()].concat());
        });
    }

    #[test]
    fn nothing_is_put_into_the_middle_of_a_frame_that_goes_out() {
        run(async {
            let (mut client, mut server) = guarded();
            client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
            let mut buf = [0; 1024];
            server.read_exact(&mut buf[..33]).await.unwrap();
            server.write_all(&PING[..12]).await.unwrap();
            client.write_all(&PING.repeat(4)).await.unwrap();
            assert!(server.read(&mut buf).await.is_err());
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
            assert_eq!(told, &PING[..12]);
        });
    }

    #[test]
    fn who_says_nothing_or_half_a_preface_is_closed() {
        run(async {
            let mut buf = [0; 1024];
            for said in [&b""[..], &PREFACE[..23], PREFACE] {
                let (mut client, mut server) = guarded();
                server.greeting = Some(Box::pin(tokio::time::sleep(Duration::from_millis(1))));
                client.write_all(said).await.unwrap();
                server.read_exact(&mut buf[..said.len()]).await.unwrap();
                let error = server.read(&mut buf).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            }
        });
    }

    #[test]
    fn who_has_greeted_may_be_idle() {
        run(async {
            let mut buf = [0; 1024];
            for said in [&[PREFACE, SETTINGS].concat()[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/1"] {
                let (mut client, mut server) = guarded();
                client.write_all(said).await.unwrap();
                server.read_exact(&mut buf[..said.len()]).await.unwrap();
                assert!(server.greeting.is_none());
            }
        });
    }
}
