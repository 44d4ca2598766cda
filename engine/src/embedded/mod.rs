//! The store inside a Rust program: a thread, a directory and blocking calls. No server, no async runtime, no raft.
//!
//! ```no_run
//! use coffer_engine::command::{PutRequest, RangeRequest};
//! use coffer_engine::embedded::{Db, Options};
//! use coffer_engine::mvcc::KeyRange;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let db = Db::open(Options::new("data"))?;
//! db.put(PutRequest { key: "colour".into(), value: "blue".into(), ..PutRequest::default() })?;
//! let reply = db.range(&RangeRequest { range: KeyRange::single("colour"), ..RangeRequest::default() })?;
//! assert_eq!(reply.kvs[0].value, "blue");
//! db.close()?;
//! # Ok(())
//! # }
//! ```
//! | part | what it does |
//! |---|---|
//! | [`Db`] | the handle: cheap to clone, usable from any thread |
//! | [`Watch`] | the events of a range, from any revision that is not compacted |
//! | [`Error`] | why a call was not answered |
//! | opening.rs | the page file and the log behind it |
//! | core.rs | log, store and lease clock as one state machine |
//! | shell.rs | the writer's thread over a real disk |
//! | copy.rs | a copy of what goes on being written |
//! | reading.rs | reads under way, which the end waits for |
//! | queue.rs, check.rs, directory.rs | callers' commands; what a request may be; the lock |
//!
//! **What an embedder gets.** What etcd gives, in one process: revisions, ranges at old revisions, transactions, leases,
//! watches from a revision, compaction.
//! - *Durable before acknowledged.* A write returns after its entry was synced to the log; after a crash of the program or
//!   the machine it is there. Writes of many threads share a sync: while one is out, the next ones gather. So many threads
//!   write faster than one, and one thread alone writes as fast as the disk syncs.
//! - *In one order.* Writes are applied in the order of the log. A read sees everything that was acknowledged before it began,
//!   and never half of a txn.
//! - *Reads cost no round trip.* They are answered on the caller's thread from the newest published state.
//! - *It need not fit into memory.* The state lies in a page file, mapped; opening reads the newest checkpoint and what the log
//!   holds behind it, however large the data are.
//! - *Leases* end by a clock kept in the log: never sooner than granted, over restarts too (the time between does not count).
//!
//! **What an embedder must do.**
//! - *One database to a directory.* The directory is locked; a second [`Db::open`] on it, from whatever process, is refused.
//!   Share one [`Db`] among threads by cloning it. The directory must be on a local disk.
//! - *Compact.* History is kept until [`Db::compact`] gives it up: call it now and then with the revision before which nobody
//!   reads or watches. Removing what it hides is done in the background.
//! - *Look at errors.* [`Error::Refused`], [`Error::Invalid`] and [`Error::Busy`] changed nothing. [`Error::Fault`] from a
//!   write means that the database has stopped: the disk failed or bytes are damaged; every later call gives the same fault, and
//!   opening again tells whether the write was made. Nothing is tried a second time in between: a sync that failed once may
//!   succeed the next time without having written anything, which is why opening reads the log back past the cache.
//! - *Mind the disk.* When it is full, writes that need room are refused with [`Refusal::NoSpace`]; deletes, compaction,
//!   revocations and renewals go on, and it resumes by itself when there is room; no lease ends meanwhile.
//! - *Back up* with [`Db::snapshot`], not by copying the files of a database that is open: page file and log belong together,
//!   and opening refuses a page file or a log that is lost or older than the other.
//! - *Close*, or drop the last handle: both wait until the log has its final mark and reads of other threads that are under way,
//!   a snapshot too, have ended; from then on the directory can be opened again, whatever handles are left. A program that is
//!   killed instead loses nothing either; the mark lets the next opening tell damage from a write that was under way.
//! - *Do not fork.* A child process has neither the thread nor the lock.
//!
//! **Limits.** A command is at most [`Options::command_bytes_max`] large in the log. The page file is at most 16 TiB. Memory beside
//! the page cache is bounded by [`Options::dirty_bytes`] and what waits in the queue (64 MiB); a range's answer is as large as
//! what it asks for: set a limit and go on behind the last key.

mod check;
mod copy;
mod core;
#[cfg(all(test, feature = "sim"))]
mod core_tests;
mod directory;
mod error;
mod opening;
mod queue;
mod reading;
mod shell;
mod watch;

use crate::command::{
    Command, DeleteRangeReply, DeleteRangeRequest, PutReply, PutRequest, RangeReply, RangeRequest, Reply,
    TxnReply, TxnRequest,
};
use crate::disk::DiskIo;
use crate::error::{Fault, Refusal};
use crate::mvcc::{KeyRange, KeyValue};
use crate::quota;
use crate::store::{HashKv, LeaseInfo, Position, Sizes};
use crate::wal::Opened;
use reading::Reader;
use shell::Running;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::{Error, Invalid};
pub use watch::{Events, Watch};

