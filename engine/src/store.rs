//! The front door of the store: apply commands, publish, read.
//!
//! One writer ([`Store`], on the core thread) opens a [`WriteTx`] for a batch of commands, applies them in the order
//! of their indexes and publishes: only then do readers see any of it, all of it, and the applied index with it.
//! Readers ([`StoreReader`], on any thread) always see the newest published state; nothing they do waits for the writer.
//!
//! Behind the door stand [`crate::mvcc`] and [`crate::pager`]: in memory alone ([`Store::new`]), or over a page file
//! ([`Store::open`]), which [`Store::step`] keeps writing. A reader holds back memory and pages as long as it reads one root,
//! so long work (large ranges, HashKV) is done in slices, each from the newest root; what its revision sees is the same in
//! all of them until that revision is compacted.

use crate::Micros;
use crate::command::{AlarmMember, Applied, Member, RangeReply, RangeRequest, Stamped, TxnReply, TxnRequest};
use crate::disk::{Completion, Disk};
use crate::error::{Fault, ReadError, Refusal};
use crate::model::state::State;
use crate::mvcc::hash::HashScan;
use crate::mvcc::range::{Scan, Slice};
use crate::mvcc::relocate::Relocation;
use crate::mvcc::{KeyRange, Mvcc, View, check, view};
use crate::pace::Pace;
use crate::pager::{Paged, Pager, PagerReader, Pinned, ReadGuard, fixed_pages_below};
use crate::snapshot::SnapshotReader;
use crate::wal::Space;
use crate::watch::{EventBatch, HistoryPage};
use bytes::Bytes;
use std::sync::Arc;

pub use crate::pager::{
    Durable, PagerNext as StoreNext, PagerOpened as StoreOpened, PagerOptions as StoreOptions,
    PagerStats as StoreStats,
};

/// Versions hashed from one root: about 10 ms of work.
const HASH_SLICE_VERSIONS: usize = 10_000;
/// What of a range is read from one root: well below a millisecond of work.
const RANGE_SLICE: Slice = Slice { keys: 1_000, bytes: 64 << 10 };
/// Compactions that may overtake a HashKV or a range at the newest revision, each of which makes it begin anew; after so many
/// it is done from one root.
const RESTARTS_MAX: usize = 8;

/// A write of the log is late so long after twice the usual time.
const LATE_US: Micros = 1_000;
/// How long pages wait for it at a time.
const HOLD_US: Micros = 2_000;

/// Pages moved in one step: about 100 us of work.
const MOVING_PAGES: usize = 64;
/// How long moving waits for pages in memory to be written.
const MOVING_WAIT_US: Micros = 10_000;
/// How long compaction does.
const COMPACTION_WAIT_US: Micros = MOVING_WAIT_US;
/// A page that is being read for its next step counts as so many: the step is to find it in memory.
const COMPACTION_READ_PAGES: u64 = 3;

/// What moving pages came to.
enum Moving {
    /// Nothing is to be moved.
    Not,
    /// There is, or was, and it may go on at once.
    On,
    /// It goes on then: too much is waiting to be written, or it keeps its pace.
    Waits(Micros),
}

/// The writer's end of the store.
pub struct Store {
    mvcc: Mvcc<Pager>,
    /// How far pages have been moved toward the file's head, while they are.
    moving: Option<Relocation>,
    /// Pages are moved while less than this waits in memory to be written.
    moving_dirty_bytes_max: u64,
    /// The transaction in which the last pass of moving ended. Pages are not moved again before it is durable: until then the
    /// places left behind are not free, the file looks as full as before, and there is nothing to move.
    moved_tx: u64,
    /// Of compaction and moving.
    pace: Pace,
    /// Moving goes on then.
    moving_at: Micros,
    /// Pages that the last step of compaction changed, until their time is counted in `compaction_at`.
    compacted_pages: u64,
    /// Compaction goes on then.
    compaction_at: Micros,
}

/// A batch of commands being applied; nothing of it is visible before [`WriteTx::publish`].
///
/// Publish it: the state has no way back, so a batch that is dropped shows with the next publish all the same, and its events
/// come with it. Only after a fault nothing may be published any more.
#[must_use = "what was applied is told to readers and watchers by publishing"]
pub struct WriteTx<'a> {
    mvcc: &'a mut Mvcc<Pager>,
}

