//! The short way of Range, Put and Txn: from an HTTP/2 stream to the handler and back, with nothing in between.
//!
//! ```text
//! stream > metadata, deadline > message > handler ─┬─ answer is known at once ──────────────> frames
//!                               (if it is all there)  └─ from the log: what is to be done with it stands in the slot ─> frames
//! ```
//!
//! The handlers are those of the other door, and so are limits, metadata, errors, metrics and deadlines. What needs to wait for
//! anything else than the log (a message in several parts, a long or cold range, a full quota, a client that has not taken its
//! answers, see [`super::undelivered`]) goes on in a task of its own, which ends when the client gives the stream up. A put that
//! is given up after it was handed to the log is written all the same, and counts as canceled.

use super::door::{Link, is_grpc, timeout};
use super::kv::{AtOnce, KvService, PutBegun, TxnBegun};
use super::status::Error;
use super::undelivered::{Held, SMALL_BYTES, Size, WaitsFor};
use crate::metrics::{Call, Count, Method, Metrics};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::Kv as _;
use crate::serving::{Serving, Ticket};
use bytes::{BufMut as _, Bytes, BytesMut};
use coffer_raftlog::proposal::Outcome;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;
use tonic::{Code, Status};

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// The longest message that Go's gRPC sends.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// The method of a request that goes this way.
pub(super) fn method(request: &Request<RecvStream>) -> Option<Method> {
    let method = match request.uri().path() {
        "/etcdserverpb.KV/Range" => Method::Range,
        "/etcdserverpb.KV/Put" => Method::Put,
        "/etcdserverpb.KV/Txn" => Method::Txn,
        _ => return None,
    };
    let plain = request.headers().get("grpc-encoding").is_none_or(|encoding| encoding == "identity");
    (plain && is_grpc(request.headers()) && request.method() == http::Method::POST).then_some(method)
}

/// Serves a request. Called on the serving thread, within its runtime.
pub(super) fn serve(
    link: &Arc<Link>,
    method: Method,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let counters = Counters(Arc::clone(&link.inner.serving));
    let call = Call::start(counters, method);
    let mut exchange = Exchange {
        link: Arc::clone(link),
        method,
        deadline: Deadline::None,
        served: call.began(),
        call,
        respond,
        message_bytes: 0,
        size: Size::Small,
        held: None,
    };
    match timeout(&head.headers) {
        Ok(None) => {}
        Ok(Some(timeout)) => exchange.deadline = Deadline::At(exchange.call.began() + timeout),
        Err(status) => return exchange.refuse(&status),
    }
    exchange.call.received();
    if let Err(error) = link.inner.check(&head.headers, method) {
        return exchange.refuse(&error.status());
    }
    let mut message = Incoming::new(body, link.inner.message_bytes_max);
    match message.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(message)) => exchange.go(message),
        Poll::Ready(Err(failed)) => exchange.failed(failed),
        Poll::Pending => exchange.wait_for(message),
    }
}

/// The counters that a call keeps hold of.
struct Counters(Arc<Serving>);

impl Deref for Counters {
    type Target = Metrics;

    fn deref(&self) -> &Metrics {
        &self.0.shared.metrics
    }
}

/// When the client wants no answer any more.
#[derive(Clone, Copy)]
enum Deadline {
    None,
    At(Instant),
}

impl Deadline {
    /// What came of `future` before it.
    async fn of<T>(self, future: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match self {
            Deadline::None => future.await,
            Deadline::At(at) => match tokio::time::timeout_at(at.into(), future).await {
                Ok(told) => told,
                Err(_) => Err(Error::DeadlineExceeded.into()),
            },
        }
    }
}

/// A request being served.
struct Exchange {
    link: Arc<Link>,
    method: Method,
    deadline: Deadline,
    /// Dropped unfinished, it counts as canceled.
    call: Call<Counters>,
    respond: SendResponse<Bytes>,
    message_bytes: usize,
    /// When it no longer waited for room.
    served: Instant,
    /// What its answer may become.
    size: Size,
    /// What its answer holds before it is made.
    held: Option<Held>,
}

impl Exchange {
    /// The message is there.
    fn go(mut self, message: Bytes) {
        self.message_bytes = message.len();
        self.metrics().add(Count::GrpcBytesReceived, message.len() as u64);
        match self.method {
            Method::Range => self.decoded(message, Exchange::range),
            Method::Put => self.decoded(message, Exchange::put),
            _ => self.decoded(message, Exchange::txn),
        }
    }

