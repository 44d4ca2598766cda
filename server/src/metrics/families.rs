//! The families of `/metrics`: what was counted, what the member knows, what the kernel knows, and the constants.

use super::exposition::{Page, signed, whole};
use super::rpc::{CODE_NAMES, Durations, HANDLING_BOUNDS_NS, RANGE_BOUNDS_NS, REQUEST_BOUNDS_NS};
use super::series::{COUNTS, HISTOGRAMS, LEVELS, Totals};
use super::{CLIENT_VERSIONS_MAX, Histogram, Method, Metrics, Observation, Shard, constants, process};
use crate::config::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use coffer_engine::command::AlarmKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// Checks of `/livez` and `/readyz`, by the type and name under which they are told.
pub(super) const HEALTH_CHECKS: [(&str, &str); 5] = [
    ("livez", "serializable_read"),
    ("readyz", "data_corruption"),
    ("readyz", "serializable_read"),
    ("readyz", "linearizable_read"),
    ("readyz", "non_learner"),
];

/// Outcomes of one check.
#[derive(Debug, Default)]
struct Outcomes {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_succeeded: AtomicU64,
}

/// Outcomes of all checks.
#[derive(Debug, Default)]
pub(super) struct HealthChecks([Outcomes; HEALTH_CHECKS.len()]);

impl Metrics {
    /// Counts the outcome of a check of `/livez` or `/readyz`. A check of another name is not told.
    pub fn health_check(&self, kind: &str, name: &str, succeeded: bool) {
        let Some(place) = HEALTH_CHECKS.iter().position(|check| *check == (kind, name)) else { return };
        let outcomes = &self.health.0[place];
        let count = if succeeded { &outcomes.succeeded } else { &outcomes.failed };
        count.fetch_add(1, Ordering::Relaxed);
        outcomes.last_succeeded.store(u64::from(succeeded), Ordering::Relaxed);
    }
}

/// Everything, as text.
pub(super) fn render(metrics: &Metrics, now: &Observation) -> String {
    let mut page = Page::default();
    counted(&mut page, metrics);
    rpcs(&mut page, metrics);
    ranges(&mut page, metrics);
    health(&mut page, metrics);
    applying(&mut page, now);
    agreement(&mut page, now);
    store(&mut page, now);
    compaction(&mut page, now);
    page_file(&mut page, now);
    identity(&mut page, metrics, now);
    constants::add(&mut page);
    process::add(&mut page);
    page.text()
}

fn sum<'a>(shards: &'a [Shard], of: impl Fn(&'a Shard) -> &'a AtomicU64) -> u64 {
    shards.iter().fold(0, |total, shard| total.wrapping_add(of(shard).load(Ordering::Relaxed)))
}

fn counted(page: &mut Page, metrics: &Metrics) {
    for (place, row) in COUNTS.iter().enumerate() {
        let total = sum(&metrics.shards, |shard| &shard.counts[place]);
        if row.labels.is_empty() || total > 0 || row.name.starts_with("promhttp_") {
            page.value(row.kind, row.name, row.help, row.labels, whole(total));
        }
    }
    for (place, row) in LEVELS.iter().enumerate() {
        let total = metrics
            .shards
            .iter()
            .fold(0_i64, |total, shard| total.wrapping_add(shard.levels[place].load(Ordering::Relaxed)));
        page.value(row.kind, row.name, row.help, row.labels, signed(total));
    }
    for (place, row) in HISTOGRAMS.iter().enumerate() {
        let totals = Totals::of(metrics.shards.iter().map(|shard| &shard.histograms[place]));
        let (cumulative, count) = totals.cumulative(row);
        page.histogram(row.name, row.help, &[], cumulative, totals.sum, count);
    }
    debug_assert_eq!(HISTOGRAMS.len(), Histogram::COUNT, "one row for each histogram");
    client_requests(page, metrics);
}

fn client_requests(page: &mut Page, metrics: &Metrics) {
    const HELP: &str = "Requests of clients, by the version their library names.";
    for (kind, kind_name) in ["unary", "stream"].into_iter().enumerate() {
        for place in 0..=CLIENT_VERSIONS_MAX {
            let total = sum(&metrics.shards, |shard| &shard.client_requests[kind][place]);
            if total == 0 {
                continue;
            }
            let version = metrics
                .client_versions
                .get(place)
                .and_then(|slot| slot.get())
                .map_or("other", String::as_str);
            let labels = [("client_api_version", version), ("type", kind_name)];
            page.counter("etcd_server_client_requests_total", HELP, &labels, total);
        }
    }
}

