//! `coffer check`: looks through a data directory that no member is using, and changes nothing in it.
//!
//! | exit code | |
//! |---|---|
//! | 0 | all is as it must be |
//! | 1 | damage, each with file and offset |
//! | 2 | it could not be checked: not there, in use, not coffer's, not to be read |

use super::args::{Arguments, Command, Flag, Kind};
use super::print::bytes_text;
use super::progress::Progress;
use super::{Failure, Outcome, one_word};
use crate::member::directory::{PAGE_FILE_NAME, WAL_DIR_NAME, is_same};
use coffer_engine::check::{
    DAMAGE_MAX, Damages, PageFileReport, WalReport, check_page_file, check_tie, check_wal,
};
use coffer_engine::disk::{self, Disk, DiskIo};
use coffer_engine::error::Fault;
use coffer_engine::mvcc::view::{position, sizes};
use coffer_engine::wal::{WalOptions, is_begun, owner_of};
use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code for damage.
const DAMAGED: u8 = 1;
/// Exit code for what could not be checked.
pub(super) const UNCHECKED: u8 = 2;

pub(super) static COMMAND: Command = Command {
    usage: "coffer check <data-dir> [flags]",
    about: "Checks a data directory that no member is using: log, page file, every page, every version.\n\
            Exits with 0 if all is well, 1 for damage, 2 if it cannot be checked. Nothing is changed.",
    flags: &[&WAL_DIR],
    variables: None,
};

static WAL_DIR: Flag =
    Flag::new("wal-dir", Kind::Text, "", "where the log lies, if not inside the data directory");

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let directory = one_word(arguments, "check requires exactly one argument, the data directory")
        .map_err(|failure| Failure { code: UNCHECKED, ..failure })?;
    let directory = Path::new(directory);
    if !directory.is_dir() {
        return Err(unchecked(format!("{} is no directory", directory.display())));
    }
    let _lock = lock(directory)?;
    let (wal_dir, _wal_lock) = match arguments.text("wal-dir") {
        "" => (directory.join(WAL_DIR_NAME), None),
        given => {
            let given = PathBuf::from(given);
            // this process would find its own lock
            let lock = if is_same(directory, &given) { None } else { lock(&given)? };
            (given, lock)
        }
    };
    let mut disk = disk::open_disk(DiskIo::Sync).map_err(|error| unchecked(error.to_string()))?;
    let (report, damages) =
        look(disk.as_mut(), directory, &wal_dir).map_err(|fault| unchecked(fault.to_string()))?;
    print!("{report}");
    for damage in &damages.list {
        println!("damage: {damage}");
    }
    if damages.count > DAMAGE_MAX as u64 {
        println!("damage: {} more of it", damages.count - DAMAGE_MAX as u64);
    }
    if damages.count == 0 {
        println!("no damage found");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} found", counted(damages.count, "piece of damage", "pieces of damage"));
    Ok(ExitCode::from(DAMAGED))
}

fn unchecked(text: String) -> Failure {
    Failure::new(UNCHECKED, text)
}

/// Keeps members out of a directory as long as it is held; makes no file. One without a lock file was never a member's since
/// its last copy.
fn lock(directory: &Path) -> Result<Option<File>, Failure> {
    let path = directory.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unchecked(format!("open {}: {error}", path.display()))),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(unchecked(format!("directory {} is in use by another process", directory.display())))
        }
        Err(TryLockError::Error(error)) => Err(unchecked(format!("lock {}: {error}", path.display()))),
    }
}

