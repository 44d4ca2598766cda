//! The world below the log and the page file: submit an operation, poll its completion.
//!
//! A [`Disk`] is handed operations and later gives back completions, in any order. One thread owns it; other threads
//! hold a [`Waker`].
//!
//! | disk | how |
//! |---|---|
//! | [`uring`] | an io_uring: O_DIRECT + RWF_DSYNC, or write and fdatasync linked where O_DIRECT is refused |
//! | [`pwrite`] | plain system calls, for places where io_uring is forbidden |
//! | `sim` (feature `sim`) | files in memory; knows what is durable; loses, tears, reorders, fails and fills up |
//!
//! Rules
//! - A completion without an error means that the whole operation was done: a short write is an error, and so is a
//!   cancelled half of a linked pair (-125).
//! - Two operations on one file that are under way at the same time are done in any order. Whoever needs an order
//!   waits for the first one's completion.
//! - Nothing retries. What a failed write or sync left on the medium is unknown, and a second sync may succeed without
//!   having written anything.
//! - [`Op::Read`] goes past the page cache where the file is open with O_DIRECT; elsewhere [`Op::DropCache`] before it
//!   does the same, except for pages that are mapped.
//! - A file that is also mapped ([`Disk::map`]) is written through the page cache only (`cached`), so that map and file
//!   agree. What a killed process had under way on such a file ends with it: nothing arrives later.
//!
//! What it leaves to others: what the bytes mean, and what to do about an error.

pub(crate) mod blocking;
pub mod buf;
mod bus;
mod map;
mod plain;
pub mod pwrite;
#[cfg(feature = "sim")]
pub mod sim;
pub mod uring;
pub mod waker;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use buf::{BLOCK_BYTES, BufPool, IoBuf};
pub use bus::name_bus_errors;
pub use waker::Waker;

/// Names one submitted operation until its completion was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An open file of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// What to do. Offsets and lengths are in bytes; those of reads and writes are multiples of [`BLOCK_BYTES`].
#[derive(Debug)]
pub enum Op {
    /// Makes a directory and those above it (mode 0700), and makes their entries durable; nothing if it is there.
    CreateDir {
        /// The directory.
        dir: PathBuf,
    },
    /// Lists the regular files of a directory: [`Done::Names`].
    List {
        /// The directory.
        dir: PathBuf,
    },
    /// Makes the names in a directory durable: creations, renames, removals.
    SyncDir {
        /// The directory.
        dir: PathBuf,
    },
    /// Opens a file for reading and writing: [`Done::Opened`].
    Open {
        /// The file.
        path: PathBuf,
        /// `true`: it must not be there and is made (mode 0600). `false`: it must be there.
        create: bool,
        /// `true`: through the page cache. `false`: past it, where the disk and the file system can.
        cached: bool,
    },
    /// Forgets an open file. Nothing else may be under way on it.
    Close {
        /// Which file.
        file: FileId,
    },
    /// Fills `buf` (its whole length) from `offset`, less at the end of the file: [`Done::Read`].
    Read {
        /// Which file.
        file: FileId,
        /// Where.
        offset: u64,
        /// Where to; given back with the completion.
        buf: IoBuf,
    },
    /// Writes; durable only after a later [`Op::Sync`].
    Write {
        /// Which file.
        file: FileId,
        /// Where.
        offset: u64,
        /// What; given back with the completion.
        buf: IoBuf,
    },
    /// Makes the bytes at `offset` durable before it completes: written and synced.
    WriteDurable {
        /// Which file.
        file: FileId,
        /// Where.
        offset: u64,
        /// What; given back with the completion.
        buf: IoBuf,
    },
    /// Starts to write out what the page cache holds of these bytes, after an earlier write-out of them has ended. So
    /// that a later [`Op::Sync`] is short; nothing is durable by it, and a file system that cannot do it is no error.
    WriteBack {
        /// Which file.
        file: FileId,
        /// Where.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Makes all that was written before, and the file's length, durable.
    Sync {
        /// Which file.
        file: FileId,
    },
    /// Drops the file's clean pages from the page cache, so that reads see the medium.
    DropCache {
        /// Which file.
        file: FileId,
    },
    /// Allocates room up to `bytes` from the start of the file and makes it that long.
    Allocate {
        /// Which file.
        file: FileId,
        /// The length.
        bytes: u64,
    },
    /// Cuts the file to `bytes`.
    Truncate {
        /// Which file.
        file: FileId,
        /// The length.
        bytes: u64,
    },
    /// Gives a file another name in the same directory; one of that name goes.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
    },
    /// Removes a file's name.
    Remove {
        /// The file.
        path: PathBuf,
    },
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub token: Token,
    /// The buffer, if the operation had one.
    pub buf: Option<IoBuf>,
    /// How it ended; a short write is an error.
    pub result: Result<Done, io::Error>,
}

