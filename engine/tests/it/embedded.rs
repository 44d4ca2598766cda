//! The database as a program has it: threads, a real directory, a process that is killed.

use crate::arbitrary::{Source, config};
use bytes::Bytes;
use coffer_engine::command::*;
use coffer_engine::disk::DiskIo;
use coffer_engine::embedded::{Db, Error, Events, Invalid, Options, Watch, Written};
use coffer_engine::error::{Fault, Refusal};
use coffer_engine::lease_clock::LAG_MS_MAX;
use coffer_engine::model::Model;
use coffer_engine::mvcc::{Event, EventKind, KeyRange};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

/// Names the directory to a child process that writes until it is killed.
const CHILD_DIR: &str = "COFFER_TEST_EMBEDDED_DIR";

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the test")
}

fn options(dir: &Path) -> Options {
    Options { wal_segment_bytes: (1 << 18, 1 << 20), command_bytes_max: 1 << 16, ..Options::new(dir) }
}

fn open(dir: &Path) -> Db {
    Db::open(options(dir)).expect("it opens")
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn everything() -> KeyRange {
    KeyRange::new("\0", "\0")
}

fn all(db: &Db) -> RangeReply {
    db.range(&RangeRequest { range: everything(), ..RangeRequest::default() }).expect("a range")
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn what_was_written_is_there_after_closing_dropping_and_opening_again() {
    for wal_io in [DiskIo::Auto, DiskIo::Sync] {
        let dir = directory();
        let options = || Options { wal_io, ..options(&dir.path().join("made/on/the/way")) };
        let db = Db::open(options()).unwrap();
        assert!(db.opened().fresh);
        let first = db.put(put("a", "1")).unwrap();
        assert_eq!(first, Written { revision: 2, reply: PutReply::default() });
        let second = db.put(PutRequest { prev_kv: true, ..put("a", "2") }).unwrap();
        assert_eq!(second.reply.prev_kv.unwrap().value, "1");
        db.close().unwrap();
        assert!(matches!(db.put(put("a", "3")), Err(Error::Closed)));
        assert!(matches!(db.get("a"), Err(Error::Closed)));
        assert!(db.close().is_ok(), "again does nothing");

        let db = Db::open(options()).unwrap();
        assert!(!db.opened().fresh && db.opened().torn.is_empty());
        assert_eq!(db.get("a").unwrap().unwrap().value, "2");
        assert_eq!(db.get("b").unwrap(), None);
        db.put(put("b", "1")).unwrap();
        drop(db);
        let db = Db::open(options()).unwrap();
        assert_eq!((db.position().revision, all(&db).count), (4, 2));
    }
}

#[test]
fn every_write_of_many_threads_is_in_one_order_and_there_after_dropping() {
    let dir = directory();
    let db = open(dir.path());
    let revisions: Vec<i64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|thread| {
                let db = db.clone();
                scope.spawn(move || {
                    let write = |n| {
                        let done = db.put(put(format!("{thread}/{n}"), format!("{n}"))).unwrap();
                        let own = db.get(format!("{thread}/{n}")).unwrap().expect("one's own write is seen");
                        assert_eq!(own.mod_revision, done.revision);
                        done.revision
                    };
                    let revisions: Vec<i64> = (0..50).map(write).collect();
                    assert!(revisions.is_sorted());
                    revisions
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let mut sorted = revisions;
    sorted.sort_unstable();
    assert_eq!(sorted, (2..=801).collect::<Vec<i64>>());
    drop(db);
    assert_eq!(all(&open(dir.path())).count, 800);
}

/// Not a test by itself: the process that [`nothing_acknowledged_is_lost_when_the_process_is_killed`] kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let db = open(Path::new(&dir));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let db = db.clone();
            scope.spawn(move || {
                let begun = db.position().revision;
                for n in 0u64.. {
                    let key = format!("{begun}/{thread}/{n}");
                    db.put(put(key.clone(), vec![b'v'; 300])).unwrap();
                    let mut out = std::io::stdout().lock();
                    out.write_all(format!("acknowledged {key}\n").as_bytes()).unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = directory();
    let mut acknowledged = Vec::new();
    for _life in 0..3 {
        let before = acknowledged.len();
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // the last line may be cut, and then its key is one that nobody asks for
            let line = line.unwrap_or_default();
            let Some((_, key)) = line.split_once("acknowledged ") else { continue };
            acknowledged.push(key.to_owned());
            if acknowledged.len() - before == 700 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() - before >= 700, "the child wrote {}", acknowledged.len() - before);
        // cut lines are no keys: only the last one of a life can be one
        let whole = |key: &str| key.split('/').count() == 3;
        acknowledged.retain(|key| whole(key));
        let db = open(dir.path());
        let lost: Vec<&String> =
            acknowledged.iter().filter(|key| db.get(key.as_bytes()).unwrap().is_none()).collect();
        assert!(lost.is_empty(), "{} of {} are gone: {lost:?}", lost.len(), acknowledged.len());
    }
}

#[test]
fn a_txn_compares_and_does_all_or_nothing_and_one_of_ranges_writes_nothing() {
    let dir = directory();
    let db = open(dir.path());
    let swap = |from: i64| TxnRequest {
        compares: vec![Compare {
            range: KeyRange::single("a"),
            result: CompareResult::Equal,
            target: CompareTarget::Version(from),
        }],
        success: vec![TxnOp::Put(put("a", "x")), TxnOp::Put(put("b", "y"))],
        failure: vec![TxnOp::Range(RangeRequest { range: KeyRange::single("a"), ..RangeRequest::default() })],
    };
    let done = db.txn(swap(0)).unwrap();
    assert!(done.reply.succeeded && done.revision == 2);
    let not = db.txn(swap(0)).unwrap();
    assert!(!not.reply.succeeded && not.revision == 2);
    let TxnOpReply::Range(range) = &not.reply.responses[0] else { panic!("{not:?}") };
    assert_eq!((range.count, &range.kvs[0].value[..]), (1, &b"x"[..]));

    let applied = db.position().applied;
    let read = db.txn(TxnRequest { success: swap(0).failure, ..TxnRequest::default() }).unwrap();
    assert!(read.reply.succeeded && read.revision == 2);
    assert_eq!(db.position().applied, applied, "no entry for a read");
    let twice = TxnRequest {
        success: vec![TxnOp::Put(put("a", "1")), TxnOp::Put(put("a", "2"))],
        ..TxnRequest::default()
    };
    assert!(matches!(db.txn(twice), Err(Error::Invalid(Invalid::DuplicateKey))));
    assert!(matches!(db.put(put("", "1")), Err(Error::Invalid(Invalid::EmptyKey))));
    let large = db.put(put("a", vec![0; 1 << 16]));
    assert!(matches!(large, Err(Error::Invalid(Invalid::TooLarge { limit: 65_536, .. }))));
    assert_eq!(db.position().applied, applied);
}

/// What a watch gave is right: whole revisions from `from` on, each once, in order, and says how far.
fn check_events(events: &[Events], from: i64) {
    let mut next = from;
    for batch in events {
        assert!(!batch.events.is_empty());
        for event in &batch.events {
            let revision = event.kv.mod_revision;
            assert!(revision == next || revision == next - 1, "{revision} where {next} was due");
            next = next.max(revision + 1);
        }
        assert_eq!(batch.revision, next - 1);
    }
}

/// What a watch gives up to `last`, which is written, or will soon be.
fn gather(mut watch: Watch, last: i64) -> Vec<Events> {
    let mut all = Vec::new();
    while all.last().is_none_or(|events: &Events| events.revision < last) {
        // so long only where an event is missing, for the test to end
        all.push(watch.next_timeout(Duration::from_secs(60)).unwrap().expect("more events"));
    }
    all
}

#[test]
fn a_watch_sees_every_event_once_in_order_however_slowly_it_is_read() {
    let dir = directory();
    let db = open(dir.path());
    let (writers, each) = (4, 600);
    let last = 1 + writers * each;
    let early = db.watch(everything(), 1).unwrap();
    let late = db.watch(everything(), 0).unwrap();
    let mut idle = db.watch(KeyRange::single("nobody writes it"), 0).unwrap();
    let kept_up = std::thread::scope(|scope| {
        let keeps_up = scope.spawn(|| gather(early, last));
        for writer in 0..writers {
            let db = db.clone();
            scope.spawn(move || {
                for n in 0..each {
                    // two changes in one revision, and far more bytes than are kept for those that keep up
                    let key = format!("{writer}/{}", n % 7);
                    let ops =
                        vec![TxnOp::Put(put(key, vec![n as u8; 3_000])), TxnOp::Put(put("shared", "x"))];
                    db.txn(TxnRequest { success: ops, ..TxnRequest::default() }).unwrap();
                }
            });
        }
        keeps_up.join().unwrap()
    });
    let expected = 2 * usize::try_from(writers * each).unwrap();
    let flat = |batches: &[Events]| -> Vec<Event> {
        batches.iter().flat_map(|batch| batch.events.iter().cloned()).collect()
    };
    check_events(&kept_up, 2);
    assert_eq!(flat(&kept_up).len(), expected);
    let fell_behind = gather(late, last);
    check_events(&fell_behind, 2);
    assert_eq!(flat(&fell_behind), flat(&kept_up), "history tells what the publish told");
    // one that goes on where another ended gets the rest
    let middle = kept_up[kept_up.len() / 2].revision + 1;
    let resumed = gather(db.watch(everything(), middle).unwrap(), last);
    check_events(&resumed, middle);
    assert_eq!(idle.next_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(idle.next_revision(), last + 1, "it was brought up to date without an event");
}

#[test]
fn a_watch_begins_in_history_or_in_the_future_and_ends_with_the_database() {
    let dir = directory();
    let db = open(dir.path());
    for n in 0..5 {
        db.put(put("k", format!("{n}"))).unwrap();
    }
    drop(db);
    let db = open(dir.path());
    let history = gather(db.watch(KeyRange::single("k"), 3).unwrap(), 6);
    check_events(&history, 3);
    let event = &history[0].events[0];
    assert_eq!((&event.kv.value[..], &event.prev_kv.as_ref().unwrap().value[..]), (&b"1"[..], &b"0"[..]));

    let mut future = db.watch(everything(), 8).unwrap();
    db.put(put("k", "seven")).unwrap();
    assert_eq!(future.next_timeout(Duration::ZERO).unwrap(), None);
    db.put(put("k", "eight")).unwrap();
    let events = future.next_timeout(Duration::ZERO).unwrap().expect("told before the answer");
    assert_eq!((events.revision, events.events.len()), (8, 1));

    db.compact(7).unwrap();
    let mut compacted = db.watch(everything(), 6).unwrap();
    assert_eq!(refusal(compacted.next().expect("an error")), Refusal::Compacted);
    assert!(compacted.next().is_none(), "and no more");
    assert_eq!(
        gather(db.watch(everything(), 7).unwrap(), 8).iter().map(|e| e.events.len()).sum::<usize>(),
        2
    );

    let told = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| future.map(Result::unwrap).collect::<Vec<Events>>());
        db.put(put("other", "1")).unwrap();
        db.close().unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(told.len(), 1, "what was written before the end, then the end");
    assert!(matches!(db.watch(everything(), 0), Err(Error::Closed)));
}

#[test]
fn after_the_end_a_watch_that_keeps_up_gets_what_is_left_and_one_that_is_behind_is_told() {
    let dir = directory();
    let db = open(dir.path());
    db.put(put("k", "1")).unwrap();
    drop(db);
    let db = open(dir.path());
    let mut keeps_up = db.watch(everything(), 3).unwrap();
    let mut behind = db.watch(everything(), 2).unwrap();
    db.put(put("k", "2")).unwrap();
    db.close().unwrap();
    let left = keeps_up.next_timeout(Duration::ZERO).unwrap().expect("it is in memory");
    assert_eq!((left.revision, left.events.len()), (3, 1));
    assert!(matches!(keeps_up.next_timeout(Duration::ZERO), Err(Error::Closed)));
    // what it lacks lies in a directory that may be another database's by now
    assert!(matches!(behind.next_timeout(Duration::ZERO), Err(Error::Closed)));
    let again = open(dir.path());
    assert_eq!(gather(again.watch(everything(), behind.next_revision()).unwrap(), 3).len(), 1);
}

#[test]
fn a_lease_takes_its_keys_with_it_when_its_time_is_up_and_not_before() {
    let dir = directory();
    let db = open(dir.path());
    assert!(matches!(db.lease_grant(5, 0), Err(Error::Invalid(Invalid::TimeToLive))));
    let granted = db.lease_grant(0, 1).unwrap().reply;
    let long = db.lease_grant(77, 3_600).unwrap().reply;
    assert!(granted.id > 0 && granted.ttl == 1 && long.id == 77);
    assert_eq!(refusal(db.lease_grant(77, 1)), Refusal::LeaseExist);
    db.put(PutRequest { lease: granted.id, ..put("short", "1") }).unwrap();
    db.put(PutRequest { lease: 77, ..put("long", "1") }).unwrap();
    let info = db.lease(granted.id, true).unwrap().expect("it is there");
    assert_eq!((info.granted_ttl, &info.keys[..]), (1, &[Bytes::from("short")][..]));

    let mut watch = db.watch(everything(), 0).unwrap();
    let ended = watch.next().expect("an event").unwrap();
    let ended_ms = db.lease_clock_ms();
    assert_eq!((ended.events.len(), ended.events[0].kind), (1, EventKind::Delete));
    assert_eq!(ended.events[0].kv.key, "short");
    assert!(ended_ms >= info.deadline_ms + LAG_MS_MAX, "at {ended_ms}, due at {}", info.deadline_ms);
    assert_eq!(refusal(db.lease_keep_alive(granted.id)), Refusal::LeaseNotFound);
    assert_eq!(db.lease_keep_alive(77).unwrap().reply, 3_600);
    assert_eq!(refusal(db.put(PutRequest { lease: granted.id, ..put("k", "1") })), Refusal::LeaseNotFound);

    // over a restart the clock goes on from the last stamp, and so does the lease
    let stamped = db.lease(77, false).unwrap().unwrap().deadline_ms - 3_600_000;
    drop(db);
    let db = open(dir.path());
    assert!(db.lease_clock_ms() >= stamped);
    assert_eq!(db.lease(77, true).unwrap().unwrap().keys, ["long"]);
    assert_eq!(db.leases().unwrap().len(), 1);
    assert_eq!(db.lease_revoke(77).unwrap().revision, 5);
    assert!(all(&db).kvs.is_empty() && db.leases().unwrap().is_empty());
}

#[test]
fn a_directory_is_one_databases_own() {
    let dir = directory();
    let db = open(dir.path());
    let refused = Db::open(options(dir.path())).expect_err("it is in use");
    assert!(matches!(&refused, Fault::Unusable { path, .. } if path == dir.path()), "{refused}");
    db.put(put("k", "1")).unwrap();
    drop(db);
    drop(open(dir.path()));

    let etcd = directory();
    std::fs::create_dir_all(etcd.path().join("member/snap")).unwrap();
    let refused = Db::open(options(etcd.path())).expect_err("etcd's data");
    assert!(matches!(refused, Fault::Unusable { .. }), "{refused}");
    assert_eq!(std::fs::read_dir(etcd.path()).unwrap().count(), 1, "not even a lock was made");
}

#[test]
fn damage_to_what_was_acknowledged_is_refused_by_name() {
    let dir = directory();
    let db = open(dir.path());
    for n in 0..20 {
        db.put(put(format!("{n}"), vec![b'v'; 2_000])).unwrap();
    }
    drop(db);
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.path().join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    bytes[4_096 + 700] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
    let fault = Db::open(options(dir.path())).expect_err("a damaged log");
    assert!(matches!(&fault, Fault::Corrupt { path, .. } if *path == segments[0]), "{fault}");
}

#[test]
fn a_copy_taken_while_writes_go_on_holds_all_that_came_before_it_and_lives_on() {
    let dir = directory();
    let to = directory();
    let to = to.path().join("copy");
    let db = open(dir.path());
    let lease = db.lease_grant(0, 3_600).unwrap().reply.id;
    for n in 0..300 {
        db.put(PutRequest { lease, ..put(format!("{n:03}"), vec![n as u8; 4_000]) }).unwrap();
    }
    let before = db.put(put("000", "again")).unwrap().revision;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let copied = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                db.put(put("later", vec![b'x'; 3_000])).unwrap();
            }
        });
        let copied = db.snapshot(&to);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        copied.unwrap()
    });
    assert!(copied >= before);
    assert!(matches!(db.snapshot(&to), Err(Error::Fault(_))), "there is a database already");

    let copy = open(&to);
    assert_eq!(copy.position().revision, copied);
    assert_eq!(copy.hash_kv(copied).unwrap().hash, db.hash_kv(copied).unwrap().hash);
    assert_eq!(copy.lease(lease, true).unwrap().unwrap().keys.len(), 299);
    let old = RangeRequest { range: KeyRange::single("000"), revision: before - 1, ..Default::default() };
    assert_eq!(copy.range(&old).unwrap().kvs[0].value.len(), 4_000, "its history too");
    assert_eq!(copy.put(put("own", "life")).unwrap().revision, copied + 1);
    drop(copy);
    let copy = open(&to);
    assert_eq!(copy.get("own").unwrap().unwrap().value, "life");
    assert_eq!(db.get("own").unwrap(), None);
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_that_was_not_finished_is_neither_opened_nor_copied_to() {
    let dir = directory();
    let db = open(dir.path());
    for n in 0..300 {
        db.put(put(format!("{n:03}"), vec![n as u8; 1_000])).unwrap();
    }
    db.checkpoint().unwrap();
    let copies = directory();
    let whole = copies.path().join("whole");
    db.snapshot(&whole).unwrap();
    assert_eq!(names(&whole), ["lock", "pages", "wal"]);
    // every leaf there is rots in the file
    let pages = dir.path().join("pages");
    let mut bytes = std::fs::read(&pages).unwrap();
    bytes.chunks_exact_mut(4_096).filter(|page| page[4] == 5).for_each(|leaf| leaf[2_000] ^= 1);
    std::fs::write(&pages, bytes).unwrap();
    let failed = copies.path().join("failed");
    let fault = db.snapshot(&failed).expect_err("pages are damaged");
    assert!(matches!(&fault, Error::Fault(fault) if matches!(**fault, Fault::Corrupt { .. })), "{fault}");
    assert_eq!(names(&failed), ["lock", "unfinished"]);

    // killed before there was more than the mark
    let killed = copies.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    std::fs::write(killed.join("unfinished"), "").unwrap();
    for (dir, there) in [(&failed, &["lock", "unfinished"][..]), (&killed, &["unfinished"])] {
        let refused = Db::open(options(dir)).expect_err("it is not whole").to_string();
        assert!(refused.contains("a copy that was not finished"), "{refused}");
        let refused = db.snapshot(dir).expect_err("it is in the way").to_string();
        assert!(refused.contains("remove the directory"), "{refused}");
        assert_eq!(names(dir), there, "nothing is made there");
    }
    assert_eq!(all(&open(&whole)).count, 300);
}

#[test]
fn checkpoints_keep_the_log_short_and_opening_reads_only_what_is_behind_the_last() {
    let dir = directory();
    let options = || Options {
        wal_segment_bytes: (1 << 17, 1 << 17),
        checkpoint_wal_bytes: 1 << 19,
        ..options(dir.path())
    };
    let db = Db::open(options()).unwrap();
    for n in 0..1_500 {
        db.put(put(format!("{}", n % 10), vec![n as u8; 4_000])).unwrap();
        if n % 100 == 99 {
            db.compact(db.position().revision).unwrap();
        }
    }
    db.checkpoint().unwrap();
    db.put(put("after", "the checkpoint")).unwrap();
    let hash = db.hash_kv(0).unwrap();
    drop(db);
    let db = Db::open(options()).unwrap();
    assert!(db.opened().batches < 100, "{} batches of 1,516 are left", db.opened().batches);
    assert_eq!(db.hash_kv(0).unwrap(), hash);
    assert_eq!(db.get("after").unwrap().unwrap().value, "the checkpoint");
}

/// The text of the fault by which the directory is refused.
fn refused(dir: &Path) -> String {
    match Db::open(options(dir)) {
        Err(fault @ Fault::Corrupt { .. }) => fault.to_string(),
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("it opens"),
    }
}

#[test]
fn a_page_file_or_a_log_that_is_lost_or_old_is_refused() {
    let dir = directory();
    let (pages, wal) = (dir.path().join("pages"), dir.path().join("wal"));
    let aside = dir.path().join("aside");
    let life = |key: &'static str| {
        let db = open(dir.path());
        db.put(put(key, "1")).unwrap();
        db.checkpoint().unwrap();
        // the log names it with the next batch
        db.put(put(key, "2")).unwrap();
    };
    life("a");
    std::fs::copy(&pages, &aside).unwrap();
    life("b");

    let right = std::fs::read(&pages).unwrap();
    std::fs::copy(&aside, &pages).unwrap();
    assert!(refused(dir.path()).contains("an older one"), "{}", refused(dir.path()));
    std::fs::remove_file(&pages).unwrap();
    assert!(refused(dir.path()).contains("it is lost"));
    assert!(!pages.exists(), "nothing is put in its place");
    std::fs::write(&pages, right).unwrap();

    let lost = dir.path().join("lost");
    std::fs::rename(&wal, &lost).unwrap();
    assert!(refused(dir.path()).contains("entries 1 to "), "{}", refused(dir.path()));
    std::fs::remove_dir_all(&wal).unwrap();
    std::fs::rename(&lost, &wal).unwrap();
    assert_eq!(all(&open(dir.path())).count, 2, "and with what belongs to it, it opens");
}

/// What a program does, and whether it opens the database anew before.
fn program() -> impl Strategy<Value = Vec<(Command, bool)>> {
    vec((Source::narrow().data_command(), prop::bool::weighted(0.05)), 1..40)
}

/// The command in the form in which the database takes it: leases that do not end while the test runs, one renewal at a
/// time, nothing that only the database itself writes.
fn as_asked(command: Command) -> Option<Command> {
    match command {
        Command::LeaseExpire { .. } | Command::LeaseGrant { id: 0, .. } => None,
        Command::LeaseGrant { id, ttl } if (1..100_000).contains(&ttl) => {
            Some(Command::LeaseGrant { id, ttl: ttl + 100_000 })
        }
        Command::LeaseRenew { ids } => {
            Some(Command::LeaseRenew { ids: vec![ids.first().copied().unwrap_or(9)] })
        }
        other => Some(other),
    }
}

/// Has the database do it; what it said in the store's own words, `None` if there can be no such request.
fn ask(db: &Db, command: Command) -> Option<Result<(i64, Reply), Refusal>> {
    fn said<T>(
        written: Result<Written<T>, Error>,
        reply: fn(T) -> Reply,
    ) -> Option<Result<(i64, Reply), Refusal>> {
        match written {
            Ok(written) => Some(Ok((written.revision, reply(written.reply)))),
            Err(Error::Refused(refusal)) => Some(Err(refusal)),
            Err(Error::Invalid(_)) => None,
            Err(other) => panic!("{other}"),
        }
    }
    match command {
        Command::Put(request) => said(db.put(request), Reply::Put),
        Command::DeleteRange(request) => said(db.delete_range(request), Reply::DeleteRange),
        Command::Txn(request) => said(db.txn(request), Reply::Txn),
        Command::Compact { revision } => said(db.compact(revision), |()| Reply::Compact),
        Command::LeaseGrant { id, ttl } => {
            said(db.lease_grant(id, ttl), |lease| Reply::LeaseGrant { id: lease.id, ttl: lease.ttl })
        }
        Command::LeaseRevoke { id } => said(db.lease_revoke(id), |()| Reply::LeaseRevoke),
        Command::LeaseRenew { ids } => {
            let renewed = said(db.lease_keep_alive(ids[0]), |ttl| Reply::LeaseRenew(vec![ttl]));
            // that it is not there is told as a refusal here
            match renewed {
                Some(Err(Refusal::LeaseNotFound)) => {
                    Some(Ok((db.position().revision, Reply::LeaseRenew(vec![0]))))
                }
                other => other,
            }
        }
        other => panic!("nothing to ask for: {other:?}"),
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn every_answer_is_that_of_the_model_over_any_number_of_openings(
        program in program(),
        ranges in vec(Source::narrow().range(), 8),
    ) {
        let dir = directory();
        let (mut db, mut model, mut index) = (open(dir.path()), Model::new(), 0);
        for (command, anew) in program {
            if anew {
                drop(db);
                db = open(dir.path());
            }
            let Some(command) = as_asked(command) else { continue };
            let Some(said) = ask(&db, command.clone()) else { continue };
            let expected = match &command {
                Command::Txn(txn) if txn.is_read_only() => {
                    model.read_txn(txn).map(|(revision, reply)| (revision, Reply::Txn(reply)))
                }
                _ => {
                    index += 1;
                    let stamped = Stamped { clock_ms: 0, command: command.clone() };
                    let applied = model.apply(index, 1, &stamped);
                    applied.outcome.map(|reply| (applied.revision, reply))
                }
            };
            prop_assert_eq!(&said, &expected, "{:?}", command);
            let position = db.position();
            prop_assert_eq!((position.revision, position.applied), (model.position().revision, index));
        }
        for request in &ranges {
            let said = db.range(request).map_err(|error| refusal(Err::<(), _>(error)));
            prop_assert_eq!(said, model.range(request), "{:?}", request);
        }
        let held = |leases: Vec<coffer_engine::store::LeaseInfo>| -> Vec<_> {
            let mut held: Vec<_> = leases.into_iter().map(|lease| (lease.id, lease.granted_ttl)).collect();
            held.sort_unstable();
            held
        };
        prop_assert_eq!(held(db.leases().unwrap()), held(model.leases()));
    }
}
