//! The commands of a log, one a line: `cargo run -p coffer-engine --example log_entries DIR/wal [--all]`.
//!
//! For whoever wants to know what a member was told, or to replay it elsewhere. The log is read as an opening reads it, and not
//! changed; what it says is committed is told, from the first entry that it still has. With `--all` what comes behind is told, too: a
//! member that is alone commits all that is durable, and says so in the log with the next entry. Keys and values are in hexadecimal, `-` where
//! empty:
//!
//! ```text
//! INDEX TERM put KEY VALUE LEASE
//! INDEX TERM delete KEY END
//! INDEX TERM grant ID | revoke ID | compact REVISION
//! INDEX TERM txn, then a line for each part, then an "end"
//!     if version|create|mod|lease KEY =|>|<|! NUMBER    if value KEY =|>|<|! VALUE
//!     then|else put KEY VALUE LEASE    then|else delete KEY END    then|else range KEY END LIMIT    then|else txn
//! INDEX TERM other
//! ```

use coffer_engine::command::{Command, Compare, CompareResult, CompareTarget, Stamped, TxnOp, TxnRequest};
use coffer_engine::disk::{DiskIo, open_disk};
use coffer_engine::mvcc::KeyRange;
use coffer_engine::wal::{EntryKind, LogEntry, Wal, WalOptions, owner_of};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: log_entries DIR/wal")?);
    let owner = owner_of(&dir)?.ok_or("there is no log")?;
    let mut disk = open_disk(DiskIo::Sync)?;
    let mut entries: Vec<LogEntry> = Vec::new();
    let opened = Wal::read(disk.as_mut(), WalOptions::new(dir, owner, 0), &mut |batch| {
        for entry in batch.entries {
            // one that comes again replaces all from there on
            let kept = entries.partition_point(|before| before.index < entry.index);
            entries.truncate(kept);
            entries.push(entry);
        }
        Ok(())
    })?;
    let last = match std::env::args_os().nth(2) {
        Some(all) if all == "--all" => u64::MAX,
        _ => opened.hard_state.commit,
    };
    let mut out = std::io::stdout().lock();
    for entry in entries.iter().take_while(|entry| entry.index <= last) {
        writeln!(out, "{} {} {}", entry.index, entry.term, told(entry)?)?;
    }
    Ok(())
}

fn told(entry: &LogEntry) -> Result<String, Box<dyn std::error::Error>> {
    if entry.kind != EntryKind::Normal || entry.data.is_empty() {
        return Ok("other".to_owned());
    }
    Ok(match Stamped::decode(&entry.data)?.command {
        Command::Put(put) => format!("put {} {} {}", hex(&put.key), hex(&put.value), put.lease),
        Command::DeleteRange(delete) => format!("delete {}", range(&delete.range)),
        Command::Compact { revision } => format!("compact {revision}"),
        Command::LeaseGrant { id, .. } => format!("grant {id}"),
        Command::LeaseRevoke { id } | Command::LeaseExpire { id } => format!("revoke {id}"),
        Command::Txn(txn) => {
            let mut text = "txn\n".to_owned();
            parts(&mut text, &txn)?;
            text + "end"
        }
        _ => "other".to_owned(),
    })
}

fn parts(text: &mut String, txn: &TxnRequest) -> Result<(), std::fmt::Error> {
    for compare in &txn.compares {
        writeln!(text, "if {}", condition(compare))?;
    }
    for (branch, ops) in [("then", &txn.success), ("else", &txn.failure)] {
        for op in ops {
            match op {
                TxnOp::Put(put) => {
                    writeln!(text, "{branch} put {} {} {}", hex(&put.key), hex(&put.value), put.lease)?;
                }
                TxnOp::DeleteRange(delete) => writeln!(text, "{branch} delete {}", range(&delete.range))?,
                TxnOp::Range(read) => writeln!(text, "{branch} range {} {}", range(&read.range), read.limit)?,
                TxnOp::Txn(_) => writeln!(text, "{branch} txn")?,
            }
        }
    }
    Ok(())
}

fn condition(compare: &Compare) -> String {
    let result = match compare.result {
        CompareResult::Equal => '=',
        CompareResult::Greater => '>',
        CompareResult::Less => '<',
        CompareResult::NotEqual => '!',
    };
    let (target, with) = match &compare.target {
        CompareTarget::Version(version) => ("version", version.to_string()),
        CompareTarget::CreateRevision(revision) => ("create", revision.to_string()),
        CompareTarget::ModRevision(revision) => ("mod", revision.to_string()),
        CompareTarget::Lease(lease) => ("lease", lease.to_string()),
        CompareTarget::Value(value) => ("value", hex(value)),
    };
    format!("{target} {} {result} {with}", hex(&compare.range.key))
}

fn range(range: &KeyRange) -> String {
    format!("{} {}", hex(&range.key), hex(&range.range_end))
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // writing to a String does not fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}
