//! What a command costs at the door, in bytes, by etcd's rule (server/storage/quota.go: a put costs 256 bytes beside
//! its key and value, a lease 64, a txn its dearer branch).

use crate::command::{Command, PutRequest, TxnOp, TxnRequest};

/// Fixed cost of a put.
pub const PUT_OVERHEAD_BYTES: u64 = 256;
/// Cost of a lease.
pub const LEASE_OVERHEAD_BYTES: u64 = 64;

/// The cost of a command; 0 for all that needs no room.
pub fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => put_cost(put),
        Command::Txn(txn) => txn_cost(txn),
        Command::LeaseGrant { .. } => LEASE_OVERHEAD_BYTES,
        _ => 0,
    }
}

fn put_cost(put: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

fn ops_cost(ops: &[TxnOp]) -> u64 {
    ops.iter()
        .map(|op| match op {
            TxnOp::Put(put) => put_cost(put),
            TxnOp::Txn(txn) => txn_cost(txn),
            TxnOp::Range(_) | TxnOp::DeleteRange(_) => 0,
        })
        .sum()
}

/// The cost of a txn: that of its dearer branch.
pub fn txn_cost(txn: &TxnRequest) -> u64 {
    ops_cost(&txn.success).max(ops_cost(&txn.failure))
}
