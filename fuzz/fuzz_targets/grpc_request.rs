//! Any bytes as a run of requests: decoded, checked, converted, applied to a store, answered; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    coffer_server::fuzz::grpc_request(bytes);
    #[cfg(planted)]
    planted(bytes);
});

/// A panic behind protobuf that no seed reaches: a txn that compares a lease and puts with one.
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
    let compares = txn.compare.iter().any(|compare| compare.target == 4);
    let puts =
        txn.success.iter().any(|op| matches!(&op.request, Some(Request::RequestPut(put)) if put.lease != 0));
    assert!(!(compares && puts), "planted panic");
}
