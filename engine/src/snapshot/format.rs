//! The bytes of an image: its head, and which pages it holds.
//!
//! ```text
//! head, one block of 4,096 bytes, little-endian
//!   0  magic "coffrIMG"           48  pages u64: how many page blocks follow
//!   8  crc u32 of 0..8, 12..4096  56  pages_end u64: the highest page's id, plus one
//!  12  format number u32          64  applied, applied_term, revision, compacted,
//!  16  page file's format u32         compaction_done, compaction_next (main, sub), clock_ms: 8 x 8
//!  20  0 u32                     128  trees: 8 x 24, a page's name each, zeros for an empty tree
//!  24  owner, 16 bytes           320  label, 32 bytes of text, padded with zeros
//!  40  transaction u64           352  zeros to 4096
//! ```
//! Magic, CRC, its reach and the format number stay where they are in every later format.
//!
//! A map block is a page with the usual head ([`PageKind::Bitmap`], tree 0, its number among the map blocks in place of
//! the id, the image's transaction) whose CRC is filled; bit `i` of its body, the lowest bit of a byte first, stands for
//! page `number x 32,000 + i`.

use crate::error::Fault;
use crate::mvcc::{REVISION_MAX, Revision};
use crate::pager::offline::FILE_PAGES_MAX;
use crate::pager::page::{CHILD_REF_BYTES, ChildRef, HEAD_BYTES, PAGE_BYTES, Page, PageId, PageKind, TREES};
use crate::pager::root::Standing;
use std::path::Path;

/// Number of the image format written and read here.
pub const FORMAT_NUMBER: u32 = 1;
/// Longest label, in bytes.
pub const LABEL_BYTES: usize = 32;
/// Pages that one map block tells of.
pub(super) const MAP_PAGES: u64 = 32_000;

const MAGIC: [u8; 8] = *b"coffrIMG";
const AT_CRC: usize = 8;
const AT_FORMAT: usize = 12;
const AT_PAGE_FORMAT: usize = 16;
const AT_OWNER: usize = 24;
const AT_TX: usize = 40;
const AT_PAGES: usize = 48;
const AT_PAGES_END: usize = 56;
const AT_STANDING: usize = 64;
const AT_TREES: usize = 128;
const AT_LABEL: usize = AT_TREES + TREES * CHILD_REF_BYTES;
const _: () = assert!(AT_LABEL == 320 && AT_LABEL + LABEL_BYTES <= PAGE_BYTES);
const _: () = assert!(MAP_PAGES as usize / 8 + HEAD_BYTES <= PAGE_BYTES);

/// What a bbolt file, etcd's, has at this place.
const BBOLT_MAGIC: (usize, [u8; 4]) = (16, [0xED, 0xDA, 0x0C, 0xED]);

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHead {
    /// The format number of the page file it was taken from.
    pub page_format: u32,
    /// Whose page file that was: cluster id, member id.
    pub owner: [u8; 16],
    /// The transaction whose root it is.
    pub tx: u64,
    /// Roots of the trees; every one has its CRC.
    pub trees: [Option<ChildRef>; TREES],
    /// Where the state stood.
    pub standing: Standing,
    /// How many pages it holds.
    pub pages: u64,
    /// The highest page's id, plus one; 0 without pages.
    pub pages_end: u64,
    /// A text of whoever took it (the server writes the version it reports), at most [`LABEL_BYTES`].
    pub label: String,
}

impl ImageHead {
    /// Map blocks that follow the head.
    pub(super) fn map_blocks(&self) -> u64 {
        self.pages_end.div_ceil(MAP_PAGES)
    }

    /// Where the first page block begins, in blocks.
    pub(super) fn first_page_block(&self) -> u64 {
        1 + self.map_blocks()
    }

    /// Bytes of the whole image, without a checksum behind it.
    pub fn image_bytes(&self) -> u64 {
        (self.first_page_block() + self.pages) * PAGE_BYTES as u64
    }

