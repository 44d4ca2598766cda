//! Readers beside the writer, in thousands of orders: the table and what rests on it are compiled a second time here, over
//! atomics whose every access is a place where another thread may go on.
//!
//! One order of all accesses is assumed, as the sequentially consistent ones have it; that the others are strong enough
//! is argued in `page_table.rs`.
#![allow(dead_code, reason = "not everything of the second copy has a use in these tests")]

#[path = "../../doubling.rs"]
mod doubling;
#[path = "../../page_table.rs"]
mod page_table;
#[path = "../../readers.rs"]
mod readers;
#[path = "../../retire.rs"]
mod retire;
#[path = "../../reuse.rs"]
mod reuse;

/// What `pager::sync` is, of shuttle.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

    /// So few that some readers find none.
    pub(super) const SLOTS: usize = 2;
    pub(super) const ATOMICS_ARE_PLAIN: bool = false;

    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no thread panics in a lock")
        }
    }
}

use super::{TREE, fill, is_filled};
use crate::pager::page::{ChildRef, PageId};
use crate::pager::root::Root;
use crate::pager::{map_pages, page, root};
use page_table::{PageTable, Registration, TableWriter};
use reuse::{Freed, Reuse};
use shuttle::thread;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// What the file has at a place: the transaction whose page was written there last.
type File = Arc<std::sync::Mutex<BTreeMap<PageId, u64>>>;

/// A store of one page, which every transaction copies.
struct Writer {
    table: TableWriter,
    reuse: Reuse,
    free: Vec<PageId>,
    file: File,
    at: Option<ChildRef>,
    durable: u64,
}

impl Writer {
    fn new() -> Writer {
        Writer {
            table: TableWriter::new(Arc::new(Root::default()), None),
            reuse: Reuse::default(),
            free: (10..16).rev().map(PageId).collect(),
            file: File::default(),
            at: None,
            durable: 0,
        }
    }

    fn publish(&mut self) {
        let tx = self.table.root().tx + 1;
        let id = self.free.pop().expect("there are ids for all readers and the durable root");
        let mut page = self.table.blank();
        fill(&mut page, id, tx);
        self.table.install(id, tx, page.share());
        let old = self.at.replace(ChildRef { id, tx, crc: None, count: 0 });
        let mut root = Root { tx, ..Root::default() };
        root.trees[TREE.place()] = self.at;
        self.table.publish(Arc::new(root));
        if let Some(old) = old {
            self.reuse.freed(tx, Freed { id: old.id, born: old.tx }, old.tx <= self.durable);
        }
    }

    /// The page goes to the file.
    fn write(&mut self) {
        let at = self.at.expect("something was published");
        self.file.lock().expect("no poison").insert(at.id, at.tx);
        self.table.clear(at.id, at.tx);
    }

    /// The newest root, whose page was written, becomes durable.
    fn make_durable(&mut self) {
        let root = Arc::clone(self.table.root());
        self.durable = root.tx;
        self.table.set_durable(root);
        self.reuse.durable(self.durable);
    }

    fn reclaim(&mut self) {
        let mut free = Vec::new();
        self.reuse.settle(self.table.reclaim(100), 100, |id| free.push(id));
        for id in free {
            self.table.clear(id, self.table.tx_at(id));
            self.free.insert(0, id);
        }
    }
}

/// Whether the reader sees its root's page, in memory or in the file.
fn see<T: Deref<Target = PageTable>>(reader: &Registration<T>, file: &File) {
    let root = reader.root();
    let Some(at) = root.trees[TREE.place()] else { return assert_eq!(root.tx, 0) };
    assert_eq!(at.tx, root.tx, "the root is whole");
    match reader.page(at.id, at.tx) {
        Some(page) => assert!(is_filled(page, at.id, at.tx), "{page:?} of tx {}", at.tx),
        None => assert_eq!(file.lock().expect("no poison").get(&at.id), Some(&at.tx), "{at:?} is nowhere"),
    }
    thread::yield_now();
    assert_eq!(reader.root().tx, at.tx);
    if let Some(page) = reader.page(at.id, at.tx) {
        thread::yield_now();
        assert!(is_filled(page, at.id, at.tx), "{page:?} of tx {}", at.tx);
    }
}

fn readers_beside_a_writer() {
    let mut writer = Writer::new();
    let mut threads = Vec::new();
    for reader in 0..3 {
        let (table, file) = (Arc::clone(writer.table.table()), Arc::clone(&writer.file));
        threads.push(thread::spawn(move || {
            let home = table.next_home() % sync::SLOTS;
            see(&table.read(home), &file);
            if reader == 0 {
                see(&table.pin_durable(home), &file);
            } else {
                see(&table.pin_newest(home), &file);
            }
        }));
    }
    for step in 0..5 {
        writer.publish();
        if step % 2 == 1 {
            writer.write();
            writer.reclaim();
            writer.make_durable();
        }
        writer.reclaim();
    }
    for thread in threads {
        thread.join().expect("a reader saw what it must");
    }
    // with the readers, what they held back is gone
    writer.reclaim();
    writer.reclaim();
    assert_eq!(writer.table.retired(), 0);
    assert_eq!(writer.free.len(), 6 - 2, "the durable and the newest page are left");
}

#[test]
fn in_random_orders() {
    shuttle::check_random(readers_beside_a_writer, 2000);
}

#[test]
fn in_orders_with_few_changes_of_thread() {
    shuttle::check_pct(readers_beside_a_writer, 2000, 4);
}
