//! Short ways to requests, messages and cores.

use coffer_engine::command::{Applied, Command, Member, PutRequest, Reply, Stamped};
use coffer_raftlog::core::Core;
use coffer_raftlog::proposal::{Outcome, ReplyTo, Request};
use coffer_raftlog::sim::cluster::{Cluster, ClusterOptions, Crash};
use std::time::Duration;

/// Whether the long variants run (`scripts/long.sh` asks for them).
pub(crate) fn long() -> bool {
    std::env::var_os("COFFER_LONG").is_some_and(|value| value == "1")
}

/// The place of one answer.
pub(crate) fn to(slot: u32) -> ReplyTo {
    ReplyTo { mailbox: 0, slot, generation: 1 }
}

/// A put.
pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::Put(PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        ..PutRequest::default()
    })
}

/// The first command of a log.
pub(crate) fn bootstrap(cluster_id: u64, ids: &[u64]) -> Stamped {
    let members = ids.iter().map(|&id| Member { id, name: format!("m{id}"), ..Member::default() }).collect();
    Stamped { clock_ms: 0, command: Command::Bootstrap { cluster_id, members } }
}

/// Long enough for anything that does not depend on time; a test that waits so long has failed.
pub(crate) const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// One simulated member that is asked things.
pub(crate) struct Solo {
    pub(crate) cluster: Cluster,
    number: u32,
}

impl Solo {
    pub(crate) fn new(seed: u64) -> Solo {
        Solo::with(ClusterOptions::new(seed, 1))
    }

    pub(crate) fn with(options: ClusterOptions) -> Solo {
        let cluster = Cluster::new(options).unwrap();
        let mut solo = Solo { cluster, number: 0 };
        solo.run(5_000);
        solo
    }

    /// Lets simulated time pass.
    pub(crate) fn run(&mut self, us: u64) {
        let until = self.cluster.now() + us;
        self.cluster.run_until(until).unwrap();
    }

    pub(crate) fn core(&self) -> &Core {
        self.cluster.core(1).expect("the member runs")
    }

    /// Hands in a request without waiting; gives its number.
    pub(crate) fn submit(&mut self, request: impl FnOnce(ReplyTo) -> Request) -> u32 {
        self.number += 1;
        self.cluster.submit(1, request(to(self.number)));
        self.number
    }

    /// Hands in a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: impl FnOnce(ReplyTo) -> Request) -> Outcome {
        self.ask_when(request).0
    }

    /// The same, with the moment at which the answer came.
    pub(crate) fn ask_when(&mut self, request: impl FnOnce(ReplyTo) -> Request) -> (Outcome, u64) {
        let number = self.submit(request);
        for _ in 0..20_000 {
            self.run(1_000);
            let mut answers = self.cluster.take_answers();
            if let Some(at) = answers.iter().position(|answer| answer.to.slot == number) {
                let answer = answers.swap_remove(at);
                return (answer.outcome, answer.at);
            }
        }
        panic!("request {number} was not answered");
    }

    /// Proposes a command that is done.
    pub(crate) fn done(&mut self, command: Command) -> Reply {
        match self.ask(|reply_to| Request::Propose { command, reply_to }) {
            Outcome::Applied(Applied { outcome: Ok(reply), .. }) => reply,
            other => panic!("answered {other:?}"),
        }
    }

    pub(crate) fn restart(&mut self, crash: Crash) {
        self.cluster.crash(1, crash);
        self.cluster.start(1).unwrap();
    }
}
