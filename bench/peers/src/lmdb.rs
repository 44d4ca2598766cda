//! LMDB, through heed.

use crate::work::{Key, PREFIX, Peer, Value};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};
use std::path::Path;

/// Address space for the map, in bytes; no file gets that long here.
const MAP_BYTES: usize = 16 << 30;
/// Bytes of LMDB's pages: those of the system's.
const PAGE_BYTES: u64 = 4096;

/// An LMDB environment with one table.
pub struct Lmdb {
    env: &'static Env,
    table: Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    /// A new one in `dir`; `write_map`: pages are changed in the map instead of written.
    #[allow(unsafe_code, reason = "heed leaves to its caller that nobody else changes the file")]
    pub fn new(dir: &Path, write_map: bool) -> Lmdb {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        let mut flags = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC;
        if write_map {
            flags |= EnvFlags::WRITE_MAP;
        }
        // SAFETY: the flags give up durability only; the file lies in a directory made for this run alone, so nobody else
        // opens, changes or truncates it while it is mapped.
        let env = unsafe { options.flags(flags).open(dir) }.expect("LMDB opens");
        // a table borrows its environment, which lives as long as the program here
        let env: &'static Env = Box::leak(Box::new(env));
        let tx = env.write_txn().expect("LMDB begins");
        let made: heed::Result<_> = env.create_databases_and_commit(tx, |creator, tx| {
            creator.create_database::<Bytes, Bytes>(tx, None).map(CommitOrAbort::<_, ()>::Commit)
        });
        let table = made.expect("LMDB makes a table").unwrap_commit();
        Lmdb { env, table }
    }
}

impl Peer for Lmdb {
    fn write(&mut self, batch: &[(Key, Value)]) {
        let mut tx = self.env.write_txn().expect("LMDB begins");
        for (key, value) in batch {
            self.table.put(&mut tx, key, value).expect("LMDB puts");
        }
        tx.commit().expect("LMDB commits");
    }

    fn get(&self, keys: &[Key]) -> u64 {
        let tx = self.env.read_txn().expect("LMDB begins");
        let first =
            |key| u64::from(self.table.get(&tx, key).expect("LMDB gets").expect("the key is there")[0]);
        keys.iter().map(|key| first(key)).sum()
    }

    fn scan(&self) -> (u64, u64) {
        let tx = self.env.read_txn().expect("LMDB begins");
        let all = self.table.iter(&tx).expect("LMDB scans");
        all.fold((0, 0), |(keys, sum), entry| (keys + 1, sum + u64::from(entry.expect("LMDB scans").1[0])))
    }

    fn count(&self) -> u64 {
        let tx = self.env.read_txn().expect("LMDB begins");
        self.table.prefix_iter(&tx, PREFIX).expect("LMDB scans").count() as u64
    }

    fn file_bytes(&self) -> Option<u64> {
        // with WRITEMAP the file is as long as the map, most of it a hole
        Some((self.env.info().last_page_number as u64 + 1) * PAGE_BYTES)
    }
}
