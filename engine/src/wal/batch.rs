//! A batch: the unit of a write. Its head tells what it holds even where its body is damaged.
//!
//! ```text
//! head, whole sectors                                    body                          padding
//! +-------+-------------------+----------------+--------+-------+-------+----+-------+-------------+
//! | fixed | runs of terms     | CRCs of the    | zeros  | entry | entry | .. | entry | to a whole  |
//! | 176   | (term, count) 12  | body's sectors |        |       |       |    |       | block       |
//! +-------+-------------------+----------------+--------+-------+-------+----+-------+-------------+
//!
//! fixed, little-endian
//!   0  magic "coffrBAT"            48  epoch                      104  term
//!   8  CRC of owner and head       56  salt                       112  vote
//!  12  bytes of the head           64  first sequence in it       120  commit
//!  16  bytes of the whole batch    72  last sequence in it        128  durable up to this batch
//!  20  bytes of the body           80  batch before: its segment  136  newest checkpoint: transaction
//!  24  flags: 1 mark               88    its end, in bytes        144    applied index
//!  28  count of runs               96    its CRC                  152  first segment still needed
//!  32  segment it stands in       100  count of entries           160  index of the first entry
//!  40  offset it stands at                                        168  number of this batch
//!
//! entry: kind 1 byte, bytes of its data 4, data. Entry i has index first + i; the runs give its term.
//! ```
//! The head's CRC covers the CRCs of the body, so it is the identity of the whole batch, which the next one repeats.
//! Batches are numbered one after the other as they are written. Each stands for one or several appended ones (first
//! to last sequence); a mark stands for none, its last sequence is the one before its first. Padding is covered by
//! nothing and means nothing.

use super::checksum::{crc, get_u32, get_u64, matches, put_u32, put_u64};
use super::segment::{LogEnd, SECTOR_BYTES};
use super::{EntryKind, HardState, LogEntry, NewBatch};
use crate::disk::BLOCK_BYTES;
use bytes::Bytes;

const MAGIC: [u8; 8] = *b"coffrBAT";
const FIXED_BYTES: usize = 176;
const RUN_BYTES: usize = 12;
pub(super) const ENTRY_HEAD_BYTES: usize = 5;
const FLAG_MARK: u32 = 1;
const AT_CRC: usize = 8;
/// Sequences and numbers stay below this, so that counting on never overflows.
pub(super) const SEQUENCE_MAX: u64 = 1 << 62;

/// Where a batch stands and in which life of the log it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) owner: [u8; 16],
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What a batch's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) epoch: u64,
    pub(super) salt: u64,
    pub(super) number: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// End of the batch before; its number is `number - 1`, its last sequence `first_seq - 1`.
    pub(super) before: LogEnd,
    pub(super) mark: bool,
    pub(super) hard_state: HardState,
    pub(super) durable_number: u64,
    pub(super) checkpoint: (u64, u64),
    pub(super) first_segment: u64,
    pub(super) first_index: u64,
    pub(super) entry_count: u32,
    /// Runs of equal terms: (term, number of entries).
    pub(super) runs: Vec<(u64, u32)>,
    pub(super) head_bytes: usize,
    pub(super) body_bytes: usize,
    pub(super) batch_bytes: usize,
    /// Of the head, and through it of the whole batch.
    pub(super) crc: u32,
}

/// Why bytes are not the head of a batch that stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFlaw {
    /// They do not begin as one.
    NotABatch,
    /// Its lengths do not fit together or reach beyond the segment.
    Lengths,
    /// Its CRC is wrong.
    Crc { stored: u32, computed: u32 },
    /// It is whole, but was written to another place.
    Elsewhere { segment: u64, offset: u64 },
}

/// What is wrong in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFlaw {
    /// A sector's CRC is wrong; `at` is its distance from the batch's start.
    Crc { at: usize, stored: u32, computed: u32 },
    /// All CRCs are right, but the entries do not fit the head.
    Form { at: usize },
}

