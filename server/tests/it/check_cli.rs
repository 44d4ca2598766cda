//! The sub-commands of the real binary: save, status, restore, check.

use crate::binary::{Process, SIGKILL};
use crate::support::{Client, range, run};
use coffer_server::proto::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SIGTERM: i32 = 15;
const PEER: &str = "--initial-advertise-peer-urls=http://127.0.0.1:12380";
const CLUSTER: &str = "--initial-cluster=m1=http://127.0.0.1:12380";
const NAMED: [&str; 4] = ["--name=m1", PEER, CLUSTER, "--initial-cluster-token=t"];

fn coffer(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer"))
        .current_dir(directory)
        .env_clear()
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// Exit code, standard output, standard error.
pub(crate) fn told(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = coffer(directory, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it exits"), text(&output.stdout), text(&output.stderr))
}

fn started(directory: &Path, data: &str) -> Process {
    let data = format!("--data-dir={data}");
    let flags: Vec<&str> = NAMED.iter().copied().chain([data.as_str()]).collect();
    Process::start(directory, &flags)
}

async fn fill(client: &mut Client) {
    for number in 0..300 {
        client.put(&format!("k{number:03}"), &format!("{number}").repeat(20)).await;
    }
    client.put("large", &"x".repeat(50_000)).await;
    client.delete("k005").await;
    client.put("k006", "again").await;
}

async fn hash_kv(client: &mut Client, revision: i64) -> pb::HashKvResponse {
    client.maintenance.hash_kv(pb::HashKvRequest { revision }).await.unwrap().into_inner()
}

async fn contents(client: &mut Client) -> Vec<(String, String, i64, i64)> {
    let response = client.range(range("\0", "\0")).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    response.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value), kv.mod_revision, kv.version)).collect()
}

/// Every file below a directory with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// The offset of a page of a tree in the page file at `path`: the last whole leaf.
fn a_leaf(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let is_leaf = |page: &[u8]| {
        page[4] == 5 && crc32fast(&page[4..]) == u32::from_le_bytes([page[0], page[1], page[2], page[3]])
    };
    let place = bytes.chunks_exact(4096).rposition(is_leaf).expect("a leaf");
    place as u64 * 4096
}

/// CRC-32, slow and plain.
fn crc32fast(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn a_backup_is_saved_looked_at_restored_and_served() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let process = started(directory, "old");
    let address = process.endpoint.strip_prefix("http://").unwrap().to_owned();
    let (revision, hash, old) = run(async {
        let mut client = Client::connect(&process.endpoint).await;
        client.lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 7 }).await.unwrap();
        fill(&mut client).await;
        let revision = client.put("last", "one").await;
        let hash = hash_kv(&mut client, revision).await.hash;
        (revision, hash, contents(&mut client).await)
    });
    let (code, out, err) = told(directory, &["snapshot", "save", "backup.db", "--endpoints", &address]);
    assert_eq!((code, out.as_str()), (0, "Snapshot saved at backup.db\nServer version 3.7.0\n"), "{err}");
    run(async {
        let mut client = Client::connect(&process.endpoint).await;
        client.put("after", "the backup").await;
    });
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));

    let (code, out, err) = told(directory, &["snapshot", "status", "backup.db", "-w", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&status["hash"], &status["revision"]), (&hash.into(), &revision.into()));
    assert_eq!((&status["totalKey"], &status["version"]), (&old.len().into(), &"3.7.0".into()));
    let size = std::fs::metadata(directory.join("backup.db")).unwrap().len();
    assert_eq!(status["totalSize"], size - 32);

    let flags = ["snapshot", "restore", "backup.db", "--data-dir", "new"];
    let flags: Vec<&str> = flags.into_iter().chain(NAMED).collect();
    let (code, out, err) = told(directory, &flags);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("restored snapshot"), "{err}");
    let (code, out, _) = told(directory, &["check", "new"]);
    assert_eq!(code, 0, "{out}");
    // twice: what is restored is there after a restart, too
    for _ in 0..2 {
        let process = started(directory, "new");
        run(async {
            let mut client = Client::connect(&process.endpoint).await;
            assert_eq!(hash_kv(&mut client, revision).await.hash, hash);
            assert_eq!(contents(&mut client).await, old);
            let leases = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
            assert_eq!(leases.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [7]);
            let list = client.cluster.member_list(pb::MemberListRequest { linearizable: true }).await;
            let list = list.unwrap().into_inner();
            assert_eq!(list.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["m1"]);
        });
        assert_eq!(process.end(SIGKILL), Some(SIGKILL));
    }
    let process = started(directory, "new");
    run(async {
        let mut client = Client::connect(&process.endpoint).await;
        assert_eq!(client.put("new", "life").await, revision + 1);
    });
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));
}

