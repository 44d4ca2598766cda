//! Lease: grant, revoke, keep alive, time to live, list.

use super::header::{header, header_now};
use super::status::{Error, in_gos_words};
use super::until_stopped;
use crate::metrics::{Count, Histogram, Method};
use crate::propose::{self, LeaseGrant, LeaseRevoke, propose};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::read;
use crate::serving::{Serving, Shared};
use coffer_engine::quota::LEASE_OVERHEAD_BYTES;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prost::Message as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

/// Ids drawn for one lease before the client is told that one was taken: two in a row are a coincidence that happens
/// never.
const DRAWS_MAX: usize = 8;
/// Renewals of one stream under way at once. A client keeps all its leases alive on one stream, and each renewal waits for the
/// log; those of a round share an entry.
const RENEWALS_MAX: usize = 128;
/// How often a renewal that finds all places for answers taken looks again.
const PLACE_POLL: Duration = Duration::from_millis(5);
/// Leases that are listed where they are asked for.
const SHORT_LEASES: u64 = 1_000;

/// The service on one serving thread.
pub(crate) struct LeaseService {
    pub(crate) serving: Arc<Serving>,
}

/// The shortest time to live in seconds: an election, and half of one besides (etcd's minLeaseTTL).
fn ttl_min(election_ticks: u32, heartbeat: Duration) -> i64 {
    let time = heartbeat.saturating_mul(election_ticks.saturating_mul(3) / 2);
    i64::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX)
}

/// A random positive id.
fn draw() -> i64 {
    let random = RandomState::new().hash_one(0u8) & (u64::MAX >> 1);
    i64::try_from(random.max(1)).unwrap_or(1)
}

/// Whole seconds from the lease clock's `now_ms` to `deadline_ms`.
fn seconds_left(deadline_ms: u64, now_ms: u64) -> i64 {
    i64::try_from(deadline_ms.saturating_sub(now_ms) / 1_000).unwrap_or(i64::MAX)
}

impl LeaseService {
    fn shared(&self) -> &Arc<Shared> {
        &self.serving.shared
    }

    async fn grant(&self, id: i64, ttl: i64, bytes: usize) -> Result<(i64, (i64, i64)), Error> {
        if id != 0 {
            return propose(&self.serving, LeaseGrant { id, ttl }, bytes).await;
        }
        for _ in 1..DRAWS_MAX {
            let granted = propose(&self.serving, LeaseGrant { id: draw(), ttl }, bytes).await;
            if !matches!(granted, Err(Error::LeaseExist)) {
                return granted;
            }
        }
        propose(&self.serving, LeaseGrant { id: draw(), ttl }, bytes).await
    }
}

/// Answers one request of a keep-alive stream. The header is taken before the renewal, as with etcd.
async fn keep_alive(serving: &Serving, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
    let header = header_now(&serving.shared);
    let began = Instant::now();
    let ttl = loop {
        match propose::renew(serving, id).await {
            Err(Error::LeaseNotFound) => break 0,
            // the stream, and with it all leases on it, would end for it
            Err(Error::TooManyRequests) if began.elapsed() < serving.shared.request_timeout => {
                tokio::time::sleep(PLACE_POLL).await;
            }
            other => break other?,
        }
    };
    if ttl > 0 {
        serving.shared.metrics.add(Count::LeasesRenewed, 1);
    }
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        propose::ensure_room(&self.serving, LEASE_OVERHEAD_BYTES).await?;
        let shared = self.shared();
        let ttl = request.ttl.max(ttl_min(shared.config.election_ticks(), shared.config.heartbeat_interval));
        let (revision, (id, ttl)) = self.grant(request.id, ttl, request.encoded_len()).await?;
        shared.metrics.add(Count::LeasesGranted, 1);
        shared.metrics.observe(Histogram::LeaseTtl, ttl as f64);
        Ok(Response::new(pb::LeaseGrantResponse {
            header: header(shared, revision),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let request = request.into_inner();
        let (revision, ()) = propose(&self.serving, LeaseRevoke(request.id), request.encoded_len()).await?;
        self.shared().metrics.add(Count::LeasesRevoked, 1);
        Ok(Response::new(pb::LeaseRevokeResponse { header: header(self.shared(), revision) }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let serving = Arc::clone(&self.serving);
        let replies = request.into_inner().map(move |request| {
            let serving = Arc::clone(&serving);
            async move {
                let metrics = &serving.shared.metrics;
                let request = request.map_err(|status| {
                    metrics.add(Count::KeepAliveReceiveFailures, 1);
                    in_gos_words(&status).unwrap_or(status)
                })?;
                metrics.rpc(Method::LeaseKeepAlive).received();
                Ok(keep_alive(&serving, request.id).await?)
            }
        });
        let replies = until_error(replies.buffered(RENEWALS_MAX));
        Ok(Response::new(until_stopped(&self.serving.shared, replies).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        read::linearizable(&self.serving).await?;
        let shared = self.shared();
        let mut response = pb::LeaseTimeToLiveResponse {
            header: header_now(shared),
            id: request.id,
            ttl: -1,
            ..Default::default()
        };
        let pb::LeaseTimeToLiveRequest { id, keys } = request;
        let lease = read::look(&self.serving, !keys, move |reader| reader.lease(id, keys)).await?;
        if let Some(lease) = lease.map_err(|fault| shared.read_error(fault.into()))? {
            response.ttl = seconds_left(lease.deadline_ms, shared.node.lease_clock_ms());
            response.granted_ttl = lease.granted_ttl;
            response.keys = lease.keys;
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let shared = self.shared();
        let short = shared.reader().sizes().leases <= SHORT_LEASES;
        let leases = read::look(&self.serving, short, |reader| reader.leases()).await?;
        let leases = leases.map_err(|fault| shared.read_error(fault.into()))?;
        let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: header_now(shared), leases }))
    }
}

/// Ends a stream after its first error.
fn until_error<T, S>(replies: S) -> impl futures_util::Stream<Item = Result<T, Status>> + Send
where
    T: Send,
    S: futures_util::Stream<Item = Result<T, Status>> + Send,
{
    replies.scan(false, |failed, reply| {
        let over = std::mem::replace(failed, reply.is_err());
        std::future::ready((!over).then_some(reply))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_to_live_is_an_election_and_a_half_in_whole_seconds() {
        assert_eq!(ttl_min(10, Duration::from_millis(100)), 2);
        assert_eq!(ttl_min(10, Duration::from_millis(10)), 1);
        assert_eq!(ttl_min(5, Duration::from_millis(1000)), 7);
        assert_eq!(ttl_min(u32::MAX, Duration::MAX), i64::MAX);
    }

    #[test]
    fn drawn_ids_are_positive_and_differ() {
        let ids: std::collections::BTreeSet<i64> = (0..100).map(|_| draw()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| *id > 0));
    }

    #[test]
    fn seconds_left_are_whole_and_never_negative() {
        assert_eq!(seconds_left(2_999, 1_000), 1);
        assert_eq!(seconds_left(1_000, 2_999), 0);
    }
}
