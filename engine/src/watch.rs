//! The events of one published batch, made once and shared by all watchers; and pages of history for those behind.

use crate::mvcc::{Event, KeyValue};

/// All events of the commands between two publishes, ordered by revision and sub-revision.
///
/// A revision's events are never spread over two batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// The store's current revision after the batch.
    pub revision: i64,
    /// The events; each one's main revision is its `kv.mod_revision`.
    pub events: Vec<Event>,
}

impl EventBatch {
    /// Bytes of keys and values that it keeps.
    pub fn bytes(&self) -> usize {
        let of = |kv: &KeyValue| kv.key.len() + kv.value.len();
        let of_event = |event: &Event| of(&event.kv) + event.prev_kv.as_ref().map_or(0, |before| of(before));
        self.events.iter().map(of_event).sum()
    }
}

/// A stretch of history for a watcher that is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Matching events in order; whole revisions only.
    pub events: Vec<Event>,
    /// The first revision not yet covered: where to go on.
    pub next: i64,
    /// The store's current revision when this was read; caught up when `next > current`.
    pub current: i64,
    /// Records that were read for it, whether they matched or not.
    pub looked_at: usize,
}