    fn decoded<T: Message + Default>(self, message: Bytes, go: impl FnOnce(Exchange, T)) {
        match T::decode(message) {
            Ok(request) => go(self, request),
            Err(error) => self.refuse(&Status::internal(error.to_string())),
        }
    }

    /// Goes on once there is room for the answer.
    fn admit(mut self, size: Size, go: impl FnOnce(Exchange) + Send + 'static) {
        self.size = size;
        let undelivered = &self.link.undelivered;
        match size {
            Size::Small => go(self),
            Size::Short if undelivered.has_room() => go(self),
            Size::Short => self.queue(WaitsFor::Short, go),
            Size::Long => {
                self.held = undelivered.try_long();
                if self.held.is_some() { go(self) } else { self.queue(WaitsFor::Long, go) }
            }
        }
    }

    /// The client has not taken its answers.
    fn queue(mut self, what_for: WaitsFor, go: impl FnOnce(Exchange) + Send + 'static) {
        let Some(mut waiting) = self.link.undelivered.wait(what_for) else { return self.refuse_to_wait() };
        if !waiting.holds(self.message_bytes) {
            return self.refuse_to_wait();
        }
        tokio::spawn(async move {
            let room = self.deadline.of(async { Ok(waiting.over().await) });
            let room = tokio::select! {
                room = room => room,
                _ = poll_fn(|cx| self.respond.poll_reset(cx)) => return,
            };
            match room {
                Ok(held) => {
                    self.held = held;
                    self.served = Instant::now();
                    go(self);
                }
                Err(status) => self.refuse(&status),
            }
        });
    }

    fn refuse_to_wait(self) {
        self.refuse(&Status::resource_exhausted("coffer: too many requests wait on this connection"));
    }

    /// It takes time from here on: what a short answer is expected to be is held meanwhile.
    fn expect(&mut self) {
        if self.size == Size::Short {
            self.held = Some(self.link.undelivered.expect_short());
        }
    }

    fn range(self, request: pb::RangeRequest) {
        self.admit(Size::of_range(&request), |exchange| exchange.begin_range(request));
    }

    fn put(self, request: pb::PutRequest) {
        self.admit(Size::of_put(&request), |exchange| exchange.begin_put(request));
    }

    fn txn(self, request: pb::TxnRequest) {
        self.admit(Size::of_txn(&request), |exchange| exchange.begin_txn(request));
    }

    fn begin_range(self, request: pb::RangeRequest) {
        match self.kv().range_at_once(request) {
            AtOnce::Told(told) => self.end(told),
            AtOnce::Not(request) => self.long(move |kv| async move {
                let told = kv.range(tonic::Request::new(request)).await;
                told.map(tonic::Response::into_inner)
            }),
        }
    }

    fn begin_put(self, request: pb::PutRequest) {
        if !self.kv().has_room_for_put(&request) {
            return self.long(move |kv| async move {
                let told = kv.put(tonic::Request::new(request)).await;
                told.map(tonic::Response::into_inner)
            });
        }
        match self.kv().begin_put(request) {
            Ok(PutBegun { ticket, told }) => {
                self.after_log(ticket, move |kv, outcome| kv.end_put(told, outcome));
            }
            Err(status) => self.refuse(&status),
        }
    }

    fn begin_txn(self, request: pb::TxnRequest) {
        if !self.kv().has_room_for_txn(&request) {
            return self.long(move |kv| async move {
                let told = kv.txn(tonic::Request::new(request)).await;
                told.map(tonic::Response::into_inner)
            });
        }
        match self.kv().begin_txn(request) {
            Ok(Ok(TxnBegun { ticket, told })) => {
                self.after_log(ticket, move |kv, outcome| kv.end_txn(&told, outcome));
            }
            Ok(Err(reads)) => self.long(move |kv| async move { kv.read_txn(reads).await }),
            Err(status) => self.refuse(&status),
        }
    }

    fn kv(&self) -> KvService {
        KvService { serving: Arc::clone(&self.link.inner.serving) }
    }

    fn metrics(&self) -> &Metrics {
        &self.link.inner.serving.shared.metrics
    }

