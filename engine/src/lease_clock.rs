//! The replicated lease clock, and when leases are looked at.
//!
//! Leases end by a clock that the log carries: the leader stamps every command with it. The leader runs it on by its
//! own monotonic time from the last stamp applied; a new leader, or one that restarts, goes on from there, so the
//! time between is a gift to the holders.
//!
//! **A lease is never shorter than its holder saw.** A grant or renewal counts from its stamp, but its holder counts
//! from the answer, which comes later by as long as the log needs. So the clock never runs more than [`LAG_MS_MAX`]
//! ahead of the oldest such command under way, and a lease is ended only once the clock shows that much more than its
//! deadline. Let a command be stamped S and answered at the moment T: the clock shows at most S + lag at T and never
//! runs faster than time, so it shows S + ttl + lag not before T + ttl, through whatever crashes lie between.
//!
//! While the log takes no renewals for want of room the clock stands still: nobody loses a lease that could not be
//! renewed. Where other commands under way hold the clock as well, so it does while the log's writes stand still.

use crate::Micros;
use std::collections::VecDeque;

/// How often expired leases are looked for, in microseconds (etcd's lessor does so every 500 ms).
pub const EXPIRY_INTERVAL_US: Micros = 500_000;
/// Leases ended in one pass; with the interval at most 1,000 a second, as etcd.
pub const EXPIRIES_A_PASS_MAX: usize = 500;
/// How far the clock may run ahead of a command under way, in milliseconds: far longer than a write takes,
/// short beside the shortest lease.
pub const LAG_MS_MAX: u64 = 500;

/// The lease clock of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseClock {
    /// The clock in milliseconds at `since`.
    base_ms: u64,
    /// When it showed that; `None` while it stands.
    since: Option<Micros>,
    /// What it does not pass.
    limit_ms: Option<u64>,
}

impl LeaseClock {
    /// A clock that stands at the last stamp applied.
    pub fn standing_at(stamp_ms: u64) -> LeaseClock {
        LeaseClock { base_ms: stamp_ms, since: None, limit_ms: None }
    }

    /// The clock in milliseconds.
    pub fn now_ms(&self, now: Micros) -> u64 {
        let run_us = self.since.map_or(0, |since| now.saturating_sub(since));
        let runs_to = self.base_ms.saturating_add(run_us / 1_000);
        self.limit_ms.map_or(runs_to, |limit| runs_to.min(limit.max(self.base_ms)))
    }

    /// Lets it run (as leader whose log takes renewals) or stand.
    pub fn set_running(&mut self, running: bool, now: Micros) {
        if running == self.since.is_some() {
            return;
        }
        self.base_ms = self.now_ms(now);
        self.since = running.then_some(now);
    }

    /// Sets what it does not pass. Time that it stood at the old limit is not made up for.
    pub fn set_limit(&mut self, limit_ms: Option<u64>, now: Micros) {
        if limit_ms == self.limit_ms {
            return;
        }
        let stood = self.limit_ms.is_some_and(|limit| limit <= self.now_ms(now));
        if stood {
            self.base_ms = self.now_ms(now);
            self.since = self.since.map(|_| now);
        }
        self.limit_ms = limit_ms;
    }

    /// Goes on from a stamp that was applied, if that is later.
    pub fn observe(&mut self, stamp_ms: u64, now: Micros) {
        if stamp_ms > self.now_ms(now) {
            self.base_ms = stamp_ms;
            self.since = self.since.map(|_| now);
        }
    }

    /// Base, start and limit, for a reader that counts on by itself; the start is `None` while it stands.
    pub fn parts(&self) -> (u64, Option<Micros>, Option<u64>) {
        (self.base_ms, self.since, self.limit_ms)
    }

    /// The clock from its parts.
    pub fn from_parts(base_ms: u64, since: Option<Micros>, limit_ms: Option<u64>) -> LeaseClock {
        LeaseClock { base_ms, since, limit_ms }
    }

