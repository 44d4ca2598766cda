//! The bytes of metas, directories and bitmap blocks.
//!
//! ```text
//! meta, from byte 32                                      directory, from byte 32
//!  32  magic            8 bytes "cofferpg"                 254 x  place u32 | crc u32 | tx u64   (place 0: none)
//!  40  format number    u32                               bitmap block, from byte 32
//!  44  page size        u32                                4,000 bytes, page p of the region: bit p % 8 of byte p / 8
//!  48  owner            16 bytes
//!  64  checkpoint       u64   0 for a new file
//!  72  applied index, its term                   u64 each  Directories and blocks say in bytes 24..32 of their head
//!  88  revision, compacted, compaction done      i64 each  which one they are (u64).
//! 112  compaction goes on at                     i64 main, i64 sub
//! 128  lease clock      u64
//! 136  pages used, pages end                     u64 each
//! 152  8 x ChildRef     the trees' roots, all zeros for an empty tree
//! 344  blocks           u32   bitmap blocks that the directories name
//! 348  directories      u32
//! 352  directories x    place u32 | crc u32 | tx u64
//! ```
//! The head of each is that of every page ([`page`](super::page)): its CRC, its kind, its own place, the transaction of
//! the root that it belongs to. What is not named here is zero. A meta says a transaction's whole state but for who is
//! in the cluster, which is read from its tree.

use super::page::{CHILD_REF_BYTES, ChildRef, HEAD_BYTES, PAGE_BYTES, Page, PageId, PageKind, TREES};
use super::places::{
    DIRECTORIES_MAX, DIRECTORY_BLOCKS, FIRST_PAGE, META_PAGES, PAGES_MAX, PLACE_REF_BYTES, bitmap_places,
    directory_places, is_fixed, meta_places, regions,
};
use super::root::{Root, Standing};
use super::space::BITMAP_BYTES;
use crate::mvcc::Revision;

/// Number of the page file's format. A file of another number is refused.
pub const FORMAT_NUMBER: u32 = 1;
const MAGIC: [u8; 8] = *b"cofferpg";
/// bbolt's meta, the first page of an etcd database: its magic number and where it stands.
const BBOLT_MAGIC: u32 = 0xed0c_daed;
const BBOLT_MAGIC_AT: usize = 16;

const MAGIC_AT: usize = HEAD_BYTES;
const FORMAT_AT: usize = 40;
const PAGE_BYTES_AT: usize = 44;
const OWNER_AT: usize = 48;
const NUMBER_AT: usize = 64;
const STANDING_AT: usize = 72;
const PAGES_USED_AT: usize = 136;
const PAGES_END_AT: usize = 144;
const TREES_AT: usize = 152;
const BLOCKS_AT: usize = 344;
const DIRECTORIES_AT: usize = 348;
const REFS_AT: usize = 352;
/// No transaction, checkpoint, index or revision comes so far: at a million a second it takes 146,000 years.
pub(crate) const COUNT_MAX: u64 = 1 << 62;
/// Where a directory or a block says which one it is.
const INDEX_AT: usize = 24;

const _: () = assert!(TREES_AT + TREES * CHILD_REF_BYTES == BLOCKS_AT);
const _: () = assert!(REFS_AT + DIRECTORIES_MAX as usize * PLACE_REF_BYTES == PAGE_BYTES);

/// Names a directory or a bitmap block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlaceRef {
    pub(super) place: PageId,
    pub(super) crc: u32,
    /// The transaction of the root for which it was written.
    pub(super) tx: u64,
}

impl PlaceRef {
    fn read(page: &Page, at: usize) -> PlaceRef {
        PlaceRef { place: PageId(page.u32_at(at)), crc: page.u32_at(at + 4), tx: page.u64_at(at + 8) }
    }

    fn write(&self, page: &mut Page, at: usize) {
        page.put_u32(at, self.place.0);
        page.put_u32(at + 4, self.crc);
        page.put_u64(at + 8, self.tx);
    }
}

/// A checkpoint's meta.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) owner: [u8; 16],
    /// The number of the checkpoint; its parity says which of the two metas it is.
    pub(super) number: u64,
    /// All of it but `cluster`. The CRC of every tree's root is known.
    pub(super) root: Root,
    /// Bitmap blocks that the directories name.
    pub(super) blocks: u32,
    pub(super) directories: Vec<PlaceRef>,
}

