//! Who may ask: the host by which a plain request names this server, and the origin of the script that sends it.
//!
//! The host is looked at because a page in a browser can be made to resolve its own name to this machine
//! ("DNS rebinding", CVE-2018-5702): such a request arrives under the page's name.

use super::{HttpState, error};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, ORIGIN,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");

/// Lets a request through, or not, and marks the answer for browsers.
pub(super) async fn check(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let host = host(&request);
    if !state.host_whitelist.allows(&host) {
        tracing::warn!(%host, "rejecting HTTP request from untrusted host");
        return error(StatusCode::MISDIRECTED_REQUEST, &refusal(&host));
    }
    let origin = allowed_origin(&state, request.headers());
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    }
    response
}

/// The name a request has for this server, without the port: from the Host header, or with HTTP/2 from `:authority`.
fn host(request: &Request) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority =
        header.or_else(|| request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
    without_port(authority).to_owned()
}

fn without_port(authority: &str) -> &str {
    if let Some(inner) = authority.strip_prefix('[') {
        return inner.split_once(']').map_or(authority, |(host, _)| host);
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => authority,
    }
}

/// The origin to be named in the answer, if a script of it may read the answer.
fn allowed_origin(state: &HttpState, headers: &HeaderMap) -> Option<HeaderValue> {
    // etcd names "*" where all are allowed, and to those that name no origin too.
    if state.cors.allows("*") {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = headers.get(ORIGIN)?;
    state.cors.allows(origin.to_str().ok()?).then(|| origin.clone())
}

fn refusal(host: &str) -> String {
    format!(
        "coffer does not answer to the host {host:?}.\n\
         Add it to --host-whitelist if clients may call this server so."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        for (authority, host) in [
            ("a", "a"),
            ("a:1", "a"),
            ("[::1]:2379", "::1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("", ""),
            ("[x", "[x"),
        ] {
            assert_eq!(without_port(authority), host, "{authority}");
        }
    }
}
