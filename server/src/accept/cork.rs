//! Gathers what h2 writes while it works, so that it leaves in one call.
//!
//! h2 hands a frame with more than a few hundred bytes to the socket before it makes the next one: an answer each, a system
//! call each, and those are half of what a range of one key costs. Behind a cork they wait until whoever polls the connection
//! has nothing more to do, and calls [`Cork::pull`].
//!
//! Rules kept here: no more than 64 KiB wait; what does not fit, or is large, goes to the socket with what waits before it, uncopied,
//! and is held up by the socket as without a cork. Nothing is said to be written that is neither gathered nor the system's.

use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait at most.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are worth a system call of their own, rather than a copy.
const LARGE_BYTES: usize = 8 * 1024;
/// Bytes of room that a connection keeps while nothing waits.
const KEPT_BYTES: usize = 16 * 1024;
/// Slices written at once.
const SLICES: usize = 16;

/// The socket behind the cork, as h2 has it.
pub struct Corked<S>(Arc<Mutex<Bottle<S>>>);

/// The end that pulls the cork.
pub struct Cork<S>(Arc<Mutex<Bottle<S>>>);

/// What both ends share; they are used by one task, one after the other.
struct Bottle<S> {
    socket: S,
    waiting: Vec<u8>,
    /// So many of them are the system's already.
    gone: usize,
}

/// Puts a cork on a socket.
pub fn cork<S>(socket: S) -> (Corked<S>, Cork<S>) {
    let bottle = Arc::new(Mutex::new(Bottle { socket, waiting: Vec::new(), gone: 0 }));
    (Corked(Arc::clone(&bottle)), Cork(bottle))
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Writes what waits.
    ///
    /// # Errors
    /// The socket's.
    pub fn pull(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().pour(cx)
    }
}

impl<S: AsyncWrite + Unpin> Bottle<S> {
    fn pour(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.waiting.len() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.waiting[self.gone..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += written;
        }
        self.empty();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn empty(&mut self) {
        self.gone = 0;
        if self.waiting.capacity() > KEPT_BYTES {
            self.waiting = Vec::new();
        } else {
            self.waiting.clear();
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        loop {
            if bytes < LARGE_BYTES && self.waiting.len() - self.gone + bytes <= WAITING_BYTES_MAX {
                bufs.iter().for_each(|buf| self.waiting.extend_from_slice(buf));
                return Poll::Ready(Ok(bytes));
            }
            let before = self.waiting.len() - self.gone;
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = IoSlice::new(&self.waiting[self.gone..]);
            let places = slices.iter_mut().skip(1).zip(bufs);
            let used = 1 + places.map(|(place, buf)| *place = IoSlice::new(buf)).count();
            let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..used]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written < before {
                self.gone += written;
                continue;
            }
            self.empty();
            if written > before {
                return Poll::Ready(Ok(written - before));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Left to [`Cork::pull`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bottle = self.0.lock();
        ready!(bottle.pour(cx))?;
        Pin::new(&mut bottle.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn what_is_written_leaves_when_the_cork_is_pulled() {
        run(async {
            let (mut client, server) = duplex(1_000);
            let (mut corked, cork) = cork(server);
            corked.write_all(b"one ").await.unwrap();
            corked.flush().await.unwrap();
            let two = [IoSlice::new(b"two "), IoSlice::new(b"three")];
            assert_eq!(corked.write_vectored(&two).await.unwrap(), 9);
            let mut read = [0; 100];
            assert!(client.read(&mut read).now_or_never().is_none());
            poll_fn(|cx| cork.pull(cx)).await.unwrap();
            let bytes = client.read(&mut read).await.unwrap();
            assert_eq!(&read[..bytes], b"one two three");
        });
    }

    #[test]
    fn all_of_it_arrives_in_order_however_little_the_socket_takes() {
        run(async {
            for room in [1, 1_000, 100_000] {
                let (mut client, server) = duplex(room);
                let (mut corked, _cork) = cork(server);
                let whole: Vec<u8> = (0..300_000_u32).map(|number| (number / 7) as u8).collect();
                let sent = whole.clone();
                let send = async move {
                    let mut left = &sent[..];
                    for size in (0..).map(|round: usize| 1 + round * round * 37 % 90_000) {
                        if left.is_empty() {
                            break;
                        }
                        let (piece, rest) = left.split_at(size.min(left.len()));
                        corked.write_all(piece).await.unwrap();
                        left = rest;
                    }
                    corked.shutdown().await.unwrap();
                };
                let receive = async {
                    let mut read = Vec::new();
                    client.read_to_end(&mut read).await.unwrap();
                    read
                };
                let ((), read) = tokio::join!(send, receive);
                assert!(read == whole, "room for {room}: {} of {} bytes", read.len(), whole.len());
            }
        });
    }

    #[test]
    fn no_more_waits_than_is_allowed() {
        run(async {
            let (_client, server) = duplex(10);
            let (mut corked, cork) = cork(server);
            let piece = vec![7; 5_000];
            let mut taken = 0;
            while let Some(bytes) = corked.write(&piece).now_or_never() {
                taken += bytes.unwrap();
                assert!(taken <= WAITING_BYTES_MAX + 10);
            }
            assert!(taken > WAITING_BYTES_MAX - 5_000);
            assert!(poll_fn(|cx| cork.pull(cx)).now_or_never().is_none());
        });
    }
}
