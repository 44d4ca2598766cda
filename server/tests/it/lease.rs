//! Leases, whose end deletes their keys.

use crate::support::{TestMember, put, run, soon, text, watch};
use coffer_server::proto::etcdserverpb as pb;

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { id, ttl }
}

#[test]
fn a_lease_is_granted_listed_told_and_revoked_with_its_keys() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let granted = client.lease.lease_grant(grant(0, 100)).await.unwrap().into_inner();
        assert!(granted.id > 0);
        assert_eq!(granted.ttl, 100);
        let short = client.lease.lease_grant(grant(77, -5)).await.unwrap().into_inner();
        assert_eq!((short.id, short.ttl), (77, 2), "raised to the shortest time to live");
        for key in ["b", "a"] {
            client.kv.put(pb::PutRequest { lease: granted.id, ..put(key, "v") }).await.unwrap();
        }
        let listed = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
        let ids: Vec<i64> = listed.leases.iter().map(|lease| lease.id).collect();
        assert_eq!(ids, [77, granted.id], "the first to end first");
        let request = pb::LeaseTimeToLiveRequest { id: granted.id, keys: true };
        let told = client.lease.lease_time_to_live(request).await.unwrap().into_inner();
        assert_eq!(told.granted_ttl, 100);
        assert!((90..=100).contains(&told.ttl), "{}", told.ttl);
        let keys: Vec<String> = told.keys.iter().map(|key| text(key)).collect();
        assert_eq!(keys, ["a", "b"]);
        let mut watching = client.watcher().await;
        watching.create(watch("a", "z")).await;
        let revoke = pb::LeaseRevokeRequest { id: granted.id };
        let revoked = client.lease.lease_revoke(revoke).await.unwrap().into_inner();
        let revision = revoked.header.unwrap().revision;
        let deleted = watching.next().await;
        assert_eq!(deleted.events.len(), 2, "both keys go in one revision");
        assert!(deleted.events.iter().all(|event| event.kv.as_ref().unwrap().mod_revision == revision));
        let unknown = pb::LeaseTimeToLiveRequest { id: granted.id, keys: false };
        let told = client.lease.lease_time_to_live(unknown).await.unwrap().into_inner();
        assert_eq!((told.id, told.ttl, told.granted_ttl), (granted.id, -1, 0));
    });
    member.stop();
}

#[test]
fn a_lease_ends_by_itself_and_takes_its_keys_along() {
    let mut member = TestMember::start(&["--heartbeat-interval=20", "--election-timeout=200"]);
    run(async {
        let mut client = member.client().await;
        let mut watching = client.watcher().await;
        watching.create(watch("k", "")).await;
        client.lease.lease_grant(grant(5, 1)).await.unwrap();
        client.kv.put(pb::PutRequest { lease: 5, ..put("k", "v") }).await.unwrap();
        assert_eq!(watching.events(2).await, ["+k=v@2", "-k@3"]);
        assert_eq!(client.get("k").await, None);
    });
    member.stop();
}

#[test]
fn keep_alive_renews_and_answers_0_for_a_lease_that_is_not_there() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        client.lease.lease_grant(grant(5, 60)).await.unwrap();
        let requests = [5, 404, 5].map(|id| pb::LeaseKeepAliveRequest { id });
        let stream = futures_util::stream::iter(requests);
        let mut replies = client.lease.lease_keep_alive(stream).await.unwrap().into_inner();
        let mut told = Vec::new();
        while let Some(reply) = soon(replies.message()).await.unwrap() {
            assert_eq!(reply.header.unwrap().revision, 1);
            told.push((reply.id, reply.ttl));
        }
        assert_eq!(told, [(5, 60), (404, 0), (5, 60)]);
    });
    member.stop();
}

/// A client keeps all its leases alive on one stream.
#[test]
fn renewals_on_one_stream_share_entries_and_are_answered_in_order() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for id in 1..=20 {
            client.lease.lease_grant(grant(id, 60)).await.unwrap();
        }
        let index = |status: tonic::Response<pb::StatusResponse>| status.into_inner().raft_applied_index;
        let before = index(client.maintenance.status(pb::StatusRequest {}).await.unwrap());
        let asked: Vec<i64> = (0..1_000).map(|n| 1 + n * 7 % 20).collect();
        let stream =
            futures_util::stream::iter(asked.clone().into_iter().map(|id| pb::LeaseKeepAliveRequest { id }));
        let mut replies = client.lease.lease_keep_alive(stream).await.unwrap().into_inner();
        let mut told = Vec::new();
        while let Some(reply) = soon(replies.message()).await.unwrap() {
            assert_eq!(reply.ttl, 60);
            told.push(reply.id);
        }
        assert_eq!(told, asked);
        let after = index(client.maintenance.status(pb::StatusRequest {}).await.unwrap());
        assert!(after - before < 500, "{} entries for 1,000 renewals", after - before);
    });
    member.stop();
}

#[test]
fn a_put_moves_a_key_from_lease_to_lease() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for id in [1, 2] {
            client.lease.lease_grant(grant(id, 60)).await.unwrap();
            client.kv.put(pb::PutRequest { lease: id, ..put("k", "v") }).await.unwrap();
        }
        client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.unwrap();
        assert_eq!(client.get("k").await.as_deref(), Some("v"));
        client.kv.put(pb::PutRequest { ignore_lease: true, ..put("k", "w") }).await.unwrap();
        client.lease.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.unwrap();
        assert_eq!(client.get("k").await, None);
    });
    member.stop();
}
