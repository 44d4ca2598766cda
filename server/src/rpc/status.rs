//! One table: our errors, etcd's codes and exact words.
//!
//! etcd's client maps errors by their text, Kubernetes and raw gRPC by their code, so both are contract
//! (api/v3rpc/rpctypes/error.go; server/etcdserver/api/v3rpc/util.go says which of them reach the wire as Unknown).

use coffer_engine::error::Refusal;
use coffer_raftlog::proposal::Busy;
use std::fmt;
use tonic::{Code, Status};

macro_rules! table {
    ($($variant:ident $code:ident $text:literal;)*) => {
        /// Everything a client can be told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Error {
            $(#[doc = concat!($text, " (", stringify!($code), ")")] $variant,)*
        }

        impl Error {
            /// All of them.
            pub const ALL: &[Error] = &[$(Error::$variant,)*];

            /// The code on the wire.
            pub fn code(self) -> Code {
                match self {
                    $(Error::$variant => Code::$code,)*
                }
            }

            /// The text on the wire.
            pub fn text(self) -> &'static str {
                match self {
                    $(Error::$variant => $text,)*
                }
            }
        }
    };
}

table! {
    EmptyKey InvalidArgument "etcdserver: key is not provided";
    KeyNotFound InvalidArgument "etcdserver: key not found";
    ValueProvided InvalidArgument "etcdserver: value is provided";
    LeaseProvided InvalidArgument "etcdserver: lease is provided";
    TooManyOps InvalidArgument "etcdserver: too many operations in txn request";
    DuplicateKey InvalidArgument "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion InvalidArgument "etcdserver: invalid client api version";
    InvalidSortOption InvalidArgument "etcdserver: invalid sort option";
    Compacted OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FutureRevision OutOfRange "etcdserver: mvcc: required revision is a future revision";
    NoSpace ResourceExhausted "etcdserver: mvcc: database space exceeded";
    LeaseNotFound NotFound "etcdserver: requested lease not found";
    LeaseExist FailedPrecondition "etcdserver: lease already exists";
    LeaseTtlTooLarge OutOfRange "etcdserver: too large lease TTL";
    WatchCanceled Cancelled "etcdserver: watch canceled";
    MemberExist FailedPrecondition "etcdserver: member ID already exist";
    PeerUrlExist FailedPrecondition "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted Unknown "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls InvalidArgument "etcdserver: given member URLs are invalid";
    MemberNotFound NotFound "etcdserver: member not found";
    MemberNotLearner FailedPrecondition "etcdserver: can only promote a learner member";
    LearnerNotReady FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners FailedPrecondition "etcdserver: too many learner members in cluster";
    ClusterIdMismatch FailedPrecondition "etcdserver: cluster ID mismatch";
    RequestTooLarge InvalidArgument "etcdserver: request is too large";
    TooManyRequests Unknown "etcdserver: too many requests";
    RootUserNotExist FailedPrecondition "etcdserver: root user does not exist";
    RootRoleNotExist FailedPrecondition "etcdserver: root user does not have root role";
    UserAlreadyExist FailedPrecondition "etcdserver: user name already exists";
    UserEmpty InvalidArgument "etcdserver: user name is empty";
    UserNotFound FailedPrecondition "etcdserver: user name not found";
    RoleAlreadyExist FailedPrecondition "etcdserver: role name already exists";
    RoleNotFound FailedPrecondition "etcdserver: role name not found";
    RoleEmpty InvalidArgument "etcdserver: role name is empty";
    AuthFailed InvalidArgument "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven InvalidArgument "etcdserver: permission not given";
    PermissionDenied PermissionDenied "etcdserver: permission denied";
    RoleNotGranted FailedPrecondition "etcdserver: role is not granted to the user";
    PermissionNotGranted FailedPrecondition "etcdserver: permission is not granted to the role";
    AuthNotEnabled FailedPrecondition "etcdserver: authentication is not enabled";
    InvalidAuthToken Unauthenticated "etcdserver: invalid auth token";
    InvalidAuthMgmt InvalidArgument "etcdserver: invalid auth management";
    AuthOldRevision InvalidArgument "etcdserver: revision of auth store is old";
    NoLeader Unavailable "etcdserver: no leader";
    NotLeader FailedPrecondition "etcdserver: not leader";
    LeaderChanged Unavailable "etcdserver: leader changed";
    NotCapable FailedPrecondition "etcdserver: not capable";
    Stopped Unavailable "etcdserver: server stopped";
    Timeout Unavailable "etcdserver: request timed out";
    TimeoutDueToLeaderFail Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost Unavailable "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex Unavailable "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy Unavailable "etcdserver: unhealthy cluster";
    Corrupt DataLoss "etcdserver: corrupt cluster";
    NotSupportedForLearner FailedPrecondition "etcdserver: rpc not supported for learner";
    BadLeaderTransferee FailedPrecondition "etcdserver: bad leader transferee";
    WrongDowngradeVersionFormat InvalidArgument "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion InvalidArgument "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable FailedPrecondition "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess FailedPrecondition "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade FailedPrecondition "etcdserver: no inflight downgrade job";
    Canceled Cancelled "etcdserver: request canceled";
    DeadlineExceeded DeadlineExceeded "context deadline exceeded";
    RangeStreamSort Unimplemented "RangeStream does not support custom sort orders";
    RangeStreamFilter Unimplemented "RangeStream does not support revision filters";
    TxnTooDeep InvalidArgument "etcdserver: too many levels of nested txns";
    WrongAnswer Internal "coffer: the answer is not one to this request";
}

