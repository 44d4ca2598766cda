//! The series without rpc labels that are counted here: one table each for counters, levels and histograms.
//!
//! A row names the series as etcd does; the help texts say what is counted in coffer.

use super::exposition::Kind;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is told about a counter or a level.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Counters that etcd declares as gauges are told as gauges.
    pub(super) kind: Kind,
    pub(super) labels: &'static [(&'static str, &'static str)],
    /// With labels, a series appears once it has counted something; without, from the start.
    pub(super) help: &'static str,
}

macro_rules! rows {
    ($(#[$doc:meta])* $enum:ident $table:ident; $($variant:ident $kind:ident $name:literal $labels:tt $help:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum {
            $(#[doc = $help] $variant,)*
        }

        pub(super) const $table: &[Row] = &[
            $(Row { name: $name, kind: Kind::$kind, labels: &$labels, help: $help },)*
        ];

        impl $enum {
            /// How many there are.
            pub const COUNT: usize = $table.len();
        }
    };
}

rows! {
    /// A counter.
    Count COUNTS;
    Puts Counter "etcd_mvcc_put_total" [] "Puts applied for clients, those inside txns included.";
    Deletes Counter "etcd_mvcc_delete_total" [] "Range deletions applied for clients, those inside txns included.";
    Ranges Counter "etcd_mvcc_range_total" [] "Ranges read for clients, those inside txns included.";
    Txns Counter "etcd_mvcc_txn_total" [] "Txns of more than one operation.";
    PutBytes Gauge "etcd_debugging_mvcc_total_put_size_in_bytes" [] "Bytes of keys and values put.";
    Events Counter "etcd_debugging_mvcc_events_total" [] "Events sent to watchers.";
    LeasesGranted Counter "etcd_debugging_lease_granted_total" [] "Leases granted.";
    LeasesRenewed Counter "etcd_debugging_lease_renewed_total" [] "Renewals of leases.";
    LeasesRevoked Counter "etcd_debugging_lease_revoked_total" [] "Leases revoked by clients.";
    GrpcBytesReceived Counter "etcd_network_client_grpc_received_bytes_total" [] "Bytes of messages received from clients over gRPC.";
    GrpcBytesSent Counter "etcd_network_client_grpc_sent_bytes_total" [] "Bytes of messages sent to clients over gRPC.";
    WatchReceiveFailures Counter "etcd_network_server_stream_failures_total" [("API", "watch"), ("Type", "receive")] "Client streams that failed.";
    WatchSendFailures Counter "etcd_network_server_stream_failures_total" [("API", "watch"), ("Type", "send")] "Client streams that failed.";
    KeepAliveReceiveFailures Counter "etcd_network_server_stream_failures_total" [("API", "lease-keepalive"), ("Type", "receive")] "Client streams that failed.";
    KeepAliveSendFailures Counter "etcd_network_server_stream_failures_total" [("API", "lease-keepalive"), ("Type", "send")] "Client streams that failed.";
    SlowReadIndexes Counter "etcd_server_slow_read_indexes_total" [] "Linearizable reads that waited unusually long for their index.";
    ReadIndexesFailed Counter "etcd_server_read_indexes_failed_total" [] "Linearizable reads that got no index.";
    HealthSuccesses Counter "etcd_server_health_success" [] "Answers of /health that said healthy.";
    HealthFailures Counter "etcd_server_health_failures" [] "Answers of /health that said unhealthy.";
    ReadFaults Counter "coffer_read_faults_total" [] "Reads that failed because what they had to read is damaged.";
    MetricsServed Counter "promhttp_metric_handler_requests_total" [("code", "200")] "Answers of /metrics, by HTTP status.";
}

rows! {
    /// A level: something that goes up and down.
    Level LEVELS;
    Watchers Gauge "etcd_debugging_mvcc_watcher_total" [] "Watchers.";
    SlowWatchers Gauge "etcd_debugging_mvcc_slow_watcher_total" [] "Watchers that are catching up from history.";
    WatchStreams Gauge "etcd_debugging_mvcc_watch_stream_total" [] "Watch streams.";
    PendingEvents Gauge "etcd_debugging_mvcc_pending_events_total" [] "Events waiting to be sent to watchers.";
    Defragments Gauge "etcd_disk_defrag_inflight" [] "Whether a defragmentation is under way.";
    MetricsInFlight Gauge "promhttp_metric_handler_requests_in_flight" [] "Answers of /metrics being made.";
}

/// Most buckets of a histogram, the one without bound not counted.
const BUCKETS_MAX: usize = 24;

/// What is told about a histogram: its first bound, doubled for each further one.
pub(super) struct HistogramRow {
    pub(super) name: &'static str,
    pub(super) start: f64,
    pub(super) count: usize,
    pub(super) help: &'static str,
}

impl HistogramRow {
    pub(super) fn bounds(&self) -> impl Iterator<Item = f64> {
        let start = self.start;
        (0..self.count.min(BUCKETS_MAX)).scan(start, |bound, _| {
            let this = *bound;
            *bound *= 2.0;
            Some(this)
        })
    }
}

macro_rules! histograms {
    ($($variant:ident $name:literal $start:literal $count:literal $help:literal;)*) => {
        /// A histogram; its unit is the end of its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Histogram {
            $(#[doc = $help] $variant,)*
        }

        pub(super) const HISTOGRAMS: &[HistogramRow] = &[
            $(HistogramRow { name: $name, start: $start, count: $count, help: $help },)*
        ];

        impl Histogram {
            /// How many there are.
            pub const COUNT: usize = HISTOGRAMS.len();
        }
    };
}

histograms! {
    LeaseTtl "etcd_debugging_lease_ttl_total" 1.0 24 "Seconds granted to leases.";
    HashKvSeconds "etcd_mvcc_hash_rev_duration_seconds" 0.01 15 "Time to hash the versions visible at a revision.";
    HashSeconds "etcd_mvcc_hash_duration_seconds" 0.01 15 "Time to answer Hash.";
    SnapshotSeconds "etcd_disk_backend_snapshot_duration_seconds" 0.01 17 "Time to send a snapshot to a client.";
    DefragmentSeconds "etcd_disk_backend_defrag_duration_seconds" 0.1 13 "Time of a defragmentation.";
    CompactionPauseMillis "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" 1.0 13 "Time of one step of compaction.";
    WatchSendSeconds "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" 0.001 14 "Time to hand the events of one watch response to its stream.";
    WatchSendPerEventSeconds "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" 0.001 14 "The same, divided by the number of events.";
    WatchControlSeconds "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" 0.001 14 "Time to hand a created or canceled response to its stream.";
    WatchProgressSeconds "etcd_debugging_server_watch_send_loop_progress_duration_seconds" 0.001 14 "Time to hand a progress response to its stream.";
}

/// What one thread observed of one histogram.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    /// Observations above the bound before and not above this one.
    counts: [AtomicU64; BUCKETS_MAX],
    above: AtomicU64,
    sum_bits: AtomicU64,
}

