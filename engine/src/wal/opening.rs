//! Opening: read what is there. An old segment is never appended to; a new one is begun as soon as one is ready.
//!
//! ```text
//! directory > unfinished file removed > reader > segments found allocated adopted > the log is open
//!   (then, as a state machine) > a segment is made, unless one was adopted > its header, durable
//!   > the dead tail of the old one is cut off > batches
//! ```
//! The new header names the exact end of what was accepted; with it all bytes behind that end are dead, whatever they
//! are and whenever they arrive. So opening itself needs no space: a member starts, and reads, on a full disk.
//!
//! A segment found allocated but not begun is not used as it is: a killed process may have had its header in flight,
//! and that write may still arrive, in that file. Its name goes to the highest one, which nobody can have been writing.

use super::ahead::{Ahead, ReadySegment, segment_bytes_for};
use super::blocking::{SharedDisk, unexpected};
use super::reader::{Recovered, recover};
use super::segment::{segment_path, unfinished_path};
use super::writer::Begun;
use super::{Opened, RecoveredBatch, Wal, WalOptions};
use crate::Micros;
use crate::disk::{BLOCK_BYTES, Disk, Done, FileId, Op};
use crate::error::Fault;
use std::io;
use std::path::Path;

/// No segment is larger, whatever the options say: lengths in a batch are 32 bits.
const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;

/// Who is told of the accepted batches, and the disk that the log is read from.
pub type Visit<'v> = dyn FnMut(&mut dyn Disk, RecoveredBatch) -> Result<(), Fault> + 'v;

impl Wal {
    /// Opens the log at `options.dir`, or starts one, telling every accepted batch to `visit` in order. Nothing else
    /// may be under way on the disk ([`Wal::open_beside`] is for where something is). Memory is bounded by one batch and a window of 1 MiB, not by the log.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] when something that was acknowledged, or may have been, is damaged or gone (some batches may
    /// have been told before); [`Fault::Unusable`] for another owner's log or another format, or for limits that
    /// contradict one another; [`Fault::Io`]; whatever `visit` returns.
    pub fn open(
        disk: &mut dyn Disk,
        options: WalOptions,
        now: Micros,
        visit: &mut dyn FnMut(RecoveredBatch) -> Result<(), Fault>,
    ) -> Result<(Wal, Opened), Fault> {
        Wal::open_beside(&mut SharedDisk::new(disk), options, now, &mut |_, batch| visit(batch))
    }

    /// As [`Wal::open`], for a caller who lets others work on the same disk meanwhile: `visit` is given the disk, and may
    /// submit to it, wait, and poll. Before and after it, too, whoever polls `disk` gets what is not the log's.
    ///
    /// # Errors
    /// Those of [`Wal::open`].
    pub fn open_beside(
        disk: &mut SharedDisk<'_>,
        options: WalOptions,
        now: Micros,
        visit: &mut Visit<'_>,
    ) -> Result<(Wal, Opened), Fault> {
        let options = checked(options)?;
        let dir = options.dir.clone();
        disk.run_named("create", &dir, Op::CreateDir { dir: dir.clone() })?;
        remove_if_there(disk, &unfinished_path(&dir))?;
        let found = recover(disk, &options, visit)?;
        let opened = found.opened();
        let ready = adopt_unbegun(disk, &options, &found)?;
        let ahead = Ahead::new(&options, &found, ready);
        let begun = Begun { options, epoch: opened.epoch, found, ahead };
        Ok((Wal::begin(begun, now), opened))
    }
}

impl Wal {
    /// Reads the log at `options.dir` and judges it as [`Wal::open`] does, without opening it for writing: no file is
    /// changed (what a killed process left in the page cache is synced, though).
    ///
    /// # Errors
    /// Those of [`Wal::open`].
    pub fn read(
        disk: &mut dyn Disk,
        options: WalOptions,
        visit: &mut dyn FnMut(RecoveredBatch) -> Result<(), Fault>,
    ) -> Result<Opened, Fault> {
        let options = checked(options)?;
        recover(&mut SharedDisk::new(disk), &options, &mut |_, batch| visit(batch))
            .map(|found| found.opened())
    }
}

