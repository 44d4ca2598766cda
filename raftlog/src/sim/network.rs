//! The network between simulated members: it drops, delays, doubles and reorders messages, and can be cut.

use crate::transport::Envelope;
use coffer_engine::Micros;
use coffer_engine::disk::sim::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// How bad the network is. Chances are one in so many, 0 for never.
#[derive(Clone, Copy, Debug)]
pub struct NetworkOptions {
    /// Shortest and longest way of most messages, in microseconds.
    pub delay_us: (Micros, Micros),
    /// Longest way of a message that is held up.
    pub held_up_us_max: Micros,
    /// Messages that are lost.
    pub drop_one_in: u64,
    /// Messages that come twice.
    pub double_one_in: u64,
    /// Messages that are held up and so overtaken by later ones.
    pub hold_up_one_in: u64,
}

impl Default for NetworkOptions {
    fn default() -> NetworkOptions {
        NetworkOptions {
            delay_us: (100, 3_000),
            held_up_us_max: 400_000,
            drop_one_in: 40,
            double_one_in: 40,
            hold_up_one_in: 40,
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Travelling {
    /// The member that sent it.
    pub from: u64,
    /// The message.
    pub envelope: Envelope,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    rng: Rng,
    /// By arrival; the second number keeps those of the same moment apart.
    travelling: BTreeMap<(Micros, u64), Travelling>,
    sent: u64,
    lost: u64,
    /// Pairs that do not hear each other, lower id first.
    cut: BTreeSet<(u64, u64)>,
    /// Whether faults are over.
    healed: bool,
}

impl Network {
    /// A network whose faults follow `seed`.
    pub fn new(options: NetworkOptions, seed: u64) -> Network {
        Network {
            options,
            rng: Rng::new(seed),
            travelling: BTreeMap::new(),
            sent: 0,
            lost: 0,
            cut: BTreeSet::new(),
            healed: false,
        }
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages lost so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Cuts or joins the way between two members.
    pub fn set_cut(&mut self, a: u64, b: u64, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.cut.insert(pair);
        } else {
            self.cut.remove(&pair);
        }
    }

    /// From now on every message arrives, in order.
    pub fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
    }

    fn strikes(&mut self, one_in: u64) -> bool {
        one_in != 0 && !self.healed && self.rng.once_in(one_in)
    }

    fn delay(&mut self) -> Micros {
        if self.strikes(self.options.hold_up_one_in) {
            return self.rng.between(self.options.delay_us.1, self.options.held_up_us_max);
        }
        self.rng.between(self.options.delay_us.0, self.options.delay_us.1)
    }

    /// Takes a message at `now`.
    pub fn send(&mut self, from: u64, envelope: Envelope, now: Micros) {
        self.sent += 1;
        let cut = self.cut.contains(&(from.min(envelope.to), from.max(envelope.to)));
        if cut || self.strikes(self.options.drop_one_in) {
            self.lost += 1;
            return;
        }
        let copies = if self.strikes(self.options.double_one_in) { 2 } else { 1 };
        for copy in 0..copies {
            let arrival = (now + self.delay(), self.sent * 2 + copy);
            self.travelling.insert(arrival, Travelling { from, envelope: envelope.clone() });
        }
    }

    /// When the next message arrives.
    pub fn next_arrival(&self) -> Option<Micros> {
        self.travelling.keys().next().map(|&(at, _)| at)
    }

    /// The next message that arrives at or before `now`.
    pub fn deliver(&mut self, now: Micros) -> Option<Travelling> {
        let first = self.travelling.first_entry()?;
        if first.key().0 > now { None } else { Some(first.remove()) }
    }
}
