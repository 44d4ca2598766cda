//! The store through its front door: every put is a command and makes a revision.
//!
//! Keys of 16 bytes in random order, values of 100. *memory* has no file, and keeps all its history; *file* has a page file on
//! the disk (below `TMPDIR`), written and checkpointed by the same thread as it goes, as a member does.
//!
//! | group | what is measured |
//! |---|---|
//! | put | batches of 100 puts over keys that are there, applied and published |
//! | range | one random key; one of 1,000 in a row |
//! | txn | batches of 100 compare-and-put as Kubernetes sends them, the other branch a range |
//! | count | all keys, of 10,000 to 1,000,000; the same at a revision with 1,000 to 100,000 after it |
//! | checkpoint | the pages of 1,000 to 100,000 random puts written, synced, and named by a meta; how many bytes that is |

use bytes::Bytes;
use coffer_engine::command::{
    Command, Compare, CompareResult, CompareTarget, PutRequest, RangeRequest, Stamped, TxnOp, TxnRequest,
};
use coffer_engine::disk::{Disk, DiskIo, open_disk};
use coffer_engine::mvcc::KeyRange;
use coffer_engine::store::{Store, StoreOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};

const BATCH: u64 = 100;
const VALUE_BYTES: usize = 100;

/// Numbers below `end` in no order.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The nth key of a random order.
fn key(n: u64) -> Bytes {
    let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Bytes::copy_from_slice(format!("{scattered:016x}").as_bytes())
}

struct Filled {
    store: Store,
    disk: Option<(Box<dyn Disk>, Instant, tempfile::TempDir)>,
    keys: u64,
    index: u64,
    numbers: Numbers,
}

impl Filled {
    fn new(keys: u64, on_disk: bool) -> Filled {
        let (store, disk) = if on_disk {
            let directory = tempfile::tempdir().expect("a directory");
            let mut disk = open_disk(DiskIo::Auto).expect("a disk");
            let options = StoreOptions::new(directory.path().join("pages"), *b"bench     member");
            let (store, _) = Store::open(&mut *disk, options, 0).expect("a page file");
            (store, Some((disk, Instant::now(), directory)))
        } else {
            (Store::new(), None)
        };
        let mut filled = Filled { store, disk, keys, index: 0, numbers: Numbers(1) };
        for first in (0..keys).step_by(BATCH as usize) {
            filled.batch((first..keys.min(first + BATCH)).map(put));
        }
        filled
    }

    /// Applies and publishes, and does for the page file what a member's core does after it.
    fn batch(&mut self, commands: impl Iterator<Item = Command>) {
        let mut tx = self.store.begin();
        for command in commands {
            self.index += 1;
            tx.apply(self.index, 1, &Stamped { clock_ms: 0, command }).expect("the store applies");
        }
        tx.publish();
        self.step(false);
    }

    /// Waits for the disk, or looks in; whether the page file has something under way.
    fn step(&mut self, wait: bool) -> bool {
        let Some((disk, begun, _)) = &mut self.disk else { return false };
        let now = begun.elapsed().as_micros() as u64;
        let next = self.store.step(&mut **disk, now, self.index * 150).expect("the page file");
        let mut completions = Vec::new();
        if wait && !next.at_once {
            disk.wait(Some(1_000));
        }
        disk.poll(&mut completions);
        for completion in completions {
            self.store.complete(completion, now);
        }
        self.store.is_busy()
    }

    fn settle(&mut self) {
        self.store.request_checkpoint();
        while self.step(true) {}
    }

    fn random(&mut self) -> u64 {
        self.numbers.below(self.keys)
    }

    fn put_batches(&mut self, batches: u64, make: impl Fn(u64) -> Command) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..batches {
            let keys: Vec<Command> = (0..BATCH).map(|_| make(self.random())).collect();
            let begun = Instant::now();
            self.batch(keys.into_iter());
            took += begun.elapsed();
        }
        took
    }
}

fn put(n: u64) -> Command {
    let value = Bytes::from(vec![n as u8; VALUE_BYTES]);
    Command::Put(PutRequest { key: key(n), value, ..PutRequest::default() })
}

/// An update as Kubernetes makes it.
fn txn(n: u64) -> Command {
    let Command::Put(put) = put(n) else { unreachable!("a put") };
    let range = KeyRange::single(key(n));
    let compare = Compare {
        range: range.clone(),
        result: CompareResult::Greater,
        target: CompareTarget::ModRevision(0),
    };
    let read = RangeRequest { range, ..RangeRequest::default() };
    Command::Txn(TxnRequest {
        compares: vec![compare],
        success: vec![TxnOp::Put(put)],
        failure: vec![TxnOp::Range(read)],
    })
}

