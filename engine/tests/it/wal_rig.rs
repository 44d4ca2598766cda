//! A log on a simulated disk, driven by a seed, beside a list of all that was appended to it.
//!
//! The list is the judge: what opening recovers must be exactly the state after one of the appended batches, not
//! before the last one that was acknowledged.

use bytes::Bytes;
use coffer_engine::Micros;
use coffer_engine::disk::Disk;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::error::Fault;
use coffer_engine::wal::{EntryKind, HardState, LogEntry, NewBatch, Opened, RecoveredBatch, Wal, WalOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the log lies.
pub(crate) const DIR: &str = "/member/wal";
/// Whose it is.
pub(crate) const OWNER: [u8; 16] = *b"cluster1 member2";
/// Steps that a run takes at most before the test gives up.
const STEPS_MAX: u64 = 100_000;

/// Options for small logs: segments of 20 KiB, entries up to 4 KiB.
pub(crate) fn small_options(salt: u64) -> WalOptions {
    WalOptions {
        segment_bytes_min: 20 << 10,
        segment_bytes_max: 20 << 10,
        entry_bytes_max: 4 << 10,
        ..WalOptions::new(PathBuf::from(DIR), OWNER, salt)
    }
}

/// What a log holds: entries by index, and term, vote and commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) entries: BTreeMap<u64, LogEntry>,
    pub(crate) hard_state: HardState,
}

impl Content {
    pub(crate) fn apply(&mut self, hard_state: HardState, entries: &[LogEntry]) {
        if let Some(first) = entries.first() {
            self.entries.split_off(&first.index);
        }
        self.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        self.hard_state = hard_state;
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// Without the entries up to `index`.
    pub(crate) fn above(mut self, index: u64) -> Content {
        self.entries = self.entries.split_off(&(index + 1));
        self
    }
}

/// Opens a log and gathers what it tells.
pub(crate) fn open(
    disk: &mut dyn Disk,
    options: WalOptions,
    now: Micros,
) -> Result<(Wal, Opened, Content), Fault> {
    let mut content = Content::default();
    let (wal, opened) = Wal::open(disk, options, now, &mut |batch: RecoveredBatch| {
        content.apply(batch.hard_state, &batch.entries);
        Ok(())
    })?;
    content.hard_state = opened.hard_state;
    Ok((wal, opened, content))
}

/// What earlier lives of a log did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    pub(crate) appended: Vec<(u64, NewBatch)>,
    pub(crate) acked: u64,
    pub(crate) released: u64,
    pub(crate) checkpoints: Vec<(u64, (u64, u64))>,
    /// What the life before did, if this one wrote nothing durable: a late write of that one may still arrive.
    pub(crate) older: Option<Box<Before>>,
}

impl Before {
    /// The list to which what was found belongs: this life's, or the one's before.
    fn matching(&self, opened: &Opened, found: &Content) -> &Before {
        let seq = opened.last_seq;
        let here = found.clone().above(self.released) == content_at(&self.appended, seq).above(self.released);
        match &self.older {
            Some(older) if !here => older.matching(opened, found),
            _ => self,
        }
    }
}

/// What a log holds after the batch with sequence number `seq`.
fn content_at(appended: &[(u64, NewBatch)], seq: u64) -> Content {
    let mut content = Content::default();
    for (_, batch) in appended.iter().take_while(|(appended, _)| *appended <= seq) {
        content.apply(batch.hard_state, &batch.entries);
    }
    content
}

/// The log, the disk and the list.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) wal: Wal,
    pub(crate) opened: Opened,
    pub(crate) rng: Rng,
    /// All appended batches with their sequence numbers.
    pub(crate) appended: Vec<(u64, NewBatch)>,
    pub(crate) content: Content,
    /// Entries up to this index were released.
    pub(crate) released: u64,
    /// Checkpoints that were told, each with the sequence from which on every batch names it.
    pub(crate) checkpoints: Vec<(u64, (u64, u64))>,
    /// Why the log stopped.
    pub(crate) fault: Option<Fault>,
    earlier: Before,
}

impl Rig {
    /// A new log.
    pub(crate) fn new(seed: u64, options: WalOptions) -> Rig {
        Rig::on(SimDisk::new(seed), seed, options).expect("a new log opens")
    }

