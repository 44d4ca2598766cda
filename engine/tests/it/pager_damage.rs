//! Damage to what opening reads: metas, directories, bitmap blocks. The newest whole meta is found, or the file is
//! refused with the place; never anything else.

use crate::pager_rig::{OWNER, PATH, Rig, small_options};
use coffer_engine::btree;
use coffer_engine::disk::sim::{Failure, SimDisk};
use coffer_engine::error::Fault;
use coffer_engine::pager::page::TreeId;
use coffer_engine::pager::{Pager, PagerOpened};
use std::path::Path;

const PAGE: u64 = 4096;

/// A clean file of some checkpoints, the newest of which is `pager.durable()`.
fn file(seed: u64) -> (SimDisk, PagerOpened) {
    let mut rig = Rig::new(seed, small_options(seed));
    rig.run(30, 9_000);
    rig.settle();
    let disk = rig.disk.clone();
    drop(rig);
    disk.power_cut();
    let (_, opened) = open(&disk.fork(0)).expect("it is whole");
    assert!(opened.checkpoint > 3 && opened.metas_damaged.is_empty(), "{opened:?}");
    (disk, opened)
}

fn open(disk: &SimDisk) -> Result<(Pager, PagerOpened), Fault> {
    Pager::open(&mut disk.clone(), small_options(0), 0)
}

/// Where the newest meta and the older one stand: offsets of the first copies.
fn metas(opened: &PagerOpened) -> (u64, u64) {
    if opened.checkpoint.is_multiple_of(2) { (0, 2 * PAGE) } else { (2 * PAGE, 0) }
}

/// Every bit in the long run, every 8th else, beginning with another one for each page.
fn bits(page: u64) -> impl Iterator<Item = u64> {
    let step = if std::env::var_os("COFFER_LONG").is_some() { 1 } else { 8 };
    (page % step..PAGE * 8).step_by(step as usize)
}

fn refused_at(result: Result<(Pager, PagerOpened), Fault>, page: u64, context: &str) {
    match result {
        Err(Fault::Corrupt { offset, .. }) => assert_eq!(offset, page * PAGE, "{context}"),
        Err(fault) => panic!("{context}: {fault}"),
        Ok((_, opened)) => panic!("{context}: silent, {opened:?}"),
    }
}

#[test]
fn a_flipped_bit_in_one_copy_of_a_meta_changes_nothing_and_is_told() {
    let (disk, whole) = file(1);
    let (mut flips, path) = (0, Path::new(PATH));
    for page in 0..4 {
        for bit in bits(page) {
            let damaged = disk.fork(bit);
            damaged.flip_bit(path, page * PAGE + bit / 8, (bit % 8) as u8);
            let (_, opened) = open(&damaged).expect("another copy is whole");
            assert_eq!(
                (opened.tx, opened.checkpoint),
                (whole.tx, whole.checkpoint),
                "page {page}, bit {bit}"
            );
            let told: Vec<u64> = opened.metas_damaged.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(told, [page * PAGE], "page {page}, bit {bit}");
            flips += 1;
        }
    }
    println!("flips in one copy of a meta {flips}, all found, none wrong");
}

#[test]
fn without_either_copy_of_the_newest_meta_the_older_is_found_and_both_are_told() {
    let (disk, whole) = file(2);
    let (newest, older) = metas(&whole);
    for sector in 0..8 {
        let damaged = disk.fork(sector);
        // a sector of both copies; the last ones of a meta are zeros already
        for copy in [newest, newest + PAGE] {
            damaged.flip_bit(Path::new(PATH), copy + sector * 512 + sector, 3);
        }
        let (_, opened) = open(&damaged).expect("the older one is whole");
        assert_eq!(opened.checkpoint, whole.checkpoint - 1, "whoever has the log knows better");
        assert!(opened.tx < whole.tx);
        let told: Vec<u64> = opened.metas_damaged.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(told, [newest, newest + PAGE]);
        for copy in [older, older + PAGE] {
            damaged.flip_bit(Path::new(PATH), copy + sector * 512 + sector, 3);
        }
        let damaged = damaged.fork(0);
        refused_at(open(&damaged), 0, "no meta is whole");
    }
}

#[test]
fn a_copy_that_was_lost_is_written_once_more() {
    let (disk, whole) = file(3);
    let (newest, _) = metas(&whole);
    for copy in [newest, newest + PAGE] {
        let disk = disk.fork(copy);
        for sector in 0..8 {
            disk.zero_sector(Path::new(PATH), copy + sector * 512);
        }
        let (_, opened) = open(&disk).expect("the other is whole");
        assert_eq!(opened.metas_damaged.len(), 1, "{:?}", opened.metas_damaged);
        disk.power_cut();
        let (_, opened) = open(&disk).expect("it opens");
        assert_eq!(opened.metas_damaged, []);
    }
}

