//! Reads a page of a tree.
//!
//! ```text
//!  0       head          see pager::page; u16s: entries at 12, heap at 14, dead bytes of the heap at 24, prefix at 26
//! 32       slots         per entry, in key order: where its cell begins u16 | hint u16
//!          free          grows from both sides
//! heap     cells         in any order, dead bytes between them
//! 4096
//!
//! leaf cell     key field length u16 | value length u16 | key field | value
//! branch cell   ChildRef 24          | separator field length u16   | separator field
//!
//! field of a key up to 512 bytes   the key
//! field of a longer key            its first 492 bytes, then the RunRef of the whole key; the highest bit of the length is set
//! ```
//! A separator is at most the smallest key below its child and above all keys below the child before. The first
//! separator of a branch is empty and stands for minus infinity.
//!
//! All keys of a page (that first separator aside) begin with the same `prefix` bytes; there may be more. A *hint* is the
//! two bytes of a key behind them, as a big-endian number, zeros where the key ends. So hints ascend as the keys do, and
//! a search looks at cells only where hints are alike: of a leaf that is not in the cache it fetches two or three
//! lines in place of eight.
//!
//! Everything read from a page is checked where it is used, and nothing else: a page whose CRC is right is as it was
//! written, so a broken one is rare, but it must never be a panic. [`validate`] checks a whole page.

use super::{KEY_INLINE_MAX, VALUE_MAX};
use crate::pager::page::{
    CHILD_REF_BYTES, ChildRef, HEAD_BYTES, PAGE_BYTES, Page, PageId, PageKind, RUN_REF_BYTES, RunRef, TreeId,
};
use crate::pager::{Paged, Pages};

/// Bytes of a page that slots and cells share.
pub(super) const BODY_BYTES: usize = PAGE_BYTES - HEAD_BYTES;
/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 4;
/// Most entries of a page.
const ENTRIES_MAX: usize = BODY_BYTES / SLOT_BYTES;
/// Bytes of a leaf cell before its key.
pub(super) const LEAF_HEAD: usize = 4;
/// Bytes of a branch cell before its separator.
pub(super) const BRANCH_HEAD: usize = CHILD_REF_BYTES + 2;
/// Where the length of a separator stands in its cell.
pub(super) const BRANCH_LEN_AT: usize = CHILD_REF_BYTES;
/// Where a page says how many entries it has.
pub(super) const ENTRIES_AT: usize = 12;
/// Where a page says where its cells begin.
pub(super) const HEAP_AT: usize = 14;
/// Where a page says how many bytes behind `heap` belong to no cell.
pub(super) const DEAD_AT: usize = 24;
/// Where a page says how many bytes all its keys begin with.
pub(super) const PREFIX_AT: usize = 26;
/// Says that a key is longer than its field.
pub(super) const LONG: u16 = 0x8000;
/// Bytes of a long key that stand in its field.
pub(super) const LONG_PREFIX: usize = KEY_INLINE_MAX - RUN_REF_BYTES;
/// The longest common beginning that hints count from: they stand in the page even of a long key.
pub(super) const PREFIX_MAX: usize = LONG_PREFIX - 2;
/// The largest cell of a leaf.
pub(super) const LEAF_CELL_MAX: usize = LEAF_HEAD + KEY_INLINE_MAX + VALUE_MAX;

// A page that overflows by one cell can always be split into two that fit: the larger half has at most half of the
// bytes and half a cell more.
const _: () =
    assert!((BODY_BYTES + LEAF_CELL_MAX + SLOT_BYTES) / 2 + (LEAF_CELL_MAX + SLOT_BYTES) / 2 < BODY_BYTES);
// Lengths fit beside the bit, offsets into a u16.
const _: () = assert!(KEY_INLINE_MAX < LONG as usize && PAGE_BYTES <= u16::MAX as usize);

/// What is wrong with a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damage {
    expected: &'static str,
    entry: usize,
    found: usize,
}

impl Damage {
    #[cold]
    pub(super) fn new(expected: &'static str, entry: usize, found: usize) -> Damage {
        Damage { expected, entry, found }
    }

    fn expected(&self) -> String {
        format!("{} (entry {})", self.expected, self.entry)
    }
}

