//! Damage to the page file below the store: bits flipped, sectors zeroed, pages swapped, older ones put back.
//!
//! A damaged file is opened and everything in it is read; or it is opened, written to and made durable, read, opened and read
//! again. *Refused*: opening, a read or a write says so, naming file and offset; so does the log, by the checkpoint it names,
//! where all that is left is an older meta. *Harmless*: every answer is that of the whole file; where the damaged page is in
//! use, for something that no answer needs any more, the check of the file names it. *Silent*: any other answer; there must
//! be none.

use crate::store_rig::{
    Act, History, Life, Maker, PATH, Point, Watched, check_file, everything, fill_key, options, put,
    try_check_file, used_pages, value,
};
use coffer_engine::check::{Damages, PageFileReport, WalReport, check_tie};
use coffer_engine::command::*;
use coffer_engine::disk::sim::SimDisk;
use coffer_engine::disk::sim::rng::Rng;
use coffer_engine::error::{Fault, ReadError, Refusal};
use coffer_engine::model::state::State;
use coffer_engine::mvcc::KeyRange;
use coffer_engine::pager::page::{PAGE_BYTES, Page, PageId, PageKind, TreeId};
use coffer_engine::pager::root::Root;
use coffer_engine::store::{HashKv, LeaseInfo, StoreOpened, StoreReader};
use coffer_engine::watch::HistoryPage;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Metas, directory and bitmap block, each at two places.
const FIXED: u32 = 8;
const PAGE: u64 = PAGE_BYTES as u64;
const SECTORS: u64 = PAGE / 512;
/// Of so many flips one is tried with writes too.
const WRITTEN_ONE_IN: u64 = 128;
/// Of so many flips one is read after the first fault too; or, where only opening reads the page, read after it at all.
const READ_ONE_IN: u64 = 32;

fn long() -> bool {
    std::env::var_os("COFFER_LONG").is_some()
}

fn quiet(points: Vec<Point>, _: u64, _: u64) {
    assert!(points.is_empty(), "nobody asked for copies");
}

fn open(disk: &SimDisk) -> Result<Life, Fault> {
    Life::open(Watched::new(disk.clone(), 0), &options(1 << 20), &mut quiet)
}

/// What a read answers.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Range(RangeReply),
    History(HistoryPage),
    Hash(HashKv),
    Lease(Option<LeaseInfo>),
    Leases(Vec<LeaseInfo>),
    State(Box<State>),
    Refused(Refusal),
}

/// The begin of it, in words.
fn short(answer: &Answer) -> String {
    let mut text = format!("{answer:?}");
    text.truncate(300);
    text
}

fn answer(read: Result<Answer, ReadError>) -> Result<Answer, Fault> {
    match read {
        Ok(answer) => Ok(answer),
        Err(ReadError::Refused(refusal)) => Ok(Answer::Refused(refusal)),
        Err(ReadError::Fault(fault)) => Err(*fault),
    }
}

/// Reads one key.
fn ask_key(reader: &StoreReader, key: &[u8]) -> Result<Answer, Fault> {
    let range = KeyRange::single(key.to_vec());
    answer(reader.range(&RangeRequest { range, ..RangeRequest::default() }).map(Answer::Range))
}

/// Reads everything in many ways; each answer is told. Stops when `tell` says so, after the keys one by one.
fn ask(reader: &StoreReader, keys: &[Vec<u8>], tell: &mut dyn FnMut(Result<Answer, Fault>) -> bool) {
    // values and keys that stand in runs are read once here and again below
    if !keys.iter().all(|key| tell(ask_key(reader, key))) {
        return;
    }
    let position = reader.position();
    let (lowest, current) = (position.compacted.max(1), position.revision);
    for revision in [lowest, (lowest + current) / 2, 0] {
        let request = RangeRequest { range: everything(), revision, ..RangeRequest::default() };
        tell(answer(reader.range(&request).map(Answer::Range)));
    }
    tell(answer(reader.history(&everything(), lowest, usize::MAX).map(Answer::History)));
    tell(answer(reader.hash_kv(0).map(Answer::Hash)));
    tell(reader.lease(1, true).map(Answer::Lease).map_err(|fault| *fault));
    tell(reader.leases().map(Answer::Leases).map_err(|fault| *fault));
    tell(reader.state().map(|state| Answer::State(Box::new(state))).map_err(|fault| *fault));
}

