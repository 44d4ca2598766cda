//! What the pager does with pages that the file has: first touch, spilling, what a checkpoint captured.

use super::test_map::TestMap;
use super::*;
use crate::btree::SLOT_BYTES;
use crate::disk::FileMap as _;
use crate::error::Fault;
use crate::pager::HeldBack;
use crate::pager::page::PAGE_BYTES;
use crate::pager::reader::Source as _;
use crate::pager::root::Root;
use crate::pager::written::FileParts;

fn open(map: &Arc<TestMap>) -> Pager {
    let root = Root { pages_used: 8, pages_end: 8, ..Root::default() };
    Pager::from_file(FileParts { path: "the.pages".into(), map: map.clone(), root, used: Vec::new() })
}

/// A leaf and a run that are in the file, and nowhere else.
fn written(map: &Arc<TestMap>) -> (Pager, ChildRef, page::RunRef) {
    let mut pager = open(map);
    let mut at = make(&mut pager);
    let run = pager.new_run(TREE, &[7; 9000]);
    publish(&mut pager, Some(at));
    for (id, tx, page) in pager.spill_candidates(10) {
        let crc = map.write(id, &page);
        pager.page_written(id, tx, crc);
        if id == at.id {
            at.crc = Some(crc);
        }
    }
    assert_eq!(pager.dirty_bytes(), 0);
    (pager, at, run)
}

#[test]
fn a_page_is_brought_in_and_checked_at_its_first_touch_only() {
    let map = Arc::new(TestMap::new());
    let (mut pager, at, run) = written(&map);
    let reader = pager.reader();
    for _ in 0..3 {
        check(&pager, &at);
        check(&reader.read(), &at);
    }
    assert_eq!(map.populated(), 1);
    for _ in 0..3 {
        assert_eq!(reader.read().run(TREE, &run).expect("whole"), [7; 9000][..]);
    }
    assert_eq!(map.populated(), 1 + 3);
    // written anew, under another id, it is touched for the first time again
    let mut copy = at;
    change(&mut pager, &mut copy);
    assert_eq!(copy.crc, None);
    publish(&mut pager, Some(copy));
    for (id, tx, page) in pager.spill_candidates(10) {
        let crc = map.write(id, &page);
        pager.page_written(id, tx, crc);
    }
    check(&pager, &copy);
    check(&pager, &copy);
    assert_eq!(map.populated(), 5);
}

#[test]
fn at_rest_only_what_a_meta_asks_for_is_kept() {
    let map = Arc::new(TestMap::new());
    let (mut pager, mut root, run) = written(&map);
    let far = PageId(1_000_000);
    pager.places.set(far.0, 0);
    pager.crcs.set(far.0, 7);
    assert!(pager.crcs.bytes() > 100_000 && pager.places.bytes() > 50_000);
    let crc = pager.child_crc(root.id, root.tx);
    assert!(crc.is_some() && pager.child_crc(run.first, run.tx).is_some());
    assert!(pager.rest());
    assert_eq!(pager.child_crc(root.id, root.tx), crc, "the meta of a later root may name it");
    assert_eq!(pager.child_crc(run.first, run.tx), None);
    assert_eq!((pager.crcs.bytes(), pager.places.bytes()), (65_536, 0));
    check(&pager, &root);

    // not while there are changes: open, published, or on their way
    change(&mut pager, &mut root);
    assert!(!pager.rest(), "one is open");
    publish(&mut pager, Some(root));
    assert!(!pager.rest(), "one is in memory");
    check(&pager, &root);
    let on_the_way = pager.spill_candidates(10);
    assert!(!pager.rest());
    for (id, tx, page) in on_the_way {
        let crc = map.write(id, &page);
        pager.page_written(id, tx, crc);
    }
    check(&pager, &root);
    assert!(pager.rest());
    check(&pager.reader().read(), &root);
}

