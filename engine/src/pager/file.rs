//! The open file, as a state machine: when a checkpoint is due, what is spilled, when the file grows.
//!
//! ```text
//! step:  pages that landed > length > checkpoint (due? begin; go on) > spill > write-outs
//! ```
//! | a checkpoint begins when something was published since the last one, and |
//! |---|
//! | it was asked for |
//! | pages of a quarter of [`PagerOptions::dirty_bytes`] were replaced since the last one began: of a large store each change replaces a leaf and a branch of its own, and a restart reads them all again |
//! | three eighths of it wait in memory |
//! | [`PagerOptions::checkpoint_wal_bytes`] of log were written since the last one began |
//! | [`PagerOptions::snapshot_entries`] entries were applied since the last one |
//! | nothing was published for [`PagerOptions::rest_us`], and much memory is kept for changes (`rest`) |
//! | the oldest change is [`PagerOptions::checkpoint_interval_us`] old (a second, while the disk or the log's is full: what was freed becomes reusable by it, and the log lets segments go) |
//!
//! Beyond [`PagerOptions::dirty_bytes`], pages are spilled: written to their places without a sync, while no checkpoint
//! writes pages.
//!
//! After a failed write or sync nothing more is written and nothing becomes durable: what is on the medium is unknown,
//! and a second try may succeed and lie. The fault is returned for ever.

use super::Pager;
use super::checkpoint::{Checkpoint, Names};
use super::grow::{Length, Need};
use super::map_pages::MapPages;
use super::meta::{Meta, PlaceRef};
use super::page::{PAGE_BYTES, PageId};
use super::reader::Source as _;
use super::root::Root;
use super::scrub::Scrub;
use super::writeout::WriteOut;
use crate::Micros;
use crate::disk::{Completion, Disk, FileId};
use crate::error::Fault;
use crate::wal::Space;
use std::fmt;
use std::path::PathBuf;

/// Pages that one step prepares at most: well below a millisecond.
pub(super) const STEP_PAGES: usize = 64;
/// How old a change grows while the disk is full, in microseconds.
const FULL_INTERVAL_US: Micros = 1_000_000;
/// How long to wait before looking again whether readers have left the end of the file, in microseconds.
const CUT_RETRY_US: Micros = 1_000_000;
/// The longest time over which a checkpoint's pages are written.
const CHECKPOINT_US: Micros = 5_000_000;
/// The same of one that somebody waits for.
const HASTENED_US: Micros = 1_000_000;
/// Between two pieces of a cut: what is let go of the medium may be told, too, and is busy with it.
const CUT_PAUSE_US: Micros = 20_000;
/// How often memory is given back while nothing is published, in microseconds.
const RECLAIM_US: Micros = 20_000;
/// So long after a checkpoint's end the memory of the pages that it wrote has been given back, in microseconds.
const RECLAIMED_US: Micros = 1_000_000;
/// How long to wait before trying again to give back what is kept for changes, in microseconds.
const REST_RETRY_US: Micros = 100_000;
/// After so many changed pages a checkpoint is made for the sake of giving back what is kept for them.
const REST_PAGES: u64 = 1_024;
/// So long after what was kept for changes was given back, an allocator that waits before it gives memory back to the system is ready to.
const BREATH_US: Micros = 2_000_000;
/// It does so only while it is asked for more: so often, for so many bytes, which are not touched.
const BREATHS: usize = 16;
const BREATH_BYTES: usize = 4 << 20;

/// Numbers and places of a page file.
#[derive(Clone, Debug)]
pub struct PagerOptions {
    /// The file; made if it is not there, with the directory it lies in.
    pub path: PathBuf,
    /// Whose file this is (16 bytes: cluster id, member id); checked at opening.
    pub owner: [u8; 16],
    /// Bytes of pages that may wait in memory before they are spilled (default 256 MiB).
    pub dirty_bytes: u64,
    /// Bytes of log after which a checkpoint begins (default 48 MiB: with what is written meanwhile the log stays below
    /// 128 MiB).
    pub checkpoint_wal_bytes: u64,
    /// Age of a change after which a checkpoint begins, in microseconds (default 60 s).
    pub checkpoint_interval_us: u64,
    /// Entries applied after which a checkpoint begins, if set.
    pub snapshot_entries: Option<u64>,
    /// How long nothing is published before the memory that is kept for changes is given back, in microseconds (default 3 s).
    pub rest_us: Micros,
    /// How fast used pages are read again and checked, in bytes per second; 0 (default): not at all.
    pub scrub_bytes_per_s: u64,
}

