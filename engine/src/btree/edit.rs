//! Changes one page: makes room for a cell, takes one out, writes a page anew from a list of cells.
//!
//! Cells grow from the end of the page toward the slots. A cell that goes leaves dead bytes, which are counted; when the
//! gap between slots and cells is too small but gap and dead bytes together suffice, the cells are moved together.
//! A page that was never filled has `heap` 0, which stands for its end.

use super::node::{
    BODY_BYTES, BRANCH_HEAD, BRANCH_LEN_AT, DEAD_AT, Damage, ENTRIES_AT, HEAP_AT, KeyField, LEAF_HEAD, LONG,
    Node, PREFIX_AT, PREFIX_MAX, SLOT_BYTES, common,
};
use crate::pager::page::{CHILD_REF_BYTES, ChildRef, HEAD_BYTES, PAGE_BYTES, Page};
use std::ops::Range;

/// Where things stand in a page.
#[derive(Clone, Copy)]
struct Layout {
    entries: usize,
    heap: usize,
    dead: usize,
}

impl Layout {
    #[inline]
    fn of(page: &Page) -> Result<Layout, Damage> {
        let entries = usize::from(page.u16_at(ENTRIES_AT));
        let heap = usize::from(page.u16_at(HEAP_AT));
        let heap = if heap == 0 { PAGE_BYTES } else { heap };
        let dead = usize::from(page.u16_at(DEAD_AT));
        if heap > PAGE_BYTES || HEAD_BYTES + entries * SLOT_BYTES > heap {
            return Err(Damage::new("cells between the slots and the end of the page", entries, heap));
        }
        if dead > PAGE_BYTES - heap {
            return Err(Damage::new("dead bytes among the cells", entries, dead));
        }
        Ok(Layout { entries, heap, dead })
    }

    fn write(&self, page: &mut Page) {
        page.put_u16(ENTRIES_AT, self.entries as u16);
        page.put_u16(HEAP_AT, self.heap as u16);
        page.put_u16(DEAD_AT, self.dead as u16);
    }

    fn gap(&self) -> usize {
        self.heap - HEAD_BYTES - self.entries * SLOT_BYTES
    }
}

/// Bytes of slots and live cells in a page.
#[inline]
pub(super) fn used(page: &Page) -> Result<usize, Damage> {
    let layout = Layout::of(page)?;
    Ok(BODY_BYTES - layout.gap() - layout.dead)
}

/// Makes room for a cell of `len` bytes with key `key` as entry `entry`; the cell is to be filled. `None`: it does not
/// fit.
#[inline]
pub(super) fn insert_cell<'p>(
    page: &'p mut Page,
    entry: usize,
    key: KeyField<'_>,
    len: usize,
) -> Result<Option<&'p mut [u8]>, Damage> {
    let mut layout = Layout::of(page)?;
    if entry > layout.entries {
        return Err(Damage::new("a place among the entries", entry, layout.entries));
    }
    if layout.gap() < len + SLOT_BYTES {
        if layout.gap() + layout.dead < len + SLOT_BYTES {
            return Ok(None);
        }
        layout = move_together(page, None)?;
        if layout.gap() < len + SLOT_BYTES {
            return Err(Damage::new("as many dead bytes as the page tells", entry, layout.gap()));
        }
    }
    let first = first_key(page);
    let hint = match entry.checked_sub(first) {
        None => 0,
        Some(_) if layout.entries <= first => key.hint(begin_prefix(page, key)),
        Some(behind) => key.hint(admit(page, key, if behind > 0 { entry - 1 } else { first })?),
    };
    let slot = HEAD_BYTES + entry * SLOT_BYTES;
    let slots_end = HEAD_BYTES + layout.entries * SLOT_BYTES;
    page.0.copy_within(slot..slots_end, slot + SLOT_BYTES);
    layout.heap -= len;
    layout.entries += 1;
    page.put_u16(slot, layout.heap as u16);
    page.put_u16(slot + 2, hint);
    layout.write(page);
    Ok(Some(&mut page.0[layout.heap..layout.heap + len]))
}

/// The first entry with a key of its own.
fn first_key(page: &Page) -> usize {
    usize::from(page.level() > 0)
}

/// The prefix of a page whose only key is to be `key`.
fn begin_prefix(page: &mut Page, key: KeyField<'_>) -> usize {
    let prefix = key.inline().len().min(PREFIX_MAX);
    page.put_u16(PREFIX_AT, prefix as u16);
    prefix
}

