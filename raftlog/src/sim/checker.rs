//! What must hold at every moment, seen from outside the members.
//!
//! - Terms never fall, across crashes too: a member that sent a message in a term is in that term or a later one for
//!   ever. It gives one vote a term.
//! - One leader a term.
//! - What a member applied it applied for ever: at the same applied index all members have applied the same changes,
//!   in the same order (a hash chained over the events), and now and then the whole stores are compared.
//! - Commit and applied index never fall while a member runs.
//! - No healthy member's message is refused by another.
//! - Nobody is told of a revision that is not published (`cluster.rs` looks at each answer).

use super::network::Travelling;
use crate::core::Core;
use crate::driver::Standing;
use crate::transport::{self, Envelope, Refused};
use coffer_engine::Micros;
use coffer_engine::mvcc::{Event, KeyRange};
use coffer_engine::watch::EventBatch;
use raft::eraftpb::MessageType;
use std::collections::BTreeMap;

/// One applied index in so many is one at which whole stores are compared.
const FINGERPRINT_ONE_IN: u64 = 32;

#[derive(Debug, Default)]
struct Seen {
    term: u64,
    commit: u64,
    applied: u64,
    /// Hash chained over all events applied.
    chain: u64,
    /// The highest term that a message of this member's named, for ever.
    term_sent: u64,
}

/// The checker.
#[derive(Debug)]
pub struct Checker {
    seen: BTreeMap<u64, Seen>,
    leaders: BTreeMap<u64, u64>,
    /// (voter, term) -> candidate.
    votes: BTreeMap<(u64, u64), u64>,
    chains: BTreeMap<u64, (u64, u64)>,
    fingerprints: BTreeMap<u64, (u64, u64)>,
    compared: u64,
    refused: u64,
}

fn chain(mut hash: u64, event: &Event) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&event.kv.key);
    crc.update(&event.kv.value);
    for word in [event.kv.mod_revision as u64, event.kv.version as u64, u64::from(crc.finalize())] {
        hash = crate::driver::mix(hash ^ word);
    }
    hash
}

impl Checker {
    pub(super) fn new(members: u64) -> Checker {
        Checker {
            seen: (1..=members).map(|id| (id, Seen::default())).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            chains: BTreeMap::new(),
            fingerprints: BTreeMap::new(),
            compared: 0,
            refused: 0,
        }
    }

    /// Applied indexes at which two members were compared.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Terms that had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// Messages refused although all members are healthy.
    pub fn messages_refused(&self) -> u64 {
        self.refused
    }

    fn of(&mut self, id: u64) -> &mut Seen {
        self.seen.entry(id).or_default()
    }

    /// A member started: what it has applied is read from its store, which has told no events of it.
    pub(super) fn started(&mut self, id: u64, core: &Core, _now: Micros) {
        let everything = KeyRange::new(vec![0u8], vec![0u8]);
        let mut hash = 0;
        let mut from = 2;
        while let Ok(page) = core.reader().history(&everything, from, 1_000) {
            hash = page.events.iter().fold(hash, chain);
            from = page.next;
            if page.next > page.current {
                break;
            }
        }
        let seen = self.of(id);
        (seen.chain, seen.commit, seen.applied) = (hash, 0, 0);
    }

    pub(super) fn stopped(&mut self, _id: u64) {}

    pub(super) fn events(&mut self, id: u64, batch: &EventBatch) {
        let seen = self.of(id);
        seen.chain = batch.events.iter().fold(seen.chain, chain);
    }

    pub(super) fn refused(
        &mut self,
        travelling: &Travelling,
        standing: Standing,
        why: Refused,
    ) -> Result<(), String> {
        self.refused += 1;
        let Travelling { from, envelope } = travelling;
        let to = envelope.to;
        let message = transport::decode(super::cluster::CLUSTER_ID, to, envelope.bytes.clone());
        Err(format!("member {to} ({standing:?}) refused a message of member {from}: {why}: {message:?}"))
    }

    pub(super) fn sent(&mut self, id: u64, envelope: &Envelope) -> Result<(), String> {
        let message = transport::decode(super::cluster::CLUSTER_ID, envelope.to, envelope.bytes.clone())
            .map_err(|why| format!("member {id} sent what cannot be taken: {why}"))?;
        if message.from != id {
            return Err(format!("member {id} sent in the name of {}", message.from));
        }
        let vote = match message.get_msg_type() {
            // these name a term that their sender is not in
            MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => return Ok(()),
            MessageType::MsgRequestVote => Some(id),
            MessageType::MsgRequestVoteResponse if !message.reject => Some(message.to),
            _ => None,
        };
        if let Some(candidate) = vote {
            let given = *self.votes.entry((id, message.term)).or_insert(candidate);
            if given != candidate {
                return Err(format!(
                    "member {id} voted for {given} and {candidate} in term {}",
                    message.term
                ));
            }
        }
        let seen = self.of(id);
        if message.term < seen.term_sent {
            return Err(format!("member {id} fell from term {} to {}", seen.term_sent, message.term));
        }
        seen.term_sent = message.term;
        Ok(())
    }

    pub(super) fn stepped(&mut self, id: u64, core: &Core) -> Result<(), String> {
        let standing = core.driver().standing();
        let applied = core.driver().view().applied();
        if standing.leads {
            let leader = *self.leaders.entry(standing.term).or_insert(id);
            if leader != id {
                return Err(format!("members {leader} and {id} both lead in term {}", standing.term));
            }
        }
        let seen = self.of(id);
        if standing.term < seen.term_sent.max(seen.term) && seen.commit != 0 {
            return Err(format!("member {id} fell from term {} to {}", seen.term, standing.term));
        }
        if standing.commit < seen.commit || applied < seen.applied {
            return Err(format!(
                "member {id} fell from commit {} and applied {} to {} and {applied}",
                seen.commit, seen.applied, standing.commit
            ));
        }
        if standing.term < seen.term_sent {
            return Err(format!("member {id} forgot term {} that it had sent in", seen.term_sent));
        }
        (seen.term, seen.commit) = (standing.term, standing.commit);
        if applied == seen.applied {
            return Ok(());
        }
        seen.applied = applied;
        let now = seen.chain;
        self.compare(id, applied, now, core)
    }

    fn compare(&mut self, id: u64, applied: u64, now: u64, core: &Core) -> Result<(), String> {
        let (other, was) = *self.chains.entry(applied).or_insert((id, now));
        if was != now {
            return Err(format!("members {other} and {id} applied different changes up to entry {applied}"));
        }
        self.compared += u64::from(other != id);
        if crate::driver::mix(applied).is_multiple_of(FINGERPRINT_ONE_IN) {
            self.compare_stores(id, applied, core)?;
        }
        Ok(())
    }

    /// Compares a member's whole store with what another (or itself, before a crash) had at that applied index.
    ///
    /// # Errors
    /// They differ.
    pub fn compare_stores(&mut self, id: u64, applied: u64, core: &Core) -> Result<(), String> {
        let fingerprint = core.reader().fingerprint().map_err(|fault| fault.to_string())?;
        let (other, was) = *self.fingerprints.entry(applied).or_insert((id, fingerprint));
        if was == fingerprint {
            Ok(())
        } else {
            Err(format!("the stores of members {other} and {id} differ at entry {applied}"))
        }
    }
}
