//! The watch hub of one serving thread: batches of 100 events that it finds the watchers of and puts into their streams'
//! queues, and what it takes to get them out again. Values have 256 bytes; watchers are spread over 64 streams.
//!
//! | watchers | each event goes to |
//! |---|---|
//! | on other keys | nobody: what looking costs |
//! | on a key each | one of them |
//! | on ranges | ten of them: each wants ten keys in a row, from its own on |
//! | on the prefix | all |

use bytes::Bytes;
use coffer_engine::mvcc::{Event, EventKind, KeyRange, KeyValue};
use coffer_engine::store::{Store, StoreReader};
use coffer_engine::watch::EventBatch;
use coffer_server::rpc::wire::encode_event;
use coffer_server::watch_hub::{Create, Hub, Key, Limits};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCH: u64 = 100;
const VALUE_BYTES: usize = 256;
const STREAMS: usize = 64;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("watch/{number:016}"))
}

/// A hub, its streams, and the keys that events are about.
struct Watched {
    hub: Hub,
    streams: Vec<Key>,
    reader: StoreReader,
    revision: i64,
    /// The lowest number of a key, and how many there are.
    first: u64,
    keys: u64,
    random: u64,
}

impl Watched {
    fn new(keys: u64) -> Watched {
        let reader = Store::new().reader();
        let revision = reader.position().revision;
        let mut hub = Hub::new(Limits::default(), encode_event, revision);
        let streams = (0..STREAMS).map(|_| hub.open(0, 600_000_000)).collect();
        Watched { hub, streams, reader, revision, first: 0, keys, random: 1 }
    }

    fn watch(mut self, ranges: impl Iterator<Item = KeyRange>) -> Watched {
        for (number, range) in ranges.enumerate() {
            let create = Create { range, ..Create::default() };
            self.hub.create(self.streams[number % STREAMS], create, 0, &self.reader);
            self.drain();
        }
        self
    }

    fn batch(&mut self) -> EventBatch {
        let events = (0..BATCH).map(|_| {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.revision += 1;
            let kv = KeyValue {
                key: key(self.first + (self.random >> 33) % self.keys),
                create_revision: self.revision,
                mod_revision: self.revision,
                version: 1,
                value: Bytes::from_static(&[b'v'; VALUE_BYTES]),
                lease: 0,
            };
            Event { kind: EventKind::Put, kv: Arc::new(kv), prev_kv: None }
        });
        let events = events.collect();
        EventBatch { revision: self.revision, events }
    }

    /// Takes everything out of the queues; the events that were in there.
    fn drain(&mut self) -> usize {
        let (mut woken, mut events) = (Vec::new(), 0);
        self.hub.drain_woken(|key| woken.push(key));
        for key in woken {
            while let Some(message) = self.hub.take(key) {
                events += message.events();
            }
        }
        events
    }
}

fn measure(c: &mut Criterion, name: &str, watchers: u64, each: u64, mut watched: Watched) {
    let mut group = c.benchmark_group("watch");
    group.throughput(Throughput::Elements(BATCH * each.max(1)));
    let id = format!("{watchers} {name}");
    let (mut batches, mut events) = (0, 0);
    group.bench_function(BenchmarkId::new("match and queue", &id), |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let batch = watched.batch();
                let begun = Instant::now();
                watched.hub.publish(&batch);
                took += begun.elapsed();
                events += watched.drain();
                batches += 1;
            }
            took
        });
    });
    group.bench_function(BenchmarkId::new("match, queue and take", &id), |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let batch = watched.batch();
                let begun = Instant::now();
                watched.hub.publish(&batch);
                events += watched.drain();
                took += begun.elapsed();
                batches += 1;
            }
            took
        });
    });
    assert_eq!(watched.hub.stats().slow, 0, "a queue was too short");
    assert_eq!(events as u64, batches * BATCH * each, "not every watcher was told");
    group.finish();
}

fn watch(c: &mut Criterion) {
    for watchers in [1_000, 100_000] {
        let others = (watchers..2 * watchers).map(|number| KeyRange::single(key(number)));
        measure(c, "on other keys", watchers, 0, Watched::new(watchers).watch(others));
        let own = (0..watchers).map(|number| KeyRange::single(key(number)));
        measure(c, "on a key each", watchers, 1, Watched::new(watchers).watch(own));
        // the first nine keys have fewer watchers, and no event
        let rows = (0..watchers + 9).map(|number| KeyRange::new(key(number), key(number + 10)));
        let shifted = Watched::new(watchers).watch(rows);
        measure(c, "on ranges", watchers, 10, Watched { first: 9, ..shifted });
    }
    for watchers in [100, 10_000] {
        let all = (0..watchers).map(|_| KeyRange::new(key(0), Bytes::from_static(b"watch0")));
        measure(c, "on the prefix", watchers, watchers, Watched::new(100_000).watch(all));
    }
}

criterion_group!(benches, watch);
criterion_main!(benches);
