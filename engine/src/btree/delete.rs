//! What shrinks: an entry goes, an empty page goes, a page with little in it takes from a neighbour or joins it.
//!
//! A page that a removal, or a shorter value, leaves less than a quarter full joins a neighbour if both together leave an
//! eighth of a page free (so that the next entry does not divide it again); else entries move over until both have about the
//! same. It stays as it is only where the new separator has no room in the parent, or where it has no neighbour: so pages
//! below a quarter exist, but none is empty.

use super::edit::{self, Cells};
use super::insert::{Divider, Outcome, OwnedField, divide};
use super::longkey::{self, NewKey};
use super::node::{BODY_BYTES, Damage, KeyField, Node, OrFault, open};
use crate::pager::page::{ChildRef, Page, TreeId};
use crate::pager::{Paged, Pages, PagesMut};

/// Below this a page looks for help.
const USED_MIN: usize = BODY_BYTES / 4;
/// Up to this two pages become one.
const JOINED_MAX: usize = BODY_BYTES - BODY_BYTES / 8;

/// Takes an entry out of a leaf.
pub(super) fn remove_entry(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    entry: usize,
) -> Paged<Outcome> {
    let node = open(pages, tree, at, None)?;
    let run = node.key(entry).or_fault(pages, at.id)?.run();
    let lone = node.entries() == 1;
    if let Some(run) = run {
        pages.free_run(&run);
    }
    if lone {
        pages.free_page(at);
        return Ok(Outcome::Gone);
    }
    let page = pages.page_mut(tree, at)?;
    let removed = edit::remove_cell(page, entry);
    removed.or_fault(pages, at.id)?;
    at.count = at.count.wrapping_sub(1);
    outcome(pages, tree, at)
}

/// Takes a child that is gone out of a branch.
pub(super) fn drop_child(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    entry: usize,
    child: &ChildRef,
) -> Paged<Outcome> {
    let node = open(pages, tree, at, None)?;
    if node.entries() == 1 {
        pages.free_page(at);
        return Ok(Outcome::Gone);
    }
    // the first separator is minus infinity, so with the first child the next one's separator goes
    let run = node.key(entry.max(1)).or_fault(pages, at.id)?.run();
    if let Some(run) = run {
        pages.free_run(&run);
    }
    let page = pages.page_mut(tree, at)?;
    let removed = edit::remove_cell(page, entry).and_then(|()| match entry {
        0 => edit::set_separator(page, 0, KeyField::EMPTY).map(|_| ()),
        _ => Ok(()),
    });
    removed.or_fault(pages, at.id)?;
    at.count = at.count.wrapping_sub(child.count);
    outcome(pages, tree, at)
}

/// How a page of this transaction that was made smaller stands.
pub(super) fn outcome(pages: &impl PagesMut, tree: TreeId, at: &ChildRef) -> Paged<Outcome> {
    let used = edit::used(pages.page(tree, at)?).or_fault(pages, at.id)?;
    Ok(if used < USED_MIN { Outcome::Shrunk } else { Outcome::Changed })
}

/// The root after it has shrunk: a branch with one child gives way to it.
pub(super) fn lower(pages: &mut impl PagesMut, tree: TreeId, mut root: ChildRef) -> Paged<ChildRef> {
    let mut node = open(pages, tree, &root, None)?;
    while !node.is_leaf() && node.entries() == 1 {
        let (child, level) = (node.child(0).or_fault(pages, root.id)?, node.level());
        pages.free_page(&root);
        root = child;
        node = open(pages, tree, &root, Some(level))?;
    }
    Ok(root)
}

/// Helps child `entry` of the branch `at` (both of this transaction), which has little in it.
pub(super) fn rebalance(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    entry: usize,
) -> Paged<Outcome> {
    let entries = open(pages, tree, at, None)?.entries();
    // pairs of neighbours by their first; the child is in both
    let pairs = [entry.checked_sub(1), (entry + 1 < entries).then_some(entry)];
    for left in pairs.into_iter().flatten() {
        let pair = Pair::read(pages, tree, at, left)?;
        if pair.joined_bytes <= JOINED_MAX {
            pair.join(pages, tree, at, left == entry)?;
            return outcome(pages, tree, at);
        }
    }
    for left in pairs.into_iter().flatten() {
        if Pair::read(pages, tree, at, left)?.share(pages, tree, at)? {
            break;
        }
    }
    outcome(pages, tree, at)
}

/// Two neighbours and what stands between them.
struct Pair {
    /// The entry of the first one in their parent.
    at: usize,
    left: ChildRef,
    right: ChildRef,
    separator: OwnedField,
    level: u8,
    /// Bytes in a page that held what both hold.
    joined_bytes: usize,
}

impl Pair {
    fn read(pages: &impl Pages, tree: TreeId, parent: &ChildRef, at: usize) -> Paged<Pair> {
        let node = open(pages, tree, parent, None)?;
        let left = node.child(at).or_fault(pages, parent.id)?;
        let right = node.child(at + 1).or_fault(pages, parent.id)?;
        let separator = node.key(at + 1).or_fault(pages, parent.id)?;
        let level = open(pages, tree, &left, Some(node.level()))?.level();
        open(pages, tree, &right, Some(node.level()))?;
        let used = |child: &ChildRef| edit::used(pages.page(tree, child)?).or_fault(pages, child.id);
        let between = if level == 0 { 0 } else { separator.bytes.len() };
        let joined_bytes = used(&left)? + used(&right)? + between;
        Ok(Pair { at, left, right, separator: OwnedField::copy(separator), level, joined_bytes })
    }

