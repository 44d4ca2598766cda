//! Pages on their way into the file.
//!
//! ```text
//! pages, by place > joined where they are neighbours, up to 256 KiB > written, several at once     (no sync)
//!                   `-- stretch of 1 MiB --' > all its writes done > write-out started > ended
//! ```
//! At most [`STRETCHES_MAX`] stretches are on their way to the medium, so the writer is as fast as the medium and no
//! faster, little is left for the sync to do, and the log's own writes never stand behind a long queue. A stretch that
//! takes its time by itself is followed by a pause as long, and none is begun while a write of the log takes longer than it
//! usually does, unless there is a hurry. Each such write makes the stretches shorter, too, and the pauses behind them longer;
//! with each stretch without one both come back a little.
//!
//! A page's CRC is known to its parents from the moment it was prepared; a place is not written again while a write to it
//! is under way.

use super::children::fill_child_crcs;
use super::page::{PAGE_BYTES, Page, PageId};
use crate::Micros;
use crate::disk::{BufPool, Completion, Disk, FileId, IoBuf, Op, Token};
use crate::error::Fault;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of one write at most.
const WRITE_PAGES_MAX: usize = 64;
/// Bytes after which a stretch ends.
const STRETCH_BYTES: u64 = 1 << 20;
/// Writes after which it ends, at the least and at the most: a medium takes scattered pages one by one, and the log's write
/// stands behind those that it has been given. How many it takes in a short time nobody knows but the log, whose late writes
/// tell.
const STRETCH_WRITES: (usize, usize) = (4, 32);
/// The pause behind a stretch, once a write of the log was late: it doubles between these bounds.
const REST_US: (Micros, Micros) = (500, 10_000);
/// A late write of the log slows down once in this time: what is under way then was given before it told.
const SLOWED_US: Micros = 10_000;
/// Stretches that are being written or written out.
const STRETCHES_MAX: usize = 3;
/// Writes under way at most.
const WRITES_MAX: usize = 64;
/// The longest pause between two stretches, in microseconds.
const PAUSE_US_MAX: Micros = 20_000;
/// Bytes of a write that gets a buffer of its size: scattered pages make many, all under way at once.
const SMALL_BYTES: usize = 4 * PAGE_BYTES;
/// Large buffers kept for writes.
const KEPT_BUFFERS: usize = 8;

/// A page that the file has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: PageId,
    pub(super) tx: u64,
    pub(super) crc: u32,
}

/// A write under way.
#[derive(Debug)]
struct Flight {
    stretch: u64,
    offset: u64,
    bytes: u64,
    pages: Vec<Written>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its writes start, or are under way.
    Writing,
    /// Its write-out is being started.
    Starting(Token),
    /// Its write-out goes on by itself.
    Started,
    /// The end of its write-out is being waited for.
    Ending(Token),
}

/// Pages written one after the other, and the part of the file in which they lie.
#[derive(Debug)]
struct Stretch {
    number: u64,
    phase: Phase,
    /// No further writes join it.
    closed: bool,
    writes: usize,
    writes_left: usize,
    bytes: u64,
    begin: u64,
    end: u64,
    opened: Micros,
}

/// Neighbouring pages that become one write.
#[derive(Debug)]
struct Run {
    first: PageId,
    buf: IoBuf,
    pages: Vec<Written>,
}

/// The writes.
#[derive(Debug)]
pub(super) struct WriteOut {
    path: PathBuf,
    file: FileId,
    pool: BufPool,
    small: BufPool,
    flights: BTreeMap<Token, Flight>,
    /// Tree pages among them: transaction and CRC.
    on_way: BTreeMap<PageId, (u64, u32)>,
    run: Option<Run>,
    stretches: VecDeque<Stretch>,
    next_stretch: u64,
    resume_at: Micros,
    /// Writes after which a stretch ends, within [`STRETCH_WRITES`].
    stretch_writes: usize,
    /// The pause behind a stretch.
    rest_us: Micros,
    /// Neither is made worse before then.
    slow_at: Micros,
    landed: Vec<Written>,
    /// Counted since opening.
    pub(super) pages: u64,
    pub(super) bytes: u64,
}