/// Turns damage into the fault of the page where it was found.
pub(super) trait OrFault<T> {
    fn or_fault(self, pages: &impl Pages, at: PageId) -> Paged<T>;
}

impl<T> OrFault<T> for Result<T, Damage> {
    #[inline]
    fn or_fault(self, pages: &impl Pages, at: PageId) -> Paged<T> {
        match self {
            Ok(value) => Ok(value),
            Err(damage) => Err(pages.fault(at, damage.expected(), damage.found.to_string())),
        }
    }
}

/// A key as it stands in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyField<'p> {
    /// The key, or of a long one its beginning and its run.
    pub(super) bytes: &'p [u8],
    /// Whether it is a long one.
    pub(super) long: bool,
}

impl<'p> KeyField<'p> {
    /// What stands for minus infinity.
    pub(super) const EMPTY: KeyField<'static> = KeyField { bytes: &[], long: false };

    /// The length as it is written, with the bit of a long key.
    pub(super) fn len_word(&self) -> u16 {
        self.bytes.len() as u16 | if self.long { LONG } else { 0 }
    }

    /// The bytes of the key that are at hand.
    pub(super) fn inline(&self) -> &'p [u8] {
        if self.long { &self.bytes[..self.bytes.len().min(LONG_PREFIX)] } else { self.bytes }
    }

    /// The hint of the key behind `prefix` bytes.
    #[inline]
    pub(super) fn hint(&self, prefix: usize) -> u16 {
        hint_of(self.inline(), prefix)
    }

    /// The run of a long key.
    pub(super) fn run(&self) -> Option<RunRef> {
        let run = self.long.then(|| self.bytes.get(LONG_PREFIX..KEY_INLINE_MAX)).flatten()?;
        Some(RunRef::decode(run))
    }
}

/// The hint of a key behind `prefix` bytes.
#[inline]
pub(super) fn hint_of(key: &[u8], prefix: usize) -> u16 {
    match key.get(prefix..).unwrap_or(&[]) {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        [] => 0,
    }
}

/// How many bytes two keys begin with alike.
pub(super) fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// The hint in a slot.
#[inline]
pub(super) fn hint_in(slot: &[u8; SLOT_BYTES]) -> u16 {
    u16::from_le_bytes([slot[2], slot[3]])
}

/// A page of a tree with at least one entry.
#[derive(Clone, Copy)]
pub(super) struct Node<'p> {
    bytes: &'p [u8; PAGE_BYTES],
    entries: usize,
    /// Where a cell's key field length and key field begin.
    len_at: usize,
    head: usize,
}

