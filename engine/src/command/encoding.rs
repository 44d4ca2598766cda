//! The bytes of a command, as an entry of the log carries them.
//!
//! ```text
//! entry    version:u8 = 1 | clock_ms:varint | kind:u8 | body of the kind | end (nothing may follow)
//! bytes    length:varint | that many bytes                        string: the same, UTF-8
//! list     number:varint | that many elements
//! integer  i64 zigzag, then varint (7 bits a byte, low ones first, no longer than needed, at most 10 bytes)
//! range    key:bytes | range_end:bytes
//!
//! kind  1 put           flags:u8 (1 prev_kv, 2 ignore_value, 4 ignore_lease) | key:bytes | value:bytes | lease:integer
//!       2 delete range  flags:u8 (1 prev_kv) | range
//!       3 txn           compares:list | success:list of ops | failure:list of ops
//!       4 compact       revision:integer
//!       5 lease grant   id:integer | ttl:integer
//!       6 lease revoke  id:integer
//!       7 lease renew   ids:list of integers
//!       8 lease expire  id:integer
//!       9 alarm         action:u8 | member_id:varint | alarm:u8
//!      10 bootstrap     cluster_id:varint | members:list of
//!                         (id:varint | name:string | peer_urls:list | client_urls:list | is_learner:u8)
//!      11 attributes    id:varint | name:string | client_urls:list
//!
//! compare  result:u8 | target:u8 | range | integer, or bytes where the target is the value
//! op       1 range | 2 put | 3 delete range | 4 txn, each followed by its body
//! range op flags:u8 (1 keys_only, 2 count_only) | order:u8 | target:u8 | range | limit | revision
//!            | min_mod | max_mod | min_create | max_create (integers)
//! ```
//!
//! Rules: a command has exactly one encoding, so whatever decodes encodes to the same bytes again. Decoding never
//! panics, believes no length before it has seen that so many bytes are there, and goes no deeper than
//! [`TXN_LEVELS_MAX`]. Decoded keys and values are copies of their own, so that a small one does not keep a large buffer alive.

use super::{
    AlarmAction, AlarmKind, AlarmRequest, Command, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    Member, PutRequest, RangeRequest, SortOrder, SortTarget, Stamped, TxnOp, TxnRequest,
};
use crate::mvcc::KeyRange;
use crate::mvcc::record::put_varint;
use bytes::Bytes;
use std::fmt;

/// The encoding's version, an entry's first byte.
pub const VERSION: u8 = 1;

/// Levels of txns that encode and decode: more than a client can send (its protobuf stops at 100 messages, two a level),
/// and few enough for any thread's stack.
pub const TXN_LEVELS_MAX: usize = 64;

/// Elements of a list for which room is made at once; longer lists grow as their elements turn out to be there.
const LIST_PREALLOCATED_MAX: usize = 64;

/// The command cannot be encoded: its txns lie deeper than [`TXN_LEVELS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep {
    /// How many levels it has.
    pub levels: usize,
}

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "txns lie {} levels deep, {TXN_LEVELS_MAX} are allowed", self.levels)
    }
}

impl std::error::Error for TooDeep {}

/// Bytes that are no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where in the entry, in bytes.
    pub offset: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// What stands there; `None` at the end of the bytes.
    pub found: Option<u8>,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a command: offset {}: expected {}, found ", self.offset, self.expected)?;
        match self.found {
            Some(byte) => write!(f, "byte {byte:#04x}"),
            None => f.write_str("the end"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Stamped {
    /// The command's bytes.
    ///
    /// # Errors
    /// [`TooDeep`] when its txns lie deeper than [`TXN_LEVELS_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, TooDeep> {
        let mut out = Vec::with_capacity(64);
        self.encode_into(&mut out)?;
        Ok(out)
    }

    /// Appends the command's bytes to `out`; appends nothing when it fails.
    ///
    /// # Errors
    /// As [`Stamped::encode`].
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), TooDeep> {
        if let Command::Txn(txn) = &self.command {
            let levels = txn.levels();
            if levels > TXN_LEVELS_MAX {
                return Err(TooDeep { levels });
            }
        }
        out.push(VERSION);
        put_varint(out, self.clock_ms);
        encode_command(out, &self.command);
        Ok(())
    }

    /// Reads a command from all of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] says where the bytes stop being a command.
    pub fn decode(bytes: &[u8]) -> Result<Stamped, DecodeError> {
        let mut reader = Reader { bytes, offset: 0 };
        let version = reader.byte("the version, 1")?;
        if version != VERSION {
            return Err(reader.refuse_last("the version, 1"));
        }
        let clock_ms = reader.varint()?;
        let command = reader.command()?;
        if reader.offset != bytes.len() {
            return Err(reader.refuse("the end"));
        }
        Ok(Stamped { clock_ms, command })
    }
}

