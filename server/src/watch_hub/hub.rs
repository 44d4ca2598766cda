//! The hub itself.

use super::NO_WATCH_ID;
use super::arena::{Arena, Key};
use super::interval::Index;
use super::message::{Body, Message, fragments};
use super::stream::{State, Stream, Watcher};
use bytes::Bytes;
use coffer_engine::Micros;
use coffer_engine::error::ReadError;
use coffer_engine::mvcc::{Event, KeyRange};
use coffer_engine::store::{Position, StoreReader};
use coffer_engine::watch::{EventBatch, HistoryPage};
use std::collections::{BTreeSet, VecDeque};

/// Encodes an event as the field of a WatchResponse, with or without the version before.
pub type Encode = fn(&Event, bool) -> Bytes;

/// Bytes of events after which one response ends at the next revision: large enough to fill a socket, small enough
/// that other streams get their turn.
const RESPONSE_BYTES_SOFT: usize = 1 << 20;

/// Records looked at that cost a step as much as an event.
const RECORDS_PER_EVENT: usize = 16;

/// What bounds a hub.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of undelivered responses of one stream; whoever is behind then reads history.
    pub stream_bytes_max: usize,
    /// Undelivered responses of one stream.
    pub stream_messages_max: usize,
    /// Watchers of one stream; more are refused.
    pub watchers_per_stream_max: usize,
    /// Events read from history for one watcher at once (etcd: 1,000 revisions).
    pub page_events_max: usize,
    /// Size from which a response is cut into fragments, for watchers that asked for it.
    pub fragment_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            stream_bytes_max: 16 << 20,
            stream_messages_max: 1024,
            watchers_per_stream_max: 1 << 20,
            page_events_max: 1000,
            fragment_bytes: 2 << 20,
        }
    }
}

/// A request for a watcher; key and range end in etcd's notation.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Which keys; an empty key is the lowest one.
    pub range: KeyRange,
    /// From which revision, 0 for from now on.
    pub start_revision: i64,
    /// Tell progress when idle.
    pub progress_notify: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Tell the version before, too.
    pub prev_kv: bool,
    /// The id asked for, 0 for any.
    pub watch_id: i64,
    /// Large responses may be cut.
    pub fragment: bool,
}

/// The published store, as far as watchers need it.
pub trait History {
    /// Where it stands.
    fn position(&self) -> Position;

    /// See [`StoreReader::history`].
    ///
    /// # Errors
    /// Refused when `from` is below the compaction revision; a fault.
    fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, ReadError>;
}

impl History for StoreReader {
    fn position(&self) -> Position {
        StoreReader::position(self)
    }

    fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, ReadError> {
        StoreReader::history(self, range, from, events_max)
    }
}

/// What a step left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Watchers wait for their turn: step again soon.
    pub more: bool,
    /// When the next progress tick is due.
    pub next_tick: Option<Micros>,
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Streams.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// Those that are behind or blocked.
    pub slow: usize,
    /// Events in queues.
    pub queued_events: usize,
    /// Events handed to streams so far.
    pub sent_events: u64,
}

/// The watchers of one serving thread.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    encode: Encode,
    /// Every event up to here was looked at.
    revision: i64,
    streams: Arena<Stream>,
    watchers: Arena<Watcher>,
    /// The synced watchers.
    index: Index<Key>,
    /// Those whose turn comes, in this order; may name some that are gone.
    behind: VecDeque<Key>,
    ticks: BTreeSet<(Micros, Key)>,
    /// Streams with a progress request that waits.
    asked: Vec<Key>,
    to_wake: Vec<Key>,
    slow: usize,
    queued_events: usize,
    sent_events: u64,
}

/// An event's encodings, made when first wanted.
#[derive(Default)]
struct Encoded {
    plain: Option<Bytes>,
    with_prev: Option<Bytes>,
}

impl Encoded {
    fn get(&mut self, event: &Event, prev_kv: bool, encode: Encode) -> Bytes {
        // Without a version before both forms are the same bytes.
        let with_prev = prev_kv && event.prev_kv.is_some();
        let place = if with_prev { &mut self.with_prev } else { &mut self.plain };
        place.get_or_insert_with(|| encode(event, with_prev)).clone()
    }
}

