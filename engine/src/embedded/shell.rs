//! The writer's thread: here the state machine gets a disk, a clock and chance.
//!
//! ```text
//!  callers ── push ──> queue ──┐
//!             (waker)          v
//!    Disk::wait ──> completions, requests ──> core ──> board, then watchers, then answers
//!         ^                                    │
//!         └──────────── until when? ───────────┘
//! ```
//! It owns the disk (an io_uring belongs to the thread that made it) and sleeps without a timeout while nothing is to be
//! done. While a write is out requests gather in the queue, and nobody wakes it for them before enough wait for a second.
//!
//! How it ends: asked to ([`Running::stop`]), or by a fault or a panic below. Asked to: the queue is closed, what is in
//! it is written and answered, the log gets its final mark. By a fault: the reason is noted, the queue closed, all who
//! wait and all who watch are told. Either way no read begins any more, and the directory is given up after the last one
//! under way (reading.rs).

use super::Options;
use super::copy;
use super::core::{Core, Next, Output};
use super::directory::Directory;
use super::error::Error;
use super::opening::Files;
use super::queue::{Queue, Request, Slot};
use super::reading::Reads;
use super::watch::Recent;
use crate::Micros;
use crate::command::{Applied, Command};
use crate::disk::{self, Completion, Disk, Waker};
use crate::error::Fault;
use crate::lease_clock::LeaseClock;
use crate::store::{StoreOptions, StoreReader};
use crate::wal::{Opened, WalOptions};
use parking_lot::{Condvar, Mutex};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

/// The owner that an embedded log names: no member of a cluster has these ids.
const OWNER: [u8; 16] = *b"coffer embedded\0";
/// Bytes of requests taken in one step.
const ROUND_BYTES_MAX: u64 = 4 << 20;
/// How long a clean stop may take before it is given up, in microseconds.
const CLOSE_US_MAX: Micros = 3_000_000;

/// What the writer's thread shares with all handles.
pub(super) struct Shared {
    queue: Queue,
    waker: Waker,
    stopping: AtomicBool,
    /// Why it ended, once it has.
    end: OnceLock<Error>,
    origin: Instant,
    clock: Mutex<LeaseClock>,
    pub(super) reader: StoreReader,
    pub(super) reads: Reads,
    pub(super) recent: Mutex<Recent>,
    /// Told with every change of `recent`, and at the end.
    pub(super) told: Condvar,
    checkpoint_wanted: AtomicBool,
    /// Up to which entry everything applied is in the page file, durable.
    checkpoint: Mutex<u64>,
    /// Told with every change of `checkpoint`, and at the end.
    checkpoint_told: Condvar,
    pub(super) opened: Opened,
    pub(super) io: String,
}

impl Shared {
    /// Microseconds since the thread began.
    fn now(&self) -> Micros {
        since(self.origin)
    }

    /// The lease clock in milliseconds.
    pub(super) fn lease_clock_ms(&self) -> u64 {
        self.clock.lock().now_ms(self.now())
    }

    /// Says why it ended if it did.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Fault`].
    pub(super) fn check(&self) -> Result<(), Error> {
        self.end.get().map_or(Ok(()), |end| Err(end.clone()))
    }

    /// Why it ended, to be asked after that.
    pub(super) fn why(&self) -> Error {
        self.end.get().map_or(Error::Closed, Error::clone)
    }

    /// Hands in a command and waits for its answer.
    pub(super) fn execute(&self, command: Command, bytes: u64) -> Result<Applied, Error> {
        let (slot, asker) = Slot::with_asker();
        if self.queue.push(Request { command, bytes, asker: Some(asker) })? {
            self.waker.wake();
        }
        slot.wait()
    }

    /// Waits until everything applied up to this entry is durable in the page file.
    pub(super) fn checkpoint(&self, applied: u64) -> Result<(), Error> {
        let mut durable = self.checkpoint.lock();
        while *durable < applied {
            self.check()?;
            self.checkpoint_wanted.store(true, Ordering::SeqCst);
            self.waker.wake();
            self.checkpoint_told.wait(&mut durable);
        }
        Ok(())
    }

