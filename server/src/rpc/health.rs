//! gRPC's health protocol: the server as a whole (the empty name) serves from the start; no other name is known.

use super::until_stopped;
use crate::proto::health as pb;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server::Health;
use crate::serving::Serving;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
pub(crate) struct HealthService {
    pub(crate) serving: Arc<Serving>,
}

fn reply(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if request.into_inner().service.is_empty() {
            Ok(Response::new(reply(ServingStatus::Serving)))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    async fn list(
        &self,
        _: Request<pb::HealthListRequest>,
    ) -> Result<Response<pb::HealthListResponse>, Status> {
        let statuses = [(String::new(), reply(ServingStatus::Serving))].into();
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<'static, Result<pb::HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        // It never changes: one answer, and then silence until the client or the server goes.
        let replies = stream::once(std::future::ready(Ok(reply(status)))).chain(stream::pending());
        Ok(Response::new(until_stopped(&self.serving.shared, replies).boxed()))
    }
}
