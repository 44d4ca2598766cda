//! Page file and log together: what starts, from what, and what is refused by name.

use crate::support::{Solo, bootstrap, put};
use coffer_engine::command::{Member, Stamped};
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::error::Fault;
use coffer_engine::store::{Store, StoreOptions};
use coffer_engine::wal::{EntryKind, HardState, LogEntry, RecoveredBatch, Space, WalOptions};
use coffer_raftlog::error::Error;
use coffer_raftlog::proposal::{Busy, Outcome, Request};
use coffer_raftlog::recovery::{Recovered, RecoveryOptions, Replay, owner, recover};
use coffer_raftlog::sim::cluster::{Answer, CLUSTER_ID, ClusterOptions, Crash};
use std::path::{Path, PathBuf};

const PAGES: &str = "/pages";
const LOG: &str = "/wal";

fn options(member_id: u64) -> RecoveryOptions {
    let owner = owner(CLUSTER_ID, member_id);
    RecoveryOptions {
        wal: WalOptions {
            segment_bytes_min: 32 << 10,
            segment_bytes_max: 32 << 10,
            entry_bytes_max: 16 << 10,
            ..WalOptions::new(LOG.into(), owner, 99)
        },
        pages: StoreOptions::new(PAGES.into(), owner),
        cluster_id: CLUSTER_ID,
        member_id,
        bootstrap: vec![Member { id: member_id, ..Member::default() }],
        keep_bytes: 0,
    }
}

fn recover_on(disk: &SimDisk, options: &RecoveryOptions) -> Result<Recovered, Error> {
    let mut disk = disk.clone();
    let clock = disk.clone();
    recover(&mut disk, options, &mut || clock.now())
}

fn refused(disk: &SimDisk) -> String {
    match recover_on(disk, &options(1)) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

/// A member with small segments; `snapshot_entries` as given.
fn member(seed: u64, snapshot_entries: Option<u64>) -> Solo {
    member_with(seed, snapshot_entries, 32 << 10)
}

fn member_with(seed: u64, snapshot_entries: Option<u64>, segment_bytes: u64) -> Solo {
    let segment_bytes = (segment_bytes, segment_bytes);
    Solo::with(ClusterOptions { segment_bytes, snapshot_entries, ..ClusterOptions::new(seed, 1) })
}

fn write(solo: &mut Solo, count: u64) {
    let value = "x".repeat(900);
    for n in 0..count {
        solo.done(put(&format!("key{}", n % 50), &format!("{n} {value}")));
    }
    solo.run(20_000);
}

fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.parent() == Some(Path::new(LOG))).collect()
}

#[test]
fn a_member_starts_from_its_page_file_and_applies_only_what_is_behind_it() {
    let mut solo = member(1, Some(40));
    write(&mut solo, 400);
    let status = solo.core().status();
    let checkpoint = solo.core().checkpoint();
    assert!(checkpoint.applied + 80 > status.applied && checkpoint.applied <= status.applied);
    assert!(solo.core().wal().stats().segments_recycled > 5, "{:?}", solo.core().wal().stats());
    assert!(log_files(solo.cluster.disk(1)).len() <= 12, "the log does not grow");
    let fingerprint = solo.core().reader().fingerprint().unwrap();
    let crashed = [Crash::Kill, Crash::PowerCut].map(|crash| {
        let disk = solo.cluster.disk(1).fork(7);
        match crash {
            Crash::Kill => disk.kill(),
            Crash::PowerCut => disk.power_cut(),
        }
        disk
    });
    solo.cluster.stop(1).unwrap();
    let stopped = solo.cluster.disk(1).clone();
    for (disk, cleanly) in crashed.into_iter().map(|disk| (disk, false)).chain([(stopped, true)]) {
        let recovered = recover_on(&disk, &options(1)).unwrap();
        assert!(!recovered.pages.fresh && recovered.pages.applied >= checkpoint.applied);
        assert_eq!(recovered.opened.checkpoint.1, recovered.pages.applied);
        assert_eq!(recovered.replayed.entries, recovered.store.applied() - recovered.pages.applied);
        assert!(recovered.replayed.entries <= 80);
        // the simulated map has no page in memory: those that the replay touched, and not all there are
        let pages = recovered.store.reader().sizes().total_bytes / 4096;
        let read = recovered.replayed.pages;
        assert!(0 < read && read < pages / 2, "{read} of {pages}");
        assert_eq!(recovered.view.last(), status.last);
        // after a crash the log may not know yet that its last entries are committed
        assert!(recovered.view.applied() + 2 >= status.applied);
        if cleanly {
            assert_eq!(recovered.view.applied(), status.applied);
            assert_eq!(recovered.store.reader().fingerprint().unwrap(), fingerprint);
        }
    }
}