/// What a publish made visible.
#[derive(Clone, Debug)]
pub struct Published {
    /// The store's current revision.
    pub revision: i64,
    /// The applied index, published in the same step.
    pub applied: u64,
    /// The batch's events, `None` if no key changed.
    pub events: Option<Arc<EventBatch>>,
}

/// A reader's end of the store; cheap to clone, usable from any thread. A thread that has its own is not in the way of
/// others.
#[derive(Clone)]
pub struct StoreReader {
    pager: PagerReader,
}

/// Where the published state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Current revision (1 for an empty store).
    pub revision: i64,
    /// Compaction revision (-1 before the first).
    pub compacted: i64,
    /// Highest compaction revision whose physical removal is done (-1 before the first).
    pub compaction_done: i64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Term of the last entry applied.
    pub applied_term: u64,
}

/// Sizes of the store, in bytes and numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What etcd calls dbSize.
    pub total_bytes: u64,
    /// What etcd calls dbSizeInUse.
    pub in_use_bytes: u64,
    /// Live keys.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
}

/// A lease as a reader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseInfo {
    /// Its id.
    pub id: i64,
    /// Granted time to live in seconds.
    pub granted_ttl: i64,
    /// The lease clock, in milliseconds, at which it ends.
    pub deadline_ms: u64,
    /// Keys attached, sorted, if asked for.
    pub keys: Vec<Bytes>,
}

/// Answer to HashKV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashKv {
    /// Sum modulo 2^32 of the CRC-32C of each visible version (see design: any order gives it).
    pub hash: u32,
    /// The compaction revision.
    pub compact_revision: i64,
    /// The revision hashed.
    pub hash_revision: i64,
    /// The store's current revision.
    pub current_revision: i64,
}

