//! The state in pages against the model: every answer, event, read, hash and rule, after random commands.

use crate::arbitrary::{Source, config};
use crate::mvcc_rig::{Pair, everything};
use bytes::Bytes;
use coffer_engine::command::*;
use coffer_engine::mvcc::KeyRange;
use proptest::collection::vec;
use proptest::prelude::*;

/// A batch of commands, and the budget of compaction spent after it.
pub(crate) type Step = (Vec<Stamped>, usize);

/// Steps of commands from a source; the clock goes on.
pub(crate) fn steps(
    source: &Source,
    length: usize,
    batch: usize,
) -> impl Strategy<Value = Vec<Step>> + use<> {
    let stamped = (source.command_of_any_kind(), (0..4u64).prop_map(|n| n * 500));
    let budget = prop_oneof![2 => Just(0), 1 => 1..6usize, 1 => Just(100)];
    vec((vec(stamped, 1..batch + 1), budget), 1..length).prop_map(|steps| {
        let mut clock_ms = 0;
        let mut stamp = |(command, ms)| {
            clock_ms += ms;
            Stamped { clock_ms, command }
        };
        steps
            .into_iter()
            .map(|(batch, budget)| (batch.into_iter().map(&mut stamp).collect(), budget))
            .collect()
    })
}

/// Long and short ones, around every bound from which on they stand elsewhere.
fn sized(lengths: &'static [usize], first: u8) -> BoxedStrategy<Bytes> {
    let bytes = |(length, fill)| {
        let mut bytes = vec![fill; length];
        bytes[length - 1] = b'z';
        Bytes::from(bytes)
    };
    (prop::sample::select(lengths), first..first + 3).prop_map(bytes).boxed()
}

pub(crate) fn large() -> Source {
    Source {
        key: sized(&[1, 1, 2, 511, 512, 513, 600, 5000], b'a'),
        end: prop_oneof![
            3 => Just(Bytes::new()),
            1 => Just(Bytes::from_static(b"\0")),
            1 => sized(&[1, 2, 512, 513, 600], b'a'),
        ]
        .boxed(),
        value: prop_oneof![
            1 => Just(Bytes::new()),
            6 => sized(&[1, 100, 600, 640, 687, 688, 689, 700, 1100, 1199, 1200, 1201, 1300, 4064, 4065, 9000], b'x'),
        ]
        .boxed(),
        ..Source::narrow()
    }
}

/// Two keys that are written again and again.
fn few_keys() -> Source {
    let key = prop::sample::select(&["a", "b"][..]).prop_map(|key| Bytes::from_static(key.as_bytes()));
    Source { key: key.boxed(), compact: (0..200i64).boxed(), ops: 2, ..Source::narrow() }
}

