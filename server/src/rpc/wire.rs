//! Protobuf to the engine's types and back, nowhere else.
//!
//! Requests are converted after `check` has passed them; what slips through (an operation with nothing in it)
//! is met with an error, not a panic. Keys and values are shared, never copied.

use super::status::Error;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::proto::etcdserverpb::response_op::Response as OpReply;
use crate::proto::mvccpb;
use bytes::{Bytes, BytesMut};
use coffer_engine::command::encoding::TXN_LEVELS_MAX;
use coffer_engine::command::{
    AlarmAction, AlarmKind, AlarmMember, AlarmRequest, Compare, CompareResult, CompareTarget,
    DeleteRangeReply, DeleteRangeRequest, Member, PutReply, PutRequest, RangeReply, RangeRequest, SortOrder,
    SortTarget, TxnOp, TxnOpReply, TxnReply, TxnRequest,
};
use coffer_engine::mvcc::{Event, EventKind, KeyRange, KeyValue};
use prost::encoding;

/// The field of a WatchResponse that holds its events.
const WATCH_RESPONSE_EVENTS: u32 = 11;

/// A range.
pub(crate) fn range(request: pb::RangeRequest) -> RangeRequest {
    RangeRequest {
        sort_order: match request.sort_order() {
            pb::range_request::SortOrder::None => SortOrder::None,
            pb::range_request::SortOrder::Ascend => SortOrder::Ascend,
            pb::range_request::SortOrder::Descend => SortOrder::Descend,
        },
        sort_target: match request.sort_target() {
            pb::range_request::SortTarget::Key => SortTarget::Key,
            pb::range_request::SortTarget::Version => SortTarget::Version,
            pb::range_request::SortTarget::Create => SortTarget::Create,
            pb::range_request::SortTarget::Mod => SortTarget::Mod,
            pb::range_request::SortTarget::Value => SortTarget::Value,
        },
        range: KeyRange { key: request.key, range_end: request.range_end },
        limit: request.limit,
        revision: request.revision,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// A put.
pub(crate) fn put(request: pb::PutRequest) -> PutRequest {
    PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete.
pub(crate) fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRangeRequest {
    DeleteRangeRequest {
        range: KeyRange { key: request.key, range_end: request.range_end },
        prev_kv: request.prev_kv,
    }
}

/// A txn.
pub(crate) fn txn(request: pb::TxnRequest) -> Result<TxnRequest, Error> {
    txn_at(request, 1)
}

fn txn_at(request: pb::TxnRequest, level: usize) -> Result<TxnRequest, Error> {
    if level > TXN_LEVELS_MAX {
        return Err(Error::TxnTooDeep);
    }
    Ok(TxnRequest {
        compares: request.compare.into_iter().filter_map(compare).collect(),
        success: txn_ops(request.success, level)?,
        failure: txn_ops(request.failure, level)?,
    })
}

fn txn_ops(ops: Vec<pb::RequestOp>, level: usize) -> Result<Vec<TxnOp>, Error> {
    ops.into_iter().map(|op| txn_op(op, level)).collect()
}

fn txn_op(op: pb::RequestOp, level: usize) -> Result<TxnOp, Error> {
    match op.request {
        Some(Op::RequestRange(request)) => Ok(TxnOp::Range(range(request))),
        Some(Op::RequestPut(request)) => Ok(TxnOp::Put(put(request))),
        Some(Op::RequestDeleteRange(request)) => Ok(TxnOp::DeleteRange(delete_range(request))),
        Some(Op::RequestTxn(request)) => Ok(TxnOp::Txn(txn_at(request, level + 1)?)),
        None => Err(Error::KeyNotFound),
    }
}

/// A comparison. The target decides; a value of another target's field counts as not given (0 or empty), as with etcd.
///
/// Numbers that name no result or target are taken as etcd takes them: an unknown result always holds (`None`; of a
/// value it holds where there is a key), an unknown target compares equal.
fn compare(compare: pb::Compare) -> Option<Compare> {
    use pb::compare::{CompareResult as Result, CompareTarget as Target, TargetUnion as Union};
    let given_result = Result::try_from(compare.result).ok();
    let target = match (Target::try_from(compare.target).ok(), compare.target_union) {
        (Some(Target::Version), Some(Union::Version(version))) => CompareTarget::Version(version),
        (Some(Target::Version), _) => CompareTarget::Version(0),
        (Some(Target::Create), Some(Union::CreateRevision(revision))) => {
            CompareTarget::CreateRevision(revision)
        }
        (Some(Target::Create), _) => CompareTarget::CreateRevision(0),
        (Some(Target::Mod), Some(Union::ModRevision(revision))) => CompareTarget::ModRevision(revision),
        (Some(Target::Mod), _) => CompareTarget::ModRevision(0),
        (Some(Target::Value), Some(Union::Value(value))) => CompareTarget::Value(value),
        (Some(Target::Value), _) => CompareTarget::Value(Bytes::new()),
        (Some(Target::Lease), Some(Union::Lease(lease))) => CompareTarget::Lease(lease),
        (Some(Target::Lease), _) => CompareTarget::Lease(0),
        (None, _) if matches!(given_result, None | Some(Result::Equal)) => return None,
        (None, _) => CompareTarget::Version(0),
    };
    let unknown_target = Target::try_from(compare.target).is_err();
    let (result, target) = match (given_result, target) {
        // no version is below 0: such a comparison never holds
        (Some(_), _) if unknown_target => (CompareResult::Less, CompareTarget::Version(0)),
        (Some(Result::Equal), target) => (CompareResult::Equal, target),
        (Some(Result::Greater), target) => (CompareResult::Greater, target),
        (Some(Result::Less), target) => (CompareResult::Less, target),
        (Some(Result::NotEqual), target) => (CompareResult::NotEqual, target),
        (None, CompareTarget::Value(_)) => (CompareResult::Greater, CompareTarget::Version(0)),
        (None, _) => return None,
    };
    let range = KeyRange { key: compare.key, range_end: compare.range_end };
    Some(Compare { range, result, target })
}

/// A request about alarms; `None` where there is nothing to do (etcd answers an activation of no alarm with nothing).
pub(crate) fn alarm(request: pb::AlarmRequest) -> Option<AlarmRequest> {
    let action = pb::alarm_request::AlarmAction::try_from(request.action).ok()?;
    let alarm = pb::AlarmType::try_from(request.alarm).ok()?;
    let action = match action {
        pb::alarm_request::AlarmAction::Get => AlarmAction::Get,
        pb::alarm_request::AlarmAction::Activate => AlarmAction::Activate,
        pb::alarm_request::AlarmAction::Deactivate => AlarmAction::Deactivate,
    };
    let alarm = match alarm {
        pb::AlarmType::None => AlarmKind::None,
        pb::AlarmType::Nospace => AlarmKind::NoSpace,
        pb::AlarmType::Corrupt => AlarmKind::Corrupt,
    };
    Some(AlarmRequest { action, member_id: request.member_id, alarm })
}

/// An alarm that is up.
pub(crate) fn alarm_member(alarm: &AlarmMember) -> pb::AlarmMember {
    let kind = match alarm.alarm {
        AlarmKind::None => pb::AlarmType::None,
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member_id, alarm: kind.into() }
}

/// A member of the cluster.
pub(crate) fn member(member: Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}

/// A key-value.
pub(crate) fn key_value(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease,
    }
}

/// A key-value that nobody else has.
fn own_key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

/// An answer to a range.
pub(crate) fn range_reply(reply: RangeReply, header: Option<ResponseHeader>) -> pb::RangeResponse {
    let kvs = reply.kvs.into_iter().map(own_key_value).collect();
    pb::RangeResponse { header, kvs, more: reply.more, count: reply.count }
}

/// An answer to a put.
pub(crate) fn put_reply(reply: &PutReply, header: Option<ResponseHeader>) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: reply.prev_kv.as_deref().map(key_value) }
}

