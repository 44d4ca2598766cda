//! The driver: owns raft-rs's `RawNode`. Ticks, steps messages, proposes; no I/O, no clock, no randomness of its own.
//!
//! Rules it keeps, because raft-rs 0.7 does not:
//! - Whatever would make raft-rs abort is refused before it gets there ([`Driver::step`]).
//! - The election timeout is a hash of (seed, member, term, campaigns so far), set before every tick; raft-rs's own
//!   random draw never decides anything.
//! - A sole voter campaigns at once and never while its own log is not yet durable (raft-rs asserts that).
//! - Commit indexes travel with the next append; alone only when nothing else is to be sent
//!   ([`Driver::tell_commit`]).
//!
//! What comes out of raft-rs (entries to write, messages to hold or send, entries to apply) is [`crate::ready`]'s.

use crate::error::Error;
use crate::logging;
use crate::ready::Outbox;
use crate::storage::{LogView, entry_bytes};
use crate::transport::Refused;
use coffer_engine::wal::HardState;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, StateRole, Storage};

/// Entries of one append message, in bytes: an entry larger than this goes alone. Times [`APPENDS_IN_FLIGHT_MAX`]
/// this is the window of one follower, 16 MiB.
pub const APPEND_BYTES: u64 = 256 << 10;
/// Appends that may be out to one follower unanswered.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Committed entries that raft-rs hands over at once, in bytes; bounds what waits to be applied.
pub const COMMITTED_BYTES_MAX: u64 = 1 << 20;

/// What a driver needs to know.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// This member.
    pub member_id: u64,
    /// Its cluster, written into every message.
    pub cluster_id: u64,
    /// Ticks of an election timeout; the one used lies between this and twice this.
    pub election_ticks: u32,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// Weight of `(applied, last]` in bytes above which appends from a leader are not taken.
    pub log_bytes_max: u64,
}

/// raft-rs and what its rules ask for; see the head of this file.
pub struct Driver {
    pub(crate) raw: RawNode<LogView>,
    pub(crate) options: DriverOptions,
    /// Term, vote and commit as of the last `Ready`.
    pub(crate) hard_state: HardState,
    pub(crate) outbox: Outbox,
    /// Campaigns of this process, so that two in the same term do not wait alike.
    campaigns: u64,
    /// The commit index that followers were last told.
    commit_told: u64,
}

/// Where raft stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Term.
    pub term: u64,
    /// The leader, 0 if none is known.
    pub leader: u64,
    /// Whether this member is it.
    pub leads: bool,
    /// Whether this member is the only voter.
    pub sole_voter: bool,
    /// Commit index.
    pub commit: u64,
    /// Last index.
    pub last: u64,
}

impl Driver {
    /// Starts raft over a view whose entries are durable and whose known committed ones are applied
    /// ([`crate::recovery`] sees to both).
    ///
    /// # Errors
    /// [`Error::Unusable`] if raft-rs refuses the configuration.
    pub fn new(view: LogView, options: DriverOptions) -> Result<Driver, Error> {
        let state = view.initial_state().map_err(unusable)?;
        let hard_state = HardState {
            term: state.hard_state.term,
            vote: state.hard_state.vote,
            commit: state.hard_state.commit,
        };
        let config = raft::Config {
            id: options.member_id,
            election_tick: options.election_ticks as usize,
            heartbeat_tick: 1,
            applied: view.applied(),
            max_size_per_msg: APPEND_BYTES,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            batch_append: true,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&config, view, &logging::raft_logger()).map_err(unusable)?;
        let mut driver =
            Driver { raw, options, hard_state, outbox: Outbox::default(), campaigns: 0, commit_told: 0 };
        if driver.standing().sole_voter {
            driver.campaign();
        }
        Ok(driver)
    }

    /// Where raft stands.
    pub fn standing(&self) -> Standing {
        let raft = &self.raw.raft;
        Standing {
            term: raft.term,
            leader: raft.leader_id,
            leads: raft.state == StateRole::Leader,
            sole_voter: raft.prs().is_singleton() && raft.promotable(),
            commit: raft.raft_log.committed,
            last: raft.raft_log.last_index(),
        }
    }

    /// The view of the log.
    pub fn view(&self) -> &LogView {
        self.raw.store()
    }

