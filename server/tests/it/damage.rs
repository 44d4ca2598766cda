//! The real binary over a page file that is damaged: who needs the page fails and is told where it is, nobody else does.

use crate::binary::{Process, SIGTERM, refused_start};
use crate::check_cli::told;
use crate::support::{Client, PATIENCE, bytes, range, run, soon, watch};
use coffer_server::proto::etcdserverpb as pb;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;
use tonic::{Code, Status};

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
const KEYS: usize = 1_500;
/// The key whose pages are damaged. What is written last lies elsewhere, and the first and the last key too.
const HURT: usize = 1_300;
/// A checkpoint after every few entries.
const OFTEN: &str = "--snapshot-count=2";
const NO_SCRUB: &str = "--scrub-bytes-per-second=0";
const PAGES: &str = "default.coffer/pages";

/// What is done to a page.
#[derive(Clone, Copy, Debug)]
enum Wound {
    FlippedBit,
    ZeroedSector,
}

fn key(number: usize) -> String {
    format!("key{number:05}")
}

/// Values that fill a page three at a time, each found in the file by its beginning.
fn value(number: usize) -> String {
    format!("value-{number:05}-{}", "v".repeat(1_000))
}

async fn fill(client: &mut Client) {
    for first in (0..KEYS).step_by(50) {
        let put = |number| {
            let put = pb::PutRequest {
                key: bytes(&key(number)),
                value: bytes(&value(number)),
                ..Default::default()
            };
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        };
        let success = (first..first + 50).map(put).collect();
        client.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    }
}

/// A directory that a member filled and left, all of it whole.
fn filled() -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let process = Process::start(temporary.path(), &[NO_SCRUB]);
    run(async {
        let mut client = Client::connect(&process.endpoint).await;
        fill(&mut client).await;
        // it begins with a checkpoint: all of this is in the page file then
        let image = client.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap();
        assert!(soon(image.into_inner().message()).await.unwrap().is_some());
    });
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));
    let (code, out, err) = told(temporary.path(), &["check", "default.coffer"]);
    assert_eq!(code, 0, "{out}{err}");
    temporary
}

/// Wounds every page of the file that holds the value of that key (its newest version, its history, older copies of
/// both); their offsets.
fn damage(directory: &Path, number: usize, wound: Wound) -> Vec<u64> {
    let mut whole = Vec::new();
    let file = File::options().read(true).write(true).open(directory.join(PAGES)).unwrap();
    (&file).read_to_end(&mut whole).unwrap();
    let text = format!("value-{number:05}-");
    let places: Vec<usize> =
        (0..whole.len()).filter(|&at| whole[at..].starts_with(text.as_bytes())).collect();
    assert!(!places.is_empty(), "the page file has the value");
    for &at in &places {
        match wound {
            Wound::FlippedBit => file.write_all_at(&[whole[at + 3] ^ 1], at as u64 + 3),
            Wound::ZeroedSector => {
                file.write_all_at(&[0; SECTOR_BYTES], (at / SECTOR_BYTES * SECTOR_BYTES) as u64)
            }
        }
        .unwrap();
    }
    file.sync_all().unwrap();
    places.iter().map(|at| (at / PAGE_BYTES * PAGE_BYTES) as u64).collect()
}

/// That the text names the page file and one of these offsets.
fn assert_names(text: &str, damaged: &[u64]) {
    let place = text.split("offset ").nth(1).unwrap_or_else(|| panic!("no offset in {text:?}"));
    let offset: u64 = place.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!(text.contains(PAGES) && damaged.contains(&offset), "{text:?}, of {damaged:?}");
}

fn assert_data_loss(status: &Status, damaged: &[u64]) {
    assert_eq!(status.code(), Code::DataLoss, "{status:?}");
    assert!(status.message().starts_with("coffer: corrupt: file "), "{status:?}");
    assert_names(status.message(), damaged);
}

