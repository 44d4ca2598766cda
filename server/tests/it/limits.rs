//! Room: the quota, the alarm, and what still goes through.

use crate::support::{Client, TestMember, bytes, put, range, refusal, run};
use coffer_server::proto::etcdserverpb as pb;
use tonic::Code;

fn alarm(action: pb::alarm_request::AlarmAction, member_id: u64) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), member_id, alarm: pb::AlarmType::Nospace.into() }
}

async fn fill(client: &mut Client) {
    for number in 0.. {
        let request = put(&format!("k{number:05}"), &"x".repeat(4096));
        match client.kv.put(request).await {
            Ok(_) => assert!(number < 1_000, "the quota is never met"),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
                return;
            }
        }
    }
}

#[test]
fn past_the_quota_writes_are_refused_until_room_is_made_and_the_alarm_cleared() {
    let mut member = TestMember::start(&["--quota-backend-bytes=131072"]);
    run(async {
        let mut client = member.client().await;
        client.put("small", "v").await;
        fill(&mut client).await;
        let get = alarm(pb::alarm_request::AlarmAction::Get, 0);
        let up = client.maintenance.alarm(get).await.unwrap().into_inner().alarms;
        assert_eq!(up.len(), 1);
        assert_eq!(up[0].alarm, i32::from(pb::AlarmType::Nospace));
        let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.errors, [format!("memberID:{} alarm:NOSPACE", up[0].member_id)]);
        assert_eq!(status.db_size_quota, 131_072);
        // What costs nothing goes through, and what makes room.
        let told = refusal(client.kv.put(put("tiny", "v")).await);
        assert_eq!(told.1, "etcdserver: mvcc: database space exceeded");
        let told = refusal(client.lease.lease_grant(pb::LeaseGrantRequest { id: 1, ttl: 60 }).await);
        assert_eq!(told.0, Code::ResourceExhausted);
        assert_eq!(client.get("small").await.as_deref(), Some("v"));
        let all = pb::DeleteRangeRequest { key: bytes("k"), range_end: bytes("l"), prev_kv: false };
        let revision = client.kv.delete_range(all).await.unwrap().into_inner().header.unwrap().revision;
        client.compact(revision).await.unwrap();
        client.maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
        assert_eq!(refusal(client.kv.put(put("tiny", "v")).await).0, Code::ResourceExhausted, "still up");
        let clear = alarm(pb::alarm_request::AlarmAction::Deactivate, up[0].member_id);
        let cleared = client.maintenance.alarm(clear).await.unwrap().into_inner().alarms;
        assert_eq!(cleared, up);
        client.put("tiny", "v").await;
    });
    member.stop();
}

/// Compaction has been through the data before: what is deleted then makes room all the same.
#[test]
fn deleting_and_compacting_makes_room_for_as_much_again() {
    let mut member = TestMember::start(&["--quota-backend-bytes=1048576"]);
    run(async {
        let mut client = member.client().await;
        for round in 0..3 {
            fill(&mut client).await;
            let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
            assert!(status.db_size_in_use > 900_000, "round {round}: {}", status.db_size_in_use);
            compact_now(&mut client).await;
            let all = pb::DeleteRangeRequest { key: bytes("k"), range_end: bytes("l"), prev_kv: false };
            client.kv.delete_range(all).await.unwrap();
            compact_now(&mut client).await;
            let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
            assert!(status.db_size_in_use < 200_000, "round {round}: {} are left", status.db_size_in_use);
            let get = alarm(pb::alarm_request::AlarmAction::Get, 0);
            let up = client.maintenance.alarm(get).await.unwrap().into_inner().alarms;
            let clear = alarm(pb::alarm_request::AlarmAction::Deactivate, up[0].member_id);
            client.maintenance.alarm(clear).await.unwrap();
        }
    });
    member.stop();
}

/// Compacts to the current revision, and waits until what goes is gone.
async fn compact_now(client: &mut Client) {
    let revision = client.range(range("any", "")).await.header.unwrap().revision;
    client.compact(revision).await.unwrap();
}

#[test]
fn an_alarm_outlives_a_restart() {
    let mut member = TestMember::start(&["--quota-backend-bytes=131072"]);
    run(async { fill(&mut member.client().await).await });
    member.restart();
    run(async {
        let mut client = member.client().await;
        assert_eq!(refusal(client.kv.put(put("tiny", "v")).await).0, Code::ResourceExhausted);
    });
    member.stop();
}

#[test]
fn connections_past_the_bound_are_closed_at_once() {
    let mut member = TestMember::start(&["--client-connections-max=2"]);
    run(async {
        let mut first = member.client().await;
        first.put("k", "v").await;
        let mut second = member.client().await;
        second.put("k", "v").await;
        let endpoint = tonic::transport::Endpoint::from_shared(member.endpoint.clone()).unwrap();
        let third = async {
            let channel = endpoint.connect().await?;
            let mut kv = pb::kv_client::KvClient::new(channel);
            kv.put(put("k", "third")).await.map_err(Box::<dyn std::error::Error>::from)?;
            Ok::<(), Box<dyn std::error::Error>>(())
        };
        assert!(third.await.is_err());
        assert_eq!(first.get("k").await.as_deref(), Some("v"));
    });
    member.stop();
}
