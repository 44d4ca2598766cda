//! The file's length: allocated ahead of the pages in use, cut when its end is empty.
//!
//! ```text
//! pages in use            | ahead: the reserve, as much again                  |
//! +-----------------------+----------------------------+-----------------------+
//! 0                  pages end                    grown from here on      allocated
//! ```
//! Ahead is an eighth of the file, at least 1 MiB and at most 64 MiB. Nothing is written beyond what is allocated. When
//! less than that is left ahead of the end (pages that are free below it counted), or less than 1.75 MiB behind it, twice as
//! much is allocated; when that fails for lack of room, half; when that fails too, the file says [`Space::Reserve`]: whoever
//! applies then lets only such things through as make room, and they live on what is left ahead. Where the end has passed
//! what is allocated, the pages up to it are tried for by themselves: without them no root is chosen, and what is freed is
//! never reusable. It is tried again every [`SPACE_RETRY_US`], and so heals by itself. What a failed try took is given back
//! at once: the log may need it.
//!
//! Pages whose place lies beyond what is allocated stay in memory; a root that reaches one is not chosen.

use super::page::PAGE_BYTES;
use super::places::PAGES_MAX;
use crate::Micros;
use crate::disk::{Completion, Disk, FileId, Op, Token};
use crate::error::Fault;
use crate::wal::{SPACE_RETRY_US, Space};
use std::io;
use std::path::PathBuf;

/// The least that is allocated ahead, in pages: 1 MiB.
const AHEAD_PAGES_MIN: u64 = (1 << 20) / PAGE_BYTES as u64;
/// The most, in pages: 64 MiB.
const AHEAD_PAGES_MAX: u64 = (64 << 20) / PAGE_BYTES as u64;
/// Less than this is never left behind the end, in pages: 1.75 MiB. A value as long as a request may usually be, 1.5 MiB, finds
/// its run there, and leaves some of it for the pages that change with it.
const TAIL_PAGES_MIN: u64 = (7 << 18) / PAGE_BYTES as u64;
const _: () = assert!(TAIL_PAGES_MIN <= 2 * AHEAD_PAGES_MIN, "what is allocated at first, and left by a cut");
/// A cut gives back at least this many pages: 4 MiB.
const CUT_PAGES_MIN: u64 = (4 << 20) / PAGE_BYTES as u64;
/// The same where somebody waits for it (after relocation).
const CUT_PAGES_MIN_WANTED: u64 = AHEAD_PAGES_MIN;

/// A cut gives back at most so many at a time, 16 MiB: the system takes longer to let go of a file's end the longer that is, and
/// whoever writes to the disk waits for it.
const CUT_PAGES_MAX: u64 = (16 << 20) / PAGE_BYTES as u64;

/// How many pages are kept allocated ahead of so many.
pub(super) fn ahead_pages(pages_end: u64) -> u64 {
    (pages_end / 8).clamp(AHEAD_PAGES_MIN, AHEAD_PAGES_MAX)
}

/// What the length is judged by, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// End of the published root's pages.
    pub(super) pages_end: u64,
    /// Free pages below it that may be handed out at once.
    pub(super) reusable: u64,
}

/// How much a try to grow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// As much ahead as is kept there, twice.
    Twice,
    /// That once, or the least that may be left.
    Once,
    /// The pages in use, nothing ahead.
    Bare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Grow { to: u64, wish: Wish },
    Cut { to: u64 },
}

/// The length, and the change of it that is under way. Invariant: nothing is written at or beyond [`Length::limit`].
#[derive(Debug)]
pub(super) struct Length {
    path: PathBuf,
    file: FileId,
    /// Pages that are allocated.
    allocated: u64,
    job: Option<(Job, Token)>,
    /// There was no room for what is kept ahead when that was last tried.
    full: bool,
    /// What the next try is for.
    wish: Wish,
    retry_at: Micros,
    /// A try that failed may have taken what was there.
    give_back: bool,
    /// Somebody waits for a cut.
    pub(super) cut_wanted: bool,
}

impl Length {
    pub(super) fn new(path: PathBuf, file: FileId, allocated: u64) -> Length {
        Length {
            path,
            file,
            allocated,
            job: None,
            full: false,
            wish: Wish::Twice,
            retry_at: 0,
            give_back: false,
            cut_wanted: false,
        }
    }

    /// Pages that may be written lie below it.
    pub(super) fn limit(&self) -> u64 {
        match self.job {
            Some((Job::Cut { to }, _)) => to,
            _ => self.allocated,
        }
    }

    /// Whether a change is under way.
    pub(super) fn busy(&self) -> bool {
        self.job.is_some()
    }

    /// Whether more has to be allocated.
    fn is_short(&self, need: Need) -> bool {
        let tail = self.limit().saturating_sub(need.pages_end);
        // the end itself is never given up for pages below it: a long run may find no room there
        tail < TAIL_PAGES_MIN || tail + need.reusable < ahead_pages(need.pages_end)
    }

