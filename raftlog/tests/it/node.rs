//! A running member on a real disk, as the server sees it.

use crate::support::{LONG_ENOUGH, put, to};
use coffer_engine::command::{Applied, Command, Member, RangeRequest};
use coffer_engine::mvcc::KeyRange;
use coffer_raftlog::error::Error;
use coffer_raftlog::node::{Node, Options, ReadIndex, WalIo};
use coffer_raftlog::proposal::{Busy, Mailbox, Outcome, Post, ReplyTo, Request};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

/// A mailbox that a test waits at.
#[derive(Default)]
struct Box_ {
    answers: Mutex<Vec<(ReplyTo, Outcome)>>,
    events: Mutex<usize>,
    came: Condvar,
}

impl Mailbox for Box_ {
    fn post(&self, post: Post) {
        *self.events.lock().unwrap() += post.events.map_or(0, |batch| batch.events.len());
        self.answers.lock().unwrap().extend(post.answers);
        self.came.notify_all();
    }
}

impl Box_ {
    fn wait(&self, count: usize) -> Vec<(ReplyTo, Outcome)> {
        let answers = self.answers.lock().unwrap();
        let (mut answers, timeout) =
            self.came.wait_timeout_while(answers, LONG_ENOUGH, |answers| answers.len() < count).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} answers came", answers.len());
        std::mem::take(&mut *answers)
    }
}

fn options(dir: &Path) -> Options {
    Options {
        pages: dir.join("pages"),
        wal_dir: dir.join("wal"),
        member_id: 0x11,
        cluster_id: 0x22,
        bootstrap: vec![Member { id: 0x11, name: "one".into(), ..Member::default() }],
        heartbeat: Duration::from_millis(100),
        election_ticks: 10,
        seed: 1,
        wal_io: WalIo::Auto,
        segment_bytes: (1 << 20, 4 << 20),
        entry_bytes_max: 2 << 20,
        dirty_bytes: 64 << 20,
        scrub_bytes_per_s: 0,
        snapshot_entries: None,
        warn_apply_after: Duration::from_millis(100),
        catchup_entries: 5_000,
    }
}

fn start(dir: &Path) -> (Node, Arc<Box_>) {
    start_with(options(dir))
}

fn start_with(options: Options) -> (Node, Arc<Box_>) {
    let mailbox = Arc::new(Box_::default());
    let stopped = Box::new(|error: Error| panic!("the member stopped: {error}"));
    let node = Node::start(options, vec![Arc::clone(&mailbox) as Arc<dyn Mailbox>], stopped).unwrap();
    (node, mailbox)
}

fn propose(node: &Node, command: Command, slot: u32) {
    node.submit(Request::Propose { command, reply_to: to(slot) }).unwrap();
}

fn count(node: &Node) -> i64 {
    let range = KeyRange::new(vec![0], vec![0]);
    node.reader().range(&RangeRequest { range, count_only: true, ..RangeRequest::default() }).unwrap().count
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (node, mailbox) = start(dir.path());
    propose(&node, put("a", "1"), 1);
    let answers = mailbox.wait(1);
    assert!(matches!(answers[0], (_, Outcome::Applied(Applied { revision: 2, outcome: Ok(_) }))));
    let status = node.status();
    assert_eq!((status.leader, status.applied), (0x11, status.last));
    assert_eq!(*mailbox.events.lock().unwrap(), 1);
    assert!(node.wal_bytes_written() > 0);
    assert!(node.wal_sync_seconds().count > 0);
    assert!(!node.wal_io_description().is_empty());
    node.stop();
    let (again, mailbox) = start(dir.path());
    assert_eq!(count(&again), 1);
    propose(&again, put("b", "1"), 1);
    mailbox.wait(1);
    assert!(again.status().term > status.term);
    again.stop();
}

#[test]
fn plain_system_calls_serve_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (node, mailbox) = start_with(Options { wal_io: WalIo::Sync, ..options(dir.path()) });
    (0..50).for_each(|slot| propose(&node, put(&format!("k{slot}"), "x"), slot));
    mailbox.wait(50);
    node.stop();
    let (again, _) = start(dir.path());
    assert_eq!(count(&again), 50);
    again.stop();
}

