//! Maintenance.Snapshot: an image of the store, framed as etcd frames its database.
//!
//! ```text
//! checkpoint of what was applied when the request came > durable root pinned > 32 KiB, 32 KiB, ... > SHA-256 of them all
//! ```
//! Each message says how many bytes of the image are still to come; the checksum is a message of its own, the last one. The
//! image is a multiple of 4,096 bytes long, so that what a client stores is one of 512 and 32 more: what etcd's clients check.
//!
//! Pages are read on a thread for blocking work, a piece at a time and only when the client takes more: a slow client holds
//! no thread, and no more than a piece in memory. What it does hold is the pinned root, whose pages are not reused meanwhile;
//! so a stream has a deadline and a bound on what the file may grow by because of it, looked after by a task of its own, and
//! a client that goes away lets the root go at once.

use super::status::Error;
use crate::config::ETCD_CLUSTER_VERSION;
use crate::metrics::Histogram;
use crate::proto::etcdserverpb as pb;
use crate::serving::Shared;
use coffer_engine::error::{Fault, ReadError};
use coffer_engine::snapshot::SnapshotReader;
use futures_util::Stream;
use futures_util::stream;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

/// Bytes of the image in one message, as etcd sends them.
const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes read at once.
const PIECE_BYTES: usize = 32 * CHUNK_BYTES;
/// Streams at once; more are told "too many requests": each may hold back space.
pub(crate) const STREAMS_MAX: usize = 4;
/// How often it is looked whether the checkpoint is there.
const CHECKPOINT_POLL: Duration = Duration::from_millis(5);
/// How often deadline and growth are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Begins a stream of the newest state: what was applied when this was called is in it.
pub(super) async fn stream(
    shared: Arc<Shared>,
) -> Result<impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send, Status> {
    let place = Arc::clone(&shared.snapshots).try_acquire_owned().map_err(|_| Error::TooManyRequests)?;
    make_durable(&shared).await?;
    let reader = shared.reader().clone();
    let begun = tokio::task::spawn_blocking(move || {
        reader.snapshot(ETCD_CLUSTER_VERSION).map(|reader| Root { reader, _place: place })
    });
    let root = begun.await.map_err(|_| cut_short())?.map_err(|fault| fault_status(&shared, fault))?;
    let total = root.reader.image_bytes();
    tracing::info!(
        "total-bytes" = total,
        revision = root.reader.head().standing.revision,
        "storage-version" = ETCD_CLUSTER_VERSION,
        "sending database snapshot to client"
    );
    let held = Arc::new(Held { state: Mutex::new(State::Idle(Box::new(root))) });
    tokio::spawn(look_after(Arc::downgrade(&held), Arc::clone(&shared)));
    let sending = Sending {
        shared,
        held,
        hash: Sha256::new(),
        chunks: VecDeque::new(),
        left: total,
        total,
        began: Instant::now(),
        over: false,
    };
    Ok(stream::unfold(sending, |mut sending| async move {
        let message = sending.next().await?;
        Some((message, sending))
    }))
}

/// Waits until everything applied by now is in a durable root.
async fn make_durable(shared: &Arc<Shared>) -> Result<(), Status> {
    let wanted = shared.reader().position().applied;
    let until = Instant::now() + shared.config.snapshot_timeout;
    if shared.reader().durable_applied() < wanted {
        // one request is enough: a checkpoint that is under way is followed by another
        shared.node.request_checkpoint();
    }
    while shared.reader().durable_applied() < wanted {
        if shared.is_stopping() {
            return Err(Error::Stopped.into());
        }
        if Instant::now() >= until {
            return Err(Error::Timeout.into());
        }
        tokio::time::sleep(CHECKPOINT_POLL).await;
    }
    Ok(())
}

fn cut_short() -> Status {
    Status::internal("coffer: reading the snapshot was cut short")
}

fn fault_status(shared: &Shared, fault: Fault) -> Status {
    match fault {
        Fault::Unusable { reason, .. } => Status::failed_precondition(format!("coffer: {reason}")),
        fault => shared.read_error(ReadError::Fault(Box::new(fault))),
    }
}

/// The pinned root, and the place among [`STREAMS_MAX`] that is taken just as long as the root is held.
struct Root {
    reader: SnapshotReader,
    _place: OwnedSemaphorePermit,
}

/// The root, and who has it.
struct Held {
    state: Mutex<State>,
}

