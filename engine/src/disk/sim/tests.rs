use super::*;
use crate::disk::{Done, FileId, IoBuf};
use std::io;

const BLOCK: usize = 4096;

fn run(disk: &mut SimDisk, op: Op) -> io::Result<Done> {
    let token = disk.submit(op);
    let mut out = Vec::new();
    loop {
        disk.wait(None);
        disk.poll(&mut out);
        if let Some(place) = out.iter().position(|completion| completion.token == token) {
            return out.swap_remove(place).result;
        }
    }
}

fn create(disk: &mut SimDisk, path: &str) -> FileId {
    match run(disk, Op::Open { path: path.into(), create: true, cached: false }) {
        Ok(Done::Opened(file, 0)) => file,
        other => panic!("not created: {other:?}"),
    }
}

fn filled(byte: u8) -> IoBuf {
    let mut buf = IoBuf::zeroed(BLOCK);
    buf.as_mut_slice().fill(byte);
    buf
}

fn kept_sectors(disk: &SimDisk, path: &str) -> usize {
    let content = disk.read_file(Path::new(path)).unwrap_or_default();
    content.chunks(SECTOR_BYTES).filter(|sector| sector[0] == 7).count()
}

#[test]
fn what_was_synced_with_its_name_survives_a_power_cut() {
    for seed in 0..50 {
        let mut disk = SimDisk::new(seed);
        let file = create(&mut disk, "/d/a");
        run(&mut disk, Op::Write { file, offset: 0, buf: filled(7) }).expect("written");
        run(&mut disk, Op::Sync { file }).expect("synced");
        run(&mut disk, Op::SyncDir { dir: "/d".into() }).expect("synced");
        disk.power_cut();
        assert_eq!(kept_sectors(&disk, "/d/a"), 8, "seed {seed}");
    }
}

#[test]
fn what_was_not_synced_may_be_lost_wholly_or_partly() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = SimDisk::new(seed);
        let file = create(&mut disk, "/d/a");
        run(&mut disk, Op::Allocate { file, bytes: BLOCK as u64 }).expect("allocated");
        run(&mut disk, Op::Sync { file }).expect("synced");
        run(&mut disk, Op::SyncDir { dir: "/d".into() }).expect("synced");
        disk.submit(Op::WriteDurable { file, offset: 0, buf: filled(7) });
        disk.power_cut();
        seen.insert(kept_sectors(&disk, "/d/a"));
    }
    assert!(seen.contains(&0) && seen.contains(&8) && seen.len() > 5, "sectors kept: {seen:?}");
}

#[test]
fn a_name_that_was_not_synced_may_be_lost() {
    let lost = (0..100).filter(|seed| {
        let mut disk = SimDisk::new(*seed);
        let file = create(&mut disk, "/d/a");
        run(&mut disk, Op::Sync { file }).expect("synced");
        disk.power_cut();
        disk.files().is_empty()
    });
    let lost = lost.count();
    assert!(lost > 10 && lost < 90, "lost {lost} of 100");
}

#[test]
fn a_failed_sync_loses_and_the_next_one_lies() {
    let mut lied = 0;
    for seed in 0..100 {
        let mut disk = SimDisk::new(seed);
        let file = create(&mut disk, "/d/a");
        run(&mut disk, Op::SyncDir { dir: "/d".into() }).expect("synced");
        run(&mut disk, Op::Write { file, offset: 0, buf: filled(7) }).expect("written");
        disk.fail_op(disk.ops(), Failure::Errno(libc::EIO));
        run(&mut disk, Op::Sync { file }).expect_err("told to fail");
        run(&mut disk, Op::Sync { file }).expect("the second sync succeeds");
        assert_eq!(kept_sectors(&disk, "/d/a"), 8, "the cache still shows it");
        disk.power_cut();
        lied += usize::from(kept_sectors(&disk, "/d/a") < 8);
    }
    assert!(lied > 10, "only {lied} of 100 were lost");
}

#[test]
fn operations_under_way_overtake_one_another_the_same_way_for_the_same_seed() {
    let order = |seed| {
        let mut disk = SimDisk::new(seed);
        let file = create(&mut disk, "/d/a");
        for block in 0..8u64 {
            disk.submit(Op::WriteDurable { file, offset: block * BLOCK as u64, buf: filled(7) });
        }
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.wait(None);
            disk.poll(&mut out);
        }
        out.into_iter().map(|completion| completion.token.0).collect::<Vec<_>>()
    };
    assert_eq!(order(3), order(3));
    assert_ne!(order(3), order(4));
    assert!(!order(3).is_sorted());
}

