//! The walk down to a key's leaf and back, and what grows on the way.
//!
//! Down: pages are only read, until the leaf tells whether anything is to be done. Up: each page whose child has another
//! name, count or number of pages is changed, the leaf first. So one walk serves a read and the write that follows
//! from it, and a page already changed in this transaction costs its parent nothing as long as its name stays.
//!
//! A full page is divided in the middle by bytes; where the new entry is the last of the whole tree, it alone goes
//! to the new page, so that pages filled in key order stay full (the same on every level above).

use super::delete;
use super::edit::{self, Cells, Replaced};
use super::longkey::{self, NewKey};
use super::node::{BRANCH_HEAD, Damage, KeyField, LEAF_CELL_MAX, Node, OrFault, open};
use super::{KEY_INLINE_MAX, VALUE_MAX, search};
use crate::pager::page::{ChildRef, Page, PageKind, TreeId};
use crate::pager::{Paged, PagesMut};

/// What is to become of an entry.
pub(super) enum Change<'v> {
    Keep,
    Put(&'v [u8]),
    Remove,
}

/// What became of a page.
pub(super) enum Outcome {
    /// Nothing.
    Same,
    /// It was changed; its name and count may be others.
    Changed,
    /// It was changed and has less than a page should have.
    Shrunk,
    /// Its last entry is gone, and so is the page.
    Gone,
    /// It was divided.
    Split(Split),
}

/// The second half of a page that was divided.
pub(super) struct Split {
    pub(super) page: ChildRef,
    pub(super) separator: OwnedField,
}

/// A key field on its way from one page to another; a run goes with it.
pub(super) struct OwnedField {
    bytes: Vec<u8>,
    long: bool,
}

impl OwnedField {
    pub(super) fn copy(field: KeyField<'_>) -> OwnedField {
        OwnedField { bytes: field.bytes.to_vec(), long: field.long }
    }

    /// The field of `key`, whose run is written if it is a long one.
    pub(super) fn write(pages: &mut impl PagesMut, tree: TreeId, key: Vec<u8>) -> OwnedField {
        if key.len() <= KEY_INLINE_MAX {
            return OwnedField { bytes: key, long: false };
        }
        OwnedField::copy(NewKey::write(pages, tree, &key).field())
    }

    pub(super) fn field(&self) -> KeyField<'_> {
        KeyField { bytes: &self.bytes, long: self.long }
    }
}

/// Walks from the page `at` to the leaf of `key` and does there what `decide` says of the value it finds. `above` is the
/// level of the page's parent; `last` says that nothing in the tree lies behind the page.
pub(super) fn change<'v, T>(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    (above, last): (Option<u8>, bool),
    key: &[u8],
    decide: impl FnOnce(Option<&[u8]>) -> (Change<'v>, T),
) -> Paged<(Outcome, T)> {
    let node = open(pages, tree, at, above)?;
    if node.is_leaf() {
        let place = search::place(pages, tree, at.id, &node, key)?;
        let old = match place {
            Ok(entry) => Some(node.value(entry).or_fault(pages, at.id)?),
            Err(_) => None,
        };
        let (change, told) = decide(old);
        let outcome = match (change, place) {
            (Change::Keep, _) | (Change::Remove, Err(_)) => Outcome::Same,
            (Change::Remove, Ok(entry)) => delete::remove_entry(pages, tree, at, entry)?,
            (Change::Put(value), Ok(entry)) => put_value(pages, tree, at, entry, value)?,
            (Change::Put(value), Err(entry)) => put_entry(pages, tree, at, (entry, last), key, value)?,
        };
        return Ok((outcome, told));
    }
    let entry = search::child_of(pages, tree, at.id, &node, key)?;
    let before = node.child(entry).or_fault(pages, at.id)?;
    let below = (Some(node.level()), last && entry + 1 == node.entries());
    let mut child = before;
    let (outcome, told) = change(pages, tree, &mut child, below, key, decide)?;
    let outcome = take_up(pages, tree, at, (entry, last), (&before, &child), outcome)?;
    Ok((outcome, told))
}

/// Takes up in branch `at` what became of its child `entry`, named `before` once and `child` now.
#[inline]
fn take_up(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    (entry, last): (usize, bool),
    (before, child): (&ChildRef, &ChildRef),
    outcome: Outcome,
) -> Paged<Outcome> {
    match outcome {
        Outcome::Same => return Ok(Outcome::Same),
        Outcome::Changed if child == before => return Ok(Outcome::Same),
        Outcome::Gone => return delete::drop_child(pages, tree, at, entry, before),
        Outcome::Changed | Outcome::Shrunk | Outcome::Split(_) => {}
    }
    set_child(pages, tree, at, entry, before, child)?;
    match outcome {
        Outcome::Split(split) => add_child(pages, tree, at, entry + 1, last, split),
        Outcome::Shrunk => delete::rebalance(pages, tree, at, entry),
        _ => Ok(Outcome::Changed),
    }
}

