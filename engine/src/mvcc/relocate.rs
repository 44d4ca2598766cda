//! Moves what stands in the end of the file toward its head, in bounded steps between others' work. No answer shows it.
//!
//! ```text
//! the trees, one after the other: their pages and the runs of long keys         (btree::relocate)
//! Keys:       the run of a value, in its entry and in its record if that holds it too
//! Revisions:  the runs of a value that no entry holds, of a previous value, of a key
//! State:      the run of the cluster
//! ```
//! What is written meanwhile goes to places below those that are emptied, so one pass is enough.

use super::apply::Mvcc;
use super::cell::{Body, Entry, Read, Record, RecordKey, revision_key};
use super::revision::Revision;
use crate::btree::{self, Action};
use crate::pager::page::{PageId, RunRef, TreeId};
use crate::pager::{Paged, PagesMut};

/// How far a pass has come.
#[derive(Clone, Debug)]
pub struct Relocation(Stage);

#[derive(Clone, Debug)]
enum Stage {
    /// Pages of the tree of that place, from a key on.
    Tree(usize, Vec<u8>),
    /// Runs of live values, from a key on.
    Values(Vec<u8>),
    /// Runs of records, from a revision on.
    Records(Revision),
    Cluster,
}

impl Default for Relocation {
    fn default() -> Relocation {
        Relocation(Stage::Tree(0, Vec::new()))
    }
}

/// Runs to move, and where to go on; `None` at the end of the tree.
struct Found<K> {
    to_move: Vec<K>,
    next: Option<K>,
}

/// Entries of a tree looked at for the price of one page moved.
const ENTRIES_A_PAGE: usize = 8;

impl<P: PagesMut> Mvcc<P> {
    /// Goes on with a pass over all that [`PagesMut::is_to_move`], for the price of about `budget` pages moved, or of one
    /// run; `None` when the pass is over. What was moved is so for readers with the next publish.
    ///
    /// # Errors
    /// The fault met: the step is done in part.
    pub fn relocate_step(&mut self, pass: Relocation, budget: usize) -> Paged<Option<Relocation>> {
        let next = match pass.0 {
            Stage::Tree(place, from) => self.move_tree(place, &from, budget)?,
            Stage::Values(from) => self.move_values(&from, budget)?,
            Stage::Records(from) => self.move_records(from, budget)?,
            Stage::Cluster => {
                self.move_cluster(is_to_move)?;
                return Ok(None);
            }
        };
        Ok(Some(Relocation(next)))
    }

    fn move_tree(&mut self, place: usize, from: &[u8], budget: usize) -> Paged<Stage> {
        let Some(tree) = TreeId::ALL.get(place) else { return Ok(Stage::Values(Vec::new())) };
        let root = &mut self.trees[tree.place()];
        let next = btree::relocate(&mut self.pages, *tree, root, from, budget)?;
        Ok(next.map_or(Stage::Tree(place + 1, Vec::new()), |from| Stage::Tree(place, from)))
    }

    fn move_values(&mut self, from: &[u8], budget: usize) -> Paged<Stage> {
        let Found { to_move, next } = self.values_to_move(from, budget)?;
        for key in &to_move {
            self.move_value(key)?;
        }
        Ok(next.map_or(Stage::Records(Revision::default()), Stage::Values))
    }

    fn values_to_move(&self, from: &[u8], budget: usize) -> Paged<Found<Vec<u8>>> {
        let view = self.view();
        let mut keys = view.cursor(TreeId::Keys);
        keys.seek(from)?;
        let (mut to_move, mut pages) = (Vec::new(), 0);
        for looked_at in 0.. {
            let Some((key, value)) = keys.next()? else { break };
            if pages >= budget || looked_at >= budget * ENTRIES_A_PAGE {
                if *key <= *from {
                    // pages whose checksums are right and whose order is not: the pass would never end
                    return Err(view.fault(TreeId::Keys, "keys that rise", "others"));
                }
                return Ok(Found { to_move, next: Some(key.into_owned()) });
            }
            let entry = view.read(TreeId::Keys, Entry::read(value))?;
            if let Some(run) = entry.body.run.filter(|run| is_to_move(&self.pages, run)) {
                pages += run.pages() as usize;
                to_move.push(key.into_owned());
            }
        }
        Ok(Found { to_move, next: None })
    }

    /// Moves the run of a live value: its entry names the new one then, and so does its record if it holds the run too.
    fn move_value(&mut self, key: &[u8]) -> Paged<()> {
        let Some(entry) = self.view().entry(key)? else { return Ok(()) };
        let (Some(run), revision) = (entry.body.run, entry.revision) else { return Ok(()) };
        let moved = self.move_run(TreeId::Keys, &run)?;
        self.rewrite(TreeId::Keys, key, |bytes, out| {
            let entry = Entry::read(bytes)?;
            let fields = entry.body.fields()?;
            let sub = entry.revision.sub;
            Entry::put(out, sub, entry.number, entry.has_previous, entry.heads, &fields, Some(&moved));
            Ok(())
        })?;
        self.rewrite_record(revision, |record| {
            if record.body.run == Some(run) {
                record.body.run = Some(moved);
            }
        })
    }