impl PagerOptions {
    /// The defaults.
    pub fn new(path: PathBuf, owner: [u8; 16]) -> PagerOptions {
        PagerOptions {
            path,
            owner,
            dirty_bytes: 256 << 20,
            checkpoint_wal_bytes: 48 << 20,
            checkpoint_interval_us: 60_000_000,
            snapshot_entries: None,
            rest_us: 3_000_000,
            scrub_bytes_per_s: 0,
        }
    }
}

/// What is durable: the log behind it is needed, the log before it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The transaction.
    pub tx: u64,
    /// Index of the last entry applied in it.
    pub applied: u64,
    /// Its term.
    pub applied_term: u64,
}

impl Durable {
    pub(super) fn of(root: &Root) -> Durable {
        Durable { tx: root.tx, applied: root.standing.applied, applied_term: root.standing.applied_term }
    }
}

/// When [`Pager::step`] wants to be called again although nothing completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagerNext {
    /// At once: there is more to do.
    pub at_once: bool,
    /// At that time.
    pub at: Option<Micros>,
}

/// Counters of one open page file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagerStats {
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Sum of their durations in microseconds.
    pub checkpoint_us_sum: u64,
    /// The longest of them in microseconds.
    pub checkpoint_us_max: u64,
    /// Pages written, metas left out.
    pub pages_written: u64,
    /// Bytes written, metas left out.
    pub bytes_written: u64,
    /// Pages among them that were spilled.
    pub pages_spilled: u64,
    /// Pages of the file that were not in memory when they were wanted for the first time since opening, or since they
    /// were written: those that were read, as far as that can be told.
    pub pages_read: u64,
    /// Times that the scrub went through the whole file.
    pub scrub_rounds: u64,
    /// Pages it looked at.
    pub scrub_pages: u64,
    /// Damage it met, that of earlier rounds counted again.
    pub scrub_damaged: u64,
    /// Times that memory kept for changes was given back, because none came.
    pub rests: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Bytes of pages that wait in memory to be written.
    pub dirty_bytes: u64,
}

/// The file. Invariant: what the last durable meta names ([`Names`]) is not written to before the next one is durable.
#[derive(Debug)]
pub(super) struct PageFile {
    pub(super) options: PagerOptions,
    pub(super) file: FileId,
    stopped: Option<Fault>,
    pub(super) out: WriteOut,
    pub(super) length: Length,
    /// What the last durable meta names.
    pub(super) names: Names,
    pub(super) durable: Durable,
    pub(super) checkpoint: Option<Checkpoint>,
    requested: bool,
    /// What waits is to be made durable without waiting for the interval's end.
    hastened: bool,
    /// When memory that was written out is given back, although nothing is published.
    reclaim_at: Option<Micros>,
    /// The newest transaction that was published when this was looked at last.
    seen_tx: u64,
    /// When that was seen first.
    seen_at: Micros,
    /// When what is kept for changes is given back, if none comes.
    rest_at: Option<Micros>,
    /// Pages written until that was done last.
    rested_pages: u64,
    /// When the allocator is reminded of that.
    breath_at: Option<Micros>,
    /// Whether the log has room.
    log_space: Space,
    /// Bytes of log when the last checkpoint began.
    chosen_wal_bytes: u64,
    /// When that was; before the first one, when the file was opened.
    begun_at: Micros,
    /// Since when something waits that is not chosen.
    waits_since: Option<Micros>,
    /// The end of the file may be cut, to be looked at then.
    pub(super) cut_at: Option<Micros>,
    scrub: Scrub,
    pub(super) stats: PagerStats,
}

