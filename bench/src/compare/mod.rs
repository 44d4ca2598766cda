//! `coffer-bench compare`: coffer, etcd and servers that do nothing under the same work in one go, and a report of it.
//!
//! `scripts/compare.sh` builds what this needs and calls it; docs/benchmarks.md explains each figure.
//!
//! | room | what it does |
//! |---|---|
//! | `plan` | which works, in which phases, on which servers |
//! | `rounds` | runs the plan: servers in turn, the load generator as a process of its own |
//! | `server`, `child` | starts servers and ends them, come what may |
//! | `floor` | what the disk itself takes for a durable write |
//! | `data`, `figures` | data.json; medians and spreads |
//! | `judge` | the goals of one member against the figures |
//! | `report`, `plots`, `canvas` | report.md and its drawings, from data.json alone |
//! | `machine` | where and when |
//! | `verify` | whether a report is whole |

mod canvas;
mod child;
mod data;
mod figures;
mod floor;
mod judge;
mod machine;
mod plan;
mod plots;
mod report;
mod rounds;
mod server;
mod verify;

pub use plan::Scale;
pub use server::Server;

use crate::load::Failed;
use clap::Args;
use data::Data;
use machine::Moment;
use plan::{Phase, Sizes};
use serde_json::{Value, json};
use server::Binaries;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Seconds of each measurement of the disk: thousands of writes.
const FLOOR_SECONDS: f64 = 2.0;
/// The store grows to so many keys before they are counted.
const COUNTED_KEYS: u64 = 1_000_000;

/// What to compare, and how.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// coffer's binary.
    #[arg(long, default_value = "target/release/coffer")]
    pub coffer: PathBuf,
    /// etcd's binary.
    #[arg(long, default_value = "etcd")]
    pub etcd: PathBuf,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "null-tonic,null-h2,coffer,etcd")]
    pub servers: Vec<Server>,
    /// How often all is run; 3, or 1 with --quick or --scale.
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Seconds of each work; 10, or 1 with --quick, 5 with --scale.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Keys there are; 100,000, or 10,000 with --quick. With --scale keys: at the most, 10,000,000.
    #[arg(long)]
    pub keys: Option<u64>,
    /// A small run that shows that all works. Its figures are not to be quoted.
    #[arg(long)]
    pub quick: bool,
    /// Instead of the standard run: what a request costs as this grows.
    #[arg(long, value_enum)]
    pub scale: Option<Scale>,
    /// Where the report goes; bench/results/DATE-COMMIT unless given.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Where the servers' data stands meanwhile; a new directory below the system's unless given.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The command line that the report gives.
    #[arg(long, hide = true)]
    pub command: Option<String>,
    /// Only checks that the report in this directory is whole.
    #[arg(long, value_name = "DIR", conflicts_with = "render")]
    pub verify: Option<PathBuf>,
    /// Only writes report.md and the drawings in this directory again, from its data.json.
    #[arg(long, value_name = "DIR")]
    pub render: Option<PathBuf>,
}

impl CompareOptions {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick || self.scale.is_some() { 1 } else { 3 })
    }

    fn sizes(&self) -> Sizes {
        let keys = match (self.scale, self.quick) {
            (Some(Scale::Keys), true) => 100_000,
            (Some(Scale::Keys), false) => 10_000_000,
            (_, true) => 10_000,
            (_, false) => 100_000,
        };
        let seconds = if self.quick {
            1.0
        } else if self.scale.is_some() {
            5.0
        } else {
            10.0
        };
        let keys = self.keys.unwrap_or(keys);
        Sizes {
            keys,
            seconds: self.seconds.unwrap_or(seconds),
            counted_keys: (!self.quick && keys < COUNTED_KEYS).then_some(COUNTED_KEYS),
            quick: self.quick,
        }
    }

    fn plan(&self) -> Vec<Phase> {
        match self.scale {
            Some(scale) => self.sizes().scale(scale),
            None => self.sizes().standard(),
        }
    }

    fn warnings(&self, changed: bool) -> Vec<&'static str> {
        let warnings = [
            (self.quick, "A quick run: it shows that all works. Its figures are not to be quoted."),
            (
                cfg!(debug_assertions),
                "The load generator and the null servers were built with assertions, coffer perhaps too: these figures \
                 are not to be quoted.",
            ),
            (changed, "Built from files that differ from the commit."),
        ];
        warnings.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text).collect()
    }
}

/// Runs the comparison and writes the report, or does what `--verify` and `--render` say.
///
/// # Errors
/// A server does not start, a figure is missing, a file cannot be written. Slow is not an error.
pub fn run(options: &CompareOptions) -> Result<(), Failed> {
    if let Some(directory) = &options.verify {
        return verify::verify(directory);
    }
    if let Some(directory) = &options.render {
        return render(&Data::read(&directory.join("data.json"))?, directory);
    }
    compare(options)
}

