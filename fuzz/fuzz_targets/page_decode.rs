//! Any bytes over the pages of a small page file, or of a tree alone: opening, checking and reading never panic and end,
//! and what they find whole works.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // the first byte says which
    if let [128..=255, rest @ ..] = bytes {
        coffer_engine::btree::fuzz::run(rest);
        return;
    }
    let standing = coffer_engine::pager::fuzz::run(bytes);
    // behind metas, bitmap and trees: a file that is whole and says another lease clock than the seeds
    if cfg!(planted) && standing.is_some_and(|standing| standing.clock_ms > 1000) {
        panic!("planted panic");
    }
});
