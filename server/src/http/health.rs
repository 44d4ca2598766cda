//! `/health`: alarms, damage, then the leader, then a read; the first that is wrong is the answer's reason.

use super::{HttpState, TEXT, error, query, wrong_method};
use crate::metrics::Count;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use coffer_engine::command::AlarmKind;

/// GET `/health?exclude=NOSPACE&serializable=true`.
pub(super) async fn health(
    State(state): State<HttpState>,
    method: Method,
    RawQuery(raw): RawQuery,
) -> Response {
    if let Some(refused) = wrong_method(&method) {
        return refused;
    }
    let pairs = query::pairs(raw.as_deref());
    let excluded = query::values(&pairs, "exclude");
    let serializable = query::first(&pairs, "serializable") == Some("true");
    match reason(&state, &excluded, serializable).await {
        None => {
            state.metrics.add(Count::HealthSuccesses, 1);
            (StatusCode::OK, [(CONTENT_TYPE, TEXT)], body(true, "")).into_response()
        }
        Some(reason) => {
            state.metrics.add(Count::HealthFailures, 1);
            let body = body(false, &reason);
            tracing::warn!(output = %body, "status-code" = StatusCode::SERVICE_UNAVAILABLE.as_u16(), "/health error");
            error(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

/// What is wrong, if anything.
async fn reason(state: &HttpState, excluded: &[&str], serializable: bool) -> Option<String> {
    let alarms = state.probe.alarms();
    if let Some(alarm) = alarms.iter().map(|alarm| alarm_name(*alarm)).find(|name| !excluded.contains(name)) {
        return Some(format!("ALARM {alarm}"));
    }
    if !excluded.contains(&alarm_name(AlarmKind::Corrupt))
        && let Some(damage) = state.probe.damage()
    {
        return Some(format!("READ FAULT:{damage}"));
    }
    if !serializable && !state.probe.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    state.probe.read(serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

fn alarm_name(alarm: AlarmKind) -> &'static str {
    match alarm {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
        AlarmKind::None => "UNKNOWN",
    }
}

fn body(healthy: bool, reason: &str) -> String {
    let reason = serde_json::Value::String(reason.to_owned());
    format!("{{\"health\":\"{healthy}\",\"reason\":{reason}}}")
}
