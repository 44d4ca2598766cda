//! The driver alone: what it holds back, what it refuses, and when it campaigns.

use bytes::Bytes;
use coffer_engine::wal::HardState;
use coffer_raftlog::driver::{Driver, DriverOptions};
use coffer_raftlog::ready::Work;
use coffer_raftlog::storage::LogView;
use coffer_raftlog::transport::{self, Envelope, Refused};
use raft::eraftpb::{ConfState, Entry, Message, MessageType};

const CLUSTER: u64 = 77;
const LOG_BYTES: u64 = 1 << 20;

fn driver(voters: &[u64], last: u64) -> Driver {
    driver_with(voters, &[], last)
}

fn driver_with(voters: &[u64], learners: &[u64], last: u64) -> Driver {
    let mut view = LogView::new(1, 1, 1 << 20);
    for index in 2..=last {
        view.append(Entry { index, term: 1, data: Bytes::from_static(b"x"), ..Entry::default() }).unwrap();
    }
    let conf = ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() };
    view.set_initial_state(HardState { term: 1, vote: 0, commit: 1 }, conf);
    let options = DriverOptions {
        member_id: 1,
        cluster_id: CLUSTER,
        election_ticks: 10,
        seed: 5,
        log_bytes_max: LOG_BYTES,
    };
    Driver::new(view, options).unwrap()
}

fn from_two(kind: MessageType, term: u64) -> Message {
    Message { msg_type: kind, from: 2, to: 1, term, ..Message::default() }
}

fn append(term: u64, index: u64, log_term: u64, count: u64, commit: u64) -> Message {
    let entries = (1..=count)
        .map(|nth| Entry { index: index + nth, term, data: Bytes::from_static(b"y"), ..Entry::default() })
        .collect::<Vec<_>>();
    Message { index, log_term, commit, entries: entries.into(), ..from_two(MessageType::MsgAppend, term) }
}

fn decoded(envelope: &Envelope) -> Message {
    transport::decode(CLUSTER, envelope.to, envelope.bytes.clone()).unwrap()
}

fn all_ready(driver: &mut Driver, out: &mut Vec<Envelope>) -> Vec<Work> {
    let mut works = Vec::new();
    while let Some(work) = driver.ready(out).unwrap() {
        works.push(work);
    }
    works
}

fn newest(works: &[Work]) -> u64 {
    works.iter().filter_map(|work| work.to_persist.as_ref()).map(|batch| batch.number).max().unwrap()
}

/// Ticks until the driver sends something, and gives the number of ticks.
fn tick_to_campaign(driver: &mut Driver) -> u64 {
    (1..100)
        .find(|_| {
            driver.tick();
            driver.has_ready()
        })
        .unwrap()
}

#[test]
fn a_vote_is_not_sent_before_it_is_durable() {
    let mut driver = driver(&[1, 2, 3], 1);
    let mut out = Vec::new();
    let request = Message { index: 5, log_term: 2, ..from_two(MessageType::MsgRequestVote, 3) };
    driver.step(request).unwrap();
    let works = all_ready(&mut driver, &mut out);
    assert!(out.is_empty(), "the vote left before term and vote were durable");
    let batch = works[0].to_persist.as_ref().unwrap();
    assert_eq!((batch.hard_state.term, batch.hard_state.vote), (3, 2));
    driver.persisted(batch.number, &mut out);
    assert_eq!(out.len(), 1);
    let vote = decoded(&out[0]);
    assert_eq!(
        (vote.get_msg_type(), vote.reject, vote.term),
        (MessageType::MsgRequestVoteResponse, false, 3)
    );
}

#[test]
fn an_append_is_not_answered_before_its_entries_are_durable() {
    let mut driver = driver(&[1, 2, 3], 1);
    let mut out = Vec::new();
    driver.step(append(2, 1, 1, 3, 1)).unwrap();
    let first = all_ready(&mut driver, &mut out);
    driver.step(append(2, 4, 2, 2, 4)).unwrap();
    let second = all_ready(&mut driver, &mut out);
    assert!(out.is_empty());
    driver.persisted(newest(&first), &mut out);
    assert_eq!(out.iter().map(|e| decoded(e).index).collect::<Vec<_>>(), [4]);
    driver.persisted(newest(&second), &mut out);
    assert_eq!(out.iter().map(|e| decoded(e).index).collect::<Vec<_>>(), [4, 6]);
}

/// Elects member 1 of three and gives the driver with everything durable.
fn elected(out: &mut Vec<Envelope>) -> Driver {
    let mut driver = driver(&[1, 2, 3], 1);
    tick_to_campaign(&mut driver);
    all_ready(&mut driver, out);
    driver.step(from_two(MessageType::MsgRequestPreVoteResponse, 2)).unwrap();
    let works = all_ready(&mut driver, out);
    driver.persisted(newest(&works), out);
    driver.step(from_two(MessageType::MsgRequestVoteResponse, 2)).unwrap();
    assert!(driver.standing().leads);
    driver
}

