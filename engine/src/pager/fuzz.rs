//! What a fuzzer of the page file runs (feature `sim`): bytes are laid over a small file on a simulated disk, and all is
//! done with it that opening, checking and reading do. Nothing panics, every walk ends, and a file that is found whole works:
//! it opens, takes commands, and is whole again after a checkpoint and a power cut.
//!
//! ```text
//! input: which file 1 (odd: none, zeros alone), then pieces, one after the other
//!   +---------+--------+-----------+---------------+
//!   | page  1 | at   2 | length  2 | bytes         |   at and length little-endian
//!   +---------+--------+-----------+---------------+
//! ```
//! Pages with a piece get the right CRC of their own. Built with `cfg(fuzzing)` those that others know of them match too; then
//! a fuzzer gets behind them.

use super::Pages;
use super::meta::{Meta, block_bits, decode_directory};
use super::offline::{LyingFile, lying_file};
use super::page::{HEAD_BYTES, PAGE_BYTES, Page, PageId, PageKind};
use super::places::{DIRECTORY_BLOCKS, META_PAGES};
use super::root::{Root, Standing};
use crate::btree;
use crate::command::{
    AlarmAction, AlarmKind, AlarmRequest, Command, DeleteRangeRequest, Member, PutRequest, RangeRequest,
    Stamped,
};
use crate::disk::sim::SimDisk;
use crate::disk::{Completion, Disk};
use crate::mvcc::check::{Reached, check};
use crate::mvcc::hash::HashScan;
use crate::mvcc::{KeyRange, View};
use crate::store::{Store, StoreOptions};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const PATH: &str = "/fuzz/pages";
const OWNER: [u8; 16] = *b"fuzz, one member";
/// Pages of the file of zeros.
const EMPTY_PAGES: usize = 64;
/// Turns after which a file must be idle.
const TURNS_MAX: usize = 100_000;
/// Versions hashed in one step.
const HASH_STEP: usize = 100;
/// Steps of a hash that no file needs.
const HASH_STEPS_MAX: usize = 10_000;

fn options() -> StoreOptions {
    StoreOptions::new(PathBuf::from(PATH), OWNER)
}

/// The small file: every tree has entries, some have branches, there are runs, both metas were written.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut life = Life::open(SimDisk::new(1)).expect("a new file opens");
        life.apply(sample_commands());
        life.settle();
        life.apply([put(b"key 05", 40, 0), Command::Compact { revision: 60 }, put(b"key 70", 9, 1)]);
        while life.store.compact_step(7).expect("an undamaged file works") {}
        life.apply([put(b"key 06", 2_000, 0), put(b"key 05", 50, 0)]);
        life.settle();
        let mut bytes = life.disk.read_file(Path::new(PATH)).expect("the file is there");
        let pages = life.store.reader().sizes().total_bytes as usize / PAGE_BYTES;
        bytes.truncate((pages + 4) * PAGE_BYTES);
        bytes
    })
}

fn put(key: &[u8], len: usize, lease: i64) -> Command {
    let put =
        PutRequest { key: key.to_vec().into(), value: vec![7; len].into(), lease, ..PutRequest::default() };
    Command::Put(put)
}

fn sample_commands() -> Vec<Command> {
    let member = Member { id: 1, name: "m".repeat(30), ..Member::default() };
    let alarm = AlarmRequest { action: AlarmAction::Activate, member_id: 1, alarm: AlarmKind::NoSpace };
    let cleared = AlarmRequest { action: AlarmAction::Deactivate, ..alarm };
    let mut commands = vec![
        Command::Bootstrap { cluster_id: 9, members: vec![member] },
        Command::LeaseGrant { id: 1, ttl: 100 },
        Command::LeaseGrant { id: -2, ttl: 5 },
        Command::Alarm(alarm),
        Command::Alarm(cleared),
    ];
    for number in 0..80_usize {
        let mut key = format!("key {:02}", number * 7 % 60).into_bytes();
        if number % 20 == 9 {
            key.resize(520 + number, b'k');
        }
        let len = if number % 25 == 3 { 1_500 + number * 60 } else { number * 5 };
        commands.push(put(&key, len, i64::from(number % 11 == 0)));
    }
    let range = KeyRange::new(&b"key 30"[..], &b"key 34"[..]);
    commands.push(Command::DeleteRange(DeleteRangeRequest { range, prev_kv: false }));
    commands
}

/// A store that is open on a disk.
struct Life {
    disk: SimDisk,
    store: Store,
}

impl Life {
    fn open(mut disk: SimDisk) -> Result<Life, String> {
        let now = disk.now();
        match Store::open(&mut disk, options(), now) {
            Ok((store, _)) => Ok(Life { disk, store }),
            Err(fault) => Err(fault.to_string()),
        }
    }

