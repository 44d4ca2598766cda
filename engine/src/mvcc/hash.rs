//! HashKV: a sum over the visible versions, so that any order gives it and it can be taken in slices.

use super::record::KeyValue;
use super::revision::{KeyRange, Revision};
use super::versions::{Versions, everything};
use super::view::View;
use crate::error::{ReadError, Refusal};
use crate::pager::page::TreeId;
use crate::pager::{Paged, Pages};
use crate::store::HashKv;
use bytes::Bytes;

/// A hash being taken: what for, how far, and the sum so far. Invariant: each step ends further on than it began, at a
/// greater key or at an older version of the same.
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
        let begun = self.inside;
        let mut keys = view.walk(&range, true)?;
        let mut bytes = Vec::new();
        let mut left = budget;
        while let Some((key, newest)) = keys.next()? {
            if left == 0 {
                return self.pause(view, begun, &key, None);
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
                    return self.pause(view, begun, &key, Some(revision));
                }
                left -= 1;
            }
        }
        Ok(Some(self.result))
    }

    /// Ends a step that began inside `begun` of its first key; the next one goes on from here.
    fn pause<P: Pages>(
        &mut self,
        view: &View<'_, P>,
        begun: Option<Revision>,
        key: &[u8],
        inside: Option<Revision>,
    ) -> Paged<Option<HashKv>> {
        let older = inside.is_some_and(|inside| begun.is_none_or(|begun| inside < begun));
        if !(key > &self.rest.key[..] || key == &self.rest.key[..] && older) {
            // pages whose checksums are right and whose order is not: the walk would never end
            return Err(view.fault(TreeId::Keys, "keys that rise, versions that fall", "others"));
        }
        self.rest.key = Bytes::copy_from_slice(key);
        self.inside = inside;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pager::Pager;

    #[test]
    fn a_walk_that_does_not_rise_is_a_fault_and_has_an_end() {
        let pager = Pager::in_memory();
        let root = pager.published();
        let view = View::of(&pager, &root);
        let at = |main| Some(Revision { main, sub: 0 });
        let mut scan = HashScan::begin(&view, 0).unwrap();
        // begun inside, ends at, inside, and whether it may go on
        for (begun, key, inside, goes_on) in [
            (None, "b", None, true),
            (None, "b", at(7), true),
            (at(7), "b", at(5), true),
            (at(5), "b", at(5), false),
            (at(5), "b", at(6), false),
            (at(5), "b", None, false),
            (at(5), "a", None, false),
            (at(5), "c", at(9), true),
        ] {
            let paused = scan.pause(&view, begun, key.as_bytes(), inside);
            assert_eq!(paused.is_ok(), goes_on, "{begun:?} {key} {inside:?}");
        }
    }
}
