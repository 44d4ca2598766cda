//! A disk on an io_uring: the thread that owns it hands over operations and waits for their ends and for its waker in
//! one system call.
//!
//! ```text
//! WriteDurable   O_DIRECT file:  write with RWF_DSYNC                     one completion
//!                other file:     write --(link)--> fdatasync              two; one fails: the operation failed
//! the rest       read, write, sync_file_range, fsync, openat, fallocate, renameat, unlinkat, close: one each
//! at once        listing and making directories, cutting, dropping the cache, mapping (opening only, or nothing that
//!                waits)
//! waker          a poll of its eventfd, armed again after it fired
//! ```
//! Rules
//! - The ring belongs to the thread that made it (single issuer): it defers the kernel's work to that thread's own
//!   system calls, so that nothing interrupts it.
//! - A buffer belongs to the operation until its last completion was seen; if the disk goes before that, the buffer is
//!   leaked rather than freed under the kernel's hands.
//! - A file is opened with O_DIRECT (unless it is to be `cached`) if the file system takes it and its alignment is no
//!   larger than [`BLOCK_BYTES`], as statx tells; else through the page cache.
#![allow(unsafe_code, reason = "submission entries hold raw pointers")]

use super::map::MappedFile;
use super::{BLOCK_BYTES, Completion, Disk, Done, FileId, FileMap, IoBuf, Op, Token, Waker, plain};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries of the submission queue; what does not fit waits. The log has a handful under way.
const RING_ENTRIES: u32 = 64;
/// Marks the waker's completion.
const WAKER_DATA: u64 = u64::MAX;
/// Set in the data of the sync that is linked behind a write; the bits above are the flight's slot.
const SYNC_PART: u64 = 1;
/// statx: the alignment for direct I/O is given (linux/stat.h).
const STATX_DIOALIGN: u32 = 0x2000;

/// What is under way, and all that the kernel may look at meanwhile.
#[derive(Debug)]
struct Flight {
    token: Token,
    kind: Kind,
    buf: Option<IoBuf>,
    /// Path names the kernel reads.
    names: [Option<CString>; 2],
    /// Completions still to come.
    awaited: u8,
    result: io::Result<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open { direct: bool, create: bool },
    Read { file: FileId, offset: u64 },
    Write,
    WriteBack,
    Allocate { file: FileId, bytes: u64 },
    Plain,
}

/// The disk.
pub struct UringDisk {
    ring: IoUring,
    files: plain::Files,
    /// Directories opened to be synced.
    dirs: BTreeMap<PathBuf, OwnedFd>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    under_way: usize,
    /// Entries that found no room in the ring; those of one operation stay together.
    backlog: VecDeque<[Option<Entry>; 2]>,
    completed: Vec<Completion>,
    /// Kept for its memory: what one look at the ring gave.
    ended: Vec<(u64, i32)>,
    next_token: u64,
    waker: Waker,
    waker_armed: bool,
    deferred: bool,
    direct_refused: bool,
    can_truncate: bool,
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UringDisk({} under way)", self.under_way)
    }
}

