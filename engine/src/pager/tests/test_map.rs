//! A file in memory, mapped: every write is a page of its own, so that a reference to what was there before stays good.

use crate::disk::FileMap;
use crate::pager::doubling::Doubling;
use crate::pager::page::{PAGE_BYTES, Page, PageId};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, OnceLock};

type Written = OnceLock<Box<[u8; PAGE_BYTES]>>;

/// The pages ever written, and which of them each place has now.
pub(super) struct TestMap {
    pages: Doubling<Written>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    written: u32,
    places: BTreeMap<u32, u32>,
    populated: u64,
    hinted: Vec<(u32, u32)>,
}

impl TestMap {
    pub(super) fn new() -> TestMap {
        TestMap { pages: Doubling::new(), state: Mutex::new(State::default()) }
    }

    /// Writes a page with its CRC, which is the answer.
    pub(super) fn write(&self, id: PageId, page: &Page) -> u32 {
        let crc = page.computed_crc();
        let mut bytes = Box::new(page.0);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.put(id, bytes);
        crc
    }

    /// Writes any bytes.
    pub(super) fn put(&self, id: PageId, bytes: Box<[u8; PAGE_BYTES]>) {
        let mut state = self.state.lock().expect("no test panics in here");
        let number = state.written;
        state.written += 1;
        let slot = self.pages.reserve(number, |len| (0..len).map(|_| OnceLock::new()).collect());
        slot.set(bytes).expect("each is written once");
        state.places.insert(id.0, number);
    }

    /// How many calls brought pages into memory.
    pub(super) fn populated(&self) -> u64 {
        self.state.lock().expect("no test panics in here").populated
    }

    /// The hints since this was last called.
    pub(super) fn take_hinted(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.state.lock().expect("no test panics in here").hinted)
    }

    fn number(&self, page: u32) -> Option<u32> {
        self.state.lock().expect("no test panics in here").places.get(&page).copied()
    }
}

impl FileMap for TestMap {
    fn page(&self, page: u32) -> &[u8; PAGE_BYTES] {
        let number = self.number(page).expect("only what was written is read");
        self.pages.get(number).and_then(OnceLock::get).expect("what has a number was written")
    }

    fn populate(&self, first: u32, pages: u32) -> io::Result<()> {
        self.state.lock().expect("no test panics in here").populated += 1;
        let missing = (first..first + pages).find(|page| self.number(*page).is_none());
        missing.map_or(Ok(()), |page| Err(io::Error::other(format!("page {page} was never written"))))
    }

    fn read_ahead(&self, first: u32, pages: u32) {
        self.state.lock().expect("no test panics in here").hinted.push((first, pages));
    }
}
