//! What must hold before raft-rs's `RawNode` exists: it aborts the process on states that crashes and damage leave.
//!
//! While the log is read, batch by batch:
//! 1. entries are contiguous; none replaces one that is known committed; terms do not run backwards;
//! 2. everything known committed is applied as it comes, so that memory holds `(applied, last]` and what is kept for
//!    followers, not the log;
//!
//! and at its end:
//! 3. commit = max(the log's, the store's applied index);
//! 4. last >= commit, else acknowledged entries are gone: [`Error::EntriesMissing`] names them. (With peers such a
//!    member will fetch them before it votes again; alone it can only refuse.)
//! 5. the cluster in the store is the one asked for, and this member is in it.
//!
//! A log that is new gets its first entry here, alike on every member: index 1, term 1, committed, the command that
//! names the cluster and its members; so every log begins with a term and a configuration that raft-rs accepts.

use crate::applier::{self, SLICE_BYTES_MAX, SLICE_ENTRIES_MAX};
use crate::error::Error;
use crate::storage::{BadAppend, LogView, entry_bytes, from_log_entry};
use coffer_engine::Micros;
use coffer_engine::command::{Command, Member, Stamped};
use coffer_engine::disk::{Completion, Disk};
use coffer_engine::error::Fault;
use coffer_engine::store::Store;
use coffer_engine::wal::{
    self, EntryKind, HardState, LogEntry, NewBatch, Opened, RecoveredBatch, Wal, WalOptions,
};
use raft::eraftpb::Entry;
use std::collections::VecDeque;
use std::path::Path;

/// Whose log is opened, and how.
#[derive(Clone, Debug)]
pub struct RecoveryOptions {
    /// The log.
    pub wal: WalOptions,
    /// The cluster it must belong to.
    pub cluster_id: u64,
    /// The member it must belong to.
    pub member_id: u64,
    /// The first members, for a log that is new.
    pub bootstrap: Vec<Member>,
    /// Weight in bytes of applied entries to keep for followers.
    pub keep_bytes: u64,
}

/// The owner's mark in the log: cluster id, then member id.
pub fn owner(cluster_id: u64, member_id: u64) -> [u8; 16] {
    let mut owner = [0; 16];
    owner[..8].copy_from_slice(&cluster_id.to_be_bytes());
    owner[8..].copy_from_slice(&member_id.to_be_bytes());
    owner
}

/// The cluster and member ids that the log in `wal_dir` was written for; `None` where there is no log yet.
///
/// # Errors
/// The directory cannot be read.
pub fn identity_of(wal_dir: &Path) -> Result<Option<(u64, u64)>, Error> {
    let owner = wal::owner_of(wal_dir)?;
    Ok(owner.map(|owner| {
        let both = u128::from_be_bytes(owner);
        ((both >> 64) as u64, both as u64)
    }))
}

/// A member ready to start raft.
pub struct Recovered {
    /// The log, open for appending.
    pub wal: Wal,
    /// The store, with everything known committed applied.
    pub store: Store,
    /// The view of the log, with what raft-rs starts from.
    pub view: LogView,
    /// How opening the log went.
    pub opened: Opened,
}