impl<'p> Node<'p> {
    /// Reads the head of a page.
    #[inline]
    pub(super) fn of(page: &'p Page) -> Result<Node<'p>, Damage> {
        let entries = usize::from(page.u16_at(ENTRIES_AT));
        if entries == 0 || entries > ENTRIES_MAX {
            return Err(Damage::new("between 1 and 1016 entries", 0, entries));
        }
        let kind = page.0[4];
        if kind == PageKind::Leaf as u8 && page.level() == 0 {
            Ok(Node { bytes: &page.0, entries, len_at: 0, head: LEAF_HEAD })
        } else if kind == PageKind::Branch as u8 && page.level() > 0 {
            Ok(Node { bytes: &page.0, entries, len_at: BRANCH_LEN_AT, head: BRANCH_HEAD })
        } else {
            let found = usize::from(kind) << 8 | usize::from(page.level());
            Err(Damage::new("a leaf of level 0 or a branch above (kind << 8 | level)", 0, found))
        }
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.head == LEAF_HEAD
    }

    pub(super) fn level(&self) -> u8 {
        self.bytes[6]
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// The first entry with a key of its own: the first separator of a branch stands for minus infinity.
    pub(super) fn first_key(&self) -> usize {
        usize::from(!self.is_leaf())
    }

    /// How many bytes all keys begin with.
    #[inline]
    pub(super) fn prefix(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[PREFIX_AT], self.bytes[PREFIX_AT + 1]]))
    }

    /// The slots of the entries from `first` on.
    #[inline]
    pub(super) fn slots(&self, first: usize) -> &'p [[u8; SLOT_BYTES]] {
        let (slots, _) = self.bytes[HEAD_BYTES..].as_chunks();
        slots.get(first..self.entries).unwrap_or(&[])
    }

    #[inline]
    fn u16_at(&self, at: usize, entry: usize) -> Result<usize, Damage> {
        match self.bytes.get(at..at + 2) {
            Some(&[low, high]) => Ok(usize::from(u16::from_le_bytes([low, high]))),
            _ => Err(Damage::new("a cell within the page", entry, at)),
        }
    }

    #[inline]
    fn slice(&self, at: usize, len: usize, entry: usize) -> Result<&'p [u8], Damage> {
        self.bytes.get(at..at + len).ok_or_else(|| Damage::new("a cell within the page", entry, at + len))
    }

    /// Where the cell of an entry begins.
    #[inline]
    pub(super) fn slot(&self, entry: usize) -> Result<usize, Damage> {
        debug_assert!(entry < self.entries, "an entry of the page");
        self.u16_at(HEAD_BYTES + entry * SLOT_BYTES, entry)
    }

    /// The key, or the separator, of an entry.
    #[inline]
    pub(super) fn key(&self, entry: usize) -> Result<KeyField<'p>, Damage> {
        let at = self.slot(entry)?;
        let word = self.u16_at(at + self.len_at, entry)?;
        let bytes = self.slice(at + self.head, word & !usize::from(LONG), entry)?;
        Ok(KeyField { bytes, long: word & usize::from(LONG) != 0 })
    }

    /// The value of a leaf's entry.
    #[inline]
    pub(super) fn value(&self, entry: usize) -> Result<&'p [u8], Damage> {
        debug_assert!(self.is_leaf(), "only leaves have values");
        let at = self.slot(entry)?;
        let key = self.u16_at(at, entry)? & !usize::from(LONG);
        let len = self.u16_at(at + 2, entry)?;
        self.slice(at + LEAF_HEAD + key, len, entry)
    }

    /// Key and value of a leaf's entry.
    #[inline]
    pub(super) fn entry(&self, entry: usize) -> Result<(KeyField<'p>, &'p [u8]), Damage> {
        let at = self.slot(entry)?;
        let word = self.u16_at(at, entry)?;
        let key = self.slice(at + LEAF_HEAD, word & !usize::from(LONG), entry)?;
        let len = self.u16_at(at + 2, entry)?;
        let value = self.slice(at + LEAF_HEAD + key.len(), len, entry)?;
        Ok((KeyField { bytes: key, long: word & usize::from(LONG) != 0 }, value))
    }

    /// The child of a branch's entry.
    #[inline]
    pub(super) fn child(&self, entry: usize) -> Result<ChildRef, Damage> {
        debug_assert!(!self.is_leaf(), "only branches have children");
        let at = self.slot(entry)?;
        Ok(ChildRef::decode(self.slice(at, CHILD_REF_BYTES, entry)?))
    }

    /// The entries below the child of a branch's entry.
    #[inline]
    pub(super) fn count(&self, entry: usize) -> Result<u64, Damage> {
        let at = self.slot(entry)?;
        let bytes = self.slice(at + 16, 8, entry)?;
        Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
    }

    /// The whole cell of an entry.
    pub(super) fn cell(&self, entry: usize) -> Result<&'p [u8], Damage> {
        let at = self.slot(entry)?;
        let key = self.u16_at(at + self.len_at, entry)? & !usize::from(LONG);
        let value = if self.is_leaf() { self.u16_at(at + 2, entry)? } else { 0 };
        self.slice(at, self.head + key + value, entry)
    }
}

/// The node that `at` names. `above` is the level of its parent.
#[inline]
pub(super) fn open<'p>(
    pages: &'p impl Pages,
    tree: TreeId,
    at: &ChildRef,
    above: Option<u8>,
) -> Paged<Node<'p>> {
    let page = pages.page(tree, at)?;
    let node = Node::of(page).or_fault(pages, at.id)?;
    // levels fall on the way down, so that every walk ends
    if above.is_some_and(|above| node.level().checked_add(1) != Some(above)) {
        return Err(pages.fault(at.id, format!("a level below {above:?}"), node.level().to_string()));
    }
    Ok(node)
}

