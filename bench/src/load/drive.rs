//! A run: who sends what when, and how long it took.

use super::connect::Network;
use super::keys::{Chooser, Values};
use super::lease;
use super::meanwhile;
use super::pace::Pace;
use super::process::{self, Usage};
use super::watch::{Watchers, watchers_of};
use super::worker::{Kind, Worker};
use super::{Failed, LoadOptions, Meanwhile, WatchOn, Work};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Latencies above this count as this, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What a run gave.
pub(crate) struct Measured {
    /// Latencies of puts in microseconds.
    pub(crate) puts: Histogram<u64>,
    /// Latencies of ranges.
    pub(crate) ranges: Histogram<u64>,
    /// Latencies of grants or renewals.
    pub(super) leases: Histogram<u64>,
    /// How late events arrived: after their put was sent, or, of a catch-up, after the watchers were asked for.
    pub(super) events: Histogram<u64>,
    /// Key-values read.
    pub(super) kvs: u64,
    /// Requests that failed.
    pub(super) errors: u64,
    /// The longest latency of each second, in microseconds.
    pub(super) longest_by_second: Vec<u64>,
    /// From the first request to the last answer, or event.
    pub(crate) took: Duration,
    /// What the server's process used meanwhile.
    pub(super) server: Option<Usage>,
    /// What this process used.
    pub(super) own: Option<Usage>,
    /// What the work beside did, in words.
    pub(crate) beside: Option<String>,
}

/// What the server's process and this one have used.
type Usages = (Option<Usage>, Option<Usage>);

/// What the clients of a run share.
pub(super) struct Run {
    pub(super) options: LoadOptions,
    /// The revision that is read; 0: the newest.
    pub(super) pinned: i64,
    pub(super) chooser: Chooser,
    pub(super) values: Values,
    /// Requests there are; `None`: as many as the time allows.
    end: Option<u64>,
    next: Cell<u64>,
    begun: Cell<Instant>,
    before: Cell<Usages>,
    pace: RefCell<Option<Rc<Pace>>>,
    expected_events: Cell<u64>,
    tally: RefCell<Tally>,
    bar: ProgressBar,
}

/// What is counted.
struct Tally {
    latencies: [Histogram<u64>; 4],
    longest_by_second: Vec<u64>,
    kvs: u64,
    errors: u64,
}

impl Tally {
    fn new() -> Result<Tally, Failed> {
        let empty = Histogram::new_with_max(LATENCY_US_MAX, 3)?;
        let latencies = [empty.clone(), empty.clone(), empty.clone(), empty];
        Ok(Tally { latencies, longest_by_second: Vec::new(), kvs: 0, errors: 0 })
    }
}

/// Does a run from its first connection to its last answer.
pub(super) async fn drive(options: &LoadOptions) -> Result<Measured, Failed> {
    options.check()?;
    LocalSet::new().run_until(run(options)).await
}

async fn run(options: &LoadOptions) -> Result<Measured, Failed> {
    let network = Network::open(options).await?;
    if options.meanwhile == Meanwhile::Shrink {
        meanwhile::delete_most(&network.control, options).await?;
    }
    let revision = meanwhile::revision(&network.control).await?;
    let run = &Rc::new(Run::new(options, if options.pinned { revision } else { 0 })?);
    match options.work {
        Work::Watch => {
            let watchers = Watchers::start(run, &network, 0).await?;
            watchers.created().await?;
            let fan_out = async {
                let put = run.all(workers(run, &network)).await?;
                Ok(watchers.caught_up(run).await?.max(put))
            };
            run.measure(&network, fan_out).await
        }
        Work::Catchup => {
            run.begin()?;
            run.all(workers(run, &network)).await?;
            let catch_up = async {
                let watchers = Watchers::start(run, &network, revision + 1).await?;
                watchers.created().await?;
                watchers.caught_up(run).await
            };
            run.measure(&network, catch_up).await
        }
        Work::KeepAlive => {
            let keepers = lease::keepers(run, &network).await?;
            run.measure(&network, run.all(keepers)).await
        }
        _ => run.measure(&network, run.all(workers(run, &network))).await,
    }
}

/// A run's clients, dealt to the connections.
fn workers(run: &Rc<Run>, network: &Network) -> Vec<Worker> {
    let wires = network.wires.iter().cycle();
    wires.take(run.clients()).map(|wire| Worker::new(run, wire.clone())).collect()
}