impl UringDisk {
    /// A ring of the calling thread's own.
    ///
    /// # Errors
    /// The kernel refuses a ring, or it lacks an operation that the log needs.
    pub fn open() -> io::Result<UringDisk> {
        let (ring, deferred) = build_ring()?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::Fsync::CODE,
            opcode::SyncFileRange::CODE,
            opcode::OpenAt::CODE,
            opcode::Close::CODE,
            opcode::Fallocate::CODE,
            opcode::RenameAt::CODE,
            opcode::UnlinkAt::CODE,
            opcode::PollAdd::CODE,
        ];
        if !ring.params().is_feature_ext_arg() || needed.iter().any(|code| !probe.is_supported(*code)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old"));
        }
        Ok(UringDisk {
            ring,
            files: plain::Files::default(),
            dirs: BTreeMap::new(),
            flights: Vec::new(),
            free: Vec::new(),
            under_way: 0,
            backlog: VecDeque::new(),
            completed: Vec::new(),
            ended: Vec::new(),
            next_token: 0,
            waker: Waker::new()?,
            waker_armed: false,
            deferred,
            direct_refused: false,
            can_truncate: probe.is_supported(opcode::Ftruncate::CODE),
        })
    }

    /// The same disk, which does not try O_DIRECT: durable writes are a write and a linked fdatasync.
    pub fn without_direct(mut self) -> UringDisk {
        self.direct_refused = true;
        self
    }

    /// Starts an operation on the ring, or says how it failed before it could.
    fn start(&mut self, token: Token, op: Op) {
        let mut flight =
            Flight { token, kind: Kind::Plain, buf: None, names: [None, None], awaited: 1, result: Ok(0) };
        let entries = self.entries(op, &mut flight);
        match entries {
            Ok(entries) => self.push(flight, entries),
            Err(Immediate(result)) => {
                self.completed.push(Completion { token, buf: flight.buf, result });
            }
        }
    }

    /// The submission entries of an operation; what they point to is kept in `flight`.
    fn entries(&mut self, op: Op, flight: &mut Flight) -> Result<[Option<Entry>; 2], Immediate> {
        let entry = match op {
            Op::CreateDir { dir } => return Err(Immediate(plain::create_dir(&dir))),
            Op::List { dir } => return Err(Immediate(plain::list(&dir))),
            Op::DropCache { file } => {
                let dropped = self.files.get(file).and_then(|open| plain::drop_cache(&open.fd));
                return Err(Immediate(dropped));
            }
            Op::SyncDir { dir } => opcode::Fsync::new(Fd(self.dir(dir)?)).build(),
            Op::Open { path, create, cached } => self.open_entry(&path, create, cached, flight)?,
            Op::Close { file } => {
                let open = self.files.remove(file).map_err(failed)?;
                opcode::Close::new(Fd(std::os::fd::IntoRawFd::into_raw_fd(open.fd))).build()
            }
            Op::Read { file, offset, buf } => {
                flight.kind = Kind::Read { file, offset };
                let buf = flight.buf.insert(buf);
                let (start, len) = (buf.as_mut_ptr(), buf.len() as u32);
                opcode::Read::new(self.fd(file)?, start, len).offset(offset).build()
            }
            Op::Write { file, offset, buf } => {
                flight.kind = Kind::Write;
                let buf = flight.buf.insert(buf);
                opcode::Write::new(self.fd(file)?, buf.as_ptr(), buf.len() as u32).offset(offset).build()
            }
            Op::WriteDurable { file, offset, buf } => return self.durable_entries(file, offset, buf, flight),
            Op::WriteBack { file, offset, bytes } => {
                flight.kind = Kind::WriteBack;
                opcode::SyncFileRange::new(self.fd(file)?, plain::write_back_bytes(bytes))
                    .offset(offset)
                    .flags(plain::WRITE_BACK_FLAGS)
                    .build()
            }
            Op::Sync { file } => datasync(self.fd(file)?),
            Op::Allocate { file, bytes } => {
                flight.kind = Kind::Allocate { file, bytes };
                opcode::Fallocate::new(self.fd(file)?, bytes).build()
            }
            Op::Truncate { file, bytes } if self.can_truncate => {
                opcode::Ftruncate::new(self.fd(file)?, bytes).build()
            }
            Op::Truncate { file, bytes } => {
                return Err(Immediate(
                    self.files.get(file).and_then(|open| plain::truncate(&open.fd, bytes)),
                ));
            }
            Op::Rename { from, to } => {
                let (from, to) = (name(&from)?, name(&to)?);
                let cwd = libc::AT_FDCWD;
                let entry = opcode::RenameAt::new(Fd(cwd), from.as_ptr(), Fd(cwd), to.as_ptr()).build();
                flight.names = [Some(from), Some(to)];
                entry
            }
            Op::Remove { path } => {
                let path = name(&path)?;
                let entry = opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build();
                flight.names = [Some(path), None];
                entry
            }
        };
        Ok([Some(entry), None])
    }

    fn open_entry(
        &mut self,
        path: &Path,
        create: bool,
        cached: bool,
        flight: &mut Flight,
    ) -> Result<Entry, Immediate> {
        let direct = !self.direct_refused && !cached;
        let mut flags = plain::open_flags(create);
        if direct {
            flags |= OFlags::DIRECT;
        }
        let path = name(path)?;
        let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr())
            .flags(flags.bits() as i32)
            .mode(plain::FILE_MODE.bits())
            .build();
        flight.kind = Kind::Open { direct, create };
        flight.names = [Some(path), None];
        Ok(entry)
    }

    fn durable_entries(
        &mut self,
        file: FileId,
        offset: u64,
        buf: IoBuf,
        flight: &mut Flight,
    ) -> Result<[Option<Entry>; 2], Immediate> {
        flight.kind = Kind::Write;
        let buf = flight.buf.insert(buf);
        let (start, len) = (buf.as_ptr(), buf.len() as u32);
        let fd = self.fd(file)?;
        let write = opcode::Write::new(fd, start, len).offset(offset);
        if self.files.get(file).map_err(failed)?.direct {
            return Ok([Some(write.rw_flags(libc::RWF_DSYNC).build()), None]);
        }
        flight.awaited = 2;
        Ok([Some(write.build().flags(Flags::IO_LINK)), Some(datasync(fd))])
    }

    fn fd(&self, file: FileId) -> Result<Fd, Immediate> {
        self.files.get(file).map(|open| Fd(open.fd.as_raw_fd())).map_err(failed)
    }

    /// A directory's descriptor; opened once, it stays open.
    fn dir(&mut self, dir: PathBuf) -> Result<RawFd, Immediate> {
        if let Some(open) = self.dirs.get(&dir) {
            return Ok(open.as_raw_fd());
        }
        let open = plain::open_dir(&dir).map_err(failed)?;
        Ok(self.dirs.entry(dir).or_insert(open).as_raw_fd())
    }

    fn push(&mut self, flight: Flight, entries: [Option<Entry>; 2]) {
        let slot = self.free.pop().unwrap_or(self.flights.len());
        if slot == self.flights.len() {
            self.flights.push(None);
        }
        self.flights[slot] = Some(flight);
        self.under_way += 1;
        let [first, second] = entries;
        let data = (slot as u64) << 1;
        let tagged =
            [first.map(|entry| entry.user_data(data)), second.map(|entry| entry.user_data(data | SYNC_PART))];
        self.backlog.push_back(tagged);
        self.fill_ring();
    }

    /// Moves what waits into the ring, as far as there is room.
    fn fill_ring(&mut self) {
        while let Some(entries) = self.backlog.front() {
            let mut queue = self.ring.submission();
            // SAFETY: buffers and names that the entries point to are owned by their Flight, which stays in `flights`
            // until all its completions came, and neither moves in memory while the Flight does (IoBuf and CString
            // own heap memory). If the disk is dropped before, they are leaked. Descriptors stay open as long: a
            // file is closed only by an operation of its own, which its owner starts when nothing else is under way.
            let pushed = unsafe {
                match entries {
                    [Some(first), Some(second)] => queue.push_multiple(&[first.clone(), second.clone()]),
                    [Some(only), None] | [None, Some(only)] => queue.push(only),
                    [None, None] => Ok(()),
                }
            };
            drop(queue);
            if pushed.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn arm_waker(&mut self) {
        if self.waker_armed {
            return;
        }
        if let Some(event) = self.waker.event() {
            let poll = opcode::PollAdd::new(Fd(event.as_raw_fd()), libc::POLLIN as u32);
            let entry = poll.build().user_data(WAKER_DATA);
            // SAFETY: the entry points to no memory; the eventfd lives as long as the waker, which self holds.
            self.waker_armed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        }
    }

    /// Hands over what is in the ring and lets the kernel do its deferred work, without waiting.
    fn enter(&mut self) {
        let (waiting, work) = {
            let queue = self.ring.submission();
            (!queue.is_empty(), queue.taskrun() || queue.cq_overflow())
        };
        if waiting || work {
            // an error (a signal, or a full completion queue) leaves all as it is, for the next time
            let _ = self.ring.submit();
        }
    }

    /// Takes what the kernel completed.
    fn reap(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        ended.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (data, result) in ended.drain(..) {
            if data == WAKER_DATA {
                self.waker_armed = false;
                self.waker.drain();
            } else {
                self.end((data >> 1) as usize, data & SYNC_PART != 0, result);
            }
        }
        self.ended = ended;
        self.fill_ring();
    }

    fn end(&mut self, slot: usize, sync_part: bool, result: i32) {
        let Some(place) = self.flights.get_mut(slot) else { return };
        let Some(flight) = place.as_mut() else { return };
        flight.awaited -= 1;
        flight.note(sync_part, result);
        if flight.awaited > 0 {
            return;
        }
        let Some(flight) = place.take() else { return };
        self.free.push(slot);
        self.under_way -= 1;
        let (token, buf, result) = self.finish(flight);
        self.completed.push(Completion { token, buf, result });
    }

    fn finish(&mut self, flight: Flight) -> (Token, Option<IoBuf>, io::Result<Done>) {
        let Flight { token, kind, mut buf, names, result, .. } = flight;
        let result = match (kind, result) {
            (Kind::Open { direct: true, create }, Err(error))
                if error.raw_os_error() == Some(libc::EINVAL) =>
            {
                self.open_buffered(&names, create)
            }
            (Kind::WriteBack, Err(error)) => plain::hint_refused(error),
            (Kind::Allocate { file, bytes }, Err(error))
                if error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                self.files.get(file).and_then(|open| plain::lengthen(&open.fd, bytes))
            }
            // interrupted, which is no answer: once more, without the ring
            (Kind::Allocate { file, bytes }, Err(error)) if error.raw_os_error() == Some(libc::EINTR) => {
                self.files.get(file).and_then(|open| plain::allocate(&open.fd, bytes))
            }
            (_, Err(error)) => Err(error),
            (Kind::Open { direct, .. }, Ok(fd)) => self.opened(fd, direct),
            (Kind::Read { file, offset }, Ok(read)) => {
                self.read_rest(file, offset, read as usize, buf.as_mut())
            }
            (Kind::Write | Kind::WriteBack | Kind::Allocate { .. } | Kind::Plain, Ok(_)) => Ok(Done::Unit),
        };
        (token, buf, result)
    }

    fn opened(&mut self, fd: i32, direct: bool) -> io::Result<Done> {
        // SAFETY: the kernel just gave this descriptor to this operation alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let bytes = plain::file_bytes(fd.as_fd())?;
        let direct = direct && direct_fits(&fd);
        if !direct {
            let flags = rustix::fs::fcntl_getfl(&fd)?;
            rustix::fs::fcntl_setfl(&fd, flags - OFlags::DIRECT)?;
        }
        Ok(Done::Opened(self.files.insert(fd, direct), bytes))
    }

    /// The file system refuses O_DIRECT: this file, and all later ones, go through the page cache.
    fn open_buffered(&mut self, names: &[Option<CString>; 2], create: bool) -> io::Result<Done> {
        self.direct_refused = true;
        let path = names[0].as_ref().ok_or_else(|| io::Error::other("a file without a name"))?;
        // some file systems have made the file by the time they refuse the flag
        let flags = plain::open_flags(create) - OFlags::EXCL;
        let fd = rustix::fs::open(path.as_c_str(), flags, plain::FILE_MODE)?;
        let bytes = plain::file_bytes(fd.as_fd())?;
        Ok(Done::Opened(self.files.insert(fd, false), bytes))
    }

    /// The ring may give fewer bytes than the file has: the rest, so that short means the end of the file.
    fn read_rest(&self, file: FileId, offset: u64, read: usize, buf: Option<&mut IoBuf>) -> io::Result<Done> {
        let Some(buf) = buf else { return Err(io::Error::other("a read without a buffer")) };
        let open = self.files.get(file)?;
        let there = plain::file_bytes(open.fd.as_fd())?.saturating_sub(offset);
        if read as u64 >= there.min(buf.len() as u64) {
            return Ok(Done::Read(read));
        }
        plain::read(&open.fd, buf, offset)
    }
}

