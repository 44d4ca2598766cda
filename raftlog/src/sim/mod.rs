//! Many members in one thread from one seed: simulated disks, a simulated network, a clock that is handed in.
//!
//! ```text
//!   workload ── requests ──> cluster ── per member: Core + SimDisk
//!      ^                        │  ^
//!      │ answers                v  │ delivered: dropped, delayed, doubled, overtaken, cut off
//!   checker <── posts ──────────┴──┴──── network
//! ```
//!
//! | room | what it does |
//! |---|---|
//! | [`cluster`] | members, their disks and crashes; one event after the other in the order of simulated time |
//! | [`network`] | what becomes of a message |
//! | [`checker`] | what must hold at every moment, seen from outside the members |
//! | [`workload`] | clients and faults from a seed; a whole run with its report |
//!
//! The members are the shipped ones: the same [`crate::core::Core`] that the core thread runs, opened by the same
//! [`crate::recovery`]. Nothing here draws a number but from the seed, so a run repeats byte for byte; a failure names
//! the seed.

pub mod checker;
pub mod cluster;
pub mod network;
pub mod workload;
