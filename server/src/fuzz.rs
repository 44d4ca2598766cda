//! The road of a request without its sockets, for a fuzzer: bytes are decoded, checked, converted, applied to a store in
//! memory, and the answer is encoded. No input may make any of it panic.
//!
//! ```text
//! input = message*      message = method (1 byte) length (2 bytes, little endian) protobuf (length bytes, or what is left)
//! ```
//!
//! The first words of etcd's own checks are kept: what `rpc::check` refuses goes no further, as on the wire.

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::rpc::{check, wire};
use crate::watch_hub::{Create, Hub, Key, Limits};
use bytes::Bytes;
use coffer_engine::command::{Command, Reply, Stamped};
use coffer_engine::mvcc::KeyRange;
use coffer_engine::store::{Store, StoreReader};
use prost::Message;

/// Messages looked at in one input: enough for one to build on another, few enough to be quick.
const MESSAGES_MAX: usize = 64;
/// etcd's budget of operations.
const TXN_OPS_MAX: usize = 128;
/// Messages taken from the watch stream after each request.
const TAKES: usize = 4;

/// One store, one watch stream, and what is said to them.
struct Stand {
    store: Store,
    reader: StoreReader,
    hub: Hub,
    stream: Key,
    index: u64,
}

/// Runs an input.
pub fn grpc_request(mut input: &[u8]) {
    let store = Store::new();
    let reader = store.reader();
    let mut hub = Hub::new(Limits { stream_messages_max: 8, ..Limits::default() }, wire::encode_event, 1);
    let stream = hub.open(0, 1_000);
    let mut stand = Stand { store, reader, hub, stream, index: 0 };
    for _ in 0..MESSAGES_MAX {
        let Some((head, rest)) = input.split_first_chunk::<3>() else { return };
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        stand.request(head[0], Bytes::copy_from_slice(message));
        input = rest;
    }
}

fn decode<T: Message + Default>(bytes: Bytes) -> Option<T> {
    T::decode(bytes).ok()
}

impl Stand {
    /// One request; `None` where it goes no further.
    fn request(&mut self, method: u8, bytes: Bytes) -> Option<()> {
        match method % 10 {
            0 => self.range(decode(bytes)?),
            1 => {
                let request: pb::PutRequest = decode(bytes)?;
                check::put(&request).ok()?;
                self.apply(Command::Put(wire::put(request)));
            }
            2 => {
                let request: pb::DeleteRangeRequest = decode(bytes)?;
                check::delete_range(&request).ok()?;
                self.apply(Command::DeleteRange(wire::delete_range(request)));
            }
            3 => return self.txn(decode(bytes)?),
            4 => {
                let request: pb::CompactionRequest = decode(bytes)?;
                self.apply(Command::Compact { revision: request.revision });
                while self.store.compact_step(100).is_ok_and(|more| more) {}
            }
            5 => {
                let request: pb::LeaseGrantRequest = decode(bytes)?;
                self.apply(Command::LeaseGrant { id: request.id.max(1), ttl: request.ttl.max(2) });
            }
            6 => {
                let request: pb::LeaseRevokeRequest = decode(bytes)?;
                self.apply(Command::LeaseRevoke { id: request.id });
            }
            7 => {
                let request: pb::LeaseKeepAliveRequest = decode(bytes)?;
                self.apply(Command::LeaseRenew { ids: vec![request.id] });
                let _ = self.reader.lease(request.id, true);
            }
            8 => self.watch(decode(bytes)?),
            _ => {
                let request: pb::AlarmRequest = decode(bytes)?;
                let request = wire::alarm(request)?;
                self.apply(Command::Alarm(request));
            }
        }
        self.hub.step(u64::from(method), 100, &self.reader);
        for _ in 0..TAKES {
            self.hub.take(self.stream);
        }
        Some(())
    }

    fn range(&self, request: pb::RangeRequest) {
        if check::range(&request).is_err() {
            return;
        }
        if let Ok(reply) = self.reader.range(&wire::range(request)) {
            wire::range_reply(reply, None).encode_to_vec();
        }
    }

    fn txn(&mut self, request: pb::TxnRequest) -> Option<()> {
        check::txn(&request, TXN_OPS_MAX).ok()?;
        let request = wire::txn(request).ok()?;
        if request.is_read_only() {
            let (_, reply) = self.reader.read_txn(&request).ok()?;
            wire::txn_reply(reply, None).encode_to_vec();
        } else {
            self.apply(Command::Txn(request));
        }
        Some(())
    }

