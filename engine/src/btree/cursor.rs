//! Walks over a tree in key order, both ways.
//!
//! A cursor stands *between* two entries (or before the first, or behind the last): [`Cursor::next`] steps over the entry
//! behind it, [`Cursor::prev`] over the one before, each giving the entry it stepped over. So `next` and then `prev` give
//! the same entry twice.
//!
//! ```text
//!   seek_first     seek(c), seek_last_below(Some(c))    seek_last_below(None)
//!       |     a    b    |    c    d                         |
//! ```

use super::longkey;
use super::node::{Node, OrFault, open};
use super::search::{child_of, place};
use crate::error::Fault;
use crate::pager::page::{ChildRef, PageId, TreeId};
use crate::pager::{Paged, Pages};
use std::borrow::Cow;

/// A key and its value; the key is borrowed from its page unless it is a long one.
pub type Entry<'p> = (Cow<'p, [u8]>, &'p [u8]);

/// Children of a branch that are hinted at a time; each is hinted when the one so many before it is reached, at the latest.
const AHEAD: usize = 8;

/// One page on the way from the root to where a cursor stands.
#[derive(Clone, Copy)]
struct Step<'p> {
    id: PageId,
    node: Node<'p>,
    /// In a branch the child that the next step is in; in a leaf the entry behind the cursor, or the number of entries.
    at: usize,
}

/// A place in a tree. A new one stands before the first entry.
pub struct Cursor<'p, P: Pages> {
    pages: &'p P,
    tree: TreeId,
    root: Option<ChildRef>,
    /// From the root to a leaf; empty before the first use, after an error and in an empty tree.
    steps: Vec<Step<'p>>,
    /// An error left it nowhere.
    lost: bool,
}

/// Which child to take on the way down.
#[derive(Clone, Copy)]
enum Way<'k> {
    First,
    Last,
    To(&'k [u8]),
}

impl<'p, P: Pages> Cursor<'p, P> {
    /// A cursor before the first entry.
    pub fn new(pages: &'p P, tree: TreeId, root: Option<&ChildRef>) -> Cursor<'p, P> {
        let room = if root.is_some() { 6 } else { 0 };
        Cursor { pages, tree, root: root.copied(), steps: Vec::with_capacity(room), lost: false }
    }

    /// Stands before the first entry whose key is at least `key`; `prev` then gives the last one below it.
    ///
    /// # Errors
    /// A page or run could not be had, or is damaged. The cursor then stands nowhere until it is placed anew.
    pub fn seek(&mut self, key: &[u8]) -> Paged<()> {
        self.place(Way::To(key))
    }

    /// Stands behind the last entry whose key is below `key` (`None`: behind the last of all). The same place as
    /// [`Cursor::seek`], for who goes on with `prev`.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub fn seek_last_below(&mut self, key: Option<&[u8]>) -> Paged<()> {
        self.place(key.map_or(Way::Last, Way::To))
    }

