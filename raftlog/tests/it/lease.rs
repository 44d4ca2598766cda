//! Leases: never shorter than their holder saw, renewed in one entry, ended in time.

use crate::support::{Solo, long, put};
use coffer_engine::command::{Command, Reply};
use coffer_engine::disk::sim::rng::Rng;
use coffer_raftlog::proposal::{Outcome, Request};
use coffer_raftlog::sim::cluster::Crash;

const SECOND: u64 = 1_000_000;

fn grant(solo: &mut Solo, id: i64, ttl: i64) {
    assert_eq!(solo.done(Command::LeaseGrant { id, ttl }), Reply::LeaseGrant { id, ttl });
}

fn there(solo: &Solo, id: i64) -> bool {
    solo.core().reader().lease(id, false).unwrap().is_some()
}

#[test]
fn a_lease_that_nobody_renews_ends_soon_after_its_time() {
    let mut solo = Solo::new(1);
    grant(&mut solo, 7, 5);
    let granted = solo.cluster.now();
    solo.run(5 * SECOND - 10_000);
    assert!(there(&solo, 7), "it ended early");
    solo.run(SECOND + 100_000);
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
    solo.run(2 * SECOND + 100_000);
    let left = solo.core().reader().leases().unwrap().len();
    assert!((1_000..2_000).contains(&left), "{left} leases are left");
    solo.run(2 * SECOND);
    assert!(solo.core().reader().leases().unwrap().is_empty());
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
fn a_lease_counts_from_its_answer_however_long_the_log_took() {
    for slow in [100_000, 400_000, 3_000_000] {
        let mut solo = Solo::new(4);
        solo.run(100_000);
        solo.cluster.disk(1).set_latency(slow, slow);
        let command = Command::LeaseGrant { id: 5, ttl: 1 };
        let (_, answered) = solo.ask_when(|reply_to| Request::Propose { command, reply_to });
        // what ends it is written fast
        solo.cluster.disk(1).set_latency(50, 100);
        while solo.cluster.now() < answered + SECOND - 1_000 {
            assert!(there(&solo, 5), "it ended {} us after the answer", solo.cluster.now() - answered);
            solo.run(500);
        }
        solo.run(2 * SECOND);
        assert!(!there(&solo, 5));
    }
}

#[test]
fn renewals_that_wait_for_a_disk_that_stands_still_go_before_the_end_of_their_leases() {
    for renewed in [true, false] {
        let mut solo = Solo::new(6);
        (0..20).for_each(|n| drop(solo.done(put("usual", &n.to_string()))));
        grant(&mut solo, 5, 2);
        solo.run(SECOND);
        solo.cluster.disk(1).set_latency(6 * SECOND, 6 * SECOND);
        // as many writes as may be out
        for n in 0..3 {
            solo.submit(|reply_to| Request::Propose { command: put("k", &n.to_string()), reply_to });
            solo.run(100_000);
        }
        solo.cluster.disk(1).set_latency(50, 100);
        assert!(!solo.core().takes_requests(0, solo.cluster.now()));
        if renewed {
            let (answer, at) = solo.ask_when(|reply_to| Request::Renew { id: 5, reply_to });
            assert!(matches!(answer, Outcome::Renewed { ttl: 2 }), "{answer:?}");
            solo.run(2 * SECOND - 10_000 - (solo.cluster.now() - at));
            assert!(there(&solo, 5), "it ended early");
        }
        solo.run(9 * SECOND);
        assert!(!there(&solo, 5), "it does not end");
    }
}

/// One lease of a random life: renewed now and then, over a disk that is slow now and then, through crashes. Gives the
/// number of crashes and whether it ended.
fn one_life(seed: u64) -> (u64, bool) {
    let mut rng = Rng::new(seed);
    let mut solo = Solo::new(seed);
    let ttl = rng.between(1, 6) as i64;
    let command = Command::LeaseGrant { id: 5, ttl };
    let (granted, mut seen) = solo.ask_when(|reply_to| Request::Propose { command, reply_to });
    assert!(matches!(granted, Outcome::Applied(_)));
    let mut crashes = 0;
    for _ in 0..3_000 {
        solo.run(20_000);
        if !there(&solo, 5) {
            let now = solo.cluster.now();
            assert!(
                now >= seen + ttl as u64 * SECOND,
                "seed {seed}: it ended {now}, was promised {ttl} s at {seen}"
            );
            return (crashes, true);
        }
        match rng.below(160) {
            0 => {
                let slow = if rng.once_in(3) { 2_500_000 } else { 300 };
                solo.cluster.disk(1).set_latency(50, slow);
            }
            1..=3 => match solo.ask_when(|reply_to| Request::Renew { id: 5, reply_to }) {
                (Outcome::Renewed { ttl: 0 }, at) => {
                    assert!(
                        at >= seen + ttl as u64 * SECOND,
                        "seed {seed}: refused {at}, promised {ttl} s at {seen}"
                    );
                }
                (Outcome::Renewed { .. }, at) => seen = at,
                other => panic!("answered {other:?}"),
            },
            4 | 5 => {
                solo.cluster.disk(1).set_latency(50, 300);
                solo.restart(if rng.once_in(2) { Crash::PowerCut } else { Crash::Kill });
                crashes += 1;
            }
            _ => {}
        }
    }
    (crashes, false)
}

#[test]
fn a_lease_never_ends_before_the_time_its_holder_saw_whatever_crashes() {
    let (mut crashes, mut ended) = (0, 0);
    for seed in 0..if long() { 500 } else { 40 } {
        let (crashed, has_ended) = one_life(seed);
        crashes += crashed;
        ended += u64::from(has_ended);
    }
    println!("{crashes} crashes, {ended} leases ended");
    assert!(crashes > 50 && ended > 5, "{crashes} crashes, {ended} leases ended");
}
