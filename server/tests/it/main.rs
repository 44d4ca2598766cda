//! coffer as its clients see it: members in this process and the real binary, driven by the client of our own protos.

mod attacks;
mod binary;
mod check_cli;
mod compaction;
mod damage;
mod door;
mod errors;
mod formats;
mod full;
mod kill;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod restart;
mod snapshot;
mod support;
mod txn;
mod watch;
