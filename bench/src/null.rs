//! Null servers: what a request costs before anybody has done anything for it.
//!
//! Each decodes the request and answers a header; a range is answered with one key-value of 256 bytes besides. Nothing is
//! stored. Connections are dealt in turn to threads with a runtime of their own, as coffer deals them, and have coffer's
//! windows, so that the difference between coffer and a null server is what coffer does.
//!
//! | door | what answers |
//! |---|---|
//! | tonic | hyper and the service that tonic generates: the road of coffer's own services |
//! | h2 | the h2 crate alone, behind coffer's cork; headers, message and trailers of an answer put together by hand |

use crate::grpc::{Messages, put_content_type, put_message};
use crate::load::Failed;
use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use coffer_server::accept::cork::cork;
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::kv_server::{Kv, KvServer};
use coffer_server::proto::mvccpb;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message as _;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::Status;
use tower::Service as _;

/// Bytes of the value that every range is answered with.
const VALUE_BYTES: usize = 256;
/// The windows that coffer gives a stream and a connection.
const WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Door {
    /// hyper and tonic.
    Tonic,
    /// h2 alone.
    H2,
}

/// One server.
#[derive(Clone, Debug, Args)]
pub struct NullOptions {
    /// What answers.
    #[arg(long, value_enum, default_value = "tonic")]
    pub door: Door,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Serving threads; 0: as many as there are cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// Serves until the process is ended. Where it listens is its first line.
///
/// # Errors
/// The address cannot be had.
pub fn run(options: &NullOptions) -> Result<(), Failed> {
    let listener = TcpListener::bind(options.listen)?;
    println!("listening on {}", listener.local_addr()?);
    serve(&listener, options.door, options.threads)
}

fn serve(listener: &TcpListener, door: Door, threads: usize) -> Result<(), Failed> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores } else { threads };
    let mut dealt = Vec::new();
    for number in 0..threads {
        let (sender, connections) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name(format!("serving-{number}"))
            .spawn(move || runtime.block_on(serve_all(connections, door)))?;
        dealt.push(sender);
    }
    for sender in dealt.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        sender.send(stream).map_err(|_| "a serving thread is gone")?;
    }
    Ok(())
}

async fn serve_all(mut connections: mpsc::UnboundedReceiver<std::net::TcpStream>, door: Door) {
    let service = NullService::new();
    while let Some(stream) = connections.recv().await {
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        // a connection that ends in an error is its client's business
        match door {
            Door::Tonic => {
                let service = service.clone();
                tokio::spawn(async move { drop(speak_tonic(stream, service).await) });
            }
            Door::H2 => {
                tokio::spawn(async move { drop(speak_h2(stream).await) });
            }
        }
    }
}

fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 })
}

fn range_response(key: Bytes) -> pb::RangeResponse {
    static VALUE: [u8; VALUE_BYTES] = [b'v'; VALUE_BYTES];
    let kv = mvccpb::KeyValue {
        key,
        value: Bytes::from_static(&VALUE),
        create_revision: 1,
        mod_revision: 1,
        version: 1,
        lease: 0,
    };
    pb::RangeResponse { header: header(), kvs: vec![kv], more: false, count: 1 }
}

/// tonic's service.
struct Null;

/// What nothing answers.
fn not_here<T>() -> Result<tonic::Response<T>, Status> {
    Err(Status::unimplemented("a null server answers Range and Put"))
}