#[test]
fn a_full_disk_refuses_to_grow_and_takes_overwrites() {
    let mut disk = SimDisk::new(1);
    disk.set_capacity(Some(2 * BLOCK as u64));
    let file = create(&mut disk, "/d/a");
    run(&mut disk, Op::Allocate { file, bytes: 2 * BLOCK as u64 }).expect("it fits");
    let other = create(&mut disk, "/d/b");
    let refused = run(&mut disk, Op::Allocate { file: other, bytes: 1 }).expect_err("full");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
    run(&mut disk, Op::WriteDurable { file, offset: 0, buf: filled(7) }).expect("allocated before");
    disk.set_capacity(None);
    run(&mut disk, Op::Allocate { file: other, bytes: 1 }).expect("there is room again");
}

#[test]
fn a_killed_process_leaves_what_it_wrote_in_the_cache_only() {
    let mut disk = SimDisk::new(5);
    let file = create(&mut disk, "/d/a");
    run(&mut disk, Op::SyncDir { dir: "/d".into() }).expect("synced");
    run(&mut disk, Op::Write { file, offset: 0, buf: filled(7) }).expect("written");
    disk.kill();
    assert_eq!(kept_sectors(&disk, "/d/a"), 8);
    assert_eq!(disk.pending_bytes(), BLOCK);
    let lost = (0..50).filter(|seed| {
        let after = disk.fork(*seed);
        after.power_cut();
        kept_sectors(&after, "/d/a") < 8
    });
    assert!(lost.count() > 5);
}

#[test]
fn what_a_killed_process_wrote_through_the_page_cache_never_arrives_later() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = SimDisk::new(seed);
        let op = Op::Open { path: "/d/a".into(), create: true, cached: true };
        let Ok(Done::Opened(file, 0)) = run(&mut disk, op) else { panic!("not made") };
        disk.submit(Op::Write { file, offset: 0, buf: filled(7) });
        disk.kill();
        let at_once = kept_sectors(&disk, "/d/a");
        seen.insert(at_once);
        for number in 0..200 {
            run(&mut disk, Op::List { dir: "/d".into() }).expect("listed");
            assert_eq!(kept_sectors(&disk, "/d/a"), at_once, "seed {seed}, operation {number}");
        }
    }
    assert!(seen.contains(&0) && seen.contains(&8) && seen.len() > 4, "{seen:?}");
}

#[test]
fn a_map_shows_what_is_visible_and_what_it_lent_stays_as_it_was() {
    let mut disk = SimDisk::new(1);
    let file = create(&mut disk, "/d/a");
    run(&mut disk, Op::Write { file, offset: 0, buf: filled(1) }).expect("written");
    run(&mut disk, Op::Write { file, offset: BLOCK as u64, buf: filled(2) }).expect("written");
    let map = disk.map(Path::new("/d/a")).expect("it maps");
    assert!(disk.map(Path::new("/d/b")).is_err());
    map.populate(0, 2).expect("both are there");
    assert!(map.populate(1, 2).is_err(), "the file has two pages");
    assert!(map.populate(u32::MAX, 1).is_err(), "and not the last that has a number");
    let old = map.page(1);
    assert!(std::ptr::eq(old, map.page(1)), "the same bytes, the same copy");
    run(&mut disk, Op::Write { file, offset: BLOCK as u64, buf: filled(3) }).expect("written");
    assert_eq!((old[0], map.page(1)[0], map.page(0)[0]), (2, 3, 1));
    disk.refuse_reads(Path::new("/d/a"), BLOCK as u64, 1);
    assert_eq!(map.populate(0, 2).expect_err("a bad sector").raw_os_error(), Some(libc::EIO));
    map.populate(0, 1).expect("the rest is well");
    let read = run(&mut disk, Op::Read { file, offset: 0, buf: IoBuf::zeroed(2 * BLOCK) });
    assert_eq!(read.expect_err("a bad sector").raw_os_error(), Some(libc::EIO));
}
