//! Names that etcd serves and that have only one honest value here.
//!
//! Dashboards and etcd's own tests ask for these names to be present. Each value is what it would be in an etcd that had
//! never done the thing counted: there is no v2 store, no grpc-proxy, no Go runtime and, in this version, no peer to
//! send to and no snapshot to save. docs/compat.md tells operators which names say nothing.

use super::exposition::{Kind, Page};

const NO_GO: &str = "Always 0: coffer has no Go runtime.";
const NO_V2: &str = "Always 0: coffer has no v2 store.";
const NO_PROXY: &str = "Always 0: coffer has no grpc-proxy.";
const ONE_MEMBER: &str = "Always 0 while a cluster has one member.";

/// Single values that are always 0.
const ZEROES: &[(Kind, &str, &str)] = &[
    (Kind::Counter, "etcd_debugging_store_expires_total", NO_V2),
    (Kind::Counter, "etcd_debugging_store_watch_requests_total", NO_V2),
    (Kind::Gauge, "etcd_debugging_store_watchers", NO_V2),
    (Kind::Gauge, "etcd_grpc_proxy_cache_hits_total", NO_PROXY),
    (Kind::Gauge, "etcd_grpc_proxy_cache_keys_total", NO_PROXY),
    (Kind::Gauge, "etcd_grpc_proxy_cache_misses_total", NO_PROXY),
    (Kind::Counter, "etcd_grpc_proxy_events_coalescing_total", NO_PROXY),
    (Kind::Gauge, "etcd_grpc_proxy_watchers_coalescing_total", NO_PROXY),
    (Kind::Counter, "etcd_server_heartbeat_send_failures_total", ONE_MEMBER),
    (Kind::Counter, "etcd_server_learner_promote_successes", ONE_MEMBER),
    (Kind::Gauge, "etcd_server_snapshot_apply_in_progress_total", ONE_MEMBER),
    (Kind::Gauge, "go_gc_gogc_percent", NO_GO),
    (Kind::Gauge, "go_gc_gomemlimit_bytes", NO_GO),
    (Kind::Gauge, "go_goroutines", NO_GO),
    (Kind::Gauge, "go_memstats_alloc_bytes", NO_GO),
    (Kind::Counter, "go_memstats_alloc_bytes_total", NO_GO),
    (Kind::Gauge, "go_memstats_buck_hash_sys_bytes", NO_GO),
    (Kind::Counter, "go_memstats_frees_total", NO_GO),
    (Kind::Gauge, "go_memstats_gc_sys_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_heap_alloc_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_heap_idle_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_heap_inuse_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_heap_objects", NO_GO),
    (Kind::Gauge, "go_memstats_heap_released_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_heap_sys_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_last_gc_time_seconds", NO_GO),
    (Kind::Counter, "go_memstats_mallocs_total", NO_GO),
    (Kind::Gauge, "go_memstats_mcache_inuse_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_mcache_sys_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_mspan_inuse_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_mspan_sys_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_next_gc_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_other_sys_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_stack_inuse_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_stack_sys_bytes", NO_GO),
    (Kind::Gauge, "go_memstats_sys_bytes", NO_GO),
    (Kind::Gauge, "go_sched_gomaxprocs_threads", NO_GO),
];

/// What a value of the authentication store is before it exists: etcd's starts at revision 1.
const AUTH_REVISION: f64 = 1.0;

const NO_BACKEND: &str = "Always empty: coffer does not work in backend transactions.";
const NO_SNAPSHOT: &str = "Empty while a cluster has one member: nobody is sent a snapshot.";

/// Histograms that have observed nothing: name, first bound, number of bounds.
const EMPTY_HISTOGRAMS: &[(&str, f64, usize, &str)] = &[
    ("etcd_debugging_disk_backend_commit_rebalance_duration_seconds", 0.001, 14, NO_BACKEND),
    ("etcd_debugging_disk_backend_commit_spill_duration_seconds", 0.001, 14, NO_BACKEND),
    ("etcd_debugging_disk_backend_commit_write_duration_seconds", 0.001, 14, NO_BACKEND),
    ("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", 0.5, 14, NO_BACKEND),
    ("etcd_debugging_snap_save_marshalling_duration_seconds", 0.001, 14, NO_SNAPSHOT),
    ("etcd_debugging_snap_save_total_duration_seconds", 0.001, 14, NO_SNAPSHOT),
    (
        "etcd_disk_wal_write_duration_seconds",
        0.001,
        14,
        "Always empty: a write and its sync are one operation, see etcd_disk_wal_fsync_duration_seconds.",
    ),
    ("etcd_snap_db_fsync_duration_seconds", 0.001, 14, NO_SNAPSHOT),
    ("etcd_snap_db_save_total_duration_seconds", 0.1, 10, NO_SNAPSHOT),
    ("etcd_snap_fsync_duration_seconds", 0.001, 14, NO_SNAPSHOT),
];

/// Adds them all.
pub(super) fn add(page: &mut Page) {
    for (kind, name, help) in ZEROES {
        page.value(*kind, name, help, &[], 0.0);
    }
    page.gauge(
        "etcd_debugging_auth_revision",
        "Always 1 while there is no authentication.",
        &[],
        AUTH_REVISION,
    );
    page.gauge("go_info", "coffer has no Go runtime.", &[("version", "none")], 1.0);
    page.empty_summary("go_gc_duration_seconds", NO_GO, &[0.0, 0.25, 0.5, 0.75, 1.0]);
    for (name, start, count, help) in EMPTY_HISTOGRAMS {
        let bounds = (0..*count).scan(*start, |bound, _| {
            let this = *bound;
            *bound *= 2.0;
            Some((this, 0))
        });
        page.histogram(name, help, &[], bounds, 0.0, 0);
    }
    for code in ["500", "503"] {
        page.counter(
            "promhttp_metric_handler_requests_total",
            "Answers of /metrics, by HTTP status.",
            &[("code", code)],
            0,
        );
    }
}
