//! A page's bytes, and what names a page.
//!
//! ```text
//!  0  crc     u32   CRC-32 of bytes 4..4096, filled only where a page goes to disk
//!  4  kind    u8    see PageKind
//!  5  tree    u8    see TreeId, 0 where the page belongs to none
//!  6  level   u8    0 for a leaf, one more than its children for a branch
//!  7  -       u8    0
//!  8  id      u32   its own place in the file, in pages
//! 12  entries u16   owned by whoever fills the page
//! 14  heap    u16   owned by whoever fills the page
//! 16  tx      u64   the transaction that wrote it
//! 24  -       u64   owned by whoever fills the page
//! 32  body
//! ```
//! All numbers are little-endian. A page in memory carries no valid CRC.

use std::fmt;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a page's head; the body follows.
pub const HEAD_BYTES: usize = 32;
/// Bytes of a [`ChildRef`] in a page.
pub const CHILD_REF_BYTES: usize = 24;
/// Bytes of a [`RunRef`] in a page.
pub const RUN_REF_BYTES: usize = 20;
/// The number of trees a root has room for.
pub const TREES: usize = 8;

/// A page's place in the file: its offset divided by [`PAGE_BYTES`]. Place 0 is a meta, so 0 also says "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// Where it begins in the file, in bytes.
    pub fn offset(self) -> u64 {
        u64::from(self.0) * PAGE_BYTES as u64
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// One of the two metas (each written twice).
    Meta = 1,
    /// Names bitmap blocks.
    Directory = 2,
    /// Which pages are used.
    Bitmap = 3,
    /// A tree's inner node.
    Branch = 4,
    /// A tree's leaf.
    Leaf = 5,
    /// Part of a run: bytes too long for a leaf.
    Run = 6,
}

impl PageKind {
    /// The kind of that number.
    pub fn from_number(number: u8) -> Option<PageKind> {
        Some(match number {
            1 => PageKind::Meta,
            2 => PageKind::Directory,
            3 => PageKind::Bitmap,
            4 => PageKind::Branch,
            5 => PageKind::Leaf,
            6 => PageKind::Run,
            _ => return None,
        })
    }
}

/// The trees of a store. The number stands in every page of a tree; `number - 1` is its place in a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TreeId {
    /// User key -> newest live version.
    Keys = 1,
    /// (main, sub) -> what happened there.
    Revisions = 2,
    /// User key -> its tombstone, until compaction.
    Deleted = 3,
    /// Lease id -> time to live and deadline.
    Leases = 4,
    /// (lease id, user key) -> nothing.
    LeaseKeys = 5,
    /// (deadline, lease id) -> nothing.
    Deadlines = 6,
    /// Name -> members, who votes, alarms.
    State = 7,
}

impl TreeId {
    /// All of them, in the order of their numbers.
    pub const ALL: [TreeId; 7] = [
        TreeId::Keys,
        TreeId::Revisions,
        TreeId::Deleted,
        TreeId::Leases,
        TreeId::LeaseKeys,
        TreeId::Deadlines,
        TreeId::State,
    ];

    /// Its place in a root.
    pub fn place(self) -> usize {
        self as usize - 1
    }
}

/// 4,096 bytes of a file, or of memory on its way there.
#[derive(Clone)]
#[repr(transparent)]
pub struct Page(pub [u8; PAGE_BYTES]);

impl Page {
    /// An empty page of a kind.
    pub fn new(kind: PageKind, tree: u8, level: u8, id: PageId, tx: u64) -> Page {
        let mut page = Page([0; PAGE_BYTES]);
        page.begin(kind, tree, level, id, tx);
        page
    }

    /// Makes it an empty page of a kind; the body keeps its old bytes.
    pub fn begin(&mut self, kind: PageKind, tree: u8, level: u8, id: PageId, tx: u64) {
        self.0[..HEAD_BYTES].fill(0);
        self.0[4] = kind as u8;
        self.0[5] = tree;
        self.0[6] = level;
        self.set_place(id, tx);
    }

    /// The CRC that stands in it.
    pub fn stored_crc(&self) -> u32 {
        self.u32_at(0)
    }

    /// The CRC that its bytes have.
    pub fn computed_crc(&self) -> u32 {
        crc32fast::hash(&self.0[4..])
    }

