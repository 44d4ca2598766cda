//! A serving thread: its runtime, its mailbox of answers and events, its watch hub.
//!
//! ```text
//! core thread ── Post{answers, events} ──> Mailbox ──signal──> pump ─┬─ answers -> slots -> waiting handlers
//!                                                                    └─ events  -> hub   -> watch streams
//! ```
//!
//! Rules kept here:
//! - An answer lands in a preallocated slot; a slot's generation keeps a late answer from a new owner. Dropping the
//!   [`Ticket`] (the client went away) frees the slot.
//! - The thread is signalled once for all that gathers until it looks.
//! - Posted events that a stalled thread does not fetch are dropped beyond a bound; the hub then reads history.
//!
//! It leaves to others: what is asked ([`crate::propose`], [`crate::read`]), connections ([`crate::accept`]).

mod mailbox;
mod pump;

pub use mailbox::{Mailbox, Ticket};
pub use pump::pump;

use crate::config::Config;
use crate::metrics::{Count, Metrics};
use crate::rpc::hashes;
use crate::rpc::status::Error;
use crate::rpc::undelivered::Total;
use crate::rpc::wire;
use crate::watch_hub::{Hub, Key, Limits};
use coffer_engine::Micros;
use coffer_engine::error::ReadError;
use coffer_engine::store::StoreReader;
use coffer_raftlog::node::Node;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tonic::Status;

/// Undelivered responses of one watch stream, beside their bytes: every one of some thousands of watchers of a key gets one at once,
/// and those that find no room read history, which costs twice as much.
const WATCH_MESSAGES_MAX: usize = 16 * 1024;

/// What all serving threads of a member share.
pub struct Shared {
    /// The log and its store.
    pub node: Node,
    /// The configuration.
    pub config: Config,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// This member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// Largest request, in bytes of etcd's encoding.
    pub request_bytes_max: usize,
    /// How long a request may wait for agreement.
    pub request_timeout: Duration,
    /// Told when the member is stopping.
    pub stop: watch::Sender<bool>,
    /// The start of this process's time.
    pub began: Instant,
    /// Places for snapshots being sent.
    pub snapshots: Arc<Semaphore>,
    /// Places for hashes being taken.
    pub hashes: Arc<Semaphore>,
    /// HashKV's last answers.
    pub(crate) hashes_told: Mutex<hashes::Told>,
    /// What a read met last that it could not read, in words.
    pub damage: Mutex<Option<String>>,
    /// Answers that no client has taken yet.
    pub(crate) undelivered: Arc<Total>,
}

impl Shared {
    /// The store.
    pub fn reader(&self) -> &StoreReader {
        self.node.reader()
    }

    /// What a read that was not answered tells its client. A fault is this member's own: see [`Shared::damaged`].
    pub(crate) fn read_error(&self, error: ReadError) -> Status {
        match error {
            ReadError::Refused(refusal) => Error::from(refusal).into(),
            ReadError::Fault(fault) => self.damaged(&fault.to_string()),
        }
    }

    /// Notes that something could not be read: counted, logged if it is another than the last, and kept for `/health`.
    /// Gives what the client is told; all other requests go on.
    pub(crate) fn damaged(&self, fault: &str) -> Status {
        self.metrics.add(Count::ReadFaults, 1);
        let mut damage = self.damage.lock();
        if damage.as_deref() != Some(fault) {
            tracing::error!(fault, "a read failed on damaged data");
            *damage = Some(fault.to_owned());
        }
        Status::data_loss(format!("coffer: {fault}"))
    }

