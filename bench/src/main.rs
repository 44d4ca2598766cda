//! `coffer-bench`: measures a running member from outside.

use clap::{Parser, Subcommand};
use coffer_bench::compare::{self, CompareOptions};
use coffer_bench::load::{self, LoadOptions};
use coffer_bench::null::{self, NullOptions};
use coffer_bench::stalls::{self, StallOptions};
use std::process::ExitCode;

/// coffer's own, for a fair null server and a cheap client.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "coffer-bench", about = "Measures a running coffer or etcd from outside")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs coffer, etcd and null servers under the same work, and writes a report with plots.
    Compare(CompareOptions),
    /// Drives an endpoint with puts and ranges and prints what they took.
    Load(LoadOptions),
    /// Answers Range and Put and does nothing: what a request costs at the least.
    Null(NullOptions),
    /// The longest request while a member compacts, checkpoints, is backed up or defragmented, beside quiet runs.
    Stalls(StallOptions),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Null(options) => null::run(&options),
        Command::Stalls(options) => stalls::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coffer-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
