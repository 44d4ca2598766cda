//! Crashes of the page file at every operation of the simulated disk, failures of every operation, and what must be
//! there afterwards: a published transaction, whole, not older than the last one said to be durable.
//!
//! One run is repeated from the same seed, stopped at its first operation, at its second, and so on. At each stop several
//! fates are tried: the power goes (what was not synced is lost, torn at 512 bytes, reordered), the process is killed, or
//! one after the other, and again during the opening that follows.

use crate::pager_rig::{Before, Rig, small_options};
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::disk::sim::{Failure, SimDisk};
use coffer_engine::error::Fault;
use coffer_engine::wal::Space;

/// Fates there are.
const FATES: u64 = 6;
/// Fates tried at each stop, in turn; the long run tries all.
const FATES_TRIED: u64 = 2;
/// Seeds, each a run of its own.
const SEEDS: u64 = 34;
/// Length of a new file.
const FIRST_BYTES: u64 = (8 + 512) * 4096;
/// Crash points that a run must reach at least.
const POINTS_MIN: u64 = 3_000;

fn long() -> bool {
    std::env::var_os("COFFER_LONG").is_some()
}

/// With the large ones the file grows.
fn value_bytes_max(seed: u64) -> u64 {
    if seed.is_multiple_of(2) { 60_000 } else { 9_000 }
}

/// A file as it is before the run that is stopped: none, or one with an end that is clean, killed or cut.
fn earlier_life(seed: u64) -> (SimDisk, Before) {
    if seed.is_multiple_of(4) {
        return (SimDisk::new(seed), Before::default());
    }
    let mut rig = Rig::new(seed, small_options(seed));
    rig.run(30, value_bytes_max(seed));
    let before = rig.before();
    match seed % 4 {
        1 => {
            rig.settle();
            return (rig.disk.clone(), rig.before());
        }
        2 => rig.disk.kill(),
        _ => rig.disk.power_cut(),
    }
    (rig.disk.clone(), before)
}

/// The run that is stopped: opening, load, idle times, more load.
fn run(disk: SimDisk, seed: u64, before: &Before) -> Result<Rig, Fault> {
    let mut rig = Rig::open(disk, seed, small_options(seed), before)?;
    for part in 0..3 {
        rig.run(12, value_bytes_max(seed));
        rig.check_pins(2);
        match part {
            0 => rig.settle(),
            1 => rig.pager.request_checkpoint(),
            _ => {}
        }
    }
    rig.check_pins(0);
    rig.settle();
    Ok(rig)
}

#[derive(Default)]
struct Counts {
    points: u64,
    openings: u64,
    damaged_metas: u64,
    newer: u64,
    spilled: u64,
    grown: u64,
}

fn crash_and_check(
    disk: &SimDisk,
    fate: u64,
    seed: u64,
    before: &Before,
    counts: &mut Counts,
    context: &str,
) {
    let mut rng = Rng::new(seed ^ fate << 32);
    let disk = disk.fork(rng.next_u64());
    if fate.is_multiple_of(3) {
        disk.kill()
    } else {
        disk.power_cut()
    }
    if fate >= 2 {
        // opening is stopped somewhere too, by the other kind of crash or the same
        disk.stop_at_op(disk.ops() + rng.below(20));
        if let Ok(mut rig) = Rig::open(disk.clone(), seed, small_options(seed), before) {
            rig.settle();
        }
        if rng.once_in(2) { disk.kill() } else { disk.power_cut() }
    }
    let opened = Rig::open(disk.clone(), seed, small_options(seed), before);
    let mut rig = opened.unwrap_or_else(|fault| panic!("{context}: the file does not open: {fault}"));
    counts.openings += 1;
    counts.damaged_metas += rig.opened.metas_damaged.len() as u64;
    counts.newer += u64::from(rig.opened.tx > before.durable);
    // what was found is durable: it is there again after the power goes at once
    let again = disk.fork(rng.next_u64());
    again.power_cut();
    let second = Rig::open(again, seed, small_options(seed), &rig.before());
    let second = second.unwrap_or_else(|fault| panic!("{context}: the file does not open again: {fault}"));
    assert_eq!(second.opened.tx, rig.opened.tx, "{context}: opening twice finds the same");
    assert_eq!(second.opened.metas_damaged, [], "{context}: copies are restored");
    if fate < 2 {
        // and it goes on
        rig.run(6, 9_000);
        rig.check_pins(0);
        rig.settle();
        assert!(rig.fault.is_none(), "{context}: {:?}", rig.fault);
        assert_eq!(rig.pager.durable().tx, rig.pager.published().tx, "{context}: all of it is durable");
        rig.check();
        disk.power_cut();
        let last = Rig::open(disk, seed, small_options(seed), &rig.before());
        last.unwrap_or_else(|fault| panic!("{context}: after going on: {fault}"));
    }
}

fn crash_everywhere(seeds: std::ops::Range<u64>) -> Counts {
    let mut counts = Counts::default();
    for seed in seeds {
        let (start, before) = earlier_life(seed);
        let first_op = start.ops();
        let whole = run(start.fork(seed), seed, &before).expect("nothing stops it");
        assert!(whole.fault.is_none(), "{:?}", whole.fault);
        let ops = whole.disk.ops() - first_op;
        counts.spilled += whole.pager.stats().pages_spilled;
        counts.grown += u64::from(whole.pager.stats().file_bytes > FIRST_BYTES);
        for op in 0..ops {
            let disk = start.fork(seed);
            disk.stop_at_op(first_op + op);
            let stopped =
                run(disk.clone(), seed, &before).map_or_else(|_| before.clone(), |rig| rig.before());
            counts.points += 1;
            let tried = if long() { FATES } else { FATES_TRIED };
            for turn in 0..tried {
                let fate = (op * tried + turn + seed) % FATES;
                let context = format!("seed {seed}, operation {op} of {ops}, fate {fate}");
                crash_and_check(&disk, fate, seed + op * 1000, &stopped, &mut counts, &context);
            }
        }
    }
    counts
}

