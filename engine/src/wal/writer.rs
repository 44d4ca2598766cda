//! The open log: what is appended, what is in flight, what is durable.
//!
//! ```text
//! append --> queue --(step)--> in flight --(complete, in order)--> durable
//!                       |
//!             segment full: wait until nothing is in flight, write the next one's header alone, go on
//!             idle:         the mark, an empty batch that says how far the log is durable
//! ```
//! Rules
//! - One write is in flight; a further one starts beside it only if [`WalOptions::second_write_bytes`] wait or the
//!   first has been out for twice its usual time. A batch names as durable what was durable when it was made.
//! - A sequence number counts as durable when its write and all earlier ones are done.
//! - A header names the end of its predecessor, so it is written only when all before it is durable, and nothing is
//!   written behind it before it is durable itself.
//! - Two blocks at the end of a segment are kept for marks: one, so that there is always room for the idle mark; and the
//!   last one for a mark that lets segments go. On a full disk the next segment is made of those, so there must be a place
//!   to say that they are not needed.
//! - After a failed write nothing more is written, nothing more becomes durable, and the fault is returned for ever.

use super::ahead::{Ahead, ReadySegment, RetiredSegment};
use super::batch::{BatchHead, batch_bytes, encode, entry_bytes, set_lengths, term_runs};
use super::reader::{HeldSegment, Recovered};
use super::segment::{FIRST_BATCH, LogEnd, SegmentHeader, segment_path};
use super::{HardState, LogEntry, NewBatch, Space, WalOptions, WalStats};
use crate::Micros;
use crate::disk::{BLOCK_BYTES, BufPool, Completion, Disk, FileId, IoBuf, Op, Token};
use crate::error::Fault;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

/// Bytes of a mark.
const MARK_BYTES: u64 = BLOCK_BYTES as u64;
/// Bytes at the end of a segment that no batch takes: room for two marks.
pub(super) const KEPT_BYTES: u64 = 2 * MARK_BYTES;
/// The mark follows the last write within this time at the latest, in microseconds: rot in a batch younger than that
/// looks like an unfinished write.
pub(super) const IDLE_MARK_US_MAX: Micros = 2_000;
/// Bodies of one batch together, in bytes: what gathers beyond it goes into the next one. It bounds the memory of a
/// write and the time until it is acknowledged.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Buffers kept for writes, and the largest one kept.
const KEPT_BUFFERS: usize = 4;
const KEPT_BUFFER_BYTES_MAX: usize = 2 << 20;

/// An appended batch, or a part of a large one, whose write has not started.
#[derive(Debug)]
struct Queued {
    seq: u64,
    body_bytes: usize,
    batch: NewBatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Header,
    Batch,
    Mark,
}

#[derive(Debug)]
struct InFlight {
    token: Token,
    kind: Kind,
    last_seq: u64,
    number: u64,
    offset: u64,
    bytes: u64,
    started: Micros,
    first_segment: u64,
    done: bool,
}

/// The segment being written. Right after opening it is the one in which the log ended, without a file and without
/// room, or number 0 if there was none.
#[derive(Debug)]
struct Current {
    segment: u64,
    file: Option<FileId>,
    bytes: u64,
    /// Where the next batch goes.
    position: u64,
    predecessor: LogEnd,
    index_max: u64,
}

/// A fault that is returned again and again.
#[derive(Debug)]
struct Stopped {
    operation: &'static str,
    path: PathBuf,
    offset: u64,
    errno: Option<i32>,
    kind: io::ErrorKind,
    text: String,
}

