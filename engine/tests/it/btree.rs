//! The copy-on-write tree against a map.

use crate::arbitrary::config;
use crate::btree_rig::{Rig, TREE};
use coffer_engine::btree::{self, Action, Cursor, KEY_INLINE_MAX, VALUE_MAX};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Bound;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn number_key(n: u64) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// Keys of every length: short ones, some with a long common beginning, some longer than a cell's field, some of several
/// pages that differ only at the end.
fn key() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        6 => vec(0u8..4, 0..6),
        4 => vec(any::<u8>(), 0..30),
        3 => (0u32..500).prop_map(|n| format!("/registry/pods/default/pod-{n:05}").into_bytes()),
        2 => (490usize..530, end()).prop_map(|(len, end)| long(len, end)),
        1 => (8_190usize..8_194, end()).prop_map(|(len, end)| long(len, end)),
    ]
    .boxed()
}

/// Keys in groups: separators within one are nearly as long as they can be, those between groups short, so that a
/// separator that moves may have no room, or another beginning than its page's others.
fn grouped_key() -> BoxedStrategy<Vec<u8>> {
    (vec(0u8..3, 1..3), prop_oneof![3 => Just(470usize), 1 => Just(30), 1 => Just(600)], 0u16..30)
        .prop_map(|(mut key, common, n)| {
            key.resize(common, b'x');
            key.extend(n.to_be_bytes());
            key
        })
        .boxed()
}

/// Below and above the `x` before it.
fn end() -> BoxedStrategy<u8> {
    prop_oneof![0u8..3, b'y'..=b'z'].boxed()
}

/// A key of `len` times `x`, another end.
fn long(len: usize, end: u8) -> Vec<u8> {
    let mut key = vec![b'x'; len];
    key.push(end);
    key
}

fn value() -> BoxedStrategy<Vec<u8>> {
    (prop_oneof![3 => 0usize..40, 3 => 0usize..400, 1 => 0..=VALUE_MAX], any::<u8>())
        .prop_map(|(len, byte)| vec![byte; len])
        .boxed()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, Vec<u8>),
    /// Removes the nth key that is there.
    RemoveNth(usize),
    Remove(Vec<u8>),
    Upsert(Vec<u8>, Action, Vec<u8>),
    /// Replaces the value of the nth key that is there.
    Replace(usize, Vec<u8>),
    Publish(bool),
    Look(Vec<u8>, Vec<u8>),
}

fn step() -> BoxedStrategy<Step> {
    let action = prop::sample::select(vec![Action::Keep, Action::Put, Action::Put, Action::Remove]);
    prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Step::Insert(key, value)),
        4 => any::<usize>().prop_map(Step::RemoveNth),
        1 => key().prop_map(Step::Remove),
        2 => (key(), action, value()).prop_map(|(key, action, value)| Step::Upsert(key, action, value)),
        3 => (any::<usize>(), value()).prop_map(|(nth, value)| Step::Replace(nth, value)),
        1 => any::<bool>().prop_map(Step::Publish),
        1 => (key(), key()).prop_map(|(from, to)| Step::Look(from, to)),
    ]
    .boxed()
}

fn nth_key(rig: &Rig, nth: usize) -> Option<Vec<u8>> {
    rig.model.keys().nth(nth % rig.model.len().max(1)).cloned()
}

