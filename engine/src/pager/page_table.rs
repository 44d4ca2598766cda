//! Which pages are in memory, and the newest root: what readers share with the writer, without a lock.
//!
//! ```text
//! entry of a page id    tx 0                 the map has the page, or nobody
//!                       tx B, pointer        the page that transaction B wrote, in memory
//! root                  pointer              the newest root
//! readers               a table of theirs    see readers.rs
//! ```
//! This is the one place of the pager with `unsafe`, and it keeps its promises by itself: pages and roots are handed out
//! only by a [`Registration`], for as long as it lives, and by the [`TableWriter`], for as long as it is not changed.
//! What is taken out of the table is kept until no registration can have it:
//!
//! - A reader registered at root R follows an entry only if its tx B is at most R. The writer takes a page out by
//!   clearing the entry's tx, in the time of root P, and keeps the page while a reader of one of the roots B..=P is
//!   listed, seen after the clearing. All four steps (enter, look at tx; clear tx, list) are sequentially consistent:
//!   a reader that the list misses entered after it and finds the tx cleared.
//! - An entry is never the same page's twice: an id is given out anew in a later transaction. So tx, pointer, tx again,
//!   the same both times, is the pointer of that tx.
//! - The root is swapped before the published transaction is raised, so a reader that entered at R and then finds root r
//!   and published at most R knows r to be R or R + 1. Root r is kept, once swapped out, while a reader of r - 1 or r is
//!   listed.
//!
//! The lists rest on [`Readers`] and the keeping on [`Retired`], which are small and have no other users.
#![allow(unsafe_code, reason = "pages are shared with readers without a lock")]

use super::doubling::Doubling;
use super::map_pages::MapPages;
use super::page::{PAGE_BYTES, Page, PageId};
use super::readers::{Place, Readers};
use super::retire::Retired;
use super::root::Root;
use super::sync::{ATOMICS_ARE_PLAIN, AtomicPtr, AtomicU64, Mutex, Ordering, gap};
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Pages kept to be used again, instead of being given back to the allocator: as many as the last checkpoint wrote, within
/// these bounds. An allocator that gives some of them back to the system, and asks for them again, breaks up the large pages that
/// they lie in.
const POOL_PAGES: (usize, usize) = (2_048, 16_384);
/// Those beyond are given back so many at a time.
const POOL_GIVES: usize = 64;

/// One page id. Only the writer changes it.
#[repr(align(16))]
struct Entry {
    tx: AtomicU64,
    page: AtomicPtr<Page>,
}

/// What was taken out of reach and may still be read.
enum Kept {
    Page(Arc<Page>),
    Root(Arc<Root>),
}

/// The table. Dropped only when neither writer nor registration is left.
pub(super) struct PageTable {
    entries: Doubling<Entry>,
    /// From [`Arc::into_raw`], never null.
    root: AtomicPtr<Root>,
    /// The newest root's transaction, raised after the root was swapped.
    published: AtomicU64,
    readers: Readers,
    /// The newest durable root; a reader registers at it while holding this.
    durable: Mutex<Arc<Root>>,
    /// What a writer left when it went while readers were there.
    left: Mutex<Vec<Kept>>,
    map: Option<MapPages>,
}

impl PageTable {
    /// Where the pages come from that are not in memory.
    #[inline]
    pub(super) fn map(&self) -> Option<&MapPages> {
        self.map.as_ref()
    }

    /// Where a new handle begins to look for a slot.
    pub(super) fn next_home(&self) -> usize {
        self.readers.next_home()
    }

    /// Readers that are registered.
    pub(super) fn readers_registered(&self) -> usize {
        self.readers.count()
    }

    /// Registers at the newest root.
    #[inline]
    pub(super) fn read(&self, home: usize) -> Registration<&PageTable> {
        let (place, tx, root) = self.enter_newest(home);
        Registration { table: self, place, tx, root, _kept: None }
    }

    /// The same for a registration that owns what it needs.
    pub(super) fn pin_newest(self: &Arc<PageTable>, home: usize) -> Registration<Arc<PageTable>> {
        let (place, tx, root) = self.enter_newest(home);
        Registration { table: Arc::clone(self), place, tx, root, _kept: None }
    }

