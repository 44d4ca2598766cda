//! The directory: made, checked, locked.
//!
//! ```text
//! <dir>/        0700
//!   lock        held as long as a database uses the directory
//!   wal/        0700, the log's segments
//!   pages       0600, the page file
//!   unfinished  only in a copy that is being made, or was not finished: what it is made from
//! ```
//! The lock is the system's and so never stale after a crash. A directory that has `unfinished` is opened by nobody: it is
//! made before anything else of a copy, and goes after everything else of it is durable.

use crate::error::Fault;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A directory that is this database's own.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The lock lives as long as the file is open.
    _lock: File,
}

impl Directory {
    /// Makes what is missing and locks it.
    ///
    /// # Errors
    /// [`Fault::Unusable`] if it is in use, an etcd member's, or a copy that was not finished: nothing is made then;
    /// [`Fault::Io`].
    pub(super) fn open(path: &Path) -> Result<Directory, Fault> {
        let member = path.join("member");
        if member.join("wal").exists() || member.join("snap").exists() {
            let reason = "it holds the data of an etcd member, which were left untouched".to_string();
            return Err(Fault::Unusable { path: path.to_path_buf(), reason });
        }
        check_finished(path)?;
        make(path)?;
        let directory = Directory { path: path.to_path_buf(), _lock: lock(path)? };
        // whoever had the lock until now may have begun a copy
        check_finished(path)?;
        Ok(directory)
    }

    /// Where the log's segments lie.
    pub(super) fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// Where the page file lies.
    pub(super) fn pages(&self) -> PathBuf {
        self.path.join("pages")
    }

    /// What a copy is made from; gone when it is done.
    pub(super) fn unfinished(&self) -> PathBuf {
        unfinished(&self.path)
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub(super) fn sync(&self) -> Result<(), Fault> {
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(io_fault("sync", &self.path))
    }
}

fn unfinished(directory: &Path) -> PathBuf {
    directory.join("unfinished")
}

fn check_finished(directory: &Path) -> Result<(), Fault> {
    if !unfinished(directory).exists() {
        return Ok(());
    }
    let reason = "it holds a copy that was not finished: unless one is being made there now, remove the directory and \
                  copy again"
        .to_string();
    Err(Fault::Unusable { path: directory.to_path_buf(), reason })
}

fn io_fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
    let path = path.to_path_buf();
    move |source| Fault::Io { operation, path, offset: 0, source }
}

/// Makes a directory, and those above it, for this user alone. All that get a new name are synced: a directory that is
/// not in its parent after a power cut would take the data with it.
fn make(path: &Path) -> Result<(), Fault> {
    let absolute = std::path::absolute(path).map_err(io_fault("find", path))?;
    let there = absolute.ancestors().position(Path::is_dir).unwrap_or(0);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_fault("create", path))?;
    for parent in absolute.ancestors().skip(1).take(there.max(1)) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_fault("sync", parent))?;
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, Fault> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(io_fault("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let reason = "in use: another process, or this one, has it open".to_string();
            Err(Fault::Unusable { path: directory.to_path_buf(), reason })
        }
        Err(TryLockError::Error(source)) => Err(io_fault("lock", &path)(source)),
    }
}
