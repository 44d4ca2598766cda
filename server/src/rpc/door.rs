//! The door of a serving thread: tells gRPC from HTTP, checks metadata and deadline, finds the service.
//!
//! ```text
//! request ─┬─ Range, Put, Txn over HTTP/2 ───────────────────────────────────────────> hot
//!          ├─ content-type application/grpc ─ method known? ─ metadata ─ deadline ─> service ─> body
//!          └─ anything else ──────────────────────────────────────────────────────> HTTP router
//! ```
//!
//! Rules kept here: what gRPC itself answers is answered in the words of Go's gRPC, which etcd's clients know (an unknown
//! method, a message too large, a deadline); metadata are checked in etcd's order (server/etcdserver/api/v3rpc/interceptor.go).

use super::auth::AuthService;
use super::body::{Body, Incoming, Source};
use super::cluster::ClusterService;
use super::health::HealthService;
use super::kv::KvService;
use super::lease::LeaseService;
use super::maintenance::MaintenanceService;
use super::status::{Error, in_gos_words};
use super::undelivered::{Undelivered, WaitsFor};
use super::watch::{WatchCodec, WatchService};
use super::{hot, stream};
use crate::metrics::{Call, Method, RequestKind, Shape};
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::health::health_server::HealthServer;
use crate::serving::Serving;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tower::{Service, ServiceExt as _};

/// The door of one serving thread.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
    grpc: bool,
}

/// A door as one HTTP/2 connection has it.
pub struct Connected {
    door: Door,
    link: Arc<Link>,
}

/// What the requests of a connection share.
pub(super) struct Link {
    pub(super) inner: Arc<Inner>,
    pub(super) undelivered: Arc<Undelivered>,
}

pub(super) struct Inner {
    pub(super) serving: Arc<Serving>,
    kv: KvServer<KvService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    health: HealthServer<HealthService>,
    http: Option<axum::Router>,
    pub(super) message_bytes_max: usize,
}

type Answer = Response<tonic::body::Body>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Door {
    /// A door to this thread's services; without a router whatever is not gRPC is not found.
    pub fn new(serving: Arc<Serving>, http: Option<axum::Router>) -> Door {
        let max = serving.shared.config.grpc_receive_bytes_max();
        macro_rules! service {
            ($server:ident, $service:ident) => {
                $server::new($service { serving: Arc::clone(&serving) })
                    .max_decoding_message_size(max)
                    .accept_compressed(CompressionEncoding::Gzip)
            };
        }
        Door {
            inner: Arc::new(Inner {
                kv: service!(KvServer, KvService),
                lease: service!(LeaseServer, LeaseService),
                cluster: service!(ClusterServer, ClusterService),
                maintenance: service!(MaintenanceServer, MaintenanceService),
                auth: service!(AuthServer, AuthService),
                health: service!(HealthServer, HealthService),
                serving,
                http,
                message_bytes_max: max,
            }),
            grpc: true,
        }
    }

    /// A door to a router alone.
    pub fn http_only(serving: Arc<Serving>, http: axum::Router) -> Door {
        Door { grpc: false, ..Door::new(serving, Some(http)) }
    }

    /// Opens it for one HTTP/2 connection.
    pub fn connected(self) -> Connected {
        let undelivered = Undelivered::new(Arc::clone(&self.inner.serving.shared.undelivered));
        let link = Link { inner: Arc::clone(&self.inner), undelivered: Arc::new(undelivered) };
        Connected { door: self, link: Arc::new(link) }
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Source>) -> Response<Body> {
        if self.grpc && is_grpc(request.headers()) {
            self.inner.grpc(request).await
        } else {
            self.inner.plain(request).await
        }
    }
}

impl Connected {
    /// Serves a request. To be called on the serving thread, within its runtime; returns at once.
    pub fn serve(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        match hot::method(&request).filter(|_| self.door.grpc) {
            Some(method) => hot::serve(&self.link, method, request, respond),
            None if is_list(request.uri().path()) => {
                drop(tokio::spawn(in_place(Arc::clone(&self.link), self.door.clone(), request, respond)));
            }
            None => drop(tokio::spawn(stream::serve(self.door.clone(), request, respond))),
        }
    }

    /// The answers that the client has not taken.
    pub(crate) fn undelivered(&self) -> &Undelivered {
        &self.link.undelivered
    }
}

impl hyper::service::Service<Request<hyper::body::Incoming>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Answering {
        let door = self.clone();
        Box::pin(async move { Ok(door.answer(request.map(Source::Hyper)).await) })
    }
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

impl Inner {
    async fn plain(&self, request: Request<Source>) -> Response<Body> {
        let Some(router) = self.http.clone() else {
            let mut response = Response::new(Body::plain(tonic::body::Body::empty()));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return response;
        };
        match router.oneshot(request.map(axum::body::Body::new)).await {
            Ok(response) => response.map(|body| Body::plain(tonic::body::Body::new(body))),
        }
    }