    /// Registers at the newest durable root, whose pages the map has.
    pub(super) fn pin_durable(self: &Arc<PageTable>, home: usize) -> Registration<Arc<PageTable>> {
        let durable = self.durable.lock();
        let kept = Arc::clone(&durable);
        let place = self.readers.enter(home, kept.tx);
        drop(durable);
        let root = NonNull::from(&*kept);
        Registration { table: Arc::clone(self), place, tx: kept.tx, root, _kept: Some(kept) }
    }

    /// Enters a reader at the newest root: until that root is the one it entered at, or the next, it tries again.
    fn enter_newest(&self, home: usize) -> (Place, u64, NonNull<Root>) {
        let mut tx = self.published.load(Ordering::SeqCst);
        let place = self.readers.enter(home, tx);
        loop {
            let root = self.root.load(Ordering::SeqCst);
            let published = self.published.load(Ordering::SeqCst);
            if published > tx {
                tx = published;
            } else {
                // SAFETY: the pointer came from an Arc, so it is not null. The root is not freed: it is that of `tx` or
                // of `tx + 1` (see the module's head: `tx` was read from `published` or from a root before, and
                // `published`, read after the root, is at most `tx`), and a reader of `tx` entered before it was loaded.
                let found = unsafe { NonNull::new_unchecked(root) };
                gap();
                // SAFETY: as above.
                let found_tx = unsafe { found.as_ref() }.tx;
                if found_tx == tx {
                    return (place, tx, found);
                }
                tx = found_tx;
            }
            self.readers.change(&place, tx);
        }
    }

    /// The pointer of the page that `tx` wrote, if it is in memory. Whether it may be followed is the caller's business.
    #[inline]
    fn pointer(&self, id: PageId, tx: u64) -> Option<NonNull<Page>> {
        let entry = self.entries.get(id.0)?;
        // an entry of 0 is nobody's, whatever pointer is in it for a moment
        if tx == 0 || entry.tx.load(Ordering::SeqCst) != tx {
            return None;
        }
        let page = entry.page.load(Ordering::Acquire);
        // a page that was taken out in between, and another put there: then the tx is another too
        (entry.tx.load(Ordering::Relaxed) == tx).then(|| NonNull::new(page)).flatten()
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        for entry in self.entries.iter() {
            let page = entry.page.load(Ordering::Relaxed);
            if !page.is_null() {
                // SAFETY: the pointer came from Arc::into_raw in `install`, and with the table nobody is left to follow it.
                drop(unsafe { Arc::from_raw(page) });
            }
        }
        // SAFETY: the pointer came from Arc::into_raw in `new` or `swap_root`; nobody is left to follow it.
        drop(unsafe { Arc::from_raw(self.root.load(Ordering::Relaxed)) });
    }
}

/// A reader in the table: what it hands out lives as long as it does.
pub(super) struct Registration<T: Deref<Target = PageTable>> {
    table: T,
    place: Place,
    /// The transaction it is entered at, and its root's.
    tx: u64,
    root: NonNull<Root>,
    /// Holds the root where it need not be the newest.
    _kept: Option<Arc<Root>>,
}

// SAFETY: it is a place in a table that all threads share, and a root that is only read (the assertion below).
unsafe impl<T: Deref<Target = PageTable> + Send> Send for Registration<T> {}
// SAFETY: as above.
unsafe impl<T: Deref<Target = PageTable> + Sync> Sync for Registration<T> {}
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<(Root, Page, PageTable)>();
};

impl<T: Deref<Target = PageTable>> Registration<T> {
    /// The root it is registered at.
    #[inline]
    pub(super) fn root(&self) -> &Root {
        // SAFETY: the root is held by `_kept`, or it was the newest one after this reader entered at its transaction, and
        // is kept while that reader is listed.
        unsafe { self.root.as_ref() }
    }

    /// The page that transaction `tx` wrote, if it is in memory.
    #[inline]
    pub(super) fn page(&self, id: PageId, tx: u64) -> Option<&Page> {
        if tx > self.tx {
            return None;
        }
        // SAFETY: the entry was that of `tx`, at most this reader's, after this reader entered; what is taken out of it
        // is kept while a reader of a root from `tx` on, up to the newest at that time, is listed, and this is one.
        self.table.pointer(id, tx).map(|page| unsafe { page.as_ref() })
    }

    /// Where the pages come from that are not in memory.
    #[inline]
    pub(super) fn map(&self) -> Option<&MapPages> {
        self.table.map()
    }
}