fn http(endpoint: &str, path: &str) -> String {
    let address = endpoint.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn metric(endpoint: &str, name: &str) -> u64 {
    let metrics = http(endpoint, "/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

/// Everything that needs the page of [`HURT`]; how many requests that were.
async fn ask_for_what_is_damaged(client: &mut Client, damaged: &[u64]) -> u64 {
    let one = range(&key(HURT), "");
    assert_data_loss(&client.kv.range(one.clone()).await.unwrap_err(), damaged);
    let serializable = pb::RangeRequest { serializable: true, ..one.clone() };
    assert_data_loss(&client.kv.range(serializable).await.unwrap_err(), damaged);
    let many = range(&key(HURT - 50), &key(HURT + 50));
    assert_data_loss(&client.kv.range(many).await.unwrap_err(), damaged);
    let read = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(one)) };
    let txn = pb::TxnRequest { success: vec![read], ..Default::default() };
    assert_data_loss(&client.txn(txn).await.unwrap_err(), damaged);
    let hash = client.maintenance.hash_kv(pb::HashKvRequest::default()).await;
    assert_data_loss(&hash.unwrap_err(), damaged);
    // a watcher whose history lies there; one that waits for what comes is not asked
    let mut live = client.watcher().await;
    live.create(watch(&key(HURT), "")).await;
    let mut past = client.watcher().await;
    past.ask(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
        start_revision: 1,
        ..watch(&key(0), "z")
    }))
    .await;
    assert_data_loss(&past.end().await, damaged);
    let mut stream = client.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let mut left = u64::MAX;
    let status = loop {
        match soon(stream.message()).await {
            Ok(Some(message)) => left = message.remaining_bytes,
            Ok(None) => panic!("the image came to its end"),
            Err(status) => break status,
        }
    };
    assert!(left > 0, "what was sent is no whole image");
    assert_data_loss(&status, damaged);
    7
}

async fn ask_for_the_rest(client: &mut Client) {
    for number in (0..KEYS).step_by(97).filter(|number| number.abs_diff(HURT) > 5) {
        assert_eq!(client.get(&key(number)).await, Some(value(number)));
    }
    let count = pb::RangeRequest { count_only: true, ..range(&key(0), "z") };
    assert_eq!(client.range(count).await.count, KEYS as i64);
    // and is written
    client.put(&key(0), "again").await;
    assert_eq!(client.get(&key(0)).await.as_deref(), Some("again"));
    client.put(&key(0), &value(0)).await;
}

#[test]
fn a_damaged_page_fails_what_needs_it_with_its_place_and_nothing_else() {
    for wound in [Wound::FlippedBit, Wound::ZeroedSector] {
        let temporary = filled();
        let directory = temporary.path();
        let damaged = damage(directory, HURT, wound);
        let mut process = Process::start(directory, &[OFTEN, NO_SCRUB]);
        let endpoint = process.endpoint.clone();
        let address = endpoint.strip_prefix("http://").unwrap();
        run(async {
            let mut client = Client::connect(&endpoint).await;
            assert!(http(&endpoint, "/health").starts_with("HTTP/1.1 200"), "nobody has met it yet");
            assert_eq!(metric(&endpoint, "coffer_read_faults_total"), 0);
            ask_for_the_rest(&mut client).await;
            assert!(http(&endpoint, "/readyz").starts_with("HTTP/1.1 200"), "still nobody");

            let met = ask_for_what_is_damaged(&mut client, &damaged).await;
            ask_for_the_rest(&mut client).await;
            assert_eq!(metric(&endpoint, "coffer_read_faults_total"), met);

            let health = http(&endpoint, "/health");
            assert!(health.starts_with("HTTP/1.1 503") && health.contains("\"READ FAULT:corrupt: file"));
            assert_names(&health, &damaged);
            assert!(http(&endpoint, "/health?exclude=CORRUPT").starts_with("HTTP/1.1 200"));
            assert!(http(&endpoint, "/livez").starts_with("HTTP/1.1 200"));
            let ready = http(&endpoint, "/readyz");
            assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("[-]data_corruption failed"));
            let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
            assert_names(&status.errors.concat(), &damaged);
        });
        assert_names(&process.wait_for("a read failed on damaged data"), &damaged);

        let (code, _, err) = told(directory, &["snapshot", "save", "backup.db", "--endpoints", address]);
        assert!(code == 5 && err.contains("DataLoss"), "{code}: {err}");
        assert_names(&err, &damaged);
        assert!(!directory.join("backup.db").exists() && !directory.join("backup.db.part").exists());

        assert_eq!(process.end(SIGTERM), Some(SIGTERM), "it was never stopped by it");
        let (code, out, err) = told(directory, &["check", "default.coffer"]);
        assert_eq!(code, 1, "{out}{err}");
        let lines: Vec<&str> = out.lines().filter(|line| line.starts_with("damage: ")).collect();
        assert!(!lines.is_empty(), "{out}");
        lines.iter().for_each(|line| assert_names(line, &damaged));
    }
}

