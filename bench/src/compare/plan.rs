//! What is run: phases of steps. A server is started anew before each phase, so that what a phase reads is what the one
//! before it left on disk; a fresh phase begins on an empty directory.

use super::data::{FLOOR, StepInfo};
use super::server::Server;
use clap::ValueEnum;

/// Steps of one run of a server's process.
pub(super) struct Phase {
    /// On an empty directory.
    pub(super) fresh: bool,
    pub(super) steps: Vec<Step>,
}

/// One call of the load generator.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) info: StepInfo,
    /// Null servers run it too.
    pub(super) null: bool,
    /// The disk's floor is measured before and after it.
    pub(super) floor: bool,
    work: &'static str,
    clients: u64,
    keys: u64,
    value_bytes: u64,
    seconds: f64,
    extra: Vec<String>,
}

/// What grows in a scale run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// Clients at once, 1 to 4,096.
    Clients,
    /// Keys, 10,000 to 10 million.
    Keys,
    /// Bytes of a value, 64 B to 1 MiB.
    Values,
    /// Watchers of one key, 1 to 100,000.
    Watchers,
}

impl Scale {
    /// As its axis says it.
    pub(super) fn axis(self) -> &'static str {
        match self {
            Scale::Clients => "clients",
            Scale::Keys => "keys",
            Scale::Values => "bytes of a value",
            Scale::Watchers => "watchers",
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) keys: u64,
    pub(super) seconds: f64,
    /// The store grows to so many before they are counted.
    pub(super) counted_keys: Option<u64>,
    pub(super) quick: bool,
}

const CLIENTS: u64 = 256;
const CONNECTIONS: u64 = 16;
const KEY_BYTES: u64 = 24;
const VALUE_BYTES: u64 = 256;
/// Clients of lists: a list is a thousand times the work of a range.
const LIST_CLIENTS: u64 = 32;
/// Requests a second of the open loop.
const OPEN_RATE: u64 = 5_000;
/// It runs for so many times as long as the others, for a stall to have a chance.
const OPEN_TIMES: f64 = 3.0;
/// Clients of a run with values of many sizes: so few that the largest values of all of them are no reason to refuse any.
const VALUE_CLIENTS: u64 = 16;
/// Bytes of values in a run with values of one size: enough that none is put twice in a row.
const VALUES_BYTES: u64 = 256 << 20;
/// Events that a fan-out delivers for each second of a run, about: as many as make some tenths of a second of CPU; and puts
/// at the most, since they wait for the disk.
const EVENTS_PER_SECOND: f64 = 1_000_000.0;
const WATCHED_PUTS_PER_SECOND: f64 = 2_000.0;
/// Clients that put what is watched.
const WATCHED_CLIENTS: u64 = 4;

impl Sizes {
    fn step(&self, name: &str, title: &str, work: &'static str, latencies: &[&str]) -> Step {
        Step {
            info: StepInfo {
                name: name.to_owned(),
                group: name.split('/').next().unwrap_or(name).to_owned(),
                title: title.to_owned(),
                x: None,
                latencies: latencies.iter().map(|kind| (*kind).to_owned()).collect(),
            },
            null: false,
            floor: false,
            work,
            clients: CLIENTS,
            keys: self.keys,
            value_bytes: VALUE_BYTES,
            seconds: self.seconds,
            extra: Vec::new(),
        }
    }

    fn fill(&self) -> Step {
        self.step("fill", &format!("fill {} keys in order", thousands(self.keys)), "fill", &["put"])
    }

    /// Puts or ranges by so many clients.
    fn by(&self, name: &str, work: &'static str, kind: &str, clients: u64) -> Step {
        let who = if clients == 1 { "one client".to_owned() } else { format!("{clients} clients") };
        Step { clients, ..self.step(name, &format!("{work}, {who}"), work, &[kind]) }
    }

    fn list(&self, name: &str) -> Step {
        let title = format!("list of 1,000 keys, {LIST_CLIENTS} clients");
        let step = Step { clients: LIST_CLIENTS, ..self.step(name, &title, "list", &["range"]) };
        step.with(&["--limit", "1000"])
    }

