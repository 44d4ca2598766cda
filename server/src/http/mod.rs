//! The HTTP endpoints beside gRPC: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`, `/debug/vars`.
//!
//! Rules kept here:
//! - Paths, statuses, bodies and headers are etcd's; whatever else is asked for gets Go's "404 page not found".
//! - On a plain port a request must name the server by an allowed host ([`access`]), or gets 421.
//! - Nothing here looks at state: a [`Probe`] is asked.
//!
//! It leaves to others: sockets, TLS, telling gRPC from HTTP, and the JSON gateway under `/v3`, which does not exist
//! yet (404).

use crate::config::{Allowed, Config};
use crate::metrics::{Metrics, Source};
use coffer_engine::command::AlarmKind;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Whoever can tell how a member is: the member, or a test.
pub trait Probe: Source + 'static {
    /// Alarms that are up, of all members.
    fn alarms(&self) -> Vec<AlarmKind>;

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
pub fn router(state: HttpState) -> axum::Router {
    let _ = state;
    axum::Router::new()
}

/// The endpoints of a metrics listener: `/metrics`, `/health`, `/livez`, `/readyz`.
pub fn metrics_router(state: HttpState) -> axum::Router {
    let _ = state;
    axum::Router::new()
}