fn answers(reader: &StoreReader, keys: &[Vec<u8>]) -> Vec<Answer> {
    let mut answers = Vec::new();
    ask(reader, keys, &mut |answer| {
        answers.push(answer.expect("a whole file is read"));
        true
    });
    answers
}

/// A file that is whole, and what is known of it.
struct Whole {
    disk: SimDisk,
    opened: StoreOpened,
    root: Root,
    keys: Vec<Vec<u8>>,
    answers: Vec<Answer>,
    /// What is written later, and what is answered then.
    more: History,
    answers_after: Vec<Answer>,
    /// Its bytes, and what they were at earlier checkpoints.
    bytes: Vec<u8>,
    older: Vec<Vec<u8>>,
    used: Vec<PageId>,
}

/// The history of the file; `salt` makes other values of the last batch. With what is written later, if `more`.
fn history(salt: u64, more: bool) -> History {
    let mut maker = Maker::new(5);
    let long_key = |number: u64| [&fill_key(number)[..], &[b'k'; 470]].concat().into();
    maker.mixed(16);
    maker.fill(0..90, 200, 10, 1);
    maker.act(Act::Settle);
    let puts = (0..24).map(|number| Command::Put(put(long_key(number), value(number, 30))));
    maker.batch(puts.collect());
    maker.fill(30..50, 300, 10, 1);
    maker.thin(0..20, 3, 1);
    maker.act(Act::Settle);
    maker.mixed(6);
    maker.compact(40, 1_000, 3);
    maker.batch(vec![Command::LeaseGrant { id: 1, ttl: 60 }, Command::LeaseGrant { id: 2, ttl: 70 }]);
    let attached = |number: u64| PutRequest { lease: 1, ..put(fill_key(number), value(number, 40)) };
    maker.batch((60..64).map(|number| Command::Put(attached(number))).collect());
    maker.act(Act::Settle);
    // one file is killed within a checkpoint of this, and written again with other values
    let last = |number: u64| Command::Put(put(fill_key(number), value(number + salt, 5_000)));
    maker.batch((70..74).map(last).collect());
    maker.act(Act::Settle);
    if more {
        let delete = DeleteRangeRequest { range: KeyRange::single(fill_key(45)), prev_kv: true };
        let mut commands = vec![Command::DeleteRange(delete)];
        commands
            .extend([3, 40, 64, 89].map(|number| Command::Put(put(fill_key(number), value(number, 500)))));
        commands.push(Command::Put(put(fill_key(72), value(72, 9_000))));
        maker.batch(commands);
        maker.act(Act::Settle);
    }
    maker.done()
}

/// The file at each checkpoint, the last one left out; and as a crash leaves it whose pages are durable, and whose meta
/// was not begun.
fn lives() -> (SimDisk, Vec<Vec<u8>>) {
    let path = Path::new(PATH);
    let (mut older, mut synced) = (Vec::new(), None);
    let disk = SimDisk::new(5);
    let mut life = Life::open(Watched::new(disk, 1), &options(1 << 20), &mut |_, _, _| {}).expect("it opens");
    let first = history(1_000, false);
    let run = life.run(&first, &mut |points, _, _| {
        for point in points {
            match point.kind {
                "metas written" => older.push(point.disk.read_file(path).expect("it is there")),
                "syncs" => synced = Some(point.disk),
                _ => {}
            }
        }
    });
    run.expect("nothing stops it");
    // events come twice, when begun and when done; the newest would be no older one
    let crashed = synced.expect("there were syncs");
    older.dedup();
    older.pop();
    crashed.power_cut();
    older.push(crashed.read_file(path).expect("it is there"));
    (crashed, older)
}