    /// The answer will come from the log.
    fn after_log<T, F>(mut self, ticket: Ticket, end: F)
    where
        T: Message,
        F: FnOnce(&KvService, Outcome) -> Result<T, Status> + Send + 'static,
    {
        self.expect();
        let patience = self.served + self.link.inner.serving.shared.request_timeout;
        let (deadline, late) = match self.deadline {
            Deadline::At(at) if at < patience => (at, Error::DeadlineExceeded),
            _ => (patience, Error::Timeout),
        };
        ticket.then(deadline, move |outcome| match outcome {
            Some(outcome) => {
                let told = end(&self.kv(), outcome);
                self.end(told);
            }
            None => self.refuse(&late.status()),
        });
    }

    /// It takes longer, in a task of its own.
    fn long<T, F>(mut self, work: impl FnOnce(KvService) -> F + Send + 'static)
    where
        T: Message,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.expect();
        let work = work(self.kv());
        tokio::spawn(async move {
            let told = self.deadline.of(work);
            tokio::select! {
                told = told => self.end(told),
                _ = poll_fn(|cx| self.respond.poll_reset(cx)) => {}
            }
        });
    }

    /// The message comes in several parts.
    fn wait_for(self, mut message: Incoming) {
        let Some(mut waiting) = self.link.undelivered.wait(WaitsFor::Message) else {
            return self.refuse_to_wait();
        };
        tokio::spawn(async move {
            let whole = poll_fn(|cx| match message.poll(cx) {
                Poll::Pending if !waiting.holds(message.bytes().len()) => Poll::Ready(Ok(None)),
                polled => polled.map(|message| Ok(Some(message))),
            });
            let late = self.deadline.of(whole).await;
            drop(waiting);
            match late {
                Ok(Some(Ok(message))) => self.go(message),
                Ok(Some(Err(failed))) => self.failed(failed),
                Ok(None) => self.refuse_to_wait(),
                Err(status) => self.refuse(&status),
            }
        });
    }

    fn failed(self, failed: Failed) {
        match failed {
            Failed::Refused(status) => self.refuse(&status),
            Failed::Gone => {}
        }
    }

    /// Sends the answer, or why there is none.
    fn end<T: Message>(self, told: Result<T, Status>) {
        match told {
            Ok(answer) => self.answer(&answer),
            Err(status) => self.refuse(&status),
        }
    }

    fn answer(mut self, answer: &impl Message) {
        let message = match framed(answer) {
            Ok(message) => message,
            Err(status) => return self.refuse(&status),
        };
        let bytes = message.len() - PREFIX_BYTES;
        self.link.inner.tell_if_slow(self.method, self.call.began().elapsed());
        if self.send(message).is_ok() {
            self.metrics().add(Count::GrpcBytesSent, bytes as u64);
            self.call.sent(1);
            self.call.finish(Code::Ok);
        }
    }

    fn send(&mut self, message: Bytes) -> Result<(), h2::Error> {
        let mut stream = self.respond.send_response(head(), false)?;
        if message.len() <= SMALL_BYTES {
            stream.send_data(message, false)?;
        } else {
            let held = self.held.take().unwrap_or_else(|| Held::of_answer(&self.link.undelivered));
            for piece in held.pieces(message) {
                stream.send_data(piece, false)?;
            }
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)
    }

    /// Answers with a status alone.
    fn refuse(mut self, status: &Status) {
        self.link.inner.tell_if_slow(self.method, self.call.began().elapsed());
        let mut response = head();
        // text that no header can hold leaves the code
        if status.add_header(response.headers_mut()).is_err() {
            response.headers_mut().insert("grpc-status", HeaderValue::from(status.code() as i32));
        }
        if self.respond.send_response(response, true).is_ok() {
            self.call.finish(status.code());
        }
    }
}

/// A message behind its prefix.
fn framed(answer: &impl Message) -> Result<Bytes, Status> {
    let bytes = answer.encoded_len();
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= ANSWER_BYTES_MAX).ok_or_else(|| {
        Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({bytes} vs. {ANSWER_BYTES_MAX})"
        ))
    })?;
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    out.put_u8(0);
    out.put_u32(length);
    answer.encode(&mut out).map_err(|error| Status::internal(error.to_string()))?;
    Ok(out.freeze())
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}

/// Why there is no message.
enum Failed {
    /// It is not one that is taken.
    Refused(Status),
    /// The stream was reset.
    Gone,
}

