//! What a client may send on an HTTP/2 connection beside its requests, and when it is too much.
//!
//! ```text
//! 0        3      4       5            9
//! | length | type | flags | stream id  | payload ...   a frame's header (RFC 9113, 4.1)
//! ```
//!
//! Frames that carry requests (HEADERS, CONTINUATION, DATA) are others' matter: h2 bounds them, and they ask for work
//! that is counted elsewhere. All other frames, known or not, are control frames, and h2 takes any number of them.
//!
//! Rules kept here:
//! - Control frames that have a cause are paid by it: whatever this side sends, or a stream that the client opens, earns
//!   the client more of them than any client in use answers with. Those without a cause have a rate, [`FREE_PER_SECOND`].
//! - Pings follow the rule of Go's gRPC server (internal/transport/http2_server.go, handlePing): one sooner than the
//!   configured time after the last is a strike, unless this side has sent HEADERS or DATA since, which starts afresh:
//!   clients measure the connection with pings while data flow. More strikes than [`PING_STRIKES_MAX`] are an offence.
//! - Where Go's gRPC server and this differ, this is the milder one: every frame sent excuses a ping, not only the
//!   last; a connection without streams may be pinged as often as one with streams.
//! - Frames may be cut anywhere; nothing is allocated or copied beyond a header cut in two; the clock is read only for
//!   pings and when the free frames are used up.

use super::super::greeting::PREFACE;
use std::time::{Duration, Instant};

/// Control frames without a cause in any second. A client has a few at its start (SETTINGS, a window, at most a dozen
/// PRIORITY) and some when it grows its windows; a flood has 100,000.
const FREE_PER_SECOND: u32 = 100;
/// Control frames that a stream opened earns: its window, its priority, its reset.
const EARNED_PER_STREAM: u32 = 3;
/// Control frames that HEADERS or DATA sent earn: a window update for the stream and one for the connection, a ping,
/// and one to spare.
const EARNED_PER_ANSWER: u32 = 4;
/// Bytes of DATA sent that earn one more: some clients update windows in small steps as they read (Go's at 4 KiB,
/// stream and connection).
const BYTES_PER_EARNED: u32 = 512;
/// Most that can be earned and not be spent: all of a default window (64 KiB) sent in frames of one byte, each answered
/// by one frame.
const EARNED_MAX: u32 = 1 << 16;
/// Strikes of pings that are forgiven, as by Go's gRPC.
const PING_STRIKES_MAX: u32 = 2;
/// Pings that frames sent excuse at most: a client may send those late, when it reads what it has buffered.
const PINGS_EXCUSED_MAX: u32 = 16;

const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// The flag of SETTINGS and PING that answer.
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// Pings more often than configured.
    Pings,
    /// Control frames without a cause.
    ControlFrames,
}

impl Offence {
    /// As told to the client; the first in the words of Go's gRPC, whose clients then ping less often.
    pub(super) fn text(self) -> &'static str {
        match self {
            Offence::Pings => "too_many_pings",
            Offence::ControlFrames => "too_many_control_frames",
        }
    }
}

/// What is known of a connection.
pub(super) struct Conduct {
    spoken: Spoken,
    incoming: Frames,
    outgoing: Frames,
    control: Control,
    pings: Pings,
    /// The highest stream that the client opened.
    last_stream: u32,
}

/// What the client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// So many bytes of the preface were seen.
    Preface(usize),
    Http2,
    Other,
}

impl Conduct {
    /// Of a connection opened `now`.
    pub(super) fn new(ping_min_time: Duration, now: Instant) -> Conduct {
        Conduct {
            spoken: Spoken::Preface(0),
            incoming: Frames::default(),
            outgoing: Frames::default(),
            control: Control { earned: 0, free: FREE_PER_SECOND, since: now },
            pings: Pings { min_time: ping_min_time, last: None, excused: 0, strikes: 0 },
            last_stream: 0,
        }
    }

    /// Takes note of bytes from the client.
    ///
    /// # Errors
    /// The offence that they are.
    pub(super) fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Offence> {
        let bytes = match self.spoken {
            Spoken::Http2 => bytes,
            Spoken::Preface(seen) => self.greeted_by(seen, bytes),
            Spoken::Other => return Ok(()),
        };
        let Conduct { incoming, control, pings, last_stream, .. } = self;
        incoming.walk(bytes, |frame| match frame.kind {
            HEADERS => {
                if frame.stream > *last_stream {
                    *last_stream = frame.stream;
                    control.earn(EARNED_PER_STREAM);
                }
                Ok(())
            }
            DATA | CONTINUATION => Ok(()),
            PING if frame.flags & ACK == 0 => {
                pings.received(&now)?;
                control.spend(&now)
            }
            _ => control.spend(&now),
        })
    }

