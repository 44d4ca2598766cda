//! The data directory: made, checked, locked.
//!
//! ```text
//! <data-dir>/        0700
//!   lock             held as long as a process uses the directory
//!   pages            the page file
//!   wal/             0700, the log's segments (or wherever --wal-dir says; then with a lock of its own)
//! ```
//!
//! Rules kept here: one process at a time, told by the system's lock and so never stale after a crash; etcd's own data
//! are never touched, not even by making a file beside them.

use crate::config::Config;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the page file in a data directory.
pub const PAGE_FILE_NAME: &str = "pages";
/// Name of the log's directory in a data directory.
pub const WAL_DIR_NAME: &str = "wal";

/// Why a directory cannot be used.
#[derive(Debug)]
pub enum Refusal {
    /// It holds etcd's data.
    Etcd(PathBuf),
    /// Another process uses it.
    InUse(PathBuf),
    /// The system refused something.
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Etcd(path) => write!(
                f,
                "{} holds the data of an etcd member (member/wal, member/snap), which coffer cannot read; \
                 they were left untouched. Start coffer with another --data-dir and copy the keys over a client, \
                 for example with 'etcdctl make-mirror'",
                path.display()
            ),
            Refusal::InUse(path) => {
                write!(f, "data directory {} is in use by another process", path.display())
            }
            Refusal::Io { operation, path, source } => write!(f, "{operation} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Refusal {}

/// A directory that is this process's own.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    wal: PathBuf,
    fresh: bool,
    /// The locks live as long as the files are open: of the directory, and of a log that lies elsewhere.
    _locks: Vec<File>,
}

impl DataDirectory {
    /// Makes what is missing, refuses what is not coffer's, locks the rest.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(config: &Config) -> Result<DataDirectory, Refusal> {
        let path = config.data_dir.clone();
        if holds_etcd(&path) {
            return Err(Refusal::Etcd(path));
        }
        let wal = config.wal_dir.clone().unwrap_or_else(|| path.join(WAL_DIR_NAME));
        make(&path)?;
        let mut locks = vec![lock(&path)?];
        make(&wal)?;
        // Two data directories may name one log, and two members that write it lose what either acknowledged.
        if config.wal_dir.is_some() && !is_same(&path, &wal) {
            locks.push(lock(&wal)?);
        }
        let fresh = !coffer_engine::wal::is_begun(&wal);
        Ok(DataDirectory { path, wal, fresh, _locks: locks })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no member has ever run on it.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The page file.
    pub fn page_file(&self) -> PathBuf {
        self.path.join(PAGE_FILE_NAME)
    }

    /// Where the log's segments lie.
    pub fn wal_path(&self) -> &Path {
        &self.wal
    }
}

/// Whether both are names of one directory.
pub fn is_same(left: &Path, right: &Path) -> bool {
    let found = |path: &Path| std::fs::canonicalize(path).ok();
    found(left).is_some_and(|left| Some(left) == found(right))
}

fn holds_etcd(path: &Path) -> bool {
    let member = path.join("member");
    member.join("wal").exists() || member.join("snap").exists()
}

/// Makes a directory, and those above it, for this user alone. One that is there keeps its mode, as with etcd.
fn make(path: &Path) -> Result<(), Refusal> {
    let io = |operation| {
        let path = path.to_owned();
        move |source| Refusal::Io { operation, path, source }
    };
    // A directory that is not in its parent after a power cut would take the log with it: sync all that get a new name.
    let absolute = std::path::absolute(path).map_err(io("find"))?;
    let there = absolute.ancestors().position(Path::is_dir).unwrap_or(0);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create directory"))?;
    for parent in absolute.ancestors().skip(1).take(there.max(1)) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync the parent of"))?;
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, Refusal> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|source| Refusal::Io { operation: "open", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Refusal::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(Refusal::Io { operation: "lock", path, source }),
    }
}
