//! What is there after a stop, and after a crash.

use crate::support::{TestMember, put, range, run};
use coffer_server::member::StartError;
use coffer_server::proto::etcdserverpb as pb;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[test]
fn everything_is_there_after_a_restart() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        client.lease.lease_grant(pb::LeaseGrantRequest { id: 9, ttl: 1000 }).await.unwrap();
        client.kv.put(pb::PutRequest { lease: 9, ..put("leased", "v") }).await.unwrap();
        for number in 0..100 {
            client.put(&format!("k{number}"), "v").await;
        }
        client.compact(50).await.unwrap();
    });
    for _ in 0..3 {
        member.restart();
        run(async {
            let mut client = member.client().await;
            let all = client.range(range("\0", "\0")).await;
            assert_eq!((all.count, all.header.unwrap().revision), (101, 102), "no revision lost or added");
            let told =
                client.lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 9, keys: true }).await;
            let told = told.unwrap().into_inner();
            assert_eq!((told.granted_ttl, told.keys.len()), (1000, 1));
            let old = pb::RangeRequest { revision: 49, ..range("k1", "") };
            assert!(client.kv.range(old).await.is_err(), "the compaction, too");
        });
    }
    member.stop();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_is_in_a_copy_of_the_directory_taken_while_it_runs() {
    let mut member = TestMember::start(&[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let crashed = elsewhere.path().join("data");
    run(async {
        let mut client = member.client().await;
        for number in 0..200 {
            client.put(&format!("k{number}"), &number.to_string()).await;
        }
    });
    copy(member.directory(), &crashed);
    member.stop();
    let mut other = TestMember::start_on(&crashed, &[]).unwrap();
    run(async {
        let mut client = other.client().await;
        for number in 0..200 {
            assert_eq!(client.get(&format!("k{number}")).await, Some(number.to_string()));
        }
        assert_eq!(client.put("more", "v").await, 202);
    });
    other.stop();
}

#[test]
fn a_member_that_starts_again_is_who_its_log_says_whatever_its_flags_say_now() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    let mut ids = Vec::new();
    for flags in
        [["--name=one", "--initial-cluster-token=first"], ["--name=two", "--initial-cluster-token=second"]]
    {
        let mut member = TestMember::start_on(&directory, &flags).expect("the member starts");
        run(async {
            let mut client = member.client().await;
            client.put(flags[0], "there").await;
            let header = client.range(range("--name=one", "")).await;
            assert_eq!(header.count, 1);
            let header = header.header.unwrap();
            ids.push((header.cluster_id, header.member_id));
        });
        member.stop();
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn flags_of_a_first_start_that_do_not_fit_stop_a_first_start_only() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    let cluster = "--initial-cluster=a=http://127.0.0.1:1";
    let url = "--initial-advertise-peer-urls=http://127.0.0.1:1";
    let other_url = "--initial-advertise-peer-urls=http://127.0.0.1:2";
    let changed = [
        (["--name=b", url, cluster], "couldn't find local name \"b\" in the initial cluster configuration"),
        (["--name=a", other_url, cluster], "missing from --initial-advertise-peer-urls=http://127.0.0.1:2"),
        (["--name=a", url, "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2"], "names 2 members"),
        (["--name=a", url, "--initial-cluster=a"], "error setting up initial cluster"),
        (["--name=a", url, "--initial-cluster-state=existing"], "joining a cluster is not supported"),
    ];
    for (flags, says) in &changed {
        let error = TestMember::start_on(&directory, flags).err().expect("there are no data");
        assert!(matches!(&error, StartError::FirstStart(text) if text.contains(says)), "{error}");
    }
    let mut ids = Vec::new();
    for flags in [["--name=a", url, cluster]].iter().chain(changed.iter().map(|(flags, _)| flags)) {
        let mut member = TestMember::start_on(&directory, flags).expect("the member starts");
        run(async {
            let mut client = member.client().await;
            client.put(&ids.len().to_string(), "there").await;
            let all = client.range(range("\0", "\0")).await;
            assert_eq!(all.count, ids.len() as i64 + 1, "{flags:?}");
            let header = all.header.unwrap();
            let members = client.cluster.member_list(pb::MemberListRequest { linearizable: true }).await;
            let members = members.unwrap().into_inner().members;
            assert_eq!(members.len(), 1, "{flags:?}");
            assert_eq!(format!("--name={}", members[0].name), flags[0]);
            assert_eq!(members[0].peer_ur_ls, ["http://127.0.0.1:1"], "{flags:?}");
            ids.push((header.cluster_id, header.member_id, members[0].id));
        });
        member.stop();
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_directory_is_one_members_own() {
    let mut member = TestMember::start(&[]);
    let second = TestMember::start_on(member.directory(), &[]);
    let error = second.err().expect("the second one is refused");
    assert!(matches!(error, StartError::Directory(_)));
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let mode = fs::metadata(member.directory()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    run(async { assert_eq!(member.client().await.put("k", "v").await, 2) });
    member.stop();
}

#[test]
fn etcds_own_data_are_refused_and_not_touched() {
    let temporary = tempfile::tempdir().unwrap();
    fs::create_dir_all(temporary.path().join("member/wal")).unwrap();
    fs::write(temporary.path().join("member/wal/0.wal"), "etcd's").unwrap();
    let error = TestMember::start_on(temporary.path(), &[]).err().expect("it is refused");
    assert!(error.to_string().contains("etcd"), "{error}");
    let names: Vec<_> =
        fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["member"], "nothing was made beside it");
    assert_eq!(fs::read_to_string(temporary.path().join("member/wal/0.wal")).unwrap(), "etcd's");
}

#[test]
fn a_taken_port_is_told_and_leaves_the_directory_usable() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--listen-client-urls=http://{}", taken.local_addr().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    let error = TestMember::start_on(&directory, &[&url]).err().expect("it is refused");
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    TestMember::start_on(&directory, &[]).unwrap().stop();
}

#[test]
fn a_stop_does_not_wait_for_streams_that_wait_for_their_clients() {
    let mut member = TestMember::start(&["--shutdown-timeout=1h"]);
    run(async {
        let mut client = member.client().await;
        let silent = futures_util::stream::pending::<pb::LeaseKeepAliveRequest>();
        let mut replies = client.lease.lease_keep_alive(silent).await.unwrap().into_inner();
        let stopping = tokio::task::spawn_blocking(move || member.stop());
        let status = crate::support::soon(replies.message()).await.unwrap_err();
        assert_eq!(status.message(), "etcdserver: server stopped");
        crate::support::soon(stopping).await.unwrap();
    });
}
