//! What one member must reach, set against what was measured.
//!
//! A ratio is taken in each round between what ran in that round, and the median of the rounds is judged: whatever made
//! one round slow made both of its sides slow. Nothing is judged by the exit code: figures of a busy machine say nothing.

use super::data::{Data, FLOOR};
use super::figures::{self, Measure, Spread};
use super::server::Server;
use Server::{Coffer, Etcd, NullTonic};

/// coffer's default for `--dirty-bytes`.
const DIRTY_BYTES: f64 = 268_435_456.0;
const IDLE_BYTES: f64 = 200e6;
/// Nobody is faster than the disk: what seems to be by more than this was measured on a disk in another mood.
const BEFORE_THE_DISK_US: f64 = -10.0;

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Missed,
    /// A server or a step did not take part.
    NotMeasured,
    /// The disk became another one between its own measurement and the server's, in every round.
    DiskChanged,
}

impl Verdict {
    pub(super) fn text(self) -> &'static str {
        match self {
            Verdict::Kept => "kept",
            Verdict::Missed => "**missed**",
            Verdict::NotMeasured => "not measured",
            Verdict::DiskChanged => "not to be judged: the disk changed meanwhile",
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    pub(super) what: String,
    pub(super) bound: String,
    pub(super) measured: String,
    pub(super) verdict: Verdict,
    /// The same of somebody else, or what the figure is made of.
    pub(super) beside: String,
}

/// What the median must be.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// How a figure is written.
type Form = fn(f64) -> String;
/// A figure for each round.
type ByRound = Vec<Option<f64>>;

fn percent(figure: f64) -> String {
    format!("{:.0} %", figure * 100.0)
}
fn times(figure: f64) -> String {
    format!("{} times", figures::short(figure))
}
fn us(figure: f64) -> String {
    format!("{} us", figures::short(figure))
}
fn bytes(figure: f64) -> String {
    format!("{} bytes", figures::count(figure))
}
fn megabytes(figure: f64) -> String {
    format!("{} MB", figures::count(figure / 1e6))
}

fn row(what: &str, bound: Bound, form: Form, rounds: ByRound, beside: String) -> Judgement {
    let spread = Spread::of(rounds.into_iter().flatten());
    let (bound_text, kept) = match bound {
        Bound::AtLeast(bound) => {
            (format!("at least {}", form(bound)), spread.is_some_and(|spread| spread.median >= bound))
        }
        Bound::AtMost(bound) => {
            (format!("at most {}", form(bound)), spread.is_some_and(|spread| spread.median <= bound))
        }
    };
    let verdict = match (spread, kept) {
        (None, _) => Verdict::NotMeasured,
        (Some(_), true) => Verdict::Kept,
        (Some(_), false) => Verdict::Missed,
    };
    let measured = spread.map_or("-".to_owned(), |spread| spread.text(form));
    Judgement { what: what.to_owned(), bound: bound_text, measured, verdict, beside }
}

/// Round by round, where both are there.
fn both(a: ByRound, b: ByRound, f: impl Fn(f64, f64) -> f64) -> ByRound {
    a.into_iter().zip(b).map(|(a, b)| Some(f(a?, b?))).collect()
}

struct Judge<'a>(&'a Data);