    /// Takes note of bytes sent to the client.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if self.spoken != Spoken::Http2 {
            return;
        }
        let Conduct { outgoing, control, pings, .. } = self;
        let Ok(()) = outgoing.walk(bytes, |frame| {
            match frame.kind {
                HEADERS | DATA => {
                    control.earn(EARNED_PER_ANSWER + frame.length / BYTES_PER_EARNED);
                    pings.excuse();
                }
                // They are answered.
                PING | SETTINGS if frame.flags & ACK == 0 => control.earn(1),
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Whether the client has shown what it speaks.
    pub(super) fn has_greeted(&self) -> bool {
        match self.spoken {
            Spoken::Preface(_) => false,
            Spoken::Http2 => self.incoming.begun,
            Spoken::Other => true,
        }
    }

    /// A GOAWAY that tells an offence, if one can be sent now: between two frames, after this side's first.
    pub(super) fn goaway(&self, offence: Offence) -> Option<Vec<u8>> {
        if !self.outgoing.is_between() {
            return None;
        }
        let text = offence.text().as_bytes();
        let length = u8::try_from(8 + text.len()).ok()?;
        let header = [0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
        let (last, code) = (self.last_stream.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes());
        Some([&header[..], &last, &code, text].concat())
    }

    /// Compares with the preface; what comes after it.
    fn greeted_by<'a>(&mut self, seen: usize, bytes: &'a [u8]) -> &'a [u8] {
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let (said, rest) = bytes.split_at_checked(expected.len()).unwrap_or((bytes, &[]));
        self.spoken = if !expected.starts_with(said) {
            Spoken::Other
        } else if said.len() == expected.len() {
            Spoken::Http2
        } else {
            Spoken::Preface(seen + said.len())
        };
        if self.spoken == Spoken::Http2 { rest } else { &[] }
    }
}

/// Control frames: what is left of them.
struct Control {
    earned: u32,
    free: u32,
    /// When the free ones were last given.
    since: Instant,
}

impl Control {
    fn earn(&mut self, count: u32) {
        self.earned = self.earned.saturating_add(count).min(EARNED_MAX);
    }

    fn spend(&mut self, now: impl Fn() -> Instant) -> Result<(), Offence> {
        if self.earned > 0 {
            self.earned -= 1;
            return Ok(());
        }
        if self.free == 0 {
            let now = now();
            if now.saturating_duration_since(self.since) < Duration::from_secs(1) {
                return Err(Offence::ControlFrames);
            }
            self.since = now;
            self.free = FREE_PER_SECOND;
        }
        self.free -= 1;
        Ok(())
    }
}

/// Pings: when, and how many too soon.
struct Pings {
    min_time: Duration,
    last: Option<Instant>,
    excused: u32,
    strikes: u32,
}

impl Pings {
    fn excuse(&mut self) {
        self.excused = (self.excused + 1).min(PINGS_EXCUSED_MAX);
    }

    fn received(&mut self, now: impl Fn() -> Instant) -> Result<(), Offence> {
        if self.min_time.is_zero() {
            return Ok(());
        }
        let now = now();
        let last = self.last.replace(now);
        if self.excused > 0 {
            self.excused -= 1;
            self.strikes = 0;
        } else if last.is_some_and(|last| now.saturating_duration_since(last) < self.min_time) {
            self.strikes += 1;
        }
        if self.strikes > PING_STRIKES_MAX { Err(Offence::Pings) } else { Ok(()) }
    }
}

/// A frame's header.
#[derive(Clone, Copy)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn of(header: &[u8; HEADER_BYTES]) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *header;
        Frame {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            // The highest bit is reserved.
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
        }
    }
}

