//! A member in this process, on a port the system picks, stopped by its own handle.

use coffer_server::config::{self, Config, Start};
use coffer_server::member::{Member, StartError};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::cluster_client::ClusterClient;
use coffer_server::proto::etcdserverpb::kv_client::KvClient;
use coffer_server::proto::etcdserverpb::lease_client::LeaseClient;
use coffer_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use coffer_server::proto::etcdserverpb::watch_client::WatchClient;
use coffer_server::serving::Shared;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// How long a test waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A member and its directory.
pub(crate) struct TestMember {
    member: Option<Member>,
    directory: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    flags: Vec<String>,
    pub(crate) endpoint: String,
}

fn configured(directory: &Path, flags: &[String]) -> Config {
    let fixed = [
        format!("--data-dir={}", directory.display()),
        "--listen-client-urls=http://127.0.0.1:0".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:0".to_owned(),
    ];
    let args = fixed.into_iter().chain(flags.iter().cloned());
    match config::load(args, Vec::new()).expect("the flags are good") {
        Start::Run(config) => *config,
        Start::Print(text) => panic!("asked to print {text}"),
    }
}

impl TestMember {
    pub(crate) fn start(flags: &[&str]) -> TestMember {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = temporary.path().join("data");
        let mut member = TestMember::start_on(&directory, flags).expect("the member starts");
        member._temporary = Some(temporary);
        member
    }

    pub(crate) fn start_on(directory: &Path, flags: &[&str]) -> Result<TestMember, StartError> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let on_fault = Box::new(|error| panic!("the member met a fault: {error}"));
        let member = Member::start(configured(directory, &flags), on_fault)?;
        let endpoint = format!("http://{}", member.addresses()[0]);
        let directory = directory.to_owned();
        Ok(TestMember { member: Some(member), directory, _temporary: None, flags, endpoint })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.member.as_ref().expect("it runs").shared()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(member) = self.member.take() {
            member.stop();
        }
    }

    /// Stops it and starts it again on the same directory, on another port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let again = TestMember::start_on(&self.directory, &flags).expect("the member starts again");
        let temporary = self._temporary.take();
        *self = TestMember { _temporary: temporary, ..again };
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.endpoint).await
    }
}

/// Runs a test's client side.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(test)
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}

/// All clients on one connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    pub(crate) kv: KvClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) cluster: ClusterClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(endpoint: &str) -> Client {
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).unwrap().connect_timeout(PATIENCE);
        let channel = soon(endpoint.connect()).await.expect("the member accepts");
        let max = usize::MAX;
        Client {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(max),
            lease: LeaseClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(max),
            channel,
        }
    }

    /// Puts many keys, `value` each, a thousand at a time (`--max-txn-ops`); the revision.
    pub(crate) async fn put_all(&mut self, keys: impl Iterator<Item = String>, value: &str) -> i64 {
        let ops = keys.map(|key| {
            let put = put(&key, value);
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        });
        let ops: Vec<_> = ops.collect();
        let mut revision = 0;
        for success in ops.chunks(1_000) {
            let request = pb::TxnRequest { success: success.to_vec(), ..Default::default() };
            revision =
                self.txn(request).await.expect("the txn goes through").header.expect("a header").revision;
        }
        revision
    }

    /// Puts; the revision.
    pub(crate) async fn put(&mut self, key: &str, value: &str) -> i64 {
        let request = put(key, value);
        let response = self.kv.put(request).await.expect("the put goes through").into_inner();
        response.header.expect("a header").revision
    }

    pub(crate) async fn delete(&mut self, key: &str) -> pb::DeleteRangeResponse {
        let request = pb::DeleteRangeRequest { key: bytes(key), ..Default::default() };
        self.kv.delete_range(request).await.expect("the delete goes through").into_inner()
    }

    pub(crate) async fn range(&mut self, request: pb::RangeRequest) -> pb::RangeResponse {
        self.kv.range(request).await.expect("the range is read").into_inner()
    }

    pub(crate) async fn get(&mut self, key: &str) -> Option<String> {
        let response = self.range(range(key, "")).await;
        response.kvs.first().map(|kv| text(&kv.value))
    }

    pub(crate) async fn txn(&mut self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.kv.txn(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn compact(&mut self, revision: i64) -> Result<(), Status> {
        let request = pb::CompactionRequest { revision, physical: true };
        self.kv.compact(request).await.map(drop)
    }

    pub(crate) async fn watcher(&mut self) -> Watching {
        let (requests, sent) = mpsc::channel(64);
        let outbound =
            futures_util::stream::unfold(sent, |mut sent: mpsc::Receiver<pb::WatchRequest>| async {
                sent.recv().await.map(|request| (request, sent))
            });
        let responses = self.watch.watch(outbound).await.expect("the stream opens").into_inner();
        Watching { requests, responses }
    }
}

/// A watch stream.
pub(crate) struct Watching {
    pub(crate) requests: mpsc::Sender<pb::WatchRequest>,
    pub(crate) responses: Streaming<pb::WatchResponse>,
}

impl Watching {
    pub(crate) async fn ask(&self, request: pb::watch_request::RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.expect("the stream is open");
    }

    /// Creates a watcher and takes its created response.
    pub(crate) async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(pb::watch_request::RequestUnion::CreateRequest(request)).await;
        let response = self.next().await;
        assert!(response.created, "{response:?}");
        response
    }

    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        soon(self.responses.message()).await.expect("the stream goes on").expect("a response")
    }

    /// Takes responses until so many events have come; what they say.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert!(!response.canceled, "{response:?}");
            events.extend(response.events.iter().map(event_text));
        }
        events
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match soon(self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::new(Code::Ok, ""),
                Err(status) => return status,
            }
        }
    }
}

/// `+key=value@revision` or `-key@revision`.
fn event_text(event: &coffer_server::proto::mvccpb::Event) -> String {
    let kv = event.kv.as_ref().expect("an event has a key-value");
    match event.r#type {
        0 => format!("+{}={}@{}", text(&kv.key), text(&kv.value), kv.mod_revision),
        _ => format!("-{}@{}", text(&kv.key), kv.mod_revision),
    }
}

pub(crate) fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub(crate) fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

pub(crate) fn watch(key: &str, range_end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() }
}

pub(crate) fn keys(response: &pb::RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| text(&kv.key)).collect()
}

/// A refusal as code and text.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}
