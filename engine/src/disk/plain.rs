//! Plain system calls: all that the pwrite disk does, and what the ring leaves to opening.
#![allow(unsafe_code, reason = "sync_file_range is only to be had from libc")]

use super::{Done, FileId, IoBuf};
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How a file is made: for its owner alone.
pub(crate) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The open files of a real disk.
#[derive(Debug, Default)]
pub(crate) struct Files {
    slots: Vec<Option<OpenFile>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// Its descriptor.
    pub(crate) fd: OwnedFd,
    /// Whether it goes past the page cache.
    pub(crate) direct: bool,
}

impl Files {
    /// Keeps an open file.
    pub(crate) fn insert(&mut self, fd: OwnedFd, direct: bool) -> FileId {
        let file = OpenFile { fd, direct };
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => {
                self.slots[slot] = Some(file);
                slot
            }
            None => {
                self.slots.push(Some(file));
                self.slots.len() - 1
            }
        };
        FileId(slot as u32)
    }

    /// The file behind an id.
    pub(crate) fn get(&self, id: FileId) -> io::Result<&OpenFile> {
        self.slots.get(id.0 as usize).and_then(Option::as_ref).ok_or_else(not_open)
    }

    /// Forgets a file.
    pub(crate) fn remove(&mut self, id: FileId) -> io::Result<OpenFile> {
        self.slots.get_mut(id.0 as usize).and_then(Option::take).ok_or_else(not_open)
    }
}

fn not_open() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

/// Flags for [`super::Op::Open`].
pub(crate) fn open_flags(create: bool) -> OFlags {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if create { flags | OFlags::CREATE | OFlags::EXCL } else { flags }
}

/// Makes a directory, those above it, and their entries durable.
pub(crate) fn create_dir(dir: &Path) -> io::Result<Done> {
    let mut made = Vec::new();
    let mut at = Some(dir);
    while let Some(path) = at {
        if path.as_os_str().is_empty() || path.is_dir() {
            break;
        }
        made.push(path);
        at = path.parent();
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for path in made {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new("."))?,
            Some(parent) => sync_dir(parent)?,
            None => Done::Unit,
        };
    }
    Ok(Done::Unit)
}

/// Lists the regular files of a directory, sorted.
pub(crate) fn list(dir: &Path) -> io::Result<Done> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(PathBuf::from(entry.file_name()));
        }
    }
    names.sort();
    Ok(Done::Names(names))
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<Done> {
    rustix::fs::fsync(&open_dir(dir)?)?;
    Ok(Done::Unit)
}

/// Opens a directory, to sync it.
pub(crate) fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The length of an open file.
pub(crate) fn file_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::fstat(fd)?;
    u64::try_from(stat.st_size).map_err(|_| io::Error::other("the file has a negative length"))
}

/// Writes all of `buf`.
pub(crate) fn write_all(fd: &OwnedFd, buf: &IoBuf, offset: u64) -> io::Result<Done> {
    loop {
        match rustix::io::pwrite(fd, buf.as_slice(), offset) {
            Ok(written) if written == buf.len() => return Ok(Done::Unit),
            Ok(written) => return Err(short_write(written, buf.len())),
            // nothing was written yet when a signal came first
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a short write is called.
pub(crate) fn short_write(written: usize, asked: usize) -> io::Error {
    io::Error::new(io::ErrorKind::WriteZero, format!("short write: {written} of {asked} bytes"))
}

/// Fills `buf` as far as the file goes.
pub(crate) fn read(fd: &OwnedFd, buf: &mut IoBuf, offset: u64) -> io::Result<Done> {
    let mut filled = 0;
    while filled < buf.len() {
        match rustix::io::pread(fd, &mut buf.as_mut_slice()[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Done::Read(filled))
}

/// Makes what was written, and the length, durable.
pub(crate) fn sync(fd: &OwnedFd) -> io::Result<Done> {
    rustix::fs::fdatasync(fd)?;
    Ok(Done::Unit)
}

/// How much of the file a write-out takes in: to its end, where the number is too large for the call.
pub(crate) fn write_back_bytes(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}

/// What is done by a write-out: wait for an earlier one of the same bytes, then start.
pub(crate) const WRITE_BACK_FLAGS: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;

/// Starts a write-out.
pub(crate) fn write_back(fd: &OwnedFd, offset: u64, bytes: u64) -> io::Result<Done> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let bytes = i64::from(write_back_bytes(bytes));
    // SAFETY: the call takes no pointer; the descriptor is open as long as `fd` lives.
    let result = unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, bytes, WRITE_BACK_FLAGS) };
    if result == 0 { Ok(Done::Unit) } else { hint_refused(io::Error::last_os_error()) }
}

/// A hint that the file system does not know is no error.
pub(crate) fn hint_refused(error: io::Error) -> io::Result<Done> {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ESPIPE) => Ok(Done::Unit),
        _ => Err(error),
    }
}

