//! The spine of a chain: what lets each version of a key point far back without looking anything up.
//!
//! The versions of a key form a chain, each pointing to the one before it. Numbered 1, 2, 3, ... they also form complete
//! binary trees, as the digits of a skew-binary number do; a new version puts the two last trees under itself where they are
//! of one size, and is a tree of its own otherwise:
//!
//! ```text
//! version          1     2      3      4       5        6      7      8
//! sizes of trees   1     1 1    3      3 1     3 1 1    3 3    7      7 1
//! heads = spine    1     2 1    3      4 3     5 4 3    6 3    7      8 7      newest first
//! skips to         -     1      -      3       4        3      -      7        the head before its tree
//! ```
//! A version's skip pointer leads to the head before its own tree. From any version any older one is found in O(log n)
//! steps: skip while that does not go too far, else go to the one before. (Pointers by the set bits of n would need
//! O(log² n): behind each skip that goes too far stands a version with all lower bits set.)
//!
//! A newest version's entry carries the spine: the revisions of all heads, as differences, so the next version has its skip
//! pointer, and its own spine, from this entry alone. Where a spine would grow past [`SPINE_BYTES_MAX`], or where nothing
//! older than the version before can be asked for, numbering starts again at 1 with no skip pointer; the pointer to the
//! version before leads on all the same.

use super::cell::{Read, Reader, put_head};
use super::revision::Revision;

/// Bytes a spine may have: 20 heads and more.
pub(super) const SPINE_BYTES_MAX: usize = 96;

/// The newest version of a chain, and the heads before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spine<'a> {
    /// Its number.
    pub(super) number: u64,
    /// The newest version's revision: the first head.
    pub(super) top: Revision,
    /// The other heads, each as the difference to the one before it here.
    pub(super) rest: &'a [u8],
}

/// Where a version stands in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) number: u64,
    /// The head before its tree.
    pub(super) skip: Option<Revision>,
}

impl Link {
    /// A chain's first.
    pub(super) const FIRST: Link = Link { number: 1, skip: None };
}

impl Spine<'_> {
    /// The link of the version after this spine's newest, which is made at `revision`; the other heads of its own spine go
    /// to `rest`.
    pub(super) fn push(&self, revision: Revision, rest: &mut Vec<u8>) -> Read<Link> {
        rest.clear();
        let skip = if last_two_are_equal(self.number) {
            let mut heads = Reader::new(self.rest);
            let second = heads.head(self.top)?;
            if heads.is_empty() {
                None
            } else {
                let third = heads.head(second)?;
                put_head(rest, revision, third);
                rest.extend_from_slice(heads.rest());
                Some(third)
            }
        } else {
            put_head(rest, revision, self.top);
            rest.extend_from_slice(self.rest);
            Some(self.top)
        };
        if rest.len() > SPINE_BYTES_MAX {
            rest.clear();
            return Ok(Link::FIRST);
        }
        Ok(Link { number: self.number + 1, skip })
    }

    /// The oldest head above a main revision; `None` where the newest is not above it.
    pub(super) fn oldest_above(&self, main: i64) -> Read<Option<Revision>> {
        if self.top.main <= main {
            return Ok(None);
        }
        let mut oldest = self.top;
        let mut heads = Reader::new(self.rest);
        while !heads.is_empty() {
            let head = heads.head(oldest)?;
            if head.main <= main {
                break;
            }
            oldest = head;
        }
        Ok(Some(oldest))
    }

    /// All heads, the newest first.
    pub(super) fn heads(&self) -> Read<Vec<Revision>> {
        let mut all = vec![self.top];
        let mut last = self.top;
        let mut heads = Reader::new(self.rest);
        while !heads.is_empty() {
            last = heads.head(last)?;
            all.push(last);
        }
        Ok(all)
    }
}

/// The sizes of the two last trees of version `number`; 0 where there is none.
fn last_two_sizes(number: u64) -> (u64, u64) {
    let (mut before, mut last, mut left) = (0, 0, number);
    while left > 0 {
        // the largest complete tree that fits
        let size = (1 << (left + 1).ilog2()) - 1;
        (before, last) = (last, size);
        left -= size;
    }
    (before, last)
}

fn last_two_are_equal(number: u64) -> bool {
    let (before, last) = last_two_sizes(number);
    before == last && last > 0
}

/// The number that version `number` skips to, 0 for none.
pub(super) fn skips_to(number: u64) -> u64 {
    number - last_two_sizes(number).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The spines and links of a chain whose version k is made at revision (10 k, k % 3).
    fn chain(length: u64) -> Vec<(Link, Vec<Revision>)> {
        let at = |k: u64| Revision { main: 10 * k as i64, sub: (k % 3) as i64 };
        let mut out = vec![(Link::FIRST, vec![at(1)])];
        let (mut rest, mut next) = (Vec::new(), Vec::new());
        let mut link = Link::FIRST;
        for k in 2..=length {
            link = Spine { number: link.number, top: at(k - 1), rest: &rest }.push(at(k), &mut next).unwrap();
            std::mem::swap(&mut rest, &mut next);
            out.push((link, Spine { number: link.number, top: at(k), rest: &rest }.heads().unwrap()));
        }
        out
    }

    #[test]
    fn a_version_skips_to_the_head_before_its_tree() {
        let chain = chain(200);
        for (at, (link, heads)) in chain.iter().enumerate() {
            let number = at as u64 + 1;
            assert_eq!(link.number, number);
            let skip = skips_to(number);
            assert_eq!(link.skip.map_or(0, |revision| revision.main as u64 / 10), skip);
            let mut expected = vec![number];
            while skips_to(*expected.last().unwrap()) > 0 {
                expected.push(skips_to(*expected.last().unwrap()));
            }
            assert_eq!(heads.iter().map(|head| head.main as u64 / 10).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn any_version_is_found_in_few_steps() {
        for length in [1_u64, 2, 7, 8, 1000, 1023, 1024, 5000] {
            let steps_max = 3 * u64::from(length.ilog2() + 1);
            for target in 1..=length {
                let (mut at, mut steps) = (length, 0);
                while at > target {
                    let skip = skips_to(at);
                    at = if skip >= target { skip } else { at - 1 };
                    steps += 1;
                }
                assert!(steps <= steps_max, "{steps} steps from {length} to {target}");
            }
        }
    }

    #[test]
    fn a_spine_that_grows_too_long_starts_again() {
        // nine bytes
        const SUB: i64 = 1 << 60;
        let mut rest = Vec::new();
        let mut next = Vec::new();
        let mut number = 1;
        let mut main = 1_i64;
        let mut restarts = 0;
        for _ in 0..200 {
            let top = Revision { main, sub: SUB };
            main += 1 << 50;
            let link =
                Spine { number, top, rest: &rest }.push(Revision { main, sub: SUB }, &mut next).unwrap();
            std::mem::swap(&mut rest, &mut next);
            assert!(rest.len() <= SPINE_BYTES_MAX);
            restarts += u32::from(link.number == 1);
            assert!(link.number == 1 || link.number == number + 1);
            number = link.number;
        }
        assert!(restarts > 0);
    }
}
