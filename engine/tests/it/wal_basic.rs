//! The log without accidents: what goes in comes out, in segments, marked, recycled; and what is refused.

use crate::wal_rig::{Before, Content, DIR, OWNER, Rig, check, open, segments, small_options};
use bytes::Bytes;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::{Disk, Op};
use coffer_engine::error::Fault;
use coffer_engine::wal::{
    EntryKind, FORMAT_NUMBER, HardState, LogEntry, NewBatch, SharedDisk, Space, Wal, WalOptions,
};
use std::path::Path;

fn entries(range: std::ops::Range<u64>, term: u64, len: usize) -> Vec<LogEntry> {
    let entry =
        |index| LogEntry { index, term, kind: EntryKind::Normal, data: Bytes::from(vec![index as u8; len]) };
    range.map(entry).collect()
}

fn batch(commit: u64, entries: Vec<LogEntry>) -> NewBatch {
    NewBatch { hard_state: HardState { term: 1, vote: 1, commit }, entries }
}

#[test]
fn what_was_appended_is_recovered_over_many_segments_and_openings() {
    for seed in 0..20 {
        let mut disk = SimDisk::new(seed);
        let (mut before, mut base) = (Before::default(), Content::default());
        for life in 1..=5 {
            let options = small_options(seed + life);
            let mut rig = Rig::next_life(disk, seed * 10 + life, options, &before).expect("it opens");
            assert_eq!(rig.opened.epoch, life, "the epoch rises at each opening");
            assert_eq!(rig.opened.fresh, life == 1);
            assert!(rig.opened.torn.is_empty(), "nothing was torn: {:?}", rig.opened.torn);
            assert_eq!(rig.content, base, "seed {seed} life {life}");
            rig.run(60, 3000);
            rig.settle();
            let last = rig.appended.last().expect("something was appended").0;
            assert!(rig.wal.durable() >= last);
            (before, base) = (rig.before(), rig.content);
            disk = rig.disk;
        }
        assert!(segments(&disk).len() > 5);
    }
}

#[test]
fn nothing_is_written_while_nothing_happens() {
    let mut rig = Rig::new(1, small_options(1));
    rig.settle();
    assert_eq!(rig.wal.stats().writes, 1, "the header; an empty log needs no mark");
    rig.append_random(100);
    rig.settle();
    assert_eq!((rig.wal.stats().batches, rig.wal.stats().marks), (1, 1));
    assert_eq!(rig.wal.wakeup(), None);
    rig.disk.set_now(rig.disk.now() + 1_000_000_000);
    assert!(!rig.turn());
    assert_eq!(rig.wal.stats().writes, 3);
}

#[test]
fn the_mark_is_out_two_milliseconds_after_the_last_write_whatever_the_setting() {
    for (setting, limit) in [(1_000, 1_000), (1_000_000, 2_000)] {
        let mut rig = Rig::new(1, WalOptions { idle_mark_us: setting, ..small_options(1) });
        let seq = rig.append_random(100);
        rig.settle_until(seq);
        let idle_since = rig.disk.now();
        assert_eq!(rig.wal.stats().marks, 0);
        let at = rig.wal.wakeup().expect("the mark is due");
        assert!(at <= idle_since + limit, "due {} us after the last write", at - idle_since);
    }
}

#[test]
fn a_clean_stop_writes_what_is_queued_and_the_mark() {
    let mut rig = Rig::new(3, small_options(1));
    for _ in 0..30 {
        rig.append_random(1000);
    }
    rig.wal.close();
    rig.settle();
    assert!(rig.wal.closed());
    let mut disk = rig.disk.fork(1);
    disk.power_cut();
    let (_, opened, found) = open(&mut disk, small_options(2), 0).expect("it opens");
    assert_eq!(found, rig.content);
    assert!(opened.torn.is_empty());
}

#[test]
fn appended_batches_that_wait_together_become_one_write() {
    let mut rig = Rig::new(
        1,
        WalOptions { segment_bytes_min: 1 << 20, segment_bytes_max: 1 << 20, ..small_options(1) },
    );
    rig.settle();
    rig.append(batch(0, entries(1..2, 1, 100)));
    rig.turn();
    for index in 2..100 {
        rig.append(batch(index - 1, entries(index..index + 1, 1, 100)));
    }
    rig.settle();
    assert_eq!(rig.wal.stats().batches, 2);
    let (_, opened, found) = open(&mut rig.disk.fork(1), small_options(1), 0).expect("it opens");
    assert_eq!((opened.batches, found), (2, rig.content));
}

