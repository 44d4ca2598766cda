//! The seam to whoever writes the file: which pages are to be written, and what follows when they were.

use super::children::children;
use super::dirty::PageSet;
use super::map_pages::MapPages;
use super::page::{PAGE_BYTES, Page, PageId};
use super::root::Root;
use super::space::{BITMAP_BYTES, Space};
use super::writer::Pager;
use crate::disk::FileMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What an opened file gives.
pub(super) struct FileParts {
    /// The file.
    pub(super) path: PathBuf,
    /// Its map.
    pub(super) map: Arc<dyn FileMap>,
    /// The root of its newest meta, durable.
    pub(super) root: Root,
    /// The bitmaps of used pages that the meta names, region by region from the first.
    pub(super) used: Vec<[u8; BITMAP_BYTES]>,
}

/// The root that a checkpoint makes durable, and what it has to write for it.
pub(super) struct Chosen {
    /// The root.
    pub(super) root: Arc<Root>,
    /// Where its pages are that were not written yet, by level: children before parents. [`Pager::captured_page`] has
    /// them.
    pub(super) levels: Vec<PageSet>,
    /// The bitmaps (region, bits) that differ from those chosen before and lie below `root.pages_end`.
    pub(super) bitmaps: Vec<(u32, Box<[u8; BITMAP_BYTES]>)>,
}

/// Marks a known CRC among the side table's words: `1 | low 31 bits of the transaction | crc`.
const CRC_KNOWN: u64 = 1 << 63;

fn crc_word(tx: u64, crc: u32) -> u64 {
    CRC_KNOWN | (tx & 0x7fff_ffff) << 32 | u64::from(crc)
}

impl Pager {
    /// A pager over an opened file.
    pub(super) fn from_file(parts: FileParts) -> Pager {
        let map = MapPages::new(parts.map, parts.path);
        Pager::with(parts.root, Space::from_bitmaps(&parts.used), Some(map))
    }

    /// Chooses the newest root to become durable: it counts as durable from now on.
    ///
    /// # Panics
    /// One is chosen already.
    pub(super) fn choose(&mut self) -> Chosen {
        assert!(self.chosen.is_none(), "one checkpoint at a time");
        let root = self.published();
        let (taken, dropped) = self.open_changes();
        // ids are u32, so their end is too
        let bitmaps = self.space.changed_bitmaps(root.pages_end as u32, &taken, &dropped);
        self.captured = self.dirty.pages();
        self.table.expect(self.captured);
        self.replaced = 0;
        self.chosen = Some(Arc::clone(&root));
        Chosen { root, levels: self.dirty.take(), bitmaps }
    }

    /// A page of the chosen root that was not written yet; `None`: it was, by a spill that was under way.
    ///
    /// A page that was captured stays in the page table until it was written, even if later roots do not reach it: the
    /// chosen root counts as durable, so its id is not given out again.
    pub(super) fn captured_page(&self, id: PageId) -> Option<Arc<Page>> {
        let page = self.table.shared_page(id)?;
        let chosen = self.chosen.as_ref().map_or(0, |root| root.tx);
        assert!(page.tx() <= chosen, "{page:?} was captured by the root of {chosen}");
        Some(page)
    }

    /// The chosen root is durable, the one before does not count any more.
    ///
    /// # Panics
    /// None was chosen, or not all of its pages were written.
    pub(super) fn chosen_durable(&mut self) {
        let root = self.chosen.take().expect("a root was chosen");
        assert_eq!(self.captured, 0, "a durable root's pages are in the file");
        let tx = root.tx;
        self.table.set_durable(root);
        self.reuse.durable(tx);
        self.reclaim();
    }

    /// Pages to be written ahead of a checkpoint, at most `max`: leaves and runs first, a branch only when its children
    /// were written. Each counts as being written until [`Pager::page_written`].
    pub(super) fn spill_candidates(&mut self, max: usize) -> Vec<(PageId, u64, Arc<Page>)> {
        // branches that wait for their children are passed over, but not all of a large file's in one call
        let look_at = 4 * max + 256;
        let ids = self.dirty.iter().filter(|id| !self.reuse.is_writing(*id)).take(look_at);
        let pages = ids.filter_map(|id| Some((id, self.table.shared_page(id)?)));
        let ready = pages.filter(|(_, page)| self.children_written(page)).take(max);
        let out: Vec<_> = ready.map(|(id, page)| (id, page.tx(), page)).collect();
        for (id, _, _) in &out {
            self.reuse.writing(*id);
        }
        out
    }

    fn children_written(&self, page: &Page) -> bool {
        children(page).all(|child| child.crc.is_some() || self.child_crc(child.id, child.tx).is_some())
    }

    /// The page that transaction `tx` put at `id` is in the file, with that CRC: readers take it from the map.
    pub(super) fn page_written(&mut self, id: PageId, tx: u64, crc: u32) {
        let spill = self.reuse.written(id);
        if let Some(level) = self.table.page(id, tx).map(Page::level) {
            self.crcs.set(id.0, crc_word(tx, crc));
            if !self.dirty.remove(id, level) && !spill.for_nobody {
                self.uncapture(tx);
            }
            if let Some(map) = self.table.table().map() {
                map.forget(id);
            }
            self.table.clear(id, tx);
        }
        if spill.last {
            self.release(id);
        }
    }

    /// One page less of those that the chosen root waits for.
    fn uncapture(&mut self, tx: u64) {
        debug_assert!(self.chosen.as_ref().is_some_and(|root| tx <= root.tx), "neither dirty nor captured");
        self.captured -= 1;
    }

    /// The CRC of a page that was written since opening; transactions are told apart by their low 31 bits.
    pub(super) fn child_crc(&self, id: PageId, tx: u64) -> Option<u32> {
        let word = self.crcs.get(id.0);
        (word != 0 && word == crc_word(tx, word as u32)).then_some(word as u32)
    }

    /// The id may be given out anew: what was written there means nothing.
    pub(super) fn forget_crc(&mut self, id: PageId) {
        if self.crcs.get(id.0) != 0 {
            self.crcs.set(id.0, 0);
        }
    }

    /// Bytes of pages that were replaced since a root was chosen last: what a replay from there has to read.
    pub(super) fn replaced_bytes(&self) -> u64 {
        (self.replaced * PAGE_BYTES) as u64
    }

    /// Bytes of published pages that the file does not have, those of a checkpoint under way included.
    pub fn dirty_bytes(&self) -> u64 {
        ((self.dirty.pages() + self.captured) * PAGE_BYTES) as u64
    }
}
