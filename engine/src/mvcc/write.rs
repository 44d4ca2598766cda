//! Puts and deletes within one main revision.
//!
//! A [`Writer`] is one command at work. The main revision it writes at exists from its first change on; reads within the
//! command see what it has changed so far, because they look at the newest version of every key.
//!
//! ```text
//! put over     Keys                 Deleted    Revisions: a new record, previous and skip
//! nothing      + entry, number 1    -          none
//! live v       entry replaced       -          v; v itself as previous body if its own record is gone
//! tombstone t  + entry              - t        t
//! delete of v  - entry              + grave    v; v itself as previous body if its own record is gone
//! ```
//!
//! **Runs.** The run of a large value is shared, not copied, and held by at most two at a time; who goes last frees it:
//!
//! | what happens to version v | who holds its run before | and after |
//! |---|---|---|
//! | v is put | - | its entry in `Keys`, its record |
//! | compaction drops the record while v is live | entry, record | entry |
//! | v is put over, or deleted, its record there | entry, record | record |
//! | the same, its record gone | entry | the next record, as previous body |
//! | compaction drops a record that is not live | that record | nobody: its value's run is freed, and its previous body's |
//!
//! A key too long for its record stands in a run of that record alone.

use super::apply::{Mvcc, Scratch};
use super::cell::{
    Body, Entry, Fields, Grave, INLINE_BYTES_MAX, KEY_IN_RECORD_MAX, Read, Record, RecordKey,
    bytes_in_record, goes_to_run, revision_key,
};
use super::history::tombstone;
use super::lease::attachment_key;
use super::record::{Event, EventKind, KeyValue};
use super::revision::{KeyRange, Revision};
use super::spine::Link;
use super::told::Told;
use super::view::View;
use crate::btree::{self, Action};
use crate::command::{DeleteRangeReply, DeleteRangeRequest, PutReply, PutRequest};
use crate::error::{ReadError, Refusal};
use crate::pager::page::{RunRef, TreeId};
use crate::pager::root::Standing;
use crate::pager::{Paged, Pages, PagesMut};
use bytes::Bytes;
use std::sync::Arc;

/// Values up to this size are copied for their event: a slice of a receive buffer would keep all of the buffer alive.
/// Larger ones are most of their buffer and are shared.
const COPIED_VALUE_BYTES_MAX: usize = 4096;

/// One command changing keys.
pub(super) struct Writer<'a, P> {
    pub(super) mvcc: &'a mut Mvcc<P>,
    /// The current revision before the command.
    begin: i64,
    /// Changes so far.
    changes: i64,
}

/// What a change was made over; its bytes are in the scratch.
#[derive(Clone, Copy)]
enum Over {
    Nothing,
    Live(Revision),
    Dead(Revision),
}

/// Whether the record of a version that is live now is gone.
///
/// A version newest since it was made, at revision v, has its record until the walk of compaction passes it (as nobody's
/// previous version it goes in no other way), and the walk drops it if v.main is below the revision c it walks to then.
/// The walk stands at `next`. Versions below `next` have been passed: by the walk to `compacted`, or by one before, which
/// began where the one before it ended. If v.main < `compacted` and v < `next`, the last pass of v was by a walk to some
/// c > v.main: had it been one to c = v.main, the walk would have been set back to (c, 0) at the next compaction, and `next`
/// would have been above v again only after another pass. If v.main >= `compacted`, no walk yet went to a c > v.main. So the
/// rule asks only for these two numbers, and no record need be looked for.
pub(super) fn is_record_gone(standing: &Standing, revision: Revision) -> bool {
    revision < standing.compaction_next && revision.main < standing.compacted
}