    /// Term, vote and commit as of the last `Ready`: what belongs into the next batch.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Weight of all that is in the log and not applied, in bytes.
    pub fn unapplied_bytes(&self) -> u64 {
        let unstable = &self.raw.raft.raft_log.unstable;
        self.view().unapplied_bytes() + unstable.entries.iter().map(entry_bytes).sum::<u64>()
    }

    /// Whether this member leads and has applied an entry of its own term: only then does it know all that was
    /// acknowledged before.
    pub fn leads_and_applied_own_term(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state == StateRole::Leader && self.view().term_at(self.view().applied()) == Some(raft.term)
    }

    fn campaign(&mut self) {
        self.campaigns += 1;
        // refused only if this member may not lead, and then nothing follows
        let _ = self.raw.campaign();
    }

    /// Lets one heartbeat interval pass.
    pub fn tick(&mut self) {
        let standing = self.standing();
        if standing.sole_voter && !standing.leads {
            // raft-rs asserts that a sole voter's log is durable when it wins
            if self.raw.raft.raft_log.persisted == standing.last {
                self.campaign();
            }
            return;
        }
        let ticks = election_timeout(&self.options, standing.term, self.campaigns);
        self.raw.raft.set_randomized_election_timeout(ticks);
        if self.raw.tick() && !standing.leads {
            self.campaigns += 1;
        }
    }

    /// Takes a message from another member.
    ///
    /// # Errors
    /// Why it was dropped: it would have made raft-rs abort or contradicts what is committed here.
    pub fn step(&mut self, message: Message) -> Result<(), Refused> {
        self.check(&message)?;
        // what raft-rs refuses from here on (a response from one that was removed) needs no answer
        let _ = self.raw.step(message);
        Ok(())
    }

    fn check(&self, message: &Message) -> Result<(), Refused> {
        let raft = &self.raw.raft;
        if raft.prs().get(message.from).is_none() {
            return Err(Refused::Address);
        }
        if message.term < raft.term {
            return Ok(()); // raft-rs looks at nothing but the term
        }
        let last = raft.raft_log.last_index();
        match message.get_msg_type() {
            // an append below the commit index is answered without a look at its entries; one behind an entry that
            // is not here is rejected; so its entries never reach committed ones
            MessageType::MsgAppend => {
                let full = self.unapplied_bytes() > self.options.log_bytes_max;
                if full && !message.entries.is_empty() { Err(Refused::Full) } else { Ok(()) }
            }
            MessageType::MsgHeartbeat if message.commit > last => Err(Refused::BeyondLog),
            // one that led and came back without entries it had not synced may hear of them late: it leads no more
            MessageType::MsgAppendResponse
                if raft.state == StateRole::Leader && message.term == raft.term =>
            {
                let beyond = !message.reject && message.index > last;
                if beyond { Err(Refused::BeyondLog) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Proposes entries, all in one step. Gives the first one's index and their term.
    ///
    /// # Errors
    /// `None` if raft takes none of them (no leader, or it is handing over); nothing was proposed then.
    pub fn propose(&mut self, entries: Vec<Entry>) -> Option<(u64, u64)> {
        let standing = self.standing();
        if !standing.leads || entries.is_empty() {
            return None;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.options.member_id;
        message.set_entries(entries.into());
        self.raw.raft.step(message).ok()?;
        self.commit_told = self.raw.raft.raft_log.committed;
        Some((standing.last + 1, standing.term))
    }

    /// Tells followers a new commit index if no append has carried it.
    pub fn tell_commit(&mut self) {
        let standing = self.standing();
        if standing.leads && !standing.sole_voter && standing.commit > self.commit_told {
            self.raw.raft.bcast_append();
            self.commit_told = standing.commit;
        }
    }

    /// Tells raft and the view how far entries are applied.
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
        self.raw.mut_store().set_applied(index);
    }
}

fn unusable(error: raft::Error) -> Error {
    Error::Unusable(format!("raft does not start: {error}"))
}

/// Ticks before this member campaigns, from `election_ticks` to just below twice that.
fn election_timeout(options: &DriverOptions, term: u64, campaigns: u64) -> usize {
    let mut hash = options.seed;
    for word in [options.member_id, term, campaigns] {
        hash = mix(hash ^ word);
    }
    let spread = u64::from(options.election_ticks).max(1);
    (spread + hash % spread) as usize
}

/// One step of splitmix64's output function: every bit of the result depends on every bit of `word`.
pub(crate) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
