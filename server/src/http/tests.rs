//! Requests and their answers, by way of the router alone.

use super::*;
use crate::config::{Start, load};
use crate::metrics::Observation;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use coffer_engine::command::AlarmMember;
use parking_lot::Mutex;
use tower::ServiceExt;

/// A member whose state is what a test says.
#[derive(Default)]
struct Stand {
    alarms: Mutex<Vec<AlarmKind>>,
    damage: Mutex<Option<String>>,
    no_leader: Mutex<bool>,
    learner: Mutex<bool>,
    undecided: Mutex<bool>,
    serializable_error: Mutex<Option<String>>,
    linearizable_error: Mutex<Option<String>>,
}

impl Source for Stand {
    fn observe(&self) -> Observation {
        let mut now = Observation { member_id: 0xab, ..Observation::default() };
        now.status.term = 3;
        now.status.leader = 0xab;
        now.position.revision = 7;
        now.alarms =
            self.alarms.lock().iter().map(|alarm| AlarmMember { member_id: 1, alarm: *alarm }).collect();
        now
    }
}

impl Probe for Stand {
    fn alarms(&self) -> Vec<AlarmKind> {
        self.alarms.lock().clone()
    }

    fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    fn has_leader(&self) -> bool {
        !*self.no_leader.lock()
    }

    fn is_learner(&self) -> bool {
        *self.learner.lock()
    }

    fn cluster_version(&self) -> Option<String> {
        (!*self.undecided.lock()).then(|| "3.7.0".to_owned())
    }

    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), String>> {
        let error = if serializable { &self.serializable_error } else { &self.linearizable_error };
        let outcome = error.lock().clone().map_or(Ok(()), Err);
        Box::pin(async move { outcome })
    }
}

struct Server {
    stand: Arc<Stand>,
    router: Router,
    metrics_router: Router,
}

