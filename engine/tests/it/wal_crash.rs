//! Crashes of the log at every operation of the simulated disk, failures of every operation, and what must be there
//! afterwards: all that was acknowledged, and nothing that was never appended.
//!
//! One run of the log is repeated from the same seed, stopped at its first operation, at its second, and so on. At each
//! stop several fates are tried: the power goes (what was not durable is lost, torn at 512 bytes, reordered), the
//! process is killed (what was visible stays, writes under way arrive wholly, partly or late), or the one after the
//! other, and again during the recovery that follows.

use crate::wal_rig::{Before, Rig, check, open, segments, small_options};
use bytes::Bytes;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::disk::sim::{Failure, SimDisk};
use coffer_engine::error::Fault;
use coffer_engine::wal::{EntryKind, HardState, LogEntry, NewBatch, Space, WalOptions};
use std::collections::BTreeMap;

/// Fates there are.
const FATES: u64 = 6;
/// Fates tried at each stop, in turn; the long run tries all.
const FATES_TRIED: u64 = 2;
/// Seeds, each a run of its own; half of them allow 8 writes in flight, half 2.
const SEEDS: u64 = 48;
/// Seeds of the runs that recycle.
const RECYCLING_SEEDS: u64 = 8;
/// Crash points that a run must reach at least.
const POINTS_MIN: u64 = 5_000;

/// Settings of one seed: many writes in flight, in half of the runs up to 8.
fn crash_options(seed: u64, life: u64) -> WalOptions {
    let segment_bytes = if seed.is_multiple_of(3) { 20 << 10 } else { 64 << 10 };
    WalOptions {
        writes_in_flight_max: if seed.is_multiple_of(2) { 2 } else { 8 },
        second_write_bytes: 1,
        segment_bytes_min: segment_bytes,
        segment_bytes_max: segment_bytes,
        ..small_options(seed * 100 + life)
    }
}

/// What a log looks like before the run that is stopped: some batches, released ones among them, and an end that is
/// clean, killed or cut.
fn earlier_life(seed: u64) -> (SimDisk, Before) {
    let mut rig = Rig::new(seed, crash_options(seed, 0));
    if seed.is_multiple_of(4) {
        return (SimDisk::new(seed), Before::default());
    }
    rig.run(12, 2500);
    rig.settle();
    rig.checkpoint();
    rig.run(4, 1000);
    match seed % 4 {
        1 => rig.settle(),
        2 => rig.disk.kill(),
        _ => rig.disk.power_cut(),
    }
    let before = rig.before();
    (rig.disk, before)
}

/// The run that is stopped: opening, load, idle times, a release and more load.
fn run(disk: SimDisk, seed: u64, before: &Before) -> Result<Rig, Fault> {
    let mut rig = Rig::next_life(disk, seed, crash_options(seed, 1), before)?;
    for part in 0..4 {
        rig.run(4, 2500);
        rig.burst(10, 300);
        if part % 2 == 0 {
            rig.settle();
        }
        if part == 2 {
            rig.checkpoint();
        }
    }
    rig.settle();
    Ok(rig)
}

#[derive(Default)]
struct Counts {
    points: u64,
    recoveries: u64,
    acknowledged: u64,
    torn: u64,
    recycled: u64,
    in_flight: BTreeMap<usize, u64>,
}