impl<P: PagesMut> Mvcc<P> {
    pub(super) fn writer(&mut self) -> Writer<'_, P> {
        Writer { begin: self.standing.revision, changes: 0, mvcc: self }
    }

    pub(super) fn put(&mut self, put: &PutRequest) -> Result<PutReply, ReadError> {
        self.view().check_put(put)?;
        let mut writer = self.writer();
        let reply = writer.put(put)?;
        writer.finish();
        Ok(reply)
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> Paged<DeleteRangeReply> {
        let mut writer = self.writer();
        let reply = writer.delete_range(delete)?;
        writer.finish();
        Ok(reply)
    }
}

impl<P: Pages> View<'_, P> {
    /// Whether a put may go ahead, by the state before its command.
    pub(super) fn check_put(&self, put: &PutRequest) -> Result<(), ReadError> {
        if put.lease != 0 && self.lease_times(put.lease)?.is_none() {
            return Err(Refusal::LeaseNotFound.into());
        }
        if (put.ignore_value || put.ignore_lease) && self.entry(&put.key)?.is_none() {
            return Err(Refusal::KeyNotFound.into());
        }
        Ok(())
    }

    /// The newest key-values of a range, by key. Without `values`, large ones are left out.
    fn live_in(&self, range: &KeyRange, values: bool) -> Paged<Vec<Arc<KeyValue>>> {
        let key_value = |key: &[u8], body: Body<'_>| {
            let body = if values { body } else { Body { run: None, ..body } };
            self.key_value(key, &body).map(Arc::new)
        };
        if range.is_single() {
            let entry = self.entry(&range.key)?;
            let kv = entry.map(|entry| key_value(&range.key, entry.body)).transpose()?;
            return Ok(kv.into_iter().collect());
        }
        let mut keys = self.walk(range, false)?;
        let mut live = Vec::new();
        while let Some((key, newest)) = keys.next()? {
            if let super::view::Newest::Live(entry) = newest {
                live.push(key_value(&key, entry.body)?);
            }
        }
        Ok(live)
    }
}

