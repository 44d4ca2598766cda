//! Checks every rule of the store against all that is there (see the head of [`super`]).

use super::cell::{
    Body, Entry, Grave, KEY_IN_RECORD_MAX, Record, RecordKey, deadline_key, lease_key, read_lease_key,
    read_lease_value, revision_key,
};
use super::lease::attachment_key;
use super::revision::Revision;
use super::spine::{Spine, skips_to};
use super::versions::{everything, survives};
use super::view::{Newest, View};
use super::write::is_record_gone;
use crate::btree;
use crate::error::Fault;
use crate::pager::page::{PageId, RunRef, TreeId};
use crate::pager::{Paged, Pages};

/// The places of all pages that a state reaches.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    bits: Vec<u64>,
    count: u64,
    twice: Option<PageId>,
}

impl Reached {
    fn page(&mut self, page: PageId) {
        let (word, bit) = (page.0 as usize / 64, 1 << (page.0 % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            self.twice.get_or_insert(page);
        }
        self.bits[word] |= bit;
        self.count += 1;
    }

    fn run(&mut self, run: &RunRef) {
        (0..run.pages()).for_each(|page| self.page(PageId(run.first.0.saturating_add(page))));
    }

    /// How many they are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// They, in order.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        let places = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| PageId(word as u32 * 64 + bit))
        };
        self.bits.iter().enumerate().flat_map(places)
    }
}

/// Checks a whole state; the pages it reaches, each once, to be compared with those in use.
///
/// # Errors
/// Outside: something could not be read. Inside: the first rule found broken, in words.
pub fn check<P: Pages>(view: &View<'_, P>) -> Paged<Result<Reached, String>> {
    let mut checker = Checker { view: *view, reached: Reached::default(), records: 0 };
    match checker.all() {
        Ok(()) => Ok(Ok(checker.reached)),
        Err(Broken::Rule(rule)) => Ok(Err(rule)),
        Err(Broken::Fault(fault)) => Err(fault),
    }
}

enum Broken {
    Rule(String),
    Fault(Box<Fault>),
}

impl From<Box<Fault>> for Broken {
    fn from(fault: Box<Fault>) -> Broken {
        Broken::Fault(fault)
    }
}

type Checked = Result<(), Broken>;

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Broken::Rule(rule())) }
}

struct Checker<'p, P> {
    view: View<'p, P>,
    reached: Reached,
    /// Records that the keys led to.
    records: u64,
}

/// A version, wherever it was found.
#[derive(Clone, Copy)]
struct Found {
    tombstone: bool,
    version: i64,
    create_revision: i64,
}

impl<'p, P: Pages> Checker<'p, P> {
    fn all(&mut self) -> Checked {
        self.trees()?;
        self.keys()?;
        self.graves()?;
        let records = btree::total(self.view.tree(TreeId::Revisions));
        ensure(records == self.records, || {
            format!("{records} records, and keys lead to {} of them", self.records)
        })?;
        self.revisions_complete()?;
        self.positions()?;
        self.leases()?;
        self.cluster()?;
        match self.reached.twice {
            Some(page) => Err(Broken::Rule(format!("page {page} is reached twice"))),
            None => Ok(()),
        }
    }

    fn trees(&mut self) -> Checked {
        let Checker { view, reached, .. } = self;
        for tree in TreeId::ALL {
            let checked = btree::check(view.pages, tree, view.tree(tree), &mut |page| reached.page(page))?;
            checked.map_err(|broken| Broken::Rule(format!("tree {tree:?}: {broken}")))?;
        }
        Ok(())
    }

    fn keys(&mut self) -> Checked {
        let mut cursor = self.view.cursor(TreeId::Keys);
        while let Some((key, value)) = cursor.next()? {
            let entry = self.view.read(TreeId::Keys, Entry::read(value))?;
            let in_words = || format!("key {:?}", String::from_utf8_lossy(&key));
            self.live(&key, &entry).map_err(|broken| within(broken, in_words))?;
        }
        Ok(())
    }

    fn graves(&mut self) -> Checked {
        let mut cursor = self.view.cursor(TreeId::Deleted);
        while let Some((key, value)) = cursor.next()? {
            let grave = self.view.read(TreeId::Deleted, Grave::read(value))?;
            let in_words = || format!("deleted key {:?}", String::from_utf8_lossy(&key));
            self.dead(&key, &grave).map_err(|broken| within(broken, in_words))?;
        }
        Ok(())
    }

    fn live(&mut self, key: &[u8], entry: &Entry<'p>) -> Checked {
        self.reach_value(&entry.body)?;
        let record = self.view.record(entry.revision)?;
        let gone = is_record_gone(self.view.standing, entry.revision);
        ensure(gone == record.is_none(), || {
            let standing = self.view.standing;
            format!("the record of {:?} is there: {}; {standing:?}", entry.revision, record.is_some())
        })?;
        let Some(record) = record else {
            let fields = self.view.read(TreeId::Keys, entry.body.fields())?;
            return ensure(fields.version >= 1 && fields.create_revision <= fields.mod_revision, || {
                format!("{fields:?}")
            });
        };
        let same = record.body.bytes == entry.body.bytes && record.body.run == entry.body.run;
        ensure(same && !record.tombstone, || format!("entry {entry:?} has another record, {record:?}"))?;
        ensure(record.previous.is_some() == entry.has_previous, || format!("{entry:?} and {record:?}"))?;
        self.chain(key, record, entry.spine())
    }

