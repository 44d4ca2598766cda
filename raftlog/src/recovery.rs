//! What must hold before raft-rs's `RawNode` exists: it aborts the process on states that crashes and damage leave.
//!
//! The page file is opened first, then the log behind it is read. While it is read, batch by batch:
//! 1. it names no checkpoint newer than the page file: that one is lost, or an old one was put in its place;
//! 2. it begins at the latest with the entry behind the page file's root; entries are contiguous; none replaces one that is
//!    known committed; terms do not run backwards; at the root it has the entry that the page file applied;
//! 3. everything known committed is applied as it comes, so that memory holds `(applied, last]` and what is kept for
//!    followers, not the log; the page file is written meanwhile;
//!
//! and at its end:
//! 4. it ends no earlier than the page file, unless a checkpoint took the place of all its entries;
//! 5. commit = max(the log's, the store's applied index);
//! 6. last >= commit, else acknowledged entries are gone: [`Error::EntriesMissing`] names them. (With peers such a
//!    member will fetch them before it votes again; alone it can only refuse.)
//! 7. the cluster in the store is the one asked for, and this member is in it.
//!
//! A log that is new gets its first entry here, alike on every member: index 1, term 1, committed, the command that
//! names the cluster and its members; so every log begins with a term and a configuration that raft-rs accepts.
//!
//! A log without a page file, of which no checkpoint ever let anything go, is applied as a whole into a new one.

use crate::error::Error;
use crate::storage::LogView;
use coffer_engine::Micros;
use coffer_engine::command::{Command, Member, Stamped};
use coffer_engine::disk::{Disk, Done, Op};
use coffer_engine::error::Fault;
use coffer_engine::store::{Store, StoreOpened, StoreOptions};
use coffer_engine::wal::{
    self, EntryKind, HardState, LogEntry, NewBatch, Opened, RecoveredBatch, SharedDisk, Wal, WalOptions,
};
use std::io;
use std::path::Path;

pub use crate::replay::{Replay, Replayed};

/// Whose log and page file are opened, and how.
#[derive(Clone, Debug)]
pub struct RecoveryOptions {
    /// The log.
    pub wal: WalOptions,
    /// The page file.
    pub pages: StoreOptions,
    /// The cluster they must belong to.
    pub cluster_id: u64,
    /// The member they must belong to.
    pub member_id: u64,
    /// The first members, for a log that is new.
    pub bootstrap: Vec<Member>,
    /// Weight in bytes of applied entries to keep for followers.
    pub keep_bytes: u64,
}

/// The owner's mark in log and page file: cluster id, then member id.
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
    /// How opening the page file went.
    pub pages: StoreOpened,
    /// What of the log was applied again.
    pub replayed: Replayed,
}

/// Opens page file and log and applies what is known committed. `clock` gives the time.
///
/// # Errors
/// A fault of the disk, the page file or the log, or whatever of the rules above does not hold.
pub fn recover(
    disk: &mut dyn Disk,
    options: &RecoveryOptions,
    clock: &mut dyn FnMut() -> Micros,
) -> Result<Recovered, Error> {
    let begun = clock();
    let (store, pages) = Store::open(disk, options.pages.clone(), begun)?;
    for (offset, found) in &pages.metas_damaged {
        let file = options.pages.path.display();
        tracing::warn!(%file, offset, found, "a copy of a meta is not whole, the other one is used");
    }
    let mut recovery =
        Recovery { options, pages, replay: Replay::new(store, options.keep_bytes), stale: None };
    let (wal, opened) = recovery.read_log(disk, clock)?;
    for (path, offset, bytes) in &opened.torn {
        tracing::warn!(file = %path.display(), offset, bytes, "an unfinished write was cut off the log");
    }
    let mut recovered = recovery.end(disk, wal, opened, clock)?;
    recovered.replayed.took_us = clock().saturating_sub(begun);
    Ok(recovered)
}

struct Recovery<'o> {
    options: &'o RecoveryOptions,
    pages: StoreOpened,
    replay: Replay,
    /// The log names a checkpoint that the page file does not have.
    stale: Option<Fault>,
}

