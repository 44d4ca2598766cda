//! data.json: what a comparison gave, as it is written and read again. Tables, verdicts and plots are made from it alone.
//!
//! | field | what it holds |
//! |---|---|
//! | `format` | 1 |
//! | `about` | date, commit, machine, kernel, disk, command, versions, sizes |
//! | `scale` | what grows, as an axis says it; null for the standard run |
//! | `rounds` | how often everything was run |
//! | `steps` | the works: name, group, title, the size on the axis, which latencies it has |
//! | `planned` | which server was to run which step, in every round |
//! | `runs` | server, step, round, and the load generator's own figures |

use super::figures::{Measure, Spread};
use super::server::Server;
use crate::load::Failed;
use serde_json::{Value, json};
use std::path::Path;

const FORMAT: u64 = 1;
/// The step that the disk's floor is kept as.
pub(super) const FLOOR: &str = "floor";

/// A work, as far as tables and plots need to know.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepInfo {
    /// Unique.
    pub(super) name: String,
    /// Steps of one group are one curve in a scale run.
    pub(super) group: String,
    /// For people.
    pub(super) title: String,
    /// Where on the axis of a scale run.
    pub(super) x: Option<u64>,
    /// Which of the load generator's latencies it has: put, range, lease, event.
    pub(super) latencies: Vec<String>,
}

impl StepInfo {
    /// Whether its operations are events rather than requests.
    pub(super) fn counts_events(&self) -> bool {
        self.latencies.iter().any(|kind| kind == "event")
    }
}

/// One run of the load generator.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) server: Server,
    pub(super) step: String,
    /// From 1.
    pub(super) round: usize,
    /// As the load generator gives them.
    pub(super) figures: Value,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Data {
    pub(super) about: Value,
    pub(super) scale: Option<String>,
    pub(super) rounds: usize,
    pub(super) steps: Vec<StepInfo>,
    pub(super) planned: Vec<(Server, String)>,
    pub(super) runs: Vec<Run>,
}

impl Data {
    /// The servers that take part, in the order of tables.
    pub(super) fn servers(&self) -> Vec<Server> {
        let takes_part = |server: &Server| self.planned.iter().any(|(planned, _)| planned == server);
        Server::ALL.into_iter().filter(takes_part).collect()
    }

    /// The steps without the disk's floor.
    pub(super) fn works(&self) -> impl Iterator<Item = &StepInfo> {
        self.steps.iter().filter(|step| step.name != FLOOR)
    }

