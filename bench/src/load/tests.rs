//! Each work against a member in this process: what was counted is what the store has been asked for.

use super::drive::Measured;
use super::*;
use coffer_server::config::{self, Start};
use coffer_server::member::Member;

/// A member on a port that the system picks.
struct TestMember {
    member: Option<Member>,
    endpoint: String,
    _directory: tempfile::TempDir,
}

impl TestMember {
    fn start() -> TestMember {
        let directory = tempfile::tempdir().unwrap();
        let flags = [
            format!("--data-dir={}", directory.path().join("data").display()),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:0".to_owned(),
        ];
        let Start::Run(config) = config::load(flags, Vec::new()).unwrap() else { panic!("not asked to run") };
        let on_fault = Box::new(|error| panic!("the member met a fault: {error}"));
        let member = Member::start(*config, on_fault).unwrap();
        let endpoint = member.addresses()[0].to_string();
        TestMember { member: Some(member), endpoint, _directory: directory }
    }

    /// A small run.
    fn options(&self, work: Work) -> LoadOptions {
        LoadOptions {
            endpoints: vec![self.endpoint.clone()],
            work,
            connections: 2,
            clients: 8,
            keys: 100,
            requests: Some(300),
            ..LoadOptions::default()
        }
    }

    fn fill(&self) {
        let filled = measure(&self.options(Work::Fill)).unwrap();
        assert_eq!(filled.puts.len(), 100);
    }
}

impl Drop for TestMember {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            member.stop();
        }
    }
}

/// Puts, ranges, leases and events.
fn counts(measured: &Measured) -> [u64; 4] {
    [measured.puts.len(), measured.ranges.len(), measured.leases.len(), measured.events.len()]
}

#[test]
fn both_clients_do_each_work_as_often_as_asked() {
    let member = TestMember::start();
    member.fill();
    for client in [Client::Tonic, Client::H2] {
        for (work, expected, kvs) in [
            (Work::Fill, [100, 0, 0, 0], 0),
            (Work::Put, [300, 0, 0, 0], 0),
            (Work::Txn, [300, 0, 0, 0], 0),
            (Work::Range, [0, 300, 0, 0], 300),
            (Work::Serializable, [0, 300, 0, 0], 300),
            (Work::Count, [0, 300, 0, 0], 0),
            (Work::LeaseGrant, [0, 0, 300, 0], 0),
        ] {
            let measured = measure(&LoadOptions { client, ..member.options(work) }).unwrap();
            assert_eq!((counts(&measured), measured.kvs), (expected, kvs), "{client:?} {work:?}");
        }
        let mixed =
            measure(&LoadOptions { client, range_percent: 100, ..member.options(Work::Mixed) }).unwrap();
        assert_eq!(counts(&mixed), [0, 300, 0, 0]);
        let rated = LoadOptions { client, rate: Some(10_000.0), ..member.options(Work::Mixed) };
        let rated = measure(&rated).unwrap();
        assert_eq!(rated.puts.len() + rated.ranges.len(), 300);
        assert!(!rated.puts.is_empty() && !rated.ranges.is_empty());
    }
}

#[test]
fn pages_and_lists_return_the_keys_that_there_are() {
    let member = TestMember::start();
    member.fill();
    // 100 keys: 14 pages of 7 and one of 2, three times over
    let pages = LoadOptions { limit: 7, clients: 1, requests: Some(45), ..member.options(Work::Page) };
    assert_eq!(measure(&pages).unwrap().kvs, 300);
    for pinned in [false, true] {
        // from key i on there are 100 - i
        let distribution = Distribution::Sequential;
        let list = LoadOptions { pinned, distribution, requests: Some(100), ..member.options(Work::List) };
        assert_eq!(measure(&list).unwrap().kvs, 5_050);
    }
}

#[test]
fn every_watcher_is_told_of_every_put_of_its_keys() {
    let member = TestMember::start();
    member.fill();
    let events = Some(200);
    let watch = |watch_on, watchers| LoadOptions {
        watch_on,
        watchers,
        events,
        watch_streams: 3,
        distribution: Distribution::Sequential,
        ..member.options(Work::Watch)
    };
    for (watch_on, watchers, expected) in [
        (WatchOn::Prefix, 20, 20 * 200),
        (WatchOn::Same, 20, 20 * 200),
        // each of 100 keys is put twice; 150 watchers are on them
        (WatchOn::Key, 150, 2 * 150),
        (WatchOn::Prefix, 0, 0),
    ] {
        let measured = measure(&watch(watch_on, watchers)).unwrap();
        assert_eq!(counts(&measured), [200, 0, 0, expected], "{watch_on:?}");
        let catchup = LoadOptions { work: Work::Catchup, ..watch(watch_on, watchers) };
        assert_eq!(counts(&measure(&catchup).unwrap()), [0, 0, 0, expected], "catching up, {watch_on:?}");
    }
}

#[test]
fn leases_are_kept_alive_on_a_stream_for_each_client() {
    let member = TestMember::start();
    for leases in [None, Some(3), Some(20)] {
        let measured = measure(&LoadOptions { leases, ..member.options(Work::KeepAlive) }).unwrap();
        assert_eq!(counts(&measured), [0, 0, 300, 0]);
    }
}

#[test]
fn only_those_that_fit_are_driven_and_a_failed_request_ends_the_run() {
    let member = TestMember::start();
    let to = |to| measure(&LoadOptions { to, ..member.options(Work::Put) });
    assert!(to(To::Leader).is_ok());
    let error = to(To::Followers).map(drop).unwrap_err().to_string();
    assert_eq!(error, format!("none of {} is a follower", member.endpoint));
    // a value that no member takes
    let large =
        LoadOptions { value_bytes: 4 << 20, clients: 1, requests: Some(3), ..member.options(Work::Put) };
    assert!(measure(&large).map(drop).is_err());
    let measured = measure(&LoadOptions { errors_max: 3, ..large }).unwrap();
    assert_eq!((measured.errors, counts(&measured)), (3, [0; 4]));
}

#[test]
fn a_report_has_what_was_asked_and_what_was_counted() {
    let member = TestMember::start();
    let options = LoadOptions {
        watchers: 5,
        label: Some("small".to_owned()),
        distribution: Distribution::Zipf,
        pid: Some(std::process::id()),
        ..member.options(Work::Watch)
    };
    let measured = measure(&options).unwrap();
    let json = report::json(&options, &measured);
    for (field, text) in [("work", "watch"), ("client", "h2"), ("distribution", "zipf"), ("label", "small")] {
        assert_eq!(json[field], text);
    }
    for (field, number) in [("requests", 300), ("events", 1_500), ("watchers", 5), ("errors", 0)] {
        assert_eq!(json[field], number);
    }
    assert_eq!((&json["put"]["count"], &json["event"]["count"]), (&300.into(), &1_500.into()));
    assert!(json["server"]["resident_bytes"].as_u64() > Some(0));
}