    /// Its block.
    ///
    /// # Panics
    /// When the label is longer than [`LABEL_BYTES`].
    pub(super) fn encode(&self) -> Page {
        let mut block = Page([0; PAGE_BYTES]);
        block.0[..8].copy_from_slice(&MAGIC);
        block.put_u32(AT_FORMAT, FORMAT_NUMBER);
        block.put_u32(AT_PAGE_FORMAT, self.page_format);
        block.0[AT_OWNER..AT_OWNER + 16].copy_from_slice(&self.owner);
        block.put_u64(AT_TX, self.tx);
        block.put_u64(AT_PAGES, self.pages);
        block.put_u64(AT_PAGES_END, self.pages_end);
        for (place, number) in standing_numbers(&self.standing).into_iter().enumerate() {
            block.put_u64(AT_STANDING + place * 8, number);
        }
        for (place, tree) in self.trees.iter().enumerate() {
            let at = AT_TREES + place * CHILD_REF_BYTES;
            if let Some(tree) = tree {
                block.0[at..at + CHILD_REF_BYTES].copy_from_slice(&tree.encode());
            }
        }
        block.0[AT_LABEL..AT_LABEL + self.label.len()].copy_from_slice(self.label.as_bytes());
        let crc = head_crc(&block);
        block.put_u32(AT_CRC, crc);
        block
    }

    /// Reads the head of the image at `path`, which has `file_bytes` bytes.
    ///
    /// # Errors
    /// [`Fault::Unusable`] for what is no image, or one of another format; [`Fault::Corrupt`].
    pub(super) fn decode(path: &Path, block: &Page) -> Result<ImageHead, Fault> {
        check_magic(path, block)?;
        let (stored, computed) = (block.u32_at(AT_CRC), head_crc(block));
        if stored != computed {
            let expected = format!("an image's head with CRC {stored:#010x}");
            return Err(corrupt(path, 0, expected, format!("one with CRC {computed:#010x}")));
        }
        match block.u32_at(AT_FORMAT) {
            FORMAT_NUMBER => {}
            other => {
                let reason = format!(
                    "an image of format {other}; this program reads and writes format {FORMAT_NUMBER}"
                );
                return Err(Fault::Unusable { path: path.to_path_buf(), reason });
            }
        }
        let head = fields(block);
        match head.flaw() {
            None => Ok(head),
            Some((at, expected, found)) => Err(corrupt(path, at as u64, expected, found)),
        }
    }

    /// What cannot be, though its CRC is right.
    fn flaw(&self) -> Option<(usize, String, String)> {
        if self.pages > self.pages_end || self.pages_end > FILE_PAGES_MAX {
            let found = format!("{} pages, the highest below {}", self.pages, self.pages_end);
            return Some((AT_PAGES, "a number of pages that fits their ids".into(), found));
        }
        let Standing { revision, compacted, compaction_done, .. } = self.standing;
        let in_order = -1 <= compaction_done && compaction_done <= compacted && compacted <= revision;
        if !in_order || !(1..=REVISION_MAX).contains(&revision) {
            let expected = format!("a revision from 1 to {REVISION_MAX}, compacted at most to there");
            return Some((AT_STANDING, expected, format!("{:?}", self.standing)));
        }
        let unknown = self.trees.iter().position(|tree| {
            tree.is_some_and(|tree| tree.crc.is_none() || u64::from(tree.id.0) >= self.pages_end)
        });
        unknown.map(|place| {
            let at = AT_TREES + place * CHILD_REF_BYTES;
            let expected = format!("a root with a CRC, below page {}", self.pages_end);
            (at, expected, format!("{:?}", self.trees[place]))
        })
    }
}

fn check_magic(path: &Path, block: &Page) -> Result<(), Fault> {
    if block.0[..8] == MAGIC {
        return Ok(());
    }
    let (at, magic) = BBOLT_MAGIC;
    let reason = if block.0[at..at + magic.len()] == magic {
        "a snapshot of etcd, or its database; coffer reads images of its own"
    } else {
        "no image of coffer"
    };
    Err(Fault::Unusable { path: path.to_path_buf(), reason: reason.into() })
}

