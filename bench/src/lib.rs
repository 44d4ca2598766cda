//! coffer's benchmarks: criterion benches of the parts (`benches/`), and a load generator for whole members.
//!
//! | room | what it does |
//! |---|---|
//! | [`compare`] | `coffer-bench compare`: coffer, etcd and null servers in one go, and a report of it |
//! | [`load`] | `coffer-bench load`: drives any etcd endpoint, open or closed loop |
//! | [`null`] | `coffer-bench null`: servers that do nothing, to measure the others against |
//! | [`stalls`] | `coffer-bench stalls`: what background work does to the longest request |

pub mod compare;
mod grpc;
pub mod load;
pub mod null;
pub mod stalls;
