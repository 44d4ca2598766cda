//! Pages in memory that hold a tree to the rules of copying on write (feature `sim`): for tests and benchmarks of trees
//! alone.
//!
//! A page that an older transaction wrote is never changed, a page or run given back is gone at once (its place is used
//! again from the next transaction on), and who names a page wrongly, or one that is gone, is stopped by a panic.
//! [`MemPages::lenient`] makes that a fault instead, for trees that were damaged on purpose.

use crate::pager::page::{ChildRef, Page, PageId, PageKind, RunRef, TreeId};
use crate::pager::{Paged, Pages, PagesMut};
use bytes::Bytes;
use std::sync::Arc;

/// What lies at a place.
#[derive(Clone)]
enum Slot {
    Free,
    Page(Arc<Page>),
    /// The first page of a run, with all of its bytes.
    Run(Arc<Bytes>),
    /// A further page of a run.
    Rest,
}

/// The writer's pages.
pub struct MemPages {
    slots: Vec<Slot>,
    /// Places to use.
    free: Vec<u32>,
    /// Places given back in the open transaction.
    freed: Vec<u32>,
    /// Memory of pages that are gone.
    spare: Vec<Arc<Page>>,
    tx: u64,
    /// Whether the open transaction changed anything.
    changed: bool,
    to_move_from: u32,
    lenient: bool,
}

impl Default for MemPages {
    fn default() -> MemPages {
        MemPages::new()
    }
}

impl MemPages {
    /// No pages yet; transaction 1 is open.
    pub fn new() -> MemPages {
        MemPages {
            slots: vec![Slot::Rest],
            free: Vec::new(),
            freed: Vec::new(),
            spare: Vec::new(),
            tx: 1,
            changed: false,
            to_move_from: u32::MAX,
            lenient: false,
        }
    }

    /// Whoever names a page wrongly gets a fault, no panic.
    pub fn lenient(&mut self) {
        self.lenient = true;
    }

    /// Ends the open transaction and begins the next: from now on what was written stays as it is.
    pub fn publish(&mut self) {
        self.tx += 1;
        self.changed = false;
        self.free.append(&mut self.freed);
    }

    /// The pages as they are, for a reader of roots published so far.
    ///
    /// # Panics
    /// The open transaction has changed something: it could not be undone.
    pub fn snapshot(&self) -> MemSnapshot {
        assert!(!self.changed, "a snapshot is taken between a publish and the next change");
        MemSnapshot { slots: self.slots.clone(), lenient: self.lenient }
    }

    /// Pages from this place on are to move; the places are not given out.
    pub fn move_from(&mut self, place: u32) {
        self.to_move_from = place;
        // the lowest first
        let free = |at: &u32| matches!(self.slots[*at as usize], Slot::Free) && !self.freed.contains(at);
        self.free = (1..place.min(self.slots.len() as u32)).rev().filter(free).collect();
    }

    /// All places in use, ascending.
    pub fn used(&self) -> Vec<PageId> {
        let used = self.slots.iter().enumerate().skip(1).filter(|(_, slot)| !matches!(slot, Slot::Free));
        used.map(|(place, _)| PageId(place as u32)).collect()
    }

    /// The page at a place; `None` if there is none.
    pub fn at(&self, place: PageId) -> Option<&Page> {
        match self.slots.get(place.0 as usize)? {
            Slot::Page(page) => Some(page),
            _ => None,
        }
    }

    /// The page at a place, to be damaged; `None` if there is none.
    pub fn damage(&mut self, place: PageId) -> Option<&mut Page> {
        match self.slots.get_mut(place.0 as usize)? {
            Slot::Page(page) => Some(Arc::make_mut(page)),
            _ => None,
        }
    }

    /// `count` places one after the other.
    fn places(&mut self, count: u32) -> u32 {
        self.changed = true;
        if count == 1 {
            return self.free.pop().unwrap_or_else(|| self.grow(1));
        }
        // only where it matters that places lie low: looking is slow
        let span = count as usize;
        let found = if self.to_move_from == u32::MAX {
            None
        } else {
            self.free.sort_unstable_by(|a, b| b.cmp(a));
            self.free.windows(span).rposition(|places| places[0] - places[span - 1] == count - 1)
        };
        match found {
            Some(at) => self.free.drain(at..at + span).next_back().unwrap_or_default(),
            None => self.grow(count),
        }
    }

    fn grow(&mut self, count: u32) -> u32 {
        let first = self.slots.len() as u32;
        self.slots.resize(self.slots.len() + count as usize, Slot::Free);
        first
    }

    fn blank(&mut self) -> Arc<Page> {
        self.spare.pop().unwrap_or_else(|| Arc::new(Page::new(PageKind::Leaf, 0, 0, PageId(0), 0)))
    }

    fn give_back(&mut self, place: u32) {
        self.changed = true;
        if place < self.to_move_from {
            self.freed.push(place);
        }
        let slot = std::mem::replace(&mut self.slots[place as usize], Slot::Free);
        if let Slot::Page(mut page) = slot
            && Arc::get_mut(&mut page).is_some()
        {
            self.spare.push(page);
        }
    }

