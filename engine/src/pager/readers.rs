//! Who reads which root: an explicit table, so that a reader holds back what its own root reaches and nothing else.
//!
//! ```text
//! slot     0: free, else the transaction of the reader's root + 1     256 of them, a cache line each
//! others   the same, behind a lock, while all slots are taken
//! ```
//! Entering is one compare-and-swap, at a place that differs from handle to handle. What makes it safe to rely on is the
//! order of three things on either side, all sequentially consistent:
//!
//! ```text
//! a reader    enters at t > loads what it wants to read > finds that it still is t's
//! the writer  takes something out of reach > looks through the table
//! ```
//! Either the writer sees the reader, or the reader sees that the thing is gone.

use super::sync::{AtomicU64, Mutex, Ordering, SLOTS};

/// Two lines: the neighbour is fetched together with a line.
#[repr(align(128))]
struct Slot(AtomicU64);

/// A place in the table, from [`Readers::enter`] to [`Readers::leave`].
#[derive(Debug)]
pub(super) enum Place {
    Slot(usize),
    Other(u64),
}

/// The table. The slots hold 0 or a transaction + 1.
pub(super) struct Readers {
    slots: Box<[Slot]>,
    others: Mutex<Others>,
    handles: AtomicU64,
}

/// Readers that found no slot.
#[derive(Default)]
struct Others {
    next: u64,
    of: Vec<(u64, u64)>,
}

impl Readers {
    pub(super) fn new() -> Readers {
        Readers {
            slots: (0..SLOTS).map(|_| Slot(AtomicU64::new(0))).collect(),
            others: Mutex::new(Others::default()),
            handles: AtomicU64::new(0),
        }
    }

    /// Where the next handle begins to look for a slot: far from the one before it.
    pub(super) fn next_home(&self) -> usize {
        let handle = self.handles.fetch_add(1, Ordering::Relaxed) as usize;
        handle.wrapping_mul(37) % SLOTS
    }

    /// Enters a reader of transaction `tx`.
    pub(super) fn enter(&self, home: usize, tx: u64) -> Place {
        let mut at = home;
        for _ in 0..SLOTS {
            let slot = &self.slots[at].0;
            let free = slot.load(Ordering::Relaxed) == 0;
            if free && slot.compare_exchange(0, tx + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return Place::Slot(at);
            }
            at = (at + 1) % SLOTS;
        }
        let mut others = self.others.lock();
        let ticket = others.next;
        others.next += 1;
        others.of.push((ticket, tx));
        Place::Other(ticket)
    }

    /// Changes which transaction an entered reader reads.
    pub(super) fn change(&self, place: &Place, tx: u64) {
        match place {
            Place::Slot(at) => self.slots[*at].0.store(tx + 1, Ordering::SeqCst),
            Place::Other(ticket) => {
                let mut others = self.others.lock();
                let other = others.of.iter_mut().find(|(of, _)| of == ticket);
                other.expect("a reader stays until it leaves").1 = tx;
            }
        }
    }

    /// Lets a reader go. What it read it must not touch again.
    pub(super) fn leave(&self, place: &Place) {
        match place {
            Place::Slot(at) => self.slots[*at].0.store(0, Ordering::Release),
            Place::Other(ticket) => self.others.lock().of.retain(|(of, _)| of != ticket),
        }
    }

    /// How many are entered.
    pub(super) fn count(&self) -> usize {
        let in_slots = self.slots.iter().filter(|slot| slot.0.load(Ordering::Relaxed) != 0).count();
        in_slots + self.others.lock().of.len()
    }

    /// Fills `out` with the transactions that are read, in order, each once. A reader that is entering may stand there
    /// with an older one than it will read.
    pub(super) fn list(&self, out: &mut Vec<u64>) {
        out.clear();
        out.extend(self.slots.iter().filter_map(|slot| slot.0.load(Ordering::SeqCst).checked_sub(1)));
        out.extend(self.others.lock().of.iter().map(|(_, tx)| *tx));
        out.sort_unstable();
        out.dedup();
    }
}