impl Whole {
    fn new() -> Whole {
        let path = Path::new(PATH);
        let (disk, older) = lives();
        // the next life writes the same places in the same transaction
        let mut life = open(&disk).expect("it opens");
        let last = history(2_000, false);
        assert!(life.opened.applied + 4 <= last.len(), "the last batch is to come: {:?}", life.opened);
        life.run(&last, &mut quiet).expect("nothing stops it");
        drop(life);
        disk.power_cut();
        let life = open(&disk.fork(1)).expect("it is whole");
        assert_eq!((life.opened.applied, life.opened.metas_damaged.len()), (last.len(), 0));
        check_file(&disk.fork(1), "the whole file");
        last.compare(&life.store.reader(), "the whole file");
        let state = life.store.reader().state().expect("it is read");
        let mut keys: Vec<Vec<u8>> = state.versions.iter().map(|version| version.kv.key.to_vec()).collect();
        keys.sort();
        keys.dedup();
        let answers_here = answers(&life.store.reader(), &keys);
        let more = history(2_000, true);
        let mut after = open(&disk.fork(2)).expect("it is whole");
        after.run(&more, &mut quiet).expect("nothing stops it");
        more.compare(&after.store.reader(), "written");
        let answers_after = answers(&after.store.reader(), &keys);
        let bytes = disk.read_file(path).expect("it is there");
        let used = used_pages(&disk.fork(3));
        Whole {
            opened: life.opened.clone(),
            root: life.store.reader().pin_published().root().clone(),
            disk,
            keys,
            answers: answers_here,
            more,
            answers_after,
            bytes,
            older,
            used,
        }
    }

    fn page(&self, id: PageId) -> Page {
        page_of(&self.bytes, id)
    }

    /// The pages that are a leaf, a branch, a run, of a tree.
    fn of(&self, tree: TreeId, kind: PageKind) -> Vec<PageId> {
        let fits = |id: &PageId| {
            let page = self.page(*id);
            page.kind() == Some(kind) && page.tree() == tree as u8
        };
        self.used.iter().copied().filter(fits).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Harmless,
    /// Harmless, and the check of the file names it.
    Checked,
    Silent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    tried: u64,
    refused: u64,
    harmless: u64,
    /// Of those: named by the check of the file.
    checked: u64,
    silent: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.tried += other.tried;
        self.refused += other.refused;
        self.harmless += other.harmless;
        self.checked += other.checked;
        self.silent += other.silent;
    }

    fn count(&mut self, outcome: Outcome, context: impl FnOnce() -> String) {
        self.tried += 1;
        match outcome {
            Outcome::Refused => self.refused += 1,
            Outcome::Harmless => self.harmless += 1,
            Outcome::Checked => {
                self.harmless += 1;
                self.checked += 1;
            }
            Outcome::Silent => {
                self.silent += 1;
                println!("silent: {}", context());
            }
        }
    }
}

/// One file that is damaged, looked at.
struct Look<'w> {
    whole: &'w Whole,
    /// Where every fault must be, if that is known.
    page: Option<PageId>,
    /// One fault is enough.
    brief: bool,
    refused: bool,
    silent: bool,
    checked: bool,
}

