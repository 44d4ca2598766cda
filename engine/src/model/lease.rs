//! Leases and the replicated clock they end by.
//!
//! Every command carries the leader's lease clock; the store's is the latest one seen. A deadline is the clock at the grant
//! or the last renewal plus the time to live. A lease past its deadline still stands (keys may still be attached to it)
//! until a command ends it, and can be renewed for as long as its holder may count on it: its time is counted there from the
//! answer, up to [`LAG_MS_MAX`] later.

use super::{ATTACHMENT_BYTES, LEASE_BYTES, Model};
use crate::command::Reply;
use crate::error::Refusal;
use crate::lease_clock::LAG_MS_MAX;
use crate::store::LeaseInfo;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The longest time to live in seconds (etcd's MaxLeaseTTL).
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// One lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) ttl: i64,
    pub(super) deadline_ms: u64,
    pub(super) keys: BTreeSet<Bytes>,
}

/// All leases, by id and by deadline.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: BTreeMap<i64, Lease>,
    by_deadline: BTreeSet<(u64, i64)>,
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    /// Deadlines with their leases, the earliest first.
    pub(super) fn by_deadline(&self) -> impl Iterator<Item = (u64, i64)> {
        self.by_deadline.iter().copied()
    }

    /// Attaches a key; whether it was not attached before.
    pub(super) fn attach(&mut self, id: i64, key: &Bytes) -> bool {
        self.by_id.get_mut(&id).is_some_and(|lease| lease.keys.insert(key.clone()))
    }

    /// Detaches a key; whether it was attached.
    pub(super) fn detach(&mut self, id: i64, key: &[u8]) -> bool {
        self.by_id.get_mut(&id).is_some_and(|lease| lease.keys.remove(key))
    }

    fn insert(&mut self, id: i64, ttl: i64, deadline_ms: u64) {
        self.by_id.insert(id, Lease { ttl, deadline_ms, keys: BTreeSet::new() });
        self.by_deadline.insert((deadline_ms, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(lease) = self.by_id.remove(&id) {
            self.by_deadline.remove(&(lease.deadline_ms, id));
        }
    }

    /// Gives a lease its full time again from `clock_ms` on; its time to live, `None` if it is not there or was over.
    fn renew(&mut self, id: i64, clock_ms: u64) -> Option<i64> {
        let stands = |lease: &&mut Lease| lease.deadline_ms.saturating_add(LAG_MS_MAX) > clock_ms;
        let lease = self.by_id.get_mut(&id).filter(stands)?;
        self.by_deadline.remove(&(lease.deadline_ms, id));
        lease.deadline_ms = deadline(clock_ms, lease.ttl);
        self.by_deadline.insert((lease.deadline_ms, id));
        Some(lease.ttl)
    }

    fn info(&self, id: i64, with_keys: bool) -> Option<LeaseInfo> {
        self.by_id.get(&id).map(|lease| LeaseInfo {
            id,
            granted_ttl: lease.ttl,
            deadline_ms: lease.deadline_ms,
            keys: if with_keys { lease.keys.iter().cloned().collect() } else { Vec::new() },
        })
    }
}

fn deadline(clock_ms: u64, ttl: i64) -> u64 {
    clock_ms.saturating_add(u64::try_from(ttl).unwrap_or(0).saturating_mul(1000))
}

impl Model {
    pub(super) fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<Reply, Refusal> {
        if id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl > TTL_SECONDS_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains(id) {
            return Err(Refusal::LeaseExist);
        }
        self.leases.insert(id, ttl, deadline(self.clock_ms, ttl));
        self.bytes += LEASE_BYTES;
        Ok(Reply::LeaseGrant { id, ttl })
    }

    /// Ends a lease and deletes its keys, sorted, in one revision.
    pub(super) fn lease_revoke(&mut self, id: i64) -> Result<(), Refusal> {
        let lease = self.leases.by_id.get(&id).ok_or(Refusal::LeaseNotFound)?;
        let keys: Vec<_> = lease.keys.iter().filter_map(|key| self.live(key).cloned()).collect();
        let mut writer = self.writer();
        for kv in &keys {
            writer.delete(kv);
        }
        writer.finish();
        self.leases.remove(id);
        self.bytes -= LEASE_BYTES;
        Ok(())
    }

    pub(super) fn lease_renew(&mut self, ids: &[i64]) -> Vec<i64> {
        ids.iter().map(|id| self.leases.renew(*id, self.clock_ms).unwrap_or(0)).collect()
    }

    /// Ends a lease if its time is over; whether it was.
    pub(super) fn lease_expire(&mut self, id: i64) -> bool {
        let is_over = self.leases.by_id.get(&id).is_some_and(|lease| lease.deadline_ms <= self.clock_ms);
        is_over && self.lease_revoke(id).is_ok()
    }

    /// Up to `limit` leases whose deadline is at or before `clock_ms`, the earliest first.
    pub fn expired_leases(&self, clock_ms: u64, limit: usize) -> Vec<i64> {
        let over = self.leases.by_deadline().take_while(|(deadline_ms, _)| *deadline_ms <= clock_ms);
        over.take(limit).map(|(_, id)| id).collect()
    }

    /// The earliest deadline.
    pub fn next_lease_deadline_ms(&self) -> Option<u64> {
        self.leases.by_deadline().next().map(|(deadline_ms, _)| deadline_ms)
    }

    /// One lease.
    pub fn lease(&self, id: i64, with_keys: bool) -> Option<LeaseInfo> {
        self.leases.info(id, with_keys)
    }

    /// All leases, the first to end first, without their keys.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.leases.by_deadline().filter_map(|(_, id)| self.leases.info(id, false)).collect()
    }

    /// What leases and their attachments add to the store's size, counted anew.
    pub(super) fn lease_bytes(&self) -> u64 {
        self.leases.iter().map(|(_, lease)| LEASE_BYTES + ATTACHMENT_BYTES * lease.keys.len() as u64).sum()
    }
}