#[test]
fn a_crash_at_any_operation_leaves_a_whole_transaction_not_older_than_the_durable_one() {
    let seeds = if long() { 10 * SEEDS } else { SEEDS };
    let half = seeds / 2;
    // the two halves on two threads: each is deterministic by itself
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| crash_everywhere(0..half));
        let second = crash_everywhere(half..seeds);
        (first.join().expect("the first half passes"), second)
    });
    let points = first.points + second.points;
    println!(
        "crash points {points}, openings {}, damaged metas met {}, newer than said {}, lost 0; \
         in the runs: pages spilled {}, files grown {}",
        first.openings + second.openings,
        first.damaged_metas + second.damaged_metas,
        first.newer + second.newer,
        first.spilled + second.spilled,
        first.grown + second.grown,
    );
    assert!(points >= POINTS_MIN, "only {points} points");
    assert!(first.damaged_metas + second.damaged_metas > 20, "crashes while a meta was written");
    assert!(first.spilled + second.spilled > 100 && first.grown + second.grown > 2, "spills and growth");
    assert!(first.newer + second.newer > 20, "crashes after a meta was durable, before it was said");
}

/// Failures tried on every operation.
const FAILURES: [Failure; 4] =
    [Failure::Errno(libc::EIO), Failure::Errno(libc::ENOSPC), Failure::Short, Failure::Cancelled];

#[test]
fn after_any_failed_operation_nothing_more_is_written_or_said_to_be_durable() {
    let (mut failed, mut healed, mut at_opening, mut copies) = (0, 0, 0, 0);
    let seeds: &[u64] = if long() { &[1, 2, 3, 4, 5, 6, 7, 8] } else { &[1, 6] };
    for seed in seeds.iter().copied() {
        let (start, before) = earlier_life(seed);
        let first_op = start.ops();
        let ops = run(start.fork(seed), seed, &before).expect("nothing fails").disk.ops() - first_op;
        for op in 0..ops {
            for failure in FAILURES {
                let context = format!("seed {seed}, operation {op} of {ops}, {failure:?}");
                let disk = start.fork(seed);
                disk.fail_op(first_op + op, failure);
                let after = match run(disk.clone(), seed, &before) {
                    Err(_) => {
                        at_opening += 1;
                        before.clone()
                    }
                    // one copy of a meta could not be read
                    Ok(rig) if rig.fault.is_none() && !rig.opened.metas_damaged.is_empty() => {
                        copies += 1;
                        rig.before()
                    }
                    Ok(rig) if rig.fault.is_none() => {
                        healed += 1;
                        assert_eq!(failure, Failure::Errno(libc::ENOSPC), "{context}: no fault");
                        assert_eq!(rig.pager.space(), Space::Ample, "{context}: it heals");
                        assert_eq!(rig.pager.durable().tx, rig.pager.published().tx, "{context}");
                        rig.before()
                    }
                    Ok(rig) => {
                        failed += 1;
                        stays_stopped(rig, &context)
                    }
                };
                for (fate, crashed) in [disk.fork(op), disk.fork(op)].into_iter().enumerate() {
                    if fate == 0 {
                        crashed.kill()
                    } else {
                        crashed.power_cut()
                    }
                    let again = Rig::open(crashed, seed, small_options(seed), &after);
                    let again = again.unwrap_or_else(|fault| panic!("{context}, fate {fate}: {fault}"));
                    // whatever it found is on the medium, not only in a cache that a failed sync left clean
                    again.disk.power_cut();
                    let last = Rig::open(again.disk.clone(), seed, small_options(seed), &again.before());
                    last.unwrap_or_else(|fault| panic!("{context}, fate {fate}, power cut: {fault}"));
                }
            }
        }
    }
    println!(
        "failed operations {failed} (file stopped), {at_opening} (at opening), {copies} (a meta's copy not read), \
         {healed} (space: healed)"
    );
    assert!(
        failed > 500 && at_opening > 20 && copies > 0 && healed > 0,
        "{failed} {at_opening} {copies} {healed}"
    );
}

/// The file has stopped: it says so again and again, starts nothing and says nothing to be durable.
fn stays_stopped(mut rig: Rig, context: &str) -> Before {
    let (ops, durable) = (rig.disk.ops(), rig.pager.durable());
    let text = rig.fault.as_ref().expect("it stopped").to_string();
    rig.check_pins(0);
    for _ in 0..20 {
        rig.disk.set_now(rig.disk.now() + 10_000);
        rig.now = rig.disk.now();
        rig.take_completions();
        let again = rig.pager.step(&mut rig.disk, rig.now, u64::MAX).expect_err("the fault stays");
        assert_eq!(again.to_string(), text, "{context}");
    }
    assert_eq!(rig.disk.ops(), ops, "{context}: something was started after the fault");
    assert_eq!(rig.pager.durable(), durable, "{context}: something was said to be durable after the fault");
    rig.before()
}

#[test]
fn the_same_seed_gives_the_same_file_byte_for_byte() {
    for seed in 0..4 {
        let file = || {
            let (start, before) = earlier_life(seed);
            let rig = run(start, seed, &before).expect("it runs");
            (rig.disk.ops(), rig.disk.read_file(std::path::Path::new(crate::pager_rig::PATH)))
        };
        assert!(file() == file(), "seed {seed}");
    }
}
