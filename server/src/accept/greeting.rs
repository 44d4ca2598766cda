//! Which HTTP a client speaks, from the first bytes it sends; they are put back for whoever reads on.

use bytes::{Buf as _, Bytes};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What an HTTP/2 client says first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/2.
    Http2,
    /// Anything else: HTTP/1, or something that its parser will refuse.
    Other,
}

/// Reads until it is clear what the client speaks.
///
/// # Errors
/// The socket's.
pub(super) async fn listen<S: AsyncRead + Unpin>(mut socket: S) -> io::Result<(Spoken, Greeted<S>)> {
    let mut said = [0; PREFACE.len()];
    let mut read = 0;
    while read < said.len() && PREFACE.starts_with(&said[..read]) {
        match socket.read(&mut said[read..]).await? {
            0 => break,
            more => read += more,
        }
    }
    let spoken = if said == *PREFACE { Spoken::Http2 } else { Spoken::Other };
    Ok((spoken, Greeted { said: Bytes::copy_from_slice(&said[..read]), socket }))
}

/// A socket whose first bytes were read already, and are read again.
pub(super) struct Greeted<S> {
    said: Bytes,
    socket: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.said.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let bytes = this.said.len().min(buf.remaining());
        buf.put_slice(&this.said[..bytes]);
        this.said.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
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
    use tokio::io::{AsyncWriteExt as _, duplex};

    #[test]
    fn what_a_client_speaks_shows_in_its_first_bytes_and_all_of_them_are_read_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let http2 = [PREFACE, &b"more"[..]].concat();
        let cases = [
            (&http2[..], Spoken::Http2),
            (b"GET / HTTP/1.1\r\n\r\n", Spoken::Other),
            (b"PRI * HTTP/1.1\r\n\r\n", Spoken::Other),
            (b"PRI", Spoken::Other),
            (b"", Spoken::Other),
        ];
        for (said, expected) in cases {
            for piece in [1, 7, 100] {
                runtime.block_on(async {
                    let (mut client, server) = duplex(1_000);
                    let (spoken, mut greeted) = tokio::join!(listen(server), async {
                        for part in said.chunks(piece) {
                            client.write_all(part).await.unwrap();
                        }
                        drop(client);
                    })
                    .0
                    .unwrap();
                    let mut again = Vec::new();
                    greeted.read_to_end(&mut again).await.unwrap();
                    assert_eq!((spoken, &again[..]), (expected, said));
                });
            }
        }
    }
}
