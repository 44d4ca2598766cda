//! Reads of ranges at any kept revision.
//!
//! The order of steps is etcd 3.7's: read (up to one more than the limit where nothing is sorted or filtered), filter,
//! sort, cut. Its corners are kept: an order of "none" reads only up to the limit even where another target than the key
//! is then sorted by; the count knows neither limit nor filters; without values the lease is left out too, unless the
//! values were needed for sorting.
//!
//! A long range is read in slices, each from the newest root: what its revision sees is the same in all of them, until that
//! revision is compacted. How its keys are counted, where they were not all read:
//!
//! | read at | count |
//! |---|---|
//! | the newest revision | from the tree's own counts, when the range begins |
//! | an older one | the keys that are there now, one more for each tombstone since, one less for each first version since; or the rest of the range key by key, where that is shorter |

use super::cell::{Body, Fields, revision_key};
use super::record::KeyValue;
use super::revision::{KeyRange, Revision};
use super::versions::everything;
use super::view::View;
use crate::command::{RangeReply, RangeRequest, SortOrder, SortTarget};
use crate::error::{ReadError, Refusal};
use crate::pager::page::TreeId;
use crate::pager::{Paged, Pages};
use bytes::Bytes;
use std::cmp::Ordering;

/// Work after which a range lets others in.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Keys or records looked at.
    pub keys: usize,
    /// Bytes of keys and values gathered.
    pub bytes: usize,
}

impl Slice {
    /// No end before the range's.
    pub const WHOLE: Slice = Slice { keys: usize::MAX, bytes: usize::MAX };
}

/// A range being read: at which revision, what is left of it, what was found. Invariant: each slice of a phase ends further on
/// than it began, at a greater key or a later record.
#[derive(Debug)]
pub struct Scan {
    at: i64,
    current: i64,
    counted: bool,
    wanted: usize,
    /// Values are of no use.
    values: bool,
    rest: KeyRange,
    kvs: Vec<KeyValue>,
    count: Option<i64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Reading,
    /// The rest of the range, of which so many were found so far.
    CountingKeys(i64),
    /// The records from a revision on, which so far make so many keys more then than there are now.
    CountingRecords(Revision, i64),
}

/// Finding the older version of a key costs as much as reading so many records in their order.
const CHAIN_COST_RECORDS: u64 = 16;

/// What a stretch of work came to.
enum Step {
    More,
    Done,
}

