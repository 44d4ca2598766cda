//! One client's stream: its watchers, its queue, its progress.

use super::arena::Key;
use super::hub::Limits;
use super::message::Message;
use coffer_engine::Micros;
use coffer_engine::mvcc::{EventKind, KeyRange};
use std::collections::{BTreeMap, VecDeque};

/// Where a watcher stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Gets its events as they are published.
    Synced,
    /// Waits for its turn to read history.
    Behind,
    /// Waits for room in its stream's queue, then reads history.
    Blocked,
    /// Ended by compaction or a fault; its id stays taken until the client cancels it.
    Dead,
}

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: Key,
    pub(super) id: i64,
    pub(super) range: KeyRange,
    pub(super) state: State,
    /// The lowest revision it has not seen.
    pub(super) next: i64,
    /// The start revision asked for.
    pub(super) start: i64,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    /// Asked for progress: whether the coming tick tells it.
    pub(super) progress: Option<bool>,
    /// Events to read at once; shrinks when they are large.
    pub(super) page_events: usize,
    /// Places, in the batch being published, of the events it wants.
    pub(super) wanted: Vec<u32>,
}

impl Watcher {
    pub(super) fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) watchers: BTreeMap<i64, Key>,
    pub(super) next_id: i64,
    pub(super) queue: VecDeque<Message>,
    pub(super) queued_bytes: usize,
    /// The highest revision a header of this stream told.
    pub(super) told: i64,
    /// A progress request waits for the hub's revision to reach `told`.
    pub(super) progress_asked: bool,
    pub(super) progress_every: Micros,
    /// The coming tick, if any watcher asked for progress.
    pub(super) tick: Option<Micros>,
    /// Counted from here, as etcd's ticker.
    pub(super) opened: Micros,
    /// Watchers that wait for room.
    pub(super) blocked: Vec<Key>,
    /// Already on the list of streams to wake.
    pub(super) to_wake: bool,
}

impl Stream {
    pub(super) fn new(now: Micros, progress_every: Micros) -> Stream {
        Stream {
            watchers: BTreeMap::new(),
            next_id: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            told: 0,
            progress_asked: false,
            progress_every: progress_every.max(1),
            tick: None,
            opened: now,
            blocked: Vec::new(),
            to_wake: false,
        }
    }

    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.queue.len() >= limits.stream_messages_max || self.queued_bytes >= limits.stream_bytes_max
    }

    /// Whether so much has drained that reading history again is worth the trouble.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.queue.len() <= limits.stream_messages_max / 2 && self.queued_bytes <= limits.stream_bytes_max / 2
    }

    pub(super) fn push(&mut self, message: Message) {
        self.told = self.told.max(message.revision);
        self.queued_bytes += message.held_bytes();
        self.queue.push_back(message);
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front()?;
        self.queued_bytes -= message.held_bytes();
        Some(message)
    }

    /// The id for a new watcher (etcd counts from 0 past those taken); `None` if the one asked for is taken.
    pub(super) fn pick_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return if self.watchers.contains_key(&asked) { None } else { Some(asked) };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    /// The first tick after `now`.
    pub(super) fn tick_after(&self, now: Micros) -> Micros {
        let passed = now.saturating_sub(self.opened) / self.progress_every;
        self.opened.saturating_add((passed + 1).saturating_mul(self.progress_every))
    }
}
