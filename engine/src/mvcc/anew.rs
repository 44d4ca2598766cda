//! The state of a backup becomes that of a new cluster.

use super::apply::Mvcc;
use crate::error::Refusal;
use crate::pager::root::Cluster;
use crate::pager::{COUNT_MAX, Paged, PagesMut};

/// The highest revision that a bump may lead to: as many again can follow before the page file takes no more.
pub const REVISION_MAX: i64 = 1 << 61;
const _: () = assert!(REVISION_MAX as u64 <= COUNT_MAX / 2);

impl<P: PagesMut> Mvcc<P> {
    /// Makes the state that of a cluster yet to begin: keys, history, leases and the lease clock stay; members, who votes
    /// and alarms go; no entry is applied. With `bump`, which is above 0, the current revision rises by it and everything
    /// before is compacted, so that no client sees a revision twice.
    ///
    /// # Errors
    /// Outside the fault met; inside [`Refusal::FutureRevision`] for a revision above [`REVISION_MAX`].
    pub fn begin_anew(&mut self, bump: Option<i64>) -> Paged<Result<(), Refusal>> {
        if let Some(by) = bump {
            let revision =
                self.standing.revision.checked_add(by).filter(|revision| *revision <= REVISION_MAX);
            let Some(revision) = revision else { return Ok(Err(Refusal::FutureRevision)) };
            self.standing.revision = revision;
            if let Err(refusal) = self.compact(revision) {
                return Ok(Err(refusal));
            }
        }
        self.standing.applied = 0;
        self.standing.applied_term = 0;
        self.set_cluster(Cluster::default()).map(Ok)
    }
}
