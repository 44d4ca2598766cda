//! Moves the pages of a tree out of the part of the file that is being emptied.
//!
//! A page moves by being copied as if it were changed: the copy lies elsewhere, its parent names it anew. So readers of
//! old roots are not disturbed. A page that this transaction wrote cannot move within it; the next pass finds it.

use super::edit;
use super::insert::set_child;
use super::longkey::{self, NewKey};
use super::node::{OrFault, open};
use super::search::child_of;
use crate::pager::page::{ChildRef, PageId, RunRef, TreeId};
use crate::pager::{Paged, PagesMut};

/// Walks in key order from `from` on and copies every page (of leaves, branches and long keys' runs) that
/// [`PagesMut::is_to_move`]. Ends when it has looked at `budget` pages, at least at one leaf; gives the key to go on
/// from, `None` at the tree's end. Runs that values name are the caller's to move.
///
/// # Errors
/// A page or run could not be had, or is damaged.
pub fn relocate(
    pages: &mut impl PagesMut,
    tree: TreeId,
    root: &mut Option<ChildRef>,
    from: &[u8],
    budget: usize,
) -> Paged<Option<Vec<u8>>> {
    let Some(at) = root else { return Ok(None) };
    let mut left = budget;
    walk(pages, tree, at, None, from, &mut left)
}

/// Gives the key to go on from if the budget ended before the last page below `at`.
fn walk(
    pages: &mut impl PagesMut,
    tree: TreeId,
    at: &mut ChildRef,
    above: Option<u8>,
    from: &[u8],
    left: &mut usize,
) -> Paged<Option<Vec<u8>>> {
    *left = left.saturating_sub(1);
    if pages.is_to_move(at.id) {
        pages.page_mut(tree, at)?;
    }
    move_runs(pages, tree, at, above)?;
    let node = open(pages, tree, at, above)?;
    if node.is_leaf() {
        return Ok(None);
    }
    let (level, entries) = (node.level(), node.entries());
    let first = child_of(pages, tree, at.id, &node, from)?;
    for entry in first..entries {
        let node = open(pages, tree, at, above)?;
        if entry > first && *left == 0 {
            let separator = node.key(entry).or_fault(pages, at.id)?;
            return Ok(Some(longkey::whole(pages, tree, at.id, separator)?.into_owned()));
        }
        let before = node.child(entry).or_fault(pages, at.id)?;
        let mut child = before;
        let from = if entry == first { from } else { &[] };
        let rest = walk(pages, tree, &mut child, Some(level), from, left)?;
        if child != before {
            set_child(pages, tree, at, entry, &before, &child)?;
        }
        if rest.is_some() {
            return Ok(rest);
        }
    }
    Ok(None)
}

/// Moves the runs of a page's long keys.
fn move_runs(pages: &mut impl PagesMut, tree: TreeId, at: &mut ChildRef, above: Option<u8>) -> Paged<()> {
    for (entry, run) in runs_to_move(pages, tree, at, above)? {
        pages.page_mut(tree, at)?;
        // the page is of the open transaction now; a run of that lies where it does
        if run.tx == at.tx {
            continue;
        }
        let key = pages.run(tree, &run)?;
        let new = NewKey::write(pages, tree, &key);
        pages.free_run(&run);
        let page = pages.page_mut(tree, at)?;
        let set = edit::set_key(page, entry, new.field());
        set.or_fault(pages, at.id)?;
    }
    Ok(())
}

fn runs_to_move(
    pages: &impl PagesMut,
    tree: TreeId,
    at: &ChildRef,
    above: Option<u8>,
) -> Paged<Vec<(usize, RunRef)>> {
    let node = open(pages, tree, at, above)?;
    let mut runs = Vec::new();
    for entry in 0..node.entries() {
        if let Some(run) = node.key(entry).or_fault(pages, at.id)?.run()
            && run_is_to_move(pages, &run)
        {
            runs.push((entry, run));
        }
    }
    Ok(runs)
}

fn run_is_to_move(pages: &impl PagesMut, run: &RunRef) -> bool {
    let last = run.first.0.saturating_add(run.pages().saturating_sub(1));
    pages.is_to_move(run.first) || pages.is_to_move(PageId(last))
}
