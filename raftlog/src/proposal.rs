//! What the serving threads hand to the core thread, and how the answers come back.

use coffer_engine::command::{Applied, Command, Compare, CompareTarget, RangeRequest, TxnOp, TxnRequest};
use coffer_engine::watch::EventBatch;
use std::sync::Arc;

/// Where an answer goes: a slot of one serving thread's mailbox.
///
/// The generation tells a slot's present owner from an earlier one, so a late answer is dropped by the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The mailbox's number, as given to [`crate::node::Node::start`].
    pub mailbox: u16,
    /// The slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
}

/// A request for the core thread.
#[derive(Debug)]
pub enum Request {
    /// Replicate and apply a command; answered by [`Outcome::Applied`].
    Propose {
        /// What to do.
        command: Command,
        /// Where the answer goes.
        reply_to: ReplyTo,
    },
    /// Renew one lease; all of a round go into one entry. Answered by [`Outcome::Renewed`].
    Renew {
        /// Which lease.
        id: i64,
        /// Where the answer goes.
        reply_to: ReplyTo,
    },
    /// Tell an index such that a store that has applied it answers linearizably. Answered by [`Outcome::ReadIndex`]
    /// once this member has applied it.
    Read {
        /// Where the answer goes.
        reply_to: ReplyTo,
    },
}

impl Request {
    /// Where its answer goes.
    pub fn reply_to(&self) -> ReplyTo {
        match self {
            Request::Propose { reply_to, .. }
            | Request::Renew { reply_to, .. }
            | Request::Read { reply_to } => *reply_to,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The command was applied (or refused by the store).
    Applied(Applied),
    /// Granted seconds, 0 if the lease is unknown or has expired. (A renewal that the store refuses as a whole gets
    /// [`Outcome::Applied`] with the refusal.)
    Renewed {
        /// Seconds.
        ttl: i64,
    },
    /// The store has applied this index.
    ReadIndex(u64),
    /// Not done, or not known to be done.
    Failed(Busy),
}

/// Why a request was not done; the client may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// No leader is known.
    NoLeader,
    /// Another term's entry took this one's place, or leadership moved while the answer was out.
    LeaderChanged,
    /// The member is stopping, or has met a fault; what was under way may be done or not.
    Stopped,
    /// Too much is waiting, or the command is larger than an entry of the log may be.
    TooManyRequests,
    /// The disk is full; what makes room still goes through.
    NoSpace,
    /// This member is not the leader.
    NotLeader,
}

/// What the core thread posts to one mailbox, in one go after each published batch.
#[derive(Debug, Default)]
pub struct Post {
    /// Answers for this mailbox.
    pub answers: Vec<(ReplyTo, Outcome)>,
    /// Events of the published batch (the same for every mailbox).
    pub events: Option<Arc<EventBatch>>,
}

/// A serving thread's mailbox, as the core thread sees it. Must not block.
pub trait Mailbox: Send + Sync {
    /// Takes a post and wakes the thread if it sleeps.
    fn post(&self, post: Post);
}

/// About how much memory a request holds, in bytes: what the queue's bound counts.
pub fn request_bytes(request: &Request) -> u64 {
    let command = match request {
        Request::Propose { command, .. } => command_bytes(command),
        Request::Renew { .. } | Request::Read { .. } => 0,
    };
    (size_of::<Request>() + command) as u64
}

fn command_bytes(command: &Command) -> usize {
    match command {
        Command::Put(put) => put.key.len() + put.value.len(),
        Command::DeleteRange(delete) => delete.range.key.len() + delete.range.range_end.len(),
        Command::Txn(txn) => txn_bytes(txn),
        Command::LeaseRenew { ids } => size_of_val(ids.as_slice()),
        Command::MemberAttributes { name, client_urls, .. } => {
            name.len() + client_urls.iter().map(String::len).sum::<usize>()
        }
        _ => 0,
    }
}

fn txn_bytes(txn: &TxnRequest) -> usize {
    txn.compares.iter().map(compare_bytes).sum::<usize>()
        + txn.success.iter().chain(&txn.failure).map(op_bytes).sum::<usize>()
}

fn compare_bytes(compare: &Compare) -> usize {
    let value = if let CompareTarget::Value(value) = &compare.target { value.len() } else { 0 };
    size_of::<Compare>() + compare.range.key.len() + compare.range.range_end.len() + value
}

fn op_bytes(op: &TxnOp) -> usize {
    let held = match op {
        TxnOp::Range(RangeRequest { range, .. }) => range.key.len() + range.range_end.len(),
        TxnOp::Put(put) => put.key.len() + put.value.len(),
        TxnOp::DeleteRange(delete) => delete.range.key.len() + delete.range.range_end.len(),
        TxnOp::Txn(txn) => txn_bytes(txn),
    };
    size_of::<TxnOp>() + held
}
