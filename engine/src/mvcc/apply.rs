//! The writer: applies commands to the trees of the transaction that is open, publishes them.

use super::record::Event;
use super::revision::Revision;
use super::told::Told;
use super::view::View;
use crate::btree::{self, Action};
use crate::command::{AlarmKind, Applied, Command, Reply, Stamped};
use crate::error::{ReadError, Refusal};
use crate::pager::page::{ChildRef, TREES, TreeId};
use crate::pager::root::{Cluster, Standing};
use crate::pager::{Paged, PagesMut};
use crate::quota;
use crate::store::{ConfState, Position};
use std::sync::Arc;

/// The state with all that may change it. Nothing in it grows with the data: what there is stands in the trees.
///
/// After a fault it must not be published or changed any more: the command that met it is done in part.
pub struct Mvcc<P> {
    pub(super) pages: P,
    pub(super) trees: [Option<ChildRef>; TREES],
    pub(super) standing: Standing,
    /// Also in [`TreeId::State`].
    pub(super) cluster: Arc<Cluster>,
    /// Where the walk of compaction began: what stands before it was left by earlier ones. Of a walk that is gone on with after
    /// opening, where it goes on; a few records more are then looked for in vain.
    pub(super) walk_begin: Revision,
    /// Versions that compaction has removed since this state was opened.
    pub(super) versions_removed: u64,
    /// Events not yet published.
    pub(super) events: Vec<Event>,
    /// Whether there are any: while a log is replayed nobody watches, and what a change replaced need not be read for it.
    pub(super) tells: bool,
    /// Their bytes.
    pub(super) told: Told,
    pub(super) scratch: Scratch,
}

/// Vectors that every change needs, kept from one to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// The entry a change makes.
    pub(super) entry: Vec<u8>,
    /// The entry it is made over.
    pub(super) before: Vec<u8>,
    /// The heads of its spine.
    pub(super) heads: Vec<u8>,
    /// Its record.
    pub(super) record: Vec<u8>,
    /// A previous body whose value was moved to a run.
    pub(super) moved: Vec<u8>,
    /// The key of an attachment.
    pub(super) attachment: Vec<u8>,
}

impl<P: PagesMut> Mvcc<P> {
    /// The empty state, over pages that hold nothing.
    pub fn new(pages: P) -> Mvcc<P> {
        Mvcc {
            pages,
            trees: [None; TREES],
            standing: Standing::default(),
            cluster: Arc::default(),
            walk_begin: Revision::default(),
            versions_removed: 0,
            events: Vec::new(),
            tells: true,
            told: Told::default(),
            scratch: Scratch::default(),
        }
    }

    /// Applies the command of entry `index`.
    ///
    /// # Errors
    /// The fault met: the command is done in part.
    ///
    /// # Panics
    /// As [`Mvcc::skip`].
    pub fn apply(&mut self, index: u64, term: u64, stamped: &Stamped) -> Paged<Applied> {
        self.skip(index, term);
        self.standing.clock_ms = self.standing.clock_ms.max(stamped.clock_ms);
        let outcome = match self.refused_by_alarm(&stamped.command) {
            Some(refusal) => Err(refusal),
            None => match self.dispatch(&stamped.command) {
                Ok(reply) => Ok(reply),
                Err(ReadError::Refused(refusal)) => Err(refusal),
                Err(ReadError::Fault(fault)) => return Err(fault),
            },
        };
        Ok(Applied { revision: self.standing.revision, outcome })
    }

    /// Counts entry `index` as applied.
    ///
    /// # Panics
    /// When it is not the entry after the last one: applying in another order would tear members apart.
    pub fn skip(&mut self, index: u64, term: u64) {
        assert_eq!(index, self.standing.applied + 1, "entries are applied in the order of their indexes");
        self.standing.applied = index;
        self.standing.applied_term = term;
    }

    fn dispatch(&mut self, command: &Command) -> Result<Reply, ReadError> {
        match command {
            Command::Put(put) => self.put(put).map(Reply::Put),
            Command::DeleteRange(delete) => Ok(Reply::DeleteRange(self.delete_range(delete)?)),
            Command::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Command::Compact { revision } => Ok(self.compact(*revision).map(|()| Reply::Compact)?),
            Command::LeaseGrant { id, ttl } => self.lease_grant(*id, *ttl),
            Command::LeaseRevoke { id } => self.lease_revoke(*id).map(|()| Reply::LeaseRevoke),
            Command::LeaseRenew { ids } => Ok(Reply::LeaseRenew(self.lease_renew(ids)?)),
            Command::LeaseExpire { id } => self.lease_expire(*id).map(Reply::LeaseExpire),
            Command::Alarm(alarm) => Ok(Reply::Alarm(self.alarm(alarm)?)),
            Command::Bootstrap { cluster_id, members } => {
                self.bootstrap(*cluster_id, members)?;
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
        let is_up = |kind| self.cluster.alarms.iter().any(|up| up.alarm == kind);
        if self.cluster.alarms.is_empty() {
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

    /// Whether changes make events from now on.
    pub fn set_tells(&mut self, tells: bool) {
        self.tells = tells;
    }

    /// The events since this was last called.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.told.end();
        std::mem::take(&mut self.events)
    }

    /// The state as it is now, published or not.
    pub fn view(&self) -> View<'_, P> {
        View::new(&self.pages, &self.trees, &self.standing, &self.cluster, self.standing.revision)
    }

    /// Where the state stands, published or not.
    pub fn position(&self) -> Position {
        super::view::position(&self.standing)
    }

    /// The lease clock in milliseconds.
    pub fn clock_ms(&self) -> u64 {
        self.standing.clock_ms
    }

    /// Who votes.
    pub fn conf_state(&self) -> &ConfState {
        &self.cluster.conf
    }

    /// The pages below.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    /// The pages below, for what is not of the trees: checkpoints, completions.
    pub fn pages_mut(&mut self) -> &mut P {
        &mut self.pages
    }

    pub(super) fn insert(&mut self, tree: TreeId, key: &[u8], value: &[u8]) -> Paged<()> {
        btree::insert(&mut self.pages, tree, &mut self.trees[tree.place()], key, value).map(|_| ())
    }

    pub(super) fn remove(&mut self, tree: TreeId, key: &[u8]) -> Paged<bool> {
        btree::remove(&mut self.pages, tree, &mut self.trees[tree.place()], key)
    }

    /// Takes an entry out, with a copy of its value; whether it was there.
    pub(super) fn take(&mut self, tree: TreeId, key: &[u8], taken: &mut Vec<u8>) -> Paged<bool> {
        taken.clear();
        btree::upsert(&mut self.pages, tree, &mut self.trees[tree.place()], key, |value, _| match value {
            Some(value) => {
                taken.extend_from_slice(value);
                (Action::Remove, true)
            }
            None => (Action::Keep, false),
        })
    }
}
