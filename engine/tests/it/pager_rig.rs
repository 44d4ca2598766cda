//! A page file on a disk, beside a history of all that was published: a tree whose values may be long, so that leaves,
//! branches and runs come and go.
//!
//! The history is the judge: what opening finds must be exactly the state of one published transaction, not before the
//! last one that was said to be durable, with every page in its place and no page counted that nobody reaches.

use coffer_engine::btree::{self, Cursor};
use coffer_engine::disk::Disk;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::error::Fault;
use coffer_engine::pager::page::{ChildRef, PageId, RUN_REF_BYTES, RunRef, TREES, TreeId};
use coffer_engine::pager::root::{Cluster, Root, Standing};
use coffer_engine::pager::{Pager, PagerOpened, PagerOptions, Pages, PagesMut, Pinned};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const PATH: &str = "/member/pages";
pub(crate) const OWNER: [u8; 16] = *b"cluster1 member2";
const TREE: TreeId = TreeId::Keys;
/// Keys there may be.
const KEYS: u64 = 300;
/// Values longer than this go into runs.
const INLINE_MAX: usize = 1000;
/// Steps that a run takes at most before the test gives up.
const STEPS_MAX: u64 = 200_000;
/// Fixed places of a file of one region.
const FIXED: u64 = 8;

pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;
/// What one transaction changed; `None`: removed.
type Delta = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Small bounds, so that much happens early: spills, checkpoints by bytes, by log and by age.
pub(crate) fn small_options(seed: u64) -> PagerOptions {
    PagerOptions {
        dirty_bytes: if seed.is_multiple_of(3) { 96 << 10 } else { 400 << 10 },
        checkpoint_wal_bytes: if seed.is_multiple_of(2) { 24 << 10 } else { 1 << 20 },
        checkpoint_interval_us: 15_000,
        rest_us: 2_000,
        ..PagerOptions::new(PathBuf::from(PATH), OWNER)
    }
}

/// What earlier lives of a file did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    /// What transaction `place + 1` changed.
    history: Vec<Delta>,
    /// The last one said to be durable.
    pub(crate) durable: u64,
}

