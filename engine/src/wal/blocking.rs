//! Segments read from front to back, one operation after the other: what opening does before the log is a state machine.

use crate::disk::{BLOCK_BYTES, Disk, Done, FileId, IoBuf, Op};
use crate::error::Fault;
use std::path::PathBuf;

pub(super) use crate::disk::blocking::{run, run_named, unexpected};

/// Bytes read at once when a segment is read from front to back.
const WINDOW_BYTES: usize = 1 << 20;

/// A file that is read from front to back, with a piece of it in memory.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) path: PathBuf,
    pub(super) file: FileId,
    /// Its length.
    pub(super) bytes: u64,
    window: Option<IoBuf>,
    window_start: u64,
    window_bytes: usize,
}

impl OpenSegment {
    /// Opens it, past the page cache: after [`Op::Sync`], with `synced`.
    pub(super) fn open(disk: &mut dyn Disk, path: PathBuf, synced: bool) -> Result<OpenSegment, Fault> {
        let op = Op::Open { path: path.clone(), create: false, cached: false };
        let (file, bytes) = match run_named(disk, "open", &path, op)? {
            Done::Opened(file, bytes) => (file, bytes),
            other => return Err(unexpected("open", &path, &other)),
        };
        if synced {
            run_named(disk, "sync", &path, Op::Sync { file })?;
        }
        run_named(disk, "drop from the cache", &path, Op::DropCache { file })?;
        Ok(OpenSegment { path, file, bytes, window: None, window_start: 0, window_bytes: 0 })
    }

    /// The first block, and no more of it read than that.
    pub(super) fn first_block(&mut self, disk: &mut dyn Disk) -> Result<&[u8], Fault> {
        self.read(disk, 0, 0, BLOCK_BYTES)?;
        self.get(disk, 0, BLOCK_BYTES)
    }

    /// Up to `len` bytes at `offset` (a multiple of the block size), fewer at the end of the file.
    pub(super) fn get(&mut self, disk: &mut dyn Disk, offset: u64, len: usize) -> Result<&[u8], Fault> {
        let wanted = len.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX));
        let window_end = self.window_start + self.window_bytes as u64;
        if offset < self.window_start || offset + wanted as u64 > window_end {
            self.read(disk, offset, wanted, WINDOW_BYTES)?;
        }
        let start = (offset - self.window_start) as usize;
        let end = (start + wanted).min(self.window_bytes);
        let window = self.window.as_ref().map_or(&[][..], IoBuf::as_slice);
        Ok(window.get(start.min(end)..end).unwrap_or(&[]))
    }

    fn read(&mut self, disk: &mut dyn Disk, offset: u64, wanted: usize, window: usize) -> Result<(), Fault> {
        let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = wanted.max(window).min(rest).next_multiple_of(BLOCK_BYTES);
        let mut buf = self.window.take().unwrap_or_else(|| IoBuf::zeroed(len));
        buf.set_len(len);
        let (buf, result) = run(disk, Op::Read { file: self.file, offset, buf });
        self.window = buf;
        self.window_start = offset;
        self.window_bytes = match result {
            Ok(Done::Read(bytes)) => bytes,
            Ok(other) => return Err(unexpected("read", &self.path, &other)),
            Err(source) => {
                return Err(Fault::Io { operation: "read", path: self.path.clone(), offset, source });
            }
        };
        Ok(())
    }

    /// Closes it.
    pub(super) fn close(self, disk: &mut dyn Disk) -> Result<(), Fault> {
        run_named(disk, "close", &self.path, Op::Close { file: self.file }).map(|_| ())
    }
}
