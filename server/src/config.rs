//! What the operator asked for, checked: flags, environment variables and configuration file become one [`Config`].
//!
//! ```text
//! arguments ─┐                                   ┌─> Start::Print  (--help, --version)
//! variables ─┼─> settings (name -> value) ─> checks ─> Start::Run(Config)
//! file ──────┘   by the rules of one table       └─> Failure      (exit code 2 or 1, with its text)
//! ```
//!
//! Rules kept here:
//! - All flags of etcd 3.7, the `experimental-` names of 3.5 and 3.6, and coffer's own stand in one table
//!   (`table`), which also renders `--help`. Arguments are read by the rules of Go's flag package (`settings`).
//! - A flag that is not yet effective gets a warning where ignoring it harms nobody, and stops the start where ignoring
//!   it would weaken security, durability or membership (`check`).
//! - Every limit of the server has its number here, with its unit in the name.
//! - Nothing is logged from here, because the log itself is configured here: what there is to say travels in
//!   [`Config::notes`] and is logged by the caller once the log stands.
//!
//! It leaves to others: opening, binding and creating anything.

mod begin;
mod check;
mod file;
mod flags;
mod gates;
mod help;
mod settings;
mod table;
pub(crate) mod value;

use check::Origin;
use coffer_raftlog::node::WalIo;
use settings::{Settings, unfit};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// The version of etcd whose behaviour is matched, as Status and `/version` report it.
pub const ETCD_VERSION: &str = "3.7.3";
/// The cluster version that follows from it.
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";
/// coffer's own version.
pub const COFFER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The scheme of a URL to listen on or to advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// TCP without TLS.
    Http,
    /// TCP with TLS.
    Https,
    /// A socket in the file system, without TLS.
    Unix,
    /// A socket in the file system, with TLS.
    Unixs,
}

/// A URL of the forms etcd takes: `http://host:port`, `https://host:port`, `unix://path`, `unixs://path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// The URL as it was written, which is also how it is advertised.
    pub text: String,
    /// Its scheme.
    pub scheme: Scheme,
    /// Host name or address, without the brackets of an IPv6 address; for `unix` and `unixs` the path of the socket.
    pub host: String,
    /// The port; 0 for `unix` and `unixs`, and where 0 was written (the system picks one).
    pub port: u16,
}

/// One member named in `--initial-cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<Url>,
}

/// Automatic compaction, as `--auto-compaction-mode` and `--auto-compaction-retention` ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keep this long a history.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// How much goes to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything, the noise of the network libraries included.
    Debug,
    /// What an operator wants to read later.
    Info,
    /// What may need looking at.
    Warn,
    /// What does need looking at.
    Error,
    /// Only panics and what ends the process.
    Panic,
    /// Only what ends the process.
    Fatal,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Columns, for people.
    Console,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error (etcd's `default` and `stderr`).
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// What is logged, how, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The lowest level that is logged.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
    /// Every one of these gets every line.
    pub outputs: Vec<LogOutput>,
}

/// How much `/metrics` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsLevel {
    /// Without histograms of rpcs.
    Basic,
    /// With `grpc_server_handling_seconds`.
    Extensive,
}

/// A list of names in which `*`, or nothing, means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// All.
    Any,
    /// These, sorted.
    These(Vec<String>),
}

impl Allowed {
    /// Whether `name` is in the list.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Allowed::Any => true,
            Allowed::These(names) => names.iter().any(|each| each == name),
        }
    }
}

/// A feature gate with its state, as `etcd_server_feature_enabled` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGate {
    /// Its name.
    pub name: &'static str,
    /// Its stage in etcd 3.7: "ALPHA" or "BETA".
    pub stage: &'static str,
    /// Whether it is on.
    pub enabled: bool,
}

/// How severe a [`Note`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteLevel {
    /// To be known.
    Info,
    /// To be looked at.
    Warn,
}