fn model_at(history: &[Delta], tx: u64) -> Model {
    let mut model = Model::new();
    for (key, value) in history.iter().take(tx as usize).flatten() {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
    model
}

/// The file, its disk and the history.
pub(crate) struct Rig<D: Disk = SimDisk> {
    pub(crate) pins: Vec<(Pinned, Model)>,
    pub(crate) pager: Pager,
    pub(crate) disk: D,
    pub(crate) opened: PagerOpened,
    pub(crate) rng: Rng,
    pub(crate) model: Model,
    pub(crate) fault: Option<Fault>,
    pub(crate) now: u64,
    tree: Option<ChildRef>,
    history: Vec<Delta>,
    wal_bytes: u64,
}

impl<D: Disk> Rig<D> {
    /// Opens a file, or makes one, and checks all of it.
    pub(crate) fn open(
        mut disk: D,
        seed: u64,
        options: PagerOptions,
        before: &Before,
    ) -> Result<Rig<D>, Fault> {
        let (pager, opened) = Pager::open(&mut disk, options, 0)?;
        assert!(
            opened.tx >= before.durable,
            "seed {seed}: durable was {}, found is {opened:?}",
            before.durable
        );
        let mut history = before.history.clone();
        history.truncate(opened.tx as usize);
        assert_eq!(history.len() as u64, opened.tx, "what is found was published");
        let model = model_at(&history, opened.tx);
        let published = pager.published();
        assert_eq!((published.tx, published.standing.applied), (opened.tx, opened.tx));
        check_state(&pager, &published, &model);
        Ok(Rig {
            pins: Vec::new(),
            tree: published.tree(TREE),
            pager,
            disk,
            opened,
            rng: Rng::new(seed ^ 0x5a5a),
            model,
            fault: None,
            now: 0,
            history,
            wal_bytes: 0,
        })
    }

    /// What the next life has to know.
    pub(crate) fn before(&self) -> Before {
        Before { history: self.history.clone(), durable: self.pager.durable().tx }
    }

    /// One transaction: some keys put or removed.
    pub(crate) fn transaction(&mut self, changes: u64, value_bytes_max: u64) {
        let mut delta = Delta::new();
        for _ in 0..changes {
            let key = format!("key {:05}", self.rng.below(KEYS)).into_bytes();
            let value = (!self.rng.once_in(4)).then(|| self.value(value_bytes_max));
            self.change(&key, value.as_deref());
            delta.push((key, value));
        }
        self.publish(delta);
    }

    /// Puts many new keys, in one transaction.
    pub(crate) fn fill(&mut self, keys: std::ops::Range<u64>, value_bytes: usize) {
        let mut delta = Delta::new();
        for number in keys {
            let key = format!("fill {number:08}").into_bytes();
            let value = vec![number as u8; value_bytes];
            self.change(&key, Some(&value));
            delta.push((key, Some(value)));
        }
        self.publish(delta);
    }

    /// Removes up to `count` keys from the begin on.
    pub(crate) fn remove_first(&mut self, count: usize) {
        let keys: Vec<Vec<u8>> = self.model.keys().take(count).cloned().collect();
        self.remove(keys);
    }

    /// Removes up to `count` keys from the end on.
    pub(crate) fn remove_last(&mut self, count: usize) {
        let keys: Vec<Vec<u8>> = self.model.keys().rev().take(count).cloned().collect();
        self.remove(keys);
    }

    fn remove(&mut self, keys: Vec<Vec<u8>>) {
        let mut delta = Delta::new();
        for key in keys {
            self.change(&key, None);
            delta.push((key, None));
        }
        self.publish(delta);
    }

    fn value(&mut self, value_bytes_max: u64) -> Vec<u8> {
        let len = if self.rng.once_in(4) { self.rng.below(value_bytes_max) } else { self.rng.below(400) };
        let first = self.rng.next_u64();
        (0..len).map(|at| (first >> (at % 57)) as u8).collect()
    }

    /// Puts a value, into a run if it is long, or removes it; frees the run of the one before.
    fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = btree::get(&self.pager, TREE, self.tree.as_ref(), key).expect("it can be read");
        if let Some(run) = old.and_then(run_of) {
            self.pager.free_run(&run);
        }
        match value {
            Some(value) => {
                let stored = if value.len() > INLINE_MAX {
                    let run = self.pager.new_run(TREE, value);
                    [&b"R"[..], &run.encode()].concat()
                } else {
                    [b"I", value].concat()
                };
                btree::insert(&mut self.pager, TREE, &mut self.tree, key, &stored).expect("it can be read");
                self.model.insert(key.to_vec(), value.to_vec());
                self.wal_bytes += value.len() as u64 + 50;
            }
            None => {
                btree::remove(&mut self.pager, TREE, &mut self.tree, key).expect("it can be read");
                self.model.remove(key);
                self.wal_bytes += 50;
            }
        }
    }

    fn publish(&mut self, delta: Delta) {
        let mut trees = [None; TREES];
        trees[TREE.place()] = self.tree;
        let tx = self.pager.open_tx();
        self.history.push(delta);
        assert_eq!(self.history.len() as u64, tx);
        let standing = Standing { applied: tx, applied_term: 1, ..Standing::default() };
        self.pager.publish(trees, standing, Arc::new(Cluster::default()));
    }

    /// Pins the newest or the durable root, to be checked again later.
    pub(crate) fn pin(&mut self) {
        let reader = self.pager.reader();
        let pinned = if self.rng.once_in(2) { reader.pin_published() } else { reader.pin_durable() };
        let model = model_at(&self.history, pinned.root().tx);
        self.pins.push((pinned, model));
    }

    /// What the pins see is what it was; the oldest goes.
    pub(crate) fn check_pins(&mut self, keep: usize) {
        for (pinned, model) in &self.pins {
            check_tree(pinned, pinned.root(), model);
        }
        while self.pins.len() > keep {
            self.pins.remove(0);
        }
    }

    /// The pages that the newest root reaches.
    pub(crate) fn reached(&self) -> BTreeSet<PageId> {
        check_tree(&self.pager, &self.pager.published(), &self.model)
    }

    /// What is published is what it should be, to the last page.
    pub(crate) fn check(&self) {
        check_state(&self.pager, &self.pager.published(), &self.model);
    }

    /// Lets the file do something; `false`: it has stopped.
    fn step(&mut self) -> Option<coffer_engine::pager::PagerNext> {
        let before = self.pager.durable();
        match self.pager.step(&mut self.disk, self.now, self.wal_bytes) {
            Ok(next) => {
                let after = self.pager.durable();
                assert!(after.tx >= before.tx && after.applied == after.tx, "{before:?}, {after:?}");
                Some(next)
            }
            Err(fault) => {
                self.fault = Some(fault);
                None
            }
        }
    }

    pub(crate) fn take_completions(&mut self) -> usize {
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        let count = completions.len();
        for completion in completions {
            let rest = self.pager.complete(completion, self.now);
            assert!(rest.is_none(), "all operations are the file's");
        }
        count
    }

    /// One turn on a real disk; its clock goes by waits.
    pub(crate) fn real_turn(&mut self) {
        let next = self.step().unwrap_or_else(|| panic!("no fault: {:?}", self.fault));
        if self.take_completions() == 0 && !next.at_once {
            self.disk.wait(Some(200));
            self.now += 200;
        }
    }

    pub(crate) fn real_settle(&mut self) {
        self.pager.request_checkpoint();
        while self.pager.durable().tx < self.pager.published().tx || self.pager.is_busy() {
            self.real_turn();
        }
    }
}

