//! A simulated file mapped for reading.
//!
//! A reference into a real map would show new bytes as soon as the page is written again. Here it keeps the bytes it
//! was given for: whoever holds one too long reads an old page, which tests can tell, instead of a torn one, which
//! nobody could define.
#![allow(unsafe_code, reason = "copies are lent for as long as the map lives")]

use super::content::Block;
use super::world::{InodeId, World};
use crate::disk::map::beyond_the_end;
use crate::disk::{BLOCK_BYTES, FileMap};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The map. Invariant: what `arena` holds is neither changed nor dropped before the map goes.
#[derive(Debug)]
pub(super) struct SimMap {
    world: Arc<Mutex<World>>,
    inode: InodeId,
    /// What was given out, by page; a new one only where the page was written since.
    arena: Mutex<BTreeMap<u32, Vec<Arc<Block>>>>,
}

impl SimMap {
    pub(super) fn new(world: Arc<Mutex<World>>, inode: InodeId) -> SimMap {
        SimMap { world, inode, arena: Mutex::new(BTreeMap::new()) }
    }
}

impl FileMap for SimMap {
    fn page(&self, page: u32) -> &[u8; BLOCK_BYTES] {
        let now = self.world.lock().mapped_page(self.inode, page);
        // a real map would end the process
        let now = now.unwrap_or_else(|error| panic!("page {page} of a map was touched: {error}"));
        let mut arena = self.arena.lock();
        let given = arena.entry(page).or_default();
        if given.last().is_none_or(|last| !Arc::ptr_eq(last, &now)) {
            given.push(now);
        }
        let last: &Block = given.last().expect("one was just put there");
        // SAFETY: a block that is shared is never changed (see its type), and the share in the arena stays there until the
        // map is dropped (the type's invariant); the reference given out borrows the map.
        unsafe { &*std::ptr::from_ref(last) }
    }

    fn populate(&self, first: u32, pages: u32) -> io::Result<()> {
        let end = first.checked_add(pages).ok_or_else(beyond_the_end)?;
        let world = self.world.lock();
        (first..end).try_for_each(|page| world.mapped_page(self.inode, page).map(drop))
    }

    fn read_ahead(&self, _first: u32, _pages: u32) {}
}
