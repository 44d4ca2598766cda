//! Status, members, health.

use crate::damage::metric;
use crate::support::{TestMember, bytes, put, range, refusal, run, soon};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::health;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Request};

#[test]
fn status_tells_an_etcd_of_the_version_matched() {
    let mut member = TestMember::start(&["--name=one"]);
    run(async {
        let mut client = member.client().await;
        client.put("k", "v").await;
        let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.version, "3.7.3");
        assert_eq!(status.storage_version, "3.7.0");
        let header = status.header.unwrap();
        assert_eq!(header.revision, 2);
        assert_eq!(status.leader, header.member_id);
        assert_eq!(status.raft_term, header.raft_term);
        assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0);
        assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0);
        assert_eq!(status.db_size_quota, 2 * 1024 * 1024 * 1024);
        assert!(status.errors.is_empty() && !status.is_learner);
    });
    member.stop();
}

#[test]
fn the_member_is_listed_with_its_name_and_urls() {
    let mut member = TestMember::start(&["--name=one", "--initial-cluster=one=http://localhost:2380"]);
    run(async {
        let mut client = member.client().await;
        let request = pb::MemberListRequest { linearizable: true };
        let list = client.cluster.member_list(request).await.unwrap().into_inner();
        let header = list.header.unwrap();
        assert_eq!(header.revision, 0, "the cluster's answers have no revision");
        assert_eq!(format!("{:x}", header.cluster_id), "cdf818194e3a8c32", "etcd's own id for these flags");
        let [one] = &list.members[..] else { panic!("one member") };
        assert_eq!(format!("{:x}", one.id), "8e9e05c52164694d");
        assert_eq!(one.name, "one");
        assert_eq!(one.peer_ur_ls, ["http://localhost:2380"]);
        assert_eq!(one.client_ur_ls, ["http://127.0.0.1:0"]);
        assert!(!one.is_learner);
    });
    member.stop();
}

#[test]
fn health_is_known_for_the_server_as_a_whole() {
    let mut member = TestMember::start(&[]);
    run(async {
        let client = member.client().await;
        let mut client = health::health_client::HealthClient::new(client.channel);
        let ask = |service: &str| health::HealthCheckRequest { service: service.to_owned() };
        let serving = i32::from(health::health_check_response::ServingStatus::Serving);
        assert_eq!(client.check(ask("")).await.unwrap().into_inner().status, serving);
        assert_eq!(refusal(client.check(ask("other")).await), (Code::NotFound, "unknown service".into()));
        let mut watched = client.watch(ask("")).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap().unwrap().status, serving);
        let listed = client.list(health::HealthListRequest {}).await.unwrap().into_inner();
        assert_eq!(listed.statuses[""].status, serving);
    });
    member.stop();
}

#[test]
fn alarms_are_raised_listed_and_cleared_by_member_and_kind() {
    use pb::alarm_request::AlarmAction;
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let mut ask = async |action: AlarmAction, member_id, alarm: pb::AlarmType| {
            let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
            client.maintenance.alarm(request).await.unwrap().into_inner().alarms
        };
        assert!(ask(AlarmAction::Activate, 7, pb::AlarmType::None).await.is_empty());
        assert_eq!(ask(AlarmAction::Activate, 7, pb::AlarmType::Nospace).await.len(), 1);
        assert_eq!(ask(AlarmAction::Get, 0, pb::AlarmType::None).await.len(), 1);
        assert!(ask(AlarmAction::Deactivate, 8, pb::AlarmType::Nospace).await.is_empty());
        assert_eq!(ask(AlarmAction::Deactivate, 7, pb::AlarmType::Nospace).await.len(), 1);
        assert!(ask(AlarmAction::Get, 0, pb::AlarmType::None).await.is_empty());
    });
    member.stop();
}

#[test]
fn defragment_gives_back_what_compaction_has_freed_while_others_write() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let value = "x".repeat(1_000);
        for first in (0..8_000).step_by(100) {
            let put = |number| {
                let put = put(&format!("k{number:05}"), &value);
                pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
            };
            let success = (first..first + 100).map(put).collect();
            client.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
        }
        let all_but_a_tenth =
            pb::DeleteRangeRequest { key: bytes("k00000"), range_end: bytes("k07200"), ..Default::default() };
        let deleted = client.kv.delete_range(all_but_a_tenth).await.unwrap().into_inner();
        assert_eq!(deleted.deleted, 7_200);
        client.compact(deleted.header.unwrap().revision).await.unwrap();
        let before = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert!(before.db_size > 4 * before.db_size_in_use, "{before:?}");
        let mut writer = client.clone();
        let writing = tokio::spawn(async move {
            for number in 0..200 {
                writer.put(&format!("beside{number}"), "x").await;
            }
        });
        client.maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
        let after = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert!(after.db_size <= 2 * after.db_size_in_use, "{before:?} {after:?}");
        writing.await.unwrap();
        let left = client.range(range("k", "l")).await;
        assert_eq!((left.count, left.kvs[0].value.len()), (800, 1_000));
        // with nothing to do it is done at once
        client.maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    });
    member.stop();
}

#[test]
fn what_is_not_there_yet_says_so() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let downgrade = pb::DowngradeRequest { action: 0, version: "3.6".into() };
        assert_eq!(refusal(client.maintenance.downgrade(downgrade).await).0, Code::Unimplemented);
    });
    member.stop();
}

#[test]
fn a_defragment_that_its_client_gives_up_is_no_more_under_way() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let mut request = Request::new(pb::DefragmentRequest {});
        request.set_timeout(Duration::from_millis(2));
        client.maintenance.defragment(request).await.unwrap_err();
        soon(async {
            while metric(&member.endpoint, "etcd_disk_defrag_inflight") != 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    });
    member.stop();
}

#[test]
fn hashes_wait_for_a_place_as_long_as_their_deadline_says() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let whole = client.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
        let places = Arc::clone(&member.shared().hashes);
        let others = places.acquire_many(2).await.unwrap();
        let mut request = Request::new(pb::HashKvRequest { revision: 0 });
        request.set_timeout(Duration::from_millis(100));
        client.maintenance.hash_kv(request).await.unwrap_err();
        let mut waiting = client.clone();
        let waiting =
            tokio::spawn(async move { waiting.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await });
        client.put("k", "serving goes on").await;
        assert!(!waiting.is_finished());
        drop(others);
        let told = soon(waiting).await.unwrap().unwrap().into_inner();
        assert_ne!(told.hash, whole.hash, "it is of the time when it had its place");
    });
    member.stop();
}
