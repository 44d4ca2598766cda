//! The writer's end: the transaction that is open, and what becomes of its pages.
//!
//! ```text
//!            copied or made           published                 written                    freed
//! page       open, the writer's own > in the table, dirty     > in the file, by the map  > kept for its readers
//! its id     used                                                                        > reuse.rs > free
//! ```
//! Always exactly one transaction is open: the newest root's number, plus one.

use super::dense::Dense;
use super::dirty::Dirty;
use super::file::PageFile;
use super::map_pages::MapPages;
use super::page::{ChildRef, Page, PageId, PageKind, RUN_PAGE_BYTES, RunRef, TREES, TreeId};
use super::page_table::{OpenPage, TableWriter};
use super::reader::{PagerReader, Source};
use super::reuse::{Freed, Reuse};
use super::root::{Cluster, Root, Standing};
use super::space::Space;
use super::{Paged, Pages, PagesMut};
use std::sync::Arc;

/// Things that are given back, or looked at for it, in one go besides what the transaction itself freed.
const RECLAIM_BUDGET: usize = 512;

/// The page file, as its one writer has it.
pub struct Pager {
    pub(super) table: TableWriter,
    pub(super) space: Space,
    /// The open transaction.
    tx: u64,
    open: Vec<Open>,
    /// Page id -> place in `open`, plus one; 0: not of this transaction.
    pub(super) places: Dense<u32>,
    /// Pages of older transactions that this one freed.
    freed: Vec<Freed>,
    pub(super) reuse: Reuse,
    pub(super) dirty: Dirty,
    /// What the file has: page id -> CRC, see [`Pager::child_crc`].
    pub(super) crcs: Dense<u64>,
    /// The root of the checkpoint that is under way, and how many of its pages are not written yet.
    pub(super) chosen: Option<Arc<Root>>,
    pub(super) captured: usize,
    pub(super) defragment: bool,
    /// The file, unless all is in memory.
    pub(super) file: Option<PageFile>,
    /// Pages freed since a root was chosen that the durable root, or the chosen one, reaches: what a replay from there reads anew.
    pub(super) replaced: usize,
    /// Room for [`Pager::reclaim`].
    free_ids: Vec<PageId>,
}

/// What waits to be used again, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// Page ids that a durable root reaches, or the one that is to be.
    pub ids_for_durable: usize,
    /// Page ids that only readers reach, or that wait to be looked at.
    pub ids_for_readers: usize,
    /// Pages and roots in memory that readers may have, or that wait to be looked at.
    pub in_memory: usize,
}

/// A page of the open transaction.
struct Open {
    id: PageId,
    page: OpenPage,
}

impl Pager {
    /// A pager without a file.
    pub fn in_memory() -> Pager {
        let space = Space::new();
        let (pages_used, pages_end) = (space.pages_used(), u64::from(space.pages_end()));
        Pager::with(Root { pages_used, pages_end, ..Root::default() }, space, None)
    }

    pub(super) fn with(root: Root, space: Space, map: Option<MapPages>) -> Pager {
        Pager {
            tx: root.tx + 1,
            table: TableWriter::new(Arc::new(root), map),
            space,
            open: Vec::new(),
            places: Dense::new(),
            freed: Vec::new(),
            reuse: Reuse::default(),
            dirty: Dirty::default(),
            crcs: Dense::new(),
            chosen: None,
            captured: 0,
            defragment: false,
            file: None,
            replaced: 0,
            free_ids: Vec::new(),
        }
    }

    /// The newest root.
    pub fn published(&self) -> Arc<Root> {
        Arc::clone(self.table.root())
    }

    /// The transaction that is open.
    pub fn open_tx(&self) -> u64 {
        self.tx
    }

    /// Pages that it has copied or made.
    pub fn open_pages(&self) -> usize {
        self.open.len()
    }

    /// An end for readers.
    pub fn reader(&self) -> PagerReader {
        PagerReader::new(Arc::clone(self.table.table()))
    }

    /// Pages in use by the open transaction, and the highest of them plus one: what its root will say.
    pub fn pages_in_use(&self) -> (u64, u64) {
        (self.space.pages_used(), u64::from(self.space.pages_end()))
    }

