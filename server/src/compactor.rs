//! Automatic compaction, by period and by revision, as etcd does it (server/etcdserver/api/v3compactor).
//!
//! *Periodic*: the revision is noted at each tenth of the period (of an hour at most); after a whole period the oldest
//! note, which is a period old, is compacted, and then again after each period (or hour). *Revision*: every five minutes
//! all but the last so many revisions are compacted. A failed compaction is tried again at the next note.
//!
//! [`Compactor`] is a state machine that is told the time; [`run`] is its shell.

use crate::config::AutoCompaction;
use crate::propose::{Compact, propose};
use crate::rpc::status::Error;
use crate::serving::Serving;
use coffer_engine::Micros;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Longest time between two periodic compactions.
const PERIOD_MAX: Micros = 3_600_000_000;
/// Notes taken of the revision in one period.
const NOTES_PER_PERIOD: Micros = 10;
/// Time between two compactions by revision (etcd's revInterval).
const REVISION_INTERVAL: Micros = 300_000_000;
/// Most notes kept: a period of ten years noted each six minutes.
const NOTES_MAX: u64 = 900_000;

/// When to compact what.
#[derive(Debug)]
pub struct Compactor {
    mode: AutoCompaction,
    /// When it is to be stepped next.
    next: Micros,
    notes: VecDeque<i64>,
    last_revision: i64,
    last_success: Micros,
    /// Time that must have passed since the last success.
    wait: Micros,
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Compactor {
    /// A compactor that starts at `now` with the store at `revision`.
    pub fn new(mode: AutoCompaction, now: Micros, revision: i64) -> Compactor {
        let wait = match mode {
            AutoCompaction::Periodic(period) => micros(period),
            AutoCompaction::Revision(_) => 0,
        };
        let mut compactor = Compactor {
            mode,
            next: 0,
            notes: VecDeque::from([revision]),
            last_revision: 0,
            last_success: now,
            wait,
        };
        compactor.next = now.saturating_add(compactor.interval());
        compactor
    }

    /// When [`Compactor::step`] is due.
    pub fn next(&self) -> Micros {
        self.next
    }

    /// Time between two steps.
    fn interval(&self) -> Micros {
        match self.mode {
            AutoCompaction::Periodic(period) => (micros(period).min(PERIOD_MAX) / NOTES_PER_PERIOD).max(1),
            AutoCompaction::Revision(_) => REVISION_INTERVAL,
        }
    }

    /// The revision to compact now, if any. The outcome is told by [`Compactor::done`].
    pub fn step(&mut self, now: Micros, revision: i64) -> Option<i64> {
        if now < self.next {
            return None;
        }
        self.next = now.saturating_add(self.interval());
        match self.mode {
            AutoCompaction::Periodic(period) => self.step_periodic(now, revision, micros(period)),
            AutoCompaction::Revision(keep) => {
                let target = revision.saturating_sub(keep);
                (target > 0 && target != self.last_revision).then_some(target)
            }
        }
    }

    fn step_periodic(&mut self, now: Micros, revision: i64, period: Micros) -> Option<i64> {
        let oldest = self.notes.front().copied().unwrap_or(revision);
        let due = now.saturating_sub(self.last_success) >= self.wait && oldest != self.last_revision;
        let target = due.then_some(oldest);
        if due {
            // The first compaction waits for the whole period, however long; later ones come at least hourly.
            self.wait = period.min(PERIOD_MAX);
        }
        self.notes.push_back(revision);
        let kept = (period / self.interval() + 1).min(NOTES_MAX);
        while self.notes.len() as u64 > kept {
            self.notes.pop_front();
        }
        target
    }

    /// A compaction of `revision` went through (or had been done by somebody else).
    pub fn done(&mut self, now: Micros, revision: i64) {
        self.last_revision = revision;
        self.last_success = now;
    }
}

/// Compacts until the thread's runtime ends. Only a leader does.
pub async fn run(serving: Arc<Serving>, mode: AutoCompaction) {
    let shared = &serving.shared;
    let revision = || shared.reader().position().revision;
    let mut compactor = Compactor::new(mode, shared.now(), revision());
    loop {
        let wait = compactor.next().saturating_sub(shared.now());
        tokio::time::sleep(Duration::from_micros(wait)).await;
        let Some(target) = compactor.step(shared.now(), revision()) else { continue };
        if shared.node.status().leader != shared.member_id {
            continue;
        }
        tracing::info!(revision = target, "starting auto compaction");
        match propose(&serving, Compact(target), 0).await {
            Ok(_) | Err(Error::Compacted) => {
                compactor.done(shared.now(), target);
                tracing::info!(revision = target, "completed auto compaction");
            }
            Err(error) => tracing::warn!(revision = target, error = %error, "failed auto compaction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Micros = 60_000_000;

    /// Runs for so many minutes, one revision a minute; what was compacted when, in minutes.
    fn run_minutes(mode: AutoCompaction, minutes: u64, fails: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let mut compactor = Compactor::new(mode, 0, 1);
        let mut compacted = Vec::new();
        for minute in 1..=minutes {
            let (now, revision) = (minute * MINUTE, 1 + i64::try_from(minute).unwrap());
            if let Some(target) = compactor.step(now, revision)
                && !fails(minute)
            {
                compactor.done(now, target);
                compacted.push((minute, target));
            }
        }
        compacted
    }

    #[test]
    fn a_periodic_compaction_keeps_one_period() {
        let mode = AutoCompaction::Periodic(Duration::from_secs(600));
        let compacted = run_minutes(mode, 40, |_| false);
        assert_eq!(compacted.iter().map(|(minute, _)| *minute).collect::<Vec<_>>(), [10, 20, 30, 40]);
        for (minute, revision) in compacted {
            let age = i64::try_from(minute).unwrap() + 1 - revision;
            assert!((10..=11).contains(&age), "revision {revision} at minute {minute}");
        }
    }

    #[test]
    fn a_period_of_hours_is_waited_for_once_and_then_compacted_hourly() {
        let mode = AutoCompaction::Periodic(Duration::from_secs(5 * 3_600));
        let minutes: Vec<u64> =
            run_minutes(mode, 8 * 60, |_| false).iter().map(|(minute, _)| *minute).collect();
        assert_eq!(minutes, [300, 360, 420, 480]);
    }

    #[test]
    fn a_failed_compaction_is_tried_again_at_the_next_note() {
        let mode = AutoCompaction::Periodic(Duration::from_secs(600));
        let minutes: Vec<u64> =
            run_minutes(mode, 25, |minute| minute == 10).iter().map(|(minute, _)| *minute).collect();
        assert_eq!(minutes, [11, 21]);
    }

    #[test]
    fn a_store_that_stands_still_is_compacted_once() {
        let mut compactor = Compactor::new(AutoCompaction::Periodic(Duration::from_secs(600)), 0, 7);
        let mut compacted = 0;
        for minute in 1..60 {
            if let Some(target) = compactor.step(minute * MINUTE, 7) {
                compactor.done(minute * MINUTE, target);
                compacted += 1;
            }
        }
        assert_eq!(compacted, 1);
    }

    #[test]
    fn by_revision_the_last_ones_are_kept() {
        let compacted = run_minutes(AutoCompaction::Revision(10), 20, |_| false);
        assert_eq!(compacted, [(10, 1), (15, 6), (20, 11)]);
    }
}
