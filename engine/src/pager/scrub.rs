//! Scrub: what is durable is read again, past the cache, at a rate of its own, so that rot is found while there is still
//! something to repair it from.
//!
//! ```text
//! for each region:  its bitmap block, as the durable meta names it > stretches of up to 256 KiB that hold used pages
//! for each page:    its own place and kind, a transaction that is durable, its CRC; metas, directories and blocks too
//! ```
//! A page that the durable root uses is not written before another root is durable. So when the checkpoint's number is
//! the same before and after a read, what was read must be right; else the region's bitmap is read anew and the stretch
//! again. Damage is told and counted, and stops nothing: whoever touches the page meets it.
//!
//! A page that is whole but older than its parent says is not found here: its first touch finds that. On a disk without
//! O_DIRECT the bytes may come from the page cache.

use super::checkpoint::Names;
use super::meta::{Meta, NoMeta, PlaceRef, Which, block_bits};
use super::page::{PAGE_BYTES, Page, PageId, PageKind};
use super::places::{DIRECTORY_BLOCKS, is_fixed, meta_places};
use super::space::{BITMAP_BYTES, REGION_PAGES};
use crate::Micros;
use crate::disk::{Completion, Disk, Done, FileId, IoBuf, Op, Token};
use crate::error::Fault;
use std::path::PathBuf;

/// Pages of one read at most.
const STRETCH_PAGES: u32 = 64;
/// Faults kept until they are taken.
const KEPT_FAULTS: usize = 64;
/// How long to wait after all of the file was looked at, in microseconds: a small file is not read all the time.
const ROUND_PAUSE_US: Micros = 60_000_000;
/// How long to wait after the file could not be opened, in microseconds.
const OPEN_RETRY_US: Micros = 60_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    Bitmap { named: PlaceRef },
    Pages { first: u32, pages: u32 },
}

/// What is known of the region being read.
#[derive(Debug)]
struct Region {
    /// Its place among the regions.
    index: u32,
    /// The checkpoint whose bitmap it is.
    number: u64,
    used: Box<[u8; BITMAP_BYTES]>,
}

/// The walk.
#[derive(Debug)]
pub(super) struct Scrub {
    path: PathBuf,
    bytes_per_s: u64,
    file: Option<FileId>,
    /// What is under way, and the checkpoint that was durable when it began.
    under_way: Option<(Reading, Token, u64)>,
    completion: Option<Completion>,
    region: Option<Region>,
    /// The next page to be looked at.
    next: u32,
    /// Below this page, one by one: a larger read failed.
    single_below: u32,
    next_at: Micros,
    faults: Vec<Fault>,
    pub(super) rounds: u64,
    pub(super) pages: u64,
    pub(super) damaged: u64,
}

impl Scrub {
    pub(super) fn new(path: PathBuf, bytes_per_s: u64) -> Scrub {
        Scrub {
            path,
            bytes_per_s,
            file: None,
            under_way: None,
            completion: None,
            region: None,
            next: 0,
            single_below: 0,
            next_at: 0,
            faults: Vec::new(),
            rounds: 0,
            pages: 0,
            damaged: 0,
        }
    }

    /// When [`Scrub::step`] wants to be called.
    pub(super) fn wakeup(&self) -> Option<Micros> {
        (self.bytes_per_s > 0 && self.under_way.is_none()).then_some(self.next_at)
    }

    /// The damage found since the last call.
    pub(super) fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Takes a completion, to be worked on by [`Scrub::step`]; gives it back if it is a stranger's.
    pub(super) fn take_completion(&mut self, completion: Completion) -> Option<Completion> {
        match &self.under_way {
            Some((_, token, _)) if *token == completion.token => {
                self.completion = Some(completion);
                None
            }
            _ => Some(completion),
        }
    }

    /// Looks at what was read, and reads on when it is time.
    pub(super) fn step(&mut self, disk: &mut dyn Disk, durable: &Names, tx: u64, now: Micros) {
        if let Some(completion) = self.completion.take()
            && let Some((reading, _, number)) = self.under_way.take()
        {
            self.settle(reading, completion, number, durable, tx, now);
        }
        if self.bytes_per_s > 0 && self.under_way.is_none() && now >= self.next_at {
            self.read_on(disk, durable, now);
        }
    }

