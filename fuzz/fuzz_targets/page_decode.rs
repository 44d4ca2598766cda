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
    #[cfg(planted)]
    planted(standing);
    #[cfg(not(planted))]
    let _ = standing;
});

/// Behind metas, bitmap and trees: a file that is whole and says that it stands elsewhere than the sample.
#[cfg(planted)]
fn planted(standing: Option<coffer_engine::pager::root::Standing>) {
    use std::sync::OnceLock;
    static SAMPLE: OnceLock<String> = OnceLock::new();
    let told = |standing| format!("{standing:?}");
    let sample = SAMPLE.get_or_init(|| told(coffer_engine::pager::fuzz::run(&[])));
    assert!(standing.is_none() || told(standing) == *sample, "planted panic");
}
