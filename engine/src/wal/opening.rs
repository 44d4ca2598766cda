//! Opening: read what is there, then begin a new segment. An old one is never appended to.
//!
//! ```text
//! directory, unfinished files removed > reader > space for the new segment > its header, durable
//!   > the old segment's dead tail cut off, segments no longer needed removed > the log is open
//! ```
//! The header names the exact end of what was accepted; with it, all bytes behind that end are dead, whatever they are
//! and whenever they arrive.
//!
//! A segment found allocated but not begun is not begun now: a killed process may have had its header in flight, and
//! that write may still arrive, in that file. Its name goes to the one behind it, which nobody can have been writing,
//! or to a new one.

use super::ahead::{Ahead, is_lack_of_space, segment_bytes_for};
use super::blocking::{run, run_named, unexpected};
use super::reader::{Recovered, recover};
use super::segment::{FIRST_BATCH, SegmentHeader, fill_with_stamp, segment_path, unfinished_path};
use super::writer::{Begun, Current};
use super::{Opened, RecoveredBatch, Wal, WalOptions};
use crate::Micros;
use crate::disk::{BLOCK_BYTES, Disk, Done, FileId, IoBuf, Op};
use crate::error::Fault;
use std::io;
use std::path::Path;

/// Bytes written at once when the first segment is filled.
const FILL_CHUNK_BYTES: u64 = 1 << 20;
/// No segment is larger, whatever the options say: lengths in a batch are 32 bits.
const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;

impl Wal {
    /// Opens the log at `options.dir`, or starts one, telling every accepted batch to `visit` in order. Nothing else
    /// may be under way on the disk. Memory is bounded by one batch and a window of 1 MiB, not by the log.
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
        let options = checked(options)?;
        let dir = options.dir.clone();
        run_named(disk, "create", &dir, Op::CreateDir { dir: dir.clone() })?;
        remove_unfinished(disk, &dir)?;
        let found = recover(disk, &options, visit)?;
        let opened = found.opened();
        let (segment, file, bytes) = new_segment(disk, &options, &found)?;
        write_header(disk, &options, &found, segment, file, bytes)?;
        cut_dead_tail(disk, &options, &found)?;
        remove_leftover(disk, &options, &found)?;
        let current =
            Current { segment, file, bytes, position: FIRST_BATCH, predecessor: found.end, index_max: 0 };
        let ahead = Ahead::new(&dir, options.segment_bytes_min, options.segment_bytes_max, bytes.saturating_mul(2));
        let begun = Begun {
            epoch: opened.epoch,
            end: found.end,
            hard_state: found.hard_state,
            current,
            held: held_after_cut(&found),
            first_segment: found.first_segment.max(1),
            ahead,
            options,
        };
        Ok((Wal::begin(begun, now), opened))
    }
}

/// The options, rounded to whole blocks and with segments large enough for the largest entry.
fn checked(mut options: WalOptions) -> Result<WalOptions, Fault> {
    let refuse = |reason: String| Err(Fault::Unusable { path: options.dir.clone(), reason });
    if options.segment_bytes_max > SEGMENT_BYTES_LIMIT || options.entry_bytes_max > SEGMENT_BYTES_LIMIT / 2 {
        return refuse(format!("segments of at most {SEGMENT_BYTES_LIMIT} bytes, entries of at most half of that"));
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
    options.segment_bytes_max =
        (options.segment_bytes_max / block * block).max(options.segment_bytes_min);
    Ok(options)
}

fn remove_unfinished(disk: &mut dyn Disk, dir: &Path) -> Result<(), Fault> {
    let path = unfinished_path(dir);
    match run(disk, Op::Remove { path: path.clone() }).1 {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Fault::Io { operation: "remove", path, offset: 0, source }),
    }
}

/// A file for the new segment: its number, the open file and its length.
fn new_segment(
    disk: &mut dyn Disk,
    options: &WalOptions,
    found: &Recovered,
) -> Result<(u64, FileId, u64), Fault> {
    let segment = found.held.last().map_or(1, |last| last.segment + 1);
    let path = segment_path(&options.dir, segment);
    let dir = options.dir.clone();
    let usable = |bytes: u64| bytes >= options.segment_bytes_min && bytes.is_multiple_of(BLOCK_BYTES as u64);
    // highest first, so that a crash in between leaves no gap
    for (unbegun, bytes) in found.unbegun.iter().rev() {
        let old = segment_path(&options.dir, *unbegun);
        if *unbegun == segment + 1 && usable(*bytes) {
            run_named(disk, "rename", &old, Op::Rename { from: old.clone(), to: path.clone() })?;
            run_named(disk, "sync", &dir, Op::SyncDir { dir: dir.clone() })?;
            let (file, bytes) = open_file(disk, &path, false)?;
            return Ok((segment, file, bytes));
        }
        run_named(disk, "remove", &old, Op::Remove { path: old.clone() })?;
        run_named(disk, "sync", &dir, Op::SyncDir { dir: dir.clone() })?;
    }
    let (file, bytes) = make_segment(disk, options)?;
    let unfinished = unfinished_path(&dir);
    run_named(disk, "rename", &unfinished, Op::Rename { from: unfinished.clone(), to: path })?;
    run_named(disk, "sync", &dir, Op::SyncDir { dir: dir.clone() })?;
    Ok((segment, file, bytes))
}