    fn read_on(&mut self, disk: &mut dyn Disk, durable: &Names, now: Micros) {
        let Some(file) = self.file else {
            let op = Op::Open { path: self.path.clone(), create: false, cached: false };
            return self.start(disk, Reading::Open, op, durable);
        };
        let index = self.next / REGION_PAGES;
        let Some(named) = durable.blocks.get(index as usize).copied() else {
            self.rounds += 1;
            self.region = None;
            self.next = 0;
            self.single_below = 0;
            self.next_at = now + ROUND_PAUSE_US;
            return;
        };
        // the last stretch may have ended where the next region begins
        let wanted = (index, durable.number);
        match &self.region {
            Some(region) if (region.index, region.number) == wanted => match self.next_stretch(region) {
                Some((first, pages)) => {
                    self.pace(u64::from(pages) * PAGE_BYTES as u64, now);
                    let buf = IoBuf::zeroed(pages as usize * PAGE_BYTES);
                    let op = Op::Read { file, offset: PageId(first).offset(), buf };
                    self.start(disk, Reading::Pages { first, pages }, op, durable);
                }
                None => {
                    self.region = None;
                    self.next = (index + 1) * REGION_PAGES;
                    self.read_on(disk, durable, now);
                }
            },
            _ => {
                self.pace(PAGE_BYTES as u64, now);
                let op = Op::Read { file, offset: named.place.offset(), buf: IoBuf::zeroed(PAGE_BYTES) };
                self.start(disk, Reading::Bitmap { named }, op, durable);
            }
        }
    }

    fn start(&mut self, disk: &mut dyn Disk, reading: Reading, op: Op, durable: &Names) {
        self.under_way = Some((reading, disk.submit(op), durable.number));
    }

    /// The next read is not before so many bytes had their time.
    fn pace(&mut self, bytes: u64, now: Micros) {
        self.next_at = self.next_at.max(now) + bytes * 1_000_000 / self.bytes_per_s;
    }

    /// The next pages to be read: from a used one on, within the region.
    fn next_stretch(&self, region: &Region) -> Option<(u32, u32)> {
        let begin = self.next / REGION_PAGES * REGION_PAGES;
        let used = |page: u32| region.used[(page / 8) as usize] & (1 << (page % 8)) != 0;
        let first = (self.next - begin..REGION_PAGES).find(|page| used(*page))?;
        let most = if begin + first < self.single_below { 1 } else { STRETCH_PAGES };
        let end = (first + most).min(REGION_PAGES);
        let last = (first..end).rfind(|page| used(*page))?;
        Some((begin + first, last + 1 - first))
    }

    fn settle(
        &mut self,
        reading: Reading,
        completion: Completion,
        number: u64,
        durable: &Names,
        tx: u64,
        now: Micros,
    ) {
        // what was read may have been written meanwhile
        let same = number == durable.number;
        match (reading, completion.result) {
            (Reading::Open, Ok(Done::Opened(file, _))) => self.file = Some(file),
            (Reading::Open, _) => self.next_at = now + OPEN_RETRY_US,
            (_, _) if !same => self.region = None,
            (Reading::Bitmap { named }, Ok(Done::Read(PAGE_BYTES))) => {
                self.take_bitmap(completion.buf.as_ref(), named, number);
            }
            (Reading::Pages { first, pages }, Ok(Done::Read(bytes)))
                if bytes == pages as usize * PAGE_BYTES =>
            {
                let bytes = completion.buf.as_ref().map_or(&[][..], IoBuf::as_slice);
                self.judge(first, bytes, durable, tx);
                self.next = first + pages;
            }
            (Reading::Pages { first, pages }, _) if pages > 1 => self.single_below = first + pages,
            (Reading::Bitmap { named }, result) => {
                self.unreadable(named.place, result);
                self.region = None;
                self.next = (self.next / REGION_PAGES + 1) * REGION_PAGES;
            }
            (Reading::Pages { first, .. }, result) => {
                self.unreadable(PageId(first), result);
                self.next = first + 1;
            }
        }
    }

