//! Waking the thread that sleeps in [`Disk::wait`](super::Disk::wait).
//!
//! The eventfd is written only when that thread sleeps. Two flags make that safe: a waker sets `pending` and then
//! looks at `sleeping`; the sleeper sets `sleeping` and then looks at `pending`. Both in one total order, so at least
//! one of the two sees the other.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends another thread's [`Disk::wait`](super::Disk::wait); cheap to clone, usable from any thread.
///
/// Whoever wakes first makes visible what the sleeper shall find (pushes to its queue), then calls [`Waker::wake`].
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Somebody woke since the last wait.
    pending: AtomicBool,
    /// The owner is about to sleep, or sleeps.
    sleeping: AtomicBool,
    /// `None` for the simulated disk, whose owner never sleeps.
    event: Option<OwnedFd>,
}

impl Waker {
    /// A waker with an eventfd.
    ///
    /// # Errors
    /// No eventfd could be made.
    pub(crate) fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker::with(Some(event)))
    }

    /// A waker for a disk that never sleeps.
    #[cfg(feature = "sim")]
    pub(crate) fn without_sleep() -> Waker {
        Waker::with(None)
    }

    fn with(event: Option<OwnedFd>) -> Waker {
        let shared = Shared { pending: AtomicBool::new(false), sleeping: AtomicBool::new(false), event };
        Waker { shared: Arc::new(shared) }
    }

    /// Ends the present wait, or the next one at once. Costs a system call only if the owner sleeps.
    pub fn wake(&self) {
        if self.shared.pending.swap(true, Ordering::SeqCst) {
            return;
        }
        if !self.shared.sleeping.load(Ordering::SeqCst) {
            return;
        }
        if let Some(event) = &self.shared.event {
            // it can only fail with EAGAIN, when the counter is full: then the sleeper wakes anyway
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }

    /// Says that the owner is about to sleep; `false`: it must not, somebody woke already.
    pub(crate) fn before_sleep(&self) -> bool {
        self.shared.sleeping.store(true, Ordering::SeqCst);
        if self.shared.pending.swap(false, Ordering::SeqCst) {
            self.shared.sleeping.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Says that the owner is awake again.
    pub(crate) fn after_sleep(&self) {
        self.shared.sleeping.store(false, Ordering::SeqCst);
        // a swap, not a store: it makes visible what those who woke did before
        self.shared.pending.swap(false, Ordering::SeqCst);
    }

    /// Empties the eventfd.
    pub(crate) fn drain(&self) {
        if let Some(event) = &self.shared.event {
            let mut counter = [0u8; 8];
            let _ = rustix::io::read(event, &mut counter);
        }
    }

    /// The eventfd to wait for.
    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.shared.event.as_ref().map(|event| event.as_fd())
    }
}
