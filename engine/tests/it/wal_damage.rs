//! Damage: every bit of a log flipped, every sector zeroed. Opening must refuse, or find exactly what was there.
//!
//! *Refused*: opening names the damage. *Harmless*: it opens, and content, hard state and last sequence are the same as
//! before, by full comparison. *Silent*: anything else; there must be none.

use crate::wal_rig::{Content, Rig, open, segments, small_options};
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::error::Fault;
use coffer_engine::wal::{Opened, RecoveredBatch, Wal, WalOptions};
use std::path::{Path, PathBuf};

/// One bit in so many is also tried with a real opening, which changes files.
const OPENED_ONE_IN: usize = 509;

/// A log of several 20 KiB segments: recycled ones among them and in use, one cut after a kill, an idle mark at the
/// end, and segments allocated ahead behind it.
fn log() -> Rig {
    let mut rig = Rig::new(11, small_options(1));
    rig.run(25, 2000);
    rig.settle();
    while recycled_in_use(&rig.disk) == 0 {
        rig.released = rig.content.last_index() - 2;
        rig.wal.release(rig.released);
        rig.run(4, 1500);
        rig.settle();
    }
    rig.disk.kill();
    let before = rig.before();
    let mut rig = Rig::next_life(rig.disk, 12, small_options(2), &before).expect("it opens");
    rig.run(3, 1500);
    rig.settle();
    rig
}

/// Segments with a header of their own.
fn begun(disk: &SimDisk) -> Vec<Vec<u8>> {
    let files = segments(disk).into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_string();
        Some((u64::from_str_radix(&name, 16).ok()?, disk.read_file(&path)?))
    });
    let own =
        |(segment, file): &(u64, Vec<u8>)| file[..8] == *b"coffrSEG" && file[32..40] == segment.to_le_bytes();
    files.filter(own).map(|(_, file)| file).collect()
}

/// Segments that were begun after they had been recycled, by the flag in their headers.
fn recycled_in_use(disk: &SimDisk) -> usize {
    begun(disk).iter().filter(|file| file[92] & 1 == 1).count()
}

fn read(disk: &SimDisk, options: &WalOptions) -> Result<(Opened, Content), Fault> {
    let mut content = Content::default();
    let mut disk = disk.clone();
    let opened = Wal::read(&mut disk, options.clone(), &mut |batch: RecoveredBatch| {
        content.apply(batch.hard_state, &batch.entries);
        Ok(())
    })?;
    content.hard_state = opened.hard_state;
    Ok((opened, content))
}

/// What is compared.
fn outcome(read: (Opened, Content)) -> (u64, u64, Content) {
    (read.0.last_seq, read.0.epoch, read.1)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tried: u64,
    refused: u64,
    harmless: u64,
    silent: u64,
}

impl Counts {
    fn count(
        &mut self,
        expected: &(u64, u64, Content),
        found: Result<(Opened, Content), Fault>,
        file: &Path,
    ) {
        self.tried += 1;
        match found.map(outcome) {
            Ok(found) if found == *expected => self.harmless += 1,
            Ok(_) => self.silent += 1,
            Err(fault @ Fault::Corrupt { .. }) => {
                self.refused += 1;
                let named = fault.to_string();
                assert!(named.contains("/member/wal/"), "{named} ({})", file.display());
            }
            Err(fault) => panic!("{}: {fault}", file.display()),
        }
    }

    fn add(&mut self, other: Counts) {
        self.tried += other.tried;
        self.refused += other.refused;
        self.harmless += other.harmless;
        self.silent += other.silent;
    }
}

/// Flips every bit of some files, each read with the flip in place and then put right again.
fn flip_all(
    disk: &SimDisk,
    files: &[PathBuf],
    expected: &(u64, u64, Content),
    options: &WalOptions,
) -> Counts {
    let mut counts = Counts::default();
    for file in files {
        let bytes = disk.read_file(file).expect("it is there").len();
        for bit in 0..bytes * 8 {
            disk.flip_bit(file, (bit / 8) as u64, (bit % 8) as u8);
            counts.count(expected, read(disk, options), file);
            if bit % OPENED_ONE_IN == 0 {
                counts.count(expected, opened(disk, options), file);
            }
            disk.flip_bit(file, (bit / 8) as u64, (bit % 8) as u8);
        }
    }
    counts
}

/// Opens a copy for good, lets the log begin its next segment, and reads that again.
fn opened(disk: &SimDisk, options: &WalOptions) -> Result<(Opened, Content), Fault> {
    let mut rig = Rig::on(disk.fork(1), 1, options.clone())?;
    rig.settle();
    assert!(rig.fault.is_none());
    let (again, content) = read(&rig.disk, options)?;
    assert_eq!(
        (again.last_seq, &content),
        (rig.opened.last_seq, &rig.content),
        "a second opening finds the same"
    );
    Ok((rig.opened, rig.content))
}

