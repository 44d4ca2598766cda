//! Any bytes as the segments of a log: reading them never panics, and what is accepted hangs together.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let remembered = coffer_engine::wal::fuzz::read(bytes);
    // behind segment headers and batch heads: a log that is accepted and remembers a vote for another member
    if cfg!(planted) && remembered.is_some_and(|hard_state| hard_state.vote > 1) {
        panic!("planted panic");
    }
});
