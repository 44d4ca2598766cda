//! Reading a log back: which segments belong to it, where it ends, and whether damage is an unfinished write or rot.
//!
//! ```text
//! directory   segments by name, gaps refused
//!    |
//! tail        from the highest down to the first one with a header: sync, then read past the cache
//!    |
//! headers     owner, format, number; the last one with a header is where the log ends, those above were never begun
//!    |
//! evidence    every batch head in the last segment: up to which batch was the log known to be durable?
//!    |
//! batches     in order; an earlier segment ends exactly where the next header says, the last one at the first batch
//!             that is not whole; then it is synced once more, so that what was read is durable
//!    |
//! never begun a whole batch in a segment without a header: the header is damaged
//! ```
//! **Torn or rotten.** All up to the end that a later header names, and all up to the newest durable batch that any head
//! in the last segment names, was acknowledged or could have been: damage there is [`Fault::Corrupt`]. Damage
//! above it was never acknowledged, except within the time of the idle mark: it is cut and reported. Heads count as
//! evidence even where their body is damaged, and wherever they stand in the last segment: what they say was true when
//! they were made. A batch is bound to owner, segment, offset, epoch and salt, so old batches in a recycled segment, and
//! bytes of a client, are none.

use super::batch::{BatchHead, BodyFlaw, HeadFlaw, Place, SEQUENCE_MAX, claimed_head_bytes, resembles};
use super::blocking::{OpenSegment, SharedDisk, unexpected};
use super::opening::Visit;
use super::segment::{
    FIRST_BATCH, FORMAT_NUMBER, FirstBlock, LogEnd, SegmentHeader, is_stamp, segment_of_name, segment_path,
};
use super::{HardState, LogEntry, Opened, RecoveredBatch, WalOptions};
use crate::disk::{BLOCK_BYTES, Done, Op};
use crate::error::Fault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes of a segment kept ready that are looked at: where the batches of one that was begun would stand. The one that would be
/// begun next is looked at whole.
const LOOKED_AT_BYTES: u64 = 64 << 10;

/// A segment of the log that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldSegment {
    pub(super) segment: u64,
    pub(super) bytes: u64,
    /// Highest index of an entry in it, 0 without entries.
    pub(super) index_max: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) end: LogEnd,
    pub(super) epoch: u64,
    pub(super) hard_state: HardState,
    pub(super) first_segment: u64,
    /// Oldest first; the last one is where the log ends.
    pub(super) held: Vec<HeldSegment>,
    /// Allocated ahead and never begun, with their lengths, lowest first.
    pub(super) unbegun: Vec<(u64, u64)>,
    /// Below `first_segment`, with their lengths: not needed.
    pub(super) leftover: Vec<(u64, u64)>,
    pub(super) batches: u64,
    pub(super) checkpoint: (u64, u64),
    pub(super) torn: Vec<(PathBuf, u64, u64)>,
    /// Headers and batches accepted, in bytes.
    pub(super) bytes: u64,
}

impl Recovered {
    /// What the caller of opening wants to know.
    pub(super) fn opened(&self) -> Opened {
        Opened {
            fresh: self.end.seq == 0,
            hard_state: self.hard_state,
            batches: self.batches,
            torn: self.torn.clone(),
            last_seq: self.end.seq,
            epoch: self.epoch.saturating_add(1),
            checkpoint: self.checkpoint,
            bytes: self.bytes,
        }
    }
}

/// What the heads in the last segment tell together.
#[derive(Debug, Default)]
struct Evidence {
    /// The log was known durable up to this batch, as the head at `durable_at` says.
    durable_number: u64,
    durable_at: u64,
    first_segment: u64,
    /// The newest checkpoint, which the head at `checkpoint_at` names: what stood below `first_segment` is in it.
    checkpoint: (u64, u64),
    checkpoint_at: u64,
    /// Where the last trace of a write of this life ends.
    written_end: u64,
}

