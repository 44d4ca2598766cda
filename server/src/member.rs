//! A member from its configuration: directory, log, serving threads, listeners; and the way back.
//!
//! Start:
//! 1. the data directory is made, checked and locked ([`directory`]);
//! 2. addresses are bound, so that a taken port costs nothing;
//! 3. the log is opened and replayed, the core thread runs;
//! 4. serving threads run, each with its mailbox, hub and doors;
//! 5. the member tells the cluster its name and client URLs, if they differ from what the cluster knows;
//! 6. connections are accepted: "ready to serve client requests".
//!
//! Stop, in reverse:
//! 1. listeners close;
//! 2. streams end with "server stopped", connections are told to go and finish what they are at;
//! 3. after a bound the rest is cut, and reads that still block a thread are left behind;
//! 4. the log writes its final mark and the core thread ends;
//! 5. the lock is given up.

pub mod directory;
pub mod identity;
mod probe;
mod threads;

use crate::accept::{self, Listener};
use crate::config::{AutoCompaction, Config};
use crate::metrics::Metrics;
use crate::propose::{Publish, propose};
use crate::rpc::status::Error as RpcError;
use crate::rpc::{HASHES_MAX, SNAPSHOT_STREAMS_MAX};
use crate::serving::{Mailbox, Serving, Shared};
use coffer_engine::command::Member as MemberInfo;
use coffer_raftlog::error::Error as LogError;
use coffer_raftlog::node::{Node, Options};
use coffer_raftlog::proposal;
use coffer_raftlog::recovery;
use directory::DataDirectory;
use parking_lot::Mutex;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use threads::Threads;
use tokio::sync::{Semaphore, watch};

/// Added to the largest request to get the largest entry of the log: our encoding and etcd's differ a little.
const ENTRY_OVERHEAD_BYTES: u64 = 512 * 1024;
/// From this value of `--snapshot-count` on (etcd's default) only bytes and time begin checkpoints: at full speed it would
/// mean several a second.
const SNAPSHOT_COUNT_EFFECTIVE_BELOW: u64 = 10_000;
/// Pause between two attempts to tell the cluster who this is.
const PUBLISH_PAUSE: Duration = Duration::from_millis(50);

/// Why a member did not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory.
    Directory(directory::Refusal),
    /// An address could not be bound: which, and why.
    Listen(String),
    /// There are no data yet, and a first member cannot be made of these flags.
    FirstStart(String),
    /// The log.
    Log(LogError),
    /// A thread or runtime could not be made.
    Thread(std::io::Error),
    /// It could not go on before it served; the reason was told to whoever asked to be called.
    Stopped,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Directory(refusal) => refusal.fmt(f),
            StartError::Listen(text) | StartError::FirstStart(text) => f.write_str(text),
            StartError::Log(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "start a thread: {error}"),
            StartError::Stopped => f.write_str("the member stopped while it started"),
        }
    }
}

impl std::error::Error for StartError {}

/// Called when the member cannot go on, with the reason.
pub type OnFault = Box<dyn FnOnce(LogError) + Send>;

/// Calls whoever asked to be called of the first fault, whichever thread meets it.
struct Faults(Mutex<Option<OnFault>>);

impl Faults {
    fn tell(&self, error: LogError) {
        let first = self.0.lock().take();
        if let Some(on_fault) = first {
            on_fault(error);
        }
    }
}

/// A running member.
pub struct Member {
    shared: Arc<Shared>,
    threads: Threads,
    addresses: Vec<SocketAddr>,
    _directory: DataDirectory,
}

impl Member {
    /// Starts a member and returns once it serves. `on_fault` is called, from the thread that met it, when it
    /// cannot go on.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(config: Config, on_fault: OnFault) -> Result<Member, StartError> {
        let directory = DataDirectory::open(&config).map_err(StartError::Directory)?;
        let said = if directory.is_fresh() {
            "Initialize and start etcd server"
        } else {
            "server has already been initialized"
        };
        tracing::info!(name = %config.name, "data-dir" = %config.data_dir.display(), "{said}");
        let listeners = accept::bind(&config).map_err(StartError::Listen)?;
        let addresses = listeners.iter().filter_map(|listener| listener.address).collect();
        let faults = Arc::new(Faults(Mutex::new(Some(on_fault))));
        let (shared, servings) = start_log(config, &directory, Arc::clone(&faults))?;
        let threads = Threads::start(&shared, servings, &faults).map_err(|error| {
            shared.node.stop();
            StartError::Thread(error)
        })?;
        let mut member = Member { shared, threads, addresses, _directory: directory };
        if !member.publish() {
            member.stop();
            return Err(StartError::Stopped);
        }
        member.compact_automatically();
        member.serve(listeners)?;
        Ok(member)
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What its serving threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Tells the cluster this member's name and client URLs, unless it knows them. Gives up, with `false`, when the member
    /// stops.
    fn publish(&self) -> bool {
        let (done, published) = mpsc::channel();
        self.threads.run_on_first(|serving| async move {
            // Whoever started the member may be gone by now.
            let _ = done.send(publish(&serving).await);
        });
        // An error says that the thread is gone, which a fault may have caused; it is told by `on_fault`.
        published.recv().unwrap_or(false)
    }

