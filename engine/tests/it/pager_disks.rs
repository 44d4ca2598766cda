//! The page file on the real disks: io_uring and plain system calls.

use crate::pager_rig::{Before, Rig, small_options};
use coffer_engine::disk::uring::UringDisk;
use coffer_engine::disk::{Completion, Disk, DiskIo, FileMap, Op, Token, Waker, open_disk};
use coffer_engine::error::Fault;
use coffer_engine::pager::{Pager, PagerOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

fn options(dir: &Path) -> PagerOptions {
    PagerOptions {
        dirty_bytes: 2 << 20,
        checkpoint_wal_bytes: 1 << 20,
        path: page_file(dir),
        ..small_options(0)
    }
}

fn page_file(dir: &Path) -> PathBuf {
    dir.join("below").join("pages")
}

/// A [`Disk`] behind a box, as the shells have it.
fn life(dir: &Path, choice: DiskIo, before: &Before) -> Rig<BoxedDisk> {
    let disk = BoxedDisk(open_disk(choice).expect("the disk opens"));
    Rig::open(disk, 7, options(dir), before).expect("it opens")
}

struct BoxedDisk(Box<dyn Disk>);

impl Disk for BoxedDisk {
    fn submit(&mut self, op: Op) -> Token {
        self.0.submit(op)
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.0.poll(out);
    }

    fn wait(&mut self, timeout_us: Option<u64>) {
        self.0.wait(timeout_us);
    }

    fn map(&mut self, path: &Path) -> io::Result<Arc<dyn FileMap>> {
        self.0.map(path)
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[test]
fn a_page_file_lives_through_several_lives_on_every_disk() {
    for choice in disks() {
        let dir = directory();
        let mut before = Before::default();
        for life_number in 0..2 {
            let mut rig = life(dir.path(), choice, &before);
            assert_eq!(rig.opened.fresh, life_number == 0);
            for _ in 0..60 {
                rig.transaction(20, 20_000);
                rig.real_turn();
                rig.real_turn();
            }
            rig.pin();
            rig.fill(life_number * 2_500..(life_number + 1) * 2_500, 900);
            rig.real_settle();
            rig.check();
            rig.check_pins(0);
            let stats = rig.pager.stats();
            println!("{choice:?}, life {life_number}: {stats:?}");
            assert!(stats.checkpoints > 0);
            assert!(stats.file_bytes >= rig.pager.published().pages_end * 4096);
            let file = std::fs::metadata(page_file(dir.path())).expect("it is there");
            assert_eq!(file.len(), stats.file_bytes);
            before = rig.before();
        }
        // what the next life does not need is given back
        let mut rig = life(dir.path(), choice, &before);
        let long = rig.pager.stats().file_bytes;
        while rig.model.len() > 100 {
            rig.remove_last(500);
            rig.real_turn();
        }
        for _ in 0..3 {
            rig.fill(0..50, 500);
            rig.real_settle();
        }
        rig.pager.request_cut();
        for _ in 0..50 {
            rig.real_turn();
        }
        let short = rig.pager.stats().file_bytes;
        println!("{choice:?}: {long} bytes, {short} after the cut");
        assert!(short < long / 2);
        rig.check();
        let before = rig.before();
        drop(rig);
        life(dir.path(), choice, &before).check();
    }
}

#[test]
fn a_directory_in_its_place_is_refused_with_a_hint() {
    for choice in disks() {
        let dir = directory();
        std::fs::create_dir_all(page_file(dir.path())).expect("made");
        let mut disk = open_disk(choice).expect("the disk opens");
        let fault = Pager::open(disk.as_mut(), options(dir.path()), 0);
        let fault = fault.map(|_| ()).expect_err("a directory");
        assert!(matches!(fault, Fault::Unusable { .. }), "{choice:?}: {fault}");
    }
}
