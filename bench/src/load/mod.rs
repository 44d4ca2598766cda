//! Drives an endpoint and measures what each request took.
//!
//! *Closed loop* (no `--rate`): every client sends its next request when the answer to the last is there.
//! *Open loop* (`--rate`): request i is due at i / rate, whatever became of the others, and its latency counts from when it
//! was due: a server that stalls is charged for every request that would have come meanwhile (no coordinated omission).
//! A thread says when requests are due, as a runtime's timers are too coarse for that.
//! `--meanwhile` starts one piece of background work a sixth into the run, to see whom it disturbs.

//!
//! | room | what it does |
//! |---|---|
//! | `options` | what can be asked of a run |
//! | `connect`, `socket`, `tls` | endpoints, which of them are driven, connections |
//! | `wire`, `answer` | requests and answers, on tonic and on bare h2 |
//! | `drive`, `pace` | a run: whose turn it is, what it took |
//! | `worker` | a client and its next request |
//! | `keys`, `zipf` | which key, and what is put there |
//! | `watch`, `lease` | watchers and what they must be told; leases kept alive |
//! | `meanwhile`, `process`, `report` | the work beside; CPU and memory; table and JSON |

mod answer;
mod connect;
pub(crate) mod drive;
mod keys;
mod lease;
mod meanwhile;
mod options;
mod pace;
mod process;
pub(crate) mod report;
mod socket;
mod tls;
mod watch;
mod wire;
mod worker;
mod zipf;

pub use options::{Client, Distribution, LoadOptions, Meanwhile, TlsOptions, To, WatchOn, Work};

/// Why a run could not be done.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Runs it and prints the figures.
///
/// # Errors
/// A request failed, or the endpoint was not there.
pub fn run(options: &LoadOptions) -> Result<(), Failed> {
    let measured = measure(options)?;
    report::print(options, &measured);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report::json(options, &measured))?)?;
    }
    Ok(())
}

/// Runs it.
pub(crate) fn measure(options: &LoadOptions) -> Result<drive::Measured, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(drive::drive(options))
}

#[cfg(test)]
mod tests;
