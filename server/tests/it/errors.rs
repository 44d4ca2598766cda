//! The error table over the wire: code and text of every row that a member of one can be made to tell.

use crate::support::{Client, TestMember, put, range, refusal, run, watch};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::request_op::Request as Op;
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

fn put_op(key: &str) -> pb::RequestOp {
    pb::RequestOp { request: Some(Op::RequestPut(put(key, "v"))) }
}

fn txn(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

#[test]
fn requests_that_are_wrong_get_etcds_code_and_words() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut c = member.client().await;
        c.lease.lease_grant(pb::LeaseGrantRequest { id: 1, ttl: 60 }).await.unwrap();
        let many = |n: usize| txn((0..n).map(|n| put_op(&n.to_string())).collect());
        let told = [
            refusal(c.kv.range(range("", "")).await),
            refusal(c.kv.put(put("", "v")).await),
            refusal(c.kv.delete_range(pb::DeleteRangeRequest::default()).await),
            refusal(c.kv.put(pb::PutRequest { ignore_value: true, ..put("k", "") }).await),
            refusal(c.kv.put(pb::PutRequest { ignore_value: true, ..put("k", "v") }).await),
            refusal(c.kv.put(pb::PutRequest { ignore_lease: true, lease: 1, ..put("k", "") }).await),
            refusal(c.kv.put(pb::PutRequest { lease: 404, ..put("k", "") }).await),
            refusal(c.txn(many(129)).await),
            refusal(c.txn(txn(vec![put_op("k"), put_op("k")])).await),
            refusal(c.txn(txn(vec![pb::RequestOp { request: None }])).await),
            refusal(c.kv.range(pb::RangeRequest { sort_order: 7, ..range("k", "") }).await),
            refusal(c.kv.range_stream(pb::RangeRequest { sort_order: 2, ..range("k", "") }).await),
            refusal(c.kv.range_stream(pb::RangeRequest { min_mod_revision: 1, ..range("k", "") }).await),
            refusal(c.lease.lease_grant(pb::LeaseGrantRequest { id: 1, ttl: 60 }).await),
            refusal(c.lease.lease_grant(pb::LeaseGrantRequest { id: 2, ttl: 9_000_000_001 }).await),
            refusal(c.lease.lease_revoke(pb::LeaseRevokeRequest { id: 404 }).await),
            refusal(c.cluster.member_remove(pb::MemberRemoveRequest { id: 404 }).await),
            refusal(
                c.cluster
                    .member_add(pb::MemberAddRequest {
                        peer_ur_ls: vec!["nonsense".into()],
                        is_learner: false,
                    })
                    .await,
            ),
            refusal(c.maintenance.move_leader(pb::MoveLeaderRequest { target_id: 404 }).await),
        ];
        let expected = [
            (Code::InvalidArgument, "etcdserver: key is not provided"),
            (Code::InvalidArgument, "etcdserver: key is not provided"),
            (Code::InvalidArgument, "etcdserver: key is not provided"),
            (Code::InvalidArgument, "etcdserver: key not found"),
            (Code::InvalidArgument, "etcdserver: value is provided"),
            (Code::InvalidArgument, "etcdserver: lease is provided"),
            (Code::NotFound, "etcdserver: requested lease not found"),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
            (Code::InvalidArgument, "etcdserver: key not found"),
            (Code::InvalidArgument, "etcdserver: invalid sort option"),
            (Code::Unimplemented, "RangeStream does not support custom sort orders"),
            (Code::Unimplemented, "RangeStream does not support revision filters"),
            (Code::FailedPrecondition, "etcdserver: lease already exists"),
            (Code::OutOfRange, "etcdserver: too large lease TTL"),
            (Code::NotFound, "etcdserver: requested lease not found"),
            (Code::NotFound, "etcdserver: member not found"),
            (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
            (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        ];
        let told: Vec<(Code, &str)> = told.iter().map(|(code, text)| (*code, text.as_str())).collect();
        assert_eq!(told, expected);
    });
    member.stop();
}

#[test]
fn negative_numbers_and_a_key_of_a_mebibyte_are_taken_as_etcd_takes_them() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut c = member.client().await;
        let long = "k".repeat(1 << 20);
        c.put(&long, "v").await;
        c.put("m", "w").await;
        let all = c.range(range("k", "z")).await;
        assert_eq!((all.count, all.kvs[0].key.len()), (2, 1 << 20));
        for below in [-1, i64::MIN] {
            let none = pb::RangeRequest { limit: below, revision: below, ..range("k", "z") };
            assert_eq!(c.range(none).await, all, "as if they were not given");
            let bounds = pb::RangeRequest { min_mod_revision: below, ..range("k", "z") };
            assert_eq!(c.range(bounds).await.count, 2);
            let lease = pb::PutRequest { lease: below, ..put("m", "") };
            let unknown = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
            assert_eq!(refusal(c.kv.put(lease).await), unknown);
            let revoked = c.lease.lease_revoke(pb::LeaseRevokeRequest { id: below }).await;
            assert_eq!(refusal(revoked), unknown);
        }
        assert_eq!(c.delete(&long).await.deleted, 1);
        assert_eq!(c.get("m").await.as_deref(), Some("w"));
    });
    member.stop();
}

