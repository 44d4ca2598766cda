//! Simulated members, their disks, crashes and restarts: one event after the other, in the order of simulated time.

use super::checker::Checker;
use super::network::{Network, NetworkOptions};
use crate::core::{Core, CoreOptions, LOG_BYTES_MAX, Output};
use crate::driver::{DriverOptions, mix};
use crate::error::Error;
use crate::proposal::{Busy, Outcome, Post, ReplyTo, Request};
use crate::recovery::{self, RecoveryOptions};
use coffer_engine::Micros;
use coffer_engine::command::Member;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::disk::{Completion, Disk};
use coffer_engine::store::{StoreOptions, StoreStats};
use coffer_engine::wal::WalOptions;
use std::path::PathBuf;

/// The cluster that all simulated members belong to.
pub const CLUSTER_ID: u64 = 0xc0ffe4;
/// Steps of one member at one moment, beyond which it is said to run in a circle.
const STEPS_AT_ONCE_MAX: usize = 10_000;

/// What a simulated cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// Members; their ids are 1, 2, ...
    pub members: u64,
    /// One tick, in microseconds.
    pub heartbeat_us: Micros,
    /// Ticks of an election timeout.
    pub election_ticks: u32,
    /// The network.
    pub network: NetworkOptions,
    /// Smallest and largest segment of the logs.
    pub segment_bytes: (u64, u64),
    /// Bytes of pages that may wait to be written.
    pub dirty_bytes: u64,
    /// Applied entries after which a checkpoint begins.
    pub snapshot_entries: Option<u64>,
    /// Applied entries that the logs keep for followers.
    pub catchup_entries: u64,
}

impl ClusterOptions {
    /// The usual ones.
    pub fn new(seed: u64, members: u64) -> ClusterOptions {
        ClusterOptions {
            seed,
            members,
            heartbeat_us: 100_000,
            election_ticks: 10,
            network: NetworkOptions::default(),
            segment_bytes: (32 << 10, 256 << 10),
            dirty_bytes: 256 << 20,
            snapshot_entries: None,
            catchup_entries: 5_000,
        }
    }
}

/// How a member goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The machine loses its power: what was not synced may be gone.
    PowerCut,
    /// The process is killed.
    Kill,
}

/// An answer that a member posted.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which member.
    pub member: u64,
    /// When.
    pub at: Micros,
    /// Which post of all members' brought it, counted from 1.
    pub post: u64,
    /// How far its member had carried out compaction by then; -1 if it had stopped.
    pub compaction_done: i64,
    /// To which request.
    pub to: ReplyTo,
    /// The answer.
    pub outcome: Outcome,
}

struct Seat {
    id: u64,
    disk: SimDisk,
    core: Option<Core>,
    /// When it wants to be stepped although nothing happens.
    wake_at: Option<Micros>,
    /// Something happened to it.
    touched: bool,
    requests: Vec<Request>,
    starts: u64,
    /// Counters of the page file and segments recycled in this life.
    pages: StoreStats,
    recycled: u64,
}

/// What all members' page files and logs did in all their lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageWork {
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Pages spilled.
    pub spilled: u64,
    /// Segments of the log recycled.
    pub recycled: u64,
    /// Starts from a page file that had applied something.
    pub from_pages: u64,
}

/// The cluster.
pub struct Cluster {
    options: ClusterOptions,
    now: Micros,
    seats: Vec<Seat>,
    network: Network,
    checker: Checker,
    answers: Vec<Answer>,
    posts: u64,
    faults: Vec<(u64, Error)>,
    rng: Rng,
    trace: u64,
    crashes: u64,
    page_work: PageWork,
    lossy: bool,
}

