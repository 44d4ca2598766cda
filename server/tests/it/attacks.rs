//! Hostile clients: each is closed or answered with the right error, while another client's puts and gets go on.
//!
//! Everything is on one serving thread, so that whoever holds it up holds up the other client too. The member is a
//! process of its own: what it grows by is its own doing.

use crate::binary::{Process, SIGTERM};
use crate::support::{Client, put, run, soon};
use bytes::Bytes;
use coffer_server::proto::etcdserverpb as pb;
use futures_util::future::join_all;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xfa;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;

/// Connections that attack at once.
const ATTACKERS: usize = 4;
/// Frames that a flood sends at most; it is cut off long before.
const FLOOD_FRAMES: usize = 50_000;
/// Frames written at once.
const FLOOD_BATCH: usize = 500;
/// Puts and gets that the other client has done at the least when the attack is over.
const ROUNDS: usize = 20;
/// What the keys of large values begin with.
const LARGE: &str = "large/";
/// Large values, and how long each is.
const LARGE_VALUES: usize = 4;
const LARGE_BYTES: usize = 1 << 20;
/// Time in which a member on this machine reads far more than it may hold.
const A_WHILE: Duration = Duration::from_secs(2);
/// What the member may grow by, in bytes: well above what an attack is due, and far below what it asks for.
const GROWTH_MAX: usize = 256 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as HPACK's literal without indexing (RFC 7541, 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer of a 7-bit prefix.
        match text.len() {
            short @ 0..127 => bytes.push(u8::try_from(short).unwrap()),
            long => {
                bytes.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn headers(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

fn opening(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &headers(path))
}

/// A gRPC message with its prefix.
fn message(body: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// A request for all of one key, as a whole stream.
fn range_of(stream: u32, key: &[u8]) -> Vec<u8> {
    let body = [&[0x0a, u8::try_from(key.len()).unwrap()], key].concat();
    [opening(stream, RANGE), frame(DATA, END_STREAM, stream, &message(&body))].concat()
}

/// A request as a whole stream.
fn asked(stream: u32, path: &str, body: &[u8]) -> Vec<u8> {
    [opening(stream, path), frame(DATA, END_STREAM, stream, &message(body))].concat()
}

/// A request for all large values.
fn list() -> pb::RangeRequest {
    pb::RangeRequest { key: LARGE.into(), range_end: "large0".into(), ..Default::default() }
}

/// A request for one large value.
fn get() -> pb::RangeRequest {
    pb::RangeRequest { key: format!("{LARGE}0").into(), ..Default::default() }
}

/// Streams of a client, in turn.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// The member under attack.
struct Attacked {
    process: Process,
    _directory: tempfile::TempDir,
}

impl Attacked {
    async fn client(&self) -> Client {
        Client::connect(&self.process.endpoint).await
    }

    /// It still does as told.
    fn stop(self) {
        assert_eq!(self.process.end(SIGTERM), Some(SIGTERM));
    }
}

fn address(member: &Attacked) -> String {
    member.process.endpoint.strip_prefix("http://").unwrap().to_owned()
}

/// A frame that came back.
#[derive(Debug)]
struct Told {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frames(mut bytes: &[u8]) -> Vec<Told> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        frames.push(Told { kind: header[3], stream, payload: payload.to_vec() });
        bytes = &rest[length..];
    }
    frames
}

/// A connection by hand: all that comes is read all the time.
struct Raw {
    write: tokio::net::tcp::OwnedWriteHalf,
    read: JoinHandle<Vec<u8>>,
}

impl Raw {
    async fn connect(address: &str) -> Raw {
        let (mut read, write) = soon(TcpStream::connect(address)).await.unwrap().into_split();
        let read = tokio::spawn(async move {
            let mut told = Vec::new();
            // Closed or reset is the same here.
            let _ = read.read_to_end(&mut told).await;
            told
        });
        Raw { write, read }
    }

    async fn greet(address: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[])].concat()).await;
        raw
    }

    /// Like that, with all windows shut.
    async fn shut(address: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        raw.send(&[PREFACE, &shut, &frame(SETTINGS, 1, 0, &[])].concat()).await;
        raw
    }

    /// Opens all windows as far as they go.
    async fn open(&mut self) {
        let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        self.send(&[wide, frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes())].concat())
            .await;
    }

    /// Whether it could be written.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        soon(self.write.write_all(bytes)).await.is_ok()
    }

    /// Sends this again and again, until the server has closed or all is sent.
    async fn flood(&mut self, mut next: impl FnMut(usize) -> Vec<u8>) {
        for batch in 0..FLOOD_FRAMES / FLOOD_BATCH {
            let numbers = batch * FLOOD_BATCH..(batch + 1) * FLOOD_BATCH;
            let bytes: Vec<u8> = numbers.flat_map(&mut next).collect();
            if self.read.is_finished() || !self.send(&bytes).await {
                return;
            }
        }
    }

    /// What came until the server closed; this side has not.
    async fn closed(self) -> Vec<u8> {
        soon(self.read).await.unwrap()
    }
}

