//! The figures, as a table and as JSON.

use super::LoadOptions;
use super::drive::Measured;
use super::process::Usage;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn requests(measured: &Measured) -> u64 {
    measured.puts.len() + measured.ranges.len()
}

/// Prints the table.
pub(super) fn print(options: &LoadOptions, measured: &Measured) {
    let rate = requests(measured) as f64 / measured.took.as_secs_f64();
    println!("{} requests in {:.1} s, {rate:.0}/s", requests(measured), measured.took.as_secs_f64());
    for (name, histogram) in [("put", &measured.puts), ("range", &measured.ranges)] {
        if !histogram.is_empty() {
            let figures = QUANTILES
                .map(|(name, q)| format!("{name} {:.3} ms", histogram.value_at_quantile(q) as f64 / 1e3));
            println!("{name:6} {:>9}  {}", histogram.len(), figures.join("  "));
        }
    }
    for (name, usage) in [("server", &measured.server), ("load", &measured.own)] {
        if let Some(usage) = usage {
            println!(
                "{name:6} {:.1} us CPU per request, {} MB anonymous, {} MB resident, {} bytes written per put",
                usage.cpu_seconds * 1e6 / requests(measured).max(1) as f64,
                usage.anonymous_bytes / 1_000_000,
                usage.resident_bytes / 1_000_000,
                usage.written_bytes / measured.puts.len().max(1),
            );
        }
    }
    if let Some(beside) = &measured.beside {
        println!("beside {beside}");
    }
    if options.rate.is_some() {
        let stalls: Vec<String> = measured
            .longest_by_second
            .iter()
            .enumerate()
            .filter(|(_, us)| **us > 20_000)
            .map(|(second, us)| format!("{second} s: {} ms", us / 1_000))
            .collect();
        println!(
            "seconds with a request above 20 ms: {}",
            if stalls.is_empty() { "none".to_owned() } else { stalls.join(", ") }
        );
    }
}

fn latencies(histogram: &Histogram<u64>) -> Value {
    let mut out = json!({ "count": histogram.len(), "mean_us": histogram.mean() });
    for (name, q) in QUANTILES {
        out[format!("{name}_us")] = json!(histogram.value_at_quantile(q));
    }
    out
}

fn usage(usage: &Option<Usage>) -> Value {
    usage.as_ref().map_or(Value::Null, |usage| {
        json!({
            "cpu_seconds": usage.cpu_seconds,
            "anonymous_bytes": usage.anonymous_bytes,
            "resident_bytes": usage.resident_bytes,
            "written_bytes": usage.written_bytes,
        })
    })
}

/// The figures for programs.
pub(crate) fn json(options: &LoadOptions, measured: &Measured) -> Value {
    json!({
        "work": format!("{:?}", options.work).to_lowercase(),
        "meanwhile": format!("{:?}", options.meanwhile).to_lowercase(),
        "rate": options.rate,
        "keys": options.keys,
        "value_bytes": options.value_bytes,
        "connections": options.connections,
        "clients": options.clients,
        "seconds": measured.took.as_secs_f64(),
        "requests": requests(measured),
        "put": latencies(&measured.puts),
        "range": latencies(&measured.ranges),
        "longest_us_by_second": measured.longest_by_second,
        "server": usage(&measured.server),
        "load": usage(&measured.own),
        "beside": measured.beside,
    })
}
