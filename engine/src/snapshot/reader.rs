//! An image of the newest durable root, made piece by piece while the store goes on.
//!
//! The root is pinned: as long as the reader lives, none of its pages is given to anybody else. They are read from the file
//! through the page cache, many neighbours at once, never through the map, and never from memory: a durable root stands in
//! the file with all its CRCs.
//!
//! Besides each page's own CRC there is what its parent says of it. Pages come in the order of their ids, so the two rarely
//! meet; both sides are added up instead, and the sums must agree at the end. An older page left in a newer one's place by a
//! lost write is found by that, before the image is said to be whole.

use super::format::{ImageHead, LABEL_BYTES, PageSet, check_page, corrupt};
use crate::error::Fault;
use crate::pager::offline::{PAGE_FORMAT_NUMBER, StoredRoot, stored_root};
use crate::pager::page::{ChildRef, PAGE_BYTES, Page, PageId, PageKind};
use crate::pager::{Paged, PagerReader, Pinned, children};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Neighbouring pages read in one call.
const READ_PAGES: u64 = 32;
/// Checkpoints that may overtake the reading of what a root reaches, which takes milliseconds.
const TRIES: usize = 8;

/// Reads an image. Dropping it lets the root go.
pub struct SnapshotReader {
    reader: PagerReader,
    pinned: Pinned,
    file: PageReader,
    head: ImageHead,
    pages: PageSet,
    /// The next block of the image.
    next: u64,
    /// Pages below this one were read.
    next_page: u64,
    kin: Kinship,
}

impl SnapshotReader {
    /// Begins an image of the newest durable root. `label` is kept in it, cut to [`LABEL_BYTES`].
    ///
    /// # Errors
    /// [`Fault::Unusable`] for a store without a file; [`Fault::Io`]; [`Fault::Corrupt`] where what the root reaches cannot
    /// be read.
    pub fn begin(reader: &PagerReader, label: &str) -> Result<SnapshotReader, Fault> {
        let Some(path) = reader.path().map(Path::to_path_buf) else {
            let reason = "the store is in memory: there is nothing durable to take an image of".to_owned();
            return Err(Fault::Unusable { path: PathBuf::from("memory"), reason });
        };
        let file = File::open(&path).map_err(|source| Fault::Io {
            operation: "open",
            path: path.clone(),
            offset: 0,
            source,
        })?;
        for _ in 0..TRIES {
            let pinned = reader.pin_durable();
            if let Some(stored) = stored_root(&file, &path, pinned.root().tx)? {
                return Ok(SnapshotReader::of(
                    reader.clone(),
                    pinned,
                    PageReader::new(file, path),
                    stored,
                    label,
                ));
            }
        }
        let expected = "the meta of the durable root, and the bitmap that it names".to_owned();
        Err(corrupt(&path, 0, expected, format!("none whole in {TRIES} tries")))
    }

    fn of(
        reader: PagerReader,
        pinned: Pinned,
        file: PageReader,
        stored: StoredRoot,
        label: &str,
    ) -> SnapshotReader {
        let pages = PageSet::of_words(stored.used);
        let mut label = label.to_owned();
        while label.len() > LABEL_BYTES {
            label.pop();
        }
        let head = ImageHead {
            page_format: PAGE_FORMAT_NUMBER,
            owner: stored.owner,
            tx: stored.root.tx,
            trees: stored.root.trees,
            standing: stored.root.standing,
            pages: pages.pages(),
            pages_end: pages.end(),
            label,
        };
        let mut kin = Kinship::default();
        head.trees.iter().flatten().for_each(|tree| kin.named(tree));
        SnapshotReader { reader, pinned, file, head, pages, next: 0, next_page: 0, kin }
    }

    /// What the image says of itself.
    pub fn head(&self) -> &ImageHead {
        &self.head
    }

    /// Bytes of the whole image.
    pub fn image_bytes(&self) -> u64 {
        self.head.image_bytes()
    }

    /// By how many bytes the pages in use reach further into the file than when the image was begun: at most what this
    /// reader holds back.
    pub fn growth_bytes(&self) -> u64 {
        let grown = self.reader.read().root().pages_end.saturating_sub(self.pinned.root().pages_end);
        grown * PAGE_BYTES as u64
    }