#[test]
fn the_memory_of_an_empty_table_goes_and_comes_again() {
    let map = Arc::new(TestMap::new());
    let (mut pager, ..) = written(&map);
    // pages far apart: each touches memory of the table that no other does
    let mut pages = Vec::new();
    for number in 0..1_000 {
        let id = PageId(1_000_000 + number * 256);
        let mut page = Page::new(PageKind::Leaf, TREE as u8, 0, id, pager.open_tx());
        fill(&mut page, id, pager.open_tx());
        pager.table.install(id, pager.open_tx(), Arc::new(page));
        pages.push(id);
    }
    let tx = pager.open_tx();
    publish(&mut pager, None);
    let reader = pager.reader();
    let in_memory = |pager: &Pager| pages.iter().filter(|id| is_resident(pager.table.address(**id))).count();
    pager.table.rest();
    assert_eq!(in_memory(&pager), pages.len(), "pages are in it");
    for id in &pages {
        assert!(pager.table.clear(*id, tx));
    }
    pager.table.rest();
    // the first and the last system page may hold what is not the table's
    assert!(in_memory(&pager) <= 2, "{} of {}", in_memory(&pager), pages.len());
    for id in &pages {
        assert!(reader.read().memory(*id, tx).is_none());
    }
    let mut again = make(&mut pager);
    change(&mut pager, &mut again);
    publish(&mut pager, Some(again));
    check(&reader.read(), &again);
}

/// Whether there is memory behind an address of this process, as the kernel's table says.
fn is_resident(address: usize) -> bool {
    use std::os::unix::fs::FileExt as _;
    let pagemap = std::fs::File::open("/proc/self/pagemap").expect("it is there");
    let (mut word, number) = ([0; 8], address / rustix::param::page_size());
    pagemap.read_exact_at(&mut word, (number * 8) as u64).expect("an address of this process");
    u64::from_ne_bytes(word) >> 63 == 1
}

/// Makes what is published durable.
fn checkpoint(pager: &mut Pager, map: &TestMap) {
    let mut chosen = pager.choose();
    while let Some(id) = chosen.levels.iter_mut().find_map(crate::pager::dirty::PageSet::pop_first) {
        let page = pager.captured_page(id).expect("not written yet");
        let crc = map.write(id, &page);
        pager.page_written(id, page.tx(), crc);
    }
    pager.chosen_durable();
}

#[test]
fn as_many_pages_are_kept_as_the_last_checkpoint_wrote() {
    let map = Arc::new(TestMap::new());
    let mut pager = open(&map);
    let made: Vec<_> = (0..5_000).map(|_| make(&mut pager)).collect();
    publish(&mut pager, Some(made[0]));
    checkpoint(&mut pager, &map);
    (0..20).for_each(|_| pager.reclaim());
    assert_eq!(pager.table.pool(), 5_000);
    let mut at = made[0];
    change(&mut pager, &mut at);
    publish(&mut pager, Some(at));
    checkpoint(&mut pager, &map);
    let before = pager.table.pool();
    pager.reclaim();
    assert_eq!(before - pager.table.pool(), 64, "a few at a time");
    (0..100).for_each(|_| pager.reclaim());
    assert_eq!(pager.table.pool(), 2_048);
    assert!(pager.rest());
    assert_eq!(pager.table.pool(), 0);
}

#[test]
fn a_page_is_hinted_once_and_only_while_nobody_has_touched_it() {
    let map = Arc::new(TestMap::new());
    let (mut pager, at, run) = written(&map);
    let read = |pager: &Pager| pager.map().expect("a file").read();
    for _ in 0..2 {
        pager.read_ahead(&at);
        pager.reader().read().run_ahead(&run);
    }
    assert_eq!(map.take_hinted(), [(at.id.0, 1), (run.first.0, 3)]);
    assert_eq!((map.populated(), read(&pager)), (0, 4));
    check(&pager, &at);
    assert_eq!(read(&pager), 4, "what was hinted counts once");
    // in memory, or touched already: nothing to bring in
    let mut copy = at;
    change(&mut pager, &mut copy);
    pager.read_ahead(&copy);
    pager.read_ahead(&at);
    assert_eq!(map.take_hinted(), []);
    publish(&mut pager, Some(copy));
    for (id, tx, page) in pager.spill_candidates(10) {
        let crc = map.write(id, &page);
        pager.page_written(id, tx, crc);
    }
    check(&pager, &copy);
    assert_eq!(read(&pager), 5, "touched without a hint");
    pager.read_ahead(&copy);
    assert_eq!(map.take_hinted(), []);
}

