//! A segment: one file of the log. Its first block is its header, batches follow on block boundaries.
//!
//! ```text
//! file 000000000000002a.wal
//! +----------+---------+----+---------+------+----------------------------+
//! | header   | batch   |    | batch   | mark |  dead: stamp, or the old   |
//! | 4,096    | n blocks|    | n blocks|      |  batches of a recycled one |
//! +----------+---------+----+---------+------+----------------------------+
//!
//! header, little-endian, the rest of the block is stamp
//!   0  magic "coffrSEG"       40  epoch: rises at each opening     96  first segment needed
//!   8  CRC of 0..8, 12..160   48  salt: drawn for each opening    104  term
//!  12  format number          56  length of the file              112  vote
//!  16  owner, 16 bytes        64  predecessor: its number, 0: none 120  commit
//!  32  number of the segment  72    its exact end, in bytes
//!                             80    last sequence before this     128  number of the
//!                             88    CRC of the last batch          last batch
//!                             92  flags: 1 recycled           136  newest checkpoint: transaction
//!                                                             144    applied index
//!                                                             152  zeros to 160
//! ```
//! Magic, CRC, its reach and the format number stay where they are in every later format, so that a program always
//! knows whether it may read on.

use super::HardState;
use super::checksum::{crc, get_u32, get_u64, matches, put_u32, put_u64};
use crate::disk::BLOCK_BYTES;
use std::path::{Path, PathBuf};

/// Number of the format written and read here.
pub const FORMAT_NUMBER: u32 = 1;
/// Where the first batch begins.
pub(super) const FIRST_BATCH: u64 = BLOCK_BYTES as u64;
/// The unit that a disk writes whole, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// Numbers of segments stay below this, so that counting on never overflows.
const SEGMENT_MAX: u64 = 1 << 48;
const MAGIC: [u8; 8] = *b"coffrSEG";
const CHECKED_BYTES: usize = 160;
const STAMP: [u8; 16] = *b"coffer: unused. ";
const FLAG_RECYCLED: u32 = 1;

const AT_CRC: usize = 8;
const AT_FORMAT: usize = 12;
const AT_OWNER: usize = 16;
const AT_SEGMENT: usize = 32;
const AT_EPOCH: usize = 40;
const AT_SALT: usize = 48;
const AT_BYTES: usize = 56;
const AT_PREDECESSOR: usize = 64;
const AT_FLAGS: usize = 92;
const AT_FIRST_SEGMENT: usize = 96;
const AT_HARD_STATE: usize = 104;
const AT_NUMBER: usize = 128;
const AT_CHECKPOINT: usize = 136;
const _: () = assert!(AT_CHECKPOINT + 16 <= CHECKED_BYTES && CHECKED_BYTES <= SECTOR_BYTES);
const _: () = assert!(SECTOR_BYTES.is_multiple_of(STAMP.len()) && BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));

/// The exact end of what was accepted: all behind it in that segment is dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// The segment, 0 before the first.
    pub(super) segment: u64,
    /// Where the last batch ends, in bytes (or the header, if there is none).
    pub(super) offset: u64,
    /// Number of the last batch, marks counted, 0 before the first.
    pub(super) number: u64,
    /// Sequence number of the last appended one, 0 before the first.
    pub(super) seq: u64,
    /// Its CRC.
    pub(super) crc: u32,
}

/// A segment's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) owner: [u8; 16],
    pub(super) segment: u64,
    pub(super) epoch: u64,
    pub(super) salt: u64,
    pub(super) bytes: u64,
    pub(super) predecessor: LogEnd,
    pub(super) recycled: bool,
    pub(super) first_segment: u64,
    pub(super) hard_state: HardState,
    /// The newest durable checkpoint known: transaction, applied index.
    pub(super) checkpoint: (u64, u64),
}

/// What stands in a segment's first block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FirstBlock {
    /// A whole header, of whatever log and segment.
    Header(SegmentHeader),
    /// A whole header of another format.
    OtherFormat(u32),
    /// The stamp: allocated ahead and not begun.
    Stamp,
    /// Zeros, or nothing at all: neither a header nor the stamp was ever lost that way by a crash.
    Blank,
    /// Something else: an unfinished write, or rot.
    Unclear,
}

impl SegmentHeader {
    /// Writes the header into a block.
    pub(super) fn encode(&self, block: &mut [u8]) {
        fill_with_stamp(block);
        block[..CHECKED_BYTES].fill(0);
        block[..8].copy_from_slice(&MAGIC);
        put_u32(block, AT_FORMAT, FORMAT_NUMBER);
        block[AT_OWNER..AT_OWNER + 16].copy_from_slice(&self.owner);
        put_u64(block, AT_SEGMENT, self.segment);
        put_u64(block, AT_EPOCH, self.epoch);
        put_u64(block, AT_SALT, self.salt);
        put_u64(block, AT_BYTES, self.bytes);
        put_u64(block, AT_PREDECESSOR, self.predecessor.segment);
        put_u64(block, AT_PREDECESSOR + 8, self.predecessor.offset);
        put_u64(block, AT_PREDECESSOR + 16, self.predecessor.seq);
        put_u32(block, AT_PREDECESSOR + 24, self.predecessor.crc);
        put_u32(block, AT_FLAGS, if self.recycled { FLAG_RECYCLED } else { 0 });
        put_u64(block, AT_FIRST_SEGMENT, self.first_segment);
        put_u64(block, AT_HARD_STATE, self.hard_state.term);
        put_u64(block, AT_HARD_STATE + 8, self.hard_state.vote);
        put_u64(block, AT_HARD_STATE + 16, self.hard_state.commit);
        put_u64(block, AT_NUMBER, self.predecessor.number);
        put_u64(block, AT_CHECKPOINT, self.checkpoint.0);
        put_u64(block, AT_CHECKPOINT + 8, self.checkpoint.1);
        let checksum = header_crc(block);
        put_u32(block, AT_CRC, checksum);
    }

