//! A whole run from a seed: clients that put, members that crash and come back, ways that are cut; then everything is
//! mended and what the clients were told is held against what the members have.

use super::cluster::{Cluster, ClusterOptions, Crash, PageWork};
use crate::driver::mix;
use crate::error::Error;
use crate::proposal::{Busy, Outcome, ReplyTo, Request};
use coffer_engine::Micros;
use coffer_engine::command::{Applied, Command, PutRequest};
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::mvcc::KeyRange;
use std::collections::BTreeMap;
use std::fmt;

/// Keys that the clients write.
const KEYS: u64 = 64;
/// How long a client waits for an answer before it gives up, in simulated time.
const PATIENCE_US: Micros = 2_000_000;
/// How long members may take, once all is mended, to agree on everything.
const SETTLE_US_MAX: Micros = 60_000_000;
/// Simulated time after which a run that has not reached its goal is said to stand still.
const RUN_US_MAX: Micros = 3_600_000_000;

/// What a run is made of. Times are drawn evenly between the two ends given, in microseconds.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// The members.
    pub cluster: ClusterOptions,
    /// Acknowledged commands after which the run ends.
    pub acknowledged: usize,
    /// Crashes that it must have seen besides.
    pub crashes: u64,
    /// Requests under way at most.
    pub clients: usize,
    /// Between two requests of all clients.
    pub request_every_us: (Micros, Micros),
    /// Between two crashes; with one member, from its being ready to its next crash.
    pub crash_every_us: (Micros, Micros),
    /// How long a crashed member is down.
    pub down_us: (Micros, Micros),
    /// Between two cuts of the way between two members.
    pub cut_every_us: (Micros, Micros),
    /// How long such a cut lasts.
    pub cut_us: (Micros, Micros),
}

impl WorkloadOptions {
    /// Three members and a thousand commands.
    pub fn three_members(seed: u64) -> WorkloadOptions {
        WorkloadOptions {
            cluster: ClusterOptions {
                heartbeat_us: 20_000,
                // some members have to spill between two checkpoints
                dirty_bytes: if seed.is_multiple_of(2) { 16 << 10 } else { 1 << 20 },
                snapshot_entries: Some(50),
                ..ClusterOptions::new(seed, 3)
            },
            acknowledged: 1_000,
            crashes: 0,
            clients: 8,
            request_every_us: (100, 3_000),
            crash_every_us: (50_000, 800_000),
            down_us: (1_000, 500_000),
            cut_every_us: (50_000, 1_000_000),
            cut_us: (10_000, 700_000),
        }
    }

    /// One member that crashes all the time.
    pub fn one_member(seed: u64) -> WorkloadOptions {
        WorkloadOptions {
            cluster: ClusterOptions {
                // each start adds a segment
                segment_bytes: (32 << 10, 32 << 10),
                dirty_bytes: if seed.is_multiple_of(2) { 64 << 10 } else { 1 << 20 },
                snapshot_entries: Some(8),
                ..ClusterOptions::new(seed, 1)
            },
            acknowledged: 100,
            crashes: 60,
            clients: 8,
            request_every_us: (20, 1_000),
            crash_every_us: (500, 12_000),
            down_us: (0, 3_000),
            cut_every_us: (Micros::MAX / 4, Micros::MAX / 4),
            cut_us: (0, 0),
        }
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Commands acknowledged.
    pub acknowledged: usize,
    /// Commands whose fate their client does not know.
    pub unknown: usize,
    /// Last index of the log.
    pub entries: u64,
    /// Crashes.
    pub crashes: u64,
    /// Terms that had a leader.
    pub leaders: usize,
    /// Messages sent, and lost on the way.
    pub messages: (u64, u64),
    /// Applied indexes at which two members were compared.
    pub compared: u64,
    /// What page files and logs did.
    pub page_work: PageWork,
    /// Simulated time in microseconds.
    pub simulated_us: Micros,
    /// A number that depends on everything that happened.
    pub trace: u64,
}

impl Report {
    /// Adds another run's numbers.
    pub fn add(&mut self, other: &Report) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.entries += other.entries;
        self.crashes += other.crashes;
        self.leaders += other.leaders;
        self.messages = (self.messages.0 + other.messages.0, self.messages.1 + other.messages.1);
        self.compared += other.compared;
        self.page_work.checkpoints += other.page_work.checkpoints;
        self.page_work.spilled += other.page_work.spilled;
        self.page_work.recycled += other.page_work.recycled;
        self.page_work.from_pages += other.page_work.from_pages;
        self.simulated_us += other.simulated_us;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} acknowledged, {} unknown, {} entries, {} crashes, {} leaders, {} messages ({} lost), \
             {} comparisons, {} checkpoints, {} pages spilled, {} segments recycled, {} starts from a page file, \
             {}.{:03} s simulated, trace {:016x}",
            self.seed,
            self.acknowledged,
            self.unknown,
            self.entries,
            self.crashes,
            self.leaders,
            self.messages.0,
            self.messages.1,
            self.compared,
            self.page_work.checkpoints,
            self.page_work.spilled,
            self.page_work.recycled,
            self.page_work.from_pages,
            self.simulated_us / 1_000_000,
            self.simulated_us / 1_000 % 1_000,
            self.trace
        )
    }
}

