//! A disk of plain system calls, for places where io_uring is forbidden: pwrite and fdatasync through the page cache.
//!
//! An operation is done while it is submitted; its completion is there at the next poll. So its owner hands it
//! nothing that takes long, except what must be durable before it goes on: filling goes in chunks.

use super::map::MappedFile;
use super::{Completion, Disk, Done, FileMap, IoBuf, Op, Token, Waker, plain};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The disk.
#[derive(Debug)]
pub struct PwriteDisk {
    files: plain::Files,
    completed: Vec<Completion>,
    next_token: u64,
    waker: Waker,
    /// Why there is no io_uring, if one was wanted.
    refusal: Option<io::Error>,
}

impl PwriteDisk {
    /// A disk; `refusal` says why it is not an io_uring.
    ///
    /// # Errors
    /// No eventfd could be made.
    pub fn open(refusal: Option<io::Error>) -> io::Result<PwriteDisk> {
        Ok(PwriteDisk {
            files: plain::Files::default(),
            completed: Vec::new(),
            next_token: 0,
            waker: Waker::new()?,
            refusal,
        })
    }

    fn run(&mut self, op: Op) -> (Option<IoBuf>, io::Result<Done>) {
        match op {
            Op::CreateDir { dir } => (None, plain::create_dir(&dir)),
            Op::List { dir } => (None, plain::list(&dir)),
            Op::SyncDir { dir } => (None, plain::sync_dir(&dir)),
            Op::Open { path, create, cached: _ } => (None, self.open_file(&path, create)),
            Op::Close { file } => (None, self.files.remove(file).map(|_closed| Done::Unit)),
            Op::Read { file, offset, mut buf } => {
                let result = self.files.get(file).and_then(|open| plain::read(&open.fd, &mut buf, offset));
                (Some(buf), result)
            }
            Op::Write { file, offset, buf } => {
                let result = self.files.get(file).and_then(|open| plain::write_all(&open.fd, &buf, offset));
                (Some(buf), result)
            }
            Op::WriteDurable { file, offset, buf } => {
                let result = self.files.get(file).and_then(|open| {
                    plain::write_all(&open.fd, &buf, offset)?;
                    plain::sync(&open.fd)
                });
                (Some(buf), result)
            }
            Op::WriteBack { file, offset, bytes } => {
                (None, self.files.get(file).and_then(|open| plain::write_back(&open.fd, offset, bytes)))
            }
            Op::Sync { file } => (None, self.files.get(file).and_then(|open| plain::sync(&open.fd))),
            Op::DropCache { file } => {
                (None, self.files.get(file).and_then(|open| plain::drop_cache(&open.fd)))
            }
            Op::Allocate { file, bytes } => {
                (None, self.files.get(file).and_then(|open| plain::allocate(&open.fd, bytes)))
            }
            Op::Truncate { file, bytes } => {
                (None, self.files.get(file).and_then(|open| plain::truncate(&open.fd, bytes)))
            }
            Op::Rename { from, to } => (None, plain::rename(&from, &to)),
            Op::Remove { path } => (None, plain::remove(&path)),
        }
    }

    fn open_file(&mut self, path: &Path, create: bool) -> io::Result<Done> {
        let flags: OFlags = plain::open_flags(create);
        let fd = rustix::fs::open(path, flags, plain::FILE_MODE)?;
        let bytes = plain::file_bytes(std::os::fd::AsFd::as_fd(&fd))?;
        Ok(Done::Opened(self.files.insert(fd, false), bytes))
    }
}

impl Disk for PwriteDisk {
    fn submit(&mut self, op: Op) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let (buf, result) = self.run(op);
        self.completed.push(Completion { token, buf, result });
        token
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.completed);
    }

    fn wait(&mut self, timeout_us: Option<u64>) {
        if !self.completed.is_empty() || !self.waker.before_sleep() {
            return;
        }
        if let Some(event) = self.waker.event() {
            let mut fds = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
            let timeout = timeout_us.map(timespec);
            // an error (a signal) is a wake-up like any other
            let _ = poll(&mut fds, timeout.as_ref());
        }
        self.waker.after_sleep();
        self.waker.drain();
    }

    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>> {
        Ok(Arc::new(MappedFile::open(path)?))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn describe(&self) -> String {
        match &self.refusal {
            None => "pwrite and fdatasync".to_string(),
            Some(refusal) => format!("pwrite and fdatasync (io_uring refused: {refusal})"),
        }
    }
}

fn timespec(us: u64) -> Timespec {
    Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: ((us % 1_000_000) * 1_000) as i64 }
}
