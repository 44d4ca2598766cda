//! Reads under way, counted, so that the directory is given up only after the last of them.
//!
//! ```text
//! a read      counts itself > looks whether it is over, and if so counts itself out
//! the end     says that it is over > waits until nobody is counted
//! ```
//! All four are sequentially consistent: either the read sees the end, or the end sees the read. So nobody reads pages of a
//! directory that another database may have by then. Threads must not be in each other's way, so the count stands in
//! several places, and each handle has one.

use super::error::Error;
use super::shell::Shared;
use crate::store::StoreReader;
use parking_lot::{Condvar, Mutex};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Places in which reads are counted.
const PLACES: usize = 16;

/// Two lines: the neighbour is fetched together with a line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place(AtomicUsize);

/// Who reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    places: [Place; PLACES],
    handles: AtomicUsize,
    over: AtomicBool,
    lock: Mutex<()>,
    left: Condvar,
}

impl Reads {
    fn next_place(&self) -> usize {
        self.handles.fetch_add(1, Ordering::Relaxed) % PLACES
    }

    /// Counts a read; `false`, and it is not counted, once it is over.
    fn enter(&self, place: usize) -> bool {
        self.places[place].0.fetch_add(1, Ordering::SeqCst);
        let over = self.over.load(Ordering::SeqCst);
        if over {
            self.leave(place);
        }
        !over
    }

    fn leave(&self, place: usize) {
        self.places[place].0.fetch_sub(1, Ordering::SeqCst);
        if self.over.load(Ordering::SeqCst) {
            // who waits has looked, and sleeps by the time this lock is had
            drop(self.lock.lock());
            self.left.notify_all();
        }
    }

    /// From now on nobody enters.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Waits until those who entered before [`Reads::end`] have left.
    pub(super) fn wait(&self) {
        let mut lock = self.lock.lock();
        while self.places.iter().any(|place| place.0.load(Ordering::SeqCst) > 0) {
            self.left.wait(&mut lock);
        }
    }
}

/// A handle's end for reading.
pub(super) struct Reader {
    shared: Arc<Shared>,
    /// Each handle has its own, so that threads are not in each other's way.
    store: StoreReader,
    place: usize,
}

impl Reader {
    pub(super) fn new(shared: &Arc<Shared>) -> Reader {
        let (store, place) = (shared.reader.clone(), shared.reads.next_place());
        Reader { shared: Arc::clone(shared), store, place }
    }

    /// Begins a read; it is under way until what this gives is dropped.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Fault`]: why it is over.
    pub(super) fn begin(&self) -> Result<Reading<'_>, Error> {
        if self.shared.reads.enter(self.place) { Ok(Reading(self)) } else { Err(self.shared.why()) }
    }

    /// For what is told of the root alone, which stays in memory: it touches no page, and is told after the end too.
    pub(super) fn root(&self) -> &StoreReader {
        &self.store
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Clone for Reader {
    fn clone(&self) -> Reader {
        Reader::new(&self.shared)
    }
}

/// A read under way: the directory stays this database's own as long as it lives.
pub(super) struct Reading<'r>(&'r Reader);

impl Deref for Reading<'_> {
    type Target = StoreReader;

    fn deref(&self) -> &StoreReader {
        &self.0.store
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.shared.reads.leave(self.0.place);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Db, Options};
    use super::*;
    use crate::command::PutRequest;
    use std::time::Duration;

    #[test]
    fn a_directory_is_given_up_after_the_last_read() {
        let temporary = tempfile::tempdir().expect("a directory");
        let open = || Db::open(Options::new(temporary.path()));
        let db = open().expect("it opens");
        db.put(PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() })
            .expect("it is put");
        let other = db.clone();
        let reading = other.reader.begin().expect("it is open");
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| db.close());
            while other.get("k").is_ok() {
                std::thread::yield_now();
            }
            assert!(matches!(other.get("k"), Err(Error::Closed)), "nobody else begins to read");
            let refused = open().expect_err("somebody reads");
            assert!(refused.to_string().contains("in use"), "{refused}");
            assert!(!closing.is_finished());
            drop(reading);
            closing.join().expect("it ends").expect("without a fault");
        });
        let again = open().expect("nobody reads, though handles are left");
        assert_eq!(again.get("k").expect("it is read").expect("it is there").value, "v");
        assert_eq!(other.position().revision, 2, "the root stays in memory");
    }

    #[test]
    fn the_end_waits_for_those_who_read_and_lets_nobody_in() {
        let reads = Reads::default();
        let (first, second) = (reads.next_place(), reads.next_place());
        assert!(reads.enter(first) && reads.enter(second) && reads.enter(second));
        reads.leave(second);
        reads.end();
        assert!(!reads.enter(first) && !reads.enter(second));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| reads.wait());
            reads.leave(second);
            // not a proof, but a wait that forgets one of the places is seen
            std::thread::park_timeout(Duration::from_millis(50));
            assert!(!waiting.is_finished(), "one still reads");
            reads.leave(first);
        });
    }

    #[test]
    fn whoever_comes_while_it_ends_is_counted_or_turned_away() {
        for _ in 0..200 {
            let reads = Reads::default();
            let given_up = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let place = reads.next_place();
                        while reads.enter(place) {
                            assert!(!given_up.load(Ordering::SeqCst), "it reads what was given up");
                            reads.leave(place);
                        }
                    });
                }
                std::thread::yield_now();
                reads.end();
                reads.wait();
                given_up.store(true, Ordering::SeqCst);
            });
        }
    }
}