fn compare(options: &CompareOptions) -> Result<(), Failed> {
    child::end_all_on_signals()?;
    let begun = Instant::now();
    let work = Work::new(options.data.as_deref())?;
    let binaries = Binaries {
        coffer: options.coffer.clone(),
        etcd: options.etcd.clone(),
        bench: std::env::current_exe()?,
    };
    let (moment, commit) = (Moment::now(), machine::commit());
    let out = options.out.clone().unwrap_or_else(|| default_out(options, &moment, commit.as_ref()));
    std::fs::create_dir_all(&out)?;
    let phases = options.plan();
    let mut data = Data {
        about: about(options, &binaries, &moment, commit.as_ref(), &work.0)?,
        scale: options.scale.map(|scale| scale.axis().to_owned()),
        rounds: options.rounds(),
        steps: plan::infos(&phases),
        planned: plan::planned(&phases, &options.servers),
        runs: Vec::new(),
    };
    let floor_seconds = FLOOR_SECONDS.min(options.sizes().seconds);
    let mut bench = rounds::Bench::new(&binaries, work.0.clone(), &phases, floor_seconds);
    let failures = bench.run(&mut data, |data| data.write(&out.join("data.json")))?;
    data.about["took"] = json!(figures::duration(begun.elapsed().as_secs()));
    data.write(&out.join("data.json"))?;
    render(&data, &out)?;
    println!("{}", out.join("report.md").display());
    if !failures.is_empty() {
        return Err(format!("not all of it could be run:\n{}", failures.join("\n")).into());
    }
    verify::verify(&out)
}

fn render(data: &Data, directory: &Path) -> Result<(), Failed> {
    std::fs::write(directory.join("report.md"), report::text(data))?;
    plots::write(data, directory)
}

fn default_out(options: &CompareOptions, moment: &Moment, commit: Option<&(String, bool)>) -> PathBuf {
    let mut name = format!("{}-{}", moment.date(), commit.map_or("unknown", |(name, _)| name));
    if let Some(scale) = options.scale {
        name.push_str(&format!("-{scale:?}").to_lowercase());
    }
    if options.quick {
        name.push_str("-quick");
    }
    Path::new("bench/results").join(name)
}

fn about(
    options: &CompareOptions,
    binaries: &Binaries,
    moment: &Moment,
    commit: Option<&(String, bool)>,
    work: &Path,
) -> Result<Value, Failed> {
    let sizes = options.sizes();
    let changed = commit.is_some_and(|(_, changed)| *changed);
    Ok(json!({
        "date": format!("{}, {}", moment.date(), moment.time()),
        "command": options.command.clone().unwrap_or_else(|| std::env::args().collect::<Vec<_>>().join(" ")),
        "commit": commit.map(|(name, _)| name.clone()),
        "coffer": binaries.version(Server::Coffer),
        "etcd": binaries.version(Server::Etcd),
        "machine": machine::machine(),
        "kernel": machine::kernel(),
        "disk": machine::disk(work)?,
        "work": format!(
            "{} keys of 24 bytes, values of 256, 256 clients on 16 connections unless it is said, {} s each, {}; the load \
             generator on bare h2, on the same machine",
            figures::count(sizes.keys as f64),
            sizes.seconds,
            match options.rounds() {
                1 => "one round".to_owned(),
                rounds => format!("{rounds} rounds"),
            }
        ),
        "warnings": options.warnings(changed),
    }))
}

/// The directory that the servers' data stands in; it goes at the end.
struct Work(PathBuf);

impl Work {
    fn new(given: Option<&Path>) -> Result<Work, Failed> {
        let below = match given {
            Some(directory) => directory.to_owned(),
            // /tmp may be in memory
            None => std::env::var_os("TMPDIR").map_or(PathBuf::from("/var/tmp"), PathBuf::from),
        };
        let directory = below.join(format!("coffer-compare.{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Work(directory))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        compare: CompareOptions,
    }

    fn options(line: &str) -> CompareOptions {
        Line::try_parse_from(std::iter::once("compare").chain(line.split_whitespace())).unwrap().compare
    }

    #[test]
    fn a_quick_run_is_small_and_says_so() {
        let (quick, whole) = (options("--quick"), options(""));
        assert_eq!((quick.rounds(), whole.rounds()), (1, 3));
        assert!(quick.sizes().keys < whole.sizes().keys && quick.sizes().seconds < whole.sizes().seconds);
        assert!(quick.warnings(false).iter().any(|text| text.contains("quick")));
        assert!(whole.warnings(true).iter().any(|text| text.contains("differ")));
        assert_eq!(options("--quick --keys 77 --rounds 2 --seconds 0.5").sizes().keys, 77);
    }

    #[test]
    fn a_report_goes_where_its_date_and_commit_say() {
        let moment = Moment { year: 2026, month: 1, day: 2, seconds: 0 };
        let commit = ("abcd1234".to_owned(), false);
        let out = |line: &str| default_out(&options(line), &moment, Some(&commit));
        assert_eq!(out(""), Path::new("bench/results/2026-01-02-abcd1234"));
        assert_eq!(
            out("--scale values --quick"),
            Path::new("bench/results/2026-01-02-abcd1234-values-quick")
        );
    }

    #[test]
    fn a_million_keys_are_counted_unless_there_are_more_anyhow() {
        assert_eq!(options("").sizes().counted_keys, Some(COUNTED_KEYS));
        assert_eq!(options("--keys 10000000").sizes().counted_keys, None);
        assert_eq!(options("--quick").sizes().counted_keys, None);
    }
}
