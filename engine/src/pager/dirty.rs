//! Published pages that the file does not have yet, by level and place. A bit says that there is one; the page itself is
//! in the page table until it was written.

use super::page::PageId;

/// Places of pages, in order.
#[derive(Debug, Default)]
pub(super) struct PageSet {
    words: Vec<u64>,
    /// No bit below this word.
    first: usize,
    pages: usize,
}

fn place(id: PageId) -> (usize, u64) {
    (id.0 as usize / 64, 1 << (id.0 % 64))
}

impl PageSet {
    /// Adds a place; whether it was not there.
    pub(super) fn insert(&mut self, id: PageId) -> bool {
        let (at, bit) = place(id);
        if at >= self.words.len() {
            // twice as long, so that a growing file does not move it all the time
            self.words.resize((at + 1).next_power_of_two(), 0);
        }
        let added = self.words[at] & bit == 0;
        self.words[at] |= bit;
        self.first = self.first.min(at);
        self.pages += usize::from(added);
        added
    }

    /// Takes a place out; whether it was there.
    pub(super) fn remove(&mut self, id: PageId) -> bool {
        let (at, bit) = place(id);
        let Some(word) = self.words.get_mut(at).filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        self.pages -= 1;
        true
    }

    /// Takes the lowest place.
    pub(super) fn pop_first(&mut self) -> Option<PageId> {
        let id = self.iter().next()?;
        self.first = place(id).0;
        self.remove(id);
        Some(id)
    }

    /// The places, upwards.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageId> {
        // the words are not looked at when there is nothing to find
        let words = if self.pages == 0 { &[][..] } else { &self.words[self.first..] };
        words.iter().enumerate().flat_map(move |(at, word)| {
            let base = (self.first + at) as u32 * 64;
            bits(*word).map(move |bit| PageId(base + bit))
        })
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }
}

/// The bits that are set, upwards.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(bit)
    })
}

/// The pages by level: leaves and runs at 0, children before parents.
#[derive(Default)]
pub(super) struct Dirty {
    levels: Vec<PageSet>,
}

impl Dirty {
    /// Adds a page.
    pub(super) fn insert(&mut self, id: PageId, level: u8) {
        let level = usize::from(level);
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, PageSet::default);
        }
        let added = self.levels[level].insert(id);
        debug_assert!(added, "page {id} is given out while its last bytes are not written");
    }

    /// Takes out a page: it was written, or nobody reaches it any more.
    pub(super) fn remove(&mut self, id: PageId, level: u8) -> bool {
        self.levels.get_mut(usize::from(level)).is_some_and(|pages| pages.remove(id))
    }

    /// The pages, children before parents.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageId> {
        self.levels.iter().flat_map(PageSet::iter)
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> Vec<PageSet> {
        std::mem::take(&mut self.levels)
    }

    pub(super) fn pages(&self) -> usize {
        self.levels.iter().map(PageSet::pages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_in_order_each_once() {
        let mut set = PageSet::default();
        assert_eq!(set.pop_first(), None);
        let ids = [700, 3, 64, 63, 700, 1_000_000, 65].map(PageId);
        assert_eq!(ids.map(|id| set.insert(id)), [true, true, true, true, false, true, true]);
        assert!(set.remove(PageId(64)) && !set.remove(PageId(64)) && !set.remove(PageId(u32::MAX)));
        assert_eq!(set.iter().map(|id| id.0).collect::<Vec<_>>(), [3, 63, 65, 700, 1_000_000]);
        assert_eq!(
            (set.pop_first(), set.pop_first(), set.pop_first()),
            (Some(PageId(3)), Some(PageId(63)), Some(PageId(65)))
        );
        assert!(set.insert(PageId(5)));
        assert_eq!((set.pop_first(), set.pages()), (Some(PageId(5)), 2));
        assert_eq!((set.pop_first(), set.pop_first()), (Some(PageId(700)), Some(PageId(1_000_000))));
        assert_eq!((set.pop_first(), set.pages()), (None, 0));
    }
}