#[test]
fn a_batch_larger_than_a_segment_is_written_in_parts() {
    let mut rig = Rig::new(1, small_options(1));
    let seq = rig.append(batch(40, entries(1..41, 1, 3000)));
    rig.settle();
    assert!(rig.wal.durable() >= seq);
    assert!(rig.fault.is_none());
    let (_, _, found) = open(&mut rig.disk.fork(1), small_options(1), 0).expect("it opens");
    assert_eq!(found, rig.content);
}

#[test]
fn an_entry_larger_than_the_limit_stops_the_log_and_names_the_limit() {
    let mut rig = Rig::new(1, small_options(1));
    rig.append(batch(0, entries(1..2, 1, 4097)));
    assert!(!rig.turn());
    let text = rig.fault.as_ref().expect("it stopped").to_string();
    assert!(text.contains("entry 1 has 4097 bytes, more than entry_bytes_max (4096)"), "{text}");
    assert_eq!(rig.wal.durable(), 0);
}

#[test]
fn the_largest_entry_fits_into_the_smallest_segment() {
    let options = WalOptions { segment_bytes_min: 4096, segment_bytes_max: 4096, ..small_options(1) };
    let mut rig = Rig::new(1, options.clone());
    for index in 1..20 {
        rig.append(batch(0, entries(index..index + 1, 1, 4096)));
    }
    rig.settle();
    let (_, _, found) = open(&mut rig.disk.fork(1), options, 0).expect("it opens");
    assert_eq!(found.entries.len(), 19);
}

#[test]
fn segments_grow_from_the_smallest_to_the_largest() {
    let options = WalOptions { segment_bytes_max: 128 << 10, ..small_options(1) };
    let mut rig = Rig::new(1, options);
    rig.run(400, 3000);
    rig.settle();
    let size = |path: &std::path::PathBuf| rig.disk.read_file(path).map_or(0, |file| file.len()) >> 10;
    let sizes: Vec<usize> = segments(&rig.disk).iter().map(size).collect();
    assert_eq!(sizes[..5], [20, 40, 80, 128, 128], "{sizes:?}");
}

#[test]
fn released_segments_are_recycled_and_the_log_opens_without_them() {
    let mut rig = Rig::new(1, small_options(1));
    let mut most = 0;
    for _ in 0..40 {
        rig.run(10, 3000);
        rig.settle();
        rig.checkpoint();
        rig.settle();
        most = most.max(segments(&rig.disk).len());
    }
    let stats = rig.wal.stats().clone();
    assert!(stats.segments_recycled > 10, "{stats:?}");
    assert!(most <= 12, "{most} segments lay there at a time");
    assert_eq!(rig.wal.wakeup(), None);
    let (_, opened, found) = open(&mut rig.disk.fork(1), small_options(2), 0).expect("it opens");
    check(&rig, rig.wal.durable(), &opened, &found, "after recycling");
    println!("recycled {}, begun {}", stats.segments_recycled, stats.segments_begun);
    assert!(stats.segments_recycled * 10 > stats.segments_begun * 9, "few are made afresh: {stats:?}");
    // those that are there follow one another: up to four kept, a few that are needed, and two that are ready
    let numbers: Vec<u64> = segments(&rig.disk).iter().map(|path| number_of(path)).collect();
    let first = numbers[0];
    assert!(numbers.iter().copied().eq(first..first + numbers.len() as u64), "{numbers:?}");
    assert_eq!(first + numbers.len() as u64 - 1, stats.segments_begun + 2, "two are ready");
    // those that are kept may be missing; the first one that is needed is missed by name
    for number in first.. {
        let path = Path::new(DIR).join(format!("{number:016x}.wal"));
        rig.disk.remove_file(&path);
        if let Err(fault) = open(&mut rig.disk.fork(1), small_options(3), 0) {
            let text = fault.to_string();
            assert!(text.contains(&format!("segment {number} (the log has {number} to")), "{text}");
            assert!(number - first <= 4, "{number} of {numbers:?}");
            return;
        }
    }
}

#[test]
fn segments_that_a_burst_left_behind_are_removed_when_they_are_not_used() {
    let mut rig = Rig::new(1, small_options(1));
    rig.run(200, 3000);
    rig.settle();
    rig.checkpoint();
    rig.settle();
    let after = segments(&rig.disk).len();
    assert!(after >= 7, "{after}: four kept, one that is written, two ready");
    // let go one by one as they are written
    for _ in 0..2_000 {
        rig.run(1, 300);
        rig.settle();
        rig.checkpoint();
        rig.settle();
    }
    let steady = segments(&rig.disk).len();
    assert!(steady < after, "{after}, then {steady}");
    assert!(rig.wal.stats().segments_recycled > 10, "{:?}", rig.wal.stats());
}

