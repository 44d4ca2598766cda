//! The words of the multi-version store.
//!
//! Every command that changes a key makes exactly one *main* revision; the changes inside are numbered by *sub*.
//! A key lives in generations: a put on an absent key starts one (version 1), each further put adds one to the
//! version, a delete ends it with a tombstone.

pub mod record;
pub mod revision;

pub use record::{Event, EventKind, KeyValue};
pub use revision::{KeyRange, Revision};
