//! Reads one state: a published root through a reader's pages, or the writer's own trees within its transaction.
//!
//! How a key is read at main revision R, from its newest version:
//!
//! ```text
//! newest at or below R ............................ it
//! else: the oldest head of its spine above R        (a version above R has its record: R is not below what is compacted)
//!         its record's skip is above R ............ go on from there
//!         its previous is above R ................. go on from there
//!         it carries the previous body ............ that
//!         the previous version's record is there .. that, or a tombstone
//!         it is not ............................... absent: compaction saw a tombstone go, or nothing was
//! ```

use super::cell::{Body, Entry, Grave, Malformed, Read, Record, RecordKey, revision_key};
use super::record::KeyValue;
use super::revision::{KeyRange, Revision};
use super::spine::Spine;
use crate::btree::{self, Cursor};
use crate::error::Fault;
use crate::pager::page::{ChildRef, PageId, TREES, TreeId};
use crate::pager::root::{Cluster, Root, Standing};
use crate::pager::{Paged, Pages, spare_pages_below};
use crate::store::{Position, Sizes};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

/// One state of the store.
#[derive(Debug)]
pub struct View<'p, P> {
    pub(super) pages: &'p P,
    pub(super) trees: &'p [Option<ChildRef>; TREES],
    pub(super) standing: &'p Standing,
    pub(super) cluster: &'p Arc<Cluster>,
    /// The newest revision in the trees: within a command that has changed something one more than the standing's.
    pub(super) current: i64,
}

impl<P> Clone for View<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for View<'_, P> {}

/// What a key's newest version is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Newest<'p> {
    /// No version is known.
    Absent,
    /// There, with this value.
    Live(Entry<'p>),
    /// Deleted.
    Dead(Grave<'p>),
}

/// A version found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'p> {
    pub(super) revision: Revision,
    /// `None` of a tombstone.
    pub(super) body: Option<Body<'p>>,
}

impl<'p, P: Pages> View<'p, P> {
    /// Begins to bring the leaves into memory that a change of `keys` reads, without waiting for them. (Records are
    /// appended, and what a change needs of older ones stands in the key's entry.)
    pub fn read_ahead(&self, keys: &[&[u8]]) {
        for tree in [TreeId::Keys, TreeId::Deleted] {
            btree::read_ahead(self.pages, tree, self.tree(tree), keys);
        }
    }

    /// Begins to bring the large values into memory that `keys` have now: whoever puts over them tells what they were. The
    /// keys' leaves are waited for.
    pub fn read_values_ahead(&self, keys: &[&[u8]]) {
        for key in keys {
            // a fault is met again, and told, by whoever reads the key
            if let Ok(Some(Entry { body: Body { run: Some(run), .. }, .. })) = self.entry(key) {
                self.pages.run_ahead(&run);
            }
        }
    }