impl Cluster {
    /// A cluster whose members all start on empty disks.
    ///
    /// # Errors
    /// Why one does not start.
    pub fn new(options: ClusterOptions) -> Result<Cluster, Error> {
        let mut rng = Rng::new(mix(options.seed));
        let seats = (1..=options.members)
            .map(|id| Seat {
                id,
                disk: SimDisk::new(rng.next_u64()),
                core: None,
                wake_at: None,
                touched: false,
                requests: Vec::new(),
                starts: 0,
                pages: StoreStats::default(),
                recycled: 0,
            })
            .collect();
        let mut cluster = Cluster {
            network: Network::new(options.network, rng.next_u64()),
            checker: Checker::new(options.members),
            now: 1_000,
            seats,
            answers: Vec::new(),
            posts: 0,
            faults: Vec::new(),
            rng,
            trace: 0,
            crashes: 0,
            page_work: PageWork::default(),
            lossy: options.members > 1,
            options,
        };
        for id in 1..=cluster.options.members {
            cluster.start(id)?;
        }
        Ok(cluster)
    }

    /// The simulated time.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The network.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// What was seen so far, and whether it was right.
    pub fn checker(&mut self) -> &mut Checker {
        &mut self.checker
    }

    /// Holds a member's whole store against every rule and against what others had at its applied index.
    ///
    /// # Errors
    /// What is wrong, or that it does not run.
    pub fn check_store(&mut self, id: u64) -> Result<(), String> {
        let core = self.seats[id as usize - 1].core.as_ref();
        let core = core.ok_or_else(|| format!("member {id} does not run"))?;
        core.reader().check()?;
        self.checker.compare_stores(id, core.status().applied, core)
    }

    /// Crashes so far.
    pub fn crashes(&self) -> u64 {
        self.crashes
    }

    /// What page files and logs did so far.
    pub fn page_work(&self) -> PageWork {
        self.page_work
    }

    /// A number that depends on everything that happened.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Members that stopped by themselves, with the reason.
    pub fn faults(&self) -> &[(u64, Error)] {
        &self.faults
    }

    /// Answers since the last call.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// A member's disk.
    pub fn disk(&self, id: u64) -> &SimDisk {
        &self.seat(id).disk
    }

    /// A member's core, if it runs.
    pub fn core(&self, id: u64) -> Option<&Core> {
        self.seat(id).core.as_ref()
    }

    /// The member that leads in the newest term, if one runs and knows that it does.
    pub fn leader(&self) -> Option<u64> {
        let standings =
            self.seats.iter().filter_map(|seat| Some((seat.core.as_ref()?.driver().standing(), seat.id)));
        standings
            .filter(|(standing, _)| standing.leads)
            .max_by_key(|(standing, _)| standing.term)
            .map(|(_, id)| id)
    }

    fn seat(&self, id: u64) -> &Seat {
        &self.seats[id as usize - 1]
    }

    fn seat_mut(&mut self, id: u64) -> &mut Seat {
        &mut self.seats[id as usize - 1]
    }

    fn recovery_options(&self, seat: &Seat) -> RecoveryOptions {
        let owner = recovery::owner(CLUSTER_ID, seat.id);
        let salt = mix(self.options.seed ^ mix(seat.id << 32 | seat.starts));
        let wal = WalOptions {
            segment_bytes_min: self.options.segment_bytes.0,
            segment_bytes_max: self.options.segment_bytes.1,
            entry_bytes_max: 16 << 10,
            ..WalOptions::new(PathBuf::from("/wal"), owner, salt)
        };
        let bootstrap = (1..=self.options.members)
            .map(|id| Member { id, name: format!("m{id}"), ..Member::default() })
            .collect();
        let pages = StoreOptions {
            dirty_bytes: self.options.dirty_bytes,
            snapshot_entries: self.options.snapshot_entries,
            ..StoreOptions::new(PathBuf::from("/pages"), owner)
        };
        let keep_bytes = if self.options.members == 1 { 0 } else { 16 << 20 };
        RecoveryOptions { wal, pages, cluster_id: CLUSTER_ID, member_id: seat.id, bootstrap, keep_bytes }
    }

