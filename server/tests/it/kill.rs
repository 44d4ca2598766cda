//! kill -9 of the real binary under load, again and again: what was acknowledged is there, byte for byte.
//!
//! `COFFER_KILL_CYCLES` and `COFFER_KILL_PUTS` (acknowledged before each kill) make it long; scripts/long.sh sets them.

use crate::binary::{Process, SIGKILL};
use crate::support::{Client, bytes, put, run, text};
use coffer_server::proto::etcdserverpb as pb;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Clients that write at the same time, each one put after the other.
const WRITERS: usize = 32;
/// Connections they share.
const CONNECTIONS: usize = 4;
/// Keys read at once when all is compared.
const PAGE_KEYS: i64 = 2_000;

fn setting(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().map_or(or, |value| value.parse().expect("a number"))
}

fn key(writer: usize, number: u64) -> String {
    format!("writer{writer:02}/{number:09}")
}

/// Some bytes that follow from the key, of lengths from nothing to a few sectors.
fn value(writer: usize, number: u64) -> String {
    let length = (number * 31 + writer as u64 * 7) % 1_500;
    format!("{writer}:{number}:{}", "v".repeat(length as usize))
}

/// What one writer knows.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Its puts 0.. below this were acknowledged.
    acknowledged: u64,
    /// Of those, the ones before the last start.
    before: u64,
    /// The highest revision it was told.
    revision: i64,
}

async fn write_until_gone(
    mut client: Client,
    writer: usize,
    mut known: Known,
    count: Arc<AtomicU64>,
    aim: u64,
    enough: Arc<Notify>,
) -> Known {
    loop {
        let number = known.acknowledged;
        let Ok(answer) = client.kv.put(put(&key(writer, number), &value(writer, number))).await else {
            return known;
        };
        let revision = answer.into_inner().header.expect("a header").revision;
        assert!(revision > known.revision, "revisions rise");
        known.revision = revision;
        known.acknowledged += 1;
        if count.fetch_add(1, Ordering::Relaxed) + 1 == aim {
            enough.notify_one();
        }
    }
}

/// Compares one writer's keys from `from` on with what must be there; how many there are in all.
async fn compare(client: &mut Client, writer: usize, from: u64) -> u64 {
    let end = format!("writer{writer:02}0");
    let mut number = from;
    loop {
        let request = pb::RangeRequest {
            key: bytes(&key(writer, number)),
            range_end: bytes(&end),
            limit: PAGE_KEYS,
            ..Default::default()
        };
        let page = client.range(request).await;
        for kv in &page.kvs {
            assert_eq!((text(&kv.key), text(&kv.value)), (key(writer, number), value(writer, number)));
            number += 1;
        }
        if !page.more {
            return number;
        }
    }
}

async fn check(client: &mut Client, cycle: u64, writer: usize, known: Known, from: u64) {
    let there = compare(client, writer, from).await;
    let expected = known.acknowledged;
    // each writer has one put at a time out: that one may have been written without being acknowledged
    assert!(
        there == expected || there == expected + 1,
        "cycle {cycle}: writer {writer} had {expected} puts acknowledged, {there} are there"
    );
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let cycles = setting("COFFER_KILL_CYCLES", 6);
    let total = kill_again_and_again(cycles, &[]).0;
    println!("kill -9: {cycles} cycles, {total} puts acknowledged, all there");
}

#[test]
fn what_was_acknowledged_survives_kill_9_while_checkpoints_are_written_and_the_log_is_recycled() {
    let cycles = setting("COFFER_KILL_CYCLES", 6).div_ceil(2);
    let flags = ["--snapshot-count=100", "--dirty-bytes=1048576", "--wal-segment-bytes-max=4194304"];
    let (total, replayed) = kill_again_and_again(cycles, &flags);
    println!(
        "kill -9 beside checkpoints: {cycles} cycles, {total} puts acknowledged, all there; {replayed} entries replayed"
    );
    // every start but the first replays what came after the last checkpoint, not the whole log
    assert!(replayed < total / 2, "{replayed} entries were replayed");
}

/// So many lives, each ended by kill -9 under load after at least as many acknowledged puts as `COFFER_KILL_PUTS` says;
/// then all is compared, and the directory is looked through. Gives the puts acknowledged and the entries replayed in all.
fn kill_again_and_again(cycles: u64, flags: &[&str]) -> (u64, u64) {
    let aim = setting("COFFER_KILL_PUTS", 3_000);
    let temporary = tempfile::tempdir().unwrap();
    let mut replayed = 0;
    let mut known = [Known::default(); WRITERS];
    for cycle in 0..=cycles {
        let last = cycle == cycles;
        // every other life writes the log with plain system calls
        let io = if cycle % 2 == 0 { "--wal-io=auto" } else { "--wal-io=sync" };
        // nothing is compacted: the long run's million puts are more than the default quota holds
        let common = ["--serving-threads=2", "--quota-backend-bytes=8589934592", io];
        let all: Vec<&str> = common.iter().chain(flags).copied().collect();
        let process = Process::start(temporary.path(), &all);
        replayed += process.entries_replayed;
        let endpoint = process.endpoint.clone();
        run(async {
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                clients.push(Client::connect(&endpoint).await);
            }
            let highest = known.iter().map(|known| known.revision).max().unwrap_or(0);
            let current = clients[0].range(crate::support::range("none", "")).await;
            let current = current.header.expect("a header").revision;
            assert!(current >= highest, "cycle {cycle}: revision {highest} was told, now it is {current}");
            for (writer, known) in known.iter_mut().enumerate() {
                let from = if last { 0 } else { known.before };
                check(&mut clients[0], cycle, writer, *known, from).await;
                known.before = known.acknowledged;
            }
            if last {
                let killed = tokio::task::spawn_blocking(|| process.end(SIGKILL)).await.unwrap();
                assert_eq!(killed, Some(SIGKILL));
                return;
            }
            let (count, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
            let writers: Vec<_> = known
                .iter()
                .enumerate()
                .map(|(writer, known)| {
                    let client = clients[writer % CONNECTIONS].clone();
                    tokio::spawn(write_until_gone(
                        client,
                        writer,
                        *known,
                        Arc::clone(&count),
                        aim,
                        Arc::clone(&enough),
                    ))
                })
                .collect();
            enough.notified().await;
            assert_eq!(tokio::task::spawn_blocking(|| process.end(SIGKILL)).await.unwrap(), Some(SIGKILL));
            for (writer, task) in writers.into_iter().enumerate() {
                known[writer] = task.await.unwrap();
            }
        });
    }
    let total: u64 = known.iter().map(|known| known.acknowledged).sum();
    assert!(total >= cycles * aim);
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["check", "default.coffer"])
        .current_dir(temporary.path())
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    (total, replayed)
}
