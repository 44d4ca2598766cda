//! What a fuzzer of the whole store runs (feature `sim`): bytes become commands, turns of a simulated disk, crashes and
//! starts, on a store over a page file beside the model. Every answer, event and state must be the model's.
//!
//! ```text
//! input: steps, one after the other; the low five bits of the first byte say which, bytes after it how
//!    0 put         key, length of the value, flags       20 publish
//!   10 delete      key, end, whether to tell             22 compaction's walk   records
//!   12 txn         comparisons and operations            23 turns of the disk   how many
//!   15 compact     revisions back                        26 checkpoint, defragment   asked for, or waited for
//!   16 lease       grant, renew, revoke, expire          28 power cut, 29 kill, then the store is opened again
//!   18 alarm, members, who votes                         30 reads               a range, history, hash, a pinned state
//! ```
//! Commands stand in a log that no crash touches. A store opened again has what some publish made visible, not before the
//! last state that was said to be durable; the log goes on from there, and gives the same answers again.

use super::{KeyRange, View};
use crate::command::{
    AlarmAction, AlarmKind, AlarmRequest, Applied, Command, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, Member, PutRequest, RangeRequest, SortOrder, SortTarget, Stamped, TxnOp, TxnRequest,
};
use crate::disk::sim::{Failure, SimDisk};
use crate::disk::{Completion, Disk};
use crate::error::{Fault, ReadError, Refusal};
use crate::model::Model;
use crate::model::state::State;
use crate::pager::Pinned;
use crate::store::{ConfState, Store, StoreOptions};
use bytes::Bytes;
use std::fmt::Debug;
use std::path::PathBuf;

/// Steps of one input; what comes behind is left out.
const STEPS_MAX: usize = 600;
/// Starts after which neither a crash nor a failure is taken any more; each goes over the whole log.
const STARTS_MAX: usize = 24;
/// Turns after which the page file must be idle.
const TURNS_MAX: usize = 100_000;
/// Keys there are.
const KEYS: u8 = 24;
/// States held at once.
const PINS_MAX: usize = 3;
/// The term of all entries.
const TERM: u64 = 3;

/// Steps that lead into corners, as bytes: many to be found between others.
pub const DICTIONARY: [&[u8]; 8] = [
    // checkpoint done, power cut
    b"\x1a\x01\x1c",
    // publish, a few turns, kill
    b"\x14\x17\x03\x1d\x00",
    // compact all, walk, publish, power cut
    b"\x0f\x00\x16\x03\x14\x1c",
    // a value in a run, deleted, put again
    b"\x00\x01\xf0\x00\x0a\x01\x00\x01\x00\x01\xff\x00",
    // a lease, a key of it, its end
    b"\x10\x01\x05\x00\x00\x02\x20\x60\x10\x01\xff\x03",
    // a state pinned
    b"\x1e\x03",
    // pages moved, checkpoint
    b"\x1a\x03",
    // an operation of the disk fails
    b"\x1d\x03\x08",
];

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Entries applied.
    pub entries: usize,
    /// Starts after a crash.
    pub starts: usize,
    /// Starts in the middle of compaction's walk, while states of an earlier checkpoint were in the file.
    pub starts_in_compaction: usize,
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Pages spilled.
    pub spilled: u64,
}