#[test]
fn a_bumped_revision_compacts_all_before_it() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let revision = save_one(directory);
    let flags =
        ["snapshot", "restore", "backup.db", "--data-dir=new", "--bump-revision=1000", "--mark-compacted"];
    let flags: Vec<&str> = flags.into_iter().chain(NAMED).collect();
    let (code, _, err) = told(directory, &flags);
    assert_eq!(code, 0, "{err}");
    let process = started(directory, "new");
    run(async {
        let mut client = Client::connect(&process.endpoint).await;
        let response = client.range(range("k006", "")).await;
        assert_eq!(response.header.unwrap().revision, revision + 1000);
        assert_eq!(response.kvs[0].value, "again");
        let old = pb::RangeRequest { revision: revision + 999, ..range("k006", "") };
        let refused = client.kv.range(old).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(client.put("k006", "and again").await, revision + 1001);
    });
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));
    let (code, out, _) = told(directory, &["check", "new"]);
    assert_eq!(code, 0, "{out}");
}

/// Saves a backup.db of a filled store; its revision. The store's directory is "old".
fn save_one(directory: &Path) -> i64 {
    let process = started(directory, "old");
    let revision = run(async {
        let mut client = Client::connect(&process.endpoint).await;
        fill(&mut client).await;
        client.put("last", "one").await
    });
    let address = process.endpoint.strip_prefix("http://").unwrap();
    let (code, _, err) = told(directory, &["snapshot", "save", "backup.db", "--endpoints", address]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(process.end(SIGKILL), Some(SIGKILL));
    revision
}

#[test]
fn what_cannot_be_restored_is_refused_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    save_one(directory);
    let bytes = std::fs::read(directory.join("backup.db")).unwrap();
    let restore = |file: &str, more: &[&str]| {
        let flags = ["snapshot", "restore", file, "--data-dir", "new"];
        let (code, out, err) = told(directory, &[&flags[..], &NAMED[..], more].concat());
        assert_eq!(out, "");
        assert!(!directory.join("new").exists() && !directory.join("new.restoring").exists(), "{err}");
        let error = err.lines().find(|line| line.starts_with("Error: ")).unwrap_or_default().to_owned();
        (code, error)
    };
    let refused = |file: &str, more: &[&str], code: i32, says: &str| {
        let (found, error) = restore(file, more);
        assert!(found == code && error.contains(says), "{file} {more:?}: {found}, {error}");
    };
    let variant = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();

    let mut flipped = bytes.clone();
    flipped[bytes.len() - 5000] ^= 1;
    variant("flipped", &flipped);
    refused("flipped", &[], 1, "expected sha256 [");
    refused("flipped", &["--skip-hash-check"], 1, "corrupt: file flipped, offset");
    let mut sum = bytes.clone();
    sum[bytes.len() - 1] ^= 1;
    variant("sum", &sum);
    refused("sum", &[], 1, "expected sha256 [");
    variant("no sum", &bytes[..bytes.len() - 32]);
    refused("no sum", &[], 1, "snapshot missing hash but --skip-hash-check=false");
    for left in [0, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        variant("cut", &bytes[..left]);
        let (code, error) = restore("cut", &["--skip-hash-check"]);
        assert!(code == 1 && error.len() > 10, "{left}: {code}, {error}");
    }
    variant("text", &b"no image at all".repeat(1000));
    refused("text", &[], 1, "no image of coffer");
    refused("absent", &[], 1, "No such file");
    refused("backup.db", &["--bump-revision=5"], 128, "--mark-compacted required if --revision-bump > 0");
    refused("backup.db", &["--mark-compacted"], 128, "--mark-compacted required if --revision-bump > 0");
    refused("backup.db", &["--bump-revision=x"], 1, "strconv.ParseUint: parsing \"x\": invalid syntax");
    refused(
        "backup.db",
        &["--name=m2"],
        1,
        "couldn't find local name \"m2\" in the initial cluster configuration",
    );
    refused(
        "backup.db",
        &["--initial-advertise-peer-urls=foo"],
        1,
        "URL scheme must be http, https, unix, or unixs: foo",
    );
    refused("backup.db", &["--foo"], 1, "unknown flag: --foo");
    refused("backup.db", &["more"], 128, "snapshot restore requires exactly one argument");
    for by in ["4611686018427387904", "4611686018427387000", "9223372036854775807"] {
        let bump = format!("--bump-revision={by}");
        refused(
            "backup.db",
            &[&bump, "--mark-compacted"],
            128,
            "a bump may lead to 2305843009213693952 at most",
        );
    }
    let inside = "--wal-dir inside --data-dir";
    refused("backup.db", &["--wal-dir=new/log"], 1, inside);
    refused("backup.db", &["--wal-dir=./x/../new/"], 1, "find ./x/../new/: ");
    refused("backup.db", &["--data-dir=./v/data/", "--wal-dir=v//"], 1, "--data-dir inside --wal-dir");
    std::fs::create_dir(directory.join("v")).unwrap();
    refused("backup.db", &["--data-dir=v/data", "--wal-dir=v"], 1, "--data-dir inside --wal-dir");
    refused("backup.db", &["--data-dir=v/../v", "--wal-dir=v/log"], 1, inside);
    assert_eq!(std::fs::read_dir(directory.join("v")).unwrap().count(), 0);

    std::fs::create_dir(directory.join("taken")).unwrap();
    std::fs::write(directory.join("taken/file"), "mine").unwrap();
    let taken = [&["snapshot", "restore", "backup.db", "--data-dir", "taken"][..], &NAMED[..]].concat();
    let (code, _, err) = told(directory, &taken);
    assert_eq!((code, err.as_str()), (1, "Error: data-dir \"taken\" not empty or could not be read\n"));
    assert_eq!(files(&directory.join("taken")).len(), 1);
    let wal = [&taken[..4], &["free", "--wal-dir=taken"][..], &NAMED[..]].concat();
    let (code, _, err) = told(directory, &wal);
    assert_eq!((code, err.as_str()), (1, "Error: wal-dir \"taken\" exists\n"));
    // without its checksum, when that is asked for, and into an empty directory
    std::fs::create_dir(directory.join("empty")).unwrap();
    let flags = [&["snapshot", "restore", "no sum", "--skip-hash-check", "--data-dir=empty"][..], &NAMED[..]]
        .concat();
    let (code, _, err) = told(directory, &flags);
    assert_eq!(code, 0, "{err}");
    let process = started(directory, "empty");
    run(async {
        assert_eq!(Client::connect(&process.endpoint).await.get("last").await.as_deref(), Some("one"))
    });
}

