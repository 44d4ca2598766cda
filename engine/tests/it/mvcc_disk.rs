//! The store over a page file on the simulated disk, through crashes and restarts, beside the model: what opening finds is
//! what the model was at that entry, and goes on from there.

use crate::arbitrary::config;
use crate::mvcc::{Step, large, steps};
use coffer_engine::command::*;
use coffer_engine::disk::Disk;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::model::Model;
use coffer_engine::mvcc::KeyRange;
use coffer_engine::store::{Store, StoreNext, StoreOptions};
use proptest::prelude::*;
use std::path::PathBuf;

/// Turns that a run takes at most before the test gives up.
const TURNS_MAX: usize = 200_000;

/// Small bounds, so that much happens early.
fn options() -> StoreOptions {
    StoreOptions {
        dirty_bytes: 200 << 10,
        checkpoint_wal_bytes: 64 << 10,
        checkpoint_interval_us: 20_000,
        ..StoreOptions::new(PathBuf::from("/member/pages"), *b"cluster1 member2")
    }
}

struct Life {
    disk: SimDisk,
    store: Store,
    model: Model,
    /// All entries ever; entry 1 is the first.
    log: Vec<Stamped>,
    /// What each was answered.
    answers: Vec<Applied>,
    log_bytes: u64,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut disk = SimDisk::new(seed);
        let (store, opened) = Store::open(&mut disk, options(), 0).unwrap();
        assert!(opened.fresh);
        Life { disk, store, model: Model::new(), log: Vec::new(), answers: Vec::new(), log_bytes: 0 }
    }

    fn batch(&mut self, batch: &[Stamped]) {
        let mut tx = self.store.begin();
        for stamped in batch {
            self.log.push(stamped.clone());
            self.log_bytes += stamped.encode().unwrap().len() as u64;
            let index = self.log.len() as u64;
            let answer = tx.apply(index, 3, stamped).unwrap();
            assert_eq!(answer, self.model.apply(index, 3, stamped));
            self.answers.push(answer);
        }
        tx.publish();
    }

    fn command(&mut self, command: Command) {
        let clock_ms = self.store.lease_clock_ms();
        self.batch(&[Stamped { clock_ms, command }]);
    }

    fn step(&mut self) -> StoreNext {
        let before = self.store.durable().applied;
        let now = self.disk.now();
        let next = self.store.step(&mut self.disk, now, self.log_bytes).unwrap();
        let after = self.store.durable().applied;
        if after > before {
            let behind = &self.log[after as usize..];
            self.log_bytes = behind.iter().map(|stamped| stamped.encode().unwrap().len() as u64).sum();
        }
        next
    }

    /// Starts what may start, lets time pass up to the next event, takes completions. `false`: nothing is left to do.
    fn turn(&mut self) -> bool {
        let next = self.step();
        let now = self.disk.now();
        let at = if next.at_once { Some(now) } else { next.at };
        let Some(at) = [self.disk.next_due(), at].into_iter().flatten().min() else { return false };
        self.disk.set_now(at);
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        for completion in completions {
            let stranger = self.store.complete(completion, self.disk.now());
            assert!(stranger.is_none(), "all operations are the page file's");
        }
        true
    }

    fn settle(&mut self, is_settled: impl Fn(&Store) -> bool) {
        for _ in 0..TURNS_MAX {
            if is_settled(&self.store) || !self.turn() {
                return;
            }
        }
        panic!("the page file never falls idle");
    }

    /// The power goes, or the process; then the file is opened again, and the log behind it applied.
    fn crash(&mut self, is_kill: bool) {
        let durable = self.store.durable().applied;
        if is_kill {
            self.disk.kill();
        } else {
            self.disk.power_cut();
        }
        let now = self.disk.now();
        let (store, opened) = Store::open(&mut self.disk, options(), now).unwrap();
        self.store = store;
        let applied = opened.applied;
        assert!(durable <= applied && applied <= self.log.len() as u64, "{durable} was durable: {opened:?}");
        assert_eq!(self.store.applied(), applied);
        assert_eq!(self.store.reader().check(), Ok(()));
        let mut before = Model::new();
        for (index, stamped) in (1..=applied).zip(&self.log) {
            before.apply(index, 3, stamped);
        }
        assert!(self.store.reader().state().unwrap() == before.state(), "at entry {applied}");
        self.store.set_replaying(true);
        let mut tx = self.store.begin();
        for ((index, stamped), answer) in (1..).zip(&self.log).zip(&self.answers).skip(applied as usize) {
            assert_eq!(&tx.apply(index, 3, stamped).unwrap(), answer);
        }
        assert!(tx.publish().events.is_none(), "nobody watches a replay");
        self.store.set_replaying(false);
        self.compare();
    }

    fn compare(&self) {
        let reader = self.store.reader();
        assert_eq!(reader.check(), Ok(()));
        assert!(reader.state().unwrap() == self.model.state());
        assert_eq!(reader.hash_kv(0).unwrap(), self.model.hash_kv(0).unwrap());
    }

    fn run(&mut self, steps: &[Step], turns: &[usize]) {
        for ((batch, budget), turns) in steps.iter().zip(turns.iter().cycle()) {
            self.batch(batch);
            self.store.compact_step(*budget).unwrap();
            for _ in 0..*turns {
                self.turn();
            }
        }
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn what_opening_finds_is_what_the_model_was_and_goes_on_from_there(
        lives in proptest::collection::vec((steps(&large(), 40, 3), any::<bool>(), any::<bool>()), 1..5),
        turns in proptest::collection::vec(0..6usize, 7),
        seed in any::<u64>(),
    ) {
        let mut life = Life::new(seed);
        for (steps, is_kill, moves) in &lives {
            if *moves {
                life.store.request_defragment();
            }
            life.run(steps, &turns);
            life.crash(*is_kill);
        }
        life.store.request_checkpoint();
        let last = life.log.len() as u64;
        life.settle(|store| store.durable().applied == last);
        life.crash(false);
    }
}

