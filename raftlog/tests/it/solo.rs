//! One member that crashes all the time.

use crate::support::{Solo, long, put};
use coffer_engine::command::{Command, DeleteRangeRequest, Member, RangeRequest};
use coffer_engine::disk::sim::Failure;
use coffer_engine::mvcc::KeyRange;
use coffer_engine::store::StoreOptions;
use coffer_engine::wal::{Space, WalOptions};
use coffer_raftlog::core::ANSWERED_TOGETHER_MAX;
use coffer_raftlog::proposal::{Busy, Outcome, Request};
use coffer_raftlog::recovery::{RecoveryOptions, owner, recover};
use coffer_raftlog::sim::cluster::{Answer, CLUSTER_ID, ClusterOptions, Crash};
use coffer_raftlog::sim::workload::{Report, WorkloadOptions, run};

#[test]
fn a_member_that_crashes_all_the_time_loses_nothing_it_acknowledged() {
    let mut all = Report::default();
    for seed in 0..if long() { 100 } else { 6 } {
        let report = run(&WorkloadOptions::one_member(seed)).unwrap_or_else(|wrong| panic!("{wrong}"));
        all.add(&report);
    }
    println!("{all}: none lost");
    assert!(all.crashes >= 300 && all.acknowledged >= 600);
    let work = all.page_work;
    assert!(work.checkpoints > 100 && work.recycled > 50 && work.from_pages > 100, "{work:?}");
}

#[test]
fn a_member_with_nothing_to_do_sleeps_without_a_timeout_and_writes_nothing() {
    let mut solo = Solo::new(1);
    solo.done(put("a", "1"));
    // the last things it does are the checkpoint that a change of some age begins, and giving memory back after it
    solo.run(70_000_000);
    assert_eq!(solo.core().checkpoint().applied, solo.core().status().applied);
    assert_eq!(solo.cluster.next_event(), None, "something wakes an idle member");
    let (ops, written) = (solo.cluster.disk(1).ops(), solo.core().wal().stats().bytes_written);
    solo.run(3_600_000_000);
    assert_eq!(solo.cluster.disk(1).ops(), ops);
    assert_eq!(solo.core().wal().stats().bytes_written, written);
}

#[test]
fn a_log_without_room_gets_a_checkpoint_soon_and_goes_on_in_what_that_lets_go() {
    let segment_bytes = (32 << 10, 32 << 10);
    let mut solo = Solo::with(ClusterOptions { segment_bytes, ..ClusterOptions::new(7, 1) });
    solo.run(100_000);
    let disk = solo.cluster.disk(1).clone();
    disk.set_capacity(Some(disk.used()));
    let value = "x".repeat(4_000);
    for round in 0..3 {
        let full = (0..100).any(|n| {
            let command = put(&format!("k{}", n % 10), &value);
            matches!(
                solo.ask(|reply_to| Request::Propose { command, reply_to }),
                Outcome::Failed(Busy::NoSpace)
            )
        });
        assert!(full && solo.core().wal().space() == Space::Reserve, "the disk fills by the log");
        solo.run(5_000_000);
        // the page file has room all the while, and would wait a minute
        assert!(!solo.core().status().no_space, "round {round}: {:?}", solo.core().page_stats());
    }
}

#[test]
fn what_waits_while_a_write_is_out_becomes_one_batch() {
    let mut solo = Solo::new(2);
    solo.cluster.disk(1).set_latency(2_000, 2_000);
    // it learns how long a write usually takes
    (0..40).for_each(|n| drop(solo.done(put("usual", &n.to_string()))));
    solo.run(20_000);
    let batches = |solo: &Solo| solo.core().wal().stats().batches;
    let before = batches(&solo);
    solo.submit(|reply_to| Request::Propose { command: put("first", "x"), reply_to });
    solo.run(100);
    for n in 0..100 {
        solo.submit(|reply_to| Request::Propose { command: put(&format!("k{n}"), "x"), reply_to });
        solo.run(10);
    }
    solo.run(10_000);
    assert_eq!(solo.cluster.take_answers().len(), 101);
    assert_eq!(batches(&solo), before + 2);
}

