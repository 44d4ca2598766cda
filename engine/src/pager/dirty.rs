//! Published pages that the file does not have yet.

use super::page::{Page, PageId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pages of one level, in the order of their places.
pub type LevelPages = BTreeMap<PageId, Arc<Page>>;

/// The pages by level: leaves and runs at 0, children before parents.
#[derive(Default)]
pub(super) struct Dirty {
    levels: Vec<LevelPages>,
    pages: usize,
}

impl Dirty {
    pub(super) fn insert(&mut self, id: PageId, page: Arc<Page>) {
        let level = usize::from(page.level());
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, LevelPages::new);
        }
        let before = self.levels[level].insert(id, page);
        debug_assert!(before.is_none(), "page {id} is given out while its last bytes are not written");
        self.pages += 1;
    }

    /// Takes out a page: it was written, or nobody reaches it any more.
    pub(super) fn remove(&mut self, id: PageId, level: u8) -> bool {
        let removed =
            self.levels.get_mut(usize::from(level)).is_some_and(|pages| pages.remove(&id).is_some());
        self.pages -= usize::from(removed);
        removed
    }

    /// The pages, children before parents.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PageId, &Arc<Page>)> {
        self.levels.iter().flatten().map(|(id, page)| (*id, page))
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> Vec<LevelPages> {
        self.pages = 0;
        std::mem::take(&mut self.levels)
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }
}