/// The text of the GOAWAY among frames.
fn goaway(told: &[u8]) -> Option<String> {
    let frames = frames(told);
    let goaway = frames.iter().rfind(|frame| frame.kind == GOAWAY)?;
    Some(String::from_utf8_lossy(&goaway.payload[8..]).into_owned())
}

fn member(flags: &[&str]) -> Attacked {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), &[&["--serving-threads=1"], flags].concat());
    Attacked { process, _directory: directory }
}

/// Attacks while another client puts and gets: it is never refused, and the member does not grow.
fn under<T>(member: &Attacked, attack: impl Future<Output = T>) -> T {
    run(async {
        let mut client = member.client().await;
        client.put("bystander", "before").await;
        let before = member.process.memory();
        let over = AtomicBool::new(false);
        let bystander = async {
            let mut rounds = 0;
            let mut grown = 0;
            while rounds < ROUNDS || !over.load(Ordering::Relaxed) {
                let value = rounds.to_string();
                soon(client.put("bystander", &value)).await;
                assert_eq!(soon(client.get("bystander")).await, Some(value));
                grown = grown.max(member.process.memory().saturating_sub(before));
                rounds += 1;
            }
            grown
        };
        let attack = async {
            let outcome = attack.await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let (outcome, grown) = tokio::join!(attack, bystander);
        assert!(grown < GROWTH_MAX, "the member grew by {grown} bytes");
        outcome
    })
}

/// Floods from several connections; what each was told until it was closed.
fn flooded(first: &[u8], next: fn(usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    let member = member(&[]);
    let address = address(&member);
    let attack = join_all((0..ATTACKERS).map(|_| async {
        let mut raw = Raw::greet(&address).await;
        raw.send(first).await;
        raw.flood(next).await;
        raw.closed().await
    }));
    let told = under(&member, attack);
    member.stop();
    told
}

/// What a call is answered: gRPC's status and its text.
async fn ask(
    sender: &h2::client::SendRequest<Bytes>,
    path: &str,
    timeout: Option<&str>,
    body: Vec<u8>,
    whole: bool,
) -> (String, String) {
    let mut request =
        http::Request::post(format!("http://a{path}")).header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, mut sending) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    sending.send_data(body.into(), whole).unwrap();
    let response = soon(response).await.unwrap();
    let mut trailers = response.headers().clone();
    let mut body = response.into_body();
    while let Some(data) = soon(body.data()).await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    if let Some(last) = soon(body.trailers()).await.unwrap() {
        trailers.extend(last);
    }
    let text = |name| trailers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
    (text("grpc-status"), text("grpc-message"))
}

async fn h2_client(address: &str) -> h2::client::SendRequest<Bytes> {
    let stream = soon(TcpStream::connect(address)).await.unwrap();
    let (sender, connection) = soon(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[test]
fn streams_opened_and_reset_in_a_burst_close_the_connection() {
    for told in flooded(&[], |number| {
        let stream = 2 * u32::try_from(number).unwrap() + 1;
        [opening(stream, RANGE), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    }) {
        assert!(goaway(&told).is_none_or(|text| text == "too_many_resets"));
    }
}

#[test]
fn headers_that_never_end_close_the_connection() {
    let first = frame(HEADERS, 0, 1, &headers(RANGE));
    for told in flooded(&first, |_| frame(CONTINUATION, 0, 1, &literal("x", "y"))) {
        assert!(goaway(&told).is_none_or(|text| text == "too_many_continuations"));
    }
}

#[test]
fn a_flood_of_pings_closes_the_connection() {
    for told in flooded(&[], |_| frame(PING, 0, 0, &[7; 8])) {
        assert!(goaway(&told).is_none_or(|text| text == "too_many_pings"));
    }
}

#[test]
fn a_flood_of_other_control_frames_closes_the_connection() {
    let floods: [fn(usize) -> Vec<u8>; 6] = [
        |_| frame(SETTINGS, 0, 0, &[]),
        |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        |_| frame(PING, 1, 0, &[7; 8]),
        |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        |_| frame(UNKNOWN, 0, 0, b"grease"),
    ];
    for flood in floods {
        for told in flooded(&[], flood) {
            assert!(goaway(&told).is_none_or(|text| text == "too_many_control_frames"));
        }
    }
}

#[test]
fn a_flood_of_empty_data_closes_the_connection() {
    for told in flooded(&opening(1, PUT), |_| frame(DATA, 0, 1, &[])) {
        assert!(goaway(&told).is_none_or(|text| text == "too_many_data_frames"));
    }
}

#[test]
fn pings_too_soon_are_told_by_a_goaway() {
    let member = member(&["--grpc-keepalive-min-time=1h"]);
    let address = address(&member);
    let told = under(&member, async {
        let mut raw = Raw::greet(&address).await;
        raw.send(&frame(PING, 0, 0, &[7; 8]).repeat(4)).await;
        raw.closed().await
    });
    assert_eq!(goaway(&told).as_deref(), Some("too_many_pings"));
    member.stop();
}

#[test]
fn pings_pass_while_answers_go_out_and_below_the_free_rate_where_any_time_will_do() {
    for (flags, pings) in [("--grpc-keepalive-min-time=1h", 3), ("--grpc-keepalive-min-time=0s", 90)] {
        let member = member(&[flags]);
        let address = address(&member);
        run(async {
            let mut raw = Raw::greet(&address).await;
            for stream in streams(20) {
                raw.send(&range_of(stream, b"k")).await;
            }
            raw.send(&frame(PING, 0, 0, &[7; 8]).repeat(pings)).await;
            for stream in streams(40).skip(20) {
                raw.send(&range_of(stream, b"k")).await;
            }
            // A clean end: whatever was asked is answered.
            raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
            let told = frames(&raw.closed().await);
            assert_eq!(
                told.iter().filter(|frame| frame.kind == PING && frame.payload == [7; 8]).count(),
                pings
            );
            let answered = told.iter().filter(|frame| frame.kind == DATA && frame.stream != 0).count();
            assert_eq!(answered, 40);
        });
        member.stop();
    }
}

#[test]
fn a_client_may_keep_thousands_of_leases_alive_in_one_burst() {
    const LEASES: usize = 6_000;
    let member = member(&[]);
    let address = address(&member);
    let told = under(&member, async {
        let mut raw = Raw::greet(&address).await;
        // Room for all answers.
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())).await;
        let opening =
            [opening(1, KEEP_ALIVE), frame(WINDOW_UPDATE, 0, 1, &(1_u32 << 30).to_be_bytes())].concat();
        let one = frame(DATA, 0, 1, &message(&[0x08, 5]));
        raw.send(&[opening, one.repeat(LEASES), frame(DATA, END_STREAM, 1, &[])].concat()).await;
        raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
        raw.closed().await
    });
    let data: Vec<u8> = frames(&told)
        .into_iter()
        .filter(|frame| frame.kind == DATA)
        .flat_map(|frame| frame.payload)
        .collect();
    let mut answers = 0;
    let mut rest = &data[..];
    while let Some((prefix, after)) = rest.split_first_chunk::<5>() {
        rest = &after[u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize..];
        answers += 1;
    }
    assert_eq!(answers, LEASES);
    member.stop();
}

#[test]
fn garbage_closes_the_connection() {
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xa5; 512]].concat();
    let openings: [&[u8]; 6] = [
        &[0; 4096],
        &[0xff; 4096],
        &hello,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r\n\n garbage\r\n\r\n",
        &[PREFACE, &[0xff; 4096]].concat(),
        &[PREFACE, &frame(SETTINGS, 0, 0, &[1; 5])].concat(),
    ];
    let member = member(&[]);
    let address = address(&member);
    under(&member, async {
        for opening in openings {
            let mut raw = Raw::connect(&address).await;
            raw.send(opening).await;
            raw.closed().await;
        }
    });
    member.stop();
}

