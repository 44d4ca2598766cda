//! What the core thread tells to all others, read without a lock: a row of numbers under a sequence lock.
//!
//! One thread writes, any number read. A reader that meets a write under way, or finds that one happened while it
//! read, reads again; it never holds the writer up.

use crate::core::{CHECKPOINT_US_FIRST, COMPACTION_US_FIRST, Compactions, DurationBuckets};
use crate::lease_clock::LeaseClock;
use crate::node::{HistogramSnapshot, Status};
use coffer_engine::Micros;
use coffer_engine::store::StoreStats;
use coffer_engine::wal::WalStats;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const STATUS_WORDS: usize = 10;
const CLOCK_WORDS: usize = 3;
/// Buckets of durations, the one without a bound included.
const BUCKETS: usize = 15;
const WAL_WORDS: usize = BUCKETS + 3;
const PAGES_AT: usize = STATUS_WORDS + CLOCK_WORDS + WAL_WORDS;
const PAGE_WORDS: usize = 13;
const CHECKPOINTS_AT: usize = PAGES_AT + PAGE_WORDS;
const COMPACTIONS_AT: usize = CHECKPOINTS_AT + BUCKETS;
const WORDS: usize = COMPACTIONS_AT + 3 + BUCKETS;
/// Stands for a time or a limit that is not there.
const NONE: u64 = u64::MAX;

/// The board.
#[derive(Debug)]
pub(crate) struct Board {
    /// Odd while a write is under way.
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Board {
    pub(crate) fn new() -> Board {
        Board { sequence: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Writes everything; called by the core thread alone.
    pub(crate) fn write(
        &self,
        status: &Status,
        clock: LeaseClock,
        wal: &WalStats,
        pages: &StoreStats,
        checkpoints: &DurationBuckets,
        compactions: &Compactions,
    ) {
        let (clock_ms, since, limit) = clock.parts();
        let head = [
            status.term,
            status.leader,
            status.commit,
            status.applied,
            status.last,
            u64::from(status.no_space),
            status.leader_changes,
            status.proposals_failed,
            status.proposals_pending,
            status.leases_expired,
            clock_ms,
            since.unwrap_or(NONE),
            limit.unwrap_or(NONE),
            wal.bytes_written,
            wal.writes,
            wal.write_us_sum,
        ];
        let pages = [
            pages.checkpoints,
            pages.checkpoint_us_sum,
            pages.checkpoint_us_max,
            pages.pages_written,
            pages.bytes_written,
            pages.pages_spilled,
            pages.file_bytes,
            pages.dirty_bytes,
            pages.scrub_rounds,
            pages.scrub_pages,
            pages.scrub_damaged,
            pages.pages_read,
            pages.rests,
        ];
        let compacted = [compactions.versions, compactions.last.unwrap_or(NONE), compactions.us_sum];
        let parts: [&[u64]; 6] =
            [&head, &wal.write_us_buckets, &pages, checkpoints, &compacted, &compactions.us_buckets];
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(parts.into_iter().flatten()) {
            word.store(*value, Ordering::Relaxed);
        }
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    fn read(&self) -> [u64; WORDS] {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let words = std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed));
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return words;
                }
            }
            std::hint::spin_loop();
        }
    }

    pub(crate) fn status(&self) -> Status {
        let words = self.read();
        Status {
            term: words[0],
            leader: words[1],
            commit: words[2],
            applied: words[3],
            last: words[4],
            no_space: words[5] != 0,
            leader_changes: words[6],
            proposals_failed: words[7],
            proposals_pending: words[8],
            leases_expired: words[9],
        }
    }

    /// The lease clock at `now`, in milliseconds.
    pub(crate) fn lease_clock_ms(&self, now: Micros) -> u64 {
        let words = self.read();
        let there = |word: u64| (word != NONE).then_some(word);
        LeaseClock::from_parts(words[10], there(words[11]), there(words[12])).now_ms(now)
    }

    pub(crate) fn wal_bytes_written(&self) -> u64 {
        self.read()[13]
    }

    pub(crate) fn wal_sync_seconds(&self) -> HistogramSnapshot {
        let words = self.read();
        let buckets = &words[STATUS_WORDS + CLOCK_WORDS + 3..PAGES_AT];
        histogram(buckets, CHECKPOINT_US_FIRST, words[15])
    }

    pub(crate) fn checkpoint_seconds(&self) -> HistogramSnapshot {
        let words = self.read();
        histogram(&words[CHECKPOINTS_AT..COMPACTIONS_AT], CHECKPOINT_US_FIRST, words[PAGES_AT + 1])
    }

    /// Versions that compactions removed, and when the last one was done.
    pub(crate) fn compacted(&self) -> (u64, Option<Micros>) {
        let words = self.read();
        let last = words[COMPACTIONS_AT + 1];
        (words[COMPACTIONS_AT], (last != NONE).then_some(last))
    }

    pub(crate) fn compaction_seconds(&self) -> HistogramSnapshot {
        let words = self.read();
        let buckets = &words[COMPACTIONS_AT + 3..];
        histogram(buckets, COMPACTION_US_FIRST, words[COMPACTIONS_AT + 2])
    }

    pub(crate) fn page_stats(&self) -> StoreStats {
        let words = self.read();
        let word = |at: usize| words[PAGES_AT + at];
        StoreStats {
            checkpoints: word(0),
            checkpoint_us_sum: word(1),
            checkpoint_us_max: word(2),
            pages_written: word(3),
            bytes_written: word(4),
            pages_spilled: word(5),
            file_bytes: word(6),
            dirty_bytes: word(7),
            scrub_rounds: word(8),
            scrub_pages: word(9),
            scrub_damaged: word(10),
            pages_read: word(11),
            rests: word(12),
        }
    }
}

