//! Compaction: what it hides at once, and the walk that removes it later.
//!
//! The walk goes over `Revisions` from the last compaction revision, inclusive, to the new one, c. At each record r it
//! removes
//!
//! 1. r itself, if a newer version of the key is at or below c too: that one hides r from every revision that can still be
//!    asked for. Who is the key's version at c is told by its entry, or its grave, and by the pointers down from there;
//! 2. r's previous version, where the walk began behind it: an earlier walk left it as its key's version at the c of then;
//! 3. where r.main < c, r itself if its key is live with this very version (its value stands in `Keys`), or if it is a
//!    tombstone, whose grave goes too if it is still this one;
//! 4. of an r that stays, the body of the version before: only reads below r.main look at it, and none of those is left to
//!    be asked for. Deletes of what earlier compactions had been through would keep all values deleted otherwise.
//!
//! Then nothing is left but what is visible: below c the versions that something newer than c hides now, at c everything,
//! tombstones included, for watchers that begin there. A record between two visits keeps being hidden by its revision alone,
//! so how far the walk has come shows in no answer.
//!
//! Nearly all that is removed stands where the walk is, so that most pages of old records are changed once, and go. The
//! previous version of each record may stand anywhere: to remove that one instead would copy a page for nearly every record.

use super::apply::Mvcc;
use super::cell::{Grave, Read, Record, revision_key};
use super::revision::Revision;
use super::view::Newest;
use crate::btree::{self, Action};
use crate::error::Refusal;
use crate::pager::page::{RunRef, TreeId};
use crate::pager::{Paged, PagesMut};

/// Records of one step, whatever its budget: each may copy a few pages, and who waits for the writer waits for the step.
const STEP_RECORDS_MAX: usize = 128;

/// A record that the walk comes to.
struct Visited {
    revision: Revision,
    previous: Option<Revision>,
    tombstone: bool,
    has_previous_body: bool,
    key: Vec<u8>,
}

/// The runs that a record's going sets free: its key's, its value's, its previous body's.
type Runs = [Option<RunRef>; 3];