    /// Whether `at` names a page; if not it is a mistake of whoever holds it.
    fn names_page(&self, at: &ChildRef) -> bool {
        let slot = self.slots.get(at.id.0 as usize);
        let right = matches!(slot, Some(Slot::Page(page)) if page.id() == at.id && page.tx() == at.tx);
        assert!(right || self.lenient, "{at:?} names no page");
        right
    }
}

/// Whether a page is what names it.
#[inline]
fn named<'p>(
    pages: &impl Pages,
    slots: &'p [Slot],
    lenient: bool,
    tree: TreeId,
    at: &ChildRef,
) -> Paged<&'p Page> {
    let slot = slots.get(at.id.0 as usize);
    if let Some(Slot::Page(page)) = slot
        && (page.id(), page.tx(), page.tree()) == (at.id, at.tx, tree as u8)
    {
        return Ok(page);
    }
    assert!(lenient, "{at:?} of {tree:?} names no page");
    Err(pages.fault(at.id, format!("{at:?} of {tree:?}"), "another page, or none".to_string()))
}

fn run_of(pages: &impl Pages, slots: &[Slot], lenient: bool, at: &RunRef) -> Paged<Bytes> {
    let slot = slots.get(at.first.0 as usize);
    if let Some(Slot::Run(bytes)) = slot
        && bytes.len() == at.bytes as usize
        && crc32fast::hash(bytes) == at.crc
    {
        return Ok(Bytes::clone(bytes));
    }
    assert!(lenient, "{at:?} names no run");
    Err(pages.fault(at.first, format!("{at:?}"), "another page, or none".to_string()))
}

impl Pages for MemPages {
    #[inline]
    fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
        named(self, &self.slots, self.lenient, tree, at)
    }

    fn run(&self, _: TreeId, at: &RunRef) -> Paged<Bytes> {
        run_of(self, &self.slots, self.lenient, at)
    }
}

impl PagesMut for MemPages {
    fn page_mut(&mut self, tree: TreeId, at: &mut ChildRef) -> Paged<&mut Page> {
        named(self, &self.slots, self.lenient, tree, at)?;
        if at.tx != self.tx {
            let old = at.id.0;
            let (place, mut copy) = (self.places(1), self.blank());
            let page = Arc::get_mut(&mut copy).expect("a spare page has one owner");
            if let Slot::Page(old) = &self.slots[old as usize] {
                page.0.copy_from_slice(&old.0);
            }
            page.set_place(PageId(place), self.tx);
            self.slots[place as usize] = Slot::Page(copy);
            self.give_back(old);
            *at = ChildRef { id: PageId(place), tx: self.tx, ..*at };
        }
        at.crc = None;
        let Slot::Page(page) = &mut self.slots[at.id.0 as usize] else { unreachable!("looked at above") };
        Ok(Arc::get_mut(page).expect("a page of the open transaction has one owner"))
    }

    fn new_page(&mut self, tree: TreeId, kind: PageKind, level: u8) -> (ChildRef, &mut Page) {
        let (place, mut page) = (self.places(1), self.blank());
        let fresh = Arc::get_mut(&mut page).expect("a spare page has one owner");
        fresh.begin(kind, tree as u8, level, PageId(place), self.tx);
        self.slots[place as usize] = Slot::Page(page);
        let Slot::Page(page) = &mut self.slots[place as usize] else { unreachable!("put there above") };
        let at = ChildRef { id: PageId(place), tx: self.tx, crc: None, count: 0 };
        (at, Arc::get_mut(page).expect("a new page has one owner"))
    }

    fn free_page(&mut self, at: &ChildRef) {
        if self.names_page(at) {
            self.give_back(at.id.0);
        }
    }

    fn new_run(&mut self, _: TreeId, bytes: &[u8]) -> RunRef {
        let len = u32::try_from(bytes.len()).expect("a run is shorter than 4 GiB");
        let crc = crc32fast::hash(bytes);
        let mut run = RunRef { first: PageId(0), bytes: len, tx: self.tx, crc };
        run.first = PageId(self.places(run.pages()));
        let first = run.first.0 as usize;
        self.slots[first] = Slot::Run(Arc::new(Bytes::copy_from_slice(bytes)));
        self.slots[first + 1..first + run.pages() as usize].fill(Slot::Rest);
        run
    }

    fn free_run(&mut self, at: &RunRef) {
        if run_of(self, &self.slots, self.lenient, at).is_ok() {
            for page in 0..at.pages() {
                self.give_back(at.first.0 + page);
            }
        }
    }

    fn is_to_move(&self, at: PageId) -> bool {
        at.0 >= self.to_move_from
    }
}

/// Pages as they were when it was taken.
#[derive(Clone)]
pub struct MemSnapshot {
    slots: Vec<Slot>,
    lenient: bool,
}

impl Pages for MemSnapshot {
    #[inline]
    fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page> {
        named(self, &self.slots, self.lenient, tree, at)
    }

    fn run(&self, _: TreeId, at: &RunRef) -> Paged<Bytes> {
        run_of(self, &self.slots, self.lenient, at)
    }
}