/// Bytes of a batch whose body has `body_bytes` and whose entries have `runs` runs of terms.
pub(super) fn batch_bytes(body_bytes: usize, runs: usize) -> usize {
    (head_bytes(body_bytes, runs) + body_bytes).next_multiple_of(BLOCK_BYTES)
}

fn head_bytes(body_bytes: usize, runs: usize) -> usize {
    (FIXED_BYTES + runs * RUN_BYTES + body_bytes.div_ceil(SECTOR_BYTES) * 4).next_multiple_of(SECTOR_BYTES)
}

/// Bytes of an entry in a body.
pub(super) fn entry_bytes(entry: &LogEntry) -> usize {
    ENTRY_HEAD_BYTES + entry.data.len()
}

/// Runs of equal terms among entries.
pub(super) fn term_runs<'a>(entries: impl Iterator<Item = &'a LogEntry>) -> Vec<(u64, u32)> {
    let mut runs: Vec<(u64, u32)> = Vec::with_capacity(1);
    for entry in entries {
        match runs.last_mut() {
            Some((term, count)) if *term == entry.term => *count += 1,
            _ => runs.push((entry.term, 1)),
        }
    }
    runs
}

/// Writes a batch into `out`, which has exactly [`batch_bytes`], and gives its CRC. Lengths, runs and the entries'
/// number in `head` are those of `parts`.
pub(super) fn encode<'a>(
    head: &BatchHead,
    owner: &[u8; 16],
    parts: impl Iterator<Item = &'a NewBatch>,
    out: &mut [u8],
) -> u32 {
    let body_end = head.head_bytes + head.body_bytes;
    let mut at = head.head_bytes;
    for entry in parts.flat_map(|part| part.entries.iter()) {
        out[at] = kind_number(entry.kind);
        put_u32(out, at + 1, entry.data.len() as u32);
        at += ENTRY_HEAD_BYTES;
        out[at..at + entry.data.len()].copy_from_slice(&entry.data);
        at += entry.data.len();
    }
    assert_eq!(at, body_end, "a batch's body has the length that was counted before");
    out[body_end..].fill(0);

    let (front, body) = out.split_at_mut(head.head_bytes);
    front.fill(0);
    encode_fixed(head, front);
    let mut at = FIXED_BYTES;
    for (term, count) in &head.runs {
        put_u64(front, at, *term);
        put_u32(front, at + 8, *count);
        at += RUN_BYTES;
    }
    for sector in body[..head.body_bytes].chunks(SECTOR_BYTES) {
        put_u32(front, at, crc(0, sector));
        at += 4;
    }
    let checksum = head_crc(owner, front);
    put_u32(front, AT_CRC, checksum);
    checksum
}

fn encode_fixed(head: &BatchHead, out: &mut [u8]) {
    out[..8].copy_from_slice(&MAGIC);
    put_u32(out, 12, head.head_bytes as u32);
    put_u32(out, 16, head.batch_bytes as u32);
    put_u32(out, 20, head.body_bytes as u32);
    put_u32(out, 24, if head.mark { FLAG_MARK } else { 0 });
    put_u32(out, 28, head.runs.len() as u32);
    put_u64(out, 32, head.segment);
    put_u64(out, 40, head.offset);
    put_u64(out, 48, head.epoch);
    put_u64(out, 56, head.salt);
    put_u64(out, 64, head.first_seq);
    put_u64(out, 72, head.last_seq);
    put_u64(out, 80, head.before.segment);
    put_u64(out, 88, head.before.offset);
    put_u32(out, 96, head.before.crc);
    put_u32(out, 100, head.entry_count);
    put_u64(out, 104, head.hard_state.term);
    put_u64(out, 112, head.hard_state.vote);
    put_u64(out, 120, head.hard_state.commit);
    put_u64(out, 128, head.durable_number);
    put_u64(out, 136, head.checkpoint.0);
    put_u64(out, 144, head.checkpoint.1);
    put_u64(out, 152, head.first_segment);
    put_u64(out, 160, head.first_index);
    put_u64(out, 168, head.number);
}

fn kind_number(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    }
}