#[test]
fn authentication_is_off_and_says_so() {
    let mut member = TestMember::start(&[]);
    run(async {
        let client = member.client().await;
        let mut auth = pb::auth_client::AuthClient::new(client.channel);
        let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
        assert!(!status.enabled);
        let told = refusal(auth.authenticate(pb::AuthenticateRequest::default()).await);
        assert_eq!(told, (Code::FailedPrecondition, "etcdserver: authentication is not enabled".into()));
        let told = refusal(auth.auth_enable(pb::AuthEnableRequest {}).await);
        assert_eq!(told, (Code::FailedPrecondition, "etcdserver: root user does not exist".into()));
        let told = refusal(auth.user_get(pb::AuthUserGetRequest { name: "a".into() }).await);
        assert_eq!(told.1, "etcdserver: user name not found");
        let told =
            refusal(auth.user_add(pb::AuthUserAddRequest { name: "a".into(), ..Default::default() }).await);
        assert_eq!(told.0, Code::Unimplemented);
    });
    member.stop();
}

/// Sends and takes bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut item);
        Ok(Some(item))
    }
}

async fn raw(client: &Client, path: &'static str, request: Request<Vec<u8>>) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.expect("the connection stands");
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

#[test]
fn what_grpc_itself_refuses_is_told_in_gos_words() {
    let mut member = TestMember::start(&["--max-request-bytes=10000"]);
    run(async {
        let client = member.client().await;
        let told = refusal(raw(&client, "/etcdserverpb.KV/Nope", Request::new(Vec::new())).await);
        assert_eq!(told, (Code::Unimplemented, "unknown method Nope for service etcdserverpb.KV".into()));
        let told = refusal(raw(&client, "/v3lockpb.Lock/Lock", Request::new(Vec::new())).await);
        assert_eq!(told, (Code::Unimplemented, "unknown service v3lockpb.Lock".into()));
        let told = refusal(raw(&client, "/etcdserverpb.KV/Put", Request::new(vec![0xff; 9])).await);
        assert_eq!(told.0, Code::Internal, "bytes that are no message: {}", told.1);
        let large = put("k", &"x".repeat(600_000)).encode_to_vec();
        let length = large.len();
        let told = refusal(raw(&client, "/etcdserverpb.KV/Put", Request::new(large)).await);
        let text = format!("grpc: received message larger than max ({length} vs. {})", 10_000 + 512 * 1024);
        assert_eq!(told, (Code::ResourceExhausted, text));
        let told = refusal(
            raw(&client, "/etcdserverpb.KV/Put", Request::new(put("k", &"x".repeat(20_000)).encode_to_vec()))
                .await,
        );
        assert_eq!(told, (Code::InvalidArgument, "etcdserver: request is too large".into()));
        let mut good = client.clone();
        good.put("k", "v").await;
    });
    member.stop();
}

#[test]
fn metadata_and_deadlines_are_looked_at() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        let mut request = Request::new(range("k", ""));
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        request.metadata_mut().insert("client-api-version", "3.7".parse().unwrap());
        client.kv.range(request).await.unwrap();
        let mut request = Request::new(range("k", ""));
        let value = tonic::metadata::MetadataValue::try_from(&b"\xff"[..]).unwrap();
        request.metadata_mut().insert("client-api-version", value);
        let told = refusal(client.kv.range(request).await);
        assert_eq!(told, (Code::InvalidArgument, "etcdserver: invalid client api version".into()));
        // A watch that may last 50 ms is ended by the server.
        let created = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(watch("k", ""))),
        };
        let outbound = futures_util::StreamExt::chain(
            futures_util::stream::iter([created]),
            futures_util::stream::pending(),
        );
        let mut request = Request::new(outbound);
        request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
        let mut responses = client.watch.watch(request).await.unwrap().into_inner();
        let ended = crate::support::soon(async {
            loop {
                match responses.message().await {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            }
        });
        assert_eq!(ended.await.unwrap_err().code(), Code::DeadlineExceeded);
    });
    member.stop();
}

#[test]
fn a_client_that_goes_away_harms_nobody() {
    let mut member = TestMember::start(&["--serving-threads=1"]);
    run(async {
        let mut client = member.client().await;
        for round in 0..50 {
            let mut gone = member.client().await;
            let request = put("k", &round.to_string());
            tokio::select! {
                biased;
                _ = gone.kv.put(request) => {}
                () = tokio::task::yield_now() => {}
            }
            let mut watching = gone.watcher().await;
            watching.create(watch("k", "")).await;
        }
        client.put("k", "last").await;
        assert_eq!(client.get("k").await.as_deref(), Some("last"));
    });
    member.stop();
}
