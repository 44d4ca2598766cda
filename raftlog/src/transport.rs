//! Messages between members: their envelope, their bytes, and the trait of whoever carries them.
//!
//! raft's messages have an encoding of our own; raft-rs's protobuf never crosses the network. All numbers are
//! little-endian:
//!
//! ```text
//!   0  magic "cfm1"          4  CRC-32 of all that follows it
//!   8  cluster id           16  from                  24  to
//!  32  kind (u8)            33  flags (u8, bit 0: reject)     34  zero (u16)
//!  36  number of entries (u32)
//!  40  term   48  log term   56  index   64  commit   72  commit term   80  reject hint
//!  88  entries, each: kind (u8), three zeros, length of data (u32), term (u64), data
//! ```
//!
//! Entries carry no index: the n-th one's is `index + n`, so they cannot but be contiguous.
//! [`decode`] takes any bytes and never panics: it checks magic, sum, lengths (before it allocates), owner, sender,
//! and what can be said of a message without knowing the receiver's state. What needs that state is checked by
//! [`crate::driver::Driver::step`].
//!
//! Kinds that nothing sends yet (snapshots, leadership transfer, raft's own read index, forwarded proposals) are
//! refused here, so that they cannot reach raft-rs.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use std::fmt;

/// Length of a message's head, in bytes.
const HEAD_BYTES: usize = 88;
/// Length of an entry's head, in bytes.
const ENTRY_HEAD_BYTES: usize = 16;
const MAGIC: &[u8; 4] = b"cfm1";

/// Longest message taken from a peer, in bytes: four of the largest requests that the server can be told to admit
/// would still fit, and a full append is far below it.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest index and term taken from a peer: far beyond what any cluster reaches, far below where sums overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// A message on its way: for whom, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The member that shall get it.
    pub to: u64,
    /// The encoded message.
    pub bytes: Bytes,
}

/// Who carries messages to other members. Losing, repeating and delaying them is allowed; blocking is not.
pub trait Transport: Send {
    /// Sends one message, or drops it if its way is full.
    fn send(&mut self, envelope: Envelope);
}

/// The transport of a member without peers.
#[derive(Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&mut self, _envelope: Envelope) {}
}

/// Why a message from a peer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too short, too long, or its lengths do not agree.
    Length,
    /// It does not begin as a message does.
    Magic,
    /// Its sum is wrong.
    Checksum,
    /// It belongs to another cluster.
    Cluster,
    /// It is for another member, or from none that is known.
    Address,
    /// A kind of message that no member sends.
    Kind,
    /// A field that has no place in this kind of message, or a reserved one that is not zero.
    Field,
    /// An index or a term out of all range, or terms that run backwards.
    Range,
    /// It contradicts what is committed here, or says that more is committed than this member has.
    BeyondLog,
    /// So much waits to be applied here that no more entries are taken for now.
    Full,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Length => "its length is wrong",
            Refused::Magic => "it is not a message between members",
            Refused::Checksum => "its checksum is wrong",
            Refused::Cluster => "it belongs to another cluster",
            Refused::Address => "its sender or receiver is wrong",
            Refused::Kind => "its kind is unknown",
            Refused::Field => "a field has no place in it",
            Refused::Range => "an index or term in it is out of range",
            Refused::BeyondLog => "it contradicts what is committed here",
            Refused::Full => "too much waits to be applied here",
        })
    }
}

impl std::error::Error for Refused {}

fn kind_code(kind: MessageType) -> Option<u8> {
    Some(match kind {
        MessageType::MsgAppend => 1,
        MessageType::MsgAppendResponse => 2,
        MessageType::MsgHeartbeat => 3,
        MessageType::MsgHeartbeatResponse => 4,
        MessageType::MsgRequestVote => 5,
        MessageType::MsgRequestVoteResponse => 6,
        MessageType::MsgRequestPreVote => 7,
        MessageType::MsgRequestPreVoteResponse => 8,
        _ => return None,
    })
}

fn code_kind(code: u8) -> Option<MessageType> {
    Some(match code {
        1 => MessageType::MsgAppend,
        2 => MessageType::MsgAppendResponse,
        3 => MessageType::MsgHeartbeat,
        4 => MessageType::MsgHeartbeatResponse,
        5 => MessageType::MsgRequestVote,
        6 => MessageType::MsgRequestVoteResponse,
        7 => MessageType::MsgRequestPreVote,
        8 => MessageType::MsgRequestPreVoteResponse,
        _ => return None,
    })
}

