//! Which watchers want a key: exact keys in a map, ranges in a balanced tree of intervals.
//!
//! ```text
//! node = (start, end) -> watchers          ordered by (start, end), AVL-balanced
//!        max_end = the largest end of the subtree
//! ```
//! A look-up goes left only where `max_end` lies above the key and right only where `start` lies at or below it, so
//! that it costs O(log n) and the matches, not all ranges. Watchers of the same range share one node, which is what
//! thousands of clients following one prefix look like.

use bytes::Bytes;
use coffer_engine::mvcc::KeyRange;
use std::cmp::Ordering;
use std::collections::HashMap;

/// The end of an interval, exclusive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Before this key.
    At(Bytes),
    /// Nowhere: the interval is open.
    Open,
}

impl End {
    fn of(range: &KeyRange) -> End {
        if range.is_open_ended() { End::Open } else { End::At(range.range_end.clone()) }
    }

    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            End::At(end) => end.as_ref() > key,
            End::Open => true,
        }
    }
}

const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: End,
    max_end: End,
    height: u8,
    left: u32,
    right: u32,
    values: Vec<T>,
}

/// Values by the range of keys they want.
#[derive(Debug)]
pub(super) struct Index<T> {
    points: HashMap<Bytes, Vec<T>>,
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    root: u32,
}

impl<T> Default for Index<T> {
    fn default() -> Index<T> {
        Index { points: HashMap::new(), nodes: Vec::new(), free: Vec::new(), root: NIL }
    }
}

impl<T: Copy + Eq> Index<T> {
    /// Adds a value; the range must not be empty.
    pub(super) fn insert(&mut self, range: &KeyRange, value: T) {
        if range.is_single() {
            self.points.entry(range.key.clone()).or_default().push(value);
        } else {
            self.root = self.insert_at(self.root, &range.key, &End::of(range), value);
        }
    }

    /// Takes a value out; whether it was there.
    pub(super) fn remove(&mut self, range: &KeyRange, value: T) -> bool {
        if !range.is_single() {
            let (root, found) = self.remove_at(self.root, &range.key, &End::of(range), Some(value));
            self.root = root;
            return found;
        }
        let Some(values) = self.points.get_mut(&range.key) else { return false };
        let found = take(values, value);
        if values.is_empty() {
            self.points.remove(&range.key);
        }
        found
    }

    /// Calls `visit` with every value.
    pub(super) fn for_each(&self, visit: impl FnMut(T)) {
        let in_nodes = self.nodes.iter().flat_map(|node| &node.values);
        self.points.values().flatten().chain(in_nodes).copied().for_each(visit);
    }

    /// Calls `visit` with each value whose range holds `key`.
    pub(super) fn matches(&self, key: &[u8], mut visit: impl FnMut(T)) {
        if let Some(values) = self.points.get(key) {
            values.iter().for_each(|value| visit(*value));
        }
        self.visit_at(self.root, key, &mut visit);
    }

    fn visit_at(&self, at: u32, key: &[u8], visit: &mut impl FnMut(T)) {
        let Some(node) = self.nodes.get(at as usize) else { return };
        if !node.max_end.is_above(key) {
            return;
        }
        self.visit_at(node.left, key, visit);
        if node.start.as_ref() <= key {
            if node.end.is_above(key) {
                node.values.iter().for_each(|value| visit(*value));
            }
            self.visit_at(node.right, key, visit);
        }
    }

    fn insert_at(&mut self, at: u32, start: &Bytes, end: &End, value: T) -> u32 {
        if at == NIL {
            return self.new_node(start, end, value);
        }
        match order(&self.nodes[at as usize], start, end) {
            Ordering::Equal => {
                self.nodes[at as usize].values.push(value);
                return at;
            }
            Ordering::Less => {
                let left = self.insert_at(self.nodes[at as usize].left, start, end, value);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = self.insert_at(self.nodes[at as usize].right, start, end, value);
                self.nodes[at as usize].right = right;
            }
        }
        self.balance(at)
    }

    /// Takes `value` (or, without one, the whole node) out of the subtree; its new root, and whether it was there.
    fn remove_at(&mut self, at: u32, start: &Bytes, end: &End, value: Option<T>) -> (u32, bool) {
        if at == NIL {
            return (NIL, false);
        }
        let found = match order(&self.nodes[at as usize], start, end) {
            Ordering::Less => {
                let (left, found) = self.remove_at(self.nodes[at as usize].left, start, end, value);
                self.nodes[at as usize].left = left;
                found
            }
            Ordering::Greater => {
                let (right, found) = self.remove_at(self.nodes[at as usize].right, start, end, value);
                self.nodes[at as usize].right = right;
                found
            }
            Ordering::Equal => {
                let node = &mut self.nodes[at as usize];
                let found = value.is_none_or(|value| take(&mut node.values, value));
                if !found || (value.is_some() && !node.values.is_empty()) {
                    return (at, found);
                }
                return (self.unlink(at), true);
            }
        };
        (self.balance(at), found)
    }

    /// Takes the node `at` out; what stands in its place.
    fn unlink(&mut self, at: u32) -> u32 {
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        if left == NIL || right == NIL {
            self.release(at);
            return if left == NIL { right } else { left };
        }
        let mut next = right;
        while self.nodes[next as usize].left != NIL {
            next = self.nodes[next as usize].left;
        }
        let successor = &mut self.nodes[next as usize];
        let (start, end) = (successor.start.clone(), successor.end.clone());
        let values = std::mem::take(&mut successor.values);
        let (right, _) = self.remove_at(right, &start, &end, None);
        let node = &mut self.nodes[at as usize];
        (node.start, node.end, node.values, node.right) = (start, end, values, right);
        self.balance(at)
    }

