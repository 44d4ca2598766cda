//! Watchers: who follows what, and whether everything arrived.
//!
//! Every put of a watched run carries the time at which it was sent, and counts how many watchers must be told. A watcher's
//! events must come in order, none twice; the run has failed if any is missing when nothing has come for half a minute.

use super::answer::Watched;
use super::connect::Network;
use super::drive::Run;
use super::keys::{END, FIRST, key, stamp};
use super::wire::Duplex;
use super::{Failed, LoadOptions, WatchOn, Work};
use bytes::Bytes;
use coffer_server::proto::etcdserverpb as pb;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long nothing may come while something is still expected.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether everything has come. When the last of it came is measured apart from this.
const LOOK: Duration = Duration::from_millis(5);

/// Watchers of key number `key`, of all that there are.
pub(super) fn watchers_of(options: &LoadOptions, key: u64) -> u64 {
    let (watchers, keys) = (options.watchers as u64, options.keys.max(1));
    match options.watch_on {
        WatchOn::Prefix => watchers,
        WatchOn::Same => watchers * u64::from(key == 0),
        WatchOn::Key => watchers / keys + u64::from(key < watchers % keys),
    }
}

/// The request for watcher number `watcher`.
fn create(options: &LoadOptions, watcher: usize, start_revision: i64) -> pb::WatchRequest {
    let one = |number| (key(number, options.key_bytes), Bytes::new());
    let (key, range_end) = match options.watch_on {
        WatchOn::Prefix => (Bytes::from_static(FIRST), Bytes::from_static(END)),
        WatchOn::Same => one(0),
        WatchOn::Key => one(watcher as u64 % options.keys.max(1)),
    };
    let create = pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
    pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
}

/// What the watchers have seen.
struct Seen {
    created: Cell<u64>,
    events: Cell<u64>,
    last: Cell<Instant>,
    failed: RefCell<Option<Failed>>,
}

impl Seen {
    /// Waits until so many have come.
    async fn wait(&self, what: &str, of: impl Fn(&Seen) -> u64, expected: u64) -> Result<(), Failed> {
        let (mut had, mut since) = (of(self), Instant::now());
        loop {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let have = of(self);
            if have == expected {
                return Ok(());
            }
            if have > expected {
                return Err(format!(
                    "{have} {what}, but {expected} were expected: is somebody else writing?"
                )
                .into());
            }
            if have > had {
                (had, since) = (have, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(format!("{have} of {expected} {what}, and nothing came for {seconds} s").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Watchers that stand.
pub(super) struct Watchers {
    seen: Rc<Seen>,
    count: u64,
}

impl Watchers {
    /// Asks for all watchers; they follow from `start_revision` on, 0 for now.
    pub(super) async fn start(
        run: &Rc<Run>,
        network: &Network,
        start_revision: i64,
    ) -> Result<Watchers, Failed> {
        let options = &run.options;
        let streams = network.wires.len() * options.watch_streams.max(1);
        let seen = Rc::new(Seen {
            created: Cell::new(0),
            events: Cell::new(0),
            last: Cell::new(Instant::now()),
            failed: RefCell::new(None),
        });
        for number in 0..streams.min(options.watchers) {
            let mut stream = network.wires[number % network.wires.len()].clone().watch().await?;
            for watcher in (number..options.watchers).step_by(streams) {
                stream.send(&create(options, watcher, start_revision))?;
            }
            let (run, seen) = (Rc::clone(run), Rc::clone(&seen));
            tokio::task::spawn_local(async move {
                let failed = follow(&run, &seen, stream).await;
                seen.failed.replace(Some(failed));
            });
        }
        Ok(Watchers { seen, count: options.watchers as u64 })
    }

    /// Waits until all are there.
    pub(super) async fn created(&self) -> Result<(), Failed> {
        self.seen.wait("watchers", |seen| seen.created.get(), self.count).await
    }

    /// Waits until everything that was put has come; when that was.
    pub(super) async fn caught_up(&self, run: &Run) -> Result<Instant, Failed> {
        self.seen.wait("events", |seen| seen.events.get(), run.expected_events()).await?;
        Ok(self.seen.last.get())
    }
}

/// Reads a stream as long as it goes on; why it does not.
async fn follow(run: &Run, seen: &Seen, mut stream: Duplex) -> Failed {
    // by watcher, the revision of its last event
    let mut last = Vec::new();
    loop {
        let read = match stream.next().await {
            Ok(message) => response(run, seen, &mut last, &message),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            return error;
        }
    }
}

fn response(run: &Run, seen: &Seen, last: &mut Vec<i64>, message: &[u8]) -> Result<(), Failed> {
    let response = Watched::read(message)?;
    if response.canceled {
        let reason = String::from_utf8_lossy(response.reason);
        return Err(format!("a watcher was canceled: {reason}").into());
    }
    if response.created {
        seen.created.set(seen.created.get() + 1);
        return Ok(());
    }
    // a server numbers the watchers of a stream from 0
    let watcher = usize::try_from(response.watch_id)?;
    if watcher >= last.len() {
        last.resize(watcher + 1, 0);
    }
    let now_us = run.elapsed_us();
    let mut events = 0;
    response.each_event(|event| {
        if event.revision <= last[watcher] {
            return Err(format!("revision {} came after {}", event.revision, last[watcher]).into());
        }
        last[watcher] = event.revision;
        events += 1;
        // who catches up is late by the whole of its run
        let sent_us = if run.options.work == Work::Catchup { Some(0) } else { stamp(event.value) };
        run.note_event(now_us.saturating_sub(sent_us.ok_or("an event of somebody else's put")?));
        Ok(())
    })?;
    if events > 0 {
        seen.events.set(seen.events.get() + events);
        seen.last.set(Instant::now());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchers_that_must_be_told_are_those_that_were_asked_for() {
        for watch_on in [WatchOn::Key, WatchOn::Same, WatchOn::Prefix] {
            for (watchers, keys) in [(1, 1), (10, 3), (3, 10), (12, 4)] {
                let options = LoadOptions { watchers, keys, watch_on, ..LoadOptions::default() };
                for number in 0..keys {
                    let put = key(number, options.key_bytes);
                    let told = (0..watchers).filter(|watcher| wants(&create(&options, *watcher, 0), &put));
                    assert_eq!(told.count() as u64, watchers_of(&options, number), "{watch_on:?} {number}");
                }
            }
        }
    }

    fn wants(request: &pb::WatchRequest, put: &Bytes) -> bool {
        let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = &request.request_union else {
            return false;
        };
        if create.range_end.is_empty() {
            create.key == put
        } else {
            create.key <= put && *put < create.range_end
        }
    }
}
