//! Bytes on their way to or from a disk: aligned, so that they can go past the page cache, and recycled.
//!
//! Invariant of [`IoBuf`]: `start` points to `capacity` initialised bytes, aligned to [`BLOCK_BYTES`], owned by the
//! buffer alone; `len <= capacity`; `capacity` is a multiple of [`BLOCK_BYTES`] and not 0.
#![allow(unsafe_code, reason = "aligned memory is not to be had from Vec")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

/// Unit of a write and alignment of a buffer, in bytes: the largest logical block of usual disks, and a page.
pub const BLOCK_BYTES: usize = 4096;

/// Rounds up to whole blocks.
pub(crate) const fn whole_blocks(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// Bytes to be written or read into, aligned to [`BLOCK_BYTES`] so that they can go past the page cache.
pub struct IoBuf {
    start: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: an IoBuf owns its memory alone, as a Box<[u8]> does, and has no interior mutability.
unsafe impl Send for IoBuf {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> IoBuf {
        let capacity = whole_blocks(len.max(1));
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not 0 (capacity is at least one block).
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(raw) else { handle_alloc_error(layout) };
        IoBuf { start, capacity, len }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES)
            .expect("a buffer is far smaller than the address space")
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it can hold without a new allocation.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes it `len` bytes long. What was in it stays as far as the memory stays; the rest has any old content
    /// (initialised, but not cleared), so the caller writes every byte it means to use.
    pub fn set_len(&mut self, len: usize) {
        if len > self.capacity {
            *self = IoBuf::zeroed(len);
        }
        self.len = len;
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` points to at least `len` initialised bytes that live as long as self and are not written
        // through another pointer while a shared reference lives (the type's invariant; the kernel writes only into
        // buffers whose IoBuf was moved into the operation).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the reference is the only one because it borrows self mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Where the bytes start, for a system call.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Where the bytes start, for a system call that writes them.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        // SAFETY: `start` came from alloc_zeroed with this same layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} of {} bytes)", self.len, self.capacity)
    }
}

/// Buffers kept for the next use, so that writing allocates nothing once warm.
#[derive(Debug)]
pub struct BufPool {
    kept: Vec<IoBuf>,
    kept_max: usize,
    kept_bytes_max: usize,
}

impl BufPool {
    /// Keeps up to `kept_max` buffers, none larger than `kept_bytes_max`: one that a rare large batch needed goes
    /// back to the system.
    pub fn new(kept_max: usize, kept_bytes_max: usize) -> BufPool {
        BufPool { kept: Vec::with_capacity(kept_max), kept_max, kept_bytes_max }
    }

    /// A buffer of `len` bytes with any old content.
    pub fn take(&mut self, len: usize) -> IoBuf {
        let fitting = self.kept.iter().position(|buf| buf.capacity() >= len);
        let mut buf = match fitting.or(self.kept.len().checked_sub(1)) {
            Some(place) => self.kept.swap_remove(place),
            // a little larger than asked for, so that the next, slightly larger batch fits too
            None => IoBuf::zeroed(len.next_power_of_two()),
        };
        if buf.capacity() < len {
            buf = IoBuf::zeroed(len.next_power_of_two());
        }
        buf.set_len(len);
        buf
    }

    /// Takes a buffer back.
    pub fn give(&mut self, buf: IoBuf) {
        if self.kept.len() < self.kept_max && buf.capacity() <= self.kept_bytes_max {
            self.kept.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_keeps_its_bytes() {
        for len in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buf = IoBuf::zeroed(len);
            assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buf.len(), len);
            assert!(buf.as_slice().iter().all(|byte| *byte == 0));
            buf.as_mut_slice().fill(7);
            assert!(buf.as_slice().iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_pool_gives_back_the_same_memory_and_drops_what_is_too_large() {
        let mut pool = BufPool::new(2, 1 << 16);
        let buf = pool.take(5000);
        let place = buf.as_ptr() as usize;
        pool.give(buf);
        assert_eq!(pool.take(4096).as_ptr() as usize, place);
        pool.give(IoBuf::zeroed(1 << 17));
        assert!(pool.kept.is_empty());
    }
}
