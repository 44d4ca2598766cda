//! Maintenance: alarms, status, hashes. Downgrade is not there yet and says so.

use super::header::{header, header_now};
use super::status::{Error, not_yet};
use super::{snapshot, until_stopped, wire};
use crate::config::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::metrics::{Histogram, Level};
use crate::propose::propose;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::read;
use crate::serving::{Serving, Shared};
use coffer_engine::command::{AlarmAction, AlarmKind, AlarmMember};
use coffer_engine::store::HashKv;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// The service on one serving thread.
pub(crate) struct MaintenanceService {
    pub(crate) serving: Arc<Serving>,
}

/// Hashes at once in the process, each of which keeps a processor busy; others wait.
pub(crate) const HASHES_MAX: usize = 2;
/// How long the answer to Defragment waits for its end: pages move beside everything else, and etcdctl waits five seconds.
const DEFRAGMENT_WAIT: Duration = Duration::from_secs(4);
/// How often it is looked whether it is done.
const DEFRAGMENT_POLL: Duration = Duration::from_millis(20);

/// Moves pages toward the page file's head; its end is cut then.
async fn defragmented(shared: &Shared) -> Result<(), Error> {
    let number = shared.node.request_defragment();
    while shared.node.defragments_done() < number {
        if shared.is_stopping() {
            return Err(Error::Stopped);
        }
        tokio::time::sleep(DEFRAGMENT_POLL).await;
    }
    Ok(())
}

/// What is wrong with the member, in etcd's words.
fn errors(shared: &Shared, leader: u64) -> Vec<String> {
    let no_leader = (leader == 0).then(|| Error::NoLeader.text().to_owned());
    let alarms = shared.reader().alarms();
    no_leader
        .into_iter()
        .chain(alarms.iter().map(alarm_text))
        .chain(shared.damage())
        .chain(shared.node.scrub_damage())
        .collect()
}

/// An alarm as Go prints its message.
fn alarm_text(alarm: &AlarmMember) -> String {
    let kind = match alarm.alarm {
        AlarmKind::None => return format!("memberID:{}", alarm.member_id),
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    format!("memberID:{} alarm:{kind}", alarm.member_id)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl MaintenanceService {
    /// The work grows with the store: on a thread of its own, so that this one goes on serving, and only as long as somebody
    /// waits for it and the member is not stopping.
    async fn hash_at(&self, revision: i64) -> Result<HashKv, Status> {
        let shared = &self.serving.shared;
        // an error says that the places are gone, and they are never closed
        let place = Arc::clone(&shared.hashes).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let stop = shared.stop.subscribe();
        let began = Instant::now();
        let told = read::look_while(&self.serving, false, move |reader, wanted| {
            // given back when the work has ended, which may be after whoever asked has gone
            let _place = place;
            reader.hash_kv_while(revision, &|| wanted() && !*stop.borrow()).transpose()
        });
        let hash = told.await?.map_err(|error| shared.read_error(error))?;
        shared.metrics.observe(Histogram::HashKvSeconds, began.elapsed().as_secs_f64());
        Ok(hash)
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let (revision, alarms) = match wire::alarm(request) {
            Some(alarm) if alarm.action == AlarmAction::Activate && alarm.alarm == AlarmKind::None => {
                (self.serving.shared.reader().position().revision, Vec::new())
            }
            Some(alarm) => propose(&self.serving, alarm, bytes).await?,
            None => (self.serving.shared.reader().position().revision, Vec::new()),
        };
        let alarms = alarms.iter().map(wire::alarm_member).collect();
        Ok(Response::new(pb::AlarmResponse { header: header(&self.serving.shared, revision), alarms }))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let shared = &self.serving.shared;
        let status = shared.node.status();
        let sizes = shared.reader().sizes();
        let learners = shared.reader().members();
        let is_learner = learners.iter().any(|member| member.id == shared.member_id && member.is_learner);
        Ok(Response::new(pb::StatusResponse {
            header: header_now(shared),
            version: ETCD_VERSION.to_owned(),
            db_size: signed(sizes.total_bytes),
            leader: status.leader,
            raft_index: status.commit,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors: errors(shared, status.leader),
            db_size_in_use: signed(sizes.in_use_bytes),
            is_learner,
            storage_version: ETCD_CLUSTER_VERSION.to_owned(),
            db_size_quota: shared.config.quota_bytes.map_or(-1, signed),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let shared = &self.serving.shared;
        tracing::info!("starting defragment");
        let began = Instant::now();
        let under_way = shared.metrics.raise(Level::Defragments);
        let moved = tokio::time::timeout(DEFRAGMENT_WAIT, defragmented(shared)).await;
        drop(under_way);
        match moved {
            Ok(done) => done?,
            Err(_) => tracing::info!("defragment goes on beside everything else"),
        }
        shared.metrics.observe(Histogram::DefragmentSeconds, began.elapsed().as_secs_f64());
        let sizes = shared.reader().sizes();
        tracing::info!(
            took = ?began.elapsed(),
            "current-db-size-bytes" = sizes.total_bytes,
            "current-db-size-in-use-bytes" = sizes.in_use_bytes,
            "finished defragment"
        );
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    /// etcd's is of its whole file; this one is of all that is visible, as HashKV at the current revision.
    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let began = Instant::now();
        let hash = self.hash_at(0).await?;
        self.serving.shared.metrics.observe(Histogram::HashSeconds, began.elapsed().as_secs_f64());
        let header = header(&self.serving.shared, hash.current_revision);
        Ok(Response::new(pb::HashResponse { header, hash: hash.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let shared = &self.serving.shared;
        let told = shared.hashes_told.lock().before_compaction(revision, &shared.reader().position());
        let hash = match told {
            Some(told) => told,
            None => self.hash_at(revision).await?,
        };
        if told.is_none() {
            shared.hashes_told.lock().keep(hash);
        }
        Ok(Response::new(pb::HashKvResponse {
            header: header(shared, hash.current_revision),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let shared = Arc::clone(&self.serving.shared);
        let stream = snapshot::stream(Arc::clone(&shared)).await?;
        Ok(Response::new(until_stopped(&shared, stream).boxed()))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let shared = &self.serving.shared;
        let target = request.into_inner().target_id;
        if shared.node.status().leader != shared.member_id {
            return Err(Error::NotLeader.into());
        }
        let voter = |id| shared.reader().members().iter().any(|member| member.id == id && !member.is_learner);
        if !voter(target) {
            return Err(Error::BadLeaderTransferee.into());
        }
        if target == shared.member_id {
            return Ok(Response::new(pb::MoveLeaderResponse { header: None }));
        }
        Err(not_yet("MoveLeader"))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(not_yet("Downgrade"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_printed_as_go_prints_it() {
        let alarm = AlarmMember { member_id: 17, alarm: AlarmKind::NoSpace };
        assert_eq!(alarm_text(&alarm), "memberID:17 alarm:NOSPACE");
    }
}
