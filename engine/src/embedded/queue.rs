//! What callers hand to the writer's thread, and how each gets its answer.

use super::error::Error;
use crate::command::{Applied, Command};
use crate::error::Fault;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes that may wait before callers are told that the database is busy.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Where one caller waits for the answer to one command.
#[derive(Debug, Default)]
pub(super) struct Slot {
    answer: Mutex<Option<Result<Applied, Error>>>,
    filled: Condvar,
}

impl Slot {
    /// A slot, and the other side of it.
    pub(super) fn with_asker() -> (Arc<Slot>, Asker) {
        let slot = Arc::new(Slot::default());
        (Arc::clone(&slot), Asker(Some(slot)))
    }

    fn fill(&self, answer: Result<Applied, Error>) {
        *self.answer.lock() = Some(answer);
        self.filled.notify_one();
    }

    /// Waits for the answer.
    pub(super) fn wait(&self) -> Result<Applied, Error> {
        let mut answer = self.answer.lock();
        loop {
            match answer.take() {
                Some(answer) => return answer,
                None => self.filled.wait(&mut answer),
            }
        }
    }
}

/// Whoever waits at a slot, as the writer's thread knows it. It is answered once: if this is lost, because a panic unwinds
/// over it, say, with [`Fault::Stopped`], for whether the command was made is not known then.
#[derive(Debug)]
pub(super) struct Asker(Option<Arc<Slot>>);

impl Asker {
    /// Answers; who waits goes on.
    pub(super) fn answer(mut self, answer: Result<Applied, Error>) {
        if let Some(slot) = self.0.take() {
            slot.fill(answer);
        }
    }

    /// Whether it waits at this slot.
    #[cfg(all(test, feature = "sim"))]
    pub(super) fn waits_at(&self, slot: &Arc<Slot>) -> bool {
        self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, slot))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.fill(Err(Fault::Stopped.into()));
        }
    }
}

/// A command, and who asked for it; nobody for what the writer's thread does by itself.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) bytes: u64,
    pub(super) asker: Option<Asker>,
}

/// The queue to the writer's thread.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<Request>,
    bytes: u64,
    /// The thread sleeps and is to be woken once so many bytes wait; never while it is awake.
    wake_above: Option<u64>,
    /// Why nothing more is taken.
    closed: Option<Error>,
}

impl Queue {
    /// Queues a request; whether the thread is to be woken.
    ///
    /// # Errors
    /// [`Error::Busy`], or why the queue is closed.
    pub(super) fn push(&self, request: Request) -> Result<bool, Error> {
        let mut inner = self.inner.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        let bytes = inner.bytes + request.bytes;
        if bytes > QUEUE_BYTES_MAX && !inner.requests.is_empty() {
            return Err(Error::Busy);
        }
        inner.bytes = bytes;
        inner.requests.push_back(request);
        Ok(inner.wake_above.is_some_and(|above| bytes >= above))
    }

    /// Takes what waits, until `bytes_max` are passed. The thread is awake.
    pub(super) fn take(&self, bytes_max: u64, out: &mut Vec<Request>) {
        let mut inner = self.inner.lock();
        inner.wake_above = None;
        let mut taken = 0;
        while taken < bytes_max
            && let Some(request) = inner.requests.pop_front()
        {
            taken += request.bytes;
            out.push(request);
        }
        inner.bytes -= taken;
    }

    /// Says from how many waiting bytes on the thread wants to be woken; `false` if so many wait already.
    pub(super) fn may_sleep(&self, wake_above: u64) -> bool {
        let mut inner = self.inner.lock();
        inner.wake_above = Some(wake_above);
        inner.requests.is_empty() || inner.bytes < wake_above
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().requests.is_empty()
    }

    /// Takes nothing more, for this reason (the first one stays).
    pub(super) fn close(&self, why: Error) {
        self.inner.lock().closed.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn request(bytes: u64) -> Request {
        Request { command: Command::LeaseRevoke { id: 1 }, bytes, asker: None }
    }

    #[test]
    fn it_is_bounded_wakes_only_where_asked_to_and_ends_for_one_reason() {
        let queue = Queue::default();
        assert!(!queue.push(request(10)).unwrap(), "nobody sleeps");
        assert!(!queue.may_sleep(0) && !queue.may_sleep(10) && queue.may_sleep(100));
        assert!(!queue.push(request(10)).unwrap());
        assert!(queue.push(request(80)).unwrap());
        assert!(matches!(queue.push(request(QUEUE_BYTES_MAX)), Err(Error::Busy)));
        let mut taken = Vec::new();
        queue.take(11, &mut taken);
        assert_eq!(taken.len(), 2);
        queue.take(u64::MAX, &mut taken);
        assert_eq!(taken.len(), 3);
        assert!(queue.may_sleep(0));
        assert!(queue.push(request(2 * QUEUE_BYTES_MAX)).unwrap(), "a large one alone comes in");
        queue.close(Error::Closed);
        queue.close(Error::Busy);
        assert!(matches!(queue.push(request(1)), Err(Error::Closed)));
    }
    #[test]
    fn whoever_waits_is_told_when_a_panic_unwinds_over_the_answer() {
        let (slot, asker) = Slot::with_asker();
        let unwound = catch_unwind(AssertUnwindSafe(move || {
            let _asker = asker;
            panic!("as it applies");
        }));
        assert!(unwound.is_err());
        assert!(matches!(slot.wait(), Err(Error::Fault(fault)) if matches!(*fault, Fault::Stopped)));

        let (slot, asker) = Slot::with_asker();
        asker.answer(Err(Error::Busy));
        assert!(matches!(slot.wait(), Err(Error::Busy)), "an answer stands");
    }
}
