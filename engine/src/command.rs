//! The replicated commands, one answer type for each, their encoding.
//!
//! A command's outcome depends on the store's state and the command alone: whatever a member must decide by
//! itself (a lease's random id, the lowest time to live, the time) is decided before it is proposed and stands in it.
//!
//! [`encoding`] has the bytes that an entry of the log carries; what a request may be (empty keys, doubled keys in a
//! txn, the number of its operations) is checked above the engine, before anything is proposed.

pub mod encoding;
#[cfg(feature = "sim")]
pub mod samples;

use crate::error::Refusal;
use crate::mvcc::{KeyRange, KeyValue};
use bytes::Bytes;
use std::sync::Arc;

/// What an entry of the log carries: a command and the leader's lease clock when it proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The lease clock in milliseconds; applying takes the larger of this and the clock so far.
    pub clock_ms: u64,
    /// What to do.
    pub command: Command,
}

/// A change to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Write one key.
    Put(PutRequest),
    /// Delete a range of keys.
    DeleteRange(DeleteRangeRequest),
    /// Compare, then do one of two lists of operations.
    Txn(TxnRequest),
    /// Give up the history below a revision.
    Compact {
        /// The compaction revision.
        revision: i64,
    },
    /// Make a lease.
    LeaseGrant {
        /// Its id, never 0 (the proposer draws one where the client gave none).
        id: i64,
        /// Time to live in seconds, raised to the minimum by the proposer.
        ttl: i64,
    },
    /// End a lease and delete its keys, in one revision.
    LeaseRevoke {
        /// Which.
        id: i64,
    },
    /// Renew leases; all renewals of one round of the driver.
    LeaseRenew {
        /// Which, one answer each.
        ids: Vec<i64>,
    },
    /// Revoke the lease if its deadline is not after this command's clock; else nothing (it was renewed meanwhile).
    LeaseExpire {
        /// Which.
        id: i64,
    },
    /// List, raise or clear alarms.
    Alarm(AlarmRequest),
    /// The first command of a cluster's log: who is in it.
    Bootstrap {
        /// The cluster's id.
        cluster_id: u64,
        /// Its first members.
        members: Vec<Member>,
    },
    /// A member tells its name and where its clients find it.
    MemberAttributes {
        /// Which member.
        id: u64,
        /// Its name.
        name: String,
        /// Its client URLs.
        client_urls: Vec<String>,
    },
}

/// See etcd's PutRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key, not empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Lease to attach to, 0 for none.
    pub lease: i64,
    /// Whether to answer the version before.
    pub prev_kv: bool,
    /// Keep the present value.
    pub ignore_value: bool,
    /// Keep the present lease.
    pub ignore_lease: bool,
}

/// See etcd's DeleteRangeRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Whether to answer the versions deleted.
    pub prev_kv: bool,
}

/// Sort order of a range's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As they come: by key, ascending; ascending too where the target is not the key.
    #[default]
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
}

/// What a range's answer is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value.
    Value,
}

/// See etcd's RangeRequest (`serializable` is decided above the engine).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Most key-values to answer, 0 or below for no limit.
    pub limit: i64,
    /// Revision to read at, 0 or below for the newest. Within a txn 0 alone always means the newest; a negative one is
    /// held against the compaction revision like any other, so -1 works until the first compaction (etcd #13871).
    pub revision: i64,
    /// Order.
    pub sort_order: SortOrder,
    /// What is ordered by.
    pub sort_target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Answer the count alone.
    pub count_only: bool,
    /// Lowest mod revision, 0 for any. So for the other three.
    pub min_mod_revision: i64,
    /// Highest mod revision.
    pub max_mod_revision: i64,
    /// Lowest create revision.
    pub min_create_revision: i64,
    /// Highest create revision.
    pub max_create_revision: i64,
}

/// How a comparison must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    /// Equal.
    Equal,
    /// What is stored is greater.
    Greater,
    /// What is stored is less.
    Less,
    /// Not equal.
    NotEqual,
}

/// What is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The create revision.
    CreateRevision(i64),
    /// The mod revision.
    ModRevision(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// One comparison of a txn; it must hold for every key of the range.
///
/// A range that holds no key counts as one absent key: a comparison of values fails, the others compare with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How it must come out.
    pub result: CompareResult,
    /// What is compared.
    pub target: CompareTarget,
}

/// See etcd's TxnRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// All must hold, against the state before the txn.
    pub compares: Vec<Compare>,
    /// Done if they do.
    pub success: Vec<TxnOp>,
    /// Done if not.
    pub failure: Vec<TxnOp>,
}