/// Drops the file's clean pages from the page cache.
pub(crate) fn drop_cache(fd: &OwnedFd) -> io::Result<Done> {
    rustix::fs::fadvise(fd, 0, None, Advice::DontNeed)?;
    Ok(Done::Unit)
}

/// Allocates room up to `bytes`.
pub(crate) fn allocate(fd: &OwnedFd, bytes: u64) -> io::Result<Done> {
    allocate_by(fd, bytes, || rustix::fs::fallocate(fd.as_fd(), FallocateFlags::empty(), 0, bytes))
}

fn allocate_by(
    fd: &OwnedFd,
    bytes: u64,
    fallocate: impl FnMut() -> rustix::io::Result<()>,
) -> io::Result<Done> {
    // a signal that came first stops nobody: what was allocated until then may stay
    match rustix::io::retry_on_intr(fallocate) {
        Ok(()) => Ok(Done::Unit),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => lengthen(fd, bytes),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a file longer on a file system that cannot allocate: the writes that follow do.
pub(crate) fn lengthen(fd: &OwnedFd, bytes: u64) -> io::Result<Done> {
    if file_bytes(fd.as_fd())? < bytes {
        rustix::fs::ftruncate(fd, bytes)?;
    }
    Ok(Done::Unit)
}

/// Cuts the file.
pub(crate) fn truncate(fd: &OwnedFd, bytes: u64) -> io::Result<Done> {
    rustix::fs::ftruncate(fd, bytes)?;
    Ok(Done::Unit)
}

/// Renames.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<Done> {
    rustix::fs::rename(from, to)?;
    Ok(Done::Unit)
}

/// Removes a name.
pub(crate) fn remove(path: &Path) -> io::Result<Done> {
    rustix::fs::unlink(path)?;
    Ok(Done::Unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_signal_does_not_end_an_allocation() {
        let file = tempfile::tempfile().expect("a file");
        let fd = OwnedFd::from(file);
        let allocate = |answers: &[rustix::io::Result<()>]| {
            let mut answers = answers.iter();
            let done = allocate_by(&fd, 5_000, || *answers.next().expect("not asked again"));
            assert_eq!(answers.len(), 0, "asked until it is decided");
            done
        };
        let intr = Err(Errno::INTR);
        assert!(matches!(allocate(&[intr, intr, Ok(())]), Ok(Done::Unit)));
        let full = allocate(&[intr, Err(Errno::NOSPC)]).expect_err("no room");
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(file_bytes(fd.as_fd()).expect("its length"), 0);
        assert!(matches!(allocate(&[intr, Err(Errno::OPNOTSUPP)]), Ok(Done::Unit)));
        assert_eq!(file_bytes(fd.as_fd()).expect("its length"), 5_000);
        assert!(matches!(super::allocate(&fd, 9_000), Ok(Done::Unit)));
        assert_eq!(file_bytes(fd.as_fd()).expect("its length"), 9_000);
    }
}
