//! A checkpoint: a published root becomes durable.
//!
//! ```text
//! chosen > pages, level by level > bitmap blocks, directories > sync > meta, twice, durable > durable
//!          `- children first -'    `- to the places that the                              `- the one before counts
//!                                     durable meta does not name -'                          until here
//! ```
//! Pages are written evenly over half the time since the checkpoint before was begun: all at once they would keep the processor
//! and the medium from who waits. Where that is too slow there is a hurry, and no pause.
//!
//! The pages are those of the list that was captured when the root was chosen, wherever what is applied meanwhile goes:
//! the chosen root holds their places, so each stays where it is until it was written. A page is on the way to the file with its CRC known before a parent of it is prepared.
//!
//! **Why a crash at any point loses nothing.** Until the new meta is durable, the old one names its root, its blocks and
//! its directories, and nothing that it names is written: pages of a new root lie where the old one reaches nothing (an
//! id is reused only when no root that counts reaches it), blocks and directories go to their other places, the meta to
//! the other pair. The new meta is begun only when all that it names is synced; torn or lost, it is no meta, by its CRC.

use super::Pager;
use super::dirty::PageSet;
use super::file::{Durable, PageFile};
use super::meta::{Meta, PlaceRef, Which, encode_block, encode_directory};
use super::page::{ChildRef, PAGE_BYTES, Page, PageId};
use super::places::{DIRECTORY_BLOCKS, meta_places, regions};
use super::root::Root;
use super::space::BITMAP_BYTES;
use super::written::Chosen;
use crate::Micros;
use crate::disk::{Completion, Disk, IoBuf, Op, Token};
use crate::error::Fault;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// The longest time for a page: a few are written soon, whatever time there is.
const PAGE_US_MAX: Micros = 500;
/// Pages that are waited for together, so that this does not cost a step for each.
const PAGES_AT_ONCE: u64 = 16;

/// What a meta names besides its root.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The checkpoint's number.
    pub(super) number: u64,
    pub(super) blocks: Vec<PlaceRef>,
    pub(super) directories: Vec<PlaceRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Pages of trees are written.
    Pages,
    /// Bitmap blocks are written.
    Blocks,
    /// Directories are written.
    Directories,
    /// All of that is being made durable.
    Sync(Token),
    /// It is durable.
    Synced,
    /// The meta is being made durable.
    Meta(Token),
    /// The meta is durable.
    Done,
}

/// The checkpoint that is under way.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) root: Arc<Root>,
    /// Without pauses.
    pub(super) urgent: bool,
    stage: Stage,
    /// Pages to be prepared, children before parents.
    levels: VecDeque<PageSet>,
    /// How many there were, and how many of them were.
    pages: (u64, u64),
    /// How long preparing them may take.
    lasts: Micros,
    bitmaps: VecDeque<(u32, Box<[u8; BITMAP_BYTES]>)>,
    /// Directories to be written.
    changed: VecDeque<u32>,
    /// What the new meta will name.
    names: Names,
    begun: Micros,
}

impl Checkpoint {
    /// To be written without pauses (`None`), or evenly over so long, or a shorter time if there is little to be written.
    pub(super) fn new(chosen: Chosen, durable: &Names, lasts: Option<Micros>, now: Micros) -> Checkpoint {
        let mut names = Names { number: durable.number + 1, ..durable.clone() };
        names.blocks.resize(regions(chosen.root.pages_end) as usize, PlaceRef::default());
        let pages = chosen.levels.iter().map(|level| level.pages() as u64).sum();
        Checkpoint {
            root: chosen.root,
            urgent: lasts.is_none(),
            stage: Stage::Pages,
            pages: (pages, 0),
            lasts: lasts.unwrap_or(0).min(pages * PAGE_US_MAX),
            levels: chosen.levels.into(),
            bitmaps: chosen.bitmaps.into(),
            changed: VecDeque::new(),
            names,
            begun: now,
        }
    }

    /// Whether it is still writing, so that nothing else is written beside it.
    pub(super) fn writes(&self) -> bool {
        matches!(self.stage, Stage::Pages | Stage::Blocks | Stage::Directories)
    }

