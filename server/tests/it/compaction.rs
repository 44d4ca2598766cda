//! Giving up history.

use crate::damage::metric;
use crate::support::{TestMember, range, refusal, run, soon, text};
use coffer_server::proto::etcdserverpb as pb;
use tonic::Code;

#[test]
fn below_the_compaction_nothing_can_be_read_and_at_it_everything() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for number in 1..=4 {
            client.put("k", &number.to_string()).await;
        }
        client.compact(4).await.unwrap();
        let at = |revision| pb::RangeRequest { revision, ..range("k", "") };
        assert_eq!(text(&client.range(at(4)).await.kvs[0].value), "3");
        let compacted =
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted".to_owned());
        assert_eq!(refusal(client.kv.range(at(3)).await), compacted);
        assert_eq!(refusal(client.compact(4).await), compacted);
        let future =
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned());
        assert_eq!(refusal(client.compact(6).await), future);
        assert_eq!(refusal(client.kv.range(at(6)).await), future);
    });
    member.stop();
}

#[test]
fn what_was_compacted_is_told_by_the_metrics() {
    const REMOVED: &str = "etcd_debugging_mvcc_db_compaction_keys_total";
    const TOOK: &str = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count";
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for (key, value) in [("k", "1"), ("k", "2"), ("k", "3"), ("deleted", "")] {
            client.put(key, value).await;
        }
        client.delete("deleted").await;
        client.put("e", "").await;
        let told = |name| metric(&member.endpoint, name);
        assert_eq!((told(REMOVED), told(TOOK)), (0, 0));
        assert_eq!(told("etcd_debugging_mvcc_db_compaction_last"), 0);
        let request = pb::CompactionRequest { revision: 7, physical: true };
        client.kv.compact(request).await.unwrap();
        // the answer may come a moment before the figures
        soon(async {
            while told(TOOK) != 1 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(client.kv.compact(request).await.unwrap_err().code(), Code::OutOfRange);
        client.put("e", "").await;
        assert_eq!(told(TOOK), 1, "one that was refused is none");
        // two versions of k, the deleted key's, and its tombstone
        assert_eq!(told(REMOVED), 4);
        assert!(told("etcd_debugging_mvcc_db_compaction_last") > 1_700_000_000);
    });
    member.stop();
}

#[test]
fn the_hash_at_a_revision_is_the_same_before_and_after_a_compaction_of_it() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        for number in 0..20 {
            client.put(&format!("k{}", number % 3), &number.to_string()).await;
        }
        client.delete("k1").await;
        let mut other = client.clone();
        let mut hash = async |revision| {
            let request = pb::HashKvRequest { revision };
            other.maintenance.hash_kv(request).await.unwrap().into_inner()
        };
        let now = hash(0).await;
        assert_eq!((now.hash_revision, now.compact_revision), (22, -1));
        let before = hash(15).await;
        assert_eq!(before.compact_revision, -1);
        client.compact(15).await.unwrap();
        // told before it, it is told again, with the compaction that it was of
        let again = hash(15).await;
        assert_eq!((again.hash, again.compact_revision), (before.hash, -1));
        assert_eq!((again.hash_revision, again.header.unwrap().revision), (15, 22));
        let after = hash(22).await;
        assert_eq!(after.compact_revision, 15);
        assert_eq!(hash(22).await.hash, after.hash);
        // not told before
        client.compact(17).await.unwrap();
        assert_eq!(hash(17).await.compact_revision, 17);
        let low = client.maintenance.hash_kv(pb::HashKvRequest { revision: 16 }).await;
        assert_eq!(refusal(low).0, Code::OutOfRange);
        let high = client.maintenance.hash_kv(pb::HashKvRequest { revision: 23 }).await;
        assert_eq!(refusal(high).0, Code::OutOfRange);
    });
    member.stop();
}

#[test]
fn compaction_by_revision_needs_five_minutes_and_is_accepted_as_a_flag() {
    let mut member =
        TestMember::start(&["--auto-compaction-mode=revision", "--auto-compaction-retention=10"]);
    run(async {
        let mut client = member.client().await;
        client.put("k", "v").await;
        assert_eq!(client.get("k").await.as_deref(), Some("v"));
    });
    member.stop();
}

#[test]
fn automatic_compaction_by_period_gives_up_what_is_older() {
    let mut member =
        TestMember::start(&["--auto-compaction-mode=periodic", "--auto-compaction-retention=200ms"]);
    run(async {
        let mut client = member.client().await;
        client.put("k", "1").await;
        client.put("k", "2").await;
        let old = pb::RangeRequest { revision: 2, ..range("k", "") };
        soon(async {
            loop {
                client.put("other", "keeps the revision moving").await;
                if client.kv.range(old.clone()).await.is_err() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(client.get("k").await.as_deref(), Some("2"));
    });
    member.stop();
}
