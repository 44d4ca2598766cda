//! The whole logical state, to compare; and the check of every rule of the model.

use super::keys::{KeyHistory, Version};
use super::{EMPTY_STORE_BYTES, Model, NEVER_COMPACTED, version_bytes};
use crate::command::{AlarmMember, Member};
use crate::mvcc::Revision;
use crate::store::{ConfState, LeaseInfo};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Everything that answers depend on. How far compaction has come with removing is left out: no answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Index of the last entry applied.
    pub applied: u64,
    /// Its term.
    pub applied_term: u64,
    /// Current revision.
    pub revision: i64,
    /// Compaction revision.
    pub compacted: i64,
    /// The lease clock in milliseconds.
    pub clock_ms: u64,
    /// All visible versions, by revision.
    pub versions: Vec<Version>,
    /// Leases with their keys, the first to end first.
    pub leases: Vec<LeaseInfo>,
    /// Alarms that are up.
    pub alarms: Vec<AlarmMember>,
    /// The cluster's id.
    pub cluster_id: u64,
    /// Its members.
    pub members: Vec<Member>,
    /// Who votes.
    pub conf: ConfState,
}

impl State {
    /// A number that is equal where the states are, within one build of the program.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

type Checked = Result<(), String>;

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(rule()) }
}

impl Model {
    /// A copy of the whole logical state.
    pub fn state(&self) -> State {
        let leases = self.leases.by_deadline().filter_map(|(_, id)| self.lease(id, true));
        State {
            applied: self.applied,
            applied_term: self.applied_term,
            revision: self.revision,
            compacted: self.compacted,
            clock_ms: self.clock_ms,
            versions: self.revisions.values().filter(|version| self.is_visible(version)).cloned().collect(),
            leases: leases.collect(),
            alarms: self.alarms(),
            cluster_id: self.cluster_id,
            members: self.members(),
            conf: self.conf.clone(),
        }
    }

    /// Checks every rule of the model.
    ///
    /// # Errors
    /// The first rule found broken, in words.
    pub fn check(&self) -> Checked {
        self.check_same_versions()?;
        for history in self.keys.values() {
            self.check_history(history)?;
        }
        self.check_revisions_complete()?;
        self.check_compaction()?;
        self.check_leases()?;
        self.check_sizes()
    }

    fn check_same_versions(&self) -> Checked {
        let in_keys: usize = self.keys.values().map(|history| history.versions().count()).sum();
        ensure(in_keys == self.revisions.len(), || {
            format!("keys hold {in_keys} versions, revisions {}", self.revisions.len())
        })?;
        for (key, history) in &self.keys {
            for version in history.versions() {
                ensure(version.kv.key == key, || format!("version {version:?} stands under key {key:?}"))?;
                ensure(self.revisions.get(&version.revision) == Some(version), || {
                    format!(
                        "version {version:?} has another record: {:?}",
                        self.revisions.get(&version.revision)
                    )
                })?;
            }
        }
        Ok(())
    }

    fn check_history(&self, history: &KeyHistory) -> Checked {
        let mut before: Option<&Version> = None;
        for version in history.versions() {
            let kv = &version.kv;
            let live_before = before.and_then(Version::live);
            ensure(before.is_none_or(|before| before.revision < version.revision), || {
                format!("versions out of order: {before:?}, {version:?}")
            })?;
            ensure(kv.mod_revision == version.revision.main, || format!("mod revision of {version:?}"))?;
            let begins = kv.version == 1 && kv.create_revision == kv.mod_revision;
            let goes_on = |prev: &crate::mvcc::KeyValue| {
                kv.version == prev.version + 1 && kv.create_revision == prev.create_revision
            };
            // the versions before the oldest one kept are gone
            let may_be_cut = before.is_none() && version.revision.main <= self.compacted;
            let is_right = match live_before {
                Some(_) if version.tombstone => true,
                Some(prev) => goes_on(prev),
                None if version.tombstone => may_be_cut,
                None => begins || may_be_cut,
            };
            ensure(is_right, || format!("{version:?} cannot follow {before:?}"))?;
            before = Some(version);
        }
        Ok(())
    }

    /// Above the compaction revision no record is missing: mains without a gap, subs from 0.
    fn check_revisions_complete(&self) -> Checked {
        let first = self.compacted.max(1) + 1;
        let mut expected = Revision { main: first, sub: 0 };
        for revision in self.revisions.range(expected..).map(|(revision, _)| *revision) {
            let begins_next = revision == Revision { main: expected.main + 1, sub: 0 } && expected.sub > 0;
            ensure(revision == expected || begins_next, || {
                format!("record {revision:?} where {expected:?} is due")
            })?;
            expected = Revision { sub: revision.sub + 1, ..revision };
        }
        let last = if expected.sub > 0 { expected.main } else { first - 1 };
        ensure(last == self.revision.max(first - 1), || {
            format!("last record is of revision {last}, the current revision is {}", self.revision)
        })
    }

    fn check_compaction(&self) -> Checked {
        let ordered = NEVER_COMPACTED <= self.compaction_done
            && self.compaction_done <= self.compacted
            && self.compacted <= self.revision;
        ensure(ordered, || format!("{:?}", self.position()))?;
        let hidden = self.revisions.values().find(|version| !self.survives(version));
        ensure(self.compaction_done < self.compacted || hidden.is_none(), || {
            format!("compaction to {} is done and left {hidden:?}", self.compacted)
        })
    }

    fn check_leases(&self) -> Checked {
        for kv in self.keys.values().filter_map(|history| history.newest().live()).filter(|kv| kv.lease != 0)
        {
            let lease = self.lease(kv.lease, true);
            ensure(lease.is_some_and(|lease| lease.keys.contains(&kv.key)), || {
                format!("key {:?} names lease {}, which does not name it", kv.key, kv.lease)
            })?;
        }
        for (id, lease) in self.leases.iter() {
            for key in &lease.keys {
                ensure(self.live(key).is_some_and(|kv| kv.lease == id), || {
                    format!("lease {id} names key {key:?}, which does not name it")
                })?;
            }
            ensure(self.leases.by_deadline().any(|entry| entry == (lease.deadline_ms, id)), || {
                format!("lease {id} is missing among the deadlines")
            })?;
        }
        ensure(self.leases.by_deadline().count() == self.leases.len(), || {
            "a deadline without its lease".to_owned()
        })
    }

    fn check_sizes(&self) -> Checked {
        let versions: u64 = self.revisions.values().map(|version| version_bytes(&version.kv)).sum();
        let bytes = EMPTY_STORE_BYTES + versions + self.lease_bytes();
        ensure(bytes == self.bytes, || format!("{bytes} bytes by a recount, {} kept", self.bytes))?;
        let live = self.keys.values().filter(|history| history.newest().live().is_some()).count() as u64;
        ensure(live == self.live_keys, || format!("{live} live keys by a recount, {} kept", self.live_keys))
    }
}
