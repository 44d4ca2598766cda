//! Where the core thread's answers and events come, and the slots in which handlers wait for them.

use coffer_engine::watch::EventBatch;
use coffer_raftlog::proposal::{self, Outcome, Post, ReplyTo};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Batches of events kept for a thread that does not fetch them: at the pace of a fast disk about a second's worth.
/// Beyond it they are dropped, and the watchers read history.
const EVENT_BATCHES_MAX: usize = 16_384;
/// Bytes of keys and values in them, likewise; a batch that comes alone may be larger.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// How late a deadline may be noticed: clients have clocks of their own.
const DEADLINE_LATE: Duration = Duration::from_millis(20);

/// A serving thread's mailbox.
pub struct Mailbox {
    number: u16,
    slots_max: usize,
    slots: Mutex<Slots>,
    posted: Mutex<Posted>,
    /// Whether events are wanted.
    listening: AtomicBool,
    signalled: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Posted {
    answers: Vec<(ReplyTo, Outcome)>,
    events: Vec<Arc<EventBatch>>,
    event_bytes: usize,
    missed: bool,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those of them that say what is to be done with the answer.
    then: usize,
    /// When their deadlines are looked at.
    look_at: Option<Instant>,
}

impl Slots {
    /// The slot is free, and an answer that comes late finds another generation.
    fn give_back(&mut self, number: u32) -> State {
        let slot = &mut self.slots[number as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(number);
        std::mem::replace(&mut slot.state, State::Free)
    }
}

struct Slot {
    generation: u32,
    state: State,
}

enum State {
    Free,
    Waiting(Option<Waker>),
    Ready(Outcome),
    Then { answer: Answer, deadline: Instant },
}

/// What is done with an answer, on the serving thread; `None`: there was none before the deadline.
type Answer = Box<dyn FnOnce(Option<Outcome>) + Send>;

/// A place where one answer will land. Awaiting it gives the answer; dropping it gives the place back.
pub struct Ticket {
    mailbox: Arc<Mailbox>,
    slot: u32,
    generation: u32,
    /// The slot takes care of itself.
    given: bool,
}

impl Mailbox {
    /// An empty mailbox with at most `slots_max` requests under way.
    pub fn new(number: u16, slots_max: usize) -> Mailbox {
        Mailbox {
            number,
            slots_max,
            slots: Mutex::default(),
            posted: Mutex::default(),
            listening: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// A slot for one answer; `None` when too many requests are under way.
    pub fn ticket(self: &Arc<Mailbox>) -> Option<Ticket> {
        let mut slots = self.slots.lock();
        let slot = match slots.free.pop() {
            Some(slot) => slot,
            None if slots.slots.len() >= self.slots_max => return None,
            None => {
                slots.slots.push(Slot { generation: 0, state: State::Free });
                u32::try_from(slots.slots.len() - 1).ok()?
            }
        };
        let entry = &mut slots.slots[slot as usize];
        entry.state = State::Waiting(None);
        Some(Ticket { mailbox: Arc::clone(self), slot, generation: entry.generation, given: false })
    }

    /// From now on events are wanted: those of every state that is published after the one that a reader sees once this has
    /// returned. Before, a post of nothing else wakes nobody.
    pub fn listen(&self) {
        self.listening.store(true, Ordering::Relaxed);
        // with the fence in `post`: whoever posts sees this, or the reader here sees what was published before that post
        fence(Ordering::SeqCst);
    }

    /// Nobody wants events any more.
    pub fn stop_listening(&self) {
        self.listening.store(false, Ordering::Relaxed);
    }

    fn listens(&self) -> bool {
        // see `listen`
        fence(Ordering::SeqCst);
        self.listening.load(Ordering::Relaxed)
    }

    /// Makes the pump look.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Waits until somebody signals.
    pub(super) fn signalled(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.signalled.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Puts posted answers into their slots and wakes who waits there, or does what is to be done with them; returns the
    /// events, and whether some were lost.
    pub(super) fn drain(&self) -> (Vec<Arc<EventBatch>>, bool) {
        let posted = std::mem::take(&mut *self.posted.lock());
        if !posted.answers.is_empty() {
            self.deliver(posted.answers);
        }
        (posted.events, posted.missed)
    }

    fn deliver(&self, answers: Vec<(ReplyTo, Outcome)>) {
        let mut wakers = Vec::new();
        let mut told = Vec::with_capacity(answers.len());
        let mut slots = self.slots.lock();
        for (reply_to, outcome) in answers {
            let Some(slot) = slots.slots.get_mut(reply_to.slot as usize) else { continue };
            if slot.generation != reply_to.generation {
                continue;
            }
            if matches!(slot.state, State::Then { .. }) {
                slots.then -= 1;
                if let State::Then { answer, .. } = slots.give_back(reply_to.slot) {
                    told.push((answer, outcome));
                }
                continue;
            }
            if let State::Waiting(Some(waker)) = std::mem::replace(&mut slot.state, State::Ready(outcome)) {
                wakers.push(waker);
            }
        }
        drop(slots);
        wakers.into_iter().for_each(Waker::wake);
        told.into_iter().for_each(|(answer, outcome)| answer(Some(outcome)));
    }

    /// Tells those whose deadline is over that there is no answer; how long until this is to be done again.
    pub(super) fn expire(&self, now: Instant) -> Option<Duration> {
        let mut slots = self.slots.lock();
        let look_at = slots.look_at?;
        if now < look_at {
            return Some(look_at - now);
        }
        let is_late = |slot: &Slot| matches!(slot.state, State::Then { deadline, .. } if deadline <= now);
        let late: Vec<usize> = slots
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| is_late(slot))
            .map(|(place, _)| place)
            .collect();
        slots.then -= late.len();
        let given_up: Vec<State> = late.into_iter().map(|place| slots.give_back(place as u32)).collect();
        slots.look_at = (slots.then > 0).then_some(now + DEADLINE_LATE);
        let again = slots.look_at.map(|_| DEADLINE_LATE);
        drop(slots);
        for state in given_up {
            if let State::Then { answer, .. } = state {
                answer(None);
            }
        }
        again
    }
}

impl proposal::Mailbox for Mailbox {
    fn post(&self, mut post: Post) {
        post.events = post.events.filter(|_| self.listens());
        if post.answers.is_empty() && post.events.is_none() {
            return;
        }
        let bytes = post.events.as_ref().map_or(0, |events| events.bytes());
        let mut posted = self.posted.lock();
        if posted.answers.is_empty() {
            posted.answers = post.answers;
        } else {
            posted.answers.append(&mut post.answers);
        }
        if let Some(events) = post.events {
            posted.event_bytes += bytes;
            let too_many_bytes = posted.event_bytes > EVENT_BYTES_MAX && !posted.events.is_empty();
            if too_many_bytes || posted.events.len() >= EVENT_BATCHES_MAX {
                posted.missed = true;
                posted.events = Vec::new();
            }
            if !posted.missed {
                posted.events.push(events);
            }
        }
        drop(posted);
        self.signal();
    }
}

impl Ticket {
    /// Where the answer is to be sent.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo { mailbox: self.mailbox.number, slot: self.slot, generation: self.generation }
    }

    /// Instead of waiting: what is to be done when the answer is there, or (with `None`) the deadline over. It runs on the
    /// thread that takes the mailbox's posts, among others of its kind, and must not take long; the slot is free by then.
    pub fn then(mut self, deadline: Instant, answer: impl FnOnce(Option<Outcome>) + Send + 'static) {
        let mut slots = self.mailbox.slots.lock();
        let state = &mut slots.slots[self.slot as usize].state;
        if let State::Ready(outcome) = std::mem::replace(state, State::Waiting(None)) {
            drop(slots);
            drop(self);
            return answer(Some(outcome));
        }
        *state = State::Then { answer: Box::new(answer), deadline };
        slots.then += 1;
        let first = slots.look_at.is_none();
        if first {
            slots.look_at = Some(Instant::now() + DEADLINE_LATE);
        }
        drop(slots);
        self.given = true;
        if first {
            // the pump is to look at its clock from now on
            self.mailbox.signal();
        }
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut slots = self.mailbox.slots.lock();
        let slot = &mut slots.slots[self.slot as usize];
        match std::mem::replace(&mut slot.state, State::Waiting(None)) {
            State::Ready(outcome) => Poll::Ready(outcome),
            State::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {
                slot.state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Waiting(_) | State::Free | State::Then { .. } => {
                slot.state = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.given {
            drop(self.mailbox.slots.lock().give_back(self.slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_engine::mvcc::{Event, EventKind, KeyValue};
    use coffer_raftlog::proposal::Mailbox as _;
    use futures_util::FutureExt as _;

    fn answer(mailbox: &Mailbox, reply_to: ReplyTo, index: u64) {
        mailbox.post(Post { answers: vec![(reply_to, Outcome::ReadIndex(index))], events: None });
        mailbox.drain();
    }

    fn index(outcome: Option<Outcome>) -> Option<u64> {
        match outcome {
            Some(Outcome::ReadIndex(index)) => Some(index),
            _ => None,
        }
    }

    #[test]
    fn an_answer_reaches_the_one_who_waits_for_it() {
        let mailbox = Arc::new(Mailbox::new(3, 10));
        let (mut one, mut two) = (mailbox.ticket().unwrap(), mailbox.ticket().unwrap());
        assert_eq!(one.reply_to().mailbox, 3);
        assert!((&mut one).now_or_never().is_none());
        answer(&mailbox, two.reply_to(), 2);
        answer(&mailbox, one.reply_to(), 1);
        assert_eq!(index((&mut one).now_or_never()), Some(1));
        assert_eq!(index((&mut two).now_or_never()), Some(2));
    }

    #[test]
    fn an_answer_that_comes_too_late_does_not_reach_the_slots_next_owner() {
        let mailbox = Arc::new(Mailbox::new(0, 10));
        let gone = mailbox.ticket().unwrap();
        let late = gone.reply_to();
        drop(gone);
        let mut next = mailbox.ticket().unwrap();
        assert_eq!(next.reply_to().slot, late.slot);
        answer(&mailbox, late, 1);
        assert!((&mut next).now_or_never().is_none());
        answer(&mailbox, next.reply_to(), 2);
        assert_eq!(index(next.now_or_never()), Some(2));
    }

    #[test]
    fn an_answer_to_a_slot_that_never_was_is_dropped() {
        let mailbox = Mailbox::new(0, 10);
        answer(&mailbox, ReplyTo { mailbox: 0, slot: 77, generation: 0 }, 1);
    }

    #[test]
    fn slots_are_bounded_and_given_back() {
        let mailbox = Arc::new(Mailbox::new(0, 2));
        let tickets = [mailbox.ticket(), mailbox.ticket()];
        assert!(tickets.iter().all(Option::is_some));
        assert!(mailbox.ticket().is_none());
        drop(tickets);
        assert!(mailbox.ticket().is_some());
    }

    #[test]
    fn events_beyond_the_bound_are_dropped_and_that_is_told() {
        let mailbox = Mailbox::new(0, 1);
        mailbox.listen();
        let batch = Arc::new(EventBatch::default());
        for _ in 0..EVENT_BATCHES_MAX {
            mailbox.post(Post { answers: Vec::new(), events: Some(Arc::clone(&batch)) });
        }
        mailbox.post(Post { answers: Vec::new(), events: Some(Arc::clone(&batch)) });
        mailbox.post(Post { answers: Vec::new(), events: Some(batch) });
        let (events, missed) = mailbox.drain();
        assert!(events.is_empty());
        assert!(missed);
        assert!(!mailbox.drain().1, "told once");
    }

    #[test]
    fn events_are_bounded_by_their_bytes_too() {
        let mailbox = Mailbox::new(0, 1);
        mailbox.listen();
        let batch = |bytes| {
            let value = bytes::Bytes::from(vec![0; bytes]);
            let kv = Arc::new(KeyValue { value, ..KeyValue::default() });
            let event = Event { kind: EventKind::Put, kv: Arc::clone(&kv), prev_kv: Some(kv) };
            Arc::new(EventBatch { revision: 1, events: vec![event] })
        };
        let half = batch(EVENT_BYTES_MAX / 4);
        for (batches, missed) in
            [(vec![&half; 2], false), (vec![&half; 3], true), (vec![&batch(EVENT_BYTES_MAX)], false)]
        {
            for batch in &batches {
                mailbox.post(Post { answers: Vec::new(), events: Some(Arc::clone(batch)) });
            }
            let (events, told) = mailbox.drain();
            assert_eq!((events.len(), told), (if missed { 0 } else { batches.len() }, missed));
        }
    }

    #[test]
    fn events_that_nobody_wants_are_not_kept_and_wake_nobody() {
        let mailbox = Mailbox::new(0, 1);
        let post = || mailbox.post(Post { answers: Vec::new(), events: Some(Arc::default()) });
        post();
        assert!(mailbox.signalled().now_or_never().is_none());
        mailbox.listen();
        post();
        assert!(mailbox.signalled().now_or_never().is_some());
        mailbox.stop_listening();
        post();
        assert!(mailbox.signalled().now_or_never().is_none());
        assert_eq!(mailbox.drain().0.len(), 1);
    }

    #[test]
    fn what_is_to_be_done_with_an_answer_is_done_once() {
        let mailbox = Arc::new(Mailbox::new(0, 1));
        let (told, heard) = std::sync::mpsc::channel();
        let far = Instant::now() + Duration::from_secs(3_600);
        for early in [false, true] {
            let ticket = mailbox.ticket().unwrap();
            let reply_to = ticket.reply_to();
            let told = told.clone();
            if early {
                answer(&mailbox, reply_to, 7);
            }
            ticket.then(far, move |outcome| told.send(index(outcome)).unwrap());
            answer(&mailbox, reply_to, 7);
            answer(&mailbox, reply_to, 8);
            assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Some(7)], "early: {early}");
        }
        assert!(mailbox.ticket().is_some(), "the slot is free");
    }

    #[test]
    fn an_answer_that_does_not_come_is_given_up_at_its_deadline() {
        let mailbox = Arc::new(Mailbox::new(0, 2));
        let (told, heard) = std::sync::mpsc::channel();
        let now = Instant::now();
        assert!(mailbox.expire(now).is_none());
        let mut replies = Vec::new();
        for seconds in [1, 3_600] {
            let (ticket, told) = (mailbox.ticket().unwrap(), told.clone());
            replies.push(ticket.reply_to());
            let deadline = now + Duration::from_secs(seconds);
            ticket.then(deadline, move |outcome| told.send((seconds, outcome.is_some())).unwrap());
        }
        assert!(mailbox.expire(now).is_some(), "it is not time");
        assert!(heard.try_recv().is_err());
        assert!(mailbox.expire(now + Duration::from_secs(2)).is_some(), "one is left");
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [(1, false)]);
        replies.into_iter().for_each(|reply_to| answer(&mailbox, reply_to, 1));
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [(3_600, true)]);
        assert!(mailbox.expire(now + Duration::from_secs(3)).is_none(), "none is left");
    }
}
