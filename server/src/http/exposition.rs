//! `/metrics`.

use super::HttpState;
use crate::metrics::{Count, Level};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Any method, as with etcd.
pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    state.metrics.shift(Level::MetricsInFlight, 1);
    let text = state.metrics.render(&*state.probe);
    state.metrics.shift(Level::MetricsInFlight, -1);
    state.metrics.add(Count::MetricsServed, 1);
    ([(CONTENT_TYPE, FORMAT)], text).into_response()
}
