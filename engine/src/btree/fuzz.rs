//! What a fuzzer of trees runs (feature `sim`): bytes are laid over the pages of a small tree, and everything is done with
//! it that can be done. Nothing panics, every walk ends, and a tree that [`check()`] accepts works as a map does.
//!
//! ```text
//! input: pieces, one after the other
//!   +---------+--------+-----------+---------------+
//!   | page  1 | at   2 | length  1 | bytes         |   page: the nth of the tree; at and length little-endian
//!   +---------+--------+-----------+---------------+
//! ```

use super::mem::MemPages;
use super::{Cursor, KEY_INLINE_MAX, check, count, get, insert, rank, relocate, remove, total, validate};
use crate::pager::page::{ChildRef, PAGE_BYTES, PageId, TreeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

const TREE: TreeId = TreeId::Keys;
/// Entries a walk may give: more than all pages could hold.
const WALK_MAX: usize = 100_000;

/// Inputs to start from: a head, slots and a cell of each kind of page, changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for page in 0..12u8 {
        for at in [12u16, 14, 24, 26, 32, 34, 36, 2_000, 4_000, 4_090] {
            let [low, high] = at.to_le_bytes();
            seeds.push(vec![page, low, high, 2, 1, 0]);
        }
    }
    seeds
}

struct Tree {
    pages: MemPages,
    root: Option<ChildRef>,
}

/// A tree of some leaves, a branch and long keys.
fn undamaged() -> Tree {
    let mut tree = Tree { pages: MemPages::new(), root: None };
    for n in 0..200u32 {
        let mut key = format!("key {:03}", n * 77 % 200).into_bytes();
        if n % 20 == 0 {
            key.resize(KEY_INLINE_MAX + n as usize, b'l');
        }
        let value = vec![n as u8; n as usize % 90];
        insert(&mut tree.pages, TREE, &mut tree.root, &key, &value).expect("an undamaged tree works");
    }
    tree.pages.publish();
    tree.pages.lenient();
    tree
}

fn lay_over(pages: &mut MemPages, input: &[u8]) {
    let used = pages.used();
    let mut rest = input;
    while let [page, low, high, len, more @ ..] = rest {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % PAGE_BYTES;
        let len = usize::from(*len).min(more.len()).min(PAGE_BYTES - at);
        let (piece, behind) = more.split_at(len);
        if let Some(page) = pages.damage(used[usize::from(*page) % used.len()]) {
            page.0[at..at + len].copy_from_slice(piece);
        }
        rest = behind;
    }
}

/// Uses the tree that `input` stands for. Gives whether a check accepted it.
///
/// # Panics
/// The fuzzer's find.
pub fn run(input: &[u8]) -> bool {
    let mut tree = undamaged();
    lay_over(&mut tree.pages, input);
    let accepted = is_whole(&tree);
    let mut model = read(&tree, accepted);
    let keys: Vec<Vec<u8>> = model.keys().step_by(5).cloned().chain([b"key 100".to_vec(), vec![]]).collect();
    for key in &keys {
        let (found, below) = (get(&tree.pages, TREE, tree.root.as_ref(), key), number(&tree, key));
        if accepted {
            assert_eq!(found.expect("accepted"), model.get(key).map(Vec::as_slice));
            assert_eq!(
                below,
                Some(model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&key[..]))).count())
            );
        }
    }
    change(&mut tree, &keys, &mut model, accepted);
    if accepted {
        assert!(is_whole(&tree), "a tree that was accepted stays whole");
        assert!(read(&tree, true) == model, "a tree that was accepted works as a map does");
    }
    accepted
}

fn number(tree: &Tree, key: &[u8]) -> Option<usize> {
    let root = tree.root.as_ref();
    let below = count(&tree.pages, TREE, root, Bound::Unbounded, Bound::Excluded(key)).ok()?;
    let ranked = rank(&tree.pages, TREE, root, key, false).expect("the same walk");
    assert_eq!(below, ranked);
    usize::try_from(below).ok()
}

/// Whether a check accepts the tree and reaches each page once.
fn is_whole(tree: &Tree) -> bool {
    for place in tree.pages.used() {
        if let Some(page) = tree.pages.at(place) {
            // whatever it finds
            let _ = validate(page);
        }
    }
    let mut reached = BTreeSet::<PageId>::new();
    let mut twice = false;
    let found = check(&tree.pages, TREE, tree.root.as_ref(), &mut |page| twice |= !reached.insert(page));
    matches!(found, Ok(Ok(_))) && !twice
}

/// All entries that can be read, in the order in which they come.
fn read(tree: &Tree, accepted: bool) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut cursor = Cursor::new(&tree.pages, TREE, tree.root.as_ref());
    let mut entries = Vec::new();
    while let Ok(Some((key, value))) = cursor.next() {
        entries.push((key.into_owned(), value.to_vec()));
        assert!(entries.len() < WALK_MAX, "a walk ends");
    }
    let mut back = 0;
    while let Ok(Some(_)) = cursor.prev() {
        back += 1;
        assert!(back < WALK_MAX, "a walk ends");
    }
    if accepted {
        assert!(entries.is_sorted_by(|(left, _), (right, _)| left < right), "keys ascend");
        assert_eq!((entries.len() as u64, back), (total(tree.root.as_ref()), entries.len()));
    }
    entries.into_iter().collect()
}

fn change(tree: &mut Tree, keys: &[Vec<u8>], model: &mut BTreeMap<Vec<u8>, Vec<u8>>, accepted: bool) {
    let Tree { pages, root } = tree;
    let moved = relocate(pages, TREE, root, b"key 0", 50);
    assert!(!accepted || moved.is_ok());
    pages.publish();
    pages.move_from(5);
    let moved = relocate(pages, TREE, root, b"", 1_000);
    assert!(!accepted || moved.is_ok());
    for (n, key) in keys.iter().enumerate() {
        let value = vec![n as u8; n * 37 % 1_300];
        let (done, expected) = if n % 2 == 0 {
            (remove(pages, TREE, root, key), model.remove(key).is_some())
        } else {
            (insert(pages, TREE, root, key, &value), model.insert(key.clone(), value).is_some())
        };
        assert!(!accepted || done.is_ok_and(|done| done == expected));
    }
}
