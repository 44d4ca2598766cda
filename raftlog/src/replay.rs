//! The log being read: what is known committed is applied as it comes.
//!
//! ```text
//!   page file:  ......... applied up to root ]
//!   log:             [ first ........ root ....... commit ....... last ]
//!                      kept for       |  applied here   |  stays in the view
//!                      followers      |
//! ```
//! Entries up to the page file's root are in it: they are not applied again, and only kept in the view as far as followers
//! may need them. A log may begin anywhere up to the entry behind the root, and it may be empty where a checkpoint took the
//! place of everything in it.
//!
//! Nobody watches what is applied here, so no events are made and values that were replaced are not read. While one stretch of entries is applied, the disk reads the pages that the next one will touch, many at once: alone they
//! would be waited for one after the other.

use crate::applier::{self, SLICE_BYTES_MAX, SLICE_ENTRIES_MAX};
use crate::error::Error;
use crate::storage::{BadAppend, LogView, entry_bytes, from_log_entry};
use bytes::Bytes;
use coffer_engine::Micros;
use coffer_engine::command::Stamped;
use coffer_engine::disk::{Completion, Disk};
use coffer_engine::error::Fault;
use coffer_engine::store::Store;
use coffer_engine::wal::{HardState, RecoveredBatch, Space};
use raft::eraftpb::Entry;
use std::collections::VecDeque;

/// Entries of a stretch: enough to keep a disk busy.
const STRETCH_ENTRIES: u64 = SLICE_ENTRIES_MAX as u64;
/// Bytes of a stretch.
const STRETCH_BYTES: u64 = SLICE_BYTES_MAX;

/// What of the log was applied again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries behind the page file's root.
    pub entries: u64,
    /// Their weight in bytes.
    pub bytes: u64,
    /// Pages of the page file that were not in memory and had to be read.
    pub pages: u64,
    /// How long opening page file and log took, in microseconds.
    pub took_us: Micros,
}

/// The log being read.
///
/// Invariant: the store has applied what the page file had and what the view says is applied, whichever is more.
pub struct Replay {
    store: Store,
    view: LogView,
    hard_state: HardState,
    /// Everything up to here was applied before the log was opened; the term of the entry there.
    root: u64,
    root_term: u64,
    /// All up to the root was gone over.
    passed_root: bool,
    /// An entry was seen.
    begun: bool,
    /// Index of the log's last entry, 0 without one.
    last: u64,
    replayed: Replayed,
    /// What is applied next.
    ahead: Stretch,
    error: Option<Error>,
}

/// Entries whose pages are on their way into memory: those that are not applied up to `last`, all known committed.
#[derive(Debug, Default)]
struct Stretch {
    last: u64,
    /// Their weight, and that of what came after them until the stretch before was applied.
    bytes: u64,
    /// The keys they change.
    keys: Vec<Bytes>,
    /// Pages that had been read when this was begun; `None` where it touches none.
    pages_read: Option<u64>,
}

impl Replay {
    /// Starts from a store that has applied what it has applied.
    pub fn new(mut store: Store, keep_bytes: u64) -> Replay {
        store.set_replaying(true);
        let position = store.reader().position();
        Replay {
            view: LogView::new(position.applied, position.applied_term, keep_bytes),
            store,
            hard_state: HardState::default(),
            root: position.applied,
            root_term: position.applied_term,
            passed_root: false,
            begun: false,
            last: 0,
            replayed: Replayed::default(),
            ahead: Stretch::default(),
            error: None,
        }
    }

    /// Takes the next batch of the log.
    ///
    /// # Errors
    /// [`Fault::Stopped`]; why is said by [`Replay::finish`].
    pub fn visit(&mut self, batch: RecoveredBatch) -> Result<(), Fault> {
        if self.error.is_none() {
            self.error = self.take(batch).err();
        }
        if self.error.is_some() { Err(Fault::Stopped) } else { Ok(()) }
    }

    /// The view so far.
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// What stopped the reading, if anything did.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// Whether it stopped because the log begins too late for the page file.
    pub(crate) fn begins_too_late(&self) -> bool {
        !self.begun && matches!(self.error, Some(Error::EntriesMissing { .. }))
    }

    /// Whether nothing was ever appended or agreed on.
    pub(crate) fn is_empty(&self) -> bool {
        self.view.last() == 0 && self.hard_state.commit == 0
    }

    /// What the log as a whole says beside its batches.
    pub(crate) fn know(&mut self, hard_state: HardState) {
        self.hard_state = hard_state.max_commit(self.hard_state);
    }