    /// Stands before the first entry.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub fn seek_first(&mut self) -> Paged<()> {
        self.place(Way::First)
    }

    /// Steps over the entry behind and gives it; `None` at the end.
    ///
    /// # Errors
    /// As [`Cursor::seek`]; [`Fault::Stopped`] if the cursor stands nowhere.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot go both ways and fail")]
    #[inline]
    pub fn next(&mut self) -> Paged<Option<Entry<'p>>> {
        let Some(step) = self.leaf()? else { return Ok(None) };
        if step.at < step.node.entries() {
            step.at += 1;
            let (id, node, entry) = (step.id, step.node, step.at - 1);
            return self.entry(id, node, entry).map(Some);
        }
        if !self.turn(|step| step.at + 1 < step.node.entries(), |at| at + 1, Way::First)? {
            return Ok(None);
        }
        self.next()
    }

    /// Steps over the entry before and gives it; `None` at the beginning.
    ///
    /// # Errors
    /// As [`Cursor::next`].
    #[inline]
    pub fn prev(&mut self) -> Paged<Option<Entry<'p>>> {
        let Some(step) = self.leaf()? else { return Ok(None) };
        if step.at > 0 {
            step.at -= 1;
            let (id, node, entry) = (step.id, step.node, step.at);
            return self.entry(id, node, entry).map(Some);
        }
        if !self.turn(|step| step.at > 0, |at| at - 1, Way::Last)? {
            return Ok(None);
        }
        self.prev()
    }

    fn entry(&mut self, id: PageId, node: Node<'p>, entry: usize) -> Paged<Entry<'p>> {
        let (key, value) = node.entry(entry).or_fault(self.pages, id)?;
        Ok((longkey::whole(self.pages, self.tree, id, key)?, value))
    }

    /// The step in the leaf; none in an empty tree.
    #[inline]
    fn leaf(&mut self) -> Paged<Option<&mut Step<'p>>> {
        if self.steps.is_empty() {
            if self.lost {
                return Err(Box::new(Fault::Stopped));
            }
            self.place(Way::First)?;
        }
        Ok(self.steps.last_mut())
    }

    fn place(&mut self, way: Way<'_>) -> Paged<()> {
        self.steps.clear();
        self.lost = false;
        match self.root {
            Some(root) => self.descend(root, None, way),
            None => Ok(()),
        }
    }

    /// Goes to the next leaf one way: up to the lowest branch that `can` go on, one `child` further, and down.
    /// `false`: there is none, and the cursor stays.
    #[cold]
    fn turn(
        &mut self,
        can: impl Fn(&Step<'p>) -> bool,
        further: impl Fn(usize) -> usize,
        way: Way<'_>,
    ) -> Paged<bool> {
        let branches = self.steps.len() - 1;
        let Some(depth) = self.steps[..branches].iter().rposition(can) else { return Ok(false) };
        self.steps.truncate(depth + 1);
        let step = &mut self.steps[depth];
        step.at = further(step.at);
        let (id, level, child) = (step.id, step.node.level(), step.node.child(step.at));
        self.read_ahead(depth, way);
        match child.or_fault(self.pages, id) {
            Ok(child) => self.descend(child, Some(level), way).map(|()| true),
            Err(fault) => Err(self.lose(fault)),
        }
    }

    /// Hints the children that come next, some at a time: whoever turns to one goes on to others.
    fn read_ahead(&self, depth: usize, way: Way<'_>) {
        let Step { node, at, .. } = self.steps[depth];
        if at % AHEAD != 0 {
            return;
        }
        let next = match way {
            Way::Last => at.saturating_sub(2 * AHEAD)..at,
            Way::First | Way::To(_) => at..node.entries().min(at + 2 * AHEAD),
        };
        // what is damaged is met by whoever goes there
        next.filter_map(|entry| node.child(entry).ok()).for_each(|child| self.pages.read_ahead(&child));
    }

    fn descend(&mut self, from: ChildRef, above: Option<u8>, way: Way<'_>) -> Paged<()> {
        self.try_descend(from, above, way).map_err(|fault| self.lose(fault))
    }

    fn try_descend(&mut self, mut child: ChildRef, mut above: Option<u8>, way: Way<'_>) -> Paged<()> {
        loop {
            let node = open(self.pages, self.tree, &child, above)?;
            let at = match way {
                Way::First => 0,
                Way::Last if node.is_leaf() => node.entries(),
                Way::Last => node.entries() - 1,
                Way::To(key) if node.is_leaf() => {
                    place(self.pages, self.tree, child.id, &node, key)?.unwrap_or_else(|at| at)
                }
                Way::To(key) => child_of(self.pages, self.tree, child.id, &node, key)?,
            };
            self.steps.push(Step { id: child.id, node, at });
            if node.is_leaf() {
                return Ok(());
            }
            above = Some(node.level());
            child = node.child(at).or_fault(self.pages, child.id)?;
        }
    }

    /// After an error the steps lead nowhere; to go on as if at the end would be a wrong answer.
    fn lose(&mut self, fault: Box<Fault>) -> Box<Fault> {
        self.steps.clear();
        self.lost = true;
        fault
    }
}