#[test]
fn those_who_came_first_in_a_batch_are_answered_before_the_rest_is_applied() {
    let mut solo = Solo::new(7);
    solo.done(put("first", "x"));
    let batches = solo.core().wal().stats().batches;
    for n in 0..3 * ANSWERED_TOGETHER_MAX {
        solo.submit(|reply_to| Request::Propose { command: put(&format!("k{n:04}"), "x"), reply_to });
    }
    solo.run(20_000);
    assert_eq!(solo.core().wal().stats().batches, batches + 1);
    let answers = solo.cluster.take_answers();
    assert!(answers.windows(2).all(|two| two[0].to.slot < two[1].to.slot));
    let together: Vec<usize> = answers.chunk_by(|a, b| a.post == b.post).map(<[Answer]>::len).collect();
    assert_eq!(together, [ANSWERED_TOGETHER_MAX; 3]);
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_and_all_who_wait_are_answered() {
    let mut acknowledged_in_all = 0;
    for nth in 0..40 {
        let mut solo = Solo::new(nth);
        solo.done(put("before", "1"));
        solo.run(50_000);
        let failing = solo.cluster.disk(1).ops() + nth / 2;
        let failure = if nth % 2 == 0 { Failure::Errno(5) } else { Failure::Short };
        solo.cluster.disk(1).fail_op(failing, failure);
        let mut sent = 0;
        for n in 0..40 {
            solo.submit(|reply_to| Request::Propose { command: put(&format!("k{n}"), "x"), reply_to });
            sent += 1;
            solo.run(37);
            if solo.cluster.core(1).is_none() {
                break;
            }
        }
        solo.run(100_000);
        let answers = solo.cluster.take_answers();
        let stopped = solo.cluster.core(1).is_none();
        assert_eq!(stopped, !solo.cluster.faults().is_empty());
        let good = |answer: &&Answer| matches!(answer.outcome, Outcome::Applied(_));
        let acknowledged: Vec<String> =
            answers.iter().filter(good).map(|answer| format!("k{}", answer.to.slot - 2)).collect();
        acknowledged_in_all += acknowledged.len();
        if stopped {
            let failed =
                answers.iter().filter(|a| matches!(a.outcome, Outcome::Failed(Busy::Stopped))).count();
            assert_eq!(acknowledged.len() + failed, answers.len());
        }
        assert_eq!(answers.len(), sent, "somebody was not answered");
        // what was acknowledged is there after the power is cut
        solo.cluster.crash(1, Crash::PowerCut);
        solo.cluster.disk(1).power_cut();
        if stopped {
            solo.cluster.start(1).unwrap();
        } else {
            solo.restart(Crash::PowerCut);
        }
        solo.run(50_000);
        for key in acknowledged {
            assert_eq!(range(&solo, &key), 1, "{key} was acknowledged and is lost");
        }
    }
    assert!(acknowledged_in_all > 0);
}

fn range(solo: &Solo, key: &str) -> i64 {
    let request =
        RangeRequest { range: KeyRange::single(key.as_bytes().to_vec()), ..RangeRequest::default() };
    solo.core().reader().range(&request).unwrap().count
}

fn refused(outcome: Outcome) -> Option<Busy> {
    match outcome {
        Outcome::Failed(busy) => Some(busy),
        _ => None,
    }
}

#[test]
fn a_full_disk_refuses_what_needs_room_lets_the_rest_through_ends_no_lease_and_heals() {
    let mut solo = Solo::new(3);
    solo.done(Command::LeaseGrant { id: 1, ttl: 600 });
    solo.done(put("kept", "x"));
    let used = solo.cluster.disk(1).used();
    solo.cluster.disk(1).set_capacity(Some(used));
    let value = "x".repeat(4_000);
    let mut written = 0;
    // the log lets go what checkpoints hold, until the page file has no room for one
    while !solo.core().status().no_space {
        solo.done(put("filler", &value));
        written += 1;
        assert!(written < 1_000, "the disk does not fill");
        if solo.core().status().no_space {
            solo.run(5_000_000);
        }
    }
    let filler = solo.ask(|reply_to| Request::Propose { command: put("filler", &value), reply_to });
    assert_eq!(refused(filler), Some(Busy::NoSpace));
    let granted =
        solo.ask(|reply_to| Request::Propose { command: Command::LeaseGrant { id: 2, ttl: 3 }, reply_to });
    assert_eq!(refused(granted), Some(Busy::NoSpace));
    // the lease's time stands still
    solo.run(700_000_000);
    assert!(solo.core().reader().lease(1, false).unwrap().is_some(), "a lease ended on a full disk");
    assert_eq!(range(&solo, "kept"), 1);
    let delete = DeleteRangeRequest { range: KeyRange::single(&b"kept"[..]), prev_kv: false };
    solo.done(Command::DeleteRange(delete));
    assert!(matches!(solo.ask(|reply_to| Request::Renew { id: 1, reply_to }), Outcome::Renewed { ttl: 600 }));
    let revision = solo.core().reader().position().revision;
    solo.done(Command::Compact { revision });
    solo.cluster.disk(1).set_capacity(None);
    solo.run(5_000_000);
    assert!(!solo.core().status().no_space, "the member does not heal by itself");
    solo.done(put("after", "x"));
    solo.run(602_000_000);
    assert!(solo.core().reader().lease(1, false).unwrap().is_none(), "the lease clock does not run again");
}

#[test]
fn a_read_waits_for_the_first_entry_of_the_members_own_term() {
    let mut solo = Solo::new(4);
    solo.done(put("a", "1"));
    assert!(solo.core().reads_at_once());
    solo.restart(Crash::Kill);
    assert!(!solo.core().reads_at_once());
    let number = solo.submit(|reply_to| Request::Read { reply_to });
    let before = solo.core().status().last;
    solo.run(50_000);
    let answers = solo.cluster.take_answers();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].to.slot, number);
    assert!(matches!(answers[0].outcome, Outcome::ReadIndex(index) if index >= before));
    assert!(solo.core().reads_at_once());
}