#[test]
fn a_huge_header_list_is_refused() {
    let member = member(&[]);
    let address = address(&member);
    let field = literal("x-large", &"y".repeat(16_000));
    let told = under(&member, async {
        let mut raw = Raw::greet(&address).await;
        raw.send(&frame(HEADERS, END_STREAM, 1, &headers(RANGE))).await;
        for _ in 0..256 {
            if !raw.send(&frame(CONTINUATION, 0, 1, &field)).await {
                break;
            }
        }
        raw.send(&frame(CONTINUATION, END_HEADERS, 1, &field)).await;
        raw.closed().await
    });
    assert!(!frames(&told).iter().any(|frame| frame.kind == DATA), "it is not served");
    member.stop();
}

#[test]
fn a_message_said_to_be_of_four_gigabytes_is_refused_by_its_prefix() {
    let member = member(&[]);
    let address = address(&member);
    under(&member, async {
        let sender = h2_client(&address).await;
        for _ in 0..50 {
            let prefix = [&[0, 0xff, 0xff, 0xff, 0xff][..], &[0; 64]].concat();
            let (code, text) = ask(&sender, PUT, None, prefix, false).await;
            let expected = "grpc: received message larger than max (4294967295 vs. 2097152)";
            assert_eq!((code.as_str(), text.replace("%20", " ").as_str()), ("8", expected));
        }
    });
    member.stop();
}