    fn watch(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                let create = Create {
                    range: KeyRange { key: request.key, range_end: request.range_end },
                    start_revision: request.start_revision,
                    watch_id: request.watch_id,
                    prev_kv: request.prev_kv,
                    fragment: request.fragment,
                    progress_notify: request.progress_notify,
                    ..Create::default()
                };
                self.hub.create(self.stream, create, 0, &self.reader);
            }
            Some(RequestUnion::CancelRequest(request)) => {
                self.hub.cancel(self.stream, request.watch_id, &self.reader);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.hub.request_progress(self.stream),
            None => {}
        }
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let mut tx = self.store.begin();
        let stamped = Stamped { clock_ms: self.index, command };
        let applied = tx.apply(self.index, 1, &stamped).expect("a store in memory reads no disk");
        if let Some(events) = tx.publish().events {
            self.hub.publish(&events);
        }
        match applied.outcome {
            Ok(Reply::Put(reply)) => drop(wire::put_reply(&reply, None).encode_to_vec()),
            Ok(Reply::DeleteRange(reply)) => drop(wire::delete_range_reply(&reply, None).encode_to_vec()),
            Ok(Reply::Txn(reply)) => drop(wire::txn_reply(reply, None).encode_to_vec()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut input = Vec::new();
        for (method, message) in messages {
            input.push(*method);
            input.extend(u16::try_from(message.len()).unwrap().to_le_bytes());
            input.extend(message);
        }
        input
    }

    #[test]
    fn a_session_of_every_kind_of_request_runs_through() {
        let key = || Bytes::from_static(b"k");
        let put = pb::PutRequest { key: key(), value: key(), lease: 5, ..Default::default() };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put.clone())) };
        let create = pb::WatchCreateRequest { key: key(), start_revision: 1, ..Default::default() };
        let watch = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        grpc_request(&framed(&[
            (8, watch.encode_to_vec()),
            (5, pb::LeaseGrantRequest { id: 5, ttl: 60 }.encode_to_vec()),
            (1, put.encode_to_vec()),
            (3, pb::TxnRequest { success: vec![op], ..Default::default() }.encode_to_vec()),
            (0, pb::RangeRequest { key: key(), ..Default::default() }.encode_to_vec()),
            (7, pb::LeaseKeepAliveRequest { id: 5 }.encode_to_vec()),
            (4, pb::CompactionRequest { revision: 2, physical: false }.encode_to_vec()),
            (2, pb::DeleteRangeRequest { key: key(), ..Default::default() }.encode_to_vec()),
            (6, pb::LeaseRevokeRequest { id: 5 }.encode_to_vec()),
            (9, pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }.encode_to_vec()),
        ]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_road_of_a_request_panic(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
        ) {
            grpc_request(&framed(&messages));
        }

        #[test]
        fn no_numbers_in_a_range_or_watch_make_it_panic(
            key in prop::collection::vec(any::<u8>(), 0..3), end in prop::collection::vec(any::<u8>(), 0..3),
            numbers in prop::collection::vec(any::<i64>(), 7), enums in any::<(i32, i32)>(), flags in any::<(bool, bool)>(),
        ) {
            let (key, range_end) = (Bytes::from(key), Bytes::from(end));
            let put = pb::PutRequest { key: Bytes::from_static(b"k"), ..Default::default() };
            let range = pb::RangeRequest {
                key: key.clone(), range_end: range_end.clone(), limit: numbers[0], revision: numbers[1],
                sort_order: enums.0, sort_target: enums.1, keys_only: flags.0, count_only: flags.1,
                min_mod_revision: numbers[2], max_mod_revision: numbers[3],
                min_create_revision: numbers[4], max_create_revision: numbers[5], ..Default::default()
            };
            let create = pb::WatchCreateRequest {
                key, range_end, start_revision: numbers[6], watch_id: numbers[0], fragment: flags.0, ..Default::default()
            };
            let watch = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            let compact = pb::CompactionRequest { revision: numbers[1], physical: true };
            let grant = pb::LeaseGrantRequest { id: numbers[2], ttl: numbers[3] };
            grpc_request(&framed(&[
                (1, put.encode_to_vec()), (8, watch.encode_to_vec()), (0, range.encode_to_vec()),
                (4, compact.encode_to_vec()), (5, grant.encode_to_vec()), (1, put.encode_to_vec()), (0, range.encode_to_vec()),
            ]));
        }
    }
}