fn all() -> RangeRequest {
    let range = KeyRange::new(Bytes::from_static(b"0"), Bytes::from_static(b"g"));
    RangeRequest { range, ..RangeRequest::default() }
}

fn writes(c: &mut Criterion, filled: &mut Filled, name: &str) {
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(BATCH));
    let id = format!("{name}, {} keys", filled.keys);
    group.bench_function(BenchmarkId::new("put, batch of 100", &id), |b| {
        b.iter_custom(|batches| filled.put_batches(batches, put));
    });
    group.bench_function(BenchmarkId::new("txn, batch of 100", &id), |b| {
        b.iter_custom(|batches| filled.put_batches(batches, txn));
    });
    group.finish();
}

/// The pages that puts have changed, all on the disk.
fn checkpoints(c: &mut Criterion, filled: &mut Filled) {
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10);
    let keys = filled.keys;
    for puts in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(puts));
        let (mut checkpoints, mut bytes) = (0, 0);
        group.bench_function(BenchmarkId::new(format!("after {puts} puts"), format!("{keys} keys")), |b| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    filled.settle();
                    let before = filled.store.stats().bytes_written;
                    filled.put_batches(puts / BATCH, put);
                    let begun = Instant::now();
                    filled.settle();
                    took += begun.elapsed();
                    checkpoints += 1;
                    bytes += filled.store.stats().bytes_written - before;
                }
                took
            });
        });
        if let Some(each) = u64::checked_div(bytes, checkpoints) {
            println!(
                "{puts} puts among {keys} keys: {each} bytes of pages written, {} for each put",
                each / puts
            );
        }
    }
    group.finish();
}

fn reads(c: &mut Criterion, filled: &mut Filled, name: &str) {
    let mut group = c.benchmark_group("store");
    let id = format!("{name}, {} keys", filled.keys);
    let reader = filled.store.reader();
    let mut numbers = Numbers(7);
    group.bench_function(BenchmarkId::new("range of one key", &id), |b| {
        b.iter(|| {
            let range = KeyRange::single(key(numbers.below(filled.keys)));
            let request = RangeRequest { range, ..RangeRequest::default() };
            black_box(reader.range(&request).expect("a range")).kvs.len()
        });
    });
    group.throughput(Throughput::Elements(1_000));
    group.bench_function(BenchmarkId::new("range of 1,000 keys", &id), |b| {
        b.iter(|| {
            let mut request = RangeRequest { limit: 1_000, ..all() };
            // from the first half, so that there are as many
            request.range.key = Bytes::from(format!("{:016x}", numbers.below(1 << 31) << 32));
            let reply = reader.range_uncounted(&request).expect("a range");
            assert_eq!(reply.kvs.len(), 1_000);
            reply
        });
    });
    group.finish();
}

fn counts(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    for keys in [10_000, 100_000, 1_000_000] {
        let mut filled = Filled::new(keys, false);
        let reader = filled.store.reader();
        let count = RangeRequest { count_only: true, ..all() };
        group.bench_function(BenchmarkId::new("count of all", keys), |b| {
            b.iter(|| assert_eq!(reader.range(&count).expect("a count").count as u64, keys));
        });
        if keys < 1_000_000 {
            continue;
        }
        let pinned = reader.position().revision;
        let mut since = 0;
        for revisions in [1_000, 10_000, 100_000] {
            filled.put_batches((revisions - since) / BATCH, put);
            since = revisions;
            let count = RangeRequest { revision: pinned, ..count.clone() };
            group.bench_function(
                BenchmarkId::new("count of 1,000,000 at a revision, since then", revisions),
                |b| {
                    b.iter(|| assert_eq!(reader.range(&count).expect("a count").count as u64, keys));
                },
            );
        }
    }
    group.finish();
}

fn store(c: &mut Criterion) {
    for keys in [100_000, 1_000_000] {
        for (name, on_disk) in [("memory", false), ("file", true)] {
            let mut filled = Filled::new(keys, on_disk);
            filled.settle();
            reads(c, &mut filled, name);
            writes(c, &mut filled, name);
            if on_disk {
                checkpoints(c, &mut filled);
            }
        }
    }
    counts(c);
}

criterion_group!(benches, store);
criterion_main!(benches);
