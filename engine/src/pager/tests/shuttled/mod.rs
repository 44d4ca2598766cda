//! Readers beside the writer, in thousands of orders: the table and what rests on it are compiled a second time here, over
//! atomics whose every access is a place where another thread may go on.
//!
//! One order of all accesses is assumed, as the sequentially consistent ones have it; that the others are strong enough
//! is argued in `page_table.rs`.
#![allow(clippy::duplicate_mod, reason = "that is what is wanted")]
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

    pub(super) fn gap() {
        shuttle::thread::yield_now();
    }

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

/// A root that shows when it is gone.
mod root {
    use crate::pager::page::ChildRef;

    #[derive(Clone, Default)]
    pub(super) struct Root {
        pub(super) tx: u64,
        pub(super) page: Option<ChildRef>,
    }

    impl Drop for Root {
        fn drop(&mut self) {
            self.tx = u64::MAX;
            std::hint::black_box(&mut self.tx);
        }
    }
}

use super::{fill, is_filled};
use crate::pager::page::{ChildRef, PageId};
use crate::pager::{map_pages, page};
use page_table::{PageTable, Registration, TableWriter};
use reuse::{Freed, Reuse};
use root::Root;
use shuttle::thread;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Weak};

/// Ids there are: for the newest and the durable root, and those of all readers.
const IDS: usize = 6;

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
    /// Keeps the memory of roots that are gone, so that whoever reads them sees that.
    roots: Vec<Weak<Root>>,
}

impl Writer {
    fn new() -> Writer {
        let root = Arc::new(Root::default());
        Writer {
            roots: vec![Arc::downgrade(&root)],
            table: TableWriter::new(root, None),
            reuse: Reuse::default(),
            free: (10..).take(IDS).map(PageId).collect(),
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
        let root = Arc::new(Root { tx, page: self.at });
        self.roots.push(Arc::downgrade(&root));
        self.table.publish(root);
        if let Some(old) = old {
            self.reuse.freed(tx, Freed { id: old.id, born: old.tx }, old.tx <= self.durable);
        }
    }

    /// The newest root becomes durable, its page with it.
    fn checkpoint(&mut self) {
        let at = self.at.expect("something was published");
        self.file.lock().expect("no poison").insert(at.id, at.tx);
        self.table.clear(at.id, at.tx);
        let root = Arc::clone(self.table.root());
        self.durable = root.tx;
        self.table.set_durable(root);
        self.reuse.durable(self.durable);
    }

    fn reclaim(&mut self) {
        let mut free = Vec::new();
        self.reuse.settle(self.table.readers(), 100, |id| free.push(id));
        for id in free {
            self.table.clear(id, self.table.tx_at(id));
            self.free.push(id);
        }
        self.table.reclaim(100);
    }

    fn spawn_reader(&self, how: How, rounds: usize) -> thread::JoinHandle<()> {
        let (table, file) = (Arc::clone(self.table.table()), Arc::clone(&self.file));
        thread::spawn(move || {
            let home = table.next_home() % sync::SLOTS;
            for _ in 0..rounds {
                match how {
                    How::Newest => see(&table.read(home), &file),
                    How::Durable => see(&table.pin_durable(home), &file),
                }
            }
        })
    }
}

/// Whether the reader sees its root's page, in memory or in the file.
fn see<T: Deref<Target = PageTable>>(reader: &Registration<T>, file: &File) {
    let root = reader.root();
    let Some(at) = root.page else { return assert_eq!(root.tx, 0) };
    assert_eq!(at.tx, root.tx, "the root is there");
    match reader.page(at.id, at.tx) {
        Some(page) => assert!(is_filled(page, at.id, at.tx), "{page:?} of tx {}", at.tx),
        None => assert_eq!(file.lock().expect("no poison").get(&at.id), Some(&at.tx), "{at:?} is nowhere"),
    }
    thread::yield_now();
    assert_eq!(reader.root().tx, at.tx);
    match reader.page(at.id, at.tx) {
        Some(page) => {
            thread::yield_now();
            assert!(is_filled(page, at.id, at.tx), "{page:?} of tx {}", at.tx);
        }
        None => assert_eq!(
            file.lock().expect("no poison").get(&at.id),
            Some(&at.tx),
            "{at:?} is nowhere any more"
        ),
    }
}

/// How a reader registers.
#[derive(Clone, Copy)]
enum How {
    Newest,
    Durable,
}

/// Readers, each registering so often, beside a writer.
fn beside_a_writer(readers: &[How], rounds: usize) {
    let mut writer = Writer::new();
    writer.publish();
    writer.checkpoint();
    let threads: Vec<_> = readers.iter().map(|how| writer.spawn_reader(*how, rounds)).collect();
    for step in 0..6 {
        writer.publish();
        if step % 2 == 1 {
            writer.checkpoint();
        }
        writer.reclaim();
    }
    for thread in threads {
        thread.join().expect("a reader saw what it must");
    }
    // with the readers, what they held back is gone
    writer.reclaim();
    assert_eq!(writer.table.retired(), 0);
    assert_eq!(writer.free.len(), IDS - 1, "only the newest page, which is durable, is left");
}

#[test]
fn one_reader_of_the_newest_root() {
    shuttle::check_pct(|| beside_a_writer(&[How::Newest], 1), 3000, 4);
}

#[test]
fn one_reader_of_the_durable_root() {
    shuttle::check_pct(|| beside_a_writer(&[How::Durable], 1), 2000, 2);
}

#[test]
fn more_readers_than_places() {
    let readers = [How::Newest, How::Durable, How::Newest];
    shuttle::check_random(move || beside_a_writer(&readers, 3), 500);
    shuttle::check_pct(move || beside_a_writer(&readers, 1), 500, 4);
}