    /// The store.
    pub(crate) fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// What was applied again so far.
    pub(crate) fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// Lets the page file write what was applied, and waits while more than `dirty_bytes_max` wait for it and it has room.
    ///
    /// # Errors
    /// The fault of the page file.
    pub(crate) fn keep_writing(
        &mut self,
        disk: &mut dyn Disk,
        dirty_bytes_max: u64,
        clock: &mut dyn FnMut() -> Micros,
    ) -> Result<(), Fault> {
        let mut completions: Vec<Completion> = Vec::new();
        loop {
            let now = clock();
            disk.poll(&mut completions);
            for completion in completions.drain(..) {
                let stranger = self.store.complete(completion, now);
                debug_assert!(stranger.is_none(), "a completion belongs to nobody: {stranger:?}");
            }
            let next = self.store.step(disk, now, self.replayed.bytes)?;
            let waits = self.store.stats().dirty_bytes > dirty_bytes_max;
            // a full disk has no end that could be waited for, and with nothing under way there is nothing to wait for
            let full = self.store.space() == Space::Reserve;
            if !waits || full || !(next.at_once || next.at.is_some() || self.store.is_busy()) {
                return Ok(());
            }
            if !next.at_once {
                disk.wait(next.at.map(|at| at.saturating_sub(clock())));
            }
        }
    }

    fn take(&mut self, batch: RecoveredBatch) -> Result<(), Error> {
        if batch.hard_state.term < self.hard_state.term {
            return Err(Error::Unusable(format!(
                "the log's term falls from {} to {}",
                self.hard_state.term, batch.hard_state.term
            )));
        }
        // what the batch calls committed may be its own entries: they are held against what was known before it
        for entry in batch.entries {
            self.append(from_log_entry(entry))?;
        }
        self.hard_state = batch.hard_state.max_commit(self.hard_state);
        let known = self.hard_state.commit.min(self.view.last());
        let begin = self.ahead.last.max(self.view.applied());
        if known.saturating_sub(begin) >= STRETCH_ENTRIES
            || (known > begin && self.view.unapplied_bytes() >= self.ahead.bytes + STRETCH_BYTES)
        {
            self.go_on_to(known)?;
        }
        Ok(())
    }

    /// Begins to bring into memory what the entries up to `known` touch, and applies those before for which that has begun.
    fn go_on_to(&mut self, known: u64) -> Result<(), Error> {
        let next = self.read_ahead(known);
        let stretch = std::mem::replace(&mut self.ahead, next);
        self.apply_to(stretch.last)?;
        self.ahead.bytes = self.view.unapplied_bytes();
        Ok(())
    }

    /// The next stretch, which ends with entry `last`. Nothing is read where nothing had to be for the last one.
    fn read_ahead(&self, last: u64) -> Stretch {
        let pages_read = self.store.stats().pages_read;
        let mut next = Stretch { last, pages_read: Some(pages_read), ..Stretch::default() };
        if self.ahead.pages_read == Some(pages_read) {
            return next;
        }
        let begin = self.ahead.last.max(self.view.applied()).max(self.root);
        for entry in (begin + 1..=last).filter_map(|index| self.view.entry(index)) {
            // one that is no command is met when it is applied
            if let Ok(stamped) = Stamped::decode(&entry.data) {
                applier::keys_of(&stamped.command, &mut next.keys);
            }
        }
        if next.keys.is_empty() {
            next.pages_read = None;
        }
        self.store.read_ahead(&next.keys);
        next
    }

    fn append(&mut self, entry: Entry) -> Result<(), Error> {
        let (index, term) = (entry.index, entry.term);
        let there = self.view.term_at(index).filter(|_| self.begun);
        let committed = index <= self.hard_state.commit;
        if committed && there.is_some_and(|there| there != term) {
            return Err(replaced(index));
        }
        if index <= self.root && self.begins_with(index, committed || there == Some(term)) {
            // the view begins here: this entry's term is known, and nothing before it
            self.view = LogView::new(index, term, self.view.keep_bytes());
            (self.begun, self.last) = (true, index);
            return Ok(());
        }
        let before = self.view.term_at(index.saturating_sub(1));
        if before.is_some_and(|before| before > term) {
            return Err(Error::Unusable(format!(
                "the term of entry {index} is below that of the one before it"
            )));
        }
        match self.view.append(entry) {
            Ok(()) => {
                (self.begun, self.last) = (true, index);
                Ok(())
            }
            Err(BadAppend::Gap { first, last }) => {
                let context = self.gap_context(index);
                Err(Error::EntriesMissing { first, last, context })
            }
            // below the view's beginning nothing is known, and what is committed is not replaced
            Err(BadAppend::Applied { index, .. }) if index < self.view.base() => Ok(()),
            Err(BadAppend::Applied { index, .. }) if self.view.term_at(index) == Some(term) => Ok(()),
            Err(BadAppend::Applied { index, .. }) => Err(replaced(index)),
        }
    }