fn number_of(segment: &Path) -> u64 {
    let name = segment.file_stem().and_then(|name| name.to_str()).expect("a name");
    u64::from_str_radix(name, 16).expect("a number")
}

#[test]
fn the_newest_checkpoint_is_named_by_batches_marks_and_headers() {
    let mut rig = Rig::new(1, small_options(1));
    rig.settle();
    assert_eq!(rig.wal.checkpoint(), (0, 0));
    let found = |rig: &Rig| {
        let (_, opened, _) = open(&mut rig.disk.fork(1), small_options(2), 0).expect("it opens");
        opened.checkpoint
    };
    rig.append(batch(0, entries(1..2, 1, 100)));
    rig.settle();
    rig.wal.set_checkpoint(7, 1);
    assert!(!rig.turn() && found(&rig) == (0, 0), "it is no reason to write");
    rig.append(batch(1, entries(2..3, 1, 100)));
    let seq = rig.append(batch(1, entries(3..4, 1, 100)));
    rig.settle_until(seq);
    assert_eq!(found(&rig), (7, 1), "a batch names it");
    rig.wal.set_checkpoint(9, 3);
    rig.settle();
    assert_eq!(found(&rig), (9, 3), "a mark names it");
    // opened again, it writes nothing but a header
    let mut next = Rig::on(rig.disk.fork(1), 1, small_options(2)).expect("it opens");
    assert_eq!(next.wal.checkpoint(), (9, 3));
    next.wal.set_checkpoint(12, 3);
    next.settle();
    assert_eq!((next.wal.stats().writes, next.wal.stats().batches), (1, 0));
    assert_eq!(found(&next), (12, 3), "a header names it");
}

#[test]
#[should_panic(expected = "checkpoints become durable in their order")]
fn an_older_checkpoint_is_not_told() {
    let mut rig = Rig::new(1, small_options(1));
    rig.wal.set_checkpoint(7, 5);
    rig.wal.set_checkpoint(8, 4);
}

/// Somebody else's operations while a log is opened: each batch starts one, and none is waited for.
#[test]
fn completions_of_others_that_come_while_the_log_is_opened_reach_them() {
    let mut rig = Rig::new(1, small_options(1));
    rig.run(60, 3000);
    rig.settle();
    let mut disk = rig.disk.fork(1);
    let dir = Path::new(DIR).parent().expect("it has one").to_owned();
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    let mut shared = SharedDisk::new(&mut disk);
    let mut poll = |disk: &mut dyn Disk| {
        let mut completions = Vec::new();
        disk.poll(&mut completions);
        answered.extend(completions.into_iter().map(|completion| completion.token));
    };
    let (_, opened) = Wal::open_beside(&mut shared, small_options(2), 0, &mut |disk, _| {
        asked.push(disk.submit(Op::SyncDir { dir: dir.clone() }));
        if asked.len() % 3 == 0 {
            poll(disk);
        }
        Ok(())
    })
    .expect("it opens");
    assert_eq!(asked.len() as u64, opened.batches);
    while answered.len() < asked.len() {
        shared.wait(None);
        let mut completions = Vec::new();
        shared.poll(&mut completions);
        answered.extend(completions.into_iter().map(|completion| completion.token));
    }
    answered.sort_unstable();
    assert_eq!(answered, asked);
}

#[test]
fn another_owners_log_is_refused_and_left_alone() {
    let mut rig = Rig::new(1, small_options(1));
    rig.run(30, 2000);
    rig.settle();
    let before: Vec<_> = segments(&rig.disk).iter().map(|path| rig.disk.read_file(path)).collect();
    let other = WalOptions { owner: *b"cluster1 member3", ..small_options(1) };
    let fault = open(&mut rig.disk, other, 0).expect_err("it is refused");
    assert!(matches!(fault, Fault::Unusable { .. }), "{fault}");
    assert!(fault.to_string().contains("this member is"), "{fault}");
    let after: Vec<_> = segments(&rig.disk).iter().map(|path| rig.disk.read_file(path)).collect();
    assert!(before == after, "nothing was touched");
}

