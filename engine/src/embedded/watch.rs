//! Watches: each event of a range once, in order, whole revisions.
//!
//! ```text
//!  publish ──> recent (the last batches, all watches share them) ──> a watch that keeps up
//!                  └── what drops out at the other end stays in the store's history ──> one that is behind
//! ```
//! A watch holds a revision and nothing else. So a slow one costs no memory and holds nobody back; a caller takes events
//! on its own thread when it asks for them.

use super::error::Error;
use super::reading::Reader;
use crate::mvcc::{Event, KeyRange, KeyValue};
use crate::watch::EventBatch;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the batches kept for watches that keep up, all watches together.
const RECENT_BYTES_MAX: usize = 4 << 20;
/// What an event costs beside its keys and values, in bytes.
const EVENT_OVERHEAD_BYTES: usize = 160;
/// Events read from history at once.
const HISTORY_EVENTS_MAX: usize = 1_000;

/// The last batches published.
///
/// They hold every event of the revisions from `from` to `revision`; their revisions ascend.
#[derive(Debug)]
pub(super) struct Recent {
    batches: VecDeque<(Arc<EventBatch>, usize)>,
    bytes: usize,
    from: i64,
    revision: i64,
}

/// What is there for a watch.
#[derive(Debug, PartialEq)]
enum Found {
    /// The batch with the first of its revisions.
    Batch(Arc<EventBatch>),
    /// It is behind: history has it.
    Behind,
    /// It has seen everything.
    Nothing,
}

impl Recent {
    /// Nothing yet, all revisions behind `revision` to come.
    pub(super) fn after(revision: i64) -> Recent {
        Recent { batches: VecDeque::new(), bytes: 0, from: revision + 1, revision }
    }

    /// Adds what was published, and drops the oldest batches beyond the bound.
    pub(super) fn push(&mut self, batch: Arc<EventBatch>) {
        debug_assert!(batch.revision > self.revision, "revisions ascend");
        let bytes = batch.events.iter().map(event_bytes).sum();
        self.revision = batch.revision;
        self.bytes += bytes;
        self.batches.push_back((batch, bytes));
        while self.bytes > RECENT_BYTES_MAX
            && let Some((oldest, bytes)) = self.batches.pop_front()
        {
            self.bytes -= bytes;
            self.from = oldest.revision + 1;
        }
    }

    fn find(&self, next: i64) -> Found {
        if next > self.revision {
            return Found::Nothing;
        }
        if next < self.from {
            return Found::Behind;
        }
        let place = self.batches.partition_point(|(batch, _)| batch.revision < next);
        self.batches.get(place).map_or(Found::Behind, |(batch, _)| Found::Batch(Arc::clone(batch)))
    }
}

fn event_bytes(event: &Event) -> usize {
    let of = |kv: &KeyValue| kv.key.len() + kv.value.len();
    EVENT_OVERHEAD_BYTES + of(&event.kv) + event.prev_kv.as_deref().map_or(0, of)
}

/// What a watch gives at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Every event up to and including this revision was given, with these: a new watch from the next one on goes on
    /// without a gap.
    pub revision: i64,
    /// The events in the order of their revisions (`kv.mod_revision`), whole revisions, at least one.
    pub events: Vec<Event>,
}

/// A watch over a range of keys: see [`Db::watch`](super::Db::watch).
///
/// As an iterator it blocks until there are events, ends when the database is closed, and ends after an error.
///
/// **At the end of the database** one that keeps up gets all events before it is told. One that is behind is told at once,
/// without the history that it lacks: that lies in the directory, which may be another database's by then.
/// [`Watch::next_revision`] says from where on a new watch goes on when it is opened again.
pub struct Watch {
    reader: Reader,
    range: KeyRange,
    /// The first revision not given yet.
    next: i64,
    ended: bool,
}

impl Watch {
    pub(super) fn new(reader: Reader, range: KeyRange, from: i64) -> Watch {
        Watch { reader, range, next: from, ended: false }
    }

    /// The first revision whose events were not given yet.
    pub fn next_revision(&self) -> i64 {
        self.next
    }

    /// The next events; `None` if there are none within `timeout` (none at all to look without waiting).
    ///
    /// # Errors
    /// [`Refusal::Compacted`](crate::error::Refusal::Compacted) if it is so far behind that what comes next is compacted;
    /// [`Error::Closed`] once the database is closed and all is given, or, to one that is behind, all that it will get;
    /// [`Error::Fault`].
    #[allow(clippy::disallowed_methods, reason = "a caller's thread waits here, no state machine")]
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Events>, Error> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// The next events, or `None` after `deadline` (no deadline: only with an error).
    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Option<Events>, Error> {
        loop {
            let events = match self.wait(deadline)? {
                None => return Ok(None),
                Some(Found::Batch(batch)) => self.events_of(&batch),
                Some(_) => self.read_history()?,
            };
            if !events.is_empty() {
                return Ok(Some(Events { revision: self.next - 1, events }));
            }
        }
    }

    /// Waits until something is there for this watch.
    fn wait(&self, deadline: Option<Instant>) -> Result<Option<Found>, Error> {
        let shared = self.reader.shared();
        let mut recent = shared.recent.lock();
        loop {
            match recent.find(self.next) {
                Found::Nothing => {}
                found => return Ok(Some(found)),
            }
            shared.check()?;
            let Some(deadline) = deadline else {
                shared.told.wait(&mut recent);
                continue;
            };
            if shared.told.wait_until(&mut recent, deadline).timed_out()
                && recent.find(self.next) == Found::Nothing
            {
                return Ok(None);
            }
        }
    }

    fn events_of(&mut self, batch: &EventBatch) -> Vec<Event> {
        let wanted =
            |event: &&Event| event.kv.mod_revision >= self.next && self.range.contains(&event.kv.key);
        let events = batch.events.iter().filter(wanted).cloned().collect();
        self.next = batch.revision + 1;
        events
    }

    fn read_history(&mut self) -> Result<Vec<Event>, Error> {
        let page = self.reader.begin()?.history(&self.range, self.next, HISTORY_EVENTS_MAX)?;
        self.next = page.next;
        Ok(page.events)
    }
}

impl Iterator for Watch {
    type Item = Result<Events, Error>;

    fn next(&mut self) -> Option<Result<Events, Error>> {
        if self.ended {
            return None;
        }
        match self.next_until(None) {
            Ok(events) => events.map(Ok),
            Err(error) => {
                self.ended = true;
                if matches!(error, Error::Closed) { None } else { Some(Err(error)) }
            }
        }
    }
}
