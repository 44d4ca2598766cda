//! Compare, then do one thing or another.

use crate::support::{TestMember, bytes, put, range, run, text};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use coffer_server::proto::etcdserverpb::request_op::Request as Op;
use coffer_server::proto::etcdserverpb::response_op::Response as Answer;

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str) -> pb::RequestOp {
    op(Op::RequestPut(put(key, value)))
}

fn get_op(key: &str) -> pb::RequestOp {
    op(Op::RequestRange(range(key, "")))
}

fn mod_revision(key: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: bytes(key),
        target_union: Some(TargetUnion::ModRevision(revision)),
        range_end: bytes(""),
    }
}

#[test]
fn a_key_is_created_once_as_kubernetes_creates_it() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let create = || pb::TxnRequest {
            compare: vec![mod_revision("k", 0)],
            success: vec![put_op("k", "v")],
            failure: vec![get_op("k")],
        };
        let first = client.txn(create()).await.unwrap();
        assert!(first.succeeded);
        assert_eq!(first.header.unwrap().revision, 2);
        let second = client.txn(create()).await.unwrap();
        assert!(!second.succeeded);
        assert_eq!(second.header.unwrap().revision, 2, "nothing was written");
        let Some(Answer::ResponseRange(found)) = &second.responses[0].response else { panic!("a range") };
        assert_eq!(text(&found.kvs[0].value), "v");
    });
    member.stop();
}

#[test]
fn operations_run_in_order_and_see_what_went_before() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let nested = op(Op::RequestTxn(pb::TxnRequest {
            compare: vec![mod_revision("a", 0)],
            success: vec![put_op("b", "compared before")],
            failure: vec![put_op("b", "compared after")],
        }));
        let request = pb::TxnRequest {
            success: vec![put_op("a", "1"), get_op("a"), nested, get_op("b")],
            ..Default::default()
        };
        let response = client.txn(request).await.unwrap();
        assert_eq!(response.header.unwrap().revision, 2, "one revision for all of it");
        let Some(Answer::ResponsePut(put)) = &response.responses[0].response else { panic!("a put") };
        assert_eq!(put.header.unwrap().revision, 2);
        assert_eq!(put.header.unwrap().member_id, 0, "inside there is a revision alone");
        let Some(Answer::ResponseRange(a)) = &response.responses[1].response else { panic!("a range") };
        assert_eq!(text(&a.kvs[0].value), "1");
        let Some(Answer::ResponseRange(b)) = &response.responses[3].response else { panic!("a range") };
        assert_eq!(text(&b.kvs[0].value), "compared before");
    });
    member.stop();
}

#[test]
fn a_txn_that_fails_leaves_nothing_behind() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let with_lease = op(Op::RequestPut(pb::PutRequest { lease: 404, ..put("b", "v") }));
        let request = pb::TxnRequest { success: vec![put_op("a", "v"), with_lease], ..Default::default() };
        let status = client.txn(request).await.unwrap_err();
        assert_eq!(status.message(), "etcdserver: requested lease not found");
        assert_eq!(client.get("a").await, None);
        assert_eq!(client.range(range("a", "")).await.header.unwrap().revision, 1);
    });
    member.stop();
}

#[test]
fn a_txn_of_ranges_alone_reads_and_an_empty_one_is_legal() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        client.put("a", "1").await;
        let read = pb::TxnRequest { success: vec![get_op("a")], ..Default::default() };
        let response = client.txn(read).await.unwrap();
        assert!(response.succeeded);
        assert_eq!(response.header.unwrap().revision, 2);
        let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        let before = status.raft_index;
        let empty = client.txn(pb::TxnRequest::default()).await.unwrap();
        assert!(empty.succeeded);
        let status = client.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.raft_index, before, "a read puts nothing into the log");
    });
    member.stop();
}