/// Crashes `disk` in the way `fate` says, perhaps again while it recovers, and checks what is found in the end.
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
    let mut killed = fate.is_multiple_of(3);
    if killed {
        disk.kill()
    } else {
        disk.power_cut()
    }
    if fate >= 2 {
        // recovery is stopped somewhere too, by the other kind of crash or the same
        let stop = disk.ops() + rng.below(60);
        disk.stop_at_op(stop);
        let stopped = Rig::next_life(disk.clone(), seed, crash_options(seed, 2), before);
        if let Ok(mut rig) = stopped {
            // it came up before the stop; its header may be under way
            rig.settle();
        }
        killed = rng.once_in(2);
        if killed { disk.kill() } else { disk.power_cut() }
    }
    let opened = Rig::next_life(disk.clone(), seed, crash_options(seed, 3), before);
    let mut rig = opened.unwrap_or_else(|fault| panic!("{context}: the log does not open: {fault}"));
    counts.recoveries += 1;
    counts.torn += rig.opened.torn.len() as u64;
    // what was recovered is durable: it is there again after the power goes at once
    let again = disk.fork(rng.next_u64());
    again.power_cut();
    let recovered = Before { acked: rig.wal.durable(), ..before.clone() };
    let second = Rig::next_life(again, seed, crash_options(seed, 4), &recovered);
    let second = second.unwrap_or_else(|fault| panic!("{context}: the log does not open again: {fault}"));
    if !killed {
        // a killed process's write may arrive after the first opening read, until a new segment is begun
        assert_eq!(second.opened.last_seq, rig.opened.last_seq, "{context}: opening twice finds the same");
        assert_eq!(second.content, rig.content, "{context}: opening twice finds the same");
    }
    rig.settle();
    assert!(rig.fault.is_none(), "{context}: {:?}", rig.fault);
    let again = disk.fork(rng.next_u64());
    again.power_cut();
    let third = Rig::next_life(again, seed, crash_options(seed, 5), &rig.before());
    let third =
        third.unwrap_or_else(|fault| panic!("{context}: the log does not open after its header: {fault}"));
    assert_eq!(third.opened.last_seq, rig.opened.last_seq, "{context}: what the header cut off stays dead");
    assert_eq!(third.content, rig.content, "{context}: what the header cut off stays dead");
    assert!(third.opened.epoch > rig.opened.epoch, "{context}: the epoch rises");
    // and the log goes on
    if fate == 0 {
        rig.run(3, 500);
        rig.settle();
        assert!(rig.fault.is_none(), "{context}: {:?}", rig.fault);
        disk.power_cut();
        let last = Rig::next_life(disk, seed, crash_options(seed, 6), &rig.before());
        last.unwrap_or_else(|fault| panic!("{context}: after going on: {fault}"));
    }
}

/// Whether this is the long run (scripts/long.sh).
fn long() -> bool {
    std::env::var_os("COFFER_LONG").is_some()
}

/// The same for a log that does nothing but write, checkpoint and recycle its few segments.
fn run_recycling(disk: SimDisk, seed: u64, before: &Before) -> Result<Rig, Fault> {
    let options =
        WalOptions { segment_bytes_min: 20 << 10, segment_bytes_max: 20 << 10, ..crash_options(seed, 1) };
    let mut rig = Rig::next_life(disk, seed, options, before)?;
    for part in 0..24 {
        rig.run(3, 3500);
        rig.checkpoint();
        if part % 4 == 3 {
            rig.settle();
        }
    }
    rig.settle();
    Ok(rig)
}

/// A run that is stopped.
type Run = fn(SimDisk, u64, &Before) -> Result<Rig, Fault>;

fn crash_everywhere(seeds: std::ops::Range<u64>, run: Run) -> Counts {
    let mut counts = Counts::default();
    for seed in seeds {
        let (start, before) = earlier_life(seed);
        let first_op = start.ops();
        let whole = run(start.fork(seed), seed, &before).expect("nothing stops it");
        assert!(whole.fault.is_none());
        counts.recycled += whole.wal.stats().segments_recycled;
        let ops = whole.disk.ops() - first_op;
        for op in 0..ops {
            let disk = start.fork(seed);
            disk.stop_at_op(first_op + op);
            let stopped =
                run(disk.clone(), seed, &before).map(|rig| rig.before()).unwrap_or_else(|_| before.clone());
            counts.points += 1;
            counts.acknowledged += stopped.acked;
            *counts.in_flight.entry(disk.durable_writes_under_way()).or_default() += 1;
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
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    let seeds = if long() { 10 * SEEDS } else { SEEDS };
    let half = seeds / 2;
    // the two halves on two threads: each is deterministic by itself
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| crash_everywhere(0..half, run));
        let second = crash_everywhere(half..seeds, run);
        (first.join().expect("the first half passes"), second)
    });
    let points = first.points + second.points;
    let mut in_flight = first.in_flight;
    for (writes, count) in second.in_flight {
        *in_flight.entry(writes).or_default() += count;
    }
    println!(
        "crash points {points}, recoveries {}, acknowledged batches checked {}, torn writes cut {}, lost 0; \
         durable writes under way at the crash: {in_flight:?}",
        first.recoveries + second.recoveries,
        first.acknowledged + second.acknowledged,
        first.torn + second.torn,
    );
    assert!(points >= POINTS_MIN, "only {points} points");
    assert!(in_flight.keys().max() >= Some(&6), "several writes were under way: {in_flight:?}");
}

