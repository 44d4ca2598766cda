//! One key through its life.
//!
//! ```text
//! revision    4.0   5.0   7.2t  9.0   9.1        t: tombstone
//! version     1     2     -     1     2
//!             \__________/      \______ ...      generations
//! seen at     4     5..6  none  none  9..        by a read at that main revision (9.0 is never seen)
//! ```

use crate::mvcc::{KeyValue, Revision};
use std::collections::VecDeque;
use std::sync::Arc;

/// One version of a key: a value, or the tombstone that ended a generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// When it was made.
    pub revision: Revision,
    /// The key-value; of a tombstone only key and mod revision are set.
    pub kv: Arc<KeyValue>,
    /// Whether it is a tombstone.
    pub tombstone: bool,
}

impl Version {
    /// The key-value, `None` of a tombstone.
    pub fn live(&self) -> Option<&Arc<KeyValue>> {
        (!self.tombstone).then_some(&self.kv)
    }
}

/// A key's versions in the order of their revisions; at least one.
#[derive(Debug)]
pub struct KeyHistory {
    /// The newest, apart from the others because most keys have only it.
    newest: Version,
    /// The others, oldest first.
    older: VecDeque<Version>,
}

impl KeyHistory {
    /// The history of a key with one version.
    pub fn new(first: Version) -> KeyHistory {
        KeyHistory { newest: first, older: VecDeque::new() }
    }

    /// Adds a version newer than all others.
    pub fn push(&mut self, version: Version) {
        assert!(
            self.newest.revision < version.revision,
            "a key's versions are made in the order of their revisions"
        );
        let before = std::mem::replace(&mut self.newest, version);
        self.older.push_back(before);
    }

    /// The newest version.
    pub fn newest(&self) -> &Version {
        &self.newest
    }

    /// The newest version at or below a main revision.
    pub fn at(&self, main: i64) -> Option<&Version> {
        if self.newest.revision.main <= main {
            return Some(&self.newest);
        }
        let position = self.older.partition_point(|version| version.revision.main <= main);
        self.older.get(position.checked_sub(1)?)
    }

    /// The key-value that a read at a main revision sees.
    pub fn live_at(&self, main: i64) -> Option<&Arc<KeyValue>> {
        self.at(main).and_then(Version::live)
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.older.iter().chain(std::iter::once(&self.newest))
    }

    /// Removes the version before the one at `revision`, which must be here.
    pub fn remove_before(&mut self, revision: Revision) -> Option<Version> {
        let position = self.older.partition_point(|version| version.revision < revision);
        self.remove_older(position.checked_sub(1)?)
    }

    /// Removes the version at `revision`; `None` if it is the newest, which only goes with the whole key.
    pub fn remove(&mut self, revision: Revision) -> Option<Version> {
        let position = self.older.binary_search_by(|version| version.revision.cmp(&revision)).ok()?;
        self.remove_older(position)
    }

    fn remove_older(&mut self, position: usize) -> Option<Version> {
        let removed = self.older.remove(position);
        if self.older.is_empty() {
            // the memory of a history that was long once goes too
            self.older = VecDeque::new();
        }
        removed
    }
}

impl Version {
    /// Appends the key-value's bytes as they are hashed: a tombstone's has the key alone.
    pub(super) fn stored_kv(&self, out: &mut Vec<u8>) {
        if self.tombstone {
            KeyValue { key: self.kv.key.clone(), ..KeyValue::default() }.encode(out);
        } else {
            self.kv.encode(out);
        }
    }
}