impl WriteOut {
    pub(super) fn new(path: PathBuf, file: FileId) -> WriteOut {
        WriteOut {
            path,
            file,
            pool: BufPool::new(KEPT_BUFFERS, WRITE_PAGES_MAX * PAGE_BYTES),
            small: BufPool::new(WRITES_MAX, SMALL_BYTES),
            flights: BTreeMap::new(),
            on_way: BTreeMap::new(),
            run: None,
            stretches: VecDeque::new(),
            next_stretch: 0,
            resume_at: 0,
            stretch_writes: STRETCH_WRITES.1,
            rest_us: 0,
            slow_at: 0,
            landed: Vec::new(),
            pages: 0,
            bytes: 0,
        }
    }

    /// Whether anything is prepared or under way.
    pub(super) fn busy(&self) -> bool {
        self.run.is_some() || self.is_under_way()
    }

    /// Whether the disk has an operation of this.
    pub(super) fn is_under_way(&self) -> bool {
        let going = |stretch: &Stretch| matches!(stretch.phase, Phase::Starting(_) | Phase::Ending(_));
        !self.flights.is_empty() || self.stretches.iter().any(going)
    }

    /// Whether another page may be prepared now.
    pub(super) fn has_room(&self, now: Micros, hurry: bool) -> bool {
        let open = self.stretches.back().is_some_and(|last| !last.closed);
        let room = open || (self.stretches.len() < STRETCHES_MAX && (hurry || now >= self.resume_at));
        room && self.flights.len() < WRITES_MAX
    }

    /// Somebody waits for the medium: no stretch is begun before `until`, unless there is a hurry, and the next ones are
    /// shorter and further apart.
    pub(super) fn hold(&mut self, now: Micros, until: Micros) {
        self.resume_at = self.resume_at.max(until);
        if !self.stretches.is_empty() && now >= self.slow_at {
            self.stretch_writes = (self.stretch_writes / 2).max(STRETCH_WRITES.0);
            self.rest_us = (2 * self.rest_us).clamp(REST_US.0, REST_US.1);
            self.slow_at = now + SLOWED_US;
        }
    }

    /// When the pause is over, if it is what keeps the next stretch from being begun.
    pub(super) fn resume_at(&self, now: Micros) -> Option<Micros> {
        let waiting = !self.has_room(now, false) && self.has_room(now, true);
        waiting.then_some(self.resume_at)
    }

    /// Whether a write to that place is under way or prepared.
    pub(super) fn is_on_way(&self, id: PageId) -> bool {
        self.on_way.contains_key(&id)
    }

    /// Prepares a page of a tree and starts the writes that are full by that. The CRC of a child that is not under way is
    /// asked from `crc_of`.
    ///
    /// # Errors
    /// A child's CRC is known to nobody.
    pub(super) fn write_page(
        &mut self,
        disk: &mut dyn Disk,
        page: &Arc<Page>,
        crc_of: impl Fn(PageId, u64) -> Option<u32>,
        now: Micros,
    ) -> Result<(), Fault> {
        let (id, tx) = (page.id(), page.tx());
        debug_assert!(!self.is_on_way(id), "two writes to page {id} at once");
        // only this copy gets checksums: the page in memory is read by others meanwhile, and never changes
        let mut image = Page::clone(page);
        let on_way = &self.on_way;
        let complete = fill_child_crcs(&mut image, |child, tx| match on_way.get(&child) {
            Some((of, crc)) if *of == tx => Some(*crc),
            _ => crc_of(child, tx),
        });
        if !complete {
            return Err(Fault::Corrupt {
                path: self.path.clone(),
                offset: id.offset(),
                expected: "a branch all of whose children were written".to_string(),
                found: format!("{page:?} with a child whose checksum nobody knows"),
            });
        }
        let crc = image.computed_crc();
        image.put_u32(0, crc);
        self.on_way.insert(id, (tx, crc));
        self.prepare(disk, &image, now);
        Ok(())
    }