#[test]
fn a_crash_at_any_operation_of_a_log_that_is_released_and_recycled_loses_nothing() {
    let seeds = if long() { 10 * RECYCLING_SEEDS } else { RECYCLING_SEEDS };
    let counts = crash_everywhere(0..seeds, run_recycling);
    println!(
        "crash points {}, recoveries {}, acknowledged batches checked {}, segments recycled in undisturbed runs {}, lost 0",
        counts.points, counts.recoveries, counts.acknowledged, counts.recycled
    );
    assert!(counts.recycled >= 4 * seeds, "only {} segments were recycled", counts.recycled);
    assert!(counts.points >= 100 * seeds, "only {} points", counts.points);
}

/// Failures tried on every operation.
const FAILURES: [Failure; 5] = [
    Failure::Errno(libc::EIO),
    Failure::Errno(libc::ENOSPC),
    Failure::Errno(libc::EMFILE),
    Failure::Short,
    Failure::Cancelled,
];

#[test]
fn after_any_failed_short_or_cancelled_operation_nothing_more_is_written_or_acknowledged() {
    let (mut failed, mut healed, mut at_opening) = (0, 0, 0);
    for seed in [1, 2, 3, 4] {
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
                    Ok(rig) if rig.fault.is_none() => {
                        healed += 1;
                        let room = [Failure::Errno(libc::ENOSPC), Failure::Errno(libc::EMFILE)];
                        assert!(room.contains(&failure), "{context}: no fault");
                        assert_eq!(rig.wal.space(), Space::Ample, "{context}: it heals");
                        assert_eq!(rig.wal.queued_bytes(), 0, "{context}");
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
                    let again = Rig::next_life(crashed, seed, crash_options(seed, 2), &after);
                    let mut again = again.unwrap_or_else(|fault| panic!("{context}, fate {fate}: {fault}"));
                    // whatever it accepted is on the medium, not only in a cache that a failed sync left clean
                    again.settle();
                    again.disk.power_cut();
                    let before = again.before();
                    let last = Rig::next_life(again.disk, seed, crash_options(seed, 3), &before);
                    last.unwrap_or_else(|fault| panic!("{context}, fate {fate}, power cut: {fault}"));
                }
            }
        }
    }
    println!(
        "failed operations {failed} (log stopped), {at_opening} (at opening), {healed} (space: healed); lost 0"
    );
    assert!(failed > 500 && at_opening > 100 && healed > 10);
}

/// The log has stopped: it says so again and again, starts nothing and acknowledges nothing.
fn stays_stopped(mut rig: Rig, context: &str) -> Before {
    let (ops, durable) = (rig.disk.ops(), rig.wal.durable());
    let text = rig.fault.as_ref().expect("it stopped").to_string();
    for _ in 0..20 {
        let now = rig.disk.now() + 10_000;
        rig.disk.set_now(now);
        rig.take_completions();
        let again = rig.wal.step(&mut rig.disk, now).expect_err("the fault stays");
        assert_eq!(again.to_string(), text, "{context}");
    }
    assert_eq!(rig.disk.ops(), ops, "{context}: something was started after the fault");
    assert_eq!(rig.wal.durable(), durable, "{context}: something was acknowledged after the fault");
    rig.before()
}

