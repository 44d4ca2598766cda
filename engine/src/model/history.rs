//! Events for a watcher that is behind.

use super::Model;
use super::keys::Version;
use crate::error::Refusal;
use crate::mvcc::{Event, EventKind, KeyRange, Revision};
use crate::watch::HistoryPage;

/// Records looked at for one page, however few of them match, so that a reader never holds the store for long; a
/// revision that was begun is finished all the same.
pub const HISTORY_RECORDS_MAX: usize = 10_000;

impl Model {
    /// Events of `range` from revision `from` on: whole revisions, until about `events_max` are gathered or
    /// [`HISTORY_RECORDS_MAX`] records were looked at. `from` equal to the compaction revision still works: what
    /// compaction left standing there is told, without the value before.
    pub fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, Refusal> {
        if from < self.compacted {
            return Err(Refusal::Compacted);
        }
        let (next, current) = (from.max(self.revision + 1), self.revision);
        let mut page = HistoryPage { events: Vec::new(), next, current, looked_at: 0 };
        let mut last = from;
        let records = self.revisions.range(Revision { main: from, sub: 0 }..);
        for (revision, version) in records {
            let is_full = page.events.len() >= events_max.max(1) || page.looked_at >= HISTORY_RECORDS_MAX;
            if is_full && revision.main > last {
                page.next = revision.main;
                break;
            }
            last = revision.main;
            page.looked_at += 1;
            if range.contains(&version.kv.key) && self.is_visible(version) {
                page.events.push(self.event(version));
            }
        }
        Ok(page)
    }

    fn event(&self, version: &Version) -> Event {
        let before = version.revision.main - 1;
        let history = self.keys.get(&version.kv.key).filter(|_| before >= self.compacted);
        Event {
            kind: if version.tombstone { EventKind::Delete } else { EventKind::Put },
            kv: version.kv.clone(),
            prev_kv: history.and_then(|history| history.live_at(before)).cloned(),
        }
    }
}
