//! coffer's store through its front door: every put is a command and makes a revision.

use crate::work::{Key, Peer, Value, prefix};
use bytes::Bytes;
use coffer_engine::command::{
    Command, PutRequest, RangeReply, RangeRequest, Stamped, TxnOp, TxnOpReply, TxnReply, TxnRequest,
};
use coffer_engine::mvcc::KeyRange;
use coffer_engine::store::{Store, StoreReader};

/// Revisions after which history is compacted, where it is.
const COMPACT_EVERY: u64 = 100_000;
/// Versions in one step of compaction.
const COMPACT_BUDGET: usize = 1_000;

/// A store in memory.
pub struct StorePeer {
    store: Store,
    reader: StoreReader,
    compacts: bool,
    index: u64,
}

impl StorePeer {
    /// A new one; `compacts`: the older half of its history is given up as it grows.
    pub fn new(compacts: bool) -> StorePeer {
        let store = Store::new();
        StorePeer { reader: store.reader(), store, compacts, index: 0 }
    }

    fn compact(&mut self) {
        let revision = self.reader.position().revision - COMPACT_EVERY as i64;
        if revision <= 0 {
            return;
        }
        self.index += 1;
        let mut tx = self.store.begin();
        let command = Command::Compact { revision };
        tx.apply(self.index, 1, &Stamped { clock_ms: 0, command }).expect("the store applies");
        tx.publish();
        while self.store.compact_step(COMPACT_BUDGET).expect("the store compacts") {}
    }
}

fn range(range: KeyRange) -> RangeRequest {
    RangeRequest { range, ..RangeRequest::default() }
}

fn first(reply: &RangeReply) -> u64 {
    u64::from(reply.kvs.first().expect("the key is there").value[0])
}

/// All keys.
fn all() -> KeyRange {
    let (from, to) = prefix();
    KeyRange::new(from, to)
}

impl Peer for StorePeer {
    fn write(&mut self, batch: &[(Key, Value)]) {
        let before = self.index;
        let mut tx = self.store.begin();
        for (key, value) in batch {
            let put = PutRequest {
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
                ..PutRequest::default()
            };
            self.index += 1;
            tx.apply(self.index, 1, &Stamped { clock_ms: 0, command: Command::Put(put) })
                .expect("the store applies");
        }
        tx.publish();
        if self.compacts && before / COMPACT_EVERY != self.index / COMPACT_EVERY {
            self.compact();
        }
    }

    fn get(&self, keys: &[Key]) -> u64 {
        let single = |key: &Key| range(KeyRange::single(Bytes::copy_from_slice(key)));
        if let [key] = keys {
            return first(&self.reader.range(&single(key)).expect("the store reads"));
        }
        let success = keys.iter().map(|key| TxnOp::Range(single(key))).collect();
        let txn = TxnRequest { success, ..TxnRequest::default() };
        let (_, TxnReply { responses, .. }) = self.reader.read_txn(&txn).expect("the store reads");
        let one = |reply: &TxnOpReply| match reply {
            TxnOpReply::Range(reply) => first(reply),
            _ => unreachable!("a range is answered by a range"),
        };
        responses.iter().map(one).sum()
    }

    fn scan(&self) -> (u64, u64) {
        // in pages, as a client reads: one answer holds all its values
        let (mut keys, mut sum, mut from) = (0, 0, all());
        loop {
            let request = RangeRequest { limit: 1_000, ..range(from.clone()) };
            let reply = self.reader.range_uncounted(&request).expect("the store reads");
            let Some(last) = reply.kvs.last() else { return (keys, sum) };
            keys += reply.kvs.len() as u64;
            sum += reply.kvs.iter().map(|kv| u64::from(kv.value[0])).sum::<u64>();
            from.key = [&last.key[..], &[0]].concat().into();
        }
    }

    fn count(&self) -> u64 {
        let request = RangeRequest { count_only: true, ..range(all()) };
        self.reader.range(&request).expect("the store counts").count as u64
    }

    fn file_bytes(&self) -> Option<u64> {
        None
    }
}