/// What a successful operation gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing to tell.
    Unit,
    /// An open file and its length in bytes.
    Opened(FileId, u64),
    /// Names of the files in a directory, without the directory.
    Names(Vec<PathBuf>),
    /// Bytes read; fewer than asked for only at the end of the file.
    Read(usize),
}

/// A file mapped for reading, page by page of [`BLOCK_BYTES`]. It sees what was written through the page cache at once.
///
/// Whoever writes the file keeps two promises: no page is written while somebody may hold a reference to it, and no page
/// is read that lies beyond the file's end.
pub trait FileMap: Send + Sync {
    /// The page's bytes. [`FileMap::populate`] succeeded for it before; without that, bytes that the medium does not
    /// give up end the process.
    ///
    /// # Panics
    /// The page was never populated and cannot be mapped.
    fn page(&self, page: u32) -> &[u8; BLOCK_BYTES];

    /// Brings pages into memory, waiting for the medium.
    ///
    /// # Errors
    /// The medium does not give the bytes, they lie beyond the file's end, or there is no room to map them.
    fn populate(&self, first: u32, pages: u32) -> io::Result<()>;

    /// Begins to bring pages into memory, without waiting. What cannot be read is left to [`FileMap::populate`] to tell.
    fn read_ahead(&self, first: u32, pages: u32);

    /// Whether a page is in memory now; `false` where that cannot be told.
    fn is_in_memory(&self, _page: u32) -> bool {
        false
    }
}

/// Submit and poll.
pub trait Disk: Send {
    /// Starts an operation.
    fn submit(&mut self, op: Op) -> Token;

    /// Moves all completions that are there to `out`, without waiting.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Waits until a completion is there, the disk's waker was woken, or `timeout_us` passed (`None`: no limit).
    fn wait(&mut self, timeout_us: Option<u64>);

    /// Maps a file that is there, and whatever it grows to.
    ///
    /// # Errors
    /// The file does not open.
    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>>;

    /// A handle with which other threads end [`Disk::wait`].
    fn waker(&self) -> Waker;

    /// How the disk works, in a few words, for the log.
    fn describe(&self) -> String;
}

/// Which real disk to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskIo {
    /// io_uring where the kernel allows it, else plain system calls.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Plain system calls.
    Sync,
}

/// Opens a real disk and tells which way was found ([`Disk::describe`]).
///
/// **Call it on the thread that will own the disk**: an io_uring with a single issuer belongs to the thread that
/// made it and refuses all others.
///
/// # Errors
/// With [`DiskIo::Uring`], that the kernel refuses an io_uring; else that no eventfd could be made.
pub fn open_disk(choice: DiskIo) -> io::Result<Box<dyn Disk>> {
    match choice {
        DiskIo::Uring => Ok(Box::new(uring::UringDisk::open()?)),
        DiskIo::Sync => Ok(Box::new(pwrite::PwriteDisk::open(None)?)),
        DiskIo::Auto => match uring::UringDisk::open() {
            Ok(disk) => Ok(Box::new(disk)),
            Err(refusal) => Ok(Box::new(pwrite::PwriteDisk::open(Some(refusal))?)),
        },
    }
}
