//! report.md: the figures for people, made from data.json alone.

use super::data::{Data, FLOOR, StepInfo};
use super::figures::{self, Measure};
use super::judge::{self, Verdict};
use super::plots;
use super::server::Server;
use serde_json::Value;
use std::fmt::Write as _;

/// Above this share of one core the load generator may be what was measured.
const SATURATED_CORES: f64 = 0.95;
/// Seconds with a request above this are counted as stalls, in microseconds.
const STALL_US: f64 = 50_000.0;

/// The whole report.
pub(super) fn text(data: &Data) -> String {
    let mut out = head(data);
    if data.scale.is_none() {
        goals(data, &mut out);
    }
    for (name, title) in plots::names(data) {
        let _ = writeln!(out, "## {title}\n\n![{title}]({name})\n");
        match name {
            "throughput.svg" => throughput(data, &mut out),
            "latency.svg" => latencies(data, &mut out),
            "cpu.svg" => cpu(data, &mut out),
            "over_time.svg" => over_time(data, &mut out),
            _ => {}
        }
    }
    disk_and_memory(data, &mut out);
    out
}

fn head(data: &Data) -> String {
    let told = |field: &str| data.about[field].as_str().unwrap_or("not known").to_owned();
    let who: Vec<&str> = data.servers().iter().map(|server| server.title()).collect();
    let what = data.scale.as_ref().map_or("compared".to_owned(), |axis| format!("as {axis} grow"));
    let mut out = format!("# {}, {what}: {}\n\n", who.join("; "), told("date"));
    let _ = writeln!(out, "    {}\n", told("command"));
    out.push_str("| | |\n|---|---|\n");
    let rows = [
        ("commit", "commit"),
        ("coffer", "coffer"),
        ("etcd", "etcd"),
        ("machine", "machine"),
        ("kernel", "kernel"),
        ("disk", "disk"),
        ("work", "work"),
        ("took", "took"),
    ];
    for (name, field) in rows {
        if let Some(value) = data.about[field].as_str() {
            let _ = writeln!(out, "| {name} | {value} |");
        }
    }
    out.push('\n');
    for warning in data.about["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(out, "**{warning}**\n");
    }
    out.push_str(
        "A figure is the median of the rounds, with the lowest and the highest behind it where there is more than one. What \
         each figure means and how to measure it elsewhere: docs/benchmarks.md. All figures: [data.json](data.json).\n\n",
    );
    out
}

fn goals(data: &Data, out: &mut String) {
    let rows = judge::rows(data);
    let of = |verdict: Verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let _ = writeln!(
        out,
        "## Goals of one member\n\n{} kept, {} missed, {} not measured. A ratio is taken in each round between what ran in \
         that round.\n\n| what | goal | measured | | beside it |\n|---|---|---|---|---|",
        of(Verdict::Kept),
        of(Verdict::Missed),
        of(Verdict::NotMeasured)
    );
    for row in &rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            row.what,
            row.bound,
            row.measured,
            row.verdict.text(),
            row.beside
        );
    }
    out.push_str(
        "\nMeasured elsewhere: stalls beside background work (`scripts/stalls.sh`), readiness after `kill -9` \
         (`scripts/restart.sh`), the engine alone (`cargo bench -p coffer-bench`, `bench/peers`).\n\n",
    );
}

/// A table with a row for each step and a column for each server; nothing where no row has a cell.
fn table(data: &Data, out: &mut String, cell: impl Fn(Server, &StepInfo) -> Option<String>) {
    let servers = data.servers();
    let heads: Vec<&str> = servers.iter().map(|server| server.title()).collect();
    let mut rows = String::new();
    for step in data.works() {
        let cells: Vec<String> =
            servers.iter().map(|server| cell(*server, step).unwrap_or_default()).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(rows, "| {} | {} |", title(data, step), cells.join(" | "));
        }
    }
    if !rows.is_empty() {
        let _ = writeln!(out, "| | {} |\n|---|{}", heads.join(" | "), "---|".repeat(servers.len()));
        let _ = writeln!(out, "{rows}");
    }
}

fn title(data: &Data, step: &StepInfo) -> String {
    match (&data.scale, step.x) {
        (Some(axis), Some(x)) => format!("{}: {axis} {}", step.group, figures::count(x as f64)),
        _ => step.title.clone(),
    }
}

