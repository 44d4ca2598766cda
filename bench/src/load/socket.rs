//! A socket on which small messages share a write.
//!
//! h2 gives a message of 256 bytes or more, with the head of its frame, a write of its own if the socket can write from
//! several places at once: a system call for each put. It asks for that once, when a connection begins. To a socket that
//! cannot, messages below 1,024 bytes are copied behind one another and go out together, which costs far less. So this one
//! says no when it is asked, and from then on what is true, for the larger ones.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client writes its greeting first; then h2 asks; then it writes the first frame.
const WRITES_BEFORE_ASKED: u8 = 1;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Gathering<S> {
    socket: S,
    writes: u8,
}

impl<S> Gathering<S> {
    pub(super) fn new(socket: S) -> Gathering<S> {
        Gathering { socket, writes: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.writes = self.writes.saturating_add(1);
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        places: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, places)
    }

    fn is_write_vectored(&self) -> bool {
        self.writes > WRITES_BEFORE_ASKED && self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::wire::{H2, Wire};
    use crate::null;
    use coffer_server::proto::etcdserverpb as pb;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::io::DuplexStream;
    use tokio::task::{LocalSet, spawn_local};

    /// Counts the writes that it is given; says that it can write from several places, as TCP does.
    struct Counting(DuplexStream, Rc<Cell<u32>>);

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_read(context, into)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            self.1.set(self.1.get() + 1);
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            places: &[IoSlice<'_>],
        ) -> Poll<Result<usize>> {
            self.1.set(self.1.get() + 1);
            Pin::new(&mut self.0).poll_write_vectored(context, places)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }
    }

    /// Writes for 20 puts that are sent at once.
    async fn writes(value_bytes: usize, gathering: bool) -> u32 {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let count = Rc::new(Cell::new(0));
        spawn_local(async move { drop(null::speak_h2(theirs).await) });
        let origin = http::Uri::from_static("http://localhost:1");
        let counting = Counting(ours, Rc::clone(&count));
        let h2 = if gathering {
            H2::greet(Gathering::new(counting), &origin).await.unwrap()
        } else {
            H2::greet(counting, &origin).await.unwrap()
        };
        let put = move |mut wire: Wire| async move {
            let value = vec![b'v'; value_bytes].into();
            wire.put(pb::PutRequest { key: "k".into(), value, ..Default::default() }).await.unwrap();
        };
        let wire = Wire::H2(h2);
        put(wire.clone()).await;
        let before = count.get();
        let puts: Vec<_> = (0..20).map(|_| spawn_local(put(wire.clone()))).collect();
        for put in puts {
            put.await.unwrap();
        }
        count.get() - before
    }

    #[test]
    fn small_messages_share_a_write_and_large_ones_do_not_take_two() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            assert!(writes(300, false).await >= 20, "h2 gathers by itself now");
            assert!(writes(300, true).await < 10, "a write for each");
            let (large, gathered) = (writes(2_000, false).await, writes(2_000, true).await);
            assert!(gathered <= large, "{gathered} writes instead of {large}");
        });
    }
}