#[test]
fn compaction_is_carried_out_between_applies() {
    let mut solo = Solo::new(5);
    for n in 0..50 {
        solo.done(put("same", &n.to_string()));
    }
    let revision = solo.core().reader().position().revision;
    solo.done(Command::Compact { revision });
    solo.run(100_000);
    let position = solo.core().reader().position();
    assert_eq!((position.compacted, position.compaction_done), (revision, revision));
    solo.run(70_000_000);
    assert_eq!(solo.cluster.next_event(), None);
}

#[test]
fn compaction_does_not_hold_up_those_who_wait_to_be_applied() {
    let mut solo = Solo::new(8);
    for n in 0..50 {
        solo.done(put("same", &n.to_string()));
    }
    let revision = solo.core().reader().position().revision;
    solo.submit(|reply_to| Request::Propose { command: Command::Compact { revision }, reply_to });
    for n in 1..3 * ANSWERED_TOGETHER_MAX {
        solo.submit(|reply_to| Request::Propose { command: put(&n.to_string(), "x"), reply_to });
    }
    solo.run(100_000);
    let answers = solo.cluster.take_answers();
    let posts: Vec<&[Answer]> = answers.chunk_by(|a, b| a.post == b.post).collect();
    assert_eq!(posts.len(), 3);
    let began: Vec<bool> = posts.iter().map(|answers| answers[0].compaction_done > -1).collect();
    assert_eq!(began, [false, false, true]);
    assert_eq!(solo.core().reader().position().compaction_done, revision);
}

#[test]
fn a_clean_stop_answers_those_who_wait_and_the_log_opens_again() {
    let mut solo = Solo::new(6);
    solo.done(put("a", "1"));
    for n in 0..10 {
        solo.submit(|reply_to| Request::Propose { command: put(&format!("k{n}"), "x"), reply_to });
        solo.run(20);
    }
    solo.cluster.stop(1).unwrap();
    let answers = solo.cluster.take_answers();
    assert!(answers.iter().any(|answer| matches!(answer.outcome, Outcome::Failed(Busy::Stopped))));
    solo.cluster.start(1).unwrap();
    solo.run(50_000);
    assert_eq!(range(&solo, "a"), 1);
}

#[test]
fn a_log_of_another_cluster_or_member_is_refused() {
    let mut solo = Solo::new(7);
    solo.done(put("a", "1"));
    solo.cluster.stop(1).unwrap();
    let mut disk = solo.cluster.disk(1).clone();
    for (cluster_id, member_id) in [(CLUSTER_ID + 1, 1), (CLUSTER_ID, 2)] {
        let options = RecoveryOptions {
            wal: WalOptions::new("/wal".into(), owner(cluster_id, member_id), 1),
            pages: StoreOptions::new("/pages".into(), owner(cluster_id, member_id)),
            cluster_id,
            member_id,
            bootstrap: vec![Member { id: member_id, ..Member::default() }],
            keep_bytes: 0,
        };
        let clock = disk.clone();
        assert!(recover(&mut disk, &options, &mut || clock.now()).is_err());
    }
    solo.cluster.start(1).unwrap();
}