fn fields(block: &Page) -> ImageHead {
    let mut owner = [0; 16];
    owner.copy_from_slice(&block.0[AT_OWNER..AT_OWNER + 16]);
    let label = &block.0[AT_LABEL..AT_LABEL + LABEL_BYTES];
    let label = String::from_utf8_lossy(label).trim_end_matches('\0').to_owned();
    ImageHead {
        page_format: block.u32_at(AT_PAGE_FORMAT),
        owner,
        tx: block.u64_at(AT_TX),
        trees: std::array::from_fn(|place| {
            let at = AT_TREES + place * CHILD_REF_BYTES;
            let bytes = &block.0[at..at + CHILD_REF_BYTES];
            bytes.iter().any(|byte| *byte != 0).then(|| ChildRef::decode(bytes))
        }),
        standing: standing_of(std::array::from_fn(|place| block.u64_at(AT_STANDING + place * 8))),
        pages: block.u64_at(AT_PAGES),
        pages_end: block.u64_at(AT_PAGES_END),
        label,
    }
}

fn head_crc(block: &Page) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&block.0[..AT_CRC]);
    crc.update(&block.0[AT_FORMAT..]);
    crc.finalize()
}

fn standing_numbers(standing: &Standing) -> [u64; 8] {
    let Standing { applied, applied_term, revision, compacted, compaction_done, compaction_next, clock_ms } =
        *standing;
    [
        applied,
        applied_term,
        revision.cast_unsigned(),
        compacted.cast_unsigned(),
        compaction_done.cast_unsigned(),
        compaction_next.main.cast_unsigned(),
        compaction_next.sub.cast_unsigned(),
        clock_ms,
    ]
}

fn standing_of(numbers: [u64; 8]) -> Standing {
    Standing {
        applied: numbers[0],
        applied_term: numbers[1],
        revision: numbers[2].cast_signed(),
        compacted: numbers[3].cast_signed(),
        compaction_done: numbers[4].cast_signed(),
        compaction_next: Revision { main: numbers[5].cast_signed(), sub: numbers[6].cast_signed() },
        clock_ms: numbers[7],
    }
}

pub(super) fn corrupt(path: &Path, offset: u64, expected: String, found: String) -> Fault {
    Fault::Corrupt { path: path.to_path_buf(), offset, expected, found }
}

/// A set of pages, with their places in id order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
    /// How many pages stand in the words before each.
    before: Vec<u32>,
    pages: u64,
    end: u64,
}

impl PageSet {
    /// The pages for which `is_used` says so, out of all below `end`.
    pub fn new(end: u64, mut is_used: impl FnMut(PageId) -> bool) -> PageSet {
        let end = end.min(FILE_PAGES_MAX);
        let mut words = vec![0_u64; usize::try_from(end.div_ceil(64)).unwrap_or(usize::MAX)];
        for id in 0..end {
            if is_used(PageId(id as u32)) {
                words[(id / 64) as usize] |= 1 << (id % 64);
            }
        }
        PageSet::of_words(words)
    }

    /// The pages whose bits are set: bit `i % 64` of word `i / 64` is page `i`.
    pub fn of_words(words: Vec<u64>) -> PageSet {
        let mut pages = 0;
        let mut before = Vec::with_capacity(words.len());
        for word in &words {
            // ids have 32 bits, so a place has no more
            before.push(pages as u32);
            pages += u64::from(word.count_ones());
        }
        let end = words.iter().rposition(|word| *word != 0);
        let end = end.map_or(0, |place| place as u64 * 64 + 64 - u64::from(words[place].leading_zeros()));
        PageSet { words, before, pages, end }
    }