    fn apply(&mut self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            let index = self.store.applied() + 1;
            let term = self.store.reader().position().applied_term.max(1);
            let mut tx = self.store.begin();
            tx.apply(index, term, &Stamped { clock_ms: 0, command }).expect("a whole file works");
            tx.publish();
        }
    }

    /// A checkpoint, and until nothing is left to do.
    fn settle(&mut self) {
        self.store.request_checkpoint();
        for _ in 0..TURNS_MAX {
            let now = self.disk.now();
            let next = self.store.step(&mut self.disk, now, 0).expect("an undamaged disk works");
            let at = if next.at_once { Some(now) } else { next.at };
            let Some(at) = [self.disk.next_due(), at].into_iter().flatten().min() else { return };
            self.disk.set_now(at);
            let mut completions: Vec<Completion> = Vec::new();
            self.disk.poll(&mut completions);
            for completion in completions {
                let stranger = self.store.complete(completion, self.disk.now());
                assert!(stranger.is_none(), "all operations are the page file's");
            }
        }
        panic!("the page file never falls idle");
    }
}

/// Lays the pieces of `input` over a file; which pages have any.
fn file_of(input: &[u8]) -> (Vec<u8>, BTreeSet<usize>) {
    let (which, mut rest) = input.split_first().unwrap_or((&0, &[]));
    let mut file = if which % 2 == 0 { sample().to_vec() } else { vec![0; EMPTY_PAGES * PAGE_BYTES] };
    let mut changed = BTreeSet::new();
    while let [page, at_low, at_high, low, high, more @ ..] = rest {
        let page = usize::from(*page) % (file.len() / PAGE_BYTES);
        let at = usize::from(u16::from_le_bytes([*at_low, *at_high])) % PAGE_BYTES;
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len()).min(PAGE_BYTES - at);
        let (piece, behind) = more.split_at(len);
        file[page * PAGE_BYTES + at..][..len].copy_from_slice(piece);
        changed.insert(page);
        rest = behind;
    }
    for page in &changed {
        let bytes = &mut file[page * PAGE_BYTES..][..PAGE_BYTES];
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
    }
    (file, changed)
}

/// Inputs to start from: the file as it is, its first bytes and its pages' heads written as they are, metas alone.
pub fn seeds() -> Vec<Vec<u8>> {
    let piece = |page: usize, at: usize, len: usize| {
        let bytes = &sample()[page * PAGE_BYTES + at..][..len];
        let (at, len) = ((at as u16).to_le_bytes(), (len as u16).to_le_bytes());
        [&[page as u8][..], &at, &len, bytes].concat()
    };
    let pages = (sample().len() / PAGE_BYTES).min(256);
    let mut seeds = vec![vec![0], vec![1]];
    // a page of each kind and tree, whole
    let mut seen = BTreeSet::new();
    for page in 0..pages {
        let head = &sample()[page * PAGE_BYTES..][..HEAD_BYTES];
        if seen.insert([head[4], head[5], head[6]]) {
            seeds.push([vec![0], piece(page, 0, PAGE_BYTES)].concat());
        } else {
            seeds.push([vec![0], piece(page, 4, 60), piece(page, PAGE_BYTES - 40, 40)].concat());
        }
    }
    let metas: Vec<u8> = (0..META_PAGES as usize).flat_map(|page| piece(page, 0, 400)).collect();
    seeds.push([vec![1], metas].concat());
    seeds
}

/// Uses the file that `input` stands for. Gives where its state stands, if it is whole.
///
/// # Panics
/// The fuzzer's find.
pub fn run(input: &[u8]) -> Option<Standing> {
    let (file, changed) = file_of(input);
    for page in changed {
        let mut bytes = [0; PAGE_BYTES];
        bytes.copy_from_slice(&file[page * PAGE_BYTES..][..PAGE_BYTES]);
        decode(&Page(bytes));
    }
    let disk = SimDisk::new(1);
    disk.set_latency(1, 3);
    disk.write_file(Path::new(PATH), file);
    let lying = match lying_file(&mut disk.clone(), Path::new(PATH), Some(OWNER)) {
        Ok(lying) => lying,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            assert!(Life::open(disk).is_err(), "opening and checking agree");
            return None;
        }
    };
    let LyingFile { mut stored, pages, .. } = lying;
    if let Ok(cluster) = View::of(&pages, &stored.root).stored_cluster() {
        stored.root.cluster = Arc::new(cluster.unwrap_or_default());
    }
    read(&pages, &stored.root);
    let whole = is_whole(&pages, &stored.root, &stored.used);
    if !whole {
        return None;
    }
    live(disk);
    Some(stored.root.standing)
}

/// Everything that reads one page alone.
fn decode(page: &Page) {
    for place in (0..META_PAGES).map(PageId) {
        if let Ok(meta) = Meta::decode(page, place) {
            let again = Meta::decode(&meta.encode(place), place).expect("what was read can be written");
            assert_eq!(format!("{again:?}"), format!("{meta:?}"), "a meta has one meaning");
        }
    }
    for count in [0, 1, DIRECTORY_BLOCKS] {
        if let Ok(blocks) = decode_directory(page, 0, count) {
            assert_eq!(blocks.len(), count as usize);
        }
    }
    assert!(block_bits(page).len() < PAGE_BYTES);
    assert!(super::children::children(page).count() < PAGE_BYTES);
    let right = btree::validate(page);
    let tree_kind = matches!(page.kind(), Some(PageKind::Branch | PageKind::Leaf));
    assert!(right.is_err() || tree_kind, "only a tree's page is one");
}