impl<P: PagesMut> Writer<'_, P> {
    /// The revision reads within the command are at: one more once it has changed something.
    pub(super) fn revision(&self) -> i64 {
        self.begin + i64::from(self.changes > 0)
    }

    /// The state as the command has changed it so far.
    pub(super) fn view(&self) -> View<'_, P> {
        View { current: self.revision(), ..self.mvcc.view() }
    }

    fn next_revision(&mut self) -> Revision {
        let revision = Revision { main: self.begin + 1, sub: self.changes };
        self.changes += 1;
        revision
    }

    /// Makes the command's revision the current one, if it changed anything.
    pub(super) fn finish(self) {
        self.mvcc.standing.revision = self.revision();
    }

    /// Writes one key. `ignore_value` and `ignore_lease` keep what the key has now; should it have gone within this very
    /// command (which the door refuses), there is nothing to keep.
    pub(super) fn put(&mut self, put: &PutRequest) -> Paged<PutReply> {
        let (key, value, lease) = self.asked(put)?;
        let revision = self.next_revision();
        let mvcc = &mut *self.mvcc;
        let run = goes_to_run(key.len(), value.len()).then(|| mvcc.pages.new_run(TreeId::Keys, &value));
        let asked = Fields { value: if run.is_some() { &[] } else { &value }, lease, ..Fields::default() };
        let (over, link) = mvcc.write_entry(&key, revision, asked, run)?;
        mvcc.write_record(&key, revision, over, link, false)?;
        self.tell_put(put, over, key, value)
    }

    /// Key, value and lease of a put, with bytes that keep nothing alive but those of the same batch.
    fn asked(&mut self, put: &PutRequest) -> Paged<(Bytes, Bytes, i64)> {
        let mut told = std::mem::take(&mut self.mvcc.told);
        let asked = self.asked_by(put, &mut told);
        self.mvcc.told = told;
        asked
    }

    fn asked_by(&self, put: &PutRequest, told: &mut Told) -> Paged<(Bytes, Bytes, i64)> {
        let view = self.view();
        let kept = if put.ignore_value || put.ignore_lease { view.entry(&put.key)? } else { None };
        let mut lease = put.lease;
        if put.ignore_lease {
            lease = match &kept {
                Some(entry) => view.read(TreeId::Keys, entry.body.fields())?.lease,
                None => 0,
            };
        }
        let (key, value) = match &kept {
            Some(entry) if put.ignore_value => {
                (Bytes::copy_from_slice(&put.key), Bytes::from(view.value(&entry.body)?.into_owned()))
            }
            None if put.ignore_value => (Bytes::copy_from_slice(&put.key), Bytes::new()),
            _ if put.value.len() <= COPIED_VALUE_BYTES_MAX => (told.copy(&put.key), told.copy(&put.value)),
            _ => (Bytes::copy_from_slice(&put.key), put.value.clone()),
        };
        Ok((key, value, lease))
    }

    /// The event and the answer of a put just made, whose entry and the one before are in the scratch.
    fn tell_put(&mut self, put: &PutRequest, over: Over, key: Bytes, value: Bytes) -> Paged<PutReply> {
        let mut told = std::mem::take(&mut self.mvcc.told);
        let view = self.view();
        let scratch = &self.mvcc.scratch;
        let entry = view.read(TreeId::Keys, Entry::read(&scratch.entry))?;
        let fields = view.read(TreeId::Keys, entry.body.fields())?;
        let Fields { create_revision, mod_revision, version, lease, .. } = fields;
        let kv = Arc::new(KeyValue { key, create_revision, mod_revision, version, value, lease });
        let mut before = None;
        let mut lease_before = 0;
        if let Over::Live(_) = over {
            let old = view.read(TreeId::Keys, Entry::read(&scratch.before))?;
            lease_before = view.read(TreeId::Keys, old.body.fields())?.lease;
            if put.prev_kv || self.mvcc.tells {
                before = Some(Arc::new(view.key_value_by(&kv.key, &old.body, |value| told.copy(value))?));
            }
        }
        self.mvcc.told = told;
        self.move_lease(&kv.key, lease_before, lease)?;
        if self.mvcc.tells {
            let prev_kv = self.before_command(over, before.as_ref(), &kv.key)?;
            self.mvcc.events.push(Event { kind: EventKind::Put, kv, prev_kv });
        }
        Ok(PutReply { prev_kv: before.filter(|_| put.prev_kv) })
    }

    /// What the key was before the command, not before an earlier change within it.
    fn before_command(
        &self,
        over: Over,
        before: Option<&Arc<KeyValue>>,
        key: &Bytes,
    ) -> Paged<Option<Arc<KeyValue>>> {
        match over {
            Over::Live(revision) if revision.main <= self.begin => Ok(before.map(Arc::clone)),
            Over::Dead(revision) if revision.main <= self.begin => Ok(None),
            Over::Nothing => Ok(None),
            Over::Live(_) | Over::Dead(_) => {
                let view = self.view();
                let body = view.live_at(key, self.begin)?;
                Ok(body.map(|body| view.key_value_of(key, &body)).transpose()?.map(Arc::new))
            }
        }
    }

    /// Deletes every key of a range that is there.
    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> Paged<DeleteRangeReply> {
        let doomed = self.view().live_in(&delete.range, delete.prev_kv || self.mvcc.tells)?;
        for kv in &doomed {
            self.delete(kv)?;
        }
        let deleted = doomed.len() as i64;
        Ok(DeleteRangeReply { deleted, prev_kvs: if delete.prev_kv { doomed } else { Vec::new() } })
    }

    /// Deletes a key that is attached to a lease.
    pub(super) fn delete_attached(&mut self, key: &Bytes) -> Paged<()> {
        for kv in self.view().live_in(&KeyRange::single(key.clone()), self.mvcc.tells)? {
            self.delete(&kv)?;
        }
        Ok(())
    }

    /// Deletes one key, whose present version is `live`.
    fn delete(&mut self, live: &Arc<KeyValue>) -> Paged<()> {
        let revision = self.next_revision();
        let key = &live.key;
        let mvcc = &mut *self.mvcc;
        let (over, link) = mvcc.bury(key, revision)?;
        mvcc.write_record(key, revision, over, link, true)?;
        self.move_lease(key, live.lease, 0)?;
        if self.mvcc.tells {
            let prev_kv = self.before_command(over, Some(live), key)?;
            let kv = Arc::new(tombstone(key.clone(), revision.main));
            self.mvcc.events.push(Event { kind: EventKind::Delete, kv, prev_kv });
        }
        Ok(())
    }

    fn move_lease(&mut self, key: &Bytes, from: i64, to: i64) -> Paged<()> {
        if from == to {
            return Ok(());
        }
        let mut attachment = std::mem::take(&mut self.mvcc.scratch.attachment);
        if from != 0 {
            attachment_key(from, key, &mut attachment);
            self.mvcc.remove(TreeId::LeaseKeys, &attachment)?;
        }
        if to != 0 {
            attachment_key(to, key, &mut attachment);
            self.mvcc.insert(TreeId::LeaseKeys, &attachment, &[])?;
        }
        self.mvcc.scratch.attachment = attachment;
        Ok(())
    }
}