#[test]
fn defragmenting_leaves_no_more_than_what_is_used_and_readers_see_what_they_saw() {
    let mut life = Life::new(9);
    let put = |key: String, bytes: usize| {
        let value = vec![b'v'; bytes].into();
        Command::Put(PutRequest { key: key.into(), value, ..PutRequest::default() })
    };
    // every tenth key stays; large values among them
    for n in 0..3000 {
        life.command(put(format!("key{n:05}"), if n % 7 == 0 { 6000 } else { 300 }));
        life.turn();
    }
    for n in (0..3000).filter(|n| n % 10 != 0) {
        let range = KeyRange::single(format!("key{n:05}"));
        life.command(Command::DeleteRange(DeleteRangeRequest { range, prev_kv: false }));
        life.turn();
    }
    let revision = life.store.reader().position().revision;
    life.command(Command::Compact { revision });
    while life.store.compact_step(1000).unwrap() {
        life.turn();
    }
    let before = life.store.reader().sizes();
    assert!(before.total_bytes > 4 * before.in_use_bytes, "{before:?}");
    life.store.request_checkpoint();
    life.settle(|store| store.durable().applied == store.applied());
    let pinned = life.store.reader().pin_published();
    let seen = coffer_engine::mvcc::View::of(&pinned, pinned.root()).state().unwrap();
    life.store.request_defragment();
    let mut turns = 0;
    while life.store.is_moving() && life.turn() {
        turns += 1;
        if turns % 16 == 0 {
            life.command(put(format!("while{turns}"), 20));
        }
    }
    assert!(!life.store.is_moving());
    let again = coffer_engine::mvcc::View::of(&pinned, pinned.root()).state().unwrap();
    assert!(again == seen, "a reader that stayed sees what it saw");
    drop(pinned);
    life.compare();
    let after = life.store.reader().sizes();
    assert!(after.total_bytes <= 2 * after.in_use_bytes, "{before:?}, then {after:?}");
    life.store.request_checkpoint();
    life.settle(|store| store.durable().applied == store.applied() && !store.is_busy());
    life.crash(false);
}
