//! The proposals of one round: everything that waited, stamped and encoded, to be proposed in one step.
//!
//! Who may not come in is turned away here, before it costs anything: what needs room while the disk has none, what
//! finds `(applied, last]` at its bound, what is larger than an entry of the log may be.

use crate::proposal::{Busy, ReplyTo};
use crate::slots::Asker;
use crate::storage::ENTRY_OVERHEAD_BYTES;
use coffer_engine::command::{Command, Stamped};
use coffer_engine::quota;
use raft::eraftpb::Entry;

/// What decides who comes in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Door {
    /// The lease clock, for all commands of the round.
    pub(crate) stamp_ms: u64,
    /// The disk is full: only what makes room comes in.
    pub(crate) reserve: bool,
    /// Bytes until `(applied, last]` is full.
    pub(crate) room: u64,
    /// Largest entry in bytes.
    pub(crate) entry_bytes_max: u64,
}

/// A round being gathered.
#[derive(Debug, Default)]
pub(crate) struct Round {
    door: Door,
    entries: Vec<Entry>,
    askers: Vec<Asker>,
    renewed_ids: Vec<i64>,
    renewers: Vec<ReplyTo>,
}

/// A round gathered.
#[derive(Debug)]
pub(crate) struct Proposals {
    /// To be proposed, in order.
    pub(crate) entries: Vec<Entry>,
    /// Who asked for each.
    pub(crate) askers: Vec<Asker>,
    /// Their stamp.
    pub(crate) stamp_ms: u64,
}

impl Round {
    pub(crate) fn new(door: Door) -> Round {
        Round { door, ..Round::default() }
    }

    /// Adds a renewal to those that will share an entry.
    pub(crate) fn renew(&mut self, id: i64, reply_to: ReplyTo) {
        self.renewed_ids.push(id);
        self.renewers.push(reply_to);
    }

    /// Renewals gathered for the next entry.
    pub(crate) fn renewals(&self) -> usize {
        self.renewed_ids.len()
    }

    /// Makes one entry of the renewals gathered.
    ///
    /// # Errors
    /// Why not, with those who asked.
    pub(crate) fn add_renewals(&mut self) -> Result<(), (Vec<ReplyTo>, Busy)> {
        if self.renewed_ids.is_empty() {
            return Ok(());
        }
        let ids = std::mem::take(&mut self.renewed_ids);
        let askers = std::mem::take(&mut self.renewers);
        let everyone = askers.clone();
        self.add(Command::LeaseRenew { ids }, Asker::Renewals(askers)).map_err(|why| (everyone, why))
    }

    /// Adds a command.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn add(&mut self, command: Command, asker: Asker) -> Result<(), Busy> {
        if self.door.reserve && quota::cost(&command) > 0 {
            return Err(Busy::NoSpace);
        }
        let stamped = Stamped { clock_ms: self.door.stamp_ms, command };
        // txns deeper than the encoding allows and entries larger than the log takes do not pass a server's own door
        let data = stamped.encode().map_err(|_| Busy::TooManyRequests)?;
        let bytes = data.len() as u64 + ENTRY_OVERHEAD_BYTES;
        if bytes > self.door.room || data.len() as u64 > self.door.entry_bytes_max {
            return Err(Busy::TooManyRequests);
        }
        self.door.room -= bytes;
        self.entries.push(Entry { data: data.into(), ..Entry::default() });
        self.askers.push(asker);
        Ok(())
    }

    pub(crate) fn finish(self) -> Proposals {
        let Round { door, entries, askers, .. } = self;
        Proposals { entries, askers, stamp_ms: door.stamp_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_engine::command::PutRequest;

    fn put(bytes: usize) -> Command {
        Command::Put(PutRequest { key: "k".into(), value: vec![0; bytes].into(), ..PutRequest::default() })
    }

    #[test]
    fn what_needs_room_is_turned_away_from_a_full_disk_and_the_rest_is_not() {
        let mut round =
            Round::new(Door { stamp_ms: 1, reserve: true, room: 1 << 20, entry_bytes_max: 1 << 20 });
        assert_eq!(round.add(put(10), Asker::Expiry), Err(Busy::NoSpace));
        assert_eq!(round.add(Command::LeaseGrant { id: 1, ttl: 1 }, Asker::Expiry), Err(Busy::NoSpace));
        for command in [
            Command::LeaseRevoke { id: 1 },
            Command::LeaseRenew { ids: vec![1] },
            Command::Compact { revision: 3 },
            Command::DeleteRange(Default::default()),
        ] {
            assert_eq!(round.add(command, Asker::Expiry), Ok(()));
        }
    }

    #[test]
    fn a_full_log_and_a_large_entry_are_turned_away() {
        let mut round = Round::new(Door { stamp_ms: 1, reserve: false, room: 1_000, entry_bytes_max: 600 });
        assert_eq!(round.add(put(700), Asker::Expiry), Err(Busy::TooManyRequests));
        assert_eq!(round.add(put(500), Asker::Expiry), Ok(()));
        assert_eq!(round.add(put(500), Asker::Expiry), Err(Busy::TooManyRequests));
        assert_eq!(round.finish().entries.len(), 1);
    }
}
