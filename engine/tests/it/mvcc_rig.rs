//! The model and the state in pages, side by side: every command goes to both, every answer is compared.

use bytes::Bytes;
use coffer_engine::btree::mem::MemPages;
use coffer_engine::command::*;
use coffer_engine::error::{ReadError, Refusal};
use coffer_engine::model::Model;
use coffer_engine::mvcc::check::check;
use coffer_engine::mvcc::hash::HashScan;
use coffer_engine::mvcc::range::{Scan, Slice};
use coffer_engine::mvcc::relocate::Relocation;
use coffer_engine::mvcc::{Event, KeyRange, Mvcc};
use coffer_engine::store::HashKv;
use std::fmt::Debug;

/// Both stores.
pub(crate) struct Pair {
    pub(crate) model: Model,
    pub(crate) mvcc: Mvcc<MemPages>,
    index: u64,
}

/// A read's answer; pages in memory meet no fault.
fn answer<T>(read: Result<T, ReadError>) -> Result<T, Refusal> {
    read.map_err(|error| match error {
        ReadError::Refused(refusal) => refusal,
        ReadError::Fault(fault) => panic!("{fault}"),
    })
}

#[track_caller]
fn same<T: PartialEq + Debug>(pages: T, model: T, what: impl FnOnce() -> String) {
    assert!(pages == model, "{}\n  in pages: {pages:?}\n     model: {model:?}", what());
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::new("\0", "\0")
}

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair { model: Model::new(), mvcc: Mvcc::new(MemPages::new()), index: 0 }
    }

    /// The current revision.
    pub(crate) fn revision(&self) -> i64 {
        self.mvcc.position().revision
    }

    /// The lowest revision that can be read.
    pub(crate) fn lowest(&self) -> i64 {
        self.mvcc.position().compacted.max(1)
    }

    pub(crate) fn apply(&mut self, stamped: &Stamped) -> Applied {
        self.index += 1;
        let applied = self.mvcc.apply(self.index, 7, stamped).unwrap();
        same(&applied, &self.model.apply(self.index, 7, stamped), || format!("answer to {stamped:?}"));
        applied
    }

    /// Applies commands as one batch; its events.
    pub(crate) fn batch(&mut self, batch: &[Stamped]) -> Vec<Event> {
        for stamped in batch {
            self.apply(stamped);
        }
        let events = self.mvcc.take_events();
        same(&events, &self.model.take_events(), || format!("events of {batch:?}"));
        self.mvcc.pages_mut().publish();
        same(self.mvcc.position(), self.model.position(), || format!("position after {batch:?}"));
        events
    }

    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        self.batch(&[Stamped { clock_ms: 0, command: Command::Put(put) }]);
    }

    pub(crate) fn delete(&mut self, range: KeyRange) {
        let delete = DeleteRangeRequest { range, prev_kv: true };
        self.batch(&[Stamped { clock_ms: 0, command: Command::DeleteRange(delete) }]);
    }

    pub(crate) fn compact(&mut self, revision: i64) {
        self.batch(&[Stamped { clock_ms: 0, command: Command::Compact { revision } }]);
    }

    pub(crate) fn compact_step(&mut self, budget: usize) -> bool {
        let is_more = self.mvcc.compact_step(budget).unwrap();
        self.mvcc.pages_mut().publish();
        same(is_more, self.model.compact_step(budget), || format!("compaction of {budget}"));
        same(self.mvcc.position(), self.model.position(), || {
            format!("position after {budget} of compaction")
        });
        is_more
    }

    /// Checks every rule of both, and that pages are in use exactly as they are reached.
    pub(crate) fn check(&self) {
        assert_eq!(self.model.check(), Ok(()));
        let reached = check(&self.mvcc.view()).unwrap().unwrap();
        let reached: Vec<_> = reached.pages().collect();
        let used = self.mvcc.pages().used();
        assert!(reached == used, "reached {reached:?}\nused {used:?}");
    }

    /// Moves everything away from the places from `place` on, with commands between the steps of it; pages in use above.
    pub(crate) fn relocate(&mut self, place: u32, budget: usize, between: &[Stamped]) -> usize {
        self.mvcc.pages_mut().move_from(place);
        let mut pass = Some(Relocation::default());
        let mut between = between.iter();
        while let Some(at) = pass {
            pass = self.mvcc.relocate_step(at, budget).unwrap();
            self.mvcc.pages_mut().publish();
            self.check();
            if let Some(stamped) = between.next() {
                self.batch(std::slice::from_ref(stamped));
            }
        }
        self.mvcc.pages_mut().move_from(u32::MAX);
        self.mvcc.pages().used().iter().filter(|page| page.0 >= place).count()
    }

    pub(crate) fn compare_state(&self) {
        same(self.mvcc.view().state().unwrap(), self.model.state(), || "state".to_owned());
    }

    /// Compares a range, read whole and in slices, counted and not.
    pub(crate) fn compare_range(&self, request: &RangeRequest) {
        let view = self.mvcc.view();
        let expected = self.model.range(request);
        same(answer(view.range(request, true)), expected.clone(), || format!("{request:?}"));
        for keys in [1, 3] {
            let mut scan = match answer(Scan::begin(&view, request, true)) {
                Ok(scan) => scan,
                Err(refusal) => return same(Err(refusal), expected, || format!("{request:?} in slices")),
            };
            while scan.step(&view, request, Slice { keys, bytes: usize::MAX }).unwrap() {}
            same(Ok(scan.finish(request)), expected.clone(), || format!("{request:?} in slices"));
        }
        let uncounted = answer(view.range(request, false));
        same(uncounted, self.model.range_uncounted(request), || format!("{request:?}, uncounted"));
    }

    /// Compares a range at every revision, and some that cannot be read.
    pub(crate) fn compare_at_all_revisions(&self, request: &RangeRequest) {
        for revision in self.lowest() - 2..=self.revision() + 1 {
            self.compare_range(&RangeRequest { revision, ..request.clone() });
        }
    }

    pub(crate) fn compare_read_txn(&self, txn: &TxnRequest) {
        let view = self.mvcc.view();
        same(answer(view.read_txn(txn)), self.model.read_txn(txn), || format!("{txn:?}"));
    }

    /// Compares pages of history of a few sizes from every revision on.
    pub(crate) fn compare_history(&self, range: &KeyRange) {
        let view = self.mvcc.view();
        for from in self.mvcc.position().compacted - 1..=self.revision() + 2 {
            for events_max in [1, 3, usize::MAX] {
                let pages = answer(view.history(range, from, events_max));
                same(pages, self.model.history(range, from, events_max), || {
                    format!("history of {range:?} from {from}, {events_max} events")
                });
            }
        }
    }

    /// The hash by pages, in slices.
    pub(crate) fn hash(&self, revision: i64, budget: usize) -> Result<HashKv, Refusal> {
        let view = self.mvcc.view();
        let mut scan = answer(HashScan::begin(&view, revision))?;
        loop {
            if let Some(hash) = scan.step(&view, budget).unwrap() {
                return Ok(hash);
            }
        }
    }

    pub(crate) fn compare_hashes(&self) {
        for revision in self.lowest() - 2..=self.revision() + 1 {
            let model = self.model.hash_kv(revision);
            for budget in [1, 2, 5, usize::MAX] {
                same(self.hash(revision, budget), model, || format!("hash at {revision} by {budget}"));
            }
        }
    }

    pub(crate) fn compare_leases(&self, clock_ms: u64) {
        let view = self.mvcc.view();
        same(view.leases().unwrap(), self.model.leases(), || "leases".to_owned());
        for limit in [0, 1, 10] {
            let expired = view.expired_leases(clock_ms, limit).unwrap();
            same(expired, self.model.expired_leases(clock_ms, limit), || format!("expired at {clock_ms}"));
        }
        let next = view.next_lease_deadline_ms().unwrap();
        same(next, self.model.next_lease_deadline_ms(), || "the next deadline".to_owned());
        for id in 0..3 {
            same(view.lease(id, true).unwrap(), self.model.lease(id, true), || format!("lease {id}"));
        }
    }
}