/// Counts not above each bound, sum in seconds, and number of all.
fn durations<'a, const N: usize>(
    bounds_ns: &[u64; N],
    parts: impl Iterator<Item = &'a Durations<N>> + Clone,
) -> (Vec<(f64, u64)>, f64, u64) {
    const NANOSECONDS: f64 = 1e9;
    let mut seen = 0;
    let mut cumulative = Vec::with_capacity(N);
    for (place, bound) in bounds_ns.iter().enumerate() {
        seen += parts.clone().map(|part| part.counts[place].load(Ordering::Relaxed)).sum::<u64>();
        cumulative.push((whole(*bound) / NANOSECONDS, seen));
    }
    let count = seen + parts.clone().map(|part| part.above.load(Ordering::Relaxed)).sum::<u64>();
    let sum_ns = parts.map(|part| part.sum_ns.load(Ordering::Relaxed)).sum::<u64>();
    (cumulative, whole(sum_ns) / NANOSECONDS, count)
}

fn rpcs(page: &mut Page, metrics: &Metrics) {
    for method in Method::all() {
        let place = method as usize;
        let labels = [
            ("grpc_method", method.name()),
            ("grpc_service", method.service()),
            ("grpc_type", method.shape().label()),
        ];
        let shards = &metrics.shards;
        let started = sum(shards, |shard| &shard.rpcs[place].started);
        page.counter("grpc_server_started_total", "Rpcs begun.", &labels, started);
        let received = sum(shards, |shard| &shard.rpcs[place].received);
        page.counter("grpc_server_msg_received_total", "Messages received in rpcs.", &labels, received);
        let sent = sum(shards, |shard| &shard.rpcs[place].sent);
        page.counter("grpc_server_msg_sent_total", "Messages sent in rpcs.", &labels, sent);
        for (number, code) in CODE_NAMES.iter().enumerate() {
            let handled = sum(shards, |shard| &shard.rpcs[place].handled[number]);
            let [of_method, of_service, of_type] = labels;
            let labels = [("grpc_code", *code), of_method, of_service, of_type];
            page.counter("grpc_server_handled_total", "Rpcs ended, by code.", &labels, handled);
        }
        if metrics.extensive {
            let parts = shards.iter().map(|shard| &shard.rpcs[place].handling);
            let (cumulative, sum, count) = durations(&HANDLING_BOUNDS_NS, parts);
            page.histogram(
                "grpc_server_handling_seconds",
                "Time from an rpc's begin to its end.",
                &labels,
                cumulative,
                sum,
                count,
            );
        }
        request_durations(page, metrics, method);
    }
}

fn request_durations(page: &mut Page, metrics: &Metrics, method: Method) {
    let Some(request) = method.request() else { return };
    for (success, success_name) in ["false", "true"].into_iter().enumerate() {
        let parts = metrics.shards.iter().map(|shard| &shard.rpcs[method as usize].requests[success]);
        let (cumulative, sum, count) = durations(&REQUEST_BOUNDS_NS, parts);
        if count > 0 {
            let labels = [("success", success_name), ("type", request)];
            let help = "Time from a request's arrival to its answer.";
            page.histogram("etcd_server_request_duration_seconds", help, &labels, cumulative, sum, count);
        }
    }
}

fn ranges(page: &mut Page, metrics: &Metrics) {
    for (success, success_name) in ["false", "true"].into_iter().enumerate() {
        let parts = metrics.shards.iter().map(|shard| &shard.ranges[success]);
        let (cumulative, sum, count) = durations(&RANGE_BOUNDS_NS, parts);
        if count > 0 {
            let labels = [("success", success_name)];
            let help = "Time to read a range for a client, or to refuse it.";
            page.histogram("etcd_server_range_duration_seconds", help, &labels, cumulative, sum, count);
        }
    }
}

