//! Committed entries, in order, in slices, into the store.
//!
//! One slice is one write transaction and one publish; the applied index is published with it. A slice is bounded so
//! that ticks and heartbeats between two slices stay on time. What an entry gives is handed on with its index and
//! term; who waits for it is [`crate::slots`]' business.
//!
//! An entry that does not decode passed every checksum and still is no command: this member cannot know what the
//! others made of it and stops. So it does at a change of members, which nothing can propose yet.

use crate::error::Error;
use crate::meter::Meter;
use crate::storage::entry_bytes;
use bytes::Bytes;
use coffer_engine::command::{Applied, Command, Member, Stamped, TxnOp};
use coffer_engine::store::{ConfState, Published, Store, WriteTx};
use raft::eraftpb::{Entry, EntryType};
use std::collections::VecDeque;

/// Entries of one slice at most where nobody waits for answers: a millisecond or a few of applying.
pub const SLICE_ENTRIES_MAX: usize = 512;
/// Bytes of one slice at most (one entry may be larger).
pub const SLICE_BYTES_MAX: u64 = 1 << 20;

/// What applying one slice did.
#[derive(Debug)]
pub struct Slice {
    /// What became visible.
    pub published: Published,
    /// Whether a compaction was among the commands: there may be versions to remove.
    pub compacted: bool,
}

/// Applies and publishes one slice from the front of `queue`, at most `entries_max`; `applied` is told of each entry (index,
/// term, what its command gave; `None` for an entry without a command), `meter` of each command. Gives `None` if the queue is
/// empty.
///
/// # Errors
/// [`Error::Unusable`] names the entry that cannot be applied, [`Error::Fault`] what the store met while applying one;
/// nothing of the slice is visible then.
pub fn apply_slice(
    store: &mut Store,
    queue: &mut VecDeque<Entry>,
    entries_max: usize,
    mut meter: Option<&mut (dyn Meter + 'static)>,
    applied: &mut dyn FnMut(u64, u64, Option<Applied>),
) -> Result<Option<Slice>, Error> {
    if queue.is_empty() {
        return Ok(None);
    }
    if let Some(meter) = &mut meter {
        meter.begin();
    }
    let mut compacted = false;
    let mut tx = store.begin();
    let mut bytes = 0;
    for _ in 0..entries_max {
        if bytes >= SLICE_BYTES_MAX {
            break;
        }
        let Some(entry) = queue.pop_front() else { break };
        bytes += entry_bytes(&entry);
        let outcome = apply_entry(&mut tx, &entry, &mut compacted, &mut meter)?;
        applied(entry.index, entry.term, outcome);
    }
    Ok(Some(Slice { published: tx.publish(), compacted }))
}

fn apply_entry(
    tx: &mut WriteTx<'_>,
    entry: &Entry,
    compacted: &mut bool,
    meter: &mut Option<&mut (dyn Meter + 'static)>,
) -> Result<Option<Applied>, Error> {
    if entry.get_entry_type() != EntryType::EntryNormal {
        return Err(Error::Unusable(format!(
            "entry {} changes the cluster's members, which this version cannot do",
            entry.index
        )));
    }
    if entry.data.is_empty() {
        tx.skip(entry.index, entry.term)?;
        return Ok(None);
    }
    let stamped = Stamped::decode(&entry.data)
        .map_err(|error| Error::Unusable(format!("entry {} of the log: {error}", entry.index)))?;
    if let Command::Bootstrap { members, .. } = &stamped.command {
        tx.set_conf_state(first_conf_state(members))?;
    }
    *compacted |= matches!(stamped.command, Command::Compact { .. });
    let applied = tx.apply(entry.index, entry.term, &stamped)?;
    if let Some(meter) = meter {
        meter.applied(entry.index, &stamped.command, applied.outcome.as_ref().err());
    }
    Ok(Some(applied))
}

/// Adds the keys that a command changes, as far as it names them one by one, to `keys`.
pub(crate) fn keys_of(command: &Command, keys: &mut Vec<Bytes>) {
    match command {
        Command::Put(put) => keys.push(put.key.clone()),
        Command::DeleteRange(delete) => keys.push(delete.range.key.clone()),
        Command::Txn(txn) => {
            for op in txn.success.iter().chain(&txn.failure) {
                match op {
                    TxnOp::Put(put) => keys.push(put.key.clone()),
                    TxnOp::DeleteRange(delete) => keys.push(delete.range.key.clone()),
                    // what is only read, and a txn within: their pages are waited for when they are applied
                    TxnOp::Range(_) | TxnOp::Txn(_) => {}
                }
            }
        }
        _ => {}
    }
}

/// Who votes at the beginning of a cluster, in the order of their ids.
fn first_conf_state(members: &[Member]) -> ConfState {
    let ids = |learner: bool| {
        let mut ids: Vec<u64> = members.iter().filter(|m| m.is_learner == learner).map(|m| m.id).collect();
        ids.sort_unstable();
        ids
    };
    ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
}

/// raft-rs's form of who votes.
pub fn to_raft_conf_state(conf: &ConfState) -> raft::eraftpb::ConfState {
    raft::eraftpb::ConfState {
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: conf.auto_leave,
        ..Default::default()
    }
}