impl Look<'_> {
    fn outcome(&self) -> Outcome {
        match self {
            Look { silent: true, .. } => Outcome::Silent,
            Look { refused: true, .. } => Outcome::Refused,
            Look { checked: true, .. } => Outcome::Checked,
            _ => Outcome::Harmless,
        }
    }

    /// A fault names the file, and where in it.
    fn fault(&mut self, fault: &Fault) {
        self.refused = true;
        let (Fault::Corrupt { path, offset, .. } | Fault::Io { path, offset, .. }) = fault else {
            panic!("{fault}");
        };
        assert_eq!(path, Path::new(PATH), "{fault}");
        if let Some(page) = self.page {
            assert_eq!(*offset, page.offset(), "{fault}");
        }
    }

    /// Opens the file; what the log says of it, which names the checkpoint `named` (transaction, entry), counts too.
    fn open(&mut self, disk: &SimDisk, named: (u64, u64), last: u64) -> Option<Life> {
        let life = match open(disk) {
            Ok(life) => life,
            Err(fault) => {
                self.fault(&fault);
                return None;
            }
        };
        let root = Some(life.store.reader().pin_published().root().clone());
        let (file, mut damages) = (PageFileReport { root, ..PageFileReport::default() }, Damages::default());
        let entries = Some((1, last));
        let wal = WalReport { entries, checkpoint: named, ..WalReport::default() };
        check_tie(Path::new(PATH), Some(&file), &wal, &mut damages);
        self.refused |= damages.count > 0;
        (damages.count == 0).then_some(life)
    }

    /// Reads everything; `expected` is what a whole file answers.
    fn read(&mut self, reader: &StoreReader, expected: &[Answer]) {
        let (mut expected, whole) = (expected.iter(), self.whole);
        ask(reader, &whole.keys, &mut |answer| {
            let expected = expected.next();
            match answer {
                Ok(answer) => {
                    let wrong = Some(&answer) != expected;
                    if wrong && !self.silent {
                        println!("answered: {}", short(&answer));
                    }
                    self.silent |= wrong;
                }
                Err(fault) => self.fault(&fault),
            }
            !(self.brief && self.refused)
        });
        self.silent |= expected.next().is_some() && !(self.brief && self.refused);
    }

    /// Writes, untouched as the file is, and makes it durable; reads; the power goes; opens and reads again.
    fn write(&mut self, disk: &SimDisk) {
        let (whole, last) = (self.whole, self.whole.more.len());
        let mut named = (whole.opened.tx, whole.opened.applied);
        let Some(mut life) = self.open(disk, named, last) else { return };
        match life.run(&whole.more, &mut quiet) {
            Ok(()) => {
                assert_eq!(life.store.durable().applied, last);
                self.read(&life.store.reader(), &whole.answers_after);
            }
            Err(fault) => self.fault(&fault),
        }
        named = named.max((life.store.durable().tx, life.store.durable().applied));
        drop(life);
        disk.power_cut();
        let Some(life) = self.open(disk, named, last) else { return };
        if life.opened.applied == last {
            self.read(&life.store.reader(), &whole.answers_after);
        } else {
            self.silent |= life.opened.applied != whole.opened.applied;
            self.read(&life.store.reader(), &whole.answers);
        }
        self.check(disk);
    }

    /// What looks whole is checked; with damage in a page that is in use it is not.
    fn check(&mut self, disk: &SimDisk) {
        if self.outcome() != Outcome::Harmless {
            return;
        }
        let checked = try_check_file(disk);
        self.checked = checked.is_err();
        if let (Some(page), Err(broken)) = (self.page, &checked) {
            assert!(broken.contains(&format!("offset {}", page.offset())), "page {page}: {broken}");
        }
    }
}

