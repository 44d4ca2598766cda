//! Log, store and lease clock as one stepped state machine, without a thread or a clock.
//!
//! ```text
//!  completions ── complete() ┐                             ┌─> answers, events
//!                            ├─> step(disk, now) ── log ── ┤
//!  requests ───── request()  ┘        │                    └─> when to be called again
//!                                     └── durable ──> store
//! ```
//! The log's rules here: each command is an entry, its index the one after the last, its term 1; a batch's commit is its
//! last entry, for nobody else has to agree. So whatever opening accepts is applied, and no entry is ever replaced.
//!
//! Order of a step: what became durable is noted; all that waits is stamped and appended as one batch; its write starts;
//! and only then, while it is out, is a slice of durable entries applied and published. Nothing is answered before it is
//! durable and published. Last comes what the page file has to do, a bounded amount; when a checkpoint is durable the log is
//! told, and the entries that it holds may go.

use super::error::{Error, Invalid};
use super::opening::{self, Files, Recovered};
use super::queue::{Asker, Request};
use crate::Micros;
use crate::command::{Applied, Command, Stamped};
use crate::disk::{Completion, Disk};
use crate::error::{Fault, Refusal};
use crate::lease_clock::{EXPIRIES_A_PASS_MAX, Expiry, LAG_MS_MAX, LeaseClock, UnderWay};
use crate::quota;
use crate::store::{Durable, Store, StoreNext, StoreReader};
use crate::wal::{EntryKind, HardState, LogEntry, NewBatch, Opened, Space, Wal};
use crate::watch::EventBatch;
use std::collections::VecDeque;
use std::sync::Arc;

/// The term of every entry.
pub(super) const TERM: u64 = 1;
/// Entries applied in one step: a millisecond or a few.
const SLICE_ENTRIES_MAX: usize = 512;
/// Versions that compaction goes over in one step: well under a millisecond.
const COMPACTION_BUDGET: usize = 500;
/// Bytes appended and not yet applied from which on no more requests are taken: it bounds the memory.
const UNAPPLIED_BYTES_MAX: u64 = 32 << 20;

/// What a step gives to others.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The events of what was published.
    pub(super) events: Option<Arc<EventBatch>>,
    /// Who is answered, and what; after the events were told.
    pub(super) answers: Vec<(Asker, Result<Applied, Error>)>,
}

/// When to call [`Core::step`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// There is more to do that needs no waiting.
    pub(super) at_once: bool,
    /// At this time at the latest.
    pub(super) at: Option<Micros>,
}

/// An entry that is appended and not applied.
#[derive(Debug)]
struct Pending {
    stamped: Stamped,
    bytes: u64,
    asker: Option<Asker>,
}

/// A batch whose write is out.
#[derive(Debug)]
struct BatchOut {
    sequence: u64,
    last: u64,
    begun: Micros,
}

/// The state machine; see the head of this file.
///
/// applied <= durable <= last, and `pending` holds the entries of (applied, last].
pub(super) struct Core {
    wal: Wal,
    second_write_bytes: u64,
    dirty_bytes: u64,
    store: Store,
    /// The newest checkpoint that the log was told of.
    checkpoint: Durable,
    /// Bytes of log that were replayed when it was opened.
    replayed_bytes: u64,
    /// Index of the last entry appended, of the last one durable, of the last one applied.
    last: u64,
    durable: u64,
    applied: u64,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    requests: Vec<Request>,
    batches_out: VecDeque<BatchOut>,
    /// Moving average of how long a batch is out.
    usual_us: Micros,
    clock: LeaseClock,
    leases_under_way: UnderWay,
    expiry: Expiry,
    /// Index of the last entry that ends a lease; none is under way once it is applied.
    last_expiry: u64,
    /// The earliest deadline of all leases, as of the last publish.
    lease_deadline_ms: Option<u64>,
    compacting: bool,
    /// Those whose entries were applied when a fault came in between and nothing was published.
    unanswered: Vec<Asker>,
}

