//! Answers that are made and that their client has not taken: how many bytes of them there are, and who waits until it
//! has taken some.
//!
//! ```text
//! request ─┬─ small answer ─────────────────────────────────────────> served
//!          ├─ a few values: is there room? ── no ─> waits its turn ─> served ─> answer, in pieces ─> h2 ─> socket
//!          └─ many keys: a place, and room in the process? ─ no ─> waits ─> served ─┘
//! ```
//!
//! h2 queues whatever it is given until the client's windows and the socket let it go, and a client may keep both shut.
//!
//! Rules kept here:
//! - Whose answer is small waits for nobody, and is not counted.
//! - Long answers are bounded by their number and leave the room of the others alone: a client that fetches a large list does
//!   not wait for it with everything else.
//! - While the process is full, a connection that holds nothing is served as ever, but for its long answers.
//! - An answer counts whole until its last piece is gone: the pieces share its memory. What is being read or is in the log counts
//!   with what is expected of it.
//! - Whoever leaves the queue lets the next one look: while there is room and somebody waits, somebody has been told.
//!
//! It leaves to others: which requests wait ([`super::hot`]), and when a client is given up ([`crate::accept`]).

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request as Op;
use bytes::Bytes;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Answers up to this size go out as they are, uncounted.
pub(super) const SMALL_BYTES: usize = 16 * 1024;
/// Bytes of a piece: what a client has to take for it to be noticed.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of short answers of one connection beyond which others wait: ten of the largest values.
const SHORT_BYTES_MAX: usize = 16 << 20;
/// Long answers of one connection that are being read or delivered.
const LONG_ANSWERS_MAX: usize = 8;
/// Bytes of answers in the whole process beyond which others wait.
const TOTAL_BYTES_MAX: usize = 1 << 30;
/// What an answer of a few values counts while it is in the log: more than most are, far less than one can be.
const SHORT_BYTES_EXPECTED: usize = 128 * 1024;
/// What a long answer counts while it is read, so that not all connections of a process read at once.
const LONG_BYTES_EXPECTED: usize = 16 << 20;
/// Requests of one connection that wait, for the rest of their message or for room.
const WAITING_MAX: usize = 10_000;
/// Bytes of those requests.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Values that a txn may ask for to be one with a short answer.
const FEW: usize = 8;

/// How large an answer may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A header and some numbers.
    Small,
    /// A few values.
    Short,
    /// As many keys as there are.
    Long,
}

impl Size {
    pub(super) fn of_range(request: &pb::RangeRequest) -> Size {
        if request.count_only {
            Size::Small
        } else if request.range_end.is_empty() || request.limit == 1 {
            Size::Short
        } else {
            Size::Long
        }
    }

    pub(super) fn of_put(request: &pb::PutRequest) -> Size {
        if request.prev_kv { Size::Short } else { Size::Small }
    }

    fn of_delete(request: &pb::DeleteRangeRequest) -> Size {
        match (request.prev_kv, request.range_end.is_empty()) {
            (false, _) => Size::Small,
            (true, true) => Size::Short,
            (true, false) => Size::Long,
        }
    }

    pub(super) fn of_txn(request: &pb::TxnRequest) -> Size {
        let mut short = 0;
        for op in request.success.iter().chain(&request.failure) {
            let size = match &op.request {
                Some(Op::RequestRange(range)) => Size::of_range(range),
                Some(Op::RequestPut(put)) => Size::of_put(put),
                Some(Op::RequestDeleteRange(delete)) => Size::of_delete(delete),
                Some(Op::RequestTxn(txn)) => Size::of_txn(txn),
                None => Size::Small,
            };
            match size {
                Size::Small => {}
                Size::Short => short += 1,
                Size::Long => return Size::Long,
            }
        }
        match short {
            0 => Size::Small,
            1..=FEW => Size::Short,
            _ => Size::Long,
        }
    }
}

