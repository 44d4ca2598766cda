//! `coffer snapshot status`: checks an image and tells what it holds.

use super::args::{Arguments, Command, Flag, Kind};
use super::print::{Form, Status};
use super::progress::Progress;
use super::save::CHECKSUM_BYTES;
use super::{FAILED, Failure, Outcome, go_list, one_word};
use coffer_engine::check::check_reached;
use coffer_engine::disk::{self, Disk, DiskIo};
use coffer_engine::error::{Fault, ReadError};
use coffer_engine::mvcc::hash::HashScan;
use coffer_engine::mvcc::view::{View, sizes};
use coffer_engine::pager::Pages;
use coffer_engine::pager::root::Root;
use coffer_engine::snapshot::Image;
use coffer_engine::store::HashKv;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

/// Bytes read at once for the checksum.
const READ_BYTES: usize = 1 << 20;
/// Versions hashed in one step.
const HASH_STEP_VERSIONS: usize = 100_000;

pub(super) static COMMAND: Command = Command {
    usage: "coffer snapshot status <filename> [flags]",
    about: "Gets the status of a given snapshot file\n\n\
            When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.\n\
            The items in the lists are hash, revision, total keys, total size.",
    flags: &[&WRITE_OUT],
    variables: None,
};

static WRITE_OUT: Flag = Flag {
    short: Some('w'),
    ..Flag::new(
        "write-out",
        Kind::Text,
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
    )
};

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let file = one_word(arguments, "snapshot status requires exactly one argument")?;
    if let Err(error) = std::fs::metadata(file) {
        return Err(Failure::new(FAILED, format!("stat {file}: {}", in_gos_words(&error))));
    }
    let form = Form::read(arguments.text("write-out"))?;
    let mut disk = open_disk()?;
    let image = Image::open(disk.as_mut(), Path::new(file)).map_err(failed)?;
    check(&image)?;
    if image.has_checksum() {
        check_checksum(&image, Path::new(file))?;
    } else {
        eprintln!("{file} has no SHA-256 at its end: only the checksums in it were checked");
    }
    let status = Status {
        hash: hash(&image, image.root()).map_err(failed)?.hash,
        revision: image.head().standing.revision,
        total_key: sizes(image.root()).keys,
        total_size: image.head().image_bytes(),
        version: image.head().label.clone(),
    };
    print!("{}", status.text(form));
    Ok(ExitCode::SUCCESS)
}

/// A disk of plain system calls: nothing here is in a hurry.
pub(super) fn open_disk() -> Result<Box<dyn Disk>, Failure> {
    disk::open_disk(DiskIo::Sync).map_err(|error| Failure::new(FAILED, error.to_string()))
}

pub(super) fn failed(fault: Fault) -> Failure {
    Failure::new(FAILED, fault.to_string())
}

/// A system's error as Go's programs print it.
fn in_gos_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Checks every page of an image, its trees, and that they are all there is.
pub(super) fn check(image: &Image) -> Result<(), Failure> {
    let progress = Progress::begin("checking pages");
    image.check_pages(&mut |done, total| progress.set(done, total)).map_err(failed)?;
    drop(progress);
    let _working = Progress::begin_endless("checking trees");
    let broken = check_reached(image, image.root(), image.pages()).map_err(|fault| failed(*fault))?;
    if broken.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = broken.iter().map(|(_, text)| text.clone()).collect();
    Err(Failure::new(
        FAILED,
        format!("snapshot file integrity check failed. {} errors found.\n{}", texts.len(), texts.join("\n")),
    ))
}

/// Checks an image against the SHA-256 behind it.
pub(super) fn check_checksum(image: &Image, path: &Path) -> Result<(), Failure> {
    let progress = Progress::begin("checking the checksum");
    let total = image.head().image_bytes();
    let read = || -> std::io::Result<(Vec<u8>, [u8; CHECKSUM_BYTES])> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buf = vec![0; READ_BYTES];
        let mut left = total;
        while left > 0 {
            let piece = READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES));
            file.read_exact(&mut buf[..piece])?;
            hash.update(&buf[..piece]);
            left -= piece as u64;
            progress.set(total - left, total);
        }
        let mut sum = [0; CHECKSUM_BYTES];
        file.read_exact(&mut sum)?;
        Ok((hash.finalize().to_vec(), sum))
    };
    let (computed, stored) =
        read().map_err(|error| Failure::new(FAILED, format!("read {}: {error}", path.display())))?;
    if computed != stored {
        let text = format!("expected sha256 {}, got {}", go_list(&stored), go_list(&computed));
        return Err(Failure::new(FAILED, text));
    }
    Ok(())
}

/// HashKV of a root at its current revision.
pub(super) fn hash(pages: &impl Pages, root: &Root) -> Result<HashKv, Fault> {
    let view = View::of(pages, root);
    let _working = Progress::begin_endless("hashing");
    // the current revision is neither compacted nor to come
    let mut scan = HashScan::begin(&view, 0).map_err(|error| match error {
        ReadError::Fault(fault) => *fault,
        ReadError::Refused(_) => Fault::Stopped,
    })?;
    loop {
        if let Some(hash) = scan.step(&view, HASH_STEP_VERSIONS).map_err(|fault| *fault)? {
            return Ok(hash);
        }
    }
}
