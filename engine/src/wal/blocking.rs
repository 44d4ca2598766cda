//! Segments read from front to back, one operation after the other: what opening does before the log is a state machine.
//!
//! Others may have operations under way on the disk meanwhile ([`SharedDisk`]): what is replayed is applied, and what is
//! applied may have to be written.

use crate::disk::{BLOCK_BYTES, Completion, Disk, Done, FileId, FileMap, IoBuf, Op, Token, Waker};
use crate::error::Fault;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use crate::disk::blocking::unexpected;

/// Bytes read at once when a segment is read from front to back.
const WINDOW_BYTES: usize = 1 << 20;

/// A disk on which the log is opened while others use it too. The log runs one operation after the other; completions of
/// others that come meanwhile are kept, and given to whoever polls.
pub struct SharedDisk<'d> {
    disk: &'d mut dyn Disk,
    kept: Vec<Completion>,
}

impl<'d> SharedDisk<'d> {
    /// Shares a disk.
    pub fn new(disk: &'d mut dyn Disk) -> SharedDisk<'d> {
        SharedDisk { disk, kept: Vec::new() }
    }

    /// Runs one operation to its end.
    pub(super) fn run(&mut self, op: Op) -> (Option<IoBuf>, io::Result<Done>) {
        let token = self.disk.submit(op);
        loop {
            let before = self.kept.len();
            self.disk.poll(&mut self.kept);
            let own = self.kept[before..].iter().position(|completion| completion.token == token);
            if let Some(place) = own {
                let completion = self.kept.remove(before + place);
                return (completion.buf, completion.result);
            }
            self.disk.wait(None);
        }
    }

    /// Runs one operation and names it in the fault if it fails.
    pub(super) fn run_named(&mut self, operation: &'static str, path: &Path, op: Op) -> Result<Done, Fault> {
        let path = || path.to_path_buf();
        self.run(op).1.map_err(|source| Fault::Io { operation, path: path(), offset: 0, source })
    }
}

impl Disk for SharedDisk<'_> {
    fn submit(&mut self, op: Op) -> Token {
        self.disk.submit(op)
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.kept);
        self.disk.poll(out);
    }

    fn wait(&mut self, timeout_us: Option<u64>) {
        if self.kept.is_empty() {
            self.disk.wait(timeout_us);
        }
    }

    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>> {
        self.disk.map(path)
    }

    fn waker(&self) -> Waker {
        self.disk.waker()
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }
}

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
    pub(super) fn open(disk: &mut SharedDisk<'_>, path: PathBuf, synced: bool) -> Result<OpenSegment, Fault> {
        let op = Op::Open { path: path.clone(), create: false, cached: false };
        let (file, bytes) = match disk.run_named("open", &path, op)? {
            Done::Opened(file, bytes) => (file, bytes),
            other => return Err(unexpected("open", &path, &other)),
        };
        if synced {
            disk.run_named("sync", &path, Op::Sync { file })?;
        }
        disk.run_named("drop from the cache", &path, Op::DropCache { file })?;
        Ok(OpenSegment { path, file, bytes, window: None, window_start: 0, window_bytes: 0 })
    }

    /// The first block, and no more of it read than that.
    pub(super) fn first_block(&mut self, disk: &mut SharedDisk<'_>) -> Result<&[u8], Fault> {
        self.read(disk, 0, 0, BLOCK_BYTES)?;
        self.get(disk, 0, BLOCK_BYTES)
    }

    /// Up to `len` bytes at `offset` (a multiple of the block size), fewer at the end of the file.
    pub(super) fn get(&mut self, disk: &mut SharedDisk<'_>, offset: u64, len: usize) -> Result<&[u8], Fault> {
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

    fn read(
        &mut self,
        disk: &mut SharedDisk<'_>,
        offset: u64,
        wanted: usize,
        window: usize,
    ) -> Result<(), Fault> {
        let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = wanted.max(window).min(rest).next_multiple_of(BLOCK_BYTES);
        let mut buf = self.window.take().unwrap_or_else(|| IoBuf::zeroed(len));
        buf.set_len(len);
        let (buf, result) = disk.run(Op::Read { file: self.file, offset, buf });
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
    pub(super) fn close(self, disk: &mut SharedDisk<'_>) -> Result<(), Fault> {
        disk.run_named("close", &self.path, Op::Close { file: self.file }).map(|_| ())
    }
}
