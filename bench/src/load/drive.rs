//! The clients: who sends what when, and how long it took.

use super::process::{self, Usage};
use super::wire::Wire;
use super::{Client, Failed, LoadOptions, Meanwhile, Work, meanwhile};
use coffer_server::proto::etcdserverpb as pb;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use tonic::transport::{Channel, Endpoint};

/// Latencies above this count as this, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What a run gave.
pub(crate) struct Measured {
    /// Latencies of puts in microseconds.
    pub(crate) puts: Histogram<u64>,
    /// Latencies of ranges.
    pub(crate) ranges: Histogram<u64>,
    /// The longest latency of each second, in microseconds.
    pub(super) longest_by_second: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// What the server's process used meanwhile.
    pub(super) server: Option<Usage>,
    /// What this process used.
    pub(super) own: Option<Usage>,
    /// What the work beside did, in words.
    pub(crate) beside: Option<String>,
}

struct Shared {
    options: LoadOptions,
    begun: Instant,
    next: Cell<u64>,
    end: u64,
    puts: RefCell<Histogram<u64>>,
    ranges: RefCell<Histogram<u64>>,
    longest: RefCell<Vec<u64>>,
    bar: ProgressBar,
}

/// The next number of a sequence that looks random (splitmix64).
pub(super) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Key number `number`, padded to `bytes`.
pub(super) fn key(number: u64, bytes: usize) -> Vec<u8> {
    format!("bench/{number:0width$}", width = bytes.saturating_sub(6).max(1)).into_bytes()
}