/// Who votes and who learns, as raft has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfState {
    /// Voters.
    pub voters: Vec<u64>,
    /// Learners.
    pub learners: Vec<u64>,
    /// Voters of the outgoing half of a joint configuration.
    pub voters_outgoing: Vec<u64>,
    /// Learners to be once the joint configuration is left.
    pub learners_next: Vec<u64>,
    /// Whether raft leaves the joint configuration by itself.
    pub auto_leave: bool,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// An empty store in memory alone.
    pub fn new() -> Store {
        Store::over(Mvcc::new(Pager::in_memory()), 0)
    }

    /// Opens the page file, or makes one; the entries after those applied in it are in the log. Nothing else may be under
    /// way on the disk.
    ///
    /// # Errors
    /// [`Fault::Corrupt`], [`Fault::Unusable`], [`Fault::Io`], as [`Pager::open`] says.
    pub fn open(
        disk: &mut dyn Disk,
        options: StoreOptions,
        now: Micros,
    ) -> Result<(Store, StoreOpened), Fault> {
        let moving_dirty_bytes_max = options.dirty_bytes / 8 * 5;
        let (pager, opened) = Pager::open(disk, options, now)?;
        let mvcc = Mvcc::open(pager).map_err(|fault| *fault)?;
        Ok((Store::over(mvcc, moving_dirty_bytes_max), opened))
    }

    fn over(mvcc: Mvcc<Pager>, moving_dirty_bytes_max: u64) -> Store {
        Store {
            mvcc,
            moving: None,
            moving_dirty_bytes_max,
            moved_tx: 0,
            pace: Pace::new(),
            moving_at: 0,
            compacted_pages: 0,
            compaction_at: 0,
        }
    }

    /// Opens a write transaction.
    pub fn begin(&mut self) -> WriteTx<'_> {
        WriteTx { mvcc: &mut self.mvcc }
    }

    /// A reader's end.
    pub fn reader(&self) -> StoreReader {
        StoreReader { pager: self.mvcc.pages().reader() }
    }

    /// Index of the last entry applied and published.
    pub fn applied(&self) -> u64 {
        self.mvcc.pages().published().standing.applied
    }

    /// The lease clock as of the last command applied, in milliseconds.
    pub fn lease_clock_ms(&self) -> u64 {
        self.mvcc.clock_ms()
    }

    /// Up to `limit` leases whose deadline is at or before `clock_ms`, the earliest first.
    ///
    /// # Errors
    /// The fault met while reading them.
    pub fn expired_leases(&self, clock_ms: u64, limit: usize) -> Paged<Vec<i64>> {
        self.mvcc.view().expired_leases(clock_ms, limit)
    }

    /// The earliest deadline of all leases, on the lease clock.
    ///
    /// # Errors
    /// The fault met while reading it.
    pub fn next_lease_deadline_ms(&self) -> Paged<Option<u64>> {
        self.mvcc.view().next_lease_deadline_ms()
    }

    /// Begins to bring into memory what applying commands about `keys` will read, many pages at once. Leaves are not waited
    /// for, the pages above them are. A hint: what cannot be read now is met by whoever needs it.
    pub fn read_ahead(&self, keys: &[Bytes]) {
        self.mvcc.view().read_ahead(&ascending(keys));
    }

    /// The second half of [`Store::read_ahead`], some time after it: large values that these keys have now, which whoever
    /// puts over them tells to watchers. Leaves are waited for.
    pub fn read_values_ahead(&self, keys: &[Bytes]) {
        self.mvcc.view().read_values_ahead(&ascending(keys));
    }

    /// Says whether what is applied from now on was applied before, as a log that is replayed: nobody watches it, so it makes
    /// no events, and large values that it replaces are not read for them. States and answers are the same.
    pub fn set_replaying(&mut self, replaying: bool) {
        self.mvcc.set_tells(!replaying);
    }

    /// Who votes, as last applied.
    pub fn conf_state(&self) -> ConfState {
        self.mvcc.conf_state().clone()
    }

    /// Goes over up to `budget` versions, and never so many that others wait long, and removes what compaction has
    /// superseded; true while more is left to do.
    ///
    /// # Errors
    /// The fault met; this store cannot go on with it.
    pub fn compact_step(&mut self, budget: usize) -> Paged<bool> {
        let before = self.mvcc.position().compaction_done;
        let open = self.mvcc.pages().open_pages();
        let is_more = self.mvcc.compact_step(budget)?;
        self.compacted_pages += self.mvcc.pages().open_pages().saturating_sub(open) as u64;
        if is_more {
            let read = self.mvcc.pages().stats().pages_read;
            self.mvcc.compact_ahead(budget)?;
            let reads = self.mvcc.pages().stats().pages_read - read;
            self.compacted_pages += reads * COMPACTION_READ_PAGES;
        }
        if is_more || self.mvcc.position().compaction_done != before {
            self.mvcc.publish();
        }
        Ok(is_more)
    }

    /// Versions that compaction has removed since this store was opened, tombstones included.
    pub fn versions_removed(&self) -> u64 {
        self.mvcc.versions_removed()
    }

    /// Whether compaction has hidden what it has not removed yet.
    pub fn is_compacting(&self) -> bool {
        let position = self.mvcc.position();
        position.compaction_done != position.compacted
    }

    /// When [`Store::compact_step`] may go on, if not at once. It has a pace, lest what it changes fill the memory and keep the
    /// medium from the log; it waits while much waits to be written, and while the log's own write is late. On a full disk it
    /// waits for nothing: it makes room.
    pub fn compaction_waits(&mut self, now: Micros) -> Option<Micros> {
        if self.space() != Space::Ample {
            return None;
        }
        let pages = std::mem::take(&mut self.compacted_pages);
        let page_us = self.pace.compaction_page_us(self.mvcc.compaction_left(), now);
        self.compaction_at = self.compaction_at.max(now + pages * page_us);
        if self.mvcc.pages().stats().dirty_bytes > self.moving_dirty_bytes_max {
            self.compaction_at = self.compaction_at.max(now + COMPACTION_WAIT_US);
        }
        Some(self.compaction_at).filter(|at| *at > now)
    }

    /// Makes the state, of a backup, that of a cluster yet to begin, and publishes it: see [`Mvcc::begin_anew`].
    ///
    /// # Errors
    /// As [`Mvcc::begin_anew`].
    pub fn begin_anew(&mut self, bump: Option<i64>) -> Paged<Result<(), Refusal>> {
        let begun = self.mvcc.begin_anew(bump)?;
        if begun.is_ok() {
            self.mvcc.publish();
        }
        Ok(begun)
    }

    /// A write of the log is under way since `begun`; usually one takes `usual_us`. While it is late, pages wait, unless there
    /// is a hurry, and so does compaction: the medium is the log's first.
    pub fn note_log_write(&mut self, begun: Micros, usual_us: Micros, now: Micros) {
        if now > begun + 2 * usual_us + LATE_US {
            self.mvcc.pages_mut().hold_writes(now, now + HOLD_US);
            self.compaction_at = self.compaction_at.max(now + HOLD_US);
            self.pace.slow_down(now);
        }
    }

    /// Tells whether the log has room: while it has none, checkpoints come soon, so that it may let segments go.
    pub fn note_log_space(&mut self, space: Space) {
        self.mvcc.pages_mut().note_log_space(space);
    }

    /// Goes on with what makes published states durable: writes pages, checkpoints, grows and cuts the file, and moves pages
    /// toward its head where it is mostly free. `wal_bytes` are the bytes of log that were written or replayed
    /// since it was opened. Of a store in memory: nothing.
    ///
    /// # Errors
    /// The fault that stopped the page file, every time from then on; or one met while moving pages, after which this store
    /// cannot go on.
    pub fn step(&mut self, disk: &mut dyn Disk, now: Micros, wal_bytes: u64) -> Result<StoreNext, Fault> {
        let mut next = self.mvcc.pages_mut().step(disk, now, wal_bytes)?;
        match self.move_pages(now).map_err(|fault| *fault)? {
            Moving::Not => {}
            Moving::On => next.at_once = true,
            Moving::Waits(at) => {
                next.at = Some(next.at.map_or(at, |next| next.min(at)));
            }
        }
        Ok(next)
    }

    /// Moves some pages toward the file's head, if that is wanted.
    fn move_pages(&mut self, now: Micros) -> Paged<Moving> {
        if self.moving.is_some() && now < self.moving_at {
            return Ok(Moving::Waits(self.moving_at));
        }
        let pager = self.mvcc.pages_mut();
        let pass = match self.moving.take() {
            Some(pass) => pass,
            None => {
                let settled = pager.durable().tx >= self.moved_tx;
                let Some(from) = pager.relocation_wish().filter(|_| settled) else { return Ok(Moving::Not) };
                pager.set_moving_from(Some(from));
                Relocation::default()
            }
        };
        if pager.stats().dirty_bytes > self.moving_dirty_bytes_max {
            self.moving = Some(pass);
            return Ok(Moving::Waits(now + MOVING_WAIT_US));
        }
        self.moving_at = now + MOVING_PAGES as Micros * self.pace.moving_page_us(now);
        self.moving = self.mvcc.relocate_step(pass, MOVING_PAGES)?;
        self.mvcc.publish();
        if self.moving.is_none() {
            let pager = self.mvcc.pages_mut();
            // in memory nothing is ever durable, and places are free at once
            self.moved_tx = if pager.reader().path().is_some() { pager.published().tx } else { 0 };
            pager.set_moving_from(None);
            pager.request_cut();
            pager.hasten_checkpoint();
        }
        Ok(match self.moving {
            Some(_) if self.moving_at > now => Moving::Waits(self.moving_at),
            _ => Moving::On,
        })
    }

    /// Asks that pages be moved toward the file's head and its end be cut, however full it is. It blocks nobody, and is over
    /// when [`Store::is_moving`] says no.
    pub fn request_defragment(&mut self) {
        self.mvcc.pages_mut().request_defragment();
    }

    /// Whether pages are being moved, or are to be.
    pub fn is_moving(&self) -> bool {
        let pager = self.mvcc.pages();
        self.moving.is_some() || pager.durable().tx < self.moved_tx || pager.relocation_wish().is_some()
    }

    /// Takes a completion; `None` if it was the page file's, else gives it back. [`Store::step`] follows.
    pub fn complete(&mut self, completion: Completion, now: Micros) -> Option<Completion> {
        self.mvcc.pages_mut().complete(completion, now)
    }

    /// Asks for a checkpoint of what is published, soon and without pauses. When it is done [`Store::durable`] says so; if
    /// nothing was published since the last one, there is none.
    pub fn request_checkpoint(&mut self) {
        self.mvcc.pages_mut().request_checkpoint();
    }

    /// The same, but with the usual pauses: who writes goes first.
    pub fn hasten_checkpoint(&mut self) {
        self.mvcc.pages_mut().hasten_checkpoint();
    }

    /// What is durable in the page file: the log behind it is needed, the log before it is not. Transaction 0 in memory.
    pub fn durable(&self) -> Durable {
        self.mvcc.pages().durable()
    }

    /// Whether the page file has room for more.
    pub fn space(&self) -> Space {
        self.mvcc.pages().space()
    }

    /// Whether an operation on the page file is under way, or a checkpoint is.
    pub fn is_busy(&self) -> bool {
        self.mvcc.pages().is_busy()
    }

    /// Whether the disk has an operation on the page file. Without further steps that ends by itself.
    pub fn is_writing(&self) -> bool {
        self.mvcc.pages().is_writing()
    }

    /// The damage that the scrub met since the last call, some of it if it is much: for the log. What stands there can be
    /// read by nobody.
    pub fn take_scrub_faults(&mut self) -> Vec<Fault> {
        self.mvcc.pages_mut().take_scrub_faults()
    }

    /// Counters of the page file since opening.
    pub fn stats(&self) -> StoreStats {
        self.mvcc.pages().stats()
    }
}

