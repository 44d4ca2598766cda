//! The core thread: the only place here with a thread, a clock and chance.
//!
//! ```text
//!  serving threads ── submit ──> bounded queue ──┐
//!                     (waker)                    v
//!       Disk::wait ──> completions ──> core: complete, request, step ──> board, then posts to the mailboxes
//!            ^                                   │
//!            └────────── until when? ────────────┘
//! ```
//!
//! It owns the disk (an io_uring belongs to the thread that made it), waits for completions and wakeups in one call,
//! and hands both to the [`Core`]. While a write is out requests gather in the queue and nobody wakes it for them
//! before enough wait for a second write.
//!
//! With nothing to do it sleeps without a timeout: a sole voter that leads needs no ticks.
//!
//! How it ends: asked to ([`Running::stop`]), or by a fault or a panic below. In this order: the door is closed
//! (`closed`), all who wait are answered, what is still in the queue is answered; after a stop the log gets its final
//! mark, after a fault `on_stop` is told. A request pushed after the door was closed is answered by whoever pushed it.

use crate::board::Board;
use crate::core::{Core, CoreOptions, LOG_BYTES_MAX, Output, ROUND_BYTES_MAX};
use crate::driver::DriverOptions;
use crate::error::Error;
use crate::meter::{ApplyTimes, Stopwatch};
use crate::node::{Options, WalIo};
use crate::proposal::{Busy, Mailbox, Outcome, Post, Request, request_bytes};
use crate::recovery::{self, RecoveryOptions, Replayed};
use crate::transport::{NoPeers, Transport};
use coffer_engine::Micros;
use coffer_engine::disk::{self, Completion, Disk, DiskIo, Waker};
use coffer_engine::error::Fault;
use coffer_engine::store::{StoreOptions, StoreReader};
use coffer_engine::wal::WalOptions;
use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

/// Requests that wait to be proposed: two rounds of more clients than a member serves well.
const QUEUE_REQUESTS_MAX: usize = 8_192;
/// Bytes that wait to be proposed, so that large values cannot fill the memory.
const QUEUE_BYTES_MAX: u64 = 512 << 20;
/// How long a clean stop may take before the final mark is given up, in microseconds.
const CLOSE_US_MAX: Micros = 3_000_000;
/// Weight of applied entries that a sole voter keeps in memory: there is no follower to serve.
const KEEP_BYTES_ALONE: u64 = 0;

/// What the core thread shares with everybody else.
pub(crate) struct Shared {
    queue: ArrayQueue<Request>,
    queued_bytes: AtomicU64,
    /// The core thread is to be woken once so many bytes are queued.
    wake_above: AtomicU64,
    stopping: AtomicBool,
    closed: AtomicBool,
    /// Whether a linearizable read may look at once.
    reads_at_once: AtomicBool,
    checkpoint_wanted: AtomicBool,
    /// Defragmentations asked for, and done.
    defragments: [AtomicU64; 2],
    /// The damage that the scrub met last.
    pub(crate) damage: Mutex<Option<String>>,
    mailboxes: Vec<Arc<dyn Mailbox>>,
    waker: Waker,
    origin: Instant,
    /// The same moment for people.
    pub(crate) begun_at: SystemTime,
    pub(crate) board: Board,
    pub(crate) apply_times: Arc<ApplyTimes>,
    pub(crate) reader: StoreReader,
    pub(crate) io_description: String,
    pub(crate) replayed: Replayed,
}

impl Shared {
    /// Microseconds since the core thread began.
    pub(crate) fn now(&self) -> Micros {
        since(self.origin)
    }

    /// Whether reads may look at the published state.
    ///
    /// # Errors
    /// [`Busy::Stopped`].
    pub(crate) fn reads_at_once(&self) -> Result<bool, Busy> {
        let at_once = self.reads_at_once.load(Ordering::Acquire);
        if self.stopping.load(Ordering::Acquire) { Err(Busy::Stopped) } else { Ok(at_once) }
    }

