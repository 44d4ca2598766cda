//! The readers' end: registered at a root, a reader sees that root's pages as long as it stays.

use super::map_pages::MapPages;
use super::page::{ChildRef, Page, PageId, PageKind, RUN_PAGE_BYTES, RunRef, TreeId};
use super::page_table::{PageTable, Registration};
use super::root::Root;
use super::space::RUN_PAGES_MAX;
use super::{Paged, Pages};
use crate::error::Fault;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the newest roots, from any thread. Each clone begins to look for a place among the readers elsewhere, so a
/// thread that has its own is not in the way of others.
pub struct PagerReader {
    table: Arc<PageTable>,
    home: usize,
}

/// A reader of the root that was the newest when it came. It holds back the memory and the ids of what its root reaches
/// and later ones do not: a short stay is meant.
pub struct ReadGuard<'a>(Registration<&'a PageTable>);

/// A reader that owns what it needs, for long stays and for other threads.
pub struct Pinned(Registration<Arc<PageTable>>);

impl PagerReader {
    pub(super) fn new(table: Arc<PageTable>) -> PagerReader {
        PagerReader { home: table.next_home(), table }
    }

    /// The page file, if the store has one.
    pub fn path(&self) -> Option<&Path> {
        self.table.map().map(MapPages::path)
    }

    /// Pages of the file that were not in memory when they were first wanted, by whomever; 0 without a file.
    pub fn pages_read(&self) -> u64 {
        self.table.map().map_or(0, MapPages::read)
    }

    /// Readers that are registered, by whomever.
    pub fn reads_under_way(&self) -> usize {
        self.table.readers_registered()
    }

    /// Registers at the newest root. Nothing here waits.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_> {
        ReadGuard(self.table.read(self.home))
    }

    /// Registers at the newest root.
    pub fn pin_published(&self) -> Pinned {
        Pinned(self.table.pin_newest(self.home))
    }

    /// Registers at the newest durable root; its pages are all in the file, so it holds back no memory. Of a store in
    /// memory, nothing of which is ever durable, the newest root.
    pub fn pin_durable(&self) -> Pinned {
        match self.table.map() {
            Some(_) => Pinned(self.table.pin_durable(self.home)),
            None => self.pin_published(),
        }
    }
}

impl Clone for PagerReader {
    fn clone(&self) -> PagerReader {
        PagerReader::new(Arc::clone(&self.table))
    }
}

impl ReadGuard<'_> {
    /// The root it reads.
    #[inline]
    pub fn root(&self) -> &Root {
        self.0.root()
    }
}

impl Pinned {
    /// The root it reads.
    pub fn root(&self) -> &Root {
        self.0.root()
    }
}

/// Where pages come from: memory, then the map.
pub(super) trait Source {
    /// The page that transaction `tx` wrote, if it is in memory.
    fn memory(&self, id: PageId, tx: u64) -> Option<&Page>;

    /// The map, if there is a file.
    fn map(&self) -> Option<&MapPages>;
}

impl Source for ReadGuard<'_> {
    #[inline]
    fn memory(&self, id: PageId, tx: u64) -> Option<&Page> {
        self.0.page(id, tx)
    }

    #[inline]
    fn map(&self) -> Option<&MapPages> {
        self.0.map()
    }
}

impl Source for Pinned {
    fn memory(&self, id: PageId, tx: u64) -> Option<&Page> {
        self.0.page(id, tx)
    }

    fn map(&self) -> Option<&MapPages> {
        self.0.map()
    }
}

/// Everything that has a [`Source`] reads in the same way.
macro_rules! pages_from_source {
    ($($reader:ty),*) => {$(
        impl Pages for $reader {
            #[inline]
            fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
                page_of(self, tree, at)
            }

            fn run(&self, tree: TreeId, at: &RunRef) -> Paged<Bytes> {
                run_of(self, tree, at)
            }

            fn read_ahead(&self, at: &ChildRef) {
                if self.memory(at.id, at.tx).is_none()
                    && let Some(map) = self.map()
                {
                    map.page_ahead(at.id);
                }
            }

            fn run_ahead(&self, run: &RunRef) {
                // all of a run is in memory, or little of it
                if self.memory(run.first, run.tx).is_none()
                    && let Some(map) = self.map()
                {
                    map.run_ahead(run);
                }
            }

            fn fault(&self, at: PageId, expected: String, found: String) -> Box<Fault> {
                fault_of(self, at, expected, found)
            }
        }
    )*};
}

pages_from_source!(ReadGuard<'_>, Pinned, super::Pager);

#[inline]
fn page_of<'s>(source: &'s impl Source, tree: TreeId, at: &ChildRef) -> Paged<&'s Page> {
    if let Some(page) = source.memory(at.id, at.tx) {
        debug_assert!(
            page.id() == at.id && page.tx() == at.tx && page.tree() == tree as u8,
            "{page:?} for {at:?}"
        );
        return Ok(page);
    }
    match source.map() {
        Some(map) => map.page(tree, at),
        None => Err(missing(source, at.id, at.tx)),
    }
}

fn run_of(source: &impl Source, tree: TreeId, run: &RunRef) -> Paged<Bytes> {
    let pages = run.pages();
    if !(1..=RUN_PAGES_MAX).contains(&pages) || run.first.0.checked_add(pages).is_none() {
        return Err(fault_of(source, run.first, "a run of a length that can be".into(), format!("{run:?}")));
    }
    let mut bytes = Vec::with_capacity(run.bytes as usize);
    let mut touched = Vec::new();
    for id in (run.first.0..run.first.0 + pages).map(PageId) {
        let (page, first_touch) = run_page(source, tree, run, id)?;
        touched.extend(first_touch.then_some(id));
        let from = page.0.len() - RUN_PAGE_BYTES;
        let len = RUN_PAGE_BYTES.min(run.bytes as usize - bytes.len());
        bytes.extend_from_slice(&page.0[from..from + len]);
    }
    let crc = if touched.is_empty() { run.crc } else { crc32fast::hash(&bytes) };
    if crc != run.crc && !cfg!(fuzzing) {
        let expected = format!("a run of {} bytes with CRC {:#010x}", run.bytes, run.crc);
        return Err(fault_of(source, run.first, expected, format!("{crc:#010x}")));
    }
    if let Some(map) = source.map() {
        map.run_is_whole(&touched);
    }
    Ok(bytes.into())
}

/// A run's page; with it, whether the file's bytes were touched for the first time.
fn run_page<'s>(source: &'s impl Source, tree: TreeId, run: &RunRef, id: PageId) -> Paged<(&'s Page, bool)> {
    if let Some(page) = source.memory(id, run.tx) {
        debug_assert!(page.id() == id && page.kind() == Some(PageKind::Run) && page.tree() == tree as u8);
        return Ok((page, false));
    }
    let map = source.map().ok_or_else(|| missing(source, id, run.tx))?;
    if id == run.first && run.pages() > 1 {
        map.run_ahead(run);
    }
    map.run_page(tree, run, id)
}

/// There is no file, and the page is not in memory.
#[cold]
fn missing(source: &impl Source, at: PageId, tx: u64) -> Box<Fault> {
    fault_of(source, at, format!("page {at} of tx {tx}"), "nothing".into())
}

#[cold]
fn fault_of(source: &impl Source, at: PageId, expected: String, found: String) -> Box<Fault> {
    let path = source.map().map_or_else(|| PathBuf::from("memory"), |map| map.path().to_owned());
    Box::new(Fault::Corrupt { path, offset: at.offset(), expected, found })
}