/// Where one direction stands among its frames.
#[derive(Default)]
struct Frames {
    /// A header cut by the end of what was read or written, and how much of it is there.
    header: [u8; HEADER_BYTES],
    held: usize,
    /// Bytes of the present frame's payload that are still to come.
    payload: usize,
    /// Whether there was a frame yet.
    begun: bool,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.begun && self.held == 0 && self.payload == 0
    }

    /// Goes over the next bytes, showing each frame whose header is complete.
    fn walk<E>(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame) -> Result<(), E>) -> Result<(), E> {
        loop {
            let Some(rest) = bytes.get(self.payload..) else {
                self.payload -= bytes.len();
                return Ok(());
            };
            self.payload = 0;
            let header = match rest.split_first_chunk::<HEADER_BYTES>() {
                Some((header, rest)) if self.held == 0 => {
                    bytes = rest;
                    *header
                }
                _ => {
                    let missing = self.header.get_mut(self.held..).unwrap_or_default();
                    let taken = missing.len().min(rest.len());
                    let (now, later) = rest.split_at(taken);
                    missing[..taken].copy_from_slice(now);
                    self.held += taken;
                    if self.held < HEADER_BYTES {
                        return Ok(());
                    }
                    self.held = 0;
                    bytes = later;
                    self.header
                }
            };
            let frame = Frame::of(&header);
            self.begun = true;
            self.payload = frame.length as usize;
            see(frame)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIORITY: u8 = 2;
    const RST_STREAM: u8 = 3;
    const WINDOW_UPDATE: u8 = 8;
    const MIN_TIME: Duration = Duration::from_secs(5);

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.resize(HEADER_BYTES + length, 0xff);
        frame
    }

    /// A connection with a clock of its own, both sides past their SETTINGS.
    struct Rig {
        conduct: Conduct,
        now: Instant,
    }

    impl Rig {
        fn new(min_time: Duration) -> Rig {
            let now = Instant::now();
            let mut rig = Rig { conduct: Conduct::new(min_time, now), now };
            rig.receive(PREFACE).unwrap();
            rig.receive(&frame(SETTINGS, 0, 0, 12)).unwrap();
            rig.conduct.sent(&frame(SETTINGS, 0, 0, 18));
            rig.receive(&frame(SETTINGS, ACK, 0, 0)).unwrap();
            rig
        }

        fn receive(&mut self, bytes: &[u8]) -> Result<(), Offence> {
            let now = self.now;
            self.conduct.received(bytes, || now)
        }

        fn ping_after(&mut self, time: Duration) -> Result<(), Offence> {
            self.now += time;
            self.receive(&frame(PING, 0, 0, 8))
        }

        /// Sends frames until it is too much; how many passed.
        fn flood(&mut self, frame: &[u8]) -> (usize, Offence) {
            for passed in 0..1_000_000 {
                if let Err(offence) = self.receive(frame) {
                    return (passed, offence);
                }
            }
            panic!("a million frames passed");
        }
    }

    #[test]
    fn a_flood_of_any_control_frame_is_an_offence_after_a_hundred() {
        for kind in (PRIORITY..=255).filter(|kind| ![PING, CONTINUATION].contains(kind)) {
            let mut rig = Rig::new(MIN_TIME);
            let (passed, offence) = rig.flood(&frame(kind, 0, 1, 4));
            assert_eq!((passed, offence), (FREE_PER_SECOND as usize - 1, Offence::ControlFrames), "{kind}");
        }
        for flags in [0, ACK] {
            let mut rig = Rig::new(Duration::ZERO);
            let (passed, offence) = rig.flood(&frame(PING, flags, 0, 8));
            assert_eq!((passed, offence), (FREE_PER_SECOND as usize - 1, Offence::ControlFrames));
        }
    }

    #[test]
    fn control_frames_below_the_rate_pass_for_ever() {
        let mut rig = Rig::new(MIN_TIME);
        for _ in 0..1_000 {
            rig.now += Duration::from_secs(1);
            for _ in 0..FREE_PER_SECOND {
                rig.receive(&frame(PRIORITY, 0, 3, 5)).unwrap();
            }
        }
    }

    #[test]
    fn window_updates_and_pings_in_answer_to_data_pass() {
        let mut rig = Rig::new(MIN_TIME);
        for _ in 0..10_000 {
            rig.conduct.sent(&frame(DATA, 0, 1, 1));
            for stream in [0, 1] {
                rig.receive(&frame(WINDOW_UPDATE, 0, stream, 4)).unwrap();
            }
            rig.receive(&frame(PING, 0, 0, 8)).unwrap();
        }
        for _ in 0..1_000 {
            rig.conduct.sent(&frame(DATA, 0, 1, 16_384));
            // A client that reads in steps of 1 KiB.
            for _ in 0..16 {
                rig.receive(&frame(WINDOW_UPDATE, 0, 0, 4)).unwrap();
                rig.receive(&frame(WINDOW_UPDATE, 0, 1, 4)).unwrap();
            }
        }
    }

    #[test]
    fn updates_may_come_long_after_their_data() {
        let mut rig = Rig::new(MIN_TIME);
        for _ in 0..30_000 {
            rig.conduct.sent(&frame(DATA, 0, 1, 1));
        }
        for _ in 0..30_000 {
            rig.receive(&frame(WINDOW_UPDATE, 0, 0, 4)).unwrap();
            rig.receive(&frame(WINDOW_UPDATE, 0, 1, 4)).unwrap();
        }
    }

    #[test]
    fn every_stream_may_be_reset_but_only_a_stream_once() {
        let mut rig = Rig::new(MIN_TIME);
        for stream in (1..20_000).step_by(2) {
            rig.receive(&frame(HEADERS, 0, stream, 30)).unwrap();
            rig.receive(&frame(RST_STREAM, 0, stream, 4)).unwrap();
        }
        let mut rig = Rig::new(MIN_TIME);
        rig.receive(&frame(HEADERS, 0, 1, 30)).unwrap();
        let twice = [frame(HEADERS, 0, 1, 30), frame(RST_STREAM, 0, 1, 4)].concat();
        assert_eq!(rig.flood(&twice).1, Offence::ControlFrames);
    }

    #[test]
    fn pings_too_soon_are_an_offence_at_the_third_strike() {
        let mut rig = Rig::new(MIN_TIME);
        rig.ping_after(Duration::ZERO).unwrap();
        for _ in 0..PING_STRIKES_MAX {
            rig.ping_after(Duration::from_millis(4_999)).unwrap();
        }
        assert_eq!(rig.ping_after(Duration::from_millis(4_999)), Err(Offence::Pings));
    }

    #[test]
    fn pings_in_time_pass_for_ever_and_do_not_forgive_strikes() {
        let mut rig = Rig::new(MIN_TIME);
        for _ in 0..1_000 {
            rig.ping_after(MIN_TIME).unwrap();
        }
        rig.ping_after(Duration::ZERO).unwrap();
        rig.ping_after(Duration::ZERO).unwrap();
        rig.ping_after(MIN_TIME).unwrap();
        assert_eq!(rig.ping_after(Duration::ZERO), Err(Offence::Pings));
    }

    #[test]
    fn headers_or_data_sent_forgive_strikes_and_answers_to_pings_do_not() {
        for kind in [HEADERS, DATA] {
            let mut rig = Rig::new(MIN_TIME);
            for _ in 0..100 {
                for _ in 0..=PING_STRIKES_MAX {
                    rig.ping_after(Duration::ZERO).unwrap();
                }
                rig.conduct.sent(&frame(kind, 0, 1, 10));
            }
        }
        let mut rig = Rig::new(MIN_TIME);
        for _ in 0..=PING_STRIKES_MAX {
            rig.ping_after(Duration::ZERO).unwrap();
            rig.conduct.sent(&frame(PING, ACK, 0, 8));
            rig.conduct.sent(&frame(WINDOW_UPDATE, 0, 0, 4));
        }
        assert_eq!(rig.ping_after(Duration::ZERO), Err(Offence::Pings));
    }

    #[test]
    fn frames_are_told_apart_wherever_they_are_cut() {
        let parts = [
            frame(SETTINGS, 0, 0, 6),
            frame(HEADERS, 4, 7, 40),
            frame(DATA, 1, 7, 0),
            frame(DATA, 1, 7, 300),
            frame(PING, 0, 0, 8),
        ];
        let all = [&PREFACE[..], &parts.concat()].concat();
        let check = |conduct: &Conduct| {
            assert!(conduct.has_greeted());
            assert_eq!(conduct.last_stream, 7);
            assert!(conduct.pings.last.is_some());
            // The stream earned three, of which SETTINGS, before it, took none.
            assert_eq!((conduct.control.earned, conduct.control.free), (2, FREE_PER_SECOND - 1));
            assert!(conduct.incoming.is_between());
        };
        let now = Instant::now();
        for cut in 0..=all.len() {
            let mut conduct = Conduct::new(MIN_TIME, now);
            conduct.received(&all[..cut], || now).unwrap();
            conduct.received(&all[cut..], || now).unwrap();
            check(&conduct);
        }
        for step in 1..20 {
            let mut conduct = Conduct::new(MIN_TIME, now);
            all.chunks(step).for_each(|part| conduct.received(part, || now).unwrap());
            check(&conduct);
        }
    }

    #[test]
    fn what_is_not_http2_is_not_looked_at() {
        let now = Instant::now();
        let pings = frame(PING, 0, 0, 8).repeat(1_000);
        for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", b"\0"] {
            let mut conduct = Conduct::new(MIN_TIME, now);
            said.chunks(1).for_each(|part| conduct.received(part, || now).unwrap());
            conduct.received(&pings, || now).unwrap();
            conduct.sent(&pings);
            assert!(conduct.has_greeted());
            assert_eq!(conduct.goaway(Offence::Pings), None);
        }
    }

    #[test]
    fn a_goaway_names_the_last_stream_and_waits_for_the_first_frame() {
        let now = Instant::now();
        let mut conduct = Conduct::new(MIN_TIME, now);
        conduct.received(PREFACE, || now).unwrap();
        conduct.received(&frame(HEADERS, 0, 0x8000_0005, 3), || now).unwrap();
        assert_eq!(conduct.goaway(Offence::ControlFrames), None);
        conduct.sent(&frame(SETTINGS, 0, 0, 0));
        let goaway = conduct.goaway(Offence::ControlFrames).unwrap();
        assert_eq!(goaway[..17], [0, 0, 31, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 11]);
        assert_eq!(&goaway[17..], b"too_many_control_frames");
    }
}
