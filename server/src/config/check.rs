//! From settings to a [`Config`]: what fits together, and what is refused.

use super::begin;
use super::flags::{self, Flag};
use super::settings::{Settings, unfit};
use super::value;
use super::{
    Allowed, AutoCompaction, Config, Failure, InitialMember, LogConfig, LogFormat, LogLevel, LogOutput,
    MetricsLevel, Note, NoteLevel, Scheme, Url, gates,
};
use coffer_raftlog::node::WalIo;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// etcd's bound on an election timeout.
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// The quota where none is given.
const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// A quota above this is warned about, as by etcd.
const QUOTA_BYTES_WARN: u64 = 8 * 1024 * 1024 * 1024;
/// etcd warns about larger requests.
const REQUEST_BYTES_WARN: u64 = 10 * 1024 * 1024;
/// Largest request: gRPC counts a message in 32 bits, and a server must not be made to gather one without end.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What direct writes are aligned to.
const BLOCK_BYTES: u64 = 4_096;
/// Largest segment: offsets in a segment have 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Least memory for changed pages: a few batches must fit.
const DIRTY_BYTES_MIN: u64 = 1024 * 1024;

/// Where the settings came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Arguments and variables.
    CommandLine,
    /// A configuration file.
    File,
}

/// Builds the configuration.
pub(super) fn config(mut settings: Settings, origin: Origin) -> Result<Config, Failure> {
    if origin == Origin::CommandLine
        && settings.is_given("listen-client-urls")
        && !settings.is_given("advertise-client-urls")
    {
        return Err(unfit(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly".to_owned(),
        ));
    }
    if origin == Origin::File {
        // etcd does not look at it in a file, and the sample that it ships says "proxy".
        settings.forget("discovery-fallback");
    }
    let log = log(&mut settings)?;
    settings.apply_effects()?;
    choices(&settings)?;
    let (heartbeat_interval, election_timeout) = timing(&settings)?;
    let listen = listeners(&settings)?;
    let name = settings.raw("name");
    let initial_advertise_peer_urls =
        advertised(&settings, "initial-advertise-peer-urls", "must be \"host:port\"")?;
    let advertise_client_urls = advertised(
        &settings,
        "advertise-client-urls",
        "must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
    )?;
    let initial_cluster = initial_cluster(&settings, &name, &initial_advertise_peer_urls);
    let (wal_segment_bytes_min, wal_segment_bytes_max) = segments(&settings)?;
    let mut config = Config {
        data_dir: data_dir(&mut settings, &name),
        wal_dir: Some(settings.raw("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        snapshot_count: settings.unsigned("snapshot-count"),
        snapshot_catchup_entries: settings.unsigned("snapshot-catchup-entries"),
        heartbeat_interval,
        election_timeout,
        listen_peer_urls: listen.peer,
        listen_client_urls: listen.client,
        listen_client_http_urls: listen.client_http,
        listen_metrics_urls: listen.metrics,
        quota_bytes: quota(&mut settings),
        max_txn_ops: count(&settings, "max-txn-ops"),
        max_request_bytes: request_bytes(&mut settings)?,
        max_concurrent_streams: u32::try_from(settings.unsigned("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        grpc_keepalive_min_time: duration(&settings, "grpc-keepalive-min-time")?,
        grpc_keepalive_interval: duration(&settings, "grpc-keepalive-interval")?,
        grpc_keepalive_timeout: duration(&settings, "grpc-keepalive-timeout")?,
        socket_reuse_port: settings.boolean("socket-reuse-port"),
        socket_reuse_address: settings.boolean("socket-reuse-address"),
        feature_gates: feature_gates(&mut settings)?,
        initial_advertise_peer_urls,
        initial_cluster,
        initial_cluster_token: settings.raw("initial-cluster-token"),
        advertise_client_urls,
        strict_reconfig_check: settings.boolean("strict-reconfig-check"),
        pre_vote: settings.boolean("pre-vote"),
        auto_compaction: auto_compaction(&settings)?,
        max_learners: usize::try_from(settings.signed("max-learners"))
            .map_err(|_| negative("max-learners"))?,
        cors: allowed(settings.list("cors")),
        host_whitelist: allowed(settings.list("host-whitelist")),
        log,
        metrics: metrics(&settings),
        warning_unary_request_duration: duration(&settings, "warning-unary-request-duration")?,
        warning_apply_duration: duration(&settings, "warning-apply-duration")?,
        compaction_batch_limit: usize::try_from(settings.signed("compaction-batch-limit"))
            .map_err(|_| negative("compaction-batch-limit"))?,
        compaction_sleep_interval: duration(&settings, "compaction-sleep-interval")?,
        watch_progress_notify_interval: duration(&settings, "watch-progress-notify-interval")?,
        serving_threads: serving_threads(&settings),
        wal_io: wal_io(&settings),
        wal_segment_bytes_min,
        wal_segment_bytes_max,
        dirty_bytes: dirty_bytes(&settings)?,
        scrub_bytes_per_s: settings.unsigned("scrub-bytes-per-second"),
        client_connections_max: at_least_one(&settings, "client-connections-max")?,
        requests_in_flight_max: at_least_one(&settings, "requests-in-flight-max")?,
        watchers_per_stream_max: at_least_one(&settings, "watchers-per-stream-max")?,
        watch_buffer_bytes_max: at_least_one(&settings, "watch-buffer-bytes-max")?,
        snapshot_timeout: duration(&settings, "snapshot-timeout")?,
        snapshot_growth_bytes_max: settings.unsigned("snapshot-growth-bytes-max"),
        shutdown_timeout: duration(&settings, "shutdown-timeout")?,
        name,
        begin: Vec::new(),
        notes: Vec::new(),
    };
    config.begin = begin::fields(&settings, &config);
    remark(&mut settings, &config, origin);
    config.notes = settings.notes;
    Ok(config)
}

fn negative(name: &str) -> Failure {
    unfit(format!("--{name} must not be negative"))
}

fn duration(settings: &Settings, name: &str) -> Result<Duration, Failure> {
    u64::try_from(settings.duration_ns(name)).map(Duration::from_nanos).map_err(|_| negative(name))
}

fn count(settings: &Settings, name: &str) -> usize {
    usize::try_from(settings.unsigned(name)).unwrap_or(usize::MAX)
}

fn at_least_one(settings: &Settings, name: &str) -> Result<usize, Failure> {
    match count(settings, name) {
        0 => Err(unfit(format!("--{name} must be >0"))),
        value => Ok(value),
    }
}

fn dirty_bytes(settings: &Settings) -> Result<u64, Failure> {
    match settings.unsigned("dirty-bytes") {
        bytes if bytes < DIRTY_BYTES_MIN => {
            Err(unfit(format!("--dirty-bytes must be at least {DIRTY_BYTES_MIN}")))
        }
        bytes => Ok(bytes),
    }
}

fn allowed(mut names: Vec<String>) -> Allowed {
    if names.is_empty() || names.iter().any(|name| name == "*" || name.is_empty()) {
        return Allowed::Any;
    }
    names.sort();
    Allowed::These(names)
}

fn log(settings: &mut Settings) -> Result<LogConfig, Failure> {
    match settings.raw("logger").as_str() {
        "zap" => {}
        "capnslog" => return Err(unfit("--logger=capnslog is removed in v3.5".to_owned())),
        other => return Err(unfit(format!("unknown logger option {other:?}"))),
    }
    let level = settings.raw("log-level");
    let level = match level.as_str() {
        "debug" | "DEBUG" => LogLevel::Debug,
        "info" | "INFO" => LogLevel::Info,
        "warn" | "WARN" => LogLevel::Warn,
        "error" | "ERROR" => LogLevel::Error,
        "panic" | "PANIC" => LogLevel::Panic,
        "fatal" | "FATAL" => LogLevel::Fatal,
        _ => return Err(unfit(format!("unrecognized level: {level:?}"))),
    };
    let format = settings.raw("log-format");
    let format = match format.as_str() {
        "json" => LogFormat::Json,
        "console" => LogFormat::Console,
        _ => return Err(unfit(format!("unknown log format: {format}, supported values json, console"))),
    };
    Ok(LogConfig { level, format, outputs: log_outputs(settings)? })
}

fn log_outputs(settings: &mut Settings) -> Result<Vec<LogOutput>, Failure> {
    let names = settings.list("log-outputs");
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return Err(unfit("multi logoutput for \"default\" is not supported yet".to_owned()));
    }
    // One that discards discards all.
    if names.iter().any(|name| name == "/dev/null") {
        return Ok(vec![LogOutput::File(PathBuf::from("/dev/null"))]);
    }
    let mut outputs = Vec::new();
    for name in names {
        let output = match name.as_str() {
            "" => return Err(unfit("--log-outputs holds an empty name".to_owned())),
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => {
                settings.notes.push(warn("the journal is written by way of stderr in this version"));
                LogOutput::Stderr
            }
            path => LogOutput::File(PathBuf::from(path)),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    if outputs.is_empty() {
        outputs.push(LogOutput::Stderr);
    }
    Ok(outputs)
}

fn warn(message: &str) -> Note {
    Note { level: NoteLevel::Warn, message: message.to_owned(), fields: Vec::new() }
}

/// Values that are refused for what they are, whether they have an effect or not.
fn choices(settings: &Settings) -> Result<(), Failure> {
    for name in ["tls-min-version", "tls-max-version"] {
        let version = settings.raw(name);
        if !matches!(version.as_str(), "" | "TLS1.2" | "TLS1.3") {
            return Err(unfit(format!(
                "unexpected TLS version {version:?} (must be one of: TLS1.2, TLS1.3)"
            )));
        }
    }
    match settings.raw("auth-token").split(',').next().unwrap_or_default() {
        "" | "simple" => {}
        "jwt" => {
            return Err(unfit(
                "--auth-token=jwt cannot be honoured: authentication is not supported in this version"
                    .to_owned(),
            ));
        }
        _ => return Err(unfit("auth: invalid auth options".to_owned())),
    }
    if settings.duration_ns("compact-hash-check-time") <= 0 {
        let given = settings.raw("compact-hash-check-time");
        return Err(unfit(format!("--compact-hash-check-time must be >0 (set to {given})")));
    }
    if settings.raw("name").is_empty() {
        return Err(unfit("--name must not be empty".to_owned()));
    }
    Ok(())
}

fn timing(settings: &Settings) -> Result<(Duration, Duration), Failure> {
    let heartbeat = settings.unsigned("heartbeat-interval");
    let election = settings.unsigned("election-timeout");
    for (name, value) in [("heartbeat-interval", heartbeat), ("election-timeout", election)] {
        if value == 0 {
            return Err(unfit(format!("--{name} must be >0 (set to 0ms)")));
        }
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(unfit(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        )));
    }
    if election > ELECTION_TIMEOUT_MS_MAX {
        return Err(unfit(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MS_MAX}ms"
        )));
    }
    Ok((Duration::from_millis(heartbeat), Duration::from_millis(election)))
}

struct Listeners {
    peer: Vec<Url>,
    client: Vec<Url>,
    client_http: Vec<Url>,
    metrics: Vec<Url>,
}

fn listeners(settings: &Settings) -> Result<Listeners, Failure> {
    let of = |name: &str| -> Result<Vec<Url>, Failure> {
        let urls = settings.urls(name);
        urls.iter().try_for_each(|url| may_bind(name, url))?;
        Ok(urls)
    };
    let listeners = Listeners {
        peer: of("listen-peer-urls")?,
        client: of("listen-client-urls")?,
        client_http: of("listen-client-http-urls")?,
        metrics: of("listen-metrics-urls")?,
    };
    if listeners.client.is_empty() {
        return Err(unfit("--listen-client-urls must name a URL".to_owned()));
    }
    Ok(listeners)
}

fn may_bind(name: &str, url: &Url) -> Result<(), Failure> {
    if matches!(url.scheme, Scheme::Https | Scheme::Unixs) {
        return Err(unfit(format!(
            "--{name}={} cannot be honoured: TLS is not supported in this version, and serving without it what was meant to \
             be served with it would be unsafe",
            url.text
        )));
    }
    if url.scheme == Scheme::Http && url.host != "localhost" && url.host.parse::<IpAddr>().is_err() {
        return Err(unfit(format!("expected IP in URL for binding ({})", url.text)));
    }
    Ok(())
}

fn advertised(settings: &Settings, name: &str, form: &str) -> Result<Vec<Url>, Failure> {
    let urls = settings.urls(name);
    if let Some(url) = urls.iter().find(|url| url.host.is_empty()) {
        let all = texts(&urls);
        return Err(unfit(format!("--{name} {all:?} {form} (unexpected empty host ({}))", url.text)));
    }
    if urls.is_empty() {
        return Err(unfit(format!("--{name} must name a URL")));
    }
    Ok(urls)
}

fn texts(urls: &[Url]) -> String {
    urls.iter().map(|url| url.text.as_str()).collect::<Vec<_>>().join(",")
}

/// Reads `--initial-cluster`; left out, it is this member at its advertised URLs. What is wrong with it matters at a first
/// start only: as with etcd, a member that has data may be started with flags that have changed since.
fn initial_cluster(
    settings: &Settings,
    name: &str,
    advertised: &[Url],
) -> Result<Vec<InitialMember>, String> {
    if settings.raw("initial-cluster-state") == "existing" {
        let reason = "joining a cluster is not supported in this version, a cluster has one member";
        return Err(format!("--initial-cluster-state=existing cannot be honoured: {reason}"));
    }
    let text = settings.raw("initial-cluster");
    if text.is_empty() {
        return Ok(vec![InitialMember { name: name.to_owned(), peer_urls: advertised.to_vec() }]);
    }
    let wrong = |error: String| format!("error setting up initial cluster: {error}");
    let mut members: Vec<InitialMember> = Vec::new();
    for pair in value::list(&text) {
        let (member, address) =
            pair.split_once('=').ok_or_else(|| wrong(format!("{pair:?} has not the form \"name=url\"")))?;
        let url = value::url(address).map_err(wrong)?;
        match members.iter_mut().find(|known| known.name == member) {
            Some(known) => known.peer_urls.push(url),
            None => members.push(InitialMember { name: member.to_owned(), peer_urls: vec![url] }),
        }
    }
    members.sort_by(|left, right| left.name.cmp(&right.name));
    for member in &mut members {
        member.peer_urls.sort_by(|left, right| left.text.cmp(&right.text));
    }
    let Some(own) = members.iter().find(|member| member.name == name) else {
        return Err(format!("couldn't find local name {name:?} in the initial cluster configuration"));
    };
    same_urls(name, &own.peer_urls, advertised)?;
    if members.len() > 1 {
        return Err(format!(
            "--initial-cluster names {} members: a cluster has one member in this version",
            members.len()
        ));
    }
    Ok(members)
}

/// Both must name the same addresses. etcd resolves names for that; here "localhost" alone is known to be 127.0.0.1.
fn same_urls(name: &str, initial: &[Url], advertised: &[Url]) -> Result<(), String> {
    let address = |url: &Url| {
        let host = if url.host == "localhost" { "127.0.0.1" } else { url.host.as_str() };
        (url.scheme, host.to_owned(), url.port)
    };
    let lacks = |urls: &[Url], url: &Url| !urls.iter().any(|other| address(other) == address(url));
    let tagged =
        |urls: &[&Url]| urls.iter().map(|url| format!("{name}={}", url.text)).collect::<Vec<_>>().join(",");
    let missing: Vec<&Url> = initial.iter().filter(|url| lacks(advertised, url)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
            tagged(&missing),
            texts(advertised)
        ));
    }
    let missing: Vec<&Url> = advertised.iter().filter(|url| lacks(initial, url)).collect();
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.iter().map(|url| url.text.as_str()).collect();
        let initial: Vec<&Url> = initial.iter().collect();
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            missing.join(","),
            tagged(&initial)
        ));
    }
    Ok(())
}

