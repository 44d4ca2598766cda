//! Space allocated ahead: the segments that wait to be begun, made or recycled one at a time.
//!
//! ```text
//! make:     create next.tmp > allocate > fill with the stamp, in chunks > sync > rename > sync directory > ready
//! recycle:  rename the old segment > sync directory > open > ready
//! remove:   remove the old segment > sync directory, if there are more than are kept for recycling
//! give up:  close next.tmp > remove it, when there is no space; tried again smaller, then after a while
//! cut:      open the segment in which the log ended > truncate it > close
//! ```
//! Two segments are kept ready: the next one and the reserve. When a further one cannot be made the log says
//! [`Space::Reserve`](super::Space) and keeps trying; whoever appends then lets only such things through as make room
//! or keep the member alive. The reserve is begun only after that was said. A segment counts as ready only when its length, content and name are durable, so that a
//! write into it never needs space.
//!
//! Everything goes through the disk's submit and poll; nothing here waits.

use super::WalOptions;
use super::reader::Recovered;
use super::segment::{FIRST_BATCH, fill_with_stamp, segment_path, unfinished_path};
use crate::Micros;
use crate::disk::{BLOCK_BYTES, Completion, Disk, Done, FileId, IoBuf, Op, Token};
use crate::error::Fault;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

/// Segments kept ready: the next one and the reserve.
pub(super) const READY_SEGMENTS: usize = 2;
/// Segments kept that nobody needs and that no further one is to be made of yet. A checkpoint lets several go at once, and
/// those that follow are begun one by one until the next; making one afresh costs as many bytes as it will hold.
const KEPT_RETIRED: usize = 4;
/// Of those, what was left over each time one was used, so many times running, is removed: a burst needed more than there is
/// need of now.
const LOOKED_AT: u32 = 6;
/// How long to wait after the disk was full before trying again, in microseconds: soon enough to go on by itself
/// within a second, rare enough to cost nothing.
pub const SPACE_RETRY_US: Micros = 250_000;
/// Bytes of one write when a segment is filled: small enough not to hold up the log's own writes.
const FILL_CHUNK_BYTES: u64 = 256 << 10;
const _: () = assert!(FILL_CHUNK_BYTES.is_multiple_of(BLOCK_BYTES as u64));

/// A segment that can be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadySegment {
    pub(super) segment: u64,
    pub(super) file: FileId,
    pub(super) bytes: u64,
    pub(super) recycled: bool,
}

/// A segment that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RetiredSegment {
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

/// What is being done, and which step of it is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Job {
    Create { segment: u64, bytes: u64 },
    Allocate { segment: u64, bytes: u64, file: FileId },
    Fill { segment: u64, bytes: u64, file: FileId, filled: u64 },
    Sync { segment: u64, bytes: u64, file: FileId },
    Rename { segment: u64, bytes: u64, file: FileId },
    SyncName { segment: u64, bytes: u64, file: FileId },
    RecycleRename { segment: u64, old: RetiredSegment },
    RecycleSyncName { segment: u64, old: RetiredSegment },
    RecycleOpen { segment: u64, old: RetiredSegment },
    Remove,
    RemoveSyncName,
    GiveUpClose,
    GiveUpRemove,
    CutOpen { segment: u64, end: u64 },
    Cut { segment: u64, file: FileId },
    CutClose,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Ahead {
    dir: PathBuf,
    bytes_min: u64,
    bytes_max: u64,
    /// What the next segment shall have.
    bytes_next: u64,
    ready: VecDeque<ReadySegment>,
    retired: VecDeque<RetiredSegment>,
    /// The least that was left of them when one was used, and how often one was used, since this was acted upon.
    left_over: (usize, u32),
    /// So many of them are to be removed.
    surplus: usize,
    /// The old segment whose dead tail is to be cut off, and its end.
    cut: Option<(u64, u64)>,
    job: Option<(Job, Token)>,
    /// Of the job's operation, not looked at yet.
    completion: Option<Completion>,
    /// The bytes written into fresh segments; `None` while a write has them.
    filler: Option<IoBuf>,
    /// The disk was full at the last try.
    full: bool,
    retry_at: Micros,
    recycled: u64,
}

