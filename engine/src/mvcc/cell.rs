//! The bytes of what the trees hold.
//!
//! ```text
//! tree        key                      value
//! Keys        user key                 flags:u8 | run? | sub:varint | number:varint | spine | body      (newest, live)
//! Deleted     user key                 main:varint | sub:varint | number:varint | spine                 (its tombstone)
//! Revisions   main, sub (u64, big-endian)
//!                                      flags:u8 | run? | previous run? | previous? | skip? | key
//!                                        | previous body? (len:varint | body) | body
//! Leases      id (i64, ordered)        ttl:i64 | deadline:u64                                           (little-endian)
//! LeaseKeys   id | user key            -
//! Deadlines   deadline (u64, big-endian) | id                                                           -
//!
//! body        10 create | 18 mod | 20 version | 2a len value | 30 lease     the wire form of etcd's mvccpb.KeyValue without
//!             its key; no 2a where the value is empty or stands in a run. A tombstone has none.
//! run         RunRef, 20 bytes
//! previous    the difference: main:varint | sub:varint; skip alike. Both are the revision of an older version of the key
//! key         len:varint | bytes, or the RunRef of a run of the record's own
//! spine       len:u8 | heads, each: (difference of mains << 1 | sub is not 0):varint | sub:varint?
//!
//! flags of Keys        1 value in a run   2 there is a version before
//! flags of Revisions   1 value in a run   2 there is a version before   4 tombstone   8 key in a run   16 skip differs from previous
//!                      32 previous body   64 its value in a run         128 no skip although there is a version before
//! ```
//! A value stands in a run where it and the key are longer than [`INLINE_BYTES_MAX`]; so every value of a tree fits into
//! [`btree::VALUE_MAX`].

use super::record::put_varint;
use super::revision::Revision;
use super::spine::{SPINE_BYTES_MAX, Spine};
use crate::btree;
use crate::pager::page::{RUN_REF_BYTES, RunRef};

/// Bytes of key and value, and of the previous value, that stand in a record beside each other.
pub(super) const INLINE_BYTES_MAX: usize = 1200;
/// Keys up to this size stand in their records.
pub(super) const KEY_IN_RECORD_MAX: usize = 512;

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;
/// Bytes a body may have beside its value: four integers and the value's length.
const BODY_OVERHEAD_MAX: usize = 4 * (1 + VARINT_BYTES_MAX) + 1 + 3;
/// Bytes an entry of a live key may have beside its value.
const ENTRY_OVERHEAD_MAX: usize =
    1 + RUN_REF_BYTES + 2 * VARINT_BYTES_MAX + 1 + SPINE_BYTES_MAX + BODY_OVERHEAD_MAX;
/// Bytes a record may have beside key, value and previous value.
const RECORD_OVERHEAD_MAX: usize =
    1 + 2 * RUN_REF_BYTES + 4 * VARINT_BYTES_MAX + 2 + 2 + 2 * BODY_OVERHEAD_MAX;

const _: () = assert!(ENTRY_OVERHEAD_MAX + INLINE_BYTES_MAX <= btree::VALUE_MAX);
const _: () = assert!(RECORD_OVERHEAD_MAX + INLINE_BYTES_MAX <= btree::VALUE_MAX);
const _: () = assert!(KEY_IN_RECORD_MAX <= INLINE_BYTES_MAX);

const VALUE_IN_RUN: u8 = 1;
const HAS_PREVIOUS: u8 = 2;
const TOMBSTONE: u8 = 4;
const KEY_IN_RUN: u8 = 8;
const OWN_SKIP: u8 = 16;
const PREVIOUS_BODY: u8 = 32;
const PREVIOUS_IN_RUN: u8 = 64;
const NO_SKIP: u8 = 128;

/// Bytes that are not what their tree holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What reading an entry gives.
pub(super) type Read<T> = Result<T, Malformed>;

/// Whether a value of that length goes to a run.
pub(super) fn goes_to_run(key_bytes: usize, value_bytes: usize) -> bool {
    value_bytes > 0 && bytes_in_record(key_bytes) + value_bytes > INLINE_BYTES_MAX
}

/// What a key takes of [`INLINE_BYTES_MAX`].
pub(super) fn bytes_in_record(key_bytes: usize) -> usize {
    if key_bytes <= KEY_IN_RECORD_MAX { key_bytes } else { RUN_REF_BYTES }
}