    /// The open transaction becomes visible, the next one begins.
    pub fn publish(&mut self, trees: [Option<ChildRef>; TREES], standing: Standing, cluster: Arc<Cluster>) {
        self.install_open();
        let (pages_used, pages_end) = self.pages_in_use();
        let freed = self.retire_freed();
        self.table.publish(Arc::new(Root { tx: self.tx, trees, standing, cluster, pages_used, pages_end }));
        self.tx += 1;
        self.reclaim_within(RECLAIM_BUDGET + 2 * freed);
    }

    /// Replaces the cluster of the newest root, which opening left out, before anybody reads.
    pub fn set_cluster(&mut self, cluster: Arc<Cluster>) {
        let root = Arc::new(Root { cluster, ..Root::clone(self.table.root()) });
        self.table.replace_root(Arc::clone(&root));
        if self.table.durable().tx == root.tx {
            self.table.set_durable(root);
        }
    }

    /// What waits to be used again.
    pub fn held_back(&self) -> HeldBack {
        let (ids_for_durable, ids_for_readers) = self.reuse.waiting();
        HeldBack { ids_for_durable, ids_for_readers, in_memory: self.table.retired() }
    }

    /// Gives back memory and ids that nobody can reach any more; bounded work.
    pub fn reclaim(&mut self) {
        self.reclaim_within(RECLAIM_BUDGET);
    }

    /// Gives back the memory that is kept for changes to come, where all that is published is in the file; whether it was.
    pub(super) fn rest(&mut self) -> bool {
        let at_rest = self.open.is_empty() && self.freed.is_empty() && self.chosen.is_none();
        if !at_rest || self.dirty.pages() + self.captured > 0 {
            return false;
        }
        self.places = Dense::new();
        // Every branch is in the file, with the CRCs of its children, so nobody asks for those: only a meta for the trees'.
        let written = std::mem::replace(&mut self.crcs, Dense::new());
        for tree in self.published().trees.iter().flatten() {
            self.crcs.set(tree.id.0, written.get(tree.id.0));
        }
        self.table.rest();
        true
    }

    fn reclaim_within(&mut self, budget: usize) {
        let mut free_ids = std::mem::take(&mut self.free_ids);
        self.reuse.settle(self.table.readers(), budget, |id| free_ids.push(id));
        for id in free_ids.drain(..) {
            self.release(id);
        }
        self.free_ids = free_ids;
        // after the ids: their pages are at hand for the next transaction, while they are in the processor's cache
        self.table.reclaim(2 * budget);
    }

    /// Nobody reaches the page: its id is free.
    pub(super) fn release(&mut self, id: PageId) {
        self.table.clear(id, self.table.tx_at(id));
        self.forget_crc(id);
        self.space.release(id);
    }

    /// Moves the open transaction's pages into the table.
    fn install_open(&mut self) {
        let persistent = self.table.table().map().is_some();
        let mut open = std::mem::take(&mut self.open);
        for Open { id, page } in open.drain(..) {
            self.places.set(id.0, 0);
            let page = page.share();
            if persistent {
                self.dirty.insert(id, page.level());
            }
            self.table.install(id, self.tx, page);
        }
        self.open = open;
    }

    /// Sends the pages that the open transaction freed on their way; how many.
    fn retire_freed(&mut self) -> usize {
        let counts = self.counts_as_durable();
        let mut list = std::mem::take(&mut self.freed);
        let freed = list.len();
        for freed in list.drain(..) {
            let in_memory = self.table.page(freed.id, freed.born);
            if in_memory.is_some_and(|page| self.dirty.remove(freed.id, page.level())) {
                self.reuse.written_for_nobody(freed.id);
            }
            let replaced = counts.is_some_and(|durable| freed.born <= durable);
            self.replaced += usize::from(replaced);
            self.reuse.freed(self.tx, freed, replaced);
        }
        self.freed = list;
        freed
    }

    /// The newest transaction whose root is durable or chosen to be.
    fn counts_as_durable(&self) -> Option<u64> {
        self.table.table().map()?;
        Some(self.chosen.as_ref().map_or_else(|| self.table.durable().tx, |root| root.tx))
    }

    /// Ids that the open transaction took, and ids of older pages that it freed.
    pub(super) fn open_changes(&self) -> (Vec<PageId>, Vec<PageId>) {
        (self.open.iter().map(|open| open.id).collect(), self.freed.iter().map(|freed| freed.id).collect())
    }