#[test]
fn a_hint_for_what_is_not_there_or_damaged_does_nothing_and_the_read_tells() {
    let map = Arc::new(TestMap::new());
    let (pager, at, run) = written(&map);
    let gone = ChildRef { id: PageId(5000), ..at };
    pager.read_ahead(&gone);
    assert!(matches!(*pager.page(TREE, &gone).expect_err("never written"), Fault::Io { .. }));
    pager.run_ahead(&page::RunRef { first: PageId(u32::MAX), ..run });
    map.put(at.id, Box::new([9; PAGE_BYTES]));
    pager.read_ahead(&at);
    for _ in 0..2 {
        assert!(matches!(*pager.page(TREE, &at).expect_err("damaged"), Fault::Corrupt { .. }));
    }
    let in_memory = Pager::in_memory();
    in_memory.read_ahead(&at);
    in_memory.run_ahead(&run);
}

/// What is said of damage in the page of `at`, by whoever touches it first.
fn damage(change: impl Fn(&mut [u8; PAGE_BYTES], &ChildRef)) -> String {
    let map = Arc::new(TestMap::new());
    let (pager, at, _) = written(&map);
    let mut bytes = Box::new([0; PAGE_BYTES]);
    {
        let whole: &[u8; PAGE_BYTES] = crate::disk::FileMap::page(&*map, at.id.0);
        bytes.copy_from_slice(whole);
    }
    change(&mut bytes, &at);
    map.put(at.id, bytes);
    let reader = pager.reader();
    let fault = reader.read().page(TREE, &at).expect_err("damaged");
    assert!(
        matches!(&*fault, Fault::Corrupt { path, offset, .. } if path.ends_with("the.pages") && *offset == at.id.offset())
    );
    // it stays so, for the writer too
    assert!(pager.page(TREE, &at).is_err());
    fault.to_string()
}

#[test]
fn damage_is_a_fault_that_names_file_and_offset() {
    let flipped = damage(|bytes, _| bytes[3000] ^= 4);
    assert!(flipped.contains("as the page says"), "{flipped}");
    let zeroed = damage(|bytes, _| bytes[..512].fill(0));
    assert!(zeroed.contains("a page of a tree"), "{zeroed}");
    // an older page of the same place, whole, is a lost write
    let lost =
        damage(|bytes, at| *bytes = with_crc(Page::new(PageKind::Leaf, TREE as u8, 0, at.id, at.tx - 1)));
    assert!(lost.contains("tx 0"), "{lost}");
    let foreign =
        damage(|bytes, at| *bytes = with_crc(Page::new(PageKind::Leaf, TREE as u8 + 1, 0, at.id, at.tx)));
    assert!(foreign.contains("tree 2"), "{foreign}");
    let misdirected =
        damage(|bytes, at| *bytes = with_crc(Page::new(PageKind::Leaf, TREE as u8, 0, PageId(99), at.tx)));
    assert!(misdirected.contains("id 99"), "{misdirected}");
    let kind = damage(|bytes, at| *bytes = with_crc(Page::new(PageKind::Run, TREE as u8, 0, at.id, at.tx)));
    assert!(kind.contains("Run"), "{kind}");
    // whole, of the same place and time, and yet not what the parent knows
    let other = damage(|bytes, at| *bytes = with_crc(Page::new(PageKind::Leaf, TREE as u8, 0, at.id, at.tx)));
    assert!(other.contains("as its parent says"), "{other}");
}

#[test]
fn a_page_of_an_earlier_life_is_refused_every_time_though_it_says_of_itself_what_is_wanted() {
    let map = Arc::new(TestMap::new());
    let (pager, at, run) = written(&map);
    let reader = pager.reader();
    // writes that got lost: the same place, tree and transaction, other bytes
    for id in [at.id, PageId(run.first.0 + 1)] {
        let mut page = Page(*map.page(id.0));
        page.0[3_000] ^= 1;
        map.write(id, &page);
    }
    let guard = reader.read();
    // a parent that was not written yet knows no CRC
    guard.page(TREE, &ChildRef { crc: None, ..at }).unwrap();
    for _ in 0..3 {
        let fault = guard.page(TREE, &at).unwrap_err().to_string();
        assert!(fault.contains("older or foreign") && fault.contains(&at.id.offset().to_string()), "{fault}");
        let fault = guard.run(TREE, &run).unwrap_err().to_string();
        assert!(fault.contains("a run of 9000 bytes"), "{fault}");
    }
}

