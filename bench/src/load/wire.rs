//! How a request gets to a server and its answer back: two clients that send the same bytes.
//!
//! | client | what it is |
//! |---|---|
//! | tonic | the generated client: what a Rust program would use |
//! | h2 | frames by the h2 crate, messages put together here: it costs less than the servers it measures |

use super::Failed;
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::ValueEnum;
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::kv_client::KvClient;
use http::{HeaderMap, HeaderValue, Request};
use prost::Message;
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// The windows of a stream and of a connection.
const WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// The generated one.
    Tonic,
    /// Bare h2.
    H2,
}

/// A connection, cheap to clone: many requests share it.
#[derive(Clone)]
pub(super) enum Wire {
    Tonic(KvClient<Channel>),
    H2 { send: h2::client::SendRequest<Bytes>, authority: String },
}

impl Wire {
    /// The same connection for tonic's client.
    pub(super) fn tonic(channel: Channel) -> Wire {
        Wire::Tonic(KvClient::new(channel).max_decoding_message_size(usize::MAX))
    }

    /// Connects to `host:port`; the connection is driven on this thread. To be called within a `LocalSet`.
    pub(super) async fn h2(address: &str) -> Result<Wire, Failed> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake::<_, Bytes>(stream)
            .await?;
        // whoever waits for an answer is told why there is none
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Wire::H2 { send, authority: address.to_owned() })
    }

    /// Reads; the answer.
    pub(super) async fn range(&mut self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Failed> {
        match self {
            Wire::Tonic(client) => Ok(client.range(request).await?.into_inner()),
            Wire::H2 { send, authority } => call(send, authority, "/etcdserverpb.KV/Range", &request).await,
        }
    }

    /// Writes.
    pub(super) async fn put(&mut self, request: pb::PutRequest) -> Result<pb::PutResponse, Failed> {
        match self {
            Wire::Tonic(client) => Ok(client.put(request).await?.into_inner()),
            Wire::H2 { send, authority } => call(send, authority, "/etcdserverpb.KV/Put", &request).await,
        }
    }

    /// Compares, and reads or writes.
    pub(super) async fn txn(&mut self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Failed> {
        match self {
            Wire::Tonic(client) => Ok(client.txn(request).await?.into_inner()),
            Wire::H2 { send, authority } => call(send, authority, "/etcdserverpb.KV/Txn", &request).await,
        }
    }
}

/// One request and its answer.
async fn call<T: Message + Default>(
    send: &h2::client::SendRequest<Bytes>,
    authority: &str,
    path: &'static str,
    message: &impl Message,
) -> Result<T, Failed> {
    let request = Request::post(format!("http://{authority}{path}"))
        .version(http::Version::HTTP_2)
        .header(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(http::header::TE, HeaderValue::from_static("trailers"))
        .body(())?;
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + len);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(len)?);
    message.encode(&mut framed)?;
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request, false)?;
    stream.send_data(framed.freeze(), true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.headers.contains_key("grpc-status") {
        check(&head.headers)?;
    }
    let mut read = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        read.extend_from_slice(&part);
    }
    if let Some(trailers) = body.trailers().await? {
        check(&trailers)?;
    }
    let message = read.freeze();
    if message.len() < PREFIX_BYTES {
        return Err("an answer without a message".into());
    }
    Ok(T::decode(message.slice(PREFIX_BYTES..))?)
}

/// What gRPC says of a call.
fn check(headers: &HeaderMap) -> Result<(), Failed> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    match text("grpc-status") {
        "0" => Ok(()),
        code => Err(format!("code {code}: {}", text("grpc-message")).into()),
    }
}