fn applying(page: &mut Page, now: &Observation) {
    for told in &now.apply_seconds {
        let success = if told.success { "true" } else { "false" };
        let labels = [("op", told.kind), ("success", success), ("version", "v3")];
        let help = "Time to apply a command, by its kind; what is applied again at a start is not counted.";
        let cumulative = told.cumulative.iter().copied();
        page.histogram("etcd_server_apply_duration_seconds", help, &labels, cumulative, told.sum, told.count);
    }
    let help = "Commands whose applying took longer than --warning-apply-duration.";
    page.counter("etcd_server_slow_apply_total", help, &[], now.slow_applies);
}

fn health(page: &mut Page, metrics: &Metrics) {
    for ((kind, name), outcomes) in HEALTH_CHECKS.iter().zip(&metrics.health.0) {
        let succeeded = outcomes.succeeded.load(Ordering::Relaxed);
        let failed = outcomes.failed.load(Ordering::Relaxed);
        if succeeded + failed == 0 {
            continue;
        }
        let last = whole(outcomes.last_succeeded.load(Ordering::Relaxed));
        let labels = [("name", *name), ("type", *kind)];
        page.gauge(
            "etcd_server_healthcheck",
            "Whether the check succeeded when it was last made.",
            &labels,
            last,
        );
        for (status, total) in [("error", failed), ("success", succeeded)] {
            if total > 0 {
                let labels = [("name", *name), ("status", status), ("type", *kind)];
                page.counter("etcd_server_healthchecks_total", "Checks made, by outcome.", &labels, total);
            }
        }
    }
}

fn agreement(page: &mut Page, now: &Observation) {
    let status = &now.status;
    let truth = |value: bool| whole(u64::from(value));
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", &[], truth(status.leader != 0));
    page.gauge(
        "etcd_server_is_leader",
        "Whether this member is the leader.",
        &[],
        truth(status.leader != 0 && status.leader == now.member_id),
    );
    page.gauge("etcd_server_is_learner", "Whether this member is a learner.", &[], truth(now.is_learner));
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Changes of the leader seen.",
        &[],
        status.leader_changes,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "Index of the last entry applied.",
        &[],
        whole(status.applied),
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "Index of the last entry committed.",
        &[],
        whole(status.commit),
    );
    page.gauge("etcd_server_proposals_pending", "Proposals under way.", &[], whole(status.proposals_pending));
    page.counter(
        "etcd_server_proposals_failed_total",
        "Proposals that failed.",
        &[],
        status.proposals_failed,
    );
    page.counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases ended because their time was up.",
        &[],
        status.leases_expired,
    );
    let fsync = &now.wal_sync_seconds;
    let bounded = fsync.bounds.iter().copied().zip(fsync.cumulative.iter().copied());
    let help = "Time of the log's durable writes (a write and its sync are one operation).";
    page.histogram("etcd_disk_wal_fsync_duration_seconds", help, &[], bounded, fsync.sum, fsync.count);
    page.gauge(
        "etcd_disk_wal_write_bytes_total",
        "Bytes written to the log.",
        &[],
        whole(now.wal_bytes_written),
    );
}

fn store(page: &mut Page, now: &Observation) {
    let sizes = &now.sizes;
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the store.", &[], whole(sizes.total_bytes));
    page.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the store that hold something.",
        &[],
        whole(sizes.in_use_bytes),
    );
    page.gauge(
        "etcd_mvcc_db_open_read_transactions",
        "Reads under way that hold back the reuse of space.",
        &[],
        whole(now.reads_under_way as u64),
    );
    page.gauge("etcd_debugging_mvcc_keys_total", "Keys.", &[], whole(sizes.keys));
    page.gauge(
        "etcd_debugging_mvcc_current_revision",
        "The store's revision.",
        &[],
        signed(now.position.revision),
    );
    page.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The compaction revision, -1 before the first compaction.",
        &[],
        signed(now.position.compacted),
    );
}

fn compaction(page: &mut Page, now: &Observation) {
    page.counter(
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "Versions removed by compaction.",
        &[],
        now.versions_removed,
    );
    let since_1970 = now.compacted_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let help =
        "When the last compaction was done, in seconds since 1970; 0 before the first since the start.";
    page.gauge("etcd_debugging_mvcc_db_compaction_last", help, &[], whole(since_1970.as_secs()));
    // in milliseconds, unlike all others
    let took = &now.compaction_seconds;
    let bounds = took.bounds.iter().map(|bound| (bound * 1e3).round());
    page.histogram(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "Time from a compaction's applying until all that it hid is removed.",
        &[],
        bounds.zip(took.cumulative.iter().copied()),
        took.sum * 1e3,
        took.count,
    );
}

