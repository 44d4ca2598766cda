//! Open loop: a thread that says when a request is due.
//!
//! A runtime's own timers are a millisecond coarse, and what was due within it would go out at once: every latency would be
//! half of one too long, and the server would see bursts.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The thread sleeps no longer than this, to see that nobody waits any more.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Turns, given out as they fall due.
#[derive(Debug)]
pub(super) struct Pace {
    turns: Arc<Semaphore>,
    begun: Instant,
    rate: f64,
}

impl Pace {
    /// Request i is due at `begun` + i / `rate`, for all below `end`; then each of `clients` gets one turn more, to see that it
    /// was all.
    pub(super) fn start(begun: Instant, rate: f64, end: u64, clients: usize) -> std::io::Result<Pace> {
        let turns = Arc::new(Semaphore::new(0));
        let given = Arc::clone(&turns);
        let give = move || {
            give_all(&given, begun, rate, end);
            given.add_permits(clients);
        };
        std::thread::Builder::new().name("pace".to_owned()).spawn(give)?;
        Ok(Pace { turns, begun, rate })
    }

    /// When request `number` is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.begun + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Waits until another request is due; those that wait go in the order in which they came.
    pub(super) async fn turn(&self) {
        if let Ok(turn) = self.turns.acquire().await {
            turn.forget();
        }
    }
}

fn give_all(turns: &Arc<Semaphore>, begun: Instant, rate: f64, end: u64) {
    let mut given = 0;
    while given < end && Arc::strong_count(turns) > 1 {
        let due = due_by(begun.elapsed(), rate).min(end);
        turns.add_permits(usize::try_from(due - given).unwrap_or(Semaphore::MAX_PERMITS));
        given = due;
        let next = Duration::from_secs_f64(given as f64 / rate);
        std::thread::sleep(next.saturating_sub(begun.elapsed()).min(SLEEP_MAX));
    }
}

/// Requests that are due when so much time has passed.
fn due_by(passed: Duration, rate: f64) -> u64 {
    (passed.as_secs_f64() * rate) as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_due_at_once_and_the_others_in_equal_steps() {
        let due = [0, 99, 100, 250, 1_000].map(|ms| due_by(Duration::from_millis(ms), 10.0));
        assert_eq!(due, [1, 1, 2, 3, 11]);
    }

    #[test]
    fn as_many_turns_are_given_as_requests_and_clients() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let begun = Instant::now();
            let pace = Pace::start(begun, 10_000.0, 50, 3).unwrap();
            for number in 0..50 {
                pace.turn().await;
                assert!(Instant::now() >= pace.due(number), "turn {number} came early");
            }
            for _ in 0..3 {
                pace.turn().await;
            }
            assert_eq!(pace.turns.available_permits(), 0);
        });
    }
}
