//! Reads ahead for what was proposed: while the write of the log is out, the disk also reads the pages that applying it will
//! touch, many at once, instead of one after the other when their time has come.
//!
//! ```text
//! proposed, its write out   committed, about to be applied    applied
//! leaves are hinted         large values are hinted
//! ```
//! Only while pages have lately not been in memory: after a start, or with more data than memory.

use crate::applier;
use bytes::Bytes;
use coffer_engine::Micros;
use coffer_engine::command::Command;
use coffer_engine::store::Store;
use std::collections::VecDeque;

/// How long after a page was not in memory others are expected not to be, in microseconds.
const COLD_US: Micros = 1_000_000;

/// The keys of what was proposed and is not applied.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Until then keys are gathered.
    cold_until: Micros,
    /// Of the round that is being put together.
    gathered: Vec<Bytes>,
    /// Of rounds that were proposed, each up to its last index.
    rounds: VecDeque<(u64, Vec<Bytes>)>,
    /// Rounds whose leaves were hinted.
    hinted: usize,
}

impl Ahead {
    /// At a start all pages may be cold.
    pub(crate) fn new(now: Micros) -> Ahead {
        Ahead {
            cold_until: now.saturating_add(COLD_US),
            gathered: Vec::new(),
            rounds: VecDeque::new(),
            hinted: 0,
        }
    }

    /// A page was not in memory.
    pub(crate) fn note_cold(&mut self, now: Micros) {
        self.cold_until = now.saturating_add(COLD_US);
    }

    /// Takes a command into the round that is being put together.
    pub(crate) fn gather(&mut self, command: &Command, now: Micros) {
        if now < self.cold_until {
            applier::keys_of(command, &mut self.gathered);
        }
    }

    /// The round was proposed, and `last` is the index of its last entry; `None`: it was not.
    pub(crate) fn proposed(&mut self, last: Option<u64>) {
        let keys = std::mem::take(&mut self.gathered);
        if let Some(last) = last.filter(|_| !keys.is_empty()) {
            self.rounds.push_back((last, keys));
        }
    }

    /// Hints the leaves of what was proposed since the last call.
    pub(crate) fn read_leaves(&mut self, store: &Store) {
        for (_, keys) in self.rounds.range(self.hinted..) {
            store.read_ahead(keys);
        }
        self.hinted = self.rounds.len();
    }

    /// Hints the large values of what is about to be applied, up to index `last`, and forgets it.
    pub(crate) fn read_values(&mut self, store: &Store, last: u64) {
        while let Some((_, keys)) = self.rounds.pop_front_if(|(index, _)| *index <= last) {
            self.hinted = self.hinted.saturating_sub(1);
            store.read_values_ahead(&keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_engine::command::PutRequest;

    fn put(key: &'static [u8]) -> Command {
        Command::Put(PutRequest { key: Bytes::from_static(key), ..PutRequest::default() })
    }

    #[test]
    fn keys_are_gathered_only_while_pages_are_cold_and_forgotten_when_applied() {
        let store = Store::new();
        let mut ahead = Ahead::new(5);
        ahead.gather(&put(b"a"), 5 + COLD_US - 1);
        ahead.gather(&put(b"b"), 5 + COLD_US);
        ahead.proposed(Some(7));
        assert_eq!(ahead.rounds, [(7, vec![Bytes::from_static(b"a")])]);
        ahead.note_cold(2 * COLD_US);
        ahead.gather(&put(b"c"), 2 * COLD_US);
        ahead.proposed(None);
        ahead.gather(&put(b"d"), 2 * COLD_US);
        ahead.proposed(Some(9));
        ahead.read_leaves(&store);
        assert_eq!((ahead.rounds.len(), ahead.hinted), (2, 2));
        ahead.read_values(&store, 8);
        assert_eq!((ahead.rounds.len(), ahead.hinted), (1, 1));
        assert_eq!(ahead.rounds[0], (9, vec![Bytes::from_static(b"d")]));
        ahead.read_values(&store, 9);
        ahead.read_leaves(&store);
        assert_eq!((ahead.rounds.len(), ahead.hinted), (0, 0));
    }
}