impl Ahead {
    /// With the segments that opening found `ready`. What is below the first needed segment is removed or recycled at
    /// once: heads that were read from the medium say so.
    pub(super) fn new(options: &WalOptions, found: &Recovered, ready: Vec<ReadySegment>) -> Ahead {
        let (bytes_min, bytes_max) = (options.segment_bytes_min, options.segment_bytes_max);
        let mut filler = IoBuf::zeroed(FILL_CHUNK_BYTES.min(bytes_max) as usize);
        fill_with_stamp(filler.as_mut_slice());
        let largest = ready.iter().map(|ready| ready.bytes.saturating_mul(2)).max().unwrap_or(bytes_min);
        let leftover =
            found.leftover.iter().map(|(segment, bytes)| RetiredSegment { segment: *segment, bytes: *bytes });
        Ahead {
            dir: options.dir.clone(),
            bytes_min,
            bytes_max,
            bytes_next: largest.clamp(bytes_min, bytes_max),
            ready: ready.into(),
            retired: leftover.collect(),
            left_over: (usize::MAX, 0),
            surplus: 0,
            cut: None,
            job: None,
            completion: None,
            filler: Some(filler),
            full: false,
            retry_at: 0,
            recycled: 0,
        }
    }

    /// The next segment, if one may be begun; `first`: the first one since opening.
    pub(super) fn take(&mut self, first: bool) -> Option<ReadySegment> {
        if self.may_take(first) { self.ready.pop_front() } else { None }
    }

    /// Whether a segment may be begun: the last one only after the log said that it is the last, or where there is
    /// none to write to yet.
    pub(super) fn may_take(&self, first: bool) -> bool {
        self.ready.len() >= READY_SEGMENTS || ((self.full || first) && !self.ready.is_empty())
    }

    /// Lets the dead tail of a segment be cut off at `end`, now that a later header is durable. Whether the cut is
    /// durable does not matter.
    pub(super) fn cut(&mut self, segment: u64, end: u64) {
        self.cut = Some((segment, end));
    }

    /// Whether no further segment could be made.
    pub(super) fn full(&self) -> bool {
        self.full
    }

    /// Segments recycled so far.
    pub(super) fn recycled(&self) -> u64 {
        self.recycled
    }

    /// Hands over a segment that no reader and no recovery needs: a durable batch says so.
    pub(super) fn retire(&mut self, old: RetiredSegment) {
        self.retired.push_back(old);
    }

    /// Whether an operation is under way.
    pub(super) fn busy(&self) -> bool {
        self.job.is_some()
    }

    /// When [`Ahead::step`] wants to be called although nothing completed.
    pub(super) fn wakeup(&self) -> Option<Micros> {
        let waiting = self.job.is_none() && self.full && self.ready.len() < READY_SEGMENTS;
        waiting.then_some(self.retry_at)
    }

    /// Starts the next job, if there is one. `current` is the newest segment begun.
    pub(super) fn step(&mut self, disk: &mut dyn Disk, current: u64, now: Micros) {
        if self.job.is_some() {
            return;
        }
        if let Some((segment, end)) = self.cut.take() {
            let op = Op::Open { path: segment_path(&self.dir, segment), create: false, cached: false };
            return self.start(disk, Job::CutOpen { segment, end }, op);
        }
        let segment = self.ready.back().map_or(current, |last| last.segment) + 1;
        let wanted = self.ready.len() < READY_SEGMENTS;
        let waiting = self.full && now < self.retry_at;
        let fits = self.retired.front().is_some_and(|old| old.bytes >= self.bytes_min);
        let spare = !fits || self.retired.len() > KEPT_RETIRED || self.surplus > 0;
        if wanted && fits {
            if !waiting && let Some(old) = self.retired.pop_front() {
                self.note_use();
                let op = Op::Rename {
                    from: segment_path(&self.dir, old.segment),
                    to: segment_path(&self.dir, segment),
                };
                self.start(disk, Job::RecycleRename { segment, old }, op);
            }
        } else if let Some(old) = self.retired.pop_front_if(|_| spare) {
            self.surplus = self.surplus.saturating_sub(1);
            self.start(disk, Job::Remove, Op::Remove { path: segment_path(&self.dir, old.segment) });
        } else if wanted && !waiting {
            let op = Op::Open { path: unfinished_path(&self.dir), create: true, cached: false };
            self.start(disk, Job::Create { segment, bytes: self.bytes_next }, op);
        }
    }