impl PageFile {
    /// The file whose newest meta is `meta`; `blocks` is what its directories name.
    pub(super) fn new(
        options: PagerOptions,
        file: FileId,
        pages: u64,
        meta: &Meta,
        blocks: Vec<PlaceRef>,
        now: Micros,
    ) -> PageFile {
        PageFile {
            file,
            stopped: None,
            out: WriteOut::new(options.path.clone(), file),
            length: Length::new(options.path.clone(), file, pages),
            names: Names { number: meta.number, blocks, directories: meta.directories.clone() },
            durable: Durable::of(&meta.root),
            checkpoint: None,
            requested: false,
            hastened: false,
            reclaim_at: None,
            seen_tx: meta.root.tx,
            seen_at: now,
            rest_at: None,
            rested_pages: 0,
            breath_at: None,
            log_space: Space::Ample,
            chosen_wal_bytes: 0,
            begun_at: now,
            waits_since: None,
            cut_at: None,
            scrub: Scrub::new(options.path.clone(), options.scrub_bytes_per_s),
            stats: PagerStats::default(),
            options,
        }
    }

    fn stop(&mut self, fault: Fault) {
        self.stopped.get_or_insert(fault);
    }

    fn check_stopped(&self) -> Result<(), Fault> {
        self.stopped.as_ref().map_or(Ok(()), |fault| Err(fault.again()))
    }

    fn step(
        &mut self,
        pager: &mut Pager,
        disk: &mut dyn Disk,
        now: Micros,
        wal_bytes: u64,
    ) -> Result<PagerNext, Fault> {
        self.check_stopped()?;
        self.go_on(pager, disk, now, wal_bytes).inspect_err(|fault| self.stop(fault.again()))
    }

    fn go_on(
        &mut self,
        pager: &mut Pager,
        disk: &mut dyn Disk,
        now: Micros,
        wal_bytes: u64,
    ) -> Result<PagerNext, Fault> {
        for written in self.out.take_landed() {
            pager.page_written(written.id, written.tx, written.crc);
            self.reclaim_at.get_or_insert(now + RECLAIM_US);
        }
        self.reclaim(pager, now);
        let published = pager.published();
        self.rest(pager, published.tx, now);
        if self.waits_since.is_none() && published.tx > self.chosen_tx() {
            self.waits_since = Some(now);
        }
        // there is nothing to do for whoever asked before the last one was done
        self.requested &= published.tx > self.durable.tx;
        self.hastened &= self.waits_since.is_some();
        self.length.step(disk, self.need(pager, &published), now);
        let due = self.is_due(pager, &published, now, wal_bytes);
        let mut budget = STEP_PAGES;
        if due && self.may_begin(&published) {
            self.begin_checkpoint(pager, now, wal_bytes);
        }
        let done = self.advance_checkpoint(pager, disk, &mut budget, now, wal_bytes)?;
        if !due {
            self.spill(pager, disk, &mut budget, now)?;
        }
        self.cut(pager, disk, now);
        self.out.step(disk);
        self.scrub.step(disk, &self.names, self.durable.tx, now);
        let mut next = self.next(&published, budget, now);
        // the next one may have been due all the while
        next.at_once |= done;
        Ok(next)
    }

    /// Every publish gives back some of the memory of pages that were written; where there is none, this does. What a reader
    /// still holds is left to later publishes.
    fn reclaim(&mut self, pager: &mut Pager, now: Micros) {
        if self.reclaim_at.is_none_or(|at| now < at) {
            return;
        }
        let before = pager.held_back().in_memory;
        pager.reclaim();
        let left = pager.held_back().in_memory;
        self.reclaim_at = (0 < left && left < before).then_some(now + RECLAIM_US);
    }

    /// A checkpoint has ended. What it wrote is given back first, see [`PageFile::reclaim`].
    pub(super) fn ended(&mut self, now: Micros) {
        let rest_us = self.options.rest_us;
        self.rest_at = Some((now + rest_us.min(RECLAIMED_US)).max(self.seen_at + rest_us));
    }

