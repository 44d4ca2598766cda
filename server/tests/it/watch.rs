//! Watch streams over the wire; the hub's own tests have the rules one by one.

use crate::support::{TestMember, bytes, run, soon, text, watch};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::watch_request::RequestUnion;
use tonic::Code;

#[test]
fn a_watcher_follows_from_now_and_from_the_past() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        client.put("a", "1").await;
        client.put("a", "2").await;
        let mut now = client.watcher().await;
        assert_eq!(now.create(watch("a", "")).await.watch_id, 0);
        let mut past = client.watcher().await;
        let created = past.create(pb::WatchCreateRequest { start_revision: 2, ..watch("a", "b") }).await;
        assert_eq!(created.header.unwrap().revision, 3);
        assert_eq!(past.events(2).await, ["+a=1@2", "+a=2@3"]);
        client.put("b", "not theirs").await;
        client.put("aa", "in the range").await;
        client.delete("a").await;
        assert_eq!(now.events(1).await, ["-a@6"]);
        assert_eq!(past.events(2).await, ["+aa=in the range@5", "-a@6"]);
    });
    member.stop();
}

#[test]
fn events_carry_the_version_before_for_those_who_ask() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        client.put("a", "1").await;
        let mut watching = client.watcher().await;
        watching.create(pb::WatchCreateRequest { prev_kv: true, ..watch("a", "") }).await;
        client.put("a", "2").await;
        client.delete("a").await;
        client.put("a", "3").await;
        let mut before = Vec::new();
        while before.len() < 3 {
            let response = watching.next().await;
            before.extend(response.events.into_iter().map(|event| event.prev_kv.map(|kv| text(&kv.value))));
        }
        assert_eq!(before, [Some("1".to_owned()), Some("2".to_owned()), None]);
    });
    member.stop();
}

#[test]
fn a_txns_events_come_in_one_response() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let mut watching = client.watcher().await;
        watching.create(watch("\0", "\0")).await;
        let put = |key: &str| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(crate::support::put(key, "v"))),
        };
        let success = (0..100).map(|number| put(&format!("k{number:02}"))).collect();
        client.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
        let response = watching.next().await;
        assert_eq!(response.events.len(), 100);
        assert_eq!(response.header.unwrap().revision, 2);
    });
    member.stop();
}

/// Events come to a serving thread only while it has a stream: here its only one is closed and opened again all the time.
#[test]
fn a_stream_opened_while_others_write_is_told_every_revision_after_the_one_it_began_at() {
    let mut member = TestMember::start(&["--serving-threads=1"]);
    run(async {
        let (mut writer, mut client) = (member.client().await, member.client().await);
        let over = std::cell::Cell::new(false);
        let write = async {
            while !over.get() {
                writer.put("k", "v").await;
            }
        };
        let watch_again_and_again = async {
            for _ in 0..200 {
                let mut watching = client.watcher().await;
                let created = watching.create(watch("k", "")).await;
                let first = watching.next().await;
                let told = first.events[0].kv.as_ref().unwrap().mod_revision;
                assert_eq!(told, created.header.unwrap().revision + 1);
            }
            over.set(true);
        };
        tokio::join!(write, watch_again_and_again);
    });
    member.stop();
}

#[test]
fn progress_is_told_on_request_and_reaches_the_current_revision() {
    let mut member = TestMember::start(&["--serving-threads=1"]);
    run(async {
        let mut client = member.client().await;
        let mut watching = client.watcher().await;
        watching.create(watch("idle", "")).await;
        for number in 0..50 {
            let revision = client.put("busy", &number.to_string()).await;
            watching.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
            let response = watching.next().await;
            assert_eq!((response.watch_id, response.events.len()), (-1, 0));
            assert_eq!(response.header.unwrap().revision, revision);
        }
    });
    member.stop();
}

#[test]
fn an_idle_watcher_that_asked_is_told_progress_by_itself() {
    let mut member = TestMember::start(&["--watch-progress-notify-interval=100ms"]);
    run(async {
        let mut client = member.client().await;
        let mut watching = client.watcher().await;
        watching.create(pb::WatchCreateRequest { progress_notify: true, ..watch("idle", "") }).await;
        let response = watching.next().await;
        assert_eq!((response.watch_id, response.events.len(), response.created), (0, 0, false));
        client.put("other", "v").await;
        while watching.next().await.header.unwrap().revision < 2 {}
    });
    member.stop();
}

