//! Cluster: the members. Changing them is not there yet; what can be answered for a cluster of one is.

use super::header::header;
use super::status::{Error, not_yet};
use super::wire;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::read;
use crate::serving::Serving;
use coffer_engine::command::Member;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service on one serving thread.
pub(crate) struct ClusterService {
    pub(crate) serving: Arc<Serving>,
}

impl ClusterService {
    fn members(&self) -> Vec<Member> {
        self.serving.shared.reader().members()
    }

    fn member(&self, id: u64) -> Result<Member, Error> {
        self.members().into_iter().find(|member| member.id == id).ok_or(Error::MemberNotFound)
    }
}

/// Whether `url` can be a peer URL: a scheme, a host and a port, and nothing behind.
fn is_peer_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    match scheme {
        "http" | "https" => rest.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        }),
        "unix" | "unixs" => !rest.is_empty(),
        _ => false,
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let urls = request.into_inner().peer_ur_ls;
        if urls.is_empty() || !urls.iter().all(|url| is_peer_url(url)) {
            return Err(Error::MemberBadUrls.into());
        }
        let taken = |url: &String| self.members().iter().any(|member| member.peer_urls.contains(url));
        if urls.iter().any(taken) {
            return Err(Error::PeerUrlExist.into());
        }
        Err(not_yet("MemberAdd"))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.member(request.into_inner().id)?;
        if self.members().len() == 1 {
            return Err(Error::MemberNotEnoughStarted.into());
        }
        Err(not_yet("MemberRemove"))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        if request.peer_ur_ls.is_empty() || !request.peer_ur_ls.iter().all(|url| is_peer_url(url)) {
            return Err(Error::MemberBadUrls.into());
        }
        self.member(request.id)?;
        Err(not_yet("MemberUpdate"))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            read::linearizable(&self.serving).await?;
        }
        let members = self.members().into_iter().map(wire::member).collect();
        Ok(Response::new(pb::MemberListResponse { header: header(&self.serving.shared, 0), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        if !self.member(request.into_inner().id)?.is_learner {
            return Err(Error::MemberNotLearner.into());
        }
        Err(not_yet("MemberPromote"))
    }
}

#[cfg(test)]
mod tests {
    use super::is_peer_url;

    #[test]
    fn a_peer_url_has_scheme_host_and_port() {
        for good in ["http://127.0.0.1:2380", "https://[::1]:1", "unix://localhost:12"] {
            assert!(is_peer_url(good), "{good}");
        }
        for bad in [
            "",
            "localhost:2380",
            "http://localhost",
            "ftp://a:1",
            "http://a:1/b",
            "http://:1",
            "http://a:99999",
        ] {
            assert!(!is_peer_url(bad), "{bad}");
        }
    }
}
