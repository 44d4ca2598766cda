//! Refusals and faults.
//!
//! A *refusal* is part of the answer and alike on every member: it depends on the store's state and the command
//! alone. A *fault* is local (the disk failed, bytes are damaged): it names file, offset, expected and found, and
//! stops what it touches. That a member is busy is said above the engine.

use std::fmt;
use std::path::PathBuf;

/// Why a command or a read was refused. Each is one of etcd's errors; the server has the table of codes and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The revision asked for is below the compaction revision.
    Compacted,
    /// The revision asked for is above the current one.
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on an absent key.
    KeyNotFound,
    /// No such lease.
    LeaseNotFound,
    /// A lease of that id is there already.
    LeaseExist,
    /// Time to live above 9,000,000,000 s.
    LeaseTtlTooLarge,
    /// The NOSPACE alarm is up.
    NoSpace,
    /// The CORRUPT alarm is up.
    Corrupt,
    /// No such member.
    MemberNotFound,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Compacted => "required revision has been compacted",
            Refusal::FutureRevision => "required revision is a future revision",
            Refusal::KeyNotFound => "key not found",
            Refusal::LeaseNotFound => "requested lease not found",
            Refusal::LeaseExist => "lease already exists",
            Refusal::LeaseTtlTooLarge => "too large lease TTL",
            Refusal::NoSpace => "database space exceeded",
            Refusal::Corrupt => "corrupt cluster",
            Refusal::MemberNotFound => "member not found",
        })
    }
}

impl std::error::Error for Refusal {}

/// Something this member cannot go on with.
#[derive(Debug)]
pub enum Fault {
    /// An operation on a file failed.
    Io {
        /// What was tried: "write", "sync", "open", ...
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes are there that cannot be what was written.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The files are whole, but not ones this program may use: another's, another format's, in use.
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Why, with what to do about it.
        reason: String,
    },
    /// An earlier fault stopped this part; nothing more is done on it.
    Stopped,
}

impl Fault {
    /// The same fault once more: whoever is stopped by one returns it from then on.
    pub fn again(&self) -> Fault {
        match self {
            Fault::Io { operation, path, offset, source } => {
                let source = match source.raw_os_error() {
                    Some(number) => std::io::Error::from_raw_os_error(number),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                };
                Fault::Io { operation, path: path.clone(), offset: *offset, source }
            }
            Fault::Corrupt { path, offset, expected, found } => Fault::Corrupt {
                path: path.clone(),
                offset: *offset,
                expected: expected.clone(),
                found: found.clone(),
            },
            Fault::Unusable { path, reason } => {
                Fault::Unusable { path: path.clone(), reason: reason.clone() }
            }
            Fault::Stopped => Fault::Stopped,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io { operation, path, offset, source } => {
                write!(f, "{operation} failed: file {}, offset {offset}: {source}", path.display())
            }
            Fault::Corrupt { path, offset, expected, found } => write!(
                f,
                "corrupt: file {}, offset {offset}: expected {expected}, found {found}",
                path.display()
            ),
            Fault::Unusable { path, reason } => write!(f, "{}: {reason}", path.display()),
            Fault::Stopped => f.write_str("stopped by an earlier fault"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fault::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a read was not answered.
#[derive(Debug)]
pub enum ReadError {
    /// Refused, as on every member.
    Refused(Refusal),
    /// This member cannot read what the answer stands on; other reads go on.
    Fault(Box<Fault>),
}

impl From<Refusal> for ReadError {
    fn from(refusal: Refusal) -> ReadError {
        ReadError::Refused(refusal)
    }
}

impl From<Box<Fault>> for ReadError {
    fn from(fault: Box<Fault>) -> ReadError {
        ReadError::Fault(fault)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Refused(refusal) => refusal.fmt(f),
            ReadError::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}