/// Something to be logged about the configuration once the log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How severe it is.
    pub level: NoteLevel,
    /// The message; etcd's words where etcd has some.
    pub message: String,
    /// Fields beside it.
    pub fields: Vec<(&'static str, String)>,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    // Member.
    /// This member's name.
    pub name: String,
    /// The data directory; `<name>.coffer` unless given.
    pub data_dir: PathBuf,
    /// Where the log's segments lie, if not inside the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries after which a checkpoint is due; from 10,000 on only bytes and time start checkpoints.
    pub snapshot_count: u64,
    /// Entries kept in the log behind a checkpoint for followers that are behind.
    pub snapshot_catchup_entries: u64,
    /// Time between heartbeats: one tick.
    pub heartbeat_interval: Duration,
    /// Time without a heartbeat after which a member campaigns; a multiple of the tick is used.
    pub election_timeout: Duration,
    /// Where other members will be listened to. No peer listener exists yet.
    pub listen_peer_urls: Vec<Url>,
    /// Where clients are listened to: gRPC, and HTTP unless `listen_client_http_urls` has any.
    pub listen_client_urls: Vec<Url>,
    /// Where HTTP clients alone are listened to.
    pub listen_client_http_urls: Vec<Url>,
    /// Where metrics and health are served besides.
    pub listen_metrics_urls: Vec<Url>,
    /// Bytes the store may take before the NOSPACE alarm; `None`: no bound.
    pub quota_bytes: Option<u64>,
    /// Most operations in a txn (etcd's budget rule).
    pub max_txn_ops: usize,
    /// Largest request in bytes; gRPC takes [`Config::grpc_receive_bytes_max`].
    pub max_request_bytes: usize,
    /// Most streams a client's connection may have open.
    pub max_concurrent_streams: u32,
    /// Least time between a client's pings.
    pub grpc_keepalive_min_time: Duration,
    /// Time between the server's pings; zero: none.
    pub grpc_keepalive_interval: Duration,
    /// How long a ping may stay unanswered; zero: forever.
    pub grpc_keepalive_timeout: Duration,
    /// Whether listeners set SO_REUSEPORT.
    pub socket_reuse_port: bool,
    /// Whether listeners set SO_REUSEADDR.
    pub socket_reuse_address: bool,
    /// Feature gates, sorted by name.
    pub feature_gates: Vec<FeatureGate>,

    // Clustering.
    /// This member's peer URLs, sorted.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The first members, sorted by name; this one among them, and no other for now. Or why a member cannot start for the first
    /// time with these flags: one that has data does not ask.
    pub initial_cluster: Result<Vec<InitialMember>, String>,
    /// Goes into the cluster's id.
    pub initial_cluster_token: String,
    /// The client URLs told to clients, sorted.
    pub advertise_client_urls: Vec<Url>,
    /// Whether membership changes that endanger a quorum are refused.
    pub strict_reconfig_check: bool,
    /// Whether a campaign asks first whether it could win.
    pub pre_vote: bool,
    /// Automatic compaction, if any.
    pub auto_compaction: Option<AutoCompaction>,
    /// Most learners.
    pub max_learners: usize,

    // Access over HTTP.
    /// Origins whose scripts may use the HTTP endpoints.
    pub cors: Allowed,
    /// Names by which HTTP clients may address this server.
    pub host_whitelist: Allowed,

    // Observability.
    /// The log.
    pub log: LogConfig,
    /// How much `/metrics` tells.
    pub metrics: MetricsLevel,
    /// A unary request that takes longer is logged.
    pub warning_unary_request_duration: Duration,
    /// Applying that takes longer is logged.
    pub warning_apply_duration: Duration,

    // Behaviour.
    /// Superseded versions removed in one step of compaction.
    pub compaction_batch_limit: usize,
    /// Pause between two such steps.
    pub compaction_sleep_interval: Duration,
    /// Time after which an idle watcher that asked for progress gets some.
    pub watch_progress_notify_interval: Duration,

    // coffer's own.
    /// Serving threads; the number of cores unless given.
    pub serving_threads: usize,
    /// How the log is written.
    pub wal_io: WalIo,
    /// Size of the log's first segment in bytes, a multiple of 4,096.
    pub wal_segment_bytes_min: u64,
    /// Segments double up to this many bytes.
    pub wal_segment_bytes_max: u64,
    /// Bytes of changed pages that may wait in memory.
    pub dirty_bytes: u64,
    /// Bytes of the page file checked in a second; 0 for none.
    pub scrub_bytes_per_s: u64,
    /// Client connections beyond this many are closed at once, so that descriptors for the log remain.
    pub client_connections_max: usize,
    /// Requests one serving thread lets wait for the core thread; more are told "too many requests".
    pub requests_in_flight_max: usize,
    /// Watchers on one watch stream; more are refused.
    pub watchers_per_stream_max: usize,
    /// Bytes of undelivered responses held for one watch stream; beyond it the stream reads history when it can take more.
    pub watch_buffer_bytes_max: usize,
    /// How long sending one snapshot may take, the checkpoint before it included.
    pub snapshot_timeout: Duration,
    /// Bytes by which the store may grow while one is sent.
    pub snapshot_growth_bytes_max: u64,
    /// How long a stop may take until streams are cut.
    pub shutdown_timeout: Duration,

    /// The configuration as it was read, for the line that a start begins with, by etcd's names.
    pub begin: Vec<(&'static str, serde_json::Value)>,
    /// What to log once the log stands: warnings about flags, and the settings that came from the environment.
    pub notes: Vec<Note>,
}

/// Added to the largest request to get gRPC's own bound on a message, as etcd does.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// etcd allows a request five seconds, and two elections besides.
pub const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);