    /// How many there are.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The highest one's id, plus one; 0 for none.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// A page's place among them, if it is one of them.
    pub fn place(&self, id: PageId) -> Option<u64> {
        let (word, bit) = (id.0 as usize / 64, id.0 % 64);
        let found = self.words.get(word).filter(|word| *word >> bit & 1 == 1)?;
        let below = found & ((1 << bit) - 1);
        Some(u64::from(self.before[word]) + u64::from(below.count_ones()))
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PageId> + '_ {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(PageId(place as u32 * 64 + bit))
            })
        })
    }

    /// The lowest one at or above `id`.
    pub(super) fn at_or_above(&self, id: u64) -> Option<PageId> {
        let mut place = usize::try_from(id / 64).ok()?;
        let mut word = self.words.get(place)? & (u64::MAX << (id % 64));
        while word == 0 {
            place += 1;
            word = *self.words.get(place)?;
        }
        Some(PageId(place as u32 * 64 + word.trailing_zeros()))
    }

    /// Map block `number`.
    pub(super) fn map_block(&self, number: u64, tx: u64) -> Page {
        let mut block = Page::new(PageKind::Bitmap, 0, 0, PageId(number as u32), tx);
        let first = (number * MAP_PAGES / 64) as usize;
        for (place, word) in self.words.iter().skip(first).take((MAP_PAGES / 64) as usize).enumerate() {
            block.put_u64(HEAD_BYTES + place * 8, *word);
        }
        let crc = block.computed_crc();
        block.put_u32(0, crc);
        block
    }

    /// Reads the map blocks of an image, `block` giving them by their numbers.
    ///
    /// # Errors
    /// [`Fault::Corrupt`]; whatever `block` returns.
    pub(super) fn read(
        path: &Path,
        head: &ImageHead,
        mut block: impl FnMut(u64) -> Result<Page, Fault>,
    ) -> Result<PageSet, Fault> {
        let mut words = Vec::new();
        for number in 0..head.map_blocks() {
            let page = block(number)?;
            let offset = (1 + number) * PAGE_BYTES as u64;
            check_crc(path, offset, &page)?;
            let own = (Some(PageKind::Bitmap), PageId(number as u32), head.tx);
            if (page.kind(), page.id(), page.tx()) != own {
                let expected = format!("map block {number} of transaction {}", head.tx);
                return Err(corrupt(path, offset, expected, format!("{page:?}")));
            }
            words.extend((0..(MAP_PAGES / 64) as usize).map(|place| page.u64_at(HEAD_BYTES + place * 8)));
        }
        let set = PageSet::of_words(words);
        if (set.pages, set.end) != (head.pages, head.pages_end) {
            let expected = format!("{} pages, the highest below {}", head.pages, head.pages_end);
            let found = format!("{}, the highest below {}", set.pages, set.end);
            return Err(corrupt(path, PAGE_BYTES as u64, expected, found));
        }
        Ok(set)
    }
}

/// Checks that a page of an image, or of the file it is taken from, is whole, in its place and not of a later time.
pub(crate) fn check_page(path: &Path, offset: u64, page: &Page, id: PageId, tx: u64) -> Result<(), Fault> {
    check_crc(path, offset, page)?;
    let is_used = matches!(page.kind(), Some(PageKind::Branch | PageKind::Leaf | PageKind::Run));
    if !is_used || page.id() != id || page.tx() > tx {
        let expected = format!("page {id}, a branch, leaf or run of transaction {tx} or before");
        return Err(corrupt(path, offset, expected, format!("{page:?}")));
    }
    Ok(())
}