/// Shortens the prefix so far that a new key begins with it as well; `other` is an entry that stays. Gives its length.
#[inline]
fn admit(page: &mut Page, key: KeyField<'_>, other: usize) -> Result<usize, Damage> {
    let node = Node::of(page)?;
    let (prefix, other) = (node.prefix(), node.key(other)?.inline());
    if other.get(..prefix).is_some_and(|begin| key.inline().get(..prefix) == Some(begin)) {
        return Ok(prefix);
    }
    let prefix = common(other, key.inline()).min(prefix);
    set_prefix(page, prefix)?;
    Ok(prefix)
}

/// Writes another prefix and with it all hints.
#[cold]
fn set_prefix(page: &mut Page, prefix: usize) -> Result<(), Damage> {
    page.put_u16(PREFIX_AT, prefix as u16);
    for entry in first_key(page)..Node::of(page)?.entries() {
        let hint = Node::of(page)?.key(entry)?.hint(prefix);
        page.put_u16(HEAD_BYTES + entry * SLOT_BYTES + 2, hint);
    }
    Ok(())
}

/// Takes an entry out.
pub(super) fn remove_cell(page: &mut Page, entry: usize) -> Result<(), Damage> {
    let node = Node::of(page)?;
    let (at, len) = (node.slot(entry)?, node.cell(entry)?.len());
    let mut layout = Layout::of(page)?;
    let slot = HEAD_BYTES + entry * SLOT_BYTES;
    let slots_end = HEAD_BYTES + layout.entries * SLOT_BYTES;
    page.0.copy_within(slot + SLOT_BYTES..slots_end, slot);
    layout.entries -= 1;
    if layout.entries == 0 {
        (layout.heap, layout.dead) = (PAGE_BYTES, 0);
    } else if at == layout.heap && layout.dead + len <= PAGE_BYTES - layout.heap {
        layout.heap += len;
    } else {
        layout.dead += len;
    }
    layout.write(page);
    Ok(())
}

/// Gives the cell of an entry another length. Its bytes stay as far as they go (`false`: it does not fit, and nothing
/// is changed). The bytes after a longer cell's old ones are to be filled.
fn resize_cell(page: &mut Page, entry: usize, len: usize) -> Result<bool, Damage> {
    let node = Node::of(page)?;
    let (at, old) = (node.slot(entry)?, node.cell(entry)?.len());
    let mut layout = Layout::of(page)?;
    if len <= old {
        layout.dead += old - len;
        layout.write(page);
        return Ok(true);
    }
    if layout.gap() >= len {
        layout.heap -= len;
        layout.dead += old;
        page.0.copy_within(at..at + old, layout.heap);
    } else if layout.gap() + layout.dead + old >= len {
        let mut kept = [0; PAGE_BYTES];
        kept[..old].copy_from_slice(&page.0[at..at + old]);
        layout = move_together(page, Some(entry))?;
        if layout.gap() < len {
            return Err(Damage::new("as many dead bytes as the page tells", entry, layout.gap()));
        }
        layout.heap -= len;
        page.0[layout.heap..layout.heap + old].copy_from_slice(&kept[..old]);
    } else {
        return Ok(false);
    }
    page.put_u16(HEAD_BYTES + entry * SLOT_BYTES, layout.heap as u16);
    layout.write(page);
    Ok(true)
}

/// What came of putting a value in another's place.
pub(super) enum Replaced {
    /// It does not fit; nothing is changed.
    NoRoom,
    /// The page has at least as much in it as before.
    Done,
    /// The page has less in it.
    Shorter,
}

/// Gives a leaf's entry another value.
#[inline]
pub(super) fn set_value(page: &mut Page, entry: usize, value: &[u8]) -> Result<Replaced, Damage> {
    let node = Node::of(page)?;
    let (key, old) = node.entry(entry)?;
    let head = LEAF_HEAD + key.bytes.len();
    let replaced = if value.len() < old.len() { Replaced::Shorter } else { Replaced::Done };
    if value.len() != old.len() && !resize_cell(page, entry, head + value.len())? {
        return Ok(Replaced::NoRoom);
    }
    let at = Node::of(page)?.slot(entry)?;
    let cell = page.0.get_mut(at..at + head + value.len());
    let cell = cell.ok_or(Damage::new("a cell within the page", entry, at))?;
    cell[2..4].copy_from_slice(&(value.len() as u16).to_le_bytes());
    cell[head..].copy_from_slice(value);
    Ok(replaced)
}

