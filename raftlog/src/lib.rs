//! coffer's agreement: raft-rs over the engine's write-ahead log. It knows no gRPC.
//!
//! The rooms, in the order a write walks through them:
//!
//! | room | what it does |
//! |---|---|
//! | [`node`] | a running member as the server sees it |
//! | [`proposal`] | what serving threads hand in, and how answers come back |
//! | `shell` | the core thread: the only place with a thread, a clock and chance |
//! | [`core`] | driver, log, applier, lease clock and slots as one stepped state machine |
//! | `round` | all that waited, stamped and encoded, to be proposed in one step |
//! | [`driver`] | owns raft-rs's `RawNode`: tick, step, propose |
//! | [`ready`] | one `Ready` in the order it demands: hold, persist, send, hand on, advance |
//! | [`storage`] | raft-rs's `Storage`: the view of the log in memory |
//! | [`transport`] | messages between members: envelope, bytes, validation |
//! | [`applier`] | committed entries, in order, in slices, into the store |
//! | `ahead` | pages that applying will touch, read while the log is written |
//! | [`meter`] | how long applying takes, for who watches |
//! | [`slots`] | who waits for which entry |
//! | [`lease_clock`] | the engine's lease clock, which the leader runs on |
//! | [`recovery`] | page file, then log: what must hold before `RawNode` exists |
//! | `replay` | the log being read and applied |
//! | `sim` (feature) | many members in one thread from one seed |
//! | [`error`] | why a member did not start or could not go on |

mod ahead;
pub mod applier;
mod board;
pub mod core;
pub mod driver;
pub mod error;
mod logging;
pub mod meter;
pub mod node;
pub mod proposal;
pub mod ready;
pub mod recovery;
mod replay;
mod round;
mod shell;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slots;
pub mod storage;
pub mod transport;

pub use coffer_engine::lease_clock;