    /// Whether the disk has its sync, or the write of its meta.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Sync(_) | Stage::Meta(_))
    }

    /// Somebody waits: it is to last no longer than that.
    pub(super) fn hasten(&mut self, lasts: Micros) {
        self.lasts = self.lasts.min(lasts);
    }

    /// When a page may be prepared that would be the one of this number.
    fn due_at(&self, number: u64) -> Micros {
        self.begun + self.lasts * number / self.pages.0.max(1)
    }

    /// When the next pages are due, if none is.
    pub(super) fn resume_at(&self, now: Micros) -> Option<Micros> {
        let early = self.stage == Stage::Pages && now < self.due_at(self.pages.1);
        early.then(|| self.due_at((self.pages.1 + PAGES_AT_ONCE).min(self.pages.0)))
    }

    /// The next page to be prepared.
    fn next_page(&mut self, pager: &Pager) -> Option<Arc<Page>> {
        loop {
            let Some(id) = self.levels.front_mut()?.pop_first() else {
                self.levels.pop_front();
                continue;
            };
            self.pages.1 += 1;
            // without a page: it was spilled
            if let Some(page) = pager.captured_page(id) {
                return Some(page);
            }
        }
    }

    /// The next bitmap block, at the place that the durable meta does not name.
    fn next_block(&mut self, durable: &Names) -> Option<Page> {
        let (block, bits) = self.bitmaps.pop_front()?;
        let last = durable.blocks.get(block as usize).map_or(PageId(0), |named| named.place);
        let place = Which::Block(block).other_place(last);
        let (page, named) = encode_block(block, place, self.root.tx, &bits);
        self.names.blocks[block as usize] = named;
        Some(page)
    }

    /// The directories whose blocks changed.
    fn find_changed_directories(&mut self, durable: &Names) {
        let missing = self.names.blocks.iter().position(|named| *named == PlaceRef::default());
        assert_eq!(missing, None, "every region below the end has a bitmap block");
        let count = self.names.blocks.len().div_ceil(DIRECTORY_BLOCKS as usize);
        self.names.directories.resize(count, PlaceRef::default());
        let of = |names: &Names, directory: usize| {
            names.blocks.chunks(DIRECTORY_BLOCKS as usize).nth(directory).map(<[PlaceRef]>::to_vec)
        };
        let changed = (0..count).filter(|directory| of(&self.names, *directory) != of(durable, *directory));
        self.changed = changed.map(|directory| directory as u32).collect();
    }

    fn next_directory(&mut self, durable: &Names) -> Option<Page> {
        let directory = self.changed.pop_front()?;
        let last = durable.directories.get(directory as usize).map_or(PageId(0), |named| named.place);
        let place = Which::Directory(directory).other_place(last);
        let first = directory as usize * DIRECTORY_BLOCKS as usize;
        let (page, named) = encode_directory(directory, place, self.root.tx, &self.names.blocks[first..]);
        self.names.directories[directory as usize] = named;
        Some(page)
    }

    /// The meta, with the CRCs of the trees' roots.
    fn meta(&self, pager: &Pager, owner: [u8; 16], path: &Path) -> Result<Meta, Fault> {
        let mut root = Root::clone(&self.root);
        for tree in root.trees.iter_mut().flatten() {
            let known = tree.crc.or_else(|| pager.child_crc(tree.id, tree.tx));
            let crc = known.ok_or_else(|| without_crc(path, tree))?;
            tree.crc = Some(crc);
        }
        let (number, blocks) = (self.names.number, self.names.blocks.len() as u32);
        Ok(Meta { owner, number, root, blocks, directories: self.names.directories.clone() })
    }

    /// Takes a completion; gives it back if it is a stranger's.
    ///
    /// # Errors
    /// The sync, or the write of the meta, failed.
    pub(super) fn complete(
        &mut self,
        completion: Completion,
        path: &Path,
    ) -> Result<Option<Completion>, Fault> {
        let (next, operation, offset) = match self.stage {
            Stage::Sync(token) if token == completion.token => (Stage::Synced, "sync", 0),
            Stage::Meta(token) if token == completion.token => {
                (Stage::Done, "durable write", meta_places(self.names.number)[0].offset())
            }
            _ => return Ok(Some(completion)),
        };
        match completion.result {
            Ok(_) => {
                self.stage = next;
                Ok(None)
            }
            Err(source) => Err(Fault::Io { operation, path: path.to_path_buf(), offset, source }),
        }
    }
}