impl Core {
    /// Opens page file and log and applies what the log holds behind the page file. `clock` gives the time.
    ///
    /// # Errors
    /// Those of [`opening::open`].
    pub(super) fn open(
        disk: &mut dyn Disk,
        files: &Files,
        clock: &mut dyn FnMut() -> Micros,
    ) -> Result<(Core, Opened), Fault> {
        let Recovered { wal, store, opened, replayed_bytes } = opening::open(disk, files, clock)?;
        let applied = store.applied();
        let mut core = Core {
            clock: LeaseClock::standing_at(store.lease_clock_ms()),
            wal,
            second_write_bytes: files.wal.second_write_bytes,
            dirty_bytes: files.pages.dirty_bytes,
            checkpoint: Durable::default(),
            replayed_bytes,
            last: applied,
            durable: applied,
            applied,
            pending: VecDeque::new(),
            pending_bytes: 0,
            requests: Vec::new(),
            batches_out: VecDeque::new(),
            usual_us: 0,
            leases_under_way: UnderWay::default(),
            expiry: Expiry::default(),
            last_expiry: 0,
            lease_deadline_ms: store.next_lease_deadline_ms().map_err(|fault| *fault)?,
            compacting: true,
            unanswered: Vec::new(),
            store,
        };
        core.run_clock(clock());
        core.note_checkpoint();
        Ok((core, opened))
    }

    /// The store's reader.
    pub(super) fn reader(&self) -> StoreReader {
        self.store.reader()
    }

    /// The lease clock.
    pub(super) fn lease_clock(&self) -> LeaseClock {
        self.clock
    }

    /// Takes a completion of the disk.
    pub(super) fn complete(&mut self, completion: Completion, now: Micros) {
        let stranger = self.wal.complete(completion, now);
        let stranger = stranger.and_then(|completion| self.store.complete(completion, now));
        debug_assert!(stranger.is_none(), "a completion belongs to nobody: {stranger:?}");
    }

    /// The newest durable state of the page file.
    pub(super) fn checkpoint(&self) -> Durable {
        self.checkpoint
    }

    /// Asks for a checkpoint, soon.
    pub(super) fn request_checkpoint(&mut self) {
        self.store.request_checkpoint();
    }

    /// How many bytes of requests it would take now; 0 for none.
    pub(super) fn room(&self) -> u64 {
        if self.waits_for_pages() { 0 } else { UNAPPLIED_BYTES_MAX.saturating_sub(self.pending_bytes) }
    }

    /// Whether so much waits to be written to the page file that more would only fill the memory. Its writes end, and then
    /// there is room; where they cannot, because the disk is full, this is not what holds requests up.
    fn waits_for_pages(&self) -> bool {
        let waits = self.store.stats().dirty_bytes > self.dirty_bytes / 8 * 9;
        waits && self.store.is_busy() && self.store.space() == Space::Ample
    }

    /// The less of what log and page file have.
    fn space(&self) -> Space {
        match (self.wal.space(), self.store.space()) {
            (Space::Ample, Space::Ample) => Space::Ample,
            _ => Space::Reserve,
        }
    }

    /// Takes requests for the next batch.
    pub(super) fn request(&mut self, requests: &mut Vec<Request>) {
        self.requests.append(requests);
    }

    /// From how many waiting bytes on a step is worth it before anything completes: while a write is out requests gather,
    /// until enough wait for a second one beside it, or it has been out for twice its usual time.
    pub(super) fn wake_above(&self, now: Micros) -> u64 {
        if self.room() == 0 {
            return u64::MAX;
        }
        match (self.batches_out.len(), self.late_at()) {
            (0, _) => 0,
            (1, Some(late)) if now >= late => 0,
            (1, _) => self.second_write_bytes,
            _ => u64::MAX,
        }
    }

    /// When the write that is out will have been so for twice its usual time.
    fn late_at(&self) -> Option<Micros> {
        self.batches_out.front().map(|first| first.begun + 2 * self.usual_us.max(1))
    }

