//! coffer's B+tree alone, over its pager in memory: each transaction is published, readers register.

use crate::work::{Key, Peer, Value, prefix};
use coffer_engine::btree::{self, Cursor};
use coffer_engine::pager::page::{ChildRef, TREES, TreeId};
use coffer_engine::pager::root::{Cluster, Standing};
use coffer_engine::pager::{Pager, PagerReader};
use std::ops::Bound;
use std::sync::Arc;

const TREE: TreeId = TreeId::Keys;

/// One tree.
pub struct Tree {
    pager: Pager,
    reader: PagerReader,
    root: Option<ChildRef>,
    cluster: Arc<Cluster>,
}

impl Tree {
    /// An empty one.
    pub fn new() -> Tree {
        let pager = Pager::in_memory();
        Tree { reader: pager.reader(), pager, root: None, cluster: Arc::default() }
    }
}

impl Peer for Tree {
    fn write(&mut self, batch: &[(Key, Value)]) {
        for (key, value) in batch {
            btree::insert(&mut self.pager, TREE, &mut self.root, key, value).expect("memory has no faults");
        }
        let mut trees = [None; TREES];
        trees[TREE.place()] = self.root;
        self.pager.publish(trees, Standing::default(), Arc::clone(&self.cluster));
    }

    fn get(&self, keys: &[Key]) -> u64 {
        let pages = self.reader.read();
        let root = pages.root().tree(TREE);
        let first = |key: &Key| {
            let value = btree::get(&pages, TREE, root.as_ref(), key).expect("memory has no faults");
            u64::from(value.expect("the key is there")[0])
        };
        keys.iter().map(first).sum()
    }

    fn scan(&self) -> (u64, u64) {
        let pages = self.reader.read();
        let root = pages.root().tree(TREE);
        let mut cursor = Cursor::new(&pages, TREE, root.as_ref());
        let (mut keys, mut sum) = (0, 0);
        while let Some((_, value)) = cursor.next().expect("memory has no faults") {
            keys += 1;
            sum += u64::from(value[0]);
        }
        (keys, sum)
    }

    fn count(&self) -> u64 {
        let pages = self.reader.read();
        let root = pages.root().tree(TREE);
        let (from, to) = prefix();
        btree::count(&pages, TREE, root.as_ref(), Bound::Included(&from), Bound::Excluded(&to))
            .expect("memory has no faults")
    }

    fn file_bytes(&self) -> Option<u64> {
        None
    }
}
