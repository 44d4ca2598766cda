//! `coffer-bench`: measures a running member from outside.

use clap::{Parser, Subcommand};
use coffer_bench::load::{self, LoadOptions};
use coffer_bench::stalls::{self, StallOptions};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "coffer-bench", about = "Measures a running coffer or etcd from outside")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drives an endpoint with puts and ranges and prints what they took.
    Load(LoadOptions),
    /// The longest request while a member compacts, checkpoints, is backed up or defragmented, beside quiet runs.
    Stalls(StallOptions),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(options) => load::run(&options),
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