#[test]
fn a_segment_of_another_log_among_ours_is_refused() {
    let mut foreign = Rig::new(1, WalOptions { owner: [7; 16], ..small_options(1) });
    foreign.run(5, 100);
    foreign.settle();
    let stranger = foreign.disk.read_file(&segments(&foreign.disk)[0]).expect("it is there");
    for place in [0, 1, 2] {
        let mut rig = Rig::new(2, small_options(1));
        rig.run(30, 2000);
        rig.settle();
        let victim = segments(&rig.disk)[place].clone();
        rig.disk.write_file(&victim, stranger.clone());
        let fault = open(&mut rig.disk, small_options(2), 0).expect_err("it is refused");
        assert!(fault.to_string().contains(victim.to_str().expect("a name")), "{fault}");
    }
}

#[test]
fn another_format_is_refused_with_both_numbers() {
    let mut rig = Rig::new(1, small_options(1));
    rig.run(5, 100);
    rig.settle();
    let path = segments(&rig.disk)[0].clone();
    let mut file = rig.disk.read_file(&path).expect("it is there");
    file[12..16].copy_from_slice(&77u32.to_le_bytes());
    let crc = crc32fast::hash(&[&file[..8], &file[12..160]].concat());
    file[8..12].copy_from_slice(&crc.to_le_bytes());
    rig.disk.write_file(&path, file);
    let fault = open(&mut rig.disk, small_options(2), 0).expect_err("it is refused").to_string();
    assert!(fault.contains("format 77") && fault.contains(&format!("format {FORMAT_NUMBER}")), "{fault}");
}

#[test]
fn a_missing_first_middle_or_last_begun_segment_is_named() {
    let mut rig = Rig::new(1, small_options(1));
    rig.run(60, 3000);
    rig.settle();
    let all = segments(&rig.disk);
    // the two behind are only allocated
    for victim in &all[..all.len() - 2] {
        let mut disk = rig.disk.fork(1);
        disk.remove_file(victim);
        let fault = open(&mut disk, small_options(2), 0).expect_err("it is refused").to_string();
        assert!(
            fault.contains(victim.to_str().expect("a name")) && fault.contains("no such file"),
            "{fault}"
        );
    }
}

#[test]
fn a_shortened_segment_is_refused() {
    let mut rig = Rig::new(1, small_options(1));
    rig.run(60, 3000);
    rig.settle();
    let all = segments(&rig.disk);
    for victim in &all[..all.len() - 2] {
        for len in [0, 512, 4096, 8192] {
            let mut disk = rig.disk.fork(1);
            let mut file = disk.read_file(victim).expect("it is there");
            file.truncate(len);
            disk.write_file(victim, file);
            // one that was left early may be shorter than the cut
            match open(&mut disk, small_options(2), 0) {
                Ok((_, _, found)) => assert!(found == rig.content, "{} cut to {len} bytes", victim.display()),
                Err(fault) => {
                    assert!(fault.to_string().contains(victim.to_str().expect("a name")), "{fault}")
                }
            }
        }
    }
}

#[test]
fn a_full_disk_is_said_early_keeps_a_reserve_and_heals_by_itself() {
    let mut rig = Rig::new(1, small_options(1));
    rig.disk.set_capacity(Some(160 << 10));
    while rig.wal.space() == Space::Ample {
        let seq = rig.append_random(2000);
        rig.settle_until(seq);
        assert!(rig.fault.is_none(), "out of space is no failed write: {:?}", rig.fault);
    }
    // what the reserve is for still goes in and is acknowledged
    let seq = rig.append_random(1000);
    rig.settle_until(seq);
    assert!(rig.wal.durable() >= seq);
    assert_eq!(rig.wal.space(), Space::Reserve);
    // far more than the reserve holds: it waits, and nothing breaks
    for _ in 0..60 {
        rig.append_random(3000);
    }
    for _ in 0..500 {
        assert!(rig.turn(), "{:?}", rig.fault);
    }
    assert!(rig.wal.queued_bytes() > 0);
    assert_eq!(rig.wal.space(), Space::Reserve);
    // reading goes on
    let (_, opened, found) =
        open(&mut rig.disk.fork(1), small_options(2), 0).expect("it opens while the disk is full");
    check(&rig, rig.wal.durable(), &opened, &found, "full");
    rig.disk.set_capacity(None);
    rig.settle();
    assert!(rig.fault.is_none());
    assert_eq!(rig.wal.space(), Space::Ample, "service resumes by itself");
    assert_eq!(rig.wal.queued_bytes(), 0);
}

/// So many turns at most; with a full disk there is always one more.
fn turns(rig: &mut Rig, count: u64) {
    let _ = (0..count).all(|_| rig.turn());
    assert!(rig.fault.is_none(), "{:?}", rig.fault);
}