#[test]
fn malformed_messages_are_refused_and_the_connection_serves_on() {
    let member = member(&[]);
    let address = address(&member);
    under(&member, async {
        let sender = h2_client(&address).await;
        // A key of five bytes of which two came, a varint without an end, a group that nobody closes.
        for broken in
            [&[0x0a, 5, b'k', b'k'][..], &[0x18, 0xff], &[0x0b], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]]
        {
            for path in [RANGE, PUT, TXN] {
                let (code, _) = ask(&sender, path, None, message(broken), true).await;
                assert_eq!(code, "13", "{broken:?} to {path}");
            }
        }
        // A URL that is no UTF-8.
        let (code, _) = ask(&sender, MEMBER_ADD, None, message(&[0x0a, 2, 0xc3, 0x28]), true).await;
        assert_eq!(code, "13");
        // A message cut short by the end of the stream.
        let cut = message(&[0x0a, 1, b'k'])[..6].to_vec();
        assert_eq!(ask(&sender, RANGE, None, cut, true).await.0, "13");
        assert_eq!(ask(&sender, RANGE, None, message(&[0x0a, 1, b'k']), true).await.0, "0");
    });
    member.stop();
}

/// A txn in a txn in a txn ...
fn nested(levels: usize) -> Vec<u8> {
    // From the inside out, and so from the end: field 2 of a txn is an operation, whose field 4 is a txn.
    let mut reversed: Vec<u8> = Vec::new();
    for tag in [0x22, 0x12].repeat(levels) {
        let mut length = reversed.len();
        let mut varint = Vec::new();
        while length >= 128 {
            varint.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        varint.push(u8::try_from(length).unwrap());
        reversed.extend(varint.iter().rev());
        reversed.push(tag);
    }
    reversed.reverse();
    reversed
}

#[test]
fn a_txn_nested_beyond_measure_is_refused() {
    let member = member(&[]);
    let address = address(&member);
    under(&member, async {
        let sender = h2_client(&address).await;
        assert_eq!(ask(&sender, TXN, None, message(&nested(2)), true).await.0, "0");
        for levels in [1_000, 100_000] {
            let (code, _) = ask(&sender, TXN, None, message(&nested(levels)), true).await;
            assert_eq!(code, "13", "{levels} levels");
        }
    });
    member.stop();
}

#[test]
fn a_body_that_never_ends_meets_its_deadline_and_without_one_harms_nobody() {
    let member = member(&[]);
    let address = address(&member);
    under(&member, async {
        let sender = h2_client(&address).await;
        let half = message(&[0x0a, 1, b'k'])[..6].to_vec();
        assert_eq!(ask(&sender, PUT, Some("50m"), half.clone(), false).await.0, "4");
        let mut raw = Raw::greet(&address).await;
        for stream in streams(100) {
            raw.send(&[opening(stream, PUT), frame(DATA, 0, stream, &half)].concat()).await;
        }
        // They wait, and others on the same connection do not.
        let last = 201;
        raw.send(&range_of(last, b"k")).await;
        raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
        raw.send(
            &streams(100)
                .flat_map(|stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()))
                .collect::<Vec<_>>(),
        )
        .await;
        let told = frames(&raw.closed().await);
        assert!(told.iter().any(|frame| frame.kind == DATA && frame.stream == last));
    });
    member.stop();
}

