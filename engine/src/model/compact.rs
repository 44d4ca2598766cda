//! Compaction: what it hides at once, and the walk that removes it later.
//!
//! The walk goes over `revisions` from the last compaction revision, inclusive, to the new one. At each record it removes
//! the version before it of the same key, and the record itself if it is a tombstone below the compaction revision; then
//! nothing is left but what is visible. A record between two visits keeps being hidden by its revision alone, so how far
//! the walk has come shows in no answer.

use super::keys::Version;
use super::{Model, version_bytes};
use crate::error::Refusal;
use crate::mvcc::Revision;

impl Model {
    /// Hides the history below `revision`.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        // tombstones at the old compaction revision were kept, those of an unfinished walk included
        self.compaction_next = self.compaction_next.min(Revision { main: self.compacted, sub: 0 });
        self.compacted = revision;
        Ok(())
    }

    /// Walks over up to `budget` records; true while there is more to do.
    pub fn compact_step(&mut self, budget: usize) -> bool {
        if self.compaction_done == self.compacted {
            return false;
        }
        for _ in 0..budget {
            let next = self.revisions.range(self.compaction_next..).next();
            let Some(version) = next.map(|(_, v)| v).filter(|v| v.revision.main <= self.compacted).cloned()
            else {
                self.compaction_done = self.compacted;
                self.compaction_next = Revision { main: self.compacted + 1, sub: 0 };
                return false;
            };
            self.compaction_next = Revision { sub: version.revision.sub + 1, ..version.revision };
            self.compact_at(&version);
        }
        true
    }

    fn compact_at(&mut self, version: &Version) {
        let history = self.keys.get_mut(&version.kv.key).expect("every record's key has a history");
        let before = history.remove_before(version.revision);
        let is_over = version.tombstone && version.revision.main < self.compacted;
        if is_over && history.remove(version.revision).is_none() {
            assert_eq!(history.versions().count(), 1, "a key's newest version goes last");
            self.keys.remove(&version.kv.key);
        }
        for gone in before.iter().chain(is_over.then_some(version)) {
            self.revisions.remove(&gone.revision).expect("every version has its record");
            self.bytes -= version_bytes(&gone.kv);
        }
    }

    /// Whether compaction has left this version standing.
    pub(super) fn is_visible(&self, version: &Version) -> bool {
        // once the walk is done only such are left, and the rule need not be asked
        self.compaction_done == self.compacted || self.survives(version)
    }

    /// The rule of what is visible: above the compaction revision all, at or below it each key's newest version unless that
    /// is a tombstone below it.
    pub(super) fn survives(&self, version: &Version) -> bool {
        let compacted = self.compacted;
        if version.revision.main > compacted {
            return true;
        }
        let newest = self.keys.get(&version.kv.key).and_then(|history| history.at(compacted));
        newest.is_some_and(|newest| newest.revision == version.revision)
            && !(version.tombstone && version.revision.main < compacted)
    }
}