/// Why an operation needs no ring: its result.
struct Immediate(io::Result<Done>);

fn failed(error: io::Error) -> Immediate {
    Immediate(Err(error))
}

fn name(path: &Path) -> Result<CString, Immediate> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in a path")))
}

fn datasync(fd: Fd) -> Entry {
    opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()
}

/// A ring, as good as the kernel gives it, and whether its work is deferred.
fn build_ring() -> io::Result<(IoUring, bool)> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(RING_ENTRIES);
    match deferred {
        Ok(ring) => Ok((ring, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((IoUring::new(RING_ENTRIES)?, false)),
        Err(error) => Err(error),
    }
}

/// Whether our blocks are aligned enough for direct I/O on this file. A kernel that does not tell is believed if it
/// took the flag: blocks of 4,096 are enough for usual disks.
fn direct_fits(fd: &OwnedFd) -> bool {
    let wanted = StatxFlags::from_bits_retain(STATX_DIOALIGN);
    match rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted) {
        Ok(stat) if stat.stx_mask & STATX_DIOALIGN != 0 => {
            let fits = |align: u32| align > 0 && (BLOCK_BYTES as u32).is_multiple_of(align);
            fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align)
        }
        _ => true,
    }
}

impl Flight {
    /// One of its completions: the first error stays, and a cancelled link (-125) is one.
    fn note(&mut self, sync_part: bool, result: i32) {
        if self.result.is_err() {
            return;
        }
        let asked = self.buf.as_ref().map_or(0, IoBuf::len);
        self.result = if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else if self.kind == Kind::Write && !sync_part && result as usize != asked {
            Err(plain::short_write(result as usize, asked))
        } else {
            Ok(result)
        };
    }
}