impl Judge<'_> {
    fn by_round(&self, server: Server, step: &str, measure: Measure) -> ByRound {
        self.0.by_round(server, step, &measure)
    }

    /// coffer's figure over another server's.
    fn ratio(&self, other: Server, step: &str, measure: Measure) -> ByRound {
        both(self.by_round(Coffer, step, measure), self.by_round(other, step, measure), |a, b| a / b)
    }

    /// A server's own figure, in words.
    fn tell(&self, server: Server, step: &str, measure: Measure, form: Form) -> String {
        let spread = self.0.spread(server, step, &measure);
        spread.map_or(String::new(), |spread| format!("{} {}", server.title(), spread.text(form)))
    }

    /// Both servers' figures, in words.
    fn tell_both(&self, other: Server, step: &str, measure: Measure, form: Form) -> String {
        let told = [Coffer, other].map(|server| self.tell(server, step, measure, form));
        told.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
    }

    fn ranges(&self) -> Vec<Judgement> {
        let (rate, cpu) = (Measure::Rate, Measure::Cpu);
        vec![
            row(
                "linearizable range of one key: rate, of the tonic null server's",
                Bound::AtLeast(0.85),
                percent,
                self.ratio(NullTonic, "range", rate),
                self.tell_both(NullTonic, "range", rate, figures::count),
            ),
            row(
                "linearizable range of one key: CPU, of etcd's",
                Bound::AtMost(0.4),
                figures::short,
                self.ratio(Etcd, "range", cpu),
                self.tell_both(Etcd, "range", cpu, us),
            ),
        ]
    }

    fn puts(&self) -> Vec<Judgement> {
        let (rate, cpu) = (Measure::Rate, Measure::Cpu);
        vec![
            row(
                "durable put: rate, of the tonic null server's",
                Bound::AtLeast(0.75),
                percent,
                self.ratio(NullTonic, "put", rate),
                self.tell_both(NullTonic, "put", rate, figures::count),
            ),
            row(
                "durable put: server CPU",
                Bound::AtMost(12.0),
                us,
                self.by_round(Coffer, "put", cpu),
                self.tell(Etcd, "put", cpu, us),
            ),
            row(
                "durable put: server CPU, with the bare-h2 door",
                Bound::AtMost(10.0),
                us,
                self.by_round(Coffer, "put", cpu),
                self.tell(NullTonic, "put", cpu, us),
            ),
            row(
                "compare and put, as Kubernetes does: CPU, of a put's",
                Bound::AtMost(1.3),
                figures::short,
                both(self.by_round(Coffer, "txn", cpu), self.by_round(Coffer, "put", cpu), |a, b| a / b),
                self.tell(Coffer, "txn", cpu, us),
            ),
            row(
                "bytes written for a put, log included",
                Bound::AtMost(2_048.0),
                bytes,
                self.by_round(Coffer, "put", Measure::Written),
                self.tell(Etcd, "put", Measure::Written, bytes),
            ),
        ]
    }

    /// What one client alone waits for beyond what it must.
    fn alone(&self) -> Vec<Judgement> {
        let put = Measure::Latency("put", "p50");
        let range = Measure::Latency("range", "p50");
        let least =
            both(self.by_round(NullTonic, "put-1", put), self.by_round(Coffer, FLOOR, put), |null, floor| {
                null + floor
            });
        let told = [
            self.tell_both(Etcd, "put-1", put, figures::time),
            self.tell(NullTonic, "put-1", put, figures::time),
            self.0
                .spread(Coffer, FLOOR, &put)
                .map_or(String::new(), |spread| format!("disk {}", spread.text(figures::time))),
        ];
        let beyond = both(self.by_round(Coffer, "put-1", put), least, |whole, least| whole - least);
        let any = beyond.iter().any(Option::is_some);
        let credible = beyond.into_iter().map(|us| us.filter(|us| *us >= BEFORE_THE_DISK_US)).collect();
        let mut rows = vec![
            row(
                "one client alone, put: p50 beyond the null server's and one durable write of 4 KiB",
                Bound::AtMost(40.0),
                figures::time,
                credible,
                told.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
            ),
            row(
                "one client alone, range: p50 beyond the null server's",
                Bound::AtMost(15.0),
                figures::time,
                both(
                    self.by_round(Coffer, "range-1", range),
                    self.by_round(NullTonic, "range-1", range),
                    |whole, null| whole - null,
                ),
                self.tell_both(NullTonic, "range-1", range, figures::time),
            ),
        ];
        if any && rows[0].verdict == Verdict::NotMeasured {
            rows[0].verdict = Verdict::DiskChanged;
        }
        rows
    }

    fn lists(&self) -> Vec<Judgement> {
        let p50 = Measure::Latency("range", "p50");
        let mut rows = vec![row(
            "list of 1,000 keys: CPU, of etcd's",
            Bound::AtMost(1.0 / 3.0),
            figures::short,
            self.ratio(Etcd, "list", Measure::Cpu),
            self.tell_both(Etcd, "list", Measure::Cpu, us),
        )];
        // the larger of the two stores
        let counted = ["count-more", "count"]
            .into_iter()
            .find_map(|name| self.0.works().find(|step| step.name == name));
        if let Some(step) = counted {
            rows.push(row(
                &format!("{}: p50 (the goal is for 1,000,000)", step.title),
                Bound::AtMost(1_000.0),
                figures::time,
                self.by_round(Coffer, &step.name, p50),
                self.tell(Etcd, &step.name, p50, figures::time),
            ));
        }
        rows
    }

    fn watches(&self) -> Vec<Judgement> {
        // with one watcher most of the work is the puts
        let fan_outs = self.0.works().filter(|step| step.group == "watch" && step.name != "watch/1");
        fan_outs
            .map(|step| {
                row(
                    &format!("{}: events for each second of CPU, of etcd's", step.title),
                    Bound::AtLeast(5.0),
                    times,
                    self.ratio(Etcd, &step.name, Measure::PerCore),
                    self.tell_both(Etcd, &step.name, Measure::PerCore, figures::count),
                )
            })
            .collect()
    }

    fn leases(&self) -> Vec<Judgement> {
        let (rate, cpu, step) = (Measure::Rate, Measure::Cpu, "keep-alive");
        let told = self.tell_both(Etcd, step, rate, figures::count);
        vec![
            row(
                "lease keep-alive at 256 streams: rate, of etcd's",
                Bound::AtLeast(1.0),
                times,
                self.ratio(Etcd, step, rate),
                told.clone(),
            ),
            row(
                "lease keep-alive at 256 streams: rate, of etcd's (aim)",
                Bound::AtLeast(3.0),
                times,
                self.ratio(Etcd, step, rate),
                told,
            ),
            row(
                "lease keep-alive at 256 streams: CPU, of etcd's",
                Bound::AtMost(1.0),
                figures::short,
                self.ratio(Etcd, step, cpu),
                self.tell_both(Etcd, step, cpu, us),
            ),
        ]
    }

    fn memory(&self) -> Vec<Judgement> {
        let memory = Measure::Memory;
        vec![
            row(
                "anonymous memory after the restart and ranges (the goal is for 8 GB of data)",
                Bound::AtMost(IDLE_BYTES),
                megabytes,
                self.by_round(Coffer, "range", memory),
                self.tell(Etcd, "range", memory, megabytes),
            ),
            row(
                "anonymous memory at the end of the puts (that, and --dirty-bytes)",
                Bound::AtMost(IDLE_BYTES + DIRTY_BYTES),
                megabytes,
                self.by_round(Coffer, "put", memory),
                self.tell(Etcd, "put", memory, megabytes),
            ),
        ]
    }
}

