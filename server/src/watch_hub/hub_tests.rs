//! The hub as a pure state machine: a small history, streams read by hand.

use super::*;
use crate::watch_hub::{Body, Message};
use coffer_engine::error::{Fault, Refusal};
use coffer_engine::mvcc::{EventKind, KeyValue};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `P<key>@<revision>` or `D...`, with `<` and the version before where that is wanted.
fn encode(event: &Event, prev_kv: bool) -> Bytes {
    let kind = if event.kind == EventKind::Put { 'P' } else { 'D' };
    let mut text = format!("{kind}{}@{}", String::from_utf8_lossy(&event.kv.key), event.kv.mod_revision);
    if prev_kv && let Some(prev) = &event.prev_kv {
        text.push_str(&format!("<{}", prev.mod_revision));
    }
    Bytes::from(text)
}

/// All that was written; what is published but not yet handed to the hub waits in `posts`.
struct World {
    hub: Hub,
    events: Vec<Event>,
    live: BTreeMap<Bytes, Arc<KeyValue>>,
    revision: i64,
    compacted: i64,
    posts: VecDeque<EventBatch>,
    now: Micros,
    /// Key whose history cannot be read.
    damaged: Option<&'static [u8]>,
    /// Records of history that were looked at.
    looked_at: Cell<usize>,
}

impl History for World {
    fn position(&self) -> Position {
        Position { revision: self.revision, compacted: self.compacted, ..Position::default() }
    }

    fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, ReadError> {
        if from < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        if self.damaged.is_some_and(|key| range.contains(key)) {
            return Err(Box::new(Fault::Stopped).into());
        }
        let (next, current) = (self.revision + 1, self.revision);
        let mut page = HistoryPage { events: Vec::new(), next, current, looked_at: 0 };
        for event in self.events.iter().filter(|event| event.kv.mod_revision >= from) {
            let last = page.events.last().map(|event: &Event| event.kv.mod_revision);
            if page.events.len() >= events_max && last != Some(event.kv.mod_revision) {
                page.next = event.kv.mod_revision;
                break;
            }
            page.looked_at += 1;
            if range.contains(&event.kv.key) {
                page.events.push(event.clone());
            }
        }
        self.looked_at.set(self.looked_at.get() + page.looked_at);
        Ok(page)
    }
}

impl World {
    fn new(limits: Limits) -> World {
        World {
            hub: Hub::new(limits, encode, 1),
            events: Vec::new(),
            live: BTreeMap::new(),
            revision: 1,
            compacted: -1,
            posts: VecDeque::new(),
            now: 0,
            damaged: None,
            looked_at: Cell::new(0),
        }
    }

    fn with_hub<T>(&mut self, f: impl FnOnce(&mut Hub, &World) -> T) -> T {
        let mut hub = std::mem::replace(&mut self.hub, Hub::new(Limits::default(), encode, 1));
        let result = f(&mut hub, self);
        self.hub = hub;
        result
    }

    /// One revision: `+k` puts, `-k` deletes.
    fn write(&mut self, ops: &[&str]) {
        self.revision += 1;
        let mut events = Vec::new();
        for op in ops {
            let key = Bytes::copy_from_slice(&op.as_bytes()[1..]);
            let prev_kv = self.live.get(&key).cloned();
            let mut kv = KeyValue { key: key.clone(), mod_revision: self.revision, ..KeyValue::default() };
            let kind = if op.starts_with('+') {
                kv.create_revision = prev_kv.as_ref().map_or(self.revision, |kv| kv.create_revision);
                self.live.insert(key, Arc::new(kv.clone()));
                EventKind::Put
            } else {
                self.live.remove(&key);
                EventKind::Delete
            };
            events.push(Event { kind, kv: Arc::new(kv), prev_kv });
        }
        self.events.extend(events.iter().cloned());
        self.posts.push_back(EventBatch { revision: self.revision, events });
    }