fn throughput(data: &Data, out: &mut String) {
    out.push_str("Operations a second: requests, or events where events are delivered.\n\n");
    table(data, out, |server, step| {
        let text = data.spread(server, &step.name, &Measure::Rate)?.text(figures::count);
        let cores = data.spread(server, &step.name, &Measure::OwnCores)?.median;
        Some(if cores > SATURATED_CORES { format!("{text} *") } else { text })
    });
    out.push_str(
        "\\* The load generator had all of its core: the server may be able to do more. Its CPU is in the table below.\n\n",
    );
}

fn cpu(data: &Data, out: &mut String) {
    out.push_str("The server's CPU for one operation, in microseconds.\n\n");
    let told = |server, step: &StepInfo, measure| {
        Some(data.spread(server, &step.name, &measure)?.text(figures::short))
    };
    table(data, out, |server, step| told(server, step, Measure::Cpu));
    out.push_str("The load generator's CPU for one operation, in microseconds.\n\n");
    table(data, out, |server, step| told(server, step, Measure::OwnCpu));
}

/// The load generator's kinds of latency: writes, reads, grants and renewals, events.
pub(super) const KINDS: [&str; 4] = ["put", "range", "lease", "event"];
/// The quantiles of tables and plots.
pub(super) const QUANTILES: [&str; 4] = ["p50", "p99", "p99.9", "max"];

fn latencies(data: &Data, out: &mut String) {
    out.push_str("p50 / p99 / p99.9 / longest, medians of the rounds.\n\n");
    for kind in KINDS {
        let what = match kind {
            "put" => "write",
            "lease" => "grant or renewal",
            other => other,
        };
        let mut rows = String::new();
        table(data, &mut rows, |server, step| {
            let quantile = |name| {
                let spread = data.spread(server, &step.name, &Measure::Latency(kind, name))?;
                Some(figures::time(spread.median))
            };
            let all: Option<Vec<String>> = QUANTILES.into_iter().map(quantile).collect();
            Some(all?.join(" / "))
        });
        if !rows.is_empty() {
            let _ = writeln!(out, "Of each {what}:\n\n{rows}");
        }
    }
}

fn over_time(data: &Data, out: &mut String) {
    out.push_str("The longest request of each second, of those that were due in it; all rounds.\n\n");
    for server in data.servers() {
        let seconds: Vec<f64> = (1..=data.rounds)
            .filter_map(|round| data.run(server, "open", round))
            .flat_map(|run| longest_by_second(&run.figures))
            .collect();
        if !seconds.is_empty() {
            let _ = writeln!(
                out,
                "- {}: {} of {} seconds had a request above {}, the longest took {}",
                server.title(),
                seconds.iter().filter(|us| **us > STALL_US).count(),
                seconds.len(),
                figures::time(STALL_US),
                figures::time(seconds.iter().copied().fold(0.0, f64::max))
            );
        }
    }
    out.push('\n');
}

/// The longest request of each second of a run, in microseconds.
pub(super) fn longest_by_second(figures: &Value) -> Vec<f64> {
    figures["longest_us_by_second"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn disk_and_memory(data: &Data, out: &mut String) {
    out.push_str("## Disk and memory\n\nBytes written for each put, log and page file together.\n\n");
    table(data, out, |server, step| {
        let written = data.spread(server, &step.name, &Measure::Written)?;
        (!server.is_null()).then(|| written.text(figures::count))
    });
    out.push_str("Anonymous memory at the end of each, in MB.\n\n");
    table(data, out, |server, step| {
        let memory = data.spread(server, &step.name, &Measure::Memory)?;
        Some(memory.text(|bytes| figures::count(bytes / 1e6)))
    });
    for server in data.servers() {
        let quantile = |name| data.spread(server, FLOOR, &Measure::Latency("put", name));
        if let (Some(p50), Some(p99)) = (quantile("p50"), quantile("p99")) {
            let _ = writeln!(
                out,
                "The disk when it was {}'s turn: one durable write of 4 KiB took {} (p99 {}).\n",
                server.title(),
                p50.text(figures::time),
                p99.text(figures::time)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::example;
    use super::*;

    #[test]
    fn a_report_names_the_command_every_goal_and_every_figure() {
        let data = example::data();
        let text = text(&data);
        assert!(text.contains("scripts/compare.sh --quick") && text.contains("abcd1234"));
        for row in judge::rows(&data) {
            assert!(text.contains(&row.what), "{}", row.what);
        }
        for step in data.works() {
            assert!(text.contains(&step.title), "{}", step.title);
        }
        // two rounds of 20,000 and 40,000 a second
        assert!(text.contains("30,000 (20,000 to 40,000)"), "{text}");
        assert!(text.contains("one durable write of 4 KiB took"));
        for (name, _) in plots::names(&data) {
            assert!(text.contains(&format!("]({name})")));
        }
    }
}