fn kind_of(number: u8) -> Option<EntryKind> {
    match number {
        0 => Some(EntryKind::Normal),
        1 => Some(EntryKind::ConfChange),
        2 => Some(EntryKind::ConfChangeV2),
        _ => None,
    }
}

fn head_crc(owner: &[u8; 16], head: &[u8]) -> u32 {
    let begin = crc(crc(0, owner), &head[..AT_CRC]);
    crc(begin, &head[AT_CRC + 4..])
}

/// The length that a head claims for itself, if what is there can be one. `block` is at least the first sector.
pub(super) fn claimed_head_bytes(block: &[u8], room: usize) -> Result<usize, HeadFlaw> {
    if block.len() < SECTOR_BYTES || block[..8] != MAGIC {
        return Err(HeadFlaw::NotABatch);
    }
    let head = get_u32(block, 12) as usize;
    let batch = get_u32(block, 16) as usize;
    let body = get_u32(block, 20) as usize;
    let runs = get_u32(block, 28) as usize;
    // each bounded by `room` first, so that no sum can overflow
    let bounded = batch <= room && head <= batch && body <= batch && runs <= head / RUN_BYTES;
    if !bounded || head != head_bytes(body, runs) || batch != batch_bytes(body, runs) {
        return Err(HeadFlaw::Lengths);
    }
    Ok(head)
}

impl BatchHead {
    /// Reads the head at `place`; `bytes` reach at least as far as [`claimed_head_bytes`] says.
    pub(super) fn read(place: &Place, bytes: &[u8], room: usize) -> Result<BatchHead, HeadFlaw> {
        let head_bytes = claimed_head_bytes(bytes, room)?;
        let head = bytes.get(..head_bytes).ok_or(HeadFlaw::Lengths)?;
        let (stored, computed) = (get_u32(head, AT_CRC), head_crc(&place.owner, head));
        if !matches(stored, computed) {
            return Err(HeadFlaw::Crc { stored, computed });
        }
        let (segment, offset) = (get_u64(head, 32), get_u64(head, 40));
        if segment != place.segment || offset != place.offset {
            return Err(HeadFlaw::Elsewhere { segment, offset });
        }
        let run_count = get_u32(head, 28) as usize;
        let runs = (0..run_count).map(|run| {
            let at = FIXED_BYTES + run * RUN_BYTES;
            (get_u64(head, at), get_u32(head, at + 8))
        });
        let (first_seq, number) = (get_u64(head, 64), get_u64(head, 168));
        Ok(BatchHead {
            segment,
            offset,
            epoch: get_u64(head, 48),
            salt: get_u64(head, 56),
            number,
            first_seq,
            last_seq: get_u64(head, 72),
            before: LogEnd {
                segment: get_u64(head, 80),
                offset: get_u64(head, 88),
                number: number.wrapping_sub(1),
                seq: first_seq.wrapping_sub(1),
                crc: get_u32(head, 96),
            },
            mark: get_u32(head, 24) & FLAG_MARK != 0,
            hard_state: HardState {
                term: get_u64(head, 104),
                vote: get_u64(head, 112),
                commit: get_u64(head, 120),
            },
            durable_number: get_u64(head, 128),
            checkpoint: (get_u64(head, 136), get_u64(head, 144)),
            first_segment: get_u64(head, 152),
            first_index: get_u64(head, 160),
            entry_count: get_u32(head, 100),
            runs: runs.collect(),
            head_bytes,
            body_bytes: get_u32(head, 20) as usize,
            batch_bytes: get_u32(head, 16) as usize,
            crc: stored,
        })
    }

    /// Index of the last entry; `None` without entries.
    pub(super) fn last_index(&self) -> Option<u64> {
        let count = u64::from(self.entry_count);
        if count == 0 { None } else { self.first_index.checked_add(count - 1) }
    }

    /// In words: what is lost if the batch is.
    pub(super) fn describe(&self) -> String {
        match self.last_index() {
            Some(last) => {
                let terms: Vec<String> =
                    self.runs.iter().map(|(term, count)| format!("{term} x {count}")).collect();
                format!(
                    "batch {} with entries {} to {last}, terms {}",
                    self.number,
                    self.first_index,
                    terms.join(", ")
                )
            }
            None => format!("batch {} without entries", self.number),
        }
    }

