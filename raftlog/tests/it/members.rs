//! Three of the shipped members in one thread.

use crate::support::long;
use coffer_raftlog::sim::workload::{Report, WorkloadOptions, run};

/// Seeds of the default run, of which every [`REPEATED`]-th is run a second time.
const SEEDS: u64 = 200;
const REPEATED: u64 = 5;
/// Seeds of the long run, every one of which is run twice.
const SEEDS_LONG: u64 = 1_000;

#[test]
fn three_members_elect_a_leader_and_commit_a_thousand_entries_through_crashes_and_a_bad_network() {
    let seeds = if long() { SEEDS_LONG } else { SEEDS };
    let mut all = Report::default();
    let only = std::env::var("COFFER_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let options = WorkloadOptions::three_members(seed);
        let report = run(&options).unwrap_or_else(|wrong| panic!("{wrong}"));
        if long() || seed.is_multiple_of(REPEATED) {
            let again = run(&options).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(report, again, "seed {seed} did not repeat");
        }
        assert!(report.acknowledged >= 1_000);
        println!("{report}");
        all.add(&report);
    }
    println!("{seeds} seeds in all: {all}");
    assert!(only.is_some() || all.crashes > seeds && all.leaders as u64 > seeds, "the faults did not happen");
    let work = all.page_work;
    let enough = work.checkpoints > 10 * seeds && work.spilled > seeds && work.from_pages > seeds;
    assert!(only.is_some() || enough, "the page files were not at work: {work:?}");
}
