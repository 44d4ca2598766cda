//! The engine's tests.

mod arbitrary;
mod btree;
mod btree_damage;
mod btree_rig;
mod command_encoding;
mod embedded;
mod model;
mod mvcc;
mod mvcc_disk;
mod mvcc_rig;
mod naive;
mod pager_crash;
mod pager_damage;
mod pager_disks;
mod pager_rig;
mod pager_space;
mod script;
mod snapshot;
mod store_crash;
mod store_rig;
mod transcripts;
mod wal_basic;
mod wal_crash;
mod wal_damage;
mod wal_disks;
mod wal_rig;
