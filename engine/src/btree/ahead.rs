//! Reads ahead: brings the pages into memory that keys stand in, many at once.
//!
//! ```text
//! level 2          root                  in memory: the way begins here
//!               /   |    \
//! level 1      b    b     b              all hinted, then all opened: their waits overlap
//!            / |    |     | \
//! level 0   l  l    l     l  l           all hinted; nobody waits for them here
//! ```

use super::node::{Node, OrFault, open};
use super::search::child_of;
use crate::pager::page::{ChildRef, TreeId};
use crate::pager::{Paged, Pages};
use std::ops::Range;

/// A page and those of the keys whose way leads through it.
type Way = (ChildRef, Range<usize>);

/// Begins to bring the leaves into memory that have `keys`, or would have them, without waiting for them; the branches
/// above are waited for, one level at a time. `keys` ascend. A hint: a page that cannot be had is passed over, and whoever
/// reads it meets the fault.
pub fn read_ahead(pages: &impl Pages, tree: TreeId, root: Option<&ChildRef>, keys: &[&[u8]]) {
    debug_assert!(keys.is_sorted(), "keys ascend");
    let Some(root) = root.filter(|_| !keys.is_empty()) else { return };
    let mut level: Vec<Way> = vec![(*root, 0..keys.len())];
    let mut above = None;
    while !level.is_empty() {
        let (mut below, mut here) = (Vec::new(), None);
        for (at, through) in level {
            let Ok(node) = open(pages, tree, &at, above) else { continue };
            if node.is_leaf() {
                return; // it is the root
            }
            here = Some(node.level());
            // what was found before a fault is hinted, and led on, all the same
            let _ = lead_on(pages, tree, (&at, &node), keys, through, &mut below);
        }
        hint(pages, &below);
        if here == Some(1) {
            return;
        }
        (level, above) = (below, here);
    }
}

/// Hints pages in the order of their places, so that a disk has short ways, and neighbours are read together.
fn hint(pages: &impl Pages, level: &[Way]) {
    let mut pages_there: Vec<&ChildRef> = level.iter().map(|(at, _)| at).collect();
    pages_there.sort_unstable_by_key(|at| at.id);
    pages_there.into_iter().for_each(|at| pages.read_ahead(at));
}