/// Looks through all there is; what it found, in words.
fn look(disk: &mut dyn Disk, directory: &Path, wal_dir: &Path) -> Result<(String, Damages), Fault> {
    let page_file = directory.join(PAGE_FILE_NAME);
    let (begun, owner) = (is_begun(wal_dir), owner_of(wal_dir)?);
    let mut damages = Damages::default();
    let mut text = String::new();
    if !page_file.exists() && !begun {
        let reason = "neither a page file nor a log: no data directory of coffer".to_owned();
        return Err(Fault::Unusable { path: directory.to_path_buf(), reason });
    }
    let progress = Progress::begin("checking pages");
    let file = match page_file.exists() {
        true => {
            let mut tell = |done, total| progress.set(done, total);
            let file = check_page_file(disk, &page_file, owner, &mut damages, &mut tell)?;
            describe_file(&mut text, &file);
            Some(file)
        }
        false => {
            // writing to a String does not fail
            let _ = writeln!(text, "page file        {}: none", page_file.display());
            None
        }
    };
    drop(progress);
    let applied = file.as_ref().and_then(|file| file.root.as_ref()).map_or(0, |root| root.standing.applied);
    if !begun && applied == 0 && damages.count == 0 {
        let wal_dir = wal_dir.display();
        let reason = format!("there is no log in {wal_dir}; if it lies elsewhere, --wal-dir names the place");
        return Err(Fault::Unusable { path: directory.to_path_buf(), reason });
    }
    let mut wal = WalReport { dir: wal_dir.to_path_buf(), ..WalReport::default() };
    // a log of which no header can be read is checked as the page file's
    let owner = owner.or(file.as_ref().and_then(|file| file.owner)).filter(|_| begun);
    if begun {
        let _working = Progress::begin_endless("checking the log");
        let options = WalOptions::new(wal_dir.to_path_buf(), owner.unwrap_or_default(), 0);
        wal = check_wal(disk, options, applied, &mut damages)?;
        if owner.is_none() {
            let text = "none of its headers can be read, and no page file says whose log it is";
            damages.add(wal_dir, None, text);
        }
    }
    describe_wal(&mut text, &wal, owner, begun);
    check_tie(&page_file, file.as_ref(), &wal, &mut damages);
    Ok((text, damages))
}

fn describe_file(text: &mut String, file: &PageFileReport) {
    let _ = writeln!(text, "page file        {} ({})", file.path.display(), bytes_text(file.file_bytes));
    for (offset, what) in &file.metas_damaged {
        let _ = writeln!(
            text,
            "  note           offset {offset}: {what}; a crash leaves it so, the next start repairs it"
        );
    }
    let Some(root) = &file.root else { return };
    let _ = writeln!(
        text,
        "  checkpoint     {}, transaction {}, entry {} of term {}",
        file.checkpoint, root.tx, root.standing.applied, root.standing.applied_term
    );
    let _ = writeln!(
        text,
        "  pages          {} used, {} of them read and whole, the last is {}",
        root.pages_used,
        file.pages_whole,
        root.pages_end.saturating_sub(1)
    );
    for (tree, summary) in &file.trees {
        let _ = writeln!(
            text,
            "  tree {:<10}{}, {}, {}, {}",
            format!("{tree:?}"),
            counted(summary.levels, "level", "levels"),
            counted(summary.branches, "branch", "branches"),
            counted(summary.leaves, "leaf", "leaves"),
            counted(summary.entries, "entry", "entries"),
        );
    }
    let (stands, sizes) = (position(&root.standing), sizes(root));
    let _ = writeln!(
        text,
        "  store          revision {}, compacted {}, {}, {}",
        stands.revision,
        stands.compacted,
        counted(sizes.keys, "key", "keys"),
        counted(sizes.leases, "lease", "leases")
    );
    let _ = writeln!(
        text,
        "  cluster        {:x}, {}, {}",
        root.cluster.cluster_id,
        counted(root.cluster.members.len() as u64, "member", "members"),
        counted(root.cluster.alarms.len() as u64, "alarm", "alarms")
    );
    let checked = if file.store_checked { "checked" } else { "not checked, because of what is damaged" };
    let _ = writeln!(text, "  versions       {checked}");
}

fn describe_wal(text: &mut String, wal: &WalReport, owner: Option<[u8; 16]>, begun: bool) {
    let _ = writeln!(text, "log              {}", wal.dir.display());
    let Some(owner) = owner else {
        let why = if begun { "unknown" } else { "none: there is no log" };
        let _ = writeln!(text, "  owner          {why}");
        return;
    };
    let both = u128::from_be_bytes(owner);
    let _ = writeln!(text, "  owner          member {:x} of cluster {:x}", both as u64, both >> 64);
    let entries = match wal.entries {
        Some((first, last)) => format!("{first} to {last}"),
        None => "none".to_owned(),
    };
    let _ = writeln!(
        text,
        "  entries        {entries}, in {}; term {}, commit {}",
        counted(wal.batches, "batch", "batches"),
        wal.hard_state.term,
        wal.hard_state.commit
    );
    for (path, offset, bytes) in &wal.torn {
        let _ = writeln!(
            text,
            "  note           {}, offset {offset}: an unfinished write of {bytes} bytes, which a crash leaves and the next \
             start cuts off",
            path.display()
        );
    }
}

/// A number with its noun.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
