//! The servers that are compared: how each is started on a directory, and where it then is.

use super::child::Process;
use crate::load::Failed;
use clap::ValueEnum;
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::kv_client::KvClient;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

/// For coffer and etcd alike: more than any run here writes.
const QUOTA_BYTES: u64 = 64 << 30;
/// How long a server may take to listen, and a member to read what it has.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(600);
/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Server {
    /// A null server on hyper and tonic.
    #[value(name = "null-tonic")]
    NullTonic,
    /// A null server on bare h2.
    #[value(name = "null-h2")]
    NullH2,
    /// coffer.
    Coffer,
    /// etcd.
    Etcd,
}

impl Server {
    /// All, in the order of tables and plots.
    pub(super) const ALL: [Server; 4] = [Server::NullTonic, Server::NullH2, Server::Coffer, Server::Etcd];

    /// As it is called in data.
    pub(super) fn name(self) -> &'static str {
        match self {
            Server::NullTonic => "null-tonic",
            Server::NullH2 => "null-h2",
            Server::Coffer => "coffer",
            Server::Etcd => "etcd",
        }
    }

    /// As a reader is told.
    pub(super) fn title(self) -> &'static str {
        match self {
            Server::NullTonic => "null, tonic",
            Server::NullH2 => "null, h2",
            Server::Coffer => "coffer",
            Server::Etcd => "etcd",
        }
    }

    pub(super) fn named(name: &str) -> Option<Server> {
        Server::ALL.into_iter().find(|server| server.name() == name)
    }

    /// Whether it does nothing and keeps nothing.
    pub(super) fn is_null(self) -> bool {
        matches!(self, Server::NullTonic | Server::NullH2)
    }
}

/// Where the binaries are.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) coffer: PathBuf,
    pub(super) etcd: PathBuf,
    /// This program.
    pub(super) bench: PathBuf,
}

impl Binaries {
    /// What `server` says of its version: the line that names it. coffer also names the etcd whose API it has.
    pub(super) fn version(&self, server: Server) -> Option<String> {
        let binary = match server {
            Server::Coffer => &self.coffer,
            Server::Etcd => &self.etcd,
            Server::NullTonic | Server::NullH2 => return None,
        };
        let said = Command::new(binary).arg("--version").output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        said.lines().find(|line| line.starts_with(server.name())).map(str::to_owned)
    }
}

/// A server that answers.
pub(super) struct Running {
    process: Process,
    /// `host:port`.
    pub(super) address: String,
}

impl Running {
    /// Starts `server` on `directory`, which it makes or finds, and waits until it answers a linearizable range.
    pub(super) fn start(
        server: Server,
        binaries: &Binaries,
        directory: &Path,
        log: &Path,
    ) -> Result<Running, Failed> {
        let (process, address) = match server {
            Server::NullTonic => null(binaries, "tonic", log)?,
            Server::NullH2 => null(binaries, "h2", log)?,
            Server::Coffer => coffer(binaries, directory, log)?,
            Server::Etcd => etcd(binaries, directory, log)?,
        };
        let mut running = Running { process, address };
        running.await_answer()?;
        Ok(running)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// An error if it has ended.
    pub(super) fn still_there(&mut self) -> Result<(), Failed> {
        self.process.still_there()
    }

    /// Ends it as an operator would.
    pub(super) fn stop(self) -> Result<(), Failed> {
        self.process.stop(STOP_LIMIT)
    }

    fn await_answer(&mut self) -> Result<(), Failed> {
        let begun = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        loop {
            match runtime.block_on(ask(&self.address)) {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > READY_LIMIT => {
                    return Err(self.process.error(&format!("does not answer: {error}")));
                }
                Err(_) => self.process.still_there()?,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

async fn ask(address: &str) -> Result<(), Failed> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(5));
    let mut client = KvClient::new(endpoint.connect().await?);
    client.range(pb::RangeRequest { key: "ready".into(), ..Default::default() }).await?;
    Ok(())
}

fn null(binaries: &Binaries, door: &str, log: &Path) -> Result<(Process, String), Failed> {
    let mut command = Command::new(&binaries.bench);
    let mut process = Process::start(command.args(["null", "--door", door]), log)?;
    let address =
        process.await_log(LISTEN_LIMIT, |line| line.strip_prefix("listening on ").map(str::to_owned))?;
    Ok((process, address))
}

fn coffer(binaries: &Binaries, directory: &Path, log: &Path) -> Result<(Process, String), Failed> {
    let mut command = Command::new(&binaries.coffer);
    command.arg("--data-dir").arg(directory).args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()]);
    for flag in ["--listen-client-urls", "--advertise-client-urls"] {
        command.args([flag, "http://127.0.0.1:0"]);
    }
    let mut process = Process::start(&mut command, log)?;
    let address = process.await_log(LISTEN_LIMIT, coffer_address)?;
    Ok((process, address))
}

/// The address in the line of coffer's log that tells it.
fn coffer_address(line: &str) -> Option<String> {
    let rest = line.split_once("serving client traffic insecurely")?.1;
    let address = rest.split_once("\"address\":\"")?.1;
    Some(address.split_once('"')?.0.to_owned())
}

fn etcd(binaries: &Binaries, directory: &Path, log: &Path) -> Result<(Process, String), Failed> {
    // held together, so that they differ; etcd does not tell which port it got
    let listeners = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let (client, peer) = (listeners.0.local_addr()?.to_string(), listeners.1.local_addr()?.to_string());
    drop(listeners);
    let mut command = Command::new(&binaries.etcd);
    command.arg("--data-dir").arg(directory).args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()]);
    for flag in ["--listen-client-urls", "--advertise-client-urls"] {
        command.arg(flag).arg(format!("http://{client}"));
    }
    for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
        command.arg(flag).arg(format!("http://{peer}"));
    }
    command.arg("--initial-cluster").arg(format!("default=http://{peer}"));
    Ok((Process::start(&mut command, log)?, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coffers_log_tells_its_address() {
        let line =
            r#"{"level":"info","msg":"serving client traffic insecurely; mind","address":"127.0.0.1:41"}"#;
        assert_eq!(coffer_address(line).as_deref(), Some("127.0.0.1:41"));
        assert_eq!(coffer_address(r#"{"address":"127.0.0.1:42"}"#), None);
    }

    #[test]
    fn every_server_is_found_by_its_name() {
        for server in Server::ALL {
            assert_eq!(Server::named(server.name()), Some(server));
            assert_eq!(Server::from_str(server.name(), false), Ok(server));
        }
    }
}