fn everything() -> KeyRange {
    KeyRange::new(&b"\0"[..], &b"\0"[..])
}

/// All that can be read of a state; what comes of it does not matter, but it comes.
fn read(pages: &impl Pages, root: &Root) {
    let view = View::of(pages, root);
    let _ = view.state();
    let Standing { revision, compacted, .. } = root.standing;
    for at in [0, revision, revision.saturating_sub(3), compacted, compacted.saturating_add(2)] {
        let request =
            RangeRequest { range: everything(), revision: at, limit: 50, ..RangeRequest::default() };
        let _ = view.range(&request, true);
        let one = RangeRequest { range: KeyRange::single(&b"key 05"[..]), ..request };
        let _ = view.range(&one, true);
        let _ = view.history(&everything(), at, 20);
        hash(&view, at);
    }
    let _ = view.expired_leases(u64::MAX, 10);
    let _ = view.next_lease_deadline_ms();
    let _ = view.leases();
}

fn hash(view: &View<'_, impl Pages>, at: i64) {
    let Ok(mut scan) = HashScan::begin(view, at) else { return };
    for _ in 0..HASH_STEPS_MAX {
        match scan.step(view, HASH_STEP) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
    }
    panic!("a hash ends");
}

/// Whether every rule holds, and the pages in use are those that are reached.
fn is_whole(pages: &impl Pages, root: &Root, used: &[u64]) -> bool {
    let reached: Reached = match check(&View::of(pages, root)) {
        Ok(Ok(reached)) => reached,
        Ok(Err(broken)) => {
            assert!(!broken.is_empty());
            return false;
        }
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return false;
        }
    };
    let is_used =
        |page: PageId| used.get(page.0 as usize / 64).is_some_and(|word| word >> (page.0 % 64) & 1 == 1);
    let count: u64 = used.iter().map(|word| u64::from(word.count_ones())).sum();
    let fixed = super::fixed_pages_below(root.pages_end);
    reached.pages().all(is_used) && reached.count() == count && root.pages_used == count + fixed
}

/// A whole file works.
fn live(disk: SimDisk) {
    let mut life = Life::open(disk).expect("what is whole opens");
    life.apply([put(b"key 11", 30, 0), put(b"key 12", 3_000, 0), put(b"key 11", 30, 0)]);
    for _ in 0..100 {
        life.store.compact_step(20).expect("a whole file works");
    }
    assert_eq!(life.store.reader().check(), Ok(()), "a whole file stays whole");
    let state = life.store.reader().state().expect("a whole file is read");
    life.settle();
    let disk = life.disk.clone();
    drop(life);
    disk.power_cut();
    let life = Life::open(disk).expect("what was made durable opens");
    assert!(
        life.store.reader().state().expect("a whole file is read") == state,
        "what was made durable is there"
    );
    assert_eq!(life.store.reader().check(), Ok(()), "a whole file stays whole");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::rng::Rng;
    use crate::pager::page::TreeId;

    #[test]
    fn the_sample_has_every_kind_of_page() {
        let pages =
            sample().chunks(PAGE_BYTES).map(|bytes| (bytes[4], bytes[5], bytes[6])).collect::<BTreeSet<_>>();
        assert!(sample().len() / PAGE_BYTES < 200, "{} pages", sample().len() / PAGE_BYTES);
        for tree in TreeId::ALL {
            assert!(pages.contains(&(PageKind::Leaf as u8, tree as u8, 0)), "{tree:?}");
        }
        for tree in [TreeId::Keys, TreeId::Revisions] {
            assert!(pages.contains(&(PageKind::Branch as u8, tree as u8, 1)), "{tree:?}");
        }
        for kind in [PageKind::Meta, PageKind::Directory, PageKind::Bitmap, PageKind::Run] {
            assert!(pages.iter().any(|(found, ..)| *found == kind as u8), "{kind:?}");
        }
    }

    #[test]
    fn seeds_are_read_and_undamaged_files_are_whole() {
        assert!(run(&[]).is_some());
        assert!(run(&[1]).is_none());
        let seeds = seeds();
        let whole = seeds.iter().filter(|seed| run(seed).is_some()).count();
        assert_eq!(whole, seeds.len() - 2, "all but those of a file of zeros");
    }

    #[test]
    fn mutated_seeds_never_panic() {
        let rounds = if std::env::var_os("COFFER_LONG").is_some() { 100_000 } else { 1_500 };
        let seeds = seeds();
        let mut rng = Rng::new(5);
        for _ in 0..rounds {
            let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
            if rng.once_in(3) {
                input.extend_from_slice(&seeds[rng.below(seeds.len() as u64) as usize][1..]);
            }
            for _ in 0..rng.between(1, 5) {
                let place = rng.below(input.len() as u64) as usize;
                match rng.below(3) {
                    0 => input[place] ^= 1 << rng.below(8),
                    1 => input[place] = rng.next_u64() as u8,
                    _ => input[place] = 0xff,
                }
            }
            run(&input);
        }
    }
}