    /// Its kind, `None` if the number stands for none.
    pub fn kind(&self) -> Option<PageKind> {
        PageKind::from_number(self.0[4])
    }

    /// The number of its tree.
    pub fn tree(&self) -> u8 {
        self.0[5]
    }

    /// 0 for a leaf, one more than its children for a branch.
    pub fn level(&self) -> u8 {
        self.0[6]
    }

    /// The place it says it has.
    pub fn id(&self) -> PageId {
        PageId(self.u32_at(8))
    }

    /// The transaction that wrote it.
    pub fn tx(&self) -> u64 {
        self.u64_at(16)
    }

    /// Gives it a place and a transaction.
    pub fn set_place(&mut self, id: PageId, tx: u64) {
        self.put_u32(8, id.0);
        self.put_u64(16, tx);
    }

    /// The number at `at`.
    pub fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    /// The number at `at`.
    pub fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// The number at `at`.
    pub fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[at..at + N]);
        out
    }

    /// Writes the number at `at`.
    pub fn put_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the number at `at`.
    pub fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the number at `at`.
    pub fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Page({:?}, tree {}, level {}, id {}, tx {})",
            self.kind(),
            self.tree(),
            self.level(),
            self.id(),
            self.tx()
        )
    }
}

/// Names a page of a tree: what its parent, or a root, knows of it.
///
/// ```text
/// id u32 | crc u32 | tx u64, the highest bit: crc is known | count u64
/// ```
/// The CRC is not known while the child was never written; who writes the parent fills it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildRef {
    /// Its place.
    pub id: PageId,
    /// The transaction that wrote it.
    pub tx: u64,
    /// Its CRC, once it is known.
    pub crc: Option<u32>,
    /// Entries in the leaves below it (its own, of a leaf).
    pub count: u64,
}

const CRC_KNOWN: u64 = 1 << 63;

impl ChildRef {
    /// Reads one.
    ///
    /// # Panics
    /// When `bytes` is shorter than [`CHILD_REF_BYTES`].
    pub fn decode(bytes: &[u8]) -> ChildRef {
        let tx = get_u64(bytes, 8);
        ChildRef {
            id: PageId(get_u32(bytes, 0)),
            crc: (tx & CRC_KNOWN != 0).then(|| get_u32(bytes, 4)),
            tx: tx & !CRC_KNOWN,
            count: get_u64(bytes, 16),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; CHILD_REF_BYTES] {
        let mut out = [0; CHILD_REF_BYTES];
        let known = if self.crc.is_some() { CRC_KNOWN } else { 0 };
        out[0..4].copy_from_slice(&self.id.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.crc.unwrap_or(0).to_le_bytes());
        out[8..16].copy_from_slice(&(self.tx | known).to_le_bytes());
        out[16..24].copy_from_slice(&self.count.to_le_bytes());
        out
    }
}

/// Names a run: consecutive pages that hold bytes too long for a leaf. Each page has the usual head and
/// [`PAGE_BYTES`] - [`HEAD_BYTES`] of the bytes.
///
/// ```text
/// first u32 | bytes u32 | tx u64 | crc u32 (of the bytes)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunRef {
    /// Its first page.
    pub first: PageId,
    /// How many bytes it holds, at least 1.
    pub bytes: u32,
    /// The transaction that wrote it.
    pub tx: u64,
    /// CRC-32 of the bytes.
    pub crc: u32,
}

/// Bytes of a run in one of its pages.
pub const RUN_PAGE_BYTES: usize = PAGE_BYTES - HEAD_BYTES;

impl RunRef {
    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        self.bytes.div_ceil(RUN_PAGE_BYTES as u32)
    }

    /// Reads one.
    ///
    /// # Panics
    /// When `bytes` is shorter than [`RUN_REF_BYTES`].
    pub fn decode(bytes: &[u8]) -> RunRef {
        RunRef {
            first: PageId(get_u32(bytes, 0)),
            bytes: get_u32(bytes, 4),
            tx: get_u64(bytes, 8),
            crc: get_u32(bytes, 16),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; RUN_REF_BYTES] {
        let mut out = [0; RUN_REF_BYTES];
        out[0..4].copy_from_slice(&self.first.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.tx.to_le_bytes());
        out[16..20].copy_from_slice(&self.crc.to_le_bytes());
        out
    }
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}