    /// A retired segment is used again.
    fn note_use(&mut self) {
        let (least, times) = self.left_over;
        self.left_over = (least.min(self.retired.len()), times + 1);
        if self.left_over.1 == LOOKED_AT {
            self.surplus = self.left_over.0;
            self.left_over = (usize::MAX, 0);
        }
    }

    fn start(&mut self, disk: &mut dyn Disk, job: Job, op: Op) {
        self.job = Some((job, disk.submit(op)));
    }

    /// Takes a completion, to be worked on by [`Ahead::settle`]; gives it back if it is not this machine's.
    pub(super) fn take_completion(&mut self, completion: Completion) -> Option<Completion> {
        match &self.job {
            Some((_, token)) if *token == completion.token => {
                self.completion = Some(completion);
                None
            }
            _ => Some(completion),
        }
    }

    /// Goes on with the job whose operation completed.
    ///
    /// # Errors
    /// A failure other than a lack of room.
    pub(super) fn settle(&mut self, disk: &mut dyn Disk, now: Micros) -> Result<(), Fault> {
        let Some(completion) = self.completion.take() else { return Ok(()) };
        let Some((job, _)) = self.job.take() else { return Ok(()) };
        if let Some(buf) = completion.buf {
            self.filler = Some(buf);
        }
        match completion.result {
            Ok(done) => self.advance(disk, job, done),
            Err(error) if is_lack_of_room(&error) => self.give_up(disk, job, error, now),
            Err(error) => Err(self.fault(&job, error)),
        }
    }

    /// One step of a job is done: the next one.
    fn advance(&mut self, disk: &mut dyn Disk, job: Job, done: Done) -> Result<(), Fault> {
        let dir = self.dir.clone();
        match job {
            Job::Create { segment, bytes } => {
                let Done::Opened(file, _) = done else { return Err(self.unexpected(&job)) };
                self.start(disk, Job::Allocate { segment, bytes, file }, Op::Allocate { file, bytes });
            }
            Job::Allocate { segment, bytes, file } => self.fill(disk, segment, bytes, file, 0),
            Job::Fill { segment, bytes, file, filled } if filled < bytes => {
                self.fill(disk, segment, bytes, file, filled);
            }
            Job::Fill { segment, bytes, file, .. } => {
                self.start(disk, Job::Sync { segment, bytes, file }, Op::Sync { file });
            }
            Job::Sync { segment, bytes, file } => {
                let op = Op::Rename { from: unfinished_path(&dir), to: segment_path(&dir, segment) };
                self.start(disk, Job::Rename { segment, bytes, file }, op);
            }
            Job::Rename { segment, bytes, file } => {
                self.start(disk, Job::SyncName { segment, bytes, file }, Op::SyncDir { dir });
            }
            Job::SyncName { segment, bytes, file } => {
                self.full = false;
                self.bytes_next = (bytes * 2).min(self.bytes_max);
                self.ready.push_back(ReadySegment { segment, file, bytes, recycled: false });
            }
            Job::RecycleRename { segment, old } => {
                self.start(disk, Job::RecycleSyncName { segment, old }, Op::SyncDir { dir });
            }
            Job::RecycleSyncName { segment, old } => {
                let op = Op::Open { path: segment_path(&dir, segment), create: false, cached: false };
                self.start(disk, Job::RecycleOpen { segment, old }, op);
            }
            Job::RecycleOpen { segment, .. } => {
                let Done::Opened(file, bytes) = done else { return Err(self.unexpected(&job)) };
                let bytes = bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                self.full = false;
                self.recycled += 1;
                self.ready.push_back(ReadySegment { segment, file, bytes, recycled: true });
            }
            Job::Remove => self.start(disk, Job::RemoveSyncName, Op::SyncDir { dir }),
            Job::GiveUpClose => {
                self.start(disk, Job::GiveUpRemove, Op::Remove { path: unfinished_path(&dir) });
            }
            Job::CutOpen { segment, end } => {
                let Done::Opened(file, _) = done else { return Err(self.unexpected(&job)) };
                self.start(disk, Job::Cut { segment, file }, Op::Truncate { file, bytes: end });
            }
            Job::Cut { file, .. } => self.start(disk, Job::CutClose, Op::Close { file }),
            Job::RemoveSyncName | Job::GiveUpRemove | Job::CutClose => {}
        }
        Ok(())
    }

