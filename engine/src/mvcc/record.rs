//! A key's version, and the event that made it.

use bytes::Bytes;
use std::sync::Arc;

/// One version of a key, with etcd's bookkeeping.
///
/// Its bytes are the wire form of etcd's message `mvccpb.KeyValue` (fields in the order of their numbers, those at
/// their default left out), so that an answer can be put together from them:
///
/// ```text
/// 0a len key | 10 create_revision | 18 mod_revision | 20 version | 2a len value | 30 lease
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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

impl KeyValue {
    /// Appends the wire form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, 0x0a, &self.key);
        put_integer(out, 0x10, self.create_revision);
        put_integer(out, 0x18, self.mod_revision);
        put_integer(out, 0x20, self.version);
        put_bytes(out, 0x2a, &self.value);
        put_integer(out, 0x30, self.lease);
    }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// protobuf's int64: a negative number takes ten bytes.
fn put_integer(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.push(tag);
        put_varint(out, value as u64);
    }
}

/// Appends a little-endian base-128 number: seven bits a byte, the high bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
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
