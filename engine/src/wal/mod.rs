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
    /// Largest entry, in bytes of its data (default 2 MiB); a segment is never smaller than one such entry needs.
    pub entry_bytes_max: u64,
    /// Writes in flight at most (default 2).
    pub writes_in_flight_max: u32,
    /// Bytes that must wait before a further write starts beside the first (default 128 KiB).
    pub second_write_bytes: u64,
    /// A number drawn at random for each start (by whoever may draw one): it stands in every batch of this life of the
    /// log, so that no bytes of a client can pass for a batch.
    pub salt: u64,
}

impl WalOptions {
    /// The defaults.
    pub fn new(dir: PathBuf, owner: [u8; 16], salt: u64) -> WalOptions {
        WalOptions {
            dir,
            owner,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            idle_mark_us: 1_000,
            entry_bytes_max: 2 << 20,
            writes_in_flight_max: 2,
            second_write_bytes: 128 << 10,
            salt,
        }
    }
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

/// Counters of one open log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Durable writes completed, marks and segment headers included.
    pub writes: u64,
    /// Bytes of them, padding included.
    pub bytes_written: u64,
    /// Batches among them that hold a caller's data.
    pub batches: u64,
    /// Marks among them.
    pub marks: u64,
    /// Segments begun.
    pub segments_begun: u64,
    /// Segments recycled.
    pub segments_recycled: u64,
    /// Sum of the durable writes' durations in microseconds.
    pub write_us_sum: u64,
    /// Durable writes by duration: bucket `i` counts those of at most 1 ms x 2^i (not cumulative), the last one all
    /// longer ones.
    pub write_us_buckets: [u64; 15],
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

    /// Largest entry this log takes, in bytes of its data; a larger one stops the log.
    pub fn entry_bytes_max(&self) -> u64 {
        unimplemented!()
    }

    /// Bytes appended whose write has not started.
    pub fn queued_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Says that entries up to and including `index` are not needed any more: segments that hold nothing else are
    /// recycled, once a durable batch says so.
    pub fn release(&mut self, index: u64) {
        let _ = index;
        unimplemented!()
    }

    /// Begins a clean stop: what is queued is written, then the final mark; nothing may be appended any more. Go on
    /// with [`Wal::step`] and [`Wal::complete`] until [`Wal::closed`].
    pub fn close(&mut self) {
        unimplemented!()
    }

    /// Whether the clean stop is done.
    pub fn closed(&self) -> bool {
        unimplemented!()
    }

    /// Counters since opening.
    pub fn stats(&self) -> &WalStats {
        unimplemented!()
    }
}