fn segments(settings: &Settings) -> Result<(u64, u64), Failure> {
    let least = settings.unsigned("wal-segment-bytes-min");
    let most = settings.unsigned("wal-segment-bytes-max");
    for (name, bytes) in [("wal-segment-bytes-min", least), ("wal-segment-bytes-max", most)] {
        if bytes == 0 || bytes % BLOCK_BYTES != 0 || bytes > SEGMENT_BYTES_MAX {
            return Err(unfit(format!(
                "--{name} must be a multiple of {BLOCK_BYTES} from {BLOCK_BYTES} to {SEGMENT_BYTES_MAX} (set to {bytes})"
            )));
        }
    }
    if least > most {
        return Err(unfit(format!(
            "--wal-segment-bytes-min ({least}) is above --wal-segment-bytes-max ({most})"
        )));
    }
    Ok((least, most))
}

fn data_dir(settings: &mut Settings, name: &str) -> PathBuf {
    let given = settings.raw("data-dir");
    if !given.is_empty() {
        return PathBuf::from(given);
    }
    let default = format!("{name}.coffer");
    settings.notes.push(Note {
        level: NoteLevel::Warn,
        message: "'data-dir' was empty; using default".to_owned(),
        fields: vec![("data-dir", default.clone())],
    });
    PathBuf::from(default)
}