/// Gives a branch's entry another separator. `false`: it does not fit.
pub(super) fn set_separator(page: &mut Page, entry: usize, separator: KeyField<'_>) -> Result<bool, Damage> {
    let len = BRANCH_HEAD + separator.bytes.len();
    if !resize_cell(page, entry, len)? {
        return Ok(false);
    }
    let node = Node::of(page)?;
    let at = node.slot(entry)?;
    let other = if entry > 1 { Some(entry - 1) } else { Some(2).filter(|other| *other < node.entries()) };
    let hint = match other {
        _ if entry == 0 => 0,
        Some(other) => separator.hint(admit(page, separator, other)?),
        None => separator.hint(begin_prefix(page, separator)),
    };
    page.put_u16(HEAD_BYTES + entry * SLOT_BYTES + 2, hint);
    let cell = page.0.get_mut(at..at + len).ok_or(Damage::new("a cell within the page", entry, at))?;
    write_field(&mut cell[BRANCH_LEN_AT..], 0, separator);
    Ok(true)
}

/// Whether [`set_separator`] with a field of `len` bytes fits.
pub(super) fn separator_fits(page: &Page, entry: usize, len: usize) -> Result<bool, Damage> {
    let old = Node::of(page)?.cell(entry)?.len();
    let layout = Layout::of(page)?;
    Ok(layout.gap() + layout.dead + old >= BRANCH_HEAD + len)
}

/// Gives a branch's entry another child.
#[inline]
pub(super) fn set_child(page: &mut Page, entry: usize, child: &ChildRef) -> Result<(), Damage> {
    let at = Node::of(page)?.slot(entry)?;
    let place = page.0.get_mut(at..at + CHILD_REF_BYTES);
    place.ok_or(Damage::new("a cell within the page", entry, at))?.copy_from_slice(&child.encode());
    Ok(())
}

/// Gives the long key of an entry another run.
pub(super) fn set_key(page: &mut Page, entry: usize, key: KeyField<'_>) -> Result<(), Damage> {
    let node = Node::of(page)?;
    let at = node.slot(entry)? + if node.is_leaf() { LEAF_HEAD } else { BRANCH_HEAD };
    if node.key(entry)?.bytes.len() != key.bytes.len() {
        return Err(Damage::new("a long key", entry, node.key(entry)?.bytes.len()));
    }
    page.0[at..at + key.bytes.len()].copy_from_slice(key.bytes);
    Ok(())
}

/// Writes the field of a key, its length at the beginning of `out`, `between` bytes left out after that.
fn write_field(out: &mut [u8], between: usize, key: KeyField<'_>) {
    out[..2].copy_from_slice(&key.len_word().to_le_bytes());
    out[2 + between..2 + between + key.bytes.len()].copy_from_slice(key.bytes);
}

/// Bytes of a leaf's cell.
pub(super) fn leaf_cell_bytes(key_field: usize, value: usize) -> usize {
    LEAF_HEAD + key_field + value
}

/// Fills a leaf's cell.
#[inline]
pub(super) fn write_leaf_cell(cell: &mut [u8], key: KeyField<'_>, value: &[u8]) {
    write_field(cell, 2, key);
    cell[2..4].copy_from_slice(&(value.len() as u16).to_le_bytes());
    cell[LEAF_HEAD + key.bytes.len()..].copy_from_slice(value);
}

/// Bytes of a branch's cell.
pub(super) fn branch_cell_bytes(separator_field: usize) -> usize {
    BRANCH_HEAD + separator_field
}

/// Fills a branch's cell.
pub(super) fn write_branch_cell(cell: &mut [u8], child: &ChildRef, separator: KeyField<'_>) {
    cell[..CHILD_REF_BYTES].copy_from_slice(&child.encode());
    write_field(&mut cell[BRANCH_LEN_AT..], 0, separator);
}

/// The key of a leaf's cell, the separator of a branch's.
pub(super) fn key_of_cell(cell: &[u8], leaf: bool) -> KeyField<'_> {
    let (len_at, head) = if leaf { (0, LEAF_HEAD) } else { (BRANCH_LEN_AT, BRANCH_HEAD) };
    let word = cell.get(len_at..len_at + 2).map_or(0, |word| u16::from_le_bytes([word[0], word[1]]));
    let bytes = cell.get(head..head + usize::from(word & !LONG)).unwrap_or(&[]);
    KeyField { bytes, long: word & LONG != 0 }
}

/// Entries in the leaves below the child of a branch's cell; a leaf's cell is one itself.
fn count_of_cell(cell: &[u8], leaf: bool) -> u64 {
    if leaf { 1 } else { cell.get(..CHILD_REF_BYTES).map_or(0, |child| ChildRef::decode(child).count) }
}