#[test]
fn a_candidate_asks_for_votes_only_once_its_own_is_durable() {
    let mut driver = driver(&[1, 2, 3], 1);
    let mut out = Vec::new();
    tick_to_campaign(&mut driver);
    all_ready(&mut driver, &mut out);
    // a pre-vote promises nothing and changes nothing durable
    assert!(out.iter().all(|e| decoded(e).get_msg_type() == MessageType::MsgRequestPreVote));
    out.clear();
    driver.step(from_two(MessageType::MsgRequestPreVoteResponse, 2)).unwrap();
    let works = all_ready(&mut driver, &mut out);
    assert!(out.is_empty(), "a request for votes left before the candidate's own vote was durable");
    driver.persisted(newest(&works), &mut out);
    assert_eq!(out.len(), 2);
    assert!(out.iter().all(|e| decoded(e).get_msg_type() == MessageType::MsgRequestVote));
}

#[test]
fn a_leader_sends_entries_before_they_are_durable_and_applies_them_after() {
    let mut out = Vec::new();
    let mut driver = elected(&mut out);
    out.clear();
    let works = all_ready(&mut driver, &mut out);
    assert_eq!(out.iter().filter(|e| decoded(e).entries.len() == 1).count(), 2);
    let number = newest(&works);
    out.clear();
    let answer = Message { index: 2, ..from_two(MessageType::MsgAppendResponse, 2) };
    driver.step(answer).unwrap();
    let before = all_ready(&mut driver, &mut out);
    assert!(
        before.iter().all(|work| work.committed.is_empty()),
        "an entry was handed on before its own sync"
    );
    driver.persisted(number, &mut out);
    let after = all_ready(&mut driver, &mut out);
    let committed: Vec<u64> =
        after.iter().flat_map(|work| &work.committed).map(|entry| entry.index).collect();
    assert_eq!(committed, [2]);
}

#[test]
fn a_sole_voter_wins_at_once_and_applies_nothing_before_its_term_is_durable() {
    let mut driver = driver(&[1], 1);
    assert!(driver.standing().leads);
    let mut out = Vec::new();
    let works = all_ready(&mut driver, &mut out);
    let batch = works[0].to_persist.as_ref().unwrap();
    assert_eq!((batch.hard_state.term, batch.hard_state.vote, batch.entries.len()), (2, 1, 1));
    assert!(works.iter().all(|work| work.committed.is_empty()));
    assert!(!driver.leads_and_applied_own_term());
    driver.persisted(batch.number, &mut out);
    let works = all_ready(&mut driver, &mut out);
    assert_eq!(works.iter().flat_map(|work| &work.committed).count(), 1);
    driver.applied(2);
    assert!(driver.leads_and_applied_own_term());
}

#[test]
fn a_sole_voter_sends_nothing_in_a_term_that_is_not_durable_yet() {
    let mut driver = driver_with(&[1], &[2], 1);
    let mut out = Vec::new();
    let works = all_ready(&mut driver, &mut out);
    assert!(driver.standing().leads);
    assert!(out.is_empty(), "a leader spoke in a term that it may forget");
    driver.tick();
    all_ready(&mut driver, &mut out);
    assert!(out.is_empty(), "a heartbeat left in a term that is not durable");
    driver.persisted(newest(&works), &mut out);
    assert!(out.iter().all(|envelope| envelope.to == 2 && decoded(envelope).term == 2));
    assert!(out.len() >= 2);
    // from now on entries go out before they are durable
    out.clear();
    let answer = Message { index: 1, ..from_two(MessageType::MsgAppendResponse, 2) };
    driver.step(answer).unwrap();
    driver.propose(vec![Entry { data: Bytes::from_static(b"z"), ..Entry::default() }]).unwrap();
    all_ready(&mut driver, &mut out);
    assert!(out.iter().any(|envelope| !decoded(envelope).entries.is_empty()));
}

#[test]
fn a_heartbeat_that_commits_more_than_the_log_holds_is_refused() {
    let mut driver = driver(&[1, 2, 3], 4);
    let heartbeat = |commit| Message { commit, ..from_two(MessageType::MsgHeartbeat, 2) };
    assert_eq!(driver.step(heartbeat(5)), Err(Refused::BeyondLog));
    driver.step(heartbeat(4)).unwrap();
    assert_eq!(driver.standing().commit, 4);
}

