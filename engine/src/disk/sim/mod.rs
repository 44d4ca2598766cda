//! A disk in memory that knows what is durable, for simulation: one thread, one seed, the same run each time.
//!
//! ```text
//! submit ----> in flight ----(due)----> visible ----(sync)----> durable
//!                  |                        |                       |
//!   power cut:     any sectors of it        any sectors of it       all of it
//!   kill:          any sectors of it,       all of it               all of it
//!                  now or a little later
//! ```
//! - Time is the simulation's: an operation is due a while after it was submitted, drawn from the seed, so that
//!   operations under way overtake one another. [`SimDisk::set_now`] moves the clock; [`Disk::wait`] jumps to the next
//!   completion.
//! - A sector is 512 bytes and is written whole or not at all. Of a write that was not durable when the power went, any
//!   sectors may be there, in any order.
//! - What a killed process wrote through the page cache (`cached`) is visible when it is gone, or never.
//! - Names (created, renamed, removed) are durable after the directory was synced; before that a power cut keeps any
//!   of these changes.
//! - Faults: the n-th operation fails, is cut short or cancelled; a failed sync loses some of what was pending and the
//!   next one succeeds; a capacity that gives ENOSPC; bits flipped, sectors zeroed, bytes that cannot be read.
//!
//! A [`SimDisk`] is a handle: clones are the same disk. [`SimDisk::fork`] makes another disk with the same content,
//! to see how it would look after a crash at this moment.

mod content;
mod inode;
mod map;
pub mod rng;
mod world;

use super::{Completion, Disk, FileMap, Op, Token, Waker};
use map::SimMap;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::World;

/// What is written whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// How an operation fails on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With this error number; what became of its bytes is left to the seed.
    Errno(i32),
    /// A write ends early; other operations fail with EIO.
    Short,
    /// A linked write and sync is cancelled half way (-125).
    Cancelled,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    waker: Waker,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from(World::new(seed))
    }

    fn from(world: World) -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(world)), waker: Waker::without_sleep() }
    }

    /// Another disk with the same content and operations under way, whose further fate follows `seed`.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let mut world = self.world.lock().clone();
        world.reseed(seed);
        SimDisk::from(world)
    }

    /// Moves the clock to `now_us`, never back: what is due by then completes at the next poll.
    pub fn set_now(&self, now_us: u64) {
        self.world.lock().set_now(now_us);
    }

    /// The clock, in microseconds.
    pub fn now(&self) -> u64 {
        self.world.lock().now()
    }

    /// How long operations take, in microseconds, both ends included (default 50 to 300).
    pub fn set_latency(&self, min_us: u64, max_us: u64) {
        self.world.lock().set_latency(min_us, max_us);
    }

    /// How many bytes of files it holds; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().set_capacity(bytes);
    }

    /// Bytes allocated.
    pub fn used(&self) -> u64 {
        self.world.lock().used()
    }

    /// The operation with this number (counted from 0 as they are submitted, see [`SimDisk::ops`]) fails.
    pub fn fail_op(&self, number: u64, failure: Failure) {
        self.world.lock().fail_op(number, failure);
    }

    /// From the operation with this number on everything fails, as seen by a program whose machine goes down: that
    /// operation and all that were under way stay half done until [`SimDisk::power_cut`] or [`SimDisk::kill`].
    pub fn stop_at_op(&self, number: u64) {
        self.world.lock().stop_at_op(number);
    }

    /// Operations submitted so far.
    pub fn ops(&self) -> u64 {
        self.world.lock().ops()
    }

    /// When the next operation under way is due, in microseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.world.lock().next_due()
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.world.lock().in_flight()
    }

    /// Durable writes under way, those that a stop left half done included.
    pub fn durable_writes_under_way(&self) -> usize {
        self.world.lock().durable_writes_under_way()
    }

    /// The power goes and comes back: what was not durable is lost wholly, partly or not at all. Open files and
    /// operations under way are gone.
    pub fn power_cut(&self) {
        self.world.lock().power_cut();
    }

    /// The process is killed: all that was visible stays so (and may not be durable); a write under way is done
    /// wholly, partly, not at all, or a few operations later.
    pub fn kill(&self) {
        self.world.lock().kill();
    }

    /// Bytes written that a power cut may lose.
    pub fn pending_bytes(&self) -> usize {
        self.world.lock().pending_bytes()
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world.lock().files()
    }

    /// A file's content as a reader would see it.
    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        self.world.lock().read_file(path)
    }

    /// Puts a file there, durable, or replaces it.
    pub fn write_file(&self, path: &Path, bytes: Vec<u8>) {
        self.world.lock().write_file(path, bytes);
    }

    /// Takes a file away, durably.
    pub fn remove_file(&self, path: &Path) {
        self.world.lock().remove_file(path);
    }

    /// Flips one bit (0 to 7) of one byte.
    ///
    /// # Panics
    /// There is no such file or byte.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        let at = byte as usize;
        self.world.lock().damage(path, at..at + 1, |byte| byte[0] ^= 1 << bit);
    }

    /// Overwrites the sector that begins at `offset` with zeros.
    ///
    /// # Panics
    /// There is no such file or place.
    pub fn zero_sector(&self, path: &Path, offset: u64) {
        let start = offset as usize;
        self.world.lock().damage(path, start..start + SECTOR_BYTES, |sector| sector.fill(0));
    }

    /// From now on reads and touches of these bytes fail with EIO.
    ///
    /// # Panics
    /// There is no such file.
    pub fn refuse_reads(&self, path: &Path, offset: u64, bytes: u64) {
        self.world.lock().refuse_reads(path, offset, bytes);
    }
}

impl Disk for SimDisk {
    fn submit(&mut self, op: Op) -> Token {
        self.world.lock().submit(op)
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.world.lock().poll(out);
    }

    fn wait(&mut self, timeout_us: Option<u64>) {
        if self.waker.before_sleep() {
            self.world.lock().wait(timeout_us);
        }
        self.waker.after_sleep();
    }

    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>> {
        let inode = self.world.lock().named(path)?;
        Ok(Arc::new(SimMap::new(self.world.clone(), inode)))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn describe(&self) -> String {
        "a simulated disk".to_string()
    }
}

#[cfg(test)]
mod tests;
