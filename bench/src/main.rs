//! `coffer-bench`: measures a running member from outside.

use clap::{Parser, Subcommand};
use coffer_bench::load::{self, LoadOptions};
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
}

fn main() -> ExitCode {
    let Command::Load(options) = Arguments::parse().command;
    match load::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coffer-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
