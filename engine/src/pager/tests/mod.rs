//! Tests of the pager in memory: what readers see, what is given back, which ids are given out.

mod file;
mod histories;
mod memory;
mod readers;
#[cfg(feature = "sim")]
mod scrub;
mod shuttled;
mod space;
mod test_map;
mod threads;

use super::page::{self, ChildRef, Page, PageId, PageKind, TREES, TreeId};
use super::root::{Cluster, Standing};
use super::{Pager, Pages, PagesMut};
use std::sync::Arc;

/// The tree whose pages the tests make.
const TREE: TreeId = TreeId::Keys;

/// Fills a page's body with what only this page at this time has.
fn fill(page: &mut Page, id: PageId, tx: u64) {
    for at in (32..4096).step_by(8) {
        page.put_u64(at, pattern(id, tx, at));
    }
}

/// Whether the body is that of [`fill`].
fn is_filled(page: &Page, id: PageId, tx: u64) -> bool {
    (32..4096).step_by(8).all(|at| page.u64_at(at) == pattern(id, tx, at))
}

fn pattern(id: PageId, tx: u64, at: usize) -> u64 {
    (u64::from(id.0) << 32 ^ tx ^ (at as u64) << 52).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A new leaf, filled.
fn make(pager: &mut Pager) -> ChildRef {
    let (at, page) = pager.new_page(TREE, PageKind::Leaf, 0);
    fill(page, at.id, at.tx);
    at
}

/// Changes a leaf: a copy, unless this transaction has one already.
fn change(pager: &mut Pager, at: &mut ChildRef) {
    let page = pager.page_mut(TREE, at).expect("in memory");
    fill(page, at.id, at.tx);
}

/// Publishes with one page as the root of [`TREE`].
fn publish(pager: &mut Pager, root: Option<ChildRef>) {
    let mut trees = [None; TREES];
    trees[TREE.place()] = root;
    pager.publish(trees, Standing::default(), Arc::new(Cluster::default()));
}

/// Reads a page and checks that it is whole.
fn check(pages: &impl Pages, at: &ChildRef) {
    let page = pages.page(TREE, at).expect("it can be read");
    assert!(is_filled(page, at.id, at.tx), "{page:?} for {at:?}");
}

/// Pseudo-random numbers (SplitMix64): the same from the same seed.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}