    fn count(&self, name: &str, keys: u64) -> Step {
        let title = format!("count of {} keys, one client", thousands(keys));
        Step { clients: 1, keys, ..self.step(name, &title, "count", &["range"]) }
    }

    /// `watchers` of one key, which is put again and again.
    fn watch(&self, watchers: u64) -> Step {
        let title = if watchers == 1 {
            "events to one watcher".to_owned()
        } else {
            format!("events to {} watchers of one key", thousands(watchers))
        };
        let puts = (EVENTS_PER_SECOND / watchers as f64).min(WATCHED_PUTS_PER_SECOND) * self.seconds;
        let (watchers, puts) = (watchers.to_string(), puts.ceil().max(2.0).to_string());
        let step = self.step(&format!("watch/{watchers}"), &title, "watch", &["event"]);
        Step { clients: WATCHED_CLIENTS, ..step }.with(&[
            "--watchers",
            &watchers,
            "--events",
            &puts,
            "--watch-on",
            "same",
        ])
    }

    /// The standard run.
    pub(super) fn standard(&self) -> Vec<Phase> {
        let mut reads = self.reads();
        reads.extend(self.streams());
        if let Some(keys) = self.counted_keys {
            let title = format!("fill {} keys in order", thousands(keys));
            reads.push(Step { keys, ..self.step("fill-more", &title, "fill", &["put"]) });
            reads.push(self.count("count-more", keys));
        }
        // last, for the leases stay
        let title = format!("lease grant, {CLIENTS} clients");
        reads.push(self.step("lease-grant", &title, "lease-grant", &["lease"]));
        vec![Phase { fresh: true, steps: self.writes() }, Phase { fresh: false, steps: reads }]
    }

    fn writes(&self) -> Vec<Step> {
        let null = |step: Step| Step { null: true, ..step };
        let many = format!("{CLIENTS} clients");
        vec![
            self.fill(),
            null(self.by("put", "put", "put", CLIENTS)),
            Step { floor: true, ..null(self.by("put-1", "put", "put", 1)) },
            self.step("txn", &format!("compare and put, {many}"), "txn", &["put"]),
            self.step("mixed", &format!("mixed, {many}"), "mixed", &["put", "range"]),
        ]
    }

    fn reads(&self) -> Vec<Step> {
        let null = |step: Step| Step { null: true, ..step };
        let serializable = format!("serializable range, {CLIENTS} clients");
        let pages = format!("pages of 500 keys, {LIST_CLIENTS} clients");
        let page = Step { clients: LIST_CLIENTS, ..self.step("page", &pages, "page", &["range"]) };
        vec![
            null(self.by("range", "range", "range", CLIENTS)),
            self.step("serializable", &serializable, "serializable", &["range"]),
            null(self.by("range-1", "range", "range", 1)),
            self.list("list"),
            self.count("count", self.keys),
            page.with(&["--limit", "500"]),
        ]
    }

    /// Events, renewals, and the open loop.
    fn streams(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = [1, 100, 1_000].map(|watchers| self.watch(watchers)).into();
        let title = format!("keep-alive, {CLIENTS} streams");
        let leases = self.step("keep-alive", &title, "keep-alive", &["lease"]);
        steps.push(leases.with(&["--leases", &CLIENTS.to_string()]));
        let title = format!("open loop, {}/s, mixed", thousands(OPEN_RATE));
        let open = self.step("open", &title, "mixed", &["put", "range"]);
        let open = Step { seconds: self.seconds * OPEN_TIMES, ..open };
        steps.push(open.with(&["--rate", &OPEN_RATE.to_string()]));
        steps
    }

    /// A scale run.
    pub(super) fn scale(&self, scale: Scale) -> Vec<Phase> {
        match scale {
            Scale::Clients => self.scale_clients(),
            Scale::Keys => self.sizes(10_000, 10, self.keys).flat_map(|keys| self.scale_keys(keys)).collect(),
            Scale::Values => self.sizes(64, 4, 1 << 20).flat_map(|bytes| self.scale_value(bytes)).collect(),
            Scale::Watchers => {
                let max = if self.quick { 1_000 } else { 100_000 };
                let watches = self.sizes(1, 10, max).map(|watchers| self.watch(watchers).at(watchers));
                let steps = std::iter::once(self.fill()).chain(watches).collect();
                vec![Phase { fresh: true, steps }]
            }
        }
    }

