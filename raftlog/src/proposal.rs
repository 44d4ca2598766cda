//! What the serving threads hand to the core thread, and how the answers come back.

use coffer_engine::command::{Applied, Command};
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

/// An answer.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The command was applied (or refused by the store).
    Applied(Applied),
    /// Granted seconds, 0 if the lease is unknown or has expired; and the store's revision.
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
    /// The member is stopping.
    Stopped,
    /// Too much is waiting.
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
