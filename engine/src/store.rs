//! The front door of the store: apply commands, publish, read.
//!
//! One writer ([`Store`], on the core thread) opens a [`WriteTx`] for a batch of commands, applies them in the order
//! of their indexes and publishes: only then do readers see any of it, all of it, and the applied index with it.
//! Readers ([`StoreReader`], on any thread) always see the newest published state.
//!
//! Behind the door stands [`crate::model`], the whole store in memory, under one lock: a write transaction holds it from
//! [`Store::begin`] to [`WriteTx::publish`], which hands it to waiting readers first, so that a writer that begins again at
//! once cannot starve them. Where the state stands and its sizes are kept aside, so that asking for them never waits for a
//! batch. Long work (large ranges, HashKV, compaction) is done in slices and lets others in between.

use crate::command::{AlarmMember, Applied, Member, RangeReply, RangeRequest, Stamped, TxnReply, TxnRequest};
use crate::error::ReadError;
use crate::model::Model;
use crate::model::state::State;
use crate::mvcc::KeyRange;
use crate::pager::Paged;
use crate::watch::{EventBatch, HistoryPage};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::Arc;

/// Versions hashed before others may have the store: about 10 ms of work.
const HASH_SLICE_VERSIONS: usize = 20_000;
/// Keys a range looks at before a waiting writer may have the store: well below a millisecond of work.
const RANGE_SLICE_KEYS: usize = 4_096;
/// Compactions that may overtake a HashKV or a range at the newest revision, each of which makes it begin anew; after so many
/// it is done in one slice.
const RESTARTS_MAX: usize = 8;

/// The writer's end of the store.
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    model: RwLock<Model>,
    published: Mutex<Summary>,
}

/// What is known of the published state without its lock.
#[derive(Clone, Copy)]
struct Summary {
    position: Position,
    sizes: Sizes,
}

/// A batch of commands being applied; nothing of it is visible before [`WriteTx::publish`].
///
/// Publish it: the state in memory has no way back, so a batch that is dropped shows all the same, and its events come with
/// the next publish.
#[must_use = "what was applied is told to readers and watchers by publishing"]
pub struct WriteTx<'a> {
    model: RwLockWriteGuard<'a, Model>,
    shared: &'a Shared,
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

/// A reader's end of the store; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct StoreReader {
    shared: Arc<Shared>,
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
    pub keys: Vec<bytes::Bytes>,
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
    /// An empty store.
    pub fn new() -> Store {
        let model = Model::new();
        let published = Mutex::new(Summary::of(&model));
        Store { shared: Arc::new(Shared { model: RwLock::new(model), published }) }
    }

    /// Opens a write transaction.
    pub fn begin(&mut self) -> WriteTx<'_> {
        WriteTx { model: self.shared.model.write(), shared: &self.shared }
    }

    /// A reader's end.
    pub fn reader(&self) -> StoreReader {
        StoreReader { shared: Arc::clone(&self.shared) }
    }

    /// Index of the last entry applied and published.
    pub fn applied(&self) -> u64 {
        self.shared.published.lock().position.applied
    }

    /// The lease clock as of the last command applied, in milliseconds.
    pub fn lease_clock_ms(&self) -> u64 {
        self.shared.model.read().clock_ms()
    }

    /// Up to `limit` leases whose deadline is at or before `clock_ms`, the earliest first.
    ///
    /// # Errors
    /// The fault met while reading them.
    pub fn expired_leases(&self, clock_ms: u64, limit: usize) -> Paged<Vec<i64>> {
        Ok(self.shared.model.read().expired_leases(clock_ms, limit))
    }

    /// The earliest deadline of all leases, on the lease clock.
    ///
    /// # Errors
    /// The fault met while reading it.
    pub fn next_lease_deadline_ms(&self) -> Paged<Option<u64>> {
        Ok(self.shared.model.read().next_lease_deadline_ms())
    }

    /// Who votes, as last applied.
    pub fn conf_state(&self) -> ConfState {
        self.shared.model.read().conf_state().clone()
    }

    /// Goes over up to `budget` versions and removes what compaction has superseded; true while more is left to do.
    ///
    /// # Errors
    /// The fault met; this store cannot go on with it.
    pub fn compact_step(&mut self, budget: usize) -> Paged<bool> {
        let mut tx = self.begin();
        let is_more = tx.model.compact_step(budget);
        tx.release();
        Ok(is_more)
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
        Ok(self.model.apply(index, term, stamped))
    }

    /// Counts entry `index`, which carries no command, as applied.
    ///
    /// # Errors
    /// As [`WriteTx::apply`].
    ///
    /// # Panics
    /// When `index` is not the one after the last.
    pub fn skip(&mut self, index: u64, term: u64) -> Paged<()> {
        self.model.skip(index, term);
        Ok(())
    }

    /// Sets who votes (together with the entry being applied).
    ///
    /// # Errors
    /// As [`WriteTx::apply`].
    pub fn set_conf_state(&mut self, conf: ConfState) -> Paged<()> {
        self.model.set_conf_state(conf);
        Ok(())
    }

    /// Makes the batch visible.
    pub fn publish(mut self) -> Published {
        let Position { revision, applied, .. } = self.model.position();
        let events = self.model.take_events();
        let events = (!events.is_empty()).then(|| Arc::new(EventBatch { revision, events }));
        self.release();
        Published { revision, applied, events }
    }

    /// Gives the store back, to the readers that wait for it before anyone else.
    fn release(self) {
        *self.shared.published.lock() = Summary::of(&self.model);
        RwLockWriteGuard::unlock_fair(self.model);
    }
}

