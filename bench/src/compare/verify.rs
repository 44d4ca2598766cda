//! Whether a report is whole: every planned figure is there, every drawing, every goal. How good the figures are is not
//! its business.

use super::data::Data;
use super::figures::Measure;
use super::judge::{self, Verdict};
use super::server::Server;
use super::{data, plots, report};
use crate::load::Failed;
use std::path::Path;

/// # Errors
/// All that is missing.
pub(super) fn verify(directory: &Path) -> Result<(), Failed> {
    let data = Data::read(&directory.join("data.json"))?;
    let mut missing = missing_figures(&data);
    let report = std::fs::read_to_string(directory.join("report.md")).unwrap_or_default();
    for step in data.works() {
        if data.scale.is_none() && !report.contains(&step.title) {
            missing.push(format!("report.md says nothing of {}", step.name));
        }
    }
    for (name, _) in plots::names(&data) {
        let svg = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        let drawn = svg.contains("<text") && (svg.contains("<polyline") || svg.contains("<rect"));
        if !drawn || !svg.trim_end().ends_with("</svg>") {
            missing.push(format!("{name} is not whole"));
        }
        if !report.contains(&format!("({name})")) {
            missing.push(format!("report.md does not show {name}"));
        }
    }
    if data.scale.is_none() {
        missing.extend(missing_goals(&data, &report));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the report in {} is not whole:\n{}", directory.display(), missing.join("\n")).into())
}

/// What each planned run must tell.
fn missing_figures(data: &Data) -> Vec<String> {
    let mut missing = Vec::new();
    if data.planned.is_empty() || data.rounds == 0 {
        missing.push("nothing was planned".to_owned());
    }
    for (server, name) in &data.planned {
        let Some(step) = data.steps.iter().find(|step| step.name == *name) else {
            missing.push(format!("{name} is planned and not a step"));
            continue;
        };
        let mut needed = vec![("rate", Measure::Rate)];
        if name != data::FLOOR {
            needed.extend([("CPU", Measure::Cpu), ("memory", Measure::Memory)]);
        }
        let kinds = report::KINDS.into_iter().filter(|kind| step.latencies.iter().any(|has| has == kind));
        needed.extend(kinds.map(|kind| ("latency", Measure::Latency(kind, "p50"))));
        for (what, measure) in needed {
            let rounds = data.by_round(*server, name, &measure);
            for round in (1..).zip(rounds).filter(|(_, figure)| figure.is_none()).map(|(round, _)| round) {
                missing.push(format!("{} of {} in {name}, round {round}", what, server.name()));
            }
        }
    }
    missing
}

/// With all servers there is no goal without a verdict.
fn missing_goals(data: &Data, report: &str) -> Vec<String> {
    let whole = data.servers() == Server::ALL;
    let is_missing = |row: &judge::Judgement| {
        !report.contains(&row.what) || (whole && row.verdict == Verdict::NotMeasured)
    };
    let missing = judge::rows(data).into_iter().filter(is_missing);
    missing.map(|row| format!("no verdict: {}", row.what)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::data::example;
    use super::*;

    fn written(data: &Data) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        data.write(&directory.path().join("data.json")).unwrap();
        std::fs::write(directory.path().join("report.md"), report::text(data)).unwrap();
        plots::write(data, directory.path()).unwrap();
        directory
    }

    /// Without the goals, which the example has not the steps for.
    fn without_goals(mut data: Data) -> Data {
        data.planned.retain(|(server, _)| *server != Server::NullH2);
        data
    }

    #[test]
    fn a_whole_report_is_whole() {
        verify(written(&without_goals(example::data())).path()).unwrap();
    }

    #[test]
    fn a_run_that_is_missing_is_named() {
        let mut data = without_goals(example::data());
        data.runs.retain(|run| (run.server, &run.step[..], run.round) != (Server::Etcd, "open", 2));
        let error = verify(written(&data).path()).unwrap_err().to_string();
        assert!(error.contains("rate of etcd in open, round 2") && !error.contains("round 1"), "{error}");
    }

    #[test]
    fn a_run_without_a_latency_is_named() {
        let mut data = without_goals(example::data());
        for run in data.runs.iter_mut().filter(|run| run.step == "watch/100") {
            run.figures["event"]["count"] = 0.into();
        }
        let error = verify(written(&data).path()).unwrap_err().to_string();
        assert!(error.contains("latency of coffer in watch/100"), "{error}");
    }

    #[test]
    fn a_drawing_that_is_cut_or_gone_is_named() {
        let directory = written(&without_goals(example::data()));
        let path = directory.path().join("cpu.svg");
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &svg[..svg.len() / 2]).unwrap();
        std::fs::remove_file(directory.path().join("latency.svg")).unwrap();
        let error = verify(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("cpu.svg is not whole") && error.contains("latency.svg is not whole"),
            "{error}"
        );
    }

    #[test]
    fn with_all_servers_a_goal_without_a_verdict_is_named() {
        let error = verify(written(&example::data()).path()).unwrap_err().to_string();
        assert!(error.contains("no verdict: linearizable range of one key"), "{error}");
        assert!(!error.contains("durable put: rate"), "{error}");
    }
}
