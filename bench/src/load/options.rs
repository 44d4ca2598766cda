//! What can be asked of a run.

use super::Failed;
use clap::{Args, Parser, ValueEnum};
use std::path::PathBuf;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Put every key once, in order.
    Fill,
    /// Put keys.
    Put,
    /// Linearizable range of one key.
    Range,
    /// The same, answered by the member alone.
    Serializable,
    /// `--limit` keys in a row, from one on.
    List,
    /// Count of all keys.
    Count,
    /// All keys in pages of `--limit`, at the revision of the first page; a request is a page.
    Page,
    /// Compare the revision of a key and put it, as Kubernetes updates an object.
    Txn,
    /// Put and range, by `--range-percent`.
    Mixed,
    /// Watchers follow while keys are put: how many events arrive, and how late.
    Watch,
    /// Watchers start before `--events` puts of the past: how soon they have read them all.
    Catchup,
    /// Grant leases. They are left behind.
    LeaseGrant,
    /// Renew leases, each client on a stream of its own.
    KeepAlive,
}

/// Which key is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Any, all alike.
    Uniform,
    /// Few are hot: the k-th most wanted with a weight of 1 / k ^ exponent. The hot ones are no neighbours.
    Zipf,
    /// One after the other.
    Sequential,
}

/// What a watcher watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchOn {
    /// One key, the next watcher the next one.
    Key,
    /// One key, the same for all; no other is put.
    Same,
    /// All keys.
    Prefix,
}

/// Which of the endpoints are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// All.
    All,
    /// The one that leads.
    Leader,
    /// Those that do not.
    Followers,
}

/// What sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// The generated client. Not for watch, catchup and keep-alive.
    Tonic,
    /// Bare h2.
    H2,
}

/// What is started a sixth into the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Meanwhile {
    /// Nothing.
    Nothing,
    /// Compaction to the revision of that moment.
    Compaction,
    /// A checkpoint of coffer's page file, at once and without its usual pauses: what a snapshot begins with. The snapshot
    /// ends there.
    Checkpoint,
    /// A snapshot, read to its end.
    Snapshot,
    /// Defragment.
    Defragment,
    /// Deletes the first nine of ten keys before the run, compacts, and starts Defragment in it.
    Shrink,
}

/// How an endpoint with `https://` is spoken to.
#[derive(Clone, Debug, Args)]
pub struct TlsOptions {
    /// PEM file of the authorities that a server's certificate may come from.
    #[arg(long)]
    pub cacert: Option<PathBuf>,
    /// PEM file of this client's certificate.
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Take whatever certificate the server has.
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,
}

/// One run.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// Where the members are.
    #[arg(long, default_value = "http://127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// Which of them are driven.
    #[arg(long, value_enum, default_value = "all")]
    pub to: To,
    /// How an endpoint with `https://` is spoken to.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// What to do.
    #[arg(long, value_enum, default_value = "mixed")]
    pub work: Work,
    /// What sends the requests.
    #[arg(long, value_enum, default_value = "h2")]
    pub client: Client,
    /// Keys of a list or page.
    #[arg(long, default_value_t = 1_000)]
    pub limit: i64,
    /// Read at the revision that the store had when the run began.
    #[arg(long)]
    pub pinned: bool,
    /// Percent of ranges in mixed work.
    #[arg(long, default_value_t = 50)]
    pub range_percent: u64,
    /// Connections, dealt to the endpoints in turn.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Clients that wait for one answer each, dealt to the connections in turn.
    #[arg(long, default_value_t = 256)]
    pub clients: usize,
    /// Watchers, dealt to the streams in turn.
    #[arg(long, default_value_t = 100)]
    pub watchers: usize,
    /// Watch streams of each connection.
    #[arg(long, default_value_t = 1)]
    pub watch_streams: usize,
    /// What a watcher watches.
    #[arg(long, value_enum, default_value = "prefix")]
    pub watch_on: WatchOn,
    /// Puts that watchers are told of [catchup: 100,000; watch: as many as `--requests`, `--rate` or `--seconds` say].
    #[arg(long)]
    pub events: Option<u64>,
    /// Leases that are kept alive [one for each client].
    #[arg(long)]
    pub leases: Option<usize>,
    /// Seconds that a lease is granted for.
    #[arg(long, default_value_t = 3_600)]
    pub lease_ttl: i64,
    /// Keys there are.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Which key is next.
    #[arg(long, value_enum, default_value = "uniform")]
    pub distribution: Distribution,
    /// How much hotter the hot keys are, with `--distribution zipf`.
    #[arg(long, default_value_t = 0.99)]
    pub zipf_exponent: f64,
    /// Bytes of a key.
    #[arg(long, default_value_t = 24)]
    pub key_bytes: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Requests a second, all clients together; none: closed loop.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long, in seconds (fill: until all keys are there).
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// So many requests, whatever time they take.
    #[arg(long)]
    pub requests: Option<u64>,
    /// Requests that may fail; one more ends the run.
    #[arg(long, default_value_t = 0)]
    pub errors_max: u64,
    /// Where the sequence of keys begins.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What goes on beside.
    #[arg(long, value_enum, default_value = "nothing")]
    pub meanwhile: Meanwhile,
    /// The server's process, whose CPU and memory are shown.
    #[arg(long)]
    pub pid: Option<u32>,
    /// A name for the run, put into the JSON.
    #[arg(long)]
    pub label: Option<String>,
    /// Also write the figures here.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl Default for LoadOptions {
    /// What a command line without options asks for.
    fn default() -> LoadOptions {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            options: LoadOptions,
        }
        Line::parse_from(["load"]).options
    }
}