    async fn grpc(&self, request: Request<Source>) -> Response<Body> {
        let Some(method) = Method::from_path(request.uri().path()) else {
            return unknown(request.uri().path()).into_http::<tonic::body::Body>().map(Body::plain);
        };
        let metrics = &self.serving.shared.metrics;
        let call = Call::start(Arc::clone(metrics), method);
        let timeout = match timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => return Body::of_call(status.into_http(), Arc::clone(metrics), call, None),
        };
        if method.shape() != Shape::BidiStream {
            call.received();
        }
        let answer = match self.check(request.headers(), method) {
            Ok(()) => {
                let request = request.map(|body| Incoming::new(body, Arc::clone(metrics), method));
                self.within(timeout, self.serve(method, request)).await
            }
            Err(error) => error.status().into_http(),
        };
        if method.shape() == Shape::Unary {
            self.tell_if_slow(method, call.began().elapsed());
        }
        // The time that a stream may still take; what is unary has its answer.
        let deadline = timeout
            .filter(|_| method.shape() != Shape::Unary)
            .map(|timeout| Box::pin(tokio::time::sleep_until((call.began() + timeout).into())));
        Body::of_call(translated(answer), Arc::clone(metrics), call, deadline)
    }

    pub(super) fn tell_if_slow(&self, method: Method, took: Duration) {
        let expected = self.serving.shared.config.warning_unary_request_duration;
        if !expected.is_zero() && took > expected {
            tracing::warn!(
                "response type" = %format_args!("/{}/{}", method.service(), method.name()),
                "time spent" = ?took,
                "expected-duration" = ?expected,
                "request took too long"
            );
        }
    }

    async fn within(&self, timeout: Option<Duration>, answer: impl Future<Output = Answer>) -> Answer {
        let Some(timeout) = timeout else { return answer.await };
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Error::DeadlineExceeded.status().into_http(),
        }
    }

    /// What etcd's interceptors check: the client's version, and whether it insists on a leader.
    pub(super) fn check(&self, headers: &HeaderMap, method: Method) -> Result<(), Error> {
        let shared = &self.serving.shared;
        if let Some(version) = headers.get("client-api-version") {
            let version =
                std::str::from_utf8(version.as_bytes()).map_err(|_| Error::InvalidClientApiVersion)?;
            let kind = if method.shape() == Shape::Unary { RequestKind::Unary } else { RequestKind::Stream };
            shared.metrics.client_request(kind, version);
        }
        if requires_leader(headers) && shared.node.status().leader == 0 {
            return Err(Error::NoLeader);
        }
        Ok(())
    }

    async fn serve(&self, method: Method, request: Request<Incoming>) -> Answer {
        match method.service() {
            "etcdserverpb.KV" => infallible(self.kv.clone().call(request).await),
            "etcdserverpb.Watch" => self.watch(request).await,
            "etcdserverpb.Lease" => infallible(self.lease.clone().call(request).await),
            "etcdserverpb.Cluster" => infallible(self.cluster.clone().call(request).await),
            "etcdserverpb.Maintenance" => infallible(self.maintenance.clone().call(request).await),
            "etcdserverpb.Auth" => infallible(self.auth.clone().call(request).await),
            _ => infallible(self.health.clone().call(request).await),
        }
    }

    async fn watch(&self, request: Request<Incoming>) -> Answer {
        let require_leader = requires_leader(request.headers());
        let service = WatchService { serving: Arc::clone(&self.serving), require_leader };
        let mut grpc = Grpc::new(WatchCodec)
            .max_decoding_message_size(self.message_bytes_max)
            .accept_compressed(CompressionEncoding::Gzip);
        grpc.streaming(service, request).await
    }
}

/// Whether an answer may hold any number of keys at once.
fn is_list(path: &str) -> bool {
    matches!(path, "/etcdserverpb.KV/Range" | "/etcdserverpb.KV/Txn")
}

/// Serves a request whose answer may be long, but not the short way: it has a place as those do, until it is all given to h2.
async fn in_place(
    link: Arc<Link>,
    door: Door,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let Some(waiting) = link.undelivered.wait(WaitsFor::Long) else {
        return respond.send_reset(Reason::REFUSED_STREAM);
    };
    let _held = tokio::select! {
        held = waiting.over() => held,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    stream::serve(door, request, respond).await;
}

fn infallible(answer: Result<Answer, Infallible>) -> Answer {
    match answer {
        Ok(answer) => answer,
    }
}

fn requires_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

/// Puts what tonic says of a message that is too large into Go's words.
fn translated(answer: Answer) -> Answer {
    let told = answer.headers().get("grpc-status");
    let may_be = told.is_some_and(|code| *code == HeaderValue::from(11) || *code == HeaderValue::from(8));
    if !may_be {
        return answer;
    }
    match Status::from_header_map(answer.headers()).and_then(|status| in_gos_words(&status)) {
        Some(status) => status.into_http(),
        None => answer,
    }
}

/// What Go's gRPC says to a path it does not serve.
fn unknown(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Status::unimplemented(format!("malformed method name: {path:?}"));
    };
    if Method::all().any(|known| known.service() == service) {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    parse_timeout(value.as_bytes())
        .map(Some)
        .ok_or_else(|| Status::internal(format!("malformed grpc-timeout: {value:?}")))
}

fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        assert_eq!(parse_timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse_timeout(b"100m"), Some(Duration::from_millis(100)));
        for wrong in [&b""[..], b"S", b"5", b"5x", b"-5S", b"123456789S", b"\xff"] {
            assert_eq!(parse_timeout(wrong), None);
        }
    }

    #[test]
    fn an_unknown_path_is_refused_in_gos_words() {
        let told = |path| unknown(path).message().to_owned();
        assert_eq!(told("/etcdserverpb.KV/Nope"), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(told("/v3lockpb.Lock/Lock"), "unknown service v3lockpb.Lock");
        assert_eq!(told("/nope"), "malformed method name: \"/nope\"");
    }
}
