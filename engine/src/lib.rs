//! coffer's storage engine: what is true, and what is on disk. It knows neither raft nor gRPC, only an entry's index.
//!
//! The rooms, in the order a write walks through them:
//!
//! | room | what it does |
//! |---|---|
//! | [`command`] | the replicated commands, one answer type for each, their encoding |
//! | [`wal`] | the write-ahead log: batches, marks, segments; opening tells torn from rotten |
//! | [`store`] | the front door: apply a command, publish, read |
//! | [`mvcc`] | the words of the multi-version store: revision, key-value |
//! | [`btree`] | copy-on-write trees over pages |
//! | [`pager`] | the page file: copy-on-write pages, published roots, checkpoints |
//! | [`snapshot`] | a whole store as one stream of bytes, out and in |
//! | [`check`] | the check of a store at rest |
//! | [`model`] | the whole store in memory, slow and obvious |
//! | [`lease_clock`] | the clock by which leases end, and when they are looked at |
//! | [`watch`] | the events of one published batch, shared by all watchers |
//! | [`quota`] | what a command costs at the door |
//! | [`disk`] | the world below: submit an operation, poll its completion |
//! | [`embedded`] | the shell for Rust programs that have the engine inside: a thread, a directory, blocking calls |
//! | [`error`] | refusals (part of the answer) and faults (the member stops) |
//!
//! Nothing in here starts a thread, asks for the time or draws a random number, except the real disks in [`disk`] and the
//! shell in [`embedded`]. **A program that embeds the engine** begins at [`embedded::Db`]; that module's head says what it
//! gets and what it must do. A program that brings its own agreement (as coffer's server does) drives [`wal::Wal`] and
//! [`store::Store`] itself.

pub mod btree;
pub mod check;
pub mod command;
pub mod disk;
pub mod embedded;
pub mod error;
pub mod lease_clock;
pub mod model;
pub mod mvcc;
mod pace;
pub mod pager;
pub mod quota;
pub mod snapshot;
pub mod store;
pub mod wal;
pub mod watch;

/// Monotonic time in microseconds since an arbitrary start, handed in by whoever runs the state machines.
pub type Micros = u64;