fn compare_everything(pair: &Pair, ranges: &[RangeRequest]) {
    pair.compare_state();
    for request in ranges {
        pair.compare_at_all_revisions(request);
    }
    pair.compare_at_all_revisions(&RangeRequest { range: everything(), ..RangeRequest::default() });
    let counted = RangeRequest { range: everything(), count_only: true, ..RangeRequest::default() };
    pair.compare_at_all_revisions(&counted);
    pair.compare_history(&everything());
    pair.compare_hashes();
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn every_answer_is_that_of_the_model(
        steps in steps(&Source::narrow(), 60, 1),
        ranges in vec(Source::narrow().range(), 6),
        txns in vec(Source::narrow().txn(1), 3),
    ) {
        let mut pair = Pair::new();
        for (at, (batch, budget)) in steps.iter().enumerate() {
            pair.batch(batch);
            pair.check();
            if *budget > 0 {
                pair.compact_step(*budget);
                pair.check();
            }
            pair.compare_state();
            pair.compare_leases(batch[0].clock_ms);
            for request in &ranges[at % 6..] {
                pair.compare_range(request);
            }
        }
        compare_everything(&pair, &ranges);
        pair.compare_history(&ranges[0].range);
        for txn in txns.iter().filter(|txn| txn.is_read_only()) {
            pair.compare_read_txn(txn);
        }
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn few_keys_with_many_versions_read_alike_at_every_revision(
        steps in steps(&few_keys(), 40, 8),
        ranges in vec(few_keys().range(), 3),
    ) {
        let mut pair = Pair::new();
        for (at, (batch, budget)) in steps.iter().enumerate() {
            pair.batch(batch);
            if *budget > 0 {
                pair.compact_step(*budget);
            }
            if at % 8 == 0 {
                pair.check();
                compare_everything(&pair, &ranges[..1]);
            }
        }
        pair.check();
        compare_everything(&pair, &ranges);
        while pair.compact_step(1) {
            pair.check();
        }
        compare_everything(&pair, &ranges);
    }

    #[test]
    fn what_is_moved_reads_alike_and_leaves_the_end_empty(
        steps in steps(&large(), 40, 2),
        more in vec(large().data_command(), 0..20),
        budget in 1..9usize,
    ) {
        let mut pair = Pair::new();
        for (batch, budget) in &steps {
            pair.batch(batch);
            pair.compact_step(*budget);
        }
        let more: Vec<_> =
            more.into_iter().map(|command| Stamped { clock_ms: 1 << 20, command }).collect();
        let used = pair.mvcc.pages().used();
        // half of the places are emptied, as far as there is room below
        let place = used.last().map_or(1, |last| last.0 / 2 + 1);
        pair.relocate(place, budget, &more);
        compare_everything(&pair, &[]);
        while pair.compact_step(7) {}
        pair.check();
        // then all that is left is brought together, nobody in between
        let end = (pair.mvcc.pages().used().len() as u32 + 4) * 2;
        prop_assert_eq!(pair.relocate(end, budget, &[]), 0);
        compare_everything(&pair, &[]);
    }

    #[test]
    fn long_keys_and_large_values_read_alike_and_leave_no_page_behind(
        steps in steps(&large(), 60, 2),
        ranges in vec(large().range(), 3),
    ) {
        let mut pair = Pair::new();
        for (batch, budget) in &steps {
            pair.batch(batch);
            pair.check();
            if *budget > 0 {
                pair.compact_step(*budget);
                pair.check();
            }
        }
        compare_everything(&pair, &ranges);
        // after all is deleted and compacted, nothing is left of it
        pair.delete(everything());
        pair.put("last", "1");
        pair.delete(everything());
        pair.put("last", "2");
        let revision = pair.revision();
        if pair.mvcc.position().compacted < revision {
            pair.compact(revision);
        }
        while pair.compact_step(3) {
            pair.check();
        }
        pair.check();
        compare_everything(&pair, &ranges);
    }
}

/// Also where an earlier compaction had been through: a tombstone then holds the value that its delete took away.
#[test]
fn what_is_deleted_and_compacted_leaves_its_room() {
    for value_bytes in [1000, 5000] {
        let mut pair = Pair::new();
        for key in 0..200 {
            pair.put(format!("key{key:03}"), vec![b'v'; value_bytes]);
        }
        pair.put("last", "");
        pair.compact(pair.revision());
        while pair.compact_step(50) {}
        let full = pair.mvcc.pages().used().len();
        pair.delete(KeyRange::new("key", "kez"));
        pair.compact(pair.revision());
        while pair.compact_step(50) {}
        pair.check();
        let left = pair.mvcc.pages().used().len();
        assert!(left < full / 4, "values of {value_bytes} bytes: {left} of {full} pages are left");
        compare_everything(&pair, &[]);
        // and so it stays readable for watchers that begin at the deletes, and goes whole
        pair.put("last", "2");
        pair.compact(pair.revision());
        while pair.compact_step(50) {}
        pair.check();
        compare_everything(&pair, &[]);
    }
}

#[test]
fn a_chain_of_many_versions_is_read_at_each_of_them() {
    let mut pair = Pair::new();
    for n in 0..3000 {
        pair.put("a", format!("{n}"));
        if n % 97 == 0 {
            pair.delete(KeyRange::single("a"));
        }
    }
    pair.check();
    let single = RangeRequest { range: KeyRange::single("a"), ..RangeRequest::default() };
    pair.compare_at_all_revisions(&single);
    pair.compact(1500);
    pair.compact_step(70);
    pair.compare_at_all_revisions(&single);
    while pair.compact_step(100) {}
    pair.check();
    pair.compare_at_all_revisions(&single);
}

#[test]
fn counts_at_old_revisions_are_right_whichever_way_is_shorter() {
    let mut pair = Pair::new();
    for n in 0..300 {
        pair.put(format!("key{:03}", n * 7 % 300), "1");
    }
    for n in 0..40 {
        pair.delete(KeyRange::single(format!("key{:03}", n * 3)));
        pair.put(format!("new{n:03}"), "1");
    }
    for (key, end) in [("key", "kez"), ("key100", "key110"), ("new", "nex"), ("\0", "\0")] {
        let range = KeyRange::new(key, end);
        for limit in [1, 5, 0] {
            let request = RangeRequest { range: range.clone(), limit, ..RangeRequest::default() };
            pair.compare_at_all_revisions(&request);
        }
        pair.compare_at_all_revisions(&RangeRequest { range, count_only: true, ..RangeRequest::default() });
    }
}
