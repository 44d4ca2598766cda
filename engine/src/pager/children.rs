//! The children that a branch names: all that the pager knows of a tree's pages.
//!
//! A branch has `entries` slots behind its head. Each begins with where the entry begins, and it begins with a [`ChildRef`]
//! (see the tree's own description of its pages).

use super::page::{CHILD_REF_BYTES, ChildRef, HEAD_BYTES, PAGE_BYTES, Page, PageId, PageKind};
use crate::btree::SLOT_BYTES;

/// Where a page says how many entries it has.
const ENTRIES_AT: usize = 12;
/// The most slots that a page has room for.
const SLOTS_MAX: usize = (PAGE_BYTES - HEAD_BYTES) / SLOT_BYTES;

/// How many slots a page has; none, unless it is a branch.
fn slots(page: &Page) -> usize {
    let branch = page.kind() == Some(PageKind::Branch);
    if branch { usize::from(page.u16_at(ENTRIES_AT)).min(SLOTS_MAX) } else { 0 }
}

/// Where the ref of a slot begins, if it is within the page.
fn place(page: &Page, slot: usize) -> Option<usize> {
    let at = usize::from(page.u16_at(HEAD_BYTES + SLOT_BYTES * slot));
    (at + CHILD_REF_BYTES <= PAGE_BYTES).then_some(at)
}

/// Gives the children of a branch; nothing for any other page.
pub(crate) fn children(page: &Page) -> impl Iterator<Item = ChildRef> {
    (0..slots(page)).filter_map(|slot| place(page, slot)).map(|at| ChildRef::decode(&page.0[at..]))
}

/// Fills the CRCs that a branch does not know from `known`. The answer: whether all are known now.
pub(super) fn fill_child_crcs(page: &mut Page, known: impl Fn(PageId, u64) -> Option<u32>) -> bool {
    let mut all = true;
    for slot in 0..slots(page) {
        let Some(at) = place(page, slot) else { continue };
        let mut child = ChildRef::decode(&page.0[at..]);
        if child.crc.is_some() {
            continue;
        }
        child.crc = known(child.id, child.tx);
        match child.crc {
            Some(_) => page.0[at..at + CHILD_REF_BYTES].copy_from_slice(&child.encode()),
            None => all = false,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pager::page::TreeId;

    fn branch(children: &[ChildRef]) -> Page {
        let mut page = Page::new(PageKind::Branch, TreeId::Keys as u8, 1, PageId(9), 4);
        page.put_u16(ENTRIES_AT, children.len() as u16);
        for (slot, child) in children.iter().enumerate() {
            let at = 3000 - 100 * slot;
            page.put_u16(HEAD_BYTES + SLOT_BYTES * slot, at as u16);
            page.0[at..at + CHILD_REF_BYTES].copy_from_slice(&child.encode());
        }
        page
    }

    #[test]
    fn unknown_crcs_are_filled_and_known_ones_kept() {
        let child = |id, crc| ChildRef { id: PageId(id), tx: 3, crc, count: 1 };
        let mut page = branch(&[child(20, Some(7)), child(21, None), child(22, None)]);
        assert!(!fill_child_crcs(&mut page, |id, tx| (id.0 == 21 && tx == 3).then_some(8)));
        assert_eq!(children(&page).map(|child| child.crc).collect::<Vec<_>>(), [Some(7), Some(8), None]);
        assert!(fill_child_crcs(&mut page, |_, _| Some(9)));
        assert_eq!(children(&page).map(|child| child.crc).collect::<Vec<_>>(), [Some(7), Some(8), Some(9)]);
    }

    #[test]
    fn nonsense_in_a_branch_is_passed_over() {
        let mut page = branch(&[]);
        page.put_u16(ENTRIES_AT, u16::MAX);
        page.0[HEAD_BYTES..].fill(0xff);
        assert_eq!(children(&page).count(), 0);
        let leaf = Page::new(PageKind::Leaf, TreeId::Keys as u8, 0, PageId(9), 4);
        assert_eq!(children(&leaf).count(), 0);
    }
}