#[test]
fn the_directory_of_a_version_without_page_files_is_taken_over() {
    let mut solo = member(2, None);
    write(&mut solo, 100);
    let fingerprint = solo.core().reader().fingerprint().unwrap();
    solo.cluster.stop(1).unwrap();
    let disk = solo.cluster.disk(1);
    disk.remove_file(Path::new(PAGES));
    let recovered = recover_on(disk, &options(1)).unwrap();
    assert!(recovered.pages.fresh);
    assert_eq!(recovered.replayed.entries, recovered.store.applied());
    assert_eq!(recovered.store.reader().fingerprint().unwrap(), fingerprint);
    drop(recovered);
    solo.cluster.start(1).unwrap();
    solo.done(put("after", "1"));
}

#[test]
fn a_page_file_that_is_lost_is_missed_and_none_is_left_in_its_place() {
    let mut solo = member(3, Some(40));
    write(&mut solo, 200);
    solo.cluster.stop(1).unwrap();
    let disk = solo.cluster.disk(1).clone();
    let kept = disk.read_file(Path::new(PAGES)).unwrap();
    disk.remove_file(Path::new(PAGES));
    let text = refused(&disk);
    assert!(text.contains("corrupt: file /pages") && text.contains("no such file: it is lost"), "{text}");
    assert!(text.contains("the checkpoint that the log in /wal names"), "{text}");
    assert_eq!(disk.read_file(Path::new(PAGES)), None);
    disk.write_file(Path::new(PAGES), kept);
    solo.cluster.start(1).unwrap();
}

#[test]
fn an_old_page_file_is_refused_with_both_checkpoints_though_the_log_holds_all_that_it_lacks() {
    for released in [false, true] {
        let mut solo = member_with(4, Some(40), if released { 32 << 10 } else { 1 << 20 });
        write(&mut solo, 60);
        let (old, before) = (solo.cluster.disk(1).read_file(Path::new(PAGES)), solo.core().checkpoint());
        write(&mut solo, 100);
        let after = solo.core().checkpoint();
        assert!(after.tx > before.tx && before.applied > 0);
        let first = Path::new(LOG).join(format!("{:016x}.wal", 1));
        assert_eq!(solo.cluster.disk(1).read_file(&first).is_none(), released);
        solo.cluster.stop(1).unwrap();
        let disk = solo.cluster.disk(1);
        disk.write_file(Path::new(PAGES), old.unwrap());
        let text = refused(disk);
        // the first newer one that is met, or the newest
        let newer =
            text.split("expected a page file with transaction ").nth(1).expect("it names what is missing");
        let tx: u64 = newer.split(' ').next().unwrap().parse().unwrap();
        assert!(tx > before.tx && tx <= after.tx, "{text}");
        let older = format!("an older one, with transaction {} and entry {}", before.tx, before.applied);
        assert!(text.contains("corrupt: file /pages") && text.contains(&older), "{text}");
    }
}

