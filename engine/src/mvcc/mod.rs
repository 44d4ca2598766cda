//! The multi-version store: its words, and its state in trees of pages.
//!
//! Every command that changes a key makes exactly one *main* revision; the changes inside are numbered by *sub*.
//! A key lives in generations: a put on an absent key starts one (version 1), each further put adds one to the
//! version, a delete ends it with a tombstone.
//!
//! | room | what it does |
//! |---|---|
//! | [`revision`], [`record`] | the words: revision, range of keys, key-value, event |
//! | `cell` | the bytes of what the trees hold |
//! | `spine` | pointers far back along a key's versions, made without a lookup |
//! | [`apply`] | the writer: one command after the other, into the transaction that is open |
//! | `anew` | the state of a backup becomes that of a new cluster |
//! | [`publish`] | the writer over the page file: opening, publishing |
//! | `write` | puts and deletes within one main revision; who holds the runs of large values |
//! | `told` | the bytes of a batch's events, together |
//! | `txn` | compares against the state before, checks the path taken, then runs it |
//! | `lease` | leases and the replicated clock |
//! | `cluster` | members, who votes, alarms |
//! | `compact` | what compaction hides at once and removes later |
//! | [`view`] | one state to read: a key at any kept revision |
//! | [`range`] | ranges at any kept revision, in slices |
//! | `versions` | the visible versions of a key |
//! | [`history`] | events for a watcher that is behind |
//! | [`hash`] | HashKV, in slices |
//! | `state` | the whole logical state, to compare |
//! | [`relocate`] | moves what stands in the end of the file toward its head |
//! | [`check`] | every rule below, against all that is there |
//! | `fuzz` | what a fuzzer runs: the store on a disk that fails and crashes, beside the model (feature `sim`) |
//!
//! Rules, checked by [`check::check`]:
//! 1. A command that changes a key adds exactly one main revision; its changes are numbered by sub from 0, and every
//!    revision above the compaction revision has all its records.
//! 2. A live key's newest version stands in `Keys`, a deleted one's tombstone in `Deleted`, never both. From there the
//!    previous pointers lead over all the key's records; no record is anywhere else.
//! 3. Within a generation each put adds one to the version; a tombstone follows a put.
//! 4. *Visibility is logical*: with compaction revision c, a version at or below c exists iff it is its key's newest at
//!    or below c and no tombstone below c. No answer depends on what has been removed physically.
//! 5. The record of a live newest version is there unless compaction's walk has passed it (see `write`), and says the same
//!    as its entry.
//! 6. A live key names its lease exactly when the lease names the key.
//! 7. Every run is held by those that should (see `write`); every page in use is reached exactly once.
//!
//! Left to others: the form of requests (checked at the door), the quota, the order of entries ([`crate::store`]).

mod anew;
pub mod apply;
mod cell;
pub mod check;
mod cluster;
mod compact;
#[cfg(test)]
mod disorder;
#[cfg(feature = "sim")]
pub mod fuzz;
pub mod hash;
pub mod history;
mod lease;
pub mod publish;
pub mod range;
pub mod record;
pub mod relocate;
pub mod revision;
mod spine;
mod state;
mod told;
mod txn;
mod versions;
pub mod view;
mod write;

pub use anew::REVISION_MAX;
pub use apply::Mvcc;
pub use record::{Event, EventKind, KeyValue};
pub use revision::{KeyRange, Revision};
pub use view::View;