    /// After a time without changes, gives back what is kept for them. While the file is busy, as with being cut after a
    /// checkpoint, it is tried again. While not all is in the file this is left to the next checkpoint's end, which comes soon
    /// if much is kept: after a replay the last entries are applied only when they are known to be committed, and a page or
    /// two that a checkpoint left out would hold all the rest until the next one by age.
    fn rest(&mut self, pager: &mut Pager, published: u64, now: Micros) {
        if published != self.seen_tx {
            self.seen_tx = published;
            self.seen_at = now;
            self.rest_at = Some(now + self.options.rest_us);
            // whoever changes something again is not to wait for the allocator; it is reminded after the next rest
            self.breath_at = None;
        }
        if self.rest_at.is_some_and(|at| now >= at) {
            let rests = !self.is_busy() && pager.rest();
            self.rest_at = self.is_busy().then_some(now + REST_RETRY_US);
            self.breath_at = rests.then_some(now + BREATH_US);
            if rests {
                self.stats.rests += 1;
                self.rested_pages = self.out.pages;
            } else if !self.is_busy() {
                let waiting = pager.dirty_bytes() / PAGE_BYTES as u64;
                self.hastened |= self.out.pages - self.rested_pages + waiting >= REST_PAGES;
            }
        }
        if self.breath_at.is_some_and(|at| now >= at) {
            self.breath_at = None;
            (0..BREATHS).for_each(|_| drop(std::hint::black_box(Vec::<u8>::with_capacity(BREATH_BYTES))));
        }
    }

    /// The newest transaction that is durable or on its way to be.
    fn chosen_tx(&self) -> u64 {
        self.checkpoint.as_ref().map_or(self.durable.tx, |checkpoint| checkpoint.root.tx)
    }

    fn need(&self, pager: &Pager, published: &Root) -> Need {
        let (_, open_end) = pager.pages_in_use();
        Need { pages_end: published.pages_end.max(open_end), reusable: pager.reusable_pages() }
    }

    /// Whether a checkpoint is to begin.
    fn is_due(&self, pager: &Pager, published: &Root, now: Micros, wal_bytes: u64) -> bool {
        if self.checkpoint.is_some() || published.tx <= self.durable.tx {
            return false;
        }
        let entries = published.standing.applied.saturating_sub(self.durable.applied);
        self.requested
            || pager.replaced_bytes() >= self.options.dirty_bytes / 4
            || pager.dirty_bytes() >= self.options.dirty_bytes / 8 * 3
            || wal_bytes.saturating_sub(self.chosen_wal_bytes) >= self.options.checkpoint_wal_bytes
            || self.options.snapshot_entries.is_some_and(|least| entries >= least)
            || self.hastened
            || self.interval_end().is_some_and(|end| now >= end)
    }

    /// When the oldest change is so old that a checkpoint begins.
    fn interval_end(&self) -> Option<Micros> {
        let interval = match (self.length.space(), self.log_space) {
            (Space::Ample, Space::Ample) => self.options.checkpoint_interval_us,
            _ => self.options.checkpoint_interval_us.min(FULL_INTERVAL_US),
        };
        self.waits_since.map(|since| since + interval)
    }

    /// Whether one can begin: no spill is under way, and every page that the root reaches has room in the file.
    fn may_begin(&self, published: &Root) -> bool {
        !self.out.busy() && published.pages_end <= self.length.limit()
    }

    fn begin_checkpoint(&mut self, pager: &mut Pager, now: Micros, wal_bytes: u64) {
        let chosen = pager.choose();
        let most = if self.hastened { HASTENED_US } else { CHECKPOINT_US };
        let lasts = (now.saturating_sub(self.begun_at) / 2).min(most);
        let urgent = std::mem::take(&mut self.requested);
        self.checkpoint = Some(Checkpoint::new(chosen, &self.names, (!urgent).then_some(lasts), now));
        self.begun_at = now;
        self.chosen_wal_bytes = wal_bytes;
        self.waits_since = None;
        self.hastened = false;
    }