    fn dead(&mut self, key: &[u8], grave: &Grave<'p>) -> Checked {
        ensure(self.view.entry(key)?.is_none(), || "is live too".to_owned())?;
        let Some(record) = self.view.record(grave.revision)? else {
            return Err(Broken::Rule(format!("no record of {:?}", grave.revision)));
        };
        ensure(record.tombstone, || format!("{record:?} is no tombstone"))?;
        self.chain(key, record, grave.spine())
    }

    /// All records of a key, from its newest on; the value of a live one was reached already.
    fn chain(&mut self, key: &[u8], newest: Record<'p>, spine: Spine<'p>) -> Checked {
        let mut record = newest;
        let mut chain = vec![record.revision];
        let mut skips = vec![record.skip];
        let mut hidden = false;
        loop {
            self.records += 1;
            self.record(key, &record, record.revision == newest.revision)?;
            self.hiding(&record, &mut hidden)?;
            let before = match record.previous {
                Some(previous) => self.view.record(previous)?,
                None => None,
            };
            self.follows(&record, before.as_ref())?;
            chain.extend(record.previous);
            let Some(before) = before else { break };
            record = before;
            skips.push(record.skip);
        }
        self.pointers(&spine, &chain, &skips)
    }

    fn record(&mut self, key: &[u8], record: &Record<'p>, is_newest: bool) -> Checked {
        ensure(*self.view.record_key(record)? == *key, || format!("{record:?} is of another key"))?;
        ensure(matches!(record.key, RecordKey::Run(_)) == (key.len() > KEY_IN_RECORD_MAX), || {
            format!("a key of {} bytes in {record:?}", key.len())
        })?;
        if let RecordKey::Run(run) = &record.key {
            self.reached.run(run);
        }
        if let Some(body) = &record.previous_body {
            self.reach_value(body)?;
        }
        if record.tombstone {
            let nothing = record.body.bytes.is_empty() && record.body.run.is_none();
            return ensure(nothing, || format!("{record:?} has a value"));
        }
        if !is_newest {
            self.reach_value(&record.body)?;
        }
        let fields = self.view.read(TreeId::Revisions, record.body.fields())?;
        ensure(fields.mod_revision == record.revision.main, || format!("{record:?} says {fields:?}"))
    }

    fn reach_value(&mut self, body: &Body<'p>) -> Checked {
        if let Some(run) = &body.run {
            self.reached.run(run);
            self.view.value(body)?;
        }
        Ok(())
    }

    /// Once the walk of compaction is done no record is left that is not visible.
    fn hiding(&self, record: &Record<'p>, hidden: &mut bool) -> Checked {
        let standing = self.view.standing;
        if record.revision.main > standing.compacted {
            return Ok(());
        }
        let visible = !*hidden && survives(standing.compacted, record.revision, record.tombstone);
        *hidden = true;
        ensure(visible || standing.compaction_done < standing.compacted, || {
            format!("compaction to {} is done and left {record:?}", standing.compacted)
        })
    }

    /// What a version may follow.
    fn follows(&self, record: &Record<'p>, before: Option<&Record<'p>>) -> Checked {
        let compacted = self.view.standing.compacted;
        let version = self.found((!record.tombstone).then_some(&record.body))?;
        let inline = match (&record.previous_body, record.previous) {
            (Some(body), Some(previous)) => {
                ensure(before.is_none() && previous.main < compacted, || {
                    format!("{record:?} has the body of a version whose record is there")
                })?;
                Some(self.found(Some(body))?)
            }
            (Some(_), None) => return Err(Broken::Rule(format!("{record:?} has the body of no version"))),
            (None, _) => None,
        };
        let before = match before {
            Some(before) => Some(self.found((!before.tombstone).then_some(&before.body))?),
            None => inline,
        };
        let begins = version.version == 1 && version.create_revision == record.revision.main;
        // the versions before the oldest one kept are gone
        let may_be_cut = before.is_none() && record.previous.is_some() && record.revision.main <= compacted;
        let is_right = match before {
            Some(before) if before.tombstone => begins,
            Some(_) if version.tombstone => true,
            Some(before) => {
                version.version == before.version + 1 && version.create_revision == before.create_revision
            }
            None => may_be_cut || begins,
        };
        ensure(is_right, || format!("{record:?} does not follow what is before it"))
    }

    fn found(&self, body: Option<&Body<'p>>) -> Result<Found, Broken> {
        let fields = match body {
            Some(body) => self.view.read(TreeId::Revisions, body.fields())?,
            None => Default::default(),
        };
        let (version, create_revision) = (fields.version, fields.create_revision);
        Ok(Found { tombstone: body.is_none(), version, create_revision })
    }

