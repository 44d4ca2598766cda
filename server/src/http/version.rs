//! `/version` and `/debug/vars`.

use super::{HttpState, wrong_method};
use crate::config::ETCD_VERSION;
use axum::extract::State;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const JSON: &str = "application/json";

/// GET `/version`.
pub(super) async fn version(State(state): State<HttpState>, method: Method) -> Response {
    if let Some(refused) = wrong_method(&method) {
        return refused;
    }
    let decided = state.probe.cluster_version();
    let cluster = decided.as_deref().unwrap_or("not_decided");
    let storage = decided.as_deref().unwrap_or("unknown");
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}"
    );
    ([(CONTENT_TYPE, JSON)], body).into_response()
}

/// GET `/debug/vars`: a JSON object, as Go's expvar has one; here with the few of its names that mean something.
///
/// The command line is not told: it may hold paths and names that are nobody's business, and nothing reads it.
pub(super) async fn debug_vars(State(state): State<HttpState>) -> Response {
    let now = state.probe.observe();
    let body = serde_json::json!({
        "raft.status": {
            "id": format!("{:x}", now.member_id),
            "term": now.status.term,
            "lead": format!("{:x}", now.status.leader),
            "commit": now.status.commit,
            "applied": now.status.applied,
        },
        "revision": now.position.revision,
    });
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}
