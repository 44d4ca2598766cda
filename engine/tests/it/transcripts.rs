//! Transcripts: files of commands with the answers they must give, in `tests/scripts`. The language is in [`crate::script`].
//!
//! A line that begins with `>` is a command, the lines below it its answer; `#` begins a comment, and empty lines are kept.
//! `UPDATE_TRANSCRIPTS=1 cargo test -p coffer-engine transcript` writes the answers anew, to be reviewed as a diff.

use crate::script::Session;
use std::fs;
use std::path::PathBuf;

/// The file as it should be: its commands and comments, each command with the answer it gives now.
fn replay(text: &str) -> String {
    let mut session = Session::new();
    let mut out = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix('>') {
            out += &format!("{line}\n{}", session.run(command.trim()));
        } else if line.is_empty() || line.starts_with('#') {
            out += &format!("{line}\n");
        }
    }
    out
}

fn run(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let now = replay(&text);
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&path, now).unwrap();
        return;
    }
    let first = text.lines().zip(now.lines()).position(|(was, is)| was != is);
    let first = first.unwrap_or(text.lines().count().min(now.lines().count()));
    assert!(
        text == now,
        "{}: line {}: written {:?}, the store says {:?}",
        path.display(),
        first + 1,
        text.lines().nth(first),
        now.lines().nth(first)
    );
}

macro_rules! transcripts {
    ($($test:ident: $file:literal,)*) => { $(
        #[test]
        fn $test() {
            run($file);
        }
    )* };
}

transcripts! {
    transcript_of_puts_and_deletes_and_their_revisions: "put_delete.txt",
    transcript_of_every_range_option: "range.txt",
    transcript_of_txns: "txn.txt",
    transcript_of_compaction: "compact.txt",
    transcript_of_compaction_of_an_empty_store: "compact_empty.txt",
    transcript_of_leases_and_their_clock: "lease.txt",
    transcript_of_events_and_history: "history.txt",
    transcript_of_hashes: "hash.txt",
    transcript_of_alarms_and_members: "cluster.txt",
}

#[test]
fn a_wrong_transcript_fails() {
    assert_ne!(replay("> put a 1\nrev 3\n"), "> put a 1\nrev 3\n");
    assert_eq!(replay("> put a 1\nrev 3\n"), "> put a 1\nrev 2\n");
}

#[test]
fn every_transcript_is_run() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let here = include_str!("transcripts.rs");
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(here.contains(&format!("\"{name}\"")), "{name} is not run");
    }
}
