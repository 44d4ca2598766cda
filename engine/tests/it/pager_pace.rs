//! How a checkpoint shares the medium, and what follows it: pages evenly over the time there is, soon if somebody waits, and the
//! next checkpoint without anybody's help. And when the memory goes that is kept for changes.

use crate::pager_rig::{Rig, small_options};
use coffer_engine::pager::PagerOptions;

/// Bounds that only age meets; no rest meanwhile.
fn by_age(interval_us: u64) -> PagerOptions {
    PagerOptions {
        dirty_bytes: 64 << 20,
        checkpoint_wal_bytes: 64 << 20,
        checkpoint_interval_us: interval_us,
        rest_us: 10_000_000,
        ..small_options(1)
    }
}

/// A member with many pages to be written, whose checkpoint by age has just begun.
fn begun() -> Rig {
    let mut rig = Rig::new(1, by_age(4_000_000));
    rig.settle();
    rig.fill(0..6_000, 900);
    let written = rig.pager.stats().pages_written;
    while rig.pager.stats().pages_written == written {
        assert!(rig.turn());
    }
    rig
}

/// When what is published now was durable.
fn durable_after(rig: &mut Rig) -> u64 {
    let from = rig.disk.now();
    rig.settle_until_durable();
    rig.disk.now() - from
}

#[test]
fn pages_are_written_evenly_and_sooner_if_somebody_waits() {
    let mut rig = begun();
    let (from, before) = (rig.disk.now(), rig.pager.stats());
    let pages = before.dirty_bytes / 4096;
    assert!(pages > 1_000, "{pages} pages");
    // half the time since opening, which is the interval, but 500 us a page at most
    let lasts = 2_000_000.min(pages * 500);
    while rig.disk.now() < from + lasts / 4 {
        assert!(rig.turn());
    }
    let written = rig.pager.stats().pages_written - before.pages_written;
    assert!((pages / 5..pages / 3).contains(&written), "{written} of {pages} pages in a quarter of the time");
    let took = lasts / 4 + durable_after(&mut rig);
    assert!((lasts - lasts / 10..lasts + lasts / 10).contains(&took), "{took} us of {lasts}");

    let mut hastened = begun();
    hastened.pager.hasten_checkpoint();
    assert!(durable_after(&mut hastened) < 1_100_000.min(lasts));
    let mut urgent = begun();
    urgent.pager.request_checkpoint();
    assert!(durable_after(&mut urgent) < lasts / 4);
}

#[test]
fn few_pages_are_written_soon() {
    let mut rig = Rig::new(1, by_age(4_000_000));
    rig.settle();
    rig.fill(0..3, 20);
    assert!(durable_after(&mut rig) < 4_100_000);
}

#[test]
fn what_is_published_while_a_checkpoint_outlasts_the_interval_is_made_durable_by_the_next_one() {
    for number in 0..20 {
        let mut rig = Rig::new(1, by_age(15_000));
        rig.settle();
        // a sync lasts longer than the interval
        rig.disk.set_latency(40_000, 40_000);
        rig.fill(0..3, 20);
        for _ in 0..number {
            rig.turn();
        }
        rig.fill(3..6, 20);
        rig.settle();
        assert_eq!(rig.pager.durable().tx, rig.pager.published().tx, "published after {number} turns");
    }
}

#[test]
fn memory_kept_for_changes_is_given_back_although_the_file_is_being_cut_when_it_is_time() {
    // who may still reach the end is looked for every second: here it is let go after the fourth
    let mut rig = Rig::new(1, PagerOptions { rest_us: 4_155_000, ..by_age(15_000) });
    rig.fill(0..12_000, 900);
    rig.settle();
    rig.disk.set_latency(40_000, 40_000);
    rig.remove_last(12_000);
    rig.settle_until_durable();
    let (from, before) = (rig.disk.now(), rig.pager.stats());
    while !rig.pager.is_busy() {
        assert!(rig.turn(), "it is cut when the checkpoint is done");
    }
    assert_eq!(rig.disk.now() - from, 4_020_000, "it is time while that goes on");
    rig.settle();
    let after = rig.pager.stats();
    assert!(after.file_bytes < before.file_bytes);
    assert_eq!((before.rests, after.rests), (1, 2));
}

#[test]
fn memory_kept_for_many_changes_is_given_back_although_the_last_of_them_missed_the_checkpoint() {
    let interval = 60_000_000;
    let mut rig = Rig::new(1, PagerOptions { rest_us: 20_000, ..by_age(interval) });
    let go_on = |rig: &mut Rig, us: u64| {
        let until = rig.disk.now() + us;
        while rig.disk.now() < until && rig.turn() {}
    };
    rig.fill(0..6_000, 900);
    rig.pager.hasten_checkpoint();
    let written = rig.pager.stats().pages_written;
    while rig.pager.stats().pages_written == written {
        assert!(rig.turn());
    }
    rig.fill(6_000..6_003, 20);
    go_on(&mut rig, interval / 4);
    assert_eq!((rig.pager.stats().checkpoints, rig.pager.stats().rests), (2, 1));
    assert_eq!(rig.pager.stats().dirty_bytes, 0);

    // few changes are worth no checkpoint of their own
    rig.fill(6_003..6_006, 20);
    go_on(&mut rig, interval / 4);
    assert_eq!((rig.pager.stats().checkpoints, rig.pager.stats().rests), (2, 1));
    assert!(rig.pager.stats().dirty_bytes > 0);
    rig.settle();
    assert_eq!((rig.pager.stats().checkpoints, rig.pager.stats().rests), (3, 2));
}
