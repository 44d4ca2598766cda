//! What background work does to the longest request.
//!
//! Half puts, half linearizable ranges in open loop. Every round is a pair: a quiet run, then one in which the background
//! work begins a sixth into it. A pair whose quiet run already has a request above the bound says nothing about
//! the work and is done again, up to twice; all are printed. For each kind of work the median of the rounds is told.
//!
//! | work | before each pair |
//! |---|---|
//! | checkpoint, snapshot, defragment | nothing |
//! | compaction | so many revisions are made that it has `--revisions` to go over |
//! | shrink | all keys are filled in again, nine of ten deleted and compacted; its own run then gives the space back |

use crate::load::drive::Measured;
use crate::load::{self, Failed, LoadOptions, Meanwhile, Work, report};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// A pair whose quiet run is above the bound is done again so often.
const REPEATS_MAX: usize = 2;
/// After what was written at full speed: it goes on to the medium for a while, and a run beside that is not quiet.
const SETTLES: Duration = Duration::from_secs(20);

/// So many that a stall of half a second leaves some for the requests that come meanwhile: else ranges wait for a client where
/// only puts wait for the server.
const OPEN_LOOP_CLIENTS: usize = 2_048;

/// What to run.
#[derive(Clone, Debug, Args)]
pub struct StallOptions {
    /// Where the member is.
    #[arg(long, default_value = "http://127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// Keys; they are filled in first.
    #[arg(long, default_value_t = 2_000_000)]
    pub keys: u64,
    /// The keys are there already.
    #[arg(long)]
    pub filled: bool,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024)]
    pub value_bytes: usize,
    /// Requests a second.
    #[arg(long, default_value_t = 5000.0)]
    pub rate: f64,
    /// Seconds of a run.
    #[arg(long, default_value_t = 60.0)]
    pub seconds: f64,
    /// Pairs for each kind of work.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Revisions that a compaction goes over at the least.
    #[arg(long, default_value_t = 1_000_000)]
    pub revisions: u64,
    /// The bound, in milliseconds.
    #[arg(long, default_value_t = 50.0)]
    pub bound_ms: f64,
    /// The kinds of work, in this order.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "checkpoint,snapshot,compaction,defragment,shrink"
    )]
    pub beside: Vec<Meanwhile>,
    /// The server's process, whose CPU and memory are told.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Also write all runs here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl StallOptions {
    fn load(&self, work: Work) -> LoadOptions {
        LoadOptions {
            endpoints: self.endpoints.clone(),
            work,
            connections: 8,
            keys: self.keys,
            value_bytes: self.value_bytes,
            seconds: self.seconds,
            pid: self.pid,
            ..LoadOptions::default()
        }
    }

    fn open_loop(&self, meanwhile: Meanwhile, seed: u64) -> LoadOptions {
        LoadOptions {
            rate: Some(self.rate),
            meanwhile,
            seed,
            clients: OPEN_LOOP_CLIENTS,
            ..self.load(Work::Mixed)
        }
    }
}

/// A run's longest request, in milliseconds.
fn longest_ms(measured: &Measured) -> f64 {
    measured.puts.max().max(measured.ranges.max()) as f64 / 1e3
}

/// The middle one.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs all and prints a table.
///
/// # Errors
/// A request failed, or the endpoint was not there.
pub fn run(options: &StallOptions) -> Result<(), Failed> {
    if !options.filled {
        let filled = load::measure(&options.load(Work::Fill))?;
        println!(
            "filled in {} keys of {} bytes in {:.0} s",
            options.keys,
            options.value_bytes,
            filled.took.as_secs_f64()
        );
    }
    println!(
        "{:<12} {:>5} {:<6} {:>9} {:>9} {:>9} {:>9}  beside",
        "work", "round", "run", "put p99.9", "put max", "get p99.9", "get max"
    );
    let (mut runs, mut medians, mut seed) = (Vec::new(), Vec::new(), 1);
    for &beside in &options.beside {
        let mut longest = Vec::new();
        for round in 1..=options.rounds {
            prepare(options, beside, round)?;
            for _ in 0..=REPEATS_MAX {
                seed += 2;
                let quiet = one(options, (beside, round), Meanwhile::Nothing, seed, &mut runs)?;
                if quiet <= options.bound_ms {
                    break;
                }
            }
            longest.push(one(options, (beside, round), beside, seed + 1, &mut runs)?);
        }
        medians.push((beside, median(&mut longest)));
    }
    println!("\nlongest request, median of {} rounds (bound {} ms)", options.rounds, options.bound_ms);
    for (beside, longest) in &medians {
        println!("{:<12} {longest:>9.1} ms", name(*beside));
    }
    if let Some(path) = &options.json {
        let medians: Vec<Value> =
            medians.iter().map(|(beside, ms)| json!({ "beside": name(*beside), "longest_ms": ms })).collect();
        std::fs::write(path, serde_json::to_vec_pretty(&json!({ "medians": medians, "runs": runs }))?)?;
    }
    Ok(())
}

/// What a kind of work needs before a pair.
fn prepare(options: &StallOptions, beside: Meanwhile, round: usize) -> Result<(), Failed> {
    match beside {
        Meanwhile::Compaction => {
            let seed = 1_000_000 + round as u64;
            let puts = LoadOptions { requests: Some(options.revisions), seed, ..options.load(Work::Put) };
            load::measure(&puts)?;
        }
        // the run that shrinks has deleted most keys
        Meanwhile::Shrink if round > 1 => drop(load::measure(&options.load(Work::Fill))?),
        _ if round > 1 => return Ok(()),
        _ => {}
    }
    std::thread::sleep(SETTLES);
    Ok(())
}

/// One run, printed; its longest request in milliseconds.
fn one(
    options: &StallOptions,
    (beside, round): (Meanwhile, usize),
    meanwhile: Meanwhile,
    seed: u64,
    runs: &mut Vec<Value>,
) -> Result<f64, Failed> {
    let load = options.open_loop(meanwhile, seed);
    let measured = load::measure(&load)?;
    let quiet = meanwhile == Meanwhile::Nothing;
    let ms = |us: u64| us as f64 / 1e3;
    println!(
        "{:<12} {round:>5} {:<6} {:>9.1} {:>9.1} {:>9.1} {:>9.1}  {}",
        name(beside),
        if quiet { "quiet" } else { "beside" },
        ms(measured.puts.value_at_quantile(0.999)),
        ms(measured.puts.max()),
        ms(measured.ranges.value_at_quantile(0.999)),
        ms(measured.ranges.max()),
        measured.beside.as_deref().unwrap_or("-"),
    );
    let mut run = report::json(&load, &measured);
    run["round"] = json!(round);
    run["of"] = json!(name(beside));
    runs.push(run);
    Ok(longest_ms(&measured))
}

fn name(beside: Meanwhile) -> String {
    format!("{beside:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&mut [9.0, 1.0, 4.0]), 4.0);
        assert!(median(&mut []).is_nan());
    }
}