/// Why a page is no meta that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoMeta {
    /// Nothing was ever written there.
    Blank,
    /// Its bytes are not what was written.
    Damaged { expected: String, found: String },
    /// Whole, but of another format.
    Format(u32),
    /// Whole, but with another page size.
    PageBytes(u32),
    /// A meta of bbolt, etcd's database.
    Bbolt,
}

fn damaged(expected: impl Into<String>, found: impl Into<String>) -> NoMeta {
    NoMeta::Damaged { expected: expected.into(), found: found.into() }
}

impl Meta {
    /// Its page at one of its two places, with the CRC.
    ///
    /// # Panics
    /// A tree's root has no CRC, or there are more directories than fit.
    pub(super) fn encode(&self, place: PageId) -> Page {
        assert!(self.directories.len() <= DIRECTORIES_MAX as usize, "the file is bounded by its directories");
        let mut page = Page::new(PageKind::Meta, 0, 0, place, self.root.tx);
        page.0[MAGIC_AT..FORMAT_AT].copy_from_slice(&MAGIC);
        page.put_u32(FORMAT_AT, FORMAT_NUMBER);
        page.put_u32(PAGE_BYTES_AT, PAGE_BYTES as u32);
        page.0[OWNER_AT..NUMBER_AT].copy_from_slice(&self.owner);
        page.put_u64(NUMBER_AT, self.number);
        for (place, number) in standing_numbers(&self.root.standing).into_iter().enumerate() {
            page.put_u64(STANDING_AT + place * 8, number);
        }
        page.put_u64(PAGES_USED_AT, self.root.pages_used);
        page.put_u64(PAGES_END_AT, self.root.pages_end);
        for (place, tree) in self.root.trees.iter().enumerate() {
            if let Some(tree) = tree {
                assert!(tree.crc.is_some(), "a root's pages are written before its meta");
                let at = TREES_AT + place * CHILD_REF_BYTES;
                page.0[at..at + CHILD_REF_BYTES].copy_from_slice(&tree.encode());
            }
        }
        page.put_u32(BLOCKS_AT, self.blocks);
        page.put_u32(DIRECTORIES_AT, self.directories.len() as u32);
        for (place, directory) in self.directories.iter().enumerate() {
            directory.write(&mut page, REFS_AT + place * PLACE_REF_BYTES);
        }
        seal(&mut page);
        page
    }

    /// Reads one, as it stands at `place`.
    pub(super) fn decode(page: &Page, place: PageId) -> Result<Meta, NoMeta> {
        check_head(page, place)?;
        let format = page.u32_at(FORMAT_AT);
        if format != FORMAT_NUMBER {
            return Err(NoMeta::Format(format));
        }
        let page_bytes = page.u32_at(PAGE_BYTES_AT);
        if page_bytes != PAGE_BYTES as u32 {
            return Err(NoMeta::PageBytes(page_bytes));
        }
        let meta = Meta {
            owner: array(page, OWNER_AT),
            number: page.u64_at(NUMBER_AT),
            root: read_root(page)?,
            blocks: page.u32_at(BLOCKS_AT),
            directories: read_refs(page)?,
        };
        meta.check(place)?;
        if meta.encode(place).0 != page.0 && !cfg!(fuzzing) {
            return Err(damaged("nothing but what a meta says", "other bytes"));
        }
        Ok(meta)
    }

    /// That its numbers agree with one another.
    fn check(&self, place: PageId) -> Result<(), NoMeta> {
        let Root { tx, pages_used, pages_end, standing, .. } = &self.root;
        let (pages_used, pages_end) = (*pages_used, *pages_end);
        if !meta_places(self.number).contains(&place) {
            return Err(damaged("a checkpoint number that belongs to this place", self.number.to_string()));
        }
        // so that whoever counts on never comes to a number's end
        if [self.number, *tx, standing.applied, standing.revision as u64]
            .iter()
            .any(|number| *number > COUNT_MAX)
        {
            return Err(damaged(format!("numbers up to {COUNT_MAX}"), format!("{tx}, {standing:?}")));
        }
        let compacted = -1..=standing.revision;
        if !compacted.contains(&standing.compacted) || !compacted.contains(&standing.compaction_done) {
            return Err(damaged("a compaction up to the revision", format!("{standing:?}")));
        }
        if !(u64::from(FIRST_PAGE)..=PAGES_MAX).contains(&pages_end) {
            return Err(damaged(
                format!("between {FIRST_PAGE} and {PAGES_MAX} pages"),
                pages_end.to_string(),
            ));
        }
        if !(u64::from(FIRST_PAGE)..=pages_end).contains(&pages_used) {
            return Err(damaged(
                format!("between {FIRST_PAGE} and {pages_end} used pages"),
                pages_used.to_string(),
            ));
        }
        let blocks = regions(pages_end);
        if self.blocks != blocks {
            return Err(damaged(format!("{blocks} bitmap blocks"), self.blocks.to_string()));
        }
        let directories = blocks.div_ceil(DIRECTORY_BLOCKS);
        if self.directories.len() as u32 != directories {
            return Err(damaged(format!("{directories} directories"), self.directories.len().to_string()));
        }
        for (number, named) in self.directories.iter().enumerate() {
            if !directory_places(number as u32).contains(&named.place) || named.tx > *tx {
                return Err(damaged(
                    format!("one of the places of directory {number}"),
                    format!("{named:?}"),
                ));
            }
        }
        Ok(())
    }
}

