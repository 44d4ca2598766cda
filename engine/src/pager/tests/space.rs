//! Which pages are given out, over several regions.

use super::Rng;
use crate::pager::page::PageId;
use crate::pager::places::{fixed_pages, is_fixed, regions};
use crate::pager::space::{REGION_PAGES, RUN_PAGES_MAX, Space};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn fixed_places_are_never_given_out_and_count_as_used() {
    let mut space = Space::new();
    assert_eq!((space.pages_used(), space.pages_end()), (8, 8));
    let mut last = PageId(7);
    for _ in 0..70_000 {
        let id = space.take();
        assert!(id > last && !is_fixed(id));
        assert!((last.0 + 1..id.0).all(|between| is_fixed(PageId(between))), "{last} then {id}");
        last = id;
    }
    assert_eq!(u64::from(space.pages_end()), u64::from(last.0) + 1);
    assert_eq!(space.pages_used(), u64::from(space.pages_end()));
    assert_eq!(space.free_below_end(), 0);
    for id in (8..=last.0).rev().map(PageId).filter(|id| !is_fixed(*id)) {
        space.drop_used(id);
        assert_eq!(space.busy_end(), last.0 + 1, "it waits");
    }
    assert_eq!((space.pages_used(), space.pages_end()), (8, 8));
    for id in (8..=last.0).map(PageId).filter(|id| !is_fixed(*id)) {
        space.release(id);
    }
    assert_eq!(space.busy_end(), 8);
    assert_eq!(space.take(), PageId(8));
}

#[test]
fn the_longest_run_fits_and_no_run_crosses_a_region() {
    let mut space = Space::new();
    assert_eq!(space.take_run(RUN_PAGES_MAX), PageId(8));
    assert_eq!(space.take_run(RUN_PAGES_MAX - 10), PageId(REGION_PAGES + 2));
    assert_eq!(
        space.take_run(20),
        PageId(2 * REGION_PAGES + 2),
        "what is left of the regions before is too short"
    );
    assert_eq!(space.take_run(5), PageId(2 * REGION_PAGES - 16));
}

/// Random histories beside sets of ids.
#[test]
fn what_is_given_out_is_free_and_the_numbers_are_right() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let (mut space, mut used, mut waiting) = (Space::new(), BTreeSet::new(), BTreeSet::new());
        let mut blocks = BTreeMap::new();
        for step in 0..3000 {
            match rng.below(10) {
                0..4 => {
                    let pages = [1, 1, 2, 5, 40, 900][rng.below(6) as usize];
                    let first = space.take_run(pages);
                    for id in (first.0..first.0 + pages).map(PageId) {
                        assert!(!is_fixed(id) && !waiting.contains(&id) && used.insert(id), "{id}");
                    }
                    if pages == 1 && step % 8 == 0 {
                        let mut below = (8..first.0).map(PageId).filter(|id| !is_fixed(*id));
                        let lowest = below.all(|id| used.contains(&id) || waiting.contains(&id));
                        assert!(lowest, "{first} is not the lowest");
                    }
                }
                4..7 => {
                    let from = PageId(rng.below(u64::from(space.pages_end())) as u32);
                    for id in used.range(from..).take(300).copied().collect::<Vec<_>>() {
                        used.remove(&id);
                        waiting.insert(id);
                        space.drop_used(id);
                    }
                }
                7..9 => {
                    for id in waiting.iter().take(500).copied().collect::<Vec<_>>() {
                        waiting.remove(&id);
                        space.release(id);
                    }
                }
                _ if step % 5 == 0 => check_bitmaps(&mut space, &mut blocks, &mut used, &mut waiting),
                _ => {}
            }
            let end = used.last().map_or(8, |id: &PageId| id.0 + 1);
            assert_eq!(space.pages_end(), end);
            let fixed: u32 = (0..regions(u64::from(end))).map(fixed_pages).sum();
            assert_eq!(space.pages_used(), used.len() as u64 + u64::from(fixed));
            let busy_end = waiting.last().map_or(end, |id: &PageId| end.max(id.0 + 1));
            assert_eq!(space.busy_end(), busy_end);
        }
        check_bitmaps(&mut space, &mut blocks, &mut used, &mut waiting);
    }
}

type Bitmaps = BTreeMap<u32, Box<[u8; 4000]>>;

/// The bitmaps that were ever given are what is used, less what the open transaction did.
fn check_bitmaps(
    space: &mut Space,
    blocks: &mut Bitmaps,
    used: &mut BTreeSet<PageId>,
    waiting: &mut BTreeSet<PageId>,
) {
    let (end, before) = (space.pages_end(), used.clone());
    let taken: Vec<PageId> = (0..3).map(|_| space.take()).collect();
    let dropped: Vec<PageId> = before.iter().rev().step_by(7).take(20).copied().collect();
    dropped.iter().for_each(|id| space.drop_used(*id));
    blocks.extend(space.changed_bitmaps(end, &taken, &dropped));
    // what lies beyond the end is not named any more
    blocks.retain(|region, _| *region < regions(u64::from(end)));
    let read: Vec<_> = blocks.values().map(|bits| **bits).collect();
    assert_eq!(read.len(), regions(u64::from(end)) as usize, "every region has one");
    assert_eq!(Space::from_bitmaps(&read).pages_end(), end);
    for id in (0..end).map(PageId) {
        let bits = &read[(id.0 / REGION_PAGES) as usize];
        let within = id.0 % REGION_PAGES;
        let bit = bits[within as usize / 8] >> (within % 8) & 1 == 1;
        assert_eq!(bit, is_fixed(id) || before.contains(&id), "{id}");
    }
    used.extend(taken);
    for id in dropped {
        used.remove(&id);
        waiting.insert(id);
    }
}