impl<T: Deref<Target = PageTable>> Drop for Registration<T> {
    #[inline]
    fn drop(&mut self) {
        self.table.readers.leave(&self.place);
    }
}

/// The writer's end: there is one, and only it changes the table.
pub(super) struct TableWriter {
    table: Arc<PageTable>,
    root: Arc<Root>,
    retired: Retired<Kept>,
    readers: Vec<u64>,
    pool: Vec<OpenPage>,
    /// Within [`POOL_PAGES`].
    pool_max: usize,
    /// Entries that are not 0.
    in_memory: usize,
}

impl TableWriter {
    /// A table whose newest root is `root`, and durable too.
    pub(super) fn new(root: Arc<Root>, map: Option<MapPages>) -> TableWriter {
        let table = PageTable {
            entries: Doubling::new(),
            root: AtomicPtr::new(Arc::into_raw(Arc::clone(&root)).cast_mut()),
            published: AtomicU64::new(root.tx),
            readers: Readers::new(),
            durable: Mutex::new(Arc::clone(&root)),
            left: Mutex::new(Vec::new()),
            map,
        };
        let (retired, readers) = (Retired::default(), Vec::new());
        let (pool, pool_max) = (Vec::new(), POOL_PAGES.0);
        TableWriter { table: Arc::new(table), root, retired, readers, pool, pool_max, in_memory: 0 }
    }

    /// The readers' end.
    pub(super) fn table(&self) -> &Arc<PageTable> {
        &self.table
    }

    /// The newest root.
    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// The page that transaction `tx` wrote, if it is published and in memory.
    #[inline]
    pub(super) fn page(&self, id: PageId, tx: u64) -> Option<&Page> {
        // SAFETY: only the writer takes pages out, and it cannot while it is borrowed.
        self.table.pointer(id, tx).map(|page| unsafe { page.as_ref() })
    }

    /// The page that is in memory at `id`, to be kept.
    pub(super) fn shared_page(&self, id: PageId) -> Option<Arc<Page>> {
        let page = self.table.pointer(id, self.tx_at(id))?;
        // SAFETY: the pointer came from Arc::into_raw in `install`, and the count it stands for is given back only by the
        // writer, which cannot while it is borrowed.
        unsafe { Arc::increment_strong_count(page.as_ptr()) };
        // SAFETY: as above; the count was raised for this one.
        Some(unsafe { Arc::from_raw(page.as_ptr()) })
    }

    /// The transaction whose page is in memory at `id`; 0: none.
    pub(super) fn tx_at(&self, id: PageId) -> u64 {
        self.table.entries.get(id.0).map_or(0, |entry| entry.tx.load(Ordering::Relaxed))
    }

    /// Puts a page of transaction `tx` into the table, for readers of the root to come.
    ///
    /// # Panics
    /// A page is there already, or `tx` is not newer than the newest root's.
    pub(super) fn install(&mut self, id: PageId, tx: u64, page: Arc<Page>) {
        assert!(tx > self.root.tx, "a page is put where the readers do not look yet");
        let entry = self.table.entries.reserve(id.0, empty_entries);
        assert_eq!(
            entry.tx.load(Ordering::Relaxed),
            0,
            "page {id} is in memory while its id is given out anew"
        );
        entry.page.store(Arc::into_raw(page).cast_mut(), Ordering::Release);
        entry.tx.store(tx, Ordering::Release);
        self.in_memory += 1;
    }

    /// Takes the page of transaction `tx` out of the table, if it is there: readers who can have it keep it.
    pub(super) fn clear(&mut self, id: PageId, tx: u64) -> bool {
        let Some(entry) = self.table.entries.get(id.0) else { return false };
        if tx == 0 || entry.tx.load(Ordering::Relaxed) != tx {
            return false;
        }
        entry.tx.store(0, Ordering::SeqCst);
        let page = entry.page.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the pointer came from Arc::into_raw in `install`; the count it stood for goes to the list, where it
        // stays while a reader can have the page.
        let page = unsafe { Arc::from_raw(page) };
        self.retired.push(tx, self.root.tx + 1, Kept::Page(page));
        self.in_memory -= 1;
        true
    }

