//! The page file as it lies, for those who have no pager: an image is taken from it, it is checked, it is made anew.
//!
//! | who | what |
//! |---|---|
//! | an image | [`stored_root`]: what one durable root reaches, read while the pager goes on writing |
//! | the check | [`lying_file`]: the newest whole meta and all it names, as opening finds them; nothing is changed |
//! | a restore | [`fixed_pages_of`]: metas, directories and bitmap of a file whose pages are known |
//! | the last two | [`FilePages`]: pages through a map, checked at their first touch |

use super::map_pages::MapPages;
use super::meta::{
    FORMAT_NUMBER, Meta, NoMeta, PlaceRef, Which, block_bits, decode_directory, encode_block,
    encode_directory,
};
use super::opening::{Found, read_all};
use super::page::{ChildRef, PAGE_BYTES, Page, PageId, RUN_PAGE_BYTES, RunRef, TreeId};
use super::places::{DIRECTORY_BLOCKS, FIRST_PAGE, META_PAGES, PAGES_MAX, fixed_pages, meta_places, regions};
use super::root::Root;
use super::space::{BITMAP_BYTES, REGION_PAGES, RUN_PAGES_MAX};
use super::{Paged, Pages, grow};
use crate::disk::blocking::{run_named, unexpected};
use crate::disk::{Disk, Done, FileMap, Op};
use crate::error::Fault;
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of the page file's format.
pub const PAGE_FORMAT_NUMBER: u32 = FORMAT_NUMBER;

/// Pages of the smallest file.
pub const FILE_PAGES_MIN: u64 = FIRST_PAGE as u64;
/// Pages that a file may have.
pub const FILE_PAGES_MAX: u64 = PAGES_MAX;

const WORDS: usize = REGION_PAGES as usize / 64;

/// A durable root and what it reaches.
#[derive(Debug)]
pub struct StoredRoot {
    /// Whose file it is.
    pub owner: [u8; 16],
    /// The number of its checkpoint.
    pub checkpoint: u64,
    /// The root, its cluster left out.
    pub root: Root,
    /// A bit for each page that it reaches, the fixed places left out; bit `i % 64` of word `i / 64` is page `i`.
    pub used: Vec<u64>,
}

/// Reads the root of transaction `tx` and what it reaches from an open page file, which a pager may be writing: `None` when
/// its meta, or what that names, was overwritten meanwhile, so that a newer one must be asked for.
///
/// # Errors
/// [`Fault::Io`].
pub fn stored_root(file: &File, path: &Path, tx: u64) -> Result<Option<StoredRoot>, Fault> {
    let mut newest: Option<Meta> = None;
    for place in (0..META_PAGES).map(PageId) {
        let meta = Meta::decode(&page_at(file, path, place)?, place);
        if let Ok(meta) = meta
            && meta.root.tx == tx
            && newest.as_ref().is_none_or(|newest| newest.number < meta.number)
        {
            newest = Some(meta);
        }
    }
    let Some(meta) = newest else { return Ok(None) };
    let mut blocks = Vec::new();
    for (number, named) in (0..).zip(&meta.directories) {
        let page = page_at(file, path, named.place)?;
        let count = (meta.blocks - number * DIRECTORY_BLOCKS).min(DIRECTORY_BLOCKS);
        let checked = Which::Directory(number).check(&page, named);
        match checked.and_then(|()| decode_directory(&page, number, count)) {
            Ok(named) => blocks.extend(named),
            Err(_) => return Ok(None),
        }
    }
    let mut used = Vec::with_capacity(blocks.len() * WORDS);
    for (number, named) in (0..).zip(&blocks) {
        let page = page_at(file, path, named.place)?;
        if Which::Block(number).check(&page, named).is_err() {
            return Ok(None);
        }
        add_words(&mut used, number, block_bits(&page));
    }
    Ok(Some(StoredRoot { owner: meta.owner, checkpoint: meta.number, root: meta.root, used }))
}