    /// From `first` on in steps of `times`, `last` included.
    fn sizes(&self, first: u64, times: u64, last: u64) -> impl Iterator<Item = u64> {
        let next = move |size: &u64| (*size < last).then(|| (size * times).min(last));
        std::iter::successors(Some(first.min(last)), next)
    }

    fn scale_clients(&self) -> Vec<Phase> {
        let max = if self.quick { 256 } else { 4_096 };
        let each = |work: &'static str, kind: &str| -> Vec<Step> {
            let step = |clients| self.by(&format!("{work}/{clients}"), work, kind, clients).at(clients);
            self.sizes(1, 4, max).map(|clients| Step { null: true, ..step(clients) }).collect()
        };
        let writes = std::iter::once(self.fill()).chain(each("put", "put")).collect();
        vec![Phase { fresh: true, steps: writes }, Phase { fresh: false, steps: each("range", "range") }]
    }

    fn scale_keys(&self, keys: u64) -> [Phase; 2] {
        let sizes = Sizes { keys, ..*self };
        let at = |step: Step| step.at(keys);
        let writes = vec![
            at(Step { info: StepInfo { name: format!("fill/{keys}"), ..sizes.fill().info }, ..sizes.fill() }),
            at(sizes.by(&format!("put/{keys}"), "put", "put", CLIENTS)),
        ];
        let reads = vec![
            at(sizes.by(&format!("range/{keys}"), "range", "range", CLIENTS)),
            at(sizes.list(&format!("list/{keys}"))),
            at(sizes.count(&format!("count/{keys}"), keys)),
        ];
        [Phase { fresh: true, steps: writes }, Phase { fresh: false, steps: reads }]
    }

    fn scale_value(&self, bytes: u64) -> [Phase; 2] {
        let sizes = Sizes { keys: (VALUES_BYTES / bytes).clamp(64, self.keys.max(64)), ..*self };
        let at = |step: Step| Step { value_bytes: bytes, ..step }.at(bytes);
        let fill = Step { clients: VALUE_CLIENTS, ..sizes.fill() };
        let writes = vec![
            at(Step { info: StepInfo { name: format!("fill/{bytes}"), ..fill.info.clone() }, ..fill }),
            at(sizes.by(&format!("put/{bytes}"), "put", "put", VALUE_CLIENTS)),
        ];
        let reads = vec![at(sizes.by(&format!("range/{bytes}"), "range", "range", VALUE_CLIENTS))];
        [Phase { fresh: true, steps: writes }, Phase { fresh: false, steps: reads }]
    }
}

impl Step {
    fn with(mut self, extra: &[&str]) -> Step {
        self.extra.extend(extra.iter().map(|&argument| argument.to_owned()));
        self
    }

    fn at(mut self, x: u64) -> Step {
        self.info.x = Some(x);
        self
    }

    /// Whether `server` is to run it.
    pub(super) fn is_for(&self, server: Server) -> bool {
        self.null || !server.is_null()
    }

    /// What it will take, about, in seconds.
    pub(super) fn estimate(&self) -> f64 {
        match self.work {
            "fill" => self.keys as f64 / 25_000.0 * (1.0 + self.value_bytes as f64 / 2_000.0),
            _ => self.seconds,
        }
    }