impl Error {
    /// As gRPC has it.
    pub fn status(self) -> Status {
        Status::new(self.code(), self.text())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Error {}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        error.status()
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Compacted => Error::Compacted,
            Refusal::FutureRevision => Error::FutureRevision,
            Refusal::KeyNotFound => Error::KeyNotFound,
            Refusal::LeaseNotFound => Error::LeaseNotFound,
            Refusal::LeaseExist => Error::LeaseExist,
            Refusal::LeaseTtlTooLarge => Error::LeaseTtlTooLarge,
            Refusal::NoSpace => Error::NoSpace,
            Refusal::Corrupt => Error::Corrupt,
            Refusal::MemberNotFound => Error::MemberNotFound,
        }
    }
}

impl From<Busy> for Error {
    fn from(busy: Busy) -> Error {
        match busy {
            Busy::NoLeader => Error::NoLeader,
            Busy::LeaderChanged => Error::LeaderChanged,
            Busy::Stopped => Error::Stopped,
            Busy::TooManyRequests => Error::TooManyRequests,
            Busy::NoSpace => Error::NoSpace,
            Busy::NotLeader => Error::NotLeader,
        }
    }
}

/// What an rpc that does not exist yet is answered.
pub(crate) fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("coffer: {what} is not implemented yet"))
}

/// tonic's words for a message above the receive bound, in those of Go's gRPC, which clients know; `None` for any other.
pub(crate) fn in_gos_words(status: &Status) -> Option<Status> {
    let message = status.message();
    let plain = message
        .strip_prefix("Error, decoded message length too large: found ")
        .and_then(|rest| rest.strip_suffix(" bytes"))
        .and_then(|rest| rest.split_once(" bytes, the limit is: "))
        .map(|(found, limit)| format!("grpc: received message larger than max ({found} vs. {limit})"));
    let compressed = message
        .strip_prefix("Error decompressing: size limit, of ")
        .and_then(|rest| rest.strip_suffix(" bytes, exceeded while decompressing message"))
        .map(|limit| format!("grpc: received message after decompression larger than max {limit}"));
    plain.or(compressed).map(Status::resource_exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_errors_share_a_text() {
        let texts: BTreeSet<_> = Error::ALL.iter().map(|error| error.text()).collect();
        assert_eq!(texts.len(), Error::ALL.len());
    }

    #[test]
    fn codes_are_those_of_the_wire_where_etcd_declares_others() {
        assert_eq!(Error::TooManyRequests.code(), Code::Unknown);
        assert_eq!(Error::MemberNotEnoughStarted.code(), Code::Unknown);
        assert_eq!(Error::Corrupt.code(), Code::DataLoss);
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_in_gos_words() {
        let tonics = Status::out_of_range(
            "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes",
        );
        let status = in_gos_words(&tonics).expect("tonic's words are known");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (3000000 vs. 2097152)");
        let tonics = Status::resource_exhausted(
            "Error decompressing: size limit, of 2097152 bytes, exceeded while decompressing message",
        );
        let status = in_gos_words(&tonics).expect("tonic's words are known");
        assert_eq!(status.message(), "grpc: received message after decompression larger than max 2097152");
        assert!(in_gos_words(&Error::Compacted.status()).is_none());
    }
}