/// What the answers of all connections come to.
#[derive(Debug, Default)]
pub(crate) struct Total {
    bytes: AtomicUsize,
    /// Those of answers that were made.
    made: AtomicUsize,
    room: Notify,
}

impl Total {
    fn has_room(&self) -> bool {
        self.bytes.load(Relaxed) <= TOTAL_BYTES_MAX
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn sub(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Relaxed);
        if before > TOTAL_BYTES_MAX && before - bytes <= TOTAL_BYTES_MAX {
            self.room.notify_waiters();
        }
    }

    async fn wait(&self) {
        loop {
            let mut told = pin!(self.room.notified());
            told.as_mut().enable();
            if self.has_room() {
                return;
            }
            told.await;
        }
    }
}

/// The answers of one connection. All but the total is used by one thread.
#[derive(Debug)]
pub(crate) struct Undelivered {
    total: Arc<Total>,
    /// Bytes of short answers, made or expected.
    short: AtomicUsize,
    /// Bytes of answers that were made, of any length.
    made: AtomicUsize,
    /// Bytes that the client has taken, ever.
    taken: AtomicUsize,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Those that wait for room for a short answer, in turn.
    queued: AtomicUsize,
    room: Notify,
    places: Arc<Semaphore>,
}

impl Undelivered {
    pub(crate) fn new(total: Arc<Total>) -> Undelivered {
        Undelivered {
            total,
            short: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            room: Notify::new(),
            places: Arc::new(Semaphore::new(LONG_ANSWERS_MAX)),
        }
    }

    /// Bytes that the client could take.
    pub(crate) fn bytes(&self) -> usize {
        self.made.load(Relaxed)
    }

    /// Bytes of large answers that it has taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Whether answers that no client has taken leave little room for others.
    pub(crate) fn crowd(&self) -> bool {
        self.total.made.load(Relaxed) > TOTAL_BYTES_MAX / 2
    }

    fn has_bytes_left(&self) -> bool {
        let short = self.short.load(Relaxed);
        short <= SHORT_BYTES_MAX && (self.total.has_room() || (short == 0 && self.bytes() == 0))
    }

    /// Whether a request with a short answer is served at once.
    pub(super) fn has_room(&self) -> bool {
        self.queued.load(Relaxed) == 0 && self.has_bytes_left()
    }

    /// Lets the next one look whether there is room.
    fn pass_on(&self) {
        if self.queued.load(Relaxed) > 0 && self.has_bytes_left() {
            self.room.notify_one();
        }
    }

    /// Holds what a short answer is expected to be.
    pub(super) fn expect_short(self: &Arc<Undelivered>) -> Held {
        Held::new(self, SHORT_BYTES_EXPECTED, None)
    }

    /// A place for a long answer, if it need not be waited for.
    pub(super) fn try_long(self: &Arc<Undelivered>) -> Option<Held> {
        if !self.total.has_room() {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Held::new(self, LONG_BYTES_EXPECTED, Some(place)))
    }

    async fn long(self: &Arc<Undelivered>) -> Held {
        // the places are never closed
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        self.total.wait().await;
        Held::new(self, LONG_BYTES_EXPECTED, place)
    }

    /// A request waits from now on; `None` if too many do.
    pub(super) fn wait(self: &Arc<Undelivered>, what_for: WaitsFor) -> Option<Waiting> {
        if self.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Relaxed);
            return None;
        }
        if what_for == WaitsFor::Short {
            self.queued.fetch_add(1, Relaxed);
        }
        Some(Waiting { on: Arc::clone(self), what_for, bytes: 0 })
    }
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The rest of its message.
    Message,
    /// Room for a short answer.
    Short,
    /// A place for a long one.
    Long,
}

/// A request that waits, counted.
pub(super) struct Waiting {
    on: Arc<Undelivered>,
    what_for: WaitsFor,
    bytes: usize,
}