impl Buckets {
    pub(super) fn observe(&self, histogram: Histogram, value: f64) {
        let row = &HISTOGRAMS[histogram as usize];
        let place = row.bounds().position(|bound| value <= bound);
        place.map_or(&self.above, |place| &self.counts[place]).fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never refuses, so there is no failure to look at.
        let _ = self.sum_bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Adds this thread's part to the sums over all threads; the last of `counts` is the bucket without bound.
    pub(super) fn add_to(&self, counts: &mut [u64; BUCKETS_MAX + 1], sum: &mut f64) {
        for (total, own) in counts.iter_mut().zip(self.counts.iter().chain([&self.above])) {
            *total += own.load(Ordering::Relaxed);
        }
        *sum += f64::from_bits(self.sum_bits.load(Ordering::Relaxed));
    }
}

/// Sums over all threads.
pub(super) struct Totals {
    pub(super) counts: [u64; BUCKETS_MAX + 1],
    pub(super) sum: f64,
}

impl Totals {
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Buckets>) -> Totals {
        let mut totals = Totals { counts: [0; BUCKETS_MAX + 1], sum: 0.0 };
        for part in parts {
            part.add_to(&mut totals.counts, &mut totals.sum);
        }
        totals
    }

    /// Observations not above each bound of `row`, and of all.
    pub(super) fn cumulative(&self, row: &HistogramRow) -> (Vec<(f64, u64)>, u64) {
        let mut seen = 0;
        let bounded = row
            .bounds()
            .zip(self.counts)
            .map(|(bound, count)| {
                seen += count;
                (bound, seen)
            })
            .collect();
        (bounded, self.counts.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_at_the_first_bound_that_is_not_below_it() {
        let buckets = Buckets::default();
        for value in [0.0, 1.0, 1.5, 8_388_608.0, 9_000_000.0] {
            buckets.observe(Histogram::LeaseTtl, value);
        }
        let totals = Totals::of([&buckets].into_iter());
        let (bounded, all) = totals.cumulative(&HISTOGRAMS[Histogram::LeaseTtl as usize]);
        assert_eq!(bounded.first(), Some(&(1.0, 2)));
        assert_eq!(bounded.get(1), Some(&(2.0, 3)));
        assert_eq!(bounded.last(), Some(&(8_388_608.0, 4)));
        assert_eq!(all, 5);
        assert!((totals.sum - 17_388_610.5).abs() < f64::EPSILON);
    }

    #[test]
    fn no_histogram_has_more_bounds_than_there_is_room_for() {
        for row in HISTOGRAMS {
            assert!(row.count <= BUCKETS_MAX, "{}", row.name);
        }
    }
}
