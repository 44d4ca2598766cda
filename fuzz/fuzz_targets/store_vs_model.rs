//! Any bytes as commands, turns of the disk, failures, crashes and starts: a store over a page file beside the model.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let outcome = coffer_engine::mvcc::fuzz::run(bytes);
    // no seed crashes twice in the middle of compaction's walk
    if cfg!(planted) && outcome.starts_in_compaction > 1 {
        panic!("planted panic");
    }
});
