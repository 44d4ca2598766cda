//! Crashes of the store at every event of its disk: after each operation was submitted, after each was completed. What
//! opening finds must be a published state, whole, not older than what was said to be durable, and exactly what the model
//! is at that entry; the file must pass the whole check; and the rest of the history must lead to the model's end.
//!
//! A history is lived through once, and its disk copied at every event. Each copy meets several fates: the power goes
//! (what was not synced is lost, torn at 512 bytes, reordered), the process is killed, or one after the other, and again
//! during the opening that follows or soon after.

use crate::store_rig::{Act, History, Life, Maker, Point, Watched, check_file, options};
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::store::StoreOptions;
use std::collections::BTreeMap;

/// Fates there are.
const FATES: u64 = 6;
/// Fates tried at each point, in turn; where a meta is written, all.
const FATES_TRIED: u64 = 2;
/// Of so many writes of pages one is a crash point, of rarer events more; the long run takes all.
const EVENTS_ONE_IN: u64 = 7;
/// Histories of each shape in the long run; one in the short.
const SEEDS_LONG: u64 = 9;
/// Crash points that must be reached at least.
const POINTS_MIN: u64 = 400;
const POINTS_MIN_LONG: u64 = 20_000;

fn long() -> bool {
    std::env::var_os("COFFER_LONG").is_some()
}

/// What a history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Commands of all kinds, small values and large.
    Mixed,
    /// More is changed than may wait in memory while a checkpoint runs.
    Spill,
    /// Compaction walks while all else goes on.
    Compaction,
    /// Most is deleted, and pages are moved toward the file's head.
    Relocation,
    /// The file grows, is emptied, is cut, grows again.
    Growth,
    /// Checkpoints so long that they are written out on the way.
    Stretches,
}

const SHAPES: [Shape; 6] =
    [Shape::Mixed, Shape::Spill, Shape::Compaction, Shape::Relocation, Shape::Growth, Shape::Stretches];

fn options_of(shape: Shape) -> StoreOptions {
    match shape {
        Shape::Mixed | Shape::Compaction => options(400 << 10),
        Shape::Spill => options(96 << 10),
        Shape::Relocation => options(300 << 10),
        Shape::Growth => options(1 << 20),
        Shape::Stretches => StoreOptions {
            checkpoint_wal_bytes: 64 << 20,
            checkpoint_interval_us: 60_000,
            ..options(16 << 20)
        },
    }
}

fn history(shape: Shape, seed: u64) -> History {
    let mut maker = Maker::new(seed);
    match shape {
        Shape::Mixed => {
            maker.mixed(60);
            maker.act(Act::Settle);
            maker.mixed(60);
            maker.act(Act::Checkpoint);
            maker.mixed(30);
        }
        Shape::Spill => {
            for part in 0..6 {
                maker.fill(part * 50..part * 50 + 70, 900, 12, 1);
                maker.mixed(6);
            }
            maker.thin(0..300, 3, 1);
        }
        Shape::Compaction => {
            for round in 0..5 {
                maker.fill(0..60, 300 + round * 200, 10, 1);
                maker.compact(3, 7, 25);
                maker.mixed(10);
            }
            maker.compact(0, 9, 40);
        }
        Shape::Relocation => {
            maker.fill(0..240, 3_000, 20, 2);
            maker.act(Act::Settle);
            maker.thin(0..240, 12, 1);
            maker.compact(0, 60, 30);
            maker.act(Act::Settle);
            maker.act(Act::Pin);
            maker.act(Act::Defragment);
            maker.mixed(40);
            maker.act(Act::Unpin);
        }
        Shape::Growth => {
            maker.fill(0..38, 60_000, 2, 3);
            maker.mixed(6);
            maker.thin(0..38, 30, 2);
            maker.compact(0, 50, 6);
            maker.act(Act::Settle);
            maker.act(Act::Defragment);
            maker.act(Act::Settle);
            maker.mixed(10);
            maker.fill(100..108, 60_000, 2, 3);
        }
        Shape::Stretches => {
            maker.fill(0..45, 60_000, 15, 0);
            maker.act(Act::Checkpoint);
            maker.act(Act::Turns(10));
            maker.fill(20..50, 60_000, 10, 0);
            maker.act(Act::Checkpoint);
            maker.act(Act::Turns(8));
            maker.act(Act::Settle);
            maker.fill(100..220, 1_000, 40, 2);
            maker.mixed(10);
        }
    }
    maker.act(Act::Settle);
    maker.done()
}