#[test]
fn every_flipped_bit_of_what_the_meta_names_is_refused_with_its_place() {
    let (disk, whole) = file(4);
    let path = Path::new(PATH);
    let (mut refused, mut named) = (0, Vec::new());
    // each has two places: the one that is named, and one that holds an older version
    for places in [[4, 5], [6, 7]] {
        let in_use = places.into_iter().filter(|page| {
            let damaged = disk.fork(*page);
            damaged.flip_bit(path, page * PAGE + 100, 0);
            open(&damaged).is_err()
        });
        let in_use: Vec<u64> = in_use.collect();
        assert_eq!(in_use.len(), 1, "one of {places:?} is named");
        named.push(in_use[0]);
    }
    for page in named {
        for bit in bits(page) {
            let damaged = disk.fork(bit);
            damaged.flip_bit(path, page * PAGE + bit / 8, (bit % 8) as u8);
            refused_at(open(&damaged), page, &format!("page {page}, bit {bit}"));
            refused += 1;
        }
        // an older version put back
        let content = disk.read_file(path).expect("it is there");
        let other = page ^ 1;
        let mut stale = content.clone();
        stale.copy_within((other * PAGE) as usize..((other + 1) * PAGE) as usize, (page * PAGE) as usize);
        let damaged = disk.fork(1);
        damaged.write_file(path, stale);
        refused_at(open(&damaged), page, "an older one in its place");
    }
    println!("flips in directory and bitmap {refused}, all refused; transaction {}", whole.tx);
}

#[test]
fn a_sector_that_cannot_be_read_costs_a_meta_a_copy_and_refuses_the_rest() {
    let (disk, whole) = file(5);
    for page in 0..8 {
        let damaged = disk.fork(page);
        damaged.refuse_reads(Path::new(PATH), page * PAGE, PAGE);
        match open(&damaged) {
            Ok((_, opened)) => assert_eq!(opened.tx, whole.tx, "page {page}"),
            Err(Fault::Io { offset, .. }) => assert_eq!((offset, page > 3), (page * PAGE, true)),
            Err(fault) => panic!("page {page}: {fault}"),
        }
    }
}

#[test]
fn a_meta_that_the_disk_does_not_give_is_not_taken_for_lost() {
    let (disk, whole) = file(7);
    let path = Path::new(PATH);
    let (newest, older) = metas(&whole);
    // neither says whether it would be the newest
    for pair in [newest, older] {
        for (refused, flipped) in [([pair, pair + PAGE], None), ([pair; 2], Some(pair + PAGE))] {
            let damaged = disk.fork(pair);
            if let Some(flipped) = flipped {
                damaged.flip_bit(path, flipped + 100, 3);
            }
            for copy in refused {
                damaged.refuse_reads(path, copy, PAGE);
            }
            let before = damaged.read_file(path);
            match open(&damaged) {
                Err(Fault::Io { offset, .. }) => assert!(refused.contains(&offset), "{offset}"),
                other => panic!("copies {refused:?}: {other:?}"),
            }
            assert!(damaged.read_file(path) == before, "untouched");
        }
    }
}