    /// Hands all posts but `leave` to the hub, as one batch.
    fn post(&mut self, leave: usize) {
        let mut batch = EventBatch::default();
        while self.posts.len() > leave {
            let post = self.posts.pop_front().unwrap();
            batch.revision = post.revision;
            batch.events.extend(post.events);
        }
        if batch.revision > 0 {
            self.hub.publish(&batch);
        }
    }

    fn put(&mut self, ops: &[&str]) {
        self.write(ops);
        self.post(0);
    }

    fn compact(&mut self, revision: i64) {
        self.compacted = revision;
        // What a compaction takes: all but the newest version at or below it, tombstones below it too.
        let mut newest: BTreeMap<Bytes, i64> = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.kv.mod_revision <= revision) {
            newest.insert(event.kv.key.clone(), event.kv.mod_revision);
        }
        self.events.retain(|event| {
            let at = event.kv.mod_revision;
            at >= revision || (newest.get(&event.kv.key) == Some(&at) && event.kind == EventKind::Put)
        });
    }

    fn open(&mut self) -> Key {
        self.hub.open(self.now, 1_000)
    }

    fn create(&mut self, stream: Key, create: Create) {
        let now = self.now;
        self.with_hub(|hub, world| hub.create(stream, create, now, world));
    }

    fn cancel(&mut self, stream: Key, id: i64) {
        self.with_hub(|hub, world| hub.cancel(stream, id, world));
    }

    fn step(&mut self, budget: usize) -> Step {
        let now = self.now;
        self.with_hub(|hub, world| hub.step(now, budget, world))
    }

    fn run(&mut self) {
        while self.step(1_000).more {}
    }

    /// All that the stream has to say, a line each.
    fn read(&mut self, stream: Key) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            self.run();
            let Some(message) = self.hub.take(stream) else { return lines };
            lines.push(line(&message));
        }
    }
}

fn line(message: &Message) -> String {
    let says = match &message.body {
        Body::Created => "created".to_owned(),
        Body::Refused(reason) => format!("refused: {reason}"),
        Body::Canceled => "canceled".to_owned(),
        Body::Compacted(revision) => format!("compacted {revision}"),
        Body::Progress => "progress".to_owned(),
        Body::Failed(fault) => format!("failed: {fault}"),
        Body::Events { events, fragment } => {
            let events: Vec<_> = events.iter().map(|event| String::from_utf8_lossy(event)).collect();
            format!("{}{}", events.join(" "), if *fragment { " ..." } else { "" })
        }
    };
    format!("{} r{} {says}", message.watch_id, message.revision)
}

fn all() -> KeyRange {
    KeyRange::new(vec![0], vec![0])
}

fn watch(range: KeyRange, start_revision: i64) -> Create {
    Create { range, start_revision, ..Create::default() }
}

#[test]
fn ids_count_from_zero_past_those_taken_and_a_taken_one_is_refused() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    for watch_id in [0, 1, 0, 7, 7] {
        world.create(stream, Create { watch_id, ..watch(all(), 0) });
    }
    assert_eq!(
        world.read(stream),
        [
            "0 r1 created",
            "1 r1 created",
            "2 r1 created",
            "7 r1 created",
            "-1 r1 refused: mvcc: duplicate watch ID provided on the WatchStream"
        ]
    );
}

#[test]
fn a_range_without_keys_and_a_negative_start_are_refused() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, watch(KeyRange::new("b", "a"), 0));
    world.create(stream, watch(KeyRange::new("b", "b"), 0));
    world.create(stream, watch(KeyRange::new("b", "a"), -1));
    assert_eq!(
        world.read(stream),
        [
            "-1 r1 refused: mvcc: watcher range is empty",
            "-1 r1 refused: mvcc: watcher range is empty",
            "-1 r1 refused: etcdserver: mvcc: required revision has been compacted"
        ]
    );
}

#[test]
fn too_many_watchers_on_one_stream_are_refused() {
    let mut world = World::new(Limits { watchers_per_stream_max: 1, ..Limits::default() });
    let stream = world.open();
    world.create(stream, watch(all(), 0));
    world.create(stream, watch(all(), 0));
    assert_eq!(world.read(stream)[1], "-1 r1 refused: etcdserver: too many watchers on the stream");
}