    /// Starts a member that does not run. Opening its log takes simulated time on its own disk; gives when it is ready.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&mut self, id: u64) -> Result<Micros, Error> {
        let now = self.now;
        let recovery = self.recovery_options(self.seat(id));
        let core_options = CoreOptions {
            driver: DriverOptions {
                member_id: id,
                cluster_id: CLUSTER_ID,
                election_ticks: self.options.election_ticks,
                seed: self.options.seed,
                log_bytes_max: LOG_BYTES_MAX,
            },
            heartbeat_us: self.options.heartbeat_us,
            mailboxes: 1,
            second_write_bytes: recovery.wal.second_write_bytes,
            dirty_bytes: recovery.pages.dirty_bytes,
            catchup_entries: self.options.catchup_entries,
        };
        let seat = self.seat_mut(id);
        seat.disk.set_now(now);
        let clock = seat.disk.clone();
        let recovered = recovery::recover(&mut seat.disk, &recovery, &mut || clock.now())?;
        let from_pages = u64::from(recovered.pages.applied > 0);
        let ready_at = seat.disk.now().max(now);
        let core = Core::new(recovered, core_options, ready_at)?;
        seat.starts += 1;
        seat.wake_at = Some(ready_at);
        (seat.pages, seat.recycled) = (StoreStats::default(), 0);
        self.page_work.from_pages += from_pages;
        self.checker.started(id, &core, now);
        self.seat_mut(id).core = Some(core);
        Ok(ready_at)
    }

    /// Takes a running member down; what its disk had not synced may be lost.
    pub fn crash(&mut self, id: u64, crash: Crash) {
        let seat = self.seat_mut(id);
        if seat.core.take().is_none() {
            return;
        }
        seat.requests.clear();
        seat.wake_at = None;
        match crash {
            Crash::PowerCut => seat.disk.power_cut(),
            Crash::Kill => seat.disk.kill(),
        }
        self.crashes += 1;
        self.checker.stopped(id);
        self.note(0xdead_0000 | id);
    }

    /// Hands a member a request; one that does not run loses it.
    pub fn submit(&mut self, id: u64, request: Request) {
        let seat = self.seat_mut(id);
        if seat.core.is_some() {
            seat.requests.push(request);
            seat.touched = true;
        }
    }

    fn note(&mut self, word: u64) {
        self.trace = mix(self.trace ^ word).wrapping_add(self.now);
    }

    /// When the next thing happens.
    pub fn next_event(&self) -> Option<Micros> {
        let of_members = self.seats.iter().filter(|seat| seat.core.is_some()).flat_map(|seat| {
            let touched = seat.touched.then_some(self.now);
            [touched, seat.wake_at, seat.disk.next_due()]
        });
        of_members.chain([self.network.next_arrival()]).flatten().min()
    }

    /// Lets everything happen up to and including `until`.
    ///
    /// # Errors
    /// What the checker found wrong.
    pub fn run_until(&mut self, until: Micros) -> Result<(), String> {
        while let Some(at) = self.next_event().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.happen()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Everything that is due now.
    fn happen(&mut self) -> Result<(), String> {
        let now = self.now;
        while let Some(travelling) = self.network.deliver(now) {
            self.note(mix(travelling.from) ^ u64::from(crc32fast::hash(&travelling.envelope.bytes)));
            let to = travelling.envelope.to;
            let seat = self.seat_mut(to);
            let Some(core) = seat.core.as_mut() else { continue };
            seat.touched = true;
            let standing = core.driver().standing();
            if let Err(why) = core.receive(travelling.envelope.bytes.clone()) {
                self.checker.refused(&travelling, standing, why)?;
            }
        }
        for at in 0..self.seats.len() {
            let seat = &self.seats[at];
            let due = seat.touched
                || seat.wake_at.is_some_and(|at| at <= now)
                || seat.disk.next_due().is_some_and(|at| at <= now);
            if seat.core.is_some() && due {
                self.step(at)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let mut completions: Vec<Completion> = Vec::new();
        let mut out = Output::default();
        for _ in 0..STEPS_AT_ONCE_MAX {
            let seat = &mut self.seats[at];
            let Some(core) = seat.core.as_mut() else { return Ok(()) };
            seat.disk.set_now(now);
            seat.disk.poll(&mut completions);
            for completion in completions.drain(..) {
                core.complete(completion, now);
            }
            seat.touched = false;
            if core.takes_requests(0, now) {
                seat.requests.drain(..).for_each(|request| core.request(request));
            }
            let stepped = core.step(&mut seat.disk, now, &mut out);
            let at_once = match stepped {
                Ok(next) => {
                    // a wish for this very moment is one for another step
                    seat.wake_at = next.at;
                    next.at_once || next.at.is_some_and(|at| at <= now)
                }
                Err(error) => {
                    self.fault(at, error, &mut out)?;
                    return Ok(());
                }
            };
            self.take_output(at, &mut out)?;
            if !at_once {
                return Ok(());
            }
        }
        Err(format!("member {} runs in a circle at {now} us", self.seats[at].id))
    }

    fn take_output(&mut self, at: usize, out: &mut Output) -> Result<(), String> {
        let id = self.seats[at].id;
        let now = self.now;
        for envelope in out.messages.drain(..) {
            self.checker.sent(id, &envelope)?;
            self.note(u64::from(crc32fast::hash(&envelope.bytes)));
            if self.lossy {
                self.network.send(id, envelope, now);
            }
        }
        for post in out.posts.drain(..) {
            self.take_post(id, post)?;
        }
        if let Some(core) = &self.seats[at].core {
            self.checker.stepped(id, core)?;
            let status = core.status();
            let (pages, recycled) = (core.page_stats(), core.wal().stats().segments_recycled);
            let seat = &mut self.seats[at];
            self.page_work.checkpoints += pages.checkpoints - seat.pages.checkpoints;
            self.page_work.spilled += pages.pages_spilled - seat.pages.pages_spilled;
            self.page_work.recycled += recycled - seat.recycled;
            (seat.pages, seat.recycled) = (pages, recycled);
            self.note(mix(status.applied) ^ status.commit ^ status.term << 32);
        }
        Ok(())
    }

    fn take_post(&mut self, member: u64, post: Post) -> Result<(), String> {
        if let Some(events) = &post.events {
            self.checker.events(member, events);
        }
        self.posts += 1;
        let core = self.seat(member).core.as_ref();
        let compaction_done = core.map_or(-1, |core| core.reader().position().compaction_done);
        let revision = core.map_or(-1, |core| core.reader().position().revision);
        for (to, outcome) in post.answers {
            if let Outcome::Applied(applied) = &outcome
                && applied.revision > revision
            {
                return Err(format!(
                    "member {member} answers with revision {}, published is {revision}",
                    applied.revision
                ));
            }
            self.note(u64::from(to.slot));
            let (at, post) = (self.now, self.posts);
            self.answers.push(Answer { member, at, post, compaction_done, to, outcome });
        }
        Ok(())
    }

    fn fault(&mut self, at: usize, error: Error, out: &mut Output) -> Result<(), String> {
        self.take_output(at, out)?;
        let id = self.seats[at].id;
        if let Some(mut core) = self.seats[at].core.take() {
            core.stop(out);
            for post in out.posts.drain(..) {
                self.take_post(id, post)?;
            }
        }
        // as the shell does with what is left in its queue
        let left = std::mem::take(&mut self.seats[at].requests);
        let answers =
            left.iter().map(|request| (request.reply_to(), Outcome::Failed(Busy::Stopped))).collect();
        self.take_post(id, Post { answers, events: None })?;
        self.checker.stopped(id);
        self.faults.push((id, error));
        Ok(())
    }

    /// Stops a member cleanly: all who wait are answered, the log gets its final mark.
    ///
    /// # Errors
    /// The log could not be closed.
    pub fn stop(&mut self, id: u64) -> Result<(), Error> {
        let seat = self.seat_mut(id);
        let Some(mut core) = seat.core.take() else { return Ok(()) };
        let mut out = Output::default();
        core.stop(&mut out);
        core.close();
        let mut completions = Vec::new();
        loop {
            let now = seat.disk.now();
            if core.step_close(&mut seat.disk, now)? {
                break;
            }
            seat.disk.wait(None);
            seat.disk.poll(&mut completions);
            for completion in completions.drain(..) {
                core.complete(completion, seat.disk.now());
            }
        }
        self.now = self.now.max(self.seat(id).disk.now());
        self.checker.stopped(id);
        for post in out.posts {
            // answers of a stop change nothing that the checker looks at
            let _ = self.take_post(id, post);
        }
        Ok(())
    }

    /// A number from the cluster's own seed.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}
