//! An image that lies in a file: looked at as if it were a store, and made into a page file.

use super::format::{ImageHead, PageSet, check_page, corrupt};
use crate::disk::{BLOCK_BYTES, Disk, FileMap};
use crate::error::Fault;
use crate::mvcc::view::View;
use crate::pager::offline::{FILE_PAGES_MIN, FilePages, PAGE_FORMAT_NUMBER, fixed_pages_of, page_at};
use crate::pager::page::{ChildRef, PAGE_BYTES, Page, PageId, RunRef, TreeId};
use crate::pager::root::Root;
use crate::pager::{Paged, Pages, fixed_pages_below};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the checksum that may stand behind an image.
pub const CHECKSUM_BYTES: u64 = 32;
/// Pages of an image that are copied at once.
const COPY_PAGES: usize = 64;

/// Told the first page of a stretch, and the bytes of all its pages.
type Each<'a> = &'a mut dyn FnMut(PageId, &[u8]) -> Result<(), Fault>;

/// An image in a file.
pub struct Image {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    head: ImageHead,
    pages: Arc<PageSet>,
    mapped: FilePages,
    root: Root,
}

impl Image {
    /// Opens the image at `path`: its head, its map and who was in its cluster. Its pages are read when they are asked for.
    ///
    /// # Errors
    /// [`Fault::Unusable`] for what is no image, or one of another format; [`Fault::Corrupt`]; [`Fault::Io`].
    pub fn open(disk: &mut dyn Disk, path: &Path) -> Result<Image, Fault> {
        let io = |operation| {
            let path = path.to_path_buf();
            move |source| Fault::Io { operation, path, offset: 0, source }
        };
        let file = File::open(path).map_err(io("open"))?;
        let file_bytes = file.metadata().map_err(io("look at"))?.len();
        if file_bytes < PAGE_BYTES as u64 {
            let reason = format!("no image of coffer: {file_bytes} bytes");
            return Err(Fault::Unusable { path: path.to_path_buf(), reason });
        }
        let head = ImageHead::decode(path, &page_at(&file, path, PageId(0))?)?;
        if head.page_format != PAGE_FORMAT_NUMBER {
            let reason = format!(
                "an image of a page file of format {}; this program reads and writes format {PAGE_FORMAT_NUMBER}",
                head.page_format
            );
            return Err(Fault::Unusable { path: path.to_path_buf(), reason });
        }
        let image_bytes = head.image_bytes();
        if file_bytes != image_bytes && file_bytes != image_bytes + CHECKSUM_BYTES {
            let expected =
                format!("an image of {image_bytes} bytes, with or without a checksum of {CHECKSUM_BYTES}");
            return Err(corrupt(path, file_bytes.min(image_bytes), expected, format!("{file_bytes} bytes")));
        }
        let pages = PageSet::read(path, &head, |block| page_at(&file, path, PageId(block as u32 + 1)))?;
        let pages = Arc::new(pages);
        let map = disk.map(path).map_err(io("map"))?;
        let map = ImageMap { map, first: head.first_page_block(), pages: Arc::clone(&pages) };
        let mapped = FilePages::new(Arc::new(map), path.to_path_buf());
        let pages_end = head.pages_end.max(FILE_PAGES_MIN);
        let mut root = Root {
            tx: head.tx,
            trees: head.trees,
            standing: head.standing,
            pages_used: head.pages + fixed_pages_below(pages_end),
            pages_end,
            ..Root::default()
        };
        let mut image =
            Image { path: path.to_path_buf(), file, file_bytes, head, pages, mapped, root: root.clone() };
        let cluster = View::of(&image, &image.root).stored_cluster().map_err(|fault| *fault)?;
        root.cluster = Arc::new(cluster.unwrap_or_default());
        image.root = root;
        Ok(image)
    }

    /// What it says of itself.
    pub fn head(&self) -> &ImageHead {
        &self.head
    }

    /// The root it was taken of.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The pages it holds.
    pub fn pages(&self) -> &PageSet {
        &self.pages
    }

    /// Whether a checksum may stand behind it.
    pub fn has_checksum(&self) -> bool {
        self.file_bytes == self.head.image_bytes() + CHECKSUM_BYTES
    }