    /// The load generator's arguments, without those that say whom to drive.
    pub(super) fn arguments(&self) -> Vec<String> {
        let connections = self.clients.min(CONNECTIONS).to_string();
        let mut arguments: Vec<String> =
            ["--work", self.work, "--connections", &connections].map(str::to_owned).into();
        let numbers = [
            ("--clients", self.clients),
            ("--keys", self.keys),
            ("--key-bytes", KEY_BYTES),
            ("--value-bytes", self.value_bytes),
        ];
        for (name, number) in numbers {
            arguments.extend([name.to_owned(), number.to_string()]);
        }
        arguments.extend(["--seconds".to_owned(), self.seconds.to_string()]);
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// All steps of a plan, the disk's floor behind them, as tables and plots need them.
pub(super) fn infos(phases: &[Phase]) -> Vec<StepInfo> {
    let mut infos: Vec<StepInfo> =
        phases.iter().flat_map(|phase| &phase.steps).map(|step| step.info.clone()).collect();
    if phases.iter().flat_map(|phase| &phase.steps).any(|step| step.floor) {
        infos.push(StepInfo {
            name: FLOOR.to_owned(),
            group: FLOOR.to_owned(),
            title: "one durable write of 4 KiB, no server".to_owned(),
            x: None,
            latencies: vec!["put".to_owned()],
        });
    }
    infos
}

/// Which server is to have a figure of which step in every round.
pub(super) fn planned(phases: &[Phase], servers: &[Server]) -> Vec<(Server, String)> {
    let mut planned = Vec::new();
    for &server in servers {
        for step in phases.iter().flat_map(|phase| &phase.steps).filter(|step| step.is_for(server)) {
            planned.push((server, step.info.name.clone()));
            if step.floor && !server.is_null() {
                planned.push((server, FLOOR.to_owned()));
            }
        }
    }
    planned
}

fn thousands(number: u64) -> String {
    super::figures::count(number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadOptions;
    use clap::Parser;
    use std::collections::BTreeSet;

    const SIZES: Sizes = Sizes { keys: 100_000, seconds: 2.0, counted_keys: Some(1_000_000), quick: false };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        _load: LoadOptions,
    }

    fn plans() -> Vec<Vec<Phase>> {
        let mut plans = vec![SIZES.standard(), Sizes { counted_keys: None, ..SIZES }.standard()];
        let scales = [Scale::Clients, Scale::Keys, Scale::Values, Scale::Watchers];
        plans.extend(scales.map(|scale| Sizes { keys: 10_000_000, ..SIZES }.scale(scale)));
        plans
    }

    #[test]
    fn the_load_generator_takes_the_arguments_of_every_step() {
        for step in plans().iter().flatten().flat_map(|phase| &phase.steps) {
            let line = std::iter::once("load".to_owned()).chain(step.arguments());
            if let Err(error) = Line::try_parse_from(line) {
                panic!("{}: {error}", step.info.name);
            }
        }
    }

    #[test]
    fn every_step_has_a_name_of_its_own_and_a_group() {
        for plan in plans() {
            let infos = infos(&plan);
            let names: BTreeSet<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            assert_eq!(names.len(), infos.len());
            assert!(infos.iter().all(|info| info.name.starts_with(&info.group)));
        }
    }

    #[test]
    fn null_servers_only_put_and_range() {
        let planned = planned(&SIZES.standard(), &Server::ALL);
        let of = |server: Server| -> Vec<&str> {
            planned.iter().filter(|(planned, _)| *planned == server).map(|(_, step)| step.as_str()).collect()
        };
        assert_eq!(of(Server::NullTonic), ["put", "put-1", "range", "range-1"]);
        assert_eq!(of(Server::NullH2), of(Server::NullTonic));
        assert!(of(Server::Coffer).contains(&"floor") && of(Server::Coffer).len() > 15);
        assert_eq!(of(Server::Coffer), of(Server::Etcd));
    }

    #[test]
    fn what_grows_begins_and_ends_where_it_should() {
        let ends = |scale: Scale, keys: u64| {
            let sizes = Sizes { keys, ..SIZES };
            let infos = infos(&sizes.scale(scale));
            let xs: BTreeSet<u64> = infos.iter().filter_map(|info| info.x).collect();
            (xs.first().copied().unwrap(), xs.last().copied().unwrap(), xs.len())
        };
        assert_eq!(ends(Scale::Clients, 100_000), (1, 4_096, 7));
        assert_eq!(ends(Scale::Keys, 10_000_000), (10_000, 10_000_000, 4));
        assert_eq!(ends(Scale::Keys, 5_000), (5_000, 5_000, 1));
        assert_eq!(ends(Scale::Values, 100_000), (64, 1 << 20, 8));
        assert_eq!(ends(Scale::Watchers, 100_000), (1, 100_000, 6));
    }
}
