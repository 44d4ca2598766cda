//! A tree beside a map from the standard library: every change is made to both, and they are compared.

use coffer_engine::btree::mem::{MemPages, MemSnapshot};
use coffer_engine::btree::{self, Action, CheckSummary, Cursor};
use coffer_engine::pager::Pages;
use coffer_engine::pager::page::{ChildRef, PageId, TreeId};
use std::collections::BTreeMap;
use std::ops::Bound;

pub(crate) const TREE: TreeId = TreeId::Keys;

pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A root that stays, with what was in it.
struct Old {
    pages: MemSnapshot,
    root: Option<ChildRef>,
    model: Model,
}

#[derive(Default)]
pub(crate) struct Rig {
    pub(crate) pages: MemPages,
    pub(crate) root: Option<ChildRef>,
    pub(crate) model: Model,
    old: Vec<Old>,
    buffer: Vec<u8>,
}

impl Rig {
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8]) {
        let replaced = btree::insert(&mut self.pages, TREE, &mut self.root, key, value).expect("insert");
        let old = self.model.insert(key.to_vec(), value.to_vec());
        assert_eq!(replaced, old.is_some(), "whether the key was there");
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        let there = btree::remove(&mut self.pages, TREE, &mut self.root, key).expect("remove");
        assert_eq!(there, self.model.remove(key).is_some(), "whether the key was there");
    }

    /// Puts a value made of the old one, or keeps or removes the entry.
    pub(crate) fn upsert(&mut self, key: &[u8], action: Action, value: &[u8]) {
        let old = self.model.get(key).cloned();
        let told =
            btree::upsert_with(&mut self.pages, TREE, &mut self.root, key, &mut self.buffer, |seen, new| {
                assert!(new.is_empty(), "the vector is empty at first");
                new.extend_from_slice(value);
                (action, seen.map(<[u8]>::to_vec))
            });
        assert_eq!(told.expect("upsert"), old, "the value that was seen");
        match action {
            Action::Keep => {}
            Action::Put => drop(self.model.insert(key.to_vec(), value.to_vec())),
            Action::Remove => drop(self.model.remove(key)),
        }
    }

    /// Publishes, and keeps the root to compare it later.
    pub(crate) fn publish(&mut self, keep: bool) {
        self.pages.publish();
        if keep {
            let model = self.model.clone();
            self.old.push(Old { pages: self.pages.snapshot(), root: self.root, model });
        }
    }

    /// The whole tree holds together, its pages are all that are used, none is reached twice, and each is right alone.
    pub(crate) fn check(&self) -> CheckSummary {
        let mut reached: Vec<PageId> = Vec::new();
        let found = btree::check(&self.pages, TREE, self.root.as_ref(), &mut |page| reached.push(page));
        let summary = found.expect("all pages can be had").unwrap_or_else(|problem| panic!("{problem}"));
        reached.sort_unstable();
        assert_eq!(reached, self.pages.used(), "the pages reached, each once, are the pages used");
        assert_eq!(summary.entries, self.model.len() as u64);
        assert_eq!(btree::total(self.root.as_ref()), self.model.len() as u64);
        assert_eq!(summary.pages(), reached.len() as u64);
        assert_eq!(self.root.is_none(), self.model.is_empty(), "an empty tree has no page");
        summary
    }

    /// The tree reads as the map does, both ways; so do all old roots.
    pub(crate) fn compare(&self) {
        compare(&self.pages, self.root.as_ref(), &self.model);
        for old in &self.old {
            compare(&old.pages, old.root.as_ref(), &old.model);
        }
    }

    pub(crate) fn compare_get(&self, key: &[u8]) {
        let found = btree::get(&self.pages, TREE, self.root.as_ref(), key).expect("get");
        assert_eq!(found, self.model.get(key).map(Vec::as_slice));
    }

    pub(crate) fn compare_count(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) {
        let found = btree::count(&self.pages, TREE, self.root.as_ref(), from, to).expect("count");
        assert_eq!(found, count(&self.model, from, to), "entries in {from:?} to {to:?}");
    }

    /// Stands at `key` and goes both ways from there.
    pub(crate) fn compare_seek(&self, key: &[u8]) {
        let mut cursor = Cursor::new(&self.pages, TREE, self.root.as_ref());
        let behind = self.model.range::<[u8], _>((Bound::Included(key), Bound::Unbounded)).take(5);
        cursor.seek(key).expect("seek");
        for expected in behind {
            assert_eq!(owned(cursor.next().expect("next")), Some((expected.0.clone(), expected.1.clone())));
        }
        let before = self.model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).rev().take(5);
        cursor.seek_last_below(Some(key)).expect("seek_last_below");
        for expected in before {
            assert_eq!(owned(cursor.prev().expect("prev")), Some((expected.0.clone(), expected.1.clone())));
        }
    }
}

fn owned(entry: Option<btree::Entry<'_>>) -> Option<(Vec<u8>, Vec<u8>)> {
    entry.map(|(key, value)| (key.into_owned(), value.to_vec()))
}

/// Entries of a map in a range that may be upside down.
fn count(model: &Model, from: Bound<&[u8]>, to: Bound<&[u8]>) -> u64 {
    let behind = |key: &[u8]| match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let before = |key: &[u8]| match to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    model.keys().filter(|key| behind(key) && before(key)).count() as u64
}

pub(crate) fn compare(pages: &impl Pages, root: Option<&ChildRef>, model: &Model) {
    let mut cursor = Cursor::new(pages, TREE, root);
    for (key, value) in model {
        let (found, there) = cursor.next().expect("next").expect("as many entries as the map");
        assert!(*found == **key && there == value, "the next entry");
    }
    assert!(cursor.next().expect("next").is_none(), "no more entries than the map");
    assert!(cursor.next().expect("next").is_none(), "and it stays so");
    for (key, value) in model.iter().rev() {
        let (found, there) = cursor.prev().expect("prev").expect("as many entries as the map");
        assert!(*found == **key && there == value, "the entry before");
    }
    assert!(cursor.prev().expect("prev").is_none(), "no more entries than the map");
    for (key, value) in model {
        assert_eq!(btree::get(pages, TREE, root, key).expect("get"), Some(value.as_slice()));
    }
}