#[test]
fn live_events_carry_their_revision_and_history_the_current_one() {
    let mut world = World::new(Limits::default());
    world.put(&["+a"]);
    world.put(&["+a", "+b"]);
    world.put(&["+c"]);
    let stream = world.open();
    world.create(stream, watch(KeyRange::single("a"), 2));
    assert_eq!(world.read(stream), ["0 r4 created", "0 r4 Pa@2 Pa@3"]);
    world.put(&["+z"]);
    world.put(&["-a", "+b"]);
    assert_eq!(world.read(stream), ["0 r6 Da@6"]);
}

#[test]
fn an_empty_key_with_an_open_end_is_everything() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, watch(KeyRange::new("", vec![0]), 0));
    world.put(&["+\u{1}", "+zz"]);
    assert_eq!(world.read(stream), ["0 r1 created", "0 r2 P\u{1}@2 Pzz@2"]);
}

#[test]
fn a_start_in_the_future_is_silent_until_then_progress_included() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, Create { progress_notify: true, ..watch(all(), 4) });
    world.put(&["+a"]);
    world.hub.request_progress(stream);
    world.now = 1_000;
    assert_eq!(world.read(stream), ["0 r1 created"]);
    world.put(&["+b"]);
    world.put(&["+c"]);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["0 r4 Pc@4", "-1 r4 progress"]);
}

#[test]
fn a_hub_that_saw_no_events_begins_at_what_is_published() {
    let mut world = World::new(Limits::default());
    ["+a", "+b", "+c"].iter().for_each(|op| world.write(&[op]));
    // the last one was posted all the same, and comes late
    world.posts.drain(..2);
    world.hub.begin_at(world.revision);
    let stream = world.open();
    world.create(stream, watch(all(), 0));
    world.create(stream, watch(all(), 3));
    world.post(0);
    assert_eq!(world.read(stream), ["0 r4 created", "1 r4 created", "1 r4 Pb@3 Pc@4"]);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["-1 r4 progress"], "no event is waited for");
    world.put(&["+d"]);
    assert_eq!(world.read(stream), ["0 r5 Pd@5", "1 r5 Pd@5"]);
}

#[test]
fn filters_drop_kinds_and_nothing_is_sent_when_all_is_dropped() {
    let mut world = World::new(Limits::default());
    world.put(&["+a", "+b"]);
    world.put(&["-a"]);
    let stream = world.open();
    world.create(stream, Create { no_put: true, ..watch(all(), 1) });
    world.create(stream, Create { no_delete: true, ..watch(all(), 1) });
    world.create(stream, Create { no_put: true, no_delete: true, ..watch(all(), 1) });
    let mut seen = world.read(stream);
    seen.sort();
    assert_eq!(seen, ["0 r3 Da@3", "0 r3 created", "1 r3 Pa@2 Pb@2", "1 r3 created", "2 r3 created"]);
    world.put(&["-b"]);
    assert_eq!(world.read(stream), ["0 r4 Db@4"]);
}

#[test]
fn the_version_before_is_told_only_to_those_who_asked() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, watch(all(), 0));
    world.create(stream, Create { prev_kv: true, ..watch(all(), 0) });
    world.put(&["+a"]);
    world.put(&["+a"]);
    let mut seen = world.read(stream);
    seen.sort();
    assert_eq!(
        seen[..],
        ["0 r1 created", "0 r2 Pa@2", "0 r3 Pa@3", "1 r1 created", "1 r2 Pa@2", "1 r3 Pa@3<2"]
    );
}

