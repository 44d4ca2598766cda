//! Which names are there, and what they say.

use super::*;
use crate::config::{Start, load};
use coffer_engine::command::AlarmKind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tonic::Code;

/// What etcd 3.7.3 serves before its first request, with `--metrics=extensive`, by type.
const ETCD_NAMES: &[(&str, &str)] = &[
    ("etcd_cluster_version", "gauge"),
    ("etcd_debugging_auth_revision", "gauge"),
    ("etcd_debugging_disk_backend_commit_rebalance_duration_seconds", "histogram"),
    ("etcd_debugging_disk_backend_commit_spill_duration_seconds", "histogram"),
    ("etcd_debugging_disk_backend_commit_write_duration_seconds", "histogram"),
    ("etcd_debugging_lease_granted_total", "counter"),
    ("etcd_debugging_lease_renewed_total", "counter"),
    ("etcd_debugging_lease_revoked_total", "counter"),
    ("etcd_debugging_lease_ttl_total", "histogram"),
    ("etcd_debugging_mvcc_compact_revision", "gauge"),
    ("etcd_debugging_mvcc_current_revision", "gauge"),
    ("etcd_debugging_mvcc_db_compaction_keys_total", "counter"),
    ("etcd_debugging_mvcc_db_compaction_last", "gauge"),
    ("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "histogram"),
    ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "histogram"),
    ("etcd_debugging_mvcc_events_total", "counter"),
    ("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", "histogram"),
    ("etcd_debugging_mvcc_keys_total", "gauge"),
    ("etcd_debugging_mvcc_pending_events_total", "gauge"),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_total_put_size_in_bytes", "gauge"),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
    ("etcd_debugging_mvcc_watcher_total", "gauge"),
    ("etcd_debugging_server_lease_expired_total", "counter"),
    ("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", "histogram"),
    ("etcd_debugging_server_watch_send_loop_progress_duration_seconds", "histogram"),
    ("etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", "histogram"),
    ("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", "histogram"),
    ("etcd_debugging_snap_save_marshalling_duration_seconds", "histogram"),
    ("etcd_debugging_snap_save_total_duration_seconds", "histogram"),
    ("etcd_debugging_store_expires_total", "counter"),
    ("etcd_debugging_store_watch_requests_total", "counter"),
    ("etcd_debugging_store_watchers", "gauge"),
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_disk_backend_defrag_duration_seconds", "histogram"),
    ("etcd_disk_backend_snapshot_duration_seconds", "histogram"),
    ("etcd_disk_defrag_inflight", "gauge"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_wal_write_bytes_total", "gauge"),
    ("etcd_disk_wal_write_duration_seconds", "histogram"),
    ("etcd_grpc_proxy_cache_hits_total", "gauge"),
    ("etcd_grpc_proxy_cache_keys_total", "gauge"),
    ("etcd_grpc_proxy_cache_misses_total", "gauge"),
    ("etcd_grpc_proxy_events_coalescing_total", "counter"),
    ("etcd_grpc_proxy_watchers_coalescing_total", "gauge"),
    ("etcd_mvcc_db_open_read_transactions", "gauge"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_mvcc_delete_total", "counter"),
    ("etcd_mvcc_hash_duration_seconds", "histogram"),
    ("etcd_mvcc_hash_rev_duration_seconds", "histogram"),
    ("etcd_mvcc_put_total", "counter"),
    ("etcd_mvcc_range_total", "counter"),
    ("etcd_mvcc_txn_total", "counter"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("etcd_network_known_peers", "gauge"),
    ("etcd_server_apply_duration_seconds", "histogram"),
    ("etcd_server_feature_enabled", "gauge"),
    ("etcd_server_go_version", "gauge"),
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_health_failures", "counter"),
    ("etcd_server_health_success", "counter"),
    ("etcd_server_heartbeat_send_failures_total", "counter"),
    ("etcd_server_id", "gauge"),
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_is_learner", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_learner_promote_successes", "counter"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_server_read_indexes_failed_total", "counter"),
    ("etcd_server_request_duration_seconds", "histogram"),
    ("etcd_server_slow_apply_total", "counter"),
    ("etcd_server_slow_read_indexes_total", "counter"),
    ("etcd_server_snapshot_apply_in_progress_total", "gauge"),
    ("etcd_server_version", "gauge"),
    ("etcd_snap_db_fsync_duration_seconds", "histogram"),
    ("etcd_snap_db_save_total_duration_seconds", "histogram"),
    ("etcd_snap_fsync_duration_seconds", "histogram"),
    ("go_gc_duration_seconds", "summary"),
    ("go_gc_gogc_percent", "gauge"),
    ("go_gc_gomemlimit_bytes", "gauge"),
    ("go_goroutines", "gauge"),
    ("go_info", "gauge"),
    ("go_memstats_alloc_bytes", "gauge"),
    ("go_memstats_alloc_bytes_total", "counter"),
    ("go_memstats_buck_hash_sys_bytes", "gauge"),
    ("go_memstats_frees_total", "counter"),
    ("go_memstats_gc_sys_bytes", "gauge"),
    ("go_memstats_heap_alloc_bytes", "gauge"),
    ("go_memstats_heap_idle_bytes", "gauge"),
    ("go_memstats_heap_inuse_bytes", "gauge"),
    ("go_memstats_heap_objects", "gauge"),
    ("go_memstats_heap_released_bytes", "gauge"),
    ("go_memstats_heap_sys_bytes", "gauge"),
    ("go_memstats_last_gc_time_seconds", "gauge"),
    ("go_memstats_mallocs_total", "counter"),
    ("go_memstats_mcache_inuse_bytes", "gauge"),
    ("go_memstats_mcache_sys_bytes", "gauge"),
    ("go_memstats_mspan_inuse_bytes", "gauge"),
    ("go_memstats_mspan_sys_bytes", "gauge"),
    ("go_memstats_next_gc_bytes", "gauge"),
    ("go_memstats_other_sys_bytes", "gauge"),
    ("go_memstats_stack_inuse_bytes", "gauge"),
    ("go_memstats_stack_sys_bytes", "gauge"),
    ("go_memstats_sys_bytes", "gauge"),
    ("go_sched_gomaxprocs_threads", "gauge"),
    ("go_threads", "gauge"),
    ("grpc_server_handled_total", "counter"),
    ("grpc_server_handling_seconds", "histogram"),
    ("grpc_server_msg_received_total", "counter"),
    ("grpc_server_msg_sent_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("os_fd_limit", "gauge"),
    ("os_fd_used", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_max_fds", "gauge"),
    ("process_network_receive_bytes_total", "counter"),
    ("process_network_transmit_bytes_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_virtual_memory_max_bytes", "gauge"),
    ("promhttp_metric_handler_requests_in_flight", "gauge"),
    ("promhttp_metric_handler_requests_total", "counter"),
];

/// What else it has once there was something to tell.
const ETCD_LATER_NAMES: &[(&str, &str)] = &[
    ("etcd_server_client_requests_total", "counter"),
    ("etcd_server_range_duration_seconds", "histogram"),
    ("etcd_server_healthcheck", "gauge"),
    ("etcd_server_healthchecks_total", "counter"),
    ("etcd_debugging_server_alarms", "gauge"),
    ("etcd_network_server_stream_failures_total", "counter"),
];

/// What coffer serves beside etcd's names; docs/compat.md lists them.
const OWN_NAMES: &[(&str, &str)] = &[
    ("coffer_read_faults_total", "counter"),
    ("coffer_pages_written_total", "counter"),
    ("coffer_pages_spilled_total", "counter"),
    ("coffer_page_bytes_written_total", "counter"),
    ("coffer_pages_read_total", "counter"),
    ("coffer_scrub_pages_total", "counter"),
    ("coffer_scrub_rounds_total", "counter"),
    ("coffer_scrub_damaged_total", "counter"),
    ("coffer_dirty_bytes", "gauge"),
    ("coffer_page_file_bytes", "gauge"),
    ("coffer_checkpoint_longest_seconds", "gauge"),
    ("coffer_replayed_entries", "gauge"),
    ("coffer_replayed_bytes", "gauge"),
    ("coffer_open_seconds", "gauge"),
];

struct At(Observation);

impl Source for At {
    fn observe(&self) -> Observation {
        self.0.clone()
    }
}

fn metrics(flags: &[&str]) -> Metrics {
    match load(flags.iter().map(|flag| (*flag).to_owned()), Vec::new()) {
        Ok(Start::Run(config)) => Metrics::new(&config),
        other => panic!("{flags:?}: {other:?}"),
    }
}

fn observation() -> Observation {
    let mut now = Observation { member_id: 0xabc, ..Observation::default() };
    now.status.leader = 0xabc;
    now.position.compacted = -1;
    now.apply_seconds = vec![ApplySeconds {
        kind: "Put",
        success: true,
        cumulative: vec![(0.0001, 1), (0.0002, 3)],
        sum: 0.5,
        count: 4,
    }];
    now
}

fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|each| each == line), "no line {line:?}");
}

#[test]
fn every_name_that_etcd_serves_from_the_start_is_there_with_its_type() {
    let text = metrics(&["--metrics=extensive"]).render(&At(observation()));
    let served = types(&text);
    for (name, kind) in ETCD_NAMES {
        match *name {
            // Appears, as with etcd, with the first request; etcd has made some of its own by then.
            "etcd_server_request_duration_seconds" => continue,
            _ => assert_eq!(served.get(name), Some(kind), "{name}"),
        }
    }
    for (name, kind) in served {
        let known =
            [ETCD_NAMES, ETCD_LATER_NAMES, OWN_NAMES].iter().any(|names| names.contains(&(name, kind)));
        assert!(known, "{name} is no name of etcd's or coffer's, or no {kind} there");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[test]
fn every_method_has_its_series_from_the_start() {
    let text = metrics(&[]).render(&At(observation()));
    let count = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(count("grpc_server_started_total"), 45);
    assert_eq!(count("grpc_server_msg_received_total"), 45);
    assert_eq!(count("grpc_server_msg_sent_total"), 45);
    assert_eq!(count("grpc_server_handled_total"), 45 * 17);
    assert_eq!(
        count("grpc_server_handling_seconds_count"),
        0,
        "histograms of rpcs are for extensive metrics"
    );
    has(
        &text,
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
    );
}

#[test]
fn rpcs_are_counted_by_method_and_code_and_a_dropped_one_is_canceled() {
    let metrics = Arc::new(metrics(&["--metrics=extensive"]));
    let put = Call::start(&*metrics, Method::Put);
    put.received();
    put.sent(1);
    put.finish(Code::Ok);
    Call::start(&*metrics, Method::Put).finish(Code::InvalidArgument);
    for _ in 0..6 {
        drop(Call::start(Arc::clone(&metrics), Method::Watch));
    }
    let text = metrics.render(&At(observation()));
    let put = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    has(&text, &format!("grpc_server_started_total{{{put} 2"));
    has(&text, &format!("grpc_server_msg_received_total{{{put} 1"));
    has(&text, &format!("grpc_server_msg_sent_total{{{put} 1"));
    has(&text, &format!("grpc_server_handled_total{{grpc_code=\"OK\",{put} 1"));
    has(&text, &format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{put} 1"));
    has(&text, &format!("grpc_server_handling_seconds_count{{{put} 2"));
    has(
        &text,
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 6",
    );
    has(&text, "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"} 1");
    has(&text, "etcd_server_request_duration_seconds_count{success=\"false\",type=\"Put\"} 1");
    has(&text, "etcd_server_request_duration_seconds_bucket{success=\"true\",type=\"Put\",le=\"8.192\"} 1");
    assert!(!text.contains("type=\"Range\"}"), "a request that nobody made has no series");
}

#[test]
fn what_threads_count_is_added_up() {
    let metrics = metrics(&["--serving-threads=2"]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    metrics.add(Count::Puts, 1);
                    metrics.shift(Level::Watchers, 2);
                    metrics.shift(Level::Watchers, -1);
                    metrics.observe(Histogram::LeaseTtl, 2.0);
                    metrics.rpc(Method::Range).started();
                }
            });
        }
    });
    let text = metrics.render(&At(observation()));
    has(&text, "etcd_mvcc_put_total 8000");
    has(&text, "etcd_debugging_mvcc_watcher_total 8000");
    has(&text, "etcd_debugging_lease_ttl_total_bucket{le=\"1\"} 0");
    has(&text, "etcd_debugging_lease_ttl_total_bucket{le=\"2\"} 8000");
    has(&text, "etcd_debugging_lease_ttl_total_sum 16000");
    has(&text, "etcd_debugging_lease_ttl_total_count 8000");
    let range = "grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    has(&text, &format!("grpc_server_started_total{{{range} 8000"));
}

#[test]
fn a_level_that_rises_on_one_thread_and_falls_on_another_is_level() {
    let metrics = metrics(&[]);
    std::thread::scope(|scope| {
        scope.spawn(|| metrics.shift(Level::WatchStreams, 3));
    });
    metrics.shift(Level::WatchStreams, -3);
    has(&metrics.render(&At(observation())), "etcd_debugging_mvcc_watch_stream_total 0");
}

#[test]
fn what_the_member_knows_is_told_under_etcds_names() {
    let mut now = observation();
    now.status.commit = 12;
    now.status.applied = 11;
    now.status.proposals_pending = 1;
    now.status.proposals_failed = 2;
    now.status.leader_changes = 3;
    now.status.leases_expired = 4;
    now.position.revision = 9;
    now.sizes.keys = 1;
    now.sizes.total_bytes = 20_480;
    now.sizes.in_use_bytes = 16_384;
    now.wal_bytes_written = 4_096;
    now.wal_sync_seconds =
        HistogramSnapshot { bounds: vec![0.001, 0.002], cumulative: vec![2, 3], sum: 0.5, count: 4 };
    now.checkpoint_seconds =
        HistogramSnapshot { bounds: vec![0.001], cumulative: vec![1], sum: 1.5, count: 2 };
    now.pages.dirty_bytes = 8_192;
    now.compaction_seconds =
        HistogramSnapshot { bounds: vec![0.1, 0.2], cumulative: vec![1, 3], sum: 0.5, count: 4 };
    now.compacted_at = Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_900));
    now.versions_removed = 77;
    now.slow_applies = 6;
    now.reads_under_way = 5;
    now.replayed.took_us = 1_500_000;
    now.alarms = vec![AlarmMember { member_id: 0xabc, alarm: AlarmKind::NoSpace }];
    let text = metrics(&["--quota-backend-bytes=53248"]).render(&At(now));
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_is_learner 0",
        "etcd_server_leader_changes_seen_total 3",
        "etcd_server_proposals_committed_total 12",
        "etcd_server_proposals_applied_total 11",
        "etcd_server_proposals_pending 1",
        "etcd_server_proposals_failed_total 2",
        "etcd_debugging_server_lease_expired_total 4",
        "etcd_debugging_mvcc_current_revision 9",
        "etcd_debugging_mvcc_compact_revision -1",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_mvcc_db_total_size_in_bytes 20480",
        "etcd_mvcc_db_total_size_in_use_in_bytes 16384",
        "etcd_disk_wal_write_bytes_total 4096",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 2",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 4",
        "etcd_disk_wal_fsync_duration_seconds_count 4",
        "etcd_disk_backend_commit_duration_seconds_bucket{le=\"0.001\"} 1",
        "etcd_disk_backend_commit_duration_seconds_count 2",
        "coffer_dirty_bytes 8192",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_bucket{le=\"200\"} 3",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_sum 500",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count 4",
        "etcd_debugging_mvcc_db_compaction_last 1700000000",
        "etcd_debugging_mvcc_db_compaction_keys_total 77",
        "etcd_mvcc_db_open_read_transactions 5",
        "etcd_server_slow_apply_total 6",
        "etcd_server_apply_duration_seconds_bucket{op=\"Put\",success=\"true\",version=\"v3\",le=\"0.0002\"} 3",
        "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"} 4",
        "coffer_open_seconds 1.5",
        "etcd_server_quota_backend_bytes 53248",
        "etcd_server_id{server_id=\"abc\"} 1",
        "etcd_server_version{server_version=\"3.7.3\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"abc\"} 1",
        "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
    ] {
        has(&text, line);
    }
}

