//! The figures, as a table and as JSON.

use super::drive::Measured;
use super::options::name;
use super::process::Usage;
use super::{Distribution, LoadOptions, Work};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn requests(measured: &Measured) -> u64 {
    measured.puts.len() + measured.ranges.len() + measured.leases.len()
}

/// Whether a run is about events rather than requests.
fn is_watched(options: &LoadOptions) -> bool {
    matches!(options.work, Work::Watch | Work::Catchup)
}

fn histograms(measured: &Measured) -> [(&'static str, &Histogram<u64>); 4] {
    [
        ("put", &measured.puts),
        ("range", &measured.ranges),
        ("lease", &measured.leases),
        ("event", &measured.events),
    ]
}

/// Prints the table.
pub(super) fn print(options: &LoadOptions, measured: &Measured) {
    let seconds = measured.took.as_secs_f64();
    let rate = requests(measured) as f64 / seconds;
    println!("{}: {} requests in {seconds:.1} s, {rate:.0}/s", name(options.work), requests(measured));
    if is_watched(options) {
        let (events, watchers) = (measured.events.len(), options.watchers);
        println!("{events} events to {watchers} watchers, {:.0}/s", events as f64 / seconds);
    }
    for (name, histogram) in histograms(measured) {
        if !histogram.is_empty() {
            let figures = QUANTILES
                .map(|(name, q)| format!("{name} {:.3} ms", histogram.value_at_quantile(q) as f64 / 1e3));
            println!("{name:6} {:>9}  {}", histogram.len(), figures.join("  "));
        }
    }
    if measured.kvs > 0 {
        println!("read   {:>9}  key-values, {:.0}/s", measured.kvs, measured.kvs as f64 / seconds);
    }
    if measured.errors > 0 {
        println!("failed {:>9}", measured.errors);
    }
    print_usage(options, measured);
    if let Some(beside) = &measured.beside {
        println!("beside {beside}");
    }
    if options.rate.is_some() {
        print_stalls(measured);
    }
}

fn print_usage(options: &LoadOptions, measured: &Measured) {
    let (unit, units) =
        if is_watched(options) { ("event", measured.events.len()) } else { ("request", requests(measured)) };
    for (name, usage) in [("server", &measured.server), ("load", &measured.own)] {
        if let Some(usage) = usage {
            print!(
                "{name:6} {:.1} us CPU per {unit}, {} MB anonymous, {} MB resident",
                usage.cpu_seconds * 1e6 / units.max(1) as f64,
                usage.anonymous_bytes / 1_000_000,
                usage.resident_bytes / 1_000_000,
            );
            let written = u64::checked_div(usage.written_bytes, measured.puts.len());
            println!(
                "{}",
                written.map_or_else(String::new, |bytes| format!(", {bytes} bytes written per put"))
            );
        }
    }
}

fn print_stalls(measured: &Measured) {
    let stalls: Vec<String> = measured
        .longest_by_second
        .iter()
        .enumerate()
        .filter(|(_, us)| **us > 20_000)
        .map(|(second, us)| format!("{second} s: {} ms", us / 1_000))
        .collect();
    let stalls = if stalls.is_empty() { "none".to_owned() } else { stalls.join(", ") };
    println!("seconds with a request above 20 ms: {stalls}");
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

/// The figures for programs. What a run has nothing of is null.
pub(crate) fn json(options: &LoadOptions, measured: &Measured) -> Value {
    let mut out = asked(options);
    let seconds = measured.took.as_secs_f64();
    out["seconds"] = json!(seconds);
    out["requests"] = json!(requests(measured));
    out["errors"] = json!(measured.errors);
    out["kvs"] = json!(measured.kvs);
    for (name, histogram) in histograms(measured) {
        out[name] = latencies(histogram);
    }
    if is_watched(options) {
        out["events"] = json!(measured.events.len());
        out["events_per_second"] = json!(measured.events.len() as f64 / seconds);
    }
    out["longest_us_by_second"] = json!(measured.longest_by_second);
    out["server"] = usage(&measured.server);
    out["load"] = usage(&measured.own);
    out["beside"] = json!(measured.beside);
    out
}

/// What was asked for.
fn asked(options: &LoadOptions) -> Value {
    let mut out = json!({
        "label": options.label,
        "work": name(options.work),
        "meanwhile": name(options.meanwhile),
        "client": name(options.client),
        "to": name(options.to),
        "distribution": name(options.distribution),
        "rate": options.rate,
        "keys": options.keys,
        "key_bytes": options.key_bytes,
        "value_bytes": options.value_bytes,
        "connections": options.connections,
        "clients": options.clients,
        "pinned": options.pinned,
    });
    if options.distribution == Distribution::Zipf {
        out["zipf_exponent"] = json!(options.zipf_exponent);
    }
    match options.work {
        Work::List | Work::Page => out["limit"] = json!(options.limit),
        Work::Mixed => out["range_percent"] = json!(options.range_percent),
        Work::KeepAlive => out["leases"] = json!(options.leases.unwrap_or(options.clients)),
        Work::Watch | Work::Catchup => {
            out["watchers"] = json!(options.watchers);
            out["watch_on"] = json!(name(options.watch_on));
            out["watch_streams"] = json!(options.watch_streams);
        }
        _ => {}
    }
    out
}
