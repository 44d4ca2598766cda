//! The rpcs that are counted, and the cells they are counted in.
//!
//! Every method of etcd's services has its series from the start, at 0, with one series for each gRPC code: dashboards
//! and tests look for them before the first request. Lock and Election are not among them, as with etcd.

use super::Metrics;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tonic::Code;

/// What flows in an rpc, as the label `grpc_type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One request, one reply.
    Unary,
    /// One request, a stream of replies.
    ServerStream,
    /// Two streams.
    BidiStream,
}

impl Shape {
    /// The value of `grpc_type`.
    pub fn label(self) -> &'static str {
        match self {
            Shape::Unary => "unary",
            Shape::ServerStream => "server_stream",
            Shape::BidiStream => "bidi_stream",
        }
    }
}

/// What is told about a method.
struct Row {
    method: Method,
    service: &'static str,
    name: &'static str,
    shape: Shape,
    /// The `type` of `etcd_server_request_duration_seconds`, for requests that etcd measures there.
    request: Option<&'static str>,
}

macro_rules! methods {
    ($($variant:ident $service:literal $name:literal $shape:ident $request:expr;)*) => {
        /// A method of a service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $(
                #[doc = concat!("`", $service, "/", $name, "`")]
                $variant,
            )*
        }

        const ROWS: &[Row] = &[
            $(Row { method: Method::$variant, service: $service, name: $name, shape: Shape::$shape, request: $request },)*
        ];
    };
}

methods! {
    Range "etcdserverpb.KV" "Range" Unary Some("Range");
    RangeStream "etcdserverpb.KV" "RangeStream" ServerStream Some("RangeStream");
    Put "etcdserverpb.KV" "Put" Unary Some("Put");
    DeleteRange "etcdserverpb.KV" "DeleteRange" Unary Some("DeleteRange");
    Txn "etcdserverpb.KV" "Txn" Unary Some("Txn");
    Compact "etcdserverpb.KV" "Compact" Unary Some("Compaction");
    Watch "etcdserverpb.Watch" "Watch" BidiStream None;
    LeaseGrant "etcdserverpb.Lease" "LeaseGrant" Unary Some("LeaseGrant");
    LeaseRevoke "etcdserverpb.Lease" "LeaseRevoke" Unary Some("LeaseRevoke");
    LeaseKeepAlive "etcdserverpb.Lease" "LeaseKeepAlive" BidiStream None;
    LeaseTimeToLive "etcdserverpb.Lease" "LeaseTimeToLive" Unary None;
    LeaseLeases "etcdserverpb.Lease" "LeaseLeases" Unary None;
    MemberAdd "etcdserverpb.Cluster" "MemberAdd" Unary None;
    MemberRemove "etcdserverpb.Cluster" "MemberRemove" Unary None;
    MemberUpdate "etcdserverpb.Cluster" "MemberUpdate" Unary None;
    MemberList "etcdserverpb.Cluster" "MemberList" Unary None;
    MemberPromote "etcdserverpb.Cluster" "MemberPromote" Unary None;
    Alarm "etcdserverpb.Maintenance" "Alarm" Unary Some("Alarm");
    Status "etcdserverpb.Maintenance" "Status" Unary None;
    Defragment "etcdserverpb.Maintenance" "Defragment" Unary None;
    Hash "etcdserverpb.Maintenance" "Hash" Unary None;
    HashKv "etcdserverpb.Maintenance" "HashKV" Unary None;
    Snapshot "etcdserverpb.Maintenance" "Snapshot" ServerStream None;
    MoveLeader "etcdserverpb.Maintenance" "MoveLeader" Unary None;
    Downgrade "etcdserverpb.Maintenance" "Downgrade" Unary None;
    AuthEnable "etcdserverpb.Auth" "AuthEnable" Unary Some("AuthEnable");
    AuthDisable "etcdserverpb.Auth" "AuthDisable" Unary Some("AuthDisable");
    AuthStatus "etcdserverpb.Auth" "AuthStatus" Unary Some("AuthStatus");
    Authenticate "etcdserverpb.Auth" "Authenticate" Unary Some("Authenticate");
    UserAdd "etcdserverpb.Auth" "UserAdd" Unary Some("AuthUserAdd");
    UserGet "etcdserverpb.Auth" "UserGet" Unary Some("AuthUserGet");
    UserList "etcdserverpb.Auth" "UserList" Unary Some("AuthUserList");
    UserDelete "etcdserverpb.Auth" "UserDelete" Unary Some("AuthUserDelete");
    UserChangePassword "etcdserverpb.Auth" "UserChangePassword" Unary Some("AuthUserChangePassword");
    UserGrantRole "etcdserverpb.Auth" "UserGrantRole" Unary Some("AuthUserGrantRole");
    UserRevokeRole "etcdserverpb.Auth" "UserRevokeRole" Unary Some("AuthUserRevokeRole");
    RoleAdd "etcdserverpb.Auth" "RoleAdd" Unary Some("AuthRoleAdd");
    RoleGet "etcdserverpb.Auth" "RoleGet" Unary Some("AuthRoleGet");
    RoleList "etcdserverpb.Auth" "RoleList" Unary Some("AuthRoleList");
    RoleDelete "etcdserverpb.Auth" "RoleDelete" Unary Some("AuthRoleDelete");
    RoleGrantPermission "etcdserverpb.Auth" "RoleGrantPermission" Unary Some("AuthRoleGrantPermission");
    RoleRevokePermission "etcdserverpb.Auth" "RoleRevokePermission" Unary Some("AuthRoleRevokePermission");
    HealthCheck "grpc.health.v1.Health" "Check" Unary None;
    HealthList "grpc.health.v1.Health" "List" Unary None;
    HealthWatch "grpc.health.v1.Health" "Watch" ServerStream None;
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = ROWS.len();

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// All methods.
    pub fn all() -> impl Iterator<Item = Method> {
        ROWS.iter().map(|row| row.method)
    }

    /// The service, package included.
    pub fn service(self) -> &'static str {
        self.row().service
    }

    /// The method's name in its service.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What flows in it.
    pub fn shape(self) -> Shape {
        self.row().shape
    }

    /// Its name as a request, if etcd measures it as one.
    pub fn request(self) -> Option<&'static str> {
        self.row().request
    }

    /// The method of a request path, `/package.Service/Method`.
    pub fn from_path(path: &str) -> Option<Method> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        ROWS.iter().find(|row| row.name == name && row.service == service).map(|row| row.method)
    }
}

