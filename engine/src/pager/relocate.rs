//! When pages should move toward the file's head, so that its tail can be cut off.

use super::page::PageId;
use super::writer::Pager;

/// A file of fewer pages is never emptied by itself: 64 MiB.
const SMALL_FILE_PAGES: u64 = 16_384;

impl Pager {
    /// Asks for the tail to be emptied, however full the file is.
    pub fn request_defragment(&mut self) {
        self.defragment = true;
    }

    /// From which page on the pages should move away; `None`: there is nothing to win, or nobody wants it.
    pub fn relocation_wish(&self) -> Option<PageId> {
        let (used, end) = self.pages_in_use();
        let mostly_free = used * 2 < end && end > SMALL_FILE_PAGES;
        let from = used + used / 20;
        let wish = (self.defragment || mostly_free) && from < end;
        // below the end, which fits
        wish.then_some(PageId(from as u32))
    }

    /// Pages from there on are to be moved ([`PagesMut::is_to_move`](super::PagesMut::is_to_move)); `None`: done, and
    /// what was asked for by [`Pager::request_defragment`] with it.
    pub fn set_moving_from(&mut self, from: Option<PageId>) {
        self.defragment &= from.is_some();
        self.space.set_moving_from(from);
    }

    /// The highest page that is in use or waits to be free, plus one: behind it the file can be cut, once a durable root
    /// says so too.
    pub fn busy_end(&self) -> u64 {
        u64::from(self.space.busy_end())
    }
}