    /// The state that a root holds.
    pub fn of(pages: &'p P, root: &'p Root) -> View<'p, P> {
        View::new(pages, &root.trees, &root.standing, &root.cluster, root.standing.revision)
    }

    pub(super) fn new(
        pages: &'p P,
        trees: &'p [Option<ChildRef>; TREES],
        standing: &'p Standing,
        cluster: &'p Arc<Cluster>,
        current: i64,
    ) -> View<'p, P> {
        View { pages, trees, standing, cluster, current }
    }

    pub(super) fn tree(&self, tree: TreeId) -> Option<&'p ChildRef> {
        self.trees[tree.place()].as_ref()
    }

    pub(super) fn get(&self, tree: TreeId, key: &[u8]) -> Paged<Option<&'p [u8]>> {
        btree::get(self.pages, tree, self.tree(tree), key)
    }

    pub(super) fn cursor(&self, tree: TreeId) -> Cursor<'p, P> {
        Cursor::new(self.pages, tree, self.tree(tree))
    }

    /// What was read from an entry of a tree, or the fault of an entry that is none.
    pub(super) fn read<T>(&self, tree: TreeId, read: Read<T>) -> Paged<T> {
        read.map_err(|Malformed| self.fault(tree, "an entry of its form", "other bytes"))
    }

    /// What stands in a tree cannot be.
    #[cold]
    pub(super) fn fault(&self, tree: TreeId, expected: &str, found: &str) -> Box<Fault> {
        fault_in(self.pages, tree, self.tree(tree), expected, found)
    }

    pub(super) fn entry(&self, key: &[u8]) -> Paged<Option<Entry<'p>>> {
        match self.get(TreeId::Keys, key)? {
            Some(value) => self.read(TreeId::Keys, Entry::read(value)).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn grave(&self, key: &[u8]) -> Paged<Option<Grave<'p>>> {
        match self.get(TreeId::Deleted, key)? {
            Some(value) => self.read(TreeId::Deleted, Grave::read(value)).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn newest(&self, key: &[u8]) -> Paged<Newest<'p>> {
        if let Some(entry) = self.entry(key)? {
            return Ok(Newest::Live(entry));
        }
        Ok(self.grave(key)?.map_or(Newest::Absent, Newest::Dead))
    }

    pub(super) fn record(&self, revision: Revision) -> Paged<Option<Record<'p>>> {
        match self.get(TreeId::Revisions, &revision_key(revision))? {
            Some(value) => self.read(TreeId::Revisions, Record::read_at(revision, value)).map(Some),
            None => Ok(None),
        }
    }

    /// A record that must be there.
    pub(super) fn kept_record(&self, revision: Revision) -> Paged<Record<'p>> {
        match self.record(revision)? {
            Some(record) => Ok(record),
            None => Err(self.fault(TreeId::Revisions, &format!("the record of {revision:?}"), "none")),
        }
    }

    pub(super) fn record_key(&self, record: &Record<'p>) -> Paged<Cow<'p, [u8]>> {
        Ok(match &record.key {
            RecordKey::Inline(key) => Cow::Borrowed(key),
            RecordKey::Run(run) => Cow::Owned(self.pages.run(TreeId::Revisions, run)?.into()),
        })
    }

    /// The version of a key that a main revision sees, which is not below what is compacted.
    pub(super) fn at(&self, newest: &Newest<'p>, main: i64) -> Paged<Option<Seen<'p>>> {
        match newest {
            Newest::Absent => Ok(None),
            Newest::Live(entry) if entry.revision.main <= main => {
                Ok(Some(Seen { revision: entry.revision, body: Some(entry.body) }))
            }
            Newest::Live(entry) if !entry.has_previous => Ok(None),
            Newest::Live(entry) => self.below(TreeId::Keys, &entry.spine(), main),
            Newest::Dead(grave) if grave.revision.main <= main => {
                Ok(Some(Seen { revision: grave.revision, body: None }))
            }
            Newest::Dead(grave) => self.below(TreeId::Deleted, &grave.spine(), main),
        }
    }

    fn below(&self, tree: TreeId, spine: &Spine<'p>, main: i64) -> Paged<Option<Seen<'p>>> {
        match self.read(tree, spine.oldest_above(main))? {
            Some(head) => self.before(self.kept_record(head)?, main),
            None => Ok(None),
        }
    }

    /// The newest version at or below a main revision, from the record of a newer one on.
    pub(super) fn before(&self, mut record: Record<'p>, main: i64) -> Paged<Option<Seen<'p>>> {
        loop {
            let Some(previous) = record.previous else { return Ok(None) };
            record = match record.skip {
                Some(skip) if skip.main > main => self.kept_record(skip)?,
                _ if previous.main > main => self.kept_record(previous)?,
                _ => return self.previous_of(&record, previous),
            };
        }
    }

    /// The version before a record's.
    pub(super) fn just_before(&self, record: &Record<'p>) -> Paged<Option<Seen<'p>>> {
        match record.previous {
            Some(previous) => self.previous_of(record, previous),
            None => Ok(None),
        }
    }

    fn previous_of(&self, record: &Record<'p>, revision: Revision) -> Paged<Option<Seen<'p>>> {
        if record.previous_body.is_some() {
            return Ok(Some(Seen { revision, body: record.previous_body }));
        }
        let previous = self.record(revision)?;
        Ok(previous.map(|record| Seen { revision, body: (!record.tombstone).then_some(record.body) }))
    }

    /// The key-value that a read of a key at a main revision sees.
    pub(super) fn live_at(&self, key: &[u8], main: i64) -> Paged<Option<Body<'p>>> {
        Ok(self.at(&self.newest(key)?, main)?.and_then(|seen| seen.body))
    }

    pub(super) fn value(&self, body: &Body<'p>) -> Paged<Cow<'p, [u8]>> {
        Ok(match &body.run {
            Some(run) => Cow::Owned(self.pages.run(TreeId::Keys, run)?.into()),
            None => Cow::Borrowed(self.read(TreeId::Keys, body.fields())?.value),
        })
    }

    /// A key-value with bytes of its own: one allocation for both key and value.
    pub(super) fn key_value(&self, key: &[u8], body: &Body<'_>) -> Paged<KeyValue> {
        let fields = self.read(TreeId::Keys, body.fields())?;
        let (key, value) = match &body.run {
            Some(run) => (Bytes::copy_from_slice(key), self.pages.run(TreeId::Keys, run)?),
            None => joined(key, fields.value),
        };
        Ok(KeyValue {
            key,
            create_revision: fields.create_revision,
            mod_revision: fields.mod_revision,
            version: fields.version,
            value,
            lease: fields.lease,
        })
    }

    /// As [`View::key_value`], with a key that is at hand.
    pub(super) fn key_value_of(&self, key: &Bytes, body: &Body<'_>) -> Paged<KeyValue> {
        self.key_value_by(key, body, Bytes::copy_from_slice)
    }

    /// The same; `copy` makes the bytes of a value that is not long.
    pub(super) fn key_value_by(
        &self,
        key: &Bytes,
        body: &Body<'_>,
        copy: impl FnOnce(&[u8]) -> Bytes,
    ) -> Paged<KeyValue> {
        let fields = self.read(TreeId::Keys, body.fields())?;
        let value = match &body.run {
            Some(run) => self.pages.run(TreeId::Keys, run)?,
            None => copy(fields.value),
        };
        Ok(KeyValue {
            key: key.clone(),
            create_revision: fields.create_revision,
            mod_revision: fields.mod_revision,
            version: fields.version,
            value,
            lease: fields.lease,
        })
    }

    /// The keys of a range in order, each with its newest version; with `dead`, deleted ones too.
    pub(super) fn walk<'r>(&self, range: &'r KeyRange, dead: bool) -> Paged<Walk<'p, 'r, P>> {
        let live = Ahead::begin(self.cursor(TreeId::Keys), range)?;
        let with_dead = dead && self.tree(TreeId::Deleted).is_some();
        let dead = if with_dead { Some(Ahead::begin(self.cursor(TreeId::Deleted), range)?) } else { None };
        Ok(Walk { view: *self, range, live, dead })
    }

    /// Live keys of a range, in O(log n).
    pub(crate) fn live_count(&self, range: &KeyRange) -> Paged<u64> {
        self.count(TreeId::Keys, range)
    }

    /// The same and deleted keys that are still kept.
    pub(crate) fn kept_count(&self, range: &KeyRange) -> Paged<u64> {
        Ok(self.live_count(range)? + self.count(TreeId::Deleted, range)?)
    }

    pub(super) fn count(&self, tree: TreeId, range: &KeyRange) -> Paged<u64> {
        if range.is_empty() {
            return Ok(0);
        }
        let from = Bound::Included(&range.key[..]);
        let to = if range.is_single() {
            from
        } else if range.is_open_ended() {
            Bound::Unbounded
        } else {
            Bound::Excluded(&range.range_end[..])
        };
        btree::count(self.pages, tree, self.tree(tree), from, to)
    }

    /// Records from a revision on.
    pub(super) fn records_from(&self, from: Revision) -> Paged<u64> {
        let from = revision_key(from);
        let tree = TreeId::Revisions;
        btree::count(self.pages, tree, self.tree(tree), Bound::Included(&from[..]), Bound::Unbounded)
    }

    /// Where the state stands.
    pub fn position(&self) -> Position {
        position(self.standing)
    }
}

/// Where a state stands.
pub fn position(standing: &Standing) -> Position {
    Position {
        revision: standing.revision,
        compacted: standing.compacted,
        compaction_done: standing.compaction_done,
        applied: standing.applied,
        applied_term: standing.applied_term,
    }
}

/// Sizes of a published state, in constant time.
///
/// Spare copies of metas and bitmap do not count as in use: a quota of 13 pages, which etcd's own tests set, must have room for
/// two keys with a page of value each once all else is compacted.
pub fn sizes(root: &Root) -> Sizes {
    let page_bytes = crate::pager::page::PAGE_BYTES as u64;
    let total = |tree: TreeId| btree::total(root.trees[tree.place()].as_ref());
    Sizes {
        total_bytes: root.pages_end * page_bytes,
        in_use_bytes: (root.pages_used - spare_pages_below(root.pages_end)) * page_bytes,
        keys: total(TreeId::Keys),
        leases: total(TreeId::Leases),
    }
}

/// The fault of what stands in a tree and cannot be; the offset is that of the tree's root.
#[cold]
pub(super) fn fault_in(
    pages: &impl Pages,
    tree: TreeId,
    root: Option<&ChildRef>,
    expected: &str,
    found: &str,
) -> Box<Fault> {
    let at = root.map_or(PageId::default(), |root| root.id);
    pages.fault(at, format!("in tree {tree:?}: {expected}"), found.to_owned())
}

/// Key and value in one allocation.
pub(super) fn joined(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    if value.is_empty() {
        return (Bytes::copy_from_slice(key), Bytes::new());
    }
    let mut both = Vec::with_capacity(key.len() + value.len());
    both.extend_from_slice(key);
    both.extend_from_slice(value);
    let mut key_bytes = Bytes::from(both);
    let value = key_bytes.split_off(key.len());
    (key_bytes, value)
}

/// Walks over the keys of a range.
pub(super) struct Walk<'p, 'r, P: Pages> {
    view: View<'p, P>,
    range: &'r KeyRange,
    live: Ahead<'p, P>,
    dead: Option<Ahead<'p, P>>,
}

impl<'p, P: Pages> Walk<'p, '_, P> {
    /// The next key and its newest version.
    pub(super) fn next(&mut self) -> Paged<Option<(Cow<'p, [u8]>, Newest<'p>)>> {
        if let Some(dead) = &mut self.dead {
            let dead_first = match (dead.peek(self.range)?, self.live.peek(self.range)?) {
                (Some(dead), Some(live)) => dead < live,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if dead_first {
                let Some((key, value)) = dead.next(self.range)? else { return Ok(None) };
                return Ok(Some((key, Newest::Dead(self.view.read(TreeId::Deleted, Grave::read(value))?))));
            }
        }
        let Some((key, value)) = self.live.next(self.range)? else { return Ok(None) };
        Ok(Some((key, Newest::Live(self.view.read(TreeId::Keys, Entry::read(value))?))))
    }
}

/// A cursor that can be asked for its next key.
struct Ahead<'p, P: Pages> {
    cursor: Cursor<'p, P>,
    peeked: Option<btree::Entry<'p>>,
    is_over: bool,
}

impl<'p, P: Pages> Ahead<'p, P> {
    fn begin(mut cursor: Cursor<'p, P>, range: &KeyRange) -> Paged<Ahead<'p, P>> {
        cursor.seek(&range.key)?;
        Ok(Ahead { cursor, peeked: None, is_over: false })
    }

    fn next(&mut self, range: &KeyRange) -> Paged<Option<btree::Entry<'p>>> {
        if self.peeked.is_some() || self.is_over {
            return Ok(self.peeked.take());
        }
        // it began at the range's first key
        let next = self.cursor.next()?.filter(|(key, _)| range.reaches(key));
        self.is_over = next.is_none();
        Ok(next)
    }

    fn peek(&mut self, range: &KeyRange) -> Paged<Option<&[u8]>> {
        self.peeked = self.next(range)?;
        Ok(self.peeked.as_ref().map(|(key, _)| &key[..]))
    }
}