/// The bytes as they are used up; behind their end are zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// One of a few keys; every eighth is longer than a page of a tree holds whole.
    fn key(&mut self) -> Bytes {
        let number = self.below(KEYS);
        let mut key = format!("key {number:02}").into_bytes();
        if number % 8 == 7 {
            key.resize(500 + usize::from(number) * 200, b'k');
        }
        key.into()
    }

    fn range(&mut self) -> KeyRange {
        let key = self.key();
        match self.below(4) {
            0 => KeyRange::single(key),
            1 => KeyRange::new(key, self.key()),
            2 => KeyRange::new(key, &b"\0"[..]),
            _ => KeyRange::new(&b"\0"[..], &b"\0"[..]),
        }
    }

    fn put(&mut self, entry: usize) -> PutRequest {
        let key = self.key();
        let len = match self.byte() {
            length @ 0..200 => usize::from(length),
            length => usize::from(length - 199) * 160,
        };
        let flags = self.byte();
        let value = (0..len).map(|at| (entry + at / 7) as u8).collect::<Vec<u8>>();
        PutRequest {
            key,
            value: value.into(),
            lease: if flags & 0x20 != 0 { i64::from(flags >> 6) } else { 0 },
            prev_kv: flags & 1 != 0,
            ignore_value: flags & 6 == 6,
            ignore_lease: flags & 24 == 24,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { range: self.range(), prev_kv: self.below(2) == 1 }
    }

    fn read(&mut self, current: i64) -> RangeRequest {
        let range = self.range();
        let (how, back) = (self.byte(), self.byte());
        let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend, SortOrder::None];
        let targets = [SortTarget::Key, SortTarget::Version, SortTarget::Mod, SortTarget::Value];
        RangeRequest {
            range,
            limit: i64::from(how & 3),
            revision: if back == 0 { 0 } else { current + 2 - i64::from(back) },
            sort_order: orders[usize::from(how >> 2 & 3)],
            sort_target: targets[usize::from(how >> 4 & 3)],
            keys_only: how & 0x40 != 0,
            count_only: how & 0x80 != 0,
            min_mod_revision: if back & 0x80 != 0 { current - i64::from(back & 15) } else { 0 },
            ..RangeRequest::default()
        }
    }

    fn compare(&mut self, current: i64) -> Compare {
        let range = self.range();
        let how = self.byte();
        let results =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        let number = i64::from(how >> 5);
        let target = match how >> 2 & 7 {
            0 | 5 => CompareTarget::Version(number),
            1 | 6 => CompareTarget::ModRevision(current - number),
            2 | 7 => CompareTarget::CreateRevision(current - number),
            3 => CompareTarget::Lease(number),
            _ => CompareTarget::Value(Bytes::from(vec![number as u8; usize::from(how >> 5)])),
        };
        Compare { range, result: results[usize::from(how & 3)], target }
    }

    /// A txn of so many levels at most.
    fn txn(&mut self, entry: usize, current: i64, levels: u8) -> TxnRequest {
        let shape = self.byte();
        let compares = (0..shape & 1).map(|_| self.compare(current)).collect();
        let ops = |input: &mut Self, count: u8| {
            (0..count).map(|_| input.op(entry, current, levels)).collect::<Vec<TxnOp>>()
        };
        let success = ops(self, shape >> 1 & 3);
        let failure = ops(self, shape >> 3 & 1);
        TxnRequest { compares, success, failure }
    }

    fn op(&mut self, entry: usize, current: i64, levels: u8) -> TxnOp {
        match self.below(8) {
            0 | 1 => TxnOp::Range(self.read(current)),
            2 => TxnOp::DeleteRange(self.delete()),
            3 if levels > 1 => TxnOp::Txn(self.txn(entry, current, levels - 1)),
            _ => TxnOp::Put(self.put(entry)),
        }
    }

    fn lease(&mut self) -> Command {
        let id = i64::from(self.below(4));
        match self.byte() {
            ttl @ 0..128 => Command::LeaseGrant { id, ttl: i64::from(ttl % 8) },
            128..160 => Command::LeaseRenew { ids: vec![id, i64::from(self.below(4))] },
            160..192 => Command::LeaseRevoke { id },
            _ => Command::LeaseExpire { id },
        }
    }

    fn cluster(&mut self) -> Entry {
        let member = |id: u64| Member { id, name: "m".repeat(id as usize * 90), ..Member::default() };
        let number = u64::from(self.below(10));
        let kinds = [AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt];
        let actions =
            [AlarmAction::Get, AlarmAction::Activate, AlarmAction::Deactivate, AlarmAction::Deactivate];
        let command = match self.byte() {
            how @ 0..100 => Command::Alarm(AlarmRequest {
                action: actions[usize::from(how & 3)],
                member_id: number % 3,
                alarm: kinds[usize::from(how >> 2) % 3],
            }),
            100..150 => Command::Bootstrap { cluster_id: number, members: (0..number).map(member).collect() },
            150..200 => Command::MemberAttributes {
                id: number,
                name: "name".into(),
                client_urls: vec!["u".repeat(number as usize * 120)],
            },
            200..230 => return Entry::Skip,
            _ => return Entry::Votes(ConfState { voters: (1..=number).collect(), ..ConfState::default() }),
        };
        Entry::Command(command)
    }
}

/// What an entry says.
enum Entry {
    Command(Command),
    /// No command.
    Skip,
    /// Who votes.
    Votes(ConfState),
}