    /// Goes as far as possible without waiting.
    ///
    /// # Errors
    /// What stops the database: nothing more is acknowledged, and [`Core::stop`] gives all who wait.
    pub(super) fn step(&mut self, disk: &mut dyn Disk, now: Micros, out: &mut Output) -> Result<Next, Fault> {
        self.wal.step(disk, now)?;
        self.note_durable(now);
        self.run_clock(now);
        self.append(now, out)?;
        self.wal.step(disk, now)?;
        self.apply(now, out)?;
        let idle = self.applied == self.durable;
        let waits = if self.compacting { self.store.compaction_waits(now) } else { None };
        if self.compacting && waits.is_none() && idle {
            self.compacting = self.store.compact_step(COMPACTION_BUDGET).map_err(|fault| *fault)?;
        }
        let pages = self.step_pages(disk, now)?;
        let at = [self.wake_at(now), pages.at, waits].into_iter().flatten().min();
        Ok(Next { at_once: !idle || (self.compacting && waits.is_none()) || pages.at_once, at })
    }

    /// Lets the page file do its part, and tells the log what of it is durable.
    fn step_pages(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<StoreNext, Fault> {
        let wal_bytes = self.replayed_bytes + self.wal.stats().bytes_written;
        if let Some(first) = self.batches_out.front() {
            self.store.note_log_write(first.begun, self.usual_us, now);
        }
        self.store.note_log_space(self.wal.space());
        let next = self.store.step(disk, now, wal_bytes)?;
        self.note_checkpoint();
        Ok(next)
    }

    /// What a checkpoint holds may go from the log.
    fn note_checkpoint(&mut self) {
        let durable = self.store.durable();
        if durable.tx != self.checkpoint.tx {
            self.checkpoint = durable;
            self.wal.set_checkpoint(durable.tx, durable.applied);
            self.wal.release(durable.applied);
        }
    }

    fn note_durable(&mut self, now: Micros) {
        let durable = self.wal.durable();
        while let Some(batch) = self.batches_out.pop_front_if(|batch| batch.sequence <= durable) {
            let took = now.saturating_sub(batch.begun);
            self.usual_us = if self.usual_us == 0 { took } else { (self.usual_us * 7 + took) / 8 };
            self.durable = batch.last;
        }
    }

    /// The clock runs while renewals can be written.
    fn run_clock(&mut self, now: Micros) {
        self.clock.set_running(self.space() == Space::Ample, now);
    }

    /// Stamps all that waits and appends it as one batch.
    fn append(&mut self, now: Micros, out: &mut Output) -> Result<(), Fault> {
        let expired = self.expired_leases(now)?;
        let clock_ms = self.clock.now_ms(now);
        let mut entries = Vec::with_capacity(self.requests.len() + expired.len());
        for Request { command, asker, .. } in std::mem::take(&mut self.requests) {
            match self.encode(clock_ms, command) {
                Ok((stamped, data)) => entries.push(self.append_one(stamped, data, asker)),
                Err(why) => out.answers.extend(asker.map(|asker| (asker, Err(why)))),
            }
        }
        for id in expired {
            if let Ok((stamped, data)) = self.encode(clock_ms, Command::LeaseExpire { id }) {
                entries.push(self.append_one(stamped, data, None));
                self.last_expiry = self.last;
            }
        }
        if !entries.is_empty() {
            let hard_state = HardState { term: TERM, vote: 0, commit: self.last };
            let sequence = self.wal.append(NewBatch { hard_state, entries });
            self.batches_out.push_back(BatchOut { sequence, last: self.last, begun: now });
            self.clock.set_limit(self.leases_under_way.limit_ms(), now);
        }
        Ok(())
    }

    /// What needs room does not come in while there is none, nor what the log does not take.
    fn encode(&self, clock_ms: u64, command: Command) -> Result<(Stamped, Vec<u8>), Error> {
        if self.space() == Space::Reserve && quota::cost(&command) > 0 {
            return Err(Refusal::NoSpace.into());
        }
        let stamped = Stamped { clock_ms, command };
        let data = stamped.encode().map_err(|_| Invalid::TxnTooDeep)?;
        let (bytes, limit) = (data.len() as u64, self.wal.entry_bytes_max());
        if bytes > limit {
            return Err(Invalid::TooLarge { bytes, limit }.into());
        }
        Ok((stamped, data))
    }

    fn append_one(&mut self, stamped: Stamped, data: Vec<u8>, asker: Option<Asker>) -> LogEntry {
        self.last += 1;
        if matches!(stamped.command, Command::LeaseGrant { .. } | Command::LeaseRenew { .. }) {
            self.leases_under_way.put(self.last, stamped.clock_ms);
        }
        let bytes = data.len() as u64;
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { stamped, bytes, asker });
        LogEntry { index: self.last, term: TERM, kind: EntryKind::Normal, data: data.into() }
    }

