//! Images: taken while the store goes on, looked at, made into page files; damage on either side; the check.

use bytes::Bytes;
use coffer_engine::check::{Damages, check_page_file, check_reached};
use coffer_engine::command::*;
use coffer_engine::disk::pwrite::PwriteDisk;
use coffer_engine::disk::{Completion, Disk};
use coffer_engine::error::{Fault, Refusal};
use coffer_engine::mvcc::hash::HashScan;
use coffer_engine::mvcc::view::View;
use coffer_engine::mvcc::{Mvcc, REVISION_MAX};
use coffer_engine::pager::page::PAGE_BYTES;
use coffer_engine::pager::{Pager, PagerOptions, Pages};
use coffer_engine::snapshot::{Image, SnapshotReader};
use coffer_engine::store::HashKv;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const OWNER: [u8; 16] = *b"an owner of this";
const OTHER: [u8; 16] = *b"and another one.";

/// A store over a real page file.
struct Rig {
    disk: PwriteDisk,
    mvcc: Mvcc<Pager>,
    index: u64,
    now: u64,
}

impl Rig {
    fn open(path: &Path, owner: [u8; 16]) -> Result<Rig, Fault> {
        let mut disk = PwriteDisk::open(None).expect("an eventfd");
        let (pager, _) = Pager::open(&mut disk, PagerOptions::new(path.to_path_buf(), owner), 0)?;
        let mvcc = Mvcc::open(pager).map_err(|fault| *fault)?;
        let index = mvcc.position().applied;
        Ok(Rig { disk, mvcc, index, now: 0 })
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let stamped = Stamped { clock_ms: self.index, command };
        self.mvcc.apply(self.index, 3, &stamped).expect("no fault").outcome.expect("it is not refused");
    }

    fn put(&mut self, key: &str, value: impl Into<Bytes>) {
        let put = PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.into(),
            ..Default::default()
        };
        self.apply(Command::Put(put));
    }

    fn publish(&mut self) {
        self.mvcc.take_events();
        self.mvcc.publish();
    }

    /// Makes what is published durable.
    fn checkpoint(&mut self) {
        self.publish();
        let wanted = self.mvcc.pages().published().tx;
        self.mvcc.pages_mut().request_checkpoint();
        let mut completions: Vec<Completion> = Vec::new();
        while self.mvcc.pages().durable().tx < wanted {
            self.now += 1_000;
            let next = self.mvcc.pages_mut().step(&mut self.disk, self.now, 0).expect("no fault");
            if !next.at_once {
                self.disk.wait(Some(1_000));
            }
            self.disk.poll(&mut completions);
            for completion in completions.drain(..) {
                assert!(self.mvcc.pages_mut().complete(completion, self.now).is_none());
            }
        }
    }

    /// Enough for branches, runs of values and of long keys, tombstones, leases, history, a compaction half done.
    fn fill(&mut self) {
        self.apply(Command::Bootstrap {
            cluster_id: 77,
            members: vec![Member { id: 5, name: "one".into(), ..Member::default() }],
        });
        self.apply(Command::LeaseGrant { id: 9, ttl: 60 });
        for round in 0..3 {
            for number in 0..400 {
                self.put(&format!("key{number:05}"), format!("value {number} of {round}").repeat(4));
            }
            self.put("large", vec![round; 20_000]);
            self.put(&"long".repeat(400), "a long key's");
            self.publish();
        }
        let leased = PutRequest { key: "leased".into(), lease: 9, ..PutRequest::default() };
        self.apply(Command::Put(leased));
        let range = coffer_engine::mvcc::KeyRange::new("key00100", "key00120");
        self.apply(Command::DeleteRange(DeleteRangeRequest { range, prev_kv: false }));
        self.apply(Command::Compact { revision: 600 });
        self.mvcc.compact_step(50).expect("no fault");
        self.checkpoint();
    }

    fn image(&self) -> Result<Vec<u8>, Fault> {
        let mut reader = SnapshotReader::begin(&self.mvcc.pages().reader(), "3.7.0")?;
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            reader.read(&mut bytes, 3 * PAGE_BYTES).map_err(|fault| *fault)?;
            if bytes.len() == before {
                assert_eq!(bytes.len() as u64, reader.image_bytes());
                return Ok(bytes);
            }
        }
    }
}

fn hash<P: Pages>(view: &View<'_, P>) -> HashKv {
    let mut scan = HashScan::begin(view, 0).expect("the current revision is visible");
    loop {
        if let Some(hash) = scan.step(view, 1000).expect("no fault") {
            return hash;
        }
    }
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pages");
    (directory, path)
}

fn open_image(path: &Path) -> Result<Image, Fault> {
    Image::open(&mut PwriteDisk::open(None).expect("an eventfd"), path)
}

