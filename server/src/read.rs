//! A linearizable read: ask the log for an index, wait until it is applied, look.
//!
//! Most looks are a microsecond, and are done where they are asked for. Two kinds are not, and go to a thread that may be held
//! up: those of many keys, and those that come while pages are being read from the disk. The latter is noticed by whoever
//! meets it first, and holds for a while: a store that has just been opened is cold all over.

use crate::metrics::Count;
use crate::propose::wait;
use crate::rpc::status::Error;
use crate::serving::Serving;
use coffer_engine::Micros;
use coffer_engine::command::{RangeRequest, SortOrder, SortTarget, TxnOp, TxnRequest};
use coffer_engine::store::StoreReader;
use coffer_raftlog::node::ReadIndex;
use coffer_raftlog::proposal::Outcome;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A read that waits longer than this for its index is counted as slow (etcd retries after that time).
const SLOW_READ_INDEX: Duration = Duration::from_millis(500);

/// Keys that are read where they are asked for: half a millisecond.
const SHORT_KEYS: i64 = 1_000;
/// How long after a page had to be read from the disk others are expected to be.
const COLD_US: Micros = 100_000;

/// A look on another thread. If nobody waits for it any more it is given up, unless it has begun: a client that asks and
/// resets again and again leaves no queue behind.
struct Elsewhere<T>(JoinHandle<T>);

impl<T> Drop for Elsewhere<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks at the store: here if it is a `short` look and no page is likely to be read from the disk for it.
///
/// # Errors
/// [`Error::Stopped`].
pub async fn look<T, R>(serving: &Serving, short: bool, read: R) -> Result<T, Error>
where
    T: Send + 'static,
    R: FnOnce(&StoreReader) -> T + Send + 'static,
{
    if short && !serving.is_cold() {
        return Ok(look_here(serving, read));
    }
    let reader = serving.shared.reader().clone();
    let before = reader.pages_read();
    let theirs = reader.clone();
    let mut elsewhere = Elsewhere(tokio::task::spawn_blocking(move || read(&theirs)));
    let told = (&mut elsewhere.0).await.map_err(|_| Error::Stopped)?;
    if reader.pages_read() != before {
        serving.expect_cold(COLD_US);
    }
    Ok(told)
}

/// Looks at the store, on this thread.
pub fn look_here<T>(serving: &Serving, read: impl FnOnce(&StoreReader) -> T) -> T {
    let reader = serving.shared.reader();
    let before = reader.pages_read();
    let told = read(reader);
    if reader.pages_read() != before {
        serving.expect_cold(COLD_US);
    }
    told
}

/// Whether a range is read in no time, or refused.
pub fn is_short(reader: &StoreReader, request: &RangeRequest) -> bool {
    let in_order = request.sort_target == SortTarget::Key && request.sort_order != SortOrder::Descend;
    let unfiltered = request.min_mod_revision == 0
        && request.max_mod_revision == 0
        && request.min_create_revision == 0
        && request.max_create_revision == 0;
    request.range.is_single()
        || (request.count_only && request.revision <= 0)
        || (request.limit > 0
            && request.limit <= SHORT_KEYS
            && in_order
            && unfiltered
            && request.revision <= 0)
        || reader.live_count(&request.range).is_ok_and(|keys| keys <= SHORT_KEYS as u64)
}

/// The same of all ranges of a txn without writes.
pub fn is_short_txn(reader: &StoreReader, request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match op {
        TxnOp::Range(range) => is_short(reader, range),
        _ => false,
    })
}

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
