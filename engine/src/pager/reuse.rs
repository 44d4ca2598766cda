//! Page ids on their way from "freed" to "free".
//!
//! ```text
//! freed in T, born in B > durable roots > readers of B..T > its write under way > free
//!            ^ only if the durable or the chosen root, at T, reaches it: then a root of T or later must be durable first
//! ```
//! The durable and the chosen root of the time when T is published are the only ones that can matter: both are older than
//! T, and every later one does not reach the page.

use super::page::PageId;
use super::retire::Retired;
use std::collections::{BTreeMap, VecDeque};

/// A page that a transaction freed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    pub(super) id: PageId,
    /// The transaction that wrote it.
    pub(super) born: u64,
}

/// Ids that wait.
#[derive(Default)]
pub(super) struct Reuse {
    /// With the transaction that freed them, in its order.
    for_durable: VecDeque<(u64, Freed)>,
    for_readers: Retired<PageId>,
    /// Pages whose spill is under way.
    writing: BTreeMap<PageId, Writing>,
}

/// A page that is being spilled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writing {
    /// It was freed before any root that reaches it was chosen, so no checkpoint waits for it.
    pub(super) for_nobody: bool,
    /// Nothing else holds back the id any more.
    pub(super) last: bool,
}

impl Reuse {
    /// Takes a page that transaction `tx`, published now, freed. `pinned`: the durable or the chosen root reaches it.
    pub(super) fn freed(&mut self, tx: u64, freed: Freed, pinned: bool) {
        if pinned {
            debug_assert!(self.for_durable.back().is_none_or(|(last, _)| *last <= tx), "freed in order");
            self.for_durable.push_back((tx, freed));
        } else {
            self.for_readers.push(freed.born, tx, freed.id);
        }
    }

    /// The root of transaction `tx` is durable, and no older one counts any more.
    pub(super) fn durable(&mut self, tx: u64) {
        while let Some((until, freed)) = self.for_durable.pop_front_if(|(until, _)| *until <= tx) {
            self.for_readers.push(freed.born, until, freed.id);
        }
    }

    /// The page is being spilled.
    pub(super) fn writing(&mut self, id: PageId) {
        self.writing.insert(id, Writing::default());
    }

    /// Whether the page is being spilled.
    pub(super) fn is_writing(&self, id: PageId) -> bool {
        self.writing.contains_key(&id)
    }

    /// The page was freed, and no chosen root reaches it.
    pub(super) fn written_for_nobody(&mut self, id: PageId) {
        if let Some(writing) = self.writing.get_mut(&id) {
            writing.for_nobody = true;
        }
    }

    /// The page's spill ended, if it was under way.
    pub(super) fn written(&mut self, id: PageId) -> Writing {
        self.writing.remove(&id).unwrap_or_default()
    }

    /// Gives up to `budget` ids that are free to `release`.
    pub(super) fn settle(&mut self, readers: &[u64], budget: usize, mut release: impl FnMut(PageId)) {
        let writing = &mut self.writing;
        self.for_readers.settle(readers, budget, |id| match writing.get_mut(&id) {
            Some(writing) => writing.last = true,
            None => release(id),
        });
    }

    /// Ids that wait for a durable root, for readers.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.for_durable.len(), self.for_readers.len())
    }
}