impl<P: PagesMut> Mvcc<P> {
    /// Puts the entry of a key's new version, in one walk down the tree where the key is there; entry and what it replaced
    /// are in the scratch. `asked` has value and lease.
    fn write_entry(
        &mut self,
        key: &[u8],
        revision: Revision,
        asked: Fields<'_>,
        run: Option<RunRef>,
    ) -> Paged<(Over, Link)> {
        let standing = self.standing;
        let Scratch { entry: made, before, heads, .. } = &mut self.scratch;
        let first =
            Fields { create_revision: revision.main, mod_revision: revision.main, version: 1, ..asked };
        let root = &mut self.trees[TreeId::Keys.place()];
        let put = btree::upsert_with(&mut self.pages, TreeId::Keys, root, key, made, |old, out| {
            let Some(old) = old else {
                Entry::put(out, revision.sub, Link::FIRST.number, false, &[], &first, run.as_ref());
                return (Action::Put, Ok((Over::Nothing, Link::FIRST)));
            };
            before.clear();
            before.extend_from_slice(old);
            match next_entry(&standing, old, revision, asked, run.as_ref(), heads, out) {
                Ok((over, link)) => (Action::Put, Ok((over, link))),
                Err(malformed) => (Action::Keep, Err(malformed)),
            }
        })?;
        let (over, link) = self.view().read(TreeId::Keys, put)?;
        if matches!(over, Over::Nothing) && self.trees[TreeId::Deleted.place()].is_some() {
            return self.put_on_grave(key, revision, first, run);
        }
        Ok((over, link))
    }