    /// Whether there is no time for pauses.
    pub(super) fn in_hurry(&self, pager: &Pager, wal_bytes: u64) -> bool {
        let behind = wal_bytes.saturating_sub(self.chosen_wal_bytes) >= self.options.checkpoint_wal_bytes;
        let urgent = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.urgent);
        urgent || self.requested || behind || pager.dirty_bytes() >= self.options.dirty_bytes / 4 * 3
    }

    /// Writes pages that wait in memory beyond the bound, while no checkpoint writes pages. What is taken is written in
    /// the same step: later its children may be gone.
    fn spill(
        &mut self,
        pager: &mut Pager,
        disk: &mut dyn Disk,
        budget: &mut usize,
        now: Micros,
    ) -> Result<(), Fault> {
        let writes = self.checkpoint.as_ref().is_some_and(Checkpoint::writes);
        let over = pager.dirty_bytes() > self.options.dirty_bytes;
        // all that may be taken has room in the file
        let fits = pager.published().pages_end <= self.length.limit();
        if !writes && over && fits && *budget > 0 && self.out.has_room(now, true) {
            let mut pages: Vec<_> =
                pager.spill_candidates(*budget).into_iter().map(|(_, _, page)| page).collect();
            pages.sort_by_key(|page| page.id());
            for page in &pages {
                self.out.write_page(disk, page, |id, tx| pager.child_crc(id, tx), now)?;
            }
            self.stats.pages_spilled += pages.len() as u64;
            *budget -= pages.len();
        }
        if !writes {
            self.out.flush(disk, now);
        }
        Ok(())
    }

    /// Cuts the end of the file, if nobody reaches it. Not while a checkpoint runs: its root may reach further than the
    /// durable one. Nor before one was made since opening: what was found then may be older than the log, which is seen only
    /// while that is read, and what is cut off no repair brings back.
    fn cut(&mut self, pager: &mut Pager, disk: &mut dyn Disk, now: Micros) {
        let due = self.stats.checkpoints > 0 && self.cut_at.is_some_and(|at| now >= at);
        let writing = self.checkpoint.is_some() || self.out.busy();
        if !due || writing || self.length.busy() {
            return;
        }
        pager.reclaim();
        let reach_end = pager.busy_end();
        let used_end = pager.published().pages_end;
        self.cut_at = None;
        if self.length.cut_to(reach_end).is_none() && self.length.cut_to(used_end).is_some() {
            // readers, or a root that is to be replaced, still reach it
            self.cut_at = Some(now + CUT_RETRY_US);
            return;
        }
        if self.length.cut(disk, reach_end) {
            self.cut_at = Some(now + CUT_PAUSE_US);
        }
    }

    fn next(&self, published: &Root, budget: usize, now: Micros) -> PagerNext {
        let interval = self.interval_end().filter(|_| published.tx > self.chosen_tx());
        let pause = self.checkpoint.as_ref().and_then(|checkpoint| {
            [self.out.resume_at(now), checkpoint.resume_at(now)].into_iter().flatten().max()
        });
        let rest = [self.reclaim_at, self.rest_at, self.breath_at].into_iter().flatten().min();
        let times = [interval, pause, self.length.wakeup(), self.cut_at, rest, self.scrub.wakeup()];
        PagerNext { at_once: budget == 0, at: times.into_iter().flatten().filter(|at| *at > now).min() }
    }

    fn complete(&mut self, completion: Completion, now: Micros) -> Option<Completion> {
        self.take_completion(completion, now).unwrap_or_else(|fault| {
            self.stop(fault);
            None
        })
    }

    fn take_completion(&mut self, completion: Completion, now: Micros) -> Result<Option<Completion>, Fault> {
        let Some(completion) = self.out.complete(completion)? else { return Ok(None) };
        let Some(completion) = self.length.complete(completion, now)? else { return Ok(None) };
        let Some(completion) = self.scrub.take_completion(completion) else { return Ok(None) };
        match &mut self.checkpoint {
            Some(checkpoint) => checkpoint.complete(completion, &self.options.path),
            None => Ok(Some(completion)),
        }
    }

    /// Whether an operation is under way.
    fn is_busy(&self) -> bool {
        self.out.busy() || self.length.busy() || self.checkpoint.is_some()
    }
}

impl fmt::Debug for Pager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pager(transaction {} open, {:?})", self.open_tx(), self.durable())
    }
}

impl Pager {
    /// Pages below the file's end that may be given out at once.
    fn reusable_pages(&self) -> u64 {
        self.space.free_below_end()
    }

    /// Whoever needs the medium more begs for quiet until then: pages are not written, unless there is a hurry, and go
    /// on in smaller portions; nothing is cut off the file.
    pub fn hold_writes(&mut self, now: Micros, until: Micros) {
        if let Some(file) = &mut self.file {
            file.out.hold(now, until);
            file.cut_at = file.cut_at.map(|at| at.max(until));
        }
    }