/// Events of a catch-up.
const CATCHUP_EVENTS: u64 = 100_000;

impl LoadOptions {
    /// Refuses what does not fit together.
    pub(super) fn check(&self) -> Result<(), Failed> {
        let work = name(self.work);
        let reads = matches!(
            self.work,
            Work::Range | Work::Serializable | Work::List | Work::Count | Work::Page | Work::Mixed
        );
        if self.pinned && !reads {
            return Err(format!("--pinned is for reads, not for {work}").into());
        }
        let streams = matches!(self.work, Work::Watch | Work::Catchup | Work::KeepAlive);
        if self.client == Client::Tonic && streams {
            return Err(format!("{work} goes over --client h2 only").into());
        }
        if self.errors_max > 0 && streams {
            return Err(format!("{work} cannot be counted if a request fails: no --errors-max").into());
        }
        if self.rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
            return Err("--rate must be above 0".into());
        }
        if self.distribution == Distribution::Zipf && !(0.0..=10.0).contains(&self.zipf_exponent) {
            return Err("--zipf-exponent must be from 0 to 10".into());
        }
        if self.limit < 1 && matches!(self.work, Work::List | Work::Page) {
            return Err("--limit must be above 0".into());
        }
        Ok(())
    }

    /// Requests of the run; `None` if it ends by the clock.
    pub(super) fn requests_asked(&self) -> Option<u64> {
        let by_rate = self.rate.map(|rate| (rate * self.seconds) as u64);
        match self.work {
            Work::Fill => Some(self.keys),
            Work::Watch => self.events.or(self.requests).or(by_rate),
            Work::Catchup => Some(self.events.or(self.requests).unwrap_or(CATCHUP_EVENTS)),
            _ => self.requests.or(by_rate),
        }
    }
}

/// What a choice is called on the command line.
pub(super) fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: LoadOptions,
    }

    fn parse(line: &str) -> Result<LoadOptions, clap::Error> {
        let words = std::iter::once("load").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options)
    }

    #[test]
    fn works_and_choices_have_the_names_that_reports_use() {
        for work in Work::value_variants() {
            let parsed = parse(&format!("--work {}", name(*work))).unwrap();
            assert_eq!(parsed.work, *work);
        }
        let options = parse(
            "--work keep-alive --distribution zipf --watch-on same --to followers --endpoints a:1,b:2 --label x",
        );
        let options = options.unwrap();
        assert_eq!((options.work, options.to), (Work::KeepAlive, To::Followers));
        assert_eq!((options.distribution, options.watch_on), (Distribution::Zipf, WatchOn::Same));
        assert_eq!((options.endpoints.len(), options.label.as_deref()), (2, Some("x")));
        assert!(parse("--cert c.pem").is_err(), "a certificate without its key");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for line in [
            "--work put --pinned",
            "--work watch --client tonic",
            "--work keep-alive --errors-max 1",
            "--rate 0",
            "--distribution zipf --zipf-exponent 11",
            "--work page --limit 0",
        ] {
            assert!(parse(line).unwrap().check().is_err(), "{line}");
        }
        assert!(parse("--work list --pinned --client tonic").unwrap().check().is_ok());
    }

    #[test]
    fn a_run_ends_by_count_where_one_is_given() {
        let asked = |line: &str| parse(line).unwrap().requests_asked();
        assert_eq!(asked("--work put"), None);
        assert_eq!(asked("--work put --rate 50 --seconds 2"), Some(100));
        assert_eq!(asked("--work put --rate 50 --requests 7"), Some(7));
        assert_eq!(asked("--work fill --keys 9 --requests 7"), Some(9));
        assert_eq!(asked("--work watch --events 3 --requests 7"), Some(3));
        assert_eq!(asked("--work catchup"), Some(CATCHUP_EVENTS));
    }
}