fn bar(options: &LoadOptions, end: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::new(end.unwrap_or((options.seconds * 10.0) as u64));
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {percent}% eta {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Run {
    fn new(options: &LoadOptions, pinned: i64) -> Result<Run, Failed> {
        let end = options.requests_asked();
        Ok(Run {
            options: options.clone(),
            pinned,
            chooser: Chooser::new(options),
            values: Values::new(options.value_bytes, options.seed),
            end,
            next: Cell::new(0),
            begun: Cell::new(Instant::now()),
            before: Cell::default(),
            pace: RefCell::default(),
            expected_events: Cell::new(0),
            tally: RefCell::new(Tally::new()?),
            bar: bar(options, end),
        })
    }

    /// Clients of the run.
    pub(super) fn clients(&self) -> usize {
        self.options.clients.max(1)
    }

    /// Leases that a run keeps alive.
    pub(super) fn leases(&self) -> usize {
        self.options.leases.unwrap_or(self.clients()).max(1)
    }

    /// The clock starts, nothing is counted yet.
    fn begin(&self) -> Result<(), Failed> {
        self.tally.replace(Tally::new()?);
        self.next.set(0);
        self.before.set(self.usages());
        self.begun.set(Instant::now());
        Ok(())
    }

    fn usages(&self) -> Usages {
        (self.options.pid.and_then(process::usage), process::usage(std::process::id()))
    }

    /// Measures what `work` takes until the moment that it tells, with the work beside.
    async fn measure(
        &self,
        network: &Network,
        work: impl Future<Output = Result<Instant, Failed>>,
    ) -> Result<Measured, Failed> {
        self.begin()?;
        let beside = meanwhile::start(network.control.clone(), self.options.clone());
        let beside = tokio::task::spawn_local(beside);
        let ended = work.await?;
        // work that goes on after the last request is waited for, but not measured
        let beside = beside.await??;
        self.bar.finish_and_clear();
        self.measured(ended - self.begun.get(), beside)
    }

    fn measured(&self, took: Duration, beside: Option<String>) -> Result<Measured, Failed> {
        let (before, after) = (self.before.get(), self.usages());
        let tally = self.tally.replace(Tally::new()?);
        let [puts, ranges, leases, events] = tally.latencies;
        Ok(Measured {
            puts,
            ranges,
            leases,
            events,
            kvs: tally.kvs,
            errors: tally.errors,
            longest_by_second: tally.longest_by_second,
            took,
            server: after.0.zip(before.0).map(|(after, before)| after.since(&before)),
            own: after.1.zip(before.1).map(|(after, before)| after.since(&before)),
            beside,
        })
    }

    /// Lets all clients work; when the last one was done.
    async fn all(&self, workers: Vec<Worker>) -> Result<Instant, Failed> {
        let pace = match (self.options.rate, self.end) {
            (Some(rate), Some(end)) => {
                Some(Rc::new(Pace::start(self.begun.get(), rate, end, workers.len())?))
            }
            _ => None,
        };
        self.pace.replace(pace);
        let working: Vec<_> =
            workers.into_iter().map(|worker| tokio::task::spawn_local(worker.work())).collect();
        for worker in working {
            worker.await??;
        }
        self.pace.replace(None);
        Ok(Instant::now())
    }

    /// Waits for a turn: the number of a request, and when it is due. `None` at the end of the run.
    pub(super) async fn turn(&self) -> Option<(u64, Instant)> {
        let pace = self.pace.borrow().clone();
        if let Some(pace) = &pace {
            pace.turn().await;
        }
        let number = self.next.get();
        let over = match self.end {
            Some(end) => number >= end,
            None => self.begun.get().elapsed().as_secs_f64() >= self.options.seconds,
        };
        if over {
            return None;
        }
        self.next.set(number + 1);
        Some((number, pace.map_or_else(Instant::now, |pace| pace.due(number))))
    }

    /// A request was answered.
    pub(super) fn note(&self, kind: Kind, due: Instant, number: u64) {
        let now = Instant::now();
        let us = (now - due).as_micros() as u64;
        // a stall is charged to the second in which the request was due
        let second = (due - self.begun.get()).as_secs() as usize;
        let mut tally = self.tally.borrow_mut();
        tally.latencies[kind as usize].saturating_record(us);
        let longest = &mut tally.longest_by_second;
        if longest.len() <= second {
            longest.resize(second + 1, 0);
        }
        longest[second] = longest[second].max(us);
        if number.is_multiple_of(1_000) {
            let tenths = || (now - self.begun.get()).as_millis() as u64 / 100;
            self.bar.set_position(self.end.map_or_else(tenths, |_| number));
        }
    }

    /// A request failed.
    ///
    /// # Errors
    /// That was one too many.
    pub(super) fn note_error(&self, error: Failed) -> Result<(), Failed> {
        let mut tally = self.tally.borrow_mut();
        tally.errors += 1;
        if tally.errors > self.options.errors_max { Err(error) } else { Ok(()) }
    }

    /// Key-values were read.
    pub(super) fn note_found(&self, kvs: u64) {
        self.tally.borrow_mut().kvs += kvs;
    }

    /// An event arrived, so late.
    pub(super) fn note_event(&self, us: u64) {
        self.tally.borrow_mut().latencies[Kind::Event as usize].saturating_record(us);
    }

    /// Microseconds since the run began.
    pub(super) fn elapsed_us(&self) -> u64 {
        self.begun.get().elapsed().as_micros() as u64
    }

    /// The key that request `number` of a watched run puts.
    pub(super) fn watched_key(&self, number: u64) -> u64 {
        if self.options.watch_on == WatchOn::Same { 0 } else { self.chooser.choose(number) }
    }

    /// Every watcher of this key must be told once more.
    pub(super) fn expect_events_of(&self, key: u64) {
        self.expected_events.set(self.expected_events.get() + watchers_of(&self.options, key));
    }

    /// Events that must arrive.
    pub(super) fn expected_events(&self) -> u64 {
        self.expected_events.get()
    }
}
