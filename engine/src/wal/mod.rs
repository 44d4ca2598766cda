//! The write-ahead log.
//!
//! It holds the truth: what is acknowledged is durable here first. See design: batches, marks, epochs, segments.

use crate::disk::{Completion, Disk};
use crate::error::Fault;
use crate::Micros;
use bytes::Bytes;
use std::path::PathBuf;

/// Term, vote and commit, as raft wants them kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// Who got this member's vote in it, 0 for nobody.
    pub vote: u64,
    /// The commit index.
    pub commit: u64,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command, or nothing (a new leader's first entry).
    Normal,
    /// A change of one member.
    ConfChange,
    /// A joint change.
    ConfChangeV2,
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// The encoded command (`Stamped`), or raft's own bytes.
    pub data: Bytes,
}

/// What is to be made durable in one write. Entries are contiguous; one whose index is not above the last one in the
/// log replaces it and everything behind it.
#[derive(Clone, Debug, Default)]
pub struct NewBatch {
    /// Term, vote and commit to remember (always the newest ones).
    pub hard_state: HardState,
    /// Entries, maybe none.
    pub entries: Vec<LogEntry>,
}

/// Numbers and places of a log.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Directory of the segments; made if it is not there.
    pub dir: PathBuf,
    /// Whose log this is (16 bytes: cluster id, member id); checked at opening, written into every segment.
    pub owner: [u8; 16],
    /// Size of the first segment, a multiple of 4,096 (default 1 MiB).
    pub segment_bytes_min: u64,
    /// Segments double up to this (default 64 MiB).
    pub segment_bytes_max: u64,
    /// How long the log is idle before the mark is written, in microseconds (default 1,000; at most 2,000).
    pub idle_mark_us: u64,
}

/// What opening found, told batch by batch before [`Wal::open`] returns.
#[derive(Clone, Debug, Default)]
pub struct RecoveredBatch {
    /// Term, vote and commit it carries.
    pub hard_state: HardState,
    /// Its entries.
    pub entries: Vec<LogEntry>,
}

/// How opening ended.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Whether there was no log before.
    pub fresh: bool,
    /// The newest term, vote and commit.
    pub hard_state: HardState,
    /// Batches accepted.
    pub batches: u64,
    /// Unfinished writes cut off: file, offset, bytes.
    pub torn: Vec<(PathBuf, u64, u64)>,
}

/// Whether the log takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It does.
    Ample,
    /// The next segment could not be allocated: only what the reserve is for may go in.
    Reserve,
}

/// The log, as a state machine.
pub struct Wal {}

impl Wal {
    /// Opens the log at `options.dir`, or starts one, telling every accepted batch to `visit` in order.
    pub fn open(
        disk: &mut dyn Disk,
        options: WalOptions,
        now: Micros,
        visit: &mut dyn FnMut(RecoveredBatch) -> Result<(), Fault>,
    ) -> Result<(Wal, Opened), Fault> {
        let _ = (disk, options, now, visit);
        unimplemented!()
    }

    /// Queues a batch and returns its sequence number. The write starts at the next [`Wal::step`].
    pub fn append(&mut self, batch: NewBatch) -> u64 {
        let _ = batch;
        unimplemented!()
    }

    /// Takes a completion; `None` if it was this log's, else gives it back.
    pub fn complete(&mut self, completion: Completion, now: Micros) -> Option<Completion> {
        let _ = (completion, now);
        unimplemented!()
    }

    /// Starts whatever may start: writes, the mark, allocation ahead.
    ///
    /// # Errors
    /// The fault that stopped the log, every time from then on.
    pub fn step(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<(), Fault> {
        let _ = (disk, now);
        unimplemented!()
    }

    /// Highest sequence number such that it and all before it are durable.
    pub fn durable(&self) -> u64 {
        unimplemented!()
    }

    /// When [`Wal::step`] wants to be called although nothing completed.
    pub fn wakeup(&self) -> Option<Micros> {
        unimplemented!()
    }

    /// Whether there is room.
    pub fn space(&self) -> Space {
        unimplemented!()
    }
}
