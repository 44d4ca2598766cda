//! The state machine on a simulated disk, in simulated time.

use super::core::{Core, Output};
use super::error::{Error, Invalid};
use super::opening::Files;
use super::queue::{Request, Slot};
use crate::Micros;
use crate::command::{Applied, Command, DeleteRangeRequest, PutRequest, Reply, Stamped};
use crate::disk::Disk;
use crate::disk::sim::rng::Rng;
use crate::disk::sim::{Failure, SimDisk};
use crate::error::{Fault, Refusal};
use crate::lease_clock::LAG_MS_MAX;
use crate::mvcc::{EventKind, KeyRange};
use crate::store::{Store, StoreOptions, StoreReader};
use crate::wal::WalOptions;
use crate::watch::EventBatch;
use std::path::PathBuf;
use std::sync::Arc;

/// Steps until a test gives up.
const STEPS_MAX: usize = 200_000;

struct Rig {
    disk: SimDisk,
    core: Core,
    reader: StoreReader,
    asked: Vec<Arc<Slot>>,
    /// What each asker was told, in the order of asking.
    answers: Vec<Option<Result<Applied, Error>>>,
    events: Vec<(Micros, Arc<EventBatch>)>,
    /// When the last step was taken.
    stepped: Micros,
    /// Time does not go beyond this.
    until: Micros,
}

fn files(salt: u64) -> Files {
    let owner = *b"coffer embedded\0";
    Files {
        wal: WalOptions {
            segment_bytes_min: 64 << 10,
            segment_bytes_max: 64 << 10,
            entry_bytes_max: 4 << 10,
            ..WalOptions::new(PathBuf::from("/db/wal"), owner, salt)
        },
        pages: StoreOptions {
            checkpoint_wal_bytes: 128 << 10,
            ..StoreOptions::new(PathBuf::from("/db/pages"), owner)
        },
    }
}

impl Rig {
    fn open(disk: &SimDisk) -> Result<Rig, Fault> {
        let mut disk = disk.clone();
        let now = disk.now();
        let time = disk.clone();
        let (core, _) = Core::open(&mut disk, &files(now + 1), &mut || time.now())?;
        let reader = core.reader();
        let (asked, answers, events) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Rig { disk, core, reader, asked, answers, events, stepped: now, until: Micros::MAX })
    }

    /// Hands in a command; the number under which its answer will be found.
    fn ask(&mut self, command: Command) -> usize {
        let (slot, asker) = Slot::with_asker();
        self.core.request(&mut vec![Request { command, bytes: 100, asker: Some(asker) }]);
        self.asked.push(slot);
        self.answers.push(None);
        self.asked.len() - 1
    }

    /// One step, and on to when the next thing happens; `false` if nothing will.
    fn step(&mut self) -> Result<bool, Fault> {
        let now = self.disk.now();
        self.stepped = now;
        let (mut completions, mut out) = (Vec::new(), Output::default());
        self.disk.poll(&mut completions);
        completions.drain(..).for_each(|completion| self.core.complete(completion, now));
        let stepped = self.core.step(&mut self.disk, now, &mut out);
        self.events.extend(out.events.map(|events| (now, events)));
        for (asker, answer) in out.answers {
            let place = self.asked.iter().position(|asked| asker.waits_at(asked)).unwrap();
            assert!(self.answers[place].replace(answer).is_none(), "answered twice");
        }
        let next = stepped?;
        if next.at_once {
            return Ok(true);
        }
        let then = self.disk.next_due().into_iter().chain(next.at).min();
        let then = then.map_or(self.until, |then| then.max(now + 1)).min(self.until);
        if then > now && then < Micros::MAX {
            self.disk.set_now(then);
        }
        Ok(then > now && then < Micros::MAX)
    }

    /// Steps until `done`, or nothing happens any more.
    fn run(&mut self, done: impl Fn(&Rig) -> bool) -> Result<(), Fault> {
        for _ in 0..STEPS_MAX {
            if done(self) || !self.step()? {
                return Ok(());
            }
        }
        panic!("it does not come to rest");
    }

    /// Lives on until `time`.
    fn live_until(&mut self, time: Micros) {
        self.until = time;
        self.run(|rig| rig.disk.now() >= time).unwrap();
        self.until = Micros::MAX;
    }

    /// The answer to a command that is given one.
    fn execute(&mut self, command: Command) -> Result<Applied, Error> {
        let asked = self.ask(command);
        self.run(|rig| rig.answers[asked].is_some())?;
        self.answers[asked].clone().expect("an answer")
    }
}

fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Command {
    let (key, value) = (key.into().into(), value.into().into());
    Command::Put(PutRequest { key, value, ..PutRequest::default() })
}