/// Moves the cells together at the end of the page, without that of `left_out`, whose slot is to be set.
#[cold]
fn move_together(page: &mut Page, left_out: Option<usize>) -> Result<Layout, Damage> {
    let old = page.clone();
    let node = Node::of(&old)?;
    let mut layout = Layout { entries: node.entries(), heap: PAGE_BYTES, dead: 0 };
    let slots_end = HEAD_BYTES + layout.entries * SLOT_BYTES;
    for entry in (0..node.entries()).filter(|entry| Some(*entry) != left_out) {
        let cell = node.cell(entry)?;
        if layout.heap < slots_end + cell.len() {
            return Err(Damage::new("cells that do not overlap", entry, cell.len()));
        }
        layout.heap -= cell.len();
        page.0[layout.heap..layout.heap + cell.len()].copy_from_slice(cell);
        page.put_u16(HEAD_BYTES + entry * SLOT_BYTES, layout.heap as u16);
    }
    layout.write(page);
    Ok(layout)
}

/// Cells in key order that pages are written from: those of one page or of two neighbours, one of them put in anew.
pub(super) trait Cells {
    /// How many there are.
    fn len(&self) -> usize;

    /// One of them.
    fn cell(&self, entry: usize) -> Result<&[u8], Damage>;

    /// Bytes that some of them take in a page.
    fn bytes(&self, entries: Range<usize>) -> Result<usize, Damage> {
        let mut bytes = 0;
        for entry in entries {
            bytes += self.cell(entry)?.len() + SLOT_BYTES;
        }
        Ok(bytes)
    }

    /// Entries in the leaves below some of them.
    fn count(&self, entries: Range<usize>, leaf: bool) -> Result<u64, Damage> {
        let mut count = 0u64;
        for entry in entries {
            count = count.wrapping_add(count_of_cell(self.cell(entry)?, leaf));
        }
        Ok(count)
    }

    /// Where to divide them in two, each not empty, so that the halves are as alike in bytes as can be.
    fn middle(&self) -> Result<usize, Damage> {
        if self.len() < 2 {
            return Err(Damage::new("at least two entries in a page that is divided", 0, self.len()));
        }
        let total = self.bytes(0..self.len())?;
        let (mut at, mut before) = (0, 0);
        while at + 1 < self.len() {
            let next = self.cell(at)?.len() + SLOT_BYTES;
            // dividing after `at` as well makes it worse
            if at > 0 && (before + next).abs_diff(total - before - next) >= before.abs_diff(total - before) {
                break;
            }
            before += next;
            at += 1;
        }
        Ok(at.max(1))
    }
}

/// Writes a page's body anew with some of `cells`. In a branch the first separator is left out; its field is moved to
/// where the caller needs it.
pub(super) fn fill(page: &mut Page, cells: &impl Cells, entries: Range<usize>) -> Result<(), Damage> {
    let leaf = page.level() == 0;
    let prefix = prefix_of(cells, entries.clone(), leaf)?;
    page.put_u16(PREFIX_AT, prefix as u16);
    let mut layout = Layout { entries: entries.len(), heap: PAGE_BYTES, dead: 0 };
    let slots_end = HEAD_BYTES + layout.entries * SLOT_BYTES;
    for (slot, entry) in entries.enumerate() {
        let cell = cells.cell(entry)?;
        let cell = if slot == 0 && !leaf { cell.get(..BRANCH_HEAD).unwrap_or(cell) } else { cell };
        if layout.heap < slots_end + cell.len() {
            return Err(Damage::new("cells that fit a page", entry, cell.len()));
        }
        layout.heap -= cell.len();
        page.0[layout.heap..layout.heap + cell.len()].copy_from_slice(cell);
        if slot == 0 && !leaf {
            page.put_u16(layout.heap + BRANCH_LEN_AT, 0);
        }
        let key = if slot == 0 && !leaf { KeyField::EMPTY } else { key_of_cell(cell, leaf) };
        page.put_u16(HEAD_BYTES + slot * SLOT_BYTES, layout.heap as u16);
        page.put_u16(HEAD_BYTES + slot * SLOT_BYTES + 2, key.hint(prefix));
    }
    layout.write(page);
    Ok(())
}

/// How the keys of a page with these cells begin: as the first and the last do, since keys ascend.
fn prefix_of(cells: &impl Cells, entries: Range<usize>, leaf: bool) -> Result<usize, Damage> {
    let first = entries.start + usize::from(!leaf);
    if first >= entries.end {
        return Ok(0);
    }
    let (first, last) = (cells.cell(first)?, cells.cell(entries.end - 1)?);
    let (first, last) = (key_of_cell(first, leaf), key_of_cell(last, leaf));
    Ok(common(first.inline(), last.inline()).min(PREFIX_MAX))
}
