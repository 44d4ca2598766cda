//! A running member as the server sees it.

use crate::error::Error;
use crate::meter::ApplySeconds;
use crate::proposal::{Busy, Mailbox, ReplyTo, Request};
use crate::recovery::Replayed;
use crate::shell::{self, Running};
use coffer_engine::command::Member;
use coffer_engine::store::{StoreReader, StoreStats};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalIo {
    /// io_uring where the kernel allows it, else plain system calls.
    #[default]
    Auto,
    /// io_uring or refuse to start.
    Uring,
    /// Plain pwrite and fdatasync.
    Sync,
}

/// What a member needs to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the log's segments lie.
    pub wal_dir: PathBuf,
    /// The page file.
    pub pages: PathBuf,
    /// This member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// The first members, for a log that is new.
    pub bootstrap: Vec<Member>,
    /// Heartbeat interval: one tick.
    pub heartbeat: Duration,
    /// Ticks of an election timeout.
    pub election_ticks: u32,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// How the log is written.
    pub wal_io: WalIo,
    /// Smallest and largest segment in bytes.
    pub segment_bytes: (u64, u64),
    /// Largest entry of the log in bytes: what the largest request admitted encodes to. A larger one is refused
    /// ([`Busy::TooManyRequests`]), so let it be comfortably above the server's own bound (512 KiB more will do).
    pub entry_bytes_max: u64,
    /// Bytes of pages that may wait in memory to be written to the page file.
    pub dirty_bytes: u64,
    /// How fast the page file is read again and checked, in bytes per second; 0: not at all.
    pub scrub_bytes_per_s: u64,
    /// Applied entries after which a checkpoint begins; `None`: only bytes and time begin one.
    pub snapshot_entries: Option<u64>,
    /// A command that takes longer to be applied is warned about.
    pub warn_apply_after: Duration,
    /// Applied entries that the log keeps for followers when a checkpoint holds them; a sole voter keeps none.
    pub catchup_entries: u64,
}

/// A member's handle; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Node {
    running: Arc<Running>,
}

/// Whether a linearizable read may look at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadIndex {
    /// Yes: the published state is new enough.
    Now,
    /// The answer will come to the slot.
    Wait,
}

/// Where agreement stands, read without a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Term.
    pub term: u64,
    /// The leader's member id, 0 if none is known.
    pub leader: u64,
    /// Commit index.
    pub commit: u64,
    /// Applied index.
    pub applied: u64,
    /// Last index in the log.
    pub last: u64,
    /// Whether writes are refused because the disk is full.
    pub no_space: bool,
    /// Leader changes seen since the start.
    pub leader_changes: u64,
    /// Proposals that failed.
    pub proposals_failed: u64,
    /// Proposals under way.
    pub proposals_pending: u64,
    /// Leases that were ended because their time was up.
    pub leases_expired: u64,
}

/// A histogram as Prometheus wants it: counts of the observations at or below each bound, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bounds in seconds, ascending; the last bucket (without bound) is `count`.
    pub bounds: Vec<f64>,
    /// Cumulative counts, one for each bound.
    pub cumulative: Vec<u64>,
    /// Sum of all observations in seconds.
    pub sum: f64,
    /// Number of observations.
    pub count: u64,
}

impl Node {
    /// Opens page file and log, applies what is known committed, starts the core thread and returns once it runs.
    ///
    /// `on_stop` is called from the core thread when it ends by itself (a fault), with the reason; everybody who
    /// waited has been answered [`Busy::Stopped`] by then.
    ///
    /// # Errors
    /// See [`Error`]: the disk, the log, or whom the data belong to.
    pub fn start(
        options: Options,
        mailboxes: Vec<Arc<dyn Mailbox>>,
        on_stop: Box<dyn FnOnce(Error) + Send>,
    ) -> Result<Node, Error> {
        Ok(Node { running: Arc::new(shell::start(options, mailboxes, on_stop)?) })
    }

    /// Queues a request; its answer comes to its slot.
    ///
    /// # Errors
    /// Without queueing: [`Busy::TooManyRequests`] when the queue is full, [`Busy::Stopped`].
    pub fn submit(&self, request: Request) -> Result<(), Busy> {
        self.running.shared().submit(request)
    }

