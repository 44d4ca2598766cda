//! Put, range, delete and ranges in parts.

use crate::support::{Client, TestMember, bytes, keys, put, range, refusal, run, soon, text};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tonic::Code;

async fn filled(member: &TestMember) -> Client {
    let mut client = member.client().await;
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("d", "0")] {
        client.put(key, value).await;
    }
    client.put("b", "9").await;
    client
}

#[test]
fn a_put_is_read_back_with_its_book_keeping() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        assert_eq!(client.put("k", "one").await, 2, "the empty store stands at 1");
        assert_eq!(client.put("k", "two").await, 3);
        let response = client.range(range("k", "")).await;
        let header = response.header.unwrap();
        assert_eq!((header.revision, response.count, response.more), (3, 1, false));
        assert_ne!(header.cluster_id, 0);
        assert_ne!(header.member_id, 0);
        assert_ne!(header.raft_term, 0);
        let kv = &response.kvs[0];
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
        assert_eq!(text(&kv.value), "two");
        let old = client.range(pb::RangeRequest { revision: 2, ..range("k", "") }).await;
        assert_eq!(text(&old.kvs[0].value), "one");
        assert_eq!(old.header.unwrap().revision, 3, "the header tells the current revision");
    });
    member.stop();
}

#[test]
fn puts_answer_the_version_before_and_keep_what_they_are_told_to() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        client.put("k", "one").await;
        let request = pb::PutRequest { prev_kv: true, ..put("k", "two") };
        let before = client.kv.put(request).await.unwrap().into_inner().prev_kv.unwrap();
        assert_eq!(text(&before.value), "one");
        client.kv.put(pb::PutRequest { ignore_value: true, ..put("k", "") }).await.unwrap();
        assert_eq!(client.get("k").await.as_deref(), Some("two"));
        let none = client.kv.put(pb::PutRequest { prev_kv: true, ..put("new", "v") }).await.unwrap();
        assert!(none.into_inner().prev_kv.is_none());
    });
    member.stop();
}

#[test]
fn ranges_are_limited_sorted_filtered_and_counted() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = filled(&member).await;
        let limited = client.range(pb::RangeRequest { limit: 2, ..range("a", "z") }).await;
        assert_eq!((keys(&limited), limited.more, limited.count), (vec!["a".into(), "b".into()], true, 4));
        let by_value = pb::RangeRequest {
            sort_target: SortTarget::Value.into(),
            sort_order: SortOrder::Descend.into(),
            ..range("a", "z")
        };
        assert_eq!(keys(&client.range(by_value).await), ["b", "a", "c", "d"]);
        let filtered = client.range(pb::RangeRequest { min_mod_revision: 4, ..range("a", "z") }).await;
        assert_eq!((keys(&filtered), filtered.count), (vec!["b".into(), "c".into(), "d".into()], 4));
        let counted = client.range(pb::RangeRequest { count_only: true, ..range("b", "\0") }).await;
        assert_eq!((counted.kvs.len(), counted.count), (0, 3));
        let only_keys = client.range(pb::RangeRequest { keys_only: true, ..range("a", "") }).await;
        assert!(only_keys.kvs[0].value.is_empty());
        assert!(client.range(range("z", "a")).await.kvs.is_empty());
        let serializable = client.range(pb::RangeRequest { serializable: true, ..range("a", "z") }).await;
        assert_eq!(serializable.count, 4);
    });
    member.stop();
}

#[test]
fn deletes_tell_what_went_and_move_the_revision_only_if_something_did() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = filled(&member).await;
        let request = pb::DeleteRangeRequest { key: bytes("b"), range_end: bytes("d"), prev_kv: true };
        let response = client.kv.delete_range(request).await.unwrap().into_inner();
        assert_eq!((response.deleted, response.header.unwrap().revision), (2, 7));
        let gone: Vec<String> = response.prev_kvs.iter().map(|kv| text(&kv.key)).collect();
        assert_eq!(gone, ["b", "c"]);
        let nothing = client.delete("b").await;
        assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 7));
        client.put("b", "again").await;
        let kv = client.range(range("b", "")).await.kvs.remove(0);
        assert_eq!((kv.version, kv.create_revision), (1, 8), "a new generation");
    });
    member.stop();
}

/// All parts of a range.
async fn parts(client: &mut Client, request: pb::RangeRequest) -> Vec<pb::RangeResponse> {
    let mut stream = client.kv.range_stream(request).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        parts.push(part.range_response.unwrap());
    }
    parts
}

