//! A page file on a disk that is full, and one that has become too long.

use crate::pager_rig::{PATH, Rig, small_options};
use coffer_engine::wal::{SPACE_RETRY_US, Space};

const MIB: u64 = 1 << 20;

/// A file on a disk without room for more than it has; some data is durable.
fn on_a_full_disk(seed: u64) -> Rig {
    let mut rig = Rig::new(seed, small_options(seed));
    rig.run(10, 9_000);
    rig.settle();
    rig.disk.set_capacity(Some(rig.disk.used() + 100_000));
    let mut number = 0;
    while rig.pager.space() == Space::Ample {
        rig.fill(number..number + 40, 900);
        number += 40;
        for _ in 0..8 {
            rig.turn();
        }
        assert!(rig.fault.is_none(), "{:?}", rig.fault);
        assert!(number < 10_000, "the disk is never full");
    }
    rig
}

#[test]
fn on_a_full_disk_reads_and_the_reserve_go_on_and_it_heals_by_itself() {
    for seed in 0..6 {
        let mut rig = on_a_full_disk(seed);
        let bytes = rig.pager.stats().file_bytes;
        // what is published stands, and becomes durable: the reserve has room for it
        rig.check();
        rig.settle_until_durable();
        assert!(rig.pager.published().pages_end * 4096 <= bytes);
        // deletes go on for as long as one likes: each checkpoint frees what the one before needed
        for _ in 0..40 {
            rig.remove_first(5);
            rig.settle_until_durable();
        }
        assert_eq!(rig.pager.stats().file_bytes, bytes, "not a byte longer");
        rig.check();
        let disk = rig.disk.fork(seed);
        disk.power_cut();
        Rig::open(disk, seed, small_options(seed), &rig.before()).expect("it opens on a full disk");

        rig.disk.set_capacity(None);
        let from = rig.disk.now();
        rig.fill(20_000..20_400, 900);
        while rig.pager.space() == Space::Reserve {
            assert!(rig.turn(), "it tries by itself");
        }
        assert!(rig.disk.now() - from < 2 * SPACE_RETRY_US, "within one try");
        rig.settle();
        assert!(rig.fault.is_none() && rig.pager.stats().file_bytes > bytes);
        rig.check();
    }
}

#[test]
fn pages_beyond_what_is_allocated_stay_in_memory_and_follow_when_there_is_room() {
    for seed in 0..4 {
        let mut rig = on_a_full_disk(seed);
        rig.settle_until_durable();
        let durable = rig.pager.durable();
        // whoever ignores that there is no room: more than the reserve holds
        rig.fill(30_000..33_000, 900);
        for _ in 0..2_000 {
            rig.turn();
        }
        assert!(rig.fault.is_none(), "{:?}", rig.fault);
        assert_eq!((rig.pager.durable(), rig.pager.space()), (durable, Space::Reserve));
        rig.check();
        rig.disk.set_capacity(None);
        rig.settle();
        assert_eq!(rig.pager.space(), Space::Ample);
        assert_eq!(rig.pager.durable().tx, rig.pager.published().tx);
        rig.disk.power_cut();
        Rig::open(rig.disk.clone(), seed, small_options(seed), &rig.before()).expect("all of it is there");
    }
}

#[test]
fn the_end_of_the_file_is_cut_when_no_root_and_no_reader_reaches_it() {
    let mut rig = Rig::new(3, small_options(3));
    for part in 0..30 {
        rig.fill(part * 400..(part + 1) * 400, 900);
        rig.settle();
    }
    let long = rig.pager.stats().file_bytes;
    assert!(long > 12 * MIB, "{long}");
    rig.pin();
    // from the end on, so that the first pages stay
    while rig.model.len() > 300 {
        rig.remove_last(200);
        for _ in 0..50 {
            rig.turn();
        }
    }
    for _ in 0..3_000 {
        rig.turn();
    }
    // the reader still sees all of it, so nothing is cut
    assert_eq!(rig.pager.stats().file_bytes.max(long), rig.pager.stats().file_bytes);
    rig.check_pins(0);
    // what still lies high up is written anew, further down
    for _ in 0..3 {
        rig.fill(0..300, 900);
        rig.settle();
    }
    let end = rig.pager.published().pages_end * 4096;
    let short = rig.pager.stats().file_bytes;
    println!("file {long} bytes, {short} after the cut, its last page ends at {end}");
    rig.check();
    rig.disk.power_cut();
    let rig = Rig::open(rig.disk.clone(), 3, small_options(3), &rig.before()).expect("it opens");
    assert!(end < 2 * MIB && short < 5 * MIB, "cut");
    assert_eq!(rig.pager.stats().file_bytes, short, "and durably so");
}