    /// Skip pointers and the spine, as far as the numbers of the chain's versions are known.
    fn pointers(&self, spine: &Spine<'p>, chain: &[Revision], skips: &[Option<Revision>]) -> Checked {
        let of_number = |number: u64| {
            let behind = usize::try_from(spine.number - number).ok()?;
            chain.get(behind).copied()
        };
        let mut number = spine.number;
        for head in self.view.read(TreeId::Keys, spine.heads())? {
            ensure(number > 0, || format!("{spine:?} has too many heads"))?;
            let expected = of_number(number);
            ensure(expected.is_none_or(|expected| expected == head), || {
                format!("a head of {spine:?} is {head:?}, version {number} is {expected:?}")
            })?;
            number = skips_to(number);
        }
        ensure(number == 0, || format!("{spine:?} has too few heads"))?;
        for (behind, skip) in skips.iter().enumerate() {
            let Some(number) = spine.number.checked_sub(behind as u64).filter(|number| *number > 0) else {
                break;
            };
            let (target, skip) = (skips_to(number), *skip);
            let expected = if target == 0 { None } else { of_number(target).or(skip) };
            ensure(skip == expected && skip.is_some() == (target > 0), || {
                format!("version {number} skips to {skip:?} instead of {expected:?}")
            })?;
        }
        Ok(())
    }

    /// Above the compaction revision no record is missing: mains without a gap, subs from 0.
    fn revisions_complete(&self) -> Checked {
        let first = self.view.standing.compacted.max(1) + 1;
        let mut expected = Revision { main: first, sub: 0 };
        let mut records = self.view.cursor(TreeId::Revisions);
        records.seek(&revision_key(expected))?;
        while let Some((key, value)) = records.next()? {
            let revision = self.view.read(TreeId::Revisions, Record::read(&key, value))?.revision;
            let begins_next = revision == Revision { main: expected.main + 1, sub: 0 } && expected.sub > 0;
            ensure(revision == expected || begins_next, || {
                format!("record {revision:?} where {expected:?} is due")
            })?;
            expected = Revision { sub: revision.sub + 1, ..revision };
        }
        let last = if expected.sub > 0 { expected.main } else { first - 1 };
        let current = self.view.standing.revision;
        ensure(last == current.max(first - 1), || {
            format!("last record is of revision {last}, the current revision is {current}")
        })
    }

    fn positions(&self) -> Checked {
        let standing = self.view.standing;
        let ordered = -1 <= standing.compaction_done
            && standing.compaction_done <= standing.compacted
            && standing.compacted <= standing.revision;
        ensure(ordered, || format!("{standing:?}"))
    }

    fn leases(&self) -> Checked {
        let view = &self.view;
        let mut cursor = view.cursor(TreeId::Leases);
        while let Some((key, value)) = cursor.next()? {
            let id = view.read(TreeId::Leases, read_lease_key(&key))?;
            let (_, deadline_ms) = view.read(TreeId::Leases, read_lease_value(value))?;
            let deadline = view.get(TreeId::Deadlines, &deadline_key(deadline_ms, id))?;
            ensure(deadline.is_some(), || format!("lease {id} is missing among the deadlines"))?;
        }
        let totals = [TreeId::Leases, TreeId::Deadlines].map(|tree| btree::total(view.tree(tree)));
        ensure(totals[0] == totals[1], || format!("{} leases, {} deadlines", totals[0], totals[1]))?;
        self.attachments()
    }

    fn attachments(&self) -> Checked {
        let view = &self.view;
        let mut attached = 0;
        let range = everything();
        let mut keys = view.walk(&range, false)?;
        let mut attachment = Vec::new();
        while let Some((key, newest)) = keys.next()? {
            let Newest::Live(entry) = newest else { continue };
            let lease = view.read(TreeId::Keys, entry.body.fields())?.lease;
            if lease == 0 {
                continue;
            }
            attached += 1;
            attachment_key(lease, &key, &mut attachment);
            let named = view.get(TreeId::LeaseKeys, &attachment)?.is_some();
            let there = view.get(TreeId::Leases, &lease_key(lease))?.is_some();
            ensure(named && there, || {
                format!("key {key:?} names lease {lease}, which does not name it, or is not there")
            })?;
        }
        let named = btree::total(view.tree(TreeId::LeaseKeys));
        ensure(named == attached, || format!("leases name {named} keys, {attached} keys name a lease"))
    }

    fn cluster(&mut self) -> Checked {
        let stored = self.view.stored_cluster()?.unwrap_or_default();
        if let Some(run) = self.view.cluster_run()? {
            self.reached.run(&run);
        }
        ensure(stored == **self.view.cluster, || format!("{stored:?} is stored of {:?}", self.view.cluster))
    }
}

fn within(broken: Broken, what: impl FnOnce() -> String) -> Broken {
    match broken {
        Broken::Rule(rule) => Broken::Rule(format!("{}: {rule}", what())),
        fault => fault,
    }
}