/// A message on its way in. It is whole when the client has ended its side of the stream, as with the other door; what
/// comes behind it is not looked at.
struct Incoming {
    stream: RecvStream,
    bytes_max: usize,
    parts: Parts,
}

enum Parts {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Incoming {
    fn new(stream: RecvStream, bytes_max: usize) -> Incoming {
        Incoming { stream, bytes_max, parts: Parts::None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Failed>> {
        loop {
            let Some(part) = ready!(self.stream.poll_data(cx)) else { return Poll::Ready(self.whole()) };
            let Ok(part) = part else { return Poll::Ready(Err(Failed::Gone)) };
            if self.stream.flow_control().release_capacity(part.len()).is_err() {
                return Poll::Ready(Err(Failed::Gone));
            }
            self.add(part);
            if let Some(status) = self.offence() {
                return Poll::Ready(Err(Failed::Refused(status)));
            }
        }
    }

    fn add(&mut self, part: Bytes) {
        if part.is_empty() || self.wanted().is_some_and(|wanted| self.bytes().len() >= wanted) {
            return;
        }
        self.parts = match std::mem::replace(&mut self.parts, Parts::None) {
            Parts::None => Parts::One(part),
            Parts::One(first) => {
                let mut many = BytesMut::from(first);
                many.extend_from_slice(&part);
                Parts::Many(many)
            }
            Parts::Many(mut many) => {
                many.extend_from_slice(&part);
                Parts::Many(many)
            }
        };
    }

    fn bytes(&self) -> &[u8] {
        match &self.parts {
            Parts::None => &[],
            Parts::One(part) => part,
            Parts::Many(parts) => parts,
        }
    }

    /// How long the message says it is.
    fn length(&self) -> Option<usize> {
        let (prefix, _) = self.bytes().split_first_chunk::<PREFIX_BYTES>()?;
        Some(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize)
    }

    fn wanted(&self) -> Option<usize> {
        Some(self.length()? + PREFIX_BYTES)
    }

    /// What its first bytes say against it.
    fn offence(&self) -> Option<Status> {
        let length = self.length()?;
        match self.bytes().first() {
            Some(0) if length <= self.bytes_max => None,
            Some(0) => Some(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({length} vs. {})",
                self.bytes_max
            ))),
            Some(1) => Some(Status::internal(
                "protocol error: received message with compressed-flag but no grpc-encoding was specified",
            )),
            flag => Some(Status::internal(format!(
                "protocol error: received message with invalid compression flag: {} (valid flags are 0 and 1), while sending request",
                flag.copied().unwrap_or_default()
            ))),
        }
    }

    /// The client has ended its side.
    fn whole(&mut self) -> Result<Bytes, Failed> {
        let bytes = match std::mem::replace(&mut self.parts, Parts::None) {
            Parts::None => return Err(Failed::Refused(Status::internal("Missing request message."))),
            Parts::One(part) => part,
            Parts::Many(parts) => parts.freeze(),
        };
        let length = bytes
            .split_first_chunk::<PREFIX_BYTES>()
            .map(|([_, a, b, c, d], _)| u32::from_be_bytes([*a, *b, *c, *d]) as usize + PREFIX_BYTES);
        match length {
            Some(length) if length <= bytes.len() => Ok(bytes.slice(PREFIX_BYTES..length)),
            _ => Err(Failed::Refused(Status::internal("Unexpected EOF decoding stream."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;
    use prost::DecodeError;
    use prost::encoding::{DecodeContext, WireType};

    /// A message that says it is so long.
    #[derive(Debug, Default)]
    struct Said(usize);

    impl Message for Said {
        fn encode_raw(&self, _: &mut impl bytes::BufMut) {}

        fn merge_field(
            &mut self,
            _: u32,
            _: WireType,
            _: &mut impl Buf,
            _: DecodeContext,
        ) -> Result<(), DecodeError> {
            Ok(())
        }

        fn encoded_len(&self) -> usize {
            self.0
        }

        fn clear(&mut self) {}
    }

    #[test]
    fn an_answer_too_long_for_go_is_refused_in_its_words() {
        for bytes in [1 << 31, 1 << 40] {
            let status = framed(&Said(bytes)).unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            let text = format!("grpc: trying to send message larger than max ({bytes} vs. 2147483647)");
            assert_eq!(status.message(), text);
        }
        assert_eq!(&framed(&Said(0)).unwrap()[..], [0; PREFIX_BYTES]);
    }
}