impl WriteTx<'_> {
    /// Applies the command of entry `index`, which must be the one after the last.
    ///
    /// # Errors
    /// The fault met: the entry is applied in part, and this store cannot go on with it.
    ///
    /// # Panics
    /// When `index` is not the one after the last.
    pub fn apply(&mut self, index: u64, term: u64, stamped: &Stamped) -> Paged<Applied> {
        self.mvcc.apply(index, term, stamped)
    }

    /// Counts entry `index`, which carries no command, as applied.
    ///
    /// # Errors
    /// As [`WriteTx::apply`].
    ///
    /// # Panics
    /// When `index` is not the one after the last.
    pub fn skip(&mut self, index: u64, term: u64) -> Paged<()> {
        self.mvcc.skip(index, term);
        Ok(())
    }

    /// Sets who votes (together with the entry being applied).
    ///
    /// # Errors
    /// As [`WriteTx::apply`].
    pub fn set_conf_state(&mut self, conf: ConfState) -> Paged<()> {
        self.mvcc.set_conf_state(conf)
    }

    /// Makes the batch visible.
    pub fn publish(self) -> Published {
        let Position { revision, applied, .. } = self.mvcc.position();
        let events = self.mvcc.take_events();
        let events = (!events.is_empty()).then(|| Arc::new(EventBatch { revision, events }));
        self.mvcc.publish();
        Published { revision, applied, events }
    }
}