#[test]
fn a_client_that_takes_no_answers_holds_up_itself_alone() {
    const STREAMS: u32 = 64;
    let member = member(&[&format!("--max-concurrent-streams={STREAMS}")]);
    let address = address(&member);
    let large = "x".repeat(256 << 10);
    run(async { member.client().await.put("large", &large).await });
    under(&member, async {
        // One that gives streams no window, and opens more of them than it may.
        let mut raw = Raw::connect(&address).await;
        raw.send(
            &[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), &frame(SETTINGS, 1, 0, &[])].concat(),
        )
        .await;
        for stream in streams(STREAMS + 10) {
            raw.send(&range_of(stream, b"large")).await;
        }
        // One byte for the first of them.
        raw.send(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await;
        raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
        // One that gives all the window there is, and reads nothing.
        let mut silent = soon(TcpStream::connect(&address)).await.unwrap();
        let window = frame(WINDOW_UPDATE, 0, 0, &(u32::MAX >> 2).to_be_bytes());
        let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        let asked: Vec<u8> = streams(STREAMS).flat_map(|stream| range_of(stream, b"large")).collect();
        soon(silent.write_all(&[PREFACE, &wide, &window, &asked].concat())).await.unwrap();
        // The other client goes on meanwhile, as it does afterwards.
        let mut other = member.client().await;
        for number in 0..ROUNDS {
            soon(other.kv.put(put("k", &number.to_string()))).await.unwrap();
        }
        raw.send(
            &streams(STREAMS)
                .flat_map(|stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()))
                .collect::<Vec<_>>(),
        )
        .await;
        let told = frames(&raw.closed().await);
        let refused = REFUSED_STREAM.to_be_bytes();
        assert_eq!(
            told.iter().filter(|frame| frame.kind == RST_STREAM && frame.payload == refused).count(),
            10
        );
        let data: Vec<_> =
            told.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).collect();
        assert!(data.iter().sum::<usize>() <= 1, "{data:?}");
    });
    member.stop();
}

/// A member with large values.
fn laden() -> Attacked {
    let member = member(&[]);
    run(async {
        let mut client = member.client().await;
        let value = "x".repeat(LARGE_BYTES);
        for number in 0..LARGE_VALUES {
            client.put(&format!("{LARGE}{number}"), &value).await;
        }
    });
    member
}