/// Reads the log in `options.dir`, telling every accepted batch to `visit`.
pub(super) fn recover(
    disk: &mut SharedDisk<'_>,
    options: &WalOptions,
    visit: &mut Visit<'_>,
) -> Result<Recovered, Fault> {
    let names = list(disk, &options.dir)?;
    settle_tail(disk, options, &names)?;
    let blocks = first_blocks(disk, options, &names)?;
    let mut reader = Reader { disk, options, visit, found: Recovered::default() };
    let Some(last) = blocks.iter().rev().find_map(|(_, (block, _))| header_of(block)).cloned() else {
        reader.check_never_begun_log(&blocks)?;
        return Ok(reader.found);
    };
    let evidence = reader.with_segment(last.segment, |reader, file| reader.evidence(file, &last))?;
    reader.choose_segments(&last, &evidence, &blocks)?;
    reader.read_segments(&last, &evidence, &blocks)?;
    reader.check_unbegun(last.segment, &blocks)?;
    Ok(reader.found)
}

type FirstBlocks = BTreeMap<u64, (FirstBlock, u64)>;

fn header_of(block: &FirstBlock) -> Option<&SegmentHeader> {
    match block {
        FirstBlock::Header(header) => Some(header),
        _ => None,
    }
}

/// The segments by number, ascending.
fn list(disk: &mut SharedDisk<'_>, dir: &Path) -> Result<Vec<u64>, Fault> {
    // names that a killed process left unsynced must not vanish after we relied on them
    disk.run_named("sync", dir, Op::SyncDir { dir: dir.to_path_buf() })?;
    match disk.run_named("list", dir, Op::List { dir: dir.to_path_buf() })? {
        Done::Names(names) => {
            let mut segments: Vec<u64> = names.iter().filter_map(|name| segment_of_name(name)).collect();
            segments.sort_unstable();
            Ok(segments)
        }
        other => Err(unexpected("list", dir, &other)),
    }
}

/// Makes durable what may not be: the segments from the highest down to the first one with a header. All below it
/// was synced before that header was written.
fn settle_tail(disk: &mut SharedDisk<'_>, options: &WalOptions, names: &[u64]) -> Result<(), Fault> {
    for segment in names.iter().rev() {
        let mut file = OpenSegment::open(disk, segment_path(&options.dir, *segment), true)?;
        let block = FirstBlock::read(file.first_block(disk)?);
        file.close(disk)?;
        if header_of(&block).is_some_and(|header| header.segment == *segment) {
            break;
        }
    }
    Ok(())
}

/// Reads and judges every segment's first block: which are this log's.
fn first_blocks(
    disk: &mut SharedDisk<'_>,
    options: &WalOptions,
    names: &[u64],
) -> Result<FirstBlocks, Fault> {
    let mut blocks = BTreeMap::new();
    for segment in names {
        let path = segment_path(&options.dir, *segment);
        let mut file = OpenSegment::open(disk, path.clone(), false)?;
        let block = FirstBlock::read(file.first_block(disk)?);
        let bytes = file.bytes;
        file.close(disk)?;
        let block = match block {
            FirstBlock::OtherFormat(number) => return Err(other_format(path, number)),
            FirstBlock::Header(header) if header.owner != options.owner => {
                return Err(foreign(path, &header.owner, &options.owner));
            }
            FirstBlock::Header(header) if header.segment > *segment => {
                return Err(Fault::Corrupt {
                    path,
                    offset: 0,
                    expected: format!("the header of segment {segment}"),
                    found: format!("the header of segment {}", header.segment),
                });
            }
            // an old one's, renamed to be recycled and not begun
            FirstBlock::Header(header) if header.segment < *segment => FirstBlock::Stamp,
            block => block,
        };
        blocks.insert(*segment, (block, bytes));
    }
    Ok(blocks)
}

fn other_format(path: PathBuf, number: u32) -> Fault {
    let reason = format!(
        "the log has format {number}, this program reads and writes format {FORMAT_NUMBER}: use a version that knows both"
    );
    Fault::Unusable { path, reason }
}