/// A key-value without its key, as it stands in a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a> {
    /// In the form of the module's head.
    pub(super) bytes: &'a [u8],
    /// Where the value is, unless in `bytes`.
    pub(super) run: Option<RunRef>,
}

/// What a body says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub(super) create_revision: i64,
    pub(super) mod_revision: i64,
    pub(super) version: i64,
    /// Empty where it stands in a run.
    pub(super) value: &'a [u8],
    pub(super) lease: i64,
}

impl<'a> Body<'a> {
    pub(super) fn fields(&self) -> Read<Fields<'a>> {
        let mut fields = Fields::default();
        let mut reader = Reader::new(self.bytes);
        while !reader.is_empty() {
            match reader.byte()? {
                0x10 => fields.create_revision = reader.varint()? as i64,
                0x18 => fields.mod_revision = reader.varint()? as i64,
                0x20 => fields.version = reader.varint()? as i64,
                0x2a => {
                    let length = reader.varint()?;
                    fields.value = reader.bytes(length)?;
                }
                0x30 => fields.lease = reader.varint()? as i64,
                _ => return Err(Malformed),
            }
        }
        Ok(fields)
    }
}

impl Fields<'_> {
    /// Appends the body.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let integer = |out: &mut Vec<u8>, tag, value: i64| {
            if value != 0 {
                out.push(tag);
                put_varint(out, value as u64);
            }
        };
        integer(out, 0x10, self.create_revision);
        integer(out, 0x18, self.mod_revision);
        integer(out, 0x20, self.version);
        if !self.value.is_empty() {
            out.push(0x2a);
            put_varint(out, self.value.len() as u64);
            out.extend_from_slice(self.value);
        }
        integer(out, 0x30, self.lease);
    }
}

/// An entry of `Keys`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) revision: Revision,
    /// Whether its record points to a version before.
    pub(super) has_previous: bool,
    pub(super) number: u64,
    /// The heads after itself.
    pub(super) heads: &'a [u8],
    pub(super) body: Body<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Read<Entry<'a>> {
        let mut reader = Reader::new(bytes);
        let flags = reader.byte()?;
        let run = reader.run_if(flags & VALUE_IN_RUN != 0)?;
        let sub = reader.varint()? as i64;
        let number = reader.varint()?;
        let heads = reader.short_bytes()?;
        let body = Body { bytes: reader.rest(), run };
        let main = mod_revision(body.bytes)?;
        let has_previous = flags & HAS_PREVIOUS != 0;
        Ok(Entry { revision: Revision { main, sub }, has_previous, number, heads, body })
    }

    /// Appends an entry whose body has these fields.
    pub(super) fn put(
        out: &mut Vec<u8>,
        sub: i64,
        number: u64,
        has_previous: bool,
        heads: &[u8],
        fields: &Fields<'_>,
        run: Option<&RunRef>,
    ) {
        let flags =
            if run.is_some() { VALUE_IN_RUN } else { 0 } | if has_previous { HAS_PREVIOUS } else { 0 };
        out.push(flags);
        put_run(out, run);
        put_varint(out, sub as u64);
        put_varint(out, number);
        put_short_bytes(out, heads);
        fields.put(out);
    }

    pub(super) fn spine(&self) -> Spine<'a> {
        Spine { number: self.number, top: self.revision, rest: self.heads }
    }
}

/// The mod revision of a body, without reading all of it.
fn mod_revision(body: &[u8]) -> Read<i64> {
    let mut reader = Reader::new(body);
    loop {
        match reader.byte()? {
            0x10 => reader.varint()?,
            0x18 => return Ok(reader.varint()? as i64),
            _ => return Err(Malformed),
        };
    }
}

/// An entry of `Deleted`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grave<'a> {
    /// The tombstone's revision.
    pub(super) revision: Revision,
    pub(super) number: u64,
    /// The heads after itself.
    pub(super) heads: &'a [u8],
}

impl<'a> Grave<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Read<Grave<'a>> {
        let mut reader = Reader::new(bytes);
        let revision = Revision { main: reader.varint()? as i64, sub: reader.varint()? as i64 };
        let number = reader.varint()?;
        let heads = reader.short_bytes()?;
        reader.end()?;
        Ok(Grave { revision, number, heads })
    }

    pub(super) fn put(out: &mut Vec<u8>, revision: Revision, number: u64, heads: &[u8]) {
        put_varint(out, revision.main as u64);
        put_varint(out, revision.sub as u64);
        put_varint(out, number);
        put_short_bytes(out, heads);
    }

    pub(super) fn spine(&self) -> Spine<'a> {
        Spine { number: self.number, top: self.revision, rest: self.heads }
    }
}