#[test]
fn a_start_below_the_compaction_is_created_first_and_then_canceled() {
    let mut world = World::new(Limits::default());
    for _ in 0..5 {
        world.put(&["+a"]);
    }
    world.compact(4);
    let stream = world.open();
    world.create(stream, watch(all(), 3));
    world.create(stream, watch(all(), 4));
    assert_eq!(
        world.read(stream),
        ["0 r6 created", "1 r6 created", "0 r0 compacted 4", "1 r6 Pa@4 Pa@5 Pa@6"]
    );
    // Its id stays taken, it holds progress back, and canceling it is tolerated.
    world.hub.request_progress(stream);
    world.create(stream, Create { watch_id: 0, ..watch(all(), 0) });
    world.cancel(stream, 0);
    world.cancel(stream, 0);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["2 r6 created", "0 r6 canceled", "-1 r6 progress"]);
}

#[test]
fn history_that_cannot_be_read_fails_the_stream_that_wanted_it_and_no_other() {
    let mut world = World::new(Limits::default());
    world.put(&["+a", "+b"]);
    world.damaged = Some(b"a");
    let streams = [world.open(), world.open()];
    world.create(streams[0], watch(KeyRange::single("a"), 1));
    world.create(streams[1], watch(KeyRange::single("b"), 1));
    assert_eq!(world.read(streams[0]), ["0 r2 created", "0 r0 failed: stopped by an earlier fault"]);
    assert_eq!(world.read(streams[1]), ["0 r2 created", "0 r2 Pb@2"]);
    world.put(&["+a", "+b"]);
    assert_eq!(world.read(streams[0]), Vec::<String>::new(), "what failed tells nothing more");
    assert_eq!(world.read(streams[1]), ["0 r3 Pb@3"]);
    assert_eq!(world.hub.stats().slow, 0);
}

#[test]
fn a_canceled_watcher_is_silent_and_an_unknown_id_too() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, watch(all(), 0));
    world.cancel(stream, 0);
    world.cancel(stream, 5);
    world.put(&["+a"]);
    assert_eq!(world.read(stream), ["0 r1 created", "0 r1 canceled"]);
    assert_eq!(world.hub.stats().watchers, 0);
}

#[test]
fn progress_is_told_once_for_all_and_only_when_all_are_caught_up() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.hub.request_progress(stream);
    assert!(world.read(stream).is_empty(), "no watcher, no progress");
    world.put(&["+a"]);
    world.create(stream, watch(all(), 0));
    world.create(stream, watch(all(), 1));
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["0 r2 created", "1 r2 created", "1 r2 Pa@2"]);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["-1 r2 progress"]);
}

#[test]
fn progress_waits_for_a_batch_that_a_header_has_told_of_already() {
    let mut world = World::new(Limits::default());
    let (stream, other) = (world.open(), world.open());
    world.create(other, watch(all(), 0));
    world.write(&["+a"]);
    world.create(stream, watch(all(), 0));
    world.hub.request_progress(stream);
    world.hub.request_progress(other);
    assert_eq!(world.read(stream), ["0 r2 created"]);
    assert_eq!(world.read(other), ["0 r1 created", "-1 r1 progress"]);
    world.post(0);
    assert_eq!(world.read(stream), ["-1 r2 progress"]);
    assert_eq!(world.read(other), ["0 r2 Pa@2"]);
}

#[test]
fn an_idle_watcher_is_told_progress_at_each_tick_and_a_busy_one_skips_one() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, Create { progress_notify: true, ..watch(KeyRange::single("a"), 0) });
    world.create(stream, watch(all(), 0));
    world.now = 999;
    assert_eq!(world.read(stream), ["0 r1 created", "1 r1 created"]);
    world.now = 1_000;
    assert_eq!(world.read(stream), ["0 r1 progress"]);
    world.put(&["+a"]);
    world.now = 2_000;
    assert_eq!(world.read(stream).len(), 2, "events alone: the tick is skipped");
    world.put(&["+b"]);
    world.now = 3_000;
    assert_eq!(world.read(stream), ["1 r3 Pb@3", "0 r3 progress"]);
    assert_eq!(world.hub.next_tick(), Some(4_000));
    world.cancel(stream, 0);
    world.now = 4_000;
    assert_eq!(world.read(stream), ["0 r3 canceled"]);
    assert_eq!(world.hub.next_tick(), None, "nobody asks for ticks any more");
}