    /// A new entry was put where a tombstone may stand: if so its chain goes on.
    fn put_on_grave(
        &mut self,
        key: &[u8],
        revision: Revision,
        first: Fields<'_>,
        run: Option<RunRef>,
    ) -> Paged<(Over, Link)> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut put = (Over::Nothing, Link::FIRST);
        if self.take(TreeId::Deleted, key, &mut scratch.before)? {
            let grave = self.view().read(TreeId::Deleted, Grave::read(&scratch.before))?;
            let link = self.view().read(TreeId::Deleted, grave.spine().push(revision, &mut scratch.heads))?;
            scratch.entry.clear();
            Entry::put(
                &mut scratch.entry,
                revision.sub,
                link.number,
                true,
                &scratch.heads,
                &first,
                run.as_ref(),
            );
            self.insert(TreeId::Keys, key, &scratch.entry)?;
            put = (Over::Dead(grave.revision), link);
        }
        self.scratch = scratch;
        Ok(put)
    }

    /// Takes a live key's entry out, into the scratch, and puts its tombstone among the deleted.
    fn bury(&mut self, key: &[u8], revision: Revision) -> Paged<(Over, Link)> {
        let mut scratch = std::mem::take(&mut self.scratch);
        if !self.take(TreeId::Keys, key, &mut scratch.before)? {
            return Err(self.view().fault(TreeId::Keys, "the key that is deleted", "none"));
        }
        let entry = self.view().read(TreeId::Keys, Entry::read(&scratch.before))?;
        let link = next_link(&self.standing, &entry, revision, &mut scratch.heads);
        let link = self.view().read(TreeId::Keys, link)?;
        scratch.entry.clear();
        Grave::put(&mut scratch.entry, revision, link.number, &scratch.heads);
        self.insert(TreeId::Deleted, key, &scratch.entry)?;
        let over = Over::Live(entry.revision);
        self.scratch = scratch;
        Ok((over, link))
    }

    /// Writes the record of a change whose entry, and the one it was made over, are in the scratch.
    fn write_record(
        &mut self,
        key: &[u8],
        revision: Revision,
        over: Over,
        link: Link,
        tombstone: bool,
    ) -> Paged<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Scratch { entry, before, record, moved, .. } = &mut scratch;
        let body = if tombstone {
            Body { bytes: &[], run: None }
        } else {
            self.view().read(TreeId::Keys, Entry::read(entry))?.body
        };
        let (previous, previous_body) = match over {
            Over::Nothing => (None, None),
            Over::Dead(revision) => (Some(revision), None),
            Over::Live(revision) if is_record_gone(&self.standing, revision) => {
                let old = self.view().read(TreeId::Keys, Entry::read(before))?.body;
                (
                    Some(revision),
                    Some(self.fitting(old, bytes_in_record(key.len()) + body.bytes.len(), moved)?),
                )
            }
            Over::Live(revision) => (Some(revision), None),
        };
        let key = if key.len() <= KEY_IN_RECORD_MAX {
            RecordKey::Inline(key)
        } else {
            RecordKey::Run(self.pages.new_run(TreeId::Revisions, key))
        };
        record.clear();
        Record { revision, tombstone, previous, skip: link.skip, key, previous_body, body }.put(record);
        self.insert(TreeId::Revisions, &revision_key(revision), record)?;
        self.scratch = scratch;
        Ok(())
    }

    /// A previous body as it fits beside `others` bytes: its value moves to a run where it does not.
    fn fitting<'b>(&mut self, body: Body<'b>, others: usize, moved: &'b mut Vec<u8>) -> Paged<Body<'b>> {
        if body.run.is_some() || others + body.bytes.len() <= INLINE_BYTES_MAX {
            return Ok(body);
        }
        let fields = self.view().read(TreeId::Keys, body.fields())?;
        if fields.value.is_empty() {
            return Ok(body);
        }
        let run = self.pages.new_run(TreeId::Keys, fields.value);
        moved.clear();
        Fields { value: &[], ..fields }.put(moved);
        Ok(Body { bytes: moved, run: Some(run) })
    }
}

/// The entry after `old`.
fn next_entry(
    standing: &Standing,
    old: &[u8],
    revision: Revision,
    asked: Fields<'_>,
    run: Option<&RunRef>,
    heads: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Read<(Over, Link)> {
    let entry = Entry::read(old)?;
    let fields = entry.body.fields()?;
    let link = next_link(standing, &entry, revision, heads)?;
    let (create_revision, version) = (fields.create_revision, fields.version + 1);
    let fields = Fields { create_revision, mod_revision: revision.main, version, ..asked };
    Entry::put(out, revision.sub, link.number, true, heads, &fields, run);
    Ok((Over::Live(entry.revision), link))
}

/// The link of the version after a live one. Where that one's record is gone nothing older can be asked for.
fn next_link(standing: &Standing, entry: &Entry<'_>, revision: Revision, heads: &mut Vec<u8>) -> Read<Link> {
    if is_record_gone(standing, entry.revision) {
        heads.clear();
        return Ok(Link::FIRST);
    }
    entry.spine().push(revision, heads)
}