fn without_crc(path: &Path, tree: &ChildRef) -> Fault {
    Fault::Corrupt {
        path: path.to_path_buf(),
        offset: tree.id.offset(),
        expected: "a tree whose root was written".to_string(),
        found: format!("{tree:?} without a checksum"),
    }
}

impl PageFile {
    /// Goes on with the checkpoint, if there is one, as far as it comes; whether it is done with that.
    pub(super) fn advance_checkpoint(
        &mut self,
        pager: &mut Pager,
        disk: &mut dyn Disk,
        budget: &mut usize,
        now: Micros,
        wal_bytes: u64,
    ) -> Result<bool, Fault> {
        let hurry = self.in_hurry(pager, wal_bytes);
        let Some(mut checkpoint) = self.checkpoint.take() else { return Ok(false) };
        while self.advance(&mut checkpoint, pager, disk, budget, hurry, now)? {
            if checkpoint.stage == Stage::Done {
                self.finish(checkpoint, pager, now);
                return Ok(true);
            }
        }
        self.checkpoint = Some(checkpoint);
        Ok(false)
    }

    /// One stage, as far as it comes; whether it is done.
    fn advance(
        &mut self,
        checkpoint: &mut Checkpoint,
        pager: &Pager,
        disk: &mut dyn Disk,
        budget: &mut usize,
        hurry: bool,
        now: Micros,
    ) -> Result<bool, Fault> {
        match checkpoint.stage {
            Stage::Pages => {
                while *budget > 0
                    && self.out.has_room(now, hurry)
                    && (hurry || now >= checkpoint.due_at(checkpoint.pages.1))
                {
                    let Some(page) = checkpoint.next_page(pager) else {
                        checkpoint.stage = Stage::Blocks;
                        return Ok(true);
                    };
                    let fits = u64::from(page.id().0) < self.length.limit();
                    assert!(fits, "a root is chosen when the file has room for all of its pages");
                    self.out.write_page(disk, &page, |id, tx| pager.child_crc(id, tx), now)?;
                    *budget -= 1;
                }
            }
            Stage::Blocks => {
                while *budget > 0 && self.out.has_room(now, hurry) {
                    let Some(page) = checkpoint.next_block(&self.names) else {
                        checkpoint.find_changed_directories(&self.names);
                        checkpoint.stage = Stage::Directories;
                        return Ok(true);
                    };
                    self.out.write_ready(disk, &page, now);
                    *budget -= 1;
                }
            }
            Stage::Directories => {
                while let Some(page) = checkpoint.next_directory(&self.names) {
                    self.out.write_ready(disk, &page, now);
                }
                self.out.flush(disk, now);
                if !self.out.busy() {
                    self.out.forget_stretches();
                    let file = self.file;
                    checkpoint.stage = Stage::Sync(disk.submit(Op::Sync { file }));
                }
            }
            Stage::Synced => {
                let meta = checkpoint.meta(pager, self.options.owner, &self.options.path)?;
                checkpoint.stage = Stage::Meta(self.write_meta(disk, &meta));
            }
            Stage::Sync(_) | Stage::Meta(_) => {}
            Stage::Done => return Ok(true),
        }
        Ok(false)
    }

    /// Both copies, one after the other in one write.
    fn write_meta(&self, disk: &mut dyn Disk, meta: &Meta) -> Token {
        let places = meta_places(meta.number);
        let mut buf = IoBuf::zeroed(places.len() * PAGE_BYTES);
        for (copy, place) in buf.as_mut_slice().chunks_exact_mut(PAGE_BYTES).zip(places) {
            copy.copy_from_slice(&meta.encode(place).0);
        }
        disk.submit(Op::WriteDurable { file: self.file, offset: places[0].offset(), buf })
    }

    fn finish(&mut self, checkpoint: Checkpoint, pager: &mut Pager, now: Micros) {
        let took = now.saturating_sub(checkpoint.begun);
        self.stats.checkpoints += 1;
        self.stats.checkpoint_us_sum += took;
        self.stats.checkpoint_us_max = self.stats.checkpoint_us_max.max(took);
        self.durable = Durable::of(&checkpoint.root);
        self.names = checkpoint.names;
        self.cut_at = Some(now);
        self.ended(now);
        pager.chosen_durable();
    }
}