#[test]
fn a_log_that_is_lost_is_refused_with_the_entries_that_are_missing() {
    let mut solo = member(5, Some(40));
    write(&mut solo, 100);
    solo.cluster.stop(1).unwrap();
    let disk = solo.cluster.disk(1);
    log_files(disk).iter().for_each(|file| disk.remove_file(file));
    let error = recover_on(disk, &options(1)).err().unwrap();
    let applied = solo_applied(disk);
    assert!(matches!(&error, Error::EntriesMissing { first: 1, last, .. } if *last == applied), "{error}");
    assert!(error.to_string().contains("(the page file has applied them)"), "{error}");
}

/// The applied index that the page file on a disk has.
fn solo_applied(disk: &SimDisk) -> u64 {
    let (store, opened) = Store::open(&mut disk.fork(1), options(1).pages, 0).unwrap();
    assert_eq!(store.applied(), opened.applied);
    opened.applied
}

#[test]
fn a_page_file_of_another_member_is_refused() {
    let mut solo = member(6, Some(40));
    write(&mut solo, 100);
    solo.cluster.stop(1).unwrap();
    let other = SimDisk::new(1);
    drop(recover_on(&other, &options(2)).unwrap());
    let disk = solo.cluster.disk(1);
    disk.write_file(Path::new(PAGES), other.read_file(Path::new(PAGES)).unwrap());
    let text = refused(disk);
    assert!(text.contains("/pages") && text.contains("belongs to"), "{text}");
}

#[test]
fn a_replay_larger_than_memory_for_changed_pages_writes_them_meanwhile() {
    let mut solo = member(7, None);
    write(&mut solo, 2_000);
    solo.cluster.stop(1).unwrap();
    let disk = solo.cluster.disk(1);
    disk.remove_file(Path::new(PAGES));
    let mut options = options(1);
    options.pages.dirty_bytes = 256 << 10;
    let recovered = recover_on(disk, &options).unwrap();
    let stats = recovered.store.stats();
    assert!(stats.checkpoints > 0 && recovered.store.durable().applied > 0, "{stats:?}");
    // the last slice may come on top
    assert!(stats.dirty_bytes <= 2 << 20, "{stats:?}");
    assert!(recovered.replayed.bytes > 4 * options.pages.dirty_bytes);
}

#[test]
fn a_page_file_that_finds_no_room_is_not_waited_for_while_the_log_is_read() {
    let mut solo = member(8, None);
    write(&mut solo, 4_000);
    solo.cluster.stop(1).unwrap();
    let mut disk = solo.cluster.disk(1).clone();
    disk.remove_file(Path::new(PAGES));
    disk.set_capacity(Some(disk.used() + (2_200 << 10)));
    let mut options = options(1);
    options.pages.dirty_bytes = 128 << 10;
    let (begun, clock) = (disk.now(), disk.clone());
    let recovered = recover(&mut disk, &options, &mut || {
        assert!(clock.now() < begun + 60_000_000, "it waits for room");
        clock.now()
    })
    .unwrap();
    assert_eq!(recovered.store.space(), Space::Reserve);
    assert_eq!(recovered.view.applied(), recovered.view.last());
}

#[test]
fn of_a_slice_that_meets_damage_nobody_is_told_of_success() {
    let mut solo = member(9, Some(40));
    write(&mut solo, 400);
    solo.cluster.stop(1).unwrap();
    solo.cluster.start(1).unwrap();
    solo.run(100_000);
    // what the first key needs is in memory, the rest of the file is damaged
    solo.done(put("key0", "1"));
    let disk = solo.cluster.disk(1);
    let pages = disk.read_file(Path::new(PAGES)).unwrap().len() as u64 / 4096;
    (0..pages).for_each(|page| disk.flip_bit(Path::new(PAGES), page * 4096 + 100, 0));
    let published = solo.core().reader().position().revision;
    let reader = solo.core().reader();
    solo.cluster.take_answers();
    for key in ["key0", "key0", "key9", "key0"] {
        solo.submit(|reply_to| Request::Propose { command: put(key, "2"), reply_to });
    }
    solo.run(100_000);
    assert!(
        solo.cluster.faults()[0].1.to_string().contains("corrupt: file /pages"),
        "{:?}",
        solo.cluster.faults()
    );
    let answers = solo.cluster.take_answers();
    let stopped = |answer: &Answer| matches!(answer.outcome, Outcome::Failed(Busy::Stopped));
    assert!(answers.len() == 4 && answers.iter().all(stopped), "{answers:?}");
    assert_eq!(reader.position().revision, published);
}

