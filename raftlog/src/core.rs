//! A member's core: driver, log, applier, lease clock and answer slots as one stepped state machine.
//!
//! ```text
//!  completions ─ complete() ┐                                       ┌─> messages for other members
//!  messages    ─ receive()  ├─> step(disk, now) ── log <── Ready ── ┤
//!  requests    ─ request()  ┘        │                              └─> posts: answers and events, by mailbox
//!                                    └── committed ──> applier ──> store
//! ```
//!
//! It has no thread and no clock: the shell (`shell.rs`) runs one over a real disk, `sim` runs many
//! over simulated ones, and both call the same methods in the same order. One step takes what is there, goes as far
//! as it can without waiting, and says when it wants to be called again.
//!
//! Order of a step: what became durable is told to raft and releases messages; then, with everything that waits
//! proposed at once, one Ready makes one batch for the log; its write starts; and only then, while it is out, is a
//! slice of committed entries applied. Nothing is answered before it is committed, durable here and published. Last comes
//! what the page file has to do, a bounded amount; when a checkpoint is durable the log is told, and what is behind it may go.

use crate::ahead::Ahead;
use crate::applier::{self, SLICE_ENTRIES_MAX};
use crate::driver::{Driver, DriverOptions, Standing};
use crate::error::Error;
use crate::lease_clock::{EXPIRIES_A_PASS_MAX, Expiry, LAG_MS_MAX, LeaseClock, UnderWay};
use crate::meter::Meter;
use crate::node::Status;
use crate::proposal::{Busy, Outcome, Post, ReplyTo, Request};
use crate::ready::ToPersist;
use crate::recovery::Recovered;
use crate::round::{Door, Proposals, Round};
use crate::slots::{Answers, Asker, Slots};
use crate::storage::{BadAppend, entry_bytes, to_log_entry};
use crate::transport::{self, Envelope, Refused};
use bytes::Bytes;
use coffer_engine::Micros;
use coffer_engine::command::{Command, Reply};
use coffer_engine::disk::{Completion, Disk};
use coffer_engine::error::Fault;
use coffer_engine::store::{Durable, Store, StoreNext, StoreReader, StoreStats};
use coffer_engine::wal::{HardState, NewBatch, Space, Wal};
use raft::eraftpb::Entry;
use std::collections::VecDeque;

/// Entries of one batch of the log, in bytes of their weight; a Ready that holds more makes several. A batch has to
/// fit into a segment together with others.
pub const BATCH_BYTES_MAX: u64 = 1 << 20;
/// Bytes proposed in one round; the rest waits in the queue for the next.
pub const ROUND_BYTES_MAX: u64 = 1 << 20;
/// Renewals in one entry; more in a round make a second entry.
pub const RENEWALS_AN_ENTRY_MAX: usize = 10_000;
/// Linearizable reads that may wait for this member's first own entry.
pub const READS_WAITING_MAX: usize = 100_000;
/// Readies of a member that does not lead whose writes may be out: its messages wait for them anyway.
const FOLLOWER_UNSYNCED_MAX: usize = 1;
/// Readies handled in one step, so that a step stays short.
const READIES_A_STEP_MAX: usize = 8;
/// A write of the log counts as at most twice the usual time and so much, when the usual time is told from the last ones.
const USUAL_RISE_US: Micros = 1_000;
/// Entries applied before those who wait for them are answered: the serving threads are at work on these answers, and on the
/// requests that follow them, while the next ones are applied. Fewer make more copies of the tree's upper pages.
pub const ANSWERED_TOGETHER_MAX: usize = 64;
/// Versions removed in one step of a compaction: well under a millisecond.
const COMPACTION_BUDGET: usize = 500;
/// Weight of `(applied, last]` in bytes from which on proposals are refused: bounds memory and the replay.
pub const LOG_BYTES_MAX: u64 = 64 << 20;