/// Adds the children of a branch that some of the keys are in, each once.
fn lead_on(
    pages: &impl Pages,
    tree: TreeId,
    (at, node): (&ChildRef, &Node<'_>),
    keys: &[&[u8]],
    through: Range<usize>,
    below: &mut Vec<Way>,
) -> Paged<()> {
    let mut last = None;
    for key in through {
        let entry = child_of(pages, tree, at.id, node, keys[key])?;
        if last == Some(entry) {
            if let Some((_, keys)) = below.last_mut() {
                keys.end = key + 1;
            }
            continue;
        }
        let child = node.child(entry).or_fault(pages, at.id)?;
        below.push((child, key..key + 1));
        last = Some(entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::mem::MemPages;
    use crate::btree::{get, insert};
    use crate::pager::page::{Page, PageId, RunRef};
    use bytes::Bytes;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    /// Pages that tell what was hinted and what was opened, in order.
    struct Told {
        pages: MemPages,
        told: RefCell<Vec<(bool, PageId)>>,
        damaged: Option<PageId>,
    }

    impl Pages for Told {
        fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
            self.told.borrow_mut().push((false, at.id));
            if self.damaged == Some(at.id) {
                return Err(self.fault(at.id, "a page".into(), "none".into()));
            }
            self.pages.page(tree, at)
        }

        fn run(&self, tree: TreeId, at: &RunRef) -> Paged<Bytes> {
            self.pages.run(tree, at)
        }

        fn read_ahead(&self, at: &ChildRef) {
            self.told.borrow_mut().push((true, at.id));
        }
    }

    const TREE: TreeId = TreeId::Keys;

    fn key(number: u32) -> Vec<u8> {
        format!("key/{number:08}").into_bytes()
    }

    /// A tree of three levels.
    fn told() -> (Told, ChildRef) {
        let mut pages = MemPages::new();
        let mut root = None;
        for number in 0..10_000 {
            insert(&mut pages, TREE, &mut root, &key(number), &[7; 300]).expect("in memory");
        }
        let root = root.expect("there is something");
        assert_eq!(open(&pages, TREE, &root, None).expect("in memory").level(), 2);
        (Told { pages, told: RefCell::default(), damaged: None }, root)
    }

    /// The pages that a read of each key opens.
    fn opened(told: &Told, root: &ChildRef, numbers: &[u32]) -> Vec<Vec<PageId>> {
        let way = |number: &u32| {
            told.told.borrow_mut().clear();
            get(told, TREE, Some(root), &key(*number)).expect("in memory");
            told.told.borrow().iter().map(|(_, id)| *id).collect()
        };
        numbers.iter().map(way).collect()
    }

    fn hinted(told: &Told, root: &ChildRef, numbers: &[u32]) -> Vec<(bool, PageId)> {
        let keys: Vec<Vec<u8>> = numbers.iter().map(|number| key(*number)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        told.told.borrow_mut().clear();
        read_ahead(told, TREE, Some(root), &keys);
        told.told.take()
    }

    #[test]
    fn every_page_on_the_way_is_hinted_once_and_before_any_of_its_level_is_opened() {
        let (told, root) = told();
        let numbers: Vec<u32> = (0..10_500).step_by(37).collect();
        let ways = opened(&told, &root, &numbers);
        let level = |depth: usize| -> BTreeSet<PageId> { ways.iter().map(|way| way[depth]).collect() };
        let (branches, leaves) = (level(1), level(2));
        assert!(branches.len() > 5 && leaves.len() > 200);
        let hinted = hinted(&told, &root, &numbers);
        assert_eq!(hinted.len(), 1 + 2 * branches.len() + leaves.len());
        assert_eq!(hinted[0], (false, root.id));
        let first: BTreeSet<_> = hinted[1..=branches.len()].iter().copied().collect();
        assert_eq!(first, branches.iter().map(|id| (true, *id)).collect());
        let rest: BTreeSet<_> = hinted[1 + branches.len()..].iter().copied().collect();
        let expected = branches.iter().map(|id| (false, *id)).chain(leaves.iter().map(|id| (true, *id)));
        assert_eq!(rest, expected.collect());
    }

    #[test]
    fn a_page_that_cannot_be_had_is_passed_over_and_the_read_tells_the_fault() {
        let (mut told, root) = told();
        let numbers = [3, 5_000, 9_999];
        let ways = opened(&told, &root, &numbers);
        told.damaged = Some(ways[1][1]);
        let hinted = hinted(&told, &root, &numbers);
        assert!(hinted.contains(&(true, ways[0][2])) && hinted.contains(&(true, ways[2][2])));
        assert!(!hinted.contains(&(true, ways[1][2])));
        assert!(get(&told, TREE, Some(&root), &key(5_000)).is_err());
        told.damaged = Some(root.id);
        read_ahead(&told, TREE, Some(&root), &[b"any"]);
    }

    #[test]
    fn of_an_empty_tree_a_root_that_is_a_leaf_and_no_key_there_is_nothing_to_hint() {
        let (told, root) = told();
        assert_eq!(hinted(&told, &root, &[]), []);
        read_ahead(&told, TREE, None, &[b"any"]);
        let mut leaf = None;
        let mut pages = told.pages;
        insert(&mut pages, TREE, &mut leaf, b"k", b"v").expect("in memory");
        let told = Told { pages, told: RefCell::default(), damaged: None };
        let leaf = leaf.expect("there is something");
        read_ahead(&told, TREE, Some(&leaf), &[b"k"]);
        assert_eq!(told.told.take(), [(false, leaf.id)]);
    }
}