impl Config {
    /// How long a request may wait for agreement.
    pub fn request_timeout(&self) -> Duration {
        REQUEST_TIMEOUT_BASE + 2 * self.election_timeout
    }

    /// Heartbeat intervals in an election timeout.
    pub fn election_ticks(&self) -> u32 {
        let ticks = self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// The largest message gRPC reads.
    pub fn grpc_receive_bytes_max(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }

    /// Whether a feature gate is on; false for a name that is none.
    pub fn gate(&self, name: &str) -> bool {
        self.feature_gates.iter().any(|gate| gate.name == name && gate.enabled)
    }

    /// This member's own entry of `--initial-cluster`: the peer URLs it starts with, sorted.
    pub fn peer_urls(&self) -> Vec<String> {
        self.initial_advertise_peer_urls.iter().map(|url| url.text.clone()).collect()
    }

    /// The client URLs it tells clients, sorted.
    pub fn client_urls(&self) -> Vec<String> {
        self.advertise_client_urls.iter().map(|url| url.text.clone()).collect()
    }
}

/// What the arguments asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Serve.
    Run(Box<Config>),
    /// Print this on standard output and exit with 0.
    Print(String),
}

/// Why there is nothing to run, and how the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 2 for arguments that cannot be read, 1 for a configuration that cannot be run.
    pub exit_code: i32,
    /// What to say: a plain text for standard error if `level` is `None`, else the error of a log line.
    pub text: String,
    /// The level and message of the log line.
    pub line: Option<(LogLevel, &'static str)>,
    /// Fields of that line.
    pub fields: Vec<(&'static str, String)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Reads this process's arguments and variables; see [`load`].
///
/// # Errors
/// As [`load`], and for an argument that is not UTF-8. A variable that is not UTF-8 is none of ours and is left out.
pub fn from_process() -> Result<Start, Failure> {
    let arguments: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(|argument| argument.into_string()).collect();
    let arguments =
        arguments.map_err(|argument| unfit(format!("{argument:?} is not a valid flag: it is not UTF-8")))?;
    let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
        key.into_string().ok().zip(value.into_string().ok())
    };
    load(arguments, std::env::vars_os().filter_map(text))
}

/// Reads arguments (without the program's name) and variables, and the file that they may name.
///
/// # Errors
/// [`Failure`] with what to say and the exit code.
pub fn load(
    arguments: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Start, Failure> {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let variables: Vec<(String, String)> = variables.into_iter().collect();
    let Ok(mut settings) = Settings::from_arguments(&arguments)? else {
        return Ok(Start::Print(help::help()));
    };
    if settings.boolean("version") {
        return Ok(Start::Print(help::version()));
    }
    let config = match config_file(&settings, &variables) {
        Some(path) => {
            let mut config = check::config(Settings::from_yaml(&read_file(&path)?)?, Origin::File)?;
            config.notes.insert(0, Note {
                level: NoteLevel::Info,
                message: "loaded server configuration, other configuration command line flags and environment variables \
                          will be ignored if provided"
                    .to_owned(),
                fields: vec![("path", path)],
            });
            config
        }
        None => {
            settings.add_variables(&variables)?;
            check::config(settings, Origin::CommandLine)?
        }
    };
    Ok(Start::Run(Box::new(config)))
}

/// The configuration file to read, if any: a flag comes before the variable.
fn config_file(settings: &Settings, variables: &[(String, String)]) -> Option<String> {
    let from_variable =
        || variables.iter().find(|(key, _)| key == "ETCD_CONFIG_FILE").map(|(_, path)| path.clone());
    Some(settings.raw("config-file"))
        .filter(|path| !path.is_empty())
        .or_else(from_variable)
        .filter(|path| !path.is_empty())
}

fn read_file(path: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| unfit(format!("open {path}: {error}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(file::FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > file::FILE_BYTES_MAX {
        return Err(unfit(format!(
            "{path}: a configuration file of more than {} bytes",
            file::FILE_BYTES_MAX
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
