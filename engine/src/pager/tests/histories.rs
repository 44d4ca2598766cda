//! Random histories, beside an oracle that knows for every root which pages it reaches.

use super::test_map::TestMap;
use super::*;
use crate::pager::HeldBack;
use crate::pager::dirty::PageSet;
use crate::pager::page::RunRef;
use crate::pager::reader::{PagerReader, Pinned};
use crate::pager::root::Root;
use crate::pager::space::BITMAP_BYTES;
use crate::pager::written::FileParts;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a root reaches.
#[derive(Clone, Debug, Default)]
struct View {
    tx: u64,
    pages: BTreeMap<PageId, ChildRef>,
    runs: Vec<RunRef>,
}

impl View {
    fn ids(&self) -> BTreeSet<PageId> {
        let runs = self.runs.iter().flat_map(run_ids);
        self.pages.keys().copied().chain(runs).collect()
    }

    fn check(&self, pages: &impl Pages) {
        self.pages.values().for_each(|at| check(pages, at));
        for run in &self.runs {
            let bytes = pages.run(TREE, run).expect("it can be read");
            assert_eq!(bytes, run_bytes(run.tx, run.bytes), "{run:?}");
        }
    }
}

fn run_ids(run: &RunRef) -> impl Iterator<Item = PageId> + use<> {
    (run.first.0..run.first.0 + run.pages()).map(PageId)
}

fn run_bytes(tx: u64, len: u32) -> Vec<u8> {
    (0..len).map(|at| (tx as u32).wrapping_mul(31).wrapping_add(at * 7 + len) as u8).collect()
}

/// A page on its way to the file.
type Write = (PageId, u64, Arc<Page>);

struct World {
    rng: Rng,
    pager: Pager,
    reader: PagerReader,
    map: Arc<TestMap>,
    /// What the open transaction reaches.
    open: View,
    published: Rc<View>,
    durable: (Arc<Root>, Rc<View>),
    chosen: Option<(Arc<Root>, Rc<View>)>,
    /// Pages of the chosen root that are not in the file yet, and spilled ones.
    captured: Vec<PageId>,
    spilled: Vec<Write>,
    readers: Vec<(Pinned, Rc<View>)>,
    /// What the durable root's meta would name, and the chosen one's.
    bitmaps: BTreeMap<u32, Box<[u8; BITMAP_BYTES]>>,
    chosen_bitmaps: BTreeMap<u32, Box<[u8; BITMAP_BYTES]>>,
}

impl World {
    fn new(seed: u64) -> World {
        let map = Arc::new(TestMap::new());
        let root = Root { pages_used: 8, pages_end: 8, ..Root::default() };
        let parts = FileParts { path: "pages".into(), map: map.clone(), root, used: Vec::new() };
        let pager = Pager::from_file(parts);
        let empty = Rc::new(View::default());
        World {
            rng: Rng::new(seed),
            reader: pager.reader(),
            durable: (pager.published(), empty.clone()),
            pager,
            map,
            open: View { tx: 1, ..View::default() },
            published: empty,
            chosen: None,
            captured: Vec::new(),
            spilled: Vec::new(),
            readers: Vec::new(),
            bitmaps: BTreeMap::new(),
            chosen_bitmaps: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..20 => self.make(),
            20..45 => self.change(),
            45..57 => self.free(),
            57..62 => self.make_run(),
            62..67 => self.free_run(),
            67..77 => self.publish(),
            77..82 => self.come(),
            82..87 => self.go(),
            87..90 => self.spill(),
            90..96 => self.write_some(3),
            96 => self.choose(),
            97 => self.finish_checkpoint(),
            98 => self.pager.reclaim(),
            _ => self.check_reader(),
        }
    }

    /// An id was given out: nobody may reach it.
    fn given_out(&self, id: PageId) {
        let views =
            [&*self.published, &self.durable.1].into_iter().chain(self.chosen.as_ref().map(|at| &*at.1));
        let views = views.chain(self.readers.iter().map(|(_, view)| &**view)).chain([&self.open]);
        for view in views {
            assert!(!view.ids().contains(&id), "{id} is given out while tx {} reaches it", view.tx);
        }
        let mut writes = self.captured.iter().chain(self.spilled.iter().map(|(writing, _, _)| writing));
        assert!(!writes.any(|writing| *writing == id), "{id} is given out while it is being written");
    }

    fn make(&mut self) {
        let at = make(&mut self.pager);
        self.given_out(at.id);
        self.open.pages.insert(at.id, at);
    }

    fn change(&mut self) {
        let Some(old) = self.any_page() else { return };
        let mut at = old;
        change(&mut self.pager, &mut at);
        assert_eq!((at.tx, at.crc), (self.open.tx, None));
        if at.id == old.id {
            assert_eq!(old.tx, at.tx, "only a page of this transaction is changed in place");
        } else {
            self.given_out(at.id);
        }
        self.open.pages.remove(&old.id);
        self.open.pages.insert(at.id, at);
    }

    fn free(&mut self) {
        let Some(at) = self.any_page() else { return };
        self.pager.free_page(&at);
        self.open.pages.remove(&at.id);
    }

    fn make_run(&mut self) {
        let len = self.rng.between(1, 20_000) as u32;
        let run = self.pager.new_run(TREE, &run_bytes(self.open.tx, len));
        run_ids(&run).for_each(|id| self.given_out(id));
        self.open.runs.push(run);
    }

