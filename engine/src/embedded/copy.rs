//! A copy of a database that goes on being written: its newest durable state as a database of its own.
//!
//! ```text
//!  durable root ──> image ──> pages ──> a log that names the page file as its checkpoint
//!                  (checked)
//! ```
//! The log comes last: a copy that was not finished has a page file without the log that belongs to it, and is refused.

use super::core::TERM;
use super::directory::Directory;
use super::opening::Files;
use crate::Micros;
use crate::disk::{self, Completion, Disk, DiskIo};
use crate::error::Fault;
use crate::snapshot::Image;
use crate::store::StoreReader;
use crate::wal::{HardState, NewBatch, Space, Wal};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Bytes of the image read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Copies the newest durable state into `directory`; the revision that it stands at. `files` are the copy's.
///
/// # Errors
/// [`Fault::Unusable`] if there is a database; [`Fault::Corrupt`] if a page is damaged; [`Fault::Io`].
pub(super) fn copy(
    reader: &StoreReader,
    directory: &Directory,
    files: &Files,
    clock: &mut dyn FnMut() -> Micros,
) -> Result<i64, Fault> {
    for there in [&files.pages.path, &files.wal.dir] {
        if there.exists() {
            let reason = "it is there already; a copy wants a directory of its own".to_string();
            return Err(Fault::Unusable { path: there.clone(), reason });
        }
    }
    let image = directory.unfinished();
    write_image(reader, &image)?;
    let mut disk = disk::open_disk(DiskIo::Sync).map_err(io_fault("start", &image))?;
    let copied = Image::open(disk.as_mut(), &image).and_then(|opened| {
        opened.write_page_file(&files.pages.path, files.pages.owner, &mut |_, _| {})?;
        Ok((opened.root().tx, opened.root().standing))
    });
    std::fs::remove_file(&image).map_err(io_fault("remove", &image))?;
    let (tx, standing) = copied?;
    directory.sync()?;
    write_log(disk.as_mut(), files, (tx, standing.applied), clock)?;
    directory.sync()?;
    Ok(standing.revision)
}

fn io_fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
    let path = path.to_path_buf();
    move |source| Fault::Io { operation, path, offset: 0, source }
}

fn write_image(reader: &StoreReader, path: &Path) -> Result<(), Fault> {
    let mut source = reader.snapshot("")?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file: File = file.map_err(io_fault("create", path))?;
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        source.read(&mut piece, PIECE_BYTES).map_err(|fault| *fault)?;
        if piece.is_empty() {
            return Ok(());
        }
        file.write_all(&piece).map_err(io_fault("write", path))?;
    }
}

/// A log without entries that names the page file's state.
fn write_log(
    disk: &mut dyn Disk,
    files: &Files,
    checkpoint: (u64, u64),
    clock: &mut dyn FnMut() -> Micros,
) -> Result<(), Fault> {
    let (mut wal, _) = Wal::open(disk, files.wal.clone(), clock(), &mut |_| Ok(()))?;
    let (tx, applied) = checkpoint;
    wal.set_checkpoint(tx, applied);
    let hard_state = HardState { term: TERM, vote: 0, commit: applied };
    wal.append(NewBatch { hard_state, entries: Vec::new() });
    wal.close();
    let mut completions: Vec<Completion> = Vec::new();
    loop {
        let now = clock();
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            let stranger = wal.complete(completion, now);
            debug_assert!(stranger.is_none(), "a completion belongs to nobody: {stranger:?}");
        }
        wal.step(disk, now)?;
        if wal.closed() {
            return Ok(());
        }
        if wal.space() == Space::Reserve {
            return Err(io_fault("allocate", &files.wal.dir)(io::ErrorKind::StorageFull.into()));
        }
        disk.wait(wal.wakeup().map(|at| at.saturating_sub(now)));
    }
}