/// What a core needs to know.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// raft's part.
    pub driver: DriverOptions,
    /// One tick, in microseconds.
    pub heartbeat_us: Micros,
    /// Mailboxes that answers go to.
    pub mailboxes: usize,
    /// Bytes that must wait before a round is proposed although a write is out already.
    pub second_write_bytes: u64,
    /// Bytes of pages that may wait to be written; beyond that no requests are taken up while they are being written.
    pub dirty_bytes: u64,
    /// Applied entries that the log keeps for followers when a checkpoint holds them; alone it keeps none.
    pub catchup_entries: u64,
}

/// What a replay changed is made durable soon if it is more than this part of the bytes that may wait: the next start need
/// not do it again, and an idle member does not keep it in memory.
const DIRTY_AT_START: u64 = 64;

/// Durations: bucket `i` counts those of at most the first bound x 2^i (not cumulative), the last one all longer ones.
pub type DurationBuckets = [u64; 15];
/// The first bound for checkpoints.
pub(crate) const CHECKPOINT_US_FIRST: Micros = 1_000;
/// The first bound for compactions: etcd's.
pub(crate) const COMPACTION_US_FIRST: Micros = 100_000;

/// What compactions came to since this member started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compactions {
    /// Versions removed, tombstones included.
    pub versions: u64,
    /// When the last one was done: nothing that it had hidden was left.
    pub last: Option<Micros>,
    /// How long they took, each from its command's applying; one that came while another went on counts with that.
    pub us_buckets: DurationBuckets,
    /// The sum of it.
    pub us_sum: u64,
}

/// What a step wants done by whoever runs it.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent to other members; may be lost.
    pub messages: Vec<Envelope>,
    /// To be posted, one for each mailbox, empty where there is nothing to say; in order.
    pub posts: Vec<Post>,
    /// Damage that the scrub of the page file met.
    pub damage: Vec<Fault>,
}

/// When to call [`Core::step`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// At once: there is more to do that needs no waiting.
    pub at_once: bool,
    /// At this time at the latest, if nothing else happens before.
    pub at: Option<Micros>,
}

/// A batch whose write is out.
#[derive(Debug)]
struct BatchOut {
    sequence: u64,
    /// The Ready that is durable with it.
    ready: u64,
    begun: Micros,
}

/// The state machine; see the head of this file.
pub struct Core {
    options: CoreOptions,
    driver: Driver,
    wal: Wal,
    store: Store,
    slots: Slots,
    answers: Answers,
    reads: Vec<ReplyTo>,
    requests: Vec<Request>,
    batches_out: VecDeque<BatchOut>,
    /// Moving average of how long a batch is out.
    usual_us: Micros,
    to_apply: VecDeque<Entry>,
    clock: LeaseClock,
    rounds_under_way: UnderWay,
    expiry: Expiry,
    /// The earliest deadline of all leases, as of the last publish.
    lease_deadline_ms: Option<u64>,
    leases_expired: u64,
    compacting: bool,
    /// The compaction under way is as old as that.
    compaction_begun: Option<Micros>,
    compactions: Compactions,
    meter: Option<Box<dyn Meter>>,
    /// The newest checkpoint that the log was told of.
    checkpoint: Durable,
    /// Bytes of log that were replayed when it was opened.
    replayed_bytes: u64,
    page_stats: StoreStats,
    ahead: Ahead,
    checkpoint_us_buckets: DurationBuckets,
    next_tick: Micros,
    was: Standing,
    leader_known: u64,
    leader_changes: u64,
    refused: u64,
    turned_away: u64,
    stopped: bool,
}

