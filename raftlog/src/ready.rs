//! One `Ready` of raft-rs, in the order it demands: hold, persist, send, hand on, advance.
//!
//! ```text
//!   Ready n ── entries, term/vote ──> a batch for the log ── durable ──> persisted(n)
//!      │                                                                     │
//!      ├── messages ──> outbox: each names the Ready that must be durable ───┴──> released in order
//!      └── committed entries (durable by raft-rs's own rule) ──> the applier
//! ```
//!
//! Rules:
//! - A follower's or candidate's messages wait until everything up to their own Ready is durable.
//! - A leader's messages may go before their entries are durable (raft thesis 10.2.1), but never before the newest
//!   change of term or vote is: a sole voter wins at once, and what it sent in a term it forgot would be a lie.
//! - Messages leave in the order they were made.
//! - raft-rs hears of persistence before the messages that depend on it leave.
//! - An append's entries follow the entry that it names. raft-rs 0.7 does not see to that: with `batch_append` it puts
//!   entries into an earlier append for the same follower that was empty, wherever that one stood
//!   (`try_batching`, `is_continuous_ents`). Such an append is mended before it leaves (`mend`).

use crate::driver::{APPEND_BYTES, Driver};
use crate::storage::{BadAppend, LogView, entry_bytes};
use crate::transport::{self, Envelope};
use coffer_engine::wal::HardState;
use raft::eraftpb::{Entry, Message, MessageType};
use std::collections::VecDeque;

/// What a Ready asks to be made durable.
#[derive(Debug)]
pub struct ToPersist {
    /// The Ready's number, to be given to [`Driver::persisted`].
    pub number: u64,
    /// Term, vote and commit.
    pub hard_state: HardState,
    /// Entries, contiguous, maybe none.
    pub entries: Vec<Entry>,
}

/// What came out of one Ready.
#[derive(Debug, Default)]
pub struct Work {
    /// To be written, if anything must be.
    pub to_persist: Option<ToPersist>,
    /// To be applied, in order.
    pub committed: Vec<Entry>,
}

/// A Ready that is not durable yet.
#[derive(Debug)]
struct Unsynced {
    number: u64,
    changes_vote: bool,
}

/// Messages that wait for a Ready to be durable.
#[derive(Debug)]
struct Held {
    after: u64,
    messages: Vec<Message>,
}

/// Messages that are held or may leave.
#[derive(Debug, Default)]
pub struct Outbox {
    unsynced: VecDeque<Unsynced>,
    held: VecDeque<Held>,
    /// Highest Ready handed out.
    newest: u64,
    /// Highest Ready that is durable with all before it.
    persisted: u64,
}

impl Outbox {
    /// The Ready that must be durable before a message of the newest Ready may leave.
    fn must_be_durable(&self, leader: bool) -> u64 {
        let mut newest_first = self.unsynced.iter().rev();
        let waits_for = if leader { newest_first.find(|u| u.changes_vote) } else { newest_first.next() };
        waits_for.map_or(0, |u| u.number)
    }

    fn hold(&mut self, messages: Vec<Message>, leader: bool) {
        if messages.is_empty() {
            return;
        }
        let before = self.held.back().map_or(0, |h| h.after);
        self.held.push_back(Held { after: self.must_be_durable(leader).max(before), messages });
    }

    fn release(&mut self, cluster_id: u64, out: &mut Vec<Envelope>) {
        while self.held.front().is_some_and(|held| held.after <= self.persisted) {
            let Some(held) = self.held.pop_front() else { break };
            for message in held.messages {
                split_and_encode(cluster_id, message, out);
            }
        }
    }
}

/// Gives an append whose entries do not follow the entry that it names the right one to name; an append that cannot
/// be mended counts as lost, which raft bears.
fn mend(view: &LogView, mut message: Message) -> Option<Message> {
    if transport::follows(&message) {
        return Some(message);
    }
    let first = message.entries.first()?.index;
    message.index = first.checked_sub(1)?;
    message.log_term = view.term_at(message.index)?;
    transport::follows(&message).then_some(message)
}