    /// Leases to be ended now: those whose time is up, and as much longer as an answer to their holders may have taken.
    fn expired_leases(&mut self, now: Micros) -> Result<Vec<i64>, Fault> {
        let ended_ms = self.clock.now_ms(now).saturating_sub(LAG_MS_MAX);
        let up = self.lease_deadline_ms.is_some_and(|deadline| deadline <= ended_ms);
        if !up || !self.may_expire() || !self.expiry.due(now) {
            return Ok(Vec::new());
        }
        self.store.expired_leases(ended_ms, EXPIRIES_A_PASS_MAX).map_err(|fault| *fault)
    }

    fn may_expire(&self) -> bool {
        self.space() == Space::Ample && self.last_expiry <= self.applied
    }

    /// Applies one slice of what is durable, publishes it and gathers the answers.
    fn apply(&mut self, now: Micros, out: &mut Output) -> Result<(), Fault> {
        let ready = usize::try_from(self.durable - self.applied).unwrap_or(usize::MAX);
        if ready == 0 {
            return Ok(());
        }
        let first_answer = out.answers.len();
        let mut tx = self.store.begin();
        for _ in 0..ready.min(SLICE_ENTRIES_MAX) {
            let Some(entry) = self.pending.pop_front() else { break };
            self.applied += 1;
            self.pending_bytes -= entry.bytes;
            self.compacting |= matches!(entry.stamped.command, Command::Compact { .. });
            match tx.apply(self.applied, TERM, &entry.stamped) {
                Ok(applied) => out.answers.extend(entry.asker.map(|asker| (asker, Ok(applied)))),
                Err(fault) => {
                    // nothing of the slice is published: those whose turn had come are not answered with success
                    let unpublished = out.answers.drain(first_answer..).map(|(asker, _)| asker);
                    self.unanswered.extend(unpublished.chain(entry.asker));
                    return Err(*fault);
                }
            }
        }
        out.events = tx.publish().events;
        self.clock.observe(self.store.lease_clock_ms(), now);
        self.leases_under_way.applied(self.applied);
        self.clock.set_limit(self.leases_under_way.limit_ms(), now);
        self.lease_deadline_ms = self.store.next_lease_deadline_ms().map_err(|fault| *fault)?;
        Ok(())
    }

    fn wake_at(&self, now: Micros) -> Option<Micros> {
        let late = self.late_at().filter(|&late| late > now && self.batches_out.len() == 1);
        [self.wal.wakeup(), late, self.next_expiry(now)].into_iter().flatten().min()
    }

    fn next_expiry(&self, now: Micros) -> Option<Micros> {
        if !self.may_expire() {
            return None; // whatever changes that is an event of its own
        }
        let deadline = self.clock.when(self.lease_deadline_ms?.saturating_add(LAG_MS_MAX), now)?;
        Some(self.expiry.wake_at(deadline))
    }

    /// Whether everything taken was answered.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.applied == self.last
    }

    /// Ends: all who still wait.
    pub(super) fn stop(&mut self) -> Vec<Asker> {
        let mut waiting = std::mem::take(&mut self.unanswered);
        waiting.extend(self.requests.drain(..).filter_map(|request| request.asker));
        waiting.extend(self.pending.drain(..).filter_map(|pending| pending.asker));
        waiting
    }

    /// Begins a clean stop: the final mark is written. Go on with [`Core::step_close`] until it says that it is done.
    pub(super) fn close(&mut self) {
        self.wal.close();
    }

    /// Goes on with the clean stop; whether it is done. The page file needs no checkpoint, the log has what it lacks: one that
    /// is under way is left as it is, and only what the disk is at is waited for.
    ///
    /// # Errors
    /// The fault that stopped the log.
    pub(super) fn step_close(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<bool, Fault> {
        self.wal.step(disk, now)?;
        Ok(self.wal.closed() && !self.store.is_writing())
    }
}