    /// Queues a request.
    pub(crate) fn submit(&self, request: Request) -> Result<(), Busy> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Busy::Stopped);
        }
        let bytes = request_bytes(&request);
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let too_many = queued > QUEUE_BYTES_MAX && queued > bytes;
        if too_many || self.queue.push(request).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
            return Err(Busy::TooManyRequests);
        }
        if self.closed.load(Ordering::SeqCst) {
            // the core thread may have looked into the queue for the last time before this push
            self.refuse_queued();
        } else if queued >= self.wake_above.load(Ordering::SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    /// Asks the core thread for a checkpoint.
    pub(crate) fn request_checkpoint(&self) {
        if !self.checkpoint_wanted.swap(true, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Asks the core thread to defragment; gives the request's number.
    pub(crate) fn request_defragment(&self) -> u64 {
        let number = self.defragments[0].fetch_add(1, Ordering::SeqCst) + 1;
        self.waker.wake();
        number
    }

    pub(crate) fn defragments_done(&self) -> u64 {
        self.defragments[1].load(Ordering::SeqCst)
    }

    fn take(&self) -> Option<(Request, u64)> {
        let request = self.queue.pop()?;
        let bytes = request_bytes(&request);
        self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
        Some((request, bytes))
    }

    /// No read looks at once and no request is taken from here on.
    fn close(&self) {
        self.reads_at_once.store(false, Ordering::Release);
        self.stopping.store(true, Ordering::SeqCst);
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Answers what is left in the queue.
    fn refuse_queued(&self) {
        while let Some((request, _)) = self.take() {
            let to = request.reply_to();
            let answers = vec![(to, Outcome::Failed(Busy::Stopped))];
            self.post(to.mailbox, Post { answers, events: None });
        }
    }

    fn post(&self, mailbox: u16, post: Post) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(mailbox)) {
            mailbox.post(post);
        }
    }

    fn post_all(&self, posts: &mut Vec<Post>) {
        for (mailbox, post) in (0..).zip(posts.drain(..)) {
            if !post.answers.is_empty() || post.events.is_some() {
                self.post(mailbox, post);
            }
        }
    }

    fn publish(&self, core: &Core) {
        let (wal, pages) = (core.wal().stats(), core.page_stats());
        let (checkpoints, compactions) = (core.checkpoint_us_buckets(), core.compactions());
        self.board.write(&core.status(), core.lease_clock(), wal, &pages, checkpoints, compactions);
        self.reads_at_once.store(core.reads_at_once(), Ordering::Release);
    }
}

fn since(origin: Instant) -> Micros {
    u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A core thread that runs.
pub(crate) struct Running {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Asks the thread to end and waits until it has.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.waker.wake();
        let thread = self.thread.lock().take();
        // `on_stop` runs on the core thread: if it stops the node there is nothing to wait for
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // a panic of the thread was caught and told inside it
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.waker.wake();
    }
}

/// Starts the core thread; returns once the log is open and everything known committed is applied.
pub(crate) fn start(
    options: Options,
    mailboxes: Vec<Arc<dyn Mailbox>>,
    on_stop: Box<dyn FnOnce(Error) + Send>,
) -> Result<Running, Error> {
    let (started, wait) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("coffer-core".into())
        .spawn(move || match Shell::open(&options, mailboxes) {
            Ok(shell) => {
                let told = started.send(Ok(Arc::clone(&shell.shared)));
                drop(started);
                if told.is_ok() {
                    shell.run(on_stop);
                }
            }
            Err(error) => drop(started.send(Err(error))),
        })
        .map_err(|error| Error::Unusable(format!("no thread could be started: {error}")))?;
    match wait.recv() {
        Ok(started) => Ok(Running { shared: started?, thread: Mutex::new(Some(thread)) }),
        Err(_) => Err(Error::Unusable("the core thread ended while it started".into())),
    }
}

/// Why the loop ended.
enum End {
    Asked,
    Fault(Error),
}

struct Shell {
    disk: Box<dyn Disk>,
    core: Core,
    shared: Arc<Shared>,
    transport: Box<dyn Transport>,
    /// The number of the last request to defragment that was handed on.
    defragments_taken: u64,
}

impl Shell {
    #[allow(clippy::disallowed_methods, reason = "the shell is where the clock comes from")]
    fn open(options: &Options, mailboxes: Vec<Arc<dyn Mailbox>>) -> Result<Shell, Error> {
        let (origin, begun_at) = (Instant::now(), SystemTime::now());
        let choice = match options.wal_io {
            WalIo::Auto => DiskIo::Auto,
            WalIo::Uring => DiskIo::Uring,
            WalIo::Sync => DiskIo::Sync,
        };
        let mut disk = disk::open_disk(choice).map_err(|source| {
            let path = options.wal_dir.clone();
            Error::Fault(Fault::Io { operation: "start", path, offset: 0, source })
        })?;
        let wal = wal_options(options);
        let second_write_bytes = wal.second_write_bytes;
        let recovery = RecoveryOptions {
            wal,
            pages: StoreOptions {
                dirty_bytes: options.dirty_bytes,
                snapshot_entries: options.snapshot_entries,
                scrub_bytes_per_s: options.scrub_bytes_per_s,
                ..StoreOptions::new(
                    options.pages.clone(),
                    recovery::owner(options.cluster_id, options.member_id),
                )
            },
            cluster_id: options.cluster_id,
            member_id: options.member_id,
            bootstrap: options.bootstrap.clone(),
            keep_bytes: KEEP_BYTES_ALONE,
        };
        let recovered = recovery::recover(disk.as_mut(), &recovery, &mut || since(origin))?;
        let replayed = recovered.replayed;
        let core_options = CoreOptions {
            driver: DriverOptions {
                member_id: options.member_id,
                cluster_id: options.cluster_id,
                election_ticks: options.election_ticks.max(2),
                seed: options.seed,
                log_bytes_max: LOG_BYTES_MAX,
            },
            heartbeat_us: u64::try_from(options.heartbeat.as_micros()).unwrap_or(u64::MAX).max(1_000),
            mailboxes: mailboxes.len(),
            second_write_bytes,
            dirty_bytes: options.dirty_bytes,
            catchup_entries: options.catchup_entries,
        };
        let mut core = Core::new(recovered, core_options, since(origin))?;
        let apply_times = Arc::new(ApplyTimes::default());
        core.set_meter(Box::new(Stopwatch::new(Arc::clone(&apply_times), options.warn_apply_after)));
        if !core.driver().standing().sole_voter {
            return Err(Error::Unusable("clusters of more than one member cannot be run yet".into()));
        }
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(QUEUE_REQUESTS_MAX),
            queued_bytes: AtomicU64::new(0),
            wake_above: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reads_at_once: AtomicBool::new(false),
            checkpoint_wanted: AtomicBool::new(false),
            defragments: Default::default(),
            damage: Mutex::new(None),
            mailboxes,
            waker: disk.waker(),
            origin,
            begun_at,
            board: Board::new(),
            apply_times,
            reader: core.reader(),
            io_description: disk.describe(),
            replayed,
        });
        shared.publish(&core);
        Ok(Shell { disk, core, shared, transport: Box::new(NoPeers), defragments_taken: 0 })
    }

    fn run(mut self, on_stop: Box<dyn FnOnce(Error) + Send>) {
        let end = catch_unwind(AssertUnwindSafe(|| self.serve()))
            .unwrap_or_else(|_| End::Fault(Error::Unusable("the core thread panicked".into())));
        self.shared.close();
        let mut out = Output::default();
        // after a panic the state may be in halves: if answering panics too, the requests time out above
        let _ = catch_unwind(AssertUnwindSafe(|| self.core.stop(&mut out)));
        self.shared.post_all(&mut out.posts);
        self.shared.refuse_queued();
        match end {
            End::Asked => {
                if let Err(error) = self.close_log() {
                    tracing::error!(%error, "the log was not closed cleanly");
                }
            }
            End::Fault(error) => {
                tracing::error!(%error, "the member stops");
                on_stop(error);
            }
        }
    }

    fn serve(&mut self) -> End {
        let mut out = Output::default();
        let mut completions = Vec::new();
        loop {
            let now = self.shared.now();
            self.disk.poll(&mut completions);
            self.complete(&mut completions, now);
            if self.shared.stopping.load(Ordering::SeqCst) {
                return End::Asked;
            }
            self.take_requests(now);
            self.take_wishes();
            let stepped = self.core.step(self.disk.as_mut(), now, &mut out);
            out.messages.drain(..).for_each(|envelope| self.transport.send(envelope));
            self.tell_damage(&mut out.damage);
            self.tell_defragments();
            // the board first: whoever has an answer finds the state that it tells of
            match &stepped {
                Ok(_) => self.shared.publish(&self.core),
                // whoever hears that this member stops finds the door closed
                Err(_) => self.shared.close(),
            }
            self.shared.post_all(&mut out.posts);
            match stepped {
                Err(error) => return End::Fault(error),
                Ok(next) if next.at_once => {}
                Ok(next) => self.sleep(next.at),
            }
        }
    }

    fn complete(&mut self, completions: &mut Vec<Completion>, now: Micros) {
        for completion in completions.drain(..) {
            self.core.complete(completion, now);
        }
    }

    /// Wishes for the page file, which nobody waits for in the queue.
    fn take_wishes(&mut self) {
        if self.shared.checkpoint_wanted.swap(false, Ordering::SeqCst) {
            self.core.request_checkpoint();
        }
        let asked = self.shared.defragments[0].load(Ordering::SeqCst);
        if asked > self.defragments_taken {
            self.defragments_taken = asked;
            self.core.request_defragment();
        }
    }

    /// After a step: what was asked for before it has begun, or there was nothing to do.
    fn tell_defragments(&self) {
        let done = &self.shared.defragments[1];
        if done.load(Ordering::Relaxed) < self.defragments_taken && !self.core.is_moving() {
            done.store(self.defragments_taken, Ordering::SeqCst);
        }
    }

    fn tell_damage(&self, damage: &mut Vec<Fault>) {
        for fault in damage.drain(..) {
            tracing::error!(%fault, "the scrub of the page file met damage");
            *self.shared.damage.lock() = Some(fault.to_string());
        }
    }

    fn take_requests(&mut self, now: Micros) {
        if !self.core.takes_requests(self.shared.queued_bytes.load(Ordering::SeqCst), now) {
            return;
        }
        let mut round_bytes = 0;
        while round_bytes < ROUND_BYTES_MAX {
            let Some((request, bytes)) = self.shared.take() else { break };
            round_bytes += bytes;
            self.core.request(request);
        }
    }

    /// Sleeps until something completes, enough is queued, or `at`.
    fn sleep(&mut self, at: Option<Micros>) {
        let now = self.shared.now();
        let any = self.core.takes_requests(0, now);
        let wake_above = if any { 0 } else { self.core.second_write_bytes() };
        self.shared.wake_above.store(wake_above, Ordering::SeqCst);
        // whoever pushed before it could see that has woken nobody
        let queued = self.shared.queued_bytes.load(Ordering::SeqCst);
        if queued > 0 && self.core.takes_requests(queued, now) {
            return;
        }
        self.disk.wait(at.map(|at| at.saturating_sub(now)));
    }

    fn close_log(&mut self) -> Result<(), Error> {
        let begun = self.shared.now();
        let mut completions = Vec::new();
        self.core.close();
        loop {
            let now = self.shared.now();
            if self.core.step_close(self.disk.as_mut(), now)? {
                return Ok(());
            }
            if now - begun > CLOSE_US_MAX {
                return Err(Error::Unusable("the final mark took too long".into()));
            }
            self.disk.wait(Some(CLOSE_US_MAX / 10));
            self.disk.poll(&mut completions);
            self.complete(&mut completions, now);
        }
    }
}

fn wal_options(options: &Options) -> WalOptions {
    let owner = recovery::owner(options.cluster_id, options.member_id);
    WalOptions {
        segment_bytes_min: options.segment_bytes.0,
        segment_bytes_max: options.segment_bytes.1,
        entry_bytes_max: options.entry_bytes_max,
        ..WalOptions::new(options.wal_dir.clone(), owner, draw())
    }
}

/// A number nobody can foresee.
#[allow(clippy::disallowed_types, reason = "the shell is where chance comes from; the system seeds this")]
fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
