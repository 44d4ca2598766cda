//! Listeners, and how their connections are dealt to the serving threads in turn.
//!
//! ```text
//! listener ─┐                    ┌─> serving thread 0 ─> connection task ─> Door
//! listener ─┼─ accept thread ─ in turn ─> serving thread 1 ...
//! listener ─┘
//! ```
//!
//! Rules kept here:
//! - Addresses are bound before anything else is started, so that a taken port costs nothing but an error.
//! - Beyond the bound of connections new ones are closed at once: descriptors for the log remain.
//! - An error of accept is never fatal; out of descriptors it waits a little.
//! - Every connection has HTTP/2's limits from the configuration.
//!
//! It leaves to others: what is said on a connection ([`crate::rpc::door`]); pings, floods of control frames and silent
//! clients (`guard`); which HTTP a client speaks (`greeting`); HTTP/2's streams (`http2`), and how its frames
//! leave together (`cork`).

pub mod cork;
mod greeting;
mod guard;
mod http2;

use crate::config::{Config, Scheme, Url};
use crate::rpc::door::Door;
use greeting::Spoken;
use guard::Guard;
use http2::Patience;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// Connections the kernel keeps until they are accepted (Go's listeners take the system's bound).
const BACKLOG: i32 = 4096;
/// Idle time after which the kernel probes whether a client is still there (etcd's listeners use 30 s).
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// How long accepting pauses when the system has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a client to send its HTTP/1 header (etcd's ReadHeaderTimeout).
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of a request's HTTP/2 headers (Go's gRPC takes 16 MiB; etcd's clients send a few hundred bytes).
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Streams that a client reset and that were not looked at yet; beyond it the connection is a flood and is closed.
const PENDING_RESETS_MAX: usize = 128;
/// Streams reset by this side because of the client's errors, before the connection is closed.
const LOCAL_RESETS_MAX: usize = 1024;
/// Flow-control window of a stream: one large request in flight.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Flow-control window of a connection, the most that Go's gRPC grows it to. h2 takes so many small messages of streams
/// unread as half of it holds pieces of 256 bytes: a client that keeps 30,000 leases alive sends that at once.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// How long a client has to answer a ping where the configuration leaves it open (Go's gRPC).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of answers buffered for one stream.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// gRPC, and HTTP unless it has listeners of its own.
    Client,
    /// HTTP alone.
    ClientHttp,
    /// Metrics and health alone.
    Metrics,
}

