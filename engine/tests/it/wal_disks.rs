//! The real disks: io_uring and plain system calls, on the file system of the build directory.

use crate::wal_rig::{Content, OWNER, open};
use bytes::Bytes;
use coffer_engine::disk::uring::UringDisk;
use coffer_engine::disk::{Disk, DiskIo, Done, IoBuf, Op, open_disk};
use coffer_engine::error::Fault;
use coffer_engine::wal::{EntryKind, HardState, LogEntry, NewBatch, Opened, Space, Wal, WalOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory on a real file system, not one in memory.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the test")
}

/// The disks that this machine has; io_uring is left out visibly.
fn disks() -> Vec<DiskIo> {
    match UringDisk::open() {
        Ok(_) => vec![DiskIo::Uring, DiskIo::Sync],
        Err(error) => {
            eprintln!("SKIPPED: io_uring, the kernel refuses it: {error}");
            vec![DiskIo::Sync]
        }
    }
}

fn run(disk: &mut dyn Disk, op: Op) -> io::Result<Done> {
    let token = disk.submit(op);
    let mut out = Vec::new();
    loop {
        disk.poll(&mut out);
        if let Some(place) = out.iter().position(|completion| completion.token == token) {
            return out.swap_remove(place).result;
        }
        disk.wait(None);
    }
}

struct Log {
    disk: Box<dyn Disk>,
    wal: Wal,
    opened: Opened,
    content: Content,
    now: u64,
}

impl Log {
    fn open(dir: &Path, choice: DiskIo) -> Result<Log, Fault> {
        let mut disk = open_disk(choice).expect("the disk opens");
        let (wal, opened, content) = open(disk.as_mut(), options(dir), 0)?;
        Ok(Log { disk, wal, opened, content, now: 0 })
    }

    fn append(&mut self, count: u64, len: usize) -> u64 {
        let first = self.content.last_index() + 1;
        let entries: Vec<LogEntry> = (first..first + count)
            .map(|index| LogEntry {
                index,
                term: 1 + index / 100,
                kind: EntryKind::Normal,
                data: Bytes::from(vec![index as u8; len]),
            })
            .collect();
        let hard_state = HardState { term: 1 + first / 100, vote: 1, commit: first - 1 };
        self.content.apply(hard_state, &entries);
        self.wal.append(NewBatch { hard_state, entries })
    }

    /// One turn as a core thread makes it; its clock goes by waits.
    fn turn(&mut self) -> Result<(), Fault> {
        self.wal.step(self.disk.as_mut(), self.now)?;
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        if completions.is_empty() {
            self.disk.wait(Some(200));
            self.now += 200;
        }
        for completion in completions {
            assert!(self.wal.complete(completion, self.now).is_none());
        }
        Ok(())
    }

    fn settle_until(&mut self, seq: u64) {
        while self.wal.durable() < seq {
            self.turn().expect("no fault");
        }
    }

    fn close(mut self) -> Content {
        self.wal.close();
        while !self.wal.closed() {
            self.turn().expect("no fault");
        }
        self.content
    }
}

fn options(dir: &Path) -> WalOptions {
    WalOptions {
        segment_bytes_min: 256 << 10,
        segment_bytes_max: 1 << 20,
        entry_bytes_max: 64 << 10,
        ..WalOptions::new(dir.join("wal"), OWNER, 7)
    }
}

#[test]
fn a_log_on_a_real_disk_is_written_closed_and_opened_again_by_either_disk() {
    let dir = directory();
    let mut content = Content::default();
    for round in 0..3 {
        for choice in disks() {
            let mut log = Log::open(dir.path(), choice).expect("it opens");
            assert_eq!(log.content, content, "round {round} with {}", log.disk.describe());
            assert!(log.opened.torn.is_empty());
            for _ in 0..40 {
                let seq = log.append(20, 700);
                log.settle_until(seq);
            }
            let stats = log.wal.stats().clone();
            println!("{}: {} writes, {} bytes", log.disk.describe(), stats.writes, stats.bytes_written);
            content = log.close();
        }
    }
    assert!(std::fs::read_dir(dir.path().join("wal")).expect("it is there").count() > 6);
}