impl TxnRequest {
    /// Whether every operation of both branches is a range: such a txn needs no entry in the log. A txn inside makes it
    /// a write whatever it holds (etcd's IsTxnReadonly).
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, TxnOp::Range(_)))
    }

    /// Levels of txns, this one included.
    pub fn levels(&self) -> usize {
        let inner = self.success.iter().chain(&self.failure).filter_map(|op| match op {
            TxnOp::Txn(txn) => Some(txn.levels()),
            _ => None,
        });
        1 + inner.max().unwrap_or(0)
    }
}

/// One operation of a txn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Read.
    Range(RangeRequest),
    /// Write one key.
    Put(PutRequest),
    /// Delete keys.
    DeleteRange(DeleteRangeRequest),
    /// A txn inside.
    Txn(TxnRequest),
}

/// What to do about alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// List.
    Get,
    /// Raise.
    Activate,
    /// Clear.
    Deactivate,
}

/// The kinds of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// Any (listing only).
    None,
    /// Out of room.
    NoSpace,
    /// Damaged.
    Corrupt,
}

/// See etcd's AlarmRequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmRequest {
    /// List, raise, clear.
    pub action: AlarmAction,
    /// Whose.
    pub member_id: u64,
    /// Which.
    pub alarm: AlarmKind,
}

/// An alarm that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmMember {
    /// Whose.
    pub member_id: u64,
    /// Which.
    pub alarm: AlarmKind,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name, empty until it has told it.
    pub name: String,
    /// Where the other members find it.
    pub peer_urls: Vec<String>,
    /// Where its clients find it.
    pub client_urls: Vec<String>,
    /// Whether it is a learner.
    pub is_learner: bool,
}

/// Answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReply {
    /// The version before, if asked for and there.
    pub prev_kv: Option<Arc<KeyValue>>,
}

/// Answer to a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeReply {
    /// How many keys went.
    pub deleted: i64,
    /// Their last versions, if asked for, by key.
    pub prev_kvs: Vec<Arc<KeyValue>>,
}

/// Answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReply {
    /// The store's current revision (not the one read at).
    pub current_revision: i64,
    /// The key-values; with `keys_only` their values are empty (and their lease 0 unless sorted by value: etcd 3.7).
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the range at that revision, whatever limit and filters say.
    pub count: i64,
}

/// Answer to a txn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One for each operation of the branch taken, in order.
    pub responses: Vec<TxnOpReply>,
}

/// Answer to one operation of a txn. `revision` (of a range: `current_revision`) is what etcd puts into its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOpReply {
    /// To a range.
    Range(RangeReply),
    /// To a put; `revision` is its header's.
    Put {
        /// Header revision.
        revision: i64,
        /// The answer.
        reply: PutReply,
    },
    /// To a delete.
    DeleteRange {
        /// Header revision.
        revision: i64,
        /// The answer.
        reply: DeleteRangeReply,
    },
    /// To a txn inside.
    Txn {
        /// Header revision: always 0, as etcd fills in the outermost header alone.
        revision: i64,
        /// The answer.
        reply: TxnReply,
    },
}

/// The answer to a command that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Command::Put`].
    Put(PutReply),
    /// To [`Command::DeleteRange`].
    DeleteRange(DeleteRangeReply),
    /// To [`Command::Txn`].
    Txn(TxnReply),
    /// To [`Command::Compact`].
    Compact,
    /// To [`Command::LeaseGrant`]: id and granted seconds.
    LeaseGrant {
        /// The lease.
        id: i64,
        /// Granted time to live in seconds.
        ttl: i64,
    },
    /// To [`Command::LeaseRevoke`].
    LeaseRevoke,
    /// To [`Command::LeaseRenew`]: granted seconds of each id in order, 0 for one that is unknown or expired.
    LeaseRenew(Vec<i64>),
    /// To [`Command::LeaseExpire`]: whether it went.
    LeaseExpire(bool),
    /// To [`Command::Alarm`]: those listed, raised or cleared.
    Alarm(Vec<AlarmMember>),
    /// To [`Command::Bootstrap`].
    Bootstrap,
    /// To [`Command::MemberAttributes`].
    MemberAttributes,
}

/// What applying one command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The store's current revision after it (etcd's header revision).
    pub revision: i64,
    /// The answer, or why not.
    pub outcome: Result<Reply, Refusal>,
}