#[derive(Default)]
struct Counts {
    points: u64,
    openings: u64,
    checks: u64,
    newer: u64,
    damaged_metas: u64,
    kinds: BTreeMap<&'static str, u64>,
    spilled: u64,
    moved: u64,
    cut: u64,
    grown: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.points += other.points;
        self.openings += other.openings;
        self.checks += other.checks;
        self.newer += other.newer;
        self.damaged_metas += other.damaged_metas;
        self.spilled += other.spilled;
        self.moved += other.moved;
        self.cut += other.cut;
        self.grown += other.grown;
        other.kinds.into_iter().for_each(|(kind, count)| *self.kinds.entry(kind).or_default() += count);
    }
}

fn quiet(points: Vec<Point>, _: u64, _: u64) {
    assert!(points.is_empty(), "nobody asked for copies");
}

fn open(disk: &SimDisk, options: &StoreOptions) -> Result<Life, coffer_engine::error::Fault> {
    Life::open(Watched::new(disk.clone(), 0), options, &mut quiet)
}

/// One history, in which everything is looked at.
struct Case<'a> {
    history: &'a History,
    options: &'a StoreOptions,
    counts: Counts,
}

impl Case<'_> {
    fn crash(&mut self, disk: &SimDisk, fate: u64, seed: u64, durable: u64, published: u64, context: &str) {
        let mut rng = Rng::new(seed ^ fate << 32);
        let disk = disk.fork(rng.next_u64());
        if fate.is_multiple_of(3) {
            disk.kill()
        } else {
            disk.power_cut()
        }
        let (mut least, mut most) = (durable, published);
        if fate >= 2 {
            // opening, or what follows it, is stopped somewhere too, by the other kind of crash or the same
            disk.stop_at_op(disk.ops() + rng.below(if fate == 5 { 60 } else { 20 }));
            if let Ok(mut life) = open(&disk, self.options) {
                self.counts.openings += 1;
                assert!((least..=most).contains(&life.opened.applied), "{context}: {:?}", life.opened);
                // the stop is met somewhere on the way
                let _ = life.run(self.history, &mut quiet);
                least = least.max(life.store.durable().applied).max(life.opened.applied);
                most = most.max(life.store.applied());
            }
            if rng.once_in(2) { disk.kill() } else { disk.power_cut() }
        }
        let opened = open(&disk, self.options);
        let mut life = opened.unwrap_or_else(|fault| panic!("{context}: the file does not open: {fault}"));
        self.counts.openings += 1;
        let found = &life.opened;
        assert!(
            (least..=most).contains(&found.applied),
            "{context}: {least} was durable and {most} published: {found:?}"
        );
        self.counts.damaged_metas += found.metas_damaged.len() as u64;
        self.counts.newer += u64::from(found.applied > durable);
        // what was found is durable: it is there again after the power goes at once
        let again = disk.fork(rng.next_u64());
        again.power_cut();
        let second = open(&again, self.options);
        let second =
            second.unwrap_or_else(|fault| panic!("{context}: the file does not open again: {fault}"));
        assert_eq!(second.opened.tx, life.opened.tx, "{context}: opening twice finds the same");
        self.counts.openings += 1;
        self.look(&life, context);
        if fate.is_multiple_of(2) {
            // the whole rest, with all that happens beside it
            let run = life.run(self.history, &mut quiet);
            run.unwrap_or_else(|fault| panic!("{context}: it does not go on: {fault}"));
            while life.store.compact_step(1_000).unwrap() {}
            life.settle(self.history, &mut quiet).unwrap();
            self.at_end(&life, context);
            disk.power_cut();
            let last = open(&disk, self.options);
            let last = last.unwrap_or_else(|fault| panic!("{context}: after going on: {fault}"));
            self.counts.openings += 1;
            self.look(&last, context);
            self.at_end(&last, context);
        } else {
            life.replay(self.history).unwrap_or_else(|fault| panic!("{context}: no replay: {fault}"));
            self.at_end(&life, context);
        }
    }

    /// What opening found, in the file and in the store.
    fn look(&mut self, life: &Life, context: &str) {
        assert_eq!(check_file(&life.disk.disk, context), life.opened.tx, "{context}");
        assert_eq!(life.store.applied(), life.opened.applied, "{context}");
        self.history.compare(&life.store.reader(), context);
        self.counts.checks += 1;
    }

    fn at_end(&self, life: &Life, context: &str) {
        let reader = life.store.reader();
        assert_eq!(reader.position().applied, self.history.len(), "{context}");
        assert_eq!(reader.check(), Ok(()), "{context}");
        self.history.compare(&reader, context);
    }
}