/// A key in a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordKey<'a> {
    Inline(&'a [u8]),
    Run(RunRef),
}

/// An entry of `Revisions`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) revision: Revision,
    pub(super) tombstone: bool,
    /// The version before.
    pub(super) previous: Option<Revision>,
    /// One further back, or the one before.
    pub(super) skip: Option<Revision>,
    pub(super) key: RecordKey<'a>,
    /// The version before itself, where its own record was gone when this one was made.
    pub(super) previous_body: Option<Body<'a>>,
    /// Of a tombstone: nothing.
    pub(super) body: Body<'a>,
}

impl<'a> Record<'a> {
    pub(super) fn read(key: &[u8], value: &'a [u8]) -> Read<Record<'a>> {
        Record::read_at(read_revision(key)?, value)
    }

    pub(super) fn read_at(revision: Revision, value: &'a [u8]) -> Read<Record<'a>> {
        let mut reader = Reader::new(value);
        let flags = reader.byte()?;
        let has = |flag| flags & flag != 0;
        let run = reader.run_if(has(VALUE_IN_RUN))?;
        let previous_run = reader.run_if(has(PREVIOUS_IN_RUN))?;
        let previous = if has(HAS_PREVIOUS) { Some(reader.difference(revision)?) } else { None };
        let skip = match (has(OWN_SKIP), has(NO_SKIP)) {
            (true, _) => Some(reader.difference(revision)?),
            (false, true) => None,
            (false, false) => previous,
        };
        let key = if has(KEY_IN_RUN) {
            RecordKey::Run(reader.run()?)
        } else {
            let length = reader.varint()?;
            RecordKey::Inline(reader.bytes(length)?)
        };
        let previous_body = if has(PREVIOUS_BODY) {
            let length = reader.varint()?;
            Some(Body { bytes: reader.bytes(length)?, run: previous_run })
        } else {
            None
        };
        let body = Body { bytes: reader.rest(), run };
        Ok(Record { revision, tombstone: has(TOMBSTONE), previous, skip, key, previous_body, body })
    }

    /// Appends the record's value.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let flag = |holds: bool, flag: u8| if holds { flag } else { 0 };
        let own_skip = self.skip.is_some() && self.skip != self.previous;
        let previous_run = self.previous_body.and_then(|body| body.run);
        out.push(
            flag(self.body.run.is_some(), VALUE_IN_RUN)
                | flag(self.previous.is_some(), HAS_PREVIOUS)
                | flag(self.tombstone, TOMBSTONE)
                | flag(matches!(self.key, RecordKey::Run(_)), KEY_IN_RUN)
                | flag(own_skip, OWN_SKIP)
                | flag(self.previous_body.is_some(), PREVIOUS_BODY)
                | flag(previous_run.is_some(), PREVIOUS_IN_RUN)
                | flag(self.skip.is_none(), NO_SKIP),
        );
        put_run(out, self.body.run.as_ref());
        put_run(out, previous_run.as_ref());
        if let Some(previous) = self.previous {
            put_difference(out, self.revision, previous);
        }
        if let Some(skip) = self.skip.filter(|_| own_skip) {
            put_difference(out, self.revision, skip);
        }
        match &self.key {
            RecordKey::Run(run) => out.extend_from_slice(&run.encode()),
            RecordKey::Inline(key) => {
                put_varint(out, key.len() as u64);
                out.extend_from_slice(key);
            }
        }
        if let Some(body) = self.previous_body {
            put_varint(out, body.bytes.len() as u64);
            out.extend_from_slice(body.bytes);
        }
        out.extend_from_slice(self.body.bytes);
    }

    /// The runs it names: its key's, its value's, the previous value's.
    pub(super) fn runs(&self) -> [Option<RunRef>; 3] {
        let key = match self.key {
            RecordKey::Run(run) => Some(run),
            RecordKey::Inline(_) => None,
        };
        [key, self.body.run, self.previous_body.and_then(|body| body.run)]
    }
}

/// The key of a record: main and sub, big-endian, neither below 0.
pub(super) fn revision_key(revision: Revision) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&(revision.main.max(0) as u64).to_be_bytes());
    out[8..].copy_from_slice(&(revision.sub.max(0) as u64).to_be_bytes());
    out
}