impl Hub {
    /// A hub that has seen every event up to `revision`.
    pub fn new(limits: Limits, encode: Encode, revision: i64) -> Hub {
        Hub {
            limits,
            encode,
            revision,
            streams: Arena::default(),
            watchers: Arena::default(),
            index: Index::default(),
            behind: VecDeque::new(),
            ticks: BTreeSet::new(),
            asked: Vec::new(),
            to_wake: Vec::new(),
            slow: 0,
            queued_events: 0,
            sent_events: 0,
        }
    }

    /// Without a stream no events came; those up to `revision`, which is published, need not be looked at any more: whoever
    /// watches from earlier on reads history.
    pub fn begin_at(&mut self, revision: i64) {
        debug_assert!(self.streams.len() == 0 && self.watchers.len() == 0, "somebody watches");
        self.revision = self.revision.max(revision);
    }

    /// Opens a stream whose idle watchers are told progress every `progress_every`.
    pub fn open(&mut self, now: Micros, progress_every: Micros) -> Key {
        self.streams.insert(Stream::new(now, progress_every))
    }

    /// Forgets a stream and its watchers.
    pub fn close(&mut self, key: Key) {
        let Some(stream) = self.streams.remove(key) else { return };
        self.queued_events -= stream.queue.iter().map(Message::events).sum::<usize>();
        if let Some(tick) = stream.tick {
            self.ticks.remove(&(tick, key));
        }
        for watcher in stream.watchers.into_values() {
            self.drop_watcher(watcher);
        }
    }

    /// Whether no more requests should be read from this stream's client for now.
    pub fn is_full(&self, key: Key) -> bool {
        self.streams.get(key).is_some_and(|stream| stream.is_full(&self.limits))
    }

    /// The next message to send.
    pub fn take(&mut self, key: Key) -> Option<Message> {
        let stream = self.streams.get_mut(key)?;
        let message = stream.pop()?;
        let events = message.events();
        self.queued_events -= events;
        self.sent_events += events as u64;
        if !stream.blocked.is_empty() && stream.has_room(&self.limits) {
            for blocked in std::mem::take(&mut stream.blocked) {
                if let Some(watcher) = self.watchers.get_mut(blocked)
                    && watcher.state == State::Blocked
                {
                    watcher.state = State::Behind;
                    self.behind.push_back(blocked);
                }
            }
        }
        Some(message)
    }

    /// Whether a step would read history.
    pub fn has_work(&self) -> bool {
        !self.behind.is_empty()
    }

    /// When the next progress tick is due.
    pub fn next_tick(&self) -> Option<Micros> {
        self.ticks.first().map(|(at, _)| *at)
    }

