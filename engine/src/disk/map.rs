//! A real file mapped for reading.
//!
//! ```text
//! file   |<------ 1 GiB ------>|<------ 1 GiB ------>|<---  ...
//! maps   |  mapped at first    |  mapped at first    |
//!        |  touch, whole       |  touch, whole       |
//! ```
//! An extent is mapped once, in its full length, even where the file is shorter, and stays until the map goes: so no
//! page ever moves in memory while the file grows. Nothing is stored through the map.
//!
//! Why a reference into it is sound: the kernel changes the bytes only when somebody writes to the file, and the file's
//! owner promises not to write a page while somebody may hold a reference to it ([`FileMap`](super::FileMap)). Another
//! process that writes or cuts the file is kept out by the directory's lock; nothing keeps out one that ignores it.
#![allow(unsafe_code, reason = "what is mapped is borrowed from the kernel")]

use super::bus::Mapped;
use super::{BLOCK_BYTES, FileMap, plain};
use memmap2::{Advice, Mmap, MmapOptions};
use rustix::fs::{Advice as FileAdvice, Mode, OFlags};
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Pages of one extent: 1 GiB.
const EXTENT_PAGES: u32 = 1 << 18;
/// Bytes of one extent.
const EXTENT_BYTES: usize = EXTENT_PAGES as usize * BLOCK_BYTES;
/// Extents that page numbers can reach.
const EXTENTS: usize = 1 << (32 - 18);

/// The file and its extents. A number below `EXTENTS` has a slot; an extent, once mapped, is never unmapped before the
/// whole goes.
pub(super) struct MappedFile {
    fd: OwnedFd,
    path: Arc<Path>,
    extents: Box<[OnceLock<Extent>]>,
}

/// A part of the file, mapped; the handler of bus errors forgets it before it is unmapped.
struct Extent {
    _known: Mapped,
    map: Mmap,
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = self.extents.iter().filter(|extent| extent.get().is_some()).count();
        write!(f, "MappedFile({mapped} extents)")
    }
}