/// The revision of a record's key.
pub(super) fn read_revision(key: &[u8]) -> Read<Revision> {
    let (main, sub) = two_numbers(key)?;
    let number = |number: u64| i64::try_from(number).map_err(|_| Malformed);
    Ok(Revision { main: number(main)?, sub: number(sub)? })
}

/// A lease's id such that smaller ones sort first.
pub(super) fn lease_key(id: i64) -> [u8; 8] {
    (id as u64 ^ 1 << 63).to_be_bytes()
}

/// The id of a lease's key.
pub(super) fn read_lease_key(key: &[u8]) -> Read<i64> {
    let bytes = key.try_into().map_err(|_| Malformed)?;
    Ok((u64::from_be_bytes(bytes) ^ 1 << 63) as i64)
}

/// The key of a deadline.
pub(super) fn deadline_key(deadline_ms: u64, id: i64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&deadline_ms.to_be_bytes());
    out[8..].copy_from_slice(&lease_key(id));
    out
}

/// The deadline and the lease of a deadline's key.
pub(super) fn read_deadline_key(key: &[u8]) -> Read<(u64, i64)> {
    let (deadline_ms, id) = two_numbers(key)?;
    Ok((deadline_ms, (id ^ 1 << 63) as i64))
}

/// The value of a lease.
pub(super) fn lease_value(ttl: i64, deadline_ms: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&ttl.to_le_bytes());
    out[8..].copy_from_slice(&deadline_ms.to_le_bytes());
    out
}

/// Time to live and deadline of a lease.
pub(super) fn read_lease_value(value: &[u8]) -> Read<(i64, u64)> {
    let (ttl, deadline_ms) = two_numbers(value)?;
    Ok((ttl.swap_bytes() as i64, deadline_ms.swap_bytes()))
}

fn two_numbers(bytes: &[u8]) -> Read<(u64, u64)> {
    let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Malformed)?;
    let (first, second) = bytes.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok((number(first), number(second)))
}

fn put_run(out: &mut Vec<u8>, run: Option<&RunRef>) {
    if let Some(run) = run {
        out.extend_from_slice(&run.encode());
    }
}

fn put_short_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("a spine is bounded"));
    out.extend_from_slice(bytes);
}

fn put_difference(out: &mut Vec<u8>, from: Revision, older: Revision) {
    debug_assert!(older < from, "a version points to older ones");
    put_varint(out, (from.main - older.main) as u64);
    put_varint(out, older.sub as u64);
}

/// Appends a head of a spine: `older` as its difference to the head before it.
pub(super) fn put_head(out: &mut Vec<u8>, from: Revision, older: Revision) {
    debug_assert!(older < from, "heads get older");
    put_varint(out, ((from.main - older.main) as u64) << 1 | u64::from(older.sub != 0));
    if older.sub != 0 {
        put_varint(out, older.sub as u64);
    }
}

/// Reads parts of an entry, one after the other.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        let (first, rest) = self.bytes.split_first().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*first)
    }

    pub(super) fn bytes(&mut self, length: u64) -> Read<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (bytes, rest) = self.bytes.split_at_checked(length).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(bytes)
    }

    fn short_bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.byte()?;
        self.bytes(u64::from(length))
    }

    pub(super) fn varint(&mut self) -> Read<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // the tenth byte has room for one bit
                return if shift == 63 && byte > 1 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    fn run(&mut self) -> Read<RunRef> {
        self.bytes(RUN_REF_BYTES as u64).map(RunRef::decode)
    }

    pub(super) fn run_if(&mut self, there: bool) -> Read<Option<RunRef>> {
        if there { self.run().map(Some) } else { Ok(None) }
    }

    /// A revision written as its difference to a newer one.
    fn difference(&mut self, from: Revision) -> Read<Revision> {
        let main = from.main.checked_sub_unsigned(self.varint()?).ok_or(Malformed)?;
        let older = Revision { main, sub: self.varint()? as i64 };
        if older < from { Ok(older) } else { Err(Malformed) }
    }

    /// A head of a spine, written as its difference to the head before it.
    pub(super) fn head(&mut self, from: Revision) -> Read<Revision> {
        let number = self.varint()?;
        let main = from.main.checked_sub_unsigned(number >> 1).ok_or(Malformed)?;
        let sub = if number & 1 == 1 { self.varint()? as i64 } else { 0 };
        let older = Revision { main, sub };
        if older < from { Ok(older) } else { Err(Malformed) }
    }
}