    /// Whether the view is to begin (anew) with an entry that the page file has applied: the first one, or one that takes
    /// the place of all there are. `known`: it is one of them, or the log says that it is committed.
    fn begins_with(&self, index: u64, known: bool) -> bool {
        !self.begun || (index <= self.view.base() && !known)
    }

    fn gap_context(&self, index: u64) -> String {
        if self.begun || self.root == 0 {
            return String::new();
        }
        format!(" (the page file has applied up to entry {}, the log begins with entry {index})", self.root)
    }

    fn apply_to(&mut self, index: u64) -> Result<(), Error> {
        self.pass_root(index)?;
        let mut queue = VecDeque::new();
        while self.view.applied() < index {
            let mut bytes = 0;
            let mut at = self.view.applied() + 1;
            while at <= index && queue.len() < SLICE_ENTRIES_MAX && bytes < SLICE_BYTES_MAX {
                let Some(entry) = self.view.entry(at) else { break };
                bytes += entry_bytes(entry);
                queue.push_back(entry.clone());
                at += 1;
            }
            self.replayed.entries += queue.len() as u64;
            self.replayed.bytes += bytes;
            while applier::apply_slice(
                &mut self.store,
                &mut queue,
                SLICE_ENTRIES_MAX,
                None,
                &mut |_, _, _| {},
            )?
            .is_some()
            {}
            self.view.set_applied(at - 1);
        }
        Ok(())
    }

    /// Goes over the entries that the page file has applied, as far as `index`. The one at its root must be the one that it
    /// applied.
    fn pass_root(&mut self, index: u64) -> Result<(), Error> {
        if self.passed_root {
            return Ok(());
        }
        let there = self.view.term_at(self.root).filter(|_| index >= self.root);
        if there.is_some_and(|there| there != self.root_term) {
            return Err(Error::Unusable(format!(
                "entry {} has term {} in the log, and term {} where the page file applied it: they do not belong together",
                self.root,
                there.unwrap_or(0),
                self.root_term
            )));
        }
        self.passed_root = index >= self.root;
        let to = index.min(self.root);
        if to > self.view.applied() {
            self.view.set_applied(to);
        }
        Ok(())
    }

    /// Ends the reading: checks what must hold and applies the rest of what is known committed. `checkpoint` is the
    /// applied index of the newest checkpoint that the log names: up to there its entries may be gone.
    ///
    /// # Errors
    /// See the head of [`crate::recovery`].
    pub fn finish(mut self, checkpoint: u64) -> Result<(Store, LogView), Error> {
        self.end(checkpoint)?;
        Ok(self.into_parts())
    }

    /// Store and view.
    pub(crate) fn into_parts(mut self) -> (Store, LogView) {
        self.store.set_replaying(false);
        (self.store, self.view)
    }

    /// See [`Replay::finish`].
    pub(crate) fn end(&mut self, checkpoint: u64) -> Result<(), Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let end = self.last.max(checkpoint);
        if end < self.root {
            let context = " (the page file has applied them)".to_owned();
            return Err(Error::EntriesMissing { first: end + 1, last: self.root, context });
        }
        let commit = self.hard_state.commit.max(self.root);
        if self.view.last() < commit {
            let first = self.view.last() + 1;
            return Err(Error::EntriesMissing { first, last: commit, context: String::new() });
        }
        self.go_on_to(commit)?; // the stretch before
        self.go_on_to(commit)?; // the last one
        let conf = applier::to_raft_conf_state(&self.store.conf_state());
        if conf.voters.is_empty() {
            return Err(Error::Unusable("the log names no member that votes".into()));
        }
        let last_term = self.view.term_at(self.view.last()).unwrap_or(0);
        let hard_state = HardState { commit, ..self.hard_state };
        if last_term > hard_state.term {
            return Err(Error::Unusable(format!(
                "the log's last entry is of term {last_term}, its newest term is {}",
                hard_state.term
            )));
        }
        self.view.set_initial_state(hard_state, conf);
        Ok(())
    }
}

fn replaced(index: u64) -> Error {
    Error::Unusable(format!("the log replaces entry {index}, which was committed"))
}

trait MaxCommit {
    fn max_commit(self, other: HardState) -> HardState;
}

impl MaxCommit for HardState {
    /// This term and vote with the higher commit index of both.
    fn max_commit(self, other: HardState) -> HardState {
        HardState { commit: self.commit.max(other.commit), ..self }
    }
}