impl Waiting {
    /// It is of so many bytes by now. Whether that is not too much, with all others.
    pub(super) fn holds(&mut self, bytes: usize) -> bool {
        self.on.waiting_bytes.fetch_add(bytes, Relaxed);
        let before = self.on.waiting_bytes.fetch_sub(self.bytes, Relaxed);
        let all = before - std::mem::replace(&mut self.bytes, bytes);
        all <= WAITING_BYTES_MAX
    }

    /// Waits for room. The request is to be served before anything else is done: others are told by then.
    pub(super) async fn over(self) -> Option<Held> {
        match self.what_for {
            WaitsFor::Message => None,
            WaitsFor::Long => Some(self.on.long().await),
            WaitsFor::Short => {
                while !self.on.has_bytes_left() {
                    self.on.room.notified().await;
                }
                None
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.on.waiting.fetch_sub(1, Relaxed);
        self.on.waiting_bytes.fetch_sub(self.bytes, Relaxed);
        if self.what_for == WaitsFor::Short {
            self.on.queued.fetch_sub(1, Relaxed);
            self.on.pass_on();
        }
    }
}

/// Bytes of one answer, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: Arc<Undelivered>,
    bytes: usize,
    made: bool,
    /// Of a long answer.
    place: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn new(of: &Arc<Undelivered>, bytes: usize, place: Option<OwnedSemaphorePermit>) -> Held {
        let held = Held { of: Arc::clone(of), bytes, made: false, place };
        held.add(bytes);
        held
    }

    /// Holds an answer of which nothing was expected.
    pub(super) fn of_answer(of: &Arc<Undelivered>) -> Held {
        Held::new(of, 0, None)
    }

    fn add(&self, bytes: usize) {
        self.of.total.add(bytes);
        if self.place.is_none() {
            self.of.short.fetch_add(bytes, Relaxed);
        }
    }

    fn sub(&self, bytes: usize) {
        self.of.total.sub(bytes);
        if self.place.is_none() {
            self.of.short.fetch_sub(bytes, Relaxed);
        }
    }

    /// The answer in pieces, which hold it together.
    pub(super) fn pieces(mut self, answer: Bytes) -> impl Iterator<Item = Bytes> {
        let expected = std::mem::replace(&mut self.bytes, answer.len());
        self.made = true;
        self.of.made.fetch_add(answer.len(), Relaxed);
        self.of.total.made.fetch_add(answer.len(), Relaxed);
        self.add(answer.len());
        self.sub(expected);
        let held = Arc::new(self);
        (0..answer.len()).step_by(PIECE_BYTES).map(move |from| {
            let to = answer.len().min(from + PIECE_BYTES);
            Bytes::from_owner(Piece { bytes: answer.slice(from..to), of: Arc::clone(&held) })
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.made {
            self.of.made.fetch_sub(self.bytes, Relaxed);
            self.of.total.made.fetch_sub(self.bytes, Relaxed);
        }
        self.sub(self.bytes);
        self.of.pass_on();
    }
}

/// A piece of an answer; h2 drops it when it is written, or its stream is gone.
struct Piece {
    bytes: Bytes,
    of: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.of.of.taken.fetch_add(self.bytes.len(), Relaxed);
    }
}

#[cfg(test)]
impl Undelivered {
    /// The pieces of an answer.
    pub(crate) fn hold(self: &Arc<Undelivered>, bytes: usize) -> Vec<Bytes> {
        Held::of_answer(self).pieces(Bytes::from(vec![7; bytes])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::Pin;

    type Answer = Vec<Bytes>;

    fn connection() -> Arc<Undelivered> {
        Arc::new(Undelivered::new(Arc::default()))
    }

    /// So many connections of one process.
    fn connections<const COUNT: usize>() -> [Arc<Undelivered>; COUNT] {
        let total = Arc::new(Total::default());
        std::array::from_fn(|_| Arc::new(Undelivered::new(Arc::clone(&total))))
    }

    /// More than there is room for.
    fn fill(connection: &Arc<Undelivered>) -> Vec<Answer> {
        (0..17).map(|_| connection.hold(1 << 20)).collect()
    }

    fn wait(
        connection: &Arc<Undelivered>,
        what_for: WaitsFor,
    ) -> Pin<Box<dyn Future<Output = Option<Held>>>> {
        let mut over = Box::pin(connection.wait(what_for).expect("few wait").over());
        assert!((&mut over).now_or_never().is_none(), "it waits");
        over
    }

    fn is_over<T>(waiting: &mut (impl Future<Output = T> + Unpin)) -> bool {
        waiting.now_or_never().is_some()
    }

    #[test]
    fn an_answer_is_held_until_its_last_piece_is_gone() {
        let connection = connection();
        let answer = Bytes::from((0..700_000_u32).map(|number| (number / 3) as u8).collect::<Vec<_>>());
        let held = connection.expect_short();
        assert_eq!((connection.bytes(), connection.short.load(Relaxed)), (0, SHORT_BYTES_EXPECTED));
        let mut pieces: Answer = held.pieces(answer.clone()).collect();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [262_144, 262_144, 175_712]);
        assert_eq!(pieces.concat(), answer);
        while let Some(piece) = pieces.pop() {
            assert_eq!((connection.bytes(), connection.short.load(Relaxed)), (700_000, 700_000));
            drop(piece.slice(1..));
            drop(piece);
        }
        assert_eq!((connection.bytes(), connection.short.load(Relaxed), connection.taken()), (0, 0, 700_000));
        assert_eq!(connection.total.bytes.load(Relaxed), 0);
        assert_eq!(connection.total.made.load(Relaxed), 0);
    }

    #[test]
    fn requests_wait_in_turn_for_room_and_are_served_one_after_the_other() {
        let connection = connection();
        assert!(connection.has_room());
        let mut answers = fill(&connection);
        assert!(!connection.has_room());
        let mut waiting = [(); 3].map(|()| wait(&connection, WaitsFor::Short));
        assert!(!waiting.iter_mut().any(is_over));
        answers.pop();
        assert!(!connection.has_room(), "others came first");
        assert!(!is_over(&mut waiting[1]), "it is not its turn");
        assert!(is_over(&mut waiting[0]));
        // it has made an answer
        answers.push(connection.hold(1 << 20));
        assert!(!is_over(&mut waiting[1]) && !is_over(&mut waiting[2]));
        answers.clear();
        assert!(is_over(&mut waiting[1]) && is_over(&mut waiting[2]));
        assert!(connection.has_room());
    }

    #[test]
    fn who_gives_up_its_turn_lets_the_next_one_have_it() {
        let connection = connection();
        let answers = fill(&connection);
        let [first, mut second] = [(); 2].map(|()| wait(&connection, WaitsFor::Short));
        drop(answers);
        drop(first);
        assert!(is_over(&mut second));
        let _answers = fill(&connection);
        drop(wait(&connection, WaitsFor::Short));
        assert_eq!((connection.waiting.load(Relaxed), connection.queued.load(Relaxed)), (0, 0));
    }

    #[test]
    fn long_answers_have_places_and_leave_the_room_of_others_alone() {
        let connection = connection();
        let mut held: Vec<Held> = (0..LONG_ANSWERS_MAX).map(|_| connection.try_long().unwrap()).collect();
        assert!(connection.try_long().is_none());
        let mut ninth = wait(&connection, WaitsFor::Long);
        let mut pieces: Answer = held.pop().unwrap().pieces(Bytes::from(vec![0; 20 << 20])).collect();
        assert!(connection.has_room(), "for short answers");
        while pieces.len() > 1 {
            pieces.pop();
            assert!(!is_over(&mut ninth));
        }
        drop(pieces);
        assert!(is_over(&mut ninth), "the place is free");
    }

    #[test]
    fn a_full_process_serves_those_that_hold_nothing_but_no_long_answers() {
        let [hoarder, some, none] = connections();
        let mut answers: Vec<Held> = Vec::new();
        let _held = some.hold(1 << 20);
        while hoarder.total.has_room() {
            let other = Arc::new(Undelivered::new(Arc::clone(&hoarder.total)));
            answers.extend(std::iter::from_fn(|| other.try_long()));
        }
        assert!(none.has_room());
        assert!(!some.has_room(), "it holds something");
        assert!(none.try_long().is_none());
        let mut waits = [wait(&none, WaitsFor::Long), wait(&some, WaitsFor::Long)];
        assert!(!hoarder.crowd(), "they are only expected");
        answers.truncate(answers.len() - 2);
        let first = waits[0].as_mut().now_or_never();
        assert!(first.is_some());
        assert!(some.has_room());
        drop(first);
        assert!(is_over(&mut waits[1]));
    }

    #[test]
    fn no_more_requests_wait_than_are_allowed() {
        let connection = connection();
        let mut waiting: Vec<Waiting> =
            (0..WAITING_MAX).map(|_| connection.wait(WaitsFor::Message).unwrap()).collect();
        assert!(connection.wait(WaitsFor::Short).is_none());
        waiting.pop();
        assert!(connection.wait(WaitsFor::Short).is_some());
        assert!(waiting[0].holds(WAITING_BYTES_MAX / 2) && waiting[1].holds(WAITING_BYTES_MAX / 2));
        assert!(!waiting[2].holds(1));
        assert!(waiting[1].holds(WAITING_BYTES_MAX / 2 - 1));
        drop(waiting);
        assert_eq!((connection.waiting.load(Relaxed), connection.waiting_bytes.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_requests_answer_is_sized_by_what_it_asks_for() {
        let range = |key: &'static str, range_end: &'static str| pb::RangeRequest {
            key: Bytes::from(key),
            range_end: Bytes::from(range_end),
            ..Default::default()
        };
        assert_eq!(Size::of_range(&range("a", "")), Size::Short);
        assert_eq!(Size::of_range(&range("a", "z")), Size::Long);
        assert_eq!(Size::of_range(&pb::RangeRequest { limit: 1, ..range("a", "z") }), Size::Short);
        assert_eq!(Size::of_range(&pb::RangeRequest { count_only: true, ..range("a", "z") }), Size::Small);
        let put = |prev_kv| pb::PutRequest { prev_kv, ..Default::default() };
        assert_eq!((Size::of_put(&put(false)), Size::of_put(&put(true))), (Size::Small, Size::Short));
        let txn = |ops: Vec<Op>| {
            let op = |request| pb::RequestOp { request: Some(request) };
            pb::TxnRequest { failure: ops.into_iter().map(op).collect(), ..Default::default() }
        };
        let gets = |count| txn(vec![Op::RequestRange(range("a", "")); count]);
        let nested = |inner| txn(vec![Op::RequestPut(put(false)), Op::RequestTxn(inner)]);
        let delete = |prev_kv, range_end: &'static str| {
            let range_end = Bytes::from(range_end);
            txn(vec![Op::RequestDeleteRange(pb::DeleteRangeRequest {
                range_end,
                prev_kv,
                ..Default::default()
            })])
        };
        for (request, size) in [
            (txn(vec![Op::RequestPut(put(false))]), Size::Small),
            (gets(1), Size::Short),
            (gets(FEW + 1), Size::Long),
            (nested(gets(0)), Size::Small),
            (nested(gets(1)), Size::Short),
            (nested(gets(FEW + 1)), Size::Long),
            (txn(vec![Op::RequestRange(range("a", "z"))]), Size::Long),
            (delete(false, "z"), Size::Small),
            (delete(true, ""), Size::Short),
            (delete(true, "z"), Size::Long),
        ] {
            assert_eq!(Size::of_txn(&request), size, "{request:?}");
        }
    }
}
