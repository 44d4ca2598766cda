//! `/livez` and `/readyz`: named checks, all of them or one at a time.

use super::{HttpState, TEXT, error, query, wrong_method};
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use coffer_engine::command::AlarmKind;

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn make(self, state: &HttpState) -> Result<(), String> {
        match self {
            Check::DataCorruption if state.probe.alarms().contains(&AlarmKind::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::DataCorruption => match state.probe.damage() {
                Some(damage) => Err(format!("damaged data: {damage}")),
                None => Ok(()),
            },
            Check::SerializableRead => state.probe.read(true).await,
            Check::LinearizableRead => state.probe.read(false).await,
            Check::NonLearner if state.probe.is_learner() => Err("not supported for learner".to_owned()),
            Check::NonLearner => Ok(()),
        }
    }
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// GET `/livez`.
pub(super) async fn livez(
    State(state): State<HttpState>,
    method: Method,
    RawQuery(raw): RawQuery,
) -> Response {
    all(&state, "livez", &LIVEZ, &method, raw.as_deref()).await
}

/// GET `/readyz`.
pub(super) async fn readyz(
    State(state): State<HttpState>,
    method: Method,
    RawQuery(raw): RawQuery,
) -> Response {
    all(&state, "readyz", &READYZ, &method, raw.as_deref()).await
}

/// GET `/livez/<check>`.
pub(super) async fn livez_one(
    State(state): State<HttpState>,
    Path(check): Path<String>,
    method: Method,
    RawQuery(raw): RawQuery,
) -> Response {
    one(&state, "livez", &LIVEZ, &check, &method, raw.as_deref()).await
}

/// GET `/readyz/<check>`.
pub(super) async fn readyz_one(
    State(state): State<HttpState>,
    Path(check): Path<String>,
    method: Method,
    RawQuery(raw): RawQuery,
) -> Response {
    one(&state, "readyz", &READYZ, &check, &method, raw.as_deref()).await
}

async fn all(
    state: &HttpState,
    kind: &str,
    checks: &[Check],
    method: &Method,
    raw: Option<&str>,
) -> Response {
    if let Some(refused) = wrong_method(method) {
        return refused;
    }
    let pairs = query::pairs(raw);
    let excluded = query::values(&pairs, "exclude");
    for name in excluded.iter().filter(|name| checks.iter().all(|check| check.name() != **name)) {
        tracing::warn!(%name, "some health checks cannot be excluded");
    }
    let wanted: Vec<Check> =
        checks.iter().copied().filter(|check| !excluded.contains(&check.name())).collect();
    answer(state, kind, &wanted, &pairs).await
}

async fn one(
    state: &HttpState,
    kind: &str,
    checks: &[Check],
    name: &str,
    method: &Method,
    raw: Option<&str>,
) -> Response {
    let Some(check) = checks.iter().find(|check| check.name() == name) else {
        return super::not_found().await;
    };
    if let Some(refused) = wrong_method(method) {
        return refused;
    }
    answer(state, kind, &[*check], &query::pairs(raw)).await
}

async fn answer(state: &HttpState, kind: &str, checks: &[Check], pairs: &[(String, String)]) -> Response {
    let mut report = String::new();
    let mut healthy = true;
    for check in checks {
        let name = check.name();
        let outcome = check.make(state).await;
        state.metrics.health_check(kind, name, outcome.is_ok());
        match outcome {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                healthy = false;
                report.push_str(&format!("[-]{name} failed: {reason}\n"));
            }
        }
    }
    if !healthy {
        tracing::warn!(path = %format!("/{kind}"), reason = %report, "Health check error");
        return error(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    let verbose = query::first(pairs, "verbose").is_some();
    let body = if verbose { report + "ok\n" } else { "ok\n".to_owned() };
    (StatusCode::OK, [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response()
}