fn encode_command(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::Put(put) => {
            out.push(1);
            encode_put(out, put);
        }
        Command::DeleteRange(delete) => {
            out.push(2);
            encode_delete_range(out, delete);
        }
        Command::Txn(txn) => {
            out.push(3);
            encode_txn(out, txn);
        }
        Command::Compact { revision } => {
            out.push(4);
            put_integer(out, *revision);
        }
        Command::LeaseGrant { id, ttl } => {
            out.push(5);
            put_integer(out, *id);
            put_integer(out, *ttl);
        }
        Command::LeaseRevoke { id } => {
            out.push(6);
            put_integer(out, *id);
        }
        Command::LeaseRenew { ids } => {
            out.push(7);
            put_list(out, ids, |out, id| put_integer(out, *id));
        }
        Command::LeaseExpire { id } => {
            out.push(8);
            put_integer(out, *id);
        }
        Command::Alarm(alarm) => {
            out.push(9);
            out.push(alarm.action as u8);
            put_varint(out, alarm.member_id);
            out.push(alarm.alarm as u8);
        }
        Command::Bootstrap { cluster_id, members } => {
            out.push(10);
            put_varint(out, *cluster_id);
            put_list(out, members, encode_member);
        }
        Command::MemberAttributes { id, name, client_urls } => {
            out.push(11);
            put_varint(out, *id);
            put_bytes(out, name.as_bytes());
            put_list(out, client_urls, |out, url| put_bytes(out, url.as_bytes()));
        }
    }
}

fn encode_put(out: &mut Vec<u8>, put: &PutRequest) {
    out.reserve(put.key.len() + put.value.len() + 32);
    out.push(put.prev_kv as u8 | (put.ignore_value as u8) << 1 | (put.ignore_lease as u8) << 2);
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
    put_integer(out, put.lease);
}

fn encode_delete_range(out: &mut Vec<u8>, delete: &DeleteRangeRequest) {
    out.push(delete.prev_kv as u8);
    put_range(out, &delete.range);
}

fn encode_txn(out: &mut Vec<u8>, txn: &TxnRequest) {
    put_list(out, &txn.compares, encode_compare);
    put_list(out, &txn.success, encode_op);
    put_list(out, &txn.failure, encode_op);
}

fn encode_compare(out: &mut Vec<u8>, compare: &Compare) {
    out.push(compare.result as u8);
    out.push(match compare.target {
        CompareTarget::Version(_) => 0,
        CompareTarget::CreateRevision(_) => 1,
        CompareTarget::ModRevision(_) => 2,
        CompareTarget::Value(_) => 3,
        CompareTarget::Lease(_) => 4,
    });
    put_range(out, &compare.range);
    match &compare.target {
        CompareTarget::Value(value) => put_bytes(out, value),
        CompareTarget::Version(number)
        | CompareTarget::CreateRevision(number)
        | CompareTarget::ModRevision(number)
        | CompareTarget::Lease(number) => put_integer(out, *number),
    }
}

fn encode_op(out: &mut Vec<u8>, op: &TxnOp) {
    match op {
        TxnOp::Range(range) => {
            out.push(1);
            encode_range_request(out, range);
        }
        TxnOp::Put(put) => {
            out.push(2);
            encode_put(out, put);
        }
        TxnOp::DeleteRange(delete) => {
            out.push(3);
            encode_delete_range(out, delete);
        }
        TxnOp::Txn(txn) => {
            out.push(4);
            encode_txn(out, txn);
        }
    }
}

