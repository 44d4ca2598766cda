//! What the tree costs alone, over pages in memory that copy as the page file's do.
//!
//! 1,000,000 keys of 8 bytes in random order, values of 100 and of 300 bytes; a transaction is published after every 100
//! changes, so that nearly every change copies its leaf.

use coffer_engine::btree::mem::MemPages;
use coffer_engine::btree::{self, Action, Cursor};
use coffer_engine::pager::page::{ChildRef, TreeId};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::ops::Bound;

const KEYS: u64 = 1_000_000;
const BATCH: u64 = 100;
const TREE: TreeId = TreeId::Keys;

struct Tree {
    pages: MemPages,
    root: Option<ChildRef>,
}

/// The nth key of a random order; keys beyond [`KEYS`] are new ones.
fn key(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// Numbers below [`KEYS`] in no order.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % KEYS
    }
}

fn filled(value_bytes: usize) -> Tree {
    let mut tree = Tree { pages: MemPages::new(), root: None };
    let value = vec![7; value_bytes];
    for n in 0..KEYS {
        btree::insert(&mut tree.pages, TREE, &mut tree.root, &key(n), &value).expect("insert");
        if n % BATCH == 0 {
            tree.pages.publish();
        }
    }
    tree.pages.publish();
    tree
}

fn reads(c: &mut Criterion, tree: &Tree, value_bytes: usize) {
    let mut group = c.benchmark_group("btree");
    let root = tree.root.as_ref();
    let mut next = numbers();
    group.bench_function(BenchmarkId::new("get", value_bytes), |b| {
        b.iter(|| {
            let found = btree::get(&tree.pages, TREE, root, &key(next())).expect("get");
            black_box(found.expect("there"))[0]
        });
    });
    group.bench_function(BenchmarkId::new("count of half", value_bytes), |b| {
        b.iter(|| {
            let to = key(next());
            btree::count(&tree.pages, TREE, root, Bound::Unbounded, Bound::Excluded(&to)).expect("count")
        });
    });
    group.throughput(Throughput::Elements(10_000));
    group.bench_function(BenchmarkId::new("scan of 10,000", value_bytes), |b| {
        b.iter(|| {
            let mut cursor = Cursor::new(&tree.pages, TREE, root);
            cursor.seek(&(next() << 43).to_be_bytes()).expect("seek");
            let mut bytes = 0;
            for _ in 0..10_000 {
                let Some((key, value)) = cursor.next().expect("next") else { break };
                bytes += key.len() + usize::from(value[0]);
            }
            bytes
        });
    });
    group.finish();
}

fn writes(c: &mut Criterion, tree: &mut Tree, value_bytes: usize) {
    let mut group = c.benchmark_group("btree");
    group.throughput(Throughput::Elements(BATCH));
    let value = vec![8; value_bytes];
    let mut next = numbers();
    let Tree { pages, root } = tree;
    group.bench_function(BenchmarkId::new("overwrite, batch of 100", value_bytes), |b| {
        b.iter_batched(
            || [(); BATCH as usize].map(|()| key(next())),
            |keys| {
                for key in &keys {
                    assert!(btree::insert(pages, TREE, root, key, &value).expect("insert"));
                }
                pages.publish();
            },
            BatchSize::SmallInput,
        );
    });
    let mut written = Vec::new();
    group.bench_function(BenchmarkId::new("upsert, batch of 100", value_bytes), |b| {
        b.iter_batched(
            || [(); BATCH as usize].map(|()| key(next())),
            |keys| {
                for key in &keys {
                    btree::upsert_with(pages, TREE, root, key, &mut written, |old, new| {
                        new.extend_from_slice(old.expect("there"));
                        new[0] = new[0].wrapping_add(1);
                        (Action::Put, ())
                    })
                    .expect("upsert");
                }
                pages.publish();
            },
            BatchSize::SmallInput,
        );
    });
    let mut fresh = KEYS;
    group.bench_function(BenchmarkId::new("insert and remove of new keys, batch of 100", value_bytes), |b| {
        b.iter(|| {
            for n in fresh..fresh + BATCH / 2 {
                assert!(!btree::insert(pages, TREE, root, &key(n), &value).expect("insert"));
            }
            pages.publish();
            for n in fresh..fresh + BATCH / 2 {
                assert!(btree::remove(pages, TREE, root, &key(n)).expect("remove"));
            }
            pages.publish();
            fresh += BATCH / 2;
        });
    });
    group.finish();
}

fn insert(c: &mut Criterion, value_bytes: usize) {
    let mut group = c.benchmark_group("btree");
    group.throughput(Throughput::Elements(KEYS)).sample_size(10);
    group.bench_function(BenchmarkId::new("insert of 1,000,000, batches of 100", value_bytes), |b| {
        b.iter_with_large_drop(|| filled(value_bytes));
    });
    group.finish();
}

fn append(c: &mut Criterion, value_bytes: usize) {
    let mut group = c.benchmark_group("btree");
    group.throughput(Throughput::Elements(BATCH));
    let value = vec![8; value_bytes];
    let mut tree = Tree { pages: MemPages::new(), root: None };
    let mut n = 0u64;
    group.bench_function(BenchmarkId::new("append, batch of 100", value_bytes), |b| {
        b.iter(|| {
            // a window of a million, as a history that is compacted
            for number in n..n + BATCH {
                btree::insert(&mut tree.pages, TREE, &mut tree.root, &number.to_be_bytes(), &value)
                    .expect("insert");
                if let Some(old) = number.checked_sub(KEYS) {
                    btree::remove(&mut tree.pages, TREE, &mut tree.root, &old.to_be_bytes()).expect("remove");
                }
            }
            tree.pages.publish();
            n += BATCH;
        });
    });
    group.finish();
}

fn trees(c: &mut Criterion) {
    for value_bytes in [100, 300] {
        let mut tree = filled(value_bytes);
        reads(c, &tree, value_bytes);
        writes(c, &mut tree, value_bytes);
        append(c, value_bytes);
    }
    insert(c, 100);
}

criterion_group!(benches, trees);
criterion_main!(benches);