    /// Makes `root` the newest: readers that come see it.
    ///
    /// # Panics
    /// It is not the next one.
    pub(super) fn publish(&mut self, root: Arc<Root>) {
        assert_eq!(root.tx, self.root.tx + 1, "one transaction after the other");
        self.swap_root(root);
        self.table.published.store(self.root.tx, Ordering::SeqCst);
    }

    /// Puts another root of the same transaction in the place of the newest.
    pub(super) fn replace_root(&mut self, root: Arc<Root>) {
        assert_eq!(root.tx, self.root.tx, "the same transaction");
        self.swap_root(root);
    }

    fn swap_root(&mut self, root: Arc<Root>) {
        let raw = Arc::into_raw(Arc::clone(&root)).cast_mut();
        let old = self.table.root.swap(raw, Ordering::SeqCst);
        self.root = root;
        // SAFETY: the pointer came from Arc::into_raw in `new` or here; the count it stood for goes to the list, where it
        // stays while a reader can have the root.
        let old = unsafe { Arc::from_raw(old) };
        self.retired.push(old.tx.saturating_sub(1), old.tx + 1, Kept::Root(old));
    }

    /// The newest durable root.
    pub(super) fn durable(&self) -> Arc<Root> {
        Arc::clone(&self.table.durable.lock())
    }

    /// `root` is durable: whoever pins the durable root from now on has it.
    pub(super) fn set_durable(&mut self, root: Arc<Root>) {
        *self.table.durable.lock() = root;
    }

    /// Which transactions' roots are read, in order, each once.
    pub(super) fn readers(&mut self) -> &[u64] {
        self.table.readers.list(&mut self.readers);
        &self.readers
    }

    /// Gives up to `budget` things back that no reader can have, or looks at as many.
    pub(super) fn reclaim(&mut self, budget: usize) {
        // listed anew: what is in `retired` was taken out of reach before this
        self.table.readers.list(&mut self.readers);
        let (pool, pool_max) = (&mut self.pool, self.pool_max);
        let beyond = pool.len().saturating_sub(pool_max).min(POOL_GIVES);
        pool.truncate(pool.len() - beyond);
        self.retired.settle(&self.readers, budget, |kept| match kept {
            Kept::Page(page) if pool.len() < pool_max => pool.extend(OpenPage::again(page)),
            Kept::Page(page) => drop(page),
            Kept::Root(root) => drop(root),
        });
    }

    /// Pages and roots that wait for readers.
    pub(super) fn retired(&self) -> usize {
        self.retired.len()
    }

    /// A page to be filled; what stands in it means nothing.
    #[inline]
    pub(super) fn blank(&mut self) -> OpenPage {
        self.pool.pop().unwrap_or_else(OpenPage::zeroed)
    }

    /// Takes back a page that was never published.
    pub(super) fn take_back(&mut self, page: OpenPage) {
        if self.pool.len() < self.pool_max {
            self.pool.push(page);
        }
    }

    /// A checkpoint wrote so many pages: as many may be needed until the next one.
    pub(super) fn expect(&mut self, pages: usize) {
        self.pool_max = pages.clamp(POOL_PAGES.0, POOL_PAGES.1);
    }

    /// Gives back what is kept for pages to come: blank ones, and the memory of entries if there is none that is not 0. Of a
    /// large file, whose pages change here and there, that is 16 bytes for each of its pages.
    pub(super) fn rest(&mut self) {
        self.pool = Vec::new();
        if ATOMICS_ARE_PLAIN && self.in_memory == 0 {
            self.table.entries.pieces().for_each(give_back);
        }
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        // readers may be there still: what they can have goes with the table
        self.table.left.lock().extend(self.retired.take_all());
    }
}

fn empty_entries(len: usize) -> Box<[Entry]> {
    if ATOMICS_ARE_PLAIN {
        // SAFETY: an entry is two plain atomics; zero bytes are 0 and null. So untouched entries cost no memory.
        return unsafe { Box::new_zeroed_slice(len).assume_init() };
    }
    (0..len).map(|_| Entry { tx: AtomicU64::new(0), page: AtomicPtr::new(ptr::null_mut()) }).collect()
}

#[cfg(test)]
impl TableWriter {
    /// How many pages are kept to be used again.
    pub(super) fn pool(&self) -> usize {
        self.pool.len()
    }

    /// Where the entry of `id` lies in memory.
    pub(super) fn address(&self, id: PageId) -> usize {
        ptr::from_ref(self.table.entries.get(id.0).expect("there is one")).addr()
    }
}