    /// Lets the file do what there is to do, a bounded amount. `wal_bytes` are the bytes of log that were written or
    /// replayed since the file was opened. Without a file, nothing.
    ///
    /// # Errors
    /// The fault that stopped the file, every time from then on: nothing more is written, nothing becomes durable.
    pub fn step(&mut self, disk: &mut dyn Disk, now: Micros, wal_bytes: u64) -> Result<PagerNext, Fault> {
        let Some(mut file) = self.file.take() else { return Ok(PagerNext::default()) };
        let next = file.step(self, disk, now, wal_bytes);
        self.file = Some(file);
        next
    }

    /// Takes a completion; `None` if it was this file's, else gives it back. [`Pager::step`] follows.
    pub fn complete(&mut self, completion: Completion, now: Micros) -> Option<Completion> {
        match &mut self.file {
            Some(file) => file.complete(completion, now),
            None => Some(completion),
        }
    }

    /// Asks for a checkpoint of what is published, soon and without pauses. When it is done [`Pager::durable`] says so;
    /// if nothing was published since the last one, there is none.
    pub fn request_checkpoint(&mut self) {
        if let Some(file) = &mut self.file {
            file.requested = true;
        }
    }

    /// As [`Pager::request_checkpoint`], but with the usual pauses: who writes goes first.
    pub fn hasten_checkpoint(&mut self) {
        if let Some(file) = &mut self.file {
            file.hastened = true;
            // the one under way comes first
            if let Some(checkpoint) = &mut file.checkpoint {
                checkpoint.hasten(HASTENED_US);
            }
        }
    }

    /// Tells whether the log has room. Where it has none, what it may let go after a checkpoint is its only room.
    pub fn note_log_space(&mut self, space: Space) {
        let before = self.file.as_mut().map(|file| std::mem::replace(&mut file.log_space, space));
        if before == Some(Space::Ample) && space == Space::Reserve {
            self.hasten_checkpoint();
        }
    }

    /// Asks that the end of the file be cut as soon as nobody reaches it, even if that gives back little.
    pub fn request_cut(&mut self) {
        if let Some(file) = &mut self.file {
            file.length.cut_wanted = true;
            file.cut_at = Some(0);
        }
    }

    /// What is durable; transaction 0 without a file.
    pub fn durable(&self) -> Durable {
        self.file.as_ref().map_or_else(Durable::default, |file| file.durable)
    }

    /// Whether there is room for more.
    pub fn space(&self) -> Space {
        self.file.as_ref().map_or(Space::Ample, |file| file.length.space())
    }

    /// The damage that the scrub met since the last call, the first 64 of it: for the log. Whoever touches such a page from
    /// then on checks it whole, although it was right when it was touched first.
    pub fn take_scrub_faults(&mut self) -> Vec<Fault> {
        let faults = self.file.as_mut().map_or_else(Vec::new, |file| file.scrub.take_faults());
        for fault in &faults {
            if let (Fault::Corrupt { offset, .. } | Fault::Io { offset, .. }, Some(map)) = (fault, self.map())
            {
                map.forget(PageId((offset / PAGE_BYTES as u64) as u32));
            }
        }
        faults
    }

    /// Whether the disk has an operation on the file, the scrub's left out. Without further steps that ends by itself: what
    /// whoever stops waits for.
    pub fn is_writing(&self) -> bool {
        self.file.as_ref().is_some_and(|file| {
            let checkpoint = file.checkpoint.as_ref().is_some_and(Checkpoint::is_under_way);
            file.out.is_under_way() || file.length.busy() || checkpoint
        })
    }

    /// Whether an operation on the file is under way or a checkpoint is, the scrub's left out.
    pub fn is_busy(&self) -> bool {
        self.file.as_ref().is_some_and(PageFile::is_busy)
    }

    /// Counters since opening.
    pub fn stats(&self) -> PagerStats {
        let Some(file) = &self.file else { return PagerStats::default() };
        PagerStats {
            pages_written: file.out.pages,
            bytes_written: file.out.bytes,
            file_bytes: file.length.limit() * PAGE_BYTES as u64,
            dirty_bytes: self.dirty_bytes(),
            pages_read: self.map().map_or(0, MapPages::read),
            scrub_rounds: file.scrub.rounds,
            scrub_pages: file.scrub.pages,
            scrub_damaged: file.scrub.damaged,
            ..file.stats
        }
    }
}