    /// Checks the body and reads the entries. `batch` is the whole batch.
    pub(super) fn read_entries(&self, batch: &[u8]) -> Result<Vec<LogEntry>, BodyFlaw> {
        let start = self.head_bytes;
        let body = batch.get(start..start + self.body_bytes).ok_or(BodyFlaw::Form { at: start })?;
        let table = FIXED_BYTES + self.runs.len() * RUN_BYTES;
        for (number, sector) in body.chunks(SECTOR_BYTES).enumerate() {
            let (stored, computed) = (get_u32(batch, table + number * 4), crc(0, sector));
            if !matches(stored, computed) {
                return Err(BodyFlaw::Crc { at: start + number * SECTOR_BYTES, stored, computed });
            }
        }
        self.parse(body).ok_or(BodyFlaw::Form { at: start })
    }

    fn parse(&self, body: &[u8]) -> Option<Vec<LogEntry>> {
        let counted = self.runs.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
        let appended = self.last_seq.wrapping_sub(self.before.seq);
        let sequence = if self.mark { appended == 0 } else { (1..SEQUENCE_MAX).contains(&appended) };
        let bounded = self.last_seq < SEQUENCE_MAX && self.number < SEQUENCE_MAX;
        // indexes begin at 1
        let indexed = self.entry_count == 0 || self.first_index > 0;
        if counted != u64::from(self.entry_count) || !sequence || !bounded || !indexed {
            return None;
        }
        // an entry has at least its head, so the length bounds the number before anything is allocated
        if self.entry_count as usize > body.len() / ENTRY_HEAD_BYTES {
            return None;
        }
        let shared = Bytes::copy_from_slice(body);
        let mut entries = Vec::with_capacity(self.entry_count as usize);
        let mut at = 0;
        let terms = self.runs.iter().flat_map(|(term, count)| std::iter::repeat_n(*term, *count as usize));
        for (place, term) in terms.enumerate() {
            let kind = kind_of(*body.get(at)?)?;
            let len = get_u32(body.get(at..at + ENTRY_HEAD_BYTES)?, 1) as usize;
            at += ENTRY_HEAD_BYTES;
            let end = at.checked_add(len).filter(|end| *end <= body.len())?;
            let index = self.first_index.checked_add(place as u64)?;
            entries.push(LogEntry { index, term, kind, data: shared.slice(at..end) });
            at = end;
        }
        if at == body.len() { Some(entries) } else { None }
    }
}

/// Whether bytes look as if this life of the log had begun to write a batch here, whole or not.
pub(super) fn resembles(block: &[u8], place: &Place, epoch: u64, salt: u64) -> bool {
    block.len() >= SECTOR_BYTES
        && block[..8] == MAGIC
        && get_u64(block, 32) == place.segment
        && get_u64(block, 40) == place.offset
        && get_u64(block, 48) == epoch
        && get_u64(block, 56) == salt
}

impl HeadFlaw {
    /// What should stand there and what does, in words.
    pub(super) fn describe(&self, expected_number: u64, place: &Place) -> (String, String) {
        let expected = format!("batch {expected_number} of segment {} at {}", place.segment, place.offset);
        let found = match self {
            HeadFlaw::NotABatch => "no batch".to_string(),
            HeadFlaw::Lengths => "a batch whose lengths contradict one another".to_string(),
            HeadFlaw::Crc { stored, computed } => {
                format!("a head with CRC {stored:#010x} whose bytes give {computed:#010x}")
            }
            HeadFlaw::Elsewhere { segment, offset } => format!("a batch of segment {segment} at {offset}"),
        };
        (expected, found)
    }
}