/// Gives the memory of entries back to the system, until they are used again; all of them are 0, and then they are 0 again.
fn give_back(entries: &[Entry]) {
    let bytes = entries.as_ptr_range();
    let Some(whole) = whole_pages(bytes.start.addr()..bytes.end.addr(), rustix::param::page_size()) else {
        return;
    };
    let start = entries.as_ptr().cast::<u8>().with_addr(whole.start).cast_mut();
    // SAFETY: whole pages of the system's size inside one allocation of the table's, anonymous memory, all zero bytes: the
    // kernel puts pages of zeros in their place. Both ends lie on its pages, so it rounds neither outward over what is not
    // the table's. Only the writer stores to entries, and it is here; a reader loads the same zeros before and after. Where
    // the pages cannot be given back, it refuses and nothing happens.
    let _ = unsafe { libc::madvise(start.cast(), whole.len(), libc::MADV_DONTNEED) };
}

/// The pages of `page_bytes` that lie wholly within a range of addresses.
fn whole_pages(bytes: Range<usize>, page_bytes: usize) -> Option<Range<usize>> {
    let begin = bytes.start.checked_next_multiple_of(page_bytes)?;
    let end = bytes.end / page_bytes * page_bytes;
    (begin < end).then_some(begin..end)
}

/// A page that only the open transaction has.
///
/// Invariant: the Arc is the only one, strong or weak, until [`OpenPage::share`] gives it away.
pub(super) struct OpenPage(Arc<Page>);

impl OpenPage {
    /// A page of zeros.
    fn zeroed() -> OpenPage {
        let page: Arc<MaybeUninit<Page>> = Arc::new_zeroed();
        // SAFETY: a page is bytes, and zeros are bytes.
        OpenPage(unsafe { page.assume_init() })
    }

    /// Takes over a page that nobody else has any more.
    fn again(mut page: Arc<Page>) -> Option<OpenPage> {
        Arc::get_mut(&mut page).is_some().then_some(OpenPage(page))
    }

    /// Gives the page to readers: it never changes again.
    #[inline]
    pub(super) fn share(self) -> Arc<Page> {
        self.0
    }
}

impl Deref for OpenPage {
    type Target = Page;
    #[inline]
    fn deref(&self) -> &Page {
        &self.0
    }
}

impl std::ops::DerefMut for OpenPage {
    #[inline]
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: by the invariant nobody else has the page (Arc::get_mut would find that out each time, by two atomic
        // operations).
        unsafe { &mut *Arc::as_ptr(&self.0).cast_mut() }
    }
}

/// A page's bytes as a page.
#[inline]
pub(super) fn as_page(bytes: &[u8; PAGE_BYTES]) -> &Page {
    // SAFETY: a Page is such an array and nothing else (repr(transparent)).
    unsafe { &*ptr::from_ref(bytes).cast::<Page>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_systems_size_that_lie_wholly_inside_are_given_back() {
        const KIB: usize = 1 << 10;
        for page in [4 * KIB, 16 * KIB, 64 * KIB] {
            let at = 10 * page;
            // begin and end of the memory, begin and end of what is given back
            for (bytes, whole) in [
                (at..at + 3 * page, Some(at..at + 3 * page)),
                (at + 16..at + 3 * page, Some(at + page..at + 3 * page)),
                (at..at + 3 * page - 16, Some(at..at + 2 * page)),
                (at + 16..at + 3 * page + 16, Some(at + page..at + 3 * page)),
                (at + 16..at + 2 * page - 16, None),
                (at + 16..at + page, None),
                (at..at + page - 16, None),
                (at..at, None),
                (usize::MAX - 16..usize::MAX, None),
            ] {
                assert_eq!(whole_pages(bytes.clone(), page), whole, "{bytes:?} in pages of {page}");
            }
        }
        // aligned for the smallest pages alone: larger ones begin later and end earlier
        let bytes = 4 * KIB..164 * KIB;
        assert_eq!(whole_pages(bytes.clone(), 4 * KIB), Some(bytes.clone()));
        assert_eq!(whole_pages(bytes.clone(), 16 * KIB), Some(16 * KIB..160 * KIB));
        assert_eq!(whole_pages(bytes, 64 * KIB), Some(64 * KIB..128 * KIB));
    }
}
