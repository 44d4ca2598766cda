//! raft-rs's `Storage`: the view in memory over the write-ahead log.
//!
//! ```text
//!   base        applied              last
//!    |  kept for  |  not yet applied   |
//!    |  followers |  (bounded: door)   |
//!    +------------+--------------------+
//! ```
//!
//! It holds every entry in `(applied, last]`, and before those as many applied ones as [`LogView::keep_bytes`]
//! allows, so that a follower that fell behind is served from memory. Terms are kept run by run from `base` on.
//! The view reflects an append before raft-rs is told of it; what is durable is the log's business, not the view's.
//!
//! A follower that needs an entry at or before `base` needs a snapshot. Snapshots come with clusters: until then
//! raft-rs is told `SnapshotTemporarilyUnavailable`, which it bears by asking again, and such a follower stays behind.

use coffer_engine::wal::{EntryKind, HardState, LogEntry};
use raft::eraftpb::{ConfState, Entry, EntryType};
use raft::storage::RaftState;
use raft::{GetEntriesContext, Storage, StorageError};
use std::collections::VecDeque;

/// What an entry weighs beside its data, in bytes: its head in memory and on the wire, rounded up.
pub const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// The weight of one entry in bytes, as every bound on entries counts it.
pub fn entry_bytes(entry: &Entry) -> u64 {
    ENTRY_OVERHEAD_BYTES + entry.data.len() as u64
}

/// raft-rs's entry as the log keeps it.
pub fn to_log_entry(entry: &Entry) -> LogEntry {
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind: match entry.get_entry_type() {
            EntryType::EntryNormal => EntryKind::Normal,
            EntryType::EntryConfChange => EntryKind::ConfChange,
            EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
        },
        data: entry.data.clone(),
    }
}

/// The log's entry as raft-rs has it.
pub fn from_log_entry(entry: LogEntry) -> Entry {
    let entry_type = match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::ConfChange => EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => EntryType::EntryConfChangeV2,
    };
    Entry { index: entry.index, term: entry.term, entry_type, data: entry.data, ..Entry::default() }
}

/// raft-rs's hard state from the log's.
pub fn to_raft_hard_state(hard_state: HardState) -> raft::eraftpb::HardState {
    let HardState { term, vote, commit } = hard_state;
    raft::eraftpb::HardState { term, vote, commit, ..Default::default() }
}

/// The terms of a stretch of the log, one row for each run of equal terms.
#[derive(Clone, Debug, Default)]
struct TermRuns {
    /// (first index of the run, its term), ascending.
    runs: VecDeque<(u64, u64)>,
}

impl TermRuns {
    fn push(&mut self, index: u64, term: u64) {
        if self.runs.back().is_none_or(|&(_, last)| last != term) {
            self.runs.push_back((index, term));
        }
    }

    /// The term at `index`, which the caller knows to be covered.
    fn term(&self, index: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|&(first, _)| first <= index);
        behind.checked_sub(1).and_then(|at| self.runs.get(at)).map(|&(_, term)| term)
    }

    /// Forgets everything from `index` on.
    fn truncate_from(&mut self, index: u64) {
        while self.runs.back().is_some_and(|&(first, _)| first >= index) {
            self.runs.pop_back();
        }
    }

    /// Forgets runs that end before `base`.
    fn trim_before(&mut self, base: u64) {
        while self.runs.get(1).is_some_and(|&(first, _)| first <= base) {
            self.runs.pop_front();
        }
    }
}

/// The view; see the head of this file.
#[derive(Clone, Debug)]
pub struct LogView {
    entries: VecDeque<Entry>,
    /// Index before the first entry held; its term is still known.
    base: u64,
    terms: TermRuns,
    /// Index up to which entries are applied.
    applied: u64,
    /// Weight of the entries in `(base, applied]`.
    applied_bytes: u64,
    /// Weight of the entries in `(applied, last]`.
    unapplied_bytes: u64,
    /// Weight of applied entries that may be kept.
    keep_bytes: u64,
    hard_state: HardState,
    conf_state: ConfState,
}

impl LogView {
    /// A view that begins behind `(base, base_term)`, everything up to there being applied.
    pub fn new(base: u64, base_term: u64, keep_bytes: u64) -> LogView {
        let mut terms = TermRuns::default();
        terms.push(base, base_term);
        LogView {
            entries: VecDeque::new(),
            base,
            terms,
            applied: base,
            applied_bytes: 0,
            unapplied_bytes: 0,
            keep_bytes,
            hard_state: HardState::default(),
            conf_state: ConfState::default(),
        }
    }

    /// Sets what `initial_state` tells raft-rs.
    pub fn set_initial_state(&mut self, hard_state: HardState, conf_state: ConfState) {
        self.hard_state = hard_state;
        self.conf_state = conf_state;
    }

    /// Index before the first entry held.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Index up to which entries are applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Weight of `(applied, last]` in bytes.
    pub fn unapplied_bytes(&self) -> u64 {
        self.unapplied_bytes
    }