fn quota(settings: &mut Settings) -> Option<u64> {
    match u64::try_from(settings.signed("quota-backend-bytes")) {
        Err(_) => None,
        Ok(0) => Some(QUOTA_BYTES_DEFAULT),
        Ok(bytes) => {
            if bytes > QUOTA_BYTES_WARN {
                settings.notes.push(warn("quota exceeds the maximum value that etcd recommends"));
            }
            Some(bytes)
        }
    }
}

fn request_bytes(settings: &mut Settings) -> Result<usize, Failure> {
    let bytes = settings.unsigned("max-request-bytes");
    if bytes > REQUEST_BYTES_MAX {
        return Err(unfit(format!(
            "--max-request-bytes must be at most {REQUEST_BYTES_MAX} (set to {bytes})"
        )));
    }
    if bytes > REQUEST_BYTES_WARN {
        settings.notes.push(warn("exceeded recommended request limit of 10 MB"));
    }
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn feature_gates(settings: &mut Settings) -> Result<Vec<super::FeatureGate>, Failure> {
    let gates = gates::resolve(&settings.gates()?);
    let on = |name: &str| gates.iter().any(|gate| gate.name == name && gate.enabled);
    if on("LeaseCheckpointPersist") && !on("LeaseCheckpoint") {
        return Err(unfit(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
                .to_owned(),
        ));
    }
    for (gate, default) in gates.iter().zip(gates::GATES) {
        if gate.enabled != default.enabled {
            settings.notes.push(Note {
                level: NoteLevel::Warn,
                message: "feature gate has no effect in this version".to_owned(),
                fields: vec![("gate", gate.name.to_owned()), ("enabled", gate.enabled.to_string())],
            });
        }
    }
    Ok(gates)
}

fn auto_compaction(settings: &Settings) -> Result<Option<AutoCompaction>, Failure> {
    const NANOSECONDS_PER_HOUR: i64 = 3_600_000_000_000;
    let retention = settings.raw("auto-compaction-retention");
    let broken = |error: String| unfit(format!("error parsing CompactionRetention: {error}"));
    let plain = retention.parse::<i64>().ok().filter(|value| *value >= 0);
    match settings.raw("auto-compaction-mode").as_str() {
        "revision" => {
            let revisions = match plain {
                Some(revisions) => revisions,
                // etcd takes a duration here too, and its nanoseconds for revisions.
                None => value::duration_ns(&retention).map_err(broken)?,
            };
            Ok((revisions > 0).then_some(AutoCompaction::Revision(revisions)))
        }
        "periodic" => {
            let ns = match plain {
                Some(hours) => hours
                    .checked_mul(NANOSECONDS_PER_HOUR)
                    .ok_or_else(|| broken("value out of range".to_owned()))?,
                None => value::duration_ns(&retention).map_err(broken)?,
            };
            let ns = u64::try_from(ns).map_err(|_| negative("auto-compaction-retention"))?;
            Ok((ns > 0).then_some(AutoCompaction::Periodic(Duration::from_nanos(ns))))
        }
        other => Err(unfit(format!("unknown auto-compaction-mode {other:?}"))),
    }
}

/// etcd takes every other word for basic.
fn metrics(settings: &Settings) -> MetricsLevel {
    match settings.raw("metrics").as_str() {
        "extensive" => MetricsLevel::Extensive,
        _ => MetricsLevel::Basic,
    }
}

fn serving_threads(settings: &Settings) -> usize {
    match count(settings, "serving-threads") {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        given => given,
    }
}

fn wal_io(settings: &Settings) -> WalIo {
    match settings.raw("wal-io").as_str() {
        "uring" => WalIo::Uring,
        "sync" => WalIo::Sync,
        _ => WalIo::Auto,
    }
}

/// Flags that etcd will do without, and its words about them.
const DEPRECATED: [(&str, &str); 2] = [
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
    ),
];