#[test]
fn the_bitmap_of_a_file_of_several_regions_reads_back() {
    // 32,000 pages each
    let mut options = small_options(1);
    options.dirty_bytes = 4 << 20;
    let mut rig = Rig::new(1, options.clone());
    for part in 0..70 {
        rig.fill(part..part + 1, 4_000_000);
        for _ in 0..40 {
            rig.turn();
        }
    }
    rig.settle();
    let end = rig.pager.published().pages_end;
    assert!(end > 2 * 32_000, "{end}");
    rig.check();
    for seed in 0..3 {
        let disk = rig.disk.fork(seed);
        disk.power_cut();
        let mut again = Rig::open(disk, seed, options.clone(), &rig.before()).expect("it opens");
        again.remove_first(20);
        again.settle();
        again.check();
        again.disk.power_cut();
        Rig::open(again.disk.clone(), seed, options.clone(), &again.before()).expect("it opens");
    }
}

#[test]
fn a_disk_that_gets_room_for_the_pages_in_use_alone_has_them_durable() {
    for seed in 0..4 {
        let mut rig = on_a_full_disk(seed);
        rig.settle_until_durable();
        let before = rig.pager.stats().file_bytes;
        // more than the reserve holds
        rig.fill(30_000..34_000, 900);
        for _ in 0..200 {
            rig.turn();
        }
        let end = rig.pager.published().pages_end * 4096;
        assert!(end > before && rig.pager.durable().tx < rig.pager.published().tx, "{end} of {before}");
        rig.disk.set_capacity(Some(rig.disk.used() + end - before));
        rig.settle_until_durable();
        assert_eq!((rig.pager.stats().file_bytes, rig.pager.space()), (end, Space::Reserve));
        // what makes room finds some: what one checkpoint frees is the next one's
        rig.disk.set_capacity(Some(rig.disk.used() + 200_000));
        for _ in 0..20 {
            rig.remove_last(50);
            rig.settle_until_durable();
        }
        assert!(rig.pager.stats().file_bytes <= end + 200_000);
        rig.check();
        rig.disk.power_cut();
        Rig::open(rig.disk.clone(), seed, small_options(seed), &rig.before()).expect("all of it is there");
    }
}

#[test]
fn what_was_opened_is_not_cut_before_a_checkpoint_of_its_own() {
    let mut rig = Rig::new(3, small_options(3));
    rig.fill(0..100, 900);
    rig.settle();
    let (disk, before) = (rig.disk.clone(), rig.before());
    drop(rig);
    disk.power_cut();
    let path = std::path::Path::new(PATH);
    let mut content = disk.read_file(path).expect("it is there");
    content.resize(content.len() + 24 * MIB as usize, 0);
    let long = content.len() as u64;
    disk.write_file(path, content);
    // all that opening can see is that nobody reaches the end
    let mut rig = Rig::open(disk, 3, small_options(3), &before).expect("it opens");
    rig.pager.request_cut();
    rig.settle();
    rig.disk.set_now(rig.disk.now() + 10_000_000);
    rig.settle();
    assert_eq!(rig.disk.read_file(path).expect("it is there").len() as u64, long);
    rig.fill(0..10, 900);
    rig.settle();
    let short = rig.pager.stats().file_bytes;
    assert!(short < 8 * MIB, "{short} of {long}");
    rig.check();
}

#[test]
fn a_value_as_long_as_a_request_has_room_on_a_disk_that_has_just_become_full() {
    for part in 0..24 {
        let mut rig = Rig::new(part, small_options(part));
        rig.fill(0..50 * part, 900);
        rig.settle();
        rig.disk.set_capacity(Some(rig.disk.used()));
        let bytes = rig.pager.stats().file_bytes;
        rig.fill(90_000..90_001, 3 << 19);
        rig.settle_until_durable();
        assert_eq!(rig.pager.stats().file_bytes, bytes, "part {part}");
        rig.check();
    }
}
