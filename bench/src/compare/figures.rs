//! Figures: one number out of a run, the median of several, and how they are written down.

use super::data::StepInfo;
use serde_json::Value;

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// `None` if there are none. Of an even number the median lies between the middle two.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Spread { median, low, high })
    }

    /// The median, and the ends where there is more than one figure: `12.1 (11.9 to 12.6)`.
    pub(super) fn text(&self, form: impl Fn(f64) -> String) -> String {
        if self.low == self.high {
            return form(self.median);
        }
        format!("{} ({} to {})", form(self.median), form(self.low), form(self.high))
    }
}

/// What is read out of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// Operations a second: requests, or events where events are what is delivered.
    Rate,
    /// The server's CPU for an operation, in microseconds.
    Cpu,
    /// Operations for each second of the server's CPU.
    PerCore,
    /// The load generator's CPU for an operation, in microseconds.
    OwnCpu,
    /// How much of one core the load generator had.
    OwnCores,
    /// A latency in microseconds: of which kind, and which quantile, as `p50`.
    Latency(&'static str, &'static str),
    /// Bytes written for each put.
    Written,
    /// The server's anonymous memory at the end, in bytes.
    Memory,
}

impl Measure {
    /// `None` where the run does not tell.
    pub(super) fn of(&self, step: &StepInfo, run: &Value) -> Option<f64> {
        let counted = if step.counts_events() { &run["events"] } else { &run["requests"] };
        let operations = counted.as_f64().filter(|operations| *operations > 0.0)?;
        let seconds = run["seconds"].as_f64().filter(|seconds| *seconds > 0.0)?;
        let cpu = |of: &str| run[of]["cpu_seconds"].as_f64();
        match self {
            Measure::Rate => Some(operations / seconds),
            Measure::Cpu => Some(cpu("server")? * 1e6 / operations),
            Measure::PerCore => cpu("server").filter(|cpu| *cpu > 0.0).map(|cpu| operations / cpu),
            Measure::OwnCpu => Some(cpu("load")? * 1e6 / operations),
            Measure::OwnCores => Some(cpu("load")? / seconds),
            Measure::Latency(kind, quantile) => {
                let latency = &run[*kind];
                latency["count"].as_f64().filter(|count| *count > 0.0)?;
                latency[format!("{quantile}_us")].as_f64()
            }
            Measure::Written => {
                let puts = run["put"]["count"].as_f64().filter(|puts| *puts > 0.0)?;
                Some(run["server"]["written_bytes"].as_f64()? / puts)
            }
            Measure::Memory => run["server"]["anonymous_bytes"].as_f64(),
        }
    }
}

/// A whole number with commas: `65,900`.
pub(super) fn count(figure: f64) -> String {
    let digits = format!("{:.0}", figure.abs());
    let mut out = if figure <= -0.5 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits or so: `0.83`, `12.4`, `831`, `12,345`.
pub(super) fn short(figure: f64) -> String {
    match figure.abs() {
        small if small < 9.995 => format!("{figure:.2}"),
        middle if middle < 99.95 => format!("{figure:.1}"),
        _ => count(figure),
    }
}

/// Microseconds in the unit that suits them: `83 us`, `1.25 ms`, `2.1 s`.
pub(super) fn time(us: f64) -> String {
    match us.abs() {
        small if small < 1e3 => format!("{} us", if small < 99.95 { short_of(us) } else { count(us) }),
        middle if middle < 1e6 => format!("{} ms", short_of(us / 1e3)),
        _ => format!("{} s", short_of(us / 1e6)),
    }
}

/// `42 s`, or `28 min`.
pub(super) fn duration(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", (seconds + 30) / 60) }
}

/// [`short`] without zeros behind the point.
fn short_of(figure: f64) -> String {
    let text = short(figure);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::data::example;
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_and_the_spread_at_the_ends() {
        let spread = Spread::of([9.0, 1.0, 4.0]).unwrap();
        assert_eq!(spread, Spread { median: 4.0, low: 1.0, high: 9.0 });
        assert_eq!(Spread::of([1.0, 2.0, 4.0, 8.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([7.0]).unwrap(), Spread { median: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        assert_eq!(spread.text(short), "4.00 (1.00 to 9.00)");
        assert_eq!(Spread::of([7.0]).unwrap().text(count), "7");
    }

    #[test]
    fn figures_are_written_with_as_many_digits_as_they_are_worth() {
        assert_eq!([count(65_900.4), count(123.0), count(1_234_567.0)], ["65,900", "123", "1,234,567"]);
        assert_eq!(count(-1_234.0), "-1,234");
        assert_eq!([duration(42), duration(1_690)], ["42 s", "28 min"]);
        assert_eq!([short(0.834), short(12.44), short(831.2)], ["0.83", "12.4", "831"]);
        assert_eq!(
            [time(83.0), time(830.4), time(1_250.0), time(2.1e6)],
            ["83 us", "830 us", "1.25 ms", "2.1 s"]
        );
    }

    #[test]
    fn a_run_gives_its_figures() {
        let (put, watch) = (example::step("put", &["put"]), example::step("watch", &["event"]));
        let run = example::figures("put", 1_000.0, 250.0, 12.0);
        assert_eq!(Measure::Rate.of(&put, &run), Some(1_000.0));
        assert!((Measure::Cpu.of(&put, &run).unwrap() - 12.0).abs() < 1e-9);
        assert!((Measure::PerCore.of(&put, &run).unwrap() - 1e6 / 12.0).abs() < 1e-6);
        assert_eq!(Measure::Latency("put", "p99.9").of(&put, &run), Some(1_000.0));
        assert_eq!(Measure::Latency("range", "p50").of(&put, &run), None);
        assert_eq!(Measure::Written.of(&put, &run), Some(1_500.0));
        let mut silent = run;
        silent["events"] = Value::Null;
        assert_eq!(Measure::Rate.of(&watch, &silent), None);
        silent["requests"] = 0.into();
        assert_eq!(Measure::Rate.of(&put, &silent), None);
    }
}