    /// Appends whole blocks to `out`, up to `bytes_max` bytes and at least one block; nothing at the end of the image.
    ///
    /// # Errors
    /// A page that is damaged or cannot be read. The image is over then: it must not be called whole.
    pub fn read(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Paged<()> {
        for _ in 0..(bytes_max / PAGE_BYTES).max(1) {
            if !self.read_block(out)? {
                break;
            }
        }
        Ok(())
    }

    fn read_block(&mut self, out: &mut Vec<u8>) -> Paged<bool> {
        let block = self.next;
        if block == 0 {
            out.extend_from_slice(&self.head.encode().0);
        } else if block < self.head.first_page_block() {
            out.extend_from_slice(&self.pages.map_block(block - 1, self.head.tx).0);
        } else if !self.read_page(out)? {
            return Ok(false);
        }
        self.next += 1;
        if self.next == self.head.first_page_block() + self.head.pages {
            self.kin.check(&self.file.path)?;
        }
        Ok(true)
    }

    fn read_page(&mut self, out: &mut Vec<u8>) -> Paged<bool> {
        let Some(id) = self.pages.at_or_above(self.next_page) else { return Ok(false) };
        let page = self.file.page(id, &self.pages)?;
        check_page(&self.file.path, id.offset(), &page, id, self.head.tx)?;
        self.kin.seen(&page);
        out.extend_from_slice(&page.0);
        self.next_page = u64::from(id.0) + 1;
        Ok(true)
    }
}

/// Reads pages in ascending order.
pub(crate) struct PageReader {
    file: File,
    path: PathBuf,
    window: Vec<u8>,
    /// The first page in the window.
    first: u64,
}

impl PageReader {
    pub(crate) fn new(file: File, path: PathBuf) -> PageReader {
        PageReader { file, path, window: Vec::new(), first: 0 }
    }

    pub(crate) fn page(&mut self, id: PageId, wanted: &PageSet) -> Result<Page, Fault> {
        let at = u64::from(id.0);
        if !(self.first..self.first + (self.window.len() / PAGE_BYTES) as u64).contains(&at) {
            self.fill(at, wanted)?;
        }
        let from = (at - self.first) as usize * PAGE_BYTES;
        let mut page = Page([0; PAGE_BYTES]);
        page.0.copy_from_slice(&self.window[from..from + PAGE_BYTES]);
        Ok(page)
    }

    /// Reads from a page on, as far as the pages behind it are wanted too.
    fn fill(&mut self, first: u64, wanted: &PageSet) -> Result<(), Fault> {
        let is_wanted = |page: &u64| wanted.place(PageId(*page as u32)).is_some();
        let pages = (first..(first + READ_PAGES).min(wanted.end())).take_while(is_wanted).count();
        let offset = first * PAGE_BYTES as u64;
        self.first = first;
        self.window.resize(pages.max(1) * PAGE_BYTES, 0);
        self.file.read_exact_at(&mut self.window, offset).map_err(|source| {
            self.window.clear();
            Fault::Io { operation: "read", path: self.path.clone(), offset, source }
        })
    }
}

/// What branches say of their children, and what the children are, as sums in which the order does not count.
#[derive(Debug, Default)]
struct Kinship {
    named: u64,
    seen: u64,
}

impl Kinship {
    fn named(&mut self, child: &ChildRef) {
        self.named = self.named.wrapping_add(trait_of(child.id, child.tx, child.crc.unwrap_or_default()));
    }

    fn seen(&mut self, page: &Page) {
        if page.kind() == Some(PageKind::Run) {
            return;
        }
        self.seen = self.seen.wrapping_add(trait_of(page.id(), page.tx(), page.stored_crc()));
        children(page).for_each(|child| self.named(&child));
    }

    fn check(&self, path: &Path) -> Result<(), Fault> {
        if self.named == self.seen {
            return Ok(());
        }
        let found =
            "an older or foreign page among them, whole in itself; 'coffer check' tells which".to_owned();
        Err(corrupt(path, 0, "pages that are what their parents say".to_owned(), found))
    }
}

/// A page's id, transaction and CRC, well mixed.
fn trait_of(id: PageId, tx: u64, crc: u32) -> u64 {
    let mut mixed =
        (u64::from(id.0) << 32 | u64::from(crc)).wrapping_add(tx.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for factor in [0xBF58_476D_1CE4_E5B9_u64, 0x94D0_49BB_1331_11EB] {
        mixed = (mixed ^ mixed >> 30).wrapping_mul(factor);
    }
    mixed ^ mixed >> 31
}