#[test]
fn a_range_in_parts_is_the_same_range() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for number in 0..100 {
            client.put(&format!("k{number:03}"), "v").await;
        }
        let whole = client.range(range("k", "l")).await;
        let got = parts(&mut client, range("k", "l")).await;
        assert!(got.len() > 2, "several parts");
        assert_eq!(got[0].kvs.len(), 10, "the first part is small");
        let (last, before) = got.split_last().unwrap();
        assert!(before.iter().all(|part| part.header.is_none() && part.count == 0 && !part.more));
        assert_eq!((last.header.unwrap().revision, last.count, last.more), (101, 100, false));
        let kvs: Vec<_> = got.into_iter().flat_map(|part| part.kvs).collect();
        assert_eq!(kvs, whole.kvs);
        let limited = parts(&mut client, pb::RangeRequest { limit: 25, ..range("k", "l") }).await;
        assert_eq!(limited.iter().map(|part| part.kvs.len()).sum::<usize>(), 25);
        assert!(limited.last().unwrap().more);
        let counted = parts(&mut client, pb::RangeRequest { count_only: true, ..range("k", "l") }).await;
        assert_eq!((counted.len(), counted[0].count), (1, 100));
        assert_eq!(parts(&mut client, range("none", "")).await.len(), 1, "the header comes all the same");
    });
    member.stop();
}

#[test]
fn a_part_has_a_bound_however_small_its_keys() {
    let mut member = TestMember::start(&["--max-txn-ops=1000"]);
    run(async {
        let mut client = member.client().await;
        let revision = client.put_all((0..25_000).map(|number| format!("k{number:05}")), "v").await;
        client.put("k", "a later revision").await;
        let at = pb::RangeRequest { revision, ..range("k", "l") };
        let got = parts(&mut client, at.clone()).await;
        let sizes: Vec<_> = got.iter().map(|part| part.kvs.len()).collect();
        assert_eq!(sizes[..4], [10, 20, 40, 80]);
        assert_eq!(sizes.iter().max(), Some(&10_000));
        let kvs: Vec<_> = got.into_iter().flat_map(|part| part.kvs).collect();
        assert_eq!(kvs, client.range(at).await.kvs);
    });
    member.stop();
}

#[test]
fn parts_stay_at_the_revision_of_the_first_until_it_is_compacted() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        // more than a client's windows hold
        for number in 0..40 {
            client.put(&format!("k{number:02}"), &"v".repeat(300_000)).await;
        }
        let whole = client.range(range("k", "l")).await;
        for compacted in [false, true] {
            let mut stream = client.kv.range_stream(range("k", "l")).await.unwrap().into_inner();
            let mut kvs = soon(stream.message()).await.unwrap().unwrap().range_response.unwrap().kvs;
            let mut writer = member.client().await;
            for number in 0..40 {
                writer.delete(&format!("k{number:02}")).await;
            }
            let revision = writer.put("k", "meanwhile").await;
            if compacted {
                writer.compact(revision).await.unwrap();
            }
            let rest = async {
                let mut last = None;
                while let Some(part) = soon(stream.message()).await? {
                    let part = part.range_response.unwrap();
                    kvs.extend(part.kvs.iter().cloned());
                    last = Some(part);
                }
                Ok(last.unwrap())
            };
            if compacted {
                let expected = "etcdserver: mvcc: required revision has been compacted".to_owned();
                assert_eq!(refusal(rest.await), (Code::OutOfRange, expected));
            } else {
                let last = rest.await.unwrap();
                assert_eq!((last.header.unwrap().revision, last.count), (41, 40));
                assert_eq!(kvs, whole.kvs);
                for number in 0..40 {
                    client.put(&format!("k{number:02}"), &"v".repeat(300_000)).await;
                }
            }
        }
    });
    member.stop();
}

#[test]
fn clients_on_many_connections_read_what_any_of_them_wrote() {
    let mut member = TestMember::start(&["--serving-threads=3"]);
    run(async {
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(member.client().await);
        }
        for round in 0..20 {
            let writer = round % clients.len();
            clients[writer].put("k", &round.to_string()).await;
            for client in &mut clients {
                assert_eq!(
                    client.get("k").await,
                    Some(round.to_string()),
                    "a linearizable read is never stale"
                );
            }
        }
    });
    member.stop();
}