impl Whole {
    fn look(&self, page: Option<PageId>) -> Look<'_> {
        Look { whole: self, page, brief: false, refused: false, silent: false, checked: false }
    }

    /// Reads everything from a damaged file.
    fn read(&self, disk: &SimDisk, page: Option<PageId>, brief: bool) -> Outcome {
        let mut look = Look { brief, ..self.look(page) };
        let named = (self.opened.tx, self.opened.applied);
        if let Some(life) = look.open(&disk.fork(0), named, self.opened.applied) {
            look.read(&life.store.reader(), &self.answers);
            if page.is_some_and(|page| self.used.binary_search(&page).is_ok()) {
                look.check(&disk.fork(0));
                assert_ne!(
                    look.outcome(),
                    Outcome::Harmless,
                    "page {page:?} is in use, and nobody minds its damage"
                );
            }
        }
        look.outcome()
    }

    /// Opens a file damaged where only opening looks: what it finds must be the root.
    fn opens(&self, disk: &SimDisk, page: PageId) -> Outcome {
        let mut look = self.look(Some(page));
        let named = (self.opened.tx, self.opened.applied);
        if let Some(life) = look.open(&disk.fork(0), named, self.opened.applied) {
            let pinned = life.store.reader().pin_published();
            let root = pinned.root();
            let same = life.opened.checkpoint == self.opened.checkpoint
                && (root.trees, &root.standing, root.pages_used)
                    == (self.root.trees, &self.root.standing, self.root.pages_used);
            look.silent |= !same;
        }
        look.outcome()
    }

    /// Writes to a damaged file, and reads everything.
    fn write(&self, disk: &SimDisk, page: Option<PageId>) -> Outcome {
        let mut look = self.look(page);
        look.write(&disk.fork(0));
        look.outcome()
    }

    /// Both.
    fn both(&self, disk: &SimDisk) -> Outcome {
        match (self.read(disk, None, false), self.write(disk, None)) {
            (Outcome::Silent, _) | (_, Outcome::Silent) => Outcome::Silent,
            // what was not touched by writing is left for whoever reads
            (outcome, _) => outcome,
        }
    }

    /// The file with other bytes.
    fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        let disk = self.disk.fork(0);
        disk.write_file(Path::new(PATH), bytes);
        disk
    }

    /// Every bit that is to be flipped in a page.
    fn bits(&self, id: PageId) -> impl Iterator<Item = u64> + use<> {
        let is_used = self.used.binary_search(&id).is_ok();
        let step = match (is_used, id.0 < FIXED) {
            (true, _) if long() => 1,
            (true, _) => 32,
            (_, true) if long() => 1,
            (_, true) => 8,
            // nobody reads it
            _ => 4_096,
        };
        (u64::from(id.0) % step..PAGE * 8).step_by(step as usize)
    }
}

fn page_of(bytes: &[u8], id: PageId) -> Page {
    let mut page = Page([0; PAGE_BYTES]);
    page.0.copy_from_slice(&bytes[id.offset() as usize..][..PAGE_BYTES]);
    page
}

/// Flips every bit of some pages, one after the other; counts, those in used pages for themselves.
fn flip_all(whole: &Whole, pages: &[PageId]) -> (Counts, Counts) {
    let (mut fixed, mut used) = (Counts::default(), Counts::default());
    let path = Path::new(PATH);
    let disk = whole.disk.fork(u64::from(pages[0].0));
    for id in pages {
        let is_used = whole.used.binary_search(id).is_ok();
        let counts = if is_used { &mut used } else { &mut fixed };
        for (turn, bit) in whole.bits(*id).enumerate() {
            let (byte, in_byte) = (id.offset() + bit / 8, (bit % 8) as u8);
            disk.flip_bit(path, byte, in_byte);
            let context = || format!("bit {in_byte} of byte {byte}, page {id}");
            let turn = turn as u64 + u64::from(id.0);
            let read_all = turn.is_multiple_of(READ_ONE_IN);
            let outcome = match is_used || read_all {
                true => whole.read(&disk, Some(*id), !read_all),
                false => whole.opens(&disk, *id),
            };
            counts.count(outcome, context);
            if turn.is_multiple_of(WRITTEN_ONE_IN) {
                counts.count(whole.write(&disk, Some(*id)), || context() + ", written");
            }
            disk.flip_bit(path, byte, in_byte);
        }
    }
    (fixed, used)
}