fn encode_range_request(out: &mut Vec<u8>, request: &RangeRequest) {
    out.push(request.keys_only as u8 | (request.count_only as u8) << 1);
    out.push(request.sort_order as u8);
    out.push(request.sort_target as u8);
    put_range(out, &request.range);
    put_integer(out, request.limit);
    put_integer(out, request.revision);
    put_integer(out, request.min_mod_revision);
    put_integer(out, request.max_mod_revision);
    put_integer(out, request.min_create_revision);
    put_integer(out, request.max_create_revision);
}

fn encode_member(out: &mut Vec<u8>, member: &Member) {
    put_varint(out, member.id);
    put_bytes(out, member.name.as_bytes());
    put_list(out, &member.peer_urls, |out, url| put_bytes(out, url.as_bytes()));
    put_list(out, &member.client_urls, |out, url| put_bytes(out, url.as_bytes()));
    out.push(member.is_learner as u8);
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_range(out: &mut Vec<u8>, range: &KeyRange) {
    put_bytes(out, &range.key);
    put_bytes(out, &range.range_end);
}

fn put_list<T>(out: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_varint(out, list.len() as u64);
    for element in list {
        put(out, element);
    }
}

type Decoded<T> = Result<T, DecodeError>;

/// Walks over an entry's bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn refuse(&self, expected: &'static str) -> DecodeError {
        DecodeError { offset: self.offset, expected, found: self.bytes.get(self.offset).copied() }
    }

    /// Refuses the byte just read.
    fn refuse_last(&self, expected: &'static str) -> DecodeError {
        let offset = self.offset.saturating_sub(1);
        DecodeError { offset, expected, found: self.bytes.get(offset).copied() }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    fn byte(&mut self, expected: &'static str) -> Decoded<u8> {
        let byte = *self.bytes.get(self.offset).ok_or_else(|| self.refuse(expected))?;
        self.offset += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte("a number")?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.refuse_last("a number of at most 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.refuse_last("a number no longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(self.refuse_last("a number of at most 64 bits"))
    }

    fn integer(&mut self) -> Decoded<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn slice(&mut self) -> Decoded<&'a [u8]> {
        let start = self.offset;
        let length = self.varint()?;
        if length > self.left() as u64 {
            self.offset = start;
            return Err(self.refuse("a length within the entry"));
        }
        let end = self.offset + length as usize;
        let slice = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(slice)
    }

    fn bytes(&mut self) -> Decoded<Bytes> {
        self.slice().map(Bytes::copy_from_slice)
    }

    fn string(&mut self) -> Decoded<String> {
        let start = self.offset;
        match std::str::from_utf8(self.slice()?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                self.offset = start;
                Err(self.refuse("UTF-8"))
            }
        }
    }

    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let start = self.offset;
        let number = self.varint()?;
        if number > self.left() as u64 {
            self.offset = start;
            return Err(self.refuse("a number of elements within the entry"));
        }
        let mut list = Vec::with_capacity((number as usize).min(LIST_PREALLOCATED_MAX));
        for _ in 0..number {
            list.push(element(self)?);
        }
        Ok(list)
    }

    fn flags(&mut self, known: u8) -> Decoded<u8> {
        let flags = self.byte("flags")?;
        if flags & !known != 0 {
            return Err(self.refuse_last("known flags"));
        }
        Ok(flags)
    }

    fn choice<T: Copy>(&mut self, choices: &[T], expected: &'static str) -> Decoded<T> {
        let number = self.byte(expected)?;
        choices.get(usize::from(number)).copied().ok_or_else(|| self.refuse_last(expected))
    }

    fn range(&mut self) -> Decoded<KeyRange> {
        Ok(KeyRange { key: self.bytes()?, range_end: self.bytes()? })
    }

    fn command(&mut self) -> Decoded<Command> {
        Ok(match self.byte("a kind of command")? {
            1 => Command::Put(self.put()?),
            2 => Command::DeleteRange(self.delete_range()?),
            3 => Command::Txn(self.txn(1)?),
            4 => Command::Compact { revision: self.integer()? },
            5 => Command::LeaseGrant { id: self.integer()?, ttl: self.integer()? },
            6 => Command::LeaseRevoke { id: self.integer()? },
            7 => Command::LeaseRenew { ids: self.list(Self::integer)? },
            8 => Command::LeaseExpire { id: self.integer()? },
            9 => Command::Alarm(self.alarm()?),
            10 => Command::Bootstrap { cluster_id: self.varint()?, members: self.list(Self::member)? },
            11 => Command::MemberAttributes {
                id: self.varint()?,
                name: self.string()?,
                client_urls: self.list(Self::string)?,
            },
            _ => return Err(self.refuse_last("a kind of command")),
        })
    }

    fn put(&mut self) -> Decoded<PutRequest> {
        let flags = self.flags(0b111)?;
        Ok(PutRequest {
            key: self.bytes()?,
            value: self.bytes()?,
            lease: self.integer()?,
            prev_kv: flags & 1 != 0,
            ignore_value: flags & 2 != 0,
            ignore_lease: flags & 4 != 0,
        })
    }

    fn delete_range(&mut self) -> Decoded<DeleteRangeRequest> {
        let flags = self.flags(0b1)?;
        Ok(DeleteRangeRequest { range: self.range()?, prev_kv: flags & 1 != 0 })
    }

    fn txn(&mut self, level: usize) -> Decoded<TxnRequest> {
        if level > TXN_LEVELS_MAX {
            return Err(self.refuse_last("no txn deeper than 64 levels"));
        }
        Ok(TxnRequest {
            compares: self.list(Self::compare)?,
            success: self.list(|reader| reader.op(level))?,
            failure: self.list(|reader| reader.op(level))?,
        })
    }

    fn compare(&mut self) -> Decoded<Compare> {
        use CompareResult::{Equal, Greater, Less, NotEqual};
        let result = self.choice(&[Equal, Greater, Less, NotEqual], "a comparison")?;
        let target = self.byte("what is compared")?;
        if target > 4 {
            return Err(self.refuse_last("what is compared"));
        }
        let range = self.range()?;
        let target = match target {
            0 => CompareTarget::Version(self.integer()?),
            1 => CompareTarget::CreateRevision(self.integer()?),
            2 => CompareTarget::ModRevision(self.integer()?),
            3 => CompareTarget::Value(self.bytes()?),
            _ => CompareTarget::Lease(self.integer()?),
        };
        Ok(Compare { range, result, target })
    }

    fn op(&mut self, level: usize) -> Decoded<TxnOp> {
        Ok(match self.byte("an operation")? {
            1 => TxnOp::Range(self.range_request()?),
            2 => TxnOp::Put(self.put()?),
            3 => TxnOp::DeleteRange(self.delete_range()?),
            4 => TxnOp::Txn(self.txn(level + 1)?),
            _ => return Err(self.refuse_last("an operation")),
        })
    }

    fn range_request(&mut self) -> Decoded<RangeRequest> {
        use SortTarget::{Create, Key, Mod, Value, Version};
        let flags = self.flags(0b11)?;
        let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
        Ok(RangeRequest {
            keys_only: flags & 1 != 0,
            count_only: flags & 2 != 0,
            sort_order: self.choice(&orders, "an order")?,
            sort_target: self.choice(&[Key, Version, Create, Mod, Value], "what is sorted by")?,
            range: self.range()?,
            limit: self.integer()?,
            revision: self.integer()?,
            min_mod_revision: self.integer()?,
            max_mod_revision: self.integer()?,
            min_create_revision: self.integer()?,
            max_create_revision: self.integer()?,
        })
    }

    fn alarm(&mut self) -> Decoded<AlarmRequest> {
        use AlarmAction::{Activate, Deactivate, Get};
        Ok(AlarmRequest {
            action: self.choice(&[Get, Activate, Deactivate], "what to do about alarms")?,
            member_id: self.varint()?,
            alarm: self.choice(&[AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt], "an alarm")?,
        })
    }

    fn member(&mut self) -> Decoded<Member> {
        Ok(Member {
            id: self.varint()?,
            name: self.string()?,
            peer_urls: self.list(Self::string)?,
            client_urls: self.list(Self::string)?,
            is_learner: self.flags(0b1)? != 0,
        })
    }
}