/// raft-rs batches all it has for one follower into one append; cut into pieces, each is still a whole append.
fn split_and_encode(cluster_id: u64, mut message: Message, out: &mut Vec<Envelope>) {
    let to = message.to;
    let bytes: u64 = message.entries.iter().map(entry_bytes).sum();
    if message.get_msg_type() != MessageType::MsgAppend || bytes <= APPEND_BYTES {
        out.extend(transport::encode(cluster_id, &message).map(|bytes| Envelope { to, bytes }));
        return;
    }
    let entries: Vec<Entry> = message.take_entries().into();
    let mut piece = Vec::new();
    let mut piece_bytes = 0;
    let mut send = |entries: Vec<Entry>, message: &mut Message| {
        let behind = entries.last().map(|last| (last.index, last.term));
        message.set_entries(entries.into());
        out.extend(transport::encode(cluster_id, message).map(|bytes| Envelope { to, bytes }));
        if let Some((index, term)) = behind {
            message.index = index;
            message.log_term = term;
        }
    };
    for entry in entries {
        if piece_bytes + entry_bytes(&entry) > APPEND_BYTES && !piece.is_empty() {
            send(std::mem::take(&mut piece), &mut message);
            piece_bytes = 0;
        }
        piece_bytes += entry_bytes(&entry);
        piece.push(entry);
    }
    send(piece, &mut message);
}

impl Driver {
    /// Whether raft-rs has something to be handled.
    pub fn has_ready(&self) -> bool {
        self.raw.has_ready()
    }

    /// Readies whose batches are not durable yet.
    pub fn unsynced(&self) -> usize {
        self.outbox.unsynced.len()
    }

    /// Handles one Ready as far as it goes without I/O; messages that may leave already are added to `out`.
    ///
    /// # Errors
    /// Entries that do not fit behind the log: a fault of raft-rs or of a peer that passed validation.
    pub fn ready(&mut self, out: &mut Vec<Envelope>) -> Result<Option<Work>, BadAppend> {
        if !self.raw.has_ready() {
            return Ok(None);
        }
        let mut ready = self.raw.ready();
        let number = ready.number();
        let mut changes_vote = false;
        if let Some(hs) = ready.hs() {
            let now = HardState { term: hs.term, vote: hs.vote, commit: hs.commit };
            changes_vote = (now.term, now.vote) != (self.hard_state.term, self.hard_state.vote);
            self.hard_state = now;
        }
        let committed = ready.take_committed_entries();
        let must_sync = ready.must_sync();
        let leader = ready.persisted_messages().is_empty() && !ready.messages().is_empty();
        let messages = if leader { ready.take_messages() } else { ready.take_persisted_messages() };
        let entries = ready.take_entries();
        let view = self.raw.mut_store();
        for entry in &entries {
            view.append(entry.clone())?;
        }
        self.raw.advance_append_async(ready);

        self.outbox.newest = number;
        let to_persist = must_sync.then_some(ToPersist { number, hard_state: self.hard_state, entries });
        if must_sync {
            self.outbox.unsynced.push_back(Unsynced { number, changes_vote });
        }
        let view = self.raw.store();
        let messages = messages.into_iter().filter_map(|message| mend(view, message)).collect();
        self.outbox.hold(messages, leader);
        if self.outbox.unsynced.is_empty() {
            self.all_persisted();
        }
        self.outbox.release(self.options.cluster_id, out);
        Ok(Some(Work { to_persist, committed }))
    }

    /// The batch of Ready `number` and all before it are durable: raft-rs hears of it, then messages leave.
    pub fn persisted(&mut self, number: u64, out: &mut Vec<Envelope>) {
        while self.outbox.unsynced.front().is_some_and(|u| u.number <= number) {
            self.outbox.unsynced.pop_front();
        }
        if self.outbox.unsynced.is_empty() {
            self.all_persisted();
        } else {
            self.raw.on_persist_ready(number);
            self.outbox.persisted = number;
        }
        self.outbox.release(self.options.cluster_id, out);
    }

    fn all_persisted(&mut self) {
        self.outbox.persisted = self.outbox.newest;
        self.raw.on_persist_ready(self.outbox.newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_whose_entries_do_not_follow_it_is_mended() {
        let mut view = LogView::new(10, 2, 1 << 20);
        let entry = |index: u64| Entry { index, term: 3, ..Entry::default() };
        (11..=14).for_each(|index| view.append(entry(index)).unwrap());
        let append = |index, log_term, entries: Vec<Entry>| Message {
            msg_type: MessageType::MsgAppend,
            index,
            log_term,
            entries: entries.into(),
            ..Message::default()
        };
        // as raft-rs leaves it: an empty append behind 14, and entries from 12 on put into it
        let mended = mend(&view, append(14, 3, vec![entry(12), entry(13)])).unwrap();
        assert_eq!((mended.index, mended.log_term), (11, 3));
        let mended = mend(&view, append(14, 3, vec![entry(11)])).unwrap();
        assert_eq!((mended.index, mended.log_term), (10, 2));
        let whole = append(12, 3, vec![entry(13), entry(14)]);
        assert_eq!(mend(&view, whole.clone()), Some(whole));
        assert_eq!(mend(&view, append(14, 3, vec![entry(10)])), None, "the entry before it is not known");
        assert_eq!(mend(&view, append(14, 3, vec![entry(11), entry(13)])), None);
    }
}
