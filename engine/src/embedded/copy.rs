//! A copy of a database that goes on being written: its newest durable state as a database of its own.
//!
//! ```text
//!  durable root ──> image ──> pages ──> a log that names the page file as its checkpoint ──> the image goes
//!                  (checked)
//! ```
//! The image's file is the mark of a copy that is not whole, and such a directory is opened by nobody: it is the first that is
//! made there, and goes when all the rest is durable. A copy that fails leaves it, and what else there is, to whoever removes
//! the directory.

use super::core::TERM;
use super::directory::Directory;
use super::opening::Files;
use crate::Micros;
use crate::disk::{self, Completion, Disk, DiskIo};
use crate::error::Fault;
use crate::snapshot::Image;
use crate::store::StoreReader;
use crate::wal::{HardState, NewBatch, Wal};
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
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&image);
    let file = file.map_err(io_fault("create", &image))?;
    directory.sync()?;
    write_image(reader, file, &image)?;
    let mut disk = disk::open_disk(DiskIo::Sync).map_err(io_fault("start", &image))?;
    let opened = Image::open(disk.as_mut(), &image)?;
    opened.write_page_file(&files.pages.path, files.pages.owner, &mut |_, _| {})?;
    let (tx, standing) = (opened.root().tx, opened.root().standing);
    drop(opened);
    directory.sync()?;
    write_log(disk.as_mut(), files, (tx, standing.applied), clock)?;
    directory.sync()?;
    std::fs::remove_file(&image).map_err(io_fault("remove", &image))?;
    directory.sync()?;
    Ok(standing.revision)
}

fn io_fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
    let path = path.to_path_buf();
    move |source| Fault::Io { operation, path, offset: 0, source }
}

fn write_image(reader: &StoreReader, mut file: File, path: &Path) -> Result<(), Fault> {
    let mut source = reader.snapshot("")?;
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
        if let Some(full) = wal.no_room() {
            return Err(full);
        }
        disk.wait(wal.wakeup().map(|at| at.saturating_sub(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::shell;
    use super::super::{Db, Options};
    use super::*;
    use crate::command::PutRequest;

    #[test]
    fn a_copy_without_its_log_cannot_be_opened() {
        let temporary = tempfile::tempdir().expect("a directory");
        let db = Db::open(Options::new(temporary.path().join("db"))).expect("it opens");
        for revision in 2..5 {
            let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
            assert_eq!(db.put(put).expect("it is put").revision, revision);
        }
        db.checkpoint().expect("it is durable");
        let to = temporary.path().join("copy");
        let directory = Directory::open(&to).expect("it is made");
        let mut files = shell::files(&Options::new(&to), &directory);
        // where no directory can be
        files.wal.dir = to.join("lock/wal");
        let reader = db.reader.begin().expect("it is open");
        let failed = copy(&reader, &directory, &files, &mut || 0).expect_err("there is no log");
        assert!(matches!(failed, Fault::Io { operation: "create", .. }), "{failed}");
        assert!(directory.pages().exists() && directory.unfinished().exists());
        drop(directory);
        let refused = Db::open(Options::new(&to)).expect_err("it is not whole");
        assert!(refused.to_string().contains("not finished"), "{refused}");
    }
}
