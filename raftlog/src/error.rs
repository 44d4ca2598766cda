//! Why a member could not start, or stopped.

use coffer_engine::error::Fault;
use std::fmt;

/// Why a member did not start or could not go on.
#[derive(Debug)]
pub enum Error {
    /// The disk, or what is on it.
    Fault(Fault),
    /// The log lacks entries that were acknowledged.
    EntriesMissing {
        /// First missing index.
        first: u64,
        /// Last missing index.
        last: u64,
        /// How that is known, in brackets, or nothing.
        context: String,
    },
    /// The data belong to another cluster or member.
    WrongOwner(String),
    /// Something else that an operator must mend.
    Unusable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Fault(fault) => fault.fmt(f),
            Error::EntriesMissing { first, last, context } => write!(
                f,
                "the log lacks entries {first} to {last}, which were acknowledged{context}: this member cannot go on \
                 without them"
            ),
            Error::WrongOwner(text) | Error::Unusable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<Box<Fault>> for Error {
    fn from(fault: Box<Fault>) -> Error {
        Error::Fault(*fault)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Fault(fault)
    }
}
