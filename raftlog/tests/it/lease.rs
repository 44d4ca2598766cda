//! Leases: never shorter than their holder saw, renewed in one entry, ended in time.

use crate::support::{Solo, long};
use coffer_engine::command::{Command, Reply};
use coffer_engine::disk::sim::rng::Rng;
use coffer_raftlog::proposal::{Outcome, Request};
use coffer_raftlog::sim::cluster::Crash;

const SECOND: u64 = 1_000_000;

fn grant(solo: &mut Solo, id: i64, ttl: i64) {
    assert_eq!(solo.done(Command::LeaseGrant { id, ttl }), Reply::LeaseGrant { id, ttl });
}

fn there(solo: &Solo, id: i64) -> bool {
    solo.core().reader().lease(id, false).is_some()
}

#[test]
fn a_lease_that_nobody_renews_ends_within_a_second_after_its_time() {
    let mut solo = Solo::new(1);
    grant(&mut solo, 7, 5);
    let granted = solo.cluster.now();
    solo.run(5 * SECOND - 10_000);
    assert!(there(&solo, 7), "it ended early");
    solo.run(SECOND);
    assert!(!there(&solo, 7), "it did not end by {} us", solo.cluster.now() - granted);
    assert_eq!(solo.core().status().leases_expired, 1);
}

#[test]
fn leases_end_at_a_bounded_rate() {
    let mut solo = Solo::new(2);
    let numbers: Vec<u32> = (1..=2_000)
        .map(|id| {
            solo.submit(|reply_to| Request::Propose { command: Command::LeaseGrant { id, ttl: 2 }, reply_to })
        })
        .collect();
    solo.run(SECOND);
    assert_eq!(solo.cluster.take_answers().len(), numbers.len());
    solo.run(SECOND + 600_000);
    let left = solo.core().reader().leases().len();
    assert!((1_000..2_000).contains(&left), "{left} leases are left");
    solo.run(2 * SECOND);
    assert!(solo.core().reader().leases().is_empty());
    assert_eq!(solo.core().status().leases_expired, 2_000);
}

#[test]
fn the_renewals_of_a_round_are_one_entry_with_an_answer_each() {
    let mut solo = Solo::new(3);
    grant(&mut solo, 1, 10);
    grant(&mut solo, 2, 20);
    let before = solo.core().status().last;
    let ids = [2i64, 1, 9, 2];
    for id in ids {
        solo.submit(|reply_to| Request::Renew { id, reply_to });
    }
    solo.run(10_000);
    let ttls: Vec<i64> = solo
        .cluster
        .take_answers()
        .into_iter()
        .map(|answer| match answer.outcome {
            Outcome::Renewed { ttl } => ttl,
            other => panic!("answered {other:?}"),
        })
        .collect();
    assert_eq!(ttls, [20, 10, 0, 20]);
    assert_eq!(solo.core().status().last, before + 1);
}

#[test]
fn a_lease_never_ends_before_the_time_its_holder_saw_whatever_crashes() {
    let (mut crashes, mut ended) = (0, 0);
    for seed in 0..if long() { 200 } else { 20 } {
        let mut rng = Rng::new(seed);
        let mut solo = Solo::new(seed);
        let ttl = rng.between(1, 6) as i64;
        grant(&mut solo, 5, ttl);
        let mut seen = solo.cluster.now() - 1_000;
        for _ in 0..80 {
            solo.run(rng.between(1_000, 700_000));
            let now = solo.cluster.now();
            if !there(&solo, 5) {
                assert!(now >= seen + ttl as u64 * SECOND, "seed {seed}: the lease ended early");
                ended += 1;
                break;
            }
            match rng.below(8) {
                0 => {
                    let answer = solo.ask(|reply_to| Request::Renew { id: 5, reply_to });
                    // the answer came within the last millisecond
                    match answer {
                        Outcome::Renewed { ttl: 0 } => {}
                        Outcome::Renewed { .. } => seen = solo.cluster.now() - 1_000,
                        other => panic!("answered {other:?}"),
                    }
                }
                1 => {
                    solo.restart(if rng.once_in(2) { Crash::PowerCut } else { Crash::Kill });
                    crashes += 1;
                }
                _ => {}
            }
        }
    }
    assert!(crashes > 50 && ended > 5, "{crashes} crashes, {ended} leases ended");
}