/// An answer to a delete.
pub(crate) fn delete_range_reply(
    reply: &DeleteRangeReply,
    header: Option<ResponseHeader>,
) -> pb::DeleteRangeResponse {
    let prev_kvs = reply.prev_kvs.iter().map(|kv| key_value(kv)).collect();
    pb::DeleteRangeResponse { header, deleted: reply.deleted, prev_kvs }
}

/// An answer to a txn. The answers inside have a header with a revision alone.
pub(crate) fn txn_reply(reply: TxnReply, header: Option<ResponseHeader>) -> pb::TxnResponse {
    let responses = reply.responses.into_iter().map(txn_op_reply).collect();
    pb::TxnResponse { header, succeeded: reply.succeeded, responses }
}

fn txn_op_reply(reply: TxnOpReply) -> pb::ResponseOp {
    let at = |revision| Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let response = match reply {
        TxnOpReply::Range(reply) => {
            let revision = reply.current_revision;
            OpReply::ResponseRange(range_reply(reply, at(revision)))
        }
        TxnOpReply::Put { revision, reply } => OpReply::ResponsePut(put_reply(&reply, at(revision))),
        TxnOpReply::DeleteRange { revision, reply } => {
            OpReply::ResponseDeleteRange(delete_range_reply(&reply, at(revision)))
        }
        TxnOpReply::Txn { revision, reply } => OpReply::ResponseTxn(txn_reply(reply, at(revision))),
    };
    pb::ResponseOp { response: Some(response) }
}

/// An event as the field of a WatchResponse, tag and length included, so that it can be put behind any header.
pub fn encode_event(event: &Event, prev_kv: bool) -> Bytes {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let event = mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(&event.kv)),
        prev_kv: event.prev_kv.as_deref().filter(|_| prev_kv).map(key_value),
    };
    let mut bytes = BytesMut::with_capacity(encoding::message::encoded_len(WATCH_RESPONSE_EVENTS, &event));
    encoding::message::encode(WATCH_RESPONSE_EVENTS, &event, &mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn an_encoded_event_is_the_field_of_a_watch_response() {
        let kv = |revision| {
            std::sync::Arc::new(KeyValue { key: "k".into(), mod_revision: revision, ..KeyValue::default() })
        };
        let event = Event { kind: EventKind::Delete, kv: kv(7), prev_kv: Some(kv(5)) };
        let decode = |bytes: Bytes| pb::WatchResponse::decode(bytes).unwrap().events;
        let with = decode(encode_event(&event, true));
        assert_eq!(with.len(), 1);
        assert_eq!(with[0].r#type(), mvccpb::event::EventType::Delete);
        assert_eq!(with[0].prev_kv.as_ref().unwrap().mod_revision, 5);
        let without = decode(encode_event(&event, false));
        assert_eq!(without[0].kv.as_ref().unwrap().mod_revision, 7);
        assert!(without[0].prev_kv.is_none());
    }

    #[test]
    fn a_comparison_with_another_targets_value_compares_with_nothing() {
        let wrong = pb::Compare {
            target: pb::compare::CompareTarget::Mod.into(),
            target_union: Some(pb::compare::TargetUnion::Version(9)),
            ..pb::Compare::default()
        };
        let target = compare(wrong).map(|compare| compare.target);
        assert_eq!(target, Some(CompareTarget::ModRevision(0)));
    }
}