#[test]
fn fragments_are_cut_for_those_who_asked_and_all_but_the_last_are_marked() {
    let mut world = World::new(Limits { fragment_bytes: 96 + 9, ..Limits::default() });
    let stream = world.open();
    world.create(stream, Create { fragment: true, ..watch(all(), 0) });
    world.create(stream, watch(all(), 0));
    world.put(&["+a", "+b", "+c", "+d"]);
    let mut seen = world.read(stream);
    seen.sort();
    assert_eq!(
        seen,
        ["0 r1 created", "0 r2 Pa@2 Pb@2 ...", "0 r2 Pc@2 Pd@2", "1 r1 created", "1 r2 Pa@2 Pb@2 Pc@2 Pd@2"]
    );
}

#[test]
fn a_stream_that_does_not_read_holds_a_bounded_queue_and_nobody_else_back() {
    let mut world = World::new(Limits { stream_messages_max: 8, ..Limits::default() });
    let (slow, quick) = (world.open(), world.open());
    world.create(slow, watch(all(), 0));
    world.create(quick, watch(all(), 0));
    assert_eq!(world.read(quick), ["0 r1 created"]);
    for n in 0..1_000 {
        world.put(&["+a"]);
        assert_eq!(world.read(quick), [format!("0 r{0} Pa@{0}", n + 2)]);
    }
    assert_eq!(world.hub.stats().slow, 1);
    assert!(world.hub.stats().queued_events <= 8);
    let seen: Vec<String> =
        world.read(slow).iter().map(|line| line[line.find(' ').unwrap()..].to_owned()).collect();
    let events: Vec<&str> =
        seen.iter().flat_map(|line| line.split(' ').filter(|word| word.starts_with("Pa"))).collect();
    let expected: Vec<String> = (2..1_002).map(|revision| format!("Pa@{revision}")).collect();
    assert_eq!(events, expected);
    assert_eq!(world.hub.stats().slow, 0);
    world.put(&["+b"]);
    assert_eq!(world.read(slow), ["0 r1002 Pb@1002"]);
}

#[test]
fn batches_lost_on_their_way_are_read_from_history() {
    let mut world = World::new(Limits::default());
    let stream = world.open();
    world.create(stream, watch(all(), 0));
    world.create(stream, watch(all(), 4));
    world.put(&["+a"]);
    assert_eq!(world.read(stream), ["0 r1 created", "1 r1 created", "0 r2 Pa@2"]);
    world.write(&["+b"]);
    world.write(&["+c"]);
    let lost = world.posts.pop_back().unwrap();
    world.posts.clear();
    world.with_hub(|hub, world| hub.lose_touch(world));
    // A batch that comes all the same is not told twice.
    world.hub.publish(&lost);
    let mut seen = world.read(stream);
    seen.sort();
    assert_eq!(seen, ["0 r4 Pb@3 Pc@4", "1 r4 Pc@4"]);
    world.put(&["+d"]);
    assert_eq!(world.read(stream).len(), 2, "live again");
}

#[test]
fn a_step_stays_within_its_budget_and_serves_watchers_in_turn() {
    let mut world = World::new(Limits::default());
    for _ in 0..100 {
        world.put(&["+a"]);
    }
    let streams = [world.open(), world.open()];
    for stream in streams {
        world.create(stream, watch(all(), 1));
        assert_eq!(world.hub.take(stream).map(|message| line(&message)).as_deref(), Some("0 r101 created"));
    }
    assert!(world.step(10).more);
    let first: usize = world.hub.take(streams[0]).map_or(0, |message| message.events());
    assert!((1..=10).contains(&first), "one page of at most the budget, not {first}");
    assert!(world.step(10).more);
    assert!(world.hub.take(streams[1]).is_some(), "the other one's turn");
}

