//! Watch: one client's stream between its protobuf and the thread's hub.
//!
//! The stream is polled by its connection: it hands what the client asks to the hub and takes what the hub has to say.
//! Requests are not read while the hub holds a full queue for the stream, so that a client that asks and never reads is
//! bounded, too. Events come encoded from the hub and are put behind a header here; nothing else is copied.

use super::status::{Error, in_gos_words};
use crate::metrics::{Count, Method};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::serving::Serving;
use crate::watch_hub::{Body, Create, Key, Message};
use bytes::BufMut;
use coffer_engine::Micros;
use coffer_engine::mvcc::KeyRange;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use prost::Message as _;
use prost::encoding::{self, WireType};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

/// The shortest time between two tellings of progress (etcd's minWatchProgressInterval).
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Messages taken from the hub at once, and bytes of them.
const TAKEN_MESSAGES_MAX: usize = 32;
const TAKEN_BYTES_MAX: usize = 32 * 1024;
/// Requests of one stream handled before other streams get their turn.
const REQUESTS_PER_POLL: usize = 64;

/// Time between two tellings of progress on one stream: what was asked for and up to a tenth of it, so that watchers
/// made together do not speak together.
fn progress_interval(asked: Duration) -> Micros {
    let interval = u64::try_from(asked.max(PROGRESS_INTERVAL_MIN).as_micros()).unwrap_or(u64::MAX / 2);
    let jitter = RandomState::new().hash_one(0u8) % (interval / 10).max(1);
    interval.saturating_add(jitter)
}

fn create(request: pb::WatchCreateRequest) -> Create {
    let filtered = |filter: FilterType| request.filters.contains(&i32::from(filter));
    Create {
        start_revision: request.start_revision,
        progress_notify: request.progress_notify,
        no_put: filtered(FilterType::Noput),
        no_delete: filtered(FilterType::Nodelete),
        prev_kv: request.prev_kv,
        watch_id: request.watch_id,
        fragment: request.fragment,
        range: KeyRange { key: request.key, range_end: request.range_end },
    }
}

/// The service on one serving thread; one is made for each stream.
pub(crate) struct WatchService {
    pub(crate) serving: Arc<Serving>,
    /// Whether the client insists on a leader.
    pub(crate) require_leader: bool,
}

impl StreamingService<pb::WatchRequest> for WatchService {
    type Response = Frame;
    type ResponseStream = WatchStream;
    type Future = BoxFuture<'static, Result<Response<WatchStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let serving = Arc::clone(&self.serving);
        let interval = progress_interval(serving.shared.config.watch_progress_notify_interval);
        let key = serving.open_stream(interval);
        serving.mailbox.signal();
        let stream = WatchStream {
            serving,
            key,
            requests: Some(request.into_inner()),
            require_leader: self.require_leader,
            taken: VecDeque::new(),
            header: Header::default(),
            over: false,
        };
        Box::pin(std::future::ready(Ok(Response::new(stream))))
    }
}

/// What one client is told.
pub(crate) struct WatchStream {
    serving: Arc<Serving>,
    key: Key,
    /// `None` once the client has nothing more to ask; its watchers stay.
    requests: Option<Streaming<pb::WatchRequest>>,
    require_leader: bool,
    /// Taken from the hub and still to be sent: a visit to the hub costs as much as a message.
    taken: VecDeque<Message>,
    /// The header of the last response of those taken together: of one revision they have the same.
    header: Header,
    over: bool,
}

impl WatchStream {
    /// Why the stream must end now, if it must.
    fn end(&self) -> Option<Error> {
        if self.serving.shared.is_stopping() {
            Some(Error::Stopped)
        } else if self.require_leader && self.serving.is_leaderless() {
            Some(Error::NoLeader)
        } else {
            None
        }
    }

