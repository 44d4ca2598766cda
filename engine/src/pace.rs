//! How fast background work changes pages beside the log: all that it changes is written to the medium on which the log's writes
//! are waited for.
//!
//! Each changed page is waited for. A late write of the log doubles that wait, and time without one shortens it again; compaction
//! waits longer than moving pages, unless much is left to it.

use crate::Micros;

/// The wait for a page: 20 MB a second, and down to 2.5.
const PAGE_US: (Micros, Micros) = (200, 1_600);
/// Moving pages does not wait longer than that: somebody asked for it, and it is over when all are moved.
const MOVING_US_MAX: Micros = 400;
/// A late write slows down once in this time: it stands behind what was changed before.
const SLOWED_US: Micros = 10_000;
/// As long without one, and the wait is shorter by a sixteenth.
const FASTER_US: Micros = 50_000;
/// Compaction waits so much longer (a numerator and its denominator): it has until the next one is asked for.
const COMPACTION_SLOWER: (Micros, Micros) = (3, 2);
/// With each so many revisions that it has to go over it is as fast again as at first, lest it fall behind who writes.
const COMPACTION_BACKLOG: u64 = 2_000_000;

/// The pace. Invariant: the wait is within [`PAGE_US`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    page_us: Micros,
    /// When it was changed last.
    since: Micros,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace { page_us: PAGE_US.0, since: 0 }
    }

    /// A write of the log is late.
    pub(crate) fn slow_down(&mut self, now: Micros) {
        if now >= self.since + SLOWED_US {
            *self = Pace { page_us: (self.page_us * 2).min(PAGE_US.1), since: now };
        }
    }

    /// What a page is waited for that is moved.
    pub(crate) fn moving_page_us(&mut self, now: Micros) -> Micros {
        self.page_us(now).min(MOVING_US_MAX)
    }

    /// What a page is waited for, whoever changes it.
    fn page_us(&mut self, now: Micros) -> Micros {
        while self.page_us > PAGE_US.0 && now >= self.since + FASTER_US {
            self.page_us = (self.page_us - self.page_us / 16).max(PAGE_US.0);
            self.since += FASTER_US;
        }
        self.page_us
    }

    /// What a page is waited for that compaction changes, with so many revisions left to go over.
    pub(crate) fn compaction_page_us(&mut self, left: u64, now: Micros) -> Micros {
        self.page_us(now) * COMPACTION_SLOWER.0 / COMPACTION_SLOWER.1 / (1 + left / COMPACTION_BACKLOG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_writes_slow_down_once_each_and_to_a_bound_and_time_makes_up_for_it() {
        let mut pace = Pace::new();
        let mut now = 1_000_000;
        assert_eq!(pace.page_us(now), PAGE_US.0);
        // told at every step of whoever waits
        (0..9).for_each(|step| pace.slow_down(now + step));
        assert_eq!(pace.page_us(now), 2 * PAGE_US.0);
        for _ in 0..10 {
            now += SLOWED_US;
            pace.slow_down(now);
        }
        assert_eq!((pace.page_us(now), pace.moving_page_us(now)), (PAGE_US.1, MOVING_US_MAX));
        assert_eq!(pace.page_us(now + FASTER_US - 1), PAGE_US.1);
        assert_eq!(pace.page_us(now + FASTER_US), PAGE_US.1 / 16 * 15);
        // as soon whether it was asked meanwhile or not
        let mut asked = pace;
        for step in 0..40 {
            asked.page_us(now + step * FASTER_US);
        }
        assert_eq!(pace.page_us(now + 40 * FASTER_US), asked.page_us(now + 40 * FASTER_US));
        assert_eq!(pace.page_us(now + 100 * FASTER_US), PAGE_US.0);
    }

    #[test]
    fn compaction_takes_its_time_unless_much_is_left() {
        let mut pace = Pace::new();
        let mut at = |left| pace.compaction_page_us(left, 0);
        assert_eq!(at(0), 300);
        assert_eq!(at(COMPACTION_BACKLOG - 1), 300);
        assert_eq!(at(2 * COMPACTION_BACKLOG), 100);
        assert!(at(20 * COMPACTION_BACKLOG) < 20);
        pace.slow_down(SLOWED_US);
        assert_eq!(pace.compaction_page_us(0, SLOWED_US), 600);
    }
}