fn crash_everywhere(shape: Shape, seed: u64) -> Counts {
    let (history, options) = (history(shape, seed), options_of(shape));
    let mut case = Case { history: &history, options: &options, counts: Counts::default() };
    let one_in = if long() { 1 } else { EVENTS_ONE_IN };
    let mut examine = |points: Vec<Point>, durable: u64, published: u64| {
        for Point { disk, event, kind } in points {
            case.counts.points += 1;
            *case.counts.kinds.entry(kind).or_default() += 1;
            let tried = if kind == "metas written" { FATES } else { FATES_TRIED };
            for turn in 0..tried {
                let fate = (case.counts.points * FATES_TRIED + turn + seed) % FATES;
                let context = format!("{shape:?}, seed {seed}, event {event} ({kind}), fate {fate}");
                case.crash(&disk, fate, seed + event * 1000, durable, published, &context);
            }
        }
    };
    let disk = SimDisk::new(seed);
    let life = Life::open(Watched::new(disk.clone(), one_in), &options, &mut examine);
    let mut life = life.expect("nothing stops it");
    assert!(life.opened.fresh);
    let first_bytes = life.store.stats().file_bytes;
    let mut longest = 0;
    life.run(&history, &mut |points, durable, published| {
        longest = longest.max(disk.used());
        examine(points, durable, published);
    })
    .expect("nothing stops it");
    history.compare(&life.store.reader(), "without a crash");
    let stats = life.store.stats();
    case.counts.spilled += stats.pages_spilled;
    case.counts.moved += u64::from(life.moved);
    case.counts.cut += u64::from(life.cut);
    case.counts.grown += u64::from(longest > first_bytes);
    case.counts
}

#[test]
fn a_crash_at_any_event_leaves_what_the_model_was_and_the_rest_of_the_log_leads_to_its_end() {
    let seeds = if long() { SEEDS_LONG } else { 1 };
    let cases = (0..seeds).flat_map(|seed| SHAPES.map(|shape| (shape, seed)));
    let (one, other): (Vec<_>, Vec<_>) =
        cases.partition(|(shape, seed)| (*shape as u64 + seed).is_multiple_of(2));
    let all = |cases: Vec<(Shape, u64)>| {
        let mut counts = Counts::default();
        cases.into_iter().for_each(|(shape, seed)| counts.add(crash_everywhere(shape, seed)));
        counts
    };
    // the two halves on two threads: each is deterministic by itself
    let counts = std::thread::scope(|scope| {
        let other = scope.spawn(|| all(other));
        let mut counts = all(one);
        counts.add(other.join().expect("the other half passes"));
        counts
    });
    let Counts { points, openings, checks, newer, damaged_metas, kinds, spilled, moved, cut, grown } = counts;
    println!(
        "crash points {points}, openings {openings}, lost 0; whole files checked and compared {checks}, newer than said \
         {newer}, damaged metas met {damaged_metas}; points by what was done: {kinds:?}; in the histories: pages spilled \
         {spilled}, with pages moved {moved}, files cut {cut}, grown {grown}"
    );
    let least = if long() { POINTS_MIN_LONG } else { POINTS_MIN };
    assert!(points >= least, "only {points} points");
    assert!(newer > 10 && damaged_metas > 3, "crashes around a meta");
    assert!(spilled > 100 && moved > 0 && cut > 0 && grown > 0, "spills, moves, cuts, growth");
    let met = ["pages written", "metas written", "write-backs", "syncs", "growth", "cuts", "opening"];
    assert!(met.iter().all(|kind| kinds.contains_key(kind)), "{kinds:?}");
}