/// gRPC's codes by number, as the label `grpc_code` spells them.
pub(super) const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Bounds of `grpc_server_handling_seconds`.
pub(super) const HANDLING_BOUNDS_NS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Bounds of `etcd_server_request_duration_seconds`: 1 ms, doubled 13 times.
pub(super) const REQUEST_BOUNDS_NS: [u64; 14] = {
    let mut bounds = [1_000_000; 14];
    let mut i = 1;
    while i < bounds.len() {
        bounds[i] = bounds[i - 1] * 2;
        i += 1;
    }
    bounds
};

/// etcd's bounds for ranges, 0.1 ms doubled each time.
pub(super) const RANGE_BOUNDS_NS: [u64; 20] = {
    let mut bounds = [100_000; 20];
    let mut i = 1;
    while i < bounds.len() {
        bounds[i] = bounds[i - 1] * 2;
        i += 1;
    }
    bounds
};

/// A histogram of durations; `counts[i]` are the observations above bound `i - 1` and not above bound `i`.
#[derive(Debug)]
pub(super) struct Durations<const N: usize> {
    pub(super) counts: [AtomicU64; N],
    pub(super) above: AtomicU64,
    pub(super) sum_ns: AtomicU64,
}

impl<const N: usize> Default for Durations<N> {
    fn default() -> Durations<N> {
        Durations {
            counts: [const { AtomicU64::new(0) }; N],
            above: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Durations<N> {
    pub(super) fn observe(&self, bounds_ns: &[u64; N], ns: u64) {
        let place = bounds_ns.partition_point(|bound| *bound < ns);
        self.counts.get(place).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// What one thread counted of one method.
#[derive(Debug, Default)]
pub(super) struct Cell {
    pub(super) started: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) handled: [AtomicU64; CODE_NAMES.len()],
    /// Failed requests, then successful ones.
    pub(super) requests: [Durations<14>; 2],
    pub(super) handling: Durations<11>,
}

/// The counters of one method, of the thread that asked for them.
#[derive(Clone, Copy, Debug)]
pub struct Rpc<'a> {
    pub(super) cell: &'a Cell,
    pub(super) method: Method,
    pub(super) extensive: bool,
}

impl Rpc<'_> {
    /// An rpc began.
    pub fn started(self) {
        self.cell.started.fetch_add(1, Ordering::Relaxed);
    }

    /// A message came.
    pub fn received(self) {
        self.cell.received.fetch_add(1, Ordering::Relaxed);
    }

    /// So many messages went.
    pub fn sent(self, messages: u64) {
        self.cell.sent.fetch_add(messages, Ordering::Relaxed);
    }

    /// An rpc ended, `elapsed_ns` after it began.
    pub fn handled(self, code: Code, elapsed_ns: u64) {
        let number = code as usize;
        self.cell.handled.get(number).unwrap_or(&self.cell.handled[2]).fetch_add(1, Ordering::Relaxed);
        if self.method.request().is_some() {
            let success = usize::from(code == Code::Ok);
            self.cell.requests[success].observe(&REQUEST_BOUNDS_NS, elapsed_ns);
        }
        if self.extensive {
            self.cell.handling.observe(&HANDLING_BOUNDS_NS, elapsed_ns);
        }
    }
}

/// An rpc under way. It counts as started at once, and as handled when it is finished; one that is dropped unfinished
/// was given up by its client and counts as canceled.
///
/// `M` is how the metrics are held: a reference in a unary handler, an `Arc` in a stream that outlives it.
#[derive(Debug)]
pub struct Call<M: Deref<Target = Metrics>> {
    metrics: M,
    method: Method,
    began: Instant,
    finished: bool,
}

impl<M: Deref<Target = Metrics>> Call<M> {
    /// Begins an rpc.
    pub fn start(metrics: M, method: Method) -> Call<M> {
        metrics.rpc(method).started();
        Call { metrics, method, began: Instant::now(), finished: false }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// A message came.
    pub fn received(&self) {
        self.metrics.rpc(self.method).received();
    }

    /// So many messages went.
    pub fn sent(&self, messages: u64) {
        self.metrics.rpc(self.method).sent(messages);
    }

    /// Ends it.
    pub fn finish(mut self, code: Code) {
        self.end(code);
    }

    fn end(&mut self, code: Code) {
        self.finished = true;
        let elapsed_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.metrics.rpc(self.method).handled(code, elapsed_ns);
    }
}

impl<M: Deref<Target = Metrics>> Drop for Call<M> {
    fn drop(&mut self) {
        if !self.finished {
            self.end(Code::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_stands_at_the_place_of_its_method() {
        for (place, row) in ROWS.iter().enumerate() {
            assert_eq!(row.method as usize, place, "{}", row.name);
        }
        assert_eq!(Method::COUNT, 45, "etcd 3.7 registers 45 methods");
    }

    #[test]
    fn a_path_finds_its_method_and_no_other() {
        assert_eq!(Method::from_path("/etcdserverpb.KV/Range"), Some(Method::Range));
        assert_eq!(Method::from_path("/etcdserverpb.Watch/Watch"), Some(Method::Watch));
        assert_eq!(Method::from_path("/grpc.health.v1.Health/Watch"), Some(Method::HealthWatch));
        for wrong in [
            "",
            "/",
            "etcdserverpb.KV/Range",
            "/etcdserverpb.KV/range",
            "/etcdserverpb.Watch/Range",
            "/a/b/c",
        ] {
            assert_eq!(Method::from_path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duration_is_counted_at_the_first_bound_that_is_not_below_it() {
        let durations = Durations::<14>::default();
        for ns in [0, 1_000_000, 1_000_001, 8_192_000_000, 8_192_000_001] {
            durations.observe(&REQUEST_BOUNDS_NS, ns);
        }
        let counts: Vec<u64> = durations.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts[0], 2);
        assert_eq!(counts[1], 1);
        assert_eq!(counts[13], 1);
        assert_eq!(durations.above.load(Ordering::Relaxed), 1);
        assert_eq!(counts.iter().sum::<u64>(), 4);
    }
}
