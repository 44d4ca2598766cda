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
        let history = self.keys.get(&version.kv.key).expect("every record's key has a history");
        if let Some(before) = history.before(version.revision).map(|before| before.revision) {
            self.remove(&version.kv.key, before);
        }
        if version.tombstone && version.revision.main < self.compacted {
            self.remove(&version.kv.key, version.revision);
        }
    }

    /// Removes one version, and the key if it was the only one.
    fn remove(&mut self, key: &[u8], revision: Revision) {
        let record = self.revisions.remove(&revision).expect("every version has its record");
        self.bytes -= version_bytes(&record.kv);
        let history = self.keys.get_mut(key).expect("every record's key has a history");
        if history.remove_older(revision).is_none() {
            assert!(history.versions().count() == 1, "a key's newest version goes last");
            self.keys.remove(key);
        }
    }

    /// Whether compaction has left this version standing.
    pub(super) fn is_visible(&self, version: &Version) -> bool {
        let compacted = self.compacted;
        if version.revision.main > compacted {
            return true;
        }
        let newest = self.keys.get(&version.kv.key).and_then(|history| history.at(compacted));
        newest.is_some_and(|newest| newest.revision == version.revision)
            && !(version.tombstone && version.revision.main < compacted)
    }
}
