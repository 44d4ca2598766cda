//! Arbitrary commands: any that can be encoded, and such that a small store gets into every corner.

use bytes::Bytes;
use coffer_engine::command::*;
use coffer_engine::mvcc::KeyRange;
use proptest::collection::vec;
use proptest::prelude::*;

/// Cases of a property: few in a plain run, many with `COFFER_LONG=1`.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let long = std::env::var_os("COFFER_LONG").is_some_and(|value| value == "1");
    ProptestConfig {
        cases: if long { cases * 50 } else { cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Where the numbers, keys and values of a command come from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) key: BoxedStrategy<Bytes>,
    pub(crate) end: BoxedStrategy<Bytes>,
    pub(crate) value: BoxedStrategy<Bytes>,
    /// What a key is attached to.
    pub(crate) lease: BoxedStrategy<i64>,
    /// What is granted, renewed, revoked.
    pub(crate) lease_id: BoxedStrategy<i64>,
    pub(crate) compact: BoxedStrategy<i64>,
    pub(crate) revision: BoxedStrategy<i64>,
    pub(crate) limit: BoxedStrategy<i64>,
    pub(crate) ops: usize,
}

impl Source {
    /// Anything at all.
    pub(crate) fn wide() -> Source {
        let any_bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from).boxed();
        Source {
            key: any_bytes(),
            end: any_bytes(),
            value: any_bytes(),
            lease: any::<i64>().boxed(),
            lease_id: any::<i64>().boxed(),
            compact: any::<i64>().boxed(),
            revision: any::<i64>().boxed(),
            limit: any::<i64>().boxed(),
            ops: 4,
        }
    }

    /// Few keys, leases and revisions, so that they meet.
    pub(crate) fn narrow() -> Source {
        let bytes = |words: &'static [&'static str]| {
            prop::sample::select(words).prop_map(|word| Bytes::from_static(word.as_bytes())).boxed()
        };
        Source {
            key: bytes(&["a", "b", "c", "d", "e"]),
            end: bytes(&["", "", "", "b", "c", "e", "f", "\0"]),
            value: bytes(&["", "1", "2", "3"]),
            lease: prop_oneof![4 => Just(0), 2 => 1..3i64].boxed(),
            lease_id: prop_oneof![1 => Just(0), 12 => 1..3i64].boxed(),
            compact: (-1..25i64).boxed(),
            revision: prop_oneof![3 => Just(0), 1 => -2..40i64].boxed(),
            limit: (-1..5i64).boxed(),
            ops: 3,
        }
    }

    fn key_range(&self) -> impl Strategy<Value = KeyRange> + use<> {
        (self.key.clone(), self.end.clone()).prop_map(|(key, range_end)| KeyRange { key, range_end })
    }

    pub(crate) fn put(&self) -> impl Strategy<Value = PutRequest> + use<> {
        let flag = || prop::bool::weighted(0.15);
        let flags = (any::<bool>(), flag(), flag());
        (self.key.clone(), self.value.clone(), self.lease.clone(), flags).prop_map(
            |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| PutRequest {
                key,
                value,
                lease,
                prev_kv,
                ignore_value,
                ignore_lease,
            },
        )
    }

    pub(crate) fn delete_range(&self) -> impl Strategy<Value = DeleteRangeRequest> + use<> {
        (self.key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRangeRequest { range, prev_kv })
    }

    pub(crate) fn range(&self) -> impl Strategy<Value = RangeRequest> + use<> {
        let orders = prop::sample::select(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend][..]);
        let targets =
            [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
        let filter = || prop_oneof![4 => Just(0).boxed(), 1 => self.revision.clone()];
        (
            self.key_range(),
            (self.limit.clone(), self.revision.clone()),
            (orders, prop::sample::select(targets.to_vec())),
            (any::<bool>(), prop::bool::weighted(0.2)),
            (filter(), filter(), filter(), filter()),
        )
            .prop_map(|(range, (limit, revision), (sort_order, sort_target), flags, filters)| {
                RangeRequest {
                    range,
                    limit,
                    revision,
                    sort_order,
                    sort_target,
                    keys_only: flags.0,
                    count_only: flags.1,
                    min_mod_revision: filters.0,
                    max_mod_revision: filters.1,
                    min_create_revision: filters.2,
                    max_create_revision: filters.3,
                }
            })
    }

    fn compare(&self) -> impl Strategy<Value = Compare> + use<> {
        let results =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        let target = prop_oneof![
            self.revision.clone().prop_map(CompareTarget::Version),
            self.revision.clone().prop_map(CompareTarget::CreateRevision),
            self.revision.clone().prop_map(CompareTarget::ModRevision),
            self.value.clone().prop_map(CompareTarget::Value),
            self.lease.clone().prop_map(CompareTarget::Lease),
        ];
        (self.key_range(), prop::sample::select(results.to_vec()), target)
            .prop_map(|(range, result, target)| Compare { range, result, target })
    }

    /// Txns of up to `levels` levels.
    pub(crate) fn txn(&self, levels: u32) -> BoxedStrategy<TxnRequest> {
        let leaf = prop_oneof![
            3 => self.put().prop_map(TxnOp::Put),
            1 => self.delete_range().prop_map(TxnOp::DeleteRange),
            2 => self.range().prop_map(TxnOp::Range),
        ];
        let op = if levels > 1 {
            prop_oneof![3 => leaf, 1 => self.txn(levels - 1).prop_map(TxnOp::Txn)].boxed()
        } else {
            leaf.boxed()
        };
        (vec(self.compare(), 0..3), vec(op.clone(), 0..self.ops + 1), vec(op, 0..self.ops + 1))
            .prop_map(|(compares, success, failure)| TxnRequest { compares, success, failure })
            .boxed()
    }

    fn alarm(&self) -> impl Strategy<Value = AlarmRequest> + use<> {
        let actions = [AlarmAction::Get, AlarmAction::Activate, AlarmAction::Deactivate];
        let kinds = [AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt];
        (prop::sample::select(actions.to_vec()), any::<u64>(), prop::sample::select(kinds.to_vec()))
            .prop_map(|(action, member_id, alarm)| AlarmRequest { action, member_id, alarm })
    }

    /// Commands on data, and now and then on alarms and members.
    pub(crate) fn command_of_any_kind(&self) -> BoxedStrategy<Command> {
        let member = |id| Member { id, name: "m".repeat(id as usize * 150), ..Member::default() };
        let alarm = self.alarm().prop_map(|alarm| AlarmRequest { member_id: alarm.member_id % 2, ..alarm });
        prop_oneof![
            60 => self.data_command(),
            1 => alarm.prop_map(Command::Alarm),
            1 => (0..10u64).prop_map(move |n| Command::Bootstrap {
                cluster_id: n,
                members: (0..n).map(member).collect(),
            }),
            1 => (0..10u64, "[a-z]{0,3}").prop_map(|(id, name)| Command::MemberAttributes {
                id,
                name,
                client_urls: vec!["u".repeat(id as usize * 100)],
            }),
        ]
        .boxed()
    }

    /// Commands of all kinds.
    pub(crate) fn command(&self) -> BoxedStrategy<Command> {
        let member = (any::<u64>(), ".{0,6}", vec(".{0,20}", 0..3), vec(".{0,20}", 0..3), any::<bool>())
            .prop_map(|(id, name, peer_urls, client_urls, is_learner)| Member {
                id,
                name,
                peer_urls,
                client_urls,
                is_learner,
            });
        prop_oneof![
            self.data_command(),
            self.alarm().prop_map(Command::Alarm),
            (any::<u64>(), vec(member, 0..4))
                .prop_map(|(cluster_id, members)| Command::Bootstrap { cluster_id, members }),
            (any::<u64>(), ".{0,6}", vec(".{0,20}", 0..3))
                .prop_map(|(id, name, client_urls)| Command::MemberAttributes { id, name, client_urls }),
        ]
        .boxed()
    }

    /// Commands on keys and leases.
    pub(crate) fn data_command(&self) -> BoxedStrategy<Command> {
        let lease = || self.lease_id.clone();
        prop_oneof![
            12 => self.put().prop_map(Command::Put),
            4 => self.delete_range().prop_map(Command::DeleteRange),
            8 => self.txn(3).prop_map(Command::Txn),
            3 => self.compact.clone().prop_map(|revision| Command::Compact { revision }),
            3 => (lease(), any::<i64>()).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
            3 => (lease(), 0..5i64).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
            1 => lease().prop_map(|id| Command::LeaseRevoke { id }),
            1 => vec(lease(), 0..4).prop_map(|ids| Command::LeaseRenew { ids }),
            2 => lease().prop_map(|id| Command::LeaseExpire { id }),
        ]
        .boxed()
    }
}
