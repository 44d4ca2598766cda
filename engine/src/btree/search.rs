//! Finds a key: in a page, and from the root down.

use super::longkey;
use super::node::{Node, OrFault, SLOT_BYTES, hint_in, hint_of, open};
use crate::pager::page::{ChildRef, PageId, TreeId};
use crate::pager::{Paged, Pages};
use std::cmp::Ordering;
use std::ops::Range;

/// Up to so many slots are looked at one by one.
const COUNTED_MAX: usize = 64;

/// The value of `key`, which lies in a page.
///
/// # Errors
/// A page or run could not be had, or is damaged.
pub fn get<'p>(
    pages: &'p impl Pages,
    tree: TreeId,
    root: Option<&ChildRef>,
    key: &[u8],
) -> Paged<Option<&'p [u8]>> {
    let Some(root) = root else { return Ok(None) };
    let mut at = *root;
    let mut node = open(pages, tree, &at, None)?;
    while !node.is_leaf() {
        let entry = child_of(pages, tree, at.id, &node, key)?;
        let child = node.child(entry).or_fault(pages, at.id)?;
        node = open(pages, tree, &child, Some(node.level()))?;
        at = child;
    }
    match place(pages, tree, at.id, &node, key)? {
        Ok(entry) => Ok(Some(node.value(entry).or_fault(pages, at.id)?)),
        Err(_) => Ok(None),
    }
}

/// Where `key` stands among the entries of page `at`, or where it would (of a branch, behind the first).
#[inline]
pub(super) fn place(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    node: &Node<'_>,
    key: &[u8],
) -> Paged<Result<usize, usize>> {
    let (first, prefix) = (node.first_key(), node.prefix());
    let slots = node.slots(first);
    let hint = hint_of(key, prefix);
    let low = hints_below(slots, hint);
    // hints tell only of a key that begins as all others do; any of these shows how
    let Some(witness) = slots.len().checked_sub(1).map(|last| low.min(last)) else { return Ok(Err(first)) };
    let field = node.key(first + witness).or_fault(pages, at)?;
    match (field.bytes.get(..prefix), key.get(..prefix)) {
        (Some(theirs), Some(ours)) if theirs == ours => {}
        _ => return place_between(pages, tree, at, node, first..node.entries(), key),
    }
    let alike = |place: usize| slots.get(place).is_some_and(|slot| hint_in(slot) == hint);
    if !alike(low) {
        return Ok(Err(first + low));
    }
    let mut high = low + 1;
    if alike(high) {
        high += slots[high..].partition_point(|slot| hint_in(slot) == hint);
    }
    place_between(pages, tree, at, node, first + low..first + high, key)
}

/// How many slots have a hint below `hint`.
///
/// Halves only as long as many slots are left: the loads of a plain count do not wait for each other, so that the lines
/// of a cold page come together, and several slots are compared at a time.
#[inline]
fn hints_below(slots: &[[u8; SLOT_BYTES]], hint: u16) -> usize {
    let (mut low, mut high) = (0, slots.len());
    while high - low > COUNTED_MAX {
        let middle = low + (high - low) / 2;
        if hint_in(&slots[middle]) < hint { low = middle + 1 } else { high = middle }
    }
    let below = |slot: &[u8; SLOT_BYTES]| u32::from(u32::from_le_bytes(*slot) >> 16 < u32::from(hint));
    low + slots[low..high].iter().map(below).sum::<u32>() as usize
}

/// [`place`] among some of the entries, by their keys alone.
#[inline]
fn place_between(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    node: &Node<'_>,
    entries: Range<usize>,
    key: &[u8],
) -> Paged<Result<usize, usize>> {
    let (mut low, mut high) = (entries.start, entries.end);
    while low < high {
        let middle = low + (high - low) / 2;
        let field = node.key(middle).or_fault(pages, at)?;
        match longkey::compare(pages, tree, at, field, key)? {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok(Ok(middle)),
        }
    }
    Ok(Err(low))
}

/// The entry of branch `at` whose child has `key`, if any has.
#[inline]
pub(super) fn child_of(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    node: &Node<'_>,
    key: &[u8],
) -> Paged<usize> {
    // the first separator stands for minus infinity
    Ok(match place(pages, tree, at, node, key)? {
        Ok(entry) => entry,
        Err(entry) => entry - 1,
    })
}