    /// Hands requests to the hub, as many as there are, or as fit.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..REQUESTS_PER_POLL {
            if self.serving.with_hub(|hub| hub.is_full(self.key)) {
                return Ok(());
            }
            let Some(requests) = &mut self.requests else { return Ok(()) };
            match Pin::new(requests).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.requests = None,
                Poll::Ready(Some(Ok(request))) => self.handle(request),
                Poll::Ready(Some(Err(status))) => {
                    self.serving.shared.metrics.add(Count::WatchReceiveFailures, 1);
                    return Err(in_gos_words(&status).unwrap_or(status));
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn handle(&self, request: pb::WatchRequest) {
        let serving = &self.serving;
        serving.shared.metrics.rpc(Method::Watch).received();
        let reader = serving.shared.reader();
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                let now = serving.shared.now();
                serving.with_hub(|hub| hub.create(self.key, create(request), now, reader));
            }
            Some(RequestUnion::CancelRequest(request)) => {
                serving.with_hub(|hub| hub.cancel(self.key, request.watch_id, reader));
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                // What is published but not yet looked at counts: whoever read it may wait for this progress.
                serving.drain();
                serving.with_hub(|hub| hub.request_progress(self.key));
            }
            None => tracing::info!("invalid watch request type received in gRPC stream"),
        }
    }

    /// Takes what the hub has to say, as far as it is to be sent at once.
    fn take(&mut self) {
        self.header = Header::default();
        let WatchStream { serving, key, taken, .. } = self;
        serving.with_hub(|hub| {
            let mut bytes = 0;
            while taken.len() < TAKEN_MESSAGES_MAX && bytes < TAKEN_BYTES_MAX {
                let Some(message) = hub.take(*key) else { break };
                bytes += message.held_bytes();
                taken.push_back(message);
            }
        });
    }

    /// What is to be sent next of what was taken.
    fn next(&mut self) -> Option<Result<Frame, Status>> {
        let message = self.taken.pop_front()?;
        if let Body::Failed(fault) = &message.body {
            self.over = true;
            return Some(Err(self.serving.shared.damaged(fault)));
        }
        Some(Ok(self.frame(message)))
    }

    fn frame(&mut self, message: Message) -> Frame {
        if self.header.len == 0 || self.header.revision != message.revision {
            let shared = &self.serving.shared;
            self.header = Header::of(&pb::ResponseHeader {
                cluster_id: shared.cluster_id,
                member_id: shared.member_id,
                revision: message.revision,
                raft_term: shared.node.status().term,
            });
        }
        Frame { header: self.header, message }
    }
}

/// Bytes of a header's field at the most: four numbers of ten bytes, each with its key, and key and length of the whole.
const HEADER_BYTES_MAX: usize = 4 * 11 + 2;

/// A header as it is written: a batch's events go to each of its watchers behind the same one.
#[derive(Clone, Copy)]
struct Header {
    revision: i64,
    bytes: [u8; HEADER_BYTES_MAX],
    /// 0: nothing is written yet.
    len: usize,
}

impl Default for Header {
    fn default() -> Header {
        Header { revision: 0, bytes: [0; HEADER_BYTES_MAX], len: 0 }
    }
}

impl Header {
    fn of(header: &pb::ResponseHeader) -> Header {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let mut room = &mut bytes[..];
        encoding::message::encode(1, header, &mut room);
        let len = HEADER_BYTES_MAX - room.len();
        Header { revision: header.revision, bytes, len }
    }
}

impl Stream for WatchStream {
    type Item = Result<Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(next) = self.next() {
            return Poll::Ready(Some(next));
        }
        // First of all, so that no waking is missed.
        self.serving.sleep(self.key, cx.waker());
        if let Some(error) = self.end() {
            self.over = true;
            return Poll::Ready(Some(Err(error.into())));
        }
        if let Err(status) = self.read(cx) {
            self.over = true;
            return Poll::Ready(Some(Err(status)));
        }
        self.take();
        match self.next() {
            Some(next) => Poll::Ready(Some(next)),
            None => Poll::Pending,
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.serving.close_stream(self.key);
        self.serving.mailbox.signal();
    }
}

/// A response to be encoded.
pub(crate) struct Frame {
    header: Header,
    message: Message,
}