#[test]
fn a_step_is_bounded_by_what_it_looks_at_where_nothing_matches() {
    const RECORDS: usize = 1_600;
    const WATCHERS: usize = 10;
    let mut world = World::new(Limits::default());
    (0..RECORDS).for_each(|_| world.put(&["+common"]));
    let streams = [(); WATCHERS].map(|()| world.open());
    for stream in streams {
        world.create(stream, watch(KeyRange::single("rare"), 1));
    }
    // a page of each costs a hundred events
    for step in 1..4 {
        assert!(world.step(250).more);
        assert_eq!(world.looked_at.get(), step * 3 * RECORDS);
        assert_eq!(world.hub.stats().slow, WATCHERS - step * 3, "each in its turn");
    }
    assert!(!world.step(250).more);
    assert_eq!(world.hub.stats().slow, 0);
}

#[test]
fn a_closed_stream_leaves_nothing_behind() {
    let mut world = World::new(Limits { stream_messages_max: 2, ..Limits::default() });
    let stream = world.open();
    for start in [0, 0, 1] {
        world.create(stream, Create { progress_notify: true, ..watch(all(), start) });
    }
    world.put(&["+a"]);
    world.put(&["+a"]);
    world.hub.close(stream);
    world.run();
    assert_eq!(world.hub.stats(), Stats::default());
    assert_eq!(world.hub.next_tick(), None);
    assert!(!world.hub.has_work());
    let mut woken = 0;
    world.hub.drain_woken(|_| woken += 1);
    assert_eq!(woken, 0, "a stream that is gone is not woken");
}

/// What a watcher was told, against what it should have been told.
struct Witness {
    stream: Key,
    id: i64,
    range: KeyRange,
    next: i64,
    seen: Vec<String>,
    told: i64,
    created: bool,
    over: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<u8>),
    Post(usize),
    Create { stream: usize, key: u8, end: u8, back: Option<i64> },
    Take { stream: usize, count: usize },
    Step(usize),
    Progress(usize),
    Compact(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec(0u8..6, 1..4).prop_map(Op::Write),
        4 => (0usize..4).prop_map(Op::Post),
        1 => (0usize..3, 0u8..6, 0u8..8, prop::option::of(-3i64..12))
            .prop_map(|(stream, key, end, back)| Op::Create { stream, key, end, back }),
        4 => (0usize..3, 1usize..5).prop_map(|(stream, count)| Op::Take { stream, count }),
        3 => (1usize..20).prop_map(Op::Step),
        1 => (0usize..3).prop_map(Op::Progress),
        1 => (0i64..12).prop_map(Op::Compact),
    ]
}

fn witness_range(key: u8, end: u8) -> KeyRange {
    let name = |n: u8| vec![b'a' + n];
    match end {
        6 => KeyRange::single(name(key)),
        7 => KeyRange::new(name(key), vec![0]),
        _ => KeyRange::new(name(key.min(end)), name(key.max(end) + 1)),
    }
}

fn observe(witnesses: &mut [Witness], stream: Key, message: &Message, stream_told: &mut i64) {
    match &message.body {
        Body::Events { events, fragment } => {
            assert!(!fragment);
            let witness = witnesses
                .iter_mut()
                .find(|each| each.stream == stream && each.id == message.watch_id)
                .unwrap();
            assert!(!witness.over);
            witness.seen.extend(events.iter().map(|event| String::from_utf8_lossy(event).into_owned()));
            witness.told = message.revision;
        }
        Body::Compacted(_) => {
            let witness = witnesses
                .iter_mut()
                .find(|each| each.stream == stream && each.id == message.watch_id)
                .unwrap();
            witness.over = true;
        }
        Body::Progress => {
            assert!(message.revision >= *stream_told, "progress goes back");
            // It speaks of the watchers whose created response went before it.
            for witness in witnesses.iter_mut().filter(|each| each.stream == stream && each.created) {
                witness.told = message.revision;
            }
        }
        Body::Created => {
            let created =
                witnesses.iter_mut().find(|each| each.stream == stream && each.id == message.watch_id);
            created.unwrap().created = true;
        }
        Body::Canceled | Body::Refused(_) => {}
        Body::Failed(fault) => panic!("nothing is damaged: {fault}"),
    }
    if message.revision > 0 {
        *stream_told = (*stream_told).max(message.revision);
    }
}