    /// A log on a disk that is there.
    pub(crate) fn on(mut disk: SimDisk, seed: u64, options: WalOptions) -> Result<Rig, Fault> {
        let now = disk.now();
        let (wal, opened, content) = open(&mut disk, options, now)?;
        let rng = Rng::new(seed ^ 0xa5a5);
        let appended = Vec::new();
        Ok(Rig {
            disk,
            wal,
            opened,
            rng,
            appended,
            content,
            released: 0,
            checkpoints: Vec::new(),
            fault: None,
            earlier: Before::default(),
        })
    }

    /// The next life of a log: what earlier lives appended, up to `acked` acknowledged, goes on being the list.
    pub(crate) fn next_life(
        disk: SimDisk,
        seed: u64,
        options: WalOptions,
        before: &Before,
    ) -> Result<Rig, Fault> {
        let mut rig = Rig::on(disk, seed, options)?;
        let earlier = before.matching(&rig.opened, &rig.content);
        rig.earlier = earlier.clone();
        rig.released = earlier.released;
        rig.appended = earlier.appended.clone();
        rig.checkpoints = earlier.checkpoints.clone();
        check(&rig, before.acked, &rig.opened, &rig.content, "next life");
        let last = rig.opened.last_seq;
        rig.appended.retain(|(seq, _)| *seq <= last);
        // one that was told and not written is forgotten: the file that it stands in tells it again
        rig.checkpoints = vec![(0, rig.opened.checkpoint)];
        // released entries may be gone, or still there
        rig.content = content_at(&rig.appended, last);
        Ok(rig)
    }

    /// What the next life has to know of this one.
    pub(crate) fn before(&self) -> Before {
        let older = (self.wal.stats().writes == 0).then(|| Box::new(self.earlier.clone()));
        Before {
            appended: self.appended.clone(),
            acked: self.wal.durable(),
            released: self.released,
            checkpoints: self.checkpoints.clone(),
            older,
        }
    }

    /// Appends a batch drawn from the seed: mostly new entries, sometimes others in place of the last ones, sometimes
    /// none.
    pub(crate) fn append_random(&mut self, data_bytes_max: u64) -> u64 {
        let last = self.content.last_index();
        let replaced = if self.rng.once_in(8) { self.rng.below(3).min(last) } else { 0 };
        let first = last - replaced + 1;
        let count = self.rng.below(4);
        let mut hard_state = self.content.hard_state;
        hard_state.term += u64::from(replaced > 0) + u64::from(self.rng.once_in(10));
        hard_state.vote = self.rng.below(3);
        hard_state.commit = hard_state.commit.max(first.saturating_sub(1).min(self.rng.below(last + 1)));
        let entries = (first..first + count).map(|index| self.entry(index, hard_state.term, data_bytes_max));
        let entries: Vec<LogEntry> = entries.collect();
        self.append(NewBatch { hard_state, entries })
    }

    fn entry(&mut self, index: u64, term: u64, data_bytes_max: u64) -> LogEntry {
        let len = if self.rng.once_in(4) { self.rng.below(data_bytes_max) } else { self.rng.below(200) };
        let byte = self.rng.next_u64() as u8;
        let mut data = vec![byte; len as usize];
        for place in data.iter_mut().step_by(61) {
            *place = self.rng.next_u64() as u8;
        }
        let kind = match self.rng.below(20) {
            0 => EntryKind::ConfChange,
            1 => EntryKind::ConfChangeV2,
            _ => EntryKind::Normal,
        };
        LogEntry { index, term, kind, data: Bytes::from(data) }
    }

    /// Appends one batch.
    pub(crate) fn append(&mut self, batch: NewBatch) -> u64 {
        self.content.apply(batch.hard_state, &batch.entries);
        let seq = self.wal.append(batch.clone());
        self.appended.push((seq, batch));
        seq
    }

    /// A checkpoint that had applied all but the last few durable entries, and the release of what it holds.
    pub(crate) fn checkpoint(&mut self) {
        let durable = content_at(&self.appended, self.wal.durable()).last_index();
        let applied = durable.saturating_sub(self.rng.below(4)).max(self.wal.checkpoint().1);
        let tx = self.wal.checkpoint().0 + 1 + self.rng.below(3);
        self.wal.set_checkpoint(tx, applied);
        let next = self.appended.last().map_or(0, |(seq, _)| *seq) + 1;
        self.checkpoints.push((next, (tx, applied)));
        self.released = self.released.max(applied.saturating_sub(self.rng.below(3)));
        self.wal.release(self.released);
    }