    fn decode(block: &[u8]) -> SegmentHeader {
        let mut owner = [0; 16];
        owner.copy_from_slice(&block[AT_OWNER..AT_OWNER + 16]);
        SegmentHeader {
            owner,
            segment: get_u64(block, AT_SEGMENT),
            epoch: get_u64(block, AT_EPOCH),
            salt: get_u64(block, AT_SALT),
            bytes: get_u64(block, AT_BYTES),
            predecessor: LogEnd {
                segment: get_u64(block, AT_PREDECESSOR),
                offset: get_u64(block, AT_PREDECESSOR + 8),
                number: get_u64(block, AT_NUMBER),
                seq: get_u64(block, AT_PREDECESSOR + 16),
                crc: get_u32(block, AT_PREDECESSOR + 24),
            },
            recycled: get_u32(block, AT_FLAGS) & FLAG_RECYCLED != 0,
            first_segment: get_u64(block, AT_FIRST_SEGMENT),
            hard_state: HardState {
                term: get_u64(block, AT_HARD_STATE),
                vote: get_u64(block, AT_HARD_STATE + 8),
                commit: get_u64(block, AT_HARD_STATE + 16),
            },
            checkpoint: (get_u64(block, AT_CHECKPOINT), get_u64(block, AT_CHECKPOINT + 8)),
        }
    }
}

impl FirstBlock {
    /// Reads a first block; it may be shorter than a block where the file is.
    pub(super) fn read(block: &[u8]) -> FirstBlock {
        let Some(first_sector) = block.get(..SECTOR_BYTES) else { return FirstBlock::Blank };
        if first_sector.iter().all(|byte| *byte == 0) {
            return FirstBlock::Blank;
        }
        if is_stamp(first_sector) {
            return FirstBlock::Stamp;
        }
        if first_sector[..8] != MAGIC || !matches(get_u32(block, AT_CRC), header_crc(block)) {
            return FirstBlock::Unclear;
        }
        match get_u32(block, AT_FORMAT) {
            FORMAT_NUMBER => FirstBlock::Header(SegmentHeader::decode(block)),
            other => FirstBlock::OtherFormat(other),
        }
    }

    /// In words, for a fault.
    pub(super) fn describe(&self) -> String {
        match self {
            FirstBlock::Header(header) => format!("the header of segment {}", header.segment),
            FirstBlock::OtherFormat(number) => format!("a header of format {number}"),
            FirstBlock::Stamp => "unused space".to_string(),
            FirstBlock::Blank => "zeros, or the end of the file".to_string(),
            FirstBlock::Unclear => "bytes that are no whole header".to_string(),
        }
    }
}

fn header_crc(block: &[u8]) -> u32 {
    let begin = crc(0, &block[..AT_CRC]);
    crc(begin, &block[AT_FORMAT..CHECKED_BYTES])
}

/// Fills bytes (whole sectors) with the stamp of unused space.
pub(super) fn fill_with_stamp(bytes: &mut [u8]) {
    for piece in bytes.chunks_exact_mut(STAMP.len()) {
        piece.copy_from_slice(&STAMP);
    }
}

/// Whether all of it is unused space.
pub(super) fn is_stamp(bytes: &[u8]) -> bool {
    bytes.chunks(STAMP.len()).all(|piece| *piece == STAMP[..piece.len()])
}

/// A segment's file.
pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016x}.wal"))
}

/// The number in a segment's file name.
pub(super) fn segment_of_name(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".wal")?;
    let ours = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let segment = if ours { u64::from_str_radix(digits, 16).ok() } else { None };
    segment.filter(|segment| (1..SEGMENT_MAX).contains(segment))
}

/// The file in which the next segment is made.
pub(super) fn unfinished_path(dir: &Path) -> PathBuf {
    dir.join("next.tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            owner: *b"cluster1 member2",
            segment: 7,
            epoch: 3,
            salt: 0xfeed,
            bytes: 1 << 20,
            predecessor: LogEnd { segment: 6, offset: 8192, number: 120, seq: 99, crc: 5 },
            recycled: true,
            first_segment: 2,
            hard_state: HardState { term: 4, vote: 1, commit: 90 },
            checkpoint: (31, 88),
        }
    }

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_of_it_is_seen() {
        let mut block = vec![0; BLOCK_BYTES];
        sample().encode(&mut block);
        assert_eq!(FirstBlock::read(&block), FirstBlock::Header(sample()));
        for bit in 0..CHECKED_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FirstBlock::read(&block), FirstBlock::Unclear, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn stamp_zeros_and_short_files_are_told_apart() {
        let mut block = vec![0; BLOCK_BYTES];
        assert_eq!(FirstBlock::read(&block), FirstBlock::Blank);
        assert_eq!(FirstBlock::read(&[]), FirstBlock::Blank);
        fill_with_stamp(&mut block);
        assert_eq!(FirstBlock::read(&block), FirstBlock::Stamp);
        block[3] ^= 1;
        assert_eq!(FirstBlock::read(&block), FirstBlock::Unclear);
    }

    #[test]
    fn only_names_of_segments_are_read_as_such() {
        let path = segment_path(Path::new("/d"), 0x2a);
        assert_eq!(segment_of_name(Path::new(path.file_name().expect("it has a name"))), Some(0x2a));
        for other in
            ["0.wal", "000000000000002A.wal", "0000000000000000.wal", "next.tmp", "+00000000000002a.wal"]
        {
            assert_eq!(segment_of_name(Path::new(other)), None, "{other}");
        }
    }
}
