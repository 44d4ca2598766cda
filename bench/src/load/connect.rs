//! Endpoints, and the connections to those that are driven.

use super::socket::Gathering;
use super::wire::{H2, Wire};
use super::{Client, Failed, LoadOptions, To, tls};
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes to and from a server, encrypted or not.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// An endpoint.
#[derive(Clone)]
pub(super) struct Target {
    /// `http://host:port` or `https://host:port`.
    pub(super) origin: Uri,
    tls: Option<TlsConnector>,
}

impl Target {
    /// Understands `host:port`, `http://host:port` and `https://host:port`.
    fn parse(endpoint: &str, options: &LoadOptions) -> Result<Target, Failed> {
        let wrong = || format!("{endpoint} is no endpoint: http://host:port or https://host:port");
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let origin: Uri = format!("{scheme}://{address}").parse().map_err(|_| wrong())?;
        if origin.port_u16().is_none() || address.contains('/') {
            return Err(wrong().into());
        }
        let tls = match scheme {
            "http" => None,
            "https" => Some(tls::connector(&options.tls)?),
            _ => return Err(wrong().into()),
        };
        Ok(Target { origin, tls })
    }

    /// `host:port`.
    fn address(&self) -> &str {
        self.origin.authority().map_or("", |authority| authority.as_str())
    }

    /// A connection with nothing said on it yet but TLS's greetings.
    pub(super) async fn dial(&self) -> Result<Box<dyn Socket>, Failed> {
        let dialed = tokio::time::timeout(CONNECT_TIMEOUT, self.dial_patiently()).await;
        let error = match dialed {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        Err(format!("{}: {error}", self.origin).into())
    }

    async fn dial_patiently(&self) -> Result<Box<dyn Socket>, Failed> {
        let stream = TcpStream::connect(self.address()).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(Gathering::new(stream))) };
        let host = self.origin.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Box::new(Gathering::new(tls.connect(name, stream).await?)))
    }

    /// A connection for tonic's clients.
    async fn channel(&self) -> Result<Channel, Failed> {
        // tonic has no TLS built in here and would refuse the scheme where it connects; what it says to the server is `origin`
        let plain = Endpoint::from_shared(format!("http://{}", self.address()))?.origin(self.origin.clone());
        let target = self.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move { target.dial().await.map(TokioIo::new) }
        });
        Ok(plain.connect_with_connector(dial).await.map_err(|error| chain(&error))?)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The connections of a run.
pub(super) struct Network {
    /// For what is asked besides.
    pub(super) control: Channel,
    /// What the requests go over.
    pub(super) wires: Vec<Wire>,
}

impl Network {
    /// Opens them; within a `LocalSet`.
    pub(super) async fn open(options: &LoadOptions) -> Result<Network, Failed> {
        let targets = targets(options).await?;
        let mut wires = Vec::new();
        for number in 0..options.connections.max(1) {
            let target = &targets[number % targets.len()];
            wires.push(match options.client {
                Client::Tonic => Wire::tonic(target.channel().await?),
                Client::H2 => Wire::H2(H2::greet(target.dial().await?, &target.origin).await?),
            });
        }
        Ok(Network { control: targets[0].channel().await?, wires })
    }
}

/// The endpoints that are driven; at least one.
async fn targets(options: &LoadOptions) -> Result<Vec<Target>, Failed> {
    let all = options.endpoints.iter().map(|endpoint| Target::parse(endpoint, options));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let mut chosen = Vec::new();
    for target in all {
        if options.to == To::All || fits(options.to, &status(&target).await?) {
            chosen.push(target);
        }
    }
    if chosen.is_empty() {
        let role = if options.to == To::Leader { "the leader" } else { "a follower" };
        return Err(format!("none of {} is {role}", options.endpoints.join(", ")).into());
    }
    Ok(chosen)
}

async fn status(target: &Target) -> Result<pb::StatusResponse, Failed> {
    let mut maintenance = MaintenanceClient::new(target.channel().await?);
    let answer = maintenance.status(pb::StatusRequest {}).await;
    Ok(answer.map_err(|status| format!("{}: {status}", target.origin))?.into_inner())
}

fn fits(to: To, status: &pb::StatusResponse) -> bool {
    let leads = status.header.as_ref().is_some_and(|header| header.member_id == status.leader);
    match to {
        To::All => true,
        To::Leader => leads,
        To::Followers => !leads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let parse = |endpoint: &str| Target::parse(endpoint, &LoadOptions::default());
        for (endpoint, origin) in [
            ("127.0.0.1:2379", "http://127.0.0.1:2379/"),
            ("http://localhost:1/", "http://localhost:1/"),
            ("http://[::1]:2379", "http://[::1]:2379/"),
        ] {
            assert_eq!(parse(endpoint).unwrap().origin.to_string(), origin);
        }
        for wrong in ["localhost", "ftp://localhost:1", "http://localhost:1/path", "http://:0:0", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let error = parse("https://localhost:1").map(drop).unwrap_err().to_string();
        assert_eq!(error, "https:// needs --cacert or --insecure-skip-tls-verify");
    }

    #[test]
    fn leader_and_followers_are_told_apart_by_their_status() {
        let status = |member_id, leader| {
            let header = Some(pb::ResponseHeader { member_id, ..Default::default() });
            pb::StatusResponse { header, leader, ..Default::default() }
        };
        for (status, leads) in [(status(1, 1), true), (status(2, 1), false), (status(2, 0), false)] {
            assert!(fits(To::All, &status));
            assert_eq!(fits(To::Leader, &status), leads);
            assert_eq!(fits(To::Followers, &status), !leads);
        }
    }
}
