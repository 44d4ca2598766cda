//! The world below the log: submit an operation, poll its completion.
//!
//! A [`Disk`] is handed operations and later gives back completions, in any order. Real disks run them on an
//! io_uring or with plain system calls; the simulated one keeps files in memory, knows what is durable, and can
//! lose, tear, reorder, fail and fill up.

use std::io;
use std::path::PathBuf;

/// Names one submitted operation until its completion was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An open file of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Bytes to be written or read into, aligned to 4,096 so that they can go past the page cache.
pub struct IoBuf {}

/// What to do.
pub enum Op {
    /// Makes the bytes at `offset` durable before it completes: written and synced.
    WriteDurable {
        /// Where.
        file: FileId,
        /// In bytes, a multiple of the block size.
        offset: u64,
        /// What; given back with the completion.
        buf: IoBuf,
    },
    /// More operations are defined by the disk's owner.
    Sync {
        /// Which file.
        file: FileId,
    },
}

/// The end of an operation.
pub struct Completion {
    /// Which.
    pub token: Token,
    /// The buffer, if the operation had one.
    pub buf: Option<IoBuf>,
    /// How it ended; a short write is an error.
    pub result: Result<Done, io::Error>,
}

/// What a successful operation gave.
pub enum Done {
    /// Nothing to tell.
    Unit,
    /// An open file and its length in bytes.
    Opened(FileId, u64),
    /// Names in a directory.
    Names(Vec<PathBuf>),
}

/// Submit and poll.
pub trait Disk: Send {
    /// Starts an operation.
    fn submit(&mut self, op: Op) -> Token;

    /// Moves all completions that are there to `out`, without waiting.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Waits until a completion is there, the disk's waker was woken, or `timeout_us` passed (`None`: no limit).
    fn wait(&mut self, timeout_us: Option<u64>);
}