    /// The streams that have got messages since this was asked last.
    pub fn drain_woken(&mut self, mut wake: impl FnMut(Key)) {
        for key in self.to_wake.drain(..) {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.to_wake = false;
                wake(key);
            }
        }
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            slow: self.slow,
            queued_events: self.queued_events,
            sent_events: self.sent_events,
        }
    }

    /// Makes a watcher; all that there is to say goes into the stream's queue.
    pub fn create(&mut self, stream: Key, create: Create, now: Micros, history: &dyn History) {
        let current = history.position().revision;
        match self.try_create(stream, create, now, current) {
            Ok(watch_id) => self.send(stream, Message { watch_id, revision: current, body: Body::Created }),
            Err(reason) => {
                let body = Body::Refused(reason);
                self.send(stream, Message { watch_id: NO_WATCH_ID, revision: current, body });
            }
        }
    }

    /// Batches were lost on their way: every watcher that was caught up reads history from where the hub stood.
    pub fn lose_touch(&mut self, history: &dyn History) {
        let unseen = self.revision + 1;
        self.revision = self.revision.max(history.position().revision);
        let synced = std::mem::take(&mut self.index);
        synced.for_each(|key| {
            let Some(watcher) = self.watchers.get_mut(key) else { return };
            watcher.next = watcher.next.max(unseen);
            watcher.state = State::Behind;
            self.slow += 1;
            self.behind.push_back(key);
        });
    }

    fn try_create(
        &mut self,
        key: Key,
        create: Create,
        now: Micros,
        current: i64,
    ) -> Result<i64, &'static str> {
        let mut range = create.range;
        if range.key.is_empty() {
            range.key = Bytes::from_static(&[0]);
        }
        if create.start_revision < 0 {
            return Err("etcdserver: mvcc: required revision has been compacted");
        }
        if range.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        let Some(stream) = self.streams.get_mut(key) else { return Err("etcdserver: watch canceled") };
        if stream.watchers.len() >= self.limits.watchers_per_stream_max {
            return Err("etcdserver: too many watchers on the stream");
        }
        let id =
            stream.pick_id(create.watch_id).ok_or("mvcc: duplicate watch ID provided on the WatchStream")?;
        let synced = create.start_revision == 0 || create.start_revision > current;
        let watcher = self.watchers.insert(Watcher {
            stream: key,
            id,
            range: range.clone(),
            state: if synced { State::Synced } else { State::Behind },
            next: if synced { create.start_revision.max(current + 1) } else { create.start_revision },
            start: create.start_revision,
            no_put: create.no_put,
            no_delete: create.no_delete,
            prev_kv: create.prev_kv,
            fragment: create.fragment,
            progress: create.progress_notify.then_some(true),
            page_events: self.limits.page_events_max.max(1),
            wanted: Vec::new(),
        });
        stream.watchers.insert(id, watcher);
        if create.progress_notify && stream.tick.is_none() {
            let tick = stream.tick_after(now);
            stream.tick = Some(tick);
            self.ticks.insert((tick, key));
        }
        if synced {
            self.index.insert(&range, watcher);
        } else {
            self.slow += 1;
            self.behind.push_back(watcher);
        }
        Ok(id)
    }

    /// Cancels a watcher; an unknown id is met with silence.
    pub fn cancel(&mut self, key: Key, watch_id: i64, history: &dyn History) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(watcher) = stream.watchers.remove(&watch_id) else { return };
        self.drop_watcher(watcher);
        let revision = history.position().revision;
        self.send(key, Message { watch_id, revision, body: Body::Canceled });
    }

    /// Asks for progress of all the stream's watchers: told once, or met with silence unless all are caught up.
    pub fn request_progress(&mut self, key: Key) {
        self.tell_progress(key);
    }

    fn tell_progress(&mut self, key: Key) {
        let revision = self.revision;
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.progress_asked = false;
        let ready = |watcher: &Key| {
            self.watchers
                .get(*watcher)
                .is_some_and(|watcher| watcher.state == State::Synced && watcher.start <= revision)
        };
        if stream.watchers.is_empty() || !stream.watchers.values().all(ready) {
            return;
        }
        // A header already told more than what the hub has looked at: that batch is on its way, so wait for it.
        if stream.told > revision {
            stream.progress_asked = true;
            self.asked.push(key);
            return;
        }
        self.send(key, Message { watch_id: NO_WATCH_ID, revision, body: Body::Progress });
    }

    /// Takes a published batch: whoever is caught up and wants its events gets them.
    pub fn publish(&mut self, batch: &EventBatch) {
        if batch.revision <= self.revision {
            return;
        }
        let mut encoded: Vec<Encoded> = Vec::new();
        encoded.resize_with(batch.events.len(), Encoded::default);
        for key in self.match_watchers(batch) {
            self.deliver_live(key, batch, &mut encoded);
        }
        self.revision = batch.revision;
        for key in std::mem::take(&mut self.asked) {
            if self.streams.get(key).is_some_and(|stream| stream.progress_asked) {
                self.tell_progress(key);
            }
        }
    }

    /// The synced watchers that want something of the batch; what, stands in their `wanted`.
    fn match_watchers(&mut self, batch: &EventBatch) -> Vec<Key> {
        let mut touched = Vec::new();
        let (index, watchers) = (&self.index, &mut self.watchers);
        for (place, event) in (0u32..).zip(&batch.events) {
            index.matches(&event.kv.key, |key| {
                let Some(watcher) = watchers.get_mut(key) else { return };
                if event.kv.mod_revision < watcher.next || !watcher.wants(event.kind) {
                    return;
                }
                if watcher.wanted.is_empty() {
                    touched.push(key);
                }
                watcher.wanted.push(place);
            });
        }
        touched
    }

    fn deliver_live(&mut self, key: Key, batch: &EventBatch, encoded: &mut [Encoded]) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let wanted = std::mem::take(&mut watcher.wanted);
        let encode = self.encode;
        let prev_kv = watcher.prev_kv;
        let events = wanted.iter().filter_map(|place| {
            let place = *place as usize;
            let (event, encoded) = (batch.events.get(place)?, encoded.get_mut(place)?);
            Some((event.kv.mod_revision, encoded.get(event, prev_kv, encode)))
        });
        let rest = self.deliver(key, events, None);
        if let Some(watcher) = self.watchers.get_mut(key) {
            if let Some(revision) = rest {
                watcher.next = revision;
                watcher.state = State::Blocked;
                self.slow += 1;
                let (range, stream) = (watcher.range.clone(), watcher.stream);
                self.index.remove(&range, key);
                self.block(stream, key);
            } else {
                watcher.next = watcher.next.max(batch.revision + 1);
                let mut wanted = wanted;
                wanted.clear();
                watcher.wanted = wanted;
            }
        }
    }

    /// Puts events into the queue, whole revisions in responses of a bounded size; the header tells `current`, or for
    /// live events and all but the last response the revision of the last event. The first revision that found no
    /// room, if any.
    fn deliver(
        &mut self,
        key: Key,
        events: impl Iterator<Item = (i64, Bytes)>,
        current: Option<i64>,
    ) -> Option<i64> {
        let mut events = events.peekable();
        // whoever takes fragments takes a longer response: it is cut where etcd would cut it
        let fragments = self.watchers.get(key).is_some_and(|watcher| watcher.fragment);
        let response_bytes = if fragments { 2 * self.limits.fragment_bytes } else { RESPONSE_BYTES_SOFT };
        let mut told = false;
        let mut rest = None;
        while let Some((first, _)) = events.peek() {
            let stream = self.watchers.get(key).map(|watcher| watcher.stream)?;
            if self.is_full(stream) {
                rest = Some(*first);
                break;
            }
            let mut response = Vec::new();
            let mut last = *first;
            let mut bytes = 0;
            while let Some((revision, event)) =
                events.next_if(|(revision, _)| *revision == last || bytes < response_bytes)
            {
                last = revision;
                bytes += event.len();
                response.push(event);
            }
            let header = if events.peek().is_none() { current.unwrap_or(last) } else { last };
            self.send_events(key, response, header);
            told = true;
        }
        if told
            && let Some(watcher) = self.watchers.get_mut(key)
            && watcher.progress.is_some()
        {
            watcher.progress = Some(false);
        }
        rest
    }

    fn send_events(&mut self, key: Key, events: Vec<Bytes>, revision: i64) {
        let Some(watcher) = self.watchers.get(key) else { return };
        let (stream, watch_id) = (watcher.stream, watcher.id);
        let parts =
            if watcher.fragment { fragments(events, self.limits.fragment_bytes) } else { vec![events] };
        let count = parts.len();
        for (number, events) in parts.into_iter().enumerate() {
            let body = Body::Events { events, fragment: number + 1 < count };
            self.send(stream, Message { watch_id, revision, body });
        }
    }

    fn send(&mut self, key: Key, message: Message) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        self.queued_events += message.events();
        stream.push(message);
        if !stream.to_wake {
            stream.to_wake = true;
            self.to_wake.push(key);
        }
    }

    fn block(&mut self, stream: Key, watcher: Key) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.blocked.push(watcher);
        }
    }

    fn drop_watcher(&mut self, key: Key) {
        let Some(watcher) = self.watchers.remove(key) else { return };
        match watcher.state {
            State::Synced => {
                self.index.remove(&watcher.range, key);
            }
            State::Behind | State::Blocked => self.slow -= 1,
            State::Dead => {}
        }
    }

    /// Tells progress that is due, then lets those who are behind read history in turn, about `budget` events in all; records that
    /// match nothing count, too.
    pub fn step(&mut self, now: Micros, budget: usize, history: &dyn History) -> Step {
        self.run_ticks(now);
        let mut left = budget.max(1);
        while left > 0
            && let Some(key) = self.behind.pop_front()
        {
            left = left.saturating_sub(1 + self.catch_up(key, left, history));
        }
        Step { more: self.has_work(), next_tick: self.next_tick() }
    }

    /// Lets one watcher read a page of history; what that cost, in events.
    fn catch_up(&mut self, key: Key, budget: usize, history: &dyn History) -> usize {
        let Some(watcher) = self.watchers.get_mut(key) else { return 0 };
        if watcher.state != State::Behind {
            return 0;
        }
        let stream = watcher.stream;
        if self.streams.get(stream).is_none_or(|stream| stream.is_full(&self.limits)) {
            watcher.state = State::Blocked;
            self.block(stream, key);
            return 0;
        }
        match history.history(&watcher.range, watcher.next, watcher.page_events.min(budget).max(1)) {
            Ok(page) => {
                let cost = page.events.len() + page.looked_at / RECORDS_PER_EVENT;
                self.deliver_page(key, page);
                cost
            }
            Err(ReadError::Refused(_)) => {
                self.kill(key, Body::Compacted(history.position().compacted));
                0
            }
            Err(ReadError::Fault(fault)) => {
                self.kill(key, Body::Failed(fault.to_string()));
                0
            }
        }
    }

    fn deliver_page(&mut self, key: Key, page: HistoryPage) {
        let Some(watcher) = self.watchers.get(key) else { return };
        let (encode, prev_kv) = (self.encode, watcher.prev_kv);
        let wanted: Vec<&Event> = page.events.iter().filter(|event| watcher.wants(event.kind)).collect();
        let caught_up = page.next > page.current;
        let header = caught_up.then_some(page.current);
        let mut sent = 0;
        let events = wanted.iter().map(|event| {
            sent += 1;
            let with_prev = prev_kv && event.prev_kv.is_some();
            (event.kv.mod_revision, encode(event, with_prev))
        });
        let rest = self.deliver(key, events, header);
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let most = self.limits.page_events_max.max(1);
        if let Some(revision) = rest {
            watcher.page_events = sent.clamp(1, most);
            watcher.next = revision;
            watcher.state = State::Blocked;
            let stream = watcher.stream;
            self.block(stream, key);
            return;
        }
        watcher.page_events = watcher.page_events.saturating_mul(2).min(most);
        watcher.next = page.next.max(watcher.next);
        if !caught_up {
            self.behind.push_back(key);
            return;
        }
        watcher.state = State::Synced;
        self.slow -= 1;
        let range = watcher.range.clone();
        self.index.insert(&range, key);
    }

    /// Ends a watcher whose next revision is gone or cannot be read, saying so. Its id stays taken, as with etcd.
    fn kill(&mut self, key: Key, body: Body) {
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        watcher.state = State::Dead;
        self.slow -= 1;
        let (stream, watch_id) = (watcher.stream, watcher.id);
        self.send(stream, Message { watch_id, revision: 0, body });
    }

    fn run_ticks(&mut self, now: Micros) {
        while let Some((at, key)) = self.ticks.first().copied()
            && at <= now
        {
            self.ticks.remove(&(at, key));
            self.tick(key, now);
        }
    }

    /// One progress tick of a stream: each watcher that asked, is caught up and has been idle since the last tick.
    fn tick(&mut self, key: Key, now: Micros) {
        let revision = self.revision;
        let Some(stream) = self.streams.get_mut(key) else { return };
        let (mut told, mut any) = (Vec::new(), false);
        for watcher in stream.watchers.values() {
            let Some(watcher) = self.watchers.get_mut(*watcher) else { continue };
            let Some(due) = watcher.progress.replace(true) else {
                watcher.progress = None;
                continue;
            };
            any = true;
            let seen_all =
                watcher.next <= revision + 1 && watcher.start <= revision && stream.told <= revision;
            if due && watcher.state == State::Synced && seen_all {
                told.push(watcher.id);
            }
        }
        stream.tick = any.then(|| stream.tick_after(now));
        if let Some(tick) = stream.tick {
            self.ticks.insert((tick, key));
        }
        if stream.is_full(&self.limits) {
            return;
        }
        for watch_id in told {
            self.send(key, Message { watch_id, revision, body: Body::Progress });
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
