//! What the HTTP endpoints and the metrics ask of a member.

use crate::config::ETCD_CLUSTER_VERSION;
use crate::http::Probe;
use crate::metrics::{Observation, Source};
use crate::read;
use crate::serving::Serving;
use coffer_engine::command::{AlarmKind, RangeRequest};
use coffer_engine::mvcc::KeyRange;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Answers on one serving thread.
pub(super) struct ThreadProbe(pub(super) Arc<Serving>);

impl ThreadProbe {
    fn is_learner(&self) -> bool {
        let shared = &self.0.shared;
        shared.reader().members().iter().any(|member| member.id == shared.member_id && member.is_learner)
    }
}

impl Source for ThreadProbe {
    fn observe(&self) -> Observation {
        let shared = &self.0.shared;
        Observation {
            member_id: shared.member_id,
            is_learner: self.is_learner(),
            status: shared.node.status(),
            position: shared.reader().position(),
            sizes: shared.reader().sizes(),
            alarms: shared.reader().alarms(),
            wal_sync_seconds: shared.node.wal_sync_seconds(),
            wal_bytes_written: shared.node.wal_bytes_written(),
            checkpoint_seconds: shared.node.checkpoint_seconds(),
            compaction_seconds: shared.node.compaction_seconds(),
            compacted_at: shared.node.compacted_at(),
            versions_removed: shared.node.versions_removed(),
            apply_seconds: shared.node.apply_seconds(),
            slow_applies: shared.node.slow_applies(),
            reads_under_way: shared.reader().reads_under_way(),
            pages: shared.node.page_stats(),
            replayed: shared.node.replayed(),
        }
    }
}

impl Probe for ThreadProbe {
    fn alarms(&self) -> Vec<AlarmKind> {
        self.0.shared.reader().alarms().iter().map(|alarm| alarm.alarm).collect()
    }

    fn damage(&self) -> Option<String> {
        self.0.shared.damage().or_else(|| self.0.shared.node.scrub_damage())
    }

    fn has_leader(&self) -> bool {
        self.0.shared.node.status().leader != 0
    }

    fn is_learner(&self) -> bool {
        ThreadProbe::is_learner(self)
    }

    fn cluster_version(&self) -> Option<String> {
        // Members before the bootstrap command: nothing is decided yet.
        (self.0.shared.reader().cluster_id() != 0).then(|| ETCD_CLUSTER_VERSION.to_owned())
    }

    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if !serializable {
                read::linearizable(&self.0).await.map_err(|error| error.to_string())?;
            }
            let any = RangeRequest {
                range: KeyRange::new(vec![0], vec![0]),
                limit: 1,
                keys_only: true,
                ..RangeRequest::default()
            };
            let shared = &self.0.shared;
            let read = shared.reader().range(&any);
            read.map(|_| ()).map_err(|error| shared.read_error(error).message().to_owned())
        })
    }
}