#[test]
fn a_log_may_be_restored_to_a_place_of_its_own_however_that_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    save_one(directory);
    std::fs::create_dir(directory.join("empty")).unwrap();
    std::os::unix::fs::symlink("empty", directory.join("link")).unwrap();
    for (data, wal, made) in [
        ("new/data/", "./logs//of/m1///", ["new/data", "logs/of/m1"]),
        ("link/", "link2/../logs/m2/.", ["empty", "logs/m2"]),
    ] {
        std::fs::create_dir_all(directory.join("link2")).unwrap();
        let flags = [format!("--data-dir={data}"), format!("--wal-dir={wal}")];
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(NAMED).collect();
        let restore = [&["snapshot", "restore", "backup.db"], &flags[..]].concat();
        let (code, _, err) = told(directory, &restore);
        assert_eq!(code, 0, "{err}");
        assert!(directory.join(made[0]).join("pages").exists());
        assert!(directory.join(made[1]).join("0000000000000001.wal").exists());
        let (code, out, err) = told(directory, &["check", data, flags[1]]);
        assert_eq!(code, 0, "{out}{err}");
        let process = Process::start(directory, &flags);
        run(async {
            let mut client = Client::connect(&process.endpoint).await;
            assert_eq!(client.get("last").await.as_deref(), Some("one"));
        });
        process.end(SIGTERM);
    }
    let left = files(directory).into_keys().filter(|file| file.to_string_lossy().contains("restoring"));
    assert_eq!(left.count(), 0);
}

