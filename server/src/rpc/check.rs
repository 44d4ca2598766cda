//! What a request may be, without looking at any state.
//!
//! The order of the checks is contract: a request that is wrong in two ways gets the error etcd finds first
//! (server/etcdserver/api/v3rpc/key.go). Nothing here looks at a store, and nothing here fails on any input.

use super::status::Error;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::range_request::SortOrder as Order;
use crate::proto::etcdserverpb::request_op::Request as Op;
use bytes::Bytes;
use coffer_engine::command::encoding::TXN_LEVELS_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Checks a range.
pub(crate) fn range(request: &pb::RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let known = pb::range_request::SortOrder::try_from(request.sort_order).is_ok()
        && pb::range_request::SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Error::InvalidSortOption) }
}

/// Checks what a range in parts can do beyond that.
pub(crate) fn range_stream(request: &pb::RangeRequest) -> Result<(), Error> {
    range(request)?;
    let order = request.sort_order();
    let by_key = request.sort_target() == pb::range_request::SortTarget::Key;
    // etcd looks at the order alone: without one, any target passes
    let ordered = order == Order::None || (order == Order::Ascend && by_key);
    if !ordered {
        return Err(Error::RangeStreamSort);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Error::RangeStreamFilter);
    }
    Ok(())
}

/// Checks a put.
pub(crate) fn put(request: &pb::PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
pub(crate) fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks a txn: its operations, then whether it would change a key twice.
pub(crate) fn txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), Error> {
    txn_ops(request, ops_max, 1)?;
    changes(&request.success)?;
    changes(&request.failure)?;
    Ok(())
}

/// One level: its size against what is left of the budget, its compares, its operations. etcd's budget bounds the
/// levels, too, but only as low as its flag is set; the stack needs a bound of its own.
fn txn_ops(request: &pb::TxnRequest, ops_max: usize, level: usize) -> Result<(), Error> {
    if level > TXN_LEVELS_MAX {
        return Err(Error::TxnTooDeep);
    }
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(Error::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::RequestRange(request)) => range(request)?,
            Some(Op::RequestPut(request)) => put(request)?,
            Some(Op::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Op::RequestTxn(request)) => txn_ops(request, ops_max - ops, level + 1)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// The keys a list of operations puts, and what it deletes.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    deletes: Deletes,
}

/// Intervals of keys that are deleted, joined where they touch, so that a look-up costs O(log n).
#[derive(Default)]
struct Deletes {
    /// `[start, end)`; disjoint, by start.
    intervals: BTreeMap<Bytes, Bytes>,
}

impl Deletes {
    /// Adds what a delete names. etcd reads the end "\0" here as the key it spells, below every other key, so that a
    /// delete from a key on overlaps nothing.
    fn add(&mut self, request: &pb::DeleteRangeRequest) {
        let end = if request.range_end.is_empty() { after(&request.key) } else { request.range_end.clone() };
        self.add_interval(request.key.clone(), end);
    }

    fn add_interval(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        while let Some((other, other_end)) = self.intervals.range(..=end.clone()).next_back() {
            if *other_end < start {
                break;
            }
            let other = other.clone();
            let other_end = self.intervals.remove(&other).unwrap_or_default();
            start = start.min(other);
            end = end.max(other_end);
        }
        self.intervals.insert(start, end);
    }

    fn append(&mut self, other: Deletes) {
        for (start, end) in other.intervals {
            self.add_interval(start, end);
        }
    }

    fn holds(&self, key: &Bytes) -> bool {
        self.intervals.range(..=key.clone()).next_back().is_some_and(|(_, end)| key < end)
    }
}

/// The lowest key above `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// What a list of operations changes, refused where a key would be changed twice.
///
/// The deletes of this level are held against all puts below; those of a txn inside only against what comes after it.
/// So a put in one txn inside and a delete of its key in a later one pass, as they do with etcd.
fn changes(ops: &[pb::RequestOp]) -> Result<Changes, Error> {
    let mut all = Changes::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            all.deletes.add(delete);
        }
    }
    for op in ops {
        if let Some(Op::RequestTxn(txn)) = &op.request {
            add_txn(&mut all, txn)?;
        }
    }
    for op in ops {
        if let Some(Op::RequestPut(put)) = &op.request {
            add_put(&mut all, put.key.clone())?;
        }
    }
    Ok(all)
}

/// Adds a txn inside. Only one of its branches runs, so that both may put the same key.
fn add_txn(all: &mut Changes, txn: &pb::TxnRequest) -> Result<(), Error> {
    let success = changes(&txn.success)?;
    let failure = changes(&txn.failure)?;
    for key in &success.puts {
        add_put(all, key.clone())?;
    }
    for key in failure.puts {
        let in_other_branch = success.puts.contains(&key);
        if all.deletes.holds(&key) || (!in_other_branch && all.puts.contains(&key)) {
            return Err(Error::DuplicateKey);
        }
        all.puts.insert(key);
    }
    all.deletes.append(success.deletes);
    all.deletes.append(failure.deletes);
    Ok(())
}