/// The options, rounded to whole blocks and with segments large enough for the largest entry.
fn checked(mut options: WalOptions) -> Result<WalOptions, Fault> {
    let refuse = |reason: String| Err(Fault::Unusable { path: options.dir.clone(), reason });
    if options.segment_bytes_max > SEGMENT_BYTES_LIMIT || options.entry_bytes_max > SEGMENT_BYTES_LIMIT / 2 {
        return refuse(format!(
            "segments of at most {SEGMENT_BYTES_LIMIT} bytes, entries of at most half of that"
        ));
    }
    if options.segment_bytes_min > options.segment_bytes_max {
        return refuse(format!(
            "smallest segment {} is larger than the largest {}",
            options.segment_bytes_min, options.segment_bytes_max
        ));
    }
    if options.writes_in_flight_max == 0 {
        return refuse("at least one write must be allowed in flight".to_string());
    }
    let block = BLOCK_BYTES as u64;
    let least = segment_bytes_for(options.entry_bytes_max);
    options.segment_bytes_min = options.segment_bytes_min.max(least).next_multiple_of(block);
    options.segment_bytes_max = (options.segment_bytes_max / block * block).max(options.segment_bytes_min);
    Ok(options)
}

fn remove_if_there(disk: &mut SharedDisk<'_>, path: &Path) -> Result<(), Fault> {
    match disk.run(Op::Remove { path: path.to_path_buf() }).1 {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Fault::Io { operation: "remove", path: path.to_path_buf(), offset: 0, source }),
    }
}

/// The segments that were found allocated and not begun, as far as they can be used. The highest takes the name of the
/// lowest, so that the file to which a killed process may still be writing its header is gone. All is done from the top
/// and step by step, so that a crash in between leaves no gap.
fn adopt_unbegun(
    disk: &mut SharedDisk<'_>,
    options: &WalOptions,
    found: &Recovered,
) -> Result<Vec<ReadySegment>, Fault> {
    let usable = |bytes: u64| bytes >= options.segment_bytes_min && bytes.is_multiple_of(BLOCK_BYTES as u64);
    let mut kept = found.unbegun.clone();
    // those above one that cannot be used cannot be used either
    let whole = kept.iter().skip(1).take_while(|(_, bytes)| usable(*bytes)).count();
    while kept.len() > whole + 1 {
        remove_last(disk, options, &mut kept)?;
    }
    let Some((lowest, _)) = kept.first().copied() else { return Ok(Vec::new()) };
    if kept.len() == 1 {
        remove_last(disk, options, &mut kept)?;
        return Ok(Vec::new());
    }
    if let Some((highest, bytes)) = kept.pop() {
        let (from, to) = (segment_path(&options.dir, highest), segment_path(&options.dir, lowest));
        disk.run_named("rename", &from, Op::Rename { from: from.clone(), to })?;
        sync_dir(disk, &options.dir)?;
        kept[0].1 = bytes;
    }
    let mut ready = Vec::new();
    for (segment, _) in kept {
        let (file, bytes) = open_file(disk, &segment_path(&options.dir, segment))?;
        // it may hold anything: a recycled one, or bytes that a crash left
        ready.push(ReadySegment { segment, file, bytes, recycled: true });
    }
    Ok(ready)
}

fn remove_last(
    disk: &mut SharedDisk<'_>,
    options: &WalOptions,
    kept: &mut Vec<(u64, u64)>,
) -> Result<(), Fault> {
    if let Some((segment, _)) = kept.pop() {
        remove_if_there(disk, &segment_path(&options.dir, segment))?;
    }
    sync_dir(disk, &options.dir)
}

fn sync_dir(disk: &mut SharedDisk<'_>, dir: &Path) -> Result<(), Fault> {
    disk.run_named("sync", dir, Op::SyncDir { dir: dir.to_path_buf() }).map(|_| ())
}

fn open_file(disk: &mut SharedDisk<'_>, path: &Path) -> Result<(FileId, u64), Fault> {
    match disk.run_named("open", path, Op::Open { path: path.to_path_buf(), create: false, cached: false })? {
        Done::Opened(file, bytes) => Ok((file, bytes)),
        other => Err(unexpected("open", path, &other)),
    }
}
