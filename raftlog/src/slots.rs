//! Who waits for which entry: the answer slots, kept by (term, index).
//!
//! A proposal's index and term are known once raft has taken it. If an entry of another term is applied at that
//! index, or the log there is overwritten, the proposal's fate is not known here (another member may still hold it):
//! the asker hears [`Busy::LeaderChanged`]. Slots of a member that lost the leadership stay until one of both happens.

use crate::proposal::{Busy, Outcome, Post, ReplyTo};
use coffer_engine::command::{Applied, Reply};
use coffer_engine::watch::EventBatch;
use std::collections::VecDeque;
use std::sync::Arc;

/// Who asked for an entry.
#[derive(Debug)]
pub enum Asker {
    /// One request.
    One(ReplyTo),
    /// The renewals of one round, in the order of the entry's lease ids.
    Renewals(Vec<ReplyTo>),
    /// The lease clock.
    Expiry,
}

#[derive(Debug)]
struct Slot {
    index: u64,
    term: u64,
    asker: Asker,
}

/// Slots in the order of their indexes; at most one for each.
#[derive(Debug, Default)]
pub struct Slots {
    slots: VecDeque<Slot>,
    expiries: usize,
    failed: u64,
}

impl Slots {
    /// Notes who asked for the entry (index, term), which comes behind all noted before.
    pub fn put(&mut self, index: u64, term: u64, asker: Asker) {
        debug_assert!(self.slots.back().is_none_or(|last| last.index < index), "slots ascend");
        self.expiries += usize::from(matches!(asker, Asker::Expiry));
        self.slots.push_back(Slot { index, term, asker });
    }

    /// Slots waiting.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Expiries under way.
    pub fn expiries(&self) -> usize {
        self.expiries
    }

    /// Proposals that were not done, as far as this member knows.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Who waits for the entry (index, term) that was just applied. Askers it disappoints are answered.
    pub fn take(&mut self, index: u64, term: u64, answers: &mut Answers) -> Option<Asker> {
        while self.slots.front().is_some_and(|slot| slot.index <= index) {
            let slot = self.slots.pop_front()?;
            self.expiries -= usize::from(matches!(slot.asker, Asker::Expiry));
            if (slot.index, slot.term) == (index, term) {
                return Some(slot.asker);
            }
            self.failed += 1;
            answers.fail(slot.asker, Busy::LeaderChanged);
        }
        None
    }

    /// Entries of `term` were put into the log from `index` on: slots of other terms there are lost.
    pub fn overwrite(&mut self, index: u64, term: u64, answers: &mut Answers) {
        while self.slots.back().is_some_and(|slot| slot.index >= index && slot.term != term) {
            self.fail_last(Busy::LeaderChanged, answers);
        }
    }

    /// Answers everybody.
    pub fn fail_all(&mut self, why: Busy, answers: &mut Answers) {
        while !self.slots.is_empty() {
            self.fail_last(why, answers);
        }
    }

    fn fail_last(&mut self, why: Busy, answers: &mut Answers) {
        if let Some(slot) = self.slots.pop_back() {
            self.expiries -= usize::from(matches!(slot.asker, Asker::Expiry));
            self.failed += 1;
            answers.fail(slot.asker, why);
        }
    }
}

/// Answers gathered for each mailbox, to be posted in one go.
#[derive(Debug)]
pub struct Answers {
    posts: Vec<Post>,
    /// Of each mailbox the first answer that the slice being applied gave; between slices there is none so far.
    unpublished: Vec<usize>,
}

impl Answers {
    /// For that many mailboxes.
    pub fn new(mailboxes: usize) -> Answers {
        let posts = (0..mailboxes).map(|_| Post::default()).collect();
        Answers { posts, unpublished: vec![usize::MAX; mailboxes] }
    }

    /// A slice begins: what is added from here on stands once it is published.
    pub fn begin_slice(&mut self) {
        for (first, post) in self.unpublished.iter_mut().zip(&self.posts) {
            *first = post.answers.len();
        }
    }

    /// The slice is published.
    pub fn published(&mut self) {
        self.unpublished.fill(usize::MAX);
    }

    /// The slice that began will never be published: nobody is told of what it did.
    pub fn take_back(&mut self, why: Busy) {
        for (first, post) in self.unpublished.iter().zip(&mut self.posts) {
            for (_, outcome) in post.answers.iter_mut().skip(*first) {
                if !matches!(outcome, Outcome::Failed(_)) {
                    *outcome = Outcome::Failed(why);
                }
            }
        }
        self.published();
    }

