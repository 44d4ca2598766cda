//! Real threads: readers come, look around and go, as fast as they can, while the writer goes on.

use super::test_map::TestMap;
use super::*;
use crate::pager::HeldBack;
use crate::pager::dirty::PageSet;
use crate::pager::reader::PagerReader;
use crate::pager::root::Root;
use crate::pager::written::FileParts;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Pages that every transaction has: one of them is a branch of sorts, which names all others.
const LEAVES: usize = 24;
const TRANSACTIONS: u64 = 2000;

/// Names the leaves in a page that no tree would make: one after the other.
fn name_leaves(page: &mut Page, leaves: &[ChildRef]) {
    for (at, leaf) in leaves.iter().enumerate() {
        page.0[64 + 24 * at..][..24].copy_from_slice(&leaf.encode());
    }
}

fn look_around(pages: &impl Pages, tree: Option<ChildRef>) {
    let Some(at) = tree else { return };
    let names = pages.page(TREE, &at).expect("the root page is there");
    for leaf in 0..LEAVES {
        check(pages, &ChildRef::decode(&names.0[64 + 24 * leaf..]));
    }
}

fn read_until(reader: &PagerReader, done: &AtomicBool, looks: &AtomicU64) {
    let mut turn = 0_u64;
    while !done.load(Ordering::Relaxed) {
        turn += 1;
        if turn.is_multiple_of(16) {
            let pinned = reader.pin_durable();
            look_around(&pinned, pinned.root().tree(TREE));
        } else {
            let guard = reader.read();
            let tree = guard.root().tree(TREE);
            look_around(&guard, tree);
            assert_eq!(guard.root().tree(TREE), tree);
        }
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// One transaction: some leaves change, and so does the page that names them.
fn write_one(pager: &mut Pager, rng: &mut Rng, leaves: &mut [ChildRef], root: &mut ChildRef) {
    for _ in 0..4 {
        let at = rng.below(LEAVES as u64) as usize;
        change(pager, &mut leaves[at]);
    }
    let page = pager.page_mut(TREE, root).expect("in memory or in the file");
    name_leaves(page, leaves);
    publish(pager, Some(*root));
}

fn checkpoint(pager: &mut Pager, map: &TestMap) {
    let levels = pager.choose().levels;
    for id in levels.iter().flat_map(PageSet::iter) {
        let page = pager.captured_page(id).expect("no spill is under way");
        let crc = map.write(id, &page);
        pager.page_written(id, page.tx(), crc);
    }
    pager.chosen_durable();
}

fn spill(pager: &mut Pager, map: &TestMap) {
    for (id, tx, page) in pager.spill_candidates(8) {
        let crc = map.write(id, &page);
        pager.page_written(id, tx, crc);
    }
}

#[test]
fn readers_see_whole_roots_while_the_writer_goes_on() {
    let map = Arc::new(TestMap::new());
    let root = Root { pages_used: 8, pages_end: 8, ..Root::default() };
    let parts = FileParts { path: "pages".into(), map: map.clone(), root, used: Vec::new() };
    let mut pager = Pager::from_file(parts);
    let mut leaves: Vec<_> = (0..LEAVES).map(|_| make(&mut pager)).collect();
    let (mut root, _) = pager.new_page(TREE, PageKind::Leaf, 0);
    let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let reader = pager.reader();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = reader.clone();
            let (done, looks) = (&done, &looks);
            scope.spawn(move || read_until(&reader, done, looks));
        }
        let mut rng = Rng::new(1);
        let mut tx = 0;
        // so long, and until the readers have had their part
        while tx < TRANSACTIONS || looks.load(Ordering::Relaxed) < TRANSACTIONS {
            write_one(&mut pager, &mut rng, &mut leaves, &mut root);
            match tx % 50 {
                49 => checkpoint(&mut pager, &map),
                at if at % 10 == 5 => spill(&mut pager, &map),
                _ => {}
            }
            tx += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    checkpoint(&mut pager, &map);
    write_one(&mut pager, &mut Rng::new(2), &mut leaves, &mut root);
    checkpoint(&mut pager, &map);
    pager.reclaim();
    assert_eq!(pager.held_back(), HeldBack::default(), "everybody is gone");
    assert_eq!(pager.pages_in_use().0, 8 + LEAVES as u64 + 1);
}
