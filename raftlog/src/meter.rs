//! How long commands take to be applied: figures for whoever watches this member, and a warning about each that took long.
//!
//! The core tells a [`Meter`] when a slice begins and when a command of it was applied; it has no clock, and nothing it does
//! depends on what is made of that. The shell's meter has one.

use coffer_engine::command::Command;
use coffer_engine::error::Refusal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Told of what is applied, while it is.
pub trait Meter: Send {
    /// A slice begins.
    fn begin(&mut self);

    /// A command of it was applied; `refusal` is what it gave, if it was refused.
    fn applied(&mut self, index: u64, command: &Command, refusal: Option<&Refusal>);
}

/// Bounds of the buckets: 0.1 ms, doubled each time.
const BOUNDS: usize = 20;
const FIRST_NS: u64 = 100_000;
/// Kinds of commands, by the names that etcd has for its own.
const KINDS: [&str; 11] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseRenew",
    "LeaseExpire",
    "Alarm",
    "Bootstrap",
    "ClusterMemberAttrSet",
];

fn kind(command: &Command) -> usize {
    match command {
        Command::Put(_) => 0,
        Command::DeleteRange(_) => 1,
        Command::Txn(_) => 2,
        Command::Compact { .. } => 3,
        Command::LeaseGrant { .. } => 4,
        Command::LeaseRevoke { .. } => 5,
        Command::LeaseRenew { .. } => 6,
        Command::LeaseExpire { .. } => 7,
        Command::Alarm(_) => 8,
        Command::Bootstrap { .. } => 9,
        Command::MemberAttributes { .. } => 10,
    }
}

/// Durations of the commands of one kind and outcome. One thread writes.
#[derive(Debug, Default)]
struct Cell {
    /// The last one: above all bounds.
    counts: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

fn add(to: &AtomicU64, by: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

fn bucket(ns: u64) -> usize {
    let above_first = (ns.saturating_sub(1) / FIRST_NS).checked_ilog2();
    above_first.map_or(0, |doublings| doublings as usize + 1).min(BOUNDS)
}

/// How long commands took, as told to others.
#[derive(Debug, Default)]
pub(crate) struct ApplyTimes {
    /// By kind, then refused or not.
    cells: [[Cell; 2]; KINDS.len()],
    slow: AtomicU64,
}

/// Durations of the commands of one kind and outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplySeconds {
    /// The kind, by etcd's name.
    pub kind: &'static str,
    /// Whether they were not refused; a compaction that had been done already counts so, as with etcd.
    pub success: bool,
    /// Upper bounds in seconds, and how many were at or below each.
    pub cumulative: Vec<(f64, u64)>,
    /// Sum of all in seconds.
    pub sum: f64,
    /// Number of all.
    pub count: u64,
}

impl ApplySeconds {
    fn is_first(&self) -> bool {
        self.success && self.kind == KINDS[KINDS.len() - 1]
    }
}

impl ApplyTimes {
    fn note(&self, command: &Command, success: bool, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let cell = &self.cells[kind(command)][usize::from(success)];
        add(&cell.counts[bucket(ns)], 1);
        add(&cell.sum_ns, ns);
    }

    /// Of each kind and outcome that there was; that of a member which tells its name is there from the start, as with etcd.
    pub(crate) fn told(&self) -> Vec<ApplySeconds> {
        let of_kind = |(kind, cells): (&&'static str, &[Cell; 2])| {
            let told = |(success, cell): (bool, &Cell)| {
                let mut count = 0;
                let mut cumulative = Vec::with_capacity(BOUNDS + 1);
                for (place, bucket) in cell.counts.iter().enumerate() {
                    count += bucket.load(Ordering::Relaxed);
                    cumulative.push(((FIRST_NS << place) as f64 / 1e9, count));
                }
                cumulative.truncate(BOUNDS);
                let sum = cell.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
                ApplySeconds { kind, success, cumulative, sum, count }
            };
            [false, true].into_iter().zip(cells).map(told).collect::<Vec<_>>()
        };
        KINDS
            .iter()
            .zip(&self.cells)
            .flat_map(of_kind)
            .filter(|told| told.count > 0 || told.is_first())
            .collect()
    }

    /// Commands that took too long.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }
}

/// The meter of a member that runs.
pub(crate) struct Stopwatch {
    /// When the command before was done.
    since: Instant,
    times: Arc<ApplyTimes>,
    warn_after: Duration,
}

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "a part of the shell")]
    pub(crate) fn new(times: Arc<ApplyTimes>, warn_after: Duration) -> Stopwatch {
        Stopwatch { since: Instant::now(), times, warn_after }
    }
}

#[allow(clippy::disallowed_methods, reason = "a part of the shell")]
impl Meter for Stopwatch {
    fn begin(&mut self) {
        self.since = Instant::now();
    }

    fn applied(&mut self, index: u64, command: &Command, refusal: Option<&Refusal>) {
        let now = Instant::now();
        let took = now.duration_since(self.since);
        self.since = now;
        let success = refusal.is_none_or(|refusal| *refusal == Refusal::Compacted);
        self.times.note(command, success, took);
        if took > self.warn_after {
            add(&self.times.slow, 1);
            // what the request holds is nobody's business here
            tracing::warn!(
                ?took,
                "expected-duration" = ?self.warn_after,
                prefix = "",
                request = KINDS[kind(command)],
                index,
                refused = refusal.is_some(),
                "apply request took too long"
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a part of the shell")]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_is_not_below_it() {
        for (ns, place) in
            [(0, 0), (1, 0), (100_000, 0), (100_001, 1), (200_000, 1), (200_001, 2), (400_000, 2)]
        {
            assert_eq!(bucket(ns), place, "{ns}");
        }
        assert_eq!(bucket(FIRST_NS << 19), 19);
        assert_eq!((bucket((FIRST_NS << 19) + 1), bucket(u64::MAX)), (BOUNDS, BOUNDS));
    }

    #[test]
    fn times_are_told_by_kind_and_outcome_and_slow_ones_counted() {
        let times = Arc::new(ApplyTimes::default());
        let [first] = &times.told()[..] else { panic!("one kind") };
        assert_eq!((first.kind, first.success, first.count), ("ClusterMemberAttrSet", true, 0));
        let compact = Command::Compact { revision: 3 };
        times.note(&compact, true, Duration::from_micros(150));
        times.note(&compact, true, Duration::from_secs(100));
        let [told, _] = &times.told()[..] else { panic!("two kinds") };
        assert_eq!((told.kind, told.success, told.count), ("Compaction", true, 2));
        assert_eq!(told.cumulative.len(), BOUNDS);
        assert_eq!(told.cumulative[..2], [(0.0001, 0), (0.0002, 1)]);
        assert_eq!(told.cumulative[19], (52.4288, 1));
        assert!((told.sum - 100.00015).abs() < 1e-9);

        let mut never = Stopwatch::new(Arc::clone(&times), Duration::MAX);
        never.begin();
        never.applied(1, &compact, Some(&Refusal::FutureRevision));
        assert_eq!((times.told().len(), times.told()[0].success, times.slow()), (3, false, 0));
        never.applied(2, &compact, Some(&Refusal::Compacted));
        assert_eq!(times.told()[1].count, 3);
        let mut always = Stopwatch::new(Arc::clone(&times), Duration::ZERO);
        always.begin();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1) {}
        always.applied(3, &Command::LeaseExpire { id: 1 }, None);
        assert_eq!(times.slow(), 1);
        assert!(times.told()[2].sum >= 0.001);
    }
}
