//! The writer over the page file: where it goes on after opening, what it makes visible.

use super::apply::Mvcc;
use crate::pager::{Paged, Pager};
use std::sync::Arc;

impl Mvcc<Pager> {
    /// Goes on from what the pager has published.
    ///
    /// # Errors
    /// The fault met while reading who is in the cluster.
    pub fn open(pager: Pager) -> Paged<Mvcc<Pager>> {
        let root = pager.published();
        let mut mvcc = Mvcc {
            trees: root.trees,
            standing: root.standing,
            walk_begin: root.standing.compaction_next,
            versions_removed: 0,
            cluster: Arc::clone(&root.cluster),
            ..Mvcc::new(pager)
        };
        let cluster = mvcc.view().stored_cluster()?.unwrap_or_default();
        if *mvcc.cluster != cluster {
            // a root that was read from a file knows only the tree
            mvcc.cluster = Arc::new(cluster);
            mvcc.pages.set_cluster(Arc::clone(&mvcc.cluster));
        }
        Ok(mvcc)
    }

    /// Makes everything since the last publish visible, all of it in one step.
    pub fn publish(&mut self) {
        self.pages.publish(self.trees, self.standing, Arc::clone(&self.cluster));
    }
}