/// A value that follows from `seed` and does not compress to nothing.
fn value(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 8);
    let mut at = seed;
    while out.len() < bytes {
        at = at.wrapping_add(1);
        out.extend_from_slice(&scatter(at).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Opens the connections.
pub(super) async fn connect(options: &LoadOptions) -> Result<Vec<Channel>, Failed> {
    let mut channels = Vec::new();
    for number in 0..options.connections.max(1) {
        let address = options.endpoints[number % options.endpoints.len()].clone();
        let address = if address.contains("://") { address } else { format!("http://{address}") };
        channels
            .push(Endpoint::from_shared(address)?.connect_timeout(Duration::from_secs(5)).connect().await?);
    }
    Ok(channels)
}

/// The connections that the requests go over; within the `LocalSet`.
async fn wires(options: &LoadOptions, channels: &[Channel]) -> Result<Vec<Wire>, Failed> {
    let mut wires = Vec::new();
    for (number, channel) in channels.iter().enumerate() {
        let endpoint = &options.endpoints[number % options.endpoints.len()];
        let address = endpoint.split_once("://").map_or(&endpoint[..], |(_, address)| address);
        wires.push(match options.client {
            Client::Tonic => Wire::tonic(channel.clone()),
            Client::H2 => Wire::h2(address.trim_end_matches('/')).await?,
        });
    }
    Ok(wires)
}

pub(super) async fn drive(options: &LoadOptions) -> Result<Measured, Failed> {
    let channels = connect(options).await?;
    if options.meanwhile == Meanwhile::Shrink {
        meanwhile::delete_most(&channels[0], options).await?;
    }
    let end = match (options.work, options.requests, options.rate) {
        (Work::Fill, _, _) => options.keys,
        (_, Some(requests), _) => requests,
        (_, None, Some(rate)) => (rate * options.seconds) as u64,
        (_, None, None) => u64::MAX,
    };
    let before = (options.pid.and_then(process::usage), process::usage(std::process::id()));
    let shared = Rc::new(Shared {
        options: options.clone(),
        begun: Instant::now(),
        next: Cell::new(0),
        end,
        puts: RefCell::new(Histogram::new_with_max(LATENCY_US_MAX, 3)?),
        ranges: RefCell::new(Histogram::new_with_max(LATENCY_US_MAX, 3)?),
        longest: RefCell::new(Vec::new()),
        bar: bar(options, end),
    });
    let local = LocalSet::new();
    let beside = local
        .run_until(async {
            let wires = wires(options, &channels).await?;
            let beside = tokio::task::spawn_local(meanwhile::start(channels[0].clone(), options.clone()));
            let clients: Vec<_> = (0..options.clients.max(1))
                .map(|number| {
                    let wire = wires[number % wires.len()].clone();
                    tokio::task::spawn_local(client(Rc::clone(&shared), wire))
                })
                .collect();
            for client in clients {
                client.await??;
            }
            // work that goes on after the last request is waited for, but not measured
            let took = shared.begun.elapsed();
            let beside = beside.await??;
            Ok::<_, Failed>((took, beside))
        })
        .await?;
    shared.bar.finish_and_clear();
    let (took, beside) = beside;
    let after = (options.pid.and_then(process::usage), process::usage(std::process::id()));
    Ok(Measured {
        puts: shared.puts.borrow().clone(),
        ranges: shared.ranges.borrow().clone(),
        longest_by_second: shared.longest.borrow().clone(),
        took,
        server: after.0.zip(before.0).map(|(after, before)| after.since(&before)),
        own: after.1.zip(before.1).map(|(after, before)| after.since(&before)),
        beside,
    })
}

fn bar(options: &LoadOptions, end: u64) -> ProgressBar {
    let bar = match end {
        u64::MAX => ProgressBar::new((options.seconds * 10.0) as u64),
        _ => ProgressBar::new(end),
    };
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {percent}% eta {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn client(shared: Rc<Shared>, mut wire: Wire) -> Result<(), Failed> {
    let options = &shared.options;
    loop {
        let number = shared.next.get();
        if number >= shared.end
            || (shared.end == u64::MAX && shared.begun.elapsed().as_secs_f64() >= options.seconds)
        {
            return Ok(());
        }
        shared.next.set(number + 1);
        let due = match options.rate {
            Some(rate) => {
                let due = shared.begun + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                due
            }
            None => Instant::now(),
        };
        let is_read = request(options, number, &mut wire).await?;
        shared.note(due, is_read, number);
    }
}

/// Request `number` of the run; whether it only read.
async fn request(options: &LoadOptions, number: u64, wire: &mut Wire) -> Result<bool, Failed> {
    let drawn = scatter(options.seed.wrapping_mul(0x1_0000_0001).wrapping_add(number));
    let which = if options.work == Work::Fill { number } else { drawn % options.keys.max(1) };
    let key = key(which, options.key_bytes);
    let one = |serializable| pb::RangeRequest { key: key.clone().into(), serializable, ..Default::default() };
    let put = || pb::PutRequest {
        key: key.clone().into(),
        value: value(drawn, options.value_bytes).into(),
        ..Default::default()
    };
    match options.work {
        Work::Fill | Work::Put => drop(wire.put(put()).await?),
        Work::Mixed if scatter(drawn) % 100 >= options.range_percent => drop(wire.put(put()).await?),
        Work::Txn => drop(wire.txn(update(one(false), put())).await?),
        Work::Range | Work::Mixed => drop(wire.range(one(false)).await?),
        Work::Serializable => drop(wire.range(one(true)).await?),
        Work::List => {
            let all = pb::RangeRequest { range_end: END.into(), limit: options.limit, ..one(false) };
            drop(wire.range(all).await?);
        }
        Work::Count => {
            let all = pb::RangeRequest {
                key: b"bench/".to_vec().into(),
                range_end: END.into(),
                count_only: true,
                ..Default::default()
            };
            drop(wire.range(all).await?);
        }
    }
    Ok(match options.work {
        Work::Fill | Work::Put | Work::Txn => false,
        Work::Mixed => scatter(drawn) % 100 < options.range_percent,
        Work::Range | Work::Serializable | Work::List | Work::Count => true,
    })
}

/// Behind all keys of a run.
const END: &[u8] = b"bench0";

/// An update as Kubernetes makes it: put if the key is as it was seen, else read it. Whoever runs alone has seen it.
fn update(read: pb::RangeRequest, put: pb::PutRequest) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Greater.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: put.key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(0)),
        ..Default::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(pb::request_op::Request::RequestPut(put))],
        failure: vec![op(pb::request_op::Request::RequestRange(read))],
    }
}

impl Shared {
    fn note(&self, due: Instant, is_range: bool, number: u64) {
        let now = Instant::now();
        let us = (now - due).as_micros() as u64;
        let histogram = if is_range { &self.ranges } else { &self.puts };
        histogram.borrow_mut().saturating_record(us);
        // a stall is charged to the second in which the request was due
        let second = (due - self.begun).as_secs() as usize;
        let mut longest = self.longest.borrow_mut();
        if longest.len() <= second {
            longest.resize(second + 1, 0);
        }
        longest[second] = longest[second].max(us);
        if number.is_multiple_of(1_000) {
            let place =
                if self.end == u64::MAX { (now - self.begun).as_millis() as u64 / 100 } else { number };
            self.bar.set_position(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_long_as_asked_and_in_order() {
        assert_eq!(key(7, 24).len(), 24);
        assert!(key(9, 24) < key(10, 24));
        assert_eq!(value(1, 256).len(), 256);
        assert_ne!(value(1, 64), value(2, 64));
    }
}