#[test]
fn a_start_that_is_compacted_is_created_and_then_canceled() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for _ in 0..5 {
            client.put("a", "v").await;
        }
        client.compact(4).await.unwrap();
        let mut watching = client.watcher().await;
        let created = watching.create(pb::WatchCreateRequest { start_revision: 2, ..watch("a", "") }).await;
        assert!(!created.canceled);
        let canceled = watching.next().await;
        assert!(canceled.canceled);
        assert_eq!((canceled.compact_revision, canceled.cancel_reason.as_str()), (4, ""));
        assert_eq!(canceled.header.unwrap().revision, 0);
        watching.create(pb::WatchCreateRequest { start_revision: 4, ..watch("a", "") }).await;
        assert_eq!(watching.events(3).await, ["+a=v@4", "+a=v@5", "+a=v@6"]);
    });
    member.stop();
}

#[test]
fn a_watcher_is_canceled_by_its_id_alone() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let mut watching = client.watcher().await;
        watching.create(watch("a", "")).await;
        watching.create(pb::WatchCreateRequest { watch_id: 9, ..watch("a", "") }).await;
        for watch_id in [77, 0] {
            watching.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
        }
        let canceled = watching.next().await;
        assert_eq!((canceled.watch_id, canceled.canceled, canceled.cancel_reason.as_str()), (0, true, ""));
        client.put("a", "v").await;
        let response = watching.next().await;
        assert_eq!(response.watch_id, 9);
    });
    member.stop();
}

#[test]
fn a_client_that_does_not_read_holds_nobody_back_and_loses_nothing() {
    let mut member = TestMember::start(&["--serving-threads=1", "--watch-buffer-bytes-max=65536"]);
    run(async {
        let mut client = member.client().await;
        let mut slow = client.watcher().await;
        let mut reader = member.client().await;
        let mut quick = reader.watcher().await;
        slow.create(watch("k", "l")).await;
        quick.create(watch("k", "l")).await;
        // More than the connection's windows and the stream's queue hold together.
        let value = "x".repeat(64 * 1024);
        let mut writer = member.client().await;
        for number in 0..150 {
            writer.put(&format!("k{number:04}"), &value).await;
            assert_eq!(quick.events(1).await.len(), 1);
        }
        let seen = slow.events(150).await;
        let names: Vec<String> = seen.iter().map(|event| event[1..6].to_owned()).collect();
        let expected: Vec<String> = (0..150).map(|number| format!("k{number:04}")).collect();
        assert_eq!(names, expected);
    });
    member.stop();
}

#[test]
fn a_large_response_is_cut_only_for_those_who_asked() {
    let mut member = TestMember::start(&["--max-request-bytes=1000000"]);
    run(async {
        let mut client = member.client().await;
        let start = client.put("k0", "first").await;
        for number in 1..=4 {
            client.put(&format!("k{number}"), &"x".repeat(900_000)).await;
        }
        client
            .kv
            .delete_range(pb::DeleteRangeRequest { key: bytes("k"), range_end: bytes("l"), prev_kv: false })
            .await
            .unwrap();
        let mut watching = client.watcher().await;
        let request = pb::WatchCreateRequest {
            start_revision: start + 5,
            prev_kv: true,
            fragment: true,
            ..watch("k", "l")
        };
        watching.create(request).await;
        let (mut parts, mut events) = (0, 0);
        loop {
            let response = watching.next().await;
            parts += 1;
            events += response.events.len();
            if !response.fragment {
                break;
            }
        }
        assert!(parts > 1, "3.6 MB of versions before do not fit into one part");
        assert_eq!(events, 5);
    });
    member.stop();
}

#[test]
fn streams_end_with_server_stopped_when_the_member_stops() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let mut watching = client.watcher().await;
        watching.create(watch("a", "")).await;
        let stopping = tokio::task::spawn_blocking(move || member.stop());
        let status = watching.end().await;
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
        soon(stopping).await.unwrap();
    });
}
