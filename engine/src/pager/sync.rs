//! What threads share, by one name: here std's and parking_lot's. A test compiles the files above it a second time over
//! `shuttle`'s, which tries the orders in which threads can run.

pub(super) use parking_lot::Mutex;
pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Whether an atomic made of zero bytes is one that holds 0, or null.
pub(super) const ATOMICS_ARE_PLAIN: bool = true;

/// Readers that need no lock.
pub(super) const SLOTS: usize = 256;

/// Between a check and what rests on it: nothing, but in the test another thread may go on.
#[inline(always)]
pub(super) fn gap() {}