    /// Weight in bytes of applied entries that may be kept for followers.
    pub fn keep_bytes(&self) -> u64 {
        self.keep_bytes
    }

    /// Changes the weight of applied entries that may be kept.
    pub fn set_keep_bytes(&mut self, bytes: u64) {
        self.keep_bytes = bytes;
        self.trim();
    }

    /// The term at `index`, if the view still knows it.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index < self.base || index > self.last() {
            return None;
        }
        self.terms.term(index)
    }

    /// The entry at `index`, if it is held.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.base + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Adds one entry; one at or before the last replaces it and everything behind it.
    ///
    /// # Errors
    /// Without changing anything, if the entry leaves a gap or would replace an applied one.
    pub fn append(&mut self, entry: Entry) -> Result<(), BadAppend> {
        if entry.index > self.last() + 1 {
            return Err(BadAppend::Gap { first: self.last() + 1, last: entry.index - 1 });
        }
        if entry.index <= self.applied {
            return Err(BadAppend::Applied { index: entry.index, applied: self.applied });
        }
        self.truncate_from(entry.index);
        self.terms.push(entry.index, entry.term);
        self.unapplied_bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
        Ok(())
    }

    fn truncate_from(&mut self, index: u64) {
        while self.last() >= index {
            let Some(gone) = self.entries.pop_back() else { break };
            self.unapplied_bytes -= entry_bytes(&gone);
        }
        self.terms.truncate_from(index);
    }

    /// Tells how far entries are applied; older ones may go.
    pub fn set_applied(&mut self, applied: u64) {
        debug_assert!(applied >= self.applied && applied <= self.last(), "applied stays within the log");
        while self.applied < applied {
            let Some(bytes) = self.entry(self.applied + 1).map(entry_bytes) else { break };
            self.unapplied_bytes -= bytes;
            self.applied_bytes += bytes;
            self.applied += 1;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.applied_bytes > self.keep_bytes && self.base < self.applied {
            let Some(gone) = self.entries.pop_front() else { break };
            self.applied_bytes -= entry_bytes(&gone);
            self.base += 1;
        }
        self.terms.trim_before(self.base);
    }
}

/// Why an entry does not fit behind the ones there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAppend {
    /// Entries between are missing.
    Gap {
        /// First missing index.
        first: u64,
        /// Last missing index.
        last: u64,
    },
    /// It would replace an entry that is applied.
    Applied {
        /// Its index.
        index: u64,
        /// How far entries are applied.
        applied: u64,
    },
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(to_raft_hard_state(self.hard_state), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let mut out = Vec::new();
        for index in low..high {
            let Some(entry) = self.entry(index) else { break };
            bytes = bytes.saturating_add(entry_bytes(entry));
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or(raft::Error::Store(if index < self.base {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<raft::eraftpb::Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry { index, term, data: vec![7u8; bytes].into(), ..Entry::default() }
    }

    #[test]
    fn an_entry_that_conflicts_replaces_all_behind_it() {
        let mut view = LogView::new(10, 2, 0);
        for index in 11..=15 {
            view.append(entry(index, 3, 10)).unwrap();
        }
        view.append(entry(13, 5, 10)).unwrap();
        assert_eq!(view.last(), 13);
        assert_eq!((10..=13).map(|i| view.term_at(i)).collect::<Vec<_>>(), [2, 3, 3, 5].map(Some));
        assert_eq!(view.term_at(14), None);
        assert_eq!(view.unapplied_bytes(), 3 * (ENTRY_OVERHEAD_BYTES + 10));
        assert_eq!(view.append(entry(16, 5, 0)), Err(BadAppend::Gap { first: 14, last: 15 }));
        view.set_applied(12);
        assert_eq!(view.append(entry(12, 6, 0)), Err(BadAppend::Applied { index: 12, applied: 12 }));
    }

    #[test]
    fn applied_entries_are_kept_up_to_their_bound_and_the_term_before_them_is_known() {
        let mut view = LogView::new(0, 0, 3 * (ENTRY_OVERHEAD_BYTES + 10));
        for index in 1..=10 {
            view.append(entry(index, index / 4 + 1, 10)).unwrap();
        }
        view.set_applied(8);
        assert_eq!(view.base(), 5);
        assert_eq!(view.term_at(5), Some(2));
        assert_eq!(view.term_at(4), None);
        assert_eq!(view.unapplied_bytes(), 2 * (ENTRY_OVERHEAD_BYTES + 10));
        let context = || GetEntriesContext::empty(false);
        assert!(matches!(
            view.entries(5, 7, None, context()),
            Err(raft::Error::Store(StorageError::Compacted))
        ));
        assert_eq!(view.entries(6, 11, None, context()).unwrap().len(), 5);
        assert_eq!(view.entries(6, 11, Some(0), context()).unwrap().len(), 1);
        assert_eq!(view.entries(6, 11, Some(2 * (ENTRY_OVERHEAD_BYTES + 10)), context()).unwrap().len(), 2);
    }
}