impl Summary {
    fn of(model: &Model) -> Summary {
        Summary { position: model.position(), sizes: model.sizes() }
    }
}

impl StoreReader {
    fn model(&self) -> RwLockReadGuard<'_, Model> {
        self.shared.model.read()
    }

    /// Where the published state stands.
    pub fn position(&self) -> Position {
        self.shared.published.lock().position
    }

    /// A range at the newest or an older revision.
    ///
    /// # Errors
    /// [`Refusal::FutureRevision`](crate::error::Refusal::FutureRevision),
    /// [`Refusal::Compacted`](crate::error::Refusal::Compacted);
    /// a fault.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        self.range_in_slices(request, true)
    }

    /// As [`StoreReader::range`], but `count` covers only what had to be read for the answer: for a reader that pages
    /// through a range at one revision and counts it once.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    pub fn range_uncounted(&self, request: &RangeRequest) -> Result<RangeReply, ReadError> {
        self.range_in_slices(request, false)
    }

    fn range_in_slices(&self, request: &RangeRequest, counted: bool) -> Result<RangeReply, ReadError> {
        for _ in 0..RESTARTS_MAX {
            let mut model = self.model();
            let mut scan = model.range_begin(request, model.position().revision, counted)?;
            while scan.holds(&model) {
                if !model.range_step(request, &mut scan, RANGE_SLICE_KEYS) {
                    drop(model);
                    return Ok(scan.finish(request));
                }
                RwLockReadGuard::bump(&mut model);
            }
            // compacted meanwhile: a revision that was asked for is refused when it begins anew
        }
        let model = self.model();
        Ok(model.range_at(request, model.position().revision, counted)?)
    }

    /// A txn without writes; the header revision is `.0`.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    ///
    /// # Panics
    /// When the txn is not [`TxnRequest::is_read_only`].
    pub fn read_txn(&self, request: &TxnRequest) -> Result<(i64, TxnReply), ReadError> {
        Ok(self.model().read_txn(request)?)
    }

    /// Events of `range` from revision `from` on, whole revisions, stopping once about `events_max` are gathered or many
    /// records were looked at: go on at `next` while it is not above `current`. `from` equal to the compaction revision is
    /// allowed.
    ///
    /// # Errors
    /// [`Refusal::Compacted`](crate::error::Refusal::Compacted) when `from` is below the compaction revision; a fault.
    pub fn history(&self, range: &KeyRange, from: i64, events_max: usize) -> Result<HistoryPage, ReadError> {
        Ok(self.model().history(range, from, events_max)?)
    }

    /// Hash of the versions visible at `revision` (0: the current one). The work is proportional to the whole store and
    /// done in slices.
    ///
    /// # Errors
    /// As [`StoreReader::range`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        for _ in 0..RESTARTS_MAX {
            let mut cursor = self.model().hash_begin(revision)?;
            loop {
                let model = self.model();
                if !cursor.holds(&model) {
                    break;
                }
                match model.hash_step(cursor, HASH_SLICE_VERSIONS) {
                    Ok(hash) => return Ok(hash),
                    Err(next) => cursor = next,
                }
            }
        }
        let model = self.model();
        let cursor = model.hash_begin(revision)?;
        Ok(model.hash_step(cursor, usize::MAX).unwrap_or_default())
    }

    /// One lease.
    ///
    /// # Errors
    /// The fault met.
    pub fn lease(&self, id: i64, with_keys: bool) -> Paged<Option<LeaseInfo>> {
        Ok(self.model().lease(id, with_keys))
    }

    /// All leases, the first to end first.
    ///
    /// # Errors
    /// The fault met.
    pub fn leases(&self) -> Paged<Vec<LeaseInfo>> {
        Ok(self.model().leases())
    }

    /// Alarms that are up, sorted.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.model().alarms()
    }

    /// The cluster's id, 0 before the bootstrap command.
    pub fn cluster_id(&self) -> u64 {
        self.model().cluster_id()
    }

    /// Its members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.model().members()
    }

    /// Sizes, in constant time.
    pub fn sizes(&self) -> Sizes {
        self.shared.published.lock().sizes
    }

    /// Everything that answers depend on, to compare two stores: equal states give equal answers for ever, however far each
    /// has come with removing what compaction hid. A copy of the whole store: for tests and repair, not for serving.
    ///
    /// # Errors
    /// The fault met.
    pub fn state(&self) -> Paged<State> {
        Ok(self.model().state())
    }

    /// A number that is equal where [`StoreReader::state`] is, within one build of the program.
    ///
    /// # Errors
    /// The fault met.
    pub fn fingerprint(&self) -> Paged<u64> {
        Ok(self.model().state().fingerprint())
    }

    /// Checks every rule of the store against all of it.
    ///
    /// # Errors
    /// The first rule found broken, in words.
    pub fn check(&self) -> Result<(), String> {
        self.model().check()
    }
}