    /// Makes a page file of it at `path`, where there is none, for another owner. The file is durable when this returns,
    /// its name in the directory not yet. `progress` is told how many bytes are copied, and of how many.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] for a page that is not whole; [`Fault::Io`]. What is written so far stays.
    pub fn write_page_file(
        &self,
        path: &Path,
        owner: [u8; 16],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Fault> {
        let io = |operation, offset| {
            let path = path.to_path_buf();
            move |source| Fault::Io { operation, path, offset, source }
        };
        let mut used = vec![0_u64; self.head.pages_end.div_ceil(64) as usize];
        self.pages.iter().for_each(|id| used[id.0 as usize / 64] |= 1 << (id.0 % 64));
        let (fixed, bytes) = fixed_pages_of(owner, &self.root, &used).map_err(|found| {
            corrupt(&self.path, PAGE_BYTES as u64, "pages of a page file".to_owned(), found)
        })?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(io("create", 0))?;
        allocate(&file, bytes).map_err(io("allocate", 0))?;
        self.copy_pages(&file, path, progress)?;
        // the metas only when all that they name is there
        let metas = fixed.len() - 2;
        for page in &fixed[..metas] {
            file.write_all_at(&page.0, page.id().offset()).map_err(io("write", page.id().offset()))?;
        }
        file.sync_all().map_err(io("sync", 0))?;
        for page in &fixed[metas..] {
            file.write_all_at(&page.0, page.id().offset()).map_err(io("write", page.id().offset()))?;
        }
        file.sync_all().map_err(io("sync", 0))
    }

    /// Reads every page and checks that it is whole; `progress` is told how many bytes are done, and of how many.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] for the first page that is not; [`Fault::Io`].
    pub fn check_pages(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Fault> {
        self.for_each_stretch(progress, &mut |_, _| Ok(()))
    }

    fn copy_pages(&self, to: &File, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Fault> {
        self.for_each_stretch(progress, &mut |first, bytes| {
            to.write_all_at(bytes, first.offset()).map_err(|source| Fault::Io {
                operation: "write",
                path: path.to_path_buf(),
                offset: first.offset(),
                source,
            })
        })
    }

    /// Reads all pages in order, neighbours of the page file together, checks them, and gives them to `each`.
    fn for_each_stretch(&self, progress: &mut dyn FnMut(u64, u64), each: Each<'_>) -> Result<(), Fault> {
        let ids: Vec<PageId> = self.pages.iter().collect();
        let total = ids.len() as u64 * PAGE_BYTES as u64;
        let mut buf = Vec::new();
        let mut block = self.head.first_page_block();
        let mut rest = &ids[..];
        while let Some(first) = rest.first() {
            let together = (0..).map(|step| first.0.wrapping_add(step)).zip(rest);
            let count = together.take(COPY_PAGES).take_while(|(next, id)| *next == id.0).count();
            buf.resize(count * PAGE_BYTES, 0);
            let offset = block * PAGE_BYTES as u64;
            self.file.read_exact_at(&mut buf, offset).map_err(|source| Fault::Io {
                operation: "read",
                path: self.path.clone(),
                offset,
                source,
            })?;
            self.check_stretch(&buf, offset, &rest[..count])?;
            each(*first, &buf)?;
            block += count as u64;
            rest = &rest[count..];
            progress(total - rest.len() as u64 * PAGE_BYTES as u64, total);
        }
        Ok(())
    }

    fn check_stretch(&self, bytes: &[u8], offset: u64, ids: &[PageId]) -> Result<(), Fault> {
        let mut page = Page([0; PAGE_BYTES]);
        for (number, (bytes, id)) in bytes.chunks_exact(PAGE_BYTES).zip(ids).enumerate() {
            page.0.copy_from_slice(bytes);
            check_page(&self.path, offset + (number * PAGE_BYTES) as u64, &page, *id, self.head.tx)?;
        }
        Ok(())
    }

    /// A fault that names a place in the page file, with the place in the image instead.
    #[cold]
    fn placed(&self, mut fault: Box<Fault>) -> Box<Fault> {
        if let Fault::Corrupt { offset, .. } | Fault::Io { offset, .. } = &mut *fault {
            let id = PageId((*offset / PAGE_BYTES as u64) as u32);
            if let Some(place) = self.pages.place(id) {
                *offset = (self.head.first_page_block() + place) * PAGE_BYTES as u64;
            }
        }
        fault
    }
}

impl Pages for Image {
    fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
        self.mapped.page(tree, at).map_err(|fault| self.placed(fault))
    }

    fn run(&self, tree: TreeId, at: &RunRef) -> Paged<Bytes> {
        self.mapped.run(tree, at).map_err(|fault| self.placed(fault))
    }

    fn fault(&self, at: PageId, expected: String, found: String) -> Box<Fault> {
        self.placed(self.mapped.fault(at, expected, found))
    }
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // where a file system cannot, the pages take their room as they are written
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

/// The pages of an image under the ids they have in their page file.
struct ImageMap {
    map: Arc<dyn FileMap>,
    /// The block of the first page.
    first: u64,
    pages: Arc<PageSet>,
}

impl ImageMap {
    fn block(&self, page: u32) -> Option<u32> {
        self.pages.place(PageId(page)).and_then(|place| u32::try_from(self.first + place).ok())
    }
}

impl FileMap for ImageMap {
    fn page(&self, page: u32) -> &[u8; BLOCK_BYTES] {
        let block = self.block(page).expect("a page that was populated is in the image");
        self.map.page(block)
    }

    fn populate(&self, first: u32, pages: u32) -> io::Result<()> {
        for page in first..first.saturating_add(pages) {
            let block = self.block(page).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("page {page} is not in the image"))
            })?;
            self.map.populate(block, 1)?;
        }
        Ok(())
    }

    fn read_ahead(&self, first: u32, pages: u32) {
        // a run's pages are neighbours in an image too
        if let Some(block) = self.block(first) {
            self.map.read_ahead(block, pages);
        }
    }
}