#[test]
fn no_flipped_bit_gives_a_wrong_answer() {
    let whole = Whole::new();
    let kinds = [PageKind::Leaf, PageKind::Branch, PageKind::Run];
    let shapes: Vec<_> =
        [TreeId::Keys, TreeId::Revisions].map(|tree| kinds.map(|kind| whole.of(tree, kind).len())).to_vec();
    println!(
        "{} pages in use; leaves, branches, run pages of keys and of revisions: {shapes:?}",
        whole.used.len()
    );
    assert!(whole.used.len() >= 64 && shapes.iter().flatten().take(5).all(|count| *count > 0));
    let end = (whole.bytes.len() / PAGE_BYTES) as u32;
    let (one, other): (Vec<_>, Vec<_>) = (0..end).map(PageId).partition(|id| id.0.is_multiple_of(2));
    let ((mut fixed, mut used), more) = std::thread::scope(|scope| {
        let other = scope.spawn(|| flip_all(&whole, &other));
        (flip_all(&whole, &one), other.join().expect("the other half passes"))
    });
    fixed.add(more.0);
    used.add(more.1);
    println!("flips in used pages {used:?}, in metas, bitmap, directory and free pages {fixed:?}");
    assert_eq!((used.silent, fixed.silent), (0, 0));
    // metas have copies, directory and block an older version, which nobody reads
    assert!(fixed.refused >= 2 * PAGE * 8 / 8 && fixed.harmless > fixed.refused, "{fixed:?}");
    assert!(used.refused > used.tried / 10 * 9, "nearly all is found by reading all: {used:?}");
}

#[test]
fn no_zeroed_sector_gives_a_wrong_answer() {
    let whole = Whole::new();
    let (path, mut counts) = (Path::new(PATH), Counts::default());
    for id in (0..FIXED).map(PageId).chain(whole.used.iter().copied()) {
        for sector in 0..SECTORS {
            let disk = whole.disk.fork(sector);
            disk.zero_sector(path, id.offset() + sector * 512);
            counts.count(whole.both(&disk), || format!("sector {sector} of page {id}"));
        }
    }
    println!("zeroed sectors {counts:?}");
    assert_eq!(counts.silent, 0);
    assert!(counts.refused > counts.harmless);
}

#[test]
fn no_swapped_pages_give_a_wrong_answer() {
    let whole = Whole::new();
    let end = whole.used.last().map_or(FIXED, |last| last.0 + 1);
    let mut pairs: Vec<(u32, u32)> = (1..end).map(|id| (id - 1, id)).collect();
    let mut rng = Rng::new(77);
    let random = if long() { 4_000 } else { 100 };
    pairs.extend((0..random).map(|_| (rng.below(end.into()) as u32, rng.below(end.into()) as u32)));
    let mut counts = Counts::default();
    for (one, other) in pairs {
        let disk = whole.with(|bytes| {
            let (low, high) = (one.min(other) as usize * PAGE_BYTES, one.max(other) as usize * PAGE_BYTES);
            if low < high {
                let (before, behind) = bytes.split_at_mut(high);
                before[low..low + PAGE_BYTES].swap_with_slice(&mut behind[..PAGE_BYTES]);
            }
        });
        counts.count(whole.both(&disk), || format!("pages {one} and {other} swapped"));
    }
    println!("swapped pages {counts:?}");
    assert_eq!(counts.silent, 0);
    assert!(counts.refused > counts.tried / 2);
}

