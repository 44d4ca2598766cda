//! Copy-on-write B+trees over pages.
//!
//! A tree is its [`TreeId`] and the [`ChildRef`] of its root page; an empty tree has no page. All functions are free ones
//! over [`Pages`] (reading, of any root) and [`PagesMut`] (changing, by the one writer): a page that an older
//! transaction wrote is copied before it is changed, by [`PagesMut::page_mut`], and then named anew in its parent, up to
//! the root. So a change makes a new root, and old roots read on as they were.
//!
//! | part | what it does |
//! |---|---|
//! | `node` | reads a page: slots and cells, the layout |
//! | `edit` | changes one page |
//! | `longkey` | keys longer than 512 bytes |
//! | `search` | finds a key |
//! | `ahead` | brings the pages of many keys into memory at once |
//! | `insert` | the walk down and back, and what grows on it |
//! | `delete` | what shrinks |
//! | `cursor` | walks in key order |
//! | `count` | entries in a range |
//! | `check` | everything that must hold of a tree |
//! | `relocate` | moves pages out of the file's tail |
//!
//! What must hold of a tree, checked by [`check()`] and after every step of the tests:
//! 1. Keys ascend, within a page and over all leaves; a separator is above all keys before it and not above any behind.
//! 2. All leaves have level 0, a branch one more than each of its children.
//! 3. The count in a [`ChildRef`] is the number of entries in the leaves below it.
//! 4. No page is empty, and the root is no branch with one child.
//! 5. A run belongs to one key field of one page; the page that gives up the field gives the run back or hands it on.
//!
//! After an error of a changing function the tree is partly changed: the open transaction must not be published.

mod ahead;
pub mod check;
pub mod count;
pub mod cursor;
mod delete;
mod edit;
#[cfg(any(test, feature = "sim"))]
pub mod fuzz;
mod insert;
mod longkey;
#[cfg(any(test, feature = "sim"))]
pub mod mem;
mod node;
pub mod relocate;
mod search;

pub use ahead::read_ahead;
pub use check::{CheckSummary, check};
pub use count::{count, rank, total};
pub use cursor::{Cursor, Entry};
pub(crate) use node::SLOT_BYTES;
pub use node::validate;
pub use relocate::relocate;
pub use search::get;

use crate::pager::page::{ChildRef, TreeId};
use crate::pager::{Paged, PagesMut};
use insert::{Change, Outcome};

#[cfg(doc)]
use crate::pager::Pages;

/// The longest key that stands whole in its page, in bytes.
pub const KEY_INLINE_MAX: usize = 512;
/// The longest value, in bytes: two of the largest entries fit a page.
pub const VALUE_MAX: usize = 1400;

/// What [`upsert`] is to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave it as it is.
    Keep,
    /// Put the value written, whether or not the key was there.
    Put,
    /// Remove it, if it was there.
    Remove,
}

/// Puts `value` under `key`. `true`: it replaced another.
///
/// # Errors
/// A page or run could not be had, or is damaged.
///
/// # Panics
/// `value` is longer than [`VALUE_MAX`].
pub fn insert(
    pages: &mut impl PagesMut,
    tree: TreeId,
    root: &mut Option<ChildRef>,
    key: &[u8],
    value: &[u8],
) -> Paged<bool> {
    change(pages, tree, root, key, |old| (Change::Put(value), old.is_some()))
}

/// Removes `key`. `true`: it was there.
///
/// # Errors
/// As [`insert`].
pub fn remove(
    pages: &mut impl PagesMut,
    tree: TreeId,
    root: &mut Option<ChildRef>,
    key: &[u8],
) -> Paged<bool> {
    change(pages, tree, root, key, |old| (Change::Remove, old.is_some()))
}

/// Reads `key` and does what `f` makes of it, in one walk: `f` sees the value there is, may write another into the vector
/// (empty at first) and says what to do. Gives what `f` tells.
///
/// # Errors
/// As [`insert`].
///
/// # Panics
/// The value to put is longer than [`VALUE_MAX`].
pub fn upsert<T>(
    pages: &mut impl PagesMut,
    tree: TreeId,
    root: &mut Option<ChildRef>,
    key: &[u8],
    f: impl FnOnce(Option<&[u8]>, &mut Vec<u8>) -> (Action, T),
) -> Paged<T> {
    upsert_with(pages, tree, root, key, &mut Vec::new(), f)
}

/// [`upsert`] with a vector of the caller's, which is emptied first: who puts often allocates once.
///
/// # Errors
/// As [`insert`].
///
/// # Panics
/// The value to put is longer than [`VALUE_MAX`].
pub fn upsert_with<T>(
    pages: &mut impl PagesMut,
    tree: TreeId,
    root: &mut Option<ChildRef>,
    key: &[u8],
    value: &mut Vec<u8>,
    f: impl FnOnce(Option<&[u8]>, &mut Vec<u8>) -> (Action, T),
) -> Paged<T> {
    value.clear();
    change(pages, tree, root, key, |old| {
        let (action, told) = f(old, value);
        let change = match action {
            Action::Keep => Change::Keep,
            Action::Put => Change::Put(&*value),
            Action::Remove => Change::Remove,
        };
        (change, told)
    })
}

fn change<'v, T>(
    pages: &mut impl PagesMut,
    tree: TreeId,
    root: &mut Option<ChildRef>,
    key: &[u8],
    decide: impl FnOnce(Option<&[u8]>) -> (Change<'v>, T),
) -> Paged<T> {
    let Some(at) = root else {
        let (change, told) = decide(None);
        if let Change::Put(value) = change {
            *root = Some(insert::first_entry(pages, tree, key, value)?);
        }
        return Ok(told);
    };
    let (outcome, told) = insert::change(pages, tree, at, (None, true), key, decide)?;
    match outcome {
        Outcome::Same | Outcome::Changed => {}
        Outcome::Shrunk => *at = delete::lower(pages, tree, *at)?,
        Outcome::Gone => *root = None,
        Outcome::Split(split) => *at = insert::grow(pages, tree, *at, split)?,
    }
    Ok(told)
}
