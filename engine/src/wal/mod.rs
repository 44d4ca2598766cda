//! The write-ahead log: what is acknowledged is durable here first.
//!
//! ```text
//! append(NewBatch) > queue > one batch > WriteDurable > complete > durable()
//!
//!  1.wal               2.wal               3.wal (current)     4.wal     5.wal
//! +---+---+---+---+   +---+---+---+---+   +---+---+---+-----+  +------+  +------+
//! | H | B | B | M |<--| H | B | B | B |<--| H | B | B | ... |  |stamp |  |stamp |
//! +---+---+---+---+   +---+---+---+---+   +---+---+---+-----+  +------+  +------+
//!                                                    ^           next     reserve
//!  H header: names the exact end of its predecessor  |
//!  B batch: repeats the identity of the one before   next write goes here
//!  M mark: an empty batch; all before it is durable
//! ```
//! | part | what it does |
//! |---|---|
//! | batch.rs | a batch's bytes: head, CRCs, entries |
//! | segment.rs | a segment's file, its header, the stamp of unused space |
//! | writer.rs | [`Wal`]: queue, writes in flight, marks, the clean stop, the fault that stays |
//! | ahead.rs | segments made or recycled ahead; lack of space |
//! | opening.rs, reader.rs, blocking.rs | opening: find the end; torn or rotten |
//! | fuzz.rs (feature `sim`) | what a fuzzer runs |
//!
//! **The crash argument.** What can be on disk after a crash, and why nothing acknowledged is lost or made up:
//! 1. A batch is acknowledged when its write and all earlier ones are durable, in order. So all that may be lost or torn
//!    stands behind the last acknowledged batch: a first damaged batch ends the log, whole ones behind it (a second write
//!    that overtook the first) are cut with it, and were never acknowledged.
//! 2. Batches are never rewritten, and an opened log never appends to an old segment. Every batch is bound to its owner,
//!    segment, offset, and to the life (epoch, salt) that wrote the segment's header, so bytes of an earlier life, of a
//!    recycled segment or of a client are no batches here.
//! 3. A new segment's header is written alone, when all before it is durable, and names the exact end of it. From then on
//!    everything behind that end is dead, even a write of a killed process that arrives later. Damage before that end is
//!    corruption.
//! 4. Every batch tells up to which batch the log was known durable when it was made; the mark tells it for the last one,
//!    within 2 ms of the log falling idle, and a segment's header does too. What anybody names as durable was
//!    acknowledged or could have been: damage there is corruption, refused with file, offset, expected and found. Only
//!    damage behind all of these is an unfinished write: cut, and reported in [`Opened::torn`]. What remains: rot in a
//!    batch acknowledged within those 2 ms before a crash looks like one.
//! 5. Opening syncs before it reads past the cache, and again after: what it accepted cannot be lost by a power cut that
//!    follows a kill. Names are synced before files are relied on. A segment is used only when its length, content and
//!    name are durable, so that a write never needs space; one that a killed process may still be writing its first
//!    header to is never begun.
//! 6. Segments go only after a durable batch said that nobody needs them.
//! 7. After a failed write or sync nothing more is written or acknowledged on this log: what is on the medium is unknown,
//!    and a second try may succeed and lie.
//!
//! It leaves to others: what entries mean, that entries follow one another as raft wants, and the directory's lock.

mod ahead;
mod batch;
mod blocking;
mod checksum;
#[cfg(feature = "sim")]
pub mod fuzz;
mod opening;
mod owner;
mod reader;
mod segment;
mod writer;

use bytes::Bytes;
use std::path::PathBuf;

pub use ahead::SPACE_RETRY_US;
pub use blocking::SharedDisk;
pub use opening::Visit;
pub use owner::{is_begun, owner_of};
pub use segment::FORMAT_NUMBER;
pub use writer::Wal;

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
    /// The newest checkpoint named so far, by this batch or before it: see [`Opened::checkpoint`].
    pub checkpoint: (u64, u64),
}

/// How opening ended.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Whether there was no log before, or one to which nothing was ever appended.
    pub fresh: bool,
    /// The newest term, vote and commit.
    pub hard_state: HardState,
    /// Batches accepted, marks left out.
    pub batches: u64,
    /// Unfinished writes cut off: file, offset, bytes.
    pub torn: Vec<(PathBuf, u64, u64)>,
    /// Sequence number of the last batch accepted; the next one appended gets the one behind it.
    pub last_seq: u64,
    /// Number of this opening among all of this log, from 1.
    pub epoch: u64,
    /// The newest checkpoint that headers and heads of batches name, those of an unfinished write too (it was durable before
    /// they were made): its transaction and the index that it had applied; zeros if none does.
    pub checkpoint: (u64, u64),
    /// Bytes read: headers and batches of all segments that are needed.
    pub bytes: u64,
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