enum Socketed {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A bound address.
pub struct Listener {
    kind: Kind,
    socket: Socketed,
    /// As it was asked for.
    pub url: Url,
    /// Where it listens; the port is the real one. `None` for a socket in the file system.
    pub address: Option<SocketAddr>,
}

/// An accepted connection on its way to a serving thread.
pub struct Accepted {
    kind: Kind,
    stream: Stream,
    counted: Counted,
}

enum Stream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// The doors of one serving thread.
pub struct Doors {
    /// For client listeners.
    pub client: Door,
    /// For HTTP listeners.
    pub client_http: Door,
    /// For metrics listeners.
    pub metrics: Door,
}

/// One connection counted; given back when dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Binds all addresses of a configuration.
///
/// # Errors
/// The address and what the system said.
pub fn bind(config: &Config) -> Result<Vec<Listener>, String> {
    let groups = [
        (Kind::Client, &config.listen_client_urls),
        (Kind::ClientHttp, &config.listen_client_http_urls),
        (Kind::Metrics, &config.listen_metrics_urls),
    ];
    let mut listeners = Vec::new();
    for (kind, urls) in groups {
        for url in urls {
            let listener =
                bind_one(config, kind, url).map_err(|error| format!("listen {}: {error}", url.text))?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn bind_one(config: &Config, kind: Kind, url: &Url) -> io::Result<Listener> {
    match url.scheme {
        Scheme::Http => {
            let socket = bind_tcp(config, url)?;
            let address = Some(socket.local_addr()?);
            Ok(Listener { kind, socket: Socketed::Tcp(socket), url: url.clone(), address })
        }
        Scheme::Unix => {
            let socket = bind_unix(Path::new(&url.host))?;
            Ok(Listener { kind, socket: Socketed::Unix(socket), url: url.clone(), address: None })
        }
        Scheme::Https | Scheme::Unixs => Err(io::Error::other("TLS is not supported yet")),
    }
}

/// Binds the first address that the host resolves to, an IPv4 one where there is one, as Go does.
fn bind_tcp(config: &Config, url: &Url) -> io::Result<std::net::TcpListener> {
    let mut addresses: Vec<SocketAddr> = (url.host.as_str(), url.port).to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut error = io::Error::other("the host has no address");
    for address in addresses {
        match bind_address(config, address) {
            Ok(listener) => return Ok(listener),
            Err(this) => error = this,
        }
    }
    Err(error)
}

fn bind_address(config: &Config, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Go sets it on every listener: a port in TIME_WAIT can be taken again.
    socket.set_reuse_address(true)?;
    if config.socket_reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a socket in the file system; one left over from an earlier process is removed, as by etcd.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts until `stop` is told, dealing to `threads` in turn.
pub async fn accept(
    listeners: Vec<Listener>,
    threads: Vec<mpsc::UnboundedSender<Accepted>>,
    connections_max: usize,
    stop: watch::Receiver<bool>,
) {
    let deal = Arc::new(Deal {
        threads,
        next: AtomicUsize::new(0),
        open: Arc::new(AtomicUsize::new(0)),
        connections_max,
    });
    let tasks: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(listen(listener, Arc::clone(&deal), stop.clone())))
        .collect();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(error = %error, "a listener ended");
        }
    }
}

struct Deal {
    threads: Vec<mpsc::UnboundedSender<Accepted>>,
    next: AtomicUsize,
    open: Arc<AtomicUsize>,
    connections_max: usize,
}

impl Deal {
    fn deal(&self, kind: Kind, stream: Stream) {
        let counted = Counted(Arc::clone(&self.open));
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            tracing::warn!(limit = self.connections_max, "too many client connections; closing a new one");
            return;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(thread) = self.threads.get(turn % self.threads.len().max(1)) {
            // A thread that is gone is stopping, and so is the process.
            let _ = thread.send(Accepted { kind, stream, counted });
        }
    }
}

async fn listen(listener: Listener, deal: Arc<Deal>, mut stop: watch::Receiver<bool>) {
    let (kind, url) = (listener.kind, listener.url);
    let result = match listener.socket {
        Socketed::Tcp(socket) => match TcpListener::from_std(socket) {
            Ok(listener) => {
                tokio::select! {
                    () = listen_tcp(kind, &listener, &deal) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                Ok(())
            }
            Err(error) => Err(error),
        },
        Socketed::Unix(socket) => match UnixListener::from_std(socket) {
            Ok(listener) => {
                tokio::select! {
                    () = listen_unix(kind, &listener, &deal) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    if let Err(error) = result {
        tracing::error!(address = %url.text, error = %error, "failed to listen");
    }
}

async fn listen_tcp(kind: Kind, listener: &TcpListener, deal: &Deal) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match prepared(stream) {
                Ok(stream) => deal.deal(kind, Stream::Tcp(stream)),
                Err(error) => tracing::debug!(error = %error, "an accepted connection was gone"),
            },
            Err(error) => pause(&error).await,
        }
    }
}

async fn listen_unix(kind: Kind, listener: &UnixListener, deal: &Deal) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => deal.deal(kind, Stream::Unix(stream)),
            Err(error) => pause(&error).await,
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    stream.into_std()
}

/// Waits after an error of accept: a connection that was gone again costs nothing, want of descriptors takes time.
async fn pause(error: &io::Error) {
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !gone.contains(&error.kind()) {
        tracing::warn!(error = %error, "failed to accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// How connections are spoken on.
pub struct Terms {
    http1: http1::Builder,
    http2: h2::server::Builder,
    patience: Option<Patience>,
    /// Least time between a client's pings; zero: any.
    ping_min_time: Duration,
}

/// How connections are spoken on, from the configuration.
pub fn protocol(config: &Config) -> Terms {
    let mut http1 = http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let receive = u32::try_from(config.grpc_receive_bytes_max()).unwrap_or(u32::MAX >> 1);
    let window = receive.clamp(CONNECTION_WINDOW_BYTES, u32::MAX >> 1);
    let mut http2 = h2::server::Builder::new();
    http2
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(window)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let timeout = match config.grpc_keepalive_timeout {
        Duration::ZERO => KEEPALIVE_TIMEOUT,
        timeout => timeout,
    };
    let interval = Some(config.grpc_keepalive_interval).filter(|interval| !interval.is_zero());
    let patience = interval.map(|interval| Patience { interval, timeout });
    Terms { http1, http2, patience, ping_min_time: config.grpc_keepalive_min_time }
}

/// Serves one connection until its client goes, or gracefully ends it once `stop` is told.
pub async fn serve(accepted: Accepted, doors: Arc<Doors>, protocol: Arc<Terms>, stop: watch::Receiver<bool>) {
    let door = match accepted.kind {
        Kind::Client => &doors.client,
        Kind::ClientHttp => &doors.client_http,
        Kind::Metrics => &doors.metrics,
    };
    let result = match accepted.stream {
        Stream::Tcp(stream) => match TcpStream::from_std(stream) {
            Ok(stream) => speak(stream, door.clone(), &protocol, stop).await,
            Err(error) => Err(error.into()),
        },
        Stream::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => speak(stream, door.clone(), &protocol, stop).await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = result {
        tracing::debug!(error = %error, "a client connection ended with an error");
    }
    drop(accepted.counted);
}

async fn speak<S>(
    stream: S,
    door: Door,
    protocol: &Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guard = Guard::new(stream, protocol.ping_min_time);
    let heard = guard.heard();
    let (spoken, socket) = tokio::select! {
        greeting = greeting::listen(guard) => greeting?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    if spoken == Spoken::Http2 {
        return http2::speak(socket, door, (&protocol.http2, protocol.patience), heard, stop).await;
    }
    let mut connection = pin!(protocol.http1.serve_connection(TokioIo::new(socket), door));
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}