/// An entry of the log, with its clock in milliseconds and the answer it was given.
struct Logged {
    entry: Entry,
    clock_ms: u64,
    answer: Option<Applied>,
}

/// The store, the model beside it, and the log that both come from.
struct Pair {
    disk: SimDisk,
    store: Store,
    model: Model,
    log: Vec<Logged>,
    /// Entries that a publish has made visible.
    published: usize,
    pins: Vec<(Pinned, State)>,
    clock_ms: u64,
    /// Bytes written to the log, or read from it, since the store was opened.
    wal_bytes: u64,
    /// Operations of the disk that fail.
    fails_at: Vec<u64>,
    outcome: Outcome,
}

#[track_caller]
fn same<T: PartialEq + Debug>(store: T, model: T, what: impl FnOnce() -> String) {
    assert!(store == model, "{}\n  store: {store:?}\n  model: {model:?}", what());
}

/// Small bounds, so that a few puts bring about spills and checkpoints.
fn options() -> StoreOptions {
    StoreOptions {
        dirty_bytes: 96 << 10,
        checkpoint_wal_bytes: 24 << 10,
        checkpoint_interval_us: 20_000,
        ..StoreOptions::new(PathBuf::from("/fuzz/pages"), *b"fuzz, one member")
    }
}

/// A read's answer; nobody damaged the file.
fn answer<T>(read: Result<T, ReadError>) -> Result<T, Refusal> {
    read.map_err(|error| match error {
        ReadError::Refused(refusal) => refusal,
        ReadError::Fault(fault) => panic!("a file that nobody damaged is read: {fault}"),
    })
}