#[test]
fn what_the_disk_does_not_give_for_a_moment_is_there_the_next_time() {
    let (disk, whole) = file(8);
    let mut refused = 0;
    for first in 0..16 {
        let moment = disk.fork(first);
        for op in first..first + 2 {
            moment.fail_op(moment.ops() + op, Failure::Errno(libc::EIO));
        }
        match open(&moment) {
            Ok((_, opened)) => assert_eq!(opened.checkpoint, whole.checkpoint, "operation {first}"),
            Err(fault) => {
                assert!(matches!(fault, Fault::Io { .. }), "operation {first}: {fault}");
                refused += 1;
            }
        }
        moment.power_cut();
        let (_, opened) = open(&moment).expect("it is whole");
        assert_eq!(opened.checkpoint, whole.checkpoint, "operation {first}");
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn what_is_not_our_file_is_refused_and_left_as_it_is() {
    let (disk, whole) = file(6);
    let path = Path::new(PATH);
    let content = disk.read_file(path).expect("it is there");
    let refused = |bytes: Vec<u8>| {
        let disk = disk.fork(1);
        disk.write_file(path, bytes.clone());
        let fault = open(&disk).expect_err("it is not ours");
        assert!(disk.read_file(path) == Some(bytes), "untouched");
        fault
    };
    let meta = |content: &[u8], change: &dyn Fn(&mut [u8])| {
        let mut out = content.to_vec();
        for page in 0..4 {
            let page = &mut out[page * PAGE as usize..(page + 1) * PAGE as usize];
            change(page);
            let crc = crc32fast::hash(&page[4..]);
            page[..4].copy_from_slice(&crc.to_le_bytes());
        }
        out
    };
    let fault = refused(meta(&content, &|page| page[40..44].copy_from_slice(&77u32.to_le_bytes())));
    let text = fault.to_string();
    assert!(
        matches!(fault, Fault::Unusable { .. }) && text.contains("77") && text.contains("format 1"),
        "{text}"
    );

    let mut bbolt = vec![0; 32 << 10];
    bbolt[16..20].copy_from_slice(&0xed0c_daed_u32.to_le_bytes());
    let fault = refused(bbolt);
    assert!(matches!(fault, Fault::Unusable { .. }) && fault.to_string().contains("etcd"), "{fault}");

    let mut options = small_options(0);
    options.owner = *b"another cluster!";
    assert_ne!(options.owner, OWNER);
    let fault = Pager::open(&mut disk.fork(0), options, 0).expect_err("another's");
    assert!(matches!(fault, Fault::Unusable { .. }), "{fault}");

    for bytes in [Vec::new(), vec![0; 100], vec![0; 1 << 20], vec![7; 1 << 20], content[..5000].to_vec()] {
        let len = bytes.len();
        let result = {
            let disk = disk.fork(1);
            disk.write_file(path, bytes);
            open(&disk)
        };
        assert!(matches!(result, Err(Fault::Corrupt { .. })), "{len} bytes");
    }
    // cut within what is used
    let mut short = content;
    short.truncate(12 * PAGE as usize);
    let fault = refused(short);
    let Fault::Corrupt { offset, .. } = fault else { panic!("{fault}") };
    assert_eq!(offset, 12 * PAGE);
    assert!(whole.tx > 0);
}

/// Turns until the scrub has gone through the file `rounds` times more.
fn scrub(rig: &mut Rig, rounds: u64) {
    let end = rig.pager.stats().scrub_rounds + rounds;
    for _ in 0..100_000 {
        if rig.pager.stats().scrub_rounds >= end {
            return;
        }
        assert!(rig.turn(), "{:?}", rig.fault);
    }
    panic!("the scrub never comes to an end");
}

#[test]
fn the_scrub_finds_damage_by_its_place_and_nothing_where_pages_come_and_go() {
    let mut options = small_options(1);
    options.scrub_bytes_per_s = 200 << 20;
    let mut rig = Rig::new(9, options);
    for _ in 0..20 {
        rig.run(10, 9_000);
        scrub(&mut rig, 1);
    }
    let stats = rig.pager.stats();
    println!("scrubbed while written: {} pages in {} rounds", stats.scrub_pages, stats.scrub_rounds);
    assert!(stats.scrub_pages > 1_000 && stats.checkpoints > 5, "{stats:?}");
    assert_eq!((stats.scrub_damaged, rig.pager.take_scrub_faults().len()), (0, 0));
    rig.pager.request_checkpoint();
    rig.settle_until_durable();

    let path = Path::new(PATH);
    let reached: Vec<u64> = rig.reached().into_iter().map(|id| u64::from(id.0)).collect();
    let (rotten, unreadable) = (reached[reached.len() / 3], reached[reached.len() / 2]);
    rig.disk.flip_bit(path, rotten * PAGE + 2_000, 5);
    rig.disk.refuse_reads(path, unreadable * PAGE, 512);
    // the round that is under way may have been there already
    scrub(&mut rig, 2);
    rig.pager.take_scrub_faults();
    let before = rig.pager.stats();
    scrub(&mut rig, 1);
    let faults = rig.pager.take_scrub_faults();
    let places: Vec<(u64, bool)> = faults
        .iter()
        .map(|fault| match fault {
            Fault::Corrupt { offset, .. } => (offset / PAGE, false),
            Fault::Io { offset, .. } => (offset / PAGE, true),
            other => panic!("{other}"),
        })
        .collect();
    let mut expected = [(rotten, false), (unreadable, true)];
    expected.sort_unstable();
    assert_eq!(places, expected, "{faults:?}");
    let looked_at = rig.pager.stats().scrub_pages - before.scrub_pages;
    let used = rig.pager.published().pages_used;
    assert_eq!(looked_at, used - 1, "all but the one that cannot be read");
    assert!(rig.fault.is_none(), "nothing stops");
}

#[test]
fn a_page_that_rots_after_it_was_read_is_read_by_nobody_once_the_scrub_has_met_it() {
    let mut options = small_options(1);
    options.scrub_bytes_per_s = 200 << 20;
    let mut rig = Rig::new(11, options);
    // values that all lie in leaves
    rig.run(60, 900);
    rig.pager.request_checkpoint();
    rig.settle_until_durable();
    let reached = rig.reached();
    let rotten = *reached.iter().nth(reached.len() / 2).expect("a page");
    rig.disk.flip_bit(Path::new(PATH), u64::from(rotten.0) * PAGE + 3_000, 1);
    // the round that is under way may have been there already
    scrub(&mut rig, 2);
    assert!(!rig.pager.take_scrub_faults().is_empty());

    let root = rig.pager.published();
    let mut readable = 0;
    let tree = root.tree(TreeId::Keys);
    match btree::check(&rig.pager, TreeId::Keys, tree.as_ref(), &mut |_| readable += 1) {
        Err(fault) => assert!(
            matches!(*fault, Fault::Corrupt { offset, .. } if offset == u64::from(rotten.0) * PAGE),
            "{fault}"
        ),
        Ok(summary) => panic!("silent: {summary:?}"),
    }
    assert!(readable > 0, "others are read");
    assert!(rig.fault.is_none(), "nothing stops");
}