#[test]
fn a_log_that_is_dropped_in_the_middle_of_its_work_has_all_that_was_acknowledged() {
    for choice in disks() {
        let dir = directory();
        let mut before = Content::default();
        for life in 0..10 {
            let mut log = Log::open(dir.path(), choice).expect("it opens");
            let acked = before.last_index();
            let found = log.content.last_index();
            assert!(found >= acked, "life {life}: {found} entries of {acked} acknowledged");
            log.content = log.content.clone();
            let mut last = 0;
            for _ in 0..10 {
                last = log.append(5, 300);
                log.turn().expect("no fault");
            }
            log.settle_until(last - 3);
            // what is acknowledged: all but what the last three appended
            before = log.content.clone();
            let cut = before.last_index() - 15;
            before.entries.split_off(&(cut + 1));
        }
    }
}

#[test]
fn io_uring_says_how_it_writes() {
    if let Ok(mut disk) = UringDisk::open() {
        let dir = directory();
        let path = dir.path().join("file");
        run(&mut disk, Op::Open { path, create: true, cached: false }).expect("it is made");
        let text = disk.describe();
        println!("{text}");
        assert!(text.starts_with("io_uring"), "{text}");
    } else {
        eprintln!("SKIPPED: the kernel refuses io_uring");
    }
}

#[test]
fn where_o_direct_is_refused_a_write_and_a_sync_are_linked_and_the_log_works_the_same() {
    let Ok(disk) = UringDisk::open() else {
        eprintln!("SKIPPED: the kernel refuses io_uring");
        return;
    };
    let dir = directory();
    let mut disk = disk.without_direct();
    let path = dir.path().join("file");
    let Ok(Done::Opened(file, 0)) =
        run(&mut disk, Op::Open { path: path.clone(), create: true, cached: false })
    else {
        panic!("not made");
    };
    let mut buf = IoBuf::zeroed(8192);
    buf.as_mut_slice().fill(9);
    run(&mut disk, Op::WriteDurable { file, offset: 4096, buf }).expect("written");
    let content = std::fs::read(path).expect("it is there");
    assert_eq!((content.len(), content[4095], content[4096], content[12287]), (12288, 0, 9, 9));
    assert!(disk.describe().contains("linked"), "{}", disk.describe());

    let (wal, opened, content) = open(&mut disk, options(dir.path()), 0).expect("it opens");
    let mut log = Log { disk: Box::new(disk), wal, opened, content, now: 0 };
    for _ in 0..20 {
        let seq = log.append(20, 700);
        log.settle_until(seq);
    }
    let content = log.close();
    assert_eq!(Log::open(dir.path(), DiskIo::Sync).expect("it opens").content, content);
}

#[test]
fn a_failed_write_is_an_error_with_its_number_on_every_disk() {
    for choice in disks() {
        let mut disk = open_disk(choice).expect("it opens");
        let full = Op::Open { path: PathBuf::from("/dev/full"), create: false, cached: false };
        match run(disk.as_mut(), full) {
            Ok(Done::Opened(file, _)) => {
                let op = Op::WriteDurable { file, offset: 0, buf: IoBuf::zeroed(4096) };
                let error = run(disk.as_mut(), op).expect_err("there is no room");
                let number = error.raw_os_error();
                assert!(
                    number == Some(libc::ENOSPC)
                        || number == Some(libc::EINVAL)
                        || number == Some(libc::ECANCELED),
                    "{choice:?}: {error}"
                );
            }
            other => eprintln!("SKIPPED: /dev/full does not open: {other:?}"),
        }
        let missing = Op::Open { path: PathBuf::from("/nowhere/at/all"), create: false, cached: false };
        let error = run(disk.as_mut(), missing).expect_err("it is not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn a_waker_ends_a_wait_from_another_thread_and_before_it_begins() {
    for choice in disks() {
        let mut disk = open_disk(choice).expect("it opens");
        let waker = disk.waker();
        waker.wake();
        disk.wait(None);
        let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = gone.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..1_000 {
                    waker.wake();
                    std::thread::yield_now();
                }
                gone.store(true, std::sync::atomic::Ordering::SeqCst);
                waker.wake();
            });
            // hangs if a wake-up is lost
            while !seen.load(std::sync::atomic::Ordering::SeqCst) {
                disk.wait(None);
            }
        });
    }
}