    /// The names of the steps' groups, each once.
    pub(super) fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for step in self.works() {
            if !groups.contains(&step.group.as_str()) {
                groups.push(&step.group);
            }
        }
        groups
    }

    /// The run of a round.
    pub(super) fn run(&self, server: Server, step: &str, round: usize) -> Option<&Run> {
        self.runs.iter().find(|run| (run.server, run.step.as_str(), run.round) == (server, step, round))
    }

    /// A figure in every round; `None` where it is not there.
    pub(super) fn by_round(&self, server: Server, step: &str, measure: &Measure) -> Vec<Option<f64>> {
        let info = self.steps.iter().find(|info| info.name == step);
        (1..=self.rounds).map(|round| measure.of(info?, &self.run(server, step, round)?.figures)).collect()
    }

    /// A figure's median and spread over the rounds.
    pub(super) fn spread(&self, server: Server, step: &str, measure: &Measure) -> Option<Spread> {
        Spread::of(self.by_round(server, step, measure).into_iter().flatten())
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Failed> {
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&self.json())?)?)
    }

    pub(super) fn read(path: &Path) -> Result<Data, Failed> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let value: Value = serde_json::from_slice(&bytes)?;
        if value["format"] != json!(FORMAT) {
            return Err(format!("{}: format {}, not {FORMAT}", path.display(), value["format"]).into());
        }
        Data::from_json(&value).ok_or_else(|| format!("{}: a field is missing", path.display()).into())
    }

    fn json(&self) -> Value {
        let step = |step: &StepInfo| {
            json!({
                "name": step.name, "group": step.group, "title": step.title,
                "x": step.x, "latencies": step.latencies,
            })
        };
        let planned = |(server, step): &(Server, String)| json!({ "server": server.name(), "step": step });
        let run = |run: &Run| {
            json!({
                "server": run.server.name(), "step": run.step, "round": run.round, "figures": run.figures,
            })
        };
        json!({
            "format": FORMAT,
            "about": self.about,
            "scale": self.scale,
            "rounds": self.rounds,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "planned": self.planned.iter().map(planned).collect::<Vec<_>>(),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }

    fn from_json(value: &Value) -> Option<Data> {
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        let step = |value: &Value| {
            let latencies = value["latencies"].as_array()?.iter().map(text).collect::<Option<_>>()?;
            let (name, group) = (text(&value["name"])?, text(&value["group"])?);
            Some(StepInfo { name, group, title: text(&value["title"])?, x: value["x"].as_u64(), latencies })
        };
        let planned =
            |value: &Value| Some((Server::named(value["server"].as_str()?)?, text(&value["step"])?));
        let run = |value: &Value| {
            let (server, step) = planned(value)?;
            let round = usize::try_from(value["round"].as_u64()?).ok()?;
            Some(Run { server, step, round, figures: value["figures"].clone() })
        };
        Some(Data {
            about: value["about"].clone(),
            scale: text(&value["scale"]),
            rounds: usize::try_from(value["rounds"].as_u64()?).ok()?,
            steps: value["steps"].as_array()?.iter().map(step).collect::<Option<_>>()?,
            planned: value["planned"].as_array()?.iter().map(planned).collect::<Option<_>>()?,
            runs: value["runs"].as_array()?.iter().map(run).collect::<Option<_>>()?,
        })
    }
}

/// A small comparison whose figures the tests know.
#[cfg(test)]
pub(super) mod example {
    use super::*;

    /// Figures of a run as the load generator writes them.
    pub(crate) fn figures(kind: &str, rate: f64, p50_us: f64, cpu_us: f64) -> Value {
        let (seconds, requests) = (2.0, rate * 2.0);
        let latency = |p50: f64| {
            json!({
                "count": requests, "mean_us": p50, "p50_us": p50,
                "p99_us": p50 * 2.0, "p99.9_us": p50 * 4.0, "max_us": p50 * 8.0,
            })
        };
        let usage = |cpu_us: f64| {
            json!({
                "cpu_seconds": cpu_us * requests / 1e6, "anonymous_bytes": 50_000_000,
                "resident_bytes": 80_000_000, "written_bytes": (requests * 1_500.0) as u64,
            })
        };
        json!({
            "seconds": seconds, "requests": requests, "events": requests,
            kind: latency(p50_us), "server": usage(cpu_us), "load": usage(5.0),
            "longest_us_by_second": [p50_us * 8.0, p50_us * 3.0],
        })
    }

    pub(crate) fn step(name: &str, kinds: &[&str]) -> StepInfo {
        StepInfo {
            name: name.to_owned(),
            group: name.split('/').next().unwrap_or(name).to_owned(),
            title: format!("title of {name}"),
            x: None,
            latencies: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    }

    /// One work that all servers have, and two that null servers have not; two rounds.
    pub(crate) fn data() -> Data {
        let steps = vec![
            step("put", &["put"]),
            step("watch/100", &["event"]),
            step("open", &["put"]),
            step(FLOOR, &["put"]),
        ];
        let mut planned = Vec::new();
        let mut runs = Vec::new();
        for server in Server::ALL {
            for step in &steps {
                if server.is_null() && step.name != "put" {
                    continue;
                }
                planned.push((server, step.name.clone()));
                let kind = &step.latencies[0];
                let speed = if server == Server::Etcd { 1.0 } else { 2.0 };
                for round in 1..=2 {
                    let figures = figures(kind, 1e4 * speed * round as f64, 900.0 / speed, 30.0 / speed);
                    runs.push(Run { server, step: step.name.clone(), round, figures });
                }
            }
        }
        let about =
            json!({ "date": "2026-01-02", "commit": "abcd1234", "command": "scripts/compare.sh --quick" });
        Data { about, scale: None, rounds: 2, steps, planned, runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.json");
        let data = example::data();
        data.write(&path).unwrap();
        assert_eq!(Data::read(&path).unwrap(), data);
        std::fs::write(&path, b"{\"format\": 2}").unwrap();
        assert!(Data::read(&path).unwrap_err().to_string().contains("format 2"));
    }

    #[test]
    fn a_round_that_is_missing_has_no_figure() {
        let mut data = example::data();
        data.runs.retain(|run| run.round != 1);
        assert_eq!(data.by_round(Server::Etcd, "put", &Measure::Rate), vec![None, Some(20_000.0)]);
        assert_eq!(data.spread(Server::Etcd, "put", &Measure::Rate).unwrap().median, 20_000.0);
        assert_eq!(data.spread(Server::NullH2, "open", &Measure::Rate), None);
    }
}