fn delete(key: &'static str) -> Command {
    Command::DeleteRange(DeleteRangeRequest { range: KeyRange::single(key), prev_kv: false })
}

fn leased(lease: i64) -> Command {
    Command::Put(PutRequest { key: "leased".into(), lease, ..PutRequest::default() })
}

/// When the leased key went.
fn ended(rig: &Rig) -> Option<Micros> {
    let gone = |batch: &EventBatch| batch.events.iter().any(|event| event.kind == EventKind::Delete);
    rig.events.iter().find(|(_, batch)| gone(batch)).map(|(at, _)| *at)
}

#[test]
fn a_lease_ends_and_never_before_its_holder_counted_to_its_end() {
    for latency_us in [50, 5_000, 3_000_000] {
        let disk = SimDisk::new(latency_us);
        let mut rig = Rig::open(&disk).unwrap();
        rig.execute(put("warm", "up")).unwrap();
        disk.set_latency(latency_us, latency_us);
        rig.execute(Command::LeaseGrant { id: 7, ttl: 2 }).unwrap();
        let answered = rig.stepped;
        disk.set_latency(50, 50);
        rig.execute(leased(7)).unwrap();
        while ended(&rig).is_none() && disk.now() < answered + 60_000_000 {
            // it wakes more often than leases would have it
            rig.live_until(disk.now() + 10_000);
        }
        let ended = ended(&rig).expect("it ends");
        assert!(ended >= answered + 2_000_000, "{ended} against {answered}, writes take {latency_us}");
        assert!(rig.reader.leases().unwrap().is_empty());
    }
}

