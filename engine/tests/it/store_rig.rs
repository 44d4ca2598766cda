//! A store over a page file on the simulated disk, driven by a fixed history whose every state the model has told before.
//!
//! ```text
//! history:  acts (batches, compaction's walk, turns of the disk, checkpoints, ...)  > life: disk, store
//!           what the model says after entry 0, 1, 2, ...                            > what any life is compared with
//! ```
//! [`Watched`] is the disk of a life. Asked to, it takes a copy of itself at every event: when an operation was submitted,
//! and when one was completed. Each copy is the disk as a crash would meet it.

use bytes::Bytes;
use coffer_engine::Micros;
use coffer_engine::check::check_reached;
use coffer_engine::command::*;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::disk::{Completion, Disk, FileMap, Op, Token, Waker};
use coffer_engine::error::{Fault, ReadError, Refusal};
use coffer_engine::model::Model;
use coffer_engine::model::state::State;
use coffer_engine::mvcc::{KeyRange, KeyValue, View};
use coffer_engine::pager::Pinned;
use coffer_engine::pager::offline::lying_file;
use coffer_engine::pager::page::PageId;
use coffer_engine::snapshot::PageSet;
use coffer_engine::store::{HashKv, Store, StoreNext, StoreOpened, StoreOptions, StoreReader};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const PATH: &str = "/member/pages";
pub(crate) const OWNER: [u8; 16] = *b"cluster1 member2";
/// The term of all entries.
pub(crate) const TERM: u64 = 3;
/// Turns that a life takes at most before the test gives up.
const TURNS_MAX: usize = 200_000;

pub(crate) fn everything() -> KeyRange {
    KeyRange::new("\0", "\0")
}

/// What there is to do in a life.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// The next so many entries are applied and published.
    Batch(usize),
    /// Compaction goes over so many records.
    Walk(usize),
    /// The disk has so many turns.
    Turns(u64),
    /// A checkpoint is asked for.
    Checkpoint,
    /// All becomes durable and nothing is left to do.
    Settle,
    /// Moving of pages is asked for.
    Defragment,
    /// The newest state is pinned.
    Pin,
    /// The oldest pin sees what it saw, and goes.
    Unpin,
}

/// A history, and what the model says of it.
pub(crate) struct History {
    pub(crate) entries: Vec<Stamped>,
    pub(crate) acts: Vec<Act>,
    /// The state after so many entries.
    pub(crate) states: Vec<State>,
    pub(crate) hashes: Vec<HashKv>,
    /// All key-values when a revision was the newest.
    pub(crate) at_revision: BTreeMap<i64, Vec<KeyValue>>,
    /// Entries after which something was published.
    published: Vec<u64>,
    bytes: Vec<u64>,
}

/// Makes a history.
pub(crate) struct Maker {
    pub(crate) rng: Rng,
    model: Model,
    clock_ms: u64,
    history: History,
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Maker {
        let mut maker = Maker {
            rng: Rng::new(seed ^ 0x0057_0e1d),
            model: Model::new(),
            clock_ms: 0,
            history: History {
                entries: Vec::new(),
                acts: Vec::new(),
                states: Vec::new(),
                hashes: Vec::new(),
                at_revision: BTreeMap::new(),
                published: vec![0],
                bytes: Vec::new(),
            },
        };
        maker.note();
        maker
    }

    pub(crate) fn done(self) -> History {
        self.history
    }

    pub(crate) fn act(&mut self, act: Act) {
        self.history.acts.push(act);
    }

    /// The current revision.
    pub(crate) fn revision(&self) -> i64 {
        self.model.position().revision
    }

    fn note(&mut self) {
        self.history.states.push(self.model.state());
        self.history.hashes.push(self.model.hash_kv(0).unwrap());
        let all = RangeRequest { range: everything(), ..RangeRequest::default() };
        self.history.at_revision.entry(self.revision()).or_insert(self.model.range(&all).unwrap().kvs);
    }

    /// Applies commands as one batch.
    pub(crate) fn batch(&mut self, commands: Vec<Command>) {
        self.act(Act::Batch(commands.len()));
        for command in commands {
            let stamped = Stamped { clock_ms: self.clock_ms, command };
            let index = self.history.entries.len() as u64 + 1;
            self.model.apply(index, TERM, &stamped);
            self.model.take_events();
            self.history.bytes.push(stamped.encode().unwrap().len() as u64);
            self.history.entries.push(stamped);
            self.note();
        }
        self.history.published.push(self.history.entries.len() as u64);
    }