#[test]
fn status_tells_of_a_small_store_too() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let process = started(directory, "data");
    let address = process.endpoint.strip_prefix("http://").unwrap().to_owned();
    for key in ["", "one"] {
        if !key.is_empty() {
            run(async { Client::connect(&process.endpoint).await.put(key, "value").await });
        }
        assert_eq!(told(directory, &["snapshot", "save", "backup.db", "--endpoints", &address]).0, 0);
        let (code, out, err) = told(directory, &["snapshot", "status", "backup.db", "-w", "fields"]);
        assert_eq!(code, 0, "{err}");
        let revision = if key.is_empty() { 1 } else { 2 };
        assert!(out.contains(&format!("\"Revision\" : {revision}\n\"Keys\" : {}\n", revision - 1)), "{out}");
    }
}

#[test]
fn status_refuses_what_is_not_whole() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    save_one(directory);
    let status = |arguments: &[&str]| {
        let (code, out, err) = told(directory, &[&["snapshot", "status"], arguments].concat());
        assert_eq!(out.is_empty(), code != 0, "{out}");
        (code, err)
    };
    assert_eq!(status(&["backup.db", "-wtable"]).0, 0);
    assert_eq!(status(&[]), (128, "Error: snapshot status requires exactly one argument\n".to_owned()));
    assert_eq!(status(&["nope"]), (1, "Error: stat nope: no such file or directory\n".to_owned()));
    let protobuf = status(&["backup.db", "-w", "protobuf"]);
    assert_eq!(protobuf, (4, "Error: protobuf not supported as output format\n".to_owned()));
    let whole = std::fs::read(directory.join("backup.db")).unwrap();
    std::fs::write(directory.join("no sum"), &whole[..whole.len() - 32]).unwrap();
    let (code, err) = status(&["no sum"]);
    assert!(code == 0 && err.starts_with("no sum has no SHA-256 at its end"), "{err}");
    let sum = whole.len() as u64 - 1;
    flip(&directory.join("backup.db"), sum);
    let (code, err) = status(&["backup.db"]);
    assert!(code == 1 && err.starts_with("Error: expected sha256 ["), "{err}");
    flip(&directory.join("backup.db"), sum);
    flip(&directory.join("backup.db"), 4096 * 5 + 77);
    let (code, err) = status(&["backup.db"]);
    assert!(code == 1 && err.starts_with("Error: corrupt: file backup.db, offset 20480"), "{err}");
}

#[test]
fn save_leaves_no_file_when_nobody_answers() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let (code, out, err) = told(directory, &["snapshot", "save", "backup.db", "--endpoints=127.0.0.1:1"]);
    assert_eq!((code, out.as_str()), (5, ""), "{err}");
    let (code, _, err) = told(directory, &["snapshot", "save"]);
    assert_eq!((code, err.as_str()), (128, "Error: snapshot save expects one argument <filename>\n"));
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn a_check_finds_nothing_on_whole_data_and_changes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    for (round, signal) in [SIGTERM, SIGKILL, SIGKILL].into_iter().enumerate() {
        let process = started(directory, "data");
        run(async {
            let mut client = Client::connect(&process.endpoint).await;
            fill(&mut client).await;
            if round == 1 {
                client.compact(200).await.unwrap();
            }
        });
        if round == 0 {
            let (code, out, err) = told(directory, &["check", "data"]);
            assert_eq!((code, out.as_str()), (2, ""));
            assert!(err.contains("in use by another process"), "{err}");
        }
        process.end(signal);
        let before = files(&directory.join("data"));
        let (code, out, err) = told(directory, &["check", "data"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.ends_with("no damage found\n"), "{out}");
        assert!(before == files(&directory.join("data")), "round {round}");
    }
}

