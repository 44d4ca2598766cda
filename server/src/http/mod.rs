//! The HTTP endpoints beside gRPC: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`, `/debug/vars`.
//!
//! Rules kept here:
//! - Paths, statuses, bodies and headers are etcd's; whatever else is asked for gets Go's "404 page not found".
//! - On a plain port a request must name the server by an allowed host (`access.rs`), or gets 421.
//! - Nothing here looks at state: a [`Probe`] is asked.
//!
//! It leaves to others: sockets, TLS, telling gRPC from HTTP, and the JSON gateway under `/v3`, which does not exist
//! yet (404).

mod access;
mod checks;
mod exposition;
mod health;
mod query;
mod version;

use crate::config::{Allowed, Config};
use crate::metrics::{Metrics, Source};
use axum::Router;
use axum::http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use coffer_engine::command::AlarmKind;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// The type of plain answers.
const TEXT: &str = "text/plain; charset=utf-8";

/// Whoever can tell how a member is: the member, or a test.
pub trait Probe: Source + 'static {
    /// Alarms that are up, of all members.
    fn alarms(&self) -> Vec<AlarmKind>;

    /// What this member last failed to read because it is damaged, in words.
    fn damage(&self) -> Option<String>;

    /// Whether a leader is known.
    fn has_leader(&self) -> bool;

    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;

    /// The cluster's version, such as "3.7.0", once it is decided; `None` before.
    fn cluster_version(&self) -> Option<String>;

    /// Tries a read of one key; serializable: of the local state, else a linearizable one. Applies the request timeout.
    ///
    /// # Errors
    /// The text of etcd's error, such as "etcdserver: leader changed".
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), String>>;
}

/// What the handlers share.
#[derive(Clone)]
pub struct HttpState {
    /// Whom to ask.
    pub probe: Arc<dyn Probe>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Origins whose scripts may use the endpoints.
    pub cors: Allowed,
    /// Names by which clients may address this server on a plain port.
    pub host_whitelist: Allowed,
}

impl HttpState {
    /// The state for a configuration.
    pub fn new(config: &Config, probe: Arc<dyn Probe>, metrics: Arc<Metrics>) -> HttpState {
        HttpState { probe, metrics, cors: config.cors.clone(), host_whitelist: config.host_whitelist.clone() }
    }
}

/// All endpoints of a client listener.
pub fn router(state: HttpState) -> Router {
    endpoints()
        .route("/version", any(version::version))
        .route("/debug/vars", any(version::debug_vars))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(state.clone(), access::check))
        .with_state(state)
}

/// The endpoints of a metrics listener: `/metrics`, `/health`, `/livez`, `/readyz`.
pub fn metrics_router(state: HttpState) -> Router {
    endpoints().fallback(not_found).with_state(state)
}

fn endpoints() -> Router<HttpState> {
    Router::new()
        .route("/metrics", any(exposition::metrics))
        .route("/health", any(health::health))
        .route("/livez", any(checks::livez))
        .route("/livez/{check}", any(checks::livez_one))
        .route("/readyz", any(checks::readyz))
        .route("/readyz/{check}", any(checks::readyz_one))
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// An error as Go's `http.Error` writes it: plain text with a line break behind it.
fn error(status: StatusCode, text: &str) -> Response {
    let headers = [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, format!("{text}\n")).into_response()
}

/// The refusal of all methods but GET.
fn wrong_method(method: &Method) -> Option<Response> {
    if method == Method::GET {
        return None;
    }
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Some(response)
}

#[cfg(test)]
mod tests;
