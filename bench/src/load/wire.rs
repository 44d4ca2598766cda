//! How a request gets to a server and its answer back: two clients that send the same bytes.
//!
//! | client | what it is |
//! |---|---|
//! | tonic | the generated client: what a Rust program would use |
//! | h2 | frames by the h2 crate, messages put together here: it costs less than the servers it measures |
//!
//! What the cheap one saves: a request's address and headers are made once and cloned, its message is written into memory that
//! the answer to the last one has given back, an answer that came in one piece is not copied, and only what a run wants to
//! know of it is decoded.

use super::Failed;
use super::answer::{Found, Lease, acknowledged};
use crate::grpc::{self, Messages};
use bytes::{Bytes, BytesMut};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::kv_client::KvClient;
use coffer_server::proto::etcdserverpb::lease_client::LeaseClient;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use prost::Message;
use std::future::poll_fn;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Channel;

/// The windows of a stream and of a connection.
const WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// So much of an answer is taken before the server is told that there is room again; a shorter one needs no telling.
const RELEASE_BYTES: usize = WINDOW_BYTES as usize / 2;

/// What is called.
#[derive(Clone, Copy, Debug)]
enum Call {
    Range,
    Put,
    Txn,
    LeaseGrant,
    Watch,
    LeaseKeepAlive,
}

/// In the order of [`Call`].
const PATHS: [&str; 6] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
];

/// A connection, cheap to clone: many requests share it.
#[derive(Clone)]
pub(super) enum Wire {
    Tonic(Box<Generated>),
    H2(H2),
}

/// The generated clients of one connection.
#[derive(Clone)]
pub(super) struct Generated {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

impl Wire {
    /// A connection for the generated clients.
    pub(super) fn tonic(channel: Channel) -> Wire {
        let kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        Wire::Tonic(Box::new(Generated { kv, lease: LeaseClient::new(channel) }))
    }

    /// Reads.
    pub(super) async fn range(&mut self, request: pb::RangeRequest) -> Result<Found, Failed> {
        match self {
            Wire::Tonic(tonic) => Ok(tonic.kv.range(request).await?.into_inner().into()),
            Wire::H2(h2) => Found::read(&h2.call(Call::Range, &request).await?),
        }
    }

    /// Writes.
    pub(super) async fn put(&mut self, request: pb::PutRequest) -> Result<(), Failed> {
        match self {
            Wire::Tonic(tonic) => Ok(tonic.kv.put(request).await.map(drop)?),
            Wire::H2(h2) => acknowledged(&h2.call(Call::Put, &request).await?),
        }
    }

    /// Compares, and reads or writes.
    pub(super) async fn txn(&mut self, request: pb::TxnRequest) -> Result<(), Failed> {
        match self {
            Wire::Tonic(tonic) => Ok(tonic.kv.txn(request).await.map(drop)?),
            Wire::H2(h2) => acknowledged(&h2.call(Call::Txn, &request).await?),
        }
    }

    /// Grants a lease; its id.
    pub(super) async fn lease_grant(&mut self, ttl: i64) -> Result<i64, Failed> {
        let request = pb::LeaseGrantRequest { ttl, id: 0 };
        match self {
            Wire::Tonic(tonic) => Ok(tonic.lease.lease_grant(request).await?.into_inner().id),
            Wire::H2(h2) => Ok(Lease::read(&h2.call(Call::LeaseGrant, &request).await?)?.id),
        }
    }

    /// Opens a stream of watchers.
    pub(super) async fn watch(&mut self) -> Result<Duplex, Failed> {
        self.duplex(Call::Watch).await
    }

    /// Opens a stream of renewals.
    pub(super) async fn keep_alive(&mut self) -> Result<Duplex, Failed> {
        self.duplex(Call::LeaseKeepAlive).await
    }