fn add_put(all: &mut Changes, key: Bytes) -> Result<(), Error> {
    if all.deletes.holds(&key) || !all.puts.insert(key) {
        return Err(Error::DuplicateKey);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_op(key: &'static str) -> pb::RequestOp {
        op(Op::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_op(key: &'static str, range_end: &'static str) -> pb::RequestOp {
        op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: false,
        }))
    }

    fn op(request: Op) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        op(Op::RequestTxn(pb::TxnRequest { compare: Vec::new(), success, failure }))
    }

    fn checked(success: Vec<pb::RequestOp>) -> Result<(), Error> {
        txn(&pb::TxnRequest { compare: Vec::new(), success, failure: Vec::new() }, 128)
    }

    #[test]
    fn a_key_may_be_changed_once() {
        let duplicate = Err(Error::DuplicateKey);
        assert_eq!(checked(vec![put_op("a"), put_op("b"), delete_op("c", "d"), delete_op("c", "z")]), Ok(()));
        assert_eq!(checked(vec![put_op("a"), put_op("a")]), duplicate);
        assert_eq!(checked(vec![put_op("b"), delete_op("a", "c")]), duplicate);
        assert_eq!(checked(vec![delete_op("a", ""), put_op("a")]), duplicate);
        assert_eq!(checked(vec![delete_op("a", "c"), put_op("c")]), Ok(()), "the end is not deleted");
        assert_eq!(checked(vec![delete_op("a", "b"), delete_op("c", "d"), put_op("bb")]), Ok(()));
        assert_eq!(checked(vec![delete_op("a", "c"), delete_op("b", "f"), put_op("e")]), duplicate);
        assert_eq!(checked(vec![delete_op("a", "\0"), put_op("b")]), Ok(()), "etcd overlooks an open end");
    }

    #[test]
    fn nested_txns_are_held_against_their_surroundings() {
        let duplicate = Err(Error::DuplicateKey);
        assert_eq!(checked(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(checked(vec![nested(vec![put_op("a")], vec![]), put_op("a")]), duplicate);
        assert_eq!(
            checked(vec![nested(vec![put_op("a")], vec![]), nested(vec![], vec![put_op("a")])]),
            duplicate
        );
        assert_eq!(checked(vec![nested(vec![put_op("a")], vec![]), delete_op("a", "")]), duplicate);
        assert_eq!(checked(vec![nested(vec![delete_op("a", "")], vec![]), put_op("a")]), duplicate);
    }

    #[test]
    fn a_put_and_a_later_delete_in_sibling_txns_pass_but_not_the_other_way_round() {
        let put = || nested(vec![put_op("a")], vec![]);
        let delete = || nested(vec![delete_op("a", "")], vec![]);
        assert_eq!(checked(vec![put(), delete()]), Ok(()));
        assert_eq!(checked(vec![delete(), put()]), Err(Error::DuplicateKey));
    }

    #[test]
    fn the_budget_of_operations_is_handed_down() {
        let inner = |n| {
            nested(
                (0..n)
                    .map(|_| op(Op::RequestRange(pb::RangeRequest { key: "k".into(), ..Default::default() })))
                    .collect(),
                vec![],
            )
        };
        let request = |n| pb::TxnRequest { success: vec![inner(n)], ..Default::default() };
        assert_eq!(txn(&request(3), 4), Ok(()));
        assert_eq!(txn(&request(4), 4), Err(Error::TooManyOps));
        assert_eq!(
            txn(&pb::TxnRequest { compare: vec![pb::Compare::default(); 5], ..Default::default() }, 4),
            Err(Error::TooManyOps)
        );
        assert_eq!(
            txn(&pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() }, 4),
            Err(Error::EmptyKey)
        );
    }

    #[test]
    fn the_first_thing_wrong_is_told() {
        assert_eq!(checked(vec![pb::RequestOp { request: None }]), Err(Error::KeyNotFound));
        assert_eq!(
            checked(vec![put_op("a"), put_op("a"), put_op("")]),
            Err(Error::EmptyKey),
            "ops before overlaps"
        );
        let value = pb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            ignore_value: true,
            ignore_lease: true,
            lease: 1,
            ..Default::default()
        };
        assert_eq!(put(&value), Err(Error::ValueProvided));
        assert_eq!(put(&pb::PutRequest { value: Bytes::new(), ..value }), Err(Error::LeaseProvided));
        let sort = pb::RangeRequest { sort_order: 9, ..Default::default() };
        assert_eq!(range(&sort), Err(Error::EmptyKey));
        assert_eq!(range(&pb::RangeRequest { key: "k".into(), ..sort }), Err(Error::InvalidSortOption));
    }

    #[test]
    fn txns_too_deep_are_refused_before_they_cost_stack() {
        let mut inner = nested(vec![], vec![]);
        for _ in 0..TXN_LEVELS_MAX + 1 {
            inner = nested(vec![inner], vec![]);
        }
        let request = pb::TxnRequest { success: vec![inner], ..Default::default() };
        assert_eq!(txn(&request, 10_000), Err(Error::TxnTooDeep));
    }

    proptest! {
        #[test]
        fn joined_intervals_hold_what_any_of_them_holds(
            intervals in prop::collection::vec((0u8..20, 0u8..20), 0..12), key in 0u8..20,
        ) {
            let name = |n: u8| Bytes::from(vec![b'a' + n]);
            let mut deletes = Deletes::default();
            for (start, end) in &intervals {
                deletes.add_interval(name(*start), name(*end));
            }
            let expected = intervals.iter().any(|(start, end)| (*start..*end).contains(&key));
            prop_assert_eq!(deletes.holds(&name(key)), expected);
        }
    }
}