    fn free_run(&mut self) {
        if self.open.runs.is_empty() {
            return;
        }
        let at = self.rng.below(self.open.runs.len() as u64) as usize;
        let run = self.open.runs.swap_remove(at);
        self.pager.free_run(&run);
    }

    fn publish(&mut self) {
        self.open.check(&self.pager);
        let ids = self.open.ids();
        let end = ids.last().map_or(8, |id| u64::from(id.0) + 1);
        assert_eq!(self.pager.pages_in_use(), (8 + ids.len() as u64, end));
        publish(&mut self.pager, None);
        let root = self.pager.published();
        assert_eq!((root.tx, root.pages_used, root.pages_end), (self.open.tx, 8 + ids.len() as u64, end));
        self.published = Rc::new(self.open.clone());
        self.open.tx += 1;
    }

    fn come(&mut self) {
        if self.readers.len() > 6 {
            return;
        }
        let (pinned, view) = match self.rng.below(3) {
            0 => (self.reader.pin_durable(), self.durable.1.clone()),
            _ => (self.reader.pin_published(), self.published.clone()),
        };
        assert_eq!(pinned.root().tx, view.tx);
        self.readers.push((pinned, view));
    }

    fn go(&mut self) {
        if !self.readers.is_empty() {
            let at = self.rng.below(self.readers.len() as u64) as usize;
            self.check_reader();
            self.readers.swap_remove(at);
        }
    }

    fn check_reader(&mut self) {
        if !self.readers.is_empty() {
            let at = self.rng.below(self.readers.len() as u64) as usize;
            let (pinned, view) = &self.readers[at];
            view.check(pinned);
        }
    }

    fn spill(&mut self) {
        let max = self.rng.between(1, 8) as usize;
        let candidates = self.pager.spill_candidates(max);
        assert!(candidates.len() <= max);
        self.spilled.extend(candidates);
    }

    fn choose(&mut self) {
        if self.chosen.is_some() {
            return;
        }
        let chosen = self.pager.choose();
        assert_eq!(chosen.root.tx, self.published.tx);
        self.captured = chosen.levels.iter().flat_map(PageSet::iter).collect();
        self.chosen = Some((chosen.root, self.published.clone()));
        self.chosen_bitmaps = self.bitmaps.clone();
        self.chosen_bitmaps.extend(chosen.bitmaps);
    }

    /// Some of the writes under way end, in any order.
    fn write_some(&mut self, count: usize) {
        for _ in 0..count {
            let captured = self.captured.len() as u64;
            let writes = captured + self.spilled.len() as u64;
            if writes == 0 {
                return;
            }
            let at = self.rng.below(writes);
            let (id, tx, page) = match at.checked_sub(captured) {
                Some(at) => self.spilled.swap_remove(at as usize),
                None => {
                    let id = self.captured.swap_remove(at as usize);
                    // none: a spill that was under way was faster
                    let Some(page) = self.pager.captured_page(id) else { continue };
                    (id, page.tx(), page)
                }
            };
            let crc = self.map.write(id, &page);
            self.pager.page_written(id, tx, crc);
            // a parent that is written later names the CRC
            if let Some(at) = self.open.pages.get_mut(&id).filter(|at| at.tx == tx) {
                assert_eq!(self.pager.child_crc(id, tx), Some(crc));
                at.crc = Some(crc);
            }
        }
    }

    fn finish_checkpoint(&mut self) {
        let Some((root, view)) = self.chosen.clone() else { return };
        while !self.captured.is_empty() {
            self.write_some(1);
        }
        self.pager.chosen_durable();
        self.durable = (root, view);
        self.chosen = None;
        self.bitmaps = std::mem::take(&mut self.chosen_bitmaps);
        self.check_reopened();
    }

    /// What a crash would leave is the durable root, whole.
    fn check_reopened(&self) {
        let root = Root::clone(&self.durable.0);
        let parts = FileParts {
            path: "pages".into(),
            map: self.map.clone(),
            used: self.bitmaps.values().map(|bits| **bits).collect(),
            root,
        };
        let pager = Pager::from_file(parts);
        assert_eq!(pager.pages_in_use(), (self.durable.0.pages_used, self.durable.0.pages_end));
        self.durable.1.check(&pager);
        self.durable.1.check(&pager.reader().read());
        self.durable.1.check(&pager.reader().pin_durable());
    }

    fn any_page(&mut self) -> Option<ChildRef> {
        let at = self.rng.below(self.open.pages.len() as u64) as usize;
        self.open.pages.values().nth(at).copied()
    }

    /// Everybody goes, everything is written: then nothing waits.
    fn end(mut self) {
        self.publish();
        self.readers.clear();
        self.finish_checkpoint();
        self.choose();
        self.finish_checkpoint();
        while !self.spilled.is_empty() {
            self.write_some(1);
        }
        self.publish();
        self.pager.reclaim();
        assert_eq!(self.pager.held_back(), HeldBack::default());
        assert_eq!(self.pager.dirty_bytes(), 0);
        let (used, end) = self.pager.pages_in_use();
        assert_eq!(self.pager.space.free_below_end(), end - used);
        assert_eq!(self.pager.busy_end(), end);
    }
}

#[test]
fn no_id_is_given_out_while_somebody_reaches_it() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        for _ in 0..3000 {
            world.step();
        }
        world.end();
    }
}
