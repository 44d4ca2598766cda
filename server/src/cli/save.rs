//! `coffer snapshot save`: asks a member for an image and stores it.
//!
//! The image is written to `FILE.part`, checked against the SHA-256 that ends it, synced, and only then named `FILE`: a
//! file of that name is whole.

use super::args::{Arguments, Command, Flag, Kind};
use super::progress::Progress;
use super::{FAILED, Failure, INTERRUPTED, Outcome, go_list, one_word};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tonic::transport::Endpoint;

/// Bytes of the checksum that ends a snapshot.
pub(super) const CHECKSUM_BYTES: usize = 32;
/// A snapshot's length without its checksum is a multiple of this.
pub(super) const SECTOR_BYTES: u64 = 512;

pub(super) static COMMAND: Command = Command {
    usage: "coffer snapshot save <filename> [flags]",
    about: "Stores a member's snapshot to a given file",
    flags: &[&ENDPOINTS, &DIAL_TIMEOUT, &COMMAND_TIMEOUT],
    variables: Some("ETCDCTL_"),
};

static ENDPOINTS: Flag = Flag::new("endpoints", Kind::Text, "127.0.0.1:2379", "the member's gRPC endpoint");
static DIAL_TIMEOUT: Flag =
    Flag::new("dial-timeout", Kind::Duration, "2s", "dial timeout for client connections");
static COMMAND_TIMEOUT: Flag =
    Flag::new("command-timeout", Kind::Duration, "0s", "timeout of the whole command; 0: none");

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let file = one_word(arguments, "snapshot save expects one argument <filename>")?;
    let endpoint = endpoint(arguments.text("endpoints"), arguments.duration("dial-timeout"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let limit = Some(arguments.duration("command-timeout")).filter(|limit| !limit.is_zero());
    let saved = runtime.block_on(async {
        let save = save(endpoint, Path::new(file));
        match limit {
            Some(limit) => tokio::time::timeout(limit, save)
                .await
                .unwrap_or_else(|_| Err(interrupted("context deadline exceeded"))),
            None => save.await,
        }
    });
    let version = saved?;
    println!("Snapshot saved at {file}");
    if !version.is_empty() {
        println!("Server version {version}");
    }
    Ok(ExitCode::SUCCESS)
}

fn interrupted(text: impl Into<String>) -> Failure {
    Failure::new(INTERRUPTED, text)
}

fn endpoint(endpoints: &str, dial_timeout: Duration) -> Result<Endpoint, Failure> {
    let endpoints: Vec<&str> = endpoints.split(',').map(str::trim).filter(|each| !each.is_empty()).collect();
    let [endpoint] = endpoints[..] else {
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{}]",
            endpoints.join(" ")
        )));
    };
    if endpoint.starts_with("https://") {
        return Err(Failure::new(FAILED, "TLS is not supported in this version"));
    }
    let address = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let endpoint = Endpoint::from_shared(address).map_err(|error| Failure::new(FAILED, error.to_string()))?;
    Ok(endpoint.connect_timeout(dial_timeout))
}

/// Saves what the member sends; the version it told.
async fn save(endpoint: Endpoint, path: &Path) -> Result<String, Failure> {
    let channel = endpoint.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        interrupted(format!("cannot connect to {}: {error}{cause}", endpoint.uri()))
    })?;
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
    let refused = |status: tonic::Status| interrupted(format!("{} ({:?})", status.message(), status.code()));
    let mut stream = client.snapshot(pb::SnapshotRequest {}).await.map_err(refused)?.into_inner();
    let mut part = PartFile::create(path).map_err(|error| interrupted(error.to_string()))?;
    let progress = Progress::begin("saving");
    let mut version = String::new();
    while let Some(response) = stream.message().await.map_err(refused)? {
        part.write(&response.blob)
            .map_err(|error| interrupted(format!("could not write snapshot: {error}")))?;
        progress.set(part.bytes, part.bytes.saturating_add(response.remaining_bytes));
        version = response.version;
    }
    drop(progress);
    part.finish()?;
    Ok(version)
}

