//! Finds a key: in a page, and from the root down.

use super::longkey;
use super::node::{Node, OrFault, open};
use crate::pager::page::{ChildRef, PageId, TreeId};
use crate::pager::{Paged, Pages};
use std::cmp::Ordering;

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
    match place(pages, tree, at.id, &node, 0, key)? {
        Ok(entry) => Ok(Some(node.value(entry).or_fault(pages, at.id)?)),
        Err(_) => Ok(None),
    }
}

/// Where `key` stands among the entries from `first` on of page `at`, or where it would.
#[inline]
pub(super) fn place(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    node: &Node<'_>,
    first: usize,
    key: &[u8],
) -> Paged<Result<usize, usize>> {
    let (mut low, mut high) = (first, node.entries());
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
    Ok(match place(pages, tree, at, node, 1, key)? {
        Ok(entry) => entry,
        Err(entry) => entry - 1,
    })
}