    fn move_records(&mut self, from: Revision, budget: usize) -> Paged<Stage> {
        let Found { to_move, next } = self.records_to_move(from, budget)?;
        for revision in to_move {
            self.move_record(revision)?;
        }
        Ok(next.map_or(Stage::Cluster, Stage::Records))
    }

    fn records_to_move(&self, from: Revision, budget: usize) -> Paged<Found<Revision>> {
        let view = self.view();
        let mut records = view.cursor(TreeId::Revisions);
        records.seek(&revision_key(from))?;
        let (mut to_move, mut pages) = (Vec::new(), 0);
        for looked_at in 0.. {
            let Some((key, value)) = records.next()? else { break };
            let record = view.read(TreeId::Revisions, Record::read(&key, value))?;
            if pages >= budget || looked_at >= budget * ENTRIES_A_PAGE {
                if record.revision <= from {
                    return Err(view.fault(TreeId::Revisions, "records that rise", "others"));
                }
                return Ok(Found { to_move, next: Some(record.revision) });
            }
            let runs = record.runs().into_iter().flatten();
            let moving: u32 = runs.filter(|run| is_to_move(&self.pages, run)).map(|run| run.pages()).sum();
            if moving > 0 {
                pages += moving as usize;
                to_move.push(record.revision);
            }
        }
        Ok(Found { to_move, next: None })
    }

    /// Moves the runs of a record. Its value's is mostly the record's alone by now, as those of live keys were moved with
    /// their entries; it is not where the key was written since and there was no room farther down.
    fn move_record(&mut self, revision: Revision) -> Paged<()> {
        let Some(record) = self.view().record(revision)? else { return Ok(()) };
        let [key_run, mut value, previous] = record.runs();
        let key = self.view().record_key(&record)?.into_owned();
        if self.view().entry(&key)?.is_some_and(|entry| entry.revision == revision) {
            if value.is_some_and(|run| is_to_move(&self.pages, &run)) {
                self.move_value(&key)?;
            }
            value = None;
        }
        let key_run = self.move_if(TreeId::Revisions, key_run)?;
        let value = self.move_if(TreeId::Keys, value)?;
        let previous = self.move_if(TreeId::Keys, previous)?;
        self.rewrite_record(revision, |record| {
            if let Some(run) = key_run {
                record.key = RecordKey::Run(run);
            }
            record.body.run = value.or(record.body.run);
            if let Some(body) = &mut record.previous_body {
                *body = Body { run: previous.or(body.run), ..*body };
            }
        })
    }

    fn move_if(&mut self, tree: TreeId, run: Option<RunRef>) -> Paged<Option<RunRef>> {
        match run.filter(|run| is_to_move(&self.pages, run)) {
            Some(run) => self.move_run(tree, &run).map(Some),
            None => Ok(None),
        }
    }

    fn move_run(&mut self, tree: TreeId, run: &RunRef) -> Paged<RunRef> {
        let bytes = self.pages.run(tree, run)?;
        let moved = self.pages.new_run(tree, &bytes);
        self.pages.free_run(run);
        Ok(moved)
    }

    fn rewrite_record(&mut self, revision: Revision, change: impl FnOnce(&mut Record<'_>)) -> Paged<()> {
        self.rewrite(TreeId::Revisions, &revision_key(revision), |bytes, out| {
            let mut record = Record::read_at(revision, bytes)?;
            change(&mut record);
            record.put(out);
            Ok(())
        })
    }

    /// Changes an entry if it is there.
    fn rewrite(
        &mut self,
        tree: TreeId,
        key: &[u8],
        change: impl FnOnce(&[u8], &mut Vec<u8>) -> Read<()>,
    ) -> Paged<()> {
        let root = &mut self.trees[tree.place()];
        let read = btree::upsert(&mut self.pages, tree, root, key, |old, out| match old {
            None => (Action::Keep, Ok(())),
            Some(old) => match change(old, out) {
                Ok(()) => (Action::Put, Ok(())),
                Err(malformed) => (Action::Keep, Err(malformed)),
            },
        })?;
        self.view().read(tree, read)
    }
}

/// Whether part of a run lies where it should not.
fn is_to_move(pages: &impl PagesMut, run: &RunRef) -> bool {
    let last = run.first.0.saturating_add(run.pages().saturating_sub(1));
    pages.is_to_move(run.first) || pages.is_to_move(PageId(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::disorder::{ends, store};

    #[test]
    fn a_pass_over_keys_or_records_that_do_not_rise_has_an_end() {
        for stage in [Stage::Values(Vec::new()), Stage::Records(Revision::default())] {
            let mut faults = 0;
            for seed in 0..400 {
                let mut mvcc = store(seed);
                let mut pass = Relocation(stage.clone());
                let is_over = ends(seed, || {
                    let next = mvcc.relocate_step(pass.clone(), 1)?;
                    // each stage for itself
                    let next = next.filter(|Relocation(next)| {
                        std::mem::discriminant(next) == std::mem::discriminant(&stage)
                    });
                    let goes_on = next.is_some();
                    pass = next.unwrap_or_default();
                    Ok(goes_on)
                });
                faults += usize::from(!is_over);
            }
            assert!(faults > 100, "{stage:?}: {faults}");
        }
    }
}
