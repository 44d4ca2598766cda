//! What a command costs between the log and the reply: its encoding, applying it, reading it back.
//!
//! 100,000 keys of 24 bytes with values of 256 bytes, as the goals are measured with; puts in batches of 64, the store
//! compacted as it goes so that its size stays as it is.

use bytes::Bytes;
use coffer_engine::command::{
    Command, Compare, CompareResult, CompareTarget, PutRequest, RangeRequest, Stamped, TxnOp, TxnRequest,
};
use coffer_engine::mvcc::KeyRange;
use coffer_engine::store::Store;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const KEYS: u64 = 100_000;
const BATCH: u64 = 64;

/// A key; the numbers are spread so that neighbours in time are no neighbours in the tree.
fn key(n: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/{:09}", n.wrapping_mul(7_919) % KEYS))
}

fn put(n: u64) -> Stamped {
    let put = PutRequest { key: key(n), value: Bytes::from(vec![n as u8; 256]), ..PutRequest::default() };
    Stamped { clock_ms: 1_000_000 + n, command: Command::Put(put) }
}

/// Kubernetes' update: write if the revision is still the one read, else read.
fn guarded_update() -> Stamped {
    let range = KeyRange::single(key(7));
    let compare =
        Compare { range: range.clone(), result: CompareResult::Equal, target: CompareTarget::ModRevision(9) };
    let Command::Put(put) = put(7).command else { unreachable!("put() makes puts") };
    let txn = TxnRequest {
        compares: vec![compare],
        success: vec![TxnOp::Put(put)],
        failure: vec![TxnOp::Range(RangeRequest { range, ..RangeRequest::default() })],
    };
    Stamped { clock_ms: 1_000_000, command: Command::Txn(txn) }
}

/// Why a store without a file meets no fault.
const IN_MEMORY: &str = "a store in memory reads no disk";

fn filled() -> Store {
    let mut store = Store::new();
    let mut tx = store.begin();
    for n in 0..KEYS {
        tx.apply(n + 1, 1, &put(n)).expect(IN_MEMORY);
    }
    tx.publish();
    store
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("command");
    for (name, stamped) in [("put of 256 bytes", put(7)), ("guarded update", guarded_update())] {
        let bytes = stamped.encode().expect("not too deep");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut out = Vec::with_capacity(bytes.len());
        group.bench_function(format!("encode, {name}"), |b| {
            b.iter(|| {
                out.clear();
                black_box(&stamped).encode_into(&mut out)
            });
        });
        group.bench_function(format!("decode, {name}"), |b| b.iter(|| Stamped::decode(black_box(&bytes))));
    }
    group.finish();
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    let mut store = filled();
    let mut n = KEYS;
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("batch of 64 puts", |b| {
        b.iter_batched(
            || {
                n += BATCH;
                (n - BATCH..n).map(put).collect::<Vec<_>>()
            },
            |batch| {
                let first = store.applied() + 1;
                let mut tx = store.begin();
                for (at, stamped) in batch.iter().enumerate() {
                    let _ = black_box(tx.apply(first + at as u64, 1, stamped));
                }
                let compact = Command::Compact { revision: tx_revision(first) };
                tx.apply(first + BATCH, 1, &Stamped { clock_ms: 0, command: compact }).expect(IN_MEMORY);
                let published = tx.publish();
                while store.compact_step(1_000).expect(IN_MEMORY) {}
                (batch, published)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The revision before the batch that begins at an index: every 65th entry is a compaction, all others made one revision,
/// from 2 on.
fn tx_revision(first: u64) -> i64 {
    let compactions = (first - 1 - KEYS) / (BATCH + 1);
    (first - compactions) as i64
}

fn range(c: &mut Criterion) {
    let reader = filled().reader();
    let mut group = c.benchmark_group("range");
    let mut n = 0;
    group.bench_function("one key", |b| {
        b.iter_batched(
            || {
                n += 1;
                RangeRequest { range: KeyRange::single(key(n)), ..RangeRequest::default() }
            },
            |request| reader.range(&request),
            BatchSize::SmallInput,
        );
    });
    let all = KeyRange::new("/registry/pods/", "/registry/pods0");
    let page = RangeRequest { range: all.clone(), limit: 500, ..RangeRequest::default() };
    group.bench_function("page of 500, uncounted", |b| b.iter(|| reader.range_uncounted(black_box(&page))));
    group.bench_function("page of 500 and the count of 100,000", |b| {
        b.iter(|| reader.range(black_box(&page)))
    });
    let list = RangeRequest { range: all, ..RangeRequest::default() };
    group.bench_function("all 100,000", |b| b.iter(|| reader.range(black_box(&list))));
    group.finish();
}

criterion_group!(benches, encoding, apply, range);
criterion_main!(benches);
