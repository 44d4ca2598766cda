//! What a request costs at the door, read off its protobuf, because etcd looks at the room before it looks at the request.

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request as Op;
use coffer_engine::quota::PUT_OVERHEAD_BYTES;

/// The cost of a put.
pub(crate) fn put(request: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// The cost of a txn: that of its dearer branch. (The decoder bounds how deep txns lie in each other.)
pub(crate) fn txn(request: &pb::TxnRequest) -> u64 {
    branch(&request.success).max(branch(&request.failure))
}

fn branch(ops: &[pb::RequestOp]) -> u64 {
    let cost = |op: &pb::RequestOp| match &op.request {
        Some(Op::RequestPut(request)) => put(request),
        Some(Op::RequestTxn(request)) => txn(request),
        _ => 0,
    };
    ops.iter().map(cost).sum()
}
