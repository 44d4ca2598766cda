//! coffer's network face: etcd's v3 API over gRPC and HTTP, on top of the replicated log and its store.
//!
//! The rooms, in the order a request walks through them:
//!
//! | room | what it does |
//! |---|---|
//! | [`config`] | flags, variables, file to a checked `Config`; every limit has its number there |
//! | [`member`] | builds log, store, serving threads and listeners; stops them in reverse |
//! | [`accept`] | listeners; deals connections to the serving threads |
//! | [`serving`] | a serving thread: its runtime, its mailbox of answers and events |
//! | [`rpc`] | a file per etcd service: check, propose or read, reply |
//! | [`propose`] | deadline, limits, and the slot where the answer will land |
//! | [`read`] | a linearizable read: ask for an index, wait until it is applied, look |
//! | [`watch_hub`] | the watchers of one serving thread: caught up, catching up, blocked |
//! | [`compactor`] | compaction by period and by revision |
//! | [`cli`] | sub-commands: backup, restore, check |
//! | [`http`] | health, version, metrics |
//! | [`metrics`], [`logging`] | what an operator sees, under etcd's names |

pub mod accept;
pub mod cli;
pub mod compactor;
pub mod config;
pub mod http;
pub mod logging;
pub mod member;
pub mod metrics;
pub mod propose;
pub mod proto;
pub mod read;
pub mod rpc;
pub mod serving;
pub mod watch_hub;

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