    fn fill(&mut self, disk: &mut dyn Disk, segment: u64, bytes: u64, file: FileId, filled: u64) {
        let chunk = (bytes - filled).min(FILL_CHUNK_BYTES).min(self.bytes_max);
        let mut buf = self.filler.take().unwrap_or_else(|| {
            let mut filler = IoBuf::zeroed(chunk as usize);
            fill_with_stamp(filler.as_mut_slice());
            filler
        });
        // within its capacity the stamp stays
        buf.set_len(chunk as usize);
        let op = Op::Write { file, offset: filled, buf };
        self.start(disk, Job::Fill { segment, bytes, file, filled: filled + chunk }, op);
    }

    /// No room for the segment in the making: try half of it, or later.
    fn give_up(&mut self, disk: &mut dyn Disk, job: Job, error: io::Error, now: Micros) -> Result<(), Fault> {
        let (bytes, file) = match &job {
            Job::Create { bytes, .. } => (*bytes, None),
            Job::Allocate { bytes, file, .. }
            | Job::Fill { bytes, file, .. }
            | Job::Sync { bytes, file, .. }
            | Job::Rename { bytes, file, .. } => (*bytes, Some(*file)),
            // under its new name it is tried again; renaming it to that once more does nothing
            Job::RecycleOpen { segment, old } => {
                self.retired.push_front(RetiredSegment { segment: *segment, bytes: old.bytes });
                (self.bytes_min, None)
            }
            // its space is not given back; nothing depends on that
            Job::CutOpen { .. } => return Ok(()),
            // how far it got is unknown
            _ => return Err(self.fault(&job, error)),
        };
        if bytes > self.bytes_min {
            self.bytes_next = (bytes / 2).next_multiple_of(BLOCK_BYTES as u64).max(self.bytes_min);
        } else {
            self.full = true;
            self.retry_at = now + SPACE_RETRY_US;
        }
        if let Some(file) = file {
            self.start(disk, Job::GiveUpClose, Op::Close { file });
        }
        Ok(())
    }

    fn fault(&self, job: &Job, source: io::Error) -> Fault {
        let (operation, path, offset) = match job {
            Job::Create { .. } => ("create", unfinished_path(&self.dir), 0),
            Job::Allocate { bytes, .. } => ("allocate", unfinished_path(&self.dir), *bytes),
            Job::Fill { filled, .. } => ("write", unfinished_path(&self.dir), *filled),
            Job::Sync { .. } => ("sync", unfinished_path(&self.dir), 0),
            Job::Rename { segment, .. } => ("rename", segment_path(&self.dir, *segment), 0),
            Job::RecycleRename { segment, .. } => ("rename", segment_path(&self.dir, *segment), 0),
            Job::RecycleOpen { segment, .. } => ("open", segment_path(&self.dir, *segment), 0),
            Job::Remove | Job::GiveUpRemove => ("remove", self.dir.clone(), 0),
            Job::GiveUpClose => ("close", unfinished_path(&self.dir), 0),
            Job::CutOpen { segment, .. } => ("open", segment_path(&self.dir, *segment), 0),
            Job::Cut { segment, .. } => ("truncate", segment_path(&self.dir, *segment), 0),
            Job::CutClose => ("close", self.dir.clone(), 0),
            Job::SyncName { .. } | Job::RecycleSyncName { .. } | Job::RemoveSyncName => {
                ("sync", self.dir.clone(), 0)
            }
        };
        Fault::Io { operation, path, offset, source }
    }

    fn unexpected(&self, job: &Job) -> Fault {
        self.fault(job, io::Error::other("the disk gave no open file"))
    }
}

/// Whether an error means that there is no room: the disk, the quota, the file size limit, open files or memory.
fn is_lack_of_room(error: &io::Error) -> bool {
    let files = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    let space = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG];
    error.raw_os_error().is_some_and(|number| files.contains(&number) || space.contains(&number))
}

/// The smallest segment in which an entry of `entry_bytes_max` fits beside header and marks.
pub(super) fn segment_bytes_for(entry_bytes_max: u64) -> u64 {
    let batch =
        super::batch::batch_bytes(super::batch::ENTRY_HEAD_BYTES + entry_bytes_max as usize, 1) as u64;
    FIRST_BATCH + batch + super::writer::KEPT_BYTES
}
