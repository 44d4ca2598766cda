//! Properties of the store: against a naive model, against its own history, and against itself.

use crate::arbitrary::{Source, config};
use crate::naive::Naive;
use bytes::Bytes;
use coffer_engine::command::*;
use coffer_engine::error::{ReadError, Refusal};
use coffer_engine::model::HISTORY_RECORDS_MAX;
use coffer_engine::mvcc::{Event, EventKind, KeyRange, KeyValue};
use coffer_engine::store::{ConfState, Store, StoreReader};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn everything() -> KeyRange {
    KeyRange::new("\0", "\0")
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    Command::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

/// Applies commands as one batch; what each gave, and the events published.
fn apply(store: &mut Store, log: &[Stamped]) -> (Vec<Applied>, Vec<Event>) {
    let first = store.applied() + 1;
    let mut tx = store.begin();
    let applied = log
        .iter()
        .enumerate()
        .map(|(at, stamped)| tx.apply(first + at as u64, 1, stamped).unwrap())
        .collect();
    let published = tx.publish();
    assert_eq!(published.applied, first + log.len() as u64 - 1);
    let events = published.events.map(|batch| {
        assert_eq!(batch.revision, published.revision);
        assert!(!batch.events.is_empty());
        batch.events.clone()
    });
    (applied, events.unwrap_or_default())
}

/// A read's answer, or why it was refused; a store in memory meets no fault.
fn answer<T>(read: Result<T, ReadError>) -> Result<T, Refusal> {
    read.map_err(|error| match error {
        ReadError::Refused(refusal) => refusal,
        ReadError::Fault(fault) => panic!("{fault}"),
    })
}

fn apply_one(store: &mut Store, command: Command) -> Result<Reply, Refusal> {
    let (mut applied, _) = apply(store, &[Stamped { clock_ms: 0, command }]);
    applied.remove(0).outcome
}

/// A command, the time since the one before, and the compaction budget spent after it.
fn log(length: usize) -> impl Strategy<Value = Vec<(Stamped, usize)>> {
    let step = (
        Source::narrow().data_command(),
        (0..4u64).prop_map(|n| n * 500),
        prop_oneof![2 => Just(0), 1 => 1..6usize],
    );
    vec(step, 1..length).prop_map(|steps| {
        let mut clock_ms = 0;
        let stamped = steps.into_iter().map(|(command, ms, budget)| {
            clock_ms += ms;
            (Stamped { clock_ms, command }, budget)
        });
        stamped.collect()
    })
}

/// All history pages from `from` on, read in small pages.
fn whole_history(reader: &StoreReader, range: &KeyRange, mut from: i64) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let page = reader.history(range, from, 2).unwrap();
        assert!(page.next > from || page.next > page.current, "a page goes on");
        events.extend(page.events);
        if page.next > page.current {
            return events;
        }
        from = page.next;
    }
}

/// The key space that events lead to.
fn replay(keys: &mut BTreeMap<Bytes, Arc<KeyValue>>, event: &Event) {
    match event.kind {
        EventKind::Put => keys.insert(event.kv.key.clone(), event.kv.clone()),
        EventKind::Delete => keys.remove(&event.kv.key),
    };
}