/// What makes a page ours, whatever its format: the CRC, the head, the magic.
fn check_head(page: &Page, place: PageId) -> Result<(), NoMeta> {
    if page.0.iter().all(|byte| *byte == 0) {
        return Err(NoMeta::Blank);
    }
    if page.0[MAGIC_AT..FORMAT_AT] != MAGIC {
        if place.0 < META_PAGES && page.u32_at(BBOLT_MAGIC_AT) == BBOLT_MAGIC {
            return Err(NoMeta::Bbolt);
        }
        return Err(damaged("a meta", format!("bytes {:02x?}", &page.0[MAGIC_AT..FORMAT_AT])));
    }
    check_crc(page)?;
    if page.kind() != Some(PageKind::Meta) || page.id() != place {
        return Err(damaged(format!("the meta of place {place}"), format!("{page:?}")));
    }
    Ok(())
}

fn check_crc(page: &Page) -> Result<(), NoMeta> {
    let (stored, computed) = (page.stored_crc(), page.computed_crc());
    // under a fuzzer every checksum matches, so that it gets to the code behind
    if stored == computed || cfg!(fuzzing) {
        return Ok(());
    }
    Err(damaged(format!("CRC {stored:#010x}"), format!("bytes with {computed:#010x}")))
}

fn read_root(page: &Page) -> Result<Root, NoMeta> {
    let mut root = Root {
        tx: page.tx(),
        standing: read_standing(page),
        pages_used: page.u64_at(PAGES_USED_AT),
        pages_end: page.u64_at(PAGES_END_AT),
        ..Root::default()
    };
    for (place, tree) in root.trees.iter_mut().enumerate() {
        let at = TREES_AT + place * CHILD_REF_BYTES;
        let bytes = &page.0[at..at + CHILD_REF_BYTES];
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        let named = ChildRef::decode(bytes);
        let lies_in_file = !is_fixed(named.id) && u64::from(named.id.0) < root.pages_end;
        if named.crc.is_none() || named.tx > root.tx || !lies_in_file {
            return Err(damaged(format!("the root of tree {}", place + 1), format!("{named:?}")));
        }
        *tree = Some(named);
    }
    Ok(root)
}

fn read_refs(page: &Page) -> Result<Vec<PlaceRef>, NoMeta> {
    let count = page.u32_at(DIRECTORIES_AT);
    if count > DIRECTORIES_MAX {
        return Err(damaged(format!("at most {DIRECTORIES_MAX} directories"), count.to_string()));
    }
    let end = REFS_AT + count as usize * PLACE_REF_BYTES;
    if page.0[end..].iter().any(|byte| *byte != 0) {
        return Err(damaged(format!("nothing behind {count} directories"), "bytes"));
    }
    Ok((REFS_AT..end).step_by(PLACE_REF_BYTES).map(|at| PlaceRef::read(page, at)).collect())
}

fn standing_numbers(standing: &Standing) -> [u64; 8] {
    [
        standing.applied,
        standing.applied_term,
        standing.revision as u64,
        standing.compacted as u64,
        standing.compaction_done as u64,
        standing.compaction_next.main as u64,
        standing.compaction_next.sub as u64,
        standing.clock_ms,
    ]
}

fn read_standing(page: &Page) -> Standing {
    let number = |place: usize| page.u64_at(STANDING_AT + place * 8);
    Standing {
        applied: number(0),
        applied_term: number(1),
        revision: number(2) as i64,
        compacted: number(3) as i64,
        compaction_done: number(4) as i64,
        compaction_next: Revision { main: number(5) as i64, sub: number(6) as i64 },
        clock_ms: number(7),
    }
}

