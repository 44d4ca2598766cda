//! What `/metrics` tells: etcd's names for all that exists here, in Prometheus' text format.
//!
//! Counting and telling are kept apart. A serving thread counts into a shard of its own (`Shard`): relaxed atomics
//! that no other thread writes as a rule, found by index, without a lock or a look-up of labels. Telling adds the
//! shards up and asks a [`Source`] for what the member knows anyway (indexes, revisions, sizes, the log's sync times).
//!
//! Rules kept here:
//! - Names, types and labels are etcd 3.7's; labels stand in alphabetical order, whole values without ".0".
//! - Only what clients asked for is counted as an rpc; the member's own doings are not.
//! - A name that etcd has and coffer has nothing to say about is served as a constant only where the constant is
//!   honest (`constants.rs`); docs/compat.md lists them.
//!
//! It leaves to others: what is worth counting, and when.

mod constants;
mod exposition;
mod families;
mod process;
mod rpc;
mod series;

pub use rpc::{Call, Method, Rpc, Shape};
pub use series::{Count, Histogram, Level};

use crate::config::{Config, FeatureGate, MetricsLevel};
use coffer_engine::command::AlarmMember;
use coffer_engine::store::{Position, Sizes, StoreStats};
use coffer_raftlog::meter::ApplySeconds;
use coffer_raftlog::node::{HistogramSnapshot, Status};
use coffer_raftlog::recovery::Replayed;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// What a member knows at the moment it is asked.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Its id.
    pub member_id: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// Where agreement stands.
    pub status: Status,
    /// Where the store stands.
    pub position: Position,
    /// The store's sizes.
    pub sizes: Sizes,
    /// Alarms that are up.
    pub alarms: Vec<AlarmMember>,
    /// Durations of the log's durable writes.
    pub wal_sync_seconds: HistogramSnapshot,
    /// Bytes written to the log.
    pub wal_bytes_written: u64,
    /// Durations of checkpoints.
    pub checkpoint_seconds: HistogramSnapshot,
    /// Durations of compactions.
    pub compaction_seconds: HistogramSnapshot,
    /// When the last one was done.
    pub compacted_at: Option<SystemTime>,
    /// Versions removed by them.
    pub versions_removed: u64,
    /// Durations of commands' applying, by kind and outcome.
    pub apply_seconds: Vec<ApplySeconds>,
    /// How many of them took too long.
    pub slow_applies: u64,
    /// Reads of the store under way.
    pub reads_under_way: usize,
    /// Counters of the page file.
    pub pages: StoreStats,
    /// What of the log was applied again at the start.
    pub replayed: Replayed,
}

/// Whoever can be asked for an [`Observation`]: the member, or a test.
pub trait Source: Send + Sync {
    /// What is known now. Must not block.
    fn observe(&self) -> Observation;
}

/// The kind of an rpc in `etcd_server_client_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// One request, one reply.
    Unary,
    /// A stream.
    Stream,
}

/// Different `client-api-version` values that are told apart; later ones are counted as "other", so that a client
/// cannot make the answer grow without bound.
pub const CLIENT_VERSIONS_MAX: usize = 16;
/// Longest `client-api-version` that is told; a longer one is counted as "other".
pub const CLIENT_VERSION_BYTES_MAX: usize = 32;
/// Most shards; more threads than that share them.
const SHARDS_MAX: usize = 64;

/// What the threads that were dealt this shard have counted.
#[repr(align(128))]
#[derive(Debug)]
struct Shard {
    rpcs: [rpc::Cell; Method::COUNT],
    counts: [AtomicU64; Count::COUNT],
    levels: [AtomicI64; Level::COUNT],
    histograms: [series::Buckets; Histogram::COUNT],
    /// Ranges that failed, then successful ones.
    ranges: [rpc::Durations<20>; 2],
    /// By kind, then by version; the last one is "other".
    client_requests: [[AtomicU64; CLIENT_VERSIONS_MAX + 1]; 2],
}

impl Default for Shard {
    fn default() -> Shard {
        Shard {
            rpcs: std::array::from_fn(|_| rpc::Cell::default()),
            counts: Default::default(),
            levels: Default::default(),
            histograms: Default::default(),
            ranges: Default::default(),
            client_requests: Default::default(),
        }
    }
}

/// All counters of a server.
#[derive(Debug)]
pub struct Metrics {
    shards: Box<[Shard]>,
    client_versions: [OnceLock<String>; CLIENT_VERSIONS_MAX],
    health: families::HealthChecks,
    extensive: bool,
    gates: Vec<FeatureGate>,
    quota_bytes: Option<u64>,
}

thread_local! {
    /// This thread's number, given in the order in which threads first count something.
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    THREAD.with(|thread| {
        if thread.get() == usize::MAX {
            thread.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        thread.get()
    })
}

impl Metrics {
    /// Counters at 0.
    pub fn new(config: &Config) -> Metrics {
        let shards = (config.serving_threads.saturating_add(2)).min(SHARDS_MAX);
        Metrics {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            client_versions: [const { OnceLock::new() }; CLIENT_VERSIONS_MAX],
            health: families::HealthChecks::default(),
            extensive: config.metrics == MetricsLevel::Extensive,
            gates: config.feature_gates.clone(),
            quota_bytes: config.quota_bytes,
        }
    }

    fn shard(&self) -> &Shard {
        &self.shards[thread_number() % self.shards.len()]
    }

    /// The counters of a method. Not to be kept: they are this thread's.
    pub fn rpc(&self, method: Method) -> Rpc<'_> {
        Rpc { cell: &self.shard().rpcs[method as usize], method, extensive: self.extensive }
    }

    /// Adds to a counter.
    pub fn add(&self, count: Count, n: u64) {
        self.shard().counts[count as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds to (or takes from) a level; it may go up on one thread and down on another.
    pub fn shift(&self, level: Level, by: i64) {
        self.shard().levels[level as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// Raises a level by one until what is given is dropped: also where the client of what is under way goes away.
    pub fn raise(&self, level: Level) -> Raised<'_> {
        self.shift(level, 1);
        Raised { metrics: self, level }
    }

    /// Counts an observation, in the histogram's own unit.
    pub fn observe(&self, histogram: Histogram, value: f64) {
        self.shard().histograms[histogram as usize].observe(histogram, value);
    }

    /// Counts a range that was read, or refused, in this time.
    pub fn range(&self, succeeded: bool, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.shard().ranges[usize::from(succeeded)].observe(&rpc::RANGE_BOUNDS_NS, ns);
    }

    /// Counts a client's request by the version its client library names.
    pub fn client_request(&self, kind: RequestKind, version: &str) {
        let place = self.client_version_place(version);
        self.shard().client_requests[kind as usize][place].fetch_add(1, Ordering::Relaxed);
    }

    fn client_version_place(&self, version: &str) -> usize {
        if version.len() > CLIENT_VERSION_BYTES_MAX {
            return CLIENT_VERSIONS_MAX;
        }
        for (place, slot) in self.client_versions.iter().enumerate() {
            if slot.get_or_init(|| version.to_owned()) == version {
                return place;
            }
        }
        CLIENT_VERSIONS_MAX
    }

    /// Everything, in the text format.
    pub fn render(&self, source: &dyn Source) -> String {
        families::render(self, &source.observe())
    }
}

/// A level that is up by one.
#[must_use = "dropping it lowers the level again"]
#[derive(Debug)]
pub struct Raised<'a> {
    metrics: &'a Metrics,
    level: Level,
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.metrics.shift(self.level, -1);
    }
}

#[cfg(test)]
mod tests;