fn all_at(reader: &StoreReader, revision: i64) -> Result<Vec<Arc<KeyValue>>, Refusal> {
    let request = RangeRequest { range: everything(), revision, ..RangeRequest::default() };
    answer(reader.range(&request)).map(|reply| reply.kvs.into_iter().map(Arc::new).collect())
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn every_answer_event_read_and_hash_is_that_of_the_naive_model(
        log in log(60),
        ranges in vec(Source::narrow().range(), 12),
    ) {
        let (mut store, mut naive) = (Store::new(), Naive::new());
        let reader = store.reader();
        for (stamped, budget) in &log {
            let naively = naive.apply(stamped);
            let told_before = naive.revision();
            let (applied, events) = apply(&mut store, std::slice::from_ref(stamped));
            prop_assert_eq!(&applied[0], &naively, "{:?}", stamped);
            prop_assert_eq!(reader.position().revision, naive.revision());
            if let Some(first) = events.first() {
                prop_assert_eq!(first.kv.mod_revision, told_before);
                prop_assert_eq!(&events, naive.events.last().unwrap());
            }
            store.compact_step(*budget).unwrap();
            prop_assert_eq!(reader.check(), Ok(()));
        }
        for request in &ranges {
            for revision in -2..=naive.revision() + 1 {
                let request = RangeRequest { revision, ..request.clone() };
                prop_assert_eq!(answer(reader.range(&request)), naive.range(&request), "{:?}", request);
            }
        }
        for from in naive.compacted.max(0)..=naive.revision() + 1 {
            for range in [everything(), ranges[0].range.clone()] {
                prop_assert_eq!(whole_history(&reader, &range, from), naive.history(&range, from));
            }
        }
        for revision in naive.compacted.max(1)..=naive.revision() {
            prop_assert_eq!(reader.hash_kv(revision).unwrap().hash, naive.hash(revision));
        }
    }

    #[test]
    fn events_replayed_give_every_revision_that_can_be_read(log in log(60)) {
        let mut store = Store::new();
        let reader = store.reader();
        let mut told = Vec::new();
        for (stamped, budget) in &log {
            let before = reader.position().revision;
            let (applied, events) = apply(&mut store, std::slice::from_ref(stamped));
            let expected = before + i64::from(!events.is_empty());
            prop_assert_eq!(applied[0].revision, expected, "a change is exactly one revision");
            told.extend(events);
            store.compact_step(*budget).unwrap();
        }
        let position = reader.position();
        let mut keys = BTreeMap::new();
        let mut events = told.iter().peekable();
        for revision in 1..=position.revision {
            while let Some(event) = events.next_if(|event| event.kv.mod_revision == revision) {
                replay(&mut keys, event);
            }
            match all_at(&reader, revision) {
                Ok(kvs) => prop_assert_eq!(kvs, keys.values().cloned().collect::<Vec<_>>()),
                Err(refusal) => {
                    prop_assert_eq!(refusal, Refusal::Compacted);
                    prop_assert!(revision < position.compacted);
                }
            }
        }
        prop_assert_eq!(events.next(), None);
        // the history, too, leads from what stood at the compaction revision to now
        let from = position.compacted.max(1);
        let mut keys: BTreeMap<_, _> =
            all_at(&reader, from).unwrap().into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let (mut main, mut before) = (from, keys.clone());
        for event in whole_history(&reader, &everything(), from + 1) {
            if event.kv.mod_revision != main {
                (main, before) = (event.kv.mod_revision, keys.clone());
            }
            prop_assert_eq!(&event.prev_kv, &before.get(&event.kv.key).cloned());
            replay(&mut keys, &event);
        }
        prop_assert_eq!(keys.into_values().collect::<Vec<_>>(), all_at(&reader, 0).unwrap());
    }

    #[test]
    fn the_same_log_gives_the_same_state_however_it_is_batched_and_compacted(
        log in log(60),
        batches in vec(1..9usize, 60),
    ) {
        let (mut one, mut other) = (Store::new(), Store::new());
        let mut answers = (Vec::new(), Vec::new());
        let mut events = (Vec::new(), Vec::new());
        for (stamped, budget) in &log {
            let (applied, told) = apply(&mut one, std::slice::from_ref(stamped));
            answers.0.extend(applied);
            events.0.extend(told);
            one.compact_step(*budget).unwrap();
        }
        let stamped: Vec<Stamped> = log.iter().map(|(stamped, _)| stamped.clone()).collect();
        let mut rest = &stamped[..];
        for batch in batches {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            if !now.is_empty() {
                let (applied, told) = apply(&mut other, now);
                answers.1.extend(applied);
                events.1.extend(told);
            }
            rest = later;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(answers.0, answers.1);
        prop_assert_eq!(events.0, events.1);
        let (one, other) = (one.reader(), other.reader());
        prop_assert_eq!(one.state().unwrap(), other.state().unwrap());
        prop_assert_eq!(one.fingerprint().unwrap(), other.fingerprint().unwrap());
        prop_assert_eq!(one.hash_kv(0).unwrap(), other.hash_kv(0).unwrap());
    }

    #[test]
    fn removing_what_compaction_hid_changes_no_answer(log in log(60), ranges in vec(Source::narrow().range(), 4)) {
        let mut store = Store::new();
        let reader = store.reader();
        let stamped: Vec<Stamped> = log.iter().map(|(stamped, _)| stamped.clone()).collect();
        apply(&mut store, &stamped);
        let position = reader.position();
        let from = position.compacted.max(1);
        let answers = || {
            let reads: Vec<_> = (from..=position.revision)
                .flat_map(|revision| ranges.iter().map(move |r| RangeRequest { revision, ..r.clone() }))
                .map(|request| answer(reader.range(&request)))
                .collect();
            // what is hidden is looked at for as long as it is there
            let page = reader.history(&everything(), from, usize::MAX).unwrap();
            let history = (page.events, page.next, page.current);
            let hashes: Vec<_> = (from..=position.revision).map(|revision| answer(reader.hash_kv(revision))).collect();
            (reads, history, hashes, reader.state().unwrap())
        };
        let before = answers();
        let mut steps = 0;
        while store.compact_step(1).unwrap() {
            prop_assert_eq!(reader.check(), Ok(()));
            steps += 1;
            if steps % 7 == 1 {
                prop_assert_eq!(&answers(), &before);
            }
        }
        prop_assert_eq!(&answers(), &before);
        prop_assert_eq!(reader.position().compaction_done, reader.position().compacted);
        prop_assert_eq!(reader.check(), Ok(()));
    }

    #[test]
    fn a_refused_command_changes_nothing_but_index_and_clock(log in log(50)) {
        let mut store = Store::new();
        let reader = store.reader();
        for (stamped, _) in &log {
            let mut before = reader.state().unwrap();
            let (applied, events) = apply(&mut store, std::slice::from_ref(stamped));
            if applied[0].outcome.is_err() {
                let after = reader.state().unwrap();
                before.applied = after.applied;
                before.applied_term = after.applied_term;
                before.clock_ms = after.clock_ms;
                prop_assert_eq!(before, after);
                prop_assert!(events.is_empty());
            }
        }
    }
}

/// etcd's own tests fill a quota of 13 pages with values of a page, and want room again after compaction.
#[test]
fn the_size_lets_a_quota_of_13_pages_work() {
    let quota = 13 * 4096;
    for same_key in [true, false] {
        let mut store = Store::new();
        let reader = store.reader();
        assert!(reader.sizes().in_use_bytes < 16 * 1024);
        apply_one(&mut store, put("first", vec![b'x'; 64])).unwrap();
        assert!(reader.sizes().in_use_bytes + 4096 < quota);
        let mut puts = 0;
        while reader.sizes().in_use_bytes <= quota {
            let key = if same_key { "key".to_owned() } else { format!("key{puts}") };
            apply_one(&mut store, put(key, vec![b'x'; 4096])).unwrap();
            puts += 1;
        }
        assert!(puts < 16, "{puts} pages fit into 13");
        let all = DeleteRangeRequest { range: everything(), prev_kv: false };
        if !same_key {
            apply_one(&mut store, Command::DeleteRange(all)).unwrap();
        }
        let revision = reader.position().revision;
        apply_one(&mut store, Command::Compact { revision }).unwrap();
        while store.compact_step(1).unwrap() {}
        assert!(reader.sizes().in_use_bytes + 4096 < quota, "{:?}", reader.sizes());
        assert_eq!(reader.check(), Ok(()));
    }
}

#[test]
fn nothing_shows_before_it_is_published_and_then_all_of_it_does() {
    let mut store = Store::new();
    let reader = store.reader();
    let stamped = |key: &'static str| Stamped { clock_ms: 9, command: put(key, "1") };
    let mut tx = store.begin();
    tx.apply(1, 1, &stamped("a")).unwrap();
    tx.skip(2, 1).unwrap();
    tx.apply(3, 2, &stamped("b")).unwrap();
    let conf = ConfState { voters: vec![4], ..ConfState::default() };
    tx.set_conf_state(conf.clone()).unwrap();
    // what can be asked without waiting for the batch still tells of before
    assert_eq!((reader.position().revision, reader.position().applied, reader.sizes().keys), (1, 0, 0));
    let published = tx.publish();
    assert_eq!((published.revision, published.applied), (3, 3));
    assert_eq!(published.events.unwrap().events.len(), 2);
    let position = reader.position();
    assert_eq!((position.revision, position.applied, position.applied_term), (3, 3, 2));
    assert_eq!((store.applied(), store.lease_clock_ms(), store.conf_state()), (3, 9, conf));
    assert_eq!(reader.sizes().keys, 2);
}

#[test]
fn events_of_a_batch_that_was_dropped_come_with_the_next() {
    let mut store = Store::new();
    let mut tx = store.begin();
    tx.apply(1, 1, &Stamped { clock_ms: 0, command: put("a", "1") }).unwrap();
    drop(tx);
    let mut tx = store.begin();
    tx.skip(2, 1).unwrap();
    let published = tx.publish();
    assert_eq!((published.revision, published.events.unwrap().events.len()), (2, 1));
}

#[test]
#[should_panic(expected = "entries are applied in the order of their indexes")]
fn an_entry_out_of_order_stops_the_store() {
    let mut store = Store::new();
    let mut tx = store.begin();
    tx.skip(2, 1).unwrap();
}

#[test]
#[should_panic(expected = "a txn that writes comes through the log")]
fn a_txn_that_writes_is_not_read() {
    let txn = TxnRequest { success: vec![TxnOp::Txn(TxnRequest::default())], ..TxnRequest::default() };
    let _ = Store::new().reader().read_txn(&txn);
}

#[test]
fn a_page_of_history_is_bounded_by_records_looked_at() {
    let mut store = Store::new();
    let reader = store.reader();
    let log: Vec<_> =
        (0..HISTORY_RECORDS_MAX + 10).map(|_| Stamped { clock_ms: 0, command: put("other", "1") }).collect();
    apply(&mut store, &log);
    let page = reader.history(&KeyRange::single("rare"), 2, 100).unwrap();
    assert_eq!((page.events.len(), page.next), (0, HISTORY_RECORDS_MAX as i64 + 2));
    assert_eq!(page.looked_at, HISTORY_RECORDS_MAX);
    let page = reader.history(&KeyRange::single("rare"), page.next, 100).unwrap();
    assert!(page.next > page.current);
    assert_eq!(page.looked_at, 10);
}

#[test]
fn a_hash_taken_in_slices_is_that_of_one_compaction_revision() {
    let mut store = Store::new();
    let reader = store.reader();
    let log: Vec<_> = (0..50_000)
        .map(|n| Stamped { clock_ms: 0, command: put(format!("key{}", n % 20_000), format!("{n}")) })
        .collect();
    apply(&mut store, &log);
    std::thread::scope(|scope| {
        let hasher = scope.spawn(|| (0..4).map(|_| reader.hash_kv(50_000).unwrap()).collect::<Vec<_>>());
        for revision in (100..50_000).step_by(5_000) {
            apply_one(&mut store, Command::Compact { revision }).unwrap();
            while store.compact_step(1_000).unwrap() {}
        }
        // the compaction revision alone decides: a second store compacted there, with nothing removed, says the same
        let mut hashes = hasher.join().unwrap();
        hashes.dedup();
        for hash in hashes {
            let mut other = Store::new();
            apply(&mut other, &log);
            if hash.compact_revision > 0 {
                apply_one(&mut other, Command::Compact { revision: hash.compact_revision }).unwrap();
            }
            assert_eq!(other.reader().hash_kv(50_000).unwrap().hash, hash.hash);
        }
    });
}

#[test]
fn a_long_range_is_that_of_one_revision_while_others_write_between_its_slices() {
    let keys = 20_000;
    let mut store = Store::new();
    let reader = store.reader();
    let write = |store: &mut Store, from: usize| {
        let log: Vec<_> = (from..from + 100)
            .map(|n| Stamped { clock_ms: 0, command: put(format!("key{:05}", n % keys), format!("{n}")) })
            .collect();
        apply(store, &log);
    };
    (0..keys).step_by(100).for_each(|from| write(&mut store, from));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ranging = scope.spawn(|| {
            let (mut rounds, mut torn_apart) = (0, 0);
            while rounds < 30 || (torn_apart == 0 && rounds < 10_000) {
                rounds += 1;
                let newest = RangeRequest { range: everything(), ..RangeRequest::default() };
                let reply = reader.range(&newest).unwrap();
                torn_apart += usize::from(reader.position().revision > reply.current_revision);
                let again =
                    reader.range(&RangeRequest { revision: reply.current_revision, ..newest }).unwrap();
                assert_eq!((reply.kvs.len(), reply.count), (keys, keys as i64));
                assert!(reply.kvs == again.kvs, "revision {}", reply.current_revision);
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            torn_apart
        });
        let mut from = 0;
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            write(&mut store, from * 137);
            from += 1;
        }
        assert!(ranging.join().unwrap() > 0, "nobody wrote while a range was read");
    });
}