/// All that makes sure that an image is whole, whatever its checksum says.
fn judge(path: &Path) -> Result<HashKv, String> {
    let image = open_image(path).map_err(|fault| fault.to_string())?;
    let broken = check_reached(&image, image.root(), image.pages()).map_err(|fault| fault.to_string())?;
    if let Some((_, text)) = broken.into_iter().next() {
        return Err(text);
    }
    image.check_pages(&mut |_, _| {}).map_err(|fault| fault.to_string())?;
    Ok(hash(&View::of(&image, image.root())))
}

#[test]
fn an_image_is_the_store_it_was_taken_of_and_becomes_a_page_file_of_another_owner() {
    let (directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    let state = rig.mvcc.view().state().unwrap();
    let expected = hash(&rig.mvcc.view());
    let bytes = rig.image().unwrap();
    assert_eq!(bytes.len() % 512, 0);

    let at = directory.path().join("image");
    std::fs::write(&at, &bytes).unwrap();
    let image = open_image(&at).unwrap();
    assert_eq!((image.head().label.as_str(), image.head().owner), ("3.7.0", OWNER));
    assert!(!image.has_checksum());
    assert_eq!(View::of(&image, image.root()).state().unwrap(), state);
    assert_eq!(judge(&at), Ok(expected));

    let restored = directory.path().join("restored");
    let mut told = (0, 0);
    image.write_page_file(&restored, OTHER, &mut |done, of| told = (done, of)).unwrap();
    assert_eq!(told, (image.head().pages * PAGE_BYTES as u64, image.head().pages * PAGE_BYTES as u64));
    assert!(matches!(Rig::open(&restored, OWNER), Err(Fault::Unusable { .. })));
    assert!(image.write_page_file(&restored, OTHER, &mut |_, _| {}).is_err(), "it is there already");
    let mut again = Rig::open(&restored, OTHER).unwrap();
    assert_eq!(again.mvcc.view().state().unwrap(), state);
    // it goes on as any other
    again.put("more", "of it");
    again.checkpoint();
    drop(again);
    let again = Rig::open(&restored, OTHER).unwrap();
    assert_eq!(again.mvcc.position().revision, state.revision + 1);
    let mut damages = Damages::default();
    let mut disk = PwriteDisk::open(None).unwrap();
    let report = check_page_file(&mut disk, &restored, Some(OTHER), &mut damages, &mut |_, _| {}).unwrap();
    assert_eq!((damages.list, report.store_checked, report.metas_damaged), (vec![], true, vec![]));
}

#[test]
fn an_empty_store_has_an_image_too() {
    let (directory, path) = temporary();
    let rig = Rig::open(&path, OWNER).unwrap();
    let at = directory.path().join("image");
    std::fs::write(&at, rig.image().unwrap()).unwrap();
    let image = open_image(&at).unwrap();
    assert_eq!(image.head().pages, 0);
    let restored = directory.path().join("restored");
    image.write_page_file(&restored, OTHER, &mut |_, _| {}).unwrap();
    let mut again = Rig::open(&restored, OTHER).unwrap();
    again.fill();
    assert_eq!(again.mvcc.position().revision, 1 + 3 * 402 + 2);
}

#[test]
fn a_store_in_memory_has_none() {
    let mvcc = Mvcc::open(Pager::in_memory()).unwrap();
    let refused = SnapshotReader::begin(&mvcc.pages().reader(), "").err().expect("it is refused");
    assert!(matches!(refused, Fault::Unusable { .. }), "{refused}");
}

#[test]
fn what_is_written_meanwhile_is_not_in_the_image_and_does_not_disturb_it() {
    let (directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    let state = rig.mvcc.view().state().unwrap();
    let mut reader = SnapshotReader::begin(&rig.mvcc.pages().reader(), "").unwrap();
    let mut bytes = Vec::new();
    for round in 0.. {
        let before = bytes.len();
        reader.read(&mut bytes, PAGE_BYTES).unwrap();
        if bytes.len() == before {
            break;
        }
        // every page of the old root is freed by one of these, and many checkpoints go by
        if round < 40 {
            for number in 0..400 {
                rig.put(&format!("key{number:05}"), format!("new {round}"));
            }
            rig.put("large", vec![9; 30_000]);
            rig.mvcc.compact_step(500).unwrap();
            rig.checkpoint();
        }
    }
    assert!(reader.growth_bytes() > 0);
    drop(reader);
    let at = directory.path().join("image");
    std::fs::write(&at, &bytes).unwrap();
    let image = open_image(&at).unwrap();
    assert_eq!(View::of(&image, image.root()).state().unwrap(), state);
    judge(&at).unwrap();
}

#[test]
fn no_flipped_bit_in_an_image_stays_unseen() {
    let (directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    let bytes = rig.image().unwrap();
    let at = directory.path().join("image");
    std::fs::write(&at, &bytes).unwrap();
    judge(&at).unwrap();
    let file = OpenOptions::new().write(true).open(&at).unwrap();
    let step = if std::env::var_os("COFFER_LONG").is_some() { 1 } else { 997 };
    for bit in (0..bytes.len() * 8).step_by(step) {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        file.write_all_at(&[bytes[byte] ^ mask], byte as u64).unwrap();
        assert!(judge(&at).is_err(), "bit {bit}");
        file.write_all_at(&bytes[byte..=byte], byte as u64).unwrap();
    }
    // cut short, and too long
    for bytes_left in [0, 100, 4096, bytes.len() - 4096, bytes.len() - 1] {
        std::fs::write(&at, &bytes[..bytes_left]).unwrap();
        assert!(judge(&at).is_err(), "{bytes_left} bytes");
    }
    let mut longer = File::create(&at).unwrap();
    longer.write_all(&bytes).unwrap();
    longer.write_all(&[0; 4096]).unwrap();
    assert!(judge(&at).is_err());
}

#[test]
fn a_damaged_page_ends_an_image_and_the_check_names_it() {
    let (_directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    let bytes = rig.image().unwrap();
    let blocks = bytes.len() / PAGE_BYTES;
    let id = u32::from_le_bytes(bytes[(blocks - 3) * PAGE_BYTES + 8..][..4].try_into().unwrap());
    let offset = u64::from(id) * PAGE_BYTES as u64;
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset + 1000).unwrap();
    match rig.image() {
        Err(Fault::Corrupt { offset: found, .. }) => assert_eq!(found, offset),
        other => panic!("{:?}", other.map(|image| image.len())),
    }
    drop(rig);
    let mut damages = Damages::default();
    let mut disk = PwriteDisk::open(None).unwrap();
    let report = check_page_file(&mut disk, &path, Some(OWNER), &mut damages, &mut |_, _| {}).unwrap();
    assert!(!report.store_checked);
    assert!(damages.list.iter().all(|damage| damage.offset == Some(offset)), "{damages:?}");
    assert!(!damages.list.is_empty());
    file.write_all_at(&byte, offset + 1000).unwrap();
    let mut damages = Damages::default();
    check_page_file(&mut disk, &path, None, &mut damages, &mut |_, _| {}).unwrap();
    assert_eq!(damages.list, []);
}

#[test]
fn no_flipped_bit_in_a_page_file_stays_unseen_by_the_check_where_it_matters() {
    let (_directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    rig.put("one", "more checkpoint, so that both metas are written");
    rig.checkpoint();
    let state = rig.mvcc.view().state().unwrap();
    let image = rig.image().unwrap();
    drop(rig);
    let used: Vec<u64> = image
        .chunks_exact(PAGE_BYTES)
        .filter(|block| matches!(block[4], 4..=6))
        .map(|block| u64::from(u32::from_le_bytes(block[8..12].try_into().unwrap())))
        .collect();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut disk = PwriteDisk::open(None).unwrap();
    let mut judge = || {
        let mut damages = Damages::default();
        let report = check_page_file(&mut disk, &path, Some(OWNER), &mut damages, &mut |_, _| {}).unwrap();
        (damages.count, report.metas_damaged.len(), report.root)
    };
    let (damages, notes, root) = judge();
    assert_eq!((damages, notes), (0, 0));
    let root = root.unwrap();
    let pages = root.pages_end * PAGE_BYTES as u64;
    let step = if std::env::var_os("COFFER_LONG").is_some() { 97 } else { 7_919 };
    let (mut found, mut harmless) = (0, 0);
    for bit in (0..pages * 8).step_by(step) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
        let (damages, notes, now) = judge();
        file.write_all_at(&byte, bit / 8).unwrap();
        if used.contains(&(bit / 8 / PAGE_BYTES as u64)) {
            assert!(damages > 0, "bit {bit} of a used page");
        }
        match damages + notes as u64 {
            0 => {
                let now = now.expect("it could be read");
                assert_eq!(
                    (now.tx, now.trees, now.standing),
                    (root.tx, root.trees, root.standing),
                    "bit {bit}"
                );
                harmless += 1;
            }
            _ => found += 1,
        }
    }
    assert!(found > 100 && harmless > 0, "{found} found, {harmless} harmless");
    assert_eq!(Rig::open(&path, OWNER).unwrap().mvcc.view().state().unwrap(), state);
}

#[test]
fn an_older_page_in_a_newer_ones_place_is_found() {
    let (_directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    let before = std::fs::read(&path).unwrap();
    // ids are reused, so some page stands now where another, whole in itself, stood
    for round in 0..20 {
        for number in 0..400 {
            rig.put(&format!("key{number:05}"), format!("{round}"));
        }
        rig.checkpoint();
    }
    let image = rig.image().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut put_back = 0;
    for block in image.chunks_exact(PAGE_BYTES).skip(1) {
        let id = u32::from_le_bytes(block[8..12].try_into().unwrap()) as usize;
        let Some(old) = before.get(id * PAGE_BYTES..(id + 1) * PAGE_BYTES) else { continue };
        let kind_and_id = |page: &[u8]| (page[4], page[8..12].to_vec());
        // leaves and branches, as they were in the same place
        if block[4] == 6 || kind_and_id(old) != kind_and_id(block) || old == block || old[4] == 3 {
            continue;
        }
        put_back += 1;
        file.write_all_at(old, (id * PAGE_BYTES) as u64).unwrap();
        let told = rig.image().expect_err("it is found").to_string();
        assert!(told.contains("older or foreign page"), "{told}");
        file.write_all_at(block, (id * PAGE_BYTES) as u64).unwrap();
        if put_back == 5 {
            break;
        }
    }
    assert!(put_back > 0, "no place was used twice by pages of one kind");
    rig.image().expect("all is as it was");
}

#[test]
fn a_state_that_begins_anew_keeps_its_keys_and_forgets_its_cluster() {
    let (directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.fill();
    let alarm = AlarmRequest { action: AlarmAction::Activate, member_id: 5, alarm: AlarmKind::NoSpace };
    rig.apply(Command::Alarm(alarm));
    rig.checkpoint();
    let before = rig.mvcc.view().state().unwrap();
    let hashed = hash(&rig.mvcc.view());
    let at = directory.path().join("image");
    std::fs::write(&at, rig.image().unwrap()).unwrap();
    let image = open_image(&at).unwrap();
    for bump in [None, Some(1_000)] {
        let restored = directory.path().join(format!("restored{}", bump.unwrap_or(0)));
        image.write_page_file(&restored, OTHER, &mut |_, _| {}).unwrap();
        let mut anew = Rig::open(&restored, OTHER).unwrap();
        anew.mvcc.begin_anew(bump).unwrap().unwrap();
        anew.checkpoint();
        let mut anew = Rig::open(&restored, OTHER).unwrap();
        let state = anew.mvcc.view().state().unwrap();
        assert_eq!((state.applied, state.applied_term, state.cluster_id), (0, 0, 0));
        assert!(state.members.is_empty() && state.alarms.is_empty() && state.conf.voters.is_empty());
        assert_eq!((state.clock_ms, &state.leases), (before.clock_ms, &before.leases));
        let (revision, compacted) = (state.revision, state.compacted);
        match bump {
            None => {
                assert_eq!((revision, compacted), (before.revision, before.compacted));
                assert_eq!(state.versions, before.versions);
                assert_eq!(hash(&anew.mvcc.view()), hashed);
            }
            Some(by) => assert_eq!((revision, compacted), (before.revision + by, before.revision + by)),
        }
        // another cluster begins: the first entry again
        anew.apply(Command::Bootstrap {
            cluster_id: 78,
            members: vec![Member { id: 6, ..Member::default() }],
        });
        anew.put("first", "of the new ones");
        while anew.mvcc.compact_step(1_000).unwrap() {}
        anew.checkpoint();
        let state = anew.mvcc.view().state().unwrap();
        assert_eq!((state.applied, state.revision, state.conf.voters), (2, revision + 1, vec![6]));
        let live = |state: &[coffer_engine::model::keys::Version]| {
            state.iter().filter(|each| !each.tombstone).count()
        };
        assert!(live(&state.versions) > 380);
        drop(anew);
        let mut damages = Damages::default();
        let mut disk = PwriteDisk::open(None).unwrap();
        let report =
            check_page_file(&mut disk, &restored, Some(OTHER), &mut damages, &mut |_, _| {}).unwrap();
        assert_eq!((damages.list, report.store_checked), (vec![], true));
    }
}

#[test]
fn revisions_that_there_cannot_be_are_refused() {
    let (_directory, path) = temporary();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.put("k", "v");
    let revision = rig.mvcc.view().state().unwrap().revision;
    // 2^62 is the last one that a meta may tell, and none could follow
    for by in [i64::MAX, (1 << 62) - revision, REVISION_MAX - revision + 1] {
        assert_eq!(rig.mvcc.begin_anew(Some(by)).unwrap(), Err(Refusal::FutureRevision), "{by}");
    }
    rig.mvcc.begin_anew(Some(REVISION_MAX - revision)).unwrap().unwrap();
    rig.checkpoint();
    let mut rig = Rig::open(&path, OWNER).unwrap();
    rig.put("k", "goes on");
    rig.checkpoint();
    let again = Rig::open(&path, OWNER).unwrap();
    assert_eq!(again.mvcc.view().state().unwrap().revision, REVISION_MAX + 1);
}