/// What an operator should know about settings that are allowed.
fn remark(settings: &mut Settings, config: &Config, origin: Origin) {
    let mut notes = Vec::new();
    for (name, deprecated) in DEPRECATED {
        if settings.is_given(name) {
            notes.push(warn(deprecated));
        }
    }
    if settings.unsigned("bootstrap-defrag-threshold-megabytes") > 0 {
        notes.push(Note {
            level: NoteLevel::Info,
            message: "Skipping defragmentation".to_owned(),
            fields: vec![("reason", "pages move and the file is cut while the member runs".to_owned())],
        });
    }
    if config.name == flags::find("name").map_or("", |flag: &Flag| flag.default) {
        notes.push(Note {
            level: NoteLevel::Warn,
            message: "it isn't recommended to use default name, please set a value for --name".to_owned(),
            fields: vec![("name", config.name.clone())],
        });
    }
    if origin == Origin::CommandLine
        && settings.is_given("enable-grpc-gateway")
        && settings.boolean("enable-grpc-gateway")
    {
        notes.push(warn("--enable-grpc-gateway has no effect: there is no JSON gateway in this version"));
    }
    notes.push(Note {
        level: NoteLevel::Info,
        message: "no peer listener in this version: a cluster has one member".to_owned(),
        fields: vec![("listen-peer-urls", texts(&config.listen_peer_urls))],
    });
    let public: Vec<&str> = [&config.listen_client_urls, &config.listen_client_http_urls]
        .into_iter()
        .flatten()
        .filter(|url| is_public(url))
        .map(|url| url.text.as_str())
        .collect();
    if !public.is_empty() {
        notes.push(Note {
            level: NoteLevel::Warn,
            message: "clients are served without TLS and without authentication on an address that others may reach: \
                      everybody who can connect can read and write all data"
                .to_owned(),
            fields: vec![("urls", public.join(","))],
        });
    }
    settings.notes.append(&mut notes);
}

/// Whether others than this machine may reach it.
fn is_public(url: &Url) -> bool {
    url.scheme == Scheme::Http
        && url.host != "localhost"
        && !url.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