    fn compact_automatically(&self) {
        if let Some(mode) = self.shared.config.auto_compaction {
            let mode_name = match mode {
                AutoCompaction::Periodic(_) => "periodic",
                AutoCompaction::Revision(_) => "revision",
            };
            tracing::info!(mode = mode_name, "automatic compaction is on");
            self.threads.run_on_first(move |serving| crate::compactor::run(serving, mode));
        }
    }

    fn serve(&mut self, listeners: Vec<Listener>) -> Result<(), StartError> {
        let traffic: Vec<String> = listeners.iter().map(described).collect();
        tracing::info!("ready to serve client requests");
        for address in traffic {
            tracing::info!(
                traffic = "grpc+http",
                address = %address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        self.threads.accept(listeners, self.shared.config.client_connections_max).map_err(StartError::Thread)
    }

    /// Stops the member; see the head of this file.
    pub fn stop(mut self) {
        self.shared.stop.send_replace(true);
        // A fifth of the time is the log's.
        self.threads.stop(self.shared.config.shutdown_timeout * 4 / 5);
        self.shared.node.stop();
    }
}

/// Where a listener listens, for the log: the port is the real one.
fn described(listener: &Listener) -> String {
    listener.address.map_or_else(|| listener.url.host.clone(), |address| address.to_string())
}

fn start_log(
    config: Config,
    directory: &DataDirectory,
    faults: Arc<Faults>,
) -> Result<(Arc<Shared>, Vec<Arc<Serving>>), StartError> {
    // Once there is a log it says who this is; the flags of the first start count no more, as with etcd.
    let written = recovery::identity_of(directory.wal_path()).map_err(StartError::Log)?;
    let members = match first_members(&config) {
        Err(text) if written.is_none() => return Err(StartError::FirstStart(text)),
        members => members.unwrap_or_default(),
    };
    let (cluster_id, own) = written.unwrap_or_else(|| {
        let own = identity::member_id(&config.peer_urls(), &config.initial_cluster_token);
        (identity::cluster_id(members.iter().map(|member| member.id)), own)
    });
    let boxes: Vec<Arc<Mailbox>> = (0..config.serving_threads.max(1))
        .map(|number| {
            Arc::new(Mailbox::new(u16::try_from(number).unwrap_or(u16::MAX), config.requests_in_flight_max))
        })
        .collect();
    let options = Options {
        pages: directory.page_file(),
        wal_dir: directory.wal_path().to_owned(),
        member_id: own,
        cluster_id,
        bootstrap: members,
        heartbeat: config.heartbeat_interval,
        election_ticks: config.election_ticks(),
        seed: RandomState::new().hash_one(own),
        wal_io: config.wal_io,
        segment_bytes: (config.wal_segment_bytes_min, config.wal_segment_bytes_max),
        entry_bytes_max: (config.max_request_bytes as u64).saturating_add(ENTRY_OVERHEAD_BYTES),
        dirty_bytes: config.dirty_bytes,
        scrub_bytes_per_s: config.scrub_bytes_per_s,
        warn_apply_after: config.warning_apply_duration,
        snapshot_entries: Some(config.snapshot_count).filter(|count| *count < SNAPSHOT_COUNT_EFFECTIVE_BELOW),
        catchup_entries: config.snapshot_catchup_entries,
    };
    let began = Instant::now();
    let posted = boxes.iter().map(|each| Arc::clone(each) as Arc<dyn proposal::Mailbox>).collect();
    let node =
        Node::start(options, posted, Box::new(move |error| faults.tell(error))).map_err(StartError::Log)?;
    tracing::info!(
        "local-member-id" = %format_args!("{own:x}"),
        "cluster-id" = %format_args!("{cluster_id:x}"),
        "wal-io" = %node.wal_io_description(),
        revision = node.reader().position().revision,
        "entries-replayed" = node.replayed().entries,
        "bytes-replayed" = node.replayed().bytes,
        "pages-read" = node.replayed().pages,
        took = ?began.elapsed(),
        "opened page file and log"
    );
    let shared = Arc::new(Shared {
        metrics: Arc::new(Metrics::new(&config)),
        request_bytes_max: config.max_request_bytes,
        request_timeout: config.request_timeout(),
        node,
        config,
        member_id: own,
        cluster_id,
        stop: watch::Sender::new(false),
        began,
        snapshots: Arc::new(Semaphore::new(SNAPSHOT_STREAMS_MAX)),
        hashes: Arc::new(Semaphore::new(HASHES_MAX)),
        hashes_told: Mutex::default(),
        damage: Mutex::new(None),
        undelivered: Arc::default(),
    });
    let servings = boxes.into_iter().map(|each| Arc::new(Serving::new(Arc::clone(&shared), each))).collect();
    Ok((shared, servings))
}

/// The members named in `--initial-cluster`, with their ids.
///
/// # Errors
/// What is wrong with the flags of a first start.
pub(crate) fn first_members(config: &Config) -> Result<Vec<MemberInfo>, String> {
    let member = |peer_urls: Vec<String>| MemberInfo {
        id: identity::member_id(&peer_urls, &config.initial_cluster_token),
        peer_urls,
        ..MemberInfo::default()
    };
    let first = config.initial_cluster.as_ref().map_err(String::clone)?;
    Ok(first
        .iter()
        .map(|initial| member(initial.peer_urls.iter().map(|url| url.text.clone()).collect()))
        .collect())
}

/// Whether the cluster knows this member's name and client URLs now; `false`: the member stops.
async fn publish(serving: &Serving) -> bool {
    let shared = &serving.shared;
    let wanted = Publish {
        id: shared.member_id,
        name: shared.config.name.clone(),
        client_urls: shared.config.client_urls(),
    };
    loop {
        // Until an entry of this term is applied the members are not known for sure.
        let read = crate::read::linearizable(serving).await;
        let known = shared.reader().members().into_iter().any(|member| {
            member.id == wanted.id && member.name == wanted.name && member.client_urls == wanted.client_urls
        });
        if read.is_ok() && known {
            return true;
        }
        let told = match read {
            Ok(()) => propose(serving, wanted.clone(), 0).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(_) => break,
            Err(RpcError::Stopped) => return false,
            Err(error) => {
                tracing::warn!(error = %error, "failed to publish local member to cluster through raft");
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
        }
        if shared.is_stopping() {
            return false;
        }
    }
    tracing::info!(
        "local-member-id" = %format_args!("{:x}", shared.member_id),
        "cluster-id" = %format_args!("{:x}", shared.cluster_id),
        "publish-timeout" = ?shared.request_timeout,
        "published local member to cluster through raft"
    );
    true
}

/// Told to connections and threads that must end.
type Stop = watch::Sender<bool>;

#[cfg(test)]
pub(crate) mod testing {
    //! A member for tests of what needs a serving thread.

    use super::*;
    use crate::config::{Start, load};
    use std::path::Path;

    /// Starts one that listens on a port of its own.
    pub(crate) fn member(directory: &Path, flags: &[&str]) -> Member {
        let data = format!("--data-dir={}", directory.display());
        let listen =
            ["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0"];
        let args = [&data[..]].into_iter().chain(listen).chain(flags.iter().copied()).map(str::to_owned);
        let Ok(Start::Run(config)) = load(args, Vec::new()) else { panic!("bad flags") };
        Member::start(*config, Box::new(|error| panic!("the member met a fault: {error}"))).unwrap()
    }

    /// Runs a test on a serving thread.
    pub(crate) fn on_a_member<F>(test: impl FnOnce(Arc<Serving>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let directory = tempfile::tempdir().unwrap();
        let member = member(&directory.path().join("data"), &[]);
        let (done, passed) = mpsc::channel();
        member.threads.run_on_first(|serving| async move {
            test(serving).await;
            done.send(()).unwrap();
        });
        passed.recv().expect("the test passes");
        member.stop();
    }

    #[test]
    fn a_read_that_blocks_a_thread_does_not_hold_up_stopping() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let member = member(&data, &["--shutdown-timeout=1s"]);
        let (begin, begun) = mpsc::channel();
        member.threads.run_on_first(|_| async move {
            tokio::task::spawn_blocking(move || {
                begin.send(()).unwrap();
                std::thread::sleep(Duration::from_secs(60));
            });
        });
        begun.recv().unwrap();
        let began = Instant::now();
        member.stop();
        assert!(began.elapsed() < Duration::from_secs(20));
        self::member(&data, &[]).stop();
    }
}
