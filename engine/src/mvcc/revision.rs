//! Revisions and ranges of keys, as etcd counts and writes them.

use bytes::Bytes;

/// A point in the store's history: the `main`-th change, and within it the `sub`-th.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// One for each command that changed a key; the empty store stands at 1.
    pub main: i64,
    /// The number of the change within its command, from 0.
    pub sub: i64,
}

impl Revision {
    /// The key etcd stores a version under, which the hash of the store covers: main and sub as 8 bytes big-endian with
    /// `_` between, and `t` behind if the version is a tombstone.
    pub fn encode(&self, tombstone: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.main.to_be_bytes());
        out.push(b'_');
        out.extend_from_slice(&self.sub.to_be_bytes());
        if tombstone {
            out.push(b't');
        }
    }
}

/// A set of keys in etcd's notation.
///
/// `range_end` empty: the key alone. `range_end` = one zero byte: every key from `key` on (and with `key` one zero
/// byte or empty: all keys). Otherwise `[key, range_end)`, empty when `range_end <= key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub key: Bytes,
    /// End, in the notation above.
    pub range_end: Bytes,
}

impl KeyRange {
    /// The one key `key`.
    pub fn single(key: impl Into<Bytes>) -> KeyRange {
        KeyRange { key: key.into(), range_end: Bytes::new() }
    }

    /// `[key, range_end)` in etcd's notation.
    pub fn new(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> KeyRange {
        KeyRange { key: key.into(), range_end: range_end.into() }
    }

    /// Whether this names exactly one key.
    pub fn is_single(&self) -> bool {
        self.range_end.is_empty()
    }

    /// Whether this runs to the end of the key space.
    pub fn is_open_ended(&self) -> bool {
        self.range_end.as_ref() == [0]
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            key == self.key.as_ref()
        } else {
            key >= self.key.as_ref() && self.reaches(key)
        }
    }

    /// Whether `key`, which is not below the first key, lies inside.
    pub(crate) fn reaches(&self, key: &[u8]) -> bool {
        if self.is_single() {
            key == self.key.as_ref()
        } else {
            self.is_open_ended() || key < self.range_end.as_ref()
        }
    }

    /// Whether no key at all can lie inside.
    pub fn is_empty(&self) -> bool {
        !self.is_single() && !self.is_open_ended() && self.range_end <= self.key
    }
}
