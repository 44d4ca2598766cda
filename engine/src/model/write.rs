//! Puts and deletes within one main revision.
//!
//! A [`Writer`] is one command at work. The main revision it writes at exists from its first change on; reads within the
//! command see what it has changed so far, because they look at the newest version of every key.

use super::keys::{KeyHistory, Version};
use super::{ATTACHMENT_BYTES, Model, version_bytes};
use crate::command::{DeleteRangeReply, DeleteRangeRequest, PutReply, PutRequest};
use crate::error::Refusal;
use crate::mvcc::{Event, EventKind, KeyValue, Revision};
use bytes::Bytes;
use std::sync::Arc;

/// Values up to this size are copied into the store: a slice of a receive buffer would keep all of the buffer alive.
/// Larger ones are most of their buffer and are shared.
const COPIED_VALUE_BYTES_MAX: usize = 4096;

/// One command changing keys.
pub(super) struct Writer<'a> {
    pub(super) model: &'a mut Model,
    /// The current revision before the command.
    begin: i64,
    /// Changes so far.
    changes: i64,
}

impl Model {
    pub(super) fn writer(&mut self) -> Writer<'_> {
        Writer { begin: self.revision, changes: 0, model: self }
    }

    pub(super) fn put(&mut self, put: &PutRequest) -> Result<PutReply, Refusal> {
        self.check_put(put)?;
        let mut writer = self.writer();
        let reply = writer.put(put);
        writer.finish();
        Ok(reply)
    }

    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeReply {
        let mut writer = self.writer();
        let reply = writer.delete_range(delete);
        writer.finish();
        reply
    }

    /// Whether a put may go ahead, by the state before its command.
    pub(super) fn check_put(&self, put: &PutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains(put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && self.live(&put.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    /// The newest key-value of a key that is there.
    pub(super) fn live(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.keys.get(key).and_then(|history| history.newest().live())
    }
}

impl Writer<'_> {
    /// The revision reads within the command are at: one more once it has changed something.
    pub(super) fn revision(&self) -> i64 {
        self.begin + i64::from(self.changes > 0)
    }

    fn next_revision(&mut self) -> Revision {
        let revision = Revision { main: self.begin + 1, sub: self.changes };
        self.changes += 1;
        revision
    }

    /// Makes the command's revision the current one, if it changed anything.
    pub(super) fn finish(self) {
        self.model.revision = self.revision();
    }

    /// Writes one key. `ignore_value` and `ignore_lease` keep what the key has now; should it have gone within this very
    /// command (which the door refuses), there is nothing to keep.
    pub(super) fn put(&mut self, put: &PutRequest) -> PutReply {
        let revision = self.next_revision();
        let history = self.model.keys.get_mut(&put.key[..]);
        let known_key = history.as_ref().map(|history| history.newest().kv.key.clone());
        let key = known_key.unwrap_or_else(|| Bytes::copy_from_slice(&put.key));
        let before = history.as_ref().and_then(|history| history.newest().live()).cloned();
        let kv = Arc::new(next_version(put, key, before.as_deref(), revision.main));
        let version = Version { revision, kv: Arc::clone(&kv), tombstone: false };
        let prev_kv = history.as_ref().and_then(|history| history.live_at(revision.main - 1)).cloned();
        match history {
            Some(history) => history.push(version.clone()),
            None => {
                self.model.keys.insert(kv.key.clone(), KeyHistory::new(version.clone()));
            }
        }
        self.record(version);
        self.move_lease(&kv.key, before.as_ref().map_or(0, |kv| kv.lease), kv.lease);
        self.model.live_keys += u64::from(before.is_none());
        self.model.events.push(Event { kind: EventKind::Put, kv, prev_kv });
        PutReply { prev_kv: before.filter(|_| put.prev_kv) }
    }

    /// Deletes every key of a range that is there.
    pub(super) fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeReply {
        let doomed = self.model.live_in(&delete.range);
        for kv in &doomed {
            self.delete(kv);
        }
        let deleted = doomed.len() as i64;
        DeleteRangeReply { deleted, prev_kvs: if delete.prev_kv { doomed } else { Vec::new() } }
    }

    /// Deletes one key, whose present version is `live`.
    pub(super) fn delete(&mut self, live: &Arc<KeyValue>) {
        let revision = self.next_revision();
        let kv =
            Arc::new(KeyValue { key: live.key.clone(), mod_revision: revision.main, ..KeyValue::default() });
        let version = Version { revision, kv: Arc::clone(&kv), tombstone: true };
        let history = self.model.keys.get_mut(&kv.key).expect("a live key has a history");
        // before the command, not before an earlier change within it
        let prev_kv = history.live_at(revision.main - 1).cloned();
        history.push(version.clone());
        self.record(version);
        self.move_lease(&kv.key, live.lease, 0);
        self.model.live_keys -= 1;
        self.model.events.push(Event { kind: EventKind::Delete, kv, prev_kv });
    }

    fn record(&mut self, version: Version) {
        self.model.bytes += version_bytes(&version.kv);
        self.model.revisions.insert(version.revision, version);
    }

    fn move_lease(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0 && self.model.leases.detach(from, key) {
            self.model.bytes -= ATTACHMENT_BYTES;
        }
        if to != 0 && self.model.leases.attach(to, key) {
            self.model.bytes += ATTACHMENT_BYTES;
        }
    }
}

/// What a put makes of the version before it.
fn next_version(put: &PutRequest, key: Bytes, before: Option<&KeyValue>, main: i64) -> KeyValue {
    KeyValue {
        key,
        create_revision: before.map_or(main, |kv| kv.create_revision),
        mod_revision: main,
        version: before.map_or(0, |kv| kv.version) + 1,
        value: if put.ignore_value {
            before.map(|kv| kv.value.clone()).unwrap_or_default()
        } else {
            stored(&put.value)
        },
        lease: if put.ignore_lease { before.map_or(0, |kv| kv.lease) } else { put.lease },
    }
}

/// A value as the store keeps it.
fn stored(value: &Bytes) -> Bytes {
    if value.len() <= COPIED_VALUE_BYTES_MAX { Bytes::copy_from_slice(value) } else { value.clone() }
}
