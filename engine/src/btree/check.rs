//! Checks everything that must hold of a tree (see [`btree`](super)).

use super::longkey;
use super::node::{LONG_PREFIX, Node, OrFault, validate};
use crate::error::Fault;
use crate::pager::page::{ChildRef, PageId, RunRef, TreeId};
use crate::pager::{Paged, Pages};
use std::borrow::Cow;

/// What a whole tree consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Pages of level 0.
    pub leaves: u64,
    /// Pages above.
    pub branches: u64,
    /// Pages in the runs of long keys.
    pub run_pages: u64,
    /// Keys.
    pub entries: u64,
    /// Levels, 0 of an empty tree.
    pub levels: u64,
    /// Bytes of slots and cells in leaves and branches.
    pub used_bytes: u64,
}

impl CheckSummary {
    /// All pages.
    pub fn pages(&self) -> u64 {
        self.leaves + self.branches + self.run_pages
    }
}

/// Checks a whole tree: heads, slots and cells of every page, the order of keys in and across pages, separators, levels,
/// counts, runs of long keys. Tells `visit` every page it reaches, those of runs too, so that the caller can compare them
/// with what is known to be used and find pages reached twice. What values refer to is the caller's.
///
/// # Errors
/// Outside: a page or run could not be had. Inside: the first thing that does not hold, with its page.
pub fn check(
    pages: &impl Pages,
    tree: TreeId,
    root: Option<&ChildRef>,
    visit: &mut impl FnMut(PageId),
) -> Paged<Result<CheckSummary, String>> {
    let mut walk = Walk { pages, tree, visit, summary: CheckSummary::default() };
    let Some(root) = root else { return Ok(Ok(walk.summary)) };
    match walk.root(root) {
        Ok(()) => Ok(Ok(walk.summary)),
        Err(Problem::Tree(text)) => Ok(Err(text)),
        Err(Problem::Fault(fault)) => Err(fault),
    }
}

enum Problem {
    Fault(Box<Fault>),
    Tree(String),
}

impl From<Box<Fault>> for Problem {
    fn from(fault: Box<Fault>) -> Problem {
        Problem::Fault(fault)
    }
}

fn problem<T>(at: PageId, text: impl std::fmt::Display) -> Result<T, Problem> {
    Err(Problem::Tree(format!("page {at} (offset {}): {text}", at.offset())))
}

struct Walk<'w, P, V> {
    pages: &'w P,
    tree: TreeId,
    visit: &'w mut V,
    summary: CheckSummary,
}

/// What keys below a page may be: at least the first, below the second.
type Bounds<'k> = (&'k [u8], Option<&'k [u8]>);

impl<P: Pages, V: FnMut(PageId)> Walk<'_, P, V> {
    fn root(&mut self, root: &ChildRef) -> Result<(), Problem> {
        let level = self.pages.page(self.tree, root)?.level();
        self.summary.levels = u64::from(level) + 1;
        self.page(root, level, (&[], None))?;
        let node = self.node(root)?;
        if !node.is_leaf() && node.entries() == 1 {
            return problem(root.id, "the root is a branch with one child");
        }
        Ok(())
    }

    fn node(&self, at: &ChildRef) -> Result<Node<'_>, Problem> {
        let page = self.pages.page(self.tree, at)?;
        Node::of(page).or_fault(self.pages, at.id).map_err(Problem::Fault)
    }

    fn page(&mut self, at: &ChildRef, level: u8, bounds: Bounds<'_>) -> Result<(), Problem> {
        (self.visit)(at.id);
        let page = self.pages.page(self.tree, at)?;
        if (page.id(), page.tx(), page.tree()) != (at.id, at.tx, self.tree as u8) {
            return problem(at.id, format_args!("is named {at:?} in tree {:?}, and is {page:?}", self.tree));
        }
        if page.level() != level {
            return problem(at.id, format_args!("level {} where level {level} belongs", page.level()));
        }
        validate(page).or_else(|text| problem(at.id, text))?;
        self.summary.used_bytes += super::edit::used(page).or_fault(self.pages, at.id)? as u64;
        let node = self.node(at)?;
        let count = if node.is_leaf() { self.leaf(at, bounds)? } else { self.branch(at, bounds)? };
        if count != at.count {
            return problem(at.id, format_args!("{count} entries where its parent counts {}", at.count));
        }
        Ok(())
    }

    fn leaf(&mut self, at: &ChildRef, (low, high): Bounds<'_>) -> Result<u64, Problem> {
        self.summary.leaves += 1;
        let entries = self.node(at)?.entries();
        self.summary.entries += entries as u64;
        let mut before: Option<Cow<'_, [u8]>> = None;
        let pages = self.pages;
        let node = Node::of(pages.page(self.tree, at)?).or_fault(pages, at.id)?;
        for entry in 0..entries {
            let key = self.key(at, &node, entry)?;
            if before.is_some_and(|before| before >= key) {
                return problem(at.id, format_args!("the key of entry {entry} is not above the one before"));
            }
            if *key < *low || high.is_some_and(|high| *key >= *high) {
                return problem(at.id, format_args!("the key of entry {entry} belongs into another page"));
            }
            before = Some(key);
        }
        Ok(entries as u64)
    }

    fn branch(&mut self, at: &ChildRef, (low, high): Bounds<'_>) -> Result<u64, Problem> {
        self.summary.branches += 1;
        let pages = self.pages;
        let node = Node::of(pages.page(self.tree, at)?).or_fault(pages, at.id)?;
        let mut count = 0u64;
        let mut from = Cow::Borrowed(low);
        for entry in 0..node.entries() {
            let next = if entry + 1 < node.entries() { Some(self.key(at, &node, entry + 1)?) } else { None };
            let to = next.as_deref().or(high);
            // two children could not have the same separator; the first may begin where the branch does
            if to.is_some_and(|to| *to <= *from)
                || next.is_some() && high.is_some_and(|high| to >= Some(high))
            {
                return problem(at.id, format_args!("the separator of entry {} is out of order", entry + 1));
            }
            let child = node.child(entry).or_fault(pages, at.id)?;
            self.page(&child, node.level() - 1, (&from, to))?;
            count = count.wrapping_add(child.count);
            from = next.unwrap_or_default();
        }
        Ok(count)
    }

    /// A key, with its run looked at if it has one.
    fn key<'p>(&mut self, at: &ChildRef, node: &Node<'p>, entry: usize) -> Result<Cow<'p, [u8]>, Problem> {
        let field = node.key(entry).or_fault(self.pages, at.id)?;
        let key = longkey::whole(self.pages, self.tree, at.id, field)?;
        let Some(run) = field.run() else { return Ok(key) };
        self.run(&run);
        if key.len() != run.bytes as usize || key.get(..LONG_PREFIX) != Some(field.inline()) {
            return problem(
                at.id,
                format_args!("the run of entry {entry} at page {} is not its key", run.first),
            );
        }
        Ok(key)
    }

    fn run(&mut self, run: &RunRef) {
        for page in 0..run.pages() {
            self.summary.run_pages += 1;
            (self.visit)(PageId(run.first.0.wrapping_add(page)));
        }
    }
}