impl Scan {
    /// Begins a range: its revision is fixed here, so later changes do not show in it. Without `counted` the count covers
    /// only what is read for the answer.
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`]; a fault.
    pub fn begin<P: Pages>(
        view: &View<'_, P>,
        request: &RangeRequest,
        counted: bool,
    ) -> Result<Scan, ReadError> {
        if request.revision > view.current {
            return Err(Refusal::FutureRevision.into());
        }
        let at = if request.revision <= 0 { view.current } else { request.revision };
        if at < view.standing.compacted {
            return Err(Refusal::Compacted.into());
        }
        let counted = counted || request.count_only;
        // a single key is counted by looking for it
        let count = if counted && at == view.current && !request.range.is_single() {
            Some(view.live_count(&request.range)? as i64)
        } else {
            None
        };
        Ok(Scan {
            at,
            current: view.current,
            counted,
            wanted: wanted(request),
            values: !request.keys_only || request.sort_target == SortTarget::Value,
            rest: request.range.clone(),
            kvs: Vec::new(),
            count,
            phase: Phase::Reading,
        })
    }

    /// Whether the range's revision can still be read.
    pub fn holds<P>(&self, view: &View<'_, P>) -> bool {
        self.at >= view.standing.compacted
    }

    /// Reads on until the slice is used up; true while there is more.
    ///
    /// # Errors
    /// The fault met.
    pub fn step<P: Pages>(
        &mut self,
        view: &View<'_, P>,
        request: &RangeRequest,
        slice: Slice,
    ) -> Paged<bool> {
        let step = match self.phase {
            Phase::Reading if self.rest.is_single() => self.read_single(view)?,
            Phase::Reading => self.read_keys(view, slice)?,
            Phase::CountingKeys(found) => self.count_keys(view, found, slice.keys)?,
            Phase::CountingRecords(next, sum) => {
                self.count_records(view, &request.range, next, sum, slice.keys)?
            }
        };
        Ok(matches!(step, Step::More))
    }

    fn read_single<P: Pages>(&mut self, view: &View<'_, P>) -> Paged<Step> {
        let body = if self.at >= view.current {
            view.entry(&self.rest.key)?.map(|entry| entry.body)
        } else {
            view.live_at(&self.rest.key, self.at)?
        };
        self.count = Some(i64::from(body.is_some()));
        if let Some(body) = body.filter(|_| self.wanted > 0) {
            let kv = self.key_value(view, &body)?;
            self.kvs = vec![kv];
        }
        Ok(Step::Done)
    }

    fn read_keys<P: Pages>(&mut self, view: &View<'_, P>, slice: Slice) -> Paged<Step> {
        let range = self.rest.clone();
        let is_newest = self.at >= view.current;
        let mut walk = view.walk(&range, !is_newest)?;
        let mut gathered = Gathered::with_room(self.wanted.min(slice.keys));
        let mut looked_at = 0;
        loop {
            let is_full = self.kvs.len() + gathered.kvs.len() >= self.wanted;
            if is_full && (!self.counted || self.count.is_some()) {
                gathered.finish(&mut self.kvs);
                return Ok(Step::Done);
            }
            let Some((key, newest)) = walk.next()? else { break };
            if is_full {
                self.rest.key = Bytes::copy_from_slice(&key);
                gathered.finish(&mut self.kvs);
                self.phase = self.begin_count(view)?;
                return Ok(Step::More);
            }
            if looked_at >= slice.keys || gathered.size >= slice.bytes {
                self.pause(view, &key)?;
                gathered.finish(&mut self.kvs);
                return Ok(Step::More);
            }
            looked_at += 1;
            if let Some(body) = view.at(&newest, self.at)?.and_then(|seen| seen.body) {
                gathered.add(view, &key, &body, self.values)?;
            }
        }
        gathered.finish(&mut self.kvs);
        self.count.get_or_insert(self.kvs.len() as i64);
        Ok(Step::Done)
    }

    /// Ends a slice before `key`; the next one goes on there.
    fn pause<P: Pages>(&mut self, view: &View<'_, P>, key: &[u8]) -> Paged<()> {
        if key <= &self.rest.key[..] {
            // pages whose checksums are right and whose order is not: the walk would never end
            return Err(view.fault(TreeId::Keys, "keys that rise", "others"));
        }
        self.rest.key = Bytes::copy_from_slice(key);
        Ok(())
    }

    /// The one key-value of the answer, or what of it is wanted.
    fn key_value<P: Pages>(&self, view: &View<'_, P>, body: &Body<'_>) -> Paged<KeyValue> {
        if self.values {
            return view.key_value_of(&self.rest.key, body);
        }
        let Fields { create_revision, mod_revision, version, lease, .. } =
            view.read(TreeId::Keys, body.fields())?;
        let key = self.rest.key.clone();
        Ok(KeyValue { key, create_revision, mod_revision, version, value: Bytes::new(), lease })
    }

    /// Chooses the shorter way to the count of an older revision.
    fn begin_count<P: Pages>(&self, view: &View<'_, P>) -> Paged<Phase> {
        let first = Revision { main: self.at + 1, sub: 0 };
        let (keys, all_keys) = (view.kept_count(&self.rest)?, view.kept_count(&everything())?);
        let records = view.records_from(first)?;
        // of the keys to come so many have changed since, if changes fell on all keys alike
        let changed = keys.min(records.saturating_mul(keys) / all_keys.max(1));
        if records <= keys + changed * CHAIN_COST_RECORDS {
            Ok(Phase::CountingRecords(first, 0))
        } else {
            Ok(Phase::CountingKeys(self.kvs.len() as i64))
        }
    }

    fn count_keys<P: Pages>(&mut self, view: &View<'_, P>, mut found: i64, budget: usize) -> Paged<Step> {
        let range = self.rest.clone();
        let mut walk = view.walk(&range, self.at < view.current)?;
        let mut looked_at = 0;
        while let Some((key, newest)) = walk.next()? {
            if looked_at >= budget {
                self.pause(view, &key)?;
                self.phase = Phase::CountingKeys(found);
                return Ok(Step::More);
            }
            looked_at += 1;
            let seen = view.at(&newest, self.at)?;
            found += i64::from(seen.is_some_and(|seen| seen.body.is_some()));
        }
        self.count = Some(found);
        Ok(Step::Done)
    }

    /// Records above the revision are never removed while it can be read, so the sum goes on from root to root.
    fn count_records<P: Pages>(
        &mut self,
        view: &View<'_, P>,
        range: &KeyRange,
        mut next: Revision,
        mut sum: i64,
        budget: usize,
    ) -> Paged<Step> {
        let mut records = view.cursor(TreeId::Revisions);
        records.seek(&revision_key(next))?;
        for _ in 0..budget {
            let Some((key, value)) = records.next()? else {
                self.count = Some(view.live_count(range)? as i64 + sum);
                return Ok(Step::Done);
            };
            let record = view.read(TreeId::Revisions, super::cell::Record::read(&key, value))?;
            next = behind(record.revision, next)
                .ok_or_else(|| view.fault(TreeId::Revisions, "records that rise", "others"))?;
            if !range.contains(&view.record_key(&record)?) {
                continue;
            }
            if record.tombstone {
                sum += 1;
            } else if view.read(TreeId::Revisions, record.body.fields())?.version == 1 {
                sum -= 1;
            }
        }
        self.phase = Phase::CountingRecords(next, sum);
        Ok(Step::More)
    }

    /// Filters, sorts and cuts what was read.
    pub fn finish(self, request: &RangeRequest) -> RangeReply {
        let count = self.count.unwrap_or(self.kvs.len() as i64);
        let mut kvs = self.kvs;
        filter(&mut kvs, request);
        sort(&mut kvs, request);
        let more = request.limit > 0 && kvs.len() as u64 > request.limit as u64;
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| without_value(kv, request.sort_target));
        }
        RangeReply { current_revision: self.current, kvs, more, count }
    }
}

/// Where a walk over records that stood at `next` goes on behind `revision`; `None` if that is not further on.
fn behind(revision: Revision, next: Revision) -> Option<Revision> {
    let sub = revision.sub.checked_add(1)?;
    (revision >= next).then_some(Revision { sub, ..revision })
}

/// The key-values of a slice in the making: their bytes stand in one allocation, which lives as long as any of them.
struct Gathered {
    bytes: Vec<u8>,
    /// Without their keys, and without those values that are cut out of the bytes.
    kvs: Vec<KeyValue>,
    /// Where in the bytes the key and the value of each end; a value of a run is in its key-value already.
    ends: Vec<(usize, usize)>,
    /// Bytes of keys and values, those in runs too.
    size: usize,
}

/// Keys that room is made for ahead.
const ROOM_KEYS_MAX: usize = 1_024;
/// Bytes of a key and its value that room is made for ahead.
const ROOM_BYTES: usize = 128;

impl Gathered {
    fn with_room(keys: usize) -> Gathered {
        let keys = keys.min(ROOM_KEYS_MAX);
        Gathered {
            bytes: Vec::with_capacity(keys * ROOM_BYTES),
            kvs: Vec::with_capacity(keys),
            ends: Vec::with_capacity(keys),
            size: 0,
        }
    }

    fn add<P: Pages>(&mut self, view: &View<'_, P>, key: &[u8], body: &Body<'_>, values: bool) -> Paged<()> {
        let fields = view.read(TreeId::Keys, body.fields())?;
        let Fields { create_revision, mod_revision, version, lease, .. } = fields;
        let value = match &body.run {
            Some(run) if values => view.pages.run(TreeId::Keys, run)?,
            _ => Bytes::new(),
        };
        self.size += key.len() + value.len() + fields.value.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        if values {
            self.bytes.extend_from_slice(fields.value);
        }
        self.ends.push((key_end, self.bytes.len()));
        self.kvs.push(KeyValue { key: Bytes::new(), create_revision, mod_revision, version, value, lease });
        Ok(())
    }

    fn finish(mut self, out: &mut Vec<KeyValue>) {
        self.bytes.shrink_to_fit();
        let bytes = Bytes::from(self.bytes);
        let mut begin = 0;
        for (kv, (key_end, value_end)) in self.kvs.iter_mut().zip(self.ends) {
            kv.key = bytes.slice(begin..key_end);
            if value_end > key_end {
                kv.value = bytes.slice(key_end..value_end);
            }
            begin = value_end;
        }
        if out.is_empty() {
            *out = self.kvs;
        } else {
            out.append(&mut self.kvs);
        }
    }
}

impl<P: Pages> View<'_, P> {
    /// A range in one slice.
    ///
    /// # Errors
    /// As [`Scan::begin`].
    pub fn range(&self, request: &RangeRequest, counted: bool) -> Result<RangeReply, ReadError> {
        let mut scan = Scan::begin(self, request, counted)?;
        while scan.step(self, request, Slice::WHOLE)? {}
        Ok(scan.finish(request))
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

fn filter(kvs: &mut Vec<KeyValue>, request: &RangeRequest) {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
}

/// Sorts; equal ones stay in the order of their keys.
fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    let compare = |a: &KeyValue, b: &KeyValue| match request.sort_target {
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

fn without_value(kv: &mut KeyValue, target: SortTarget) {
    kv.value = Bytes::new();
    if target != SortTarget::Value {
        kv.lease = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::disorder::{ends, store};

    /// How many of many walks over disordered leaves a fault ended, each begun in `phase`.
    fn faults(phase: Phase) -> usize {
        let request = RangeRequest { range: everything(), ..RangeRequest::default() };
        let mut faults = 0;
        for seed in 0..400 {
            let mvcc = store(seed);
            let view = mvcc.view();
            let mut scan = Scan::begin(&view, &request, false).unwrap();
            scan.phase = phase;
            let slice = Slice { keys: 1 + seed as usize % 7, bytes: usize::MAX };
            faults += usize::from(!ends(seed, || scan.step(&view, &request, slice)));
        }
        faults
    }

    #[test]
    fn a_walk_over_keys_or_records_that_do_not_rise_has_an_end() {
        for phase in
            [Phase::Reading, Phase::CountingKeys(0), Phase::CountingRecords(Revision { main: 2, sub: 0 }, 0)]
        {
            let faults = faults(phase);
            assert!(faults > 100, "{phase:?}: {faults}");
        }
    }

    #[test]
    fn behind_a_record_is_always_further_on() {
        let at = |main, sub| Revision { main, sub };
        assert_eq!(behind(at(5, 0), at(5, 0)), Some(at(5, 1)));
        assert_eq!(behind(at(6, 3), at(5, 1)), Some(at(6, 4)));
        for below in [at(5, 0), at(4, 9), at(i64::MIN, 0)] {
            assert_eq!(behind(below, at(5, 1)), None);
        }
        assert_eq!(behind(at(6, i64::MAX), at(5, 1)), None);
    }
}
