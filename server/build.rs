//! Compiles `proto/` into Rust, without protoc: protox parses the files, tonic-prost-build writes messages, servers
//! and clients. Bytes fields become `bytes::Bytes`, so that a value read off the wire is never copied.

use std::path::Path;

/// Every file of `proto/`; imports are found beside them.
const FILES: [&str; 6] =
    ["kv.proto", "auth.proto", "rpc.proto", "lock.proto", "election.proto", "health.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [Path::new("proto")])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(true)
        .build_server(true)
        .compile_fds(descriptors)?;
    Ok(())
}