impl MappedFile {
    /// Opens the file for a map of its own; nothing is mapped yet.
    pub(super) fn open(path: &Path) -> io::Result<MappedFile> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(MappedFile {
            fd,
            path: path.into(),
            extents: std::iter::repeat_with(OnceLock::new).take(EXTENTS).collect(),
        })
    }

    /// The extent in which a page lies, mapped now if it was not.
    fn extent(&self, page: u32) -> io::Result<&Mmap> {
        let number = page / EXTENT_PAGES;
        let slot = &self.extents[number as usize];
        if let Some(extent) = slot.get() {
            return Ok(&extent.map);
        }
        let offset = u64::from(number) * EXTENT_BYTES as u64;
        // SAFETY: the map is shared and read-only; what its references rely on is said in the module's head.
        let map = unsafe { MmapOptions::new().offset(offset).len(EXTENT_BYTES).map(&self.fd)? };
        // pages are read one by one; a kernel that does not take the hint reads too much, no more
        let _ = map.advise(Advice::Random);
        let known = Mapped::new(map.as_ptr(), EXTENT_BYTES, &self.path, offset);
        // if another thread was first, its extent stays and this one is unmapped, untouched
        Ok(&slot.get_or_init(|| Extent { _known: known, map }).map)
    }

    /// Populates pages of one extent.
    fn populate_within(&self, first: u32, pages: u32) -> io::Result<()> {
        let extent = self.extent(first)?;
        let offset = (first % EXTENT_PAGES) as usize * BLOCK_BYTES;
        match extent.advise_range(Advice::PopulateRead, offset, pages as usize * BLOCK_BYTES) {
            Ok(()) => Ok(()),
            // a kernel before 5.14
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.read_through(first, pages),
            Err(error) => Err(error),
        }
    }

    /// Reads pages through the page cache, so that a touch of the map finds them there (or, if they were dropped in
    /// between, finds a medium that gave them a moment ago).
    fn read_through(&self, first: u32, pages: u32) -> io::Result<()> {
        let mut buf = vec![0; BLOCK_BYTES];
        for page in first..first + pages {
            let mut filled = 0;
            while filled < BLOCK_BYTES {
                let offset = u64::from(page) * BLOCK_BYTES as u64 + filled as u64;
                match rustix::io::pread(&self.fd, &mut buf[filled..], offset) {
                    Ok(0) => return Err(beyond_the_end()),
                    Ok(read) => filled += read,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }
}

/// What a touch beyond the file's end gives.
pub(super) fn beyond_the_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before this page")
}

impl FileMap for MappedFile {
    fn page(&self, page: u32) -> &[u8; BLOCK_BYTES] {
        let extent = self.extent(page).expect("a page is populated, and so mapped, before it is read");
        let start = (page % EXTENT_PAGES) as usize * BLOCK_BYTES;
        let bytes: Result<&[u8; BLOCK_BYTES], _> = extent[start..start + BLOCK_BYTES].try_into();
        bytes.expect("a block's length is a block's length")
    }

    fn populate(&self, first: u32, pages: u32) -> io::Result<()> {
        let end = first.checked_add(pages).ok_or_else(beyond_the_end)?;
        // beyond the end a map has pages too, which nobody may touch; the call itself does not always say so
        let file_pages = plain::file_bytes(self.fd.as_fd())? / BLOCK_BYTES as u64;
        if u64::from(end) > file_pages {
            return Err(beyond_the_end());
        }
        if pages > 1 {
            self.read_ahead(first, pages);
        }
        let mut at = first;
        while at < end {
            let next = (at / EXTENT_PAGES + 1).saturating_mul(EXTENT_PAGES).min(end);
            self.populate_within(at, next - at)?;
            at = next;
        }
        Ok(())
    }

    fn read_ahead(&self, first: u32, pages: u32) {
        let offset = u64::from(first) * BLOCK_BYTES as u64;
        let len = NonZeroU64::new(u64::from(pages) * BLOCK_BYTES as u64);
        // a hint: whoever needs the pages populates them
        let _ = len.map(|len| rustix::fs::fadvise(&self.fd, offset, Some(len), FileAdvice::WillNeed));
    }

    fn is_in_memory(&self, page: u32) -> bool {
        let Ok(extent) = self.extent(page) else { return false };
        let start = (page % EXTENT_PAGES) as usize * BLOCK_BYTES;
        let block = extent[start..].as_ptr().cast_mut().cast();
        let mut told = 0_u8;
        // SAFETY: the block lies in an extent that stays mapped, and is only looked up in the kernel's tables, not touched;
        // for its one page (or the larger one it is a part of) the kernel stores one byte, for which there is room.
        let done = unsafe { libc::mincore(block, BLOCK_BYTES, &raw mut told) };
        done == 0 && told & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    fn file(pages: usize) -> (tempfile::TempDir, std::path::PathBuf, std::fs::File) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pages");
        let mut file = std::fs::File::options();
        let mut file = file.create_new(true).read(true).write(true).open(&path).expect("it is made");
        for page in 0..pages {
            file.write_all(&[page as u8; BLOCK_BYTES]).expect("written");
        }
        (dir, path, file)
    }

    #[test]
    fn a_map_sees_what_is_written_later_and_what_the_file_grows_by() {
        let (_dir, path, file) = file(3);
        let map = MappedFile::open(&path).expect("it maps");
        map.populate(0, 3).expect("it is there");
        assert_eq!(map.page(2)[4095], 2);
        assert!(map.populate(2, 2).is_err(), "page 3 is not there");
        file.write_all_at(&[9; BLOCK_BYTES], 3 * BLOCK_BYTES as u64).expect("written");
        map.populate(2, 2).expect("now it is");
        assert_eq!((map.page(3)[0], map.page(2)[0]), (9, 2));
        file.write_all_at(&[7; BLOCK_BYTES], 2 * BLOCK_BYTES as u64).expect("written");
        assert_eq!(map.page(2)[77], 7);
        assert!(map.is_in_memory(2));
        map.read_ahead(0, 4);
        // hints for what is not there do nothing
        map.read_ahead(4, 1);
        map.read_ahead(u32::MAX, u32::MAX);
        assert!(!map.is_in_memory(4) && !map.is_in_memory(u32::MAX));
        map.read_through(0, 4).expect("the way of old kernels");
        assert!(map.read_through(3, 2).is_err());
    }

    #[test]
    fn a_second_extent_is_mapped_where_the_first_ends() {
        let (_dir, path, file) = file(0);
        let (last, next) = (EXTENT_PAGES - 1, EXTENT_PAGES);
        file.write_all_at(&[5; 2 * BLOCK_BYTES], u64::from(last) * BLOCK_BYTES as u64)
            .expect("a sparse file");
        let map = MappedFile::open(&path).expect("it maps");
        map.populate(last, 2).expect("both are there");
        assert_eq!((map.page(last)[0], map.page(next)[4095]), (5, 5));
        assert!(format!("{map:?}").contains("2 extents"));
        assert!(map.populate(u32::MAX, 2).is_err());
    }
}
