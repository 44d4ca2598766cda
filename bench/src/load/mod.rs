//! Drives an endpoint and measures what each request took.
//!
//! *Closed loop* (no `--rate`): every client sends its next request when the answer to the last is there.
//! *Open loop* (`--rate`): request i is due at i / rate, whatever became of the others, and its latency counts from when it
//! was due: a server that stalls is charged for every request that would have come meanwhile (no coordinated omission).
//! `--meanwhile` starts one piece of background work a sixth into the run, to see whom it disturbs.

pub(crate) mod drive;
mod meanwhile;
mod process;
pub(crate) mod report;
mod wire;

pub use wire::Client;

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Why a run could not be done.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Put every key once, in order.
    Fill,
    /// Put random keys.
    Put,
    /// Linearizable range of one random key.
    Range,
    /// The same, answered by the member alone.
    Serializable,
    /// `--limit` keys in a row from a random one on.
    List,
    /// Count of all keys.
    Count,
    /// Compare the revision of a random key and put it, as Kubernetes updates an object.
    Txn,
    /// Put and range, by `--range-percent`.
    Mixed,
}

/// What is started a sixth into the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Meanwhile {
    /// Nothing.
    Nothing,
    /// Compaction to the revision of that moment.
    Compaction,
    /// A checkpoint of coffer's page file, at once and without its usual pauses: what a snapshot begins with. The snapshot
    /// ends there.
    Checkpoint,
    /// A snapshot, read to its end.
    Snapshot,
    /// Defragment.
    Defragment,
    /// Deletes the first nine of ten keys before the run, compacts, and starts Defragment in it.
    Shrink,
}

/// One run.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// Where the member is.
    #[arg(long, default_value = "http://127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// What to do.
    #[arg(long, value_enum, default_value = "mixed")]
    pub work: Work,
    /// What sends the requests.
    #[arg(long, value_enum, default_value = "h2")]
    pub client: Client,
    /// Keys of a list.
    #[arg(long, default_value_t = 1_000)]
    pub limit: i64,
    /// Percent of ranges in mixed work.
    #[arg(long, default_value_t = 50)]
    pub range_percent: u64,
    /// Connections, dealt to the endpoints in turn.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Clients that wait for one answer each, dealt to the connections in turn.
    #[arg(long, default_value_t = 256)]
    pub clients: usize,
    /// Keys there are.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of a key.
    #[arg(long, default_value_t = 24)]
    pub key_bytes: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Requests a second, all clients together; none: closed loop.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long, in seconds (fill: until all keys are there).
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// So many requests, whatever time they take.
    #[arg(long)]
    pub requests: Option<u64>,
    /// Where the sequence of keys begins.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What goes on beside.
    #[arg(long, value_enum, default_value = "nothing")]
    pub meanwhile: Meanwhile,
    /// The server's process, whose CPU and memory are shown.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Also write the figures here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

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