fn entry_code(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

/// Whether a message's entries come one after the other right behind the entry that it names.
pub(crate) fn follows(message: &Message) -> bool {
    (message.index + 1..).zip(message.entries.iter()).all(|(index, entry)| entry.index == index)
}

/// The bytes of a message; `None` for a kind that does not cross the network, and for entries that do not follow the
/// message's index.
pub fn encode(cluster_id: u64, message: &Message) -> Option<Bytes> {
    let kind = kind_code(message.get_msg_type())?;
    if !follows(message) {
        return None; // these bytes would put its entries elsewhere
    }
    let data: usize = message.entries.iter().map(|e| ENTRY_HEAD_BYTES + e.data.len()).sum();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + data);
    out.put_slice(MAGIC);
    out.put_u32_le(0);
    out.put_u64_le(cluster_id);
    out.put_u64_le(message.from);
    out.put_u64_le(message.to);
    out.put_u8(kind);
    out.put_u8(u8::from(message.reject));
    out.put_u16_le(0);
    out.put_u32_le(u32::try_from(message.entries.len()).ok()?);
    out.put_u64_le(message.term);
    out.put_u64_le(message.log_term);
    out.put_u64_le(message.index);
    out.put_u64_le(message.commit);
    out.put_u64_le(message.commit_term);
    out.put_u64_le(message.reject_hint);
    for entry in message.entries.iter() {
        out.put_u8(entry_code(entry.get_entry_type()));
        out.put_slice(&[0; 3]);
        out.put_u32_le(u32::try_from(entry.data.len()).ok()?);
        out.put_u64_le(entry.term);
        out.put_slice(&entry.data);
    }
    let sum = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    Some(out.freeze())
}

/// Reads a message sent to member `me` of cluster `cluster_id`.
///
/// # Errors
/// Says why it was not taken; nothing of it may then be used.
pub fn decode(cluster_id: u64, me: u64, mut bytes: Bytes) -> Result<Message, Refused> {
    if bytes.len() < HEAD_BYTES || bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Refused::Length);
    }
    if bytes.get(..4) != Some(MAGIC.as_slice()) {
        return Err(Refused::Magic);
    }
    bytes.advance(4);
    let sum = bytes.get_u32_le();
    if crc32fast::hash(&bytes) != sum {
        return Err(Refused::Checksum);
    }
    if bytes.get_u64_le() != cluster_id {
        return Err(Refused::Cluster);
    }
    let (from, to) = (bytes.get_u64_le(), bytes.get_u64_le());
    let mut message = Message { from, to, ..Message::default() };
    let kind = bytes.get_u8();
    let flags = bytes.get_u8();
    let zero = bytes.get_u16_le();
    let entries = bytes.get_u32_le() as usize;
    message.term = bytes.get_u64_le();
    message.log_term = bytes.get_u64_le();
    message.index = bytes.get_u64_le();
    message.commit = bytes.get_u64_le();
    message.commit_term = bytes.get_u64_le();
    message.reject_hint = bytes.get_u64_le();
    if message.to != me || message.from == 0 || message.from == me {
        return Err(Refused::Address);
    }
    message.set_msg_type(code_kind(kind).ok_or(Refused::Kind)?);
    if flags > 1 || zero != 0 {
        return Err(Refused::Field);
    }
    message.reject = flags == 1;
    check_ranges(&message, entries)?;
    message.entries = decode_entries(&message, entries, bytes)?.into();
    Ok(message)
}