impl Recovery<'_> {
    fn read_log(
        &mut self,
        disk: &mut dyn Disk,
        clock: &mut dyn FnMut() -> Micros,
    ) -> Result<(Wal, Opened), Error> {
        let mut shared = SharedDisk::new(disk);
        let now = clock();
        let opened = Wal::open_beside(&mut shared, self.options.wal.clone(), now, &mut |disk, batch| {
            self.visit(disk, batch, clock)
        });
        let (stale, replay) = (self.stale.take(), &mut self.replay);
        let named = opened.as_ref().map_or((0, 0), |(_, opened)| opened.checkpoint);
        // what stopped the visit says more than the log's own error about it; and that the page file is old says more
        // than what that leads to
        if let Some(stale) = stale.or_else(|| is_stale(self.options, &self.pages, named)) {
            return Err(self.without_new_file(&mut shared, stale.into()));
        }
        if let Some(error) = replay.take_error() {
            return Err(error);
        }
        let (wal, opened) = opened?;
        replay.know(opened.hard_state);
        replay.keep_writing(&mut shared, u64::MAX, clock)?;
        Ok((wal, opened))
    }

    fn visit(
        &mut self,
        disk: &mut dyn Disk,
        batch: RecoveredBatch,
        clock: &mut dyn FnMut() -> Micros,
    ) -> Result<(), Fault> {
        self.stale = is_stale(self.options, &self.pages, batch.checkpoint);
        if self.stale.is_some() {
            return Err(Fault::Stopped);
        }
        match self.replay.visit(batch) {
            Ok(()) => self.replay.keep_writing(disk, self.options.pages.dirty_bytes, clock),
            // a later batch may tell that it is the page file that is not the right one
            Err(_) if self.replay.begins_too_late() => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// A page file that was made for nothing goes, so that the right one can be put in its place.
    fn without_new_file(&self, disk: &mut SharedDisk<'_>, error: Error) -> Error {
        if self.pages.fresh
            && let Err(error) = run(disk, Op::Remove { path: self.options.pages.path.clone() })
        {
            let file = self.options.pages.path.display();
            tracing::warn!(%file, %error, "the new page file was not removed");
        }
        error
    }

    fn end(
        mut self,
        disk: &mut dyn Disk,
        mut wal: Wal,
        opened: Opened,
        clock: &mut dyn FnMut() -> Micros,
    ) -> Result<Recovered, Error> {
        if self.replay.is_empty() {
            let NewBatch { hard_state, entries } = bootstrap_batch(self.options)?;
            let sequence = wal.append(NewBatch { hard_state, entries: entries.clone() });
            make_durable(disk, &mut wal, self.replay.store(), sequence, clock)?;
            let batch = RecoveredBatch { hard_state, entries, checkpoint: opened.checkpoint };
            // why it is refused is said at the end
            let _ = self.replay.visit(batch);
        }
        self.replay.end(opened.checkpoint.1)?;
        let mut replayed = self.replay.replayed();
        let (store, view) = self.replay.into_parts();
        replayed.pages = store.stats().pages_read;
        check_owner(&store, self.options)?;
        Ok(Recovered { wal, store, view, opened, pages: self.pages, replayed })
    }
}

/// Runs one operation to its end; nothing else counts any more.
fn run(disk: &mut dyn Disk, op: Op) -> io::Result<Done> {
    let token = disk.submit(op);
    let mut completions = Vec::new();
    loop {
        disk.poll(&mut completions);
        if let Some(own) = completions.drain(..).find(|completion| completion.token == token) {
            return own.result;
        }
        disk.wait(None);
    }
}

/// Why the page file is not the one that belongs to the log, if it is not: the log names a checkpoint that it lacks.
fn is_stale(options: &RecoveryOptions, pages: &StoreOpened, named: (u64, u64)) -> Option<Fault> {
    let (tx, applied) = named;
    if tx <= pages.tx && applied <= pages.applied {
        return None;
    }
    let found = if pages.fresh {
        "no such file: it is lost".to_owned()
    } else {
        format!("an older one, with transaction {} and entry {}", pages.tx, pages.applied)
    };
    let log = options.wal.dir.display();
    let expected = format!(
        "a page file with transaction {tx} and entry {applied}, the checkpoint that the log in {log} names"
    );
    Some(Fault::Corrupt { path: options.pages.path.clone(), offset: 0, expected, found })
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

/// Waits until the log's batch `sequence` is durable, unless the disk is so full that a log cannot even be begun.
fn make_durable(
    disk: &mut dyn Disk,
    wal: &mut Wal,
    store: &mut Store,
    sequence: u64,
    clock: &mut dyn FnMut() -> Micros,
) -> Result<(), Fault> {
    let mut completions = Vec::new();
    loop {
        let now = clock();
        wal.step(disk, now)?;
        if wal.durable() >= sequence {
            return Ok(());
        }
        if let Some(full) = wal.no_room() {
            return Err(full);
        }
        disk.wait(wal.wakeup().map(|at| at.saturating_sub(now)));
        disk.poll(&mut completions);
        let now = clock();
        for completion in completions.drain(..) {
            let stranger = wal.complete(completion, now);
            let stranger = stranger.and_then(|completion| store.complete(completion, now));
            debug_assert!(stranger.is_none(), "a completion belongs to nobody: {stranger:?}");
        }
    }
}