fn foreign(path: PathBuf, found: &[u8; 16], expected: &[u8; 16]) -> Fault {
    let reason = format!(
        "the log belongs to {}, this member is {} (cluster id and member id): it was copied or moved here",
        owner_text(found),
        owner_text(expected)
    );
    Fault::Unusable { path, reason }
}

fn owner_text(owner: &[u8; 16]) -> String {
    owner.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Reader<'a, 'd> {
    disk: &'a mut SharedDisk<'d>,
    options: &'a WalOptions,
    visit: &'a mut Visit<'a>,
    found: Recovered,
}

impl Reader<'_, '_> {
    fn path(&self, segment: u64) -> PathBuf {
        segment_path(&self.options.dir, segment)
    }

    fn place(&self, segment: u64, offset: u64) -> Place {
        Place { owner: self.options.owner, segment, offset }
    }

    /// Opens a segment, works on it, and closes it whatever came out.
    fn with_segment<T>(
        &mut self,
        segment: u64,
        work: impl FnOnce(&mut Self, &mut OpenSegment) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let path = self.path(segment);
        let mut file = OpenSegment::open(self.disk, path, false)?;
        let result = work(self, &mut file);
        let closed = file.close(self.disk);
        let value = result?;
        closed.map(|()| value)
    }

    /// No segment has a header: then there never was a log, or all of it is damaged. Further segments are allocated
    /// only after the first one was begun.
    fn check_never_begun_log(&mut self, blocks: &FirstBlocks) -> Result<(), Fault> {
        if let Some(segment) = blocks.keys().find(|segment| **segment != 1) {
            let expected = format!("segment 1 with its header, before segment {segment}");
            let found = blocks.get(&1).map_or("no such file".to_string(), |(block, _)| block.describe());
            return Err(self.corrupt(1, 0, expected, found));
        }
        self.check_unbegun(0, blocks)
    }

    /// Segments above the last one with a header were never begun: no batch of theirs may be there.
    fn check_unbegun(&mut self, last: u64, blocks: &FirstBlocks) -> Result<(), Fault> {
        let unbegun: Vec<(u64, FirstBlock, u64)> = blocks
            .range(last + 1..)
            .map(|(segment, (block, bytes))| (*segment, block.clone(), *bytes))
            .collect();
        // those kept ready, and one whose header was under way; with more, the first of them was begun
        let too_many = unbegun.len() > super::ahead::READY_SEGMENTS + 1;
        for (segment, block, bytes) in unbegun {
            let expected = || format!("the header of segment {segment}, or unused space");
            if block == FirstBlock::Blank || (too_many && segment == last + 1) {
                return Err(self.corrupt(segment, 0, expected(), block.describe()));
            }
            // those above it cannot have been begun before the first one
            let within = if segment == last + 1 { u64::MAX } else { LOOKED_AT_BYTES };
            if let Some((head, offset)) =
                self.with_segment(segment, |reader, file| reader.any_batch(file, segment, within))?
            {
                let found = format!("{}, and {} at {offset}", block.describe(), head.describe());
                return Err(self.corrupt(segment, 0, expected(), found));
            }
            self.found.unbegun.push((segment, bytes));
        }
        Ok(())
    }

    /// The first batch in the first `within` bytes of a segment, of whatever life.
    fn any_batch(
        &mut self,
        file: &mut OpenSegment,
        segment: u64,
        within: u64,
    ) -> Result<Option<(BatchHead, u64)>, Fault> {
        let mut found = None;
        let mut offset = FIRST_BATCH;
        let end = file.bytes.min(within);
        while offset + BLOCK <= end && found.is_none() {
            let room = file_room(file, offset);
            found = self.head_at(file, segment, offset, room)?.ok();
            offset += BLOCK;
        }
        Ok(found.map(|head| (head.clone(), head.offset)))
    }

    fn head_at(
        &mut self,
        file: &mut OpenSegment,
        segment: u64,
        offset: u64,
        room: usize,
    ) -> Result<Result<BatchHead, HeadFlaw>, Fault> {
        let place = self.place(segment, offset);
        let head_bytes = match claimed_head_bytes(file.get(self.disk, offset, BLOCK_BYTES)?, room) {
            Ok(head_bytes) => head_bytes,
            Err(flaw) => return Ok(Err(flaw)),
        };
        Ok(BatchHead::read(&place, file.get(self.disk, offset, head_bytes)?, room))
    }

    /// Looks at every block of the last segment.
    fn evidence(&mut self, file: &mut OpenSegment, last: &SegmentHeader) -> Result<Evidence, Fault> {
        let mut evidence = Evidence { written_end: FIRST_BATCH, ..Evidence::default() };
        let mut offset = FIRST_BATCH;
        while offset + BLOCK <= file.bytes {
            let room = file_room(file, offset);
            let place = self.place(last.segment, offset);
            let block = file.get(self.disk, offset, BLOCK_BYTES)?;
            let begun = resembles(block, &place, last.epoch, last.salt);
            if begun || (!last.recycled && !is_stamp(block)) {
                evidence.written_end = offset + BLOCK;
            }
            // only what begins as a batch of this life is worth a closer look
            if begun && let Ok(head) = self.head_at(file, last.segment, offset, room)? {
                if head.durable_number > evidence.durable_number {
                    evidence.durable_number = head.durable_number;
                    evidence.durable_at = offset;
                }
                evidence.first_segment = evidence.first_segment.max(head.first_segment);
                if head.checkpoint > evidence.checkpoint {
                    evidence.checkpoint = head.checkpoint;
                    evidence.checkpoint_at = offset;
                }
            }
            offset += BLOCK;
        }
        Ok(evidence)
    }

    /// From which segment on the log is needed, and that all of them are there.
    fn choose_segments(
        &mut self,
        last: &SegmentHeader,
        evidence: &Evidence,
        blocks: &FirstBlocks,
    ) -> Result<(), Fault> {
        let first = last.first_segment.max(evidence.first_segment).max(1);
        if first > last.segment {
            let expected = format!("a first needed segment of at most {}", last.segment);
            return Err(self.corrupt(last.segment, 0, expected, first.to_string()));
        }
        let highest = blocks.keys().next_back().copied().unwrap_or(last.segment);
        let missing =
            (first..=highest).zip(blocks.range(first..).map(|(segment, _)| Some(*segment)).chain([None]));
        for (wanted, there) in missing {
            if there != Some(wanted) {
                return Err(Fault::Corrupt {
                    path: self.path(wanted),
                    offset: 0,
                    expected: format!("segment {wanted} (the log has {first} to {highest})"),
                    found: "no such file".to_string(),
                });
            }
        }
        self.found.first_segment = first;
        self.found.leftover = blocks.range(..first).map(|(segment, (_, bytes))| (*segment, *bytes)).collect();
        Ok(())
    }

    /// Reads all needed segments in order.
    fn read_segments(
        &mut self,
        last: &SegmentHeader,
        evidence: &Evidence,
        blocks: &FirstBlocks,
    ) -> Result<(), Fault> {
        let first = self.found.first_segment;
        let mut headers = Vec::new();
        for (segment, (block, _)) in blocks.range(first..=last.segment) {
            let Some(header) = header_of(block) else {
                let expected = format!("the header of segment {segment}, which others follow");
                return Err(self.corrupt(*segment, 0, expected, block.describe()));
            };
            headers.push(header);
        }
        for (place, header) in headers.iter().enumerate() {
            if place == 0 {
                self.found.end = header.predecessor;
            }
            self.check_header(header)?;
            self.found.end.segment = header.segment;
            self.found.end.offset = FIRST_BATCH;
            self.found.epoch = header.epoch;
            self.found.hard_state = header.hard_state;
            self.note_checkpoint(header.segment, 0, header.checkpoint)?;
            self.found.bytes += FIRST_BATCH;
            let next = headers.get(place + 1).copied();
            let held = self.with_segment(header.segment, |reader, file| {
                reader.read_segment(file, header, next, evidence)
            })?;
            self.found.held.push(held);
        }
        // a batch that was cut named it all the same, and it was durable before
        if evidence.checkpoint > self.found.checkpoint {
            self.note_checkpoint(last.segment, evidence.checkpoint_at, evidence.checkpoint)?;
        }
        Ok(())
    }

    /// The header must name exactly what was read before it.
    fn check_header(&self, header: &SegmentHeader) -> Result<(), Fault> {
        let before = &self.found.end;
        if header.predecessor != *before {
            let expected = format!("a header that follows {}", end_text(before));
            let found = format!("one that follows {}", end_text(&header.predecessor));
            return Err(self.corrupt(header.segment, 0, expected, found));
        }
        let LogEnd { number, seq, .. } = header.predecessor;
        if header.epoch < self.found.epoch || number.max(seq).max(header.epoch) >= SEQUENCE_MAX {
            let expected = format!("epoch {} or higher, numbers below 2^62", self.found.epoch);
            return Err(self.corrupt(header.segment, 0, expected, format!("epoch {}", header.epoch)));
        }
        Ok(())
    }

    /// Reads one segment: up to the end that `next` names, or as far as it is whole.
    fn read_segment(
        &mut self,
        file: &mut OpenSegment,
        header: &SegmentHeader,
        next: Option<&SegmentHeader>,
        evidence: &Evidence,
    ) -> Result<HeldSegment, Fault> {
        // an earlier one may have been cut at its end, the last one never is
        if next.is_none() && file.bytes < header.bytes {
            let expected = format!("a file of at least {} bytes", header.bytes);
            return Err(self.corrupt(
                header.segment,
                file.bytes,
                expected,
                format!("one of {} bytes", file.bytes),
            ));
        }
        let mut index_max = 0;
        loop {
            let at = self.found.end.offset;
            let end = next.map_or(file.bytes / BLOCK * BLOCK, |next| next.predecessor.offset);
            if at >= end || (next.is_none() && at + BLOCK > file.bytes) {
                break;
            }
            match self.read_batch(file, header)? {
                Ok((head, entries)) => {
                    index_max = index_max.max(head.last_index().unwrap_or(0));
                    self.accept(&head, entries)?;
                }
                Err(flaw) => {
                    self.judge(header, next, evidence, flaw)?;
                    break;
                }
            }
        }
        if next.is_none() {
            self.check_end(header, evidence)?;
            // a write of a killed process may have arrived between the first sync and the reading
            self.disk.run_named("sync", &file.path, Op::Sync { file: file.file })?;
        }
        Ok(HeldSegment { segment: header.segment, bytes: file.bytes, index_max })
    }

    /// The next batch, or what is wrong with it. A whole batch that does not follow the one before it is a fault at
    /// once: no crash does that.
    fn read_batch(
        &mut self,
        file: &mut OpenSegment,
        header: &SegmentHeader,
    ) -> Result<Result<(BatchHead, Vec<LogEntry>), Flaw>, Fault> {
        let before = self.found.end;
        let (segment, at) = (header.segment, before.offset);
        let number = before.number.wrapping_add(1);
        let place = self.place(segment, at);
        let room = file_room(file, at);
        let head = match self.head_at(file, segment, at, room)? {
            Ok(head) => head,
            Err(flaw) => {
                let (expected, found) = flaw.describe(number, &place);
                return Ok(Err(Flaw { offset: at, expected, found }));
            }
        };
        if head.epoch != header.epoch || head.salt != header.salt {
            let expected = format!("a batch of epoch {}", header.epoch);
            let found = format!("a batch of epoch {} and another opening", head.epoch);
            return Ok(Err(Flaw { offset: at, expected, found }));
        }
        let chain = if at == FIRST_BATCH { header.predecessor } else { before };
        if head.before != chain {
            let expected = format!("batch {number} that follows {}", end_text(&chain));
            let found = format!("batch {} that follows {}", head.number, end_text(&head.before));
            return Err(self.corrupt(segment, at, expected, found));
        }
        let batch = file.get(self.disk, at, head.batch_bytes)?;
        match head.read_entries(batch) {
            Ok(entries) => Ok(Ok((head, entries))),
            Err(BodyFlaw::Crc { at: inside, stored, computed }) => Ok(Err(Flaw {
                offset: at + inside as u64,
                expected: format!("bytes with CRC {stored:#010x} ({})", head.describe()),
                found: format!("bytes with CRC {computed:#010x}"),
            })),
            Err(BodyFlaw::Form { at: inside }) => {
                let expected = format!("the entries of {}", head.describe());
                let found = "whole bytes that are no such entries".to_string();
                Err(self.corrupt(segment, at + inside as u64, expected, found))
            }
        }
    }

    fn accept(&mut self, head: &BatchHead, entries: Vec<LogEntry>) -> Result<(), Fault> {
        self.found.end = LogEnd {
            segment: head.segment,
            offset: head.offset + head.batch_bytes as u64,
            number: head.number,
            seq: head.last_seq,
            crc: head.crc,
        };
        self.found.hard_state = head.hard_state;
        self.found.bytes += head.batch_bytes as u64;
        self.note_checkpoint(head.segment, head.offset, head.checkpoint)?;
        if head.mark {
            return Ok(());
        }
        self.found.batches += 1;
        let checkpoint = self.found.checkpoint;
        (self.visit)(self.disk, RecoveredBatch { hard_state: head.hard_state, entries, checkpoint })
    }

    /// Checkpoints only become newer.
    fn note_checkpoint(&mut self, segment: u64, offset: u64, named: (u64, u64)) -> Result<(), Fault> {
        let before = self.found.checkpoint;
        if named.0 < before.0 || named.1 < before.1 {
            let text = |(tx, applied)| format!("transaction {tx} with entry {applied}");
            let expected = format!("a checkpoint not older than {}", text(before));
            return Err(self.corrupt(segment, offset, expected, text(named)));
        }
        self.found.checkpoint = named;
        Ok(())
    }

    /// Torn or rotten: damage where the next whole batch should be.
    fn judge(
        &mut self,
        header: &SegmentHeader,
        next: Option<&SegmentHeader>,
        evidence: &Evidence,
        flaw: Flaw,
    ) -> Result<(), Fault> {
        let proof = match next {
            Some(next) => Some(format!("segment {} follows it", next.segment)),
            None if evidence.durable_number > self.found.end.number => Some(format!(
                "the batch at {} says that the log was durable up to {}",
                evidence.durable_at, evidence.durable_number
            )),
            None => None,
        };
        match proof {
            Some(proof) => {
                let expected = format!("{} ({proof})", flaw.expected);
                Err(self.corrupt(header.segment, flaw.offset, expected, flaw.found))
            }
            None => Ok(()),
        }
    }

    /// The end of the last segment: nothing behind it may claim more, and what was begun there is reported.
    fn check_end(&mut self, header: &SegmentHeader, evidence: &Evidence) -> Result<(), Fault> {
        let end = self.found.end;
        if evidence.durable_number > end.number {
            let expected = format!(
                "batch {} (the batch at {} says that the log was durable up to {})",
                end.number.wrapping_add(1),
                evidence.durable_at,
                evidence.durable_number
            );
            return Err(self.corrupt(
                header.segment,
                end.offset,
                expected,
                "the end of the segment".to_string(),
            ));
        }
        if evidence.written_end > end.offset {
            let bytes = evidence.written_end - end.offset;
            self.found.torn.push((self.path(header.segment), end.offset, bytes));
        }
        Ok(())
    }

    fn corrupt(&self, segment: u64, offset: u64, expected: String, found: String) -> Fault {
        Fault::Corrupt { path: self.path(segment), offset, expected, found }
    }
}

/// What is wrong where a batch should be.
struct Flaw {
    offset: u64,
    expected: String,
    found: String,
}

fn file_room(file: &OpenSegment, offset: u64) -> usize {
    usize::try_from(file.bytes.saturating_sub(offset)).unwrap_or(usize::MAX)
}

fn end_text(end: &LogEnd) -> String {
    let LogEnd { segment, offset, number, seq, crc } = end;
    format!("batch {number} (sequence {seq}, segment {segment}, end {offset}, CRC {crc:#010x})")
}
