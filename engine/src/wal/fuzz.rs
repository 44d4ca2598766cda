//! What a fuzzer of the log's reading runs (feature `sim`): bytes become segments on a simulated disk; reading them
//! never panics, and what it accepts hangs together.
//!
//! ```text
//! input: pieces, one after the other
//!   +---------+--------+-----------+---------------+
//!   | file  1 | at   1 | length  2 | bytes         |   at: in sectors of 512 bytes, length: little-endian
//!   +---------+--------+-----------+---------------+
//! ```
//! Pieces are laid over files of unused space, so that a whole log takes little more than what was written into it.
//! Built with `cfg(fuzzing)` all checksums match; then a fuzzer gets past them.

use super::segment::{SECTOR_BYTES, fill_with_stamp, is_stamp, segment_path};
use super::{HardState, LogEntry, NewBatch, RecoveredBatch, Wal, WalOptions};
use crate::disk::sim::SimDisk;
use crate::disk::{Completion, Disk};
use crate::error::Fault;
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// Length of every file, in bytes.
const FILE_BYTES: usize = 32 << 10;
/// Files there can be.
const FILES_MAX: u8 = 8;
/// Turns of the log after which it must be idle.
const TURNS_MAX: usize = 10_000;
/// Bytes that a fuzzer should know: the beginnings of header, batch and unused space.
pub const DICTIONARY: [&[u8]; 3] = [b"coffrSEG", b"coffrBAT", b"coffer: unused. "];

fn options() -> WalOptions {
    WalOptions {
        segment_bytes_min: FILE_BYTES as u64,
        segment_bytes_max: FILE_BYTES as u64,
        entry_bytes_max: 1024,
        ..WalOptions::new(PathBuf::from("/fuzz"), *b"fuzz, one member", 7)
    }
}

/// Lays the pieces of `input` over files of unused space.
fn files_of(input: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut files: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut rest = input;
    while let [file, at, low, high, more @ ..] = rest {
        let segment = u64::from(file % FILES_MAX) + 1;
        let start = usize::from(*at) * SECTOR_BYTES % FILE_BYTES;
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len()).min(FILE_BYTES - start);
        let (piece, behind) = more.split_at(len);
        let place = files.iter().position(|(known, _)| *known == segment).unwrap_or_else(|| {
            let mut fresh = vec![0; FILE_BYTES];
            fill_with_stamp(&mut fresh);
            files.push((segment, fresh));
            files.len() - 1
        });
        files[place].1[start..start + len].copy_from_slice(piece);
        rest = behind;
    }
    files
}

/// The input that gives the log on a disk: a seed for the fuzzer.
fn input_of(disk: &SimDisk) -> Vec<u8> {
    assert!(disk.files().len() <= usize::from(FILES_MAX), "an input holds at most {FILES_MAX} files");
    let mut input = Vec::new();
    for segment in 1..=u64::from(FILES_MAX) {
        let Some(content) = disk.read_file(&segment_path(Path::new("/fuzz"), segment)) else { continue };
        let mut named = false;
        for (at, sector) in content.chunks(SECTOR_BYTES).enumerate() {
            // zeros are padding: entries here never fill a sector with them
            let written = !is_stamp(sector) && sector.iter().any(|byte| *byte != 0);
            if written || !named {
                named = true;
                let len = if written { sector.len() as u16 } else { 0 };
                input.extend([segment as u8 - 1, at as u8]);
                input.extend(len.to_le_bytes());
                input.extend(&sector[..usize::from(len)]);
            }
        }
    }
    input
}

/// Inputs to start from: a log just begun, one of several segments, one opened again, one cut off by a crash.
///
/// # Panics
/// The log does not work on an undamaged disk.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let disk = SimDisk::new(1);
    for life in 0..3u64 {
        let mut log = Running::open(disk.clone()).expect("an undamaged log opens");
        for number in 0..=life {
            log.append(number as usize * 150 + 1);
            log.settle().expect("an undamaged disk works");
            seeds.push(input_of(&disk));
        }
        log.append(100);
        let now = log.disk.now();
        log.wal.step(&mut log.disk, now).expect("an undamaged disk works");
        disk.power_cut();
        seeds.push(input_of(&disk));
    }
    seeds
}

struct Running {
    disk: SimDisk,
    wal: Wal,
    entries: Vec<LogEntry>,
    hard_state: HardState,
}

impl Running {
    fn open(mut disk: SimDisk) -> Result<Running, Fault> {
        let mut entries = Vec::new();
        let now = disk.now();
        let (wal, opened) = Wal::open(&mut disk, options(), now, &mut |batch| {
            check_batch(&batch);
            entries.extend(batch.entries);
            Ok(())
        })?;
        Ok(Running { disk, wal, entries, hard_state: opened.hard_state })
    }

    fn append(&mut self, len: usize) {
        let index = self.entries.last().map_or(1, |last| last.index.saturating_add(1));
        let kind = super::EntryKind::Normal;
        let entry = LogEntry { index, term: 1, kind, data: Bytes::from(vec![7; len]) };
        self.hard_state = HardState { term: 1, vote: 1, commit: index.saturating_sub(1) };
        self.entries.push(entry.clone());
        self.wal.append(NewBatch { hard_state: self.hard_state, entries: vec![entry] });
    }

    fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..TURNS_MAX {
            let now = self.disk.now();
            self.wal.step(&mut self.disk, now)?;
            let next = [self.disk.next_due(), self.wal.wakeup()].into_iter().flatten().min();
            let Some(next) = next else { return Ok(()) };
            self.disk.set_now(next);
            let mut completions: Vec<Completion> = Vec::new();
            self.disk.poll(&mut completions);
            for completion in completions {
                let now = self.disk.now();
                self.wal.complete(completion, now);
            }
        }
        panic!("the log never falls idle");
    }
}

fn check_batch(batch: &RecoveredBatch) {
    for pair in batch.entries.windows(2) {
        assert_eq!(pair[0].index.wrapping_add(1), pair[1].index, "the entries of a batch are contiguous");
    }
}

fn disk_of(input: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.set_latency(1, 3);
    for (segment, content) in files_of(input) {
        disk.write_file(&segment_path(Path::new("/fuzz"), segment), content);
    }
    disk
}

/// Reads the log that `input` stands for; then, if it is accepted, opens it, appends to it and opens it again.
/// Gives what an accepted log remembers.
///
/// # Panics
/// Something that was accepted does not hang together: the fuzzer's find.
pub fn read(input: &[u8]) -> Option<HardState> {
    let disk = disk_of(input);
    let mut read = Vec::new();
    let mut batches = 0;
    let accepted = Wal::read(&mut disk.clone(), options(), &mut |batch| {
        check_batch(&batch);
        batches += 1;
        read.extend(batch.entries);
        Ok(())
    });
    let opened = match accepted {
        Ok(opened) => opened,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return None;
        }
    };
    assert_eq!(opened.batches, batches, "all batches are told");
    let mut log = Running::open(disk.clone()).expect("what can be read can be opened");
    assert!(log.entries == read && log.hard_state == opened.hard_state, "opening finds what reading found");
    log.append(10);
    log.settle().expect("an undamaged disk works");
    assert_eq!(log.wal.durable(), opened.last_seq + 1);
    disk.power_cut();
    let again = match Running::open(disk) {
        Ok(again) => again,
        // in an unused file a batch of the segment that it becomes is met only then: without checksums any bytes may be one,
        // with them only those that a write left in the wrong file
        Err(Fault::Corrupt { .. }) if cfg!(fuzzing) || has_stray_batch(input) => return None,
        Err(fault) => panic!("what was appended to opens again: {fault}"),
    };
    assert_eq!(again.entries, log.entries, "what was acknowledged is there");
    assert_eq!(again.hard_state, log.hard_state, "what was acknowledged is there");
    Some(opened.hard_state)
}

/// Whether a file that has no header holds what begins as a batch.
fn has_stray_batch(input: &[u8]) -> bool {
    let [header, batch, _] = DICTIONARY;
    let holds_batch = |content: &[u8]| content.chunks(SECTOR_BYTES).any(|sector| sector.starts_with(batch));
    files_of(input).iter().any(|(_, content)| !content.starts_with(header) && holds_batch(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::rng::Rng;

    #[test]
    fn seeds_are_accepted_and_small() {
        for seed in seeds() {
            assert!(!files_of(&seed).is_empty());
            assert!(seed.len() < 16_000, "{} bytes", seed.len());
            assert!(read(&seed).is_some(), "a seed is an undamaged log");
        }
    }

    #[test]
    fn a_segment_that_was_begun_is_missed_behind_one_of_which_nothing_is_left() {
        let lived = seeds().pop().unwrap();
        let read = |spoil: &dyn Fn(u64, &mut [u8])| {
            let disk = SimDisk::new(1);
            // without those kept ready: they would tell that more was begun
            for (segment, mut content) in files_of(&lived).into_iter().filter(|(segment, _)| *segment <= 3) {
                spoil(segment, &mut content);
                disk.write_file(&segment_path(Path::new("/fuzz"), segment), content);
            }
            Wal::read(&mut disk.clone(), options(), &mut |_| Ok(())).map(|opened| opened.last_seq)
        };
        assert!(read(&|_, _| {}).unwrap() > 3);
        // all of segment 2; of segment 3 the header and what was written first
        let refused = read(&|segment, content| match segment {
            2 => fill_with_stamp(content),
            3 => fill_with_stamp(&mut content[..16 * SECTOR_BYTES]),
            _ => {}
        });
        let Err(Fault::Corrupt { path, offset: 0, found, .. }) = refused else { panic!("{refused:?}") };
        assert!(path.ends_with("0000000000000003.wal") && found.contains(" at 8192"), "{path:?}: {found}");
    }

    #[test]
    fn mutated_seeds_never_panic() {
        let rounds = if std::env::var_os("COFFER_LONG").is_some() { 200_000 } else { 3_000 };
        let seeds = seeds();
        let mut rng = Rng::new(5);
        for _ in 0..rounds {
            let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
            for _ in 0..rng.between(1, 4) {
                let place = rng.below(input.len() as u64) as usize;
                match rng.below(4) {
                    0 => input[place] ^= 1 << rng.below(8),
                    1 => input[place] = rng.next_u64() as u8,
                    2 => input.truncate(place + 1),
                    _ => {
                        let from = rng.below(input.len() as u64) as usize;
                        let len = (rng.below(600) as usize).min(input.len() - from.max(place));
                        input.copy_within(from..from + len, place);
                    }
                }
            }
            read(&input);
        }
    }
}