fn check_ranges(message: &Message, entries: usize) -> Result<(), Refused> {
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    if numbers.iter().any(|&n| n > NUMBER_MAX) || message.term == 0 {
        return Err(Refused::Range);
    }
    if message.log_term > message.term || message.commit_term > message.term {
        return Err(Refused::Range);
    }
    let kind = message.get_msg_type();
    let response = matches!(
        kind,
        MessageType::MsgAppendResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
    );
    if (entries > 0 && kind != MessageType::MsgAppend) || (message.reject && !response) {
        return Err(Refused::Field);
    }
    // raft-rs takes an unknown index for one of term 0: only the log's very beginning may say so
    let names_log =
        matches!(kind, MessageType::MsgAppend | MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
    if names_log && (message.log_term == 0) != (message.index == 0) {
        return Err(Refused::Range);
    }
    Ok(())
}

fn decode_entries(message: &Message, entries: usize, mut bytes: Bytes) -> Result<Vec<Entry>, Refused> {
    if entries.checked_mul(ENTRY_HEAD_BYTES).is_none_or(|least| least > bytes.len()) {
        return Err(Refused::Length);
    }
    let mut out = Vec::with_capacity(entries);
    let mut term_before = message.log_term;
    for nth in 1..=entries as u64 {
        if bytes.len() < ENTRY_HEAD_BYTES {
            return Err(Refused::Length);
        }
        let mut entry = Entry::default();
        entry.set_entry_type(match bytes.get_u8() {
            0 => EntryType::EntryNormal,
            1 => EntryType::EntryConfChange,
            2 => EntryType::EntryConfChangeV2,
            _ => return Err(Refused::Kind),
        });
        if bytes.get_uint_le(3) != 0 {
            return Err(Refused::Field);
        }
        let length = bytes.get_u32_le() as usize;
        entry.term = bytes.get_u64_le();
        entry.index = message.index + nth;
        if length > bytes.len() {
            return Err(Refused::Length);
        }
        if entry.term == 0 || entry.term < term_before || entry.term > message.term {
            return Err(Refused::Range);
        }
        term_before = entry.term;
        entry.data = bytes.split_to(length);
        out.push(entry);
    }
    if bytes.is_empty() { Ok(out) } else { Err(Refused::Length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn append() -> Message {
        let mut message = Message {
            msg_type: MessageType::MsgAppend,
            from: 2,
            to: 1,
            term: 7,
            log_term: 5,
            index: 40,
            commit: 41,
            ..Message::default()
        };
        message.entries = [(6, b"one".as_slice()), (7, b"")]
            .iter()
            .enumerate()
            .map(|(nth, &(term, data))| {
                let data = Bytes::copy_from_slice(data);
                Entry { index: 41 + nth as u64, term, data, ..Entry::default() }
            })
            .collect::<Vec<_>>()
            .into();
        message
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        let message = append();
        let bytes = encode(9, &message).unwrap();
        assert_eq!(decode(9, 1, bytes.clone()).unwrap(), message);
        assert_eq!(decode(8, 1, bytes.clone()), Err(Refused::Cluster));
        assert_eq!(decode(9, 3, bytes), Err(Refused::Address));
    }

    #[test]
    fn kinds_that_nothing_sends_have_no_bytes() {
        for kind in [
            MessageType::MsgPropose,
            MessageType::MsgSnapshot,
            MessageType::MsgReadIndex,
            MessageType::MsgTransferLeader,
            MessageType::MsgTimeoutNow,
            MessageType::MsgHup,
        ] {
            let mut message = append();
            message.set_msg_type(kind);
            assert_eq!(encode(9, &message), None);
        }
    }

    #[test]
    fn entries_that_do_not_follow_the_messages_index_have_no_bytes() {
        let mut message = append();
        message.index = 41;
        assert_eq!(encode(9, &message), None);
        let mut message = append();
        message.mut_entries()[1].index = 43;
        assert_eq!(encode(9, &message), None);
    }

    #[test]
    fn entries_whose_terms_run_backwards_are_refused() {
        let mut message = append();
        message.mut_entries()[1].term = 5;
        let bytes = encode(9, &message).unwrap();
        assert_eq!(decode(9, 1, bytes), Err(Refused::Range));
    }

    #[test]
    fn an_append_behind_an_index_of_no_term_is_refused() {
        let mut message = append();
        message.log_term = 0;
        let bytes = encode(9, &message).unwrap();
        assert_eq!(decode(9, 1, bytes), Err(Refused::Range));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = encode(9, &append()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(9, 1, flipped.into()).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_with_a_right_sum_are_read_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            kind in 0u8..10,
            count in 0u32..5,
        ) {
            if bytes.len() >= HEAD_BYTES {
                bytes[..4].copy_from_slice(MAGIC);
                bytes[8..16].copy_from_slice(&9u64.to_le_bytes());
                bytes[24..32].copy_from_slice(&1u64.to_le_bytes());
                bytes[32..36].copy_from_slice(&[kind, 0, 0, 0]);
                bytes[36..40].copy_from_slice(&count.to_le_bytes());
                for at in (40..88).step_by(8) {
                    bytes[at + 2..at + 8].fill(0);
                }
                let sum = crc32fast::hash(&bytes[8..]);
                bytes[4..8].copy_from_slice(&sum.to_le_bytes());
            }
            if let Ok(message) = decode(9, 1, bytes.clone().into()) {
                prop_assert_eq!(encode(9, &message).unwrap(), Bytes::from(bytes));
            }
        }
    }
}