/// Where a database lies, and its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its directory; made, for this user alone, if it is not there.
    pub dir: PathBuf,
    /// How the log is written (default: io_uring where the kernel allows it).
    pub wal_io: DiskIo,
    /// Size of the log's first segment and of the largest, in bytes (default 1 and 64 MiB).
    pub wal_segment_bytes: (u64, u64),
    /// Bytes of changed pages that may wait in memory to be written to the page file (default 256 MiB).
    pub dirty_bytes: u64,
    /// Bytes of log after which a checkpoint begins: it bounds the log, and with it the next opening (default 48 MiB).
    pub checkpoint_wal_bytes: u64,
    /// How fast pages at rest are read again and checked, in bytes per second (default 0: not at all).
    pub scrub_bytes_per_s: u64,
    /// Largest command, in bytes of its entry in the log (default 2 MiB).
    pub command_bytes_max: u64,
}

impl Options {
    /// The defaults.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            wal_io: DiskIo::Auto,
            wal_segment_bytes: (1 << 20, 64 << 20),
            dirty_bytes: 256 << 20,
            checkpoint_wal_bytes: 48 << 20,
            scrub_bytes_per_s: 0,
            command_bytes_max: 2 << 20,
        }
    }
}

/// A write that is durable and visible, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// The store's current revision after it: its own, if it changed a key.
    pub revision: i64,
    /// The answer.
    pub reply: T,
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGranted {
    /// Its id.
    pub id: i64,
    /// Granted time to live in seconds.
    pub ttl: i64,
}

/// An open database; cheap to clone, usable from any thread. Dropping the last handle closes it. See the module's head.
#[derive(Clone)]
pub struct Db {
    running: Arc<Running>,
    reader: Reader,
}

impl Db {
    /// Opens the database in `options.dir`, or makes one. Returns once the log is read and everything in it applied.
    ///
    /// # Errors
    /// [`Fault::Unusable`] if the directory is in use, another program's, or holds a copy that was not finished;
    /// [`Fault::Corrupt`] if something that was acknowledged is damaged or gone; [`Fault::Io`].
    pub fn open(options: Options) -> Result<Db, Fault> {
        let running = Arc::new(shell::start(options)?);
        Ok(Db { reader: Reader::new(&running.shared), running })
    }

    /// Writes one key.
    ///
    /// # Errors
    /// See [`Error`]; refused are a lease or, with the `ignore` flags, a key that is not there.
    pub fn put(&self, request: PutRequest) -> Result<Written<PutReply>, Error> {
        check::put(&request)?;
        self.execute(Command::Put(request), |reply| match reply {
            Reply::Put(reply) => Some(reply),
            _ => None,
        })
    }