impl StoreReader {
    /// Where the published state stands.
    pub fn position(&self) -> Position {
        view::position(&self.pager.read().root().standing)
    }

    /// Reads under way, of all readers of this store: each holds back the reuse of what it may look at.
    pub fn reads_under_way(&self) -> usize {
        self.pager.reads_under_way()
    }

    /// A range at the newest or an older revision.
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`], [`Refusal::Compacted`]; a fault.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        Ok(whole(self.range_while(request, true, &|| true)?))
    }

    /// As [`StoreReader::range`], but `count` covers only what had to be read for the answer: for a reader that pages
    /// through a range at one revision and counts it once.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    pub fn range_uncounted(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        Ok(whole(self.range_while(request, false, &|| true)?))
    }

    /// As one of these two, but given up, with `None`, once the answer is not `wanted` any more: that is asked before each
    /// slice.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    pub fn range_while(
        &self,
        request: &RangeRequest,
        counted: bool,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Option<RangeReply>, ReadError> {
        for _ in 0..RESTARTS_MAX {
            let mut guard = self.pager.read();
            let mut scan = Scan::begin(&of(&guard), request, counted)?;
            while scan.holds(&of(&guard)) {
                if !wanted() {
                    return Ok(None);
                }
                if !scan.step(&of(&guard), request, RANGE_SLICE)? {
                    drop(guard);
                    return Ok(Some(scan.finish(request)));
                }
                drop(guard);
                guard = self.pager.read();
            }
            // compacted meanwhile: a revision that was asked for is refused when it begins anew
        }
        let guard = self.pager.read();
        let mut scan = Scan::begin(&of(&guard), request, counted)?;
        while wanted() {
            if !scan.step(&of(&guard), request, RANGE_SLICE)? {
                drop(guard);
                return Ok(Some(scan.finish(request)));
            }
        }
        Ok(None)
    }

    /// Keys of a range at the newest revision, in O(log n).
    ///
    /// # Errors
    /// The fault met.
    pub fn live_count(&self, range: &KeyRange) -> Paged<u64> {
        of(&self.pager.read()).live_count(range)
    }

    /// The same and those that were deleted and are still kept: what a range at an older revision goes over. In O(log n).
    ///
    /// # Errors
    /// The fault met.
    pub fn kept_count(&self, range: &KeyRange) -> Paged<u64> {
        of(&self.pager.read()).kept_count(range)
    }

    /// Pages that were not in memory when they were first wanted, since opening, by whomever: who sees it rise during a read
    /// has perhaps waited for the disk.
    pub fn pages_read(&self) -> u64 {
        self.pager.pages_read()
    }

    /// A txn without writes; the header revision is `.0`.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    ///
    /// # Panics
    /// When the txn is not [`TxnRequest::is_read_only`].
    pub fn read_txn(&self, request: &TxnRequest) -> Result<(i64, TxnReply), ReadError> {
        of(&self.pager.read()).read_txn(request)
    }

    /// Events of `range` from revision `from` on, whole revisions, stopping once about `events_max` are gathered or many
    /// records were looked at: go on at `next` while it is not above `current`. `from` equal to the compaction revision is
    /// allowed.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] when `from` is below the compaction revision; a fault.
    pub fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, ReadError> {
        of(&self.pager.read()).history(range, from, events_max)
    }

    /// Hash of the versions visible at `revision` (0: the current one). The work is proportional to the whole store and
    /// done in slices.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        Ok(whole(self.hash_kv_while(revision, &|| true)?))
    }

    /// The same, but given up, with `None`, once the hash is not `wanted` any more: that is asked before each slice.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    pub fn hash_kv_while(
        &self,
        revision: i64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Option<HashKv>, ReadError> {
        for _ in 0..RESTARTS_MAX {
            let mut guard = self.pager.read();
            let mut scan = HashScan::begin(&of(&guard), revision)?;
            while scan.holds(&of(&guard)) {
                if !wanted() {
                    return Ok(None);
                }
                if let Some(hash) = scan.step(&of(&guard), HASH_SLICE_VERSIONS)? {
                    return Ok(Some(hash));
                }
                drop(guard);
                guard = self.pager.read();
            }
        }
        let guard = self.pager.read();
        let mut scan = HashScan::begin(&of(&guard), revision)?;
        while wanted() {
            if let Some(hash) = scan.step(&of(&guard), HASH_SLICE_VERSIONS)? {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }

    /// One lease.
    ///
    /// # Errors
    /// The fault met.
    pub fn lease(&self, id: i64, with_keys: bool) -> Paged<Option<LeaseInfo>> {
        of(&self.pager.read()).lease(id, with_keys)
    }

    /// All leases, the first to end first.
    ///
    /// # Errors
    /// The fault met.
    pub fn leases(&self) -> Paged<Vec<LeaseInfo>> {
        of(&self.pager.read()).leases()
    }

    /// Alarms that are up, sorted.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        of(&self.pager.read()).alarms()
    }

    /// The cluster's id, 0 before the bootstrap command.
    pub fn cluster_id(&self) -> u64 {
        of(&self.pager.read()).cluster_id()
    }

    /// Its members, by id.
    pub fn members(&self) -> Vec<Member> {
        of(&self.pager.read()).members()
    }

    /// Sizes, in constant time.
    pub fn sizes(&self) -> Sizes {
        view::sizes(self.pager.read().root())
    }

    /// The newest published state, kept as it is as long as this is held: its pages stay where they are.
    pub fn pin_published(&self) -> Pinned {
        self.pager.pin_published()
    }

    /// The newest durable state, all of it in the file, kept as it is as long as this is held. In memory: the newest
    /// published one.
    pub fn pin_durable(&self) -> Pinned {
        self.pager.pin_durable()
    }

    /// Index of the last entry applied in the newest durable state.
    pub fn durable_applied(&self) -> u64 {
        self.pager.pin_durable().root().standing.applied
    }

    /// Begins an image of the newest durable state, with a label that is kept in it.
    ///
    /// # Errors
    /// As [`SnapshotReader::begin`].
    pub fn snapshot(&self, label: &str) -> Result<SnapshotReader, Fault> {
        SnapshotReader::begin(&self.pager, label)
    }

    /// Everything that answers depend on, to compare two stores: equal states give equal answers for ever, however far each
    /// has come with removing what compaction hid. A copy of the whole store: for tests and repair, not for serving.
    ///
    /// # Errors
    /// The fault met.
    pub fn state(&self) -> Paged<State> {
        of(&self.pager.read()).state()
    }

    /// A number that is equal where [`StoreReader::state`] is, within one build of the program.
    ///
    /// # Errors
    /// The fault met.
    pub fn fingerprint(&self) -> Paged<u64> {
        Ok(self.state()?.fingerprint())
    }

    /// Checks every rule of the store against all of it, and that as many pages are in use as it reaches.
    ///
    /// # Errors
    /// The first rule found broken, or the fault met, in words.
    pub fn check(&self) -> Result<(), String> {
        let pinned = self.pager.pin_published();
        let root = pinned.root();
        let checked = check::check(&View::of(&pinned, root));
        let reached = checked.map_err(|fault| fault.to_string())??.count();
        let fixed = fixed_pages_below(root.pages_end);
        if root.pages_used == reached + fixed {
            return Ok(());
        }
        let used = root.pages_used;
        Err(format!("{used} pages in use, {reached} reached and {fixed} of the file's own"))
    }
}

/// What was wanted to the end.
fn whole<T>(told: Option<T>) -> T {
    told.expect("only what is not wanted any more is given up")
}

/// The keys in order, each once.
fn ascending(keys: &[Bytes]) -> Vec<&[u8]> {
    let mut ascending: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    ascending.sort_unstable();
    ascending.dedup();
    ascending
}

/// The state that a reader is registered at.
fn of<'g, 'a>(guard: &'g ReadGuard<'a>) -> View<'g, ReadGuard<'a>> {
    View::of(guard, guard.root())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, DeleteRangeRequest, PutRequest};
    use std::cell::Cell;

    /// Puts so many keys, then deletes the first `deleted`.
    fn filled(keys: u64, deleted: u64) -> (Store, StoreReader) {
        let key = |number: u64| Bytes::from(format!("{number:08}"));
        let put = |number| Command::Put(PutRequest { key: key(number), ..PutRequest::default() });
        let delete = Command::DeleteRange(DeleteRangeRequest {
            range: KeyRange::new(key(0), key(deleted)),
            prev_kv: false,
        });
        let mut store = Store::new();
        let mut batch = store.begin();
        for (index, command) in (1..).zip((0..keys).map(put).chain((deleted > 0).then_some(delete))) {
            batch.apply(index, 1, &Stamped { clock_ms: 0, command }).unwrap().outcome.unwrap();
        }
        batch.publish();
        let reader = store.reader();
        (store, reader)
    }

    fn all() -> KeyRange {
        KeyRange::new("0", "\0")
    }

    #[test]
    fn what_is_not_wanted_any_more_is_given_up_before_the_next_slice() {
        let (_store, reader) = filled(2 * HASH_SLICE_VERSIONS as u64 + 1, 0);
        let request = RangeRequest { range: all(), ..RangeRequest::default() };
        let slices = Cell::new(0);
        let wanted_for = |slices_max| {
            let slices = &slices;
            slices.set(0);
            move || {
                slices.set(slices.get() + 1);
                slices.get() <= slices_max
            }
        };
        for slices_max in 0..3 {
            assert_eq!(reader.hash_kv_while(0, &wanted_for(slices_max)).unwrap(), None);
            assert_eq!(slices.get(), slices_max + 1);
            assert_eq!(reader.range_while(&request, true, &wanted_for(slices_max)).unwrap(), None);
            assert_eq!(slices.get(), slices_max + 1);
        }
        assert_eq!(reader.hash_kv_while(0, &wanted_for(100)).unwrap(), Some(reader.hash_kv(0).unwrap()));
        let whole = reader.range_while(&request, true, &wanted_for(100)).unwrap();
        assert_eq!(whole, Some(reader.range(&request).unwrap()));
    }

    #[test]
    fn deleted_keys_are_kept_until_compaction_and_counted() {
        let (_store, reader) = filled(100, 90);
        assert_eq!(reader.live_count(&all()).unwrap(), 10);
        assert_eq!(reader.kept_count(&all()).unwrap(), 100);
        assert_eq!(reader.kept_count(&KeyRange::new("00000080", "00000095")).unwrap(), 15);
    }
}