fn server(flags: &[&str]) -> Server {
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    let Ok(Start::Run(config)) = load(flags, Vec::new()) else { panic!("the flags are good") };
    let stand = Arc::new(Stand::default());
    let state = HttpState::new(&config, stand.clone(), Arc::new(Metrics::new(&config)));
    Server { stand, router: router(state.clone()), metrics_router: metrics_router(state) }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 24).await.expect("a body");
    let body = String::from_utf8(bytes.to_vec()).expect("a text");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn get(router: &Router, path: &str) -> (u16, String) {
    let answer = ask(router, "GET", path, &[("host", "localhost:2379")]).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn health_looks_at_alarms_then_the_leader_then_a_read() {
    let server = server(&[]);
    let healthy = (200, "{\"health\":\"true\",\"reason\":\"\"}".to_owned());
    let sick = |reason: &str| (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"));
    assert_eq!(get(&server.router, "/health").await, healthy);
    *server.stand.linearizable_error.lock() = Some("etcdserver: leader \"x\" changed".to_owned());
    assert_eq!(
        get(&server.router, "/health").await,
        sick("RANGE ERROR:etcdserver: leader \\\"x\\\" changed")
    );
    assert_eq!(get(&server.router, "/health?serializable=true").await, healthy);
    *server.stand.no_leader.lock() = true;
    assert_eq!(get(&server.router, "/health").await, sick("RAFT NO LEADER"));
    assert_eq!(get(&server.router, "/health?serializable=false").await, sick("RAFT NO LEADER"));
    assert_eq!(get(&server.router, "/health?serializable=true").await, healthy);
    *server.stand.alarms.lock() = vec![AlarmKind::NoSpace, AlarmKind::Corrupt];
    assert_eq!(get(&server.router, "/health").await, sick("ALARM NOSPACE"));
    assert_eq!(get(&server.router, "/health?exclude=NOSPACE").await, sick("ALARM CORRUPT"));
    let both = "/health?exclude=NOSPACE&exclude=CORRUPT&serializable=true";
    assert_eq!(get(&server.router, both).await, healthy);
    server.stand.alarms.lock().clear();
    *server.stand.damage.lock() = Some("corrupt: file pages, offset 4096".to_owned());
    let damaged = sick("READ FAULT:corrupt: file pages, offset 4096");
    assert_eq!(get(&server.router, "/health?serializable=true").await, damaged);
    assert_eq!(get(&server.router, "/health?exclude=CORRUPT&serializable=true").await, healthy);
    assert_eq!(get(&server.router, "/livez").await.0, 200, "whoever restarts it would find the same damage");
    let unready = "[-]data_corruption failed: damaged data: corrupt: file pages, offset 4096\n\n".to_owned();
    assert_eq!(get(&server.router, "/readyz/data_corruption").await, (503, unready));
}

#[tokio::test]
async fn livez_looks_at_the_local_state_alone() {
    let server = server(&[]);
    *server.stand.linearizable_error.lock() = Some("etcdserver: no leader".to_owned());
    *server.stand.alarms.lock() = vec![AlarmKind::Corrupt, AlarmKind::NoSpace];
    assert_eq!(get(&server.router, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(
        get(&server.router, "/livez?verbose").await,
        (200, "[+]serializable_read ok\nok\n".to_owned())
    );
    assert_eq!(
        get(&server.router, "/livez?exclude=serializable_read&verbose=1").await,
        (200, "ok\n".to_owned())
    );
    assert_eq!(get(&server.router, "/livez/serializable_read").await, (200, "ok\n".to_owned()));
    *server.stand.serializable_error.lock() = Some("broken".to_owned());
    assert_eq!(
        get(&server.router, "/livez").await,
        (503, "[-]serializable_read failed: broken\n\n".to_owned())
    );
}

#[tokio::test]
async fn readyz_lists_every_check_once_one_fails() {
    let server = server(&[]);
    assert_eq!(get(&server.router, "/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&server.router, "/readyz?exclude=nope").await, (200, "ok\n".to_owned()));
    *server.stand.alarms.lock() = vec![AlarmKind::NoSpace];
    assert_eq!(get(&server.router, "/readyz").await.0, 200, "a full store is ready to be read and emptied");
    *server.stand.alarms.lock() = vec![AlarmKind::Corrupt];
    *server.stand.learner.lock() = true;
    *server.stand.linearizable_error.lock() = Some("etcdserver: leader changed".to_owned());
    let all = "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
               [-]linearizable_read failed: etcdserver: leader changed\n[-]non_learner failed: not supported for learner\n\n";
    assert_eq!(get(&server.router, "/readyz").await, (503, all.to_owned()));
    let others = "/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner&verbose";
    assert_eq!(get(&server.router, others).await, (200, "[+]serializable_read ok\nok\n".to_owned()));
    let one = get(&server.router, "/readyz/linearizable_read").await;
    assert_eq!(one, (503, "[-]linearizable_read failed: etcdserver: leader changed\n\n".to_owned()));
    assert_eq!(get(&server.router, "/livez/linearizable_read").await.0, 404, "livez has no such check");
}

#[tokio::test]
async fn outcomes_of_checks_are_counted() {
    let server = server(&[]);
    get(&server.router, "/health").await;
    get(&server.router, "/readyz/non_learner").await;
    *server.stand.no_leader.lock() = true;
    get(&server.router, "/health").await;
    *server.stand.learner.lock() = true;
    get(&server.router, "/readyz/non_learner").await;
    let (_, text) = get(&server.router, "/metrics").await;
    for line in [
        "etcd_server_health_success 1",
        "etcd_server_health_failures 1",
        "etcd_server_healthcheck{name=\"non_learner\",type=\"readyz\"} 0",
        "etcd_server_healthchecks_total{name=\"non_learner\",status=\"error\",type=\"readyz\"} 1",
        "etcd_server_healthchecks_total{name=\"non_learner\",status=\"success\",type=\"readyz\"} 1",
    ] {
        assert!(text.lines().any(|each| each == line), "{line}");
    }
}

#[tokio::test]
async fn version_tells_what_the_cluster_has_agreed_on() {
    let server = server(&[]);
    let answer = ask(&server.router, "GET", "/version", &[]).await;
    assert_eq!(answer.body, "{\"etcdserver\":\"3.7.3\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    *server.stand.undecided.lock() = true;
    let undecided = "{\"etcdserver\":\"3.7.3\",\"etcdcluster\":\"not_decided\",\"storage\":\"unknown\"}";
    assert_eq!(get(&server.router, "/version").await, (200, undecided.to_owned()));
}

#[tokio::test]
async fn metrics_and_debug_vars_have_their_forms() {
    let server = server(&[]);
    let answer = ask(&server.router, "GET", "/metrics", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.body.contains("\npromhttp_metric_handler_requests_in_flight 1\n"));
    let (_, again) = get(&server.router, "/metrics").await;
    assert!(again.contains("\npromhttp_metric_handler_requests_total{code=\"200\"} 1\n"));
    let (status, vars) = get(&server.router, "/debug/vars").await;
    let vars: serde_json::Value = serde_json::from_str(&vars).expect("an object");
    assert_eq!((status, &vars["revision"], &vars["raft.status"]["id"]), (200, &7.into(), &"ab".into()));
}

#[tokio::test]
async fn other_methods_than_get_are_refused_where_etcd_refuses_them() {
    let server = server(&[]);
    for path in ["/health", "/livez", "/readyz", "/readyz/non_learner", "/version"] {
        for method in ["POST", "HEAD", "PUT", "DELETE"] {
            let answer = ask(&server.router, method, path, &[]).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method} {path}");
        }
        assert_eq!(ask(&server.router, "POST", path, &[]).await.body, "Method Not Allowed\n", "{path}");
    }
    assert_eq!(ask(&server.router, "POST", "/metrics", &[]).await.status, 200);
}

#[tokio::test]
async fn whatever_else_is_asked_for_is_not_found_in_gos_words() {
    let server = server(&[]);
    for path in [
        "/",
        "/nope",
        "/health/",
        "/livez/",
        "/readyz/nope",
        "/readyz/non_learner/x",
        "/v3/kv/range",
        "/debug/pprof/",
    ] {
        let answer = ask(&server.router, "GET", path, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(ask(&server.router, "POST", "/v3/kv/range", &[]).await.status, 404);
}

#[tokio::test]
async fn a_metrics_listener_serves_health_and_metrics_only() {
    let server = server(&["--host-whitelist=localhost"]);
    for (path, status) in [
        ("/metrics", 200),
        ("/health", 200),
        ("/livez", 200),
        ("/readyz/non_learner", 200),
        ("/version", 404),
        ("/debug/vars", 404),
    ] {
        let answer = ask(&server.metrics_router, "GET", path, &[("host", "any.example")]).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_host_that_is_not_in_the_list_is_misdirected() {
    let strict = server(&["--host-whitelist=127.0.0.1,etcd.example"]);
    for (host, status) in [
        ("127.0.0.1:2379", 200),
        ("etcd.example", 200),
        ("evil.example", 421),
        ("localhost:2379", 421),
        ("", 421),
    ] {
        let answer = ask(&strict.router, "GET", "/health", &[("host", host)]).await;
        assert_eq!(answer.status, status, "{host}");
    }
    let refused = ask(&strict.router, "GET", "/nope", &[("host", "evil.example")]).await;
    assert!(refused.status == 421 && refused.body.contains("--host-whitelist"), "{}", refused.body);
    let by_authority = ask(&strict.router, "GET", "http://etcd.example:2379/health", &[]).await;
    assert_eq!(by_authority.status, 200, "with HTTP/2 the host is the authority");
    let open = server(&["--host-whitelist="]);
    assert_eq!(ask(&open.router, "GET", "/health", &[("host", "evil.example")]).await.status, 200);
}

#[tokio::test]
async fn scripts_of_allowed_origins_may_read_the_answers() {
    let server = server(&["--cors=http://a.example:80"]);
    let allowed = |answer: &Answer| {
        (
            answer.header("access-control-allow-origin").map(str::to_owned),
            answer.header("access-control-allow-methods").map(str::to_owned),
            answer.header("access-control-allow-headers").map(str::to_owned),
        )
    };
    let yes = (
        Some("http://a.example:80".to_owned()),
        Some("POST, GET, OPTIONS, PUT, DELETE".to_owned()),
        Some("accept, content-type, authorization".to_owned()),
    );
    for method in ["GET", "OPTIONS"] {
        let answer = ask(&server.router, method, "/health", &[("origin", "http://a.example:80")]).await;
        assert_eq!((answer.status, allowed(&answer)), (200, yes.clone()), "{method}");
        let answer = ask(&server.router, method, "/health", &[("origin", "http://b.example")]).await;
        assert_eq!((answer.status, allowed(&answer)), (200, (None, None, None)), "{method}");
    }
    assert_eq!(ask(&server.router, "OPTIONS", "/health", &[]).await.body, "");
    let open = self::server(&[]);
    let answer = ask(&open.router, "GET", "/health", &[("origin", "http://b.example")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}