/// Runs it.
///
/// # Errors
/// What went wrong, with the seed.
pub fn run(options: &WorkloadOptions) -> Result<Report, String> {
    let seed = options.cluster.seed;
    Run::new(options).and_then(|mut run| run.go()).map_err(|wrong| format!("seed {seed}: {wrong}"))
}

struct Run {
    options: WorkloadOptions,
    cluster: Cluster,
    rng: Rng,
    number: u32,
    /// Requests under way: number -> when sent.
    waiting: BTreeMap<u32, Micros>,
    /// Number -> revision told.
    acknowledged: BTreeMap<u32, i64>,
    unknown: usize,
    next_request: Micros,
    next_crash: Micros,
    next_cut: Micros,
    restarts: BTreeMap<(Micros, u64), ()>,
    joins: BTreeMap<(Micros, u64, u64), ()>,
}

fn text(error: Error) -> String {
    error.to_string()
}

impl Run {
    fn new(options: &WorkloadOptions) -> Result<Run, String> {
        Ok(Run {
            rng: Rng::new(mix(options.cluster.seed ^ 0x77)),
            cluster: Cluster::new(options.cluster.clone()).map_err(text)?,
            options: options.clone(),
            number: 0,
            waiting: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            unknown: 0,
            next_request: 0,
            next_crash: options.crash_every_us.1,
            next_cut: options.cut_every_us.0,
            restarts: BTreeMap::new(),
            joins: BTreeMap::new(),
        })
    }

    fn between(&mut self, (low, high): (Micros, Micros)) -> Micros {
        self.rng.between(low, high)
    }

    fn go(&mut self) -> Result<Report, String> {
        while self.acknowledged.len() < self.options.acknowledged
            || self.cluster.crashes() < self.options.crashes
        {
            let mut at = self.next_request.min(self.next_crash).min(self.next_cut);
            at = self.restarts.keys().next().map_or(at, |&(restart, _)| at.min(restart));
            at = self.joins.keys().next().map_or(at, |&(join, _, _)| at.min(join));
            self.cluster.run_until(at)?;
            self.read_answers()?;
            if let Some((id, error)) = self.cluster.faults().first() {
                return Err(format!("member {id} stopped: {error}"));
            }
            if self.cluster.now() > RUN_US_MAX {
                return Err(format!("only {} commands were acknowledged", self.acknowledged.len()));
            }
            self.act(at)?;
        }
        self.settle()?;
        self.hold_against()?;
        Ok(self.report())
    }

    fn act(&mut self, at: Micros) -> Result<(), String> {
        if at >= self.next_request {
            self.request();
            self.next_request = at + self.between(self.options.request_every_us);
        }
        if at >= self.next_crash {
            self.crash(at);
            self.next_crash = at + self.between(self.options.crash_every_us);
        }
        if at >= self.next_cut {
            self.cut(at);
            self.next_cut = at + self.between(self.options.cut_every_us);
        }
        while let Some(first) = self.restarts.first_entry().filter(|first| first.key().0 <= at) {
            let ((_, id), ()) = first.remove_entry();
            let ready = self.cluster.start(id).map_err(text)?;
            if self.options.cluster.members == 1 {
                // the next crash is to find it at work
                self.next_crash = ready + self.between(self.options.crash_every_us);
            }
        }
        while let Some(first) = self.joins.first_entry().filter(|first| first.key().0 <= at) {
            let ((_, a, b), ()) = first.remove_entry();
            self.cluster.network().set_cut(a, b, false);
        }
        Ok(())
    }

    fn any_member(&mut self) -> u64 {
        self.rng.between(1, self.options.cluster.members)
    }

    fn request(&mut self) {
        let now = self.cluster.now();
        let before = self.waiting.len();
        self.waiting.retain(|_, sent| *sent + PATIENCE_US > now);
        self.unknown += before - self.waiting.len();
        if self.waiting.len() >= self.options.clients {
            return;
        }
        let member = match self.cluster.leader() {
            Some(leader) if !self.rng.once_in(10) => leader,
            _ => self.any_member(),
        };
        self.number += 1;
        let padding = if self.rng.once_in(50) { 6_000 } else { self.rng.below(200) };
        let mut value = self.number.to_le_bytes().to_vec();
        value.resize(4 + padding as usize, b'.');
        let put = PutRequest {
            key: format!("key-{}", self.rng.below(KEYS)).into(),
            value: value.into(),
            ..PutRequest::default()
        };
        let reply_to = ReplyTo { mailbox: 0, slot: self.number, generation: 0 };
        self.waiting.insert(self.number, now);
        self.cluster.submit(member, Request::Propose { command: Command::Put(put), reply_to });
    }