// --- the log read behind a page file, without disks

fn entry(index: u64, term: u64) -> LogEntry {
    let command = put(&format!("k{index}"), &format!("t{term}"));
    let data = Stamped { clock_ms: index, command }.encode().unwrap();
    LogEntry { index, term, kind: EntryKind::Normal, data: data.into() }
}

fn batch((term, commit): (u64, u64), entries: Vec<LogEntry>) -> RecoveredBatch {
    RecoveredBatch { hard_state: HardState { term, vote: 0, commit }, entries, checkpoint: (0, 0) }
}

/// A store that has applied entries 1 to `last`, all but the first of term 2.
fn store(last: u64) -> Store {
    let mut store = Store::new();
    let mut replay = Replay::new(store, 0);
    let first = LogEntry { data: bootstrap(5, &[1]).encode().unwrap().into(), ..entry(1, 1) };
    replay.visit(batch((1, 1), vec![first])).unwrap();
    replay.visit(batch((2, last), (2..=last).map(|index| entry(index, 2)).collect())).unwrap();
    store = replay.finish(0).unwrap().0;
    assert_eq!(store.applied(), last);
    store
}

fn replay(root: u64, checkpoint: u64, batches: Vec<RecoveredBatch>) -> Result<(Store, u64, u64), Error> {
    let mut replay = Replay::new(store(root), 1 << 20);
    for batch in batches {
        if replay.visit(batch).is_err() {
            break;
        }
    }
    let (store, view) = replay.finish(checkpoint)?;
    assert_eq!(view.applied(), store.applied());
    Ok((store, view.base(), view.last()))
}

