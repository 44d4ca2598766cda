//! Txns: three passes over the tree of txns, as etcd makes them.
//!
//! 1. *Decide*: all comparisons, those of txns inside too, against the state before; gives the path through the tree.
//! 2. *Check*: every operation on that path that could be refused, against the state before.
//! 3. *Run*: the operations in order, each seeing the ones before it. Nothing can be refused any more, so a txn that is
//!    refused has changed nothing.

use super::apply::Mvcc;
use super::cell::{Body, Fields};
use super::view::{Newest, View};
use super::write::Writer;
use crate::command::{
    Compare, CompareResult, CompareTarget, RangeRequest, TxnOp, TxnOpReply, TxnReply, TxnRequest,
};
use crate::error::{ReadError, Refusal};
use crate::pager::page::TreeId;
use crate::pager::{Paged, Pages, PagesMut};
use std::cmp::Ordering;

/// The branch a txn takes, and those of the txns inside that branch, in order.
pub(super) struct Path {
    succeeded: bool,
    inner: Vec<Path>,
}

impl<P: PagesMut> Mvcc<P> {
    pub(super) fn txn(&mut self, txn: &TxnRequest) -> Result<TxnReply, ReadError> {
        let view = self.view();
        let path = view.decide(txn)?;
        view.check_txn(txn, &path)?;
        let mut writer = self.writer();
        let reply = writer.run(txn, &path)?;
        writer.finish();
        Ok(reply)
    }
}

impl<'p, P: Pages> View<'p, P> {
    /// A txn of ranges alone; the header revision is `.0`.
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`]; a fault.
    ///
    /// # Panics
    /// When it is not [`TxnRequest::is_read_only`]: a write must come through the log.
    pub fn read_txn(&self, txn: &TxnRequest) -> Result<(i64, TxnReply), ReadError> {
        assert!(txn.is_read_only(), "a txn that writes comes through the log");
        let path = self.decide(txn)?;
        self.check_txn(txn, &path)?;
        let mut responses = Vec::with_capacity(taken(txn, &path).len());
        for op in taken(txn, &path) {
            if let TxnOp::Range(request) = op {
                responses.push(TxnOpReply::Range(self.range(request, true)?));
            }
        }
        Ok((self.standing.revision, TxnReply { succeeded: path.succeeded, responses }))
    }

    fn decide(&self, txn: &TxnRequest) -> Paged<Path> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && self.holds(compare)?;
        }
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let inner = branch.iter().filter_map(|op| match op {
            TxnOp::Txn(inner) => Some(self.decide(inner)),
            _ => None,
        });
        Ok(Path { succeeded, inner: inner.collect::<Paged<_>>()? })
    }

    fn holds(&self, compare: &Compare) -> Paged<bool> {
        if compare.range.is_single() {
            return match self.entry(&compare.range.key)? {
                Some(entry) => self.holds_for(compare, &entry.body),
                None => Ok(holds_for_absent(compare)),
            };
        }
        let mut keys = self.walk(&compare.range, false)?;
        let mut found = false;
        while let Some((_, newest)) = keys.next()? {
            let Newest::Live(entry) = newest else { continue };
            found = true;
            if !self.holds_for(compare, &entry.body)? {
                return Ok(false);
            }
        }
        Ok(found || holds_for_absent(compare))
    }

    fn holds_for(&self, compare: &Compare, body: &Body<'p>) -> Paged<bool> {
        if let CompareTarget::Value(given) = &compare.target {
            return Ok(holds(compare.result, self.value(body)?.as_ref().cmp(given)));
        }
        let fields = self.read(TreeId::Keys, body.fields())?;
        Ok(holds(compare.result, compare_number(&fields, &compare.target)))
    }

    fn check_txn(&self, txn: &TxnRequest, path: &Path) -> Result<(), ReadError> {
        let mut inner = path.inner.iter();
        for op in taken(txn, path) {
            match op {
                TxnOp::Range(request) => self.check_range(request)?,
                TxnOp::Put(put) => self.check_put(put)?,
                TxnOp::DeleteRange(_) => {}
                TxnOp::Txn(txn) => self.check_txn(txn, next(&mut inner))?,
            }
        }
        Ok(())
    }

    /// Unlike a range by itself, one within a txn has a negative revision held against the compaction revision.
    fn check_range(&self, request: &RangeRequest) -> Result<(), Refusal> {
        match request.revision {
            0 => Ok(()),
            revision if revision > self.standing.revision => Err(Refusal::FutureRevision),
            revision if revision < self.standing.compacted => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }
}

impl<P: PagesMut> Writer<'_, P> {
    fn run(&mut self, txn: &TxnRequest, path: &Path) -> Result<TxnReply, ReadError> {
        let mut inner = path.inner.iter();
        let mut responses = Vec::with_capacity(taken(txn, path).len());
        for op in taken(txn, path) {
            responses.push(match op {
                TxnOp::Range(request) => TxnOpReply::Range(self.view().range(request, true)?),
                TxnOp::Put(put) => {
                    let reply = self.put(put)?;
                    TxnOpReply::Put { revision: self.revision(), reply }
                }
                TxnOp::DeleteRange(delete) => {
                    let reply = self.delete_range(delete)?;
                    TxnOpReply::DeleteRange { revision: self.revision(), reply }
                }
                TxnOp::Txn(txn) => {
                    let reply = self.run(txn, next(&mut inner))?;
                    TxnOpReply::Txn { revision: 0, reply }
                }
            });
        }
        Ok(TxnReply { succeeded: path.succeeded, responses })
    }
}

fn next<'a>(inner: &mut std::slice::Iter<'a, Path>) -> &'a Path {
    inner.next().expect("a path has one part for each txn")
}

/// The operations of the branch taken.
fn taken<'a>(txn: &'a TxnRequest, path: &Path) -> &'a [TxnOp] {
    if path.succeeded { &txn.success } else { &txn.failure }
}

/// A range that holds no key counts as one absent key: no value compares with it, its numbers are 0.
fn holds_for_absent(compare: &Compare) -> bool {
    match compare.target {
        CompareTarget::Value(_) => false,
        _ => holds(compare.result, compare_number(&Fields::default(), &compare.target)),
    }
}

fn compare_number(stored: &Fields<'_>, target: &CompareTarget) -> Ordering {
    match target {
        CompareTarget::Version(given) => stored.version.cmp(given),
        CompareTarget::CreateRevision(given) => stored.create_revision.cmp(given),
        CompareTarget::ModRevision(given) => stored.mod_revision.cmp(given),
        CompareTarget::Value(given) => stored.value.cmp(given),
        CompareTarget::Lease(given) => stored.lease.cmp(given),
    }
}

fn holds(result: CompareResult, stored_to_given: Ordering) -> bool {
    match result {
        CompareResult::Equal => stored_to_given == Ordering::Equal,
        CompareResult::Greater => stored_to_given == Ordering::Greater,
        CompareResult::Less => stored_to_given == Ordering::Less,
        CompareResult::NotEqual => stored_to_given != Ordering::Equal,
    }
}
