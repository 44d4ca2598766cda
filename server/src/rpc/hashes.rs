//! HashKV's last answers, for the one question that compaction changes the answer to.
//!
//! A hash is of all that is visible at its revision and since the compaction before it. Compacted at that very revision, the
//! history goes, and only the state is left to be hashed. Who compares a hash from before with one from after, as etcd's own
//! tests do, expects the same number: etcd takes the hash while it compacts and tells that one from then on, with the compaction
//! revision that it was of. To take it here would be to read all keys for each compaction, so what was told before is told
//! again; nobody else can tell. As with etcd, it is forgotten with the process.

use coffer_engine::store::{HashKv, Position};
use std::collections::VecDeque;

/// Answers kept: as many as etcd's.
const KEPT_MAX: usize = 10;

/// The answers, the latest last; of each revision one.
#[derive(Debug, Default)]
pub(crate) struct Told(VecDeque<HashKv>);

impl Told {
    /// Keeps an answer in the place of an older one of its revision. One that was taken when its revision was compacted already is
    /// nothing to tell again, and takes no place: two may have been asked at once, and the later one be done first.
    pub(crate) fn keep(&mut self, hash: HashKv) {
        if hash.compact_revision >= hash.hash_revision {
            return;
        }
        self.0.retain(|told| told.hash_revision != hash.hash_revision);
        if self.0.len() == KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// What was told of `revision`, if the store is compacted at just that now and was not then.
    pub(crate) fn before_compaction(&self, revision: i64, now: &Position) -> Option<HashKv> {
        let asked = revision > 0 && revision == now.compacted;
        let told = self.0.iter().find(|told| asked && told.hash_revision == revision)?;
        (told.compact_revision < revision).then_some(HashKv { current_revision: now.revision, ..*told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hash_revision: i64, compact_revision: i64, hash: u32) -> HashKv {
        HashKv { hash, compact_revision, hash_revision, current_revision: hash_revision }
    }

    fn at(compacted: i64) -> Position {
        Position { revision: 100, compacted, ..Position::default() }
    }

    #[test]
    fn what_was_told_before_a_compaction_is_told_at_its_revision_alone() {
        let mut told = Told::default();
        told.keep(of(7, -1, 1));
        told.keep(of(7, 3, 2));
        told.keep(of(8, 3, 3));
        told.keep(of(7, 7, 5));
        let again = told.before_compaction(7, &at(7)).unwrap();
        assert_eq!(again, HashKv { current_revision: 100, ..of(7, 3, 2) });
        for (asked, compacted) in [(7, 3), (7, 8), (8, 7), (0, 7), (-1, -1), (9, 9)] {
            assert_eq!(told.before_compaction(asked, &at(compacted)), None, "{asked} {compacted}");
        }
        // taken after the compaction, it is what can be taken now
        told.keep(of(9, 9, 4));
        assert_eq!(told.before_compaction(9, &at(9)), None);
    }

    #[test]
    fn the_latest_answers_are_kept() {
        let mut told = Told::default();
        (1..=30).for_each(|revision| told.keep(of(revision, -1, 0)));
        (1..=30).for_each(|revision| {
            let kept = told.before_compaction(revision, &at(revision)).is_some();
            assert_eq!(kept, revision > 20, "{revision}");
        });
    }
}