/// The log, as a state machine: [`Wal::append`], then [`Wal::step`] and [`Wal::complete`] in turn, on one thread, with
/// one disk. See the module's door.
#[derive(Debug)]
pub struct Wal {
    options: WalOptions,
    epoch: u64,
    stopped: Option<Stopped>,
    pool: BufPool,
    queue: VecDeque<Queued>,
    queued_bytes: u64,
    next_seq: u64,
    /// Last sequence, number and CRC of the last batch written.
    last_seq: u64,
    last_number: u64,
    last_crc: u32,
    /// What the last batch written carries, and what the last appended one will.
    hard_state: HardState,
    appended_hard_state: HardState,
    current: Current,
    held: VecDeque<HeldSegment>,
    /// The oldest segment needed, as the last write says, and the index up to which nothing is needed.
    first_segment: u64,
    released: u64,
    /// The newest durable checkpoint: transaction, applied index.
    checkpoint: (u64, u64),
    in_flight: VecDeque<InFlight>,
    durable: u64,
    /// The same in batches written.
    durable_number: u64,
    /// How long a write usually takes, in microseconds; 0 before the first.
    usual_us: u64,
    /// What is queued waits for another segment, or for writes in flight to end before it can be begun.
    awaits_segment: bool,
    /// Something was written since the last mark.
    unmarked: bool,
    idle_since: Micros,
    ahead: Ahead,
    /// The segment in which the log ended when it was opened and its end, until the next header is durable.
    cut_after_header: Option<(u64, u64)>,
    /// Old segments being closed.
    closing_files: Vec<Token>,
    closing: bool,
    stats: WalStats,
}

/// What opening hands over.
pub(super) struct Begun {
    pub(super) options: WalOptions,
    pub(super) epoch: u64,
    pub(super) found: Recovered,
    pub(super) ahead: Ahead,
}

impl Wal {
    pub(super) fn begin(begun: Begun, now: Micros) -> Wal {
        let Begun { options, epoch, mut found, ahead } = begun;
        let end = found.end;
        let old = found.held.pop();
        let current = Current {
            segment: end.segment,
            file: None,
            bytes: old.as_ref().map_or(0, |old| old.bytes),
            position: end.offset,
            predecessor: end,
            index_max: old.as_ref().map_or(0, |old| old.index_max),
        };
        Wal {
            epoch,
            stopped: None,
            pool: BufPool::new(KEPT_BUFFERS, KEPT_BUFFER_BYTES_MAX),
            queue: VecDeque::new(),
            queued_bytes: 0,
            next_seq: end.seq + 1,
            last_seq: end.seq,
            last_number: end.number,
            last_crc: end.crc,
            hard_state: found.hard_state,
            appended_hard_state: found.hard_state,
            current,
            held: found.held.into(),
            first_segment: found.first_segment.max(1),
            released: 0,
            checkpoint: found.checkpoint,
            in_flight: VecDeque::new(),
            durable: end.seq,
            durable_number: end.number,
            usual_us: 0,
            awaits_segment: false,
            unmarked: false,
            idle_since: now,
            ahead,
            cut_after_header: None,
            closing_files: Vec::new(),
            closing: false,
            stats: WalStats::default(),
            options,
        }
    }

