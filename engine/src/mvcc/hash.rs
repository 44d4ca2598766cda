//! HashKV: a sum over the visible versions, so that any order gives it and it can be taken in slices.

use super::record::KeyValue;
use super::revision::{KeyRange, Revision};
use super::versions::{Versions, everything};
use super::view::View;
use crate::error::{ReadError, Refusal};
use crate::pager::{Paged, Pages};
use crate::store::HashKv;
use bytes::Bytes;

/// A hash being taken: what for, how far, and the sum so far.
#[derive(Clone, Debug)]
pub struct HashScan {
    result: HashKv,
    /// The revision hashed; the result shows a negative one as it was asked, as etcd does.
    at: i64,
    /// Keys still to come.
    rest: KeyRange,
    /// The last version hashed of the first of them, if any was.
    inside: Option<Revision>,
}

impl HashScan {
    /// Begins the hash of what is visible at `revision` (0 and below: the current one).
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`].
    pub fn begin<P: Pages>(view: &View<'_, P>, revision: i64) -> Result<HashScan, ReadError> {
        let standing = view.standing;
        if revision > 0 && revision < standing.compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > standing.revision {
            return Err(Refusal::FutureRevision.into());
        }
        let result = HashKv {
            hash: 0,
            compact_revision: standing.compacted,
            hash_revision: if revision == 0 { standing.revision } else { revision },
            current_revision: standing.revision,
        };
        let at = if revision > 0 { revision } else { standing.revision };
        Ok(HashScan { result, at, rest: everything(), inside: None })
    }

    /// Whether the hash begun is still one of what is visible now: nothing was compacted since.
    pub fn holds<P>(&self, view: &View<'_, P>) -> bool {
        self.result.compact_revision == view.standing.compacted
    }

    /// Goes over about `budget` versions; the result at the end. It is right only if the hash still [`HashScan::holds`].
    ///
    /// # Errors
    /// The fault met.
    pub fn step<P: Pages>(&mut self, view: &View<'_, P>, budget: usize) -> Paged<Option<HashKv>> {
        let range = self.rest.clone();
        let mut keys = view.walk(&range, true)?;
        let mut bytes = Vec::new();
        let mut left = budget;
        while let Some((key, newest)) = keys.next()? {
            if left == 0 {
                self.rest.key = Bytes::copy_from_slice(&key);
                return Ok(None);
            }
            let inside = self.inside.take().filter(|_| *key == *range.key);
            let mut versions = match inside {
                Some(revision) => Versions::after(*view, revision)?,
                None => Versions::of(*view, &newest, self.at)?,
            };
            left -= 1;
            while let Some((revision, body)) = versions.next()? {
                let is_tombstone = body.is_none();
                // one at the compaction revision is told to watchers, but is not of the state
                if !(is_tombstone && revision.main <= view.standing.compacted) {
                    let kv = match body {
                        Some(body) => view.key_value(&key, &body)?,
                        None => KeyValue { key: Bytes::copy_from_slice(&key), ..KeyValue::default() },
                    };
                    bytes.clear();
                    revision.encode(is_tombstone, &mut bytes);
                    kv.encode(&mut bytes);
                    self.result.hash = self.result.hash.wrapping_add(crc32c::crc32c(&bytes));
                }
                if left == 0 {
                    self.rest.key = Bytes::copy_from_slice(&key);
                    self.inside = Some(revision);
                    return Ok(None);
                }
                left -= 1;
            }
        }
        Ok(Some(self.result))
    }
}
