//! The watchers of one serving thread: who wants which event; caught up, catching up, blocked.
//!
//! ```text
//!               create, start in the past               history read to its end
//!             ┌──────────────> Behind ───────────────────────────────┐
//!   create ───┤                ^    │ queue full                     v
//!             │   queue drains │    v                              Synced <── create, start now or later
//!             │                Blocked <───────── queue full ────────┘
//!             │                     next revision compacted or unreadable
//!             └──────────────> Dead (keeps its id until it is canceled) <── Behind
//! ```
//!
//! A state machine without threads, clock or I/O: it is told of batches of events, requests and the time, and keeps for
//! each stream a queue of messages to send. Rules kept here (etcd's watch, server/storage/mvcc/watchable_store.go and
//! server/etcdserver/api/v3rpc/watch.go):
//! - A watcher sees each event of its range from its start revision on once, in order, a revision never torn apart
//!   (unless it asked for fragments).
//! - Progress at revision R is told only after every event up to R, and never below what its stream was told before.
//! - A stream holds messages up to a bound; beyond it its watchers read history once there is room again. No stream
//!   holds another back, and no step does more than its budget.
//! - An event is encoded once for all watchers of the thread.
//!
//! It leaves to others: protobuf (an [`Encode`] is handed in), waking sleeping streams, permissions.

mod arena;
mod hub;
mod interval;
mod message;
mod stream;

pub use arena::Key;
pub use hub::{Create, Encode, History, Hub, Limits, Stats, Step};
pub use message::{Body, Message};

/// `watch_id` of a response that is about no watcher, or about several.
pub const NO_WATCH_ID: i64 = -1;
