//! The task of a serving thread that fetches posts and lets the hub work, a bounded step at a time.

use super::Serving;
use crate::metrics::{Count, Level};
use crate::watch_hub::Stats;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Events read from history in one step, or what takes as long, some milliseconds; between steps the thread serves its connections.
const STEP_EVENTS: usize = 2_000;
/// Election timeouts without a leader after which streams that insist on one end (etcd's maxNoLeaderCnt).
const LEADERLESS_TIMEOUTS: u32 = 3;

/// Runs until the thread's runtime ends.
pub async fn pump(serving: Arc<Serving>) {
    let mut told = Stats::default();
    let mut leader = LeaderWatch::new(serving.shared.config.election_timeout);
    loop {
        serving.drain();
        let shared = &serving.shared;
        let step = serving.with_hub(|hub| {
            told = tell(&serving, told, hub.stats());
            hub.step(shared.now(), STEP_EVENTS, shared.reader())
        });
        leader.look(&serving);
        let late = serving.mailbox.expire(Instant::now().into_std());
        if step.more {
            tokio::task::yield_now().await;
            continue;
        }
        let tick = step.next_tick.map(|at| Duration::from_micros(at.saturating_sub(shared.now())));
        let wait = [tick, late].into_iter().flatten().fold(leader.wait(), Duration::min);
        // Whether it was the signal or the time does not matter: everything is looked at.
        let _ = tokio::time::timeout(wait, serving.mailbox.signalled()).await;
    }
}

/// Tells the metrics what changed since `before`.
fn tell(serving: &Serving, before: Stats, now: Stats) -> Stats {
    let metrics = &serving.shared.metrics;
    let shift = |level, before: usize, now: usize| {
        if before != now {
            metrics.shift(level, now as i64 - before as i64);
        }
    };
    shift(Level::WatchStreams, before.streams, now.streams);
    shift(Level::Watchers, before.watchers, now.watchers);
    shift(Level::SlowWatchers, before.slow, now.slow);
    shift(Level::PendingEvents, before.queued_events, now.queued_events);
    if now.sent_events != before.sent_events {
        metrics.add(Count::Events, now.sent_events - before.sent_events);
    }
    now
}

/// Looks once in an election timeout whether a leader is known.
struct LeaderWatch {
    every: Duration,
    next: Instant,
    missing: u32,
}

impl LeaderWatch {
    fn new(every: Duration) -> LeaderWatch {
        let every = every.max(Duration::from_millis(10));
        LeaderWatch { every, next: Instant::now() + every, missing: 0 }
    }

    fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn look(&mut self, serving: &Serving) {
        if !self.wait().is_zero() {
            return;
        }
        self.next = Instant::now() + self.every;
        let known = serving.shared.node.status().leader != 0;
        self.missing = if known { 0 } else { self.missing.saturating_add(1) };
        serving.set_leaderless(self.missing > LEADERLESS_TIMEOUTS);
    }
}
