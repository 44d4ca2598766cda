//! The short way of Range, Put and Txn: from an HTTP/2 stream to the handler and back, with nothing in between.
//!
//! ```text
//! stream > metadata, deadline > message > handler ─┬─ answer is known at once ──────────────> frames
//!                               (if it is all there)  └─ from the log: what is to be done with it stands in the slot ─> frames
//! ```
//!
//! The handlers are those of the other door, and so are limits, metadata, errors, metrics and deadlines. What needs to wait for
//! anything else than the log (a message in several parts, a long or cold range, a full quota) goes on in a task of its own, which
//! ends when the client gives the stream up. A put that is given up after it was handed to the log is written all the same,
//! and counts as canceled.

use super::door::{Inner, is_grpc, timeout};
use super::kv::{AtOnce, KvService, PutBegun, TxnBegun};
use super::status::Error;
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
    inner: &Arc<Inner>,
    method: Method,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let counters = Counters(Arc::clone(&inner.serving));
    let call = Call::start(counters, method);
    let mut exchange = Exchange { inner: Arc::clone(inner), method, deadline: Deadline::None, call, respond };
    match timeout(&head.headers) {
        Ok(None) => {}
        Ok(Some(timeout)) => exchange.deadline = Deadline::At(exchange.call.began() + timeout),
        Err(status) => return exchange.refuse(&status),
    }
    exchange.call.received();
    if let Err(error) = inner.check(&head.headers, method) {
        return exchange.refuse(&error.status());
    }
    let mut message = Incoming::new(body, inner.message_bytes_max);
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
    inner: Arc<Inner>,
    method: Method,
    deadline: Deadline,
    /// Dropped unfinished, it counts as canceled.
    call: Call<Counters>,
    respond: SendResponse<Bytes>,
}

impl Exchange {
    /// The message is there.
    fn go(self, message: Bytes) {
        self.inner.serving.shared.metrics.add(Count::GrpcBytesReceived, message.len() as u64);
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

    fn range(self, request: pb::RangeRequest) {
        match self.kv().range_at_once(request) {
            AtOnce::Told(told) => self.end(told),
            AtOnce::Not(request) => self.long(move |kv| async move {
                let told = kv.range(tonic::Request::new(request)).await;
                told.map(tonic::Response::into_inner)
            }),
        }
    }

    fn put(self, request: pb::PutRequest) {
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

    fn txn(self, request: pb::TxnRequest) {
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
        KvService { serving: Arc::clone(&self.inner.serving) }
    }

    /// The answer will come from the log.
    fn after_log<T, F>(self, ticket: Ticket, end: F)
    where
        T: Message,
        F: FnOnce(&KvService, Outcome) -> Result<T, Status> + Send + 'static,
    {
        let patience = self.call.began() + self.inner.serving.shared.request_timeout;
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
        tokio::spawn(async move {
            let late = self.deadline.of(poll_fn(|cx| message.poll(cx).map(Ok))).await;
            match late {
                Ok(Ok(message)) => self.go(message),
                Ok(Err(failed)) => self.failed(failed),
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
        let bytes = answer.encoded_len();
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + bytes);
        out.put_u8(0);
        let Ok(length) = u32::try_from(bytes) else {
            return self
                .refuse(&Status::resource_exhausted("the answer is longer than gRPC has numbers for"));
        };
        out.put_u32(length);
        if let Err(error) = answer.encode(&mut out) {
            return self.refuse(&Status::internal(error.to_string()));
        }
        self.inner.tell_if_slow(self.method, self.call.began().elapsed());
        if self.send(out.freeze()).is_ok() {
            self.inner.serving.shared.metrics.add(Count::GrpcBytesSent, bytes as u64);
            self.call.sent(1);
            self.call.finish(Code::Ok);
        }
    }

    fn send(&mut self, message: Bytes) -> Result<(), h2::Error> {
        let mut stream = self.respond.send_response(head(), false)?;
        stream.send_data(message, false)?;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)
    }

    /// Answers with a status alone.
    fn refuse(mut self, status: &Status) {
        self.inner.tell_if_slow(self.method, self.call.began().elapsed());
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