    /// When it will show `deadline_ms`; `None` if it stands before that.
    pub fn when(&self, deadline_ms: u64, now: Micros) -> Option<Micros> {
        if self.now_ms(now) >= deadline_ms {
            return Some(now);
        }
        if self.limit_ms.is_some_and(|limit| limit < deadline_ms) {
            return None;
        }
        let since = self.since?;
        Some(since.saturating_add((deadline_ms - self.base_ms).saturating_mul(1_000)))
    }
}

/// The commands under way that hold the clock, grants and renewals at least, oldest first.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    /// (index, stamp)
    commands: VecDeque<(u64, u64)>,
}

impl UnderWay {
    /// Notes that the command of entry `index` was stamped.
    pub fn put(&mut self, index: u64, stamp_ms: u64) {
        self.commands.push_back((index, stamp_ms));
    }

    /// Everything up to `index` was applied and answered.
    pub fn applied(&mut self, index: u64) {
        while self.commands.front().is_some_and(|&(at, _)| at <= index) {
            self.commands.pop_front();
        }
    }

    /// Forgets all: this member's stamps count no more.
    pub fn clear(&mut self) {
        self.commands.clear();
    }

    /// What the clock must not pass.
    pub fn limit_ms(&self) -> Option<u64> {
        self.commands.front().map(|&(_, stamp)| stamp.saturating_add(LAG_MS_MAX))
    }
}

/// When to look for leases whose time is up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expiry {
    next: Micros,
}

impl Expiry {
    /// Whether it is time to look; if so the next time is an interval away.
    pub fn due(&mut self, now: Micros) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now.saturating_add(EXPIRY_INTERVAL_US);
        true
    }

    /// When to look next, given when the clock will show the earliest deadline.
    pub fn wake_at(&self, earliest: Micros) -> Micros {
        earliest.max(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_where_it_stood() {
        let mut clock = LeaseClock::standing_at(7_000);
        assert_eq!(clock.now_ms(5_000_000), 7_000);
        clock.set_running(true, 5_000_000);
        assert_eq!(clock.now_ms(5_500_000), 7_500);
        clock.set_running(false, 6_000_000);
        assert_eq!(clock.now_ms(60_000_000), 8_000);
        clock.set_running(true, 60_000_000);
        assert_eq!(clock.now_ms(60_001_000), 8_001);
    }

    #[test]
    fn a_later_stamp_moves_it_on_and_an_earlier_one_does_not() {
        let mut clock = LeaseClock::standing_at(100);
        clock.set_running(true, 0);
        clock.observe(50, 10_000);
        assert_eq!(clock.now_ms(10_000), 110);
        clock.observe(500, 10_000);
        assert_eq!(clock.now_ms(11_000), 501);
    }

    #[test]
    fn it_does_not_pass_its_limit_and_does_not_make_up_for_it() {
        let mut clock = LeaseClock::standing_at(1_000);
        clock.set_running(true, 0);
        let mut under_way = UnderWay::default();
        under_way.put(7, 1_000);
        clock.set_limit(under_way.limit_ms(), 0);
        assert_eq!(clock.now_ms(400_000), 1_400);
        assert_eq!(clock.now_ms(9_000_000), 1_500);
        assert_eq!(clock.when(1_600, 9_000_000), None);
        under_way.applied(7);
        clock.set_limit(under_way.limit_ms(), 9_000_000);
        assert_eq!(clock.now_ms(9_000_000), 1_500);
        assert_eq!(clock.now_ms(9_100_000), 1_600);
        // a limit that it never reached costs nothing
        clock.set_limit(Some(2_000), 9_100_000);
        clock.set_limit(None, 9_200_000);
        assert_eq!(clock.now_ms(9_200_000), 1_700);
    }

    #[test]
    fn it_says_when_a_deadline_comes() {
        let mut clock = LeaseClock::standing_at(100);
        assert_eq!(clock.when(200, 0), None);
        assert_eq!(clock.when(100, 3), Some(3));
        clock.set_running(true, 1_000);
        assert_eq!(clock.when(200, 1_000), Some(101_000));
    }

    #[test]
    fn it_is_time_to_look_once_an_interval() {
        let mut expiry = Expiry::default();
        assert!(expiry.due(7));
        assert!(!expiry.due(500_006));
        assert!(expiry.due(500_007));
        assert_eq!(expiry.wake_at(1), 1_000_007);
    }
}