/// Small batches, with and without the time that a mark takes between them, until no further one becomes durable. Gives
/// the first that waits.
fn fill_up(rig: &mut Rig) -> u64 {
    for _ in 0..1_000 {
        let next = rig.content.last_index() + 1;
        let seq = rig.append(batch(next - 1, entries(next..next + 1, 1, 100)));
        for _ in 0..60 {
            if rig.wal.durable() >= seq {
                break;
            }
            turns(rig, 1);
        }
        if rig.wal.durable() < seq {
            return seq;
        }
        if rig.rng.once_in(2) {
            turns(rig, 4);
        }
    }
    panic!("the disk never fills");
}

#[test]
fn a_log_that_has_no_block_left_for_a_batch_says_what_it_lets_go_and_goes_on_in_that() {
    for seed in 0..40 {
        let mut rig = Rig::new(seed, small_options(1));
        rig.disk.set_capacity(Some(170 << 10));
        for round in 0..6 {
            let seq = fill_up(&mut rig);
            assert_eq!(rig.wal.space(), Space::Reserve);
            rig.checkpoint();
            turns(&mut rig, 100);
            assert!(rig.wal.durable() >= seq, "seed {seed}, round {round}: it stands still");
            let (_, opened, found) =
                open(&mut rig.disk.fork(1), small_options(2), 0).expect("it opens while the disk is full");
            check(&rig, rig.wal.durable(), &opened, &found, "full");
        }
    }
}

#[test]
fn the_last_block_waits_for_a_mark_that_lets_a_whole_segment_go() {
    let mut rig = Rig::new(1, small_options(1));
    // each life leaves a segment that is cut short
    for life in 2..6 {
        let next = rig.content.last_index() + 1;
        rig.append(batch(next - 1, entries(next..next + 1, 1, 100)));
        rig.settle();
        rig.disk.kill();
        let before = rig.before();
        rig = Rig::next_life(rig.disk, life, small_options(life), &before).expect("it opens");
    }
    rig.settle();
    rig.disk.set_capacity(Some(rig.disk.used()));
    let seq = fill_up(&mut rig);
    // the first of them alone is too little to make a segment of
    rig.wal.release(1);
    turns(&mut rig, 100);
    assert!(rig.wal.durable() < seq, "there was room");
    rig.released = rig.content.last_index() - 1;
    rig.wal.release(rig.released);
    turns(&mut rig, 100);
    assert!(rig.wal.durable() >= seq, "it stands still");
}

#[test]
fn options_that_contradict_one_another_are_refused() {
    let refused = |options| open(&mut SimDisk::new(1), options, 0).expect_err("refused").to_string();
    let text =
        refused(WalOptions { segment_bytes_min: 2 << 20, segment_bytes_max: 1 << 20, ..small_options(1) });
    assert!(text.contains("smallest segment"), "{text}");
    let text = refused(WalOptions { writes_in_flight_max: 0, ..small_options(1) });
    assert!(text.contains("in flight"), "{text}");
    let text = refused(WalOptions { segment_bytes_max: u64::MAX, ..small_options(1) });
    assert!(text.contains("segments of at most"), "{text}");
    assert_eq!((small_options(1).owner, small_options(1).dir.as_path()), (OWNER, Path::new(DIR)));
}

#[test]
fn batches_of_another_life_or_made_by_a_client_count_as_nothing() {
    let options =
        |salt| WalOptions { segment_bytes_min: 64 << 10, segment_bytes_max: 64 << 10, ..small_options(salt) };
    // two logs alike but for the number drawn at their start, one of them longer
    let log = |salt, batches: u64| {
        let mut rig = Rig::new(1, options(salt));
        for index in 1..=batches {
            let seq = rig.append(batch(index - 1, entries(index..index + 1, 1, 100)));
            rig.settle_until(seq);
        }
        let path = segments(&rig.disk)[0].clone();
        let file = rig.disk.read_file(&path).expect("it is there");
        (rig, path, file)
    };
    let (ours, path, mut file) = log(1, 2);
    let (_, _, other) = log(2, 6);
    let place = 3 * 4096;
    assert_ne!(&other[place..place + 8], &file[place..place + 8], "theirs goes on where ours ends");
    file[place..].copy_from_slice(&other[place..]);
    ours.disk.write_file(&path, file);
    let (_, opened, found) =
        open(&mut ours.disk.clone(), options(3), 0).expect("neither accepted nor taken for damage");
    assert_eq!((opened.last_seq, found), (2, ours.content));
}