fn check_crc(path: &Path, offset: u64, page: &Page) -> Result<(), Fault> {
    let (stored, computed) = (page.stored_crc(), page.computed_crc());
    if stored != computed {
        let expected = format!("a page with CRC {stored:#010x}");
        return Err(corrupt(path, offset, expected, format!("one with CRC {computed:#010x}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pages: u64, pages_end: u64) -> ImageHead {
        let mut trees = [None; TREES];
        trees[0] = Some(ChildRef { id: PageId(70), tx: 9, crc: Some(0xDEAD_BEEF), count: 12 });
        trees[6] = Some(ChildRef { id: PageId(5), tx: 3, crc: Some(1), count: 1 });
        ImageHead {
            page_format: 1,
            owner: *b"0123456789abcdef",
            tx: 9,
            trees,
            standing: Standing {
                applied: 100,
                applied_term: 3,
                revision: 77,
                compacted: -1,
                compaction_done: -1,
                compaction_next: Revision { main: 5, sub: 2 },
                clock_ms: 123_456,
            },
            pages,
            pages_end,
            label: "3.7.0".into(),
        }
    }

    fn set(ids: &[u32]) -> PageSet {
        let end = ids.iter().max().map_or(0, |id| u64::from(*id) + 1);
        PageSet::new(end, |id| ids.contains(&id.0))
    }

    #[test]
    fn a_head_reads_back_and_every_flipped_bit_is_seen() {
        let path = Path::new("image");
        let head = head(3, 71);
        let block = head.encode();
        assert_eq!(ImageHead::decode(path, &block).unwrap(), head);
        for bit in 0..PAGE_BYTES * 8 {
            let mut flipped = block.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            assert!(ImageHead::decode(path, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        let path = Path::new("image");
        let told = |block: &Page| ImageHead::decode(path, block).unwrap_err().to_string();
        let mut block = Page([0; PAGE_BYTES]);
        assert!(told(&block).contains("no image of coffer"));
        block.0[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
        assert!(told(&block).contains("etcd"));
        let mut later = head(3, 71).encode();
        later.put_u32(AT_FORMAT, 2);
        let crc = head_crc(&later);
        later.put_u32(AT_CRC, crc);
        assert!(told(&later).contains("format 2; this program reads and writes format 1"));
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_though_the_crc_is_right() {
        let path = Path::new("image");
        for wrong in [head(72, 71), head(3, 70), head(3, 1 << 33)] {
            assert!(ImageHead::decode(path, &wrong.encode()).is_err(), "{wrong:?}");
        }
        for (revision, compacted, done) in
            [(0, -1, -1), (i64::MAX, -1, -1), (i64::MIN, i64::MIN, -1), (5, 6, -1), (5, 4, 5), (5, -1, -2)]
        {
            let mut wrong = head(3, 71);
            wrong.standing = Standing { revision, compacted, compaction_done: done, ..wrong.standing };
            assert!(ImageHead::decode(path, &wrong.encode()).is_err(), "{revision} {compacted} {done}");
        }
        let mut nameless = head(3, 71);
        nameless.trees[0] = nameless.trees[0].map(|tree| ChildRef { crc: None, ..tree });
        assert!(ImageHead::decode(path, &nameless.encode()).is_err());
    }

    #[test]
    fn a_set_knows_its_places_and_goes_through_its_blocks() {
        let ids = [4, 5, 63, 64, 31_999, 32_000, 70_000];
        let set = set(&ids);
        assert_eq!((set.pages(), set.end()), (7, 70_001));
        assert_eq!(set.iter().map(|id| id.0).collect::<Vec<_>>(), ids);
        for (place, id) in ids.iter().enumerate() {
            assert_eq!(set.place(PageId(*id)), Some(place as u64));
            assert_eq!(set.place(PageId(id + 2)), None, "{id}");
        }
        assert_eq!(set.place(PageId(u32::MAX)), None);
        let mut walked = Vec::new();
        let mut from = 0;
        while let Some(id) = set.at_or_above(from) {
            walked.push(id.0);
            from = u64::from(id.0) + 1;
        }
        assert_eq!(walked, ids);

        let head = head(set.pages(), set.end());
        let path = Path::new("image");
        assert_eq!(head.map_blocks(), 3);
        let read = PageSet::read(path, &head, |number| Ok(set.map_block(number, head.tx))).unwrap();
        assert!(read.iter().eq(set.iter()));
        assert_eq!(read.place(PageId(32_000)), Some(5));
        // a block of another image, one in another's place, and one bit too many
        assert!(PageSet::read(path, &head, |number| Ok(set.map_block(number, 8))).is_err());
        assert!(PageSet::read(path, &head, |number| Ok(set.map_block(number ^ 1, head.tx))).is_err());
        let more = PageSet::new(set.end(), |id| set.place(id).is_some() || id.0 == 9);
        assert!(PageSet::read(path, &head, |number| Ok(more.map_block(number, head.tx))).is_err());
    }

    #[test]
    fn an_image_without_pages_is_one_block() {
        let head = ImageHead { trees: [None; TREES], ..head(0, 0) };
        assert_eq!(head.image_bytes(), PAGE_BYTES as u64);
        assert_eq!(PageSet::read(Path::new("image"), &head, |_| unreachable!()).unwrap().iter().next(), None);
    }
}
