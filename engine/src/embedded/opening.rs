//! Opening: the page file, then the log behind it.
//!
//! ```text
//!   page file:  ... applied ]
//!   log:              [ first ........... last ]      first <= applied + 1, last >= applied
//!                              applied here
//! ```
//! Page file and log must belong together: the log names every checkpoint that it relies on, so an older page file, or none,
//! is found out; and the log reaches at least as far as the page file, so a lost or older log is found out too. Either way what
//! was acknowledged is missing, and the database is not opened.

use crate::Micros;
use crate::command::Stamped;
use crate::disk::{Completion, Disk, Op};
use crate::error::Fault;
use crate::store::{Store, StoreOpened, StoreOptions};
use crate::wal::{LogEntry, Opened, RecoveredBatch, SharedDisk, Space, Wal, WalOptions};

/// Entries, and bytes of them, after which what was applied is published: what is changed several times in between is copied
/// once.
const SLICE_ENTRIES_MAX: u64 = 512;
const SLICE_BYTES_MAX: u64 = 1 << 20;

/// What is opened.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) wal: WalOptions,
    pub(super) pages: StoreOptions,
}

/// What opening gives.
pub(super) struct Recovered {
    pub(super) wal: Wal,
    pub(super) store: Store,
    pub(super) opened: Opened,
    /// Bytes of the entries that were applied again.
    pub(super) replayed_bytes: u64,
}

/// Opens page file and log and applies what the log holds behind the page file. `clock` gives the time.
///
/// # Errors
/// Those of [`Store::open`] and [`Wal::open`]; [`Fault::Corrupt`] if the two do not belong together, if entries are missing or
/// are no commands.
pub(super) fn open(
    disk: &mut dyn Disk,
    files: &Files,
    clock: &mut dyn FnMut() -> Micros,
) -> Result<Recovered, Fault> {
    let (mut store, pages) = Store::open(disk, files.pages.clone(), clock())?;
    store.set_replaying(true);
    let applied = pages.applied;
    let mut replay = Replay { files, pages, store, applied, last: 0, waiting: (0, 0), bytes: 0, gap: None };
    let mut shared = SharedDisk::new(disk);
    let now = clock();
    let opened = Wal::open_beside(&mut shared, files.wal.clone(), now, &mut |disk, batch| {
        replay.visit(disk, batch, clock)
    });
    let (wal, opened) = match opened.and_then(|opened| replay.judge(&opened.1).map(|()| opened)) {
        Ok(opened) => opened,
        Err(fault) => return Err(replay.refuse(&mut shared, fault)),
    };
    replay.publish();
    replay.store.set_replaying(false);
    replay.keep_writing(&mut shared, u64::MAX, clock)?;
    Ok(Recovered { wal, store: replay.store, opened, replayed_bytes: replay.bytes })
}

struct Replay<'f> {
    files: &'f Files,
    pages: StoreOpened,
    store: Store,
    applied: u64,
    /// Index of the log's last entry, 0 without one.
    last: u64,
    /// Entries applied and not published, and their bytes.
    waiting: (u64, u64),
    bytes: u64,
    /// Entries are missing: so the log begins too late, unless it says later that the page file is an older one.
    gap: Option<Fault>,
}