    /// Adds one answer. One for a mailbox that is not there has nobody to read it.
    pub fn answer(&mut self, to: ReplyTo, outcome: Outcome) {
        if let Some(post) = self.posts.get_mut(usize::from(to.mailbox)) {
            post.answers.push((to, outcome));
        }
    }

    /// Tells all who asked for one entry that it was not done.
    pub fn fail(&mut self, asker: Asker, why: Busy) {
        match asker {
            Asker::One(to) => self.answer(to, Outcome::Failed(why)),
            Asker::Renewals(all) => all.into_iter().for_each(|to| self.answer(to, Outcome::Failed(why))),
            Asker::Expiry => {}
        }
    }

    /// Tells all who asked for one entry what it gave.
    pub fn applied(&mut self, asker: Asker, applied: Applied) {
        match asker {
            Asker::One(to) => self.answer(to, Outcome::Applied(applied)),
            Asker::Renewals(all) => self.renewed(all, &applied),
            Asker::Expiry => {}
        }
    }

    /// Each gets its own lease's time; a refusal of the whole entry goes to all.
    fn renewed(&mut self, all: Vec<ReplyTo>, applied: &Applied) {
        let ttls = match &applied.outcome {
            Ok(Reply::LeaseRenew(ttls)) => ttls.as_slice(),
            Ok(_) => &[],
            Err(_) => {
                all.into_iter().for_each(|to| self.answer(to, Outcome::Applied(applied.clone())));
                return;
            }
        };
        for (nth, to) in all.into_iter().enumerate() {
            self.answer(to, Outcome::Renewed { ttl: ttls.get(nth).copied().unwrap_or(0) });
        }
    }

    /// Adds the events of the published batch, for every mailbox. One batch goes into one round of posts.
    pub fn events(&mut self, events: &Arc<EventBatch>) {
        for post in &mut self.posts {
            debug_assert!(post.events.is_none(), "one published batch a round");
            post.events = Some(Arc::clone(events));
        }
    }

    /// All posts so far, one for each mailbox, empty where there is nothing to say.
    pub fn take(&mut self) -> Vec<Post> {
        self.posts.iter_mut().map(std::mem::take).collect()
    }

    /// Whether there is nothing to post.
    pub fn is_empty(&self) -> bool {
        self.posts.iter().all(|post| post.answers.is_empty() && post.events.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(slot: u32) -> ReplyTo {
        ReplyTo { mailbox: 0, slot, generation: 1 }
    }

    fn failed(answers: &mut Answers) -> Vec<u32> {
        let posts = answers.take();
        posts[0].answers.iter().map(|(to, _)| to.slot).collect()
    }

    #[test]
    fn an_entry_of_another_term_disappoints_the_asker() {
        let (mut slots, mut answers) = (Slots::default(), Answers::new(1));
        slots.put(5, 2, Asker::One(to(5)));
        slots.put(6, 2, Asker::One(to(6)));
        assert!(slots.take(4, 2, &mut answers).is_none());
        assert!(slots.take(5, 3, &mut answers).is_none());
        let posts = answers.take();
        assert!(matches!(posts[0].answers[..], [(t, Outcome::Failed(Busy::LeaderChanged))] if t == to(5)));
        assert!(matches!(slots.take(6, 2, &mut answers), Some(Asker::One(t)) if t == to(6)));
        assert!(answers.is_empty());
    }

    #[test]
    fn slots_that_are_overwritten_are_answered_and_own_ones_stay() {
        let (mut slots, mut answers) = (Slots::default(), Answers::new(1));
        for index in 5..9 {
            slots.put(index, 2, Asker::One(to(index as u32)));
        }
        slots.overwrite(7, 2, &mut answers);
        assert_eq!(slots.len(), 4);
        slots.overwrite(7, 3, &mut answers);
        assert_eq!(failed(&mut answers), [8, 7]);
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn each_renewal_gets_its_own_time() {
        let mut answers = Answers::new(1);
        let applied = Applied { revision: 3, outcome: Ok(Reply::LeaseRenew(vec![10, 0])) };
        answers.applied(Asker::Renewals(vec![to(1), to(2)]), applied);
        let posts = answers.take();
        assert!(matches!(
            posts[0].answers[..],
            [(a, Outcome::Renewed { ttl: 10 }), (b, Outcome::Renewed { ttl: 0 })] if a == to(1) && b == to(2)
        ));
    }
}
