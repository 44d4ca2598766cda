//! The check of a store at rest: its page file and its log, everything in them, nothing changed.
//!
//! ```text
//! page file   newest whole meta > directories > bitmap > every used page: CRC, head
//!             > each tree: order, counts, levels > chains of versions, runs, leases > pages used = pages reached, each once
//! log         as opening reads it; entries follow one another, commands can be read
//! tie         the log reaches from the page file's applied entry on
//! ```
//! Damage is gathered, not stopped at, as far as what comes later can be read at all.

use crate::btree::{self, CheckSummary};
use crate::command::Stamped;
use crate::disk::Disk;
use crate::error::Fault;
use crate::mvcc::check::{Reached, check as check_store};
use crate::mvcc::view::View;
use crate::pager::offline::{LyingFile, StoredRoot, lying_file, stored_owner};
use crate::pager::page::{PAGE_BYTES, PageId, TreeId};
use crate::pager::root::Root;
use crate::pager::{Paged, Pages};
use crate::snapshot::{PageReader, PageSet, check_page};
use crate::wal::{EntryKind, HardState, LogEntry, RecoveredBatch, Wal, WalOptions};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Damage told one by one; more is counted.
pub const DAMAGE_MAX: usize = 100;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes, if that can be said.
    pub offset: Option<u64>,
    /// What.
    pub text: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, ", offset {offset}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Damage found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damages {
    /// The first of them, at most [`DAMAGE_MAX`].
    pub list: Vec<Damage>,
    /// All of them.
    pub count: u64,
}

impl Damages {
    /// Adds one.
    pub fn add(&mut self, path: &Path, offset: Option<u64>, text: impl Into<String>) {
        self.count += 1;
        if self.list.len() < DAMAGE_MAX {
            self.list.push(Damage { path: path.to_path_buf(), offset, text: text.into() });
        }
    }

