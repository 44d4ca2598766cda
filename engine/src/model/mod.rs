//! The whole store in memory, slow and obvious: what the store's answers are judged by.
//!
//! | room | what it does |
//! |---|---|
//! | [`keys`] | one key through its life: its versions, and which of them a revision sees |
//! | `write` | puts and deletes within one main revision |
//! | `txn` | compares against the state before, checks the path taken, then runs it |
//! | `range` | reads at any kept revision |
//! | `compact` | what compaction hides at once and removes later |
//! | `lease` | leases and the replicated clock |
//! | `history` | events for a watcher that is behind |
//! | `hash` | HashKV |
//! | `cluster` | members, who votes, alarms |
//! | [`state`] | the whole logical state, to compare; and the check of every rule below |
//!
//! Two collections hold every version, sharing its bytes: `keys`, by key, each with its versions in order; and
//! `revisions`, by (main, sub).
//!
//! Rules, checked by [`Model::check`]:
//! 1. A command that changes a key adds exactly one main revision; its changes are numbered by sub from 0, and every
//!    revision above the compaction revision has all its records.
//! 2. `keys` and `revisions` hold the same versions.
//! 3. Within a generation each put adds one to the version; a tombstone follows a put.
//! 4. *Visibility is logical*: with compaction revision c, a version at or below c exists iff it is its key's newest at
//!    or below c and no tombstone below c. No answer depends on what has been removed physically.
//! 5. A live key names its lease exactly when the lease names the key.
//! 6. Sizes equal a recount.
//!
//! Left to others: the form of requests (checked at the door), the quota, the order of entries ([`crate::store`]).

mod cluster;
mod compact;
mod hash;
mod history;
pub mod keys;
mod lease;
mod range;
pub mod state;
mod txn;
mod write;

use crate::command::{AlarmKind, AlarmMember, Applied, Command, Member, Reply, Stamped};
use crate::error::Refusal;
use crate::mvcc::{Event, KeyValue, Revision};
use crate::quota;
use crate::store::{ConfState, Position, Sizes};
use bytes::Bytes;
pub use history::HISTORY_RECORDS_MAX;
use keys::{KeyHistory, Version};
use lease::Leases;
pub use lease::TTL_SECONDS_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// What an empty store counts as: the page or two a file would have.
pub const EMPTY_STORE_BYTES: u64 = 4096;
/// What a version costs beside its key and value: its entries in both collections and the key-value's fields.
pub const VERSION_OVERHEAD_BYTES: u64 = 256;
/// What a lease costs.
pub const LEASE_BYTES: u64 = 64;
/// What each key attached to a lease costs.
pub const ATTACHMENT_BYTES: u64 = 64;

/// Revision of the empty store.
const FIRST_REVISION: i64 = 1;
/// Compaction revision before the first compaction.
const NEVER_COMPACTED: i64 = -1;

/// The store's state.
#[derive(Debug)]
pub struct Model {
    keys: BTreeMap<Bytes, KeyHistory>,
    revisions: BTreeMap<Revision, Version>,
    revision: i64,
    compacted: i64,
    compaction_done: i64,
    /// Where the walk of compaction goes on.
    compaction_next: Revision,
    leases: Leases,
    clock_ms: u64,
    alarms: BTreeSet<AlarmMember>,
    bootstrapped: bool,
    cluster_id: u64,
    members: BTreeMap<u64, Member>,
    conf: ConfState,
    applied: u64,
    applied_term: u64,
    live_keys: u64,
    bytes: u64,
    /// Events not yet published.
    events: Vec<Event>,
}

impl Default for Model {
    fn default() -> Model {
        Model::new()
    }
}

impl Model {
    /// An empty store.
    pub fn new() -> Model {
        Model {
            keys: BTreeMap::new(),
            revisions: BTreeMap::new(),
            revision: FIRST_REVISION,
            compacted: NEVER_COMPACTED,
            compaction_done: NEVER_COMPACTED,
            compaction_next: Revision::default(),
            leases: Leases::default(),
            clock_ms: 0,
            alarms: BTreeSet::new(),
            bootstrapped: false,
            cluster_id: 0,
            members: BTreeMap::new(),
            conf: ConfState::default(),
            applied: 0,
            applied_term: 0,
            live_keys: 0,
            bytes: EMPTY_STORE_BYTES,
            events: Vec::new(),
        }
    }