impl Core {
    /// Starts raft over what recovery left; a sole voter campaigns at once.
    ///
    /// # Errors
    /// [`Error::Unusable`] if raft refuses its configuration; a fault of the store.
    pub fn new(recovered: Recovered, options: CoreOptions, now: Micros) -> Result<Core, Error> {
        let Recovered { wal, store, view, replayed, .. } = recovered;
        let driver = Driver::new(view, options.driver.clone())?;
        let mut core = Core {
            slots: Slots::default(),
            answers: Answers::new(options.mailboxes),
            reads: Vec::new(),
            requests: Vec::new(),
            batches_out: VecDeque::new(),
            usual_us: 0,
            to_apply: VecDeque::new(),
            clock: LeaseClock::standing_at(store.lease_clock_ms()),
            rounds_under_way: UnderWay::default(),
            expiry: Expiry::default(),
            lease_deadline_ms: store.next_lease_deadline_ms()?,
            leases_expired: 0,
            compacting: true,
            compaction_begun: store.is_compacting().then_some(now),
            compactions: Compactions::default(),
            meter: None,
            checkpoint: Durable::default(),
            replayed_bytes: replayed.bytes,
            page_stats: store.stats(),
            ahead: Ahead::new(now),
            checkpoint_us_buckets: DurationBuckets::default(),
            next_tick: now + options.heartbeat_us,
            was: Standing::default(),
            leader_known: 0,
            leader_changes: 0,
            refused: 0,
            turned_away: 0,
            stopped: false,
            options,
            driver,
            wal,
            store,
        };
        core.note_standing(now);
        core.note_checkpoint();
        if core.page_stats.dirty_bytes > core.options.dirty_bytes / DIRTY_AT_START {
            core.store.hasten_checkpoint();
        }
        Ok(core)
    }

    /// Has what is applied from here on told to `meter`.
    pub fn set_meter(&mut self, meter: Box<dyn Meter>) {
        self.meter = Some(meter);
    }

    /// The store's reader.
    pub fn reader(&self) -> StoreReader {
        self.store.reader()
    }

    /// The log.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Counters of the page file, as of the last step.
    pub fn page_stats(&self) -> StoreStats {
        self.page_stats
    }

    /// How long checkpoints took; the first bound is 1 ms.
    pub fn checkpoint_us_buckets(&self) -> &DurationBuckets {
        &self.checkpoint_us_buckets
    }

    /// What compactions came to; the first bound is 100 ms.
    pub fn compactions(&self) -> &Compactions {
        &self.compactions
    }

    /// The newest checkpoint: what it holds need not be in the log.
    pub fn checkpoint(&self) -> Durable {
        self.checkpoint
    }

    /// Asks for a checkpoint, soon. It pauses as usual: who writes goes first.
    pub fn request_checkpoint(&mut self) {
        self.store.hasten_checkpoint();
    }

    /// Asks that pages be moved toward the page file's head and its end be cut; [`Core::is_moving`] says when that is over.
    pub fn request_defragment(&mut self) {
        self.store.request_defragment();
    }

    /// Whether pages are being moved, or are to be, or the checkpoint that lets the file be cut is not done yet.
    pub fn is_moving(&self) -> bool {
        self.store.is_moving()
    }

    /// raft.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The lease clock.
    pub fn lease_clock(&self) -> LeaseClock {
        self.clock
    }

    /// Bytes that must wait before a round is proposed although a write is out.
    pub fn second_write_bytes(&self) -> u64 {
        if self.waits_for_pages() { u64::MAX } else { self.options.second_write_bytes }
    }

    /// Messages from other members that were refused.
    pub fn messages_refused(&self) -> u64 {
        self.refused
    }

    /// Where agreement stands.
    pub fn status(&self) -> Status {
        let standing = self.driver.standing();
        Status {
            term: standing.term,
            leader: standing.leader,
            commit: standing.commit,
            applied: self.driver.view().applied(),
            last: standing.last,
            no_space: self.space() == Space::Reserve,
            leader_changes: self.leader_changes,
            proposals_failed: self.slots.failed() + self.turned_away,
            proposals_pending: (self.slots.len() + self.requests.len()) as u64,
            leases_expired: self.leases_expired,
        }
    }

    /// Whether a linearizable read may look at the published state at once: the only voter, leading, with an entry of
    /// its own term applied and published. Nobody else can have acknowledged anything then, and this member
    /// acknowledges only what is published.
    pub fn reads_at_once(&self) -> bool {
        let standing = self.driver.standing();
        !self.stopped && standing.sole_voter && self.driver.leads_and_applied_own_term()
    }

