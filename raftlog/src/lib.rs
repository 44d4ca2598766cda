//! coffer's agreement: raft-rs over the engine's write-ahead log. No gRPC in here.
pub mod error;
pub mod node;
pub mod proposal;
