//! redb over a file that is never synced.

use crate::work::{Key, Peer, Value, prefix};
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
/// Transactions between two durable ones, where not all are.
const DURABLE_EVERY: u64 = 100;

/// A database with one table.
pub struct Redb {
    db: Database,
    file: PathBuf,
    immediate: bool,
    written: u64,
}

/// A file whose sync does nothing.
#[derive(Debug)]
struct Unsynced(File);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

impl Redb {
    /// A new one in `dir`; `immediate`: every commit is to be durable.
    pub fn new(dir: &Path, immediate: bool) -> Redb {
        let file = dir.join("redb");
        let made =
            File::options().read(true).write(true).create_new(true).open(&file).expect("the file is made");
        let db = Builder::new().create_with_backend(Unsynced(made)).expect("redb opens");
        Redb { db, file, immediate, written: 0 }
    }
}

impl Peer for Redb {
    fn write(&mut self, batch: &[(Key, Value)]) {
        self.written += 1;
        let mut tx = self.db.begin_write().expect("redb begins");
        if !self.immediate && !self.written.is_multiple_of(DURABLE_EVERY) {
            tx.set_durability(Durability::None).expect("redb leaves durability out");
        }
        let mut table = tx.open_table(TABLE).expect("redb opens a table");
        for (key, value) in batch {
            table.insert(key.as_slice(), value.as_slice()).expect("redb puts");
        }
        drop(table);
        tx.commit().expect("redb commits");
    }

    fn get(&self, keys: &[Key]) -> u64 {
        let tx = self.db.begin_read().expect("redb begins");
        let table = tx.open_table(TABLE).expect("redb opens a table");
        let first = |key: &Key| {
            let value = ReadableTable::get(&table, key.as_slice()).expect("redb gets");
            u64::from(value.expect("the key is there").value()[0])
        };
        keys.iter().map(first).sum()
    }

    fn scan(&self) -> (u64, u64) {
        let tx = self.db.begin_read().expect("redb begins");
        let table = tx.open_table(TABLE).expect("redb opens a table");
        let all = ReadableTable::iter(&table).expect("redb scans");
        all.fold((0, 0), |(keys, sum), entry| {
            (keys + 1, sum + u64::from(entry.expect("redb scans").1.value()[0]))
        })
    }

    fn count(&self) -> u64 {
        let tx = self.db.begin_read().expect("redb begins");
        let table = tx.open_table(TABLE).expect("redb opens a table");
        let (from, to) = prefix();
        ReadableTable::range::<&[u8]>(&table, from.as_slice()..to.as_slice()).expect("redb scans").count()
            as u64
    }

    fn file_bytes(&self) -> Option<u64> {
        Some(self.file.metadata().expect("the file is there").len())
    }
}
