//! What the file asks of the pages in memory.

use super::page::{Page, PageId};
use super::places::BITMAP_BYTES;
use super::root::Root;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A published root on its way to the file, with all that the file does not have of it.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The root.
    pub(super) root: Arc<Root>,
    /// Its pages that were not written yet, by level, level 0 (leaves and runs) first: children before parents.
    pub(super) levels: Vec<BTreeMap<PageId, Arc<Page>>>,
    /// Blocks of its bitmap that changed since the last choice, those of regions that the last choice did not reach
    /// among them, by block. Used is what the root reaches, and the fixed places of every region below its end.
    pub(super) blocks: Vec<(u32, Box<[u8; BITMAP_BYTES]>)>,
}

/// The pages in memory, as the file sees them. All of it concerns published transactions only.
pub(super) trait Memory {
    /// The newest root.
    fn published(&self) -> Arc<Root>;

    /// Chooses the newest root: from now on it counts as durable, and so does the one before until
    /// [`Memory::chosen_durable`].
    fn choose(&mut self) -> Chosen;

    /// The chosen root's meta is durable.
    fn chosen_durable(&mut self);

    /// Up to `max` pages that were never written and are not part of a choice under way, those first whose children
    /// are all written. The same ones may be told again until [`Memory::page_written`].
    fn spill_candidates(&mut self, max: usize) -> Vec<(PageId, u64, Arc<Page>)>;

    /// The file's map has this page now, with this CRC in it. If the page was given back meanwhile, or the place has
    /// another page by now, nothing happens.
    fn page_written(&mut self, id: PageId, tx: u64, crc: u32);

    /// The CRC with which a page of that transaction was written.
    fn child_crc(&self, id: PageId, tx: u64) -> Option<u32>;

    /// Bytes of pages that were not written yet.
    fn dirty_bytes(&self) -> u64;

    /// Releases what no reader can reach any more.
    fn reclaim(&mut self);

    /// One past the highest page that any root in use reaches: the open, the published, the chosen, the durable one,
    /// and those of readers and pins.
    fn reach_end(&mut self) -> u64;

    /// Pages below the published root's end that may be handed out at once.
    fn reusable_pages(&self) -> u64;
}