    /// Puts of one size, so many in a txn, with turns of the disk between them.
    pub(crate) fn fill(&mut self, numbers: std::ops::Range<u64>, bytes: usize, in_txn: usize, turns: u64) {
        let numbers: Vec<u64> = numbers.collect();
        for part in numbers.chunks(in_txn) {
            let puts = part.iter().map(|number| TxnOp::Put(put(fill_key(*number), value(*number, bytes))));
            let success = puts.collect();
            self.batch(vec![Command::Txn(TxnRequest { success, ..TxnRequest::default() })]);
            self.act(Act::Turns(turns));
        }
    }

    /// Deletes what was filled but for every `keep`-th, in several entries.
    pub(crate) fn thin(&mut self, numbers: std::ops::Range<u64>, keep: u64, turns: u64) {
        let gone: Vec<u64> = numbers.filter(|number| !number.is_multiple_of(keep)).collect();
        for part in gone.chunks(40) {
            let delete = |number: &u64| {
                let range = KeyRange::single(fill_key(*number));
                TxnOp::DeleteRange(DeleteRangeRequest { range, prev_kv: false })
            };
            let success = part.iter().map(delete).collect();
            self.batch(vec![Command::Txn(TxnRequest { success, ..TxnRequest::default() })]);
            self.act(Act::Turns(turns));
        }
    }

    /// Compacts up to the current revision less `back`, walked in steps of `budget`.
    pub(crate) fn compact(&mut self, back: i64, budget: usize, steps: usize) {
        let revision = self.revision() - back;
        self.batch(vec![Command::Compact { revision }]);
        for _ in 0..steps {
            self.act(Act::Walk(budget));
            self.act(Act::Turns(1));
        }
    }

    /// Commands of all kinds, values of all sizes.
    pub(crate) fn mixed(&mut self, batches: usize) {
        for _ in 0..batches {
            self.clock_ms += self.rng.below(4) * 500;
            let commands = (0..self.rng.between(1, 3)).map(|_| self.command()).collect();
            self.batch(commands);
            if self.rng.once_in(3) {
                let budget = self.rng.between(1, 30) as usize;
                self.act(Act::Walk(budget));
            }
            if self.rng.once_in(16) {
                self.act(Act::Pin);
                self.act(Act::Turns(3));
            }
            if self.rng.once_in(16) {
                self.act(Act::Unpin);
            }
            if self.rng.once_in(24) {
                self.alarm();
            }
            let turns = self.rng.below(5);
            self.act(Act::Turns(turns));
        }
    }

    fn key(&mut self) -> Bytes {
        let number = self.rng.below(40);
        let mut key = format!("key {number:02}").into_bytes();
        // longer than a page of a tree holds whole
        if number % 10 == 9 {
            key.resize(500 + number as usize * 120, b'k');
        }
        key.into()
    }

    fn range(&mut self) -> KeyRange {
        let key = self.key();
        if self.rng.once_in(3) { KeyRange::new(key, self.key()) } else { KeyRange::single(key) }
    }

    fn put(&mut self) -> PutRequest {
        let bytes = match self.rng.below(12) {
            0 => 9_000,
            1 => self.rng.between(640, 720),
            2 => self.rng.between(1_190, 1_210),
            3 => self.rng.between(4_060, 4_070),
            4 => 20_000,
            _ => self.rng.below(400),
        };
        let lease = if self.rng.once_in(5) { self.rng.below(4) as i64 } else { 0 };
        let number = self.rng.next_u64();
        PutRequest { lease, prev_kv: self.rng.once_in(4), ..put(self.key(), value(number, bytes as usize)) }
    }

    fn command(&mut self) -> Command {
        match self.rng.below(20) {
            0..11 => Command::Put(self.put()),
            11 | 12 => Command::DeleteRange(DeleteRangeRequest { range: self.range(), prev_kv: true }),
            13 | 14 => Command::Txn(self.txn()),
            15 => Command::Compact { revision: self.revision() - self.rng.below(12) as i64 },
            16 | 17 => {
                Command::LeaseGrant { id: self.rng.between(1, 3) as i64, ttl: self.rng.between(1, 9) as i64 }
            }
            18 => match self.rng.below(3) {
                0 => Command::LeaseRevoke { id: self.rng.between(1, 3) as i64 },
                1 => Command::LeaseExpire { id: self.rng.between(1, 3) as i64 },
                _ => Command::LeaseRenew { ids: vec![1, 2, 3] },
            },
            _ => self.cluster(),
        }
    }