#[test]
fn nothing_old_put_back_gives_a_wrong_answer() {
    let whole = Whole::new();
    let (mut counts, mut same_name) = (Counts::default(), BTreeMap::new());
    let mut put_back = |places: &[u32], older: &[u8], what: &str| {
        let range = |place: u32| place as usize * PAGE_BYTES..(place as usize + 1) * PAGE_BYTES;
        let differs =
            |place: &u32| older.get(range(*place)).is_some_and(|old| *old != whole.bytes[range(*place)]);
        if !places.iter().any(differs) {
            return None;
        }
        let disk = whole.with(|bytes| {
            for place in places {
                bytes[range(*place)].copy_from_slice(&older[range(*place)]);
            }
        });
        let outcome = whole.both(&disk);
        counts.count(outcome, || format!("{what} {places:?}"));
        Some(outcome)
    };
    // the last of them is what a crash left
    let skipped = if long() { 0 } else { whole.older.len() - 3 };
    for older in &whole.older[skipped..] {
        for id in &whole.used {
            if put_back(&[id.0], older, "page").is_some() {
                let (old, new) = (page_of(older, *id), whole.page(*id));
                // one that says of itself what the one in its place does: only a parent tells them apart
                if (old.id(), old.tx(), old.tree(), old.kind())
                    == (new.id(), new.tx(), new.tree(), new.kind())
                {
                    *same_name.entry(format!("{:?}", new.kind())).or_insert(0) += 1;
                }
            }
        }
        for places in [&[0][..], &[1], &[2], &[3], &[0, 1], &[2, 3], &[0, 1, 2, 3]] {
            put_back(places, older, "meta");
        }
        for places in [&[4][..], &[5], &[4, 5], &[6], &[7], &[6, 7], &[4, 5, 6, 7]] {
            put_back(places, older, "directory, bitmap");
        }
        // the log tells an older file, however whole it is
        let all: Vec<u32> = (0..(older.len().min(whole.bytes.len()) / PAGE_BYTES) as u32).collect();
        assert_eq!(put_back(&all, older, "all of it"), Some(Outcome::Refused));
    }
    // the older one of two places, written over the other
    for place in 0..FIXED {
        let other = if place < 4 { place ^ 2 } else { place ^ 1 };
        let mut moved = whole.bytes.clone();
        moved.copy_within(
            other as usize * PAGE_BYTES..(other as usize + 1) * PAGE_BYTES,
            place as usize * PAGE_BYTES,
        );
        put_back(&[place], &moved, "the other's bytes in place");
    }
    println!(
        "old pages, blocks and metas put back {counts:?}; of the same id and transaction: {same_name:?}"
    );
    assert_eq!(counts.silent, 0);
    assert!(counts.refused > counts.harmless, "{counts:?}");
    assert!(["Some(Leaf)", "Some(Run)"].iter().all(|kind| same_name.contains_key(*kind)), "{same_name:?}");
}

#[test]
fn a_bad_page_fails_only_what_touches_it() {
    let whole = Whole::new();
    // which keys cannot be read with one page damaged
    let failing = |id: PageId| {
        let disk = whole.disk.fork(id.0.into());
        disk.flip_bit(Path::new(PATH), id.offset() + 2_000, 3);
        let life = open(&disk).expect("opening touches no page of a tree but the roots of small ones");
        let reader = life.store.reader();
        let mut failing = BTreeSet::new();
        for (place, key) in whole.keys.iter().enumerate() {
            match ask_key(&reader, key) {
                Ok(answer) => assert_eq!(answer, whole.answers[place], "page {id}"),
                Err(_) => drop(failing.insert(place)),
            }
        }
        failing
    };
    let all: BTreeSet<usize> = (0..whole.keys.len()).collect();
    let mut reached = BTreeMap::new();
    for id in whole.of(TreeId::Keys, PageKind::Leaf) {
        let keys = failing(id);
        assert!(!keys.is_empty() && keys.len() < all.len() / 4, "page {id}: {keys:?}");
        keys.into_iter().for_each(|place| *reached.entry(place).or_insert(0) += 1);
    }
    let live = |place: &usize| matches!(&whole.answers[*place], Answer::Range(reply) if reply.count == 1);
    let once = all.iter().filter(|place| live(place)).all(|place| reached.get(place) == Some(&1));
    assert!(once, "a live key is in one leaf: {reached:?}");
    for id in
        whole.of(TreeId::Keys, PageKind::Run).into_iter().chain(whole.of(TreeId::Revisions, PageKind::Run))
    {
        assert!(failing(id).len() <= 1, "a run is one key's");
    }
    for id in whole.of(TreeId::Revisions, PageKind::Leaf) {
        assert_eq!(failing(id).len(), 0, "the newest values are not read through their history");
    }
    println!("damaged leaves: each key fails with one of {}", whole.of(TreeId::Keys, PageKind::Leaf).len());
}