    /// Takes a fault that says that bytes are damaged or cannot be read; gives back any other.
    fn add_fault(&mut self, fault: Fault) -> Result<(), Fault> {
        match fault {
            Fault::Corrupt { path, offset, expected, found } => {
                self.add(&path, Some(offset), format!("expected {expected}, found {found}"));
                Ok(())
            }
            Fault::Io { operation: "read" | "read through the map", path, offset, source } => {
                self.add(&path, Some(offset), format!("cannot be read: {source}"));
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// What a page file holds.
#[derive(Clone, Debug, Default)]
pub struct PageFileReport {
    /// The file.
    pub path: PathBuf,
    /// Whose it is; `None` where no meta is whole.
    pub owner: Option<[u8; 16]>,
    /// Its length in bytes.
    pub file_bytes: u64,
    /// Number of the newest checkpoint, 0 for none yet.
    pub checkpoint: u64,
    /// The newest durable root, with who is in the cluster; `None` where it could not be read.
    pub root: Option<Root>,
    /// Metas that are not whole though another one is: offset, and what is wrong. A crash while a meta was written leaves
    /// them so, and the next start repairs them.
    pub metas_damaged: Vec<(u64, String)>,
    /// Pages read and found whole.
    pub pages_whole: u64,
    /// What each tree consists of.
    pub trees: Vec<(TreeId, CheckSummary)>,
    /// Whether chains, runs, leases and the use of every page were checked: only where all trees are whole.
    pub store_checked: bool,
}

/// What a log holds.
#[derive(Clone, Debug, Default)]
pub struct WalReport {
    /// Its directory.
    pub dir: PathBuf,
    /// Batches.
    pub batches: u64,
    /// First and last index of its entries; `None` without entries.
    pub entries: Option<(u64, u64)>,
    /// The newest term, vote and commit.
    pub hard_state: HardState,
    /// Unfinished writes at its end, which a crash leaves and opening cuts off: file, offset, bytes.
    pub torn: Vec<(PathBuf, u64, u64)>,
    /// The newest checkpoint that it names: transaction and entry, zeros for none.
    pub checkpoint: (u64, u64),
    /// Term of the entry that was asked for, where it is in the log.
    pub term_at: Option<u64>,
}

/// Told how many bytes are done, and of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Checks the page file at `path`. `owner`: whose it must be, if that is known.
///
/// # Errors
/// It cannot be checked: it does not open, or is not one of this owner, format or program.
pub fn check_page_file(
    disk: &mut dyn Disk,
    path: &Path,
    owner: Option<[u8; 16]>,
    damages: &mut Damages,
    progress: Progress<'_>,
) -> Result<PageFileReport, Fault> {
    let mut report = PageFileReport { path: path.to_path_buf(), ..PageFileReport::default() };
    let lying = match lying_file(disk, path, owner) {
        Ok(lying) => lying,
        Err(fault) => {
            damages.add_fault(fault)?;
            report.owner = stored_owner(path)?;
            return Ok(report);
        }
    };
    let LyingFile { stored: StoredRoot { owner, checkpoint, mut root, used }, pages, bytes, metas_damaged } =
        lying;
    report.owner = Some(owner);
    (report.file_bytes, report.checkpoint, report.metas_damaged) = (bytes, checkpoint, metas_damaged);
    let used = PageSet::of_words(used);
    report.pages_whole = check_pages(path, &used, root.tx, damages, progress)?;
    match View::of(&pages, &root).stored_cluster() {
        Ok(cluster) => root.cluster = Arc::new(cluster.unwrap_or_default()),
        Err(fault) => damages.add_fault(*fault)?,
    }
    let whole = check_trees(&pages, path, &root, &mut report, damages)?;
    if whole && damages.count == 0 {
        report.store_checked = true;
        match check_reached(&pages, &root, &used) {
            Ok(broken) => broken.into_iter().for_each(|(offset, text)| damages.add(path, offset, text)),
            Err(fault) => damages.add_fault(*fault)?,
        }
    }
    report.root = Some(root);
    Ok(report)
}

/// Reads every used page; how many are whole.
fn check_pages(
    path: &Path,
    used: &PageSet,
    tx: u64,
    damages: &mut Damages,
    progress: Progress<'_>,
) -> Result<u64, Fault> {
    let file = File::open(path).map_err(|source| Fault::Io {
        operation: "open",
        path: path.to_path_buf(),
        offset: 0,
        source,
    })?;
    let mut reader = PageReader::new(file, path.to_path_buf());
    let mut whole = 0;
    for (done, id) in used.iter().enumerate() {
        let checked = reader.page(id, used).and_then(|page| check_page(path, id.offset(), &page, id, tx));
        match checked {
            Ok(()) => whole += 1,
            Err(fault) => damages.add_fault(fault)?,
        }
        progress((done as u64 + 1) * PAGE_BYTES as u64, used.pages() * PAGE_BYTES as u64);
    }
    Ok(whole)
}

/// Checks each tree for itself; whether all are whole.
fn check_trees(
    pages: &impl Pages,
    path: &Path,
    root: &Root,
    report: &mut PageFileReport,
    damages: &mut Damages,
) -> Result<bool, Fault> {
    let before = damages.count;
    for tree in TreeId::ALL {
        match btree::check(pages, tree, root.tree(tree).as_ref(), &mut |_| {}) {
            Ok(Ok(summary)) => report.trees.push((tree, summary)),
            Ok(Err(broken)) => damages.add(path, None, format!("tree {tree:?}: {broken}")),
            Err(fault) => damages.add_fault(*fault)?,
        }
    }
    Ok(damages.count == before)
}

/// Checks all that holds between the trees of a root, and that they reach exactly the pages in `used`, each once. What does
/// not hold, with the offset where there is one.
///
/// # Errors
/// A page cannot be had.
pub fn check_reached(pages: &impl Pages, root: &Root, used: &PageSet) -> Paged<Vec<(Option<u64>, String)>> {
    let reached = match check_store(&View::of(pages, root))? {
        Ok(reached) => reached,
        Err(broken) => return Ok(vec![(None, broken)]),
    };
    Ok(compare(&reached, used))
}

fn compare(reached: &Reached, used: &PageSet) -> Vec<(Option<u64>, String)> {
    let mut broken = Vec::new();
    let mut expected = used.iter().peekable();
    let unreached =
        |id: PageId| (Some(id.offset()), format!("page {id} counts as used, and no tree reaches it"));
    for page in reached.pages() {
        while let Some(id) = expected.next_if(|id| *id < page) {
            broken.push(unreached(id));
        }
        if expected.next_if_eq(&page).is_none() {
            broken
                .push((Some(page.offset()), format!("page {page} is reached by a tree, and counts as free")));
        }
    }
    broken.extend(expected.map(unreached));
    broken
}

/// Checks the log that `options` names; `ask` is an index whose term is wanted.
///
/// # Errors
/// It cannot be checked: it does not open, or is not one of this owner, format or program.
pub fn check_wal(
    disk: &mut dyn Disk,
    options: WalOptions,
    ask: u64,
    damages: &mut Damages,
) -> Result<WalReport, Fault> {
    let mut report = WalReport { dir: options.dir.clone(), ..WalReport::default() };
    let mut entries = Entries { ask, ..Entries::default() };
    let read = Wal::read(disk, options, &mut |batch| {
        entries.batch(batch);
        Ok(())
    });
    report.entries = (entries.last > 0).then_some((entries.first, entries.last));
    report.term_at = entries.term_at;
    entries.broken.drain(..).for_each(|text| damages.add(&report.dir, None, text));
    match read {
        Ok(opened) => {
            report.batches = opened.batches;
            report.hard_state = opened.hard_state;
            report.checkpoint = opened.checkpoint;
            report.torn = opened.torn;
        }
        Err(fault) => damages.add_fault(fault)?,
    }
    Ok(report)
}

/// The entries of a log as they come.
#[derive(Default)]
struct Entries {
    ask: u64,
    first: u64,
    last: u64,
    last_term: u64,
    term_at: Option<u64>,
    broken: Vec<String>,
}

impl Entries {
    fn batch(&mut self, batch: RecoveredBatch) {
        for entry in batch.entries {
            self.entry(&entry);
        }
    }

    fn entry(&mut self, entry: &LogEntry) {
        let index = entry.index;
        if self.last > 0 && index > self.last + 1 {
            self.add(format!("entry {index} follows entry {}: those between are missing", self.last));
        }
        if self.last > 0 && index > self.last && entry.term < self.last_term {
            self.add(format!("the term of entry {index} is {}, below that of the one before", entry.term));
        }
        // an entry that is no command of ours, or raft's own bytes, is looked at where it is applied
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() && Stamped::decode(&entry.data).is_err()
        {
            self.add(format!("entry {index} holds no command that can be read"));
        }
        if self.first == 0 || index < self.first {
            self.first = index;
        }
        if index == self.ask {
            self.term_at = Some(entry.term);
        } else if index < self.ask {
            // entries from here on are replaced
            self.term_at = None;
        }
        (self.last, self.last_term) = (index, entry.term);
    }

    fn add(&mut self, text: String) {
        if self.broken.len() < DAMAGE_MAX {
            self.broken.push(text);
        }
    }
}

/// Checks that page file and log belong together: the file is the one that the log names last, or a newer one, and the log
/// goes on where it ends. `path` is where the page file should be, `None` says that there is none.
pub fn check_tie(path: &Path, file: Option<&PageFileReport>, wal: &WalReport, damages: &mut Damages) {
    let (tx, named) = wal.checkpoint;
    let Some(file) = file else {
        if tx > 0 {
            let text = format!("missing: the log names a checkpoint of transaction {tx}, entry {named}");
            damages.add(path, None, text);
        }
        return check_span(wal, 0, damages);
    };
    let Some(root) = &file.root else { return };
    let (applied, term) = (root.standing.applied, root.standing.applied_term);
    if root.tx < tx || applied < named {
        let text = format!(
            "its newest checkpoint is of transaction {}, entry {applied}; the log names one of transaction {tx}, entry {named}",
            root.tx
        );
        damages.add(path, None, text);
    }
    check_span(wal, applied, damages);
    if let Some(in_log) = wal.term_at
        && in_log != term
    {
        let text =
            format!("entry {applied} is of term {in_log}, the page file applied it as one of term {term}");
        damages.add(&wal.dir, None, text);
    }
}

/// Checks that the log reaches from behind the applied entry to at least that.
fn check_span(wal: &WalReport, applied: u64, damages: &mut Damages) {
    let (first, last) = wal.entries.unwrap_or((applied + 1, 0));
    if first > applied + 1 {
        let text = format!("begins with entry {first}, the page file ends with entry {applied}");
        damages.add(&wal.dir, None, text);
    }
    let last = last.max(wal.hard_state.commit);
    if last < applied {
        damages.add(
            &wal.dir,
            None,
            format!("ends with entry {last}, the page file has applied entry {applied}"),
        );
    }
}