fn open_file(disk: &mut dyn Disk, path: &Path, create: bool) -> Result<(FileId, u64), Fault> {
    match run_named(disk, "open", path, Op::Open { path: path.to_path_buf(), create })? {
        Done::Opened(file, bytes) => Ok((file, bytes)),
        other => Err(unexpected("open", path, &other)),
    }
}

/// Makes the smallest segment under the unfinished name: allocated, filled with the stamp, synced.
fn make_segment(disk: &mut dyn Disk, options: &WalOptions) -> Result<(FileId, u64), Fault> {
    let path = unfinished_path(&options.dir);
    let bytes = options.segment_bytes_min;
    let (file, _) = open_file(disk, &path, true)?;
    match fill(disk, file, bytes) {
        Ok(()) => Ok((file, bytes)),
        Err(error) => {
            // leave nothing behind that takes the space that others need; a failure here changes nothing
            let _ = run(disk, Op::Close { file });
            let _ = run(disk, Op::Remove { path: path.clone() });
            let operation = if is_lack_of_space(&error) { "allocate" } else { "write" };
            Err(Fault::Io { operation, path, offset: bytes, source: error })
        }
    }
}

fn fill(disk: &mut dyn Disk, file: FileId, bytes: u64) -> io::Result<()> {
    run(disk, Op::Allocate { file, bytes }).1?;
    let mut buf = IoBuf::zeroed(FILL_CHUNK_BYTES.min(bytes) as usize);
    fill_with_stamp(buf.as_mut_slice());
    let mut offset = 0;
    while offset < bytes {
        let chunk = (bytes - offset).min(FILL_CHUNK_BYTES);
        buf.set_len(chunk as usize);
        let (given_back, result) = run(disk, Op::Write { file, offset, buf });
        result?;
        let Some(same) = given_back else { return Err(io::Error::other("the disk kept the buffer")) };
        buf = same;
        offset += chunk;
    }
    run(disk, Op::Sync { file }).1.map(|_| ())
}

/// Writes the new segment's header. All that it says was accepted is durable: the reader synced before it read.
fn write_header(
    disk: &mut dyn Disk,
    options: &WalOptions,
    found: &Recovered,
    segment: u64,
    file: FileId,
    bytes: u64,
) -> Result<(), Fault> {
    let header = SegmentHeader {
        owner: options.owner,
        segment,
        epoch: found.epoch.saturating_add(1),
        salt: options.salt,
        bytes,
        predecessor: found.end,
        // an unbegun segment that was found may hold anything
        recycled: !found.unbegun.is_empty(),
        first_segment: found.first_segment.max(1),
        hard_state: found.hard_state,
    };
    let mut buf = IoBuf::zeroed(BLOCK_BYTES);
    header.encode(buf.as_mut_slice());
    let path = segment_path(&options.dir, segment);
    run_named(disk, "durable write", &path, Op::WriteDurable { file, offset: 0, buf }).map(|_| ())
}

/// Gives back the space behind the end of the old segment. Whether that is durable does not matter: it is dead.
fn cut_dead_tail(disk: &mut dyn Disk, options: &WalOptions, found: &Recovered) -> Result<(), Fault> {
    let Some(last) = found.held.last() else { return Ok(()) };
    if last.bytes <= found.end.offset {
        return Ok(());
    }
    let path = segment_path(&options.dir, last.segment);
    let (file, _) = open_file(disk, &path, false)?;
    run_named(disk, "truncate", &path, Op::Truncate { file, bytes: found.end.offset })?;
    run_named(disk, "close", &path, Op::Close { file }).map(|_| ())
}

fn held_after_cut(found: &Recovered) -> Vec<super::reader::HeldSegment> {
    let mut held = found.held.clone();
    if let Some(last) = held.last_mut() {
        last.bytes = last.bytes.min(found.end.offset);
    }
    held
}

fn remove_leftover(disk: &mut dyn Disk, options: &WalOptions, found: &Recovered) -> Result<(), Fault> {
    for segment in &found.leftover {
        let path = segment_path(&options.dir, *segment);
        run_named(disk, "remove", &path, Op::Remove { path: path.clone() })?;
    }
    if found.leftover.is_empty() {
        return Ok(());
    }
    run_named(disk, "sync", &options.dir, Op::SyncDir { dir: options.dir.clone() }).map(|_| ())
}