/// Checks a page of a tree as far as it can be checked alone: slots and cells lie within it and do not overlap, lengths
/// and dead bytes are right, keys ascend (those of long keys as far as their bytes in the page tell).
///
/// # Errors
/// What is wrong.
pub fn validate(page: &Page) -> Result<(), String> {
    let tell = |damage: Damage| format!("expected {}, found {}", damage.expected(), damage.found);
    let node = Node::of(page).map_err(tell)?;
    let heap = usize::from(page.u16_at(HEAP_AT));
    let slots_end = HEAD_BYTES + node.entries * SLOT_BYTES;
    if heap < slots_end || heap > PAGE_BYTES {
        return Err(format!("the cells of {} entries cannot begin at {heap}", node.entries));
    }
    if node.prefix() > PREFIX_MAX {
        return Err(format!("keys that begin with the same {} bytes", node.prefix()));
    }
    let mut taken = [false; PAGE_BYTES];
    let mut live = 0;
    for entry in 0..node.entries {
        let at = node.slot(entry).map_err(tell)?;
        let cell = node.cell(entry).map_err(tell)?;
        if at < heap {
            return Err(format!("the cell of entry {entry} begins at {at}, before {heap}"));
        }
        if taken[at..at + cell.len()].iter().any(|byte| *byte) {
            return Err(format!("the cell of entry {entry} at {at} overlaps another"));
        }
        taken[at..at + cell.len()].fill(true);
        live += cell.len();
        validate_entry(&node, entry)?;
        if entry > 0 && !ascends(&node, entry).map_err(tell)? {
            return Err(format!("the key of entry {entry} is not above the one before"));
        }
    }
    let dead = usize::from(page.u16_at(DEAD_AT));
    if heap + live + dead != PAGE_BYTES {
        return Err(format!(
            "cells of {live} bytes and {dead} dead bytes do not fill the page from {heap} on"
        ));
    }
    Ok(())
}

fn validate_entry(node: &Node<'_>, entry: usize) -> Result<(), String> {
    let tell = |damage: Damage| format!("expected {}, found {}", damage.expected(), damage.found);
    let key = node.key(entry).map_err(tell)?;
    if key.bytes.len() > KEY_INLINE_MAX {
        return Err(format!("the key of entry {entry} has {} bytes in the page", key.bytes.len()));
    }
    if entry >= node.first_key() {
        let (prefix, first) = (node.prefix(), node.key(node.first_key()).map_err(tell)?);
        if key.inline().get(..prefix).is_none_or(|begin| first.inline().get(..prefix) != Some(begin)) {
            return Err(format!(
                "the key of entry {entry} does not begin with the {prefix} bytes of the others"
            ));
        }
        if node.slots(entry).first().map(hint_in) != Some(key.hint(prefix)) {
            return Err(format!("the hint of entry {entry} is not its key's"));
        }
    }
    if key.long && key.run().is_none_or(|run| run.first.0 == 0 || run.bytes as usize <= KEY_INLINE_MAX) {
        return Err(format!("the long key of entry {entry} has no run"));
    }
    if node.is_leaf() {
        let value = node.value(entry).map_err(tell)?;
        if value.len() > VALUE_MAX {
            return Err(format!("the value of entry {entry} has {} bytes", value.len()));
        }
        return Ok(());
    }
    if (entry == 0) != key.bytes.is_empty() {
        return Err(format!("the separator of entry {entry} has {} bytes", key.bytes.len()));
    }
    let child = node.child(entry).map_err(tell)?;
    if child.id.0 == 0 || child.count == 0 {
        return Err(format!("the child of entry {entry} is page {}, {} entries", child.id, child.count));
    }
    Ok(())
}

/// Whether the key of an entry is above the one before, or may be where only the runs of long keys tell.
fn ascends(node: &Node<'_>, entry: usize) -> Result<bool, Damage> {
    let (before, key) = (node.key(entry - 1)?, node.key(entry)?);
    let (low, high) = (before.inline(), key.inline());
    let open =
        key.long && low.starts_with(high) || before.long && high.len() > low.len() && high.starts_with(low);
    Ok(open || low < high)
}