/// Runs an input.
///
/// # Panics
/// The store is not what the model says: the fuzzer's find.
pub fn run(input: &[u8]) -> Outcome {
    let mut pair = Pair::new(input.len() as u64);
    let mut input = Input(input);
    for _ in 0..STEPS_MAX {
        if input.0.is_empty() {
            break;
        }
        pair.step(&mut input);
    }
    pair.publish();
    pair.compare();
    pair.settle();
    pair.start(SimDisk::power_cut);
    pair.compare();
    pair.outcome.entries = pair.log.len();
    pair.outcome
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let disk = SimDisk::new(seed);
        disk.set_latency(20, 400);
        let mut pair = Pair {
            disk,
            store: Store::new(),
            model: Model::new(),
            log: Vec::new(),
            published: 0,
            pins: Vec::new(),
            clock_ms: 0,
            wal_bytes: 0,
            fails_at: Vec::new(),
            outcome: Outcome::default(),
        };
        pair.open();
        pair
    }

    /// Opens the page file; an operation that is to fail may make that fail once.
    fn open(&mut self) {
        let now = self.disk.now();
        let mut opened = Store::open(&mut self.disk, options(), now);
        if let Err(fault) = &opened {
            self.was_to_fail(fault);
            self.disk.power_cut();
            opened = Store::open(&mut self.disk, options(), now);
        }
        match opened {
            Ok((store, _)) => self.store = store,
            Err(fault) => panic!("a file that nobody damaged opens: {fault}"),
        }
    }

    /// A fault comes from an operation that was to fail, once.
    fn was_to_fail(&mut self, fault: &Fault) {
        assert!(!fault.to_string().is_empty());
        let due = self.fails_at.iter().position(|at| *at < self.disk.ops());
        self.fails_at.swap_remove(due.unwrap_or_else(|| panic!("nothing was to fail: {fault}")));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (entry, current) = (self.log.len(), self.model.position().revision);
        match input.byte() & 31 {
            0..10 => self.command(Command::Put(input.put(entry))),
            10 | 11 => self.command(Command::DeleteRange(input.delete())),
            12..15 => self.command(Command::Txn(input.txn(entry, current, 3))),
            15 => self.command(Command::Compact { revision: current - i64::from(input.below(24)) + 1 }),
            16 | 17 => {
                let command = input.lease();
                self.clock_ms += u64::from(input.below(4)) * 700;
                self.command(command);
            }
            18 | 19 => self.entry(input.cluster()),
            20 | 21 => self.publish(),
            22 => self.walk(usize::from(input.below(16))),
            23..26 => {
                for _ in 0..=input.below(12) {
                    self.turn();
                }
            }
            26 | 27 => {
                self.publish();
                let how = input.below(4);
                if how & 2 != 0 {
                    self.store.request_defragment();
                }
                self.store.request_checkpoint();
                if how & 1 != 0 {
                    self.settle();
                }
            }
            28 | 29 if self.outcome.starts >= STARTS_MAX => {}
            28 => self.start(SimDisk::power_cut),
            29 if input.below(4) == 3 => self.fail(input),
            29 => self.start(SimDisk::kill),
            _ => self.read(input),
        }
    }

    fn command(&mut self, command: Command) {
        self.entry(Entry::Command(command));
    }

    /// An entry goes to the log, and is applied.
    fn entry(&mut self, entry: Entry) {
        self.log.push(Logged { entry, clock_ms: self.clock_ms, answer: None });
        self.apply(self.log.len() - 1);
    }

    /// Applies the entry at a place in the log to both; one that was applied in an earlier life gives the same answer.
    fn apply(&mut self, place: usize) {
        let logged = &mut self.log[place];
        let index = place as u64 + 1;
        let mut tx = self.store.begin();
        match &logged.entry {
            Entry::Command(command) => {
                let stamped = Stamped { clock_ms: logged.clock_ms, command: command.clone() };
                let applied = tx.apply(index, TERM, &stamped).expect("nobody damaged the file");
                self.wal_bytes += stamped.encode().expect("three levels").len() as u64 + 32;
                same(&applied, &self.model.apply(index, TERM, &stamped), || {
                    format!("entry {index}, {stamped:?}")
                });
                if let Some(before) = &logged.answer {
                    same(&applied, before, || format!("entry {index}, applied again"));
                }
                logged.answer = Some(applied);
            }
            Entry::Skip => {
                tx.skip(index, TERM).expect("nobody damaged the file");
                self.model.skip(index, TERM);
            }
            Entry::Votes(conf) => {
                tx.skip(index, TERM).expect("nobody damaged the file");
                tx.set_conf_state(conf.clone()).expect("nobody damaged the file");
                self.model.skip(index, TERM);
                self.model.set_conf_state(conf.clone());
            }
        }
    }

    fn publish(&mut self) {
        let published = self.store.begin().publish();
        self.published = self.log.len();
        same(published.applied, self.log.len() as u64, || "the applied index of a publish".into());
        let events = published.events.map(|batch| batch.events.clone()).unwrap_or_default();
        same(events, self.model.take_events(), || format!("events up to entry {}", self.log.len()));
    }

    /// A step of compaction's walk; it may publish.
    fn walk(&mut self, budget: usize) {
        self.store.compact_step(budget).expect("nobody damaged the file");
        self.model.compact_step(budget);
        self.published = self.store.applied() as usize;
    }

    /// Lets the page file do something, and time pass to the next event. `false`: nothing is left to do.
    fn turn(&mut self) -> bool {
        let now = self.disk.now();
        let next = match self.store.step(&mut self.disk, now, self.wal_bytes) {
            Ok(next) => next,
            Err(fault) => {
                self.stopped(&fault);
                return false;
            }
        };
        // moving pages publishes
        self.published = self.store.applied() as usize;
        let at = if next.at_once { Some(now) } else { next.at };
        let Some(at) = [self.disk.next_due(), at].into_iter().flatten().min() else { return false };
        self.disk.set_now(at);
        let mut completions: Vec<Completion> = Vec::new();
        self.disk.poll(&mut completions);
        for completion in completions {
            let stranger = self.store.complete(completion, self.disk.now());
            assert!(stranger.is_none(), "all operations are the page file's");
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn() {
                return;
            }
        }
        panic!("the page file never falls idle");
    }

    /// One of the next operations of the disk fails.
    fn fail(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let failures = [Failure::Errno(5), Failure::Errno(28), Failure::Short, Failure::Cancelled];
        let at = self.disk.ops() + u64::from(how >> 2);
        self.disk.fail_op(at, failures[usize::from(how & 3)]);
        self.fails_at.push(at);
    }

    /// The page file has stopped at a fault: a member stops with it, and starts again.
    fn stopped(&mut self, fault: &Fault) {
        self.was_to_fail(fault);
        let now = self.disk.now();
        let again = self.store.step(&mut self.disk, now, 0);
        assert!(again.is_err(), "what has stopped stays so");
        self.start(SimDisk::power_cut);
    }

    /// The member ends as `end` says, and starts again on what is left.
    fn start(&mut self, end: fn(&SimDisk)) {
        self.outcome.starts += 1;
        let stats = self.store.stats();
        self.outcome.checkpoints += stats.checkpoints;
        self.outcome.spilled += stats.pages_spilled;
        let (durable, checkpoints) = (self.store.durable(), stats.checkpoints);
        self.check_pins(0);
        // dropped first: a dead member holds nothing
        self.store = Store::new();
        end(&self.disk);
        self.open();
        self.wal_bytes = 0;
        let applied = self.store.applied() as usize;
        let lowest = durable.applied as usize;
        assert!(
            (lowest..=self.published).contains(&applied),
            "found applied up to {applied}; durable was {lowest}, visible {}",
            self.published
        );
        self.model = Model::new();
        for place in 0..applied {
            self.replay(place);
        }
        self.model.take_events();
        self.compare();
        let position = self.store.reader().position();
        let walking = position.compaction_done < position.compacted;
        self.outcome.starts_in_compaction += usize::from(walking && checkpoints > 1);
        for place in applied..self.log.len() {
            self.apply(place);
        }
        self.publish();
    }

    /// Applies an entry to the model alone.
    fn replay(&mut self, place: usize) {
        let logged = &self.log[place];
        let index = place as u64 + 1;
        match &logged.entry {
            Entry::Command(command) => {
                let stamped = Stamped { clock_ms: logged.clock_ms, command: command.clone() };
                self.model.apply(index, TERM, &stamped);
            }
            Entry::Skip => self.model.skip(index, TERM),
            Entry::Votes(conf) => {
                self.model.skip(index, TERM);
                self.model.set_conf_state(conf.clone());
            }
        }
    }

    /// What is visible is whole, and what the model holds; everything was published before.
    fn compare(&mut self) {
        let reader = self.store.reader();
        if let Err(broken) = reader.check() {
            panic!("after entry {}: {broken}", self.log.len());
        }
        let state = reader.state().expect("nobody damaged the file");
        same(state, self.model.state(), || format!("state after entry {}", self.log.len()));
    }

    fn read(&mut self, input: &mut Input<'_>) {
        self.publish();
        let (reader, position) = (self.store.reader(), self.model.position());
        let current = position.revision;
        match input.below(6) {
            0 | 1 => {
                let request = input.read(current);
                same(answer(reader.range(&request)), self.model.range(&request), || format!("{request:?}"));
                let uncounted = answer(reader.range_uncounted(&request));
                same(uncounted, self.model.range_uncounted(&request), || format!("{request:?}, uncounted"));
            }
            2 => {
                let (range, from) = (input.range(), current + 2 - i64::from(input.below(40)));
                let events_max = usize::from(input.below(9));
                let history = answer(reader.history(&range, from, events_max));
                same(history, self.model.history(&range, from, events_max), || {
                    format!("history from {from}")
                });
            }
            3 => {
                let state = reader.state().expect("nobody damaged the file");
                self.pins.push((reader.pin_published(), state));
                self.check_pins(PINS_MAX);
            }
            4 => {
                let revision = current + 1 - i64::from(input.below(30));
                let hash = answer(reader.hash_kv(revision));
                same(hash, self.model.hash_kv(revision), || format!("hash at {revision}"));
                let pinned = reader.pin_durable();
                let applied = pinned.root().standing.applied;
                assert!(applied <= self.log.len() as u64, "what is durable was applied");
            }
            _ => self.compare(),
        }
    }

    /// The pinned states are what they were; all but the newest `keep` go.
    fn check_pins(&mut self, keep: usize) {
        for (pinned, state) in &self.pins {
            let seen = View::of(pinned, pinned.root()).state().expect("nobody damaged the file");
            same(&seen, state, || format!("the state pinned at entry {}", state.applied));
        }
        let go = self.pins.len().saturating_sub(keep);
        self.pins.drain(..go);
    }
}

