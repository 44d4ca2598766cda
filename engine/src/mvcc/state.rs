//! The whole logical state, to compare.

use super::history::tombstone;
use super::record::KeyValue;
use super::versions::{Versions, everything};
use super::view::View;
use crate::command::{AlarmMember, Member};
use crate::model::keys::Version;
use crate::model::state::State;
use crate::pager::{Paged, Pages};
use crate::store::ConfState;
use bytes::Bytes;
use std::sync::Arc;

impl<P: Pages> View<'_, P> {
    /// A copy of the whole logical state.
    ///
    /// # Errors
    /// The fault met.
    pub fn state(&self) -> Paged<State> {
        let standing = self.standing;
        let mut leases = self.leases()?;
        for lease in &mut leases {
            lease.keys = self.lease_keys(lease.id)?;
        }
        Ok(State {
            applied: standing.applied,
            applied_term: standing.applied_term,
            revision: standing.revision,
            compacted: standing.compacted,
            clock_ms: standing.clock_ms,
            versions: self.versions()?,
            leases,
            alarms: self.alarms(),
            cluster_id: self.cluster.cluster_id,
            members: self.members(),
            conf: self.conf_state().clone(),
        })
    }

    /// All visible versions, by revision.
    fn versions(&self) -> Paged<Vec<Version>> {
        let range = everything();
        let mut keys = self.walk(&range, true)?;
        let mut all = Vec::new();
        while let Some((key, newest)) = keys.next()? {
            let mut versions = Versions::of(*self, &newest, self.current)?;
            while let Some((revision, body)) = versions.next()? {
                let kv: KeyValue = match &body {
                    Some(body) => self.key_value(&key, body)?,
                    None => tombstone(Bytes::copy_from_slice(&key), revision.main),
                };
                all.push(Version { revision, kv: Arc::new(kv), tombstone: body.is_none() });
            }
        }
        all.sort_by_key(|version| version.revision);
        Ok(all)
    }

    /// Alarms that are up, by member.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.cluster.alarms.iter().copied().collect()
    }

    /// The cluster's id, 0 before the bootstrap command.
    pub fn cluster_id(&self) -> u64 {
        self.cluster.cluster_id
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.cluster.members.values().cloned().collect()
    }

    /// Who votes.
    pub fn conf_state(&self) -> &ConfState {
        &self.cluster.conf
    }
}
