//! Leases that are granted and kept alive.

use super::Failed;
use super::answer::Lease;
use super::connect::Network;
use super::drive::Run;
use super::wire::{Duplex, Wire};
use super::worker::Worker;
use coffer_server::proto::etcdserverpb as pb;
use std::rc::Rc;

/// Grants that are under way at once while leases are made for a run.
const GRANTS_AT_ONCE: usize = 64;

/// A client's stream of renewals, and the leases that it renews in turn.
pub(super) struct Renewals {
    stream: Duplex,
    leases: Vec<i64>,
    next: usize,
}

impl Renewals {
    async fn open(wire: &mut Wire, leases: Vec<i64>) -> Result<Renewals, Failed> {
        Ok(Renewals { stream: wire.keep_alive().await?, leases, next: 0 })
    }

    /// Renews the next lease.
    ///
    /// # Errors
    /// There is no such lease any more, or the stream has ended.
    pub(super) async fn renew(&mut self) -> Result<(), Failed> {
        let id = *self.leases.get(self.next).ok_or("a client without leases")?;
        self.next = (self.next + 1) % self.leases.len();
        self.stream.send(&pb::LeaseKeepAliveRequest { id })?;
        let answer = Lease::read(&self.stream.next().await?)?;
        if answer.ttl > 0 && answer.id == id {
            Ok(())
        } else {
            Err(format!("lease {id} was not renewed: {answer:?}").into())
        }
    }
}

/// The clients of a run that keeps leases alive. Every lease has a client, and every client has one.
pub(super) async fn keepers(run: &Rc<Run>, network: &Network) -> Result<Vec<Worker>, Failed> {
    let clients = run.clients();
    let leases = grant(run, network, run.leases()).await?;
    let mut keepers = Vec::with_capacity(clients);
    for (number, leases) in dealt(&leases, clients).into_iter().enumerate() {
        let mut wire = network.wires[number % network.wires.len()].clone();
        let renewals = Renewals::open(&mut wire, leases).await?;
        keepers.push(Worker::new(run, wire).with_renewals(renewals));
    }
    Ok(keepers)
}

/// Each client's leases: dealt in turn; with fewer leases than clients some share one.
fn dealt(leases: &[i64], clients: usize) -> Vec<Vec<i64>> {
    let of = |client: usize| -> Vec<i64> {
        let own = leases.iter().skip(client).step_by(clients).copied().collect::<Vec<_>>();
        if own.is_empty() { vec![leases[client % leases.len()]] } else { own }
    };
    (0..clients).map(of).collect()
}

async fn grant(run: &Run, network: &Network, count: usize) -> Result<Vec<i64>, Failed> {
    let ttl = run.options.lease_ttl;
    let each = GRANTS_AT_ONCE.min(count);
    let granting = (0..each).map(|first| {
        let mut wire = network.wires[first % network.wires.len()].clone();
        tokio::task::spawn_local(async move {
            let mut granted = Vec::new();
            for _ in (first..count).step_by(each) {
                granted.push(wire.lease_grant(ttl).await?);
            }
            Ok::<_, Failed>(granted)
        })
    });
    let mut leases = Vec::with_capacity(count);
    for granted in granting.collect::<Vec<_>>() {
        leases.extend(granted.await??);
    }
    Ok(leases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_a_lease_and_every_lease_a_client() {
        assert_eq!(dealt(&[1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(dealt(&[1, 2], 2), [vec![1], vec![2]]);
        assert_eq!(dealt(&[1, 2], 5), [vec![1], vec![2], vec![1], vec![2], vec![1]]);
    }
}
