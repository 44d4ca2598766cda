//! What one transaction left: the roots of all trees, and where the state stands. Never changed once published.

use super::page::{ChildRef, TREES, TreeId};
use crate::command::{AlarmMember, Member};
use crate::mvcc::Revision;
use crate::store::ConfState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state as of one transaction.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// The transaction; 0 for the empty store.
    pub tx: u64,
    /// Roots of the trees by [`TreeId::place`]; an empty tree has no page.
    pub trees: [Option<ChildRef>; TREES],
    /// Where the state stands.
    pub standing: Standing,
    /// Who is in the cluster; also in [`TreeId::State`], from which it is read at opening.
    pub cluster: Arc<Cluster>,
    /// Pages in use: those this root reaches, metas, directories and bitmap blocks.
    pub pages_used: u64,
    /// The highest page in use, plus one.
    pub pages_end: u64,
}

impl Root {
    /// A tree's root.
    pub fn tree(&self, tree: TreeId) -> Option<ChildRef> {
        self.trees[tree.place()]
    }
}

/// The numbers that every transaction may change; they stand in the meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Index of the last entry applied.
    pub applied: u64,
    /// Its term.
    pub applied_term: u64,
    /// Current revision (1 for an empty store).
    pub revision: i64,
    /// Compaction revision (-1 before the first).
    pub compacted: i64,
    /// Highest compaction revision whose physical removal is done (-1 before the first).
    pub compaction_done: i64,
    /// Where the walk of compaction goes on.
    pub compaction_next: Revision,
    /// The lease clock in milliseconds.
    pub clock_ms: u64,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing {
            applied: 0,
            applied_term: 0,
            revision: 1,
            compacted: -1,
            compaction_done: -1,
            compaction_next: Revision::default(),
            clock_ms: 0,
        }
    }
}

/// Who is in the cluster, who votes, which alarms are up: small, so readers have it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Whether the bootstrap command was applied.
    pub bootstrapped: bool,
    /// The cluster's id, 0 before.
    pub cluster_id: u64,
    /// Its members by id.
    pub members: BTreeMap<u64, Member>,
    /// Who votes.
    pub conf: ConfState,
    /// Alarms that are up.
    pub alarms: BTreeSet<AlarmMember>,
}
