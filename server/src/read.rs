//! A linearizable read: ask the log for an index, wait until it is applied, look.

use crate::metrics::Count;
use crate::propose::wait;
use crate::rpc::status::Error;
use crate::serving::Serving;
use coffer_raftlog::node::ReadIndex;
use coffer_raftlog::proposal::Outcome;
use std::time::{Duration, Instant};

/// A read that waits longer than this for its index is counted as slow (etcd retries after that time).
const SLOW_READ_INDEX: Duration = Duration::from_millis(500);

/// Returns once the published state is at least as new as everything acknowledged before the call.
///
/// # Errors
/// [`Error::Timeout`], [`Error::LeaderChanged`], [`Error::TooManyRequests`], [`Error::Stopped`].
pub async fn linearizable(serving: &Serving) -> Result<(), Error> {
    let ticket = serving.mailbox.ticket().ok_or(Error::TooManyRequests)?;
    match serving.shared.node.read_index(ticket.reply_to())? {
        ReadIndex::Now => return Ok(()),
        ReadIndex::Wait => {}
    }
    let metrics = &serving.shared.metrics;
    let began = Instant::now();
    let outcome = wait(&serving.shared, ticket).await;
    if began.elapsed() > SLOW_READ_INDEX {
        metrics.add(Count::SlowReadIndexes, 1);
    }
    match outcome {
        Ok(Outcome::ReadIndex(_)) => Ok(()),
        Ok(_) => Err(Error::WrongAnswer),
        Err(error) => {
            metrics.add(Count::ReadIndexesFailed, 1);
            Err(error)
        }
    }
}