    /// Deletes a range of keys.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_range(&self, request: DeleteRangeRequest) -> Result<Written<DeleteRangeReply>, Error> {
        self.execute(Command::DeleteRange(request), |reply| match reply {
            Reply::DeleteRange(reply) => Some(reply),
            _ => None,
        })
    }

    /// Compares, then does one of two lists of operations, all of it or nothing. A txn of ranges alone is answered like a
    /// range, without a write.
    ///
    /// # Errors
    /// See [`Error`]; refused as its operations are.
    pub fn txn(&self, request: TxnRequest) -> Result<Written<TxnReply>, Error> {
        check::txn(&request)?;
        if request.is_read_only() {
            let (revision, reply) = self.reader.begin()?.read_txn(&request)?;
            return Ok(Written { revision, reply });
        }
        self.execute(Command::Txn(request), |reply| match reply {
            Reply::Txn(reply) => Some(reply),
            _ => None,
        })
    }

    /// Gives up the history below `revision`. What it hides is removed in the background.
    ///
    /// # Errors
    /// [`Refusal::Compacted`], [`Refusal::FutureRevision`]; see [`Error`].
    pub fn compact(&self, revision: i64) -> Result<Written<()>, Error> {
        self.execute(Command::Compact { revision }, |reply| matches!(reply, Reply::Compact).then_some(()))
    }

    /// Makes a lease of `ttl` seconds, with a drawn id if `id` is 0.
    ///
    /// # Errors
    /// [`Refusal::LeaseExist`], [`Refusal::LeaseTtlTooLarge`], [`Invalid::TimeToLive`]; see [`Error`].
    pub fn lease_grant(&self, id: i64, ttl: i64) -> Result<Written<LeaseGranted>, Error> {
        if ttl < 1 {
            return Err(Invalid::TimeToLive.into());
        }
        let drawn = || (shell::draw() >> 1).max(1) as i64;
        let id = if id == 0 { drawn() } else { id };
        self.execute(Command::LeaseGrant { id, ttl }, |reply| match reply {
            Reply::LeaseGrant { id, ttl } => Some(LeaseGranted { id, ttl }),
            _ => None,
        })
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// [`Refusal::LeaseNotFound`]; see [`Error`].
    pub fn lease_revoke(&self, id: i64) -> Result<Written<()>, Error> {
        self.execute(Command::LeaseRevoke { id }, |reply| matches!(reply, Reply::LeaseRevoke).then_some(()))
    }

    /// Renews a lease; the answer is its time to live from now on, in seconds.
    ///
    /// # Errors
    /// [`Refusal::LeaseNotFound`] if it is unknown or has ended; see [`Error`].
    pub fn lease_keep_alive(&self, id: i64) -> Result<Written<i64>, Error> {
        let renewed = self.execute(Command::LeaseRenew { ids: vec![id] }, |reply| match reply {
            Reply::LeaseRenew(ttls) => ttls.first().copied(),
            _ => None,
        })?;
        if renewed.reply == 0 { Err(Refusal::LeaseNotFound.into()) } else { Ok(renewed) }
    }

    /// The key-values of a range, at the newest or an older revision.
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`]; see [`Error`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, Error> {
        Ok(self.reader.begin()?.range(request)?)
    }

    /// The newest version of one key, if it is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        let range = KeyRange::single(key.as_ref().to_vec());
        let mut reply = self.range(&RangeRequest { range, ..RangeRequest::default() })?;
        Ok(reply.kvs.pop())
    }

    /// The events of a range from revision `from` on (which may be one to come), or, with 0 or below, all that come after this
    /// call. One that is read more slowly than is written falls back to history, and holds nobody back.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Fault`]; that `from` is compacted is said by the watch.
    pub fn watch(&self, range: KeyRange, from: i64) -> Result<Watch, Error> {
        self.shared().check()?;
        let from = if from <= 0 { self.position().revision + 1 } else { from };
        Ok(Watch::new(self.reader.clone(), range, from))
    }

    /// One lease, with the keys attached if asked for. It ends once [`Db::lease_clock_ms`] has passed its deadline (by up to
    /// [`LAG_MS_MAX`](crate::lease_clock::LAG_MS_MAX), so that it is never shorter than its holder saw).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn lease(&self, id: i64, with_keys: bool) -> Result<Option<LeaseInfo>, Error> {
        Ok(self.reader.begin()?.lease(id, with_keys)?)
    }

    /// All leases, the first to end first.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn leases(&self) -> Result<Vec<LeaseInfo>, Error> {
        Ok(self.reader.begin()?.leases()?)
    }

    /// The clock by which leases end, in milliseconds. It goes on from the last write when the database is opened again.
    pub fn lease_clock_ms(&self) -> u64 {
        self.shared().lease_clock_ms()
    }

    /// A hash of all versions visible at `revision` (0: the newest), to compare two copies. It reads the whole store.
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`]; see [`Error`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        Ok(self.reader.begin()?.hash_kv(revision)?)
    }

    /// Where the published state stands.
    pub fn position(&self) -> Position {
        self.reader.root().position()
    }

    /// Sizes, in constant time.
    pub fn sizes(&self) -> Sizes {
        self.reader.root().sizes()
    }

    /// Waits until everything applied before this call is in the page file, durable: opening is quickest then. It is done
    /// without being asked as well, as the log grows. On a full disk it waits for room.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Fault`].
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.shared().check()?;
        self.shared().checkpoint(self.position().applied)
    }

    /// Copies the database, with everything that was acknowledged before this call and its history, to a directory of its own,
    /// where [`Db::open`] finds it; the revision that the copy stands at. Reads and writes go on meanwhile. It is done when
    /// this returns, and durable. What there is of one that failed, or was killed, cannot be opened, nor copied to again: remove
    /// that directory first.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Fault`]: a page is damaged, or the copy cannot be written. The database goes on.
    pub fn snapshot(&self, to: impl AsRef<Path>) -> Result<i64, Error> {
        self.checkpoint()?;
        Ok(shell::copy_to(&*self.reader.begin()?, to.as_ref())?)
    }

    /// How opening the log went; [`Opened::torn`] names unfinished writes of a crash that were cut off.
    pub fn opened(&self) -> &Opened {
        &self.shared().opened
    }

    /// How the disk is written, in a few words.
    pub fn io(&self) -> &str {
        &self.shared().io
    }

    /// Writes what was handed in before, and the log's final mark, and waits for the reads under way. All handles are closed with
    /// it, and the directory can be opened again; again does nothing.
    ///
    /// # Errors
    /// The fault that stopped the database.
    pub fn close(&self) -> Result<(), Error> {
        self.running.stop()
    }

    fn shared(&self) -> &shell::Shared {
        &self.running.shared
    }

    fn execute<T>(
        &self,
        command: Command,
        typed: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<Written<T>, Error> {
        let bytes = quota::cost(&command).max(quota::PUT_OVERHEAD_BYTES);
        let applied = self.shared().execute(command, bytes)?;
        // the store answers each command in its own kind; that nothing else can come is its promise, not the disk's
        let reply = typed(applied.outcome?).expect("an answer of the command's kind");
        Ok(Written { revision: applied.revision, reply })
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("position", &self.position()).finish_non_exhaustive()
    }
}
