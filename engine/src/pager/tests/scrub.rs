//! The scrub's way through a file of several regions.

use super::TREE;
use crate::disk::blocking::run_named;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk as _, Done, IoBuf, Op};
use crate::pager::offline::fixed_pages_of;
use crate::pager::page::{PAGE_BYTES, Page, PageId, PageKind};
use crate::pager::root::Root;
use crate::pager::space::REGION_PAGES;
use crate::pager::{Pager, PagerOptions, PagerStats};
use std::ops::Range;
use std::path::Path;

const PATH: &str = "/member/pages";
const OWNER: [u8; 16] = *b"cluster1 member2";

/// A file whose newest root reaches these pages: it is long, and mostly holes.
fn file(pages: &[Range<u32>]) -> SimDisk {
    let ids = || pages.iter().cloned().flatten();
    let mut used = vec![0; 2 * REGION_PAGES as usize / 64];
    for id in ids() {
        used[id as usize / 64] |= 1 << (id % 64);
    }
    let root = Root { tx: 5, ..Root::default() };
    let (mut content, bytes) = fixed_pages_of(OWNER, &root, &used).expect("pages that can be");
    content.extend(ids().map(|id| {
        let mut page = Page::new(PageKind::Leaf, TREE as u8, 0, PageId(id), root.tx);
        page.put_u32(0, page.computed_crc());
        page
    }));
    let (mut disk, path) = (SimDisk::new(1), Path::new(PATH));
    let dir = path.parent().expect("it has one").to_path_buf();
    let mut run = |op| run_named(&mut disk, "make the file", path, op).expect("it can be done");
    run(Op::CreateDir { dir: dir.clone() });
    let Done::Opened(file, _) = run(Op::Open { path: path.into(), create: true, cached: true }) else {
        panic!("not opened")
    };
    run(Op::Allocate { file, bytes });
    for page in content {
        let mut buf = IoBuf::zeroed(PAGE_BYTES);
        buf.as_mut_slice().copy_from_slice(&page.0);
        run(Op::Write { file, offset: page.id().offset(), buf });
    }
    run(Op::Sync { file });
    run(Op::SyncDir { dir });
    disk
}

fn open(disk: &SimDisk) -> Pager {
    let mut options = PagerOptions::new(PATH.into(), OWNER);
    options.scrub_bytes_per_s = 1 << 30;
    Pager::open(&mut disk.clone(), options, disk.now()).expect("it is whole").0
}

/// Turns until the scrub has gone through the file once more; what it has counted since opening.
fn round(pager: &mut Pager, disk: &SimDisk) -> PagerStats {
    let mut disk = disk.clone();
    let end = pager.stats().scrub_rounds + 1;
    for _ in 0..10_000 {
        let now = disk.now();
        let next = pager.step(&mut disk, now, 0).expect("nothing stops");
        if pager.stats().scrub_rounds >= end {
            return pager.stats();
        }
        let at = if next.at_once { Some(now) } else { next.at };
        disk.set_now([disk.next_due(), at].into_iter().flatten().min().expect("it goes on"));
        let mut completions = Vec::new();
        disk.poll(&mut completions);
        for completion in completions {
            let rest = pager.complete(completion, disk.now());
            assert!(rest.is_none(), "all operations are the file's");
        }
    }
    panic!("the scrub never comes to an end");
}

#[test]
fn a_region_used_to_its_last_page_leaves_its_bitmap_behind() {
    let second = REGION_PAGES;
    let disk = file(&[100..101, second - 64..second, second + 10..second + 20, second + 300..second + 301]);
    let mut pager = open(&disk);
    let used = pager.published().pages_used;
    assert_eq!(used, 8 + 65 + 2 + 11);
    for rounds in 1..3 {
        let stats = round(&mut pager, &disk);
        assert_eq!(pager.take_scrub_faults().len(), 0);
        assert_eq!((stats.scrub_damaged, stats.scrub_pages), (0, rounds * used));
    }
}

#[test]
fn a_page_that_cannot_be_read_makes_the_reads_before_it_small_in_that_round_only() {
    let disk = file(&[100..228, 400..410]);
    disk.refuse_reads(Path::new(PATH), PageId(405).offset(), 512);
    let mut pager = open(&disk);
    let mut before = disk.ops();
    let mut ops_of_round = || {
        round(&mut pager, &disk);
        disk.ops() - std::mem::replace(&mut before, disk.ops())
    };
    // to begin with, the file is opened
    let first = ops_of_round() - 1;
    assert_eq!([ops_of_round(), ops_of_round()], [first; 2]);
    assert_eq!(pager.stats().scrub_damaged, 3);
}