#[test]
fn a_write_that_needs_a_damaged_page_stops_the_member_which_starts_no_more() {
    let temporary = filled();
    let directory = temporary.path();
    let damaged = damage(directory, HURT, Wound::FlippedBit);
    let mut process = Process::start(directory, &[OFTEN, NO_SCRUB]);
    let mut said = run(async {
        let mut client = Client::connect(&process.endpoint).await;
        client.put("before", "acknowledged").await;
        let put = client.kv.put(crate::support::put(&key(HURT), "new"));
        soon(put).await.expect_err("nobody says that it is written");
        process.wait_for("the member cannot go on")
    });
    assert_names(&said, &damaged);
    assert_eq!(process.exit_code(), Some(1));
    // the entry is in the log, so the next one meets the page as well
    let code;
    (code, said) = refused_start(directory, &[OFTEN, NO_SCRUB]);
    assert!(code == Some(1) && !said.contains("ready to serve client requests"), "{said}");
    assert_names(&said, &damaged);
}

#[test]
fn the_scrub_finds_a_page_that_goes_bad_while_it_is_served_and_nobody_is_given_it_from_then_on() {
    let temporary = filled();
    let directory = temporary.path();
    // slow enough not to have been at the end of the file before the page goes bad (else the next round finds it)
    let mut process = Process::start(directory, &[OFTEN, "--scrub-bytes-per-second=1000000"]);
    let endpoint = process.endpoint.clone();
    let (mut client, damaged) = run(async {
        let mut client = Client::connect(&endpoint).await;
        assert_eq!(client.get(&key(HURT)).await, Some(value(HURT)), "it is whole at its first touch");
        assert_eq!(metric(&endpoint, "coffer_scrub_damaged_total"), 0);
        (client, damage(directory, HURT, Wound::FlippedBit))
    });
    let health = (0..10_000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Some(http(&endpoint, "/health")).filter(|health| health.starts_with("HTTP/1.1 503"))
    });
    assert_names(&health.expect("the scrub comes by"), &damaged);
    assert!(metric(&endpoint, "coffer_scrub_damaged_total") > 0);
    assert_eq!(metric(&endpoint, "coffer_read_faults_total"), 0, "no request met it");
    assert_names(&process.wait_for("the scrub of the page file met damage"), &damaged);
    run(async {
        client = Client::connect(&endpoint).await;
        // of the two pages the scrub may have met only the first by now
        let refused = loop {
            match client.kv.range(range(&key(HURT), "")).await {
                Err(status) => break status,
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        assert_data_loss(&refused, &damaged);
        ask_for_the_rest(&mut client).await;
    });
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));
}

#[test]
fn a_page_file_without_a_whole_meta_is_refused_by_name() {
    let temporary = filled();
    let directory = temporary.path();
    let file = File::options().write(true).open(directory.join(PAGES)).unwrap();
    let metas = 0..4;
    for page in metas {
        file.write_all_at(&[0; SECTOR_BYTES], page * PAGE_BYTES as u64).unwrap();
    }
    let (code, said) = refused_start(directory, &[]);
    assert!(code == Some(1) && said.contains("failed to start coffer"), "{said}");
    assert_names(&said, &[0, PAGE_BYTES as u64, 2 * PAGE_BYTES as u64, 3 * PAGE_BYTES as u64]);
    let (code, out, err) = told(directory, &["check", "default.coffer"]);
    assert_eq!(code, 1, "{out}{err}");
}

#[test]
fn a_page_file_cut_short_under_a_running_member_is_named() {
    let directory = filled();
    let mut process = Process::start(directory.path(), &[NO_SCRUB]);
    run(async {
        let mut client = Client::connect(&process.endpoint).await;
        // every page has been touched and is trusted from now on
        assert_eq!(client.range(range("key", "kez")).await.kvs.len(), KEYS);
        let file = File::options().write(true).open(directory.path().join(PAGES)).unwrap();
        file.set_len(0).unwrap();
        let all = client.kv.range(range("key", "kez"));
        assert!(soon(all).await.is_err(), "nobody answers from a file that is not there");
    });
    let line = process.wait_for("coffer: fault: ");
    assert!(line.contains("pages, offset ") && line.contains("SIGBUS"), "{line}");
    assert_eq!(process.exit_code(), Some(1));
}
