//! Keys longer than a page likes: their beginning stands in the cell, the whole key in a run that belongs to the cell.
//!
//! A comparison looks at the beginning first; only a tie reads the run. A separator that is that long has a run of its
//! own, never its leaf's.

use super::KEY_INLINE_MAX;
use super::node::{KeyField, LONG_PREFIX, common};
use crate::pager::page::{PageId, RunRef, TreeId};
use crate::pager::{Paged, Pages, PagesMut};
use std::borrow::Cow;
use std::cmp::Ordering;

/// A key field to be written.
pub(super) enum NewKey<'k> {
    /// The key itself.
    Inline(&'k [u8]),
    /// Its beginning and its run.
    Long(Box<[u8; KEY_INLINE_MAX]>),
}

impl NewKey<'_> {
    /// The field of `key`, whose run is written if it is a long one.
    pub(super) fn write<'k>(pages: &mut impl PagesMut, tree: TreeId, key: &'k [u8]) -> NewKey<'k> {
        if key.len() <= KEY_INLINE_MAX {
            return NewKey::Inline(key);
        }
        let run = pages.new_run(tree, key);
        let mut field = Box::new([0; KEY_INLINE_MAX]);
        field[..LONG_PREFIX].copy_from_slice(&key[..LONG_PREFIX]);
        field[LONG_PREFIX..].copy_from_slice(&run.encode());
        NewKey::Long(field)
    }

    /// Bytes that the field of `key` will have.
    pub(super) fn field_bytes(key: &[u8]) -> usize {
        key.len().min(KEY_INLINE_MAX)
    }

    pub(super) fn field(&self) -> KeyField<'_> {
        match self {
            NewKey::Inline(key) => KeyField { bytes: key, long: false },
            NewKey::Long(field) => KeyField { bytes: &field[..], long: true },
        }
    }
}

/// The run of a long key.
fn run_of(pages: &impl Pages, at: PageId, field: KeyField<'_>) -> Paged<RunRef> {
    field.run().ok_or_else(|| {
        let expected = format!("a long key with {KEY_INLINE_MAX} bytes in the page");
        pages.fault(at, expected, format!("{} bytes", field.bytes.len()))
    })
}

/// Compares a key of page `at` with `key`.
#[inline]
pub(super) fn compare(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    field: KeyField<'_>,
    key: &[u8],
) -> Paged<Ordering> {
    if !field.long {
        return Ok(field.bytes.cmp(key));
    }
    compare_long(pages, tree, at, field, key)
}

#[cold]
fn compare_long(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    field: KeyField<'_>,
    key: &[u8],
) -> Paged<Ordering> {
    let run = run_of(pages, at, field)?;
    let prefix = field.inline();
    match prefix.cmp(&key[..key.len().min(prefix.len())]) {
        // the prefix of `key` is the whole of it: the long one goes on
        Ordering::Equal if key.len() <= prefix.len() => Ok(Ordering::Greater),
        Ordering::Equal => Ok(pages.run(tree, &run)?[..].cmp(key)),
        differs => Ok(differs),
    }
}

/// The whole key of a field in page `at`.
#[inline]
pub(super) fn whole<'p>(
    pages: &impl Pages,
    tree: TreeId,
    at: PageId,
    field: KeyField<'p>,
) -> Paged<Cow<'p, [u8]>> {
    if !field.long {
        return Ok(Cow::Borrowed(field.bytes));
    }
    let run = run_of(pages, at, field)?;
    Ok(Cow::Owned(Vec::from(pages.run(tree, &run)?)))
}

/// Gives back the run of a field in page `at`, if it has one.
pub(super) fn free(pages: &mut impl PagesMut, at: PageId, field: KeyField<'_>) -> Paged<()> {
    if field.long {
        let run = run_of(pages, at, field)?;
        pages.free_run(&run);
    }
    Ok(())
}

/// The shortest key that is above `left` and not above `right`, fields of pages `at.0` and `at.1`.
pub(super) fn separator(
    pages: &impl Pages,
    tree: TreeId,
    at: (PageId, PageId),
    left: KeyField<'_>,
    right: KeyField<'_>,
) -> Paged<Vec<u8>> {
    let same = common(left.inline(), right.inline());
    let decided = same < right.inline().len() && (same < left.inline().len() || !left.long);
    if decided {
        return Ok(right.inline()[..=same].to_vec());
    }
    let (left, right) = (whole(pages, tree, at.0, left)?, whole(pages, tree, at.1, right)?);
    let same = common(&left, &right);
    right.get(..=same).map(<[u8]>::to_vec).ok_or_else(|| {
        pages.fault(at.1, "a key above the one before".to_string(), "the beginning of that".to_string())
    })
}