    fn take_bitmap(&mut self, buf: Option<&IoBuf>, named: PlaceRef, number: u64) {
        let Some(page) = buf.map(|buf| page_of(buf.as_slice())) else { return };
        let index = self.next / REGION_PAGES;
        match Which::Block(index).check(&page, &named) {
            Ok(()) => {
                let mut used = Box::new([0; BITMAP_BYTES]);
                used.copy_from_slice(block_bits(&page));
                self.region = Some(Region { index, number, used });
            }
            Err(wrong) => {
                self.damage(named.place, &wrong);
                self.next = (index + 1) * REGION_PAGES;
            }
        }
    }

    /// Looks at the pages of a stretch.
    fn judge(&mut self, first: u32, bytes: &[u8], durable: &Names, tx: u64) {
        for (id, bytes) in (first..).map(PageId).zip(bytes.chunks_exact(PAGE_BYTES)) {
            let within = id.0 % REGION_PAGES;
            let used = self
                .region
                .as_ref()
                .is_some_and(|region| region.used[(within / 8) as usize] & (1 << (within % 8)) != 0);
            if !used {
                continue;
            }
            self.pages += 1;
            let page = page_of(bytes);
            let checked =
                if is_fixed(id) { check_fixed(id, &page, durable) } else { check_page(id, &page, tx) };
            if let Err(wrong) = checked {
                self.damage(id, &wrong);
            }
        }
    }

    fn damage(&mut self, id: PageId, wrong: &NoMeta) {
        let (expected, found) = match wrong {
            NoMeta::Damaged { expected, found } => (expected.clone(), found.clone()),
            other => ("what was written there".to_string(), format!("{other:?}")),
        };
        self.tell(Fault::Corrupt { path: self.path.clone(), offset: id.offset(), expected, found });
    }

    fn unreadable(&mut self, id: PageId, result: std::io::Result<Done>) {
        let source = match result {
            Err(error) => error,
            Ok(done) => std::io::Error::other(format!("the disk answered {done:?}")),
        };
        self.tell(Fault::Io { operation: "read", path: self.path.clone(), offset: id.offset(), source });
    }

    fn tell(&mut self, fault: Fault) {
        self.damaged += 1;
        if self.faults.len() < KEPT_FAULTS {
            self.faults.push(fault);
        }
    }
}

fn page_of(bytes: &[u8]) -> Page {
    let mut page = Page([0; PAGE_BYTES]);
    page.0.copy_from_slice(&bytes[..PAGE_BYTES]);
    page
}

/// Checks one of the fixed places, if the durable meta names it or is it.
fn check_fixed(id: PageId, page: &Page, durable: &Names) -> Result<(), NoMeta> {
    if meta_places(durable.number).contains(&id) {
        let meta = Meta::decode(page, id)?;
        if meta.number != durable.number {
            let expected = format!("the meta of checkpoint {}", durable.number);
            return Err(NoMeta::Damaged { expected, found: format!("that of {}", meta.number) });
        }
        return Ok(());
    }
    let block = id.0 / REGION_PAGES;
    if let Some(named) = durable.blocks.get(block as usize).filter(|named| named.place == id) {
        return Which::Block(block).check(page, named);
    }
    let directory = block / DIRECTORY_BLOCKS;
    match durable.directories.get(directory as usize).filter(|named| named.place == id) {
        Some(named) => Which::Directory(directory).check(page, named),
        None => Ok(()),
    }
}

/// Checks a page of a tree or a run.
fn check_page(id: PageId, page: &Page, tx: u64) -> Result<(), NoMeta> {
    let kind = matches!(page.kind(), Some(PageKind::Branch | PageKind::Leaf | PageKind::Run));
    if !kind || page.id() != id || page.tx() > tx {
        let expected = format!("page {id} of a tree, of transaction {tx} or before");
        return Err(NoMeta::Damaged { expected, found: format!("{page:?}") });
    }
    let (stored, computed) = (page.stored_crc(), page.computed_crc());
    if stored != computed {
        let expected = format!("CRC {stored:#010x}, as the page says");
        return Err(NoMeta::Damaged { expected, found: format!("bytes whose CRC is {computed:#010x}") });
    }
    Ok(())
}