    /// Whether [`Node::read_index`] would answer at once.
    ///
    /// # Errors
    /// As [`Node::submit`].
    pub fn reads_at_once(&self) -> Result<bool, Busy> {
        self.running.shared().reads_at_once()
    }

    /// Asks for a read index. Never queues when the answer is known at once (a sole voter that has applied an entry
    /// of its own term): two atomic loads.
    ///
    /// # Errors
    /// As [`Node::submit`].
    pub fn read_index(&self, reply_to: ReplyTo) -> Result<ReadIndex, Busy> {
        if self.reads_at_once()? {
            return Ok(ReadIndex::Now);
        }
        self.submit(Request::Read { reply_to })?;
        Ok(ReadIndex::Wait)
    }

    /// Where agreement stands.
    pub fn status(&self) -> Status {
        self.running.shared().board.status()
    }

    /// The store.
    pub fn reader(&self) -> &StoreReader {
        &self.running.shared().reader
    }

    /// The lease clock now, in milliseconds: the last stamp plus the time since.
    pub fn lease_clock_ms(&self) -> u64 {
        let shared = self.running.shared();
        shared.board.lease_clock_ms(shared.now())
    }

    /// Durations of the log's durable writes, buckets of 0.001 s doubling 14 times.
    pub fn wal_sync_seconds(&self) -> HistogramSnapshot {
        self.running.shared().board.wal_sync_seconds()
    }

    /// How long checkpoints took, in buckets of 0.001 s doubling 14 times.
    pub fn checkpoint_seconds(&self) -> HistogramSnapshot {
        self.running.shared().board.checkpoint_seconds()
    }

    /// How long compactions took, in buckets of 0.1 s doubling 14 times: each from its command's applying until nothing is left of
    /// what it hid.
    pub fn compaction_seconds(&self) -> HistogramSnapshot {
        self.running.shared().board.compaction_seconds()
    }

    /// Versions that compactions have removed since the start, tombstones included.
    pub fn versions_removed(&self) -> u64 {
        self.running.shared().board.compacted().0
    }

    /// When the last compaction was done, by the clock that was right at the start; `None` if none was since.
    pub fn compacted_at(&self) -> Option<SystemTime> {
        let shared = self.running.shared();
        shared.begun_at.checked_add(Duration::from_micros(shared.board.compacted().1?))
    }

    /// How long commands took to be applied since the start.
    pub fn apply_seconds(&self) -> Vec<ApplySeconds> {
        self.running.shared().apply_times.told()
    }

    /// How many of them took longer than [`Options::warn_apply_after`].
    pub fn slow_applies(&self) -> u64 {
        self.running.shared().apply_times.slow()
    }

    /// Counters of the page file.
    pub fn page_stats(&self) -> StoreStats {
        self.running.shared().board.page_stats()
    }

    /// What of the log was applied again at the start.
    pub fn replayed(&self) -> Replayed {
        self.running.shared().replayed
    }

    /// Asks for a checkpoint of what is applied, soon; [`StoreReader::durable_applied`] says when it is there.
    pub fn request_checkpoint(&self) {
        self.running.shared().request_checkpoint();
    }

    /// Asks that pages be moved toward the page file's head and its end be cut. Gives the request's number: it is done when
    /// [`Node::defragments_done`] has come to it.
    pub fn request_defragment(&self) -> u64 {
        self.running.shared().request_defragment()
    }

    /// The number of the last request of [`Node::request_defragment`] that is done.
    pub fn defragments_done(&self) -> u64 {
        self.running.shared().defragments_done()
    }

    /// The damage that the scrub of the page file met last, in words.
    pub fn scrub_damage(&self) -> Option<String> {
        self.running.shared().damage.lock().clone()
    }

    /// Bytes written to the log since the start.
    pub fn wal_bytes_written(&self) -> u64 {
        self.running.shared().board.wal_bytes_written()
    }

    /// Which way of writing the log was found to work ("io_uring, direct", "pwrite, fdatasync", ...).
    pub fn wal_io_description(&self) -> String {
        self.running.shared().io_description.clone()
    }

    /// Writes the final mark and ends the core thread; returns when it has ended. Whoever waits is answered
    /// [`Busy::Stopped`]; so is every later request.
    pub fn stop(&self) {
        self.running.stop();
    }
}