    fn tell(&self, core: &Core, out: &mut Output) {
        *self.clock.lock() = core.lease_clock();
        let mut durable = self.checkpoint.lock();
        if *durable != core.checkpoint().applied {
            *durable = core.checkpoint().applied;
            self.checkpoint_told.notify_all();
        }
        drop(durable);
        if let Some(events) = out.events.take() {
            self.recent.lock().push(events);
            self.told.notify_all();
        }
        for (asker, answer) in out.answers.drain(..) {
            asker.answer(answer);
        }
    }

    /// The end: every later call and every watch is told why.
    fn end(&self, why: &Error) {
        // the first reason stays; it is there before anybody is told that it is over
        let _ = self.end.set(why.clone());
        self.reads.end();
        self.queue.close(why.clone());
        // whoever looked before it was set sleeps by the time these locks are had
        drop(self.recent.lock());
        self.told.notify_all();
        drop(self.checkpoint.lock());
        self.checkpoint_told.notify_all();
    }
}

fn since(origin: Instant) -> Micros {
    u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The files of a database in `directory`.
pub(super) fn files(options: &Options, directory: &Directory) -> Files {
    Files {
        wal: WalOptions {
            segment_bytes_min: options.wal_segment_bytes.0,
            segment_bytes_max: options.wal_segment_bytes.1,
            entry_bytes_max: options.command_bytes_max,
            ..WalOptions::new(directory.wal(), OWNER, draw())
        },
        pages: StoreOptions {
            dirty_bytes: options.dirty_bytes,
            checkpoint_wal_bytes: options.checkpoint_wal_bytes,
            scrub_bytes_per_s: options.scrub_bytes_per_s,
            ..StoreOptions::new(directory.pages(), OWNER)
        },
    }
}

/// Copies the newest durable state that `reader` finds to a directory; the revision that it stands at.
///
/// # Errors
/// Those of [`copy::copy`].
#[allow(clippy::disallowed_methods, reason = "the shell is where the clock comes from")]
pub(super) fn copy_to(reader: &StoreReader, to: &Path) -> Result<i64, Fault> {
    let origin = Instant::now();
    let directory = Directory::open(to)?;
    let files = files(&Options::new(to), &directory);
    copy::copy(reader, &directory, &files, &mut || since(origin))
}

/// A writer's thread that runs.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// Asks the thread to end and waits until it has, and with it the reads under way.
    ///
    /// # Errors
    /// The fault by which it ended instead.
    pub(super) fn stop(&self) -> Result<(), Error> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.waker.wake();
        if let Some(thread) = self.thread.lock().take() {
            // a panic of the thread was caught and told inside it
            let _ = thread.join();
        }
        match self.shared.end.get() {
            Some(Error::Fault(fault)) => Err(Error::Fault(Arc::clone(fault))),
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // a fault was told to all who waited, and nobody is left to tell
        let _ = self.stop();
    }
}

/// Starts the writer's thread; returns once everything in the log is applied.
///
/// # Errors
/// Why it cannot be opened.
pub(super) fn start(options: Options) -> Result<Running, Fault> {
    let dir = options.dir.clone();
    let (started, wait) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("coffer-writer".into())
        .spawn(move || match Shell::open(&options) {
            Ok(shell) => {
                let told = started.send(Ok(Arc::clone(&shell.shared)));
                drop(started);
                if told.is_ok() {
                    shell.run();
                }
            }
            Err(fault) => drop(started.send(Err(fault))),
        })
        .map_err(|source| Fault::Io { operation: "start a thread", path: dir.clone(), offset: 0, source })?;
    match wait.recv() {
        Ok(shared) => Ok(Running { shared: shared?, thread: Mutex::new(Some(thread)) }),
        Err(_) => Err(panicked(dir)),
    }
}

fn panicked(path: PathBuf) -> Fault {
    Fault::Unusable { path, reason: "the writer's thread panicked".to_string() }
}

struct Shell {
    disk: Box<dyn Disk>,
    core: Core,
    shared: Arc<Shared>,
    completions: Vec<Completion>,
    taken: Vec<Request>,
    out: Output,
    dir: PathBuf,
    /// Held until everything above is done with it, and nobody reads any more.
    _directory: Directory,
}