/// The file on its way; removed unless it is finished.
struct PartFile {
    path: PathBuf,
    part: PathBuf,
    file: File,
    bytes: u64,
    /// Of all but the last bytes, which may be the checksum.
    hash: Sha256,
    last: Vec<u8>,
}

impl PartFile {
    fn create(path: &Path) -> io::Result<PartFile> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = file.map_err(|error| {
            io::Error::new(error.kind(), format!("could not open {} ({error})", part.display()))
        })?;
        Ok(PartFile { path: path.to_owned(), part, file, bytes: 0, hash: Sha256::new(), last: Vec::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.last.extend_from_slice(bytes);
        let known = self.last.len().saturating_sub(CHECKSUM_BYTES);
        self.hash.update(&self.last[..known]);
        self.last.drain(..known);
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        if self.bytes % SECTOR_BYTES != CHECKSUM_BYTES as u64 {
            return Err(interrupted(format!("sha256 checksum not found [bytes: {}]", self.bytes)));
        }
        let computed = self.hash.clone().finalize();
        if computed[..] != self.last[..] {
            let text = format!("expected sha256 {}, got {}", go_list(&self.last), go_list(&computed));
            return Err(interrupted(text));
        }
        self.file.sync_all().map_err(|error| interrupted(format!("could not fsync snapshot: {error}")))?;
        std::fs::rename(&self.part, &self.path).map_err(|error| {
            let (part, path) = (self.part.display(), self.path.display());
            interrupted(format!("could not rename {part} to {path} ({error})"))
        })?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| interrupted(format!("could not fsync the directory: {error}")))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // Once it is finished there is none of that name any more.
        let _ = std::fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&[u8]]) -> (tempfile::TempDir, Result<(), Failure>) {
        let directory = tempfile::tempdir().unwrap();
        let mut part = PartFile::create(&directory.path().join("image")).unwrap();
        pieces.iter().for_each(|piece| part.write(piece).unwrap());
        (directory, part.finish())
    }

    #[test]
    fn an_image_with_its_checksum_gets_its_name_in_whatever_pieces_it_comes() {
        let body = [7; 1024];
        let whole = [&body[..], &Sha256::digest(body)[..]].concat();
        for size in [1, 31, 32, 33, 500, whole.len()] {
            let pieces: Vec<&[u8]> = whole.chunks(size).collect();
            let (directory, finished) = written(&pieces);
            assert_eq!(finished, Ok(()));
            assert_eq!(std::fs::read(directory.path().join("image")).unwrap(), whole);
            assert!(!directory.path().join("image.part").exists());
        }
    }

    #[test]
    fn a_cut_or_wrong_one_leaves_no_file() {
        let body = [7; 1024];
        let sum = Sha256::digest(body);
        for (pieces, said) in [
            (vec![&body[..]], "sha256 checksum not found [bytes: 1024]"),
            (vec![&body[..], &sum[..31]], "sha256 checksum not found [bytes: 1055]"),
            (vec![&body[..], &body[..32]], "expected sha256 [7 7 "),
            (vec![], "sha256 checksum not found [bytes: 0]"),
        ] {
            let (directory, finished) = written(&pieces);
            let failure = finished.unwrap_err();
            assert!(failure.text.starts_with(said), "{}", failure.text);
            assert_eq!(failure.code, INTERRUPTED);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn an_endpoint_is_one_with_or_without_a_scheme() {
        let at =
            |text: &str| endpoint(text, Duration::from_secs(1)).map(|endpoint| endpoint.uri().to_string());
        assert_eq!(at("127.0.0.1:2379"), Ok("http://127.0.0.1:2379/".to_owned()));
        assert_eq!(at("http://a:1"), Ok("http://a:1/".to_owned()));
        let refused = at("a:1,b:2").unwrap_err();
        assert_eq!(refused.text, "snapshot must be requested to one selected node, not multiple [a:1 b:2]");
        assert!(at("https://a:1").unwrap_err().text.contains("TLS"));
    }
}
