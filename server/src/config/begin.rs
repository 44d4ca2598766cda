//! The line that a start begins with: the configuration as it was read, under etcd's names and in etcd's order. Where a flag has
//! no effect a warning beside it says so.

use super::settings::Settings;
use super::value::duration_text;
use super::{COFFER_VERSION, Config, ETCD_VERSION, Url, flags};
use serde_json::{Value, json};
use std::time::Duration;

/// The only stage that there is, whatever is given.
const V2_DEPRECATION: &str = "write-only";

/// The fields, by name, and the flag whose value each is; without one, [`of_config`] tells it.
const FIELDS: [(&str, Option<&str>); 44] = [
    ("etcd-version", None),
    ("coffer-version", None),
    ("max-cpu-available", None),
    ("name", Some("name")),
    ("data-dir", None),
    ("wal-dir", Some("wal-dir")),
    ("force-new-cluster", Some("force-new-cluster")),
    ("heartbeat-interval", None),
    ("election-timeout", None),
    ("initial-election-tick-advance", Some("initial-election-tick-advance")),
    ("snapshot-count", Some("snapshot-count")),
    ("max-wals", Some("max-wals")),
    ("max-snapshots", Some("max-snapshots")),
    ("snapshot-catchup-entries", Some("snapshot-catchup-entries")),
    ("initial-advertise-peer-urls", None),
    ("listen-peer-urls", None),
    ("advertise-client-urls", None),
    ("listen-client-urls", None),
    ("listen-metrics-urls", None),
    ("cors", Some("cors")),
    ("host-whitelist", Some("host-whitelist")),
    ("initial-cluster", Some("initial-cluster")),
    ("initial-cluster-state", Some("initial-cluster-state")),
    ("initial-cluster-token", Some("initial-cluster-token")),
    ("quota-backend-bytes", None),
    ("max-request-bytes", Some("max-request-bytes")),
    ("max-concurrent-streams", Some("max-concurrent-streams")),
    ("pre-vote", Some("pre-vote")),
    ("feature-gates", Some("feature-gates")),
    ("corrupt-check-time-interval", Some("corrupt-check-time")),
    ("compact-check-time-interval", Some("compact-hash-check-time")),
    ("auto-compaction-mode", Some("auto-compaction-mode")),
    ("auto-compaction-retention", Some("auto-compaction-retention")),
    ("discovery-token", Some("discovery-token")),
    ("discovery-endpoints", Some("discovery-endpoints")),
    ("discovery-dial-timeout", Some("discovery-dial-timeout")),
    ("discovery-request-timeout", Some("discovery-request-timeout")),
    ("discovery-keepalive-time", Some("discovery-keepalive-time")),
    ("discovery-keepalive-timeout", Some("discovery-keepalive-timeout")),
    ("downgrade-check-interval", Some("downgrade-check-time")),
    ("max-learners", Some("max-learners")),
    ("v2-deprecation", None),
    ("serving-threads", None),
    ("wal-io", Some("wal-io")),
];

/// The fields of the line.
pub(super) fn fields(settings: &Settings, config: &Config) -> Vec<(&'static str, Value)> {
    let told = |(field, flag): &(&'static str, Option<&str>)| {
        let value = match flag {
            Some(flag) => of_flag(settings, flag),
            None => of_config(config, field),
        };
        (*field, value)
    };
    FIELDS.iter().map(told).collect()
}

fn of_config(config: &Config, field: &str) -> Value {
    match field {
        "etcd-version" => json!(ETCD_VERSION),
        "coffer-version" => json!(COFFER_VERSION),
        "max-cpu-available" => json!(std::thread::available_parallelism().map_or(1, usize::from)),
        "data-dir" => json!(config.data_dir.to_string_lossy()),
        "heartbeat-interval" => json!(duration_text(config.heartbeat_interval)),
        "election-timeout" => json!(duration_text(config.election_timeout)),
        "initial-advertise-peer-urls" => texts(&config.initial_advertise_peer_urls),
        "listen-peer-urls" => texts(&config.listen_peer_urls),
        "advertise-client-urls" => texts(&config.advertise_client_urls),
        "listen-client-urls" => texts(&config.listen_client_urls),
        "listen-metrics-urls" => texts(&config.listen_metrics_urls),
        "quota-backend-bytes" => match config.quota_bytes {
            Some(bytes) => json!(bytes),
            None => json!(-1),
        },
        "v2-deprecation" => json!(V2_DEPRECATION),
        "serving-threads" => json!(config.serving_threads),
        _ => Value::Null,
    }
}

fn texts(urls: &[Url]) -> Value {
    urls.iter().map(|url| json!(url.text)).collect()
}

fn of_flag(settings: &Settings, name: &str) -> Value {
    let Some(flag) = flags::find(name) else { return Value::Null };
    match flag.kind {
        flags::Kind::Bool => json!(settings.boolean(name)),
        flags::Kind::Unsigned(_) => json!(settings.unsigned(name)),
        flags::Kind::Signed => json!(settings.signed(name)),
        flags::Kind::Duration => {
            let ns = u64::try_from(settings.duration_ns(name)).unwrap_or_default();
            json!(duration_text(Duration::from_nanos(ns)))
        }
        flags::Kind::Origins | flags::Kind::List => {
            let text = settings.raw(name);
            text.split(',').filter(|each| !each.is_empty()).map(|each| json!(each)).collect()
        }
        _ => json!(settings.raw(name)),
    }
}