    /// What a read met last that it could not read, in words; `None` if there was nothing.
    pub fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// Whether the member is stopping.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the member is stopping.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            // An error says that the member is gone altogether.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// The time since the start.
    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The watchers of a thread and the streams that sleep until they have something to say.
struct Watching {
    hub: Hub,
    sleeping: HashMap<Key, Waker>,
    /// No leader has been known for three election timeouts.
    leaderless: bool,
}

/// One serving thread.
pub struct Serving {
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Where answers come.
    pub mailbox: Arc<Mailbox>,
    watching: Mutex<Watching>,
    /// Until this time pages are expected to be read from the disk.
    cold_until: AtomicU64,
}

impl Serving {
    /// The state of a thread whose mailbox was given to the log.
    pub fn new(shared: Arc<Shared>, mailbox: Arc<Mailbox>) -> Serving {
        let limits = Limits {
            stream_bytes_max: shared.config.watch_buffer_bytes_max,
            stream_messages_max: WATCH_MESSAGES_MAX,
            watchers_per_stream_max: shared.config.watchers_per_stream_max,
            fragment_bytes: shared.config.grpc_receive_bytes_max(),
            ..Limits::default()
        };
        let hub = Hub::new(limits, wire::encode_event, shared.reader().position().revision);
        let watching = Mutex::new(Watching { hub, sleeping: HashMap::new(), leaderless: false });
        Serving { shared, mailbox, watching, cold_until: AtomicU64::new(0) }
    }

    /// Whether a read is likely to wait for the disk.
    pub fn is_cold(&self) -> bool {
        match self.cold_until.load(Ordering::Relaxed) {
            0 => false,
            until if self.shared.now() < until => true,
            _ => {
                self.cold_until.store(0, Ordering::Relaxed);
                false
            }
        }
    }

    /// A read has waited for the disk: others may, for so long.
    pub fn expect_cold(&self, us: Micros) {
        self.cold_until.store(self.shared.now() + us, Ordering::Relaxed);
    }

    /// Looks at or changes the hub; whoever got something to say is woken, and the pump if there is work for it.
    pub fn with_hub<T>(&self, f: impl FnOnce(&mut Hub) -> T) -> T {
        let mut watching = self.watching.lock();
        let before = watching.hub.next_tick();
        let result = f(&mut watching.hub);
        let Watching { hub, sleeping, .. } = &mut *watching;
        hub.drain_woken(|key| {
            if let Some(waker) = sleeping.remove(&key) {
                waker.wake();
            }
        });
        if hub.has_work() || hub.next_tick() != before {
            self.mailbox.signal();
        }
        result
    }

    /// Lets a watch stream sleep until it has something to say.
    pub fn sleep(&self, key: Key, waker: &Waker) {
        self.watching.lock().sleeping.insert(key, waker.clone());
    }

    /// Opens a watch stream whose idle watchers are told progress every `progress_every`. Events come to this thread from its
    /// first one on.
    pub fn open_stream(&self, progress_every: Micros) -> Key {
        let mut watching = self.watching.lock();
        if watching.hub.stats().streams == 0 {
            self.mailbox.listen();
            watching.hub.begin_at(self.shared.reader().position().revision);
        }
        watching.hub.open(self.shared.now(), progress_every)
    }

    /// Forgets a watch stream.
    pub fn close_stream(&self, key: Key) {
        let mut watching = self.watching.lock();
        watching.hub.close(key);
        watching.sleeping.remove(&key);
        if watching.hub.stats().streams == 0 {
            self.mailbox.stop_listening();
        }
    }

    /// Whether streams that insist on a leader are to end.
    pub fn is_leaderless(&self) -> bool {
        self.watching.lock().leaderless
    }

    /// Wakes every watch stream, so that it sees that it must end.
    pub fn wake_streams(&self) {
        for (_, waker) in self.watching.lock().sleeping.drain() {
            waker.wake();
        }
    }

    fn set_leaderless(&self, leaderless: bool) {
        let before = std::mem::replace(&mut self.watching.lock().leaderless, leaderless);
        if leaderless && !before {
            self.wake_streams();
        }
    }

    /// Takes what the core thread has posted: answers to their slots, events to the hub.
    pub fn drain(&self) {
        let (events, missed) = self.mailbox.drain();
        if events.is_empty() && !missed {
            return;
        }
        self.with_hub(|hub| {
            if missed {
                hub.lose_touch(self.shared.reader());
            } else {
                events.iter().for_each(|batch| hub.publish(batch));
            }
        });
    }
}