#[test]
fn ranges_are_told_by_their_outcome_once_there_was_one() {
    let metrics = metrics(&[]);
    let name = "etcd_server_range_duration_seconds";
    assert!(!metrics.render(&At(observation())).contains(name));
    metrics.range(true, Duration::from_micros(100));
    metrics.range(true, Duration::from_micros(101));
    let text = metrics.render(&At(observation()));
    has(&text, &format!("{name}_bucket{{success=\"true\",le=\"0.0001\"}} 1"));
    has(&text, &format!("{name}_bucket{{success=\"true\",le=\"0.0002\"}} 2"));
    assert!(!text.contains("success=\"false\""));
}

#[test]
fn without_a_leader_nothing_claims_one() {
    let mut now = observation();
    now.status.leader = 0;
    now.member_id = 0;
    let text = metrics(&[]).render(&At(now));
    has(&text, "etcd_server_has_leader 0");
    has(&text, "etcd_server_is_leader 0");
    assert!(!text.contains("etcd_cluster_version{"));
}

#[test]
fn versions_of_clients_are_told_apart_up_to_a_bound() {
    let metrics = metrics(&[]);
    metrics.client_request(RequestKind::Unary, "3.7");
    metrics.client_request(RequestKind::Unary, "3.7");
    metrics.client_request(RequestKind::Stream, "3.7");
    metrics.client_request(RequestKind::Unary, &"x".repeat(CLIENT_VERSION_BYTES_MAX + 1));
    for version in 0..100 {
        metrics.client_request(RequestKind::Unary, &version.to_string());
    }
    let text = metrics.render(&At(observation()));
    has(&text, "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"} 2");
    has(&text, "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"stream\"} 1");
    let others = 100 - (CLIENT_VERSIONS_MAX - 1) + 1;
    has(
        &text,
        &format!("etcd_server_client_requests_total{{client_api_version=\"other\",type=\"unary\"}} {others}"),
    );
}

#[test]
fn the_kernel_is_asked_about_the_process() {
    let text = metrics(&[]).render(&At(observation()));
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is not there"))
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1e9);
    assert!(value("go_threads") >= 1.0);
}

#[test]
fn the_page_on_compatibility_names_every_constant_and_every_name_of_our_own() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compat.md"));
    let mut constants = exposition::Page::default();
    constants::add(&mut constants);
    let text = constants.text();
    for (name, _) in OWN_NAMES {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
    for name in types(&text).keys().filter(|name| !name.starts_with("promhttp_")) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
