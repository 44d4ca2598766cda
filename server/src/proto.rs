//! What is generated from `proto/`: messages, servers and clients, in a module for each package.
//!
//! The clients are exported for tests and benches: they speak to any etcd.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the field tables in proto/ are its documentation"
)]

/// Key-values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles, permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The client API.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// gRPC's health protocol.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