    /// Applies the command of entry `index`.
    pub fn apply(&mut self, index: u64, term: u64, stamped: &Stamped) -> Applied {
        self.skip(index, term);
        self.clock_ms = self.clock_ms.max(stamped.clock_ms);
        let outcome = match self.refused_by_alarm(&stamped.command) {
            Some(refusal) => Err(refusal),
            None => self.dispatch(&stamped.command),
        };
        Applied { revision: self.revision, outcome }
    }

    /// Counts entry `index` as applied.
    ///
    /// # Panics
    /// When it is not the entry after the last one: applying in another order would tear members apart.
    pub fn skip(&mut self, index: u64, term: u64) {
        assert_eq!(index, self.applied + 1, "entries are applied in the order of their indexes");
        self.applied = index;
        self.applied_term = term;
    }

    fn dispatch(&mut self, command: &Command) -> Result<Reply, Refusal> {
        match command {
            Command::Put(put) => self.put(put).map(Reply::Put),
            Command::DeleteRange(delete) => Ok(Reply::DeleteRange(self.delete_range(delete))),
            Command::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Command::Compact { revision } => self.compact(*revision).map(|()| Reply::Compact),
            Command::LeaseGrant { id, ttl } => self.lease_grant(*id, *ttl),
            Command::LeaseRevoke { id } => self.lease_revoke(*id).map(|()| Reply::LeaseRevoke),
            Command::LeaseRenew { ids } => Ok(Reply::LeaseRenew(self.lease_renew(ids))),
            Command::LeaseExpire { id } => Ok(Reply::LeaseExpire(self.lease_expire(*id))),
            Command::Alarm(alarm) => Ok(Reply::Alarm(self.alarm(alarm))),
            Command::Bootstrap { cluster_id, members } => {
                self.bootstrap(*cluster_id, members);
                Ok(Reply::Bootstrap)
            }
            Command::MemberAttributes { id, name, client_urls } => {
                self.member_attributes(*id, name, client_urls).map(|()| Reply::MemberAttributes)
            }
        }
    }

    /// What the alarms that are up refuse, on every member alike: CORRUPT every change of keys and leases, NOSPACE what
    /// needs room. Renewals, alarms and membership go through.
    fn refused_by_alarm(&self, command: &Command) -> Option<Refusal> {
        let is_up = |kind| self.alarms.iter().any(|up| up.alarm == kind);
        if self.alarms.is_empty() {
            return None;
        }
        let changes_data = match command {
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. } => true,
            Command::LeaseRenew { .. }
            | Command::Alarm(_)
            | Command::Bootstrap { .. }
            | Command::MemberAttributes { .. } => false,
        };
        if changes_data && is_up(AlarmKind::Corrupt) {
            Some(Refusal::Corrupt)
        } else if quota::cost(command) > 0 && is_up(AlarmKind::NoSpace) {
            Some(Refusal::NoSpace)
        } else {
            None
        }
    }

    /// The events since this was last called.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Where the state stands.
    pub fn position(&self) -> Position {
        Position {
            revision: self.revision,
            compacted: self.compacted,
            compaction_done: self.compaction_done,
            applied: self.applied,
            applied_term: self.applied_term,
        }
    }

    /// Sizes, in constant time. Nothing is kept that is not in use, so both sizes are the same.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            total_bytes: self.bytes,
            in_use_bytes: self.bytes,
            keys: self.live_keys,
            leases: self.leases.len() as u64,
        }
    }

    /// The lease clock in milliseconds.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }
}

/// What a version adds to the store's size.
fn version_bytes(kv: &KeyValue) -> u64 {
    VERSION_OVERHEAD_BYTES + kv.key.len() as u64 + kv.value.len() as u64
}