    /// Prepares a page that is ready as it is: a directory, a bitmap block.
    pub(super) fn write_ready(&mut self, disk: &mut dyn Disk, page: &Page, now: Micros) {
        self.prepare(disk, page, now);
    }

    /// Adds a page to the write that is prepared, if they are neighbours, else to a new one.
    fn prepare(&mut self, disk: &mut dyn Disk, image: &Page, now: Micros) {
        let id = image.id();
        let neighbours = self.run.as_ref().is_some_and(|run| run.first.0 + run.pages.len() as u32 == id.0);
        if !neighbours {
            self.start_run(disk, now);
        }
        let mut run = match self.run.take() {
            Some(run) => run,
            None => {
                let buf = self.pool.take(WRITE_PAGES_MAX * PAGE_BYTES);
                Run { first: id, buf, pages: Vec::new() }
            }
        };
        let at = run.pages.len() * PAGE_BYTES;
        run.buf.as_mut_slice()[at..at + PAGE_BYTES].copy_from_slice(&image.0);
        run.pages.push(Written { id, tx: image.tx(), crc: image.stored_crc() });
        let full = run.pages.len() == WRITE_PAGES_MAX;
        self.run = Some(run);
        if full {
            self.start_run(disk, now);
        }
    }

    /// Starts the write that is prepared, if there is one.
    pub(super) fn start_run(&mut self, disk: &mut dyn Disk, now: Micros) {
        let Some(mut run) = self.run.take() else { return };
        let bytes = run.pages.len() * PAGE_BYTES;
        let offset = run.first.offset();
        let stretch = self.join_stretch(offset, bytes as u64, now);
        let buf = if bytes <= SMALL_BYTES {
            let mut small = self.small.take(SMALL_BYTES);
            small.set_len(bytes);
            small.as_mut_slice().copy_from_slice(&run.buf.as_slice()[..bytes]);
            self.pool.give(run.buf);
            small
        } else {
            run.buf.set_len(bytes);
            run.buf
        };
        let token = disk.submit(Op::Write { file: self.file, offset, buf });
        self.flights.insert(token, Flight { stretch, offset, bytes: bytes as u64, pages: run.pages });
    }

    fn join_stretch(&mut self, offset: u64, bytes: u64, now: Micros) -> u64 {
        if self.stretches.back().is_none_or(|last| last.closed) {
            let number = self.next_stretch;
            self.next_stretch += 1;
            self.stretches.push_back(Stretch {
                number,
                phase: Phase::Writing,
                closed: false,
                writes: 0,
                writes_left: 0,
                bytes: 0,
                begin: u64::MAX,
                end: 0,
                opened: now,
            });
        }
        let last = self.stretches.back_mut().expect("one is open now");
        last.writes += 1;
        last.writes_left += 1;
        last.bytes += bytes;
        last.begin = last.begin.min(offset);
        last.end = last.end.max(offset + bytes);
        if last.bytes >= STRETCH_BYTES || last.writes >= self.stretch_writes {
            last.closed = true;
            self.stretch_writes = (self.stretch_writes + 1).min(STRETCH_WRITES.1);
            self.rest_us -= self.rest_us.div_ceil(16);
            self.resume_at = now + now.saturating_sub(last.opened).min(PAUSE_US_MAX) + self.rest_us;
        }
        last.number
    }

    /// Starts what is prepared and lets the last stretch end where it is: what it wrote is left to the sync.
    pub(super) fn flush(&mut self, disk: &mut dyn Disk, now: Micros) {
        self.start_run(disk, now);
        if self.flights.is_empty() && self.stretches.back().is_some_and(|last| !last.closed) {
            self.stretches.pop_back();
        }
    }

