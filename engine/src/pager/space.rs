//! Which pages of the file are used, which can be given out.
//!
//! Two bits for each page: *used* (the open transaction reaches it; a checkpoint persists these) and *busy* (used, or
//! still within reach of a reader or of a durable root, or being written). A page is given out when it is not busy, the
//! lowest first, so that the file's tail empties by itself.
//!
//! Invariants: used pages are busy; the fixed places (`places.rs`) are always both.

use super::page::PageId;
use super::places::{DIRECTORY_BLOCKS, FIRST_PAGE, PAGES_MAX, fixed_pages, is_fixed};

/// Pages of a region: as many as a bitmap page has bits.
pub(super) const REGION_PAGES: u32 = 32_000;
/// Bytes of a region's bitmap.
pub(super) const BITMAP_BYTES: usize = REGION_PAGES as usize / 8;
/// The longest run, in pages: it must lie between the fixed places of two regions.
pub(super) const RUN_PAGES_MAX: u32 = REGION_PAGES - FIRST_PAGE;
/// Words of a region's bitmap.
const WORDS: usize = REGION_PAGES as usize / 64;
/// Words that are looked at for a run before it goes to the end.
const RUN_SEARCH_WORDS: usize = 8192;

type Bits = Box<[u64; WORDS]>;

/// A region's pages.
struct Region {
    used: Bits,
    busy: Bits,
    used_count: u32,
    busy_count: u32,
    /// Used bits changed since they were last given to a checkpoint.
    changed: bool,
}

/// All regions there are.
pub(super) struct Space {
    regions: Vec<Region>,
    /// Used pages, without the fixed places.
    used: u64,
    /// The highest used page that is no fixed place, plus one; at least [`FIRST_PAGE`].
    end: u32,
    /// No page below it can be given out.
    hint: u32,
    moving_from: Option<PageId>,
}

impl Region {
    fn new(number: u32) -> Region {
        let mut used: Bits = Box::new([0; WORDS]);
        let fixed = fixed_pages(number);
        used[0] = (1 << fixed) - 1;
        Region { busy: used.clone(), used, used_count: fixed, busy_count: fixed, changed: true }
    }

    /// From the bits that a checkpoint left.
    fn from_bitmap(number: u32, bitmap: &[u8; BITMAP_BYTES]) -> Region {
        let mut region = Region::new(number);
        for (word, bytes) in region.used.iter_mut().zip(bitmap.chunks_exact(8)) {
            *word |= u64::from_le_bytes([
                bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
            ]);
        }
        region.busy.copy_from_slice(&region.used[..]);
        region.used_count = region.used.iter().map(|word| word.count_ones()).sum();
        region.busy_count = region.used_count;
        region.changed = false;
        region
    }