fn with_crc(page: Page) -> [u8; PAGE_BYTES] {
    let mut bytes = page.0;
    bytes[..4].copy_from_slice(&page.computed_crc().to_le_bytes());
    bytes
}

#[test]
fn a_page_that_the_medium_does_not_give_is_a_fault() {
    let map = Arc::new(TestMap::new());
    let (pager, at, run) = written(&map);
    let gone = ChildRef { id: PageId(5000), ..at };
    let fault = pager.page(TREE, &gone).expect_err("never written");
    assert!(matches!(&*fault, Fault::Io { offset, .. } if *offset == gone.id.offset()), "{fault}");
    let beyond = page::RunRef { first: PageId(u32::MAX), ..run };
    assert!(matches!(*pager.run(TREE, &beyond).expect_err("no such run"), Fault::Corrupt { .. }));
    let other = page::RunRef { crc: run.crc ^ 1, ..run };
    assert!(pager.run(TREE, &other).expect_err("other bytes").to_string().contains("CRC"));
}

#[test]
fn a_branch_is_spilled_after_its_children_and_its_copy_learns_their_crcs_where_it_is_written() {
    let map = Arc::new(TestMap::new());
    let mut pager = open(&map);
    let leaves = [make(&mut pager), make(&mut pager)];
    let (mut branch, page) = pager.new_page(TREE, PageKind::Branch, 1);
    page.put_u16(12, 2);
    for (slot, leaf) in leaves.iter().enumerate() {
        page.put_u16(32 + SLOT_BYTES * slot, 100 + 30 * slot as u16);
        page.0[100 + 30 * slot..][..24].copy_from_slice(&leaf.encode());
    }
    publish(&mut pager, Some(branch));
    let first = pager.spill_candidates(10);
    assert_eq!(first.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), leaves.map(|leaf| leaf.id));
    assert!(pager.spill_candidates(10).is_empty(), "the leaves are on their way, the branch has to wait");
    let mut crcs = Vec::new();
    for (id, tx, page) in first {
        crcs.push(Some(map.write(id, &page)));
        pager.page_written(id, tx, crcs[crcs.len() - 1].expect("just written"));
    }
    let second = pager.spill_candidates(10);
    assert_eq!(second.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [branch.id]);
    let mut image = pager.page_mut(TREE, &mut branch).expect("in memory").clone();
    let is_known = crate::pager::children::fill_child_crcs(&mut image, |id, tx| pager.child_crc(id, tx));
    let children = crate::pager::children::children(&image);
    assert!(is_known && children.map(|child| child.crc).eq(crcs));
    assert!(!pager.rest(), "it still has to be written");
}

#[test]
fn memory_is_given_back_when_nobody_can_have_it() {
    let map = Arc::new(TestMap::new());
    let mut pager = open(&map);
    let mut at = make(&mut pager);
    publish(&mut pager, Some(at));
    let reader = pager.reader();
    let guard = reader.read();
    let mut chosen = pager.choose();
    assert_eq!(chosen.levels[0].pop_first(), Some(at.id));
    let page = pager.captured_page(at.id).expect("not written yet");
    let memory = Arc::downgrade(&page);
    let crc = map.write(at.id, &page);
    drop((page, chosen));
    pager.page_written(at.id, at.tx, crc);
    pager.reclaim();
    assert!(memory.upgrade().is_some(), "a reader may be looking at it");
    check(&guard, &at);
    drop(guard);
    pager.chosen_durable();
    assert!(memory.upgrade().is_none());
    // the durable root holds its id, and a pin of it nothing else
    let (pinned, old) = (reader.pin_durable(), at);
    for _ in 0..10 {
        change(&mut pager, &mut at);
        publish(&mut pager, Some(at));
    }
    // memory: its root and the next
    assert_eq!(pager.held_back(), HeldBack { ids_for_durable: 1, ids_for_readers: 0, in_memory: 2 });
    assert!(at.id.0 <= 11, "{} for the same few pages", at.id);
    check(&pinned, &old);
}
