//! How many entries lie in a range, from the counts that branches keep: O(log n).

use super::node::{Node, OrFault, open};
use super::search::{child_of, place};
use crate::pager::page::{ChildRef, PageId, TreeId};
use crate::pager::{Paged, Pages};
use std::ops::Bound;

/// Entries of a whole tree.
pub fn total(root: Option<&ChildRef>) -> u64 {
    root.map_or(0, |root| root.count)
}

/// Entries from `from` to `to`; 0 if no key can lie between.
///
/// # Errors
/// A page or run could not be had, or is damaged.
pub fn count(
    pages: &impl Pages,
    tree: TreeId,
    root: Option<&ChildRef>,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> Paged<u64> {
    let below = |bound| match bound {
        Bound::Included(key) => rank(pages, tree, root, key, false),
        Bound::Excluded(key) => rank(pages, tree, root, key, true),
        Bound::Unbounded => Ok(0),
    };
    let before = below(from)?;
    let until = match to {
        Bound::Included(key) => rank(pages, tree, root, key, true)?,
        Bound::Excluded(key) => rank(pages, tree, root, key, false)?,
        Bound::Unbounded => total(root),
    };
    Ok(until.saturating_sub(before))
}

/// Entries below `key`; with `inclusive` the one at `key` too.
///
/// # Errors
/// As [`count`].
pub fn rank(
    pages: &impl Pages,
    tree: TreeId,
    root: Option<&ChildRef>,
    key: &[u8],
    inclusive: bool,
) -> Paged<u64> {
    let Some(root) = root else { return Ok(0) };
    let mut below = 0u64;
    let mut at = *root;
    let mut node = open(pages, tree, &at, None)?;
    while !node.is_leaf() {
        let entry = child_of(pages, tree, at.id, &node, key)?;
        below = below.wrapping_add(before(pages, &at, &node, entry)?);
        let child = node.child(entry).or_fault(pages, at.id)?;
        node = open(pages, tree, &child, Some(node.level()))?;
        at = child;
    }
    let here = match place(pages, tree, at.id, &node, key)? {
        Ok(entry) => entry + usize::from(inclusive),
        Err(entry) => entry,
    };
    Ok(below.wrapping_add(here as u64))
}

/// Entries below the children before `entry`, summed from the side that is shorter.
fn before(pages: &impl Pages, at: &ChildRef, node: &Node<'_>, entry: usize) -> Paged<u64> {
    if entry <= node.entries() / 2 {
        return sum(pages, at.id, node, 0..entry);
    }
    Ok(at.count.wrapping_sub(sum(pages, at.id, node, entry..node.entries())?))
}

fn sum(pages: &impl Pages, at: PageId, node: &Node<'_>, entries: std::ops::Range<usize>) -> Paged<u64> {
    let mut sum = 0u64;
    for entry in entries {
        sum = sum.wrapping_add(node.count(entry).or_fault(pages, at)?);
    }
    Ok(sum)
}