    fn new_node(&mut self, start: &Bytes, end: &End, value: T) -> u32 {
        let node = Node {
            start: start.clone(),
            end: end.clone(),
            max_end: end.clone(),
            height: 1,
            left: NIL,
            right: NIL,
            values: vec![value],
        };
        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes fit into memory")
            }
        }
    }

    fn release(&mut self, at: u32) {
        let node = &mut self.nodes[at as usize];
        (node.start, node.end, node.max_end) = (Bytes::new(), End::Open, End::Open);
        node.values = Vec::new();
        self.free.push(at);
    }

    fn height(&self, at: u32) -> u8 {
        self.nodes.get(at as usize).map_or(0, |node| node.height)
    }

    fn lean(&self, at: u32) -> i16 {
        let node = &self.nodes[at as usize];
        i16::from(self.height(node.left)) - i16::from(self.height(node.right))
    }

    /// Computes what a node keeps about its subtree.
    fn refresh(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let height = 1 + self.height(node.left).max(self.height(node.right));
        let children = [node.left, node.right];
        let below = children.iter().filter_map(|child| self.nodes.get(*child as usize));
        let max_end = below.map(|child| &child.max_end).fold(&node.end, |most, each| most.max(each)).clone();
        let node = &mut self.nodes[at as usize];
        (node.height, node.max_end) = (height, max_end);
    }

    fn balance(&mut self, at: u32) -> u32 {
        self.refresh(at);
        let lean = self.lean(at);
        if lean > 1 {
            let left = self.nodes[at as usize].left;
            if self.lean(left) < 0 {
                self.nodes[at as usize].left = self.rotate_left(left);
            }
            self.rotate_right(at)
        } else if lean < -1 {
            let right = self.nodes[at as usize].right;
            if self.lean(right) > 0 {
                self.nodes[at as usize].right = self.rotate_right(right);
            }
            self.rotate_left(at)
        } else {
            at
        }
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let up = self.nodes[at as usize].right;
        self.nodes[at as usize].right = self.nodes[up as usize].left;
        self.refresh(at);
        self.nodes[up as usize].left = at;
        self.refresh(up);
        up
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let up = self.nodes[at as usize].left;
        self.nodes[at as usize].left = self.nodes[up as usize].right;
        self.refresh(at);
        self.nodes[up as usize].right = at;
        self.refresh(up);
        up
    }
}

fn order<T>(node: &Node<T>, start: &Bytes, end: &End) -> Ordering {
    (start, end).cmp(&(&node.start, &node.end))
}

fn take<T: Eq>(values: &mut Vec<T>, value: T) -> bool {
    match values.iter().position(|each| *each == value) {
        Some(place) => {
            values.swap_remove(place);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> Bytes {
        Bytes::from(vec![b'a' + n / 8, b'a' + n % 8])
    }

    fn range(start: u8, end: u8) -> KeyRange {
        match end {
            64 => KeyRange::single(key(start)),
            65.. => KeyRange::new(key(start), vec![0]),
            _ => KeyRange::new(key(start.min(end)), key(start.max(end) + 1)),
        }
    }

    fn found(index: &Index<u32>, at: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        index.matches(at, |value| found.push(value));
        found.sort_unstable();
        found
    }

    impl Index<u32> {
        /// Depth of the subtree, after checking balance, order and largest end.
        fn checked(&self, at: u32) -> u8 {
            let Some(node) = self.nodes.get(at as usize) else { return 0 };
            let (left, right) = (self.checked(node.left), self.checked(node.right));
            assert!(left.abs_diff(right) <= 1, "the tree leans");
            assert_eq!(node.height, 1 + left.max(right));
            assert!(!node.values.is_empty(), "a node without watchers");
            for (child, below) in [(node.left, true), (node.right, false)] {
                if let Some(child) = self.nodes.get(child as usize) {
                    assert_eq!((&child.start, &child.end) < (&node.start, &node.end), below);
                    assert!(child.max_end <= node.max_end);
                }
            }
            node.height
        }
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(steps in prop::collection::vec((0u8..64, 0u8..70, any::<bool>()), 1..200)) {
            let mut index = Index::default();
            let mut all: Vec<(KeyRange, u32)> = Vec::new();
            for (number, (start, end, remove)) in steps.into_iter().enumerate() {
                if remove && !all.is_empty() {
                    let (range, value) = all.swap_remove(start as usize % all.len());
                    prop_assert!(index.remove(&range, value));
                    prop_assert!(!index.remove(&range, value));
                } else {
                    let value = u32::try_from(number).unwrap();
                    index.insert(&range(start, end), value);
                    all.push((range(start, end), value));
                }
                index.checked(index.root);
            }
            for n in 0..64 {
                let mut expected: Vec<u32> =
                    all.iter().filter(|(range, _)| range.contains(&key(n))).map(|(_, value)| *value).collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&index, &key(n)), expected);
            }
        }
    }

    #[test]
    fn ten_thousand_ranges_stand_in_a_flat_tree() {
        let mut index = Index::default();
        for n in 0..10_000u32 {
            let start = n.to_be_bytes().to_vec();
            index.insert(&KeyRange::new(start, (n + 1).to_be_bytes().to_vec()), n);
        }
        assert!(index.checked(index.root) <= 20, "the depth is logarithmic");
        assert_eq!(found(&index, &4_711u32.to_be_bytes()), [4_711]);
    }
}