type NoStream = Pin<Box<dyn futures_util::Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Null {
    async fn range(
        &self,
        request: tonic::Request<pb::RangeRequest>,
    ) -> Result<tonic::Response<pb::RangeResponse>, Status> {
        Ok(tonic::Response::new(range_response(request.into_inner().key)))
    }

    type RangeStreamStream = NoStream;

    async fn range_stream(
        &self,
        _: tonic::Request<pb::RangeRequest>,
    ) -> Result<tonic::Response<NoStream>, Status> {
        not_here()
    }

    async fn put(
        &self,
        request: tonic::Request<pb::PutRequest>,
    ) -> Result<tonic::Response<pb::PutResponse>, Status> {
        drop(request.into_inner());
        Ok(tonic::Response::new(pb::PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _: tonic::Request<pb::DeleteRangeRequest>,
    ) -> Result<tonic::Response<pb::DeleteRangeResponse>, Status> {
        not_here()
    }

    async fn txn(
        &self,
        _: tonic::Request<pb::TxnRequest>,
    ) -> Result<tonic::Response<pb::TxnResponse>, Status> {
        not_here()
    }

    async fn compact(
        &self,
        _: tonic::Request<pb::CompactionRequest>,
    ) -> Result<tonic::Response<pb::CompactionResponse>, Status> {
        not_here()
    }
}

/// The generated server as hyper wants it.
#[derive(Clone)]
struct NullService(Arc<KvServer<Null>>);

type Answering = Pin<Box<dyn Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Send>>;

impl NullService {
    fn new() -> NullService {
        NullService(Arc::new(KvServer::new(Null)))
    }
}

impl hyper::service::Service<Request<hyper::body::Incoming>> for NullService {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Answering {
        let mut server = KvServer::clone(&self.0);
        Box::pin(async move { server.call(request).await })
    }
}

async fn speak_tonic(stream: TcpStream, service: NullService) -> Result<(), Failed> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(None)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    Ok(builder.serve_connection(TokioIo::new(stream), service).await?)
}

/// Answers on one connection until it ends.
pub(crate) async fn speak_h2<S>(stream: S) -> Result<(), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (corked, cork) = cork(stream);
    let mut handshake = pin!(
        h2::server::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .handshake::<_, Bytes>(corked)
    );
    let mut connection = poll_fn(|cx| {
        let greeted = handshake.as_mut().poll(cx);
        // what fails here fails again at the next read or write
        let _ = cork.pull(cx);
        greeted
    })
    .await?;
    let mut accepted = poll_fn(move |cx| {
        let accepted = connection.poll_accept(cx);
        if accepted.is_pending() {
            let _ = cork.pull(cx);
        }
        accepted
    });
    while let Some(accepted) = (&mut accepted).await {
        let (request, respond) = accepted?;
        tokio::spawn(async move { drop(answer(request, respond).await) });
    }
    Ok(())
}

/// Reads one message and answers it.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), Failed> {
    let (head, mut body) = request.into_parts();
    let mut messages = Messages::default();
    let mut message = None;
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        messages.push(part);
        message = message.or(messages.next()?);
    }
    let message = message.unwrap_or_default();
    let mut out = BytesMut::new();
    match head.uri.path() {
        "/etcdserverpb.KV/Range" => {
            let request = pb::RangeRequest::decode(message)?;
            put_message(&mut out, &range_response(request.key))?;
        }
        "/etcdserverpb.KV/Put" => {
            drop(pb::PutRequest::decode(message)?);
            put_message(&mut out, &pb::PutResponse { header: header(), prev_kv: None })?;
        }
        _ => {
            let mut response = Response::new(());
            put_content_type(response.headers_mut());
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
            respond.send_response(response, true)?;
            return Ok(());
        }
    }
    let mut response = Response::new(());
    put_content_type(response.headers_mut());
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(out.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_server::proto::etcdserverpb::kv_client::KvClient;
    use tonic::transport::Endpoint;

    #[test]
    fn both_doors_answer_what_a_client_asks() {
        for door in [Door::Tonic, Door::H2] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            // it serves as long as this process lives
            std::thread::spawn(move || serve(&listener, door, 2));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
                let mut client = KvClient::new(endpoint.connect().await.unwrap());
                let request = pb::RangeRequest { key: "k".into(), ..Default::default() };
                let response = client.range(request).await.unwrap().into_inner();
                assert_eq!((&response.kvs[0].key[..], response.kvs[0].value.len()), (&b"k"[..], VALUE_BYTES));
                let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
                assert!(client.put(put).await.unwrap().into_inner().header.is_some());
                let code = client.txn(pb::TxnRequest::default()).await.unwrap_err().code();
                assert_eq!(code, tonic::Code::Unimplemented);
            });
        }
    }
}