#[test]
fn readers_on_other_threads_see_whole_batches_and_are_not_starved() {
    let mut store = Store::new();
    let reader = store.reader();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut reads = 0u64;
            let mut last = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) || reads == 0 {
                let reply =
                    reader.range(&RangeRequest { range: everything(), ..RangeRequest::default() }).unwrap();
                // each batch writes a, b and c; never one without the others
                let revisions: Vec<i64> = reply.kvs.iter().map(|kv| kv.mod_revision).collect();
                assert!(revisions.is_empty() || revisions[2] == revisions[0] + 2, "{revisions:?}");
                assert!(reply.current_revision >= last);
                last = reply.current_revision;
                reads += 1;
            }
            reads
        });
        for _ in 0..20_000 {
            let batch = ["a", "b", "c"].map(|key| Stamped { clock_ms: 0, command: put(key, "1") });
            apply(&mut store, &batch);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(counting.join().unwrap() > 0);
    });
}

#[test]
fn small_values_do_not_keep_their_receive_buffer_alive() {
    let mut store = Store::new();
    let buffer = Bytes::from(vec![b'x'; 100_000]);
    let command = put(buffer.slice(0..10), buffer.slice(20..120));
    apply_one(&mut store, command).unwrap();
    assert!(buffer.is_unique());
    // its event shares a large one with the buffer, the store has a copy
    let command = put("large", buffer.slice(10..));
    let (_, events) = apply(&mut store, &[Stamped { clock_ms: 0, command }]);
    assert_eq!(events[0].kv.value.as_ptr(), buffer.slice(10..).as_ptr());
    drop(events);
    assert!(buffer.is_unique());
}

