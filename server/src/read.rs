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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A read that waits longer than this for its index is counted as slow (etcd retries after that time).
const SLOW_READ_INDEX: Duration = Duration::from_millis(500);

/// Keys that are read where they are asked for: half a millisecond.
const SHORT_KEYS: u64 = 1_000;
/// How long after a page had to be read from the disk others are expected to be.
const COLD_US: Micros = 100_000;

/// A look on another thread. If nobody waits for it any more it is given up: one that has not begun never does, one that has
/// is told. A client that asks and resets again and again leaves no queue behind.
struct Elsewhere<T> {
    job: JoinHandle<T>,
    wanted: Arc<AtomicBool>,
}

impl<T> Drop for Elsewhere<T> {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        self.job.abort();
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
    look_while(serving, short, |reader, _| Some(read(reader))).await
}

/// The same for a look that may take long: it is to ask now and then whether it is still wanted, and to give up, with `None`,
/// if it is not.
///
/// # Errors
/// [`Error::Stopped`].
pub async fn look_while<T, R>(serving: &Serving, short: bool, read: R) -> Result<T, Error>
where
    T: Send + 'static,
    R: FnOnce(&StoreReader, &dyn Fn() -> bool) -> Option<T> + Send + 'static,
{
    if short && !serving.is_cold() {
        return look_here(serving, |reader| read(reader, &|| true)).ok_or(Error::Stopped);
    }
    let reader = serving.shared.reader().clone();
    let before = reader.pages_read();
    let theirs = reader.clone();
    let wanted = Arc::new(AtomicBool::new(true));
    let still_wanted = Arc::clone(&wanted);
    let job = tokio::task::spawn_blocking(move || read(&theirs, &|| still_wanted.load(Ordering::Relaxed)));
    let mut elsewhere = Elsewhere { job, wanted };
    let told = (&mut elsewhere.job).await.map_err(|_| Error::Stopped)?;
    if reader.pages_read() != before {
        serving.expect_cold(COLD_US);
    }
    told.ok_or(Error::Stopped)
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
    keys_looked_at(reader, request) <= SHORT_KEYS
}

/// The same of all compares and ranges of a txn without writes, taken together.
pub fn is_short_txn(reader: &StoreReader, request: &TxnRequest) -> bool {
    let compared = request.compares.iter().map(|compare| match compare.range.is_single() {
        true => 1,
        false => counted(reader.live_count(&compare.range)),
    });
    let ranges = request.success.iter().chain(&request.failure).map(|op| match op {
        TxnOp::Range(range) => keys_looked_at(reader, range),
        _ => u64::MAX,
    });
    compared.chain(ranges).fold(0, u64::saturating_add) <= SHORT_KEYS
}

/// Keys that a range goes over, at the most.
fn keys_looked_at(reader: &StoreReader, request: &RangeRequest) -> u64 {
    if request.range.is_single() || (request.count_only && request.revision <= 0) {
        return 1;
    }
    if request.revision > 0 && request.revision < reader.position().revision {
        // it is read past all keys that were deleted since, or before
        return counted(reader.kept_count(&request.range));
    }
    match ends_at_limit(request) {
        Some(limit) if limit <= SHORT_KEYS => limit,
        _ => counted(reader.live_count(&request.range)),
    }
}

/// The limit of a range that, at the newest revision, ends where the limit is met.
fn ends_at_limit(request: &RangeRequest) -> Option<u64> {
    let in_order = request.sort_target == SortTarget::Key && request.sort_order != SortOrder::Descend;
    let unfiltered = request.min_mod_revision == 0
        && request.max_mod_revision == 0
        && request.min_create_revision == 0
        && request.max_create_revision == 0;
    u64::try_from(request.limit).ok().filter(|limit| *limit > 0 && in_order && unfiltered)
}

/// A count that cannot be told may be of any height.
fn counted<E>(count: Result<u64, E>) -> u64 {
    count.unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::testing::on_a_member;
    use bytes::Bytes;
    use coffer_engine::command::{
        Command, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, Stamped,
    };
    use coffer_engine::mvcc::KeyRange;
    use coffer_engine::store::Store;
    use std::sync::mpsc;

    /// A store of 3,000 keys, and of what else is to be done.
    fn filled(and: Option<Command>) -> StoreReader {
        let put = |number| Command::Put(PutRequest { key: key(number), ..Default::default() });
        let mut store = Store::new();
        let mut batch = store.begin();
        for (index, command) in (1..).zip((0..3_000).map(put).chain(and)) {
            batch.apply(index, 1, &Stamped { clock_ms: 0, command }).unwrap().outcome.unwrap();
        }
        batch.publish();
        store.reader()
    }

    fn key(number: u32) -> Bytes {
        format!("{number:08}").into()
    }

    fn all() -> RangeRequest {
        RangeRequest { range: KeyRange::new("0", "\0"), ..Default::default() }
    }

    #[test]
    fn a_range_of_few_keys_among_many_deleted_ones_is_short_at_the_newest_revision_alone() {
        let range = KeyRange::new(key(10), key(3_000));
        let reader = filled(Some(Command::DeleteRange(DeleteRangeRequest { range, prev_kv: false })));
        assert!(is_short(&reader, &all()));
        assert!(!is_short(&reader, &RangeRequest { revision: 2_000, ..all() }));
        let single = RangeRequest { range: KeyRange::single(key(100)), revision: 2_000, ..all() };
        assert!(is_short(&reader, &single));
    }

    #[test]
    fn a_range_is_short_by_its_limit_while_nothing_was_written() {
        let reader = filled(None);
        let newest = reader.position().revision;
        let part = |revision, limit| RangeRequest { revision, limit, ..all() };
        assert!(is_short(&reader, &part(0, 1_000)));
        assert!(is_short(&reader, &part(newest, 1_000)));
        assert!(!is_short(&reader, &part(newest, 1_001)));
        assert!(!is_short(&reader, &part(newest - 1, 10)));
        let sorted = RangeRequest { sort_target: SortTarget::Value, ..part(newest, 10) };
        assert!(!is_short(&reader, &sorted));
    }

    #[test]
    fn a_txn_is_as_long_as_all_that_it_compares_and_reads() {
        let reader = filled(None);
        let compare =
            |range| Compare { range, result: CompareResult::Equal, target: CompareTarget::Version(1) };
        let read = |limit| TxnOp::Range(RangeRequest { limit, ..all() });
        let txn = |range, limit| TxnRequest {
            compares: vec![compare(range)],
            success: vec![read(limit)],
            failure: Vec::new(),
        };
        assert!(is_short_txn(&reader, &txn(KeyRange::single(key(1)), 900)));
        assert!(is_short_txn(&reader, &txn(KeyRange::new(key(1), key(101)), 900)));
        assert!(!is_short_txn(&reader, &txn(KeyRange::new(key(1), key(102)), 900)));
        assert!(!is_short_txn(&reader, &txn(KeyRange::new("0", "\0"), 1)));
    }

    #[test]
    fn a_look_that_nobody_waits_for_is_told_so() {
        on_a_member(async |serving| {
            let (ended, end) = mpsc::channel();
            let look = look_while(&serving, false, move |_, wanted| {
                while wanted() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let _ = ended.send(());
                None::<()>
            });
            assert!(tokio::time::timeout(Duration::from_millis(50), look).await.is_err());
            end.recv_timeout(Duration::from_secs(20)).unwrap();
        });
    }
}