    fn read_answers(&mut self) -> Result<(), String> {
        for answer in self.cluster.take_answers() {
            let number = answer.to.slot;
            self.waiting.remove(&number);
            match answer.outcome {
                Outcome::Applied(Applied { revision, outcome: Ok(_) }) => {
                    if self.acknowledged.insert(number, revision).is_some() {
                        return Err(format!("command {number} was answered twice"));
                    }
                }
                Outcome::Failed(Busy::NoLeader | Busy::NotLeader | Busy::LeaderChanged) => self.unknown += 1,
                other => return Err(format!("command {number} was answered {other:?}")),
            }
        }
        Ok(())
    }

    fn crash(&mut self, at: Micros) {
        let id = self.any_member();
        if self.cluster.core(id).is_none() {
            return;
        }
        let crash = if self.rng.once_in(3) { Crash::Kill } else { Crash::PowerCut };
        self.cluster.crash(id, crash);
        let back = at + self.between(self.options.down_us);
        self.restarts.insert((back, id), ());
    }

    fn cut(&mut self, at: Micros) {
        let (a, b) = (self.any_member(), self.any_member());
        if a != b {
            self.cluster.network().set_cut(a, b, true);
            let joined = at + self.between(self.options.cut_us);
            self.joins.insert((joined, a, b), ());
        }
    }

    /// Mends everything and waits until all members have applied all there is.
    fn settle(&mut self) -> Result<(), String> {
        self.cluster.network().heal();
        while let Some(((_, id), ())) = self.restarts.pop_first() {
            let _ready = self.cluster.start(id).map_err(text)?;
        }
        let until = self.cluster.now() + SETTLE_US_MAX;
        while !self.settled() {
            if self.cluster.now() > until {
                return Err("the members do not agree although everything was mended".into());
            }
            let next = self.cluster.now() + 10_000;
            self.cluster.run_until(next)?;
            self.read_answers()?;
        }
        Ok(())
    }

    fn settled(&self) -> bool {
        let mut ends = (1..=self.options.cluster.members).map(|id| {
            let status = self.cluster.core(id)?.status();
            (status.leader != 0 && status.applied == status.last).then_some(status.applied)
        });
        let first = ends.next().flatten();
        first.is_some() && ends.all(|end| end == first)
    }

    /// Everything acknowledged is on every member exactly once, at the revision that was told; all members have the
    /// same history and the same state.
    fn hold_against(&mut self) -> Result<(), String> {
        let history = self.history(1)?;
        for id in 2..=self.options.cluster.members {
            if self.history(id)? != history {
                return Err(format!("the histories of members 1 and {id} differ"));
            }
        }
        let mut places: BTreeMap<u32, i64> = BTreeMap::new();
        for (revision, number) in history {
            if let Some(before) = places.insert(number, revision) {
                return Err(format!(
                    "command {number} was applied twice, in revisions {before} and {revision}"
                ));
            }
        }
        for (number, told) in &self.acknowledged {
            match places.get(number) {
                Some(revision) if revision == told => {}
                Some(revision) => {
                    return Err(format!("command {number} was told revision {told} and is at {revision}"));
                }
                None => return Err(format!("command {number} was acknowledged and is lost")),
            }
        }
        for id in 1..=self.options.cluster.members {
            self.cluster.check_store(id)?;
        }
        Ok(())
    }

    /// Revision and number of every put that a member has applied.
    fn history(&self, id: u64) -> Result<Vec<(i64, u32)>, String> {
        let core = self.cluster.core(id).ok_or_else(|| format!("member {id} does not run"))?;
        let everything = KeyRange::new(vec![0u8], vec![0u8]);
        let (mut out, mut from) = (Vec::new(), 2);
        loop {
            let page =
                core.reader().history(&everything, from, 10_000).map_err(|refusal| refusal.to_string())?;
            for event in &page.events {
                let number = event.kv.value.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                out.push((event.kv.mod_revision, number));
            }
            from = page.next;
            if page.next > page.current {
                return Ok(out);
            }
        }
    }

    fn report(&mut self) -> Report {
        let network = self.cluster.network();
        let messages = (network.sent(), network.lost());
        Report {
            seed: self.options.cluster.seed,
            acknowledged: self.acknowledged.len(),
            unknown: self.unknown,
            entries: self.cluster.core(1).map_or(0, |core| core.status().last),
            crashes: self.cluster.crashes(),
            leaders: self.cluster.checker().leaders(),
            messages,
            compared: self.cluster.checker().compared(),
            page_work: self.cluster.page_work(),
            simulated_us: self.cluster.now(),
            trace: self.cluster.trace(),
        }
    }
}