#[test]
fn what_is_acknowledged_after_a_kill_survives_the_power_cut_that_follows() {
    let mut at_risk = 0;
    for seed in 0..400 {
        let mut rig = Rig::new(seed, crash_options(seed, 0));
        rig.run(10, 2500);
        rig.disk.kill();
        at_risk += rig.disk.pending_bytes();
        let mut next =
            Rig::next_life(rig.disk.clone(), seed, crash_options(seed, 1), &rig.before()).expect("it opens");
        let seq = next.append_random(500);
        next.settle_until(seq);
        assert!(next.wal.durable() >= seq);
        next.disk.power_cut();
        let before = next.before();
        Rig::next_life(next.disk, seed, crash_options(seed, 2), &before)
            .unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
    println!("bytes that only the cache held after the kills: {at_risk}");
    assert!(at_risk > 0);
}

/// Goes on until a segment's header has just been submitted.
fn run_until_header(rig: &mut Rig) -> bool {
    for _ in 0..400 {
        if rig.wal.queued_bytes() == 0 {
            rig.append_random(2500);
        }
        let begun = rig.wal.stats().segments_begun;
        rig.step_without_time();
        if rig.wal.stats().segments_begun > begun {
            return true;
        }
        let next = [rig.disk.next_due(), rig.wal.wakeup()].into_iter().flatten().min();
        rig.disk.set_now(next.unwrap_or(0));
        rig.take_completions();
    }
    false
}

#[test]
fn a_segment_header_of_a_killed_process_that_arrives_late_harms_no_segment_of_the_next_one() {
    let mut begun = 0;
    for seed in 0..400 {
        let mut rig = Rig::new(seed, crash_options(3, 0));
        rig.run(2, 2500);
        begun += u64::from(run_until_header(&mut rig));
        rig.disk.kill();
        let next = Rig::next_life(rig.disk.clone(), seed, crash_options(3, 1), &rig.before());
        let mut next = next.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        for _ in 0..10 {
            let seq = next.append_random(100);
            next.settle_until(seq);
        }
        let before = next.before();
        next.disk.power_cut();
        let last = Rig::next_life(next.disk, seed, crash_options(3, 2), &before);
        last.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
    println!("killed with a segment header under way: {begun} of 400");
    assert!(begun > 100);
}

/// A batch with one entry.
fn one(index: u64) -> NewBatch {
    let data = Bytes::from(vec![index as u8; 100]);
    let entries = vec![LogEntry { index, term: 1, kind: EntryKind::Normal, data }];
    NewBatch { hard_state: HardState { term: 1, vote: 1, commit: index - 1 }, entries }
}

/// Two batches whose writes were in flight together, both done, the mark not out yet. Gives the disk, the file they
/// stand in, the first one's place and what was acknowledged before them.
fn two_in_flight() -> (Rig, u64, u64) {
    let options =
        WalOptions { segment_bytes_min: 64 << 10, segment_bytes_max: 64 << 10, ..crash_options(2, 0) };
    let mut rig = Rig::new(1, options);
    rig.settle();
    let before = rig.append(one(1));
    rig.settle_until(before);
    rig.append(one(2));
    let now = rig.disk.now();
    rig.wal.step(&mut rig.disk, now).expect("no fault");
    rig.append(one(3));
    rig.wal.step(&mut rig.disk, now).expect("no fault");
    assert_eq!(rig.disk.durable_writes_under_way(), 2, "both are in flight");
    rig.settle_until(before + 2);
    assert_eq!(rig.wal.stats().marks, 0);
    (rig, 8192, before)
}

#[test]
fn a_second_write_that_is_durable_while_the_first_is_lost_counts_as_unfinished_and_both_are_cut() {
    let (rig, place, before) = two_in_flight();
    let path = segments(&rig.disk)[0].clone();
    for lost in 0..9 {
        let mut disk = rig.disk.fork(1);
        let mut file = disk.read_file(&path).expect("it is there");
        // lost wholly, or one sector torn out of it
        let range = if lost == 8 { 0..8 } else { lost..lost + 1 };
        let mut changed = false;
        for sector in range {
            let start = place as usize + sector * 512;
            changed |= file[start..start + 512].iter().any(|byte| *byte != 0);
            file[start..start + 512].copy_from_slice(&b"coffer: unused. ".repeat(32));
        }
        disk.write_file(&path, file);
        let (_, opened, found) = open(&mut disk, crash_options(2, 1), 0).expect("it opens");
        if lost < 2 || lost == 8 {
            assert!(changed);
            assert_eq!(opened.last_seq, before, "sector {lost}");
            assert_eq!(opened.torn, [(path.clone(), place, 8192)], "sector {lost}");
        }
        check(&rig, before, &opened, &found, "two in flight");
    }
}

#[test]
fn a_hole_behind_the_mark_is_corruption_that_names_its_place() {
    let (mut rig, place, _) = two_in_flight();
    rig.settle();
    assert_eq!(rig.wal.stats().marks, 1);
    let path = segments(&rig.disk)[0].clone();
    for sector in 0..2u64 {
        let mut disk = rig.disk.fork(1);
        disk.zero_sector(&path, place + sector * 512);
        let fault = open(&mut disk, crash_options(2, 1), 0).expect_err("it is refused");
        let Fault::Corrupt { path: named, offset, .. } = &fault else { panic!("{fault}") };
        assert_eq!((named, *offset), (&path, place + sector * 512), "{fault}");
    }
}

#[test]
fn a_batch_that_says_what_is_not_needed_and_is_torn_says_in_which_checkpoint_it_is() {
    let options = |life| crash_options(2, life);
    let mut rig = Rig::new(1, options(0));
    for index in 1..4 {
        rig.append(one(index));
    }
    rig.settle();
    rig.wal.set_checkpoint(5, 1);
    rig.append(one(4));
    rig.settle();
    rig.disk.power_cut();
    // the header names the first checkpoint, the batch behind it the second one, in which all before is
    let mut rig = Rig::on(rig.disk, 2, options(1)).expect("it opens");
    rig.settle();
    rig.wal.set_checkpoint(9, 4);
    rig.wal.release(4);
    let mut large = one(5);
    large.entries[0].data = Bytes::from(vec![5; 2_000]);
    let seq = rig.append(large);
    rig.settle_until(seq);
    assert_eq!(rig.wal.stats().marks, 0);
    let path = segments(&rig.disk)[1].clone();
    let mut file = rig.disk.read_file(&path).expect("it is there");
    file[4096 + 1024..4096 + 1536].copy_from_slice(&b"coffer: unused. ".repeat(32));
    rig.disk.write_file(&path, file);
    for life in 2..5 {
        rig.disk.power_cut();
        rig = Rig::on(rig.disk, life, options(life)).expect("it opens");
        assert_eq!(
            (rig.opened.last_seq, rig.content.last_index()),
            (seq - 1, 0),
            "the batch is cut, the rest gone"
        );
        assert_eq!(rig.opened.checkpoint, (9, 4), "life {life}: nobody would know where the rest is");
        assert_eq!(rig.opened.torn.len(), usize::from(life < 4), "life {life}");
        if life > 2 {
            rig.settle();
        }
    }
}

#[test]
fn a_first_start_that_ends_at_any_time_before_its_first_header_is_durable_is_followed_by_another() {
    let (mut tried, mut without) = (0, 0);
    for seed in 0..200 {
        let mut rig = Rig::new(seed, small_options(1));
        // the header is slow, what may go on beside it is not
        rig.disk.set_latency(1, 100_000);
        while rig.wal.stats().segments_begun == 0 {
            rig.disk.set_now(rig.disk.next_due().unwrap_or(0));
            rig.take_completions();
            rig.step_without_time();
        }
        rig.disk.set_latency(1, 1);
        while rig.wal.stats().writes == 0 {
            let disk = rig.disk.fork(tried);
            disk.power_cut();
            let next = Rig::on(disk, seed, small_options(2));
            let mut next = next.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
            without += u64::from(next.opened.epoch == 1);
            let seq = next.append_random(100);
            next.settle_until(seq);
            assert!(next.wal.durable() >= seq);
            tried += 1;
            rig.turn();
        }
    }
    println!("first starts ended {tried}, without a header {without}");
    assert!(without > 50);
}

#[test]
fn the_same_seed_gives_the_same_log_byte_for_byte() {
    let files = |seed| {
        let (start, before) = earlier_life(seed);
        let rig = run(start, seed, &before).expect("it runs");
        let files: Vec<_> = segments(&rig.disk).iter().map(|path| rig.disk.read_file(path)).collect();
        (rig.disk.ops(), files)
    };
    for seed in 0..8 {
        assert!(files(seed) == files(seed), "seed {seed}");
    }
}
