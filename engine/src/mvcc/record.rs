//! A key's version, and the event that made it.

use bytes::Bytes;
use std::sync::Arc;

/// One version of a key, with etcd's bookkeeping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Main revision of the put that began this generation.
    pub create_revision: i64,
    /// Main revision of the put that made this version.
    pub mod_revision: i64,
    /// Number of puts since the generation began, from 1.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease it is attached to, 0 for none.
    pub lease: i64,
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A key got a new version.
    Put,
    /// A key was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The new version; of a delete only `key` and `mod_revision` (the revision of the delete) are set.
    pub kv: Arc<KeyValue>,
    /// The version before this event's main revision, if there was one and compaction has not taken it.
    pub prev_kv: Option<Arc<KeyValue>>,
}
