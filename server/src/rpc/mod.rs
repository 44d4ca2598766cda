//! etcd's services: a file for each, every handler check -> propose or read -> reply.
//!
//! | room | what it does |
//! |---|---|
//! | [`door`] | tells gRPC from HTTP, checks metadata and deadline, finds the service |
//! | `body` | counts what goes out, ends streams at their deadline |
//! | `check` | what a request may be, without looking at any state |
//! | [`wire`] | protobuf to the engine's types and back |
//! | [`status`] | one table of errors: codes and exact words |
//! | `header` | cluster, member, revision and term on every reply |
//! | `kv`, `watch`, `lease`, `cluster`, `maintenance`, `auth`, `health` | the services |

mod auth;
mod body;
pub(crate) mod check;
mod cluster;
pub mod door;
mod header;
mod health;
mod kv;
mod lease;
mod maintenance;
mod quota;
mod range_stream;
pub mod status;
mod watch;
pub mod wire;
