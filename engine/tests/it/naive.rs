//! A second model, made the most naive way: a copy of the whole key space for each revision, and the list of all events
//! ever. It shares no code with the engine's; nothing is ever removed from it, so compaction can only hide.

use bytes::Bytes;
use coffer_engine::command::*;
use coffer_engine::error::Refusal;
use coffer_engine::lease_clock::LAG_MS_MAX;
use coffer_engine::mvcc::{Event, EventKind, KeyRange, KeyValue};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Keys = BTreeMap<Bytes, Arc<KeyValue>>;

/// The naive store. `states[r]` is what a read at revision r sees.
pub(crate) struct Naive {
    pub(crate) states: Vec<Keys>,
    /// Events of each revision, in order.
    pub(crate) events: Vec<Vec<Event>>,
    pub(crate) compacted: i64,
    clock_ms: u64,
    /// Time to live and deadline.
    leases: BTreeMap<i64, (i64, u64)>,
}

/// A command at work.
struct Work {
    keys: Keys,
    events: Vec<Event>,
}

enum Planned<'a> {
    Op(&'a TxnOp),
    Txn(bool, Vec<Planned<'a>>),
}

fn inside(range: &KeyRange, key: &[u8]) -> bool {
    match &range.range_end[..] {
        [] => range.key == key,
        [0] => &range.key[..] <= key,
        end => &range.key[..] <= key && key < end,
    }
}

impl Naive {
    pub(crate) fn new() -> Naive {
        let states = vec![Keys::new(), Keys::new()];
        Naive { states, events: vec![Vec::new(); 2], compacted: -1, clock_ms: 0, leases: BTreeMap::new() }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    fn now(&self) -> &Keys {
        self.states.last().unwrap()
    }

    pub(crate) fn apply(&mut self, stamped: &Stamped) -> Applied {
        self.clock_ms = self.clock_ms.max(stamped.clock_ms);
        let outcome = self.dispatch(&stamped.command);
        Applied { revision: self.revision(), outcome }
    }

    fn dispatch(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let mut work = Work { keys: self.now().clone(), events: Vec::new() };
        let reply = match command {
            Command::Put(put) => {
                self.may_put(put)?;
                Reply::Put(self.put(&mut work, put))
            }
            Command::DeleteRange(delete) => Reply::DeleteRange(self.delete(&mut work, delete)),
            Command::Txn(txn) => {
                let (succeeded, plan) = self.plan(txn);
                self.may_run(&plan)?;
                Reply::Txn(TxnReply { succeeded, responses: self.run(&mut work, &plan) })
            }
            Command::Compact { revision } if *revision <= self.compacted => return Err(Refusal::Compacted),
            Command::Compact { revision } if *revision > self.revision() => {
                return Err(Refusal::FutureRevision);
            }
            Command::Compact { revision } => {
                self.compacted = *revision;
                Reply::Compact
            }
            Command::LeaseGrant { id: 0, .. } => return Err(Refusal::LeaseNotFound),
            Command::LeaseGrant { ttl, .. } if *ttl > 9_000_000_000 => return Err(Refusal::LeaseTtlTooLarge),
            Command::LeaseGrant { id, .. } if self.leases.contains_key(id) => {
                return Err(Refusal::LeaseExist);
            }
            Command::LeaseGrant { id, ttl } => {
                self.leases.insert(*id, (*ttl, self.clock_ms + (*ttl).max(0) as u64 * 1000));
                Reply::LeaseGrant { id: *id, ttl: *ttl }
            }
            Command::LeaseRevoke { id } => {
                self.leases.remove(id).ok_or(Refusal::LeaseNotFound)?;
                self.drop_keys_of(&mut work, *id);
                Reply::LeaseRevoke
            }
            Command::LeaseRenew { ids } => Reply::LeaseRenew(ids.iter().map(|id| self.renew(*id)).collect()),
            Command::LeaseExpire { id } => {
                let is_over = self.leases.get(id).is_some_and(|(_, deadline)| *deadline <= self.clock_ms);
                if is_over {
                    self.leases.remove(id);
                    self.drop_keys_of(&mut work, *id);
                }
                Reply::LeaseExpire(is_over)
            }
            Command::Alarm(_) | Command::Bootstrap { .. } | Command::MemberAttributes { .. } => {
                unreachable!("not among the commands on data")
            }
        };
        if !work.events.is_empty() {
            self.states.push(work.keys);
            self.events.push(work.events);
        }
        Ok(reply)
    }

    fn renew(&mut self, id: i64) -> i64 {
        let clock_ms = self.clock_ms;
        match self.leases.get_mut(&id) {
            Some((ttl, deadline)) if deadline.saturating_add(LAG_MS_MAX) > clock_ms => {
                *deadline = clock_ms.saturating_add((*ttl).max(0) as u64 * 1000);
                *ttl
            }
            _ => 0,
        }
    }

    fn drop_keys_of(&self, work: &mut Work, id: i64) {
        let keys: Vec<_> = work.keys.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
        for key in keys {
            self.delete(work, &DeleteRangeRequest { range: KeyRange::single(key), prev_kv: false });
        }
    }

    fn may_put(&self, put: &PutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            Err(Refusal::LeaseNotFound)
        } else if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key) {
            Err(Refusal::KeyNotFound)
        } else {
            Ok(())
        }
    }

    fn put(&self, work: &mut Work, put: &PutRequest) -> PutReply {
        let main = self.revision() + 1;
        let old = work.keys.get(&put.key).cloned();
        let mut kv = KeyValue {
            key: put.key.clone(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: put.value.clone(),
            lease: put.lease,
        };
        if let Some(old) = &old {
            kv.create_revision = old.create_revision;
            kv.version += old.version;
        }
        if put.ignore_value {
            kv.value = old.as_ref().map(|old| old.value.clone()).unwrap_or_default();
        }
        if put.ignore_lease {
            kv.lease = old.as_ref().map_or(0, |old| old.lease);
        }
        let kv = Arc::new(kv);
        let prev_kv = self.now().get(&put.key).cloned();
        work.events.push(Event { kind: EventKind::Put, kv: kv.clone(), prev_kv });
        work.keys.insert(put.key.clone(), kv);
        PutReply { prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn delete(&self, work: &mut Work, delete: &DeleteRangeRequest) -> DeleteRangeReply {
        let gone: Vec<_> = work.keys.values().filter(|kv| inside(&delete.range, &kv.key)).cloned().collect();
        for old in &gone {
            work.keys.remove(&old.key);
            let mod_revision = self.revision() + 1;
            let kv = Arc::new(KeyValue { key: old.key.clone(), mod_revision, ..KeyValue::default() });
            let prev_kv = self.now().get(&old.key).cloned();
            work.events.push(Event { kind: EventKind::Delete, kv, prev_kv });
        }
        DeleteRangeReply {
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn plan<'a>(&self, txn: &'a TxnRequest) -> (bool, Vec<Planned<'a>>) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let planned = ops.iter().map(|op| match op {
            TxnOp::Txn(txn) => {
                let (succeeded, plan) = self.plan(txn);
                Planned::Txn(succeeded, plan)
            }
            op => Planned::Op(op),
        });
        (succeeded, planned.collect())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs: Vec<KeyValue> = self
            .now()
            .values()
            .filter(|kv| inside(&compare.range, &kv.key))
            .map(|kv| (**kv).clone())
            .collect();
        if kvs.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let (less, equal) = match &compare.target {
                CompareTarget::Version(n) => (kv.version < *n, kv.version == *n),
                CompareTarget::CreateRevision(n) => (kv.create_revision < *n, kv.create_revision == *n),
                CompareTarget::ModRevision(n) => (kv.mod_revision < *n, kv.mod_revision == *n),
                CompareTarget::Lease(n) => (kv.lease < *n, kv.lease == *n),
                CompareTarget::Value(v) => (kv.value < *v, kv.value == *v),
            };
            match compare.result {
                CompareResult::Equal => equal,
                CompareResult::NotEqual => !equal,
                CompareResult::Less => less,
                CompareResult::Greater => !less && !equal,
            }
        })
    }

    fn may_run(&self, plan: &[Planned<'_>]) -> Result<(), Refusal> {
        for step in plan {
            match step {
                Planned::Txn(_, plan) => self.may_run(plan)?,
                Planned::Op(TxnOp::Put(put)) => self.may_put(put)?,
                Planned::Op(TxnOp::Range(request)) if request.revision != 0 => {
                    if request.revision > self.revision() {
                        return Err(Refusal::FutureRevision);
                    }
                    if request.revision < self.compacted {
                        return Err(Refusal::Compacted);
                    }
                }
                Planned::Op(_) => {}
            }
        }
        Ok(())
    }

    fn run(&self, work: &mut Work, plan: &[Planned<'_>]) -> Vec<TxnOpReply> {
        let mut responses = Vec::new();
        for step in plan {
            let response = match step {
                Planned::Txn(succeeded, plan) => {
                    let reply = TxnReply { succeeded: *succeeded, responses: self.run(work, plan) };
                    TxnOpReply::Txn { revision: 0, reply }
                }
                Planned::Op(TxnOp::Put(put)) => {
                    let reply = self.put(work, put);
                    TxnOpReply::Put { revision: self.revision() + 1, reply }
                }
                Planned::Op(TxnOp::DeleteRange(delete)) => {
                    let reply = self.delete(work, delete);
                    TxnOpReply::DeleteRange {
                        revision: self.revision() + !work.events.is_empty() as i64,
                        reply,
                    }
                }
                Planned::Op(TxnOp::Range(request)) => {
                    let current = self.revision() + !work.events.is_empty() as i64;
                    let is_newest = request.revision <= 0 || request.revision == current;
                    let keys = if is_newest { &work.keys } else { &self.states[request.revision as usize] };
                    TxnOpReply::Range(read(keys, request, current))
                }
                Planned::Op(TxnOp::Txn(_)) => unreachable!("planned apart"),
            };
            responses.push(response);
        }
        responses
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeReply, Refusal> {
        let at = if request.revision <= 0 { self.revision() } else { request.revision };
        if at > self.revision() {
            Err(Refusal::FutureRevision)
        } else if at < self.compacted {
            Err(Refusal::Compacted)
        } else {
            Ok(read(&self.states[at as usize], request, self.revision()))
        }
    }

    /// Events from a revision on, as a watcher should be told them.
    pub(crate) fn history(&self, range: &KeyRange, from: i64) -> Vec<Event> {
        let mut told = Vec::new();
        for (revision, events) in self.events.iter().enumerate().skip(from.max(0) as usize) {
            let at_compaction = revision as i64 == self.compacted;
            for (at, event) in events.iter().enumerate() {
                let is_last = !events[at + 1..].iter().any(|later| later.kv.key == event.kv.key);
                if inside(range, &event.kv.key) && (!at_compaction || is_last) {
                    let prev_kv = event.prev_kv.clone().filter(|_| !at_compaction);
                    told.push(Event { prev_kv, ..event.clone() });
                }
            }
        }
        told
    }

    /// The hash, from the definition.
    pub(crate) fn hash(&self, revision: i64) -> u32 {
        let mut sum = 0u32;
        let mut seen_below = BTreeSet::new();
        for (main, events) in self.events.iter().enumerate().take(revision as usize + 1).rev() {
            for (sub, event) in events.iter().enumerate().rev() {
                let is_tombstone = event.kind == EventKind::Delete;
                if main as i64 <= self.compacted && (!seen_below.insert(event.kv.key.clone()) || is_tombstone)
                {
                    continue;
                }
                let mut bytes = (main as u64).to_be_bytes().to_vec();
                bytes.push(b'_');
                bytes.extend((sub as u64).to_be_bytes());
                if is_tombstone {
                    bytes.extend(b"t\x0a");
                    bytes.push(event.kv.key.len() as u8);
                    bytes.extend(&event.kv.key[..]);
                } else {
                    bytes.extend(short_wire_form(&event.kv));
                }
                sum = sum.wrapping_add(crc32c(&bytes));
            }
        }
        sum
    }
}

/// protobuf, as far as keys and values below 128 bytes and numbers below 16,384 need it.
fn short_wire_form(kv: &KeyValue) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, field: u8, n: i64| match n {
        0 => {}
        1..128 => out.extend([field << 3, n as u8]),
        128..16384 => out.extend([field << 3, n as u8 | 0x80, (n >> 7) as u8]),
        _ => panic!("too large for this test"),
    };
    out.extend([0x0a, kv.key.len() as u8]);
    out.extend(&kv.key[..]);
    number(&mut out, 2, kv.create_revision);
    number(&mut out, 3, kv.mod_revision);
    number(&mut out, 4, kv.version);
    if !kv.value.is_empty() {
        out.extend([0x2a, kv.value.len() as u8]);
        out.extend(&kv.value[..]);
    }
    number(&mut out, 6, kv.lease);
    out
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}

fn read(keys: &Keys, request: &RangeRequest, current_revision: i64) -> RangeReply {
    let mut kvs: Vec<KeyValue> =
        keys.values().filter(|kv| inside(&request.range, &kv.key)).map(|kv| (**kv).clone()).collect();
    let count = kvs.len() as i64;
    let mut reply = RangeReply { current_revision, count, ..RangeReply::default() };
    if request.count_only {
        return reply;
    }
    let r = request;
    let filters = [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision];
    let ascending_keys = r.sort_order == SortOrder::Ascend && r.sort_target == SortTarget::Key;
    if r.limit > 0 && filters == [0; 4] && (r.sort_order == SortOrder::None || ascending_keys) {
        kvs.truncate(r.limit as usize + 1);
    }
    for (at, limit) in filters.into_iter().enumerate().filter(|(_, limit)| *limit != 0) {
        kvs.retain(|kv| match at {
            0 => kv.mod_revision >= limit,
            1 => kv.mod_revision <= limit,
            2 => kv.create_revision >= limit,
            _ => kv.create_revision <= limit,
        });
    }
    let number = |kv: &KeyValue| match r.sort_target {
        SortTarget::Version => kv.version,
        SortTarget::Create => kv.create_revision,
        SortTarget::Mod => kv.mod_revision,
        SortTarget::Key | SortTarget::Value => 0,
    };
    let text = |kv: &KeyValue| match r.sort_target {
        SortTarget::Key => kv.key.clone(),
        SortTarget::Value => kv.value.clone(),
        _ => Bytes::new(),
    };
    if r.sort_order == SortOrder::Descend {
        kvs.reverse();
        kvs.sort_by_key(|kv| (number(kv), text(kv), std::cmp::Reverse(kv.key.clone())));
        kvs.reverse();
    } else {
        kvs.sort_by_key(|kv| (number(kv), text(kv), kv.key.clone()));
    }
    reply.more = r.limit > 0 && kvs.len() as i64 > r.limit;
    if reply.more {
        kvs.truncate(r.limit as usize);
    }
    if r.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            kv.lease = if r.sort_target == SortTarget::Value { kv.lease } else { 0 };
        }
    }
    reply.kvs = kvs;
    reply
}
