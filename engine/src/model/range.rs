//! Reads at any kept revision.
//!
//! The order of steps is etcd 3.7's: read (up to one more than the limit where nothing is sorted or filtered), filter,
//! sort, cut. Its corners are kept: an order of "none" reads only up to the limit even where another target than the key
//! is then sorted by; the count knows neither limit nor filters; without values the lease is left out too, unless the
//! values were needed for sorting.

use super::Model;
use super::keys::KeyHistory;
use crate::command::{RangeReply, RangeRequest, SortOrder, SortTarget};
use crate::error::Refusal;
use crate::mvcc::{KeyRange, KeyValue};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

impl Model {
    /// A range at the newest or an older revision.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, Refusal> {
        self.range_at(request, self.revision, true)
    }

    /// A range whose count covers only what is read for the answer.
    pub fn range_uncounted(&self, request: &RangeRequest) -> Result<RangeReply, Refusal> {
        self.range_at(request, self.revision, false)
    }

    /// A range as of `current`, the revision that counts as the newest.
    pub(crate) fn range_at(
        &self,
        request: &RangeRequest,
        current: i64,
        counted: bool,
    ) -> Result<RangeReply, Refusal> {
        if request.revision > current {
            return Err(Refusal::FutureRevision);
        }
        let at = if request.revision <= 0 { current } else { request.revision };
        if at < self.compacted {
            return Err(Refusal::Compacted);
        }
        let wanted = wanted(request);
        let (mut kvs, mut count) = (Vec::new(), 0);
        for history in self.histories(&request.range) {
            if kvs.len() >= wanted && !counted && !request.count_only {
                break;
            }
            if let Some(kv) = history.live_at(at) {
                count += 1;
                if kvs.len() < wanted {
                    kvs.push(Arc::clone(kv));
                }
            }
        }
        filter(&mut kvs, request);
        sort(&mut kvs, request);
        let more = request.limit > 0 && kvs.len() as u64 > request.limit as u64;
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| *kv = without_value(kv, request.sort_target));
        }
        let kvs = kvs.iter().map(|kv| KeyValue::clone(kv)).collect();
        Ok(RangeReply { current_revision: current, kvs, more, count })
    }

    /// The newest key-values of a range, by key.
    pub(super) fn live_in(&self, range: &KeyRange) -> Vec<Arc<KeyValue>> {
        self.histories(range).filter_map(|history| history.newest().live().cloned()).collect()
    }

    /// The histories of a range's keys, by key.
    pub(super) fn histories(&self, range: &KeyRange) -> impl Iterator<Item = &KeyHistory> {
        let (one, many) = if range.is_single() {
            (self.keys.get(&range.key[..]), None)
        } else if range.is_empty() {
            (None, None)
        } else {
            let end =
                if range.is_open_ended() { Bound::Unbounded } else { Bound::Excluded(&range.range_end[..]) };
            (None, Some(self.keys.range::<[u8], _>((Bound::Included(&range.key[..]), end))))
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(_, history)| history))
    }
}

/// How many key-values need be read: all where they are still filtered or sorted, else one above the limit, which shows
/// that there are more.
fn wanted(request: &RangeRequest) -> usize {
    let unsorted = request.sort_order == SortOrder::None
        || (request.sort_order == SortOrder::Ascend && request.sort_target == SortTarget::Key);
    let unfiltered = request.min_mod_revision == 0
        && request.max_mod_revision == 0
        && request.min_create_revision == 0
        && request.max_create_revision == 0;
    if request.count_only {
        0
    } else if request.limit > 0 && unsorted && unfiltered {
        usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1)
    } else {
        usize::MAX
    }
}

fn filter(kvs: &mut Vec<Arc<KeyValue>>, request: &RangeRequest) {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
}

/// Sorts; equal ones stay in the order of their keys.
fn sort(kvs: &mut [Arc<KeyValue>], request: &RangeRequest) {
    let compare = |a: &Arc<KeyValue>, b: &Arc<KeyValue>| match request.sort_target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match (request.sort_order, request.sort_target) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
        (SortOrder::None | SortOrder::Ascend, _) => kvs.sort_by(compare),
        (SortOrder::Descend, _) => kvs.sort_by(|a, b| Ordering::reverse(compare(a, b))),
    }
}

fn without_value(kv: &KeyValue, target: SortTarget) -> Arc<KeyValue> {
    Arc::new(KeyValue {
        key: kv.key.clone(),
        value: Bytes::new(),
        lease: if target == SortTarget::Value { kv.lease } else { 0 },
        ..*kv
    })
}
