//! Status, members, health.

use crate::support::{TestMember, refusal, run};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::health;
use tonic::Code;

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
fn what_is_not_there_yet_says_so() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let downgrade = pb::DowngradeRequest { action: 0, version: "3.6".into() };
        assert_eq!(refusal(client.maintenance.downgrade(downgrade).await).0, Code::Unimplemented);
    });
    member.stop();
}