enum State {
    /// Nobody reads.
    Idle(Box<Root>),
    /// A piece is being read.
    Reading,
    /// The root was let go, with what the client is told.
    Ended(Status),
}

impl Held {
    fn take(&self) -> Result<Box<Root>, Status> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Reading) {
            State::Idle(root) => Ok(root),
            State::Reading => Err(cut_short()),
            State::Ended(status) => {
                *state = State::Ended(status.clone());
                Err(status)
            }
        }
    }

    /// Gives the root back, unless it was ended meanwhile.
    fn give_back(&self, root: Box<Root>) {
        let mut state = self.state.lock();
        if let State::Reading = *state {
            *state = State::Idle(root);
        }
    }

    fn end(&self, status: Status) {
        *self.state.lock() = State::Ended(status);
    }

    /// By how much the file has grown, where that can be asked now.
    fn growth_bytes(&self) -> u64 {
        match &*self.state.lock() {
            State::Idle(root) => root.reader.growth_bytes(),
            State::Reading | State::Ended(_) => 0,
        }
    }
}

/// Ends a stream that takes too long or holds back too much.
async fn look_after(held: Weak<Held>, shared: Arc<Shared>) {
    let limits = &shared.config;
    let until = Instant::now() + limits.snapshot_timeout;
    loop {
        tokio::time::sleep(WATCH_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
        let Some(held) = held.upgrade() else { return };
        let grown = held.growth_bytes();
        let why = if Instant::now() >= until {
            format!("it took longer than --snapshot-timeout, {:?}", limits.snapshot_timeout)
        } else if grown > limits.snapshot_growth_bytes_max {
            format!(
                "the store grew by {grown} bytes meanwhile, more than --snapshot-growth-bytes-max, {}",
                limits.snapshot_growth_bytes_max
            )
        } else {
            continue;
        };
        tracing::warn!(why, "a snapshot was ended before it was whole");
        held.end(Status::aborted(format!("coffer: the snapshot was ended: {why}")));
        return;
    }
}

/// A stream under way.
struct Sending {
    shared: Arc<Shared>,
    held: Arc<Held>,
    hash: Sha256,
    chunks: VecDeque<bytes::Bytes>,
    /// Bytes of the image that were not sent.
    left: u64,
    total: u64,
    began: Instant,
    over: bool,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<pb::SnapshotResponse, Status>> {
        if self.over {
            return None;
        }
        if self.left == 0 {
            self.over = true;
            return Some(Ok(self.checksum()));
        }
        if self.chunks.is_empty()
            && let Err(status) = self.read_piece().await
        {
            self.over = true;
            return Some(Err(status));
        }
        let Some(blob) = self.chunks.pop_front() else {
            self.over = true;
            return Some(Err(cut_short()));
        };
        self.left = self.left.saturating_sub(blob.len() as u64);
        Some(Ok(response(self.left, blob)))
    }

    async fn read_piece(&mut self) -> Result<(), Status> {
        let mut root = self.held.take()?;
        let mut hash = std::mem::take(&mut self.hash);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = root.reader.read(&mut piece, PIECE_BYTES);
            hash.update(&piece);
            (root, hash, piece, read)
        });
        let (root, hash, piece, read) = read.await.map_err(|_| cut_short())?;
        self.hash = hash;
        read.map_err(|fault| {
            self.held.end(cut_short());
            fault_status(&self.shared, *fault)
        })?;
        self.held.give_back(root);
        let mut piece = bytes::Bytes::from(piece);
        while !piece.is_empty() {
            self.chunks.push_back(piece.split_to(CHUNK_BYTES.min(piece.len())));
        }
        Ok(())
    }

    fn checksum(&mut self) -> pb::SnapshotResponse {
        // the root is needed no more, however long the client takes for the last message
        self.held.end(cut_short());
        let took = self.began.elapsed();
        self.shared.metrics.observe(Histogram::SnapshotSeconds, took.as_secs_f64());
        tracing::info!(
            "total-bytes" = self.total,
            ?took,
            "storage-version" = ETCD_CLUSTER_VERSION,
            "successfully sent database snapshot to client"
        );
        let sum = std::mem::take(&mut self.hash).finalize();
        response(0, bytes::Bytes::copy_from_slice(&sum))
    }
}

fn response(remaining_bytes: u64, blob: bytes::Bytes) -> pb::SnapshotResponse {
    pb::SnapshotResponse { header: None, remaining_bytes, blob, version: ETCD_CLUSTER_VERSION.to_owned() }
}