/// A small file system of its own, if this machine permits.
struct Mounted {
    dir: tempfile::TempDir,
    point: PathBuf,
}

impl Mounted {
    fn new(bytes: u64) -> Option<Mounted> {
        let dir = directory();
        let (image, point) = (dir.path().join("image"), dir.path().join("mounted"));
        std::fs::create_dir(&point).ok()?;
        std::fs::File::create(&image).ok()?.set_len(bytes).ok()?;
        let done = |program: &str, args: &[&std::ffi::OsStr]| {
            Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
        };
        let made = done("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]);
        let mounted =
            made && done("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), point.as_os_str()]);
        mounted.then_some(Mounted { dir, point })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.point).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("left mounted: {} (in {})", self.point.display(), self.dir.path().display());
        }
    }
}

#[test]
fn on_a_full_file_system_the_log_refuses_reads_on_and_heals_when_a_filler_goes() {
    for choice in disks() {
        let Some(mounted) = Mounted::new(16 << 20) else {
            eprintln!("SKIPPED: no file system can be mounted here; the simulated disk covers it");
            return;
        };
        let filler = mounted.point.join("filler");
        let mut log = Log::open(&mounted.point, choice).expect("it opens");
        let seq = log.append(1, 100);
        log.settle_until(seq);
        fill_up(&filler);
        // until the log says that only the reserve is left
        let mut appended = 0u64;
        while log.wal.space() == Space::Ample {
            let seq = log.append(1, 30_000);
            appended += 1;
            while log.wal.durable() < seq && log.wal.space() == Space::Ample {
                log.turn().expect("out of space is no failed write");
            }
        }
        // the reserve takes what makes room
        let seq = log.append(1, 100);
        log.settle_until(seq);
        let mut reader = open_disk(choice).expect("it opens");
        let (_, _, found) =
            open(reader.as_mut(), options(&mounted.point), 0).expect("a full disk can be read");
        assert_eq!(found.last_index(), log.content.last_index());
        drop(reader);
        println!("{}: {appended} batches until the reserve", log.disk.describe());
    }
    // opening again, with the disk still full, and going on once the filler is gone
    for choice in disks() {
        let Some(mounted) = Mounted::new(16 << 20) else { return };
        let filler = mounted.point.join("filler");
        let mut log = Log::open(&mounted.point, choice).expect("it opens");
        let seq = log.append(1, 100);
        log.settle_until(seq);
        fill_up(&filler);
        let mut seqs = Vec::new();
        for _ in 0..200 {
            seqs.push(log.append(1, 30_000));
            log.turn().expect("out of space is no failed write");
        }
        while log.wal.space() == Space::Ample {
            log.turn().expect("out of space is no failed write");
        }
        assert!(log.wal.durable() < *seqs.last().expect("appended"), "6 MB do not fit any more");
        std::fs::remove_file(&filler).expect("the filler goes");
        log.settle_until(*seqs.last().expect("appended"));
        while log.wal.space() == Space::Reserve {
            log.turn().expect("no fault");
        }
        let content = log.close();
        let again = Log::open(&mounted.point, choice).expect("it opens");
        assert_eq!(again.content, content);
    }
}

fn fill_up(filler: &Path) {
    let mut file = std::fs::File::create(filler).expect("the filler is made");
    let chunk = vec![7; 64 << 10];
    while io::Write::write_all(&mut file, &chunk).is_ok() {}
    let _ = file.sync_all();
}