/// Reads one page, through the page cache.
///
/// # Errors
/// [`Fault::Io`].
pub fn page_at(file: &File, path: &Path, id: PageId) -> Result<Page, Fault> {
    let mut page = Page([0; PAGE_BYTES]);
    file.read_exact_at(&mut page.0, id.offset()).map_err(|source| Fault::Io {
        operation: "read",
        path: path.to_path_buf(),
        offset: id.offset(),
        source,
    })?;
    Ok(page)
}

/// Appends a block's bits to `used`, without the fixed places.
fn add_words(used: &mut Vec<u64>, region: u32, bits: &[u8]) {
    let first = used.len();
    let words = bits
        .chunks_exact(8)
        .map(|bytes| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte)));
    used.extend(words);
    used[first] &= u64::MAX << fixed_pages(region);
}

/// A page file that no pager has open.
pub struct LyingFile {
    /// Its newest durable root.
    pub stored: StoredRoot,
    /// Its pages.
    pub pages: FilePages,
    /// Its length in bytes.
    pub bytes: u64,
    /// Metas that are not what they should be: offset, and what is wrong.
    pub metas_damaged: Vec<(u64, String)>,
}

/// Reads the newest whole meta of the page file at `path`, and all that it names, as opening does: synced before, past
/// the cache. Nothing is written. `owner`: whose file it must be; any is taken if nobody can say.
///
/// # Errors
/// [`Fault::Corrupt`], [`Fault::Unusable`], [`Fault::Io`], as opening gives them.
pub fn lying_file(disk: &mut dyn Disk, path: &Path, owner: Option<[u8; 16]>) -> Result<LyingFile, Fault> {
    let op = Op::Open { path: path.to_path_buf(), create: false, cached: true };
    let (file, bytes) = match run_named(disk, "open", path, op)? {
        Done::Opened(file, bytes) => (file, bytes),
        other => return Err(unexpected("open", path, &other)),
    };
    run_named(disk, "sync", path, Op::Sync { file })?;
    run_named(disk, "drop from the cache", path, Op::DropCache { file })?;
    run_named(disk, "close", path, Op::Close { file })?;
    let owner = match owner {
        Some(owner) => owner,
        // reading it says why there is none
        None => stored_owner(path)?.unwrap_or_default(),
    };
    let Found { meta, used: blocks, metas_damaged, .. } = read_all(disk, path, &owner, bytes)?;
    let map = disk.map(path).map_err(|source| Fault::Io {
        operation: "map",
        path: path.to_path_buf(),
        offset: 0,
        source,
    })?;
    let mut used = Vec::with_capacity(blocks.len() * WORDS);
    for (region, bits) in (0..).zip(&blocks) {
        add_words(&mut used, region, &bits[..]);
    }
    let stored = StoredRoot { owner: meta.owner, checkpoint: meta.number, root: meta.root, used };
    Ok(LyingFile { stored, pages: FilePages::new(map, path.to_path_buf()), bytes, metas_damaged })
}

/// Whose file it is, as its newest whole meta says; `None` where none is whole.
///
/// # Errors
/// It does not open.
pub fn stored_owner(path: &Path) -> Result<Option<[u8; 16]>, Fault> {
    let io = |operation| {
        let path = path.to_path_buf();
        move |source| Fault::Io { operation, path, offset: 0, source }
    };
    let file = File::open(path).map_err(io("open"))?;
    let mut newest: Option<Meta> = None;
    for place in (0..META_PAGES).map(PageId) {
        let mut page = Page([0; PAGE_BYTES]);
        let meta = match file.read_exact_at(&mut page.0, place.offset()) {
            Ok(()) => Meta::decode(&page, place),
            Err(error) => Err(NoMeta::Damaged { expected: "a meta".to_owned(), found: error.to_string() }),
        };
        newest = newest.into_iter().chain(meta).max_by_key(|meta| meta.number);
    }
    Ok(newest.map(|meta| meta.owner))
}

