//! Any bytes as a run of requests: decoded, checked, converted, applied to a store, answered; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    coffer_server::fuzz::grpc_request(bytes);
    #[cfg(planted)]
    planted(bytes);
});

/// A panic that only a fuzzer which gets through protobuf finds, step by step: a txn that compares a lease, puts with
/// another lease than the seeds have, and reads with a high limit.
#[cfg(planted)]
fn planted(bytes: &[u8]) {
    use coffer_server::proto::etcdserverpb::{TxnRequest, request_op::Request};
    use prost::Message;
    let Some((head, rest)) = bytes.split_first_chunk::<3>() else { return };
    let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
    if head[0] % 10 != 3 {
        return;
    }
    let Ok(txn) = TxnRequest::decode(&rest[..length]) else { return };
    let (mut leased, mut limited) = (false, false);
    for op in &txn.success {
        match &op.request {
            Some(Request::RequestPut(put)) if put.lease > 1 => leased = true,
            Some(Request::RequestRange(range)) if range.limit > 100 => limited = true,
            _ => {}
        }
    }
    // a branch each, so that each step shows in the coverage
    if txn.compare.iter().any(|compare| compare.target == 4) {
        if leased {
            assert!(!limited, "planted panic");
        }
    }
}