    /// Starts write-outs, and looks for the end of earlier ones.
    pub(super) fn step(&mut self, disk: &mut dyn Disk) {
        let waiting = self.stretches.len() >= STRETCHES_MAX;
        for (place, stretch) in self.stretches.iter_mut().enumerate() {
            let op =
                Op::WriteBack { file: self.file, offset: stretch.begin, bytes: stretch.end - stretch.begin };
            match stretch.phase {
                Phase::Writing if stretch.closed && stretch.writes_left == 0 => {
                    stretch.phase = Phase::Starting(disk.submit(op));
                }
                Phase::Started if place == 0 && waiting => {
                    stretch.phase = Phase::Ending(disk.submit(op));
                }
                _ => {}
            }
        }
    }

    /// Forgets the stretches whose write-out goes on by itself: a sync waits for all of them.
    pub(super) fn forget_stretches(&mut self) {
        debug_assert!(!self.busy(), "only when nothing is under way");
        self.stretches.clear();
    }

    /// Takes a completion; gives it back if it is a stranger's.
    ///
    /// # Errors
    /// The write or write-out failed.
    pub(super) fn complete(&mut self, completion: Completion) -> Result<Option<Completion>, Fault> {
        if let Some(flight) = self.flights.remove(&completion.token) {
            if let Some(buf) = completion.buf {
                let pool = if buf.capacity() <= SMALL_BYTES { &mut self.small } else { &mut self.pool };
                pool.give(buf);
            }
            completion.result.map_err(|source| self.fault("write", flight.offset, source))?;
            self.land(flight);
            return Ok(None);
        }
        let ours = |stretch: &Stretch| matches!(stretch.phase, Phase::Starting(token) | Phase::Ending(token) if token == completion.token);
        let Some(place) = self.stretches.iter().position(ours) else { return Ok(Some(completion)) };
        let begin = self.stretches[place].begin;
        completion.result.map_err(|source| self.fault("write out", begin, source))?;
        match self.stretches[place].phase {
            Phase::Starting(_) => self.stretches[place].phase = Phase::Started,
            _ => drop(self.stretches.remove(place)),
        }
        Ok(None)
    }

    fn land(&mut self, flight: Flight) {
        self.pages += flight.pages.len() as u64;
        self.bytes += flight.bytes;
        for written in flight.pages {
            // directories and blocks are nobody's pages
            if self.on_way.remove(&written.id).is_some() {
                self.landed.push(written);
            }
        }
        if let Some(stretch) = self.stretches.iter_mut().find(|stretch| stretch.number == flight.stretch) {
            stretch.writes_left -= 1;
        }
    }

    /// The tree pages whose writes ended since the last call.
    pub(super) fn take_landed(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.landed)
    }

    fn fault(&self, operation: &'static str, offset: u64, source: std::io::Error) -> Fault {
        Fault::Io { operation, path: self.path.clone(), offset, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a stretch: its writes, and the pause behind it.
    fn stretch(out: &mut WriteOut, now: Micros) -> (usize, Micros) {
        loop {
            out.join_stretch(0, PAGE_BYTES as u64, now);
            let last = out.stretches.back().expect("one was joined");
            if last.closed {
                return (last.writes, out.resume_at.saturating_sub(now));
            }
        }
    }

    #[test]
    fn late_writes_of_the_log_make_stretches_shorter_and_pauses_longer_and_others_undo_it() {
        let mut out = WriteOut::new("the.pages".into(), FileId(0));
        // no page stands before the log's write: it is not pages that make it late
        out.hold(0, 0);
        assert_eq!(stretch(&mut out, 0), (STRETCH_WRITES.1, 0));
        let mut now = 1_000_000;
        // told at every step of whoever waits: once in a while counts
        (0..5).for_each(|step| out.hold(now + step, now));
        assert_eq!(out.stretch_writes, STRETCH_WRITES.1 / 2);
        for _ in 0..10 {
            now += SLOWED_US;
            out.hold(now, now);
        }
        let (writes, pause) = stretch(&mut out, now);
        assert_eq!(writes, STRETCH_WRITES.0);
        assert!((REST_US.1 / 2..=REST_US.1).contains(&pause), "{pause} us");
        for _ in 0..200 {
            now += PAUSE_US_MAX;
            stretch(&mut out, now);
        }
        assert_eq!(stretch(&mut out, now), (STRETCH_WRITES.1, 0));
    }
}
