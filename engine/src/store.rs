//! The front door of the store: apply commands, publish, read.
//!
//! One writer ([`Store`], on the core thread) opens a [`WriteTx`] for a batch of commands, applies them in the order
//! of their indexes and publishes: only then do readers see any of it, all of it, and the applied index with it.
//! Readers ([`StoreReader`], on any thread) always see the newest published state.
//!
//! Behind the door stands [`crate::model`], the whole store in memory.

use crate::command::{
    AlarmMember, Applied, Member, RangeReply, RangeRequest, Stamped, TxnReply, TxnRequest,
};
use crate::error::Refusal;
use crate::mvcc::KeyRange;
use crate::watch::{EventBatch, HistoryPage};
use std::sync::Arc;

/// The writer's end of the store.
pub struct Store {}

/// A batch of commands being applied; nothing of it is visible before [`WriteTx::publish`].
pub struct WriteTx<'a> {
    store: &'a mut Store,
}

/// What a publish made visible.
#[derive(Clone, Debug)]
pub struct Published {
    /// The store's current revision.
    pub revision: i64,
    /// The applied index, published in the same step.
    pub applied: u64,
    /// The batch's events, `None` if no key changed.
    pub events: Option<Arc<EventBatch>>,
}

/// A reader's end of the store; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct StoreReader {}

/// Where the published state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Current revision (1 for an empty store).
    pub revision: i64,
    /// Compaction revision (-1 before the first).
    pub compacted: i64,
    /// Highest compaction revision whose physical removal is done (-1 before the first).
    pub compaction_done: i64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Term of the last entry applied.
    pub applied_term: u64,
}

/// Sizes of the store, in bytes and numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What etcd calls dbSize.
    pub total_bytes: u64,
    /// What etcd calls dbSizeInUse.
    pub in_use_bytes: u64,
    /// Live keys.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
}

/// A lease as a reader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id.
    pub id: i64,
    /// Granted time to live in seconds.
    pub granted_ttl: i64,
    /// The lease clock, in milliseconds, at which it ends.
    pub deadline_ms: u64,
    /// Keys attached, sorted, if asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// Answer to HashKV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// Sum modulo 2^32 of the CRC-32C of each visible version (see design: any order gives it).
    pub hash: u32,
    /// The compaction revision.
    pub compact_revision: i64,
    /// The revision hashed.
    pub hash_revision: i64,
    /// The store's current revision.
    pub current_revision: i64,
}

/// Who votes and who learns, as raft has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters.
    pub voters: Vec<u64>,
    /// Learners.
    pub learners: Vec<u64>,
    /// Voters of the outgoing half of a joint configuration.
    pub voters_outgoing: Vec<u64>,
    /// Learners to be once the joint configuration is left.
    pub learners_next: Vec<u64>,
    /// Whether raft leaves the joint configuration by itself.
    pub auto_leave: bool,
}

impl Store {
    /// An empty store.
    pub fn new() -> Store {
        unimplemented!()
    }

    /// Opens a write transaction.
    pub fn begin(&mut self) -> WriteTx<'_> {
        unimplemented!()
    }

    /// A reader's end.
    pub fn reader(&self) -> StoreReader {
        unimplemented!()
    }

    /// Index of the last entry applied and published.
    pub fn applied(&self) -> u64 {
        unimplemented!()
    }

    /// The lease clock as of the last command applied, in milliseconds.
    pub fn lease_clock_ms(&self) -> u64 {
        unimplemented!()
    }

    /// Up to `limit` leases whose deadline is at or before `clock_ms`, the earliest first.
    pub fn expired_leases(&self, clock_ms: u64, limit: usize) -> Vec<i64> {
        let _ = (clock_ms, limit);
        unimplemented!()
    }

    /// The earliest deadline of all leases, on the lease clock.
    pub fn next_lease_deadline_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Who votes, as last applied.
    pub fn conf_state(&self) -> ConfState {
        unimplemented!()
    }

    /// Removes up to `budget` superseded versions physically; true while more is left to do.
    pub fn compact_step(&mut self, budget: usize) -> bool {
        let _ = budget;
        unimplemented!()
    }
}

impl WriteTx<'_> {
    /// Applies the command of entry `index`, which must be the one after the last.
    pub fn apply(&mut self, index: u64, term: u64, stamped: &Stamped) -> Applied {
        let _ = (index, term, stamped, &self.store);
        unimplemented!()
    }

    /// Counts entry `index`, which carries no command, as applied.
    pub fn skip(&mut self, index: u64, term: u64) {
        let _ = (index, term);
        unimplemented!()
    }

    /// Sets who votes (together with the entry being applied).
    pub fn set_conf_state(&mut self, conf: ConfState) {
        let _ = conf;
        unimplemented!()
    }

    /// Makes the batch visible.
    pub fn publish(self) -> Published {
        unimplemented!()
    }
}

impl StoreReader {
    /// Where the published state stands.
    pub fn position(&self) -> Position {
        unimplemented!()
    }

    /// A range at the newest or an older revision.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, Refusal> {
        let _ = request;
        unimplemented!()
    }

    /// A txn without writes; the header revision is `.0`.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<(i64, TxnReply), Refusal> {
        let _ = request;
        unimplemented!()
    }

    /// Events of `range` from revision `from` on, whole revisions, stopping once about `events_max` are gathered.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] when `from` is below the compaction revision.
    pub fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, Refusal> {
        let _ = (range, from, events_max);
        unimplemented!()
    }

    /// Hash of the versions visible at `revision` (0: the current one).
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Refusal> {
        let _ = revision;
        unimplemented!()
    }

    /// One lease.
    pub fn lease(&self, id: i64, with_keys: bool) -> Option<LeaseInfo> {
        let _ = (id, with_keys);
        unimplemented!()
    }

    /// All leases, the first to end first.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        unimplemented!()
    }

    /// Alarms that are up, sorted.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        unimplemented!()
    }

    /// The cluster's id, 0 before the bootstrap command.
    pub fn cluster_id(&self) -> u64 {
        unimplemented!()
    }

    /// Its members, by id.
    pub fn members(&self) -> Vec<Member> {
        unimplemented!()
    }

    /// Sizes, in constant time.
    pub fn sizes(&self) -> Sizes {
        unimplemented!()
    }
}