    fn txn(&mut self) -> TxnRequest {
        let target = CompareTarget::Version(self.rng.below(3) as i64);
        let compare = Compare { range: self.range(), result: CompareResult::Less, target };
        let mut success = vec![TxnOp::Put(self.put()), TxnOp::Put(self.put())];
        success.push(TxnOp::Range(RangeRequest { range: self.range(), ..RangeRequest::default() }));
        let failure = vec![TxnOp::DeleteRange(DeleteRangeRequest { range: self.range(), prev_kv: false })];
        TxnRequest { compares: vec![compare], success, failure }
    }

    fn cluster(&mut self) -> Command {
        let number = self.rng.below(10);
        let member = |id: u64| Member { id, name: "m".repeat(id as usize * 90), ..Member::default() };
        match self.rng.below(2) {
            0 => Command::Bootstrap { cluster_id: number, members: (0..number).map(member).collect() },
            _ => Command::MemberAttributes {
                id: number,
                name: "name".into(),
                client_urls: vec!["u".repeat(number as usize * 120)],
            },
        }
    }

    /// An alarm that is up for a while: puts are refused, on every member alike.
    fn alarm(&mut self) {
        for action in [AlarmAction::Activate, AlarmAction::Deactivate] {
            let alarm = AlarmRequest { action, member_id: 1, alarm: AlarmKind::NoSpace };
            let refused = Command::Put(self.put());
            self.batch(vec![Command::Alarm(alarm), refused]);
            self.act(Act::Turns(2));
        }
    }
}

pub(crate) fn fill_key(number: u64) -> Bytes {
    format!("fill {number:06}").into()
}

pub(crate) fn value(number: u64, bytes: usize) -> Bytes {
    (0..bytes as u64).map(|at| (number.wrapping_mul(31) + at / 5) as u8).collect::<Vec<u8>>().into()
}

pub(crate) fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest { key, value, ..PutRequest::default() }
}

/// A disk that takes copies of itself.
pub(crate) struct Watched {
    pub(crate) disk: SimDisk,
    /// Of so many writes of pages one is copied, of metas and syncs every third, of what is rare each; 1: all; 0: none.
    pub(crate) one_in: u64,
    /// Events so far.
    pub(crate) events: u64,
    /// What the copies are.
    pub(crate) points: Vec<Point>,
    /// What the last operations were.
    kinds: BTreeMap<Token, &'static str>,
}

/// A disk as a crash would meet it.
pub(crate) struct Point {
    pub(crate) disk: SimDisk,
    /// Which event of the life.
    pub(crate) event: u64,
    pub(crate) kind: &'static str,
}

impl Watched {
    pub(crate) fn new(disk: SimDisk, one_in: u64) -> Watched {
        Watched { disk, one_in, events: 0, points: Vec::new(), kinds: BTreeMap::new() }
    }

    fn event(&mut self, kind: &'static str) {
        let event = self.events;
        self.events += 1;
        let one_in = match kind {
            "pages written" | "opening" => self.one_in,
            "metas written" | "syncs" => self.one_in.min(3),
            _ => self.one_in.min(1),
        };
        if one_in > 0 && event.is_multiple_of(one_in) {
            self.points.push(Point { disk: self.disk.fork(event), event, kind });
        }
    }
}

fn kind_of(op: &Op) -> &'static str {
    match op {
        Op::Write { .. } => "pages written",
        Op::WriteDurable { .. } => "metas written",
        Op::WriteBack { .. } => "write-backs",
        Op::Sync { .. } => "syncs",
        Op::Allocate { .. } => "growth",
        Op::Truncate { .. } => "cuts",
        _ => "opening",
    }
}

impl Disk for Watched {
    fn submit(&mut self, op: Op) -> Token {
        let kind = kind_of(&op);
        let token = self.disk.submit(op);
        self.kinds.insert(token, kind);
        self.event(kind);
        token
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let before = out.len();
        self.disk.poll(out);
        if let Some(last) = out[before..].last() {
            let kind = self.kinds.get(&last.token).copied().unwrap_or("opening");
            self.event(kind);
        }
    }

    fn wait(&mut self, timeout_us: Option<u64>) {
        self.disk.wait(timeout_us);
    }

    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>> {
        self.disk.map(path)
    }