/// Every goal that one member can keep under this work.
pub(super) fn rows(data: &Data) -> Vec<Judgement> {
    let judge = Judge(data);
    let parts = [
        judge.ranges(),
        judge.puts(),
        judge.alone(),
        judge.lists(),
        judge.watches(),
        judge.leases(),
        judge.memory(),
    ];
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::data::{Run, example};
    use super::*;

    fn add(data: &mut Data, server: Server, step: &str, rate: f64, p50_us: f64, cpu_us: f64) {
        if !data.steps.iter().any(|info| info.name == step) {
            data.steps.push(example::step(step, &["put"]));
        }
        let kind = if step.starts_with("range") { "range" } else { "put" };
        for round in 1..=data.rounds {
            let figures = example::figures(kind, rate, p50_us, cpu_us);
            data.runs.push(Run { server, step: step.to_owned(), round, figures });
        }
    }

    fn empty() -> Data {
        Data { steps: Vec::new(), planned: Vec::new(), runs: Vec::new(), ..example::data() }
    }

    fn verdict(data: &Data, of: &str) -> (Verdict, String) {
        let rows = rows(data);
        let row = rows.iter().find(|row| row.what.starts_with(of)).expect("there is such a row");
        (row.verdict, row.measured.clone())
    }

    #[test]
    fn a_put_is_judged_by_rate_and_by_cpu() {
        let mut data = empty();
        add(&mut data, NullTonic, "put", 100_000.0, 500.0, 6.0);
        add(&mut data, Coffer, "put", 76_000.0, 500.0, 12.5);
        assert_eq!(verdict(&data, "durable put: rate"), (Verdict::Kept, "76 %".to_owned()));
        assert_eq!(verdict(&data, "durable put: server CPU"), (Verdict::Missed, "12.5 us".to_owned()));
        assert_eq!(verdict(&data, "bytes written for a put").0, Verdict::Kept);
        assert_eq!(verdict(&data, "linearizable range of one key: rate").0, Verdict::NotMeasured);
    }

    #[test]
    fn one_client_waits_for_the_null_server_and_the_disk_first() {
        let mut data = empty();
        add(&mut data, NullTonic, "put-1", 10_000.0, 60.0, 6.0);
        add(&mut data, Coffer, FLOOR, 1_000.0, 800.0, 0.0);
        add(&mut data, Coffer, "put-1", 1_000.0, 899.0, 12.0);
        assert_eq!(verdict(&data, "one client alone, put"), (Verdict::Kept, "39 us".to_owned()));
        add(&mut data, NullTonic, "range-1", 10_000.0, 60.0, 6.0);
        // a put that was faster than the disk says that the disk was not measured well
        let mut changed = empty();
        add(&mut changed, NullTonic, "put-1", 10_000.0, 60.0, 6.0);
        add(&mut changed, Coffer, FLOOR, 1_000.0, 4_000.0, 0.0);
        add(&mut changed, Coffer, "put-1", 1_000.0, 899.0, 12.0);
        assert_eq!(verdict(&changed, "one client alone, put"), (Verdict::DiskChanged, "-".to_owned()));
        add(&mut data, Coffer, "range-1", 10_000.0, 80.0, 6.0);
        assert_eq!(verdict(&data, "one client alone, range"), (Verdict::Missed, "20 us".to_owned()));
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let data = example::data();
        // each round is twice as fast as the one before, on all servers
        assert_eq!(verdict(&data, "durable put: rate"), (Verdict::Kept, "100 %".to_owned()));
        let watch = verdict(&data, "title of watch/100");
        assert_eq!(watch, (Verdict::Missed, "2.00 times".to_owned()));
    }
}