impl Shell {
    #[allow(clippy::disallowed_methods, reason = "the shell is where the clock comes from")]
    fn open(options: &Options) -> Result<Shell, Fault> {
        let origin = Instant::now();
        let directory = Directory::open(&options.dir)?;
        let mut disk = disk::open_disk(options.wal_io).map_err(|source| {
            let path = options.dir.clone();
            Fault::Io { operation: "start", path, offset: 0, source }
        })?;
        let files = files(options, &directory);
        let (core, opened) = Core::open(disk.as_mut(), &files, &mut || since(origin))?;
        let reader = core.reader();
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            waker: disk.waker(),
            stopping: AtomicBool::new(false),
            end: OnceLock::new(),
            origin,
            clock: Mutex::new(core.lease_clock()),
            recent: Mutex::new(Recent::after(reader.position().revision)),
            told: Condvar::new(),
            checkpoint_wanted: AtomicBool::new(false),
            checkpoint: Mutex::new(core.checkpoint().applied),
            checkpoint_told: Condvar::new(),
            reader,
            reads: Reads::default(),
            opened,
            io: disk.describe(),
        });
        Ok(Shell {
            disk,
            core,
            shared,
            completions: Vec::new(),
            taken: Vec::new(),
            out: Output::default(),
            dir: options.dir.clone(),
            _directory: directory,
        })
    }

    fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve().and_then(|()| self.close())))
            .unwrap_or_else(|_| Err(panicked(self.dir.clone())));
        let why = ended.map_or_else(Error::from, |()| Error::Closed);
        self.shared.end(&why);
        self.shared.queue.take(u64::MAX, &mut self.taken);
        let queued = self.taken.drain(..).filter_map(|request| request.asker);
        // a panic came before these were answered, and perhaps before what they ask for was published
        let unsaid = self.out.answers.drain(..).map(|(asker, _)| asker);
        for asker in self.core.stop().into_iter().chain(queued).chain(unsaid) {
            asker.answer(Err(why.clone()));
        }
        self.shared.reads.wait();
    }

    /// Works until asked to stop.
    fn serve(&mut self) -> Result<(), Fault> {
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let next = self.step()?;
            self.sleep(next, None);
        }
        Ok(())
    }

    /// What completed, what waits, one step of the core.
    fn step(&mut self) -> Result<Next, Fault> {
        let now = self.shared.now();
        self.complete(now);
        self.shared.queue.take(self.core.room().min(ROUND_BYTES_MAX), &mut self.taken);
        self.core.request(&mut self.taken);
        if self.shared.checkpoint_wanted.swap(false, Ordering::SeqCst) {
            self.core.request_checkpoint();
        }
        let stepped = self.core.step(self.disk.as_mut(), now, &mut self.out);
        // what was published and answered before a fault stands
        self.shared.tell(&self.core, &mut self.out);
        stepped
    }

    /// Sleeps until something completes, enough is queued, or it is time.
    fn sleep(&mut self, next: Next, until: Option<Micros>) {
        let now = self.shared.now();
        if !next.at_once && self.shared.queue.may_sleep(self.core.wake_above(now)) {
            let at = next.at.into_iter().chain(until).min();
            self.disk.wait(at.map(|at| at.saturating_sub(now)));
        }
    }

    fn complete(&mut self, now: Micros) {
        self.disk.poll(&mut self.completions);
        for completion in self.completions.drain(..) {
            self.core.complete(completion, now);
        }
    }

    /// Answers what was asked before it was to stop, and writes the final mark.
    fn close(&mut self) -> Result<(), Fault> {
        self.shared.queue.close(Error::Closed);
        let until = self.shared.now() + CLOSE_US_MAX;
        loop {
            let next = self.step()?;
            let given_up = self.shared.now() >= until;
            if given_up || (self.core.is_idle() && self.shared.queue.is_empty()) {
                break;
            }
            self.sleep(next, Some(until));
        }
        self.core.close();
        loop {
            let now = self.shared.now();
            self.complete(now);
            if self.core.step_close(self.disk.as_mut(), now)? || now >= until {
                return Ok(());
            }
            self.disk.wait(Some(until - now));
        }
    }
}

/// A number nobody can foresee.
#[allow(clippy::disallowed_types, reason = "the shell is where chance comes from; the system seeds this")]
pub(super) fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