    fn waker(&self) -> Waker {
        self.disk.waker()
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

/// The store and its disk, somewhere in a history.
pub(crate) struct Life {
    pub(crate) disk: Watched,
    pub(crate) store: Store,
    pub(crate) opened: StoreOpened,
    /// Bytes of log behind what is durable.
    log_bytes: u64,
    pins: Vec<(Pinned, State)>,
    pub(crate) moved: bool,
    pub(crate) cut: bool,
}

/// What to do with the copies that a life's disk took: they, and what was durable and what was published by then.
pub(crate) type Examine<'a> = &'a mut dyn FnMut(Vec<Point>, u64, u64);

impl Life {
    pub(crate) fn open(disk: Watched, options: &StoreOptions, examine: Examine<'_>) -> Result<Life, Fault> {
        let mut disk = disk;
        let now = disk.disk.now();
        let opened = Store::open(&mut disk, options.clone(), now);
        let points = std::mem::take(&mut disk.points);
        examine(points, 0, 0);
        let (store, opened) = opened?;
        Ok(Life { disk, store, opened, log_bytes: 0, pins: Vec::new(), moved: false, cut: false })
    }

    fn now(&self) -> Micros {
        self.disk.disk.now()
    }

    fn step(&mut self, history: &History, examine: Examine<'_>) -> Result<StoreNext, Fault> {
        let (before, published) = (self.store.durable().applied, self.store.applied());
        let (now, file_bytes) = (self.now(), self.store.stats().file_bytes);
        let next = self.store.step(&mut self.disk, now, self.log_bytes);
        // nobody was told of more than this when they were taken
        self.told(before, published, examine);
        let next = next?;
        let after = self.store.durable().applied;
        assert!(after >= before && after <= published);
        if after > before {
            self.log_bytes = history.bytes[after as usize..published as usize].iter().sum();
        }
        self.moved |= self.store.is_moving();
        self.cut |= self.store.stats().file_bytes < file_bytes;
        Ok(next)
    }

    fn told(&mut self, durable: u64, published: u64, examine: Examine<'_>) {
        if !self.disk.points.is_empty() {
            examine(std::mem::take(&mut self.disk.points), durable, published);
        }
    }

    /// Starts what may start, lets time pass up to the next event, takes completions. `false`: nothing is left to do.
    fn turn(&mut self, history: &History, examine: Examine<'_>) -> Result<bool, Fault> {
        let next = self.step(history, examine)?;
        let now = self.now();
        let at = if next.at_once { Some(now) } else { next.at };
        let Some(at) = [self.disk.disk.next_due(), at].into_iter().flatten().min() else { return Ok(false) };
        self.disk.disk.set_now(at);
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        self.told(self.store.durable().applied, self.store.applied(), examine);
        for completion in completions {
            let stranger = self.store.complete(completion, self.now());
            assert!(stranger.is_none(), "all operations are the page file's");
        }
        Ok(true)
    }

    /// Goes on until everything is durable and nothing is left to do.
    pub(crate) fn settle(&mut self, history: &History, examine: Examine<'_>) -> Result<(), Fault> {
        self.store.request_checkpoint();
        for _ in 0..TURNS_MAX {
            if !self.turn(history, examine)? {
                assert_eq!(self.store.durable().applied, self.store.applied());
                return Ok(());
            }
        }
        panic!("the page file never falls idle");
    }

    /// Lives through the history from where the store stands.
    pub(crate) fn run(&mut self, history: &History, examine: Examine<'_>) -> Result<(), Fault> {
        let mut next = 0;
        for act in &history.acts {
            let begun = next as u64 >= self.store.applied();
            match *act {
                Act::Batch(count) => {
                    self.batch(history, next..next + count)?;
                    next += count;
                }
                _ if !begun => {}
                Act::Walk(budget) => drop(self.store.compact_step(budget).map_err(|fault| *fault)?),
                Act::Turns(turns) => {
                    for _ in 0..turns {
                        self.turn(history, examine)?;
                    }
                }
                Act::Checkpoint => self.store.request_checkpoint(),
                Act::Settle => self.settle(history, examine)?,
                Act::Defragment => self.store.request_defragment(),
                Act::Pin => {
                    let pinned = self.store.reader().pin_published();
                    self.pins.push((pinned, history.states[self.store.applied() as usize].clone()));
                }
                Act::Unpin if !self.pins.is_empty() => check_pin(&self.pins.remove(0)),
                Act::Unpin => {}
            }
        }
        self.pins.drain(..).for_each(|pin| check_pin(&pin));
        Ok(())
    }

    /// Applies what is left of the history, without a turn of the disk.
    pub(crate) fn replay(&mut self, history: &History) -> Result<(), Fault> {
        let mut next = 0;
        for act in &history.acts {
            if let Act::Batch(count) = act {
                self.batch(history, next..next + count)?;
                next += count;
            }
        }
        while self.store.compact_step(1_000).map_err(|fault| *fault)? {}
        Ok(())
    }

    fn batch(&mut self, history: &History, places: std::ops::Range<usize>) -> Result<(), Fault> {
        let applied = self.store.applied() as usize;
        if places.end <= applied {
            return Ok(());
        }
        assert!(places.start >= applied, "a batch is found whole or not at all");
        let mut tx = self.store.begin();
        for place in places {
            tx.apply(place as u64 + 1, TERM, &history.entries[place]).map_err(|fault| *fault)?;
            self.log_bytes += history.bytes[place];
        }
        let _ = tx.publish();
        Ok(())
    }
}

fn check_pin((pinned, state): &(Pinned, State)) {
    let seen = View::of(pinned, pinned.root()).state().unwrap();
    assert!(seen == *state, "a reader that stayed sees what it saw");
}

impl History {
    /// Entries of it.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// That a state is one that was published, and exactly what the model says it is: all of it at once, all keys at some
    /// revisions, the hash.
    pub(crate) fn compare(&self, reader: &StoreReader, context: &str) {
        let applied = reader.position().applied;
        assert!(self.published.binary_search(&applied).is_ok(), "{context}: entry {applied}, within a batch");
        let state = &self.states[applied as usize];
        assert!(reader.state().unwrap() == *state, "{context}: the state at entry {applied}");
        assert_eq!(reader.hash_kv(0).unwrap(), self.hashes[applied as usize], "{context}");
        let (current, lowest) = (state.revision, state.compacted.max(1));
        for revision in [lowest - 1, lowest, (lowest + current) / 2, (lowest + 3 * current) / 4, current] {
            let request = RangeRequest { range: everything(), revision, ..RangeRequest::default() };
            match reader.range(&request) {
                Ok(reply) if revision >= lowest => {
                    let expected = &self.at_revision[&revision];
                    assert!(reply.kvs == *expected, "{context}: all keys at {revision}, entry {applied}");
                    assert_eq!(reply.count, expected.len() as i64, "{context}: at {revision}");
                }
                Ok(_) if revision <= 0 => {}
                Err(ReadError::Refused(Refusal::Compacted)) if revision < lowest => {}
                other => panic!("{context}: at {revision} of {current}: {other:?}"),
            }
        }
    }
}

/// The check of a file that no store has open, as `coffer check` does it: every page reached once and whole, every rule of
/// trees and store, exactly the reached pages counted as used. The transaction of its root.
///
/// # Errors
/// What does not hold.
pub(crate) fn try_check_file(disk: &SimDisk) -> Result<u64, String> {
    let words = |fault: Fault| fault.to_string();
    let lying = lying_file(&mut disk.clone(), Path::new(PATH), Some(OWNER)).map_err(words)?;
    if !lying.metas_damaged.is_empty() {
        return Err(format!("opening has not put copies right: {:?}", lying.metas_damaged));
    }
    let used = PageSet::of_words(lying.stored.used);
    let mut root = lying.stored.root;
    let cluster = View::of(&lying.pages, &root).stored_cluster().map_err(|fault| words(*fault))?;
    root.cluster = Arc::new(cluster.unwrap_or_default());
    let broken = check_reached(&lying.pages, &root, &used).map_err(|fault| words(*fault))?;
    if broken.is_empty() { Ok(root.tx) } else { Err(format!("{broken:?}")) }
}

/// That check of a file in which nothing may be wrong.
#[track_caller]
pub(crate) fn check_file(disk: &SimDisk, context: &str) -> u64 {
    try_check_file(disk).unwrap_or_else(|broken| panic!("{context}: {broken}"))
}

/// The pages that a whole file's newest root reaches.
pub(crate) fn used_pages(disk: &SimDisk) -> Vec<PageId> {
    let lying = lying_file(&mut disk.clone(), Path::new(PATH), Some(OWNER)).expect("it is whole");
    PageSet::of_words(lying.stored.used).iter().collect()
}

/// Options with small bounds, so that much happens early.
pub(crate) fn options(dirty_bytes: u64) -> StoreOptions {
    StoreOptions {
        dirty_bytes,
        checkpoint_wal_bytes: 64 << 10,
        checkpoint_interval_us: 15_000,
        ..StoreOptions::new(PathBuf::from(PATH), OWNER)
    }
}