impl Replay<'_> {
    fn visit(
        &mut self,
        disk: &mut dyn Disk,
        batch: RecoveredBatch,
        clock: &mut dyn FnMut() -> Micros,
    ) -> Result<(), Fault> {
        for entry in batch.entries {
            self.last = entry.index;
            if self.gap.is_none() && entry.index > self.applied {
                self.apply(&entry)?;
            }
        }
        let (entries, bytes) = self.waiting;
        if entries >= SLICE_ENTRIES_MAX || bytes >= SLICE_BYTES_MAX {
            self.publish();
            self.keep_writing(disk, self.files.pages.dirty_bytes, clock)?;
        }
        Ok(())
    }

    fn apply(&mut self, entry: &LogEntry) -> Result<(), Fault> {
        if entry.index != self.applied + 1 {
            self.gap = Some(self.missing(self.applied + 1, entry.index - 1));
            return Ok(());
        }
        let stamped = Stamped::decode(&entry.data).map_err(|error| Fault::Corrupt {
            path: self.files.wal.dir.clone(),
            offset: 0,
            expected: format!("a command in entry {}", entry.index),
            found: error.to_string(),
        })?;
        self.store.begin().apply(entry.index, entry.term, &stamped).map_err(|fault| *fault)?;
        self.applied = entry.index;
        let bytes = entry.data.len() as u64;
        self.waiting = (self.waiting.0 + 1, self.waiting.1 + bytes);
        self.bytes += bytes;
        Ok(())
    }

    fn publish(&mut self) {
        if self.waiting.0 > 0 {
            // nobody watches yet
            let _ = self.store.begin().publish();
            self.waiting = (0, 0);
        }
    }

    /// Lets the page file write what was applied, and waits while more than `dirty_bytes_max` wait for it and it has room.
    fn keep_writing(
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
            let next = self.store.step(disk, now, self.bytes)?;
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

    /// What the log as a whole says.
    fn judge(&mut self, opened: &Opened) -> Result<(), Fault> {
        self.check_checkpoint(opened.checkpoint)?;
        if let Some(gap) = self.gap.take() {
            return Err(gap);
        }
        let end = self.last.max(opened.checkpoint.1);
        if end < self.pages.applied {
            return Err(self.missing(end + 1, self.pages.applied));
        }
        if opened.hard_state.commit > self.applied {
            return Err(self.missing(self.applied + 1, opened.hard_state.commit));
        }
        Ok(())
    }

    fn check_checkpoint(&self, named: (u64, u64)) -> Result<(), Fault> {
        let (tx, applied) = named;
        if tx <= self.pages.tx && applied <= self.pages.applied {
            return Ok(());
        }
        let found = if self.pages.fresh {
            "no such file: it is lost".to_owned()
        } else {
            format!("an older one, with transaction {} and entry {}", self.pages.tx, self.pages.applied)
        };
        Err(Fault::Corrupt {
            path: self.files.pages.path.clone(),
            offset: 0,
            expected: format!(
                "a page file with transaction {tx} and entry {applied}, the checkpoint that the log in {} names",
                self.files.wal.dir.display()
            ),
            found,
        })
    }

    fn missing(&self, first: u64, last: u64) -> Fault {
        Fault::Corrupt {
            path: self.files.wal.dir.clone(),
            offset: 0,
            expected: format!("entries {first} to {last}"),
            found: format!(
                "none of them; the page file {} has applied up to entry {}",
                self.files.pages.path.display(),
                self.pages.applied
            ),
        }
    }

    /// A page file that was made for nothing goes, so that the right one can be put in its place.
    fn refuse(&self, disk: &mut SharedDisk<'_>, fault: Fault) -> Fault {
        if self.pages.fresh {
            // that it could not be removed matters less than why it is not wanted
            let _ = crate::disk::blocking::run(disk, Op::Remove { path: self.files.pages.path.clone() });
        }
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, PutRequest};
    use crate::disk::sim::SimDisk;
    use crate::wal::{EntryKind, HardState, NewBatch};
    use std::path::PathBuf;

    fn files() -> Files {
        let owner = *b"coffer embedded\0";
        Files {
            wal: WalOptions {
                segment_bytes_min: 64 << 10,
                segment_bytes_max: 64 << 10,
                entry_bytes_max: 4 << 10,
                ..WalOptions::new(PathBuf::from("/db/wal"), owner, 1)
            },
            pages: StoreOptions { dirty_bytes: 64 << 10, ..StoreOptions::new("/db/pages".into(), owner) },
        }
    }

    #[test]
    fn a_page_file_that_finds_no_room_is_not_waited_for_while_the_log_is_read() {
        let mut disk = SimDisk::new(1);
        let mut wal = Wal::open(&mut disk, files().wal, 0, &mut |_| Ok(())).unwrap().0;
        let entry = |index: u64| {
            let (key, value) = (format!("key {index}").into(), vec![b'v'; 2_000].into());
            let command = Command::Put(PutRequest { key, value, ..PutRequest::default() });
            let data = Stamped { clock_ms: index, command }.encode().unwrap().into();
            LogEntry { index, term: 1, kind: EntryKind::Normal, data }
        };
        let hard_state = HardState { term: 1, vote: 0, commit: 3_000 };
        let sequence = wal.append(NewBatch { hard_state, entries: (1..=3_000).map(entry).collect() });
        let mut completions = Vec::new();
        while wal.durable() < sequence {
            let now = disk.now();
            wal.step(&mut disk, now).unwrap();
            disk.wait(Some(1_000));
            disk.poll(&mut completions);
            completions.drain(..).for_each(|completion| drop(wal.complete(completion, now)));
        }
        disk.kill();
        disk.set_capacity(Some(disk.used() + (2_200 << 10)));
        let (begun, clock) = (disk.now(), disk.clone());
        let recovered = open(&mut disk, &files(), &mut || {
            assert!(clock.now() < begun + 60_000_000, "it waits for room");
            clock.now()
        })
        .unwrap();
        assert_eq!(recovered.store.applied(), 3_000);
        assert_eq!(recovered.store.space(), Space::Reserve);
    }
}
