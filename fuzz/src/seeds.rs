//! Writes seeds for every target, made from real encodings, so that they never fall behind the formats.
//!
//! `seeds DIR` writes DIR/TARGET/NUMBER.

use coffer_server::proto::etcdserverpb as pb;
use prost::Message;
use std::path::Path;
use std::{env, fs, io, process};

fn main() {
    let Some(dir) = env::args().nth(1) else {
        eprintln!("usage: seeds DIR");
        process::exit(2);
    };
    if let Err(error) = write_all(Path::new(&dir)) {
        eprintln!("seeds: {error}");
        process::exit(1);
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    write(dir, "command_decode", coffer_engine::command::samples::sample_encodings())?;
    write(dir, "wal_read", coffer_engine::wal::fuzz::seeds())?;
    write(dir, "page_decode", pages())?;
    write(dir, "store_vs_model", coffer_engine::mvcc::fuzz::seeds())?;
    write(dir, "grpc_request", requests())
}

/// Inputs of whole files, and of trees alone: these begin with a byte that says so.
fn pages() -> Vec<Vec<u8>> {
    let mut seeds = coffer_engine::pager::fuzz::seeds();
    let trees = coffer_engine::btree::fuzz::seeds().into_iter().step_by(4);
    seeds.extend(trees.map(|seed| [&[0xff][..], &seed].concat()));
    seeds
}

fn write(dir: &Path, target: &str, seeds: Vec<Vec<u8>>) -> io::Result<()> {
    let dir = dir.join(target);
    fs::create_dir_all(&dir)?;
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(dir.join(number.to_string()), seed)?;
    }
    Ok(())
}

/// One message of an input of the target: its method, its length, its bytes.
fn message(method: u8, request: &impl Message) -> Vec<u8> {
    let bytes = request.encode_to_vec();
    let length = u16::try_from(bytes.len()).expect("seeds are small");
    [&[method][..], &length.to_le_bytes(), &bytes].concat()
}

fn requests() -> Vec<Vec<u8>> {
    use pb::request_op::Request;
    let put = pb::PutRequest { key: "a".into(), value: "1".into(), prev_kv: true, ..Default::default() };
    let range = pb::RangeRequest { key: "a".into(), range_end: "b".into(), limit: 1, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: vec![0].into(), prev_kv: true };
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        result: 0,
        target: 2,
        key: "a".into(),
        range_end: Default::default(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(2)),
    };
    let inner = pb::TxnRequest {
        compare: vec![compare.clone()],
        success: vec![op(Request::RequestPut(put.clone()))],
        failure: vec![op(Request::RequestDeleteRange(delete.clone()))],
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Request::RequestRange(range.clone())),
            op(Request::RequestPut(pb::PutRequest { key: "b".into(), lease: 1, ..Default::default() })),
        ],
        failure: vec![op(Request::RequestTxn(inner))],
    };
    let watch = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: "a".into(),
            range_end: "z".into(),
            start_revision: 1,
            prev_kv: true,
            fragment: true,
            ..Default::default()
        })),
    };
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 1 };
    let single = vec![
        message(0, &range),
        message(1, &put),
        message(2, &delete),
        message(3, &txn),
        message(4, &pb::CompactionRequest { revision: 2, physical: true }),
        message(5, &grant),
        message(6, &pb::LeaseRevokeRequest { id: 1 }),
        message(7, &pb::LeaseKeepAliveRequest { id: 1 }),
        message(8, &watch),
        message(9, &pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }),
    ];
    let story = [5, 1, 8, 3, 1, 2, 0, 6, 4, 0].iter().flat_map(|at: &usize| single[*at].clone()).collect();
    let mut seeds = single;
    seeds.push(story);
    seeds
}