fn run(rig: &mut Rig, step: &Step) {
    match step {
        Step::Insert(key, value) => rig.insert(key, value),
        Step::Remove(key) => rig.remove(key),
        Step::RemoveNth(nth) => {
            if let Some(key) = nth_key(rig, *nth) {
                rig.remove(&key);
            }
        }
        Step::Upsert(key, action, value) => rig.upsert(key, *action, value),
        Step::Replace(nth, value) => {
            if let Some(key) = nth_key(rig, *nth) {
                rig.upsert(&key, Action::Put, value);
            }
        }
        Step::Publish(keep) => rig.publish(*keep),
        Step::Look(from, to) => {
            rig.compare_get(from);
            rig.compare_seek(from);
            rig.compare_count(Bound::Included(from), Bound::Excluded(to));
            rig.compare_count(Bound::Excluded(from), Bound::Included(to));
            rig.compare_count(Bound::Unbounded, Bound::Excluded(to));
            rig.compare_count(Bound::Included(from), Bound::Unbounded);
        }
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn a_tree_is_whole_after_every_step(steps in vec(step(), 1..120)) {
        let mut rig = Rig::default();
        for step in &steps {
            run(&mut rig, step);
            rig.check();
        }
        rig.compare();
    }

    #[test]
    fn separators_of_any_length_move(
        entries in vec((grouped_key(), 900usize..=VALUE_MAX), 100..600),
        order in vec((any::<usize>(), grouped_key(), 0usize..200), 600),
    ) {
        let mut rig = Rig::default();
        for (key, len) in &entries {
            rig.insert(key, &vec![1; *len]);
        }
        rig.publish(true);
        for (n, (nth, key, len)) in order.iter().enumerate() {
            if let Some(key) = nth_key(&rig, *nth) {
                rig.remove(&key);
            }
            if n % 4 == 0 {
                rig.insert(key, &vec![2; *len]);
            }
            if n % 8 == 0 {
                rig.check();
            }
        }
        rig.check();
        rig.compare();
    }

    #[test]
    fn a_tree_reads_as_a_map_does_and_so_do_its_old_roots(steps in vec(step(), 300..1_200)) {
        let mut rig = Rig::default();
        for step in &steps {
            run(&mut rig, step);
        }
        rig.check();
        rig.compare();
    }

    #[test]
    fn a_tree_can_be_emptied_in_any_order(
        entries in vec((key(), value()), 1..400),
        order in vec(any::<usize>(), 400),
        publish in 1usize..50,
    ) {
        let mut rig = Rig::default();
        for (key, value) in &entries {
            rig.insert(key, value);
        }
        rig.publish(true);
        for (n, nth) in order.iter().enumerate() {
            let Some(key) = nth_key(&rig, *nth) else { break };
            rig.remove(&key);
            if n % publish == 0 {
                rig.check();
                rig.publish(n % 3 == 0);
            }
        }
        while let Some(key) = nth_key(&rig, 0) {
            rig.remove(&key);
        }
        rig.check();
        prop_assert_eq!(rig.pages.used(), vec![], "no page and no run is left");
        rig.compare();
    }

    #[test]
    fn relocation_empties_the_tail_and_changes_nothing(
        entries in vec((key(), value()), 1..600),
        removed in vec(any::<usize>(), 0..500),
        budget in 1usize..40,
    ) {
        let mut rig = Rig::default();
        for (key, value) in &entries {
            rig.insert(key, value);
            rig.publish(false);
        }
        for nth in &removed {
            run(&mut rig, &Step::RemoveNth(*nth));
        }
        rig.publish(true);
        let (pages, before) = (rig.check().pages(), highest(&rig));
        // room for every run at its lowest, and a hole for each page
        let limit = u32::try_from(pages * 2 + 8).expect("a small tree");
        rig.pages.move_from(limit);
        relocate(&mut rig, budget);
        prop_assert_eq!(rig.check().pages(), pages);
        let long_left = rig.model.keys().any(|key| key.len() > 4_000);
        prop_assert!(highest(&rig) < before.max(limit) || long_left, "pages moved down");
        rig.compare();
    }
}

fn highest(rig: &Rig) -> u32 {
    rig.pages.used().last().map_or(0, |page| page.0)
}

/// One pass over the tree, published after every step, as a store does it.
fn relocate(rig: &mut Rig, budget: usize) {
    let mut from = Vec::new();
    let mut passes = 0;
    while let Some(next) =
        btree::relocate(&mut rig.pages, TREE, &mut rig.root, &from, budget).expect("relocate")
    {
        assert!(next > from, "every step gets on");
        from = next;
        passes += 1;
        if passes % 2 == 0 {
            rig.publish(false);
        }
    }
    rig.publish(false);
}

#[test]
fn an_empty_tree_has_no_page() {
    let mut rig = Rig::default();
    rig.compare_get(b"a");
    rig.compare_count(Bound::Unbounded, Bound::Unbounded);
    rig.remove(b"a");
    rig.upsert(b"a", Action::Keep, b"1");
    rig.upsert(b"a", Action::Remove, b"1");
    rig.check();
    rig.compare();
    rig.upsert(b"a", Action::Put, b"1");
    rig.check();
    rig.remove(b"a");
    rig.check();
    assert!(rig.root.is_none());
}

#[test]
fn pages_filled_in_key_order_are_full() {
    let mut rig = Rig::default();
    for n in 0..20_000 {
        rig.insert(&number_key(n), &[7; 100]);
        if n % 100 == 0 {
            rig.publish(false);
        }
    }
    rig.compare();
    let summary = rig.check();
    let full = summary.used_bytes as f64 / (4064.0 * (summary.leaves + summary.branches) as f64);
    assert!(full > 0.95, "pages are {full:.2} full");
    assert_eq!(summary.levels, 3);
}

#[test]
fn pages_filled_in_falling_order_are_half_full() {
    let mut rig = Rig::default();
    for n in (0..20_000).rev() {
        rig.insert(&number_key(n), &[7; 100]);
        if n % 100 == 0 {
            rig.publish(false);
        }
    }
    rig.compare();
    let summary = rig.check();
    let full = summary.used_bytes as f64 / (4064.0 * (summary.leaves + summary.branches) as f64);
    assert!(full > 0.45, "pages are {full:.2} full");
}

#[test]
fn shorter_values_in_the_place_of_longer_ones_leave_pages_used() {
    let mut rig = Rig::default();
    for n in 0..2_000 {
        rig.insert(&number_key(n), &[7; 1_200]);
    }
    rig.publish(true);
    for n in 0..2_000 {
        rig.insert(&number_key(n), &[8; 20]);
    }
    rig.compare();
    let summary = rig.check();
    let full = summary.used_bytes as f64 / (4064.0 * (summary.leaves + summary.branches) as f64);
    assert!(full > 0.4, "pages are {full:.2} full");
}

#[test]
fn random_removals_leave_pages_used() {
    let mut rig = Rig::default();
    let mut numbers = Numbers(1);
    for n in 0..20_000 {
        rig.insert(&number_key(n), &[7; 60]);
    }
    rig.publish(true);
    let keys: Vec<_> = rig.model.keys().cloned().collect();
    for key in &keys {
        if numbers.next(10) > 0 {
            rig.remove(key);
        }
        if numbers.next(200) == 0 {
            rig.publish(false);
        }
    }
    let summary = rig.check();
    let full = summary.used_bytes as f64 / (4064.0 * (summary.leaves + summary.branches) as f64);
    assert!(full > 0.3, "pages are {full:.2} full with a tenth of the entries left");
    rig.compare();
    for key in &keys {
        rig.remove(key);
    }
    rig.check();
    assert!(rig.root.is_none());
    rig.compare();
}

#[test]
fn a_queue_stays_small() {
    let mut rig = Rig::default();
    for n in 0..30_000 {
        rig.insert(&number_key(n), &[7; 40]);
        if n >= 1_000 {
            rig.remove(&number_key(n - 1_000));
        }
        if n % 64 == 0 {
            rig.publish(false);
        }
    }
    let summary = rig.check();
    assert!(summary.pages() < 25, "1,000 entries of 54 bytes take {} pages", summary.pages());
    rig.compare();
}

#[test]
fn values_grow_and_shrink_where_they_are() {
    let mut rig = Rig::default();
    let mut numbers = Numbers(2);
    for n in 0..300 {
        rig.insert(&number_key(n), &[0; 12]);
    }
    for round in 0..20_000 {
        let key = number_key(numbers.next(300));
        let len = numbers.next(if round % 7 == 0 { VALUE_MAX as u64 + 1 } else { 60 });
        rig.insert(&key, &vec![round as u8; len as usize]);
        if round % 50 == 0 {
            rig.check();
            rig.publish(round % 1_000 == 0);
        }
    }
    rig.compare();
}

#[test]
fn the_largest_entries_fit() {
    for key_len in [1, KEY_INLINE_MAX - 1, KEY_INLINE_MAX, KEY_INLINE_MAX + 1, 5_000] {
        let mut rig = Rig::default();
        let mut numbers = Numbers(key_len as u64);
        for n in 0..200u64 {
            let mut key = vec![b'k'; key_len];
            let end = number_key(numbers.next(1_000));
            key.splice(key_len.saturating_sub(3).., end[5..].iter().copied());
            rig.insert(&key, &vec![n as u8; VALUE_MAX]);
            rig.check();
        }
        rig.compare();
        while let Some(key) = nth_key(&rig, numbers.next(1_000) as usize) {
            rig.remove(&key);
            rig.check();
        }
    }
}

#[test]
fn a_key_of_several_mebibytes_is_a_key() {
    let mut rig = Rig::default();
    for end in 0..6 {
        rig.insert(&long(3 << 20, end), &[end; 700]);
    }
    rig.insert(&vec![b'x'; 3 << 20], b"the beginning of all of them");
    rig.insert(b"x", b"of this one too");
    rig.check();
    rig.compare();
    rig.publish(true);
    rig.compare_count(Bound::Excluded(&long(3 << 20, 1)), Bound::Included(&long(3 << 20, 4)));
    rig.remove(&long(3 << 20, 3));
    rig.insert(&long(3 << 20, 4), b"shorter");
    rig.check();
    rig.compare();
}

#[test]
#[should_panic(expected = "a longer value is its owner's to put into a run")]
fn a_value_too_long_is_a_mistake() {
    Rig::default().insert(b"key", &[0; VALUE_MAX + 1]);
}

#[test]
fn a_cursor_stands_between_entries() {
    let mut rig = Rig::default();
    for n in 0..1_000 {
        rig.insert(&number_key(n * 2), &[1; 50]);
    }
    let mut cursor = Cursor::new(&rig.pages, TREE, rig.root.as_ref());
    let number = |entry: Option<btree::Entry<'_>>| {
        entry.map(|(key, _)| u64::from_be_bytes(key.as_ref().try_into().expect("8 bytes")))
    };
    cursor.seek(&number_key(501)).unwrap();
    assert_eq!(number(cursor.next().unwrap()), Some(502));
    assert_eq!(number(cursor.prev().unwrap()), Some(502));
    assert_eq!(number(cursor.prev().unwrap()), Some(500));
    cursor.seek_last_below(None).unwrap();
    assert_eq!(number(cursor.next().unwrap()), None);
    assert_eq!(number(cursor.prev().unwrap()), Some(1_998));
    cursor.seek_first().unwrap();
    assert_eq!(number(cursor.prev().unwrap()), None);
    assert_eq!(number(cursor.next().unwrap()), Some(0));
    let mut numbers = Numbers(3);
    let (mut at, mut cursor) = (0i64, Cursor::new(&rig.pages, TREE, rig.root.as_ref()));
    for _ in 0..2_000 {
        let (ahead, steps) = (numbers.next(2) == 0, numbers.next(90));
        for _ in 0..steps {
            let entry = if ahead { cursor.next() } else { cursor.prev() }.unwrap();
            let expected = if ahead { at } else { at - 1 };
            assert_eq!(number(entry), (0..1_000).contains(&expected).then(|| expected as u64 * 2));
            at = (at + if ahead { 1 } else { -1 }).clamp(0, 1_000);
        }
    }
}