/// Inputs to start from: each kind of step, in small stories.
pub fn seeds() -> Vec<Vec<u8>> {
    let put = |key: u8, length: u8, flags: u8| vec![0, key, length, flags];
    let puts =
        |keys: std::ops::Range<u8>, length: u8| keys.flat_map(|key| put(key, length, 1)).collect::<Vec<u8>>();
    let (publish, turns, checkpoint) = (vec![20], vec![23, 5], vec![26, 1]);
    let (cut, kill, compare) = (vec![28], vec![29, 0], vec![30, 5]);
    let (pin, all_at) = (vec![30, 3], |back: u8| vec![30, 0, 0, 3, 0, back]);
    let compact = |back: u8| vec![15, back];
    vec![
        // a checkpoint, and what comes after it is in the log
        [puts(0..12, 90), checkpoint.clone(), puts(6..18, 30), publish.clone(), cut.clone(), compare.clone()]
            .concat(),
        // values in runs, long keys, spills; killed while pages are on their way
        [[puts(0..7, 255), publish.clone(), vec![23, 1]].concat().repeat(40), kill].concat(),
        // versions of one key, read back over a compaction whose walk is cut
        [
            puts(3..4, 20).repeat(12),
            vec![10, 3, 0, 1],
            puts(3..5, 20).repeat(3),
            checkpoint.clone(),
            all_at(9),
            compact(4),
            vec![22, 5],
            pin.clone(),
            checkpoint.clone(),
            cut.clone(),
            vec![22, 15],
            all_at(3),
            vec![30, 2, 3, 3, 12, 4],
            vec![30, 4, 2],
        ]
        .concat(),
        // leases, attached keys, an end by time and one by command; alarms; members; who votes
        [
            vec![16, 1, 5, 1, 16, 2, 3, 0],
            put(1, 9, 0x60),
            put(2, 9, 0xa0),
            vec![16, 1, 128, 2, 3, 16, 2, 200, 3, 16, 1, 170, 0],
            vec![18, 3, 120, 18, 1, 160, 18, 2, 250, 18, 1, 5, 18, 1, 6],
            checkpoint.clone(),
            cut.clone(),
            compare.clone(),
        ]
        .concat(),
        // txns, one in another, with comparisons; a put and a delete in one revision
        [
            puts(0..4, 10),
            vec![12, 0b0111, 1, 0, 0x24, 4, 1, 10, 0, 2, 1, 0, 0, 3, 0b0101, 2, 0, 4, 4, 2, 11, 1],
            vec![12, 0b0100, 4, 5, 8, 0, 2, 5, 0, 1],
            publish.clone(),
            compare.clone(),
            checkpoint,
            all_at(2),
        ]
        .concat(),
        // an operation of the disk fails; a state is held meanwhile
        [puts(0..20, 150), publish, pin, vec![29, 3, 9], turns, puts(0..20, 100), cut, compare].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::rng::Rng;

    #[test]
    fn seeds_lead_into_the_corners() {
        let outcomes: Vec<Outcome> = seeds().iter().map(|seed| run(seed)).collect();
        let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
        assert!(outcomes.iter().all(|outcome| outcome.entries > 4), "{outcomes:?}");
        assert!(sum(|outcome| outcome.spilled) > 0, "{outcomes:?}");
        assert!(sum(|outcome| outcome.starts_in_compaction as u64) > 0, "{outcomes:?}");
        assert!(sum(|outcome| outcome.checkpoints) > 5, "{outcomes:?}");
        assert!(sum(|outcome| outcome.starts as u64) > 8, "{outcomes:?}");
    }

    #[test]
    fn after_the_last_crash_nothing_fails_that_would_need_another() {
        let puts: Vec<u8> = (0..20).flat_map(|key| [0, key, 150, 1]).collect();
        for at in 0..64 {
            let crashes = [28; STARTS_MAX];
            let input = [&puts[..], &crashes, &[29, 3, at << 2], &puts, &[26, 1], &puts, &[26, 1]].concat();
            // one more is at the end of every input
            assert_eq!(run(&input).starts, STARTS_MAX + 1);
        }
    }

    #[test]
    fn random_steps_beside_the_model() {
        let rounds = if std::env::var_os("COFFER_LONG").is_some() { 20_000 } else { 300 };
        let mut rng = Rng::new(11);
        let seeds = seeds();
        let mut starts = 0;
        for round in 0..rounds {
            let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
            for _ in 0..rng.between(0, 200) {
                let place = rng.below(input.len() as u64 + 1) as usize;
                if rng.once_in(6) {
                    let piece = DICTIONARY[rng.below(DICTIONARY.len() as u64) as usize];
                    input.splice(place..place, piece.iter().copied());
                } else {
                    input.insert(place, rng.next_u64() as u8);
                }
            }
            starts += run(&input).starts;
            assert!(starts > round / 2, "crashes come often");
        }
    }
}