/// Opens the log and applies what is known committed.
///
/// # Errors
/// A fault of the disk or the log, or whatever of the rules above does not hold.
pub fn recover(disk: &mut dyn Disk, options: &RecoveryOptions, now: Micros) -> Result<Recovered, Error> {
    let mut replay = Replay::new(Store::new(), options.keep_bytes);
    let opened = Wal::open(disk, options.wal.clone(), now, &mut |batch| replay.visit(batch));
    // what stopped the visit says more than the log's own error about it
    if let Some(error) = replay.error.take() {
        return Err(error);
    }
    let (mut wal, opened) = opened?;
    for (path, offset, bytes) in &opened.torn {
        tracing::warn!(file = %path.display(), offset, bytes, "an unfinished write was cut off the log");
    }
    replay.hard_state = opened.hard_state.max_commit(replay.hard_state);
    if replay.view.last() == 0 && replay.hard_state.commit == 0 {
        let first = bootstrap_batch(options)?;
        let sequence = wal.append(first.clone());
        make_durable(disk, &mut wal, sequence, now)?;
        replay
            .visit(RecoveredBatch { hard_state: first.hard_state, entries: first.entries })
            .map_err(|fault| replay.error.take().unwrap_or(Error::Fault(fault)))?;
    }
    let (store, view) = replay.finish()?;
    check_owner(&store, options)?;
    Ok(Recovered { wal, store, view, opened })
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

fn bootstrap_batch(options: &RecoveryOptions) -> Result<NewBatch, Error> {
    if !options.bootstrap.iter().any(|member| member.id == options.member_id) {
        return Err(Error::Unusable("the log is new, and this member is not among the first ones".into()));
    }
    let mut members = options.bootstrap.clone();
    members.sort_unstable_by_key(|member| member.id);
    let command = Command::Bootstrap { cluster_id: options.cluster_id, members };
    let data = Stamped { clock_ms: 0, command }
        .encode()
        .map_err(|error| Error::Unusable(format!("the first command cannot be written: {error}")))?;
    Ok(NewBatch {
        hard_state: HardState { term: 1, vote: 0, commit: 1 },
        entries: vec![LogEntry { index: 1, term: 1, kind: EntryKind::Normal, data: data.into() }],
    })
}

fn check_owner(store: &Store, options: &RecoveryOptions) -> Result<(), Error> {
    let reader = store.reader();
    if reader.cluster_id() != options.cluster_id {
        return Err(Error::WrongOwner(format!(
            "the data belong to cluster {:x}, not to {:x}",
            reader.cluster_id(),
            options.cluster_id
        )));
    }
    if !reader.members().iter().any(|member| member.id == options.member_id) {
        return Err(Error::WrongOwner(format!("cluster has no member {:x}", options.member_id)));
    }
    Ok(())
}

/// Waits until the log's batch `sequence` is durable.
///
/// # Errors
/// The fault that stopped the log.
pub fn make_durable(disk: &mut dyn Disk, wal: &mut Wal, sequence: u64, now: Micros) -> Result<(), Fault> {
    let mut completions: Vec<Completion> = Vec::new();
    loop {
        wal.step(disk, now)?;
        if wal.durable() >= sequence {
            return Ok(());
        }
        disk.wait(None);
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            wal.complete(completion, now);
        }
    }
}

/// The log being read.
pub struct Replay {
    store: Store,
    view: LogView,
    hard_state: HardState,
    /// Everything up to here was applied before the log was opened.
    root: u64,
    error: Option<Error>,
}

impl Replay {
    /// Starts from a store that has applied what it has applied.
    pub fn new(store: Store, keep_bytes: u64) -> Replay {
        let position = store.reader().position();
        let view = LogView::new(position.applied, position.applied_term, keep_bytes);
        Replay { store, view, hard_state: HardState::default(), root: position.applied, error: None }
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
        if known - self.view.applied() >= SLICE_ENTRIES_MAX as u64
            || self.view.unapplied_bytes() >= SLICE_BYTES_MAX
        {
            self.apply_to(known)?;
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry) -> Result<(), Error> {
        let (index, term) = (entry.index, entry.term);
        if index <= self.root {
            return Ok(());
        }
        if index <= self.hard_state.commit && self.view.term_at(index).is_some_and(|there| there != term) {
            return Err(Error::Unusable(format!("the log replaces entry {index}, which was committed")));
        }
        let before = self.view.term_at(index - 1);
        if before.is_some_and(|before| before > term) {
            return Err(Error::Unusable(format!(
                "the term of entry {index} is below that of the one before it"
            )));
        }
        match self.view.append(entry) {
            Ok(()) => Ok(()),
            Err(BadAppend::Gap { first, last }) => Err(Error::EntriesMissing { first, last }),
            Err(BadAppend::Applied { index, .. }) if self.view.term_at(index) == Some(term) => Ok(()),
            Err(BadAppend::Applied { index, .. }) => {
                Err(Error::Unusable(format!("the log replaces entry {index}, which was committed")))
            }
        }
    }

    fn apply_to(&mut self, index: u64) -> Result<(), Error> {
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
            while applier::apply_slice(&mut self.store, &mut queue, &mut |_, _, _| {})?.is_some() {}
            self.view.set_applied(at - 1);
        }
        Ok(())
    }

    /// Ends the reading: checks what must hold and applies the rest of what is known committed.
    ///
    /// # Errors
    /// See the head of this file.
    pub fn finish(mut self) -> Result<(Store, LogView), Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let commit = self.hard_state.commit.max(self.root);
        if self.view.last() < commit {
            return Err(Error::EntriesMissing { first: self.view.last() + 1, last: commit });
        }
        self.apply_to(commit)?;
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
        Ok((self.store, self.view))
    }
}