impl Disk for UringDisk {
    fn submit(&mut self, op: Op) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let urgent = matches!(op, Op::WriteDurable { .. });
        self.start(token, op);
        if urgent {
            // on its way now, whatever the thread does before it waits
            self.enter();
        }
        token
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.enter();
        self.reap();
        out.append(&mut self.completed);
    }

    fn wait(&mut self, timeout_us: Option<u64>) {
        self.reap();
        if !self.completed.is_empty() || !self.waker.before_sleep() {
            return;
        }
        self.arm_waker();
        // an error is a wake-up like any other: the time is up (ETIME), or a signal came
        let _ = match timeout_us {
            None => self.ring.submit_and_wait(1),
            Some(us) => {
                let timeout = Timespec::new().sec(us / 1_000_000).nsec((us % 1_000_000 * 1_000) as u32);
                let args = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        self.waker.after_sleep();
        self.reap();
    }

    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>> {
        Ok(Arc::new(MappedFile::open(path)?))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn describe(&self) -> String {
        let mode = if self.deferred { "single issuer, deferred work" } else { "without deferred work" };
        let writes =
            if self.direct_refused { "write and fdatasync linked" } else { "O_DIRECT and RWF_DSYNC" };
        format!("io_uring ({mode}; {writes})")
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        // what is still under way keeps its memory: the kernel may yet read or write it
        for flight in self.flights.drain(..).flatten() {
            std::mem::forget(flight);
        }
    }
}