#[test]
fn requests_of_many_threads_are_answered_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let (node, mailbox) = start(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let node = node.clone();
            scope.spawn(move || {
                for n in 0..1_000 {
                    let slot = thread * 1_000 + n;
                    let request =
                        || Request::Propose { command: put(&format!("k{slot}"), "x"), reply_to: to(slot) };
                    while let Err(busy) = node.submit(request()) {
                        assert_eq!(busy, Busy::TooManyRequests);
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    let answers = mailbox.wait(4_000);
    let mut slots: Vec<u32> = answers.iter().map(|(to, _)| to.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..4_000).collect::<Vec<_>>());
    assert!(answers.iter().all(|(_, outcome)| matches!(outcome, Outcome::Applied(_))));
    assert_eq!(count(&node), 4_000);
    node.stop();
}

#[test]
fn a_read_sees_every_put_that_was_acknowledged_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (node, mailbox) = start(dir.path());
    if node.read_index(to(0)).unwrap() == ReadIndex::Wait {
        assert!(matches!(mailbox.wait(1)[..], [(_, Outcome::ReadIndex(_))]));
    }
    for n in 0..300 {
        propose(&node, put(&format!("k{n}"), "x"), n);
        mailbox.wait(1);
        assert_eq!(node.read_index(to(n)), Ok(ReadIndex::Now));
        assert_eq!(count(&node), i64::from(n) + 1);
    }
    node.stop();
    assert_eq!(node.read_index(to(1)), Err(Busy::Stopped));
}

#[test]
fn a_stop_answers_everybody_once() {
    let dir = tempfile::tempdir().unwrap();
    let (node, mailbox) = start(dir.path());
    let sent = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..2u32)
            .map(|thread| {
                let node = node.clone();
                scope.spawn(move || {
                    let mut sent = 0;
                    loop {
                        let slot = thread * 1_000_000 + sent;
                        let request =
                            Request::Propose { command: put(&format!("k{slot}"), "x"), reply_to: to(slot) };
                        match node.submit(request) {
                            Ok(()) => sent += 1,
                            Err(Busy::Stopped) => return sent,
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                })
            })
            .collect();
        while node.status().applied < 500 {
            std::thread::yield_now();
        }
        node.stop();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum::<u32>()
    });
    let answers = mailbox.wait(sent as usize);
    assert_eq!(answers.len(), sent as usize);
    let mut slots: Vec<u32> = answers.iter().map(|(to, _)| to.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), sent as usize, "somebody was answered twice");
    let done = answers.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Applied(_))).count();
    let (again, _) = start(dir.path());
    assert!(count(&again) >= done as i64);
    again.stop();
}

/// A mailbox that tries the door whenever somebody is told that the member stops.
#[derive(Default)]
struct Caller {
    node: OnceLock<Node>,
    mailbox: Box_,
    /// Whether it was open.
    open: Mutex<Vec<bool>>,
}

impl Mailbox for Caller {
    fn post(&self, post: Post) {
        let stops = |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Failed(Busy::Stopped));
        if let Some(node) = self.node.get().filter(|_| post.answers.iter().any(stops)) {
            self.open.lock().unwrap().push(node.reads_at_once() != Err(Busy::Stopped));
        }
        self.mailbox.post(post);
    }
}

#[test]
fn whoever_hears_that_a_member_stops_finds_its_door_closed() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { snapshot_entries: Some(100), ..options(dir.path()) };
    let (node, mailbox) = start_with(options());
    for slot in 0..2_000 {
        propose(&node, put(&format!("k{slot:04}"), &"x".repeat(200)), slot);
    }
    mailbox.wait(2_000);
    let before = node.page_stats().checkpoints;
    propose(&node, put("last", "1"), 2_000);
    mailbox.wait(1);
    node.request_checkpoint();
    let in_file = || node.page_stats().checkpoints > before && node.page_stats().dirty_bytes == 0;
    while !in_file() {
        std::thread::yield_now();
    }
    node.stop();

    let caller = Arc::new(Caller::default());
    let stopped = Arc::new(Mutex::new(None));
    let told = Arc::clone(&stopped);
    let node = Node::start(
        options(),
        vec![Arc::clone(&caller) as Arc<dyn Mailbox>],
        Box::new(move |error| *told.lock().unwrap() = Some(error.to_string())),
    )
    .unwrap();
    caller.node.set(node.clone()).ok().unwrap();
    // what the first key needs is in memory, the rest of the file is damaged
    propose(&node, put("k0000", "1"), 0);
    caller.mailbox.wait(1);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(dir.path().join("pages")).unwrap();
    for page in 0..file.metadata().unwrap().len() / 4_096 {
        file.write_all_at(&[0xa5; 64], page * 4_096 + 100).unwrap();
    }
    let mut sent = 0;
    for slot in 0..200 {
        let key = if slot == 100 { "k0500" } else { "k0000" };
        let sends = node.submit(Request::Propose { command: put(key, "2"), reply_to: to(slot) });
        sent += usize::from(sends.is_ok());
    }
    let answers = caller.mailbox.wait(sent);
    let last = answers.iter().rposition(|(_, outcome)| matches!(outcome, Outcome::Applied(_)));
    let first = answers.iter().position(|(_, outcome)| matches!(outcome, Outcome::Failed(Busy::Stopped)));
    assert!(first.is_some() && last < first, "{answers:?}");
    node.stop();
    assert!(stopped.lock().unwrap().as_ref().is_some_and(|text| text.contains("corrupt")), "{stopped:?}");
    assert!(!caller.open.lock().unwrap().contains(&true), "{:?}", caller.open);
}

#[test]
fn the_data_of_another_cluster_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = start(dir.path());
    node.stop();
    let other = Options { cluster_id: 0x33, ..options(dir.path()) };
    assert!(Node::start(other, Vec::new(), Box::new(|_| {})).is_err());
}

#[test]
fn a_member_that_is_not_among_the_first_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = Options { member_id: 0x44, ..options(dir.path()) };
    let refused = Node::start(stranger, Vec::new(), Box::new(|_| {})).err().unwrap();
    assert!(refused.to_string().contains("not among the first"), "{refused}");
}

#[test]
fn an_entry_larger_than_the_log_takes_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (node, mailbox) = start(dir.path());
    propose(&node, put("large", &"x".repeat(3 << 20)), 1);
    assert!(matches!(mailbox.wait(1)[..], [(_, Outcome::Failed(Busy::TooManyRequests))]));
    propose(&node, put("large enough", &"x".repeat(1 << 20)), 2);
    assert!(matches!(mailbox.wait(1)[..], [(_, Outcome::Applied(_))]));
    node.stop();
}