#[test]
fn a_check_tells_file_and_offset_of_damage() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let process = started(directory, "data");
    run(async { fill(&mut Client::connect(&process.endpoint).await).await });
    // a snapshot begins with a checkpoint: now there are pages
    let address = process.endpoint.strip_prefix("http://").unwrap().to_owned();
    assert_eq!(told(directory, &["snapshot", "save", "backup.db", "--endpoints", &address]).0, 0);
    process.end(SIGTERM);
    let data = directory.join("data");
    let damaged = |path: &Path, offset: u64, says: &[String]| {
        flip(path, offset);
        let (code, out, err) = told(directory, &["check", "data"]);
        flip(path, offset);
        assert_eq!(code, 1, "{out}{err}");
        let line = out.lines().find(|line| line.starts_with("damage: ")).unwrap_or_default();
        assert!(says.iter().all(|says| line.contains(says)), "{out}");
    };
    let pages = data.join("pages");
    let leaf = a_leaf(&pages);
    damaged(&pages, leaf + 2000, &["file data/pages".to_owned(), format!("offset {leaf}")]);
    // the first batch of the first segment of the log
    let segment = files(&data.join("wal")).into_keys().next().unwrap();
    damaged(&segment, 4096 + 200, &["file data/wal/".to_owned(), "offset 4".to_owned()]);
    let (code, out, _) = told(directory, &["check", "data"]);
    assert_eq!(code, 0, "{out}");

    // a log that lost its page file, and the reverse
    std::fs::rename(&pages, directory.join("aside")).unwrap();
    let (code, out, err) = told(directory, &["check", "data"]);
    assert_eq!(code, 1, "{out}{err}");
    std::fs::rename(directory.join("aside"), &pages).unwrap();
    std::fs::rename(data.join("wal"), directory.join("aside")).unwrap();
    let (code, out, err) = told(directory, &["check", "data"]);
    assert_eq!(code, 1, "{out}{err}");
}

#[test]
fn what_cannot_be_checked_is_told_apart_from_damage() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    std::fs::create_dir(directory.join("empty")).unwrap();
    for arguments in [
        &["check"][..],
        &["check", "absent"],
        &["check", "empty"],
        &["check", "a", "b"],
        &["check", "empty", "--bogus"],
        &["check", "empty", "--wal-dir"],
    ] {
        let (code, out, err) = told(directory, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("Error: "), "{err}");
    }
}

#[test]
fn a_log_whose_only_header_is_damaged_is_checked_as_the_page_files() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let process = started(directory, "data");
    run(async { Client::connect(&process.endpoint).await.put("k", "v").await });
    process.end(SIGKILL);
    let data = directory.join("data");
    let (code, out, err) = told(directory, &["check", "data"]);
    assert!(code == 0 && out.contains("entry 0 of term 0"), "the page file has nothing yet: {out}{err}");
    let segment = files(&data.join("wal")).into_keys().next().unwrap();
    let damaged = |says: &str| {
        let (code, out, err) = told(directory, &["check", "data"]);
        let told = out.lines().any(|line| line.starts_with("damage: ") && line.contains(says));
        assert!(code == 1 && told, "{out}{err}");
    };
    flip(&segment, 20);
    damaged("0000000000000001.wal, offset 0: expected ");
    // without a page file nobody says whose log it is
    std::fs::rename(data.join("pages"), directory.join("pages")).unwrap();
    damaged("data/wal: none of its headers can be read");
    std::fs::rename(directory.join("pages"), data.join("pages")).unwrap();
    flip(&segment, 20);

    // a page file that holds nothing does not miss the log
    std::fs::rename(data.join("wal"), directory.join("elsewhere")).unwrap();
    for arguments in [&["check", "data"][..], &["check", "data", "--wal-dir=absent"]] {
        let (code, out, err) = told(directory, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("there is no log in ") && err.contains("--wal-dir names the place"), "{err}");
    }
    let (code, out, err) = told(directory, &["check", "data", "--wal-dir=elsewhere"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_check_keeps_members_out_of_a_log_that_lies_elsewhere_too() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    for wal in ["log", "data", "data/wal"] {
        let flags = format!("--wal-dir={wal}");
        let process = Process::start(directory, &["--data-dir=data", &flags]);
        run(async { Client::connect(&process.endpoint).await.put("k", "v").await });
        process.end(SIGTERM);
        let check = ["check", "data", &format!("--wal-dir=./{wal}")];
        let (code, out, err) = told(directory, &check);
        assert_eq!(code, 0, "{wal}: {out}{err}");
        let lock = std::fs::File::open(directory.join(wal).join("lock")).unwrap();
        lock.lock().unwrap();
        let (code, out, err) = told(directory, &check);
        assert_eq!((code, out.as_str()), (2, ""), "{wal}: {err}");
        assert!(err.contains("in use by another process"), "{err}");
        drop(lock);
        std::fs::remove_file(directory.join(wal).join("lock")).unwrap();
        let (code, out, err) = told(directory, &check);
        assert_eq!(code, 0, "{wal}, without a lock file: {out}{err}");
        std::fs::remove_dir_all(directory.join("data")).unwrap();
    }
}