fn page_file(page: &mut Page, now: &Observation) {
    let took = &now.checkpoint_seconds;
    let bounded = took.bounds.iter().copied().zip(took.cumulative.iter().copied());
    let help = "Time of a checkpoint of the page file.";
    page.histogram("etcd_disk_backend_commit_duration_seconds", help, &[], bounded, took.sum, took.count);
    let pages = &now.pages;
    page.counter("coffer_pages_written_total", "Pages written to the page file.", &[], pages.pages_written);
    page.counter(
        "coffer_pages_spilled_total",
        "Pages among them that were written before a checkpoint, for want of memory.",
        &[],
        pages.pages_spilled,
    );
    page.counter(
        "coffer_page_bytes_written_total",
        "Bytes written to the page file.",
        &[],
        pages.bytes_written,
    );
    page.counter(
        "coffer_pages_read_total",
        "Pages of the page file that were not in memory when they were first wanted.",
        &[],
        pages.pages_read,
    );
    page.counter("coffer_scrub_pages_total", "Pages read again and checked.", &[], pages.scrub_pages);
    page.counter(
        "coffer_scrub_rounds_total",
        "Times that all of the page file was.",
        &[],
        pages.scrub_rounds,
    );
    page.counter(
        "coffer_scrub_damaged_total",
        "Pages among them that are damaged.",
        &[],
        pages.scrub_damaged,
    );
    let gauges = [
        ("coffer_dirty_bytes", "Bytes of changed pages that wait to be written.", whole(pages.dirty_bytes)),
        ("coffer_page_file_bytes", "Length of the page file.", whole(pages.file_bytes)),
        (
            "coffer_checkpoint_longest_seconds",
            "The longest checkpoint so far.",
            whole(pages.checkpoint_us_max) / 1e6,
        ),
        (
            "coffer_replayed_entries",
            "Entries of the log applied again at the start.",
            whole(now.replayed.entries),
        ),
        ("coffer_replayed_bytes", "Bytes of them.", whole(now.replayed.bytes)),
        (
            "coffer_open_seconds",
            "Time that opening page file and log took at the start.",
            whole(now.replayed.took_us) / 1e6,
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, &[], value);
    }
}

fn identity(page: &mut Page, metrics: &Metrics, now: &Observation) {
    let id = format!("{:x}", now.member_id);
    page.gauge("etcd_server_id", "This member's id.", &[("server_id", &id)], 1.0);
    page.gauge(
        "etcd_server_version",
        "The version of etcd that is matched.",
        &[("server_version", ETCD_VERSION)],
        1.0,
    );
    page.gauge(
        "etcd_server_go_version",
        "coffer is not written in Go.",
        &[("server_go_version", "none")],
        1.0,
    );
    if now.status.leader != 0 {
        let cluster = ETCD_CLUSTER_VERSION.rsplit_once('.').map_or(ETCD_CLUSTER_VERSION, |(minor, _)| minor);
        page.gauge("etcd_cluster_version", "The cluster's version.", &[("cluster_version", cluster)], 1.0);
    }
    page.gauge(
        "etcd_network_known_peers",
        "Members known, this one included.",
        &[("Local", &id), ("Remote", &id)],
        1.0,
    );
    for gate in &metrics.gates {
        let labels = [("name", gate.name), ("stage", gate.stage)];
        page.gauge("etcd_server_feature_enabled", "Feature gates.", &labels, whole(u64::from(gate.enabled)));
    }
    let quota = metrics.quota_bytes.map_or(-1.0, whole);
    page.gauge("etcd_server_quota_backend_bytes", "Bytes the store may take, -1 for no bound.", &[], quota);
    for alarm in &now.alarms {
        let kind = match alarm.alarm {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
            AlarmKind::None => continue,
        };
        let of = format!("{:x}", alarm.member_id);
        let labels = [("alarm_type", kind), ("server_id", of.as_str())];
        page.gauge("etcd_debugging_server_alarms", "Alarms that are up.", &labels, 1.0);
    }
}
