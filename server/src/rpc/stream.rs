//! An HTTP/2 stream that goes the long way: the door's answer, sent piece by piece as the client takes it.
//!
//! A stream that its client resets is given up where it is, and with it whatever was being done for it. So is one whose
//! deadline is over while its client takes nothing.

use super::body::{Body, RequestStream, Source};
use super::door::Door;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

/// Answers a request.
pub(super) async fn serve(door: Door, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let answered = {
        let request = request.map(|stream| Source::Stream(RequestStream::new(stream)));
        let mut answer = pin!(door.answer(request));
        poll_fn(|cx| {
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            answer.as_mut().poll(cx).map(Some)
        })
        .await
    };
    let Some(response) = answered else { return };
    let (mut head, body) = response.into_parts();
    // they speak of connections of another kind, and h2 takes none of them
    for of_http1 in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        head.headers.remove(of_http1);
    }
    let ended = body.is_end_stream();
    // an error says that the stream is gone
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ended) else { return };
    if !ended {
        let mut outgoing = Outgoing { body, stream, waiting: None };
        if let Err(reason) = poll_fn(|cx| outgoing.poll(cx)).await {
            outgoing.stream.send_reset(reason);
        }
    }
}

/// What a stream is reset with that is gone, or whose body failed.
const BROKEN: Reason = Reason::INTERNAL_ERROR;

/// A body on its way out.
struct Outgoing {
    body: Body,
    stream: SendStream<Bytes>,
    /// Data that no window is open for yet.
    waiting: Option<Bytes>,
}

impl Outgoing {
    /// Sends all of it, or tells what the stream is to be reset with.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(BROKEN));
            }
            if self.waiting.is_some() {
                match self.poll_window(cx) {
                    Poll::Ready(opened) => opened?,
                    // the status would wait behind the data, for a window that may never open
                    Poll::Pending if self.body.is_late(cx) => return Poll::Ready(Err(Reason::CANCEL)),
                    Poll::Pending => return Poll::Pending,
                }
                let data = self.waiting.take().unwrap_or_default();
                let ended = self.body.is_end_stream();
                self.stream.send_data(data, ended).map_err(|_| BROKEN)?;
                if ended {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(|_| BROKEN)),
                Some(Err(_)) => return Poll::Ready(Err(BROKEN)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        // a little is asked for, so that streams that wait do not hold the connection's window
                        self.stream.reserve_capacity(1);
                        self.waiting = Some(data);
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(self.end(trailers));
                        }
                    }
                },
            }
        }
    }

    fn end(&mut self, trailers: HeaderMap) -> Result<(), Reason> {
        self.stream.reserve_capacity(0);
        self.stream.send_trailers(trailers).map_err(|_| BROKEN)
    }

    /// Waits until something may be sent.
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(BROKEN)),
            }
        }
        Poll::Ready(Ok(()))
    }
}