    fn bitmap(&self) -> Box<[u8; BITMAP_BYTES]> {
        let mut out = Box::new([0; BITMAP_BYTES]);
        for (bytes, word) in out.chunks_exact_mut(8).zip(self.used.iter()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    fn highest(bits: &Bits) -> u32 {
        let word = bits.iter().rposition(|word| *word != 0).unwrap_or(0);
        word as u32 * 64 + 63 - bits[word].leading_zeros()
    }
}

/// Where a page's bit is: region, word, bit.
fn place(id: PageId) -> (usize, usize, u64) {
    let within = id.0 % REGION_PAGES;
    ((id.0 / REGION_PAGES) as usize, within as usize / 64, 1 << (within % 64))
}

impl Space {
    /// An empty file's.
    pub(super) fn new() -> Space {
        Space { regions: vec![Region::new(0)], used: 0, end: FIRST_PAGE, hint: FIRST_PAGE, moving_from: None }
    }

    /// From the bitmaps that a checkpoint left, region by region.
    pub(super) fn from_bitmaps(bitmaps: &[[u8; BITMAP_BYTES]]) -> Space {
        let regions = bitmaps.iter().enumerate();
        let mut regions: Vec<Region> =
            regions.map(|(at, bits)| Region::from_bitmap(at as u32, bits)).collect();
        if regions.is_empty() {
            regions.push(Region::new(0));
        }
        let fixed: u64 = (0..regions.len() as u32).map(|region| u64::from(fixed_pages(region))).sum();
        let used: u64 = regions.iter().map(|region| u64::from(region.used_count)).sum::<u64>() - fixed;
        let end = regions.len() as u32 * REGION_PAGES;
        let mut space = Space { regions, used, end, hint: FIRST_PAGE, moving_from: None };
        space.lower_end();
        space
    }

    /// Pages in use, the fixed places of the regions that have any counted.
    pub(super) fn pages_used(&self) -> u64 {
        let last = (self.end - 1) / REGION_PAGES;
        let fixed = FIRST_PAGE + last * 2 + last / DIRECTORY_BLOCKS * 2;
        self.used + u64::from(fixed)
    }

    /// The highest page in use, plus one.
    pub(super) fn pages_end(&self) -> u32 {
        self.end
    }

    /// The highest page that is in use or waits to be free, plus one.
    pub(super) fn busy_end(&self) -> u32 {
        let busy = self.regions.iter().enumerate().rev();
        let mut busy = busy.filter(|(at, region)| region.busy_count > fixed_pages(*at as u32));
        busy.next()
            .map_or(FIRST_PAGE, |(at, region)| at as u32 * REGION_PAGES + Region::highest(&region.busy) + 1)
    }

    /// Pages below the end that may be given out at once.
    pub(super) fn free_below_end(&self) -> u64 {
        let busy = self.regions.iter().map(|region| u64::from(region.busy_count)).sum();
        u64::from(self.end).saturating_sub(busy)
    }

    /// Pages from there on are to be moved away; `None`: nothing is being moved.
    pub(super) fn set_moving_from(&mut self, from: Option<PageId>) {
        self.moving_from = from;
    }

    #[inline]
    pub(super) fn is_to_move(&self, id: PageId) -> bool {
        self.moving_from.is_some_and(|from| id >= from)
    }

    /// Gives out the lowest page that is not busy.
    pub(super) fn take(&mut self) -> PageId {
        let id = self.lowest_free().unwrap_or_else(|| self.add_region());
        self.hint = id.0 + 1;
        self.mark(id);
        id
    }

    /// Gives out consecutive pages, the lowest that are found in reasonable time, else behind all others.
    ///
    /// # Panics
    /// More than [`RUN_PAGES_MAX`], or none.
    pub(super) fn take_run(&mut self, pages: u32) -> PageId {
        assert!((1..=RUN_PAGES_MAX).contains(&pages), "a run of {pages} pages");
        if pages == 1 {
            return self.take();
        }
        let first = self.free_stretch(pages).unwrap_or_else(|| self.end_stretch(pages));
        for id in first.0..first.0 + pages {
            self.mark(PageId(id));
        }
        first
    }

    /// The open transaction reaches a page no more; it stays busy.
    ///
    /// # Panics
    /// It is not in use, or a fixed place.
    pub(super) fn drop_used(&mut self, id: PageId) {
        let (at, word, bit) = place(id);
        assert!(!is_fixed(id), "page {id} is a fixed place");
        let region = &mut self.regions[at];
        assert!(region.used[word] & bit != 0, "page {id} is freed twice");
        region.used[word] &= !bit;
        region.used_count -= 1;
        region.changed = true;
        self.used -= 1;
        if id.0 + 1 == self.end {
            self.lower_end();
        }
    }

    /// A page that was dropped can be given out.
    ///
    /// # Panics
    /// It is in use, or free already.
    pub(super) fn release(&mut self, id: PageId) {
        let (at, word, bit) = place(id);
        let region = &mut self.regions[at];
        assert!(
            region.used[word] & bit == 0 && region.busy[word] & bit != 0,
            "page {id} is not waiting to be free"
        );
        region.busy[word] &= !bit;
        region.busy_count -= 1;
        self.hint = self.hint.min(id.0);
    }

    /// The bitmaps that changed since the last call and lie below `end`, as they were before the open transaction, which
    /// took `taken` and dropped `dropped`.
    pub(super) fn changed_bitmaps(
        &mut self,
        end: u32,
        taken: &[PageId],
        dropped: &[PageId],
    ) -> Vec<(u32, Box<[u8; BITMAP_BYTES]>)> {
        self.set_bits(taken, false);
        self.set_bits(dropped, true);
        let regions = self.regions.iter_mut().enumerate().take(end.div_ceil(REGION_PAGES) as usize);
        let out = regions
            .filter_map(|(at, region)| {
                std::mem::take(&mut region.changed).then(|| (at as u32, region.bitmap()))
            })
            .collect();
        self.set_bits(dropped, false);
        self.set_bits(taken, true);
        for id in taken.iter().chain(dropped) {
            self.regions[place(*id).0].changed = true;
        }
        out
    }

    fn set_bits(&mut self, ids: &[PageId], used: bool) {
        for id in ids {
            let (at, word, bit) = place(*id);
            let word = &mut self.regions[at].used[word];
            *word = if used { *word | bit } else { *word & !bit };
        }
    }

    fn mark(&mut self, id: PageId) {
        let (at, word, bit) = place(id);
        let region = &mut self.regions[at];
        debug_assert!(region.busy[word] & bit == 0, "page {id} is busy");
        region.used[word] |= bit;
        region.busy[word] |= bit;
        region.used_count += 1;
        region.busy_count += 1;
        region.changed = true;
        self.used += 1;
        self.end = self.end.max(id.0 + 1);
    }

    /// Finds the end anew, downwards from where it was.
    fn lower_end(&mut self) {
        let last = (self.end - 1) / REGION_PAGES;
        let inhabited = (0..=last).rev().find(|at| self.regions[*at as usize].used_count > fixed_pages(*at));
        self.end = inhabited.map_or(FIRST_PAGE, |at| {
            at * REGION_PAGES + Region::highest(&self.regions[at as usize].used) + 1
        });
    }

    /// The lowest page that is not busy.
    fn lowest_free(&self) -> Option<PageId> {
        let first = self.hint / REGION_PAGES;
        for (at, region) in self.regions.iter().enumerate().skip(first as usize) {
            if region.busy_count == REGION_PAGES {
                continue;
            }
            let from = if at as u32 == first { (self.hint % REGION_PAGES) as usize / 64 } else { 0 };
            if let Some(word) = region.busy[from..].iter().position(|word| *word != u64::MAX) {
                let word = from + word;
                let bit = region.busy[word].trailing_ones();
                return Some(PageId(at as u32 * REGION_PAGES + word as u32 * 64 + bit));
            }
        }
        None
    }

    /// The lowest stretch of pages that are not busy, unless the search takes too long.
    fn free_stretch(&self, pages: u32) -> Option<PageId> {
        let mut budget = RUN_SEARCH_WORDS;
        for (at, region) in self.regions.iter().enumerate().skip((self.hint / REGION_PAGES) as usize) {
            if REGION_PAGES - region.busy_count < pages {
                continue;
            }
            // a region begins with fixed places, so no stretch reaches into it from the one before
            if let Some(first) = stretch_in(&region.busy, pages) {
                return Some(PageId(at as u32 * REGION_PAGES + first));
            }
            budget = budget.checked_sub(WORDS)?;
        }
        None
    }

    /// A stretch behind all busy pages.
    fn end_stretch(&mut self, pages: u32) -> PageId {
        let last = self.regions.len() as u32 - 1;
        let behind = Region::highest(&self.regions[last as usize].busy) + 1;
        if behind + pages <= REGION_PAGES {
            return PageId(last * REGION_PAGES + behind);
        }
        self.add_region()
    }

    /// Adds a region; its first page that is no fixed place.
    fn add_region(&mut self) -> PageId {
        let number = self.regions.len() as u32;
        assert!(
            u64::from(number + 1) * u64::from(REGION_PAGES) <= PAGES_MAX,
            "the file is as long as it can be"
        );
        self.regions.push(Region::new(number));
        PageId(number * REGION_PAGES + fixed_pages(number))
    }
}

/// The first stretch of clear bits of that length.
fn stretch_in(bits: &Bits, len: u32) -> Option<u32> {
    let (mut begin, mut free) = (0, 0);
    for (at, word) in bits.iter().enumerate() {
        let (mut left, mut bit) = (*word, 0);
        while bit < 64 {
            let clear = left.trailing_zeros().min(64 - bit);
            if clear > 0 && free == 0 {
                begin = at as u32 * 64 + bit;
            }
            free += clear;
            if free >= len {
                return Some(begin);
            }
            bit += clear;
            if bit < 64 {
                left >>= clear;
                let set = left.trailing_ones();
                left = left.checked_shr(set).unwrap_or(0);
                bit += set;
                free = 0;
            }
        }
    }
    None
}
