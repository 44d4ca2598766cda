//! `trees`: the same work on coffer's engine, on LMDB and on redb, on one machine in one run.
//!
//! ```text
//! trees [--keys N] [--overwrites N] [--gets N] [--dir DIR] [NAME ...]
//! ```
//!
//! | work | what it is |
//! |---|---|
//! | load | all keys in random order, 100 to a transaction |
//! | overwrite | random keys, 100 to a transaction |
//! | get | random keys; each in a read transaction of its own, then 100 to a transaction |
//! | scan | all keys in order |
//! | count | keys of the prefix that all share, by what the peer offers |
//!
//! Keys have 16 bytes, values 100. Nobody syncs: what is compared are the trees, not the disks. Whoever can leave the
//! writing to the system does; so files should lie in memory (`--dir /dev/shm`) or on a disk that is otherwise idle.
//!
//! | name | what it is |
//! |---|---|
//! | `tree` | coffer's B+tree over its pager in memory, one publish for each transaction |
//! | `store` | coffer's store: every put makes a revision, all history is kept; scanned in pages of 1,000 keys |
//! | `store-compact` | the same, compacted after every 100,000 puts to the last 100,000 revisions |
//! | `lmdb` | LMDB with WRITEMAP, NOSYNC, NOMETASYNC: stores to memory |
//! | `lmdb-pwrite` | the same without WRITEMAP: a transaction's pages are written to the file |
//! | `redb-none` | redb with Durability::None and a durable commit after every 100 transactions, so that it can reuse pages |
//! | `redb` | redb with Durability::Immediate |
//!
//! redb's file leaves its syncs out. For each work it prints time and CPU (of the process) for one key; the fastest peers
//! spend most of it waiting for memory, so figures move with whatever else the machine does.

mod coffer_store;
mod coffer_tree;
mod lmdb;
mod redb_peer;
mod work;

use std::path::{Path, PathBuf};
use std::{env, process};
use work::{Peer, Plan};

const NAMES: [&str; 7] = ["tree", "store", "store-compact", "lmdb", "lmdb-pwrite", "redb-none", "redb"];

fn open(name: &str, dir: &Path) -> Box<dyn Peer> {
    match name {
        "tree" => Box::new(coffer_tree::Tree::new()),
        "store" => Box::new(coffer_store::StorePeer::new(false)),
        "store-compact" => Box::new(coffer_store::StorePeer::new(true)),
        "lmdb" => Box::new(lmdb::Lmdb::new(dir, true)),
        "lmdb-pwrite" => Box::new(lmdb::Lmdb::new(dir, false)),
        "redb-none" => Box::new(redb_peer::Redb::new(dir, false)),
        "redb" => Box::new(redb_peer::Redb::new(dir, true)),
        _ => usage(&format!("no peer is called {name}")),
    }
}

fn usage(wrong: &str) -> ! {
    eprintln!("trees: {wrong}\nusage: trees [--keys N] [--overwrites N] [--gets N] [--dir DIR] [NAME ...]");
    eprintln!("names: {}", NAMES.join(" "));
    process::exit(2)
}

fn main() {
    let mut plan = Plan { keys: 1_000_000, overwrites: 1_000_000, gets: 1_000_000 };
    let mut dir = env::temp_dir();
    let mut names: Vec<String> = Vec::new();
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
        let number = |text: String| text.parse().unwrap_or_else(|_| usage(&format!("{text} is no number")));
        match word.as_str() {
            "--keys" => plan.keys = number(value()),
            "--overwrites" => plan.overwrites = number(value()),
            "--gets" => plan.gets = number(value()),
            "--dir" => dir = PathBuf::from(value()),
            name if NAMES.contains(&name) => names.push(word),
            _ => usage(&format!("{word} is not known")),
        }
    }
    if plan.keys == 0 {
        usage("--keys must be at least 1");
    }
    if names.is_empty() {
        names = NAMES.map(String::from).to_vec();
    }
    work::print_head(&plan);
    for name in names {
        let place = tempfile::Builder::new().prefix("coffer-trees-").tempdir_in(&dir);
        let place = place.unwrap_or_else(|error| usage(&format!("{}: {error}", dir.display())));
        let mut peer = open(&name, place.path());
        work::run(&name, peer.as_mut(), &plan);
    }
}