impl Frame {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.header.bytes[..self.header.len]);
        let id = self.message.watch_id;
        if id != 0 {
            encoding::int64::encode(2, &id, out);
        }
        let flag = |number, out: &mut _| encoding::bool::encode(number, &true, out);
        const CREATED: u32 = 3;
        const CANCELED: u32 = 4;
        match &self.message.body {
            Body::Created => flag(CREATED, out),
            Body::Refused(reason) => {
                flag(CREATED, out);
                flag(CANCELED, out);
                encoding::encode_key(6, WireType::LengthDelimited, out);
                encoding::encode_varint(reason.len() as u64, out);
                out.put_slice(reason.as_bytes());
            }
            Body::Canceled => flag(CANCELED, out),
            Body::Compacted(revision) => {
                flag(CANCELED, out);
                encoding::int64::encode(5, revision, out);
            }
            Body::Events { events, fragment } => {
                if *fragment {
                    flag(7, out);
                }
                events.iter().for_each(|event| out.put_slice(event));
            }
            // a failure ends the stream before it comes to a response
            Body::Progress | Body::Failed(_) => {}
        }
    }
}

/// Reads WatchRequests, writes [`Frame`]s.
#[derive(Clone, Copy, Default)]
pub(crate) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Frame;
    type Decode = pb::WatchRequest;
    type Encoder = WatchCodec;
    type Decoder = WatchCodec;

    fn encoder(&mut self) -> WatchCodec {
        WatchCodec
    }

    fn decoder(&mut self) -> WatchCodec {
        WatchCodec
    }
}

impl Encoder for WatchCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.encode(out);
        Ok(())
    }
}

impl Decoder for WatchCodec {
    type Item = pb::WatchRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<pb::WatchRequest>, Status> {
        pb::WatchRequest::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::wire;
    use bytes::{Bytes, BytesMut};
    use coffer_engine::mvcc::{Event, EventKind, KeyValue};

    fn decoded(watch_id: i64, body: Body) -> pb::WatchResponse {
        let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
        let frame = Frame { header: Header::of(&header), message: Message { watch_id, revision: 3, body } };
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        pb::WatchResponse::decode(Bytes::from(out)).unwrap()
    }

    #[test]
    fn a_frame_is_a_watch_response() {
        let header = Some(pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 });
        let empty = || pb::WatchResponse { header, ..Default::default() };
        assert_eq!(decoded(7, Body::Created), pb::WatchResponse { watch_id: 7, created: true, ..empty() });
        assert_eq!(decoded(0, Body::Canceled), pb::WatchResponse { canceled: true, ..empty() });
        assert_eq!(decoded(-1, Body::Progress), pb::WatchResponse { watch_id: -1, ..empty() });
        assert_eq!(
            decoded(-1, Body::Refused("why")),
            pb::WatchResponse {
                watch_id: -1,
                created: true,
                canceled: true,
                cancel_reason: "why".into(),
                ..empty()
            }
        );
        assert_eq!(
            decoded(1, Body::Compacted(5)),
            pb::WatchResponse { watch_id: 1, canceled: true, compact_revision: 5, ..empty() }
        );
        let kv = Arc::new(KeyValue { key: "k".into(), mod_revision: 3, ..KeyValue::default() });
        let event = wire::encode_event(&Event { kind: EventKind::Put, kv, prev_kv: None }, true);
        let response = decoded(1, Body::Events { events: vec![event.clone(), event], fragment: true });
        assert_eq!(response.events.len(), 2);
        assert!(response.fragment);
        assert_eq!(response.events[1].kv.as_ref().unwrap().key, "k");
    }

    #[test]
    fn the_longest_header_has_room() {
        let header = pb::ResponseHeader {
            cluster_id: u64::MAX,
            member_id: u64::MAX,
            revision: -1,
            raft_term: u64::MAX,
        };
        let written = Header::of(&header);
        assert_eq!(written.len, HEADER_BYTES_MAX);
        assert_eq!(pb::ResponseHeader::decode(&written.bytes[2..]), Ok(header));
    }

    #[test]
    fn progress_comes_at_the_interval_and_up_to_a_tenth_later() {
        for _ in 0..100 {
            let interval = progress_interval(Duration::from_secs(10));
            assert!((10_000_000..11_000_000).contains(&interval));
            assert!((100_000..110_000).contains(&progress_interval(Duration::ZERO)));
        }
    }
}