#[test]
fn a_renewed_lease_lives_on_and_a_restart_gives_it_time() {
    let disk = SimDisk::new(3);
    let mut rig = Rig::open(&disk).unwrap();
    rig.execute(Command::LeaseGrant { id: 7, ttl: 2 }).unwrap();
    rig.execute(leased(7)).unwrap();
    let granted = disk.now();
    rig.live_until(granted + 1_900_000);
    let renewed = rig.execute(Command::LeaseRenew { ids: vec![7, 8] }).unwrap();
    assert_eq!(renewed.outcome, Ok(Reply::LeaseRenew(vec![2, 0])));
    let renewed = disk.now();
    drop(rig);
    disk.power_cut();
    // an hour without power
    disk.set_now(renewed + 3_600_000_000);
    let mut rig = Rig::open(&disk).unwrap();
    let opened = disk.now();
    assert!(
        rig.core.lease_clock().now_ms(opened) <= rig.reader.lease(7, false).unwrap().unwrap().deadline_ms
    );
    rig.run(|rig| ended(rig).is_some()).unwrap();
    let ended = ended(&rig).expect("it ends");
    assert!(ended >= opened + 2_000_000 - 1_000, "{ended} against {opened}");
    assert!(ended <= opened + 2_000_000 + 2 * 1_000 * LAG_MS_MAX + 500_000, "nor much later");
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_and_all_who_wait_are_told() {
    let disk = SimDisk::new(4);
    let mut rig = Rig::open(&disk).unwrap();
    rig.execute(put("k", "1")).unwrap();
    rig.run(|_| false).unwrap();
    disk.fail_op(disk.ops(), Failure::Errno(libc::EIO));
    let lost = rig.ask(put("k", "2"));
    let fault = rig.run(|_| false).expect_err("the write fails");
    assert!(matches!(fault, Fault::Io { operation: "durable write", .. }), "{fault}");
    let late = rig.ask(put("k", "3"));
    assert!(rig.step().is_err(), "it stays");
    let waiting = rig.core.stop();
    assert!([lost, late].iter().all(|&n| waiting.iter().any(|asker| asker.waits_at(&rig.asked[n]))));
    assert!(rig.answers[lost].is_none() && rig.answers[late].is_none());
    assert_eq!(rig.reader.position().revision, 2);
}

#[test]
fn on_a_full_disk_puts_are_refused_deletes_go_on_and_it_heals() {
    let disk = SimDisk::new(5);
    let mut rig = Rig::open(&disk).unwrap();
    let put_no = |n: u32| put(format!("k{}", n % 50), vec![b'v'; 1_000]);
    let mut n = 0;
    rig.run(|_| false).unwrap();
    disk.set_capacity(Some(disk.used() + (40 << 10)));
    let refused = loop {
        n += 1;
        assert!(n < 1_000, "the disk never fills");
        if let Err(error) = rig.execute(put_no(n)).and_then(|applied| Ok(applied.outcome?)) {
            break error;
        }
    };
    assert!(matches!(refused, Error::Refused(Refusal::NoSpace)), "{refused}");
    let clock = rig.core.lease_clock().now_ms(disk.now());
    assert_eq!(rig.core.lease_clock().now_ms(disk.now() + 10_000_000), clock, "no lease ends meanwhile");
    assert_eq!(
        rig.execute(delete("k1")).unwrap().outcome,
        Ok(Reply::DeleteRange(crate::command::DeleteRangeReply { deleted: 1, prev_kvs: Vec::new() }))
    );
    disk.set_capacity(None);
    rig.live_until(disk.now() + 10_000_000);
    assert!(rig.execute(put_no(n)).unwrap().outcome.is_ok());
}

#[test]
fn a_command_too_large_for_the_log_is_refused_and_harms_nobody() {
    let disk = SimDisk::new(6);
    let mut rig = Rig::open(&disk).unwrap();
    let error = rig.execute(put("k", vec![0; 5_000])).unwrap_err();
    assert!(matches!(error, Error::Invalid(Invalid::TooLarge { limit: 4_096, .. })), "{error}");
    assert_eq!(rig.execute(put("k", vec![0; 4_000])).unwrap().revision, 2);
}

#[test]
fn a_stop_does_not_wait_for_a_checkpoint_that_nobody_goes_on_with() {
    let disk = SimDisk::new(8);
    let mut cut_short = 0;
    // so many steps of it are done before the stop
    for steps in 0..40 {
        let mut rig = Rig::open(&disk).unwrap();
        for n in 0..100 {
            rig.execute(put(format!("k{n}"), vec![b'v'; 1_000])).unwrap();
        }
        let applied = rig.reader.position().applied;
        rig.core.request_checkpoint();
        for _ in 0..steps {
            rig.step().unwrap();
        }
        cut_short += u32::from(rig.core.checkpoint().applied < applied);
        let begun = disk.now();
        rig.core.close();
        while !rig.core.step_close(&mut rig.disk, disk.now()).unwrap() {
            assert!(disk.now() < begun + 1_000_000, "it waits after {steps} steps");
            rig.disk.wait(Some(10_000));
            let mut completions = Vec::new();
            rig.disk.poll(&mut completions);
            completions.drain(..).for_each(|completion| rig.core.complete(completion, disk.now()));
        }
        disk.kill();
    }
    assert!(cut_short > 5, "only {cut_short} stops met a checkpoint");
}

/// A state that a reopened database may have: after so many of the commands handed in, in order.
fn model_after(commands: &[Stamped]) -> Store {
    let mut store = Store::new();
    let mut tx = store.begin();
    for (index, stamped) in (1..).zip(commands) {
        tx.apply(index, 1, stamped).unwrap();
    }
    let _ = tx.publish();
    store
}

#[test]
fn a_crash_at_any_time_leaves_all_that_was_acknowledged_and_whole_commands() {
    let mut checkpoints = 0;
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let mut handed_in: Vec<Stamped> = Vec::new();
        let mut acknowledged = 0;
        for _life in 0..3 {
            disk.stop_at_op(disk.ops() + rng.between(1, 500));
            let mut rig = match Rig::open(&disk) {
                Ok(rig) => rig,
                Err(_) => {
                    crash(&disk, &mut rng);
                    continue;
                }
            };
            handed_in.truncate(rig.reader.position().applied as usize);
            assert!(handed_in.len() >= acknowledged, "seed {seed}: acknowledged writes are gone");
            let model = model_after(&handed_in).reader();
            assert_eq!(rig.reader.hash_kv(0).unwrap(), model.hash_kv(0).unwrap(), "seed {seed}");
            assert_eq!(rig.reader.check(), Ok(()), "seed {seed}");
            let (mut asked, before) = (0, handed_in.len());
            while rig.step().is_ok() && asked < 1_000 {
                for _ in 0..rng.below(4) {
                    asked += 1;
                    let key = format!("k{}", rng.below(5));
                    let command = put(key, format!("value {asked} of life {}", disk.ops()));
                    handed_in.push(Stamped { clock_ms: 0, command: command.clone() });
                    rig.ask(command);
                }
            }
            checkpoints += u64::from(rig.core.checkpoint().applied > before as u64);
            let told = rig.answers.iter().take_while(|answer| answer.is_some()).count();
            assert!(rig.answers.iter().skip(told).all(Option::is_none), "answered in order");
            acknowledged = acknowledged.max(before + told);
            crash(&disk, &mut rng);
        }
        disk.stop_at_op(u64::MAX);
        let rig = Rig::open(&disk).unwrap();
        assert!(rig.reader.position().applied as usize >= acknowledged, "seed {seed}");
    }
    assert!(checkpoints > 10, "only {checkpoints} lives saw a checkpoint");
}

fn crash(disk: &SimDisk, rng: &mut Rng) {
    if rng.once_in(2) { disk.power_cut() } else { disk.kill() }
}
