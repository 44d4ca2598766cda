//! Events for a watcher that is behind.

use super::cell::{Record, revision_key};
use super::record::{Event, EventKind, KeyValue};
use super::revision::{KeyRange, Revision};
use super::view::View;
use crate::error::{ReadError, Refusal};
use crate::pager::page::TreeId;
use crate::pager::{Paged, Pages};
use crate::watch::HistoryPage;
use bytes::Bytes;
use std::sync::Arc;

/// Records looked at for one page, however few of them match, so that a reader never holds the store for long; a
/// revision that was begun is finished all the same.
pub const HISTORY_RECORDS_MAX: usize = 10_000;

impl<'p, P: Pages> View<'p, P> {
    /// Events of `range` from revision `from` on: whole revisions, until about `events_max` are gathered or
    /// [`HISTORY_RECORDS_MAX`] records were looked at. `from` equal to the compaction revision still works: what
    /// compaction left standing there is told, without the value before.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] when `from` is below the compaction revision; a fault.
    pub fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, ReadError> {
        let standing = self.standing;
        if from < standing.compacted {
            return Err(Refusal::Compacted.into());
        }
        let (next, current) = (from.max(standing.revision + 1), standing.revision);
        let mut page = HistoryPage { events: Vec::new(), next, current, looked_at: 0 };
        let mut records = self.cursor(TreeId::Revisions);
        records.seek(&revision_key(Revision { main: from, sub: 0 }))?;
        let mut last = from;
        while let Some((at, value)) = records.next()? {
            let record = self.read(TreeId::Revisions, Record::read(&at, value))?;
            let main = record.revision.main;
            let is_full = page.events.len() >= events_max.max(1) || page.looked_at >= HISTORY_RECORDS_MAX;
            if is_full && main > last {
                page.next = main;
                break;
            }
            last = main;
            page.looked_at += 1;
            let key = self.record_key(&record)?;
            if range.contains(&key) && self.is_visible(&record, &key)? {
                page.events.push(self.event(&record, &key)?);
            }
        }
        Ok(page)
    }

    /// Whether a record at or above the compaction revision is one of what is visible.
    fn is_visible(&self, record: &Record<'p>, key: &[u8]) -> Paged<bool> {
        let standing = self.standing;
        // once the walk is done only such are left, and the rule need not be asked
        if record.revision.main > standing.compacted || standing.compaction_done == standing.compacted {
            return Ok(true);
        }
        let newest = self.at(&self.newest(key)?, standing.compacted)?;
        Ok(newest.is_some_and(|newest| newest.revision == record.revision))
    }

    fn event(&self, record: &Record<'p>, key: &[u8]) -> Paged<Event> {
        let main = record.revision.main;
        let (kind, kv) = if record.tombstone {
            (EventKind::Delete, tombstone(Bytes::copy_from_slice(key), main))
        } else {
            (EventKind::Put, self.key_value(key, &record.body)?)
        };
        let before = if main > self.standing.compacted { self.before(*record, main - 1)? } else { None };
        let prev_kv = match before.and_then(|seen| seen.body) {
            Some(body) => Some(Arc::new(self.key_value_of(&kv.key, &body)?)),
            None => None,
        };
        Ok(Event { kind, kv: Arc::new(kv), prev_kv })
    }
}

/// What the event of a delete tells of the key.
pub(super) fn tombstone(key: Bytes, main: i64) -> KeyValue {
    KeyValue { key, mod_revision: main, ..KeyValue::default() }
}
