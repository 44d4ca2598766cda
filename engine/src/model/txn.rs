//! Txns: three passes over the tree of txns, as etcd makes them.
//!
//! 1. *Decide*: all comparisons, those of txns inside too, against the state before; gives the path through the tree.
//! 2. *Check*: every operation on that path that could be refused, against the state before.
//! 3. *Run*: the operations in order, each seeing the ones before it. Nothing can be refused any more, so a txn that is
//!    refused has changed nothing.

use super::Model;
use super::write::Writer;
use crate::command::{
    Compare, CompareResult, CompareTarget, RangeRequest, TxnOp, TxnOpReply, TxnReply, TxnRequest,
};
use crate::error::Refusal;
use crate::mvcc::KeyValue;
use std::cmp::Ordering;

/// The branch a txn takes, and those of the txns inside that branch, in order.
struct Path {
    succeeded: bool,
    inner: Vec<Path>,
}

impl Model {
    pub(super) fn txn(&mut self, txn: &TxnRequest) -> Result<TxnReply, Refusal> {
        let path = self.decide(txn);
        self.check_txn(txn, &path)?;
        let mut writer = self.writer();
        let reply = writer.run(txn, &path);
        writer.finish();
        Ok(reply)
    }

    /// A txn of ranges alone.
    ///
    /// # Panics
    /// When it is not [`TxnRequest::is_read_only`]: a write must come through the log.
    pub fn read_txn(&self, txn: &TxnRequest) -> Result<(i64, TxnReply), Refusal> {
        assert!(txn.is_read_only(), "a txn that writes comes through the log");
        let path = self.decide(txn);
        self.check_txn(txn, &path)?;
        let responses = taken(txn, &path).iter().filter_map(|op| match op {
            TxnOp::Range(request) => Some(self.range(request).map(TxnOpReply::Range)),
            _ => None,
        });
        let responses = responses.collect::<Result<Vec<_>, _>>()?;
        Ok((self.revision, TxnReply { succeeded: path.succeeded, responses }))
    }

    fn decide(&self, txn: &TxnRequest) -> Path {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let inner = branch.iter().filter_map(|op| match op {
            TxnOp::Txn(inner) => Some(self.decide(inner)),
            _ => None,
        });
        Path { succeeded, inner: inner.collect() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut live =
            self.histories(&compare.range).filter_map(|history| history.newest().live()).peekable();
        if live.peek().is_none() {
            let absent = KeyValue::default();
            return !matches!(compare.target, CompareTarget::Value(_)) && holds_for(compare, &absent);
        }
        live.all(|kv| holds_for(compare, kv))
    }

    fn check_txn(&self, txn: &TxnRequest, path: &Path) -> Result<(), Refusal> {
        let mut inner = path.inner.iter();
        for op in taken(txn, path) {
            match op {
                TxnOp::Range(request) => self.check_range(request)?,
                TxnOp::Put(put) => self.check_put(put)?,
                TxnOp::DeleteRange(_) => {}
                TxnOp::Txn(txn) => {
                    self.check_txn(txn, inner.next().expect("a path has one part for each txn"))?
                }
            }
        }
        Ok(())
    }

    /// Unlike a range by itself, one within a txn has a negative revision held against the compaction revision.
    fn check_range(&self, request: &RangeRequest) -> Result<(), Refusal> {
        match request.revision {
            0 => Ok(()),
            revision if revision > self.revision => Err(Refusal::FutureRevision),
            revision if revision < self.compacted => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }
}

impl Writer<'_> {
    fn run(&mut self, txn: &TxnRequest, path: &Path) -> TxnReply {
        let mut inner = path.inner.iter();
        let mut responses = Vec::with_capacity(taken(txn, path).len());
        for op in taken(txn, path) {
            responses.push(match op {
                TxnOp::Range(request) => {
                    let reply = self.model.range_at(request, self.revision(), true);
                    TxnOpReply::Range(reply.expect("a range was checked before the first write"))
                }
                TxnOp::Put(put) => {
                    let reply = self.put(put);
                    TxnOpReply::Put { revision: self.revision(), reply }
                }
                TxnOp::DeleteRange(delete) => {
                    let reply = self.delete_range(delete);
                    TxnOpReply::DeleteRange { revision: self.revision(), reply }
                }
                TxnOp::Txn(txn) => {
                    let reply = self.run(txn, inner.next().expect("a path has one part for each txn"));
                    TxnOpReply::Txn { revision: 0, reply }
                }
            });
        }
        TxnReply { succeeded: path.succeeded, responses }
    }
}

/// The operations of the branch taken.
fn taken<'a>(txn: &'a TxnRequest, path: &Path) -> &'a [TxnOp] {
    if path.succeeded { &txn.success } else { &txn.failure }
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let stored_to_given = match &compare.target {
        CompareTarget::Version(given) => kv.version.cmp(given),
        CompareTarget::CreateRevision(given) => kv.create_revision.cmp(given),
        CompareTarget::ModRevision(given) => kv.mod_revision.cmp(given),
        CompareTarget::Value(given) => kv.value.cmp(given),
        CompareTarget::Lease(given) => kv.lease.cmp(given),
    };
    match compare.result {
        CompareResult::Equal => stored_to_given == Ordering::Equal,
        CompareResult::Greater => stored_to_given == Ordering::Greater,
        CompareResult::Less => stored_to_given == Ordering::Less,
        CompareResult::NotEqual => stored_to_given != Ordering::Equal,
    }
}