/// What a directory names, from its first block on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Directory(u32),
    Block(u32),
}

impl Which {
    fn kind(self) -> PageKind {
        match self {
            Which::Directory(_) => PageKind::Directory,
            Which::Block(_) => PageKind::Bitmap,
        }
    }

    fn index(self) -> u64 {
        match self {
            Which::Directory(index) | Which::Block(index) => u64::from(index),
        }
    }

    /// Its two places.
    pub(super) fn places(self) -> [PageId; 2] {
        match self {
            Which::Directory(index) => directory_places(index),
            Which::Block(index) => bitmap_places(index),
        }
    }

    /// The place that is not `last`, which the last durable meta names.
    pub(super) fn other_place(self, last: PageId) -> PageId {
        let [first, second] = self.places();
        if last == first { second } else { first }
    }

    /// An empty page of it, to be filled and sealed.
    fn page(self, place: PageId, tx: u64) -> Page {
        let mut page = Page::new(self.kind(), 0, 0, place, tx);
        page.put_u64(INDEX_AT, self.index());
        page
    }

    /// Checks that a page is the one that `named` names.
    pub(super) fn check(self, page: &Page, named: &PlaceRef) -> Result<(), NoMeta> {
        check_crc(page)?;
        let stored = page.stored_crc();
        let same = page.kind() == Some(self.kind()) && page.id() == named.place && page.tx() == named.tx;
        if !same || page.u64_at(INDEX_AT) != self.index() || (stored != named.crc && !cfg!(fuzzing)) {
            let expected = format!("{self:?} of transaction {}, CRC {:#010x}", named.tx, named.crc);
            return Err(damaged(expected, format!("{page:?}, CRC {stored:#010x}")));
        }
        Ok(())
    }
}

/// A directory's page and what names it.
pub(super) fn encode_directory(index: u32, place: PageId, tx: u64, blocks: &[PlaceRef]) -> (Page, PlaceRef) {
    let mut page = Which::Directory(index).page(place, tx);
    for (number, block) in blocks.iter().take(DIRECTORY_BLOCKS as usize).enumerate() {
        block.write(&mut page, HEAD_BYTES + number * PLACE_REF_BYTES);
    }
    sealed(page)
}

/// The blocks that a checked directory names; `count` of them, the rest must be empty.
pub(super) fn decode_directory(page: &Page, index: u32, count: u32) -> Result<Vec<PlaceRef>, NoMeta> {
    let first = index * DIRECTORY_BLOCKS;
    let mut blocks = Vec::with_capacity(count as usize);
    for number in 0..DIRECTORY_BLOCKS {
        let named = PlaceRef::read(page, HEAD_BYTES + number as usize * PLACE_REF_BYTES);
        let block = first + number;
        if number >= count {
            if named != PlaceRef::default() {
                return Err(damaged(format!("no block {block}"), format!("{named:?}")));
            }
            continue;
        }
        if !bitmap_places(block).contains(&named.place) || named.tx > page.tx() {
            return Err(damaged(format!("one of the places of block {block}"), format!("{named:?}")));
        }
        blocks.push(named);
    }
    Ok(blocks)
}

/// A bitmap block's page and what names it.
pub(super) fn encode_block(
    index: u32,
    place: PageId,
    tx: u64,
    bits: &[u8; BITMAP_BYTES],
) -> (Page, PlaceRef) {
    let mut page = Which::Block(index).page(place, tx);
    page.0[HEAD_BYTES..HEAD_BYTES + BITMAP_BYTES].copy_from_slice(bits);
    sealed(page)
}

/// The bits of a checked block.
pub(super) fn block_bits(page: &Page) -> &[u8] {
    &page.0[HEAD_BYTES..HEAD_BYTES + BITMAP_BYTES]
}

/// Fills in the CRC.
fn seal(page: &mut Page) {
    let crc = page.computed_crc();
    page.put_u32(0, crc);
}

fn sealed(mut page: Page) -> (Page, PlaceRef) {
    seal(&mut page);
    let named = PlaceRef { place: page.id(), crc: page.stored_crc(), tx: page.tx() };
    (page, named)
}

fn array<const N: usize>(page: &Page, at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&page.0[at..at + N]);
    out
}

#[cfg(test)]
#[path = "meta_tests.rs"]
mod tests;
