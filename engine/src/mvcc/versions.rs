//! The visible versions of a key, one after the other.

use super::cell::Body;
use super::revision::{KeyRange, Revision};
use super::view::{Newest, Seen, View};
use crate::pager::{Paged, Pages};
use bytes::Bytes;

/// Every key.
pub(super) fn everything() -> KeyRange {
    KeyRange { key: Bytes::new(), range_end: Bytes::from_static(b"\0") }
}

/// Whether a version at or below the compaction revision that is its key's newest there still counts.
pub(super) fn survives(compacted: i64, revision: Revision, tombstone: bool) -> bool {
    revision.main > compacted || !(tombstone && revision.main < compacted)
}

/// Goes over the visible versions of a key at or below a main revision, the newest first: those above the compaction
/// revision, and the newest at or below it unless that is a tombstone below it.
///
/// How far compaction has come with removing does not show in it, so one may stop after any version and go on from it in a
/// newer root, as long as nothing else was compacted.
pub(super) struct Versions<'p, P> {
    view: View<'p, P>,
    next: Option<Seen<'p>>,
    /// Nothing is before the next one.
    is_last: bool,
}

impl<'p, P: Pages> Versions<'p, P> {
    pub(super) fn of(view: View<'p, P>, newest: &Newest<'p>, main: i64) -> Paged<Versions<'p, P>> {
        let is_last = match newest {
            Newest::Live(entry) => !entry.has_previous,
            Newest::Dead(_) | Newest::Absent => false,
        };
        Ok(Versions { view, next: view.at(newest, main)?, is_last })
    }

    /// Goes on behind the version that was made at `revision`.
    pub(super) fn after(view: View<'p, P>, revision: Revision) -> Paged<Versions<'p, P>> {
        let mut versions = Versions { view, next: None, is_last: false };
        versions.next = versions.before(revision)?;
        Ok(versions)
    }

    pub(super) fn next(&mut self) -> Paged<Option<(Revision, Option<Body<'p>>)>> {
        let Some(Seen { revision, body }) = self.next.take() else { return Ok(None) };
        if !survives(self.view.standing.compacted, revision, body.is_none()) {
            return Ok(None);
        }
        if !self.is_last {
            self.next = self.before(revision)?;
        }
        Ok(Some((revision, body)))
    }

    fn before(&self, revision: Revision) -> Paged<Option<Seen<'p>>> {
        if revision.main <= self.view.standing.compacted {
            return Ok(None);
        }
        self.view.just_before(&self.view.kept_record(revision)?)
    }
}