    async fn duplex(&mut self, call: Call) -> Result<Duplex, Failed> {
        match self {
            Wire::Tonic(_) => Err("streams go over bare h2 only".into()),
            Wire::H2(h2) => h2.open(call).await,
        }
    }
}

/// A connection on bare h2.
#[derive(Clone)]
pub(super) struct H2 {
    send: SendRequest<Bytes>,
    heads: Rc<Heads>,
    /// Where messages are written.
    out: BytesMut,
}

/// What stands before every request.
struct Heads {
    addresses: [Uri; PATHS.len()],
    headers: HeaderMap,
}

impl Heads {
    fn new(origin: &Uri) -> Result<Heads, Failed> {
        let mut addresses = PATHS.map(Uri::from_static);
        for address in &mut addresses {
            let mut parts = origin.clone().into_parts();
            parts.path_and_query = address.path_and_query().cloned();
            *address = Uri::from_parts(parts)?;
        }
        let mut headers = HeaderMap::new();
        grpc::put_content_type(&mut headers);
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        Ok(Heads { addresses, headers })
    }

    fn request(&self, call: Call) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        request.uri_mut().clone_from(&self.addresses[call as usize]);
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

impl H2 {
    /// Begins to speak on a connection, which is driven on this thread. To be called within a `LocalSet`.
    pub(super) async fn greet<S>(socket: S, origin: &Uri) -> Result<H2, Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake::<_, Bytes>(socket)
            .await?;
        // whoever waits for an answer is told why there is none
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(H2 { send, heads: Rc::new(Heads::new(origin)?), out: BytesMut::new() })
    }

    async fn begin(&mut self, call: Call) -> Result<(ResponseFuture, SendStream<Bytes>), Failed> {
        poll_fn(|context| self.send.poll_ready(context)).await?;
        Ok(self.send.send_request(self.heads.request(call), false)?)
    }

    /// One request; the message that answers it.
    async fn call(&mut self, call: Call, message: &impl Message) -> Result<Bytes, Failed> {
        grpc::put_message(&mut self.out, message)?;
        let framed = self.out.split().freeze();
        let (response, mut stream) = self.begin(call).await?;
        stream.send_data(framed, true)?;
        let (head, mut body) = response.await?.into_parts();
        let (mut messages, mut answer, mut held) = (Messages::default(), None, 0);
        while let Some(part) = body.data().await {
            let part = part?;
            held += part.len();
            if held >= RELEASE_BYTES {
                body.flow_control().release_capacity(std::mem::take(&mut held))?;
            }
            messages.push(part);
            answer = answer.or(messages.next()?);
        }
        // a call that was refused at once has nothing behind its head
        grpc::check(&body.trailers().await?.unwrap_or(head.headers))?;
        answer.ok_or_else(|| "an answer without a message".into())
    }

    async fn open(&mut self, call: Call) -> Result<Duplex, Failed> {
        let (response, sender) = self.begin(call).await?;
        let messages = Messages::default();
        Ok(Duplex { sender, out: BytesMut::new(), response: Some(response), body: None, messages })
    }
}

/// A stream that goes both ways.
pub(super) struct Duplex {
    sender: SendStream<Bytes>,
    out: BytesMut,
    /// Until the head of the answer is there, which may be as late as the first message.
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    messages: Messages,
}

impl Duplex {
    /// Sends a message, as soon as the server's windows let it through.
    pub(super) fn send(&mut self, message: &impl Message) -> Result<(), Failed> {
        grpc::put_message(&mut self.out, message)?;
        Ok(self.sender.send_data(self.out.split().freeze(), false)?)
    }

    /// The next message.
    ///
    /// # Errors
    /// There will be none.
    pub(super) async fn next(&mut self) -> Result<Bytes, Failed> {
        if let Some(response) = self.response.take() {
            let (head, body) = response.await?.into_parts();
            if head.headers.contains_key("grpc-status") {
                grpc::check(&head.headers)?;
            }
            self.body = Some(body);
        }
        let body = self.body.as_mut().ok_or("a stream that was refused")?;
        loop {
            if let Some(message) = self.messages.next()? {
                return Ok(message);
            }
            let Some(part) = body.data().await else { break };
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            self.messages.push(part);
        }
        if let Some(trailers) = body.trailers().await? {
            grpc::check(&trailers)?;
        }
        Err("the server ended the stream".into())
    }
}