    /// Starts what may start, lets time pass up to the next event, takes completions. `false`: nothing is left to do,
    /// or the log stopped.
    pub(crate) fn turn(&mut self) -> bool {
        let now = self.disk.now();
        if let Err(fault) = self.wal.step(&mut self.disk, now) {
            self.fault = Some(fault);
            return false;
        }
        let wakeup = self.wal.wakeup();
        let next = [self.disk.next_due(), wakeup].into_iter().flatten().min();
        let Some(next) = next else { return false };
        self.disk.set_now(next);
        self.take_completions();
        true
    }

    /// Starts what may start, at this same moment.
    pub(crate) fn step_without_time(&mut self) {
        let now = self.disk.now();
        if let Err(fault) = self.wal.step(&mut self.disk, now) {
            self.fault = Some(fault);
        }
    }

    /// A burst: batches that each start their own write as long as the log allows it, with no time in between.
    pub(crate) fn burst(&mut self, batches: u64, data_bytes_max: u64) {
        for _ in 0..batches {
            self.append_random(data_bytes_max);
            self.step_without_time();
        }
        for _ in 0..self.rng.below(6) {
            self.turn();
        }
    }

    pub(crate) fn take_completions(&mut self) {
        let mut completions = Vec::new();
        self.disk.poll(&mut completions);
        // in whatever order they are given
        for completion in completions {
            let now = self.disk.now();
            assert!(self.wal.complete(completion, now).is_none(), "all operations are the log's");
        }
    }

    /// Goes on until everything is durable, the mark is out and nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.turn() {
                return;
            }
        }
        panic!("the log never falls idle");
    }

    /// Goes on until `seq` is durable.
    pub(crate) fn settle_until(&mut self, seq: u64) {
        for _ in 0..STEPS_MAX {
            if self.wal.durable() >= seq || !self.turn() {
                return;
            }
        }
        panic!("batch {seq} never becomes durable");
    }

    /// `batches` appends with turns of the disk between them, as load comes.
    pub(crate) fn run(&mut self, batches: u64, data_bytes_max: u64) {
        for _ in 0..batches {
            self.append_random(data_bytes_max);
            if self.rng.once_in(2) {
                self.step_without_time();
            }
            for _ in 0..self.rng.below(4) {
                self.turn();
            }
            if self.fault.is_some() {
                return;
            }
        }
    }
}

/// Checks that what was recovered is what the list says for the sequence at which the log was found to end, and that
/// this is not before the last acknowledged one.
pub(crate) fn check(rig: &Rig, acked: u64, opened: &Opened, found: &Content, context: &str) {
    assert!(
        opened.last_seq >= acked,
        "{context}: acknowledged up to {acked}, but the log ends at {}",
        opened.last_seq
    );
    let told: Vec<_> = rig.checkpoints.iter().map(|(_, told)| *told).chain([(0, 0)]).collect();
    assert!(told.contains(&opened.checkpoint), "{context}: {:?} was never told", opened.checkpoint);
    for (_, named) in rig.checkpoints.iter().filter(|(from, _)| *from <= opened.last_seq) {
        assert!(
            opened.checkpoint >= *named,
            "{context}: {named:?} is forgotten, {:?} found",
            opened.checkpoint
        );
    }
    let expected = content_at(&rig.appended, opened.last_seq).above(rig.released);
    let found = found.clone().above(rig.released);
    assert_eq!(
        found.hard_state,
        expected.hard_state,
        "{context}: hard state at sequence {} of {:?} ({acked} acknowledged)",
        opened.last_seq,
        rig.appended.iter().map(|(seq, _)| *seq).collect::<Vec<_>>()
    );
    assert!(
        found.entries == expected.entries,
        "{context}: entries {:?}..{:?} instead of {:?}..{:?}",
        found.entries.keys().next(),
        found.entries.keys().next_back(),
        expected.entries.keys().next(),
        expected.entries.keys().next_back()
    );
}

/// The segments on a disk, lowest first.
pub(crate) fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter();
    files.filter(|path| path.parent() == Some(Path::new(DIR))).collect()
}
