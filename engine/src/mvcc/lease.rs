//! Leases and the replicated clock they end by.
//!
//! Every command carries the leader's lease clock; the store's is the latest one seen. A deadline is the clock at the grant
//! or the last renewal plus the time to live. A lease past its deadline still stands (keys may still be attached to it)
//! until a command ends it, and can be renewed for as long as its holder may count on it: its time is counted there from the
//! answer, up to [`LAG_MS_MAX`] later.

use super::apply::Mvcc;
use super::cell::{deadline_key, lease_key, lease_value, read_deadline_key, read_lease_value};
use super::view::View;
use crate::command::Reply;
use crate::error::{ReadError, Refusal};
use crate::lease_clock::LAG_MS_MAX;
use crate::pager::page::TreeId;
use crate::pager::{Paged, Pages, PagesMut};
use crate::store::LeaseInfo;
use bytes::Bytes;

/// The longest time to live in seconds (etcd's MaxLeaseTTL).
pub(super) const TTL_SECONDS_MAX: i64 = 9_000_000_000;

fn deadline(clock_ms: u64, ttl: i64) -> u64 {
    clock_ms.saturating_add(u64::try_from(ttl).unwrap_or(0).saturating_mul(1000))
}

/// The key under which a lease's attachment stands.
pub(super) fn attachment_key(id: i64, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&lease_key(id));
    out.extend_from_slice(key);
}

impl<P: Pages> View<'_, P> {
    /// Time to live and deadline of a lease.
    pub(super) fn lease_times(&self, id: i64) -> Paged<Option<(i64, u64)>> {
        match self.get(TreeId::Leases, &lease_key(id))? {
            Some(value) => self.read(TreeId::Leases, read_lease_value(value)).map(Some),
            None => Ok(None),
        }
    }

    /// One lease.
    ///
    /// # Errors
    /// The fault met.
    pub fn lease(&self, id: i64, with_keys: bool) -> Paged<Option<LeaseInfo>> {
        let Some((granted_ttl, deadline_ms)) = self.lease_times(id)? else { return Ok(None) };
        let keys = if with_keys { self.lease_keys(id)? } else { Vec::new() };
        Ok(Some(LeaseInfo { id, granted_ttl, deadline_ms, keys }))
    }

    /// The keys attached to a lease, sorted.
    pub(super) fn lease_keys(&self, id: i64) -> Paged<Vec<Bytes>> {
        let prefix = lease_key(id);
        let mut cursor = self.cursor(TreeId::LeaseKeys);
        cursor.seek(&prefix)?;
        let mut keys = Vec::new();
        while let Some((key, _)) = cursor.next()? {
            let Some(key) = key.strip_prefix(&prefix) else { break };
            keys.push(Bytes::copy_from_slice(key));
        }
        Ok(keys)
    }

    /// All leases, the first to end first, without their keys.
    ///
    /// # Errors
    /// The fault met.
    pub fn leases(&self) -> Paged<Vec<LeaseInfo>> {
        let mut cursor = self.cursor(TreeId::Deadlines);
        let mut leases = Vec::new();
        while let Some((key, _)) = cursor.next()? {
            let (_, id) = self.read(TreeId::Deadlines, read_deadline_key(&key))?;
            leases.extend(self.lease(id, false)?);
        }
        Ok(leases)
    }

    /// Up to `limit` leases whose deadline is at or before `clock_ms`, the earliest first.
    ///
    /// # Errors
    /// The fault met.
    pub fn expired_leases(&self, clock_ms: u64, limit: usize) -> Paged<Vec<i64>> {
        let mut cursor = self.cursor(TreeId::Deadlines);
        let mut expired = Vec::new();
        while expired.len() < limit {
            let Some((key, _)) = cursor.next()? else { break };
            let (deadline_ms, id) = self.read(TreeId::Deadlines, read_deadline_key(&key))?;
            if deadline_ms > clock_ms {
                break;
            }
            expired.push(id);
        }
        Ok(expired)
    }

    /// The earliest deadline.
    ///
    /// # Errors
    /// The fault met.
    pub fn next_lease_deadline_ms(&self) -> Paged<Option<u64>> {
        match self.cursor(TreeId::Deadlines).next()? {
            Some((key, _)) => self
                .read(TreeId::Deadlines, read_deadline_key(&key))
                .map(|(deadline_ms, _)| Some(deadline_ms)),
            None => Ok(None),
        }
    }
}

impl<P: PagesMut> Mvcc<P> {
    pub(super) fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<Reply, ReadError> {
        if id == 0 {
            return Err(Refusal::LeaseNotFound.into());
        }
        if ttl > TTL_SECONDS_MAX {
            return Err(Refusal::LeaseTtlTooLarge.into());
        }
        if self.view().lease_times(id)?.is_some() {
            return Err(Refusal::LeaseExist.into());
        }
        let deadline_ms = deadline(self.standing.clock_ms, ttl);
        self.insert(TreeId::Leases, &lease_key(id), &lease_value(ttl, deadline_ms))?;
        self.insert(TreeId::Deadlines, &deadline_key(deadline_ms, id), &[])?;
        Ok(Reply::LeaseGrant { id, ttl })
    }

    /// Ends a lease and deletes its keys, sorted, in one revision.
    pub(super) fn lease_revoke(&mut self, id: i64) -> Result<(), ReadError> {
        let (_, deadline_ms) = self.view().lease_times(id)?.ok_or(Refusal::LeaseNotFound)?;
        let keys = self.view().lease_keys(id)?;
        let mut writer = self.writer();
        for key in &keys {
            writer.delete_attached(key)?;
        }
        writer.finish();
        self.remove(TreeId::Leases, &lease_key(id))?;
        self.remove(TreeId::Deadlines, &deadline_key(deadline_ms, id))?;
        Ok(())
    }

    /// Gives leases their full time again; their times to live, 0 of one that is not there or was over.
    pub(super) fn lease_renew(&mut self, ids: &[i64]) -> Paged<Vec<i64>> {
        ids.iter().map(|id| Ok(self.renew(*id)?.unwrap_or(0))).collect()
    }

    fn renew(&mut self, id: i64) -> Paged<Option<i64>> {
        let clock_ms = self.standing.clock_ms;
        let times = self.view().lease_times(id)?;
        let stands = |(_, deadline_ms): &(i64, u64)| deadline_ms.saturating_add(LAG_MS_MAX) > clock_ms;
        let Some((ttl, deadline_ms)) = times.filter(stands) else { return Ok(None) };
        let renewed_ms = deadline(clock_ms, ttl);
        if renewed_ms != deadline_ms {
            self.insert(TreeId::Leases, &lease_key(id), &lease_value(ttl, renewed_ms))?;
            self.remove(TreeId::Deadlines, &deadline_key(deadline_ms, id))?;
            self.insert(TreeId::Deadlines, &deadline_key(renewed_ms, id), &[])?;
        }
        Ok(Some(ttl))
    }

    /// Ends a lease if its time is over; whether it was.
    pub(super) fn lease_expire(&mut self, id: i64) -> Result<bool, ReadError> {
        let times = self.view().lease_times(id)?;
        let is_over = times.is_some_and(|(_, deadline_ms)| deadline_ms <= self.standing.clock_ms);
        if is_over {
            self.lease_revoke(id)?;
        }
        Ok(is_over)
    }
}