/// Fills in the lengths of a head that is to be written.
pub(super) fn set_lengths(head: &mut BatchHead, body_bytes: usize) {
    head.body_bytes = body_bytes;
    head.head_bytes = head_bytes(body_bytes, head.runs.len());
    head.batch_bytes = batch_bytes(body_bytes, head.runs.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: [u8; 16] = *b"cluster1 member2";

    fn entry(index: u64, term: u64, len: usize) -> LogEntry {
        LogEntry { index, term, kind: EntryKind::Normal, data: Bytes::from(vec![index as u8; len]) }
    }

    fn sample(entries: Vec<LogEntry>) -> (BatchHead, Vec<u8>, Vec<LogEntry>) {
        let part = NewBatch { hard_state: HardState { term: 3, vote: 2, commit: 4 }, entries };
        let mut head = BatchHead {
            segment: 9,
            offset: 4096,
            epoch: 2,
            salt: 77,
            number: 8,
            first_seq: 5,
            last_seq: 6,
            before: LogEnd { segment: 8, offset: 12288, number: 7, seq: 4, crc: 1 },
            mark: false,
            hard_state: part.hard_state,
            durable_number: 4,
            checkpoint: (0, 0),
            first_segment: 1,
            first_index: part.entries.first().map_or(0, |entry| entry.index),
            entry_count: part.entries.len() as u32,
            runs: term_runs(part.entries.iter()),
            head_bytes: 0,
            body_bytes: 0,
            batch_bytes: 0,
            crc: 0,
        };
        set_lengths(&mut head, part.entries.iter().map(entry_bytes).sum());
        let mut out = vec![0xee; head.batch_bytes];
        head.crc = encode(&head, &OWNER, [&part].into_iter(), &mut out);
        (head, out, part.entries)
    }

    fn place() -> Place {
        Place { owner: OWNER, segment: 9, offset: 4096 }
    }

    #[test]
    fn a_batch_reads_back() {
        for entries in [
            vec![],
            vec![entry(7, 1, 0)],
            (7..300).map(|index| entry(index, index / 100, 300)).collect(),
            vec![entry(7, 1, 2 << 20)],
        ] {
            let (head, bytes, entries) = sample(entries);
            assert_eq!(bytes.len() % BLOCK_BYTES, 0);
            assert_eq!(BatchHead::read(&place(), &bytes, bytes.len()), Ok(head.clone()));
            assert_eq!(head.read_entries(&bytes), Ok(entries));
        }
    }

    #[test]
    fn every_flipped_bit_before_the_padding_is_seen() {
        let (head, mut bytes, entries) = sample((7..10).map(|index| entry(index, 2, 300)).collect());
        let body_end = head.head_bytes + head.body_bytes;
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = BatchHead::read(&place(), &bytes, bytes.len()).ok();
            let read = read.and_then(|head| head.read_entries(&bytes).ok().map(|entries| (head, entries)));
            if bit / 8 < body_end {
                assert_eq!(read, None, "bit {bit}");
            } else {
                assert_eq!(read, Some((head.clone(), entries.clone())), "bit {bit} of the padding");
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_batch_counts_only_where_it_was_written_and_for_its_owner() {
        let (_, bytes, _) = sample(vec![entry(7, 1, 10)]);
        let moved = Place { offset: 8192, ..place() };
        assert_eq!(
            BatchHead::read(&moved, &bytes, bytes.len()),
            Err(HeadFlaw::Elsewhere { segment: 9, offset: 4096 })
        );
        let foreign = Place { owner: [0; 16], ..place() };
        assert!(matches!(BatchHead::read(&foreign, &bytes, bytes.len()), Err(HeadFlaw::Crc { .. })));
    }

    #[test]
    fn lengths_that_reach_beyond_the_segment_are_refused_before_anything_is_read() {
        let (_, mut bytes, _) = sample(vec![entry(7, 1, 10)]);
        assert_eq!(BatchHead::read(&place(), &bytes, BLOCK_BYTES - 1), Err(HeadFlaw::Lengths));
        for at in [12, 16, 20, 28] {
            let kept = get_u32(&bytes, at);
            put_u32(&mut bytes, at, u32::MAX);
            assert_eq!(BatchHead::read(&place(), &bytes, BLOCK_BYTES), Err(HeadFlaw::Lengths));
            put_u32(&mut bytes, at, kept);
        }
    }
}
