//! Runs the plan: in each round every server, in each server's turn all phases, in each phase all steps. Who comes first
//! changes from round to round, so that nobody always has the fresh machine or the full disk.

use super::child::Process;
use super::data::{Data, FLOOR, Run};
use super::floor::Floor;
use super::plan::{Phase, Step};
use super::server::{Binaries, Running, Server};
use crate::load::Failed;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Seconds that start and end of a server take, for the estimate.
const START_SECONDS: f64 = 2.0;
/// A step that takes so many times its estimate, and so many seconds more, hangs.
const LATE_TIMES: f64 = 20.0;
const LATE_SECONDS: f64 = 120.0;

/// What does not change from step to step.
pub(super) struct Bench<'a> {
    pub(super) binaries: &'a Binaries,
    /// Where the servers' data and logs stand.
    pub(super) work: PathBuf,
    pub(super) phases: &'a [Phase],
    /// Seconds of each of the two measurements of the disk.
    pub(super) floor_seconds: f64,
    bar: ProgressBar,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        binaries: &'a Binaries,
        work: PathBuf,
        phases: &'a [Phase],
        floor_seconds: f64,
    ) -> Bench<'a> {
        Bench { binaries, work, phases, floor_seconds, bar: ProgressBar::hidden() }
    }

    /// Runs all rounds; each is told to `done` when it is there. What fails is noted and left out.
    pub(super) fn run(
        &mut self,
        data: &mut Data,
        done: impl Fn(&Data) -> Result<(), Failed>,
    ) -> Result<Vec<String>, Failed> {
        let servers = data.servers();
        let seconds: f64 = servers.iter().map(|server| self.estimate(*server)).sum();
        self.bar = bar(seconds * data.rounds as f64);
        let mut failures = Vec::new();
        for round in 1..=data.rounds {
            for number in 0..servers.len() {
                let server = servers[(number + round - 1) % servers.len()];
                if let Err(error) = self.turn(server, round, data, &mut failures) {
                    failures.push(format!("{}, round {round}: {error}", server.name()));
                }
            }
            done(data)?;
        }
        self.bar.finish_and_clear();
        Ok(failures)
    }

    fn estimate(&self, server: Server) -> f64 {
        let steps = self.phases.iter().flat_map(|phase| &phase.steps);
        let floor = if server.is_null() { 0.0 } else { 2.0 * self.floor_seconds };
        let of = |step: &Step| step.estimate() + if step.floor { floor } else { 0.0 };
        let running: f64 = steps.filter(|step| step.is_for(server)).map(of).sum();
        running + START_SECONDS * self.phases.len() as f64
    }

    /// One server through all phases; its data goes at the end.
    fn turn(
        &self,
        server: Server,
        round: usize,
        data: &mut Data,
        failures: &mut Vec<String>,
    ) -> Result<(), Failed> {
        let directory = self.work.join(format!("{}-{round}", server.name()));
        for (number, phase) in self.phases.iter().enumerate() {
            let steps: Vec<&Step> = phase.steps.iter().filter(|step| step.is_for(server)).collect();
            if steps.is_empty() {
                continue;
            }
            if phase.fresh && directory.exists() {
                std::fs::remove_dir_all(&directory)?;
            }
            let log = self.work.join(format!("{}-{round}-{number}.log", server.name()));
            let mut running = Running::start(server, self.binaries, &directory, &log)?;
            self.bar.inc(START_SECONDS as u64);
            for step in steps {
                if let Err(error) = self.step(server, round, step, &running, data) {
                    failures.push(format!("{}, round {round}, {}: {error}", server.name(), step.info.name));
                    running.still_there()?;
                }
            }
            running.stop()?;
        }
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        Ok(())
    }

    fn step(
        &self,
        server: Server,
        round: usize,
        step: &Step,
        running: &Running,
        data: &mut Data,
    ) -> Result<(), Failed> {
        self.tell(format!("round {round} of {}, {}: {}", data.rounds, server.name(), step.info.title));
        let mut floor = if step.floor && !server.is_null() { Some(Floor::new()?) } else { None };
        if let Some(floor) = &mut floor {
            floor.measure(&self.work, self.floor_seconds)?;
        }
        let figures = self.load(step, round, running)?;
        data.runs.push(Run { server, step: step.info.name.clone(), round, figures });
        if let Some(mut floor) = floor {
            floor.measure(&self.work, self.floor_seconds)?;
            data.runs.push(Run { server, step: FLOOR.to_owned(), round, figures: floor.json() });
        }
        self.bar.inc(step.estimate() as u64);
        Ok(())
    }

    /// Runs the load generator, as a process of its own whose CPU is its own.
    fn load(&self, step: &Step, round: usize, running: &Running) -> Result<Value, Failed> {
        let (json, log) = (self.work.join("load.json"), self.work.join("load.log"));
        for old in [&json, &log] {
            if old.exists() {
                std::fs::remove_file(old)?;
            }
        }
        let mut command = Command::new(&self.binaries.bench);
        command.arg("load").args(["--endpoints", &running.address]).args(step.arguments());
        command.args(["--pid", &running.pid().to_string(), "--seed", &round.to_string()]);
        command.arg("--json").arg(&json);
        let process = Process::start(&mut command, &log)?;
        let limit = Duration::from_secs_f64(step.estimate() * LATE_TIMES + LATE_SECONDS);
        let status = process.wait(limit)?;
        if !status.success() {
            return Err(format!("the load generator failed: {}", end_of(&log)).into());
        }
        Ok(serde_json::from_slice(&std::fs::read(&json)?)?)
    }

    /// To whoever looks at a terminal, and to a log.
    fn tell(&self, what: String) {
        if self.bar.is_hidden() {
            eprintln!("compare: {what}");
        }
        self.bar.set_message(what);
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

fn bar(seconds: f64) -> ProgressBar {
    let bar = ProgressBar::new(seconds as u64);
    bar.enable_steady_tick(Duration::from_secs(1));
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {percent}% eta {eta}\n{msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