/// The tree of one entry.
pub(super) fn first_entry(
    pages: &mut impl PagesMut,
    tree: TreeId,
    key: &[u8],
    value: &[u8],
) -> Paged<ChildRef> {
    let (mut at, _) = pages.new_page(tree, PageKind::Leaf, 0);
    match put_entry(pages, tree, &mut at, (0, true), key, value)? {
        Outcome::Changed => Ok(at),
        _ => unreachable!("an entry fits an empty page"),
    }
}

/// The root above a root that was divided.
pub(super) fn grow(pages: &mut impl PagesMut, tree: TreeId, left: ChildRef, right: Split) -> Paged<ChildRef> {
    let level = open(pages, tree, &left, None)?.level();
    let above = level.checked_add(1).ok_or(Damage::new("a level below 255", 0, usize::from(level)));
    let (mut at, page) = pages.new_page(tree, PageKind::Branch, above.or_fault(pages, left.id)?);
    let done = put_child(page, 0, &left, KeyField::EMPTY)
        .and_then(|()| put_child(page, 1, &right.page, right.separator.field()));
    done.or_fault(pages, at.id)?;
    at.count = left.count.wrapping_add(right.page.count);
    Ok(at)
}

fn put_child(page: &mut Page, entry: usize, child: &ChildRef, separator: KeyField<'_>) -> Result<(), Damage> {
    let cell = edit::insert_cell(page, entry, separator, edit::branch_cell_bytes(separator.bytes.len()))?;
    edit::write_branch_cell(cell.ok_or(Damage::new("room in a new page", entry, 0))?, child, separator);
    Ok(())
}

/// Puts in another name of a child, and its count into that of the branch.
#[inline]
pub(super) fn set_child(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    entry: usize,
    before: &ChildRef,
    child: &ChildRef,
) -> Paged<()> {
    let page = pages.page_mut(tree, at)?;
    let set = edit::set_child(page, entry, child);
    set.or_fault(pages, at.id)?;
    at.count = at.count.wrapping_sub(before.count).wrapping_add(child.count);
    Ok(())
}

/// Puts another value into a leaf's entry.
#[inline]
fn put_value(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    entry: usize,
    value: &[u8],
) -> Paged<Outcome> {
    assert!(value.len() <= VALUE_MAX, "a longer value is its owner's to put into a run");
    let page = pages.page_mut(tree, at)?;
    let set = edit::set_value(page, entry, value);
    match set.or_fault(pages, at.id)? {
        Replaced::Done => return Ok(Outcome::Changed),
        Replaced::Shorter => return delete::outcome(pages, tree, at),
        Replaced::NoRoom => {}
    }
    let copy = pages.page(tree, at)?.clone();
    let node = Node::of(&copy).or_fault(pages, at.id)?;
    let key = node.key(entry).or_fault(pages, at.id)?;
    let mut cell = [0; LEAF_CELL_MAX];
    let cell = cell_of(&mut cell, key, value).or_fault(pages, at.id)?;
    split(pages, tree, at, &Grown { node, at: entry, cell, replaced: true }, false)
}

/// Puts a new entry into a leaf.
#[inline]
fn put_entry(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    (entry, last): (usize, bool),
    key: &[u8],
    value: &[u8],
) -> Paged<Outcome> {
    assert!(value.len() <= VALUE_MAX, "a longer value is its owner's to put into a run");
    let key = NewKey::write(pages, tree, key);
    let key = key.field();
    let page = pages.page_mut(tree, at)?;
    let len = edit::leaf_cell_bytes(key.bytes.len(), value.len());
    match edit::insert_cell(page, entry, key, len) {
        Ok(Some(cell)) => {
            edit::write_leaf_cell(cell, key, value);
            at.count = at.count.wrapping_add(1);
            return Ok(Outcome::Changed);
        }
        Ok(None) => {}
        Err(damage) => return Err(damage).or_fault(pages, at.id),
    }
    let copy = pages.page(tree, at)?.clone();
    let node = Node::of(&copy).or_fault(pages, at.id)?;
    let append = last && entry == node.entries();
    let mut cell = [0; LEAF_CELL_MAX];
    let cell = cell_of(&mut cell, key, value).or_fault(pages, at.id)?;
    split(pages, tree, at, &Grown { node, at: entry, cell, replaced: false }, append)
}

