//! What a request may be, without looking at any state.

use super::error::Invalid;
use crate::command::encoding::TXN_LEVELS_MAX;
use crate::command::{PutRequest, TxnOp, TxnRequest};
use crate::mvcc::KeyRange;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Checks a put.
pub(super) fn put(request: &PutRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        Err(Invalid::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Invalid::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Invalid::LeaseProvided)
    } else {
        Ok(())
    }
}

/// Checks a txn: how deep it is, its puts, and that no branch changes a key twice.
pub(super) fn txn(request: &TxnRequest) -> Result<(), Invalid> {
    txn_at(request, 1).map(|_| ())
}

/// What a txn, or a list of operations, may change.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Changes<'a> {
    /// Adds what the next operation of the same list changes.
    fn then(&mut self, next: Changes<'a>) -> Result<(), Invalid> {
        let twice = next.puts.iter().any(|key| self.puts.contains(key) || deletes_hold(&self.deletes, key))
            || next.deletes.iter().any(|range| any_within(&self.puts, range));
        if twice {
            return Err(Invalid::DuplicateKey);
        }
        self.or(next);
        Ok(())
    }

    /// Adds what is done instead of this: only one branch of a txn is taken.
    fn or(&mut self, other: Changes<'a>) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

fn deletes_hold(deletes: &[&KeyRange], key: &[u8]) -> bool {
    deletes.iter().any(|range| range.contains(key))
}

fn any_within(puts: &BTreeSet<&Bytes>, range: &KeyRange) -> bool {
    if range.is_single() {
        return puts.contains(&range.key);
    }
    let from = (Bound::Included(&range.key), Bound::Unbounded);
    puts.range::<Bytes, _>(from).next().is_some_and(|key| range.contains(key))
}

fn txn_at(request: &TxnRequest, level: usize) -> Result<Changes<'_>, Invalid> {
    if level > TXN_LEVELS_MAX {
        return Err(Invalid::TxnTooDeep);
    }
    let mut changes = ops_at(&request.success, level)?;
    changes.or(ops_at(&request.failure, level)?);
    Ok(changes)
}

fn ops_at(ops: &[TxnOp], level: usize) -> Result<Changes<'_>, Invalid> {
    let mut all = Changes::default();
    for op in ops {
        let mut changes = Changes::default();
        match op {
            TxnOp::Range(_) => {}
            TxnOp::Put(request) => {
                put(request)?;
                changes.puts.insert(&request.key);
            }
            TxnOp::DeleteRange(request) => changes.deletes.push(&request.range),
            TxnOp::Txn(inner) => changes = txn_at(inner, level + 1)?,
        }
        all.then(changes)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::DeleteRangeRequest;

    fn put_op(key: &'static str) -> TxnOp {
        TxnOp::Put(PutRequest { key: key.into(), ..PutRequest::default() })
    }

    fn delete_op(key: &'static str, end: &'static str) -> TxnOp {
        let range = KeyRange::new(key, end);
        TxnOp::DeleteRange(DeleteRangeRequest { range, prev_kv: false })
    }

    fn nested(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> TxnOp {
        TxnOp::Txn(TxnRequest { compares: Vec::new(), success, failure })
    }

    fn checked(success: Vec<TxnOp>) -> Result<(), Invalid> {
        txn(&TxnRequest { success, ..TxnRequest::default() })
    }

    #[test]
    fn a_key_is_changed_once_in_each_branch() {
        let twice = Err(Invalid::DuplicateKey);
        assert_eq!(checked(vec![put_op("a"), put_op("b"), delete_op("c", "d"), delete_op("c", "z")]), Ok(()));
        assert_eq!(checked(vec![put_op("a"), put_op("a")]), twice);
        assert_eq!(checked(vec![put_op("b"), delete_op("a", "c")]), twice);
        assert_eq!(checked(vec![delete_op("a", ""), put_op("a")]), twice);
        assert_eq!(checked(vec![delete_op("a", "c"), put_op("c")]), Ok(()), "the end is not deleted");
        assert_eq!(checked(vec![put_op("c"), delete_op("b", "\0")]), twice, "an open end deletes all above");
        assert_eq!(checked(vec![put_op("a"), delete_op("b", "\0")]), Ok(()));
        assert_eq!(checked(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(checked(vec![nested(vec![put_op("a")], vec![delete_op("a", "")])]), Ok(()));
        assert_eq!(checked(vec![nested(vec![put_op("a")], vec![]), put_op("a")]), twice);
        assert_eq!(checked(vec![nested(vec![], vec![put_op("a")]), delete_op("a", "")]), twice);
    }

    #[test]
    fn puts_are_checked_wherever_they_stand() {
        assert_eq!(checked(vec![nested(vec![], vec![put_op("")])]), Err(Invalid::EmptyKey));
        let value = PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 1,
            ignore_value: true,
            ignore_lease: true,
            ..PutRequest::default()
        };
        assert_eq!(put(&value), Err(Invalid::ValueProvided));
        assert_eq!(put(&PutRequest { value: Bytes::new(), ..value.clone() }), Err(Invalid::LeaseProvided));
        assert_eq!(put(&PutRequest { value: Bytes::new(), lease: 0, ..value }), Ok(()));
    }

    #[test]
    fn txns_too_deep_are_refused_before_they_cost_stack() {
        let depth = |levels: usize| {
            (1..levels).fold(TxnRequest::default(), |inner, _| TxnRequest {
                success: vec![TxnOp::Txn(inner)],
                ..TxnRequest::default()
            })
        };
        assert_eq!(txn(&depth(TXN_LEVELS_MAX)), Ok(()));
        assert_eq!(txn(&depth(TXN_LEVELS_MAX + 1)), Err(Invalid::TxnTooDeep));
    }
}