#[test]
fn no_flipped_bit_and_no_zeroed_sector_is_silent() {
    let rig = log();
    let options = small_options(3);
    let files = segments(&rig.disk);
    let expected = outcome(read(&rig.disk, &options).expect("it is whole"));
    assert_eq!(expected.2.clone().above(rig.released), rig.content.clone().above(rig.released));
    let recycled = recycled_in_use(&rig.disk);
    let begun = begun(&rig.disk).len();
    println!("segments {} of 20 KiB: begun {begun}, recycled ones among these {recycled}", files.len());
    assert!(begun >= 3 && recycled > 0, "at least three in use, a recycled one among them");

    let (left, right) = files.split_at(files.len() / 2);
    let flips = std::thread::scope(|scope| {
        let copy = rig.disk.fork(1);
        let (expected, options) = (&expected, &options);
        let first = scope.spawn(move || flip_all(&copy, left, expected, options));
        let mut counts = flip_all(&rig.disk, right, expected, options);
        counts.add(first.join().expect("the first half passes"));
        counts
    });
    println!(
        "flips {}, refused {}, harmless {}, silent {}",
        flips.tried, flips.refused, flips.harmless, flips.silent
    );

    let mut zeroed = Counts::default();
    for file in &files {
        let bytes = rig.disk.read_file(file).expect("it is there").len() as u64;
        for sector in 0..bytes / 512 {
            let disk = rig.disk.fork(1);
            disk.zero_sector(file, sector * 512);
            zeroed.count(&expected, read(&disk, &options), file);
            zeroed.count(&expected, opened(&disk, &options), file);
        }
    }
    println!(
        "zeroed sectors {}, refused {}, harmless {}, silent {}",
        zeroed.tried, zeroed.refused, zeroed.harmless, zeroed.silent
    );
    assert_eq!((flips.silent, zeroed.silent), (0, 0));
    assert!(flips.refused > 50_000 && flips.harmless > 50_000 && zeroed.refused > 20);
}

/// Random flips on segments of 1 MiB; one for each thousand of them without COFFER_LONG.
#[test]
fn no_random_flip_in_large_segments_is_silent() {
    let long = std::env::var_os("COFFER_LONG").is_some();
    let flips = if long { 200_000 } else { 200 };
    let options = WalOptions {
        segment_bytes_min: 1 << 20,
        segment_bytes_max: 1 << 20,
        entry_bytes_max: 256 << 10,
        ..small_options(1)
    };
    let mut rig = Rig::new(5, options.clone());
    for _ in 0..40 {
        rig.run(2, 200 << 10);
        rig.settle();
    }
    let expected = outcome(read(&rig.disk, &options).expect("it is whole"));
    assert_eq!(expected.2, rig.content);
    let files = segments(&rig.disk);
    let mut rng = Rng::new(99);
    let mut counts = Counts::default();
    for _ in 0..flips {
        let file = &files[rng.below(files.len() as u64) as usize];
        let (byte, bit) = (rng.below(1 << 20), rng.below(8) as u8);
        rig.disk.flip_bit(file, byte, bit);
        counts.count(&expected, read(&rig.disk, &options), file);
        rig.disk.flip_bit(file, byte, bit);
    }
    println!(
        "segments {} of 1 MiB: flips {}, refused {}, harmless {}, silent {}",
        files.len(),
        counts.tried,
        counts.refused,
        counts.harmless,
        counts.silent
    );
    assert_eq!(counts.silent, 0);
    assert!(counts.refused > 0);
}

/// What the design grants: a batch acknowledged and damaged before the mark was out looks like an unfinished write.
#[test]
fn damage_to_the_last_batch_is_refused_once_the_mark_is_out_and_cut_and_reported_before() {
    let options = WalOptions { segment_bytes_min: 64 << 10, segment_bytes_max: 64 << 10, ..small_options(1) };
    let mut rig = Rig::new(3, options.clone());
    rig.run(3, 300);
    rig.settle();
    let first = rig.wal.durable();
    let seq = loop {
        let seq = rig.append_random(300);
        if !rig.appended.last().expect("just appended").1.entries.is_empty() {
            break seq;
        }
    };
    rig.settle_until(seq);
    let path = segments(&rig.disk)[0].clone();
    let end = rig.wal.stats().bytes_written;
    let place = end - 4096;
    let damaged = |rig: &Rig| {
        let mut disk = rig.disk.fork(1);
        disk.flip_bit(&path, place + 600, 3);
        open(&mut disk, options.clone(), 0).map(|(_, opened, _)| opened)
    };
    let opened = damaged(&rig).expect("beyond every mark: cut");
    assert!(opened.last_seq >= first && opened.last_seq < seq);
    assert_eq!(opened.torn.len(), 1, "and reported");
    rig.settle();
    let fault = damaged(&rig).expect_err("behind the mark: refused").to_string();
    assert!(fault.contains("the log was durable up to"), "{fault}");
    assert!(fault.contains("with entries"), "it tells what is lost: {fault}");
}
