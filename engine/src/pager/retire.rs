//! Things that wait until no reader can reach them.
//!
//! A thing was within reach of the roots `born..until`. It is held back by any reader of one of them, and filed under the
//! newest such reader; when that one has left, the next older one is looked for. So a long reader holds back only what
//! its own root reaches, and everything written and dropped after it goes its way.

use std::collections::BTreeMap;

/// A thing and the roots that reach it.
struct Held<T> {
    born: u64,
    until: u64,
    what: T,
}

/// The things that wait.
pub(super) struct Retired<T> {
    /// To be looked at; the order does not matter.
    next: Vec<Held<T>>,
    /// Whole files whose reader has left, to be looked at after those.
    later: Vec<Vec<Held<T>>>,
    /// By the newest reader that holds them back.
    filed: BTreeMap<u64, Vec<Held<T>>>,
    len: usize,
}

impl<T> Default for Retired<T> {
    fn default() -> Retired<T> {
        Retired { next: Vec::new(), later: Vec::new(), filed: BTreeMap::new(), len: 0 }
    }
}

impl<T> Retired<T> {
    /// Takes a thing that roots from `born` on, and before `until`, reach. No reader that comes later may reach it.
    pub(super) fn push(&mut self, born: u64, until: u64, what: T) {
        self.next.push(Held { born, until, what });
        self.len += 1;
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives up to `budget` things that none of `readers` (in order) reaches to `release`, or looks at as many.
    pub(super) fn settle(&mut self, readers: &[u64], budget: usize, mut release: impl FnMut(T)) {
        self.reopen(readers);
        for _ in 0..budget {
            let Some(held) = self.take_next() else { break };
            let older = readers.partition_point(|reader| *reader < held.until);
            match readers[..older].last() {
                Some(reader) if *reader >= held.born => self.filed.entry(*reader).or_default().push(held),
                _ => {
                    self.len -= 1;
                    release(held.what);
                }
            }
        }
    }

    /// Everything that waits, whoever reads it.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.len = 0;
        let filed = std::mem::take(&mut self.filed).into_values();
        let all =
            std::mem::take(&mut self.next).into_iter().chain(self.later.drain(..).chain(filed).flatten());
        all.map(|held| held.what).collect()
    }

    /// Takes out the files of readers that have left.
    fn reopen(&mut self, readers: &[u64]) {
        while let Some(gone) =
            self.filed.keys().find(|reader| readers.binary_search(reader).is_err()).copied()
        {
            self.later.extend(self.filed.remove(&gone));
        }
    }

    fn take_next(&mut self) -> Option<Held<T>> {
        loop {
            if let Some(held) = self.next.pop() {
                return Some(held);
            }
            self.next = self.later.pop()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(retired: &mut Retired<char>, readers: &[u64], budget: usize) -> String {
        let mut out = Vec::new();
        retired.settle(readers, budget, |what| out.push(what));
        out.sort_unstable();
        out.into_iter().collect()
    }

    #[test]
    fn a_thing_waits_for_the_readers_of_its_roots_and_no_others() {
        let mut retired = Retired::default();
        retired.push(3, 6, 'a');
        retired.push(4, 8, 'b');
        retired.push(6, 7, 'c');
        assert_eq!(settle(&mut retired, &[2, 5], 10), "c");
        assert_eq!(settle(&mut retired, &[2, 5, 9], 10), "");
        // the reader at 3 was there all along
        assert_eq!(settle(&mut retired, &[3, 9], 10), "b");
        assert_eq!(retired.len(), 1);
        assert_eq!(settle(&mut retired, &[9], 10), "a");
        assert_eq!(retired.len(), 0);
    }

    #[test]
    fn work_is_bounded_and_nothing_is_lost() {
        let mut retired = Retired::default();
        for what in 'a'..='z' {
            retired.push(1, 2, what);
        }
        assert_eq!(settle(&mut retired, &[1], 20), "");
        assert_eq!(settle(&mut retired, &[], 4).len(), 4);
        assert_eq!(settle(&mut retired, &[], 20).len(), 20);
        assert_eq!(retired.take_all().len(), 2);
        assert_eq!(retired.len(), 0);
    }
}