impl<P: PagesMut> Mvcc<P> {
    /// Hides the history below `revision`.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        let standing = &mut self.standing;
        if revision <= standing.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > standing.revision {
            return Err(Refusal::FutureRevision);
        }
        // tombstones at the old compaction revision were kept, those of an unfinished walk included
        standing.compaction_next =
            standing.compaction_next.min(Revision { main: standing.compacted, sub: 0 });
        standing.compacted = revision;
        self.walk_begin = standing.compaction_next;
        Ok(())
    }

    /// Walks over up to `budget` records, and never so many that others wait long; true while there is more to do. What it
    /// removed is gone for readers with the next publish.
    ///
    /// # Errors
    /// The fault met: the step is done in part.
    pub fn compact_step(&mut self, budget: usize) -> Paged<bool> {
        if self.standing.compaction_done == self.standing.compacted {
            return Ok(false);
        }
        let budget = budget.min(STEP_RECORDS_MAX);
        let records = self.next_records(budget)?;
        for record in &records {
            self.compact_at(record)?;
            self.standing.compaction_next = Revision { sub: record.revision.sub + 1, ..record.revision };
        }
        if records.len() == budget {
            return Ok(true);
        }
        self.standing.compaction_done = self.standing.compacted;
        self.standing.compaction_next = Revision { main: self.standing.compacted + 1, sub: 0 };
        Ok(false)
    }

    /// Versions that compaction has removed since this state was opened: superseded ones, and tombstones. A version whose value
    /// stands in its key's entry stays one.
    pub fn versions_removed(&self) -> u64 {
        self.versions_removed
    }

    /// How much the walk has still to go over: revisions, or records where there are fewer, as below a revision that a restore has
    /// raised.
    pub fn compaction_left(&self) -> u64 {
        let next = self.standing.compaction_next;
        let revisions = self.standing.compacted.abs_diff(next.main.min(self.standing.compacted));
        // a fault is met again, and told, by the walk
        self.view().records_from(next).map_or(revisions, |records| revisions.min(records))
    }

    /// Begins to bring into memory what the next step over `budget` records reads besides the records themselves: the entry of
    /// each one's key, and the version before it where that one is to go. Both may stand anywhere.
    ///
    /// # Errors
    /// The fault met.
    pub fn compact_ahead(&self, budget: usize) -> Paged<()> {
        if self.standing.compaction_done == self.standing.compacted {
            return Ok(());
        }
        let records = self.next_records(budget.min(STEP_RECORDS_MAX))?;
        let mut keys: Vec<&[u8]> = records.iter().map(|record| &record.key[..]).collect();
        keys.sort_unstable();
        keys.dedup();
        let view = self.view();
        view.read_ahead(&keys);
        let previous = records.iter().filter_map(|record| record.previous);
        let mut previous: Vec<_> =
            previous.filter(|previous| *previous < self.walk_begin).map(revision_key).collect();
        previous.sort_unstable();
        let previous: Vec<&[u8]> = previous.iter().map(|key| &key[..]).collect();
        btree::read_ahead(&self.pages, TreeId::Revisions, view.tree(TreeId::Revisions), &previous);
        Ok(())
    }

    /// Up to `budget` records that the walk comes to next. Removing one of them changes none of the others.
    fn next_records(&self, budget: usize) -> Paged<Vec<Visited>> {
        let view = self.view();
        let mut cursor = view.cursor(TreeId::Revisions);
        cursor.seek(&revision_key(self.standing.compaction_next))?;
        let mut records: Vec<Visited> = Vec::with_capacity(budget);
        while records.len() < budget {
            let Some((key, value)) = cursor.next()? else { break };
            let record = view.read(TreeId::Revisions, Record::read(&key, value))?;
            let rises = match records.last() {
                Some(last) => record.revision > last.revision,
                None => record.revision >= self.standing.compaction_next,
            };
            if !rises {
                // the walk would never end
                return Err(view.fault(
                    TreeId::Revisions,
                    "records in order",
                    &format!("{:?}", record.revision),
                ));
            }
            if record.revision.main > self.standing.compacted {
                break;
            }
            records.push(Visited {
                revision: record.revision,
                previous: record.previous,
                tombstone: record.tombstone,
                has_previous_body: record.previous_body.is_some(),
                key: view.record_key(&record)?.into_owned(),
            });
        }
        Ok(records)
    }

    fn compact_at(&mut self, record: &Visited) -> Paged<()> {
        if let Some(previous) = record.previous.filter(|previous| *previous < self.walk_begin) {
            self.drop_superseded(previous)?;
        }
        let (is_newest, is_superseded) = self.place(record)?;
        if is_superseded {
            return self.drop_superseded(record.revision);
        }
        let below = record.revision.main < self.standing.compacted;
        if below && record.tombstone {
            self.drop_grave(record)?;
            self.drop_superseded(record.revision)?;
        } else if below && is_newest {
            // its entry goes on holding its value's run
            let [key, _value, previous] = self.drop_record(record.revision)?.unwrap_or_default();
            for run in key.iter().chain(&previous) {
                self.pages.free_run(run);
            }
        } else if record.has_previous_body {
            self.drop_previous_body(record.revision)?;
        }
        Ok(())
    }

    /// Whether a record is its key's newest version, and whether a newer one stands at or below the compaction revision.
    fn place(&self, record: &Visited) -> Paged<(bool, bool)> {
        let view = self.view();
        let newest = view.newest(&record.key)?;
        let revision = match &newest {
            Newest::Live(entry) => Some(entry.revision),
            Newest::Dead(grave) => Some(grave.revision),
            Newest::Absent => None,
        };
        if revision == Some(record.revision) {
            return Ok((true, false));
        }
        let seen = view.at(&newest, self.standing.compacted)?;
        Ok((false, seen.is_none_or(|seen| seen.revision != record.revision)))
    }

    /// Removes a record that is not live: no entry holds its value's run.
    fn drop_superseded(&mut self, revision: Revision) -> Paged<()> {
        let Some(runs) = self.drop_record(revision)? else { return Ok(()) };
        self.versions_removed += 1;
        for run in runs.into_iter().flatten() {
            self.pages.free_run(&run);
        }
        Ok(())
    }

    fn drop_grave(&mut self, record: &Visited) -> Paged<()> {
        let root = &mut self.trees[TreeId::Deleted.place()];
        let read =
            btree::upsert(&mut self.pages, TreeId::Deleted, root, &record.key, |grave, _| {
                match grave.map(Grave::read) {
                    Some(Ok(grave)) if grave.revision == record.revision => (Action::Remove, Ok(())),
                    Some(Err(malformed)) => (Action::Keep, Err(malformed)),
                    Some(Ok(_)) | None => (Action::Keep, Ok(())),
                }
            })?;
        self.view().read(TreeId::Deleted, read)
    }

    /// Lets a record forget the body of the version before; that there was one it still tells.
    fn drop_previous_body(&mut self, revision: Revision) -> Paged<()> {
        let root = &mut self.trees[TreeId::Revisions.place()];
        let key = revision_key(revision);
        let mut value = Vec::new();
        let change =
            |old: Option<&[u8]>, new: &mut Vec<u8>| match old.map(|old| Record::read_at(revision, old)) {
                Some(Ok(record)) => {
                    let run = record.previous_body.and_then(|body| body.run);
                    Record { previous_body: None, ..record }.put(new);
                    (Action::Put, Ok(run))
                }
                Some(Err(malformed)) => (Action::Keep, Err(malformed)),
                None => (Action::Keep, Ok(None)),
            };
        let run = btree::upsert_with(&mut self.pages, TreeId::Revisions, root, &key, &mut value, change)?;
        if let Some(run) = self.view().read(TreeId::Revisions, run)? {
            self.pages.free_run(&run);
        }
        Ok(())
    }

    /// Removes a record if it is there; the runs it named.
    fn drop_record(&mut self, revision: Revision) -> Paged<Option<Runs>> {
        let root = &mut self.trees[TreeId::Revisions.place()];
        let key = revision_key(revision);
        let runs = btree::upsert(&mut self.pages, TreeId::Revisions, root, &key, |record, _| {
            match record.map(|value| runs_of(revision, value)) {
                Some(Ok(runs)) => (Action::Remove, Ok(Some(runs))),
                Some(Err(malformed)) => (Action::Keep, Err(malformed)),
                None => (Action::Keep, Ok(None)),
            }
        })?;
        self.view().read(TreeId::Revisions, runs)
    }
}

fn runs_of(revision: Revision, value: &[u8]) -> Read<Runs> {
    Ok(Record::read_at(revision, value)?.runs())
}