/// Events of all time (compaction takes none of these away), as their watcher is to see them.
fn expected(history: &[Event], witness: &Witness, up_to: i64) -> Vec<String> {
    let wanted = history.iter().filter(|event| {
        witness.range.contains(&event.kv.key) && (witness.next..=up_to).contains(&event.kv.mod_revision)
    });
    wanted.map(|event| String::from_utf8_lossy(&encode(event, false)).into_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_watcher_sees_each_event_of_its_range_once_in_order_in_whole_revisions(ops in prop::collection::vec(op(), 1..120)) {
        let limits = Limits { stream_messages_max: 4, page_events_max: 5, ..Limits::default() };
        let mut world = World::new(limits);
        let streams = [world.open(), world.open(), world.open()];
        let mut told = [0i64; 3];
        let mut witnesses: Vec<Witness> = Vec::new();
        let mut history: Vec<Event> = Vec::new();
        for op in ops {
            match op {
                Op::Write(keys) => {
                    let mut names: Vec<String> = keys.iter().map(|key| {
                        let name = char::from(b'a' + key);
                        let live = world.live.contains_key(name.to_string().as_bytes());
                        format!("{}{name}", if live && key % 2 == 0 { '-' } else { '+' })
                    }).collect();
                    names.sort();
                    names.dedup();
                    world.write(&names.iter().map(String::as_str).collect::<Vec<_>>());
                    history.extend(world.posts.back().unwrap().events.iter().cloned());
                }
                Op::Post(leave) => world.post(leave),
                Op::Create { stream, key, end, back } => {
                    let start = back.map_or(0, |back| (world.revision + 1 - back).max(1));
                    let range = witness_range(key, end);
                    let id = witnesses.iter().filter(|each| each.stream == streams[stream]).count();
                    let next = if start == 0 { world.revision + 1 } else { start };
                    world.create(streams[stream], watch(range.clone(), start));
                    witnesses.push(Witness {
                        stream: streams[stream], id: id as i64, range, next, seen: Vec::new(), told: 0, created: false, over: false,
                    });
                }
                Op::Take { stream, count } => {
                    for _ in 0..count {
                        let Some(message) = world.hub.take(streams[stream]) else { break };
                        observe(&mut witnesses, streams[stream], &message, &mut told[stream]);
                    }
                }
                Op::Step(budget) => { world.step(budget); }
                Op::Progress(stream) => world.hub.request_progress(streams[stream]),
                Op::Compact(back) => {
                    let at = world.revision - back;
                    if at > world.compacted {
                        world.compact(at);
                    }
                }
            }
            // At each moment: a prefix of what is due, ending with a whole revision; and all that a header promised.
            for witness in witnesses.iter().filter(|witness| !witness.over) {
                let due = expected(&history, witness, i64::MAX);
                prop_assert!(due.starts_with(&witness.seen), "{:?} is no prefix of {:?}", witness.seen, due);
                if let (Some(last), Some(next)) = (witness.seen.last(), due.get(witness.seen.len())) {
                    let revision = |line: &str| line.split('@').nth(1).map(str::to_owned);
                    prop_assert_ne!(revision(last), revision(next), "a revision is torn apart");
                }
                prop_assert!(witness.seen.len() >= expected(&history, witness, witness.told).len(), "told too much");
            }
        }
        world.post(0);
        for stream in 0..3 {
            loop {
                world.run();
                let Some(message) = world.hub.take(streams[stream]) else { break };
                observe(&mut witnesses, streams[stream], &message, &mut told[stream]);
            }
        }
        for witness in witnesses.iter().filter(|witness| !witness.over) {
            prop_assert_eq!(&witness.seen, &expected(&history, witness, i64::MAX));
        }
        prop_assert_eq!(world.hub.stats().slow, 0);
        prop_assert_eq!(world.hub.stats().queued_events, 0);
    }
}
