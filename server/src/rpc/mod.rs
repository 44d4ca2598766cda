//! etcd's services: a file for each, every handler check -> propose or read -> reply.
//!
//! | room | what it does |
//! |---|---|
//! | [`door`] | tells gRPC from HTTP, checks metadata and deadline, finds the service |
//! | `hot` | the short way of Range, Put and Txn |
//! | `hashes` | what HashKV told last |
//! | `undelivered` | answers that no client has taken yet, and who waits for that |
//! | `stream` | an HTTP/2 stream that goes the long way |
//! | `body` | counts what comes in and goes out, ends streams at their deadline |
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
pub(crate) mod hashes;
mod header;
mod health;
mod hot;
mod kv;
mod lease;
mod maintenance;
mod quota;
mod range_stream;
mod snapshot;
pub mod status;
mod stream;
pub(crate) mod undelivered;
mod watch;
pub mod wire;

use crate::serving::Shared;
use futures_util::{Stream, StreamExt as _};
pub(crate) use maintenance::HASHES_MAX;
pub(crate) use snapshot::STREAMS_MAX as SNAPSHOT_STREAMS_MAX;
use status::Error;
use std::sync::Arc;
use tonic::Status;

/// Ends a stream that waits for its client when the member stops.
fn until_stopped<T, S>(
    shared: &Arc<Shared>,
    replies: S,
) -> impl Stream<Item = Result<T, Status>> + Send + use<T, S>
where
    T: Send,
    S: Stream<Item = Result<T, Status>> + Send,
{
    let own = Arc::clone(shared);
    let end =
        futures_util::stream::once(async move { own.is_stopping().then(|| Err(Error::Stopped.status())) });
    replies.take_until(shared.stopped()).chain(end.filter_map(std::future::ready))
}