#[test]
fn answers_to_a_client_whose_windows_are_shut_are_not_made_in_advance() {
    const STREAMS: u32 = 500;
    let get_in_txn = pb::TxnRequest {
        success: [
            pb::request_op::Request::RequestRange(get()),
            pb::request_op::Request::RequestPut(put("k", "v")),
        ]
        .map(|request| pb::RequestOp { request: Some(request) })
        .into(),
        ..Default::default()
    };
    let kinds =
        [(RANGE, list().encode_to_vec()), (RANGE, get().encode_to_vec()), (TXN, get_in_txn.encode_to_vec())];
    let member = laden();
    let address = address(&member);
    for (path, body) in kinds {
        under(&member, async {
            let mut raw = Raw::shut(&address).await;
            for stream in streams(STREAMS) {
                raw.send(&asked(stream, path, &body)).await;
            }
            tokio::time::sleep(A_WHILE).await;
            // what waits does not keep the connection
            for stream in streams(STREAMS) {
                raw.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
            }
            raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
            raw.closed().await;
        });
    }
    member.stop();
}

#[test]
fn a_client_that_opens_its_windows_late_gets_all_answers_whole() {
    const STREAMS: u32 = 30;
    let member = laden();
    let address = address(&member);
    let told = run(async {
        let mut raw = Raw::shut(&address).await;
        for stream in streams(STREAMS) {
            let request = if stream % 3 == 0 { get() } else { list() };
            raw.send(&asked(stream, RANGE, &request.encode_to_vec())).await;
        }
        // a put on the same connection waits for none of them
        raw.send(&asked(2 * STREAMS + 1, PUT, &put("passes", "by").encode_to_vec())).await;
        let mut other = member.client().await;
        soon(async { while other.get("passes").await.is_none() {} }).await;
        raw.open().await;
        raw.send(&frame(GOAWAY, 0, 0, &[0; 8])).await;
        raw.closed().await
    });
    let mut answers: HashMap<u32, Vec<u8>> = HashMap::new();
    for frame in frames(&told).into_iter().filter(|frame| frame.kind == DATA) {
        answers.entry(frame.stream).or_default().extend(frame.payload);
    }
    for stream in streams(STREAMS) {
        let answer = pb::RangeResponse::decode(&answers[&stream][5..]).unwrap();
        let expected = if stream % 3 == 0 { 1 } else { LARGE_VALUES };
        assert_eq!(answer.kvs.len(), expected, "on stream {stream}");
        assert!(answer.kvs.iter().all(|kv| kv.value.len() == LARGE_BYTES));
    }
    member.stop();
}

#[test]
fn a_client_that_takes_no_answers_for_long_is_closed() {
    if std::env::var_os("COFFER_LONG").is_none() {
        // It has a minute.
        return;
    }
    let member = laden();
    let address = address(&member);
    under(&member, async {
        let mut shut = Raw::shut(&address).await;
        shut.send(&asked(1, RANGE, &list().encode_to_vec())).await;
        // one that gives all the window there is, and reads nothing
        let mut silent = soon(TcpStream::connect(&address)).await.unwrap();
        let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        let window = frame(WINDOW_UPDATE, 0, 0, &(u32::MAX >> 2).to_be_bytes());
        let lists: Vec<u8> =
            streams(8).flat_map(|stream| asked(stream, RANGE, &list().encode_to_vec())).collect();
        soon(silent.write_all(&[PREFACE, &wide, &window, &lists].concat())).await.unwrap();
        let minutes = Duration::from_secs(120);
        tokio::time::timeout(minutes, shut.read).await.expect("it is closed").unwrap();
        tokio::time::timeout(minutes, async {
            while silent.write_all(&frame(PING, 1, 0, &[7; 8])).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
        .await
        .expect("it is closed");
    });
    member.stop();
}

#[test]
fn silent_clients_are_closed() {
    if std::env::var_os("COFFER_LONG").is_none() {
        // They have ten seconds.
        return;
    }
    let member = member(&[]);
    let address = address(&member);
    under(&member, async {
        let clients = (0..100).map(async |number| {
            let mut raw = Raw::connect(&address).await;
            raw.send(&PREFACE[..number % 25]).await;
            raw.closed().await;
        });
        join_all(clients).await;
    });
    member.stop();
}