    /// Queues a batch and returns its sequence number. The write starts at the next [`Wal::step`].
    ///
    /// A batch larger than a segment is written in several parts, which may survive a crash without the later ones
    /// (nothing of it is acknowledged then); the number returned is the last part's. An entry larger than
    /// [`Wal::entry_bytes_max`] stops the log.
    ///
    /// # Panics
    /// The entries' indexes are not contiguous or one is 0, or [`Wal::close`] was called.
    pub fn append(&mut self, batch: NewBatch) -> u64 {
        assert!(!self.closing, "nothing is appended to a log that is being closed");
        let contiguous = batch.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index);
        let indexed = batch.entries.first().is_none_or(|first| first.index > 0);
        assert!(contiguous && indexed, "the entries of a batch are contiguous, their indexes begin at 1");
        if let Some(large) =
            batch.entries.iter().find(|entry| entry.data.len() as u64 > self.entry_bytes_max())
        {
            self.refuse_entry(large.index, large.data.len());
        }
        let body_bytes = batch.entries.iter().map(entry_bytes).sum();
        if self.fits_smallest(body_bytes, batch.entries.len()) {
            self.push(batch, body_bytes)
        } else {
            self.append_in_parts(batch)
        }
    }

    fn refuse_entry(&mut self, index: u64, bytes: usize) {
        if self.stopped.is_none() {
            let limit = self.entry_bytes_max();
            self.stopped = Some(Stopped {
                operation: "append",
                path: self.current_path(),
                offset: self.current.position,
                errno: None,
                kind: io::ErrorKind::InvalidInput,
                text: format!("entry {index} has {bytes} bytes, more than entry_bytes_max ({limit})"),
            });
        }
    }

    /// Whether such a batch goes into the smallest segment; every entry has at most a run of its own.
    fn fits_smallest(&self, body_bytes: usize, entries: usize) -> bool {
        let room = self.options.segment_bytes_min - FIRST_BATCH - KEPT_BYTES;
        batch_bytes(body_bytes, entries.max(1)) as u64 <= room
    }

    fn push(&mut self, batch: NewBatch, body_bytes: usize) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.appended_hard_state = batch.hard_state;
        self.queued_bytes += body_bytes as u64;
        self.queue.push_back(Queued { seq, body_bytes, batch });
        seq
    }

    /// Parts that each fit into any segment. An earlier part's commit must not lie beyond its entries: after a crash
    /// it may be the last one.
    fn append_in_parts(&mut self, batch: NewBatch) -> u64 {
        let commit_before = self.appended_hard_state.commit;
        let (mut part, mut part_bytes) = (Vec::new(), 0);
        for entry in batch.entries {
            let more = entry_bytes(&entry);
            if !part.is_empty() && !self.fits_smallest(part_bytes + more, part.len() + 1) {
                let full: Vec<LogEntry> = std::mem::take(&mut part);
                let last = full.last().map_or(0, |entry| entry.index);
                let commit = batch.hard_state.commit.min(last).max(commit_before);
                let hard_state = HardState { commit, ..batch.hard_state };
                self.push(NewBatch { hard_state, entries: full }, part_bytes);
                part_bytes = 0;
            }
            part_bytes += more;
            part.push(entry);
        }
        self.push(NewBatch { hard_state: batch.hard_state, entries: part }, part_bytes)
    }

    /// Takes a completion; `None` if it was this log's, else gives it back.
    pub fn complete(&mut self, completion: Completion, now: Micros) -> Option<Completion> {
        if let Some(place) = self.closing_files.iter().position(|token| *token == completion.token) {
            self.closing_files.swap_remove(place);
            if let Err(source) = completion.result {
                let path = self.options.dir.clone();
                self.stop(Fault::Io { operation: "close", path, offset: 0, source });
            }
            return None;
        }
        let Some(place) = self.in_flight.iter().position(|write| write.token == completion.token) else {
            return self.ahead.take_completion(completion);
        };
        if let Some(buf) = completion.buf {
            self.pool.give(buf);
        }
        match completion.result {
            Ok(_) => self.written(place, now),
            Err(error) => {
                let operation = "durable write";
                let offset = self.in_flight[place].offset;
                let path = self.current_path();
                self.stop(Fault::Io { operation, path, offset, source: error });
                self.in_flight.remove(place);
            }
        }
        None
    }

    /// A write is done: what is now durable in order.
    fn written(&mut self, place: usize, now: Micros) {
        let took = now.saturating_sub(self.in_flight[place].started);
        self.in_flight[place].done = true;
        self.count(place, took);
        if self.stopped.is_some() {
            return;
        }
        while self.in_flight.front().is_some_and(|write| write.done) {
            if let Some(write) = self.in_flight.pop_front() {
                self.durable = write.last_seq;
                self.durable_number = write.number;
                if let Some((segment, end)) = self.cut_after_header.take_if(|_| write.kind == Kind::Header) {
                    self.ahead.cut(segment, end);
                }
                self.retire_before(write.first_segment);
            }
        }
        if self.in_flight.is_empty() {
            self.idle_since = now;
        }
    }

    fn count(&mut self, place: usize, took: Micros) {
        let write = &self.in_flight[place];
        self.usual_us = if self.usual_us == 0 { took.max(1) } else { (self.usual_us * 7 + took) / 8 };
        self.stats.writes += 1;
        self.stats.bytes_written += write.bytes;
        match write.kind {
            Kind::Batch => self.stats.batches += 1,
            Kind::Mark => self.stats.marks += 1,
            Kind::Header => {}
        }
        self.stats.write_us_sum += took;
        let last = self.stats.write_us_buckets.len() - 1;
        let bucket = (0..last).find(|bucket| took <= 1_000 << bucket).unwrap_or(last);
        self.stats.write_us_buckets[bucket] += 1;
    }

    /// Segments below `first_segment` go: that nobody needs them is durable now.
    fn retire_before(&mut self, first_segment: u64) {
        while self.held.front().is_some_and(|held| held.segment < first_segment) {
            if let Some(old) = self.held.pop_front() {
                self.ahead.retire(RetiredSegment { segment: old.segment, bytes: old.bytes });
            }
        }
    }

    /// Starts whatever may start: writes, the mark, allocation ahead.
    ///
    /// # Errors
    /// The fault that stopped the log, every time from then on.
    pub fn step(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<(), Fault> {
        self.check_stopped()?;
        if let Err(fault) = self.ahead.settle(disk, now) {
            self.stop(fault);
        }
        self.check_stopped()?;
        self.start_writes(disk, now);
        self.start_mark(disk, now);
        if self.works_ahead() {
            self.ahead.step(disk, self.current.segment, now);
        }
        self.stats.segments_recycled = self.ahead.recycled();
        Ok(())
    }

    fn check_stopped(&self) -> Result<(), Fault> {
        self.stopped.as_ref().map_or(Ok(()), |stopped| Err(stopped.fault()))
    }

    fn stop(&mut self, fault: Fault) {
        if self.stopped.is_none() {
            self.stopped = Some(Stopped::new(fault, self.current_path()));
        }
    }

    fn current_path(&self) -> PathBuf {
        segment_path(&self.options.dir, self.current.segment)
    }

    /// Whether nothing was begun since opening.
    fn unbegun(&self) -> bool {
        self.current.file.is_none()
    }

    fn start_writes(&mut self, disk: &mut dyn Disk, now: Micros) {
        // at once, not with the first batch: the header protects what was found as a mark does
        if self.unbegun()
            && !self.closing
            && let Some(first) = self.ahead.take(true)
        {
            return self.begin_segment(disk, first, now);
        }
        while !self.queue.is_empty() && self.may_write(now) {
            let count = self.gather();
            self.awaits_segment = count == 0;
            if count > 0 {
                self.write_batch(disk, count, Kind::Batch, now);
            } else if self.in_flight.is_empty()
                && let Some(next) = self.ahead.take(self.unbegun())
            {
                self.begin_segment(disk, next, now);
            } else {
                return;
            }
        }
    }

    /// Whether one more write may start beside those in flight.
    fn may_write(&self, now: Micros) -> bool {
        let Some(first) = self.in_flight.front() else { return true };
        let room = self.in_flight.len() < self.options.writes_in_flight_max as usize;
        let header = self.in_flight.iter().any(|write| write.kind == Kind::Header);
        let late = self.usual_us > 0 && now >= first.started + 2 * self.usual_us;
        // out of turn only for a write that is worth it, or when the first one is slow
        room && !header && (self.queued_bytes >= self.options.second_write_bytes || late)
    }

    /// How many queued batches become one: contiguous, within the segment's room and the limit of a write.
    fn gather(&self) -> usize {
        if self.unbegun() {
            return 0;
        }
        let room = self.current.bytes.saturating_sub(self.current.position + KEPT_BYTES);
        let (mut count, mut body, mut runs, mut next_index, mut term) = (0, 0, 0, None, None);
        for queued in &self.queue {
            let entries = &queued.batch.entries;
            if let (Some(expected), Some(first)) = (next_index, entries.first())
                && first.index != expected
            {
                break;
            }
            for entry in entries {
                if term != Some(entry.term) {
                    runs += 1;
                    term = Some(entry.term);
                }
            }
            body += queued.body_bytes;
            if batch_bytes(body, runs) as u64 > room || (count > 0 && body > BODY_BYTES_MAX) {
                break;
            }
            next_index = entries.last().map(|last| last.index.wrapping_add(1)).or(next_index);
            count += 1;
        }
        count
    }

    /// Writes the first `count` queued batches as one, or, with none, the mark.
    fn write_batch(&mut self, disk: &mut dyn Disk, count: usize, kind: Kind, now: Micros) {
        let mark = kind == Kind::Mark;
        let last = self.queue.get(count.wrapping_sub(1));
        let last_seq = last.map_or(self.last_seq, |queued| queued.seq);
        let hard_state = last.map_or(self.hard_state, |queued| queued.batch.hard_state);
        let first_segment = self.first_needed_segment();
        let parts = || self.queue.iter().take(count).map(|queued| &queued.batch);
        let entries = || parts().flat_map(|batch| batch.entries.iter());
        let mut head = BatchHead {
            segment: self.current.segment,
            offset: self.current.position,
            epoch: self.epoch,
            salt: self.options.salt,
            number: self.last_number + 1,
            first_seq: self.last_seq + 1,
            last_seq,
            before: self.before(),
            mark,
            hard_state,
            durable_number: self.durable_number,
            checkpoint: self.checkpoint,
            first_segment,
            first_index: entries().next().map_or(0, |entry| entry.index),
            entry_count: entries().count() as u32,
            runs: term_runs(entries()),
            head_bytes: 0,
            body_bytes: 0,
            batch_bytes: 0,
            crc: 0,
        };
        set_lengths(&mut head, self.queue.iter().take(count).map(|queued| queued.body_bytes).sum());
        let mut buf = self.pool.take(head.batch_bytes);
        let crc = encode(&head, &self.options.owner, parts(), buf.as_mut_slice());

        self.current.index_max = self.current.index_max.max(head.last_index().unwrap_or(0));
        self.queued_bytes -= head.body_bytes as u64;
        self.queue.drain(..count);
        self.last_seq = last_seq;
        self.last_number = head.number;
        self.last_crc = crc;
        self.hard_state = hard_state;
        self.first_segment = first_segment;
        self.unmarked = !mark;
        let offset = self.current.position;
        self.current.position += buf.len() as u64;
        self.submit(disk, kind, offset, buf, now);
    }

    /// The end of the log as it will be when all that is in flight is done.
    fn end(&self) -> LogEnd {
        LogEnd {
            segment: self.current.segment,
            offset: self.current.position,
            number: self.last_number,
            seq: self.last_seq,
            crc: self.last_crc,
        }
    }

    /// The batch before the next one.
    fn before(&self) -> LogEnd {
        if self.current.position == FIRST_BATCH { self.current.predecessor } else { self.end() }
    }

    /// The oldest segment with an entry above the released index.
    fn first_needed_segment(&self) -> u64 {
        let needed = self.held.iter().find(|held| held.index_max > self.released);
        needed.map_or(self.current.segment, |held| held.segment).max(self.first_segment)
    }

    fn begin_segment(&mut self, disk: &mut dyn Disk, next: ReadySegment, now: Micros) {
        let predecessor = self.end();
        self.leave_segment(disk);
        let header = SegmentHeader {
            owner: self.options.owner,
            segment: next.segment,
            epoch: self.epoch,
            salt: self.options.salt,
            bytes: next.bytes,
            predecessor,
            recycled: next.recycled,
            first_segment: self.first_segment,
            hard_state: self.hard_state,
            checkpoint: self.checkpoint,
        };
        self.current = Current {
            segment: next.segment,
            file: Some(next.file),
            bytes: next.bytes,
            position: FIRST_BATCH,
            predecessor,
            index_max: 0,
        };
        self.stats.segments_begun += 1;
        // the header says how far the log is durable, as a mark does
        self.unmarked = false;
        let mut buf = self.pool.take(BLOCK_BYTES);
        header.encode(buf.as_mut_slice());
        self.submit(disk, Kind::Header, 0, buf, now);
    }

    /// The segment written so far is only held from now on.
    fn leave_segment(&mut self, disk: &mut dyn Disk) {
        let Current { segment, file, bytes, position, index_max, .. } = self.current;
        if segment == 0 {
            return;
        }
        match file {
            Some(file) => {
                self.held.push_back(HeldSegment { segment, bytes, index_max });
                self.closing_files.push(disk.submit(Op::Close { file }));
            }
            None => {
                self.held.push_back(HeldSegment { segment, bytes: position, index_max });
                self.cut_after_header = Some((segment, position)).filter(|_| position < bytes);
            }
        }
    }

    fn submit(&mut self, disk: &mut dyn Disk, kind: Kind, offset: u64, buf: IoBuf, now: Micros) {
        let Some(file) = self.current.file else { return };
        let bytes = buf.len() as u64;
        let token = disk.submit(Op::WriteDurable { file, offset, buf });
        self.in_flight.push_back(InFlight {
            token,
            kind,
            last_seq: self.last_seq,
            number: self.last_number,
            offset,
            bytes,
            started: now,
            first_segment: self.first_segment,
            done: false,
        });
    }

    /// The mark, once the log is idle.
    fn start_mark(&mut self, disk: &mut dyn Disk, now: Micros) {
        if self.mark_due().is_some_and(|due| now >= due) {
            self.write_batch(disk, 0, Kind::Mark, now);
        }
    }

    fn mark_due(&self) -> Option<Micros> {
        let releasing = self.first_needed_segment() > self.first_segment;
        // what cannot be written for want of a segment does not count as activity
        let idle = self.in_flight.is_empty() && (self.queue.is_empty() || !self.ahead.may_take(false));
        if !(idle && (self.unmarked || releasing) && self.has_room_for_mark()) {
            return None;
        }
        Some(if self.closing { 0 } else { self.idle_since + self.options.idle_mark_us.min(IDLE_MARK_US_MAX) })
    }

    fn has_room_for_mark(&self) -> bool {
        let room = self.current.bytes.saturating_sub(self.current.position);
        !self.unbegun() && (room >= KEPT_BYTES || (room >= MARK_BYTES && self.lets_go_enough()))
    }

    /// Whether what a mark would let go now is enough for a segment, or all there is: after it there may be no room for
    /// another one before that segment is begun.
    fn lets_go_enough(&self) -> bool {
        let first = self.first_needed_segment();
        let let_go = self.held.iter().take_while(|held| held.segment < first);
        let bytes: u64 = let_go.map(|held| held.bytes).sum();
        bytes >= self.options.segment_bytes_min || (bytes > 0 && first == self.current.segment)
    }

    /// Highest sequence number such that it and all before it are durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// When [`Wal::step`] wants to be called although nothing completed.
    pub fn wakeup(&self) -> Option<Micros> {
        if self.stopped.is_some() {
            return None;
        }
        // only what a step at that time would act upon
        let ahead = self.ahead.wakeup().filter(|_| self.works_ahead());
        [self.mark_due(), self.second_write_due(), ahead].into_iter().flatten().min()
    }

    /// When the first write in flight has been out for so long that a further one may start.
    fn second_write_due(&self) -> Option<Micros> {
        let room = self.in_flight.len() < self.options.writes_in_flight_max as usize;
        let header = self.in_flight.iter().any(|write| write.kind == Kind::Header);
        let waiting = !self.queue.is_empty() && !self.awaits_segment;
        let first = self.in_flight.front().filter(|_| room && !header && waiting && self.usual_us > 0)?;
        Some(first.started + 2 * self.usual_us)
    }

    /// Whether segments are made ahead: not for a log that is being closed, unless what is queued needs one; and no second
    /// segment before the first one's header is durable, for without that a log of two is one that lost its beginning.
    fn works_ahead(&self) -> bool {
        let begins =
            self.current.segment == 1 && self.in_flight.iter().any(|write| write.kind == Kind::Header);
        !begins && (!self.closing || !self.queue.is_empty())
    }

    /// Whether there is room.
    pub fn space(&self) -> Space {
        if self.ahead.full() { Space::Reserve } else { Space::Ample }
    }

    /// The fault of a log to which nothing can be written, because not even its first segment since opening finds room. It
    /// goes on trying; whoever must have something written, and has nothing else to serve meanwhile, ends with this.
    pub fn no_room(&self) -> Option<Fault> {
        (self.unbegun() && self.ahead.full()).then(|| Fault::Io {
            operation: "allocate",
            path: self.options.dir.clone(),
            offset: 0,
            source: io::ErrorKind::StorageFull.into(),
        })
    }

    /// Largest entry this log takes, in bytes of its data; a larger one stops the log.
    pub fn entry_bytes_max(&self) -> u64 {
        self.options.entry_bytes_max
    }

    /// Bytes appended whose write has not started.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Tells the newest checkpoint that is durable outside the log: its transaction and the index that it had applied.
    /// Every batch, mark and header written from now on names it, so that an opening finds out when the file that it stands
    /// in is lost or old. To be told before anything is released on the strength of it.
    ///
    /// # Panics
    /// It is older than the one told before.
    pub fn set_checkpoint(&mut self, tx: u64, applied: u64) {
        let (tx_before, applied_before) = self.checkpoint;
        assert!(tx >= tx_before && applied >= applied_before, "checkpoints become durable in their order");
        self.checkpoint = (tx, applied);
    }

    /// The newest checkpoint that was told, or found at opening.
    pub fn checkpoint(&self) -> (u64, u64) {
        self.checkpoint
    }

    /// Says that entries up to and including `index` are not needed any more: segments that hold nothing else are
    /// recycled, once a durable batch says so. Whoever calls it keeps what they held in another durable place.
    pub fn release(&mut self, index: u64) {
        self.released = self.released.max(index);
    }

    /// Begins a clean stop: what is queued is written, then the final mark; nothing may be appended any more. Go on
    /// with [`Wal::step`] and [`Wal::complete`] until [`Wal::closed`].
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether the clean stop is done.
    pub fn closed(&self) -> bool {
        let written = self.queue.is_empty() && self.in_flight.is_empty() && !self.unmarked;
        self.closing && written && !self.ahead.busy() && self.closing_files.is_empty()
    }

    /// Counters since opening.
    pub fn stats(&self) -> &WalStats {
        &self.stats
    }
}

impl Stopped {
    fn new(fault: Fault, current: PathBuf) -> Stopped {
        match fault {
            Fault::Io { operation, path, offset, source } => Stopped {
                operation,
                path,
                offset,
                errno: source.raw_os_error(),
                kind: source.kind(),
                text: source.to_string(),
            },
            other => Stopped {
                operation: "write",
                path: current,
                offset: 0,
                errno: None,
                kind: io::ErrorKind::Other,
                text: other.to_string(),
            },
        }
    }

    fn fault(&self) -> Fault {
        let source = match self.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(self.kind, self.text.clone()),
        };
        Fault::Io { operation: self.operation, path: self.path.clone(), offset: self.offset, source }
    }
}
