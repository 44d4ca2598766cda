//! One sample and more of every command: seeds and words for fuzzers, a start for tests. And the fuzzers' entry.

use super::{
    AlarmAction, AlarmKind, AlarmRequest, Command, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    Member, PutRequest, RangeRequest, SortOrder, SortTarget, Stamped, TxnOp, TxnRequest,
};
use crate::mvcc::KeyRange;
use crate::store::Store;
use bytes::Bytes;

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn compare(result: CompareResult, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::single("a"), result, target }
}

fn sample_txn() -> TxnRequest {
    let all = KeyRange::new("\0", "\0");
    let sorted = RangeRequest {
        range: KeyRange::new("a", "z"),
        limit: 3,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        keys_only: true,
        max_mod_revision: 9,
        ..RangeRequest::default()
    };
    let inner = TxnRequest {
        compares: vec![compare(CompareResult::NotEqual, CompareTarget::Lease(7))],
        success: vec![TxnOp::Put(PutRequest { ignore_value: true, lease: 7, ..put("b", "") })],
        failure: vec![TxnOp::DeleteRange(DeleteRangeRequest { range: KeyRange::single("b"), prev_kv: true })],
    };
    TxnRequest {
        compares: vec![
            compare(CompareResult::Equal, CompareTarget::ModRevision(2)),
            compare(CompareResult::Greater, CompareTarget::Version(0)),
            compare(CompareResult::Less, CompareTarget::CreateRevision(9)),
            Compare {
                range: KeyRange::new("a", "c"),
                result: CompareResult::NotEqual,
                target: CompareTarget::Value("x".into()),
            },
        ],
        success: vec![
            TxnOp::Put(PutRequest { prev_kv: true, ..put("a", "3") }),
            TxnOp::Range(sorted),
            TxnOp::Txn(inner),
        ],
        failure: vec![
            TxnOp::Range(RangeRequest {
                range: all,
                count_only: true,
                revision: -1,
                ..RangeRequest::default()
            }),
            TxnOp::DeleteRange(DeleteRangeRequest { range: KeyRange::new("x", "y"), prev_kv: false }),
        ],
    }
}

/// Commands of every kind, with every part filled in somewhere.
pub fn samples() -> Vec<Stamped> {
    let member = Member {
        id: 0x8e9e_05c5_2164_694d,
        name: "one".to_owned(),
        peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
        client_urls: vec!["http://127.0.0.1:2379".to_owned(), "http://localhost:2379".to_owned()],
        is_learner: true,
    };
    let alarm = |action, alarm| Command::Alarm(AlarmRequest { action, member_id: member.id, alarm });
    let commands = vec![
        Command::Put(put("a", "1")),
        Command::Put(PutRequest { prev_kv: true, ignore_value: true, ignore_lease: true, ..put("a", "") }),
        Command::Put(PutRequest { lease: 7, value: Bytes::from(vec![0xff; 300]), ..put("b", "") }),
        Command::DeleteRange(DeleteRangeRequest { range: KeyRange::single("a"), prev_kv: true }),
        Command::DeleteRange(DeleteRangeRequest { range: KeyRange::new("a", "\0"), prev_kv: false }),
        Command::Txn(TxnRequest::default()),
        Command::Txn(sample_txn()),
        Command::Compact { revision: 3 },
        Command::LeaseGrant { id: 7, ttl: 60 },
        Command::LeaseGrant { id: i64::MIN, ttl: i64::MAX },
        Command::LeaseRevoke { id: 7 },
        Command::LeaseRenew { ids: vec![7, 0, -1] },
        Command::LeaseExpire { id: 7 },
        alarm(AlarmAction::Get, AlarmKind::None),
        alarm(AlarmAction::Activate, AlarmKind::NoSpace),
        alarm(AlarmAction::Deactivate, AlarmKind::Corrupt),
        Command::Bootstrap { cluster_id: u64::MAX, members: vec![member.clone(), Member::default()] },
        Command::MemberAttributes {
            id: member.id,
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
        },
    ];
    let stamped = |(at, command)| Stamped { clock_ms: at as u64 * 1000, command };
    commands.into_iter().enumerate().map(stamped).collect()
}

/// The encodings of [`samples`]: a fuzzer's seeds, and its dictionary.
pub fn sample_encodings() -> Vec<Vec<u8>> {
    samples().iter().map(|sample| sample.encode().expect("no sample lies too deep")).collect()
}

/// Why a store that has no file meets no fault.
const IN_MEMORY: &str = "a store in memory reads no disk";

/// A store with a little of everything, for a command to be applied to.
fn small_store() -> Store {
    let mut store = Store::new();
    let mut tx = store.begin();
    let commands = [
        Command::Bootstrap { cluster_id: 1, members: vec![Member { id: 1, ..Member::default() }] },
        Command::LeaseGrant { id: 7, ttl: 60 },
        Command::Put(put("a", "1")),
        Command::Put(PutRequest { lease: 7, ..put("b", "2") }),
        Command::Put(put("c", "3")),
        Command::DeleteRange(DeleteRangeRequest { range: KeyRange::single("c"), prev_kv: false }),
        Command::Put(put("a", "4")),
        Command::Compact { revision: 3 },
    ];
    for (at, command) in commands.into_iter().enumerate() {
        let applied = tx.apply(at as u64 + 1, 1, &Stamped { clock_ms: 0, command });
        debug_assert!(applied.is_ok_and(|applied| applied.outcome.is_ok()));
    }
    tx.publish();
    store
}

/// What a fuzzer feeds with any bytes: decoding them never panics; what decodes encodes to the same bytes, and can be
/// applied, which breaks no rule of the store; a refused command has changed nothing.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz_command_decode(bytes: &[u8]) {
    let Ok(stamped) = Stamped::decode(bytes) else { return };
    assert_eq!(stamped.encode().as_deref(), Ok(bytes), "what decodes has exactly one encoding");
    let mut store = small_store();
    let reader = store.reader();
    let before = reader.state().expect(IN_MEMORY);
    let index = store.applied() + 1;
    let mut tx = store.begin();
    let applied = tx.apply(index, 2, &stamped).expect(IN_MEMORY);
    let published = tx.publish();
    assert_eq!(published.revision, applied.revision);
    if let Err(broken) = reader.check() {
        panic!("{broken} after {stamped:?}");
    }
    if applied.outcome.is_err() {
        let after = reader.state().expect(IN_MEMORY);
        assert!(
            published.events.is_none() && after.versions == before.versions && after.leases == before.leases
        );
    }
    while store.compact_step(1).expect(IN_MEMORY) {}
    if let Err(broken) = reader.check() {
        panic!("{broken} after {stamped:?} and compaction");
    }
}