#[test]
fn an_append_response_beyond_the_leaders_log_is_refused() {
    let mut driver = elected(&mut Vec::new());
    let answer = |index| Message { index, ..from_two(MessageType::MsgAppendResponse, 2) };
    assert_eq!(driver.step(answer(3)), Err(Refused::BeyondLog));
    driver.step(answer(2)).unwrap();
}

#[test]
fn a_late_answer_to_one_that_led_and_came_back_is_harmless() {
    let mut driver = driver(&[1, 2, 3], 4);
    driver.step(Message { index: 9, ..from_two(MessageType::MsgAppendResponse, 1) }).unwrap();
    assert_eq!(driver.standing().commit, 1);
}

#[test]
fn a_stranger_is_not_heard() {
    let mut driver = driver(&[1, 2, 3], 1);
    let vote = Message { from: 9, index: 5, log_term: 2, ..from_two(MessageType::MsgRequestVote, 3) };
    assert_eq!(driver.step(vote), Err(Refused::Address));
}

#[test]
fn an_append_behind_an_entry_that_is_not_here_is_rejected_and_one_below_the_commit_index_harms_nothing() {
    let mut driver = driver(&[1, 2, 3], 4);
    let mut out = Vec::new();
    driver.step(append(2, 9, 2, 3, 4)).unwrap();
    let works = all_ready(&mut driver, &mut out);
    driver.persisted(newest(&works), &mut out);
    let answer = decoded(&out[0]);
    assert!(answer.reject);
    assert_eq!(driver.standing().last, 4);
    driver.step(append(2, 4, 1, 1, 4)).unwrap();
    assert_eq!(driver.standing().commit, 4);
    // another history below the commit index: answered without a look at it
    driver.step(append(2, 1, 1, 3, 4)).unwrap();
    assert_eq!(driver.standing().last, 5);
}

#[test]
fn appends_are_not_taken_while_too_much_waits_to_be_applied() {
    let mut driver = driver(&[1, 2, 3], 1);
    let big = |index: u64| {
        let entry = Entry { index: index + 1, term: 2, data: vec![0; 700_000].into(), ..Entry::default() };
        let log_term = if index == 1 { 1 } else { 2 };
        let entries = vec![entry].into();
        Message { index, log_term, commit: 1, entries, ..from_two(MessageType::MsgAppend, 2) }
    };
    driver.step(big(1)).unwrap();
    driver.step(big(2)).unwrap();
    assert_eq!(driver.step(big(3)), Err(Refused::Full));
    driver.step(from_two(MessageType::MsgHeartbeat, 2)).unwrap();
}

#[test]
fn the_time_to_a_campaign_depends_on_seed_member_term_and_campaigns_alone() {
    let ticks = || {
        let mut driver = driver(&[1, 2, 3], 1);
        let mut out = Vec::new();
        (0..6)
            .map(|_| {
                let ticks = tick_to_campaign(&mut driver);
                all_ready(&mut driver, &mut out);
                ticks
            })
            .collect::<Vec<_>>()
    };
    let first = ticks();
    assert!(first.iter().all(|ticks| (10..20).contains(ticks)), "{first:?}");
    assert!(first.iter().any(|ticks| *ticks != first[0]), "every campaign waits alike: {first:?}");
    assert!((0..5).all(|_| ticks() == first));
}

#[test]
fn a_long_append_is_sent_in_pieces_that_follow_one_another() {
    let mut out = Vec::new();
    let mut driver = elected(&mut out);
    let works = all_ready(&mut driver, &mut out);
    driver.persisted(newest(&works), &mut out);
    let answer = Message { index: 2, ..from_two(MessageType::MsgAppendResponse, 2) };
    driver.step(answer).unwrap();
    all_ready(&mut driver, &mut out);
    out.clear();
    let entries: Vec<Entry> =
        (0..20).map(|_| Entry { data: vec![1; 100_000].into(), ..Entry::default() }).collect();
    driver.propose(entries).unwrap();
    all_ready(&mut driver, &mut out);
    // raft-rs sends one append of its own accord; all the rest follows its answer, batched into one
    let answer = Message { index: 4, ..from_two(MessageType::MsgAppendResponse, 2) };
    driver.step(answer).unwrap();
    all_ready(&mut driver, &mut out);
    let pieces: Vec<Message> = out.iter().filter(|e| e.to == 2).map(decoded).collect();
    assert!(pieces.len() > 5, "{}", pieces.len());
    let mut behind = (2, 2);
    for piece in &pieces {
        assert_eq!((piece.index, piece.log_term), behind);
        let last = piece.entries.last().unwrap();
        behind = (last.index, last.term);
        assert!(piece.entries.iter().map(|e| e.data.len()).sum::<usize>() <= 300_000);
    }
    assert_eq!(behind, (22, 2));
}