    /// Takes a completion of the disk.
    pub fn complete(&mut self, completion: Completion, now: Micros) {
        let stranger = self.wal.complete(completion, now);
        if let Some(stranger) = stranger.and_then(|completion| self.store.complete(completion, now)) {
            tracing::error!(token = stranger.token.0, "a completion belongs to nobody");
        }
    }

    /// Takes a message from another member.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn receive(&mut self, bytes: Bytes) -> Result<(), Refused> {
        let driver = &self.options.driver;
        let taken = transport::decode(driver.cluster_id, driver.member_id, bytes).and_then(|message| {
            let entry_bytes_max = self.wal.entry_bytes_max();
            if message.entries.iter().any(|entry| entry.data.len() as u64 > entry_bytes_max) {
                return Err(Refused::Range);
            }
            self.driver.step(message)
        });
        if let Err(why) = taken {
            self.refused += 1;
            tracing::debug!(%why, "a message from another member was refused");
        }
        taken
    }

    /// Whether requests would be taken up now: nothing is being written, or enough waits (`queued_bytes`) to start a
    /// second write beside the first, or the first has been out for twice its usual time. Until then they gather.
    pub fn takes_requests(&self, queued_bytes: u64, now: Micros) -> bool {
        if self.waits_for_pages() {
            return false;
        }
        self.gathers_until().is_none_or(|until| now >= until)
            || (queued_bytes >= self.options.second_write_bytes && self.batches_out.len() < 2)
    }

    /// Whether so much waits to be written to the page file that more would only fill the memory. Its writes end, and then
    /// there is room; where they cannot, because the disk is full, this is not what holds requests up.
    fn waits_for_pages(&self) -> bool {
        let waits = self.page_stats.dirty_bytes > self.options.dirty_bytes / 8 * 9;
        waits && self.store.is_busy() && self.store.space() == Space::Ample
    }

    /// The less of what log and page file have.
    fn space(&self) -> Space {
        match (self.wal.space(), self.store.space()) {
            (Space::Ample, Space::Ample) => Space::Ample,
            _ => Space::Reserve,
        }
    }

    /// Until when requests gather if no write completes before; `None` if they do not.
    fn gathers_until(&self) -> Option<Micros> {
        let first = self.batches_out.front().filter(|_| self.driver.standing().leads)?;
        match self.batches_out.len() {
            1 => Some(first.begun + 2 * self.usual_us.max(1)),
            _ => Some(Micros::MAX),
        }
    }

    /// Takes a request for the next round. To be called while [`Core::takes_requests`] holds and at most
    /// [`ROUND_BYTES_MAX`] were given to this round.
    pub fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// Goes as far as possible without waiting.
    ///
    /// # Errors
    /// What stops this member: then nothing more is acknowledged, and [`Core::stop`] answers all who wait. What this
    /// step answered before stands.
    pub fn step(&mut self, disk: &mut dyn Disk, now: Micros, out: &mut Output) -> Result<Next, Error> {
        let result = self.step_inner(disk, now, out);
        self.stopped |= result.is_err();
        if !self.answers.is_empty() {
            out.posts = self.answers.take();
        }
        result
    }

    fn step_inner(&mut self, disk: &mut dyn Disk, now: Micros, out: &mut Output) -> Result<Next, Error> {
        if self.stopped {
            return Err(Error::Fault(Fault::Stopped));
        }
        self.wal.step(disk, now)?;
        self.take_durable(now, &mut out.messages);
        self.tick(now);
        self.note_standing(now);
        if !self.propose_round(now)? {
            self.driver.tell_commit();
        }
        let readies = self.handle_readies(now, &mut out.messages)?;
        self.note_standing(now);
        self.wal.step(disk, now)?;
        self.ahead.read_leaves(&self.store);
        self.apply(now)?;
        self.answer_reads();
        let waits = if self.compacting { self.store.compaction_waits(now) } else { None };
        // Not between two slices: one of many would hold up all who wait behind it, and more come meanwhile.
        if self.compacting && waits.is_none() && self.to_apply.is_empty() {
            self.compact(now)?;
        }
        let pages = self.step_pages(disk, now)?;
        out.damage.extend(self.store.take_scrub_faults());
        let compacts = self.compacting && waits.is_none();
        let at_once = readies || !self.to_apply.is_empty() || compacts || self.may_handle_ready();
        let at = [self.wake_at(now), pages.at, waits].into_iter().flatten().min();
        Ok(Next { at_once: at_once || pages.at_once, at })
    }

    /// Goes on with what compaction has to remove.
    fn compact(&mut self, now: Micros) -> Result<(), Error> {
        self.compacting = self.store.compact_step(COMPACTION_BUDGET)?;
        let compactions = &mut self.compactions;
        compactions.versions = self.store.versions_removed();
        if !self.compacting
            && let Some(begun) = self.compaction_begun.take()
        {
            let took = now.saturating_sub(begun);
            compactions.us_buckets[bucket(took, COMPACTION_US_FIRST)] += 1;
            compactions.us_sum += took;
            compactions.last = Some(now);
        }
        Ok(())
    }

    /// Lets the page file do its part, and tells the log what of it is durable.
    fn step_pages(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<StoreNext, Error> {
        let wal_bytes = self.replayed_bytes + self.wal.stats().bytes_written;
        if let Some(first) = self.batches_out.front() {
            self.store.note_log_write(first.begun, self.usual_us, now);
        }
        self.store.note_log_space(self.wal.space());
        let next = self.store.step(disk, now, wal_bytes)?;
        let before = std::mem::replace(&mut self.page_stats, self.store.stats());
        if self.page_stats.pages_read > before.pages_read {
            self.ahead.note_cold(now);
        }
        if self.page_stats.checkpoints > before.checkpoints {
            let took = self.page_stats.checkpoint_us_sum - before.checkpoint_us_sum;
            self.checkpoint_us_buckets[bucket(took, CHECKPOINT_US_FIRST)] += 1;
            self.note_checkpoint();
        }
        Ok(next)
    }

    /// What a checkpoint holds may go from the log: all of it if this member is alone, else but for what followers may
    /// need who have fallen behind.
    fn note_checkpoint(&mut self) {
        let durable = self.store.durable();
        if durable.tx == self.checkpoint.tx {
            return;
        }
        self.checkpoint = durable;
        self.wal.set_checkpoint(durable.tx, durable.applied);
        let alone = self.driver.standing().sole_voter;
        let keep = if alone { 0 } else { self.options.catchup_entries };
        self.wal.release(durable.applied.saturating_sub(keep));
    }

    fn take_durable(&mut self, now: Micros, messages: &mut Vec<Envelope>) {
        let durable = self.wal.durable();
        let mut ready = None;
        while self.batches_out.front().is_some_and(|batch| batch.sequence <= durable) {
            let Some(batch) = self.batches_out.pop_front() else { break };
            let took = now.saturating_sub(batch.begun);
            // one write that stood behind much else does not make such waits usual
            let usual = took.min(2 * self.usual_us + USUAL_RISE_US);
            self.usual_us = if self.usual_us == 0 { took } else { (self.usual_us * 7 + usual) / 8 };
            // all but the last piece of a large Ready carry no number
            ready = Some(batch.ready).filter(|&number| number > 0).or(ready);
        }
        if let Some(ready) = ready {
            self.driver.persisted(ready, messages);
        }
    }

    /// A sole voter that leads needs no ticks: it has nobody to tell and nobody to hear.
    fn needs_ticks(&self) -> bool {
        let standing = self.driver.standing();
        !(standing.sole_voter && standing.leads)
    }

    fn tick(&mut self, now: Micros) {
        if !self.needs_ticks() || now < self.next_tick {
            return;
        }
        self.driver.tick();
        self.next_tick += self.options.heartbeat_us;
        if self.next_tick <= now {
            // time that this member slept through is not made up for: it would campaign at once
            self.next_tick = now + self.options.heartbeat_us;
        }
    }

    /// Follows changes of leadership: the lease clock runs only here if this member leads and its log takes renewals.
    fn note_standing(&mut self, now: Micros) {
        let standing = self.driver.standing();
        if (standing.leads, standing.term) != (self.was.leads, self.was.term) {
            self.clock = LeaseClock::standing_at(self.store.lease_clock_ms());
            self.rounds_under_way.clear();
        }
        if standing.leader != 0 && standing.leader != self.leader_known {
            self.leader_known = standing.leader;
            self.leader_changes += 1;
        }
        self.was = standing;
        self.clock.set_running(standing.leads && self.space() == Space::Ample, now);
    }

    /// Proposes all that waits in one step; whether anything was proposed.
    fn propose_round(&mut self, now: Micros) -> Result<bool, Error> {
        let expired = self.expired_leases(now)?;
        if self.requests.is_empty() && expired.is_empty() {
            return Ok(false);
        }
        let standing = self.driver.standing();
        let mut round = Round::new(Door {
            stamp_ms: self.clock.now_ms(now),
            reserve: self.space() == Space::Reserve,
            room: LOG_BYTES_MAX.saturating_sub(self.driver.unapplied_bytes()),
            entry_bytes_max: self.wal.entry_bytes_max(),
        });
        let requests = std::mem::take(&mut self.requests);
        for request in requests {
            match request {
                Request::Read { reply_to } => self.read(reply_to),
                _ if !standing.leads => {
                    let why = if standing.leader == 0 { Busy::NoLeader } else { Busy::NotLeader };
                    self.turn_away(request.reply_to(), why);
                }
                Request::Propose { command, reply_to } => {
                    self.ahead.gather(&command, now);
                    if let Err(why) = round.add(command, Asker::One(reply_to)) {
                        self.turn_away(reply_to, why);
                    }
                }
                Request::Renew { id, reply_to } => {
                    round.renew(id, reply_to);
                    if round.renewals() == RENEWALS_AN_ENTRY_MAX {
                        self.add_renewals(&mut round);
                    }
                }
            }
        }
        self.add_renewals(&mut round);
        for id in expired {
            // one that finds no room is looked at again in the next pass
            let _ = round.add(Command::LeaseExpire { id }, Asker::Expiry);
        }
        let last = self.propose(round, now);
        self.ahead.proposed(last);
        Ok(last.is_some())
    }

    fn add_renewals(&mut self, round: &mut Round) {
        if let Err((askers, why)) = round.add_renewals() {
            askers.into_iter().for_each(|to| self.turn_away(to, why));
        }
    }

    /// Proposes a round; the index of its last entry.
    fn propose(&mut self, round: Round, now: Micros) -> Option<u64> {
        let Proposals { entries, askers, stamp_ms } = round.finish();
        if entries.is_empty() {
            return None;
        }
        let count = entries.len() as u64;
        match self.driver.propose(entries) {
            Some((first, term)) => {
                for (index, asker) in (first..).zip(askers) {
                    self.slots.put(index, term, asker);
                }
                // whatever is under way holds the clock: while a disk stands still, renewals wait for it unstamped
                let last = first + count - 1;
                self.rounds_under_way.put(last, stamp_ms);
                self.clock.set_limit(self.rounds_under_way.limit_ms(), now);
                Some(last)
            }
            None => {
                self.turned_away += askers.len() as u64;
                askers.into_iter().for_each(|asker| self.answers.fail(asker, Busy::NoLeader));
                None
            }
        }
    }

    fn turn_away(&mut self, to: ReplyTo, why: Busy) {
        self.turned_away += 1;
        self.answers.answer(to, Outcome::Failed(why));
    }

    /// Leases to be ended now, by a leader that knows all stamps before its own.
    fn expired_leases(&mut self, now: Micros) -> Result<Vec<i64>, Error> {
        let clock_ms = self.clock.now_ms(now);
        let ended_ms = clock_ms.saturating_sub(LAG_MS_MAX);
        let up = self.lease_deadline_ms.is_some_and(|deadline| deadline <= ended_ms);
        if !up || !self.may_expire() || !self.expiry.due(now) {
            return Ok(Vec::new());
        }
        Ok(self.store.expired_leases(ended_ms, EXPIRIES_A_PASS_MAX)?)
    }

    fn may_expire(&self) -> bool {
        self.driver.leads_and_applied_own_term() && self.space() == Space::Ample && self.slots.expiries() == 0
    }

    /// One voter alone answers reads itself. Where there are more, a read needs a round among them; those rounds come
    /// with clusters, until then such a read is turned away.
    fn read(&mut self, reply_to: ReplyTo) {
        if !self.driver.standing().sole_voter {
            self.answers.answer(reply_to, Outcome::Failed(Busy::NotLeader));
        } else if self.reads.len() >= READS_WAITING_MAX {
            self.answers.answer(reply_to, Outcome::Failed(Busy::TooManyRequests));
        } else {
            self.reads.push(reply_to);
        }
    }

    fn answer_reads(&mut self) {
        if self.reads.is_empty() || !self.reads_at_once() {
            return;
        }
        let applied = self.driver.view().applied();
        for to in std::mem::take(&mut self.reads) {
            self.answers.answer(to, Outcome::ReadIndex(applied));
        }
    }

    fn may_handle_ready(&self) -> bool {
        self.driver.has_ready()
            && self.to_apply.len() < SLICE_ENTRIES_MAX
            && (self.driver.standing().leads || self.driver.unsynced() < FOLLOWER_UNSYNCED_MAX)
    }

    /// Handles Readies; whether there may be more.
    fn handle_readies(&mut self, now: Micros, messages: &mut Vec<Envelope>) -> Result<bool, Error> {
        for _ in 0..READIES_A_STEP_MAX {
            if !self.may_handle_ready() {
                return Ok(false);
            }
            let Some(work) = self.driver.ready(messages).map_err(bad_append)? else { return Ok(false) };
            self.to_apply.extend(work.committed);
            if let Some(to_persist) = work.to_persist {
                self.append(to_persist, now);
            }
        }
        Ok(true)
    }

    /// Queues a Ready's entries and hard state as one batch, or several if they are many.
    fn append(&mut self, to_persist: ToPersist, now: Micros) {
        let ToPersist { number, hard_state, entries } = to_persist;
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            self.slots.overwrite(first.index, last.term, &mut self.answers);
        }
        let mut batch = NewBatch { hard_state, entries: Vec::with_capacity(entries.len()) };
        let mut bytes = 0;
        for entry in &entries {
            if bytes + entry_bytes(entry) > BATCH_BYTES_MAX && !batch.entries.is_empty() {
                let piece = std::mem::replace(&mut batch, NewBatch { hard_state, entries: Vec::new() });
                self.append_batch(piece, 0, now);
                bytes = 0;
            }
            bytes += entry_bytes(entry);
            batch.entries.push(to_log_entry(entry));
        }
        self.append_batch(batch, number, now);
    }

    /// No batch says that more is committed than the log holds with it.
    fn append_batch(&mut self, mut batch: NewBatch, ready: u64, now: Micros) {
        if let Some(last) = batch.entries.last() {
            batch.hard_state.commit = batch.hard_state.commit.min(last.index);
        }
        let sequence = self.wal.append(batch);
        self.batches_out.push_back(BatchOut { sequence, ready, begun: now });
    }

    /// Applies one slice, publishes it and gathers the answers.
    fn apply(&mut self, now: Micros) -> Result<(), Error> {
        if let Some(last) = self.to_apply.back() {
            self.ahead.read_values(&self.store, last.index);
        }
        let (slots, answers) = (&mut self.slots, &mut self.answers);
        let leases_expired = &mut self.leases_expired;
        let (store, queue) = (&mut self.store, &mut self.to_apply);
        answers.begin_slice();
        let meter = self.meter.as_deref_mut();
        let slice =
            applier::apply_slice(store, queue, ANSWERED_TOGETHER_MAX, meter, &mut |index, term, applied| {
                let Some(asker) = slots.take(index, term, answers) else { return };
                let Some(applied) = applied else { return };
                if let (Asker::Expiry, Ok(Reply::LeaseExpire(true))) = (&asker, &applied.outcome) {
                    *leases_expired += 1;
                }
                answers.applied(asker, applied);
            });
        let Some(slice) = slice.inspect_err(|_| self.answers.take_back(Busy::Stopped))? else {
            return Ok(());
        };
        self.answers.published();
        if let Some(events) = &slice.published.events {
            self.answers.events(events);
        }
        // a command that was refused leaves nothing to remove
        if slice.compacted && self.store.is_compacting() {
            self.compacting = true;
            self.compaction_begun.get_or_insert(now);
        }
        self.driver.applied(slice.published.applied);
        self.clock.observe(self.store.lease_clock_ms(), now);
        self.rounds_under_way.applied(slice.published.applied);
        self.clock.set_limit(self.rounds_under_way.limit_ms(), now);
        self.lease_deadline_ms = self.store.next_lease_deadline_ms()?;
        Ok(())
    }

    fn wake_at(&self, now: Micros) -> Option<Micros> {
        let tick = self.needs_ticks().then_some(self.next_tick);
        let gathered = self.gathers_until().filter(|&until| until != Micros::MAX && until > now);
        [self.wal.wakeup(), tick, gathered, self.next_expiry(now)].into_iter().flatten().min()
    }

    fn next_expiry(&self, now: Micros) -> Option<Micros> {
        if !self.may_expire() {
            return None; // whatever changes that is an event of its own
        }
        let deadline = self.clock.when(self.lease_deadline_ms?.saturating_add(LAG_MS_MAX), now)?;
        Some(self.expiry.wake_at(deadline))
    }

    /// Ends this member's service: everybody who waits is answered, nothing is acknowledged any more.
    pub fn stop(&mut self, out: &mut Output) {
        self.stopped = true;
        // after a panic in the middle of a slice
        self.answers.take_back(Busy::Stopped);
        self.slots.fail_all(Busy::Stopped, &mut self.answers);
        for to in std::mem::take(&mut self.reads) {
            self.answers.answer(to, Outcome::Failed(Busy::Stopped));
        }
        for request in std::mem::take(&mut self.requests) {
            self.answers.answer(request.reply_to(), Outcome::Failed(Busy::Stopped));
        }
        if !self.answers.is_empty() {
            out.posts = self.answers.take();
        }
    }

    /// Term, vote and commit as they stand, for the final batch of a clean stop.
    fn final_hard_state(&self) -> HardState {
        let view = self.driver.view();
        let hard_state = self.driver.hard_state();
        HardState { commit: hard_state.commit.min(view.last()), ..hard_state }
    }

    /// Begins a clean stop of the log: what raft knows committed is written, then the final mark. Go on with
    /// [`Core::step_close`] until it says that it is done.
    pub fn close(&mut self) {
        debug_assert!(self.stopped, "stop comes before close");
        let hard_state = self.final_hard_state();
        self.wal.append(NewBatch { hard_state, entries: Vec::new() });
        self.wal.close();
    }

    /// Goes on with the clean stop; whether it is done. The page file needs no checkpoint, the log has what it lacks; only
    /// writes that are under way on it are waited for.
    ///
    /// # Errors
    /// The fault that stopped the log.
    pub fn step_close(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<bool, Error> {
        self.wal.step(disk, now)?;
        Ok(self.wal.closed() && !self.store.is_writing())
    }
}

/// The bucket of [`DurationBuckets`] that a duration belongs to.
fn bucket(took: Micros, first: Micros) -> usize {
    let last = DurationBuckets::default().len() - 1;
    (0..last).find(|bucket| took <= first << bucket).unwrap_or(last)
}

fn bad_append(bad: BadAppend) -> Error {
    Error::Unusable(match bad {
        BadAppend::Gap { first, last } => {
            format!("entries {first} to {last} are missing between log and Ready")
        }
        BadAppend::Applied { index, applied } => {
            format!("entry {index} would replace one that is applied (up to {applied})")
        }
    })
}
