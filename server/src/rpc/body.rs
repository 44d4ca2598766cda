//! What comes in and goes out: counts bytes and messages, sees how a call ended, ends a stream at its deadline.
//!
//! A call counts as handled when its trailers go out; one whose body is dropped before that was given up by its client.

use crate::metrics::{Call, Count, Method, Metrics, Shape};
use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Sleep;
use tonic::{Code, Status};

/// Bytes before each gRPC message: a flag and its length.
const PREFIX_BYTES: usize = 5;

/// A response's body.
pub struct Body {
    inner: tonic::body::Body,
    call: Option<Outgoing>,
}

struct Outgoing {
    metrics: Arc<Metrics>,
    call: Option<Call<Arc<Metrics>>>,
    /// When a stream must end; unary handlers have met theirs before there is a body.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// The body of an answer that is not gRPC.
    pub fn plain(inner: tonic::body::Body) -> Body {
        Body { inner, call: None }
    }

    /// The body of a gRPC answer. One that has its status in the headers is over at once.
    pub(super) fn of_call(
        response: http::Response<tonic::body::Body>,
        metrics: Arc<Metrics>,
        call: Call<Arc<Metrics>>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> http::Response<Body> {
        let code = response.headers().contains_key("grpc-status").then(|| code(response.headers()));
        response.map(|inner| match code {
            Some(code) => {
                call.finish(code);
                Body::plain(inner)
            }
            None => Body { inner, call: Some(Outgoing { metrics, call: Some(call), deadline }) },
        })
    }

    /// Whether the call's deadline is over: if so it has been handled, and nothing more comes of it.
    pub(super) fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(out) = self.call.as_mut() else { return false };
        if !out.is_late(cx) {
            return false;
        }
        if let Some(call) = out.call.take() {
            call.finish(Code::DeadlineExceeded);
        }
        self.inner = tonic::body::Body::empty();
        self.call = None;
        true
    }
}

/// The status that headers or trailers tell.
fn code(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Unknown, |value| Code::from_bytes(value.as_bytes()))
}

impl Outgoing {
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }

    fn look_at(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let sent = messages(data);
            if let Some(call) = &self.call {
                call.sent(sent as u64);
            }
            let bytes = data.len().saturating_sub(sent * PREFIX_BYTES);
            self.metrics.add(Count::GrpcBytesSent, bytes as u64);
        }
        if let Some(trailers) = frame.trailers_ref()
            && let Some(call) = self.call.take()
        {
            call.finish(code(trailers));
        }
    }
}

/// Messages that a chunk holds; tonic's chunks are whole messages.
fn messages(mut data: &[u8]) -> usize {
    let mut count = 0;
    while let Some((prefix, rest)) = data.split_first_chunk::<PREFIX_BYTES>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        count += 1;
        data = rest.get(length..).unwrap_or_default();
    }
    count
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_late(cx) {
            let late = Status::deadline_exceeded("context deadline exceeded");
            let mut trailers = HeaderMap::new();
            let told = late.add_header(&mut trailers);
            return Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))));
        }
        let Some(out) = &mut this.call else { return Pin::new(&mut this.inner).poll_frame(cx) };
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            out.look_at(frame);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body.
pub(super) enum Source {
    /// Of a connection that hyper speaks on: HTTP/1.
    Hyper(hyper::body::Incoming),
    /// Of an HTTP/2 stream.
    Stream(RequestStream),
}

/// What a client sends on an HTTP/2 stream: data, then trailers if there are any.
pub(super) struct RequestStream {
    stream: RecvStream,
    data_done: bool,
}

impl RequestStream {
    pub(super) fn new(stream: RecvStream) -> RequestStream {
        RequestStream { stream, data_done: false }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let taken = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(taken.map(|()| Frame::data(data))));
                }
                // whoever reset it without an error wants no answer to the rest
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_done = true,
            }
        }
        self.stream
            .poll_trailers(cx)
            .map(|trailers| trailers.transpose().map(|each| each.map(Frame::trailers)))
    }
}

impl HttpBody for Source {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Source::Hyper(body) => Pin::new(body).poll_frame(cx).map(|frame| frame.map(|each| Ok(each?))),
            Source::Stream(stream) => stream.poll_frame(cx).map(|frame| frame.map(|each| Ok(each?))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Hyper(body) => body.is_end_stream(),
            Source::Stream(stream) => stream.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Hyper(body) => body.size_hint(),
            Source::Stream(_) => SizeHint::default(),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// A request's body, counted.
    pub(super) struct Incoming {
        #[pin]
        inner: Source,
        metrics: Arc<Metrics>,
        method: Method,
    }
}

impl Incoming {
    pub(super) fn new(inner: Source, metrics: Arc<Metrics>, method: Method) -> Incoming {
        Incoming { inner, metrics, method }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = this.inner.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            // A message's prefix is counted with it where there are several to a stream: there it is noise.
            let prefix = if this.method.shape() == Shape::BidiStream { 0 } else { PREFIX_BYTES };
            this.metrics.add(Count::GrpcBytesReceived, data.len().saturating_sub(prefix) as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::messages;

    #[test]
    fn messages_of_a_chunk_are_counted_by_their_prefixes() {
        assert_eq!(messages(&[]), 0);
        assert_eq!(messages(&[0, 0, 0, 0, 2, 9, 9, 0, 0, 0, 0, 0]), 2);
        assert_eq!(messages(&[0, 0, 0, 0, 200, 9]), 1);
    }
}
