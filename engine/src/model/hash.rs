//! HashKV: a sum over the visible versions, so that any order gives it and it can be taken in slices.

use super::Model;
use crate::error::Refusal;
use crate::mvcc::Revision;
use crate::store::HashKv;

/// A hash being taken: what for, how far, and the sum so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashCursor {
    result: HashKv,
    /// The revision hashed; the result shows a negative one as it was asked, as etcd does.
    at: i64,
    next: Revision,
}

impl Model {
    /// The hash of what is visible at `revision` (0 and below: the current one).
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Refusal> {
        let cursor = self.hash_begin(revision)?;
        Ok(self.hash_step(cursor, usize::MAX).unwrap_or_default())
    }

    /// Begins the hash of what is visible at `revision` (0 and below: the current one).
    pub(crate) fn hash_begin(&self, revision: i64) -> Result<HashCursor, Refusal> {
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        let result = HashKv {
            hash: 0,
            compact_revision: self.compacted,
            hash_revision: if revision == 0 { self.revision } else { revision },
            current_revision: self.revision,
        };
        let at = if revision > 0 { revision } else { self.revision };
        Ok(HashCursor { result, at, next: Revision { main: i64::MIN, sub: 0 } })
    }

    /// Goes over up to `budget` records. `Ok` with the result at the end; `Err` with where to go on.
    ///
    /// The result is right only if the compaction revision stays as it was at the beginning: see [`HashCursor::holds`].
    pub(crate) fn hash_step(&self, mut cursor: HashCursor, budget: usize) -> Result<HashKv, HashCursor> {
        let mut bytes = Vec::new();
        let mut records = self.revisions.range(cursor.next..);
        for _ in 0..budget {
            let next = records.next().filter(|(revision, _)| revision.main <= cursor.at);
            let Some((revision, version)) = next else {
                return Ok(cursor.result);
            };
            cursor.next = Revision { sub: revision.sub + 1, ..*revision };
            let tombstone_at_c = version.tombstone && revision.main == self.compacted;
            if tombstone_at_c || !self.is_visible(version) {
                continue;
            }
            bytes.clear();
            revision.encode(version.tombstone, &mut bytes);
            version.stored_kv(&mut bytes);
            cursor.result.hash = cursor.result.hash.wrapping_add(crc32c::crc32c(&bytes));
        }
        Err(cursor)
    }
}

impl HashCursor {
    /// Whether the hash begun is still one of what is visible now: nothing was compacted since.
    pub(crate) fn holds(&self, model: &Model) -> bool {
        self.result.compact_revision == model.compacted
    }
}