#[test]
fn a_page_uncounted_has_the_same_keys() {
    let mut store = Store::new();
    for n in 0..20 {
        apply_one(&mut store, put(format!("k{n:02}"), "1")).unwrap();
    }
    let reader = store.reader();
    let request = RangeRequest { range: everything(), limit: 5, ..RangeRequest::default() };
    let (counted, uncounted) = (reader.range(&request).unwrap(), reader.range_uncounted(&request).unwrap());
    assert_eq!((counted.count, uncounted.count), (20, 6));
    assert_eq!((counted.kvs, counted.more), (uncounted.kvs, uncounted.more));
}

#[test]
fn a_lease_ends_at_its_deadline_and_not_a_millisecond_before() {
    let mut store = Store::new();
    let mut index = 0;
    let mut apply = |clock_ms, command| {
        index += 1;
        let mut tx = store.begin();
        let applied = tx.apply(index, 1, &Stamped { clock_ms, command }).unwrap();
        tx.publish();
        applied.outcome
    };
    assert!(apply(5_000, Command::LeaseGrant { id: 7, ttl: 10 }).is_ok());
    assert_eq!(apply(14_999, Command::LeaseExpire { id: 7 }), Ok(Reply::LeaseExpire(false)));
    assert_eq!(apply(14_999, Command::LeaseRenew { ids: vec![7] }), Ok(Reply::LeaseRenew(vec![10])));
    assert_eq!(apply(24_998, Command::LeaseExpire { id: 7 }), Ok(Reply::LeaseExpire(false)));
    // its holder may have been answered up to half a second after the stamp
    assert_eq!(apply(25_498, Command::LeaseRenew { ids: vec![7] }), Ok(Reply::LeaseRenew(vec![10])));
    assert_eq!(apply(35_997, Command::LeaseRenew { ids: vec![7] }), Ok(Reply::LeaseRenew(vec![10])));
    assert_eq!(apply(45_996, Command::LeaseExpire { id: 7 }), Ok(Reply::LeaseExpire(false)));
    assert_eq!(apply(46_497, Command::LeaseRenew { ids: vec![7] }), Ok(Reply::LeaseRenew(vec![0])));
    assert_eq!(apply(46_497, Command::LeaseExpire { id: 7 }), Ok(Reply::LeaseExpire(true)));
    assert_eq!(apply(46_497, Command::LeaseExpire { id: 7 }), Ok(Reply::LeaseExpire(false)));
}
