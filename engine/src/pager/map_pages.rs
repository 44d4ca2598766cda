//! Pages of the file, through the map. At its first touch, since opening or since it was written, a page is brought into
//! memory by a call that answers with an error where a load would end the process, and checked whole; after that a
//! glance at its head is enough.

use super::Paged;
use super::doubling::Doubling;
use super::page::{ChildRef, Page, PageId, PageKind, RunRef, TreeId};
use super::page_table::as_page;
use super::sync::{AtomicU64, Ordering};
use crate::disk::FileMap;
use crate::error::Fault;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The map, which pages were checked and which were hinted: one bit each.
pub(super) struct MapPages {
    map: Arc<dyn FileMap>,
    path: PathBuf,
    checked: Doubling<AtomicU64>,
    /// Begun to be brought into memory, since opening or since they were written.
    hinted: Doubling<AtomicU64>,
    /// Pages that were not in memory when they were hinted, or touched without a hint.
    read: AtomicU64,
}

/// What a page must say of itself.
struct Expected {
    id: PageId,
    tree: TreeId,
    tx: u64,
    crc: Option<u32>,
    run: bool,
}

impl MapPages {
    pub(super) fn new(map: Arc<dyn FileMap>, path: PathBuf) -> MapPages {
        MapPages { map, path, checked: Doubling::new(), hinted: Doubling::new(), read: AtomicU64::new(0) }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The page of a tree.
    #[inline]
    pub(super) fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
        if self.is_checked(at.id) {
            let page = self.bytes(at.id);
            let is_named = page.tx() == at.tx && page.id() == at.id && page.tree() == tree as u8;
            if is_named && at.crc.is_none_or(|crc| crc == page.stored_crc()) {
                return Ok(page);
            }
        }
        self.check(&Expected { id: at.id, tree, tx: at.tx, crc: at.crc, run: false })
    }

    /// A run's page; with it, whether this was its first touch. Each is one until [`MapPages::run_is_whole`] says otherwise: a
    /// page that is whole in itself may be one of an earlier life, with the same number of its transaction, and only the CRC
    /// of the whole run tells.
    pub(super) fn run_page(&self, tree: TreeId, run: &RunRef, id: PageId) -> Paged<(&Page, bool)> {
        let first = !self.is_checked(id);
        Ok((self.check(&Expected { id, tree, tx: run.tx, crc: None, run: true })?, first))
    }

    /// Begins to bring a page into memory, if it was neither touched nor hinted before.
    pub(super) fn page_ahead(&self, id: PageId) {
        self.ahead(id, 1);
    }

    /// The pages are those of a run whose CRC was found right.
    pub(super) fn run_is_whole(&self, touched: &[PageId]) {
        touched.iter().for_each(|id| set(&self.checked, *id));
    }

    /// Begins to bring a run's pages into memory, many at once.
    pub(super) fn run_ahead(&self, run: &RunRef) {
        self.ahead(run.first, run.pages());
    }

    fn ahead(&self, first: PageId, pages: u32) {
        if is_set(&self.checked, first) || is_set(&self.hinted, first) {
            return;
        }
        set(&self.hinted, first);
        if !self.map.is_in_memory(first.0) {
            self.read.fetch_add(u64::from(pages), Ordering::Relaxed);
            self.map.read_ahead(first.0, pages);
        }
    }

    /// How many pages were not in memory when they were first wanted.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The page will be checked anew: it was written.
    pub(super) fn forget(&self, id: PageId) {
        for bits in [&self.checked, &self.hinted] {
            bits.reserve(id.0 / 64, words).fetch_and(!bit(id), Ordering::Relaxed);
        }
    }

    /// What to answer when a page is not what it must be.
    pub(super) fn corrupt(&self, at: PageId, expected: String, found: String) -> Box<Fault> {
        Box::new(Fault::Corrupt { path: self.path.clone(), offset: at.offset(), expected, found })
    }

    fn is_checked(&self, id: PageId) -> bool {
        is_set(&self.checked, id)
    }

    fn bytes(&self, id: PageId) -> &Page {
        as_page(self.map.page(id.0))
    }

    /// Checks a page; whole, if it was not before.
    fn check(&self, expected: &Expected) -> Paged<&Page> {
        let id = expected.id;
        let first = !self.is_checked(id);
        if first {
            if !is_set(&self.hinted, id) && !self.map.is_in_memory(id.0) {
                self.read.fetch_add(1, Ordering::Relaxed);
            }
            self.map.populate(id.0, 1).map_err(|source| {
                Box::new(Fault::Io {
                    operation: "read through the map",
                    path: self.path.clone(),
                    offset: id.offset(),
                    source,
                })
            })?;
        }
        let page = self.bytes(id);
        self.check_head(page, expected)?;
        // whoever touched it first may have known no CRC of it
        if first || expected.crc.is_some_and(|crc| crc != page.stored_crc()) {
            self.check_crc(page, expected)?;
        }
        if first && !expected.run {
            set(&self.checked, id);
        }
        Ok(page)
    }

    fn check_head(&self, page: &Page, expected: &Expected) -> Paged<()> {
        let kind_fits = match page.kind() {
            Some(PageKind::Run) => expected.run,
            Some(PageKind::Leaf) => !expected.run && page.level() == 0,
            Some(PageKind::Branch) => !expected.run && page.level() > 0,
            _ => false,
        };
        let place_fits = page.id() == expected.id && page.tx() == expected.tx;
        if kind_fits && place_fits && page.tree() == expected.tree as u8 {
            return Ok(());
        }
        let kind = if expected.run { "a run" } else { "a tree" };
        Err(self.corrupt(
            expected.id,
            format!("a page of {kind}: tree {}, id {}, tx {}", expected.tree as u8, expected.id, expected.tx),
            format!("{page:?}"),
        ))
    }

    fn check_crc(&self, page: &Page, expected: &Expected) -> Paged<()> {
        if cfg!(fuzzing) {
            // under a fuzzer every checksum matches, so that it gets to the code behind
            return Ok(());
        }
        let computed = page.computed_crc();
        if page.stored_crc() != computed {
            let found = format!("bytes whose CRC is {computed:#010x}");
            return Err(self.corrupt(
                expected.id,
                format!("CRC {:#010x}, as the page says", page.stored_crc()),
                found,
            ));
        }
        match expected.crc {
            Some(crc) if crc != computed => {
                let found = format!("{computed:#010x}, an older or foreign page");
                Err(self.corrupt(expected.id, format!("CRC {crc:#010x}, as its parent says"), found))
            }
            _ => Ok(()),
        }
    }
}

fn is_set(bits: &Doubling<AtomicU64>, id: PageId) -> bool {
    // relaxed: the bit carries nothing but itself, the page is the same for whoever reads it
    bits.get(id.0 / 64).is_some_and(|word| word.load(Ordering::Relaxed) & bit(id) != 0)
}

fn set(bits: &Doubling<AtomicU64>, id: PageId) {
    bits.reserve(id.0 / 64, words).fetch_or(bit(id), Ordering::Relaxed);
}

fn words(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

fn bit(id: PageId) -> u64 {
    1 << (id.0 % 64)
}
