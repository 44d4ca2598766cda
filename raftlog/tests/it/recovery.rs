//! What must hold before raft starts, on logs as crashes and damage leave them.

use crate::support::{bootstrap, put};
use bytes::Bytes;
use coffer_engine::command::Stamped;
use coffer_engine::error::Fault;
use coffer_engine::store::Store;
use coffer_engine::wal::{EntryKind, HardState, LogEntry, RecoveredBatch};
use coffer_raftlog::error::Error;
use coffer_raftlog::recovery::Replay;
use coffer_raftlog::storage::LogView;

const CLUSTER: u64 = 5;

fn entry(index: u64, term: u64, data: Vec<u8>) -> LogEntry {
    LogEntry { index, term, kind: EntryKind::Normal, data: data.into() }
}

fn write(index: u64, term: u64) -> LogEntry {
    let stamped = Stamped { clock_ms: index, command: put(&format!("k{index}"), &format!("t{term}")) };
    entry(index, term, stamped.encode().unwrap())
}

fn first() -> RecoveredBatch {
    batch((1, 0, 1), vec![entry(1, 1, bootstrap(CLUSTER, &[1]).encode().unwrap())])
}

fn batch((term, vote, commit): (u64, u64, u64), entries: Vec<LogEntry>) -> RecoveredBatch {
    RecoveredBatch { hard_state: HardState { term, vote, commit }, entries, checkpoint: (0, 0) }
}

fn replay(batches: Vec<RecoveredBatch>) -> Result<(Store, LogView), Error> {
    let mut replay = Replay::new(Store::new(), 0);
    for batch in batches {
        if replay.visit(batch).is_err() {
            break;
        }
    }
    replay.finish(0)
}

fn error(batches: Vec<RecoveredBatch>) -> Error {
    match replay(batches) {
        Ok(_) => panic!("it recovered"),
        Err(error) => error,
    }
}

#[test]
fn what_is_known_committed_is_applied_and_the_rest_stays_in_the_view() {
    let (store, view) = replay(vec![
        first(),
        batch((2, 1, 1), vec![write(2, 2), write(3, 2)]),
        batch((2, 1, 3), vec![write(4, 2)]),
    ])
    .unwrap();
    assert_eq!(store.applied(), 3);
    assert_eq!((view.applied(), view.last(), view.base()), (3, 4, 3));
    assert_eq!(view.term_at(4), Some(2));
    assert_eq!(store.reader().position().applied_term, 2);
}

#[test]
fn a_tail_that_is_not_committed_may_be_replaced() {
    let (store, view) = replay(vec![
        first(),
        batch((2, 1, 1), vec![write(2, 2), write(3, 2), write(4, 2)]),
        batch((3, 2, 2), vec![write(3, 3)]),
        batch((3, 2, 3), vec![]),
    ])
    .unwrap();
    assert_eq!((store.applied(), view.last()), (3, 3));
    assert_eq!(view.term_at(3), Some(3));
}

#[test]
fn a_batch_may_replace_an_entry_and_say_that_the_new_one_is_committed() {
    let batches = vec![first(), batch((2, 1, 1), vec![write(2, 2)]), batch((3, 2, 2), vec![write(2, 3)])];
    let (store, view) = replay(batches).unwrap();
    assert_eq!((store.applied(), view.term_at(2)), (2, Some(3)));
}

#[test]
fn a_log_that_ends_before_its_commit_index_names_the_missing_entries() {
    let lost = error(vec![first(), batch((2, 1, 7), vec![write(2, 2)])]);
    assert!(matches!(lost, Error::EntriesMissing { first: 3, last: 7, .. }), "{lost}");
    assert!(lost.to_string().contains("entries 3 to 7"), "{lost}");
}

#[test]
fn a_gap_in_the_log_names_the_missing_entries() {
    let lost = error(vec![first(), batch((2, 1, 1), vec![write(2, 2)]), batch((2, 1, 2), vec![write(5, 2)])]);
    assert!(matches!(lost, Error::EntriesMissing { first: 3, last: 4, .. }), "{lost}");
}

#[test]
fn an_empty_log_that_says_something_was_committed_is_refused() {
    let lost = error(vec![batch((3, 1, 9), vec![])]);
    assert!(matches!(lost, Error::EntriesMissing { first: 1, last: 9, .. }), "{lost}");
}

#[test]
fn a_committed_entry_is_never_replaced() {
    let refused = error(vec![
        first(),
        batch((2, 1, 3), vec![write(2, 2), write(3, 2)]),
        batch((3, 1, 3), vec![write(3, 3)]),
    ]);
    assert!(matches!(refused, Error::Unusable(_)), "{refused}");
    assert!(refused.to_string().contains("entry 3"), "{refused}");
}

#[test]
fn a_term_that_falls_is_refused() {
    let refused = error(vec![first(), batch((4, 1, 1), vec![write(2, 4)]), batch((3, 1, 1), vec![])]);
    assert!(refused.to_string().contains("falls from 4 to 3"), "{refused}");
    let refused = error(vec![first(), batch((4, 1, 1), vec![write(2, 4), write(3, 3)])]);
    assert!(refused.to_string().contains("entry 3"), "{refused}");
}

#[test]
fn an_entry_newer_than_the_term_that_is_remembered_is_refused() {
    let refused = error(vec![first(), batch((2, 1, 1), vec![write(2, 3)])]);
    assert!(matches!(refused, Error::Unusable(_)), "{refused}");
}

#[test]
fn an_entry_that_is_no_command_stops_the_member_and_is_named() {
    let refused = error(vec![first(), batch((2, 1, 2), vec![entry(2, 2, b"nonsense".to_vec())])]);
    assert!(refused.to_string().contains("entry 2"), "{refused}");
}

#[test]
fn a_change_of_members_is_refused_visibly() {
    let change = LogEntry { kind: EntryKind::ConfChange, ..entry(2, 2, vec![]) };
    let refused = error(vec![first(), batch((2, 1, 2), vec![change])]);
    assert!(refused.to_string().contains("members"), "{refused}");
}

#[test]
fn a_log_whose_first_command_is_missing_is_refused() {
    let refused = error(vec![batch((1, 0, 1), vec![write(1, 1)])]);
    assert!(refused.to_string().contains("votes"), "{refused}");
}

#[test]
fn memory_holds_what_is_not_applied_and_not_the_log() {
    let mut replay = Replay::new(Store::new(), 0);
    replay.visit(first()).unwrap();
    for index in 2..20_000u64 {
        replay.visit(batch((2, 1, index - 1), vec![write(index, 2)])).unwrap();
        assert!(
            replay.view().last() - replay.view().base() <= 2 * 512 + 100,
            "the view keeps what is applied"
        );
    }
    let (store, _) = replay.finish(0).unwrap();
    assert_eq!(store.applied(), 19_998);
}

#[test]
fn the_visit_ends_at_the_first_wrong_batch() {
    let mut replay = Replay::new(Store::new(), 0);
    let wrong = replay.visit(batch((1, 0, 1), vec![entry(4, 1, Bytes::new().to_vec())]));
    assert!(matches!(wrong, Err(Fault::Stopped)));
    assert!(matches!(replay.finish(0), Err(Error::EntriesMissing { first: 1, last: 3, .. })));
}
