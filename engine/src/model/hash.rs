//! HashKV: a sum over the visible versions, so that any order gives it.

use super::Model;
use crate::error::Refusal;
use crate::mvcc::Revision;
use crate::store::HashKv;

impl Model {
    /// The hash of what is visible at `revision` (0 and below: the current one; the result shows a negative one as it was
    /// asked, as etcd does).
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Refusal> {
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        let at = if revision > 0 { revision } else { self.revision };
        let mut hash = 0_u32;
        let mut bytes = Vec::new();
        for (revision, version) in self.revisions.range(..Revision { main: at + 1, sub: 0 }) {
            let tombstone_at_c = version.tombstone && revision.main == self.compacted;
            if tombstone_at_c || !self.is_visible(version) {
                continue;
            }
            bytes.clear();
            revision.encode(version.tombstone, &mut bytes);
            version.stored_kv(&mut bytes);
            hash = hash.wrapping_add(crc32c::crc32c(&bytes));
        }
        Ok(HashKv {
            hash,
            compact_revision: self.compacted,
            hash_revision: if revision == 0 { self.revision } else { revision },
            current_revision: self.revision,
        })
    }
}
