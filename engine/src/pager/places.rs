//! The fixed places of the page file.
//!
//! ```text
//! region 0 (32,000 pages)                                      region b, from page b * 32,000
//! +--------+--------+-----------+-----------+---------------   +-----------+-------------------+----------
//! | 0    1 | 2    3 | 4       5 | 6       7 | 8 ...            | +0     +1 | +2             +3 | ...
//! | meta A | meta B | bitmap    | directory | trees and runs   | bitmap    | directory, where  | trees
//! | twice  | twice  | of 0      | 0         |                  | of b      | b is 254 * d      | and runs
//! +--------+--------+-----------+-----------+---------------   +-----------+-------------------+----------
//!
//! meta --> directory d (one of two places) --> bitmap block b (one of two places): 32,000 bits, one per page
//! ```
//! Block `b` of the bitmap says which pages of region `b` are used; the fixed places count as used. A block or directory
//! that changes goes to the place that the last durable meta does not name. A directory names 254 blocks; the meta names
//! all directories, always, however small the file: one way for all sizes.

use super::page::{HEAD_BYTES, PAGE_BYTES, PageId};
use super::space::{BITMAP_BYTES, REGION_PAGES};

/// Bytes with which a block or directory is named.
pub(super) const PLACE_REF_BYTES: usize = 16;
/// Blocks that a directory names.
pub(super) const DIRECTORY_BLOCKS: u32 = ((PAGE_BYTES - HEAD_BYTES) / PLACE_REF_BYTES) as u32;
/// Directories that a meta has room for.
pub(super) const DIRECTORIES_MAX: u32 = 234;
/// Pages that a file may have: 7.2 TiB.
pub(super) const PAGES_MAX: u64 = DIRECTORIES_MAX as u64 * DIRECTORY_BLOCKS as u64 * REGION_PAGES as u64;
/// Pages of the two metas, each twice.
pub(super) const META_PAGES: u32 = 4;
/// The first page that is not fixed; also the length of the smallest file, in pages.
pub(super) const FIRST_PAGE: u32 = 8;

const _: () = assert!(HEAD_BYTES + BITMAP_BYTES <= PAGE_BYTES && DIRECTORY_BLOCKS == 254);
const _: () = assert!(PAGES_MAX < u32::MAX as u64);

/// The two places of a meta's copies.
pub(super) fn meta_places(number: u64) -> [PageId; 2] {
    let first = (number % 2) as u32 * 2;
    [PageId(first), PageId(first + 1)]
}

/// The two places of a bitmap block.
pub(super) fn bitmap_places(block: u32) -> [PageId; 2] {
    let first = if block == 0 { META_PAGES } else { block * REGION_PAGES };
    [PageId(first), PageId(first + 1)]
}

/// The two places of a directory.
pub(super) fn directory_places(directory: u32) -> [PageId; 2] {
    let [_, bitmap] = bitmap_places(directory * DIRECTORY_BLOCKS);
    [PageId(bitmap.0 + 1), PageId(bitmap.0 + 2)]
}

/// Fixed places at the beginning of a region.
pub(super) fn fixed_pages(region: u32) -> u32 {
    match region {
        0 => FIRST_PAGE,
        _ if region.is_multiple_of(DIRECTORY_BLOCKS) => 4,
        _ => 2,
    }
}

/// Whether a page is one of the fixed places.
pub(super) fn is_fixed(page: PageId) -> bool {
    page.0 % REGION_PAGES < fixed_pages(page.0 / REGION_PAGES)
}

/// Regions that a file of so many pages has.
pub(super) fn regions(pages: u64) -> u32 {
    debug_assert!(pages <= PAGES_MAX);
    pages.div_ceil(u64::from(REGION_PAGES)) as u32
}

/// Fixed places of all regions of a file of so many pages.
pub fn fixed_pages_below(pages_end: u64) -> u64 {
    (0..regions(pages_end)).map(|region| u64::from(fixed_pages(region))).sum()
}

/// Fixed places among them that the newest state does not need: older copies, and second ones.
pub fn spare_pages_below(pages_end: u64) -> u64 {
    let blocks = regions(pages_end);
    let needed = 1 + u64::from(blocks) + u64::from(blocks.div_ceil(DIRECTORY_BLOCKS));
    fixed_pages_below(pages_end) - needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fixed_place_is_one_things_alone_and_lies_in_its_region() {
        let mut seen = BTreeSet::new();
        let mut add = |page: PageId, region: u32| {
            assert!(is_fixed(page) && page.0 / REGION_PAGES == region, "{page}");
            assert!(seen.insert(page), "{page}");
        };
        for number in 0..2 {
            meta_places(number).into_iter().for_each(|page| add(page, 0));
        }
        for block in 0..3 * DIRECTORY_BLOCKS {
            bitmap_places(block).into_iter().for_each(|page| add(page, block));
        }
        for directory in 0..3 {
            directory_places(directory).into_iter().for_each(|page| add(page, directory * DIRECTORY_BLOCKS));
        }
        let fixed: u32 = (0..3 * DIRECTORY_BLOCKS).map(fixed_pages).sum();
        assert_eq!(seen.len() as u32, fixed);
        assert!(!is_fixed(PageId(FIRST_PAGE)) && !is_fixed(PageId(REGION_PAGES + 2)));
        let [_, last] = bitmap_places(DIRECTORIES_MAX * DIRECTORY_BLOCKS - 1);
        assert!(u64::from(last.0) < PAGES_MAX);
    }
}