    fn leaf(&self) -> bool {
        self.level == 0
    }

    /// Makes one page of both: the first if `keep_left`.
    fn join(
        mut self,
        pages: &mut impl PagesMut,
        tree: TreeId,
        parent: &mut ChildRef,
        keep_left: bool,
    ) -> Paged<()> {
        let copies = (pages.page(tree, &self.left)?.clone(), pages.page(tree, &self.right)?.clone());
        let cells = self.cells(&copies).or_fault(pages, self.left.id)?;
        let count = self.left.count.wrapping_add(self.right.count);
        if self.leaf() {
            longkey::free(pages, parent.id, self.separator.field())?;
        }
        let (mut kept, gone) = if keep_left { (self.left, self.right) } else { (self.right, self.left) };
        let page = pages.page_mut(tree, &mut kept)?;
        let filled = edit::fill(page, &cells, 0..cells.len());
        filled.or_fault(pages, kept.id)?;
        pages.free_page(&gone);
        kept.count = count;
        self.left = kept;

        let page = pages.page_mut(tree, parent)?;
        let set =
            edit::remove_cell(page, self.at + 1).and_then(|()| edit::set_child(page, self.at, &self.left));
        set.or_fault(pages, parent.id)
    }

    /// Moves entries so that both have about the same. `false`: that is not possible, and nothing is changed.
    fn share(mut self, pages: &mut impl PagesMut, tree: TreeId, parent: &mut ChildRef) -> Paged<bool> {
        let copies = (pages.page(tree, &self.left)?.clone(), pages.page(tree, &self.right)?.clone());
        let cells = self.cells(&copies).or_fault(pages, self.left.id)?;
        let middle = cells.middle().or_fault(pages, self.left.id)?;
        if middle == cells.left.entries() {
            return Ok(false);
        }
        let divider = divide(pages, tree, (&self.left, &self.right), &cells, middle, self.leaf())?;
        let len = match &divider {
            Divider::New(key) => NewKey::field_bytes(key),
            Divider::Moved(field) => field.field().bytes.len(),
        };
        let fits = edit::separator_fits(pages.page(tree, parent)?, self.at + 1, len);
        if !fits.or_fault(pages, parent.id)? {
            return Ok(false);
        }
        let separator = match divider {
            Divider::New(key) => {
                longkey::free(pages, parent.id, self.separator.field())?;
                OwnedField::write(pages, tree, key)
            }
            Divider::Moved(field) => field,
        };
        let leaf = self.leaf();
        for (child, entries) in [(&mut self.left, 0..middle), (&mut self.right, middle..cells.len())] {
            let page = pages.page_mut(tree, child)?;
            let filled = edit::fill(page, &cells, entries.clone());
            filled.or_fault(pages, child.id)?;
            child.count = cells.count(entries, leaf).or_fault(pages, child.id)?;
        }
        self.record(pages, tree, parent, separator.field())?;
        Ok(true)
    }

    fn record(
        &self,
        pages: &mut impl PagesMut,
        tree: TreeId,
        parent: &mut ChildRef,
        separator: KeyField<'_>,
    ) -> Paged<()> {
        let page = pages.page_mut(tree, parent)?;
        let set = edit::set_child(page, self.at, &self.left)
            .and_then(|()| edit::set_child(page, self.at + 1, &self.right))
            .and_then(|()| edit::set_separator(page, self.at + 1, separator));
        let fits = set.or_fault(pages, parent.id)?;
        assert!(fits, "the separator's room was looked at before");
        Ok(())
    }

    /// The cells of both, from copies of them.
    fn cells<'a>(&self, (left, right): &'a (Page, Page)) -> Result<Joined<'a>, Damage> {
        let (left, right) = (Node::of(left)?, Node::of(right)?);
        let mut bridge = Vec::new();
        if !self.leaf() {
            // what was minus infinity in the second page is the separator in a joined one
            let separator = self.separator.field();
            bridge.resize(edit::branch_cell_bytes(separator.bytes.len()), 0);
            edit::write_branch_cell(&mut bridge, &right.child(0)?, separator);
        }
        Ok(Joined { left, right, bridge })
    }
}

/// The cells of two neighbours.
struct Joined<'a> {
    left: Node<'a>,
    right: Node<'a>,
    /// Of branches: the first cell of the second, with its separator.
    bridge: Vec<u8>,
}

impl Cells for Joined<'_> {
    fn len(&self) -> usize {
        self.left.entries() + self.right.entries()
    }

    fn cell(&self, entry: usize) -> Result<&[u8], Damage> {
        match entry.checked_sub(self.left.entries()) {
            None => self.left.cell(entry),
            Some(0) if !self.left.is_leaf() => Ok(&self.bridge),
            Some(entry) => self.right.cell(entry),
        }
    }
}