fn cell_of<'c>(room: &'c mut [u8], key: KeyField<'_>, value: &[u8]) -> Result<&'c [u8], Damage> {
    let len = edit::leaf_cell_bytes(key.bytes.len(), value.len());
    let cell = room.get_mut(..len).ok_or(Damage::new("a key of at most 512 bytes", 0, len))?;
    edit::write_leaf_cell(cell, key, value);
    Ok(cell)
}

/// Puts a new child into a branch.
fn add_child(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    entry: usize,
    last: bool,
    new: Split,
) -> Paged<Outcome> {
    at.count = at.count.wrapping_add(new.page.count);
    let separator = new.separator.field();
    let len = edit::branch_cell_bytes(separator.bytes.len());
    let page = pages.page_mut(tree, at)?;
    match edit::insert_cell(page, entry, separator, len) {
        Ok(Some(cell)) => {
            edit::write_branch_cell(cell, &new.page, separator);
            return Ok(Outcome::Changed);
        }
        Ok(None) => {}
        Err(damage) => return Err(damage).or_fault(pages, at.id),
    }
    let copy = pages.page(tree, at)?.clone();
    let node = Node::of(&copy).or_fault(pages, at.id)?;
    let append = last && entry == node.entries();
    let mut cell = [0; BRANCH_HEAD + KEY_INLINE_MAX];
    let cell = cell.get_mut(..len).ok_or(Damage::new("a separator of at most 512 bytes", entry, len));
    let cell = cell.or_fault(pages, at.id)?;
    edit::write_branch_cell(cell, &new.page, separator);
    split(pages, tree, at, &Grown { node, at: entry, cell, replaced: false }, append)
}

/// The cells of a page with a new one among them.
struct Grown<'a> {
    node: Node<'a>,
    at: usize,
    cell: &'a [u8],
    /// Whether it stands for the one that was there.
    replaced: bool,
}

impl Cells for Grown<'_> {
    fn len(&self) -> usize {
        self.node.entries() + usize::from(!self.replaced)
    }

    fn cell(&self, entry: usize) -> Result<&[u8], Damage> {
        match entry {
            _ if entry < self.at => self.node.cell(entry),
            _ if entry == self.at => Ok(self.cell),
            _ => self.node.cell(entry - usize::from(!self.replaced)),
        }
    }
}

/// Divides the page `at` (of this transaction): it keeps the first of `cells`, a new one gets the others.
fn split(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    cells: &Grown<'_>,
    append: bool,
) -> Paged<Outcome> {
    let leaf = cells.node.is_leaf();
    let kind = if leaf { PageKind::Leaf } else { PageKind::Branch };
    let end = cells.len();
    let middle = if append { end - 1 } else { cells.middle().or_fault(pages, at.id)? };
    let separator = divide(pages, tree, (at, at), cells, middle, leaf)?;
    let separator = match separator {
        Divider::New(key) => OwnedField::write(pages, tree, key),
        Divider::Moved(field) => field,
    };

    let (mut right, page) = pages.new_page(tree, kind, cells.node.level());
    edit::fill(page, cells, middle..end).or_fault(pages, at.id)?;
    right.count = cells.count(middle..end, leaf).or_fault(pages, at.id)?;
    let page = pages.page_mut(tree, at)?;
    let filled = edit::fill(page, cells, 0..middle);
    filled.or_fault(pages, at.id)?;
    at.count = cells.count(0..middle, leaf).or_fault(pages, at.id)?;
    Ok(Outcome::Split(Split { page: right, separator }))
}

/// What stands between two halves.
pub(super) enum Divider {
    /// Between leaves: the shortest key that divides them.
    New(Vec<u8>),
    /// Between branches: the separator of the second half's first child, which moves up.
    Moved(OwnedField),
}

/// What stands between `cells` before `middle` and from it on, which lie in pages `at.0` and `at.1`.
pub(super) fn divide(
    pages: &impl PagesMut,
    tree: TreeId,
    at: (&ChildRef, &ChildRef),
    cells: &impl Cells,
    middle: usize,
    leaf: bool,
) -> Paged<Divider> {
    let second = cells.cell(middle).or_fault(pages, at.1.id)?;
    let second = edit::key_of_cell(second, leaf);
    if !leaf {
        return Ok(Divider::Moved(OwnedField::copy(second)));
    }
    let first = cells.cell(middle - 1).or_fault(pages, at.0.id)?;
    let first = edit::key_of_cell(first, leaf);
    longkey::separator(pages, tree, (at.0.id, at.1.id), first, second).map(Divider::New)
}