impl Rig<SimDisk> {
    /// A new file on a new disk.
    pub(crate) fn new(seed: u64, options: PagerOptions) -> Rig {
        Rig::open(SimDisk::new(seed), seed, options, &Before::default()).expect("a new file opens")
    }

    /// Starts what may start, lets time pass up to the next event, takes completions. `false`: nothing is left to do, or
    /// the file stopped.
    pub(crate) fn turn(&mut self) -> bool {
        self.now = self.disk.now();
        let Some(next) = self.step() else { return false };
        let at = if next.at_once { Some(self.now) } else { next.at };
        let Some(at) = [self.disk.next_due(), at].into_iter().flatten().min() else { return false };
        self.disk.set_now(at);
        self.now = self.disk.now();
        self.take_completions();
        true
    }

    /// Goes on until everything is durable and nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.turn() {
                return;
            }
        }
        panic!("the file never falls idle");
    }

    /// Goes on until what is published now is durable.
    pub(crate) fn settle_until_durable(&mut self) {
        let tx = self.pager.published().tx;
        for _ in 0..STEPS_MAX {
            if self.pager.durable().tx >= tx {
                return;
            }
            assert!(self.turn(), "{:?}", self.fault);
        }
        panic!("transaction {tx} never becomes durable");
    }

    /// Transactions with turns of the disk between them.
    pub(crate) fn run(&mut self, transactions: u64, value_bytes_max: u64) {
        for _ in 0..transactions {
            let changes = self.rng.below(10);
            self.transaction(changes, value_bytes_max);
            if self.rng.once_in(12) {
                self.pin();
            }
            for _ in 0..self.rng.below(5) {
                self.turn();
            }
            if self.fault.is_some() {
                return;
            }
        }
    }
}

fn run_of(stored: &[u8]) -> Option<RunRef> {
    (stored[0] == b'R' && stored.len() == 1 + RUN_REF_BYTES).then(|| RunRef::decode(&stored[1..]))
}

/// That a root's tree is whole and holds what the model does. Gives the pages it reaches.
pub(crate) fn check_tree(pages: &impl Pages, root: &Root, model: &Model) -> BTreeSet<PageId> {
    let tree = root.tree(TREE);
    let mut reached = BTreeSet::new();
    let mut reach = |id: PageId| assert!(reached.insert(id), "page {id} is reached twice");
    let checked = btree::check(pages, TREE, tree.as_ref(), &mut reach).expect("it can be read");
    let summary = checked.unwrap_or_else(|wrong| panic!("transaction {}: {wrong}", root.tx));
    assert_eq!(summary.entries, model.len() as u64, "transaction {}", root.tx);
    let mut cursor = Cursor::new(pages, TREE, tree.as_ref());
    cursor.seek_first().expect("it can be read");
    for (key, value) in model {
        let (found, stored) = cursor.next().expect("it can be read").expect("as many as in the model");
        assert_eq!(&found[..], &key[..]);
        match run_of(stored) {
            Some(run) => {
                for page in run.first.0..run.first.0 + run.pages() {
                    reach(PageId(page));
                }
                assert!(pages.run(TREE, &run).expect("it can be read")[..] == value[..]);
            }
            None => assert!(stored[1..] == value[..]),
        }
    }
    reached
}

/// That, and that exactly the reached pages are counted as used.
fn check_state(pages: &impl Pages, root: &Root, model: &Model) {
    let reached = check_tree(pages, root, model);
    let end = reached.last().map_or(FIXED, |last| u64::from(last.0) + 1);
    assert_eq!(root.pages_end, end, "transaction {}", root.tx);
    // a further region has two fixed places of its own
    let fixed = FIXED + (end - 1) / 32_000 * 2;
    assert_eq!(root.pages_used, reached.len() as u64 + fixed, "transaction {}", root.tx);
}
