//! Why a call was not answered.

use crate::error::{Fault, ReadError, Refusal};
use std::fmt;
use std::sync::Arc;

/// Why a call was not answered. Everybody who waits gets the same fault, so it is shared.
#[derive(Clone, Debug)]
pub enum Error {
    /// The store refused it, by the state it was in. Nothing was changed.
    Refused(Refusal),
    /// No such request can be: found before it was queued. Nothing was changed.
    Invalid(Invalid),
    /// More waits to be written than may wait. Nothing was changed; try again.
    Busy,
    /// The database is closed. A write that was under way meanwhile may have been made or not.
    Closed,
    /// To a write: the database has stopped, every later call gives the same, and whether this write was made shows when it
    /// is opened again. To a read on a database that has not stopped: what the answer stands on cannot be read.
    Fault(Arc<Fault>),
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A put without a key.
    EmptyKey,
    /// A value although the present one is to be kept.
    ValueProvided,
    /// A lease although the present one is to be kept.
    LeaseProvided,
    /// A txn that would change a key twice.
    DuplicateKey,
    /// Txns inside one another, deeper than [`TXN_LEVELS_MAX`](crate::command::encoding::TXN_LEVELS_MAX).
    TxnTooDeep,
    /// A time to live of less than a second.
    TimeToLive,
    /// Larger than [`Options::command_bytes_max`](super::Options::command_bytes_max).
    TooLarge {
        /// Bytes it would take in the log.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::EmptyKey => f.write_str("key is not provided"),
            Invalid::ValueProvided => f.write_str("value is provided"),
            Invalid::LeaseProvided => f.write_str("lease is provided"),
            Invalid::DuplicateKey => f.write_str("duplicate key given in txn request"),
            Invalid::TxnTooDeep => f.write_str("txns lie too deep inside one another"),
            Invalid::TimeToLive => f.write_str("time to live is less than a second"),
            Invalid::TooLarge { bytes, limit } => {
                write!(f, "request is too large: {bytes} bytes, {limit} are allowed")
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(refusal) => refusal.fmt(f),
            Error::Invalid(invalid) => invalid.fmt(f),
            Error::Busy => f.write_str("too much waits to be written"),
            Error::Closed => f.write_str("the database is closed"),
            Error::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Fault(fault) => std::error::Error::source(fault.as_ref()),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Error {
        Error::Invalid(invalid)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Fault(Arc::new(fault))
    }
}

impl From<Box<Fault>> for Error {
    fn from(fault: Box<Fault>) -> Error {
        Error::Fault(Arc::new(*fault))
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Error {
        match error {
            ReadError::Refused(refusal) => Error::Refused(refusal),
            ReadError::Fault(fault) => fault.into(),
        }
    }
}