    #[inline]
    fn open_place(&self, id: PageId) -> Option<usize> {
        (self.places.get(id.0) as usize).checked_sub(1)
    }

    /// Adds a page to the open transaction.
    #[inline]
    fn add_open(&mut self, id: PageId, page: OpenPage) -> &mut Page {
        let at = self.open.len();
        self.places.set(id.0, at as u32 + 1);
        self.open.push(Open { id, page });
        &mut self.open[at].page
    }

    /// Copies a page of an older transaction into the open one.
    fn copy(&mut self, tree: TreeId, at: &mut ChildRef) -> Paged<&mut Page> {
        let mut page = self.table.blank();
        // CRCs of children that it does not know are filled in where it is written
        page.0.copy_from_slice(&self.page(tree, at)?.0);
        self.free_page(at);
        let id = self.space.take();
        page.set_place(id, self.tx);
        *at = ChildRef { id, tx: self.tx, crc: None, count: at.count };
        Ok(self.add_open(id, page))
    }

    /// Takes a page of the open transaction back: nobody ever saw it.
    fn give_back(&mut self, id: PageId) {
        let at = self.open_place(id).expect("a page of the open transaction is freed once");
        self.places.set(id.0, 0);
        let open = self.open.swap_remove(at);
        if let Some(moved) = self.open.get(at) {
            self.places.set(moved.id.0, at as u32 + 1);
        }
        self.table.take_back(open.page);
        self.space.drop_used(id);
        self.space.release(id);
    }

    fn free(&mut self, id: PageId, born: u64) {
        debug_assert!(born <= self.tx, "page {id} is of a transaction to come");
        if born == self.tx {
            self.give_back(id);
        } else {
            self.space.drop_used(id);
            self.freed.push(Freed { id, born });
        }
    }
}

impl Source for Pager {
    #[inline]
    fn memory(&self, id: PageId, tx: u64) -> Option<&Page> {
        if tx == self.tx {
            return Some(&*self.open[self.open_place(id)?].page);
        }
        self.table.page(id, tx)
    }

    #[inline]
    fn map(&self) -> Option<&MapPages> {
        self.table.table().map()
    }
}

impl PagesMut for Pager {
    #[inline]
    fn page_mut(&mut self, tree: TreeId, at: &mut ChildRef) -> Paged<&mut Page> {
        if at.tx != self.tx {
            return self.copy(tree, at);
        }
        match self.open_place(at.id) {
            Some(place) => {
                at.crc = None;
                let page = &mut *self.open[place].page;
                debug_assert!(page.id() == at.id && page.tree() == tree as u8, "{page:?} for {at:?}");
                Ok(page)
            }
            None => {
                Err(self.fault(at.id, format!("a page of the open transaction {}", at.tx), "none".into()))
            }
        }
    }

    fn new_page(&mut self, tree: TreeId, kind: PageKind, level: u8) -> (ChildRef, &mut Page) {
        let id = self.space.take();
        let at = ChildRef { id, tx: self.tx, crc: None, count: 0 };
        let mut page = self.table.blank();
        page.0.fill(0);
        page.begin(kind, tree as u8, level, id, self.tx);
        (at, self.add_open(id, page))
    }

    fn free_page(&mut self, at: &ChildRef) {
        self.free(at.id, at.tx);
    }

    fn new_run(&mut self, tree: TreeId, bytes: &[u8]) -> RunRef {
        let len = u32::try_from(bytes.len()).expect("a run is shorter than a region");
        let run = RunRef { first: PageId(0), bytes: len, tx: self.tx, crc: crc32fast::hash(bytes) };
        let first = self.space.take_run(run.pages());
        for (id, part) in (first.0..).map(PageId).zip(bytes.chunks(RUN_PAGE_BYTES)) {
            let mut page = self.table.blank();
            page.begin(PageKind::Run, tree as u8, 0, id, self.tx);
            let body = page.0.len() - RUN_PAGE_BYTES;
            page.0[body..body + part.len()].copy_from_slice(part);
            page.0[body + part.len()..].fill(0);
            self.add_open(id, page);
        }
        RunRef { first, ..run }
    }

    fn free_run(&mut self, at: &RunRef) {
        for id in at.first.0..at.first.0 + at.pages() {
            self.free(PageId(id), at.tx);
        }
    }

    #[inline]
    fn is_to_move(&self, at: PageId) -> bool {
        self.space.is_to_move(at)
    }
}