/// A histogram of counts in buckets whose bound doubles each time.
fn histogram(buckets: &[u64], first: Micros, sum_us: u64) -> HistogramSnapshot {
    let mut below = 0;
    let cumulative = buckets[..BUCKETS - 1]
        .iter()
        .map(|count| {
            below += count;
            below
        })
        .collect();
    HistogramSnapshot {
        bounds: (0..BUCKETS - 1).map(|nth| (first << nth) as f64 / 1e6).collect(),
        cumulative,
        sum: sum_us as f64 / 1e6,
        count: buckets.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let board = Board::new();
        let status = Status {
            term: 3,
            leader: 9,
            commit: 7,
            applied: 6,
            last: 8,
            no_space: true,
            ..Status::default()
        };
        let mut clock = LeaseClock::standing_at(500);
        let mut wal =
            WalStats { bytes_written: 4096, writes: 3, write_us_sum: 2_500_000, ..WalStats::default() };
        wal.write_us_buckets[0] = 1;
        wal.write_us_buckets[1] = 1;
        wal.write_us_buckets[14] = 1;
        // all of them, and no two alike: each has a place of its own
        let pages = StoreStats {
            checkpoints: 2,
            checkpoint_us_sum: 30_000,
            checkpoint_us_max: 3,
            pages_written: 4,
            bytes_written: 5,
            pages_spilled: 6,
            pages_read: 7,
            scrub_rounds: 8,
            scrub_pages: 9,
            scrub_damaged: 10,
            rests: 11,
            file_bytes: 12,
            dirty_bytes: 8_192,
        };
        let mut checkpoints = DurationBuckets::default();
        checkpoints[4] = 2;
        let mut compactions = Compactions::default();
        board.write(&status, clock, &wal, &pages, &checkpoints, &compactions);
        assert_eq!(board.compacted(), (0, None));
        compactions = Compactions { versions: 21, last: Some(22), us_sum: 350_000, ..compactions };
        compactions.us_buckets[1] = 1;
        compactions.us_buckets[14] = 3;
        board.write(&status, clock, &wal, &pages, &checkpoints, &compactions);
        assert_eq!(board.compacted(), (21, Some(22)));
        let histogram = board.compaction_seconds();
        assert_eq!((histogram.count, histogram.sum), (4, 0.35));
        assert_eq!(histogram.cumulative[..3], [0, 1, 1]);
        assert_eq!((histogram.bounds[0], histogram.bounds[13]), (0.1, 819.2));
        assert_eq!(board.status(), status);
        assert_eq!(board.page_stats(), pages);
        let histogram = board.checkpoint_seconds();
        assert_eq!(
            (histogram.count, histogram.sum, histogram.cumulative[3..5].to_vec()),
            (2, 0.03, vec![0, 2])
        );
        assert_eq!(board.lease_clock_ms(9_000_000), 500);
        assert_eq!(board.wal_bytes_written(), 4096);
        let histogram = board.wal_sync_seconds();
        assert_eq!((histogram.count, histogram.sum), (3, 2.5));
        assert_eq!(histogram.cumulative[..3], [1, 2, 2]);
        assert_eq!(histogram.bounds.len(), 14);
        clock.set_running(true, 1_000_000);
        board.write(&status, clock, &wal, &pages, &checkpoints, &compactions);
        assert_eq!(board.lease_clock_ms(1_250_000), 750);
    }

    #[test]
    fn a_reader_never_sees_half_of_a_write() {
        let board = Board::new();
        let write = |n: u64| {
            let status = Status { term: n, commit: n, leases_expired: n, ..Status::default() };
            let clock = LeaseClock::standing_at(n);
            let (wal, pages) = (WalStats::default(), StoreStats::default());
            let (buckets, compactions) = (DurationBuckets::default(), Compactions::default());
            board.write(&status, clock, &wal, &pages, &buckets, &compactions);
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        loop {
                            let status = board.status();
                            assert_eq!((status.term, status.term), (status.commit, status.leases_expired));
                            if status.term == 20_000 {
                                break;
                            }
                        }
                    })
                })
                .collect();
            (1..=20_000).for_each(write);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }
}