fn failure(root: u64, checkpoint: u64, batches: Vec<RecoveredBatch>) -> String {
    match replay(root, checkpoint, batches) {
        Ok(_) => panic!("it recovered"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn entries_that_the_page_file_has_applied_are_not_applied_again() {
    let entries = |range: std::ops::RangeInclusive<u64>| range.map(|index| entry(index, 2)).collect();
    let batches = vec![batch((2, 6), entries(7..=9)), batch((2, 9), entries(10..=14))];
    let (after, base, last) = replay(10, 0, batches).unwrap();
    // the log knows that 9 is committed, the page file that 10 is
    assert_eq!((after.applied(), base, last), (10, 7, 14));
    assert_eq!(after.reader().fingerprint().unwrap(), store(10).reader().fingerprint().unwrap());
    let batches = vec![batch((2, 6), entries(7..=14)), batch((2, 13), vec![])];
    assert_eq!(replay(10, 0, batches).unwrap().0.applied(), 13);
    let batches = vec![batch((2, 12), entries(11..=12))];
    assert_eq!(
        replay(10, 0, batches).map(|(store, base, last)| (store.applied(), base, last)).unwrap(),
        (12, 10, 12)
    );
}

#[test]
fn a_log_of_many_stretches_is_applied_as_it_would_be_entry_by_entry() {
    let mut expected = store(10);
    let all = 11..=7_011;
    let mut tx = expected.begin();
    for index in all.clone() {
        tx.apply(index, 2, &Stamped::decode(&entry(index, 2).data).unwrap()).unwrap();
    }
    assert_eq!(tx.publish().applied, 7_011);
    let entries: Vec<LogEntry> = (5..11).chain(all).map(|index| entry(index, 2)).collect();
    for chunk in [1, 700, 2_048, 5_000, 8_000] {
        let batches = entries.chunks(chunk).map(|entries| {
            // each batch knows of those before it
            batch((2, entries[0].index - 1), entries.to_vec())
        });
        let batches = batches.chain([batch((2, 7_011), vec![])]).collect();
        let (store, _, last) = replay(10, 0, batches).unwrap();
        assert_eq!((store.applied(), last), (7_011, 7_011));
        assert_eq!(store.reader().fingerprint().unwrap(), expected.reader().fingerprint().unwrap());
    }
}

#[test]
fn a_log_whose_entries_all_went_with_a_checkpoint_is_whole() {
    assert_eq!(replay(10, 10, vec![batch((3, 10), vec![])]).unwrap().0.applied(), 10);
    let text = failure(10, 8, vec![batch((3, 8), vec![])]);
    assert!(text.contains("entries 9 to 10") && text.contains("the page file has applied them"), "{text}");
}

#[test]
fn a_log_that_begins_too_late_or_ends_too_early_for_the_page_file_is_refused_with_what_is_missing() {
    let text = failure(10, 0, vec![batch((2, 13), vec![entry(14, 2)])]);
    assert!(text.contains("entries 11 to 13"), "{text}");
    assert!(
        text.contains("the page file has applied up to entry 10, the log begins with entry 14"),
        "{text}"
    );
    let text = failure(10, 0, vec![batch((2, 4), (2..=5).map(|index| entry(index, 2)).collect())]);
    assert!(text.contains("entries 6 to 10") && text.contains("the page file has applied them"), "{text}");
    let text = failure(10, 0, vec![batch((2, 15), (9..=12).map(|index| entry(index, 2)).collect())]);
    assert!(text.contains("entries 13 to 15"), "{text}");
}

#[test]
fn a_log_of_another_history_than_the_page_files_is_refused() {
    let text = failure(10, 0, vec![batch((3, 11), (9..=11).map(|index| entry(index, 3)).collect())]);
    assert!(text.contains("entry 10 has term 3 in the log, and term 2"), "{text}");
}

#[test]
fn a_log_may_begin_with_entries_that_are_replaced_later() {
    // 8 to 12 of term 1 were never committed; those of term 2 took their place, from 7 on
    let old = batch((1, 5), (8..=12).map(|index| entry(index, 1)).collect());
    let new = batch((2, 5), (7..=11).map(|index| entry(index, 2)).collect());
    let (after, base, last) = replay(10, 0, vec![old.clone(), new, batch((2, 11), vec![])]).unwrap();
    assert_eq!((after.applied(), base, last), (11, 7, 11));
    // or from 8 on
    let new = batch((2, 5), (8..=11).map(|index| entry(index, 2)).collect());
    let (after, base, last) = replay(10, 0, vec![old, new]).unwrap();
    assert_eq!((after.applied(), base, last), (10, 8, 11));
}

#[test]
fn a_first_start_without_room_for_a_log_ends_and_one_with_room_for_a_single_segment_goes_on() {
    let options = options(1);
    let pages = SimDisk::new(1);
    drop(Store::open(&mut pages.clone(), options.pages.clone(), 0).unwrap());
    for (seed, room) in [(2, 0), (3, 8 << 10), (4, options.wal.segment_bytes_min - 1)] {
        let disk = SimDisk::new(seed);
        disk.set_capacity(Some(pages.used() + room));
        let Err(Error::Fault(fault)) = recover_on(&disk, &options) else { panic!("{room}: it starts") };
        let Fault::Io { operation: "allocate", path, source, .. } = &fault else { panic!("{room}: {fault}") };
        assert_eq!((path.as_path(), source.kind()), (Path::new(LOG), std::io::ErrorKind::StorageFull));
        disk.kill();
        disk.set_capacity(Some(pages.used() + options.wal.segment_bytes_min));
        let recovered = recover_on(&disk, &options).unwrap();
        assert_eq!(recovered.store.applied(), 1, "{room}");
        assert_eq!(recovered.wal.stats().segments_begun, 1, "{room}");
    }
}