/// Pages of a file that stays as it is, through its map.
pub struct FilePages {
    map: MapPages,
}

impl FilePages {
    /// The pages of the file at `path`.
    pub fn new(map: Arc<dyn FileMap>, path: PathBuf) -> FilePages {
        FilePages { map: MapPages::new(map, path) }
    }
}

impl Pages for FilePages {
    fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
        self.map.page(tree, at)
    }

    fn run(&self, tree: TreeId, at: &RunRef) -> Paged<Bytes> {
        let pages = at.pages();
        if !(1..=RUN_PAGES_MAX).contains(&pages) || at.first.0.checked_add(pages).is_none() {
            return Err(self.fault(at.first, "a run of a length that can be".into(), format!("{at:?}")));
        }
        let mut bytes = Vec::with_capacity(at.bytes as usize);
        for id in (at.first.0..at.first.0 + pages).map(PageId) {
            let (page, _) = self.map.run_page(tree, at, id)?;
            let len = RUN_PAGE_BYTES.min(at.bytes as usize - bytes.len());
            bytes.extend_from_slice(&page.0[PAGE_BYTES - RUN_PAGE_BYTES..][..len]);
        }
        let crc = crc32fast::hash(&bytes);
        if crc != at.crc && !cfg!(fuzzing) {
            let expected = format!("a run of {} bytes with CRC {:#010x}", at.bytes, at.crc);
            return Err(self.fault(at.first, expected, format!("{crc:#010x}")));
        }
        Ok(bytes.into())
    }

    fn fault(&self, at: PageId, expected: String, found: String) -> Box<Fault> {
        self.map.corrupt(at, expected, found)
    }
}

/// The fixed pages of a new file whose newest root is `root` and reaches the pages in `used` (as [`StoredRoot::used`]): each
/// says in itself where it belongs. Bitmap blocks and directories first, the two copies of the meta last. With them, the
/// length that the file should have, in bytes. The root's numbers of pages are set from `used`.
///
/// # Errors
/// More pages than a file may have, or a used page at a fixed place: not what a page file's root can reach.
pub fn fixed_pages_of(owner: [u8; 16], root: &Root, used: &[u64]) -> Result<(Vec<Page>, u64), String> {
    let end = used.iter().rposition(|word| *word != 0);
    let end = end.map_or(0, |place| place as u64 * 64 + 64 - u64::from(used[place].leading_zeros()));
    let end = end.max(u64::from(FIRST_PAGE));
    if end > PAGES_MAX {
        return Err(format!("page {}, and a file has at most {PAGES_MAX}", end - 1));
    }
    let mut pages = Vec::new();
    let mut pages_used = 0;
    let mut blocks: Vec<PlaceRef> = Vec::new();
    for region in 0..regions(end) {
        let words = used.iter().skip(region as usize * WORDS).take(WORDS);
        let mut bits = [0; BITMAP_BYTES];
        for (bytes, word) in bits.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let fixed = u8::MAX >> (8 - fixed_pages(region));
        if bits[0] & fixed != 0 {
            return Err(format!("a page at a fixed place of region {region}"));
        }
        bits[0] |= fixed;
        pages_used += bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        let [place, _] = Which::Block(region).places();
        let (page, named) = encode_block(region, place, root.tx, &bits);
        pages.push(page);
        blocks.push(named);
    }
    let mut directories = Vec::new();
    for (number, named) in (0..).zip(blocks.chunks(DIRECTORY_BLOCKS as usize)) {
        let [place, _] = Which::Directory(number).places();
        let (page, named) = encode_directory(number, place, root.tx, named);
        pages.push(page);
        directories.push(named);
    }
    let root = Root { pages_used, pages_end: end, ..root.clone() };
    let meta = Meta { owner, number: 0, root, blocks: blocks.len() as u32, directories };
    pages.extend(meta_places(meta.number).map(|place| meta.encode(place)));
    Ok((pages, (end + 2 * grow::ahead_pages(end)) * PAGE_BYTES as u64))
}
