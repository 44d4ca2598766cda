//! The page file: 4 KiB pages, copied on write, mapped for reading.
//!
//! | part | what it does |
//! |---|---|
//! | [`page`] | a page's bytes; what names a page or a run |
//! | [`root`] | what one transaction left: the roots of all trees and where the state stands |
//! | `writer` | [`Pager`]: the open transaction; publishing it |
//! | `reader` | [`PagerReader`], [`ReadGuard`], [`Pinned`]: a root and its pages, from any thread |
//! | `page_table` | which pages are in memory, shared without a lock; `readers`, `retire`: what is kept for whom |
//! | `map_pages` | pages of the file, checked at their first touch |
//! | `space`, `reuse` | which page ids are used, wait, are free |
//! | `dirty`, `written` | pages that the file does not have; what follows when it has them |
//! | `relocate` | moving pages toward the file's head |
//! | `places`, `meta` | the file's fixed places; the bytes of metas, directories and bitmap blocks |
//! | `opening` | what the newest whole meta says |
//! | [`offline`] | the file as it lies: an image taken, a check, a restore |
//! | `file` | the open file as a state machine; `checkpoint`, `writeout`, `grow`: how a root becomes durable, how pages are written, how long the file is |
//! | `scrub` | what is durable is read again and checked |
//!
//! Trees are built on two traits: [`Pages`] to read, [`PagesMut`] for the one writer.

mod checkpoint;
mod children;
mod dense;
mod dirty;
mod doubling;
mod file;
#[cfg(feature = "sim")]
pub mod fuzz;
mod grow;
mod map_pages;
mod meta;
pub mod offline;
mod opening;
pub mod page;
mod page_table;
mod places;
mod reader;
mod readers;
mod relocate;
mod retire;
mod reuse;
pub mod root;
mod scrub;
mod space;
mod sync;
#[cfg(test)]
mod tests;
mod writeout;
mod writer;
mod written;

use crate::error::Fault;
use bytes::Bytes;
use page::{ChildRef, Page, PageId, PageKind, RunRef, TreeId};

pub(crate) use children::children;
pub use file::{Durable, PagerNext, PagerOptions, PagerStats};
pub(crate) use meta::COUNT_MAX;
pub use meta::FORMAT_NUMBER;
pub use opening::PagerOpened;
pub use places::{fixed_pages_below, spare_pages_below};
pub use reader::{PagerReader, Pinned, ReadGuard};
use std::path::PathBuf;
pub use writer::{HeldBack, Pager};

/// A page that could not be had: its bytes are damaged, or the disk refused them. Boxed, so that the way where all is
/// well stays short.
pub type Paged<T> = Result<T, Box<Fault>>;

/// What a tree is read through.
pub trait Pages {
    /// The page that `at` names. It is what `at` says: its place, tree and transaction stand in it, and its CRC was found
    /// right when it was first touched.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] or [`Fault::Io`], naming file and offset.
    fn page(&self, tree: TreeId, at: &ChildRef) -> Paged<&Page>;

    /// A copy of a run's bytes.
    ///
    /// # Errors
    /// As [`Pages::page`].
    fn run(&self, tree: TreeId, at: &RunRef) -> Paged<Bytes>;

    /// Begins to bring a page into memory that will be read soon, without waiting; where that cannot be done, nothing.
    fn read_ahead(&self, _at: &ChildRef) {}

    /// As [`Pages::read_ahead`], of a run's pages.
    fn run_ahead(&self, _run: &RunRef) {}

    /// The fault of a page that is what names it and yet cannot be what was written. Who has a file names it.
    #[cold]
    fn fault(&self, at: PageId, expected: String, found: String) -> Box<Fault> {
        Box::new(Fault::Corrupt { path: PathBuf::new(), offset: at.offset(), expected, found })
    }
}

/// What a tree is changed through, within one transaction.
pub trait PagesMut: Pages {
    /// The page that `at` names, to be changed: the first time in a transaction a copy under another id, which `at` then
    /// names (the old page is freed); after that the page itself. The CRC of `at` is unknown after it.
    ///
    /// # Errors
    /// As [`Pages::page`].
    fn page_mut(&mut self, tree: TreeId, at: &mut ChildRef) -> Paged<&mut Page>;

    /// A new page, empty (`entries` and `heap` are 0), named by the answer (count 0).
    fn new_page(&mut self, tree: TreeId, kind: PageKind, level: u8) -> (ChildRef, &mut Page);

    /// Gives a page back: no later transaction reaches it.
    fn free_page(&mut self, at: &ChildRef);

    /// Writes a run; `bytes` is not empty.
    fn new_run(&mut self, tree: TreeId, bytes: &[u8]) -> RunRef;

    /// Gives a run back.
    fn free_run(&mut self, at: &RunRef);

    /// Whether a page lies in the part of the file that is being emptied (see relocation).
    fn is_to_move(&self, at: PageId) -> bool;
}