    /// Whether there is room.
    pub(super) fn space(&self) -> Space {
        if self.full { Space::Reserve } else { Space::Ample }
    }

    /// When [`Length::step`] wants to be called although nothing completed.
    pub(super) fn wakeup(&self) -> Option<Micros> {
        (self.full && self.job.is_none()).then_some(self.retry_at)
    }

    /// Starts to grow, if there is need.
    pub(super) fn step(&mut self, disk: &mut dyn Disk, need: Need, now: Micros) {
        if self.job.is_some() {
            return;
        }
        if std::mem::take(&mut self.give_back) {
            return self.start_cut(disk, self.allocated);
        }
        if !self.is_short(need) {
            self.full = false;
            self.wish = Wish::Twice;
            return;
        }
        if self.full && now < self.retry_at {
            return;
        }
        let ahead = ahead_pages(need.pages_end);
        let wish = self.wish;
        let to = match wish {
            Wish::Twice => need.pages_end + 2 * ahead,
            Wish::Once => need.pages_end + ahead.max(TAIL_PAGES_MIN),
            Wish::Bare => need.pages_end,
        };
        debug_assert!(
            to > self.allocated || wish == Wish::Bare,
            "short means that less than this is allocated"
        );
        if to > PAGES_MAX || to <= self.allocated {
            self.refused(wish, now);
            return self.step(disk, need, now);
        }
        let bytes = to * PAGE_BYTES as u64;
        self.job = Some((Job::Grow { to, wish }, disk.submit(Op::Allocate { file: self.file, bytes })));
    }

    /// Starts a cut, if that gives back enough: `reach_end` is one past the highest page that anybody reaches. True if more is
    /// left to be cut after it.
    pub(super) fn cut(&mut self, disk: &mut dyn Disk, reach_end: u64) -> bool {
        if self.job.is_some() {
            return false;
        }
        let goal = self.cut_to(reach_end);
        let to = goal.map(|goal| goal.max(self.allocated.saturating_sub(CUT_PAGES_MAX)));
        if let Some(to) = to {
            self.start_cut(disk, to);
        }
        // what has been begun goes on to its end
        self.cut_wanted = to > goal;
        self.cut_wanted
    }

    fn start_cut(&mut self, disk: &mut dyn Disk, to: u64) {
        let bytes = to * PAGE_BYTES as u64;
        self.job = Some((Job::Cut { to }, disk.submit(Op::Truncate { file: self.file, bytes })));
    }

    /// Where the file would be cut.
    pub(super) fn cut_to(&self, reach_end: u64) -> Option<u64> {
        let to = reach_end + 2 * ahead_pages(reach_end);
        let least = match self.cut_wanted {
            true => CUT_PAGES_MIN_WANTED,
            false => (self.allocated / 4).max(CUT_PAGES_MIN),
        };
        (to + least < self.allocated).then_some(to)
    }

    /// There is no room, or no need, for that.
    fn refused(&mut self, wish: Wish, now: Micros) {
        match wish {
            Wish::Twice => self.wish = Wish::Once,
            Wish::Once => {
                self.full = true;
                self.retry_at = now;
                self.wish = Wish::Bare;
            }
            Wish::Bare => self.retry_later(now),
        }
    }

    /// No more is to be had now.
    fn retry_later(&mut self, now: Micros) {
        self.retry_at = now + SPACE_RETRY_US;
        self.wish = Wish::Once;
    }

    /// Takes a completion; gives it back if it is a stranger's.
    ///
    /// # Errors
    /// A failure other than a lack of room.
    pub(super) fn complete(
        &mut self,
        completion: Completion,
        now: Micros,
    ) -> Result<Option<Completion>, Fault> {
        let Some((job, _)) = self.job.take_if(|(_, token)| *token == completion.token) else {
            return Ok(Some(completion));
        };
        match (job, completion.result) {
            (Job::Grow { to, wish: Wish::Bare }, Ok(_)) => {
                self.allocated = to;
                self.retry_later(now);
            }
            (Job::Grow { to, .. }, Ok(_)) => {
                self.allocated = to;
                self.full = false;
                self.wish = Wish::Twice;
            }
            (Job::Cut { to }, Ok(_)) => self.allocated = to,
            (Job::Grow { wish, .. }, Err(error)) if is_lack_of_room(&error) => {
                self.give_back = true;
                self.refused(wish, now);
            }
            (Job::Grow { to, .. }, Err(source)) => return Err(self.fault("allocate", to, source)),
            (Job::Cut { to }, Err(source)) => return Err(self.fault("truncate", to, source)),
        }
        Ok(None)
    }

    fn fault(&self, operation: &'static str, to: u64, source: io::Error) -> Fault {
        Fault::Io { operation, path: self.path.clone(), offset: to * PAGE_BYTES as u64, source }
    }
}

/// Whether an error means that there is no room: on the disk, in the quota, under the file size limit.
fn is_lack_of_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}
