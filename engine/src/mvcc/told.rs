//! The bytes of what a batch tells: keys and values of its events, together in few allocations. They are made on one thread and
//! given back on others, which costs more than copying them.

use bytes::{Bytes, BytesMut};

/// Room for the first bytes of a batch; each allocation after it is twice as long, up to the second number.
const ROOM_BYTES: (usize, usize) = (4 << 10, 64 << 10);

/// The bytes. What is given out keeps its whole allocation alive, so it is for what lives as long as a batch does.
#[derive(Default)]
pub(super) struct Told {
    room: BytesMut,
    /// Length of the last allocation; 0: there was none in this batch.
    last: usize,
}

impl Told {
    /// A copy of these bytes.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        if self.room.capacity() < bytes.len() {
            self.last = (2 * self.last).clamp(ROOM_BYTES.0, ROOM_BYTES.1);
            self.room = BytesMut::with_capacity(self.last.max(bytes.len()));
        }
        self.room.extend_from_slice(bytes);
        self.room.split().freeze()
    }

    /// The batch ends: what comes next shares nothing with it.
    pub(super) fn end(&mut self) {
        *self = Told::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_right_and_stand_one_behind_the_other_in_few_allocations() {
        let mut told = Told::default();
        let parts: Vec<Vec<u8>> = (0..2_000).map(|n| vec![n as u8; n % 300]).collect();
        let copies: Vec<Bytes> = parts.iter().map(|part| told.copy(part)).collect();
        assert!(copies.iter().zip(&parts).all(|(copy, part)| copy == part));
        let follows = |pair: &[Bytes]| pair[0].as_ptr_range().end == pair[1].as_ptr();
        let filled: Vec<Bytes> = copies.into_iter().filter(|copy| !copy.is_empty()).collect();
        let breaks = filled.windows(2).filter(|pair| !follows(pair)).count();
        assert!(breaks < 12, "{breaks}");
        let large = told.copy(&[7; 100_000]);
        assert_eq!(large, [7; 100_000][..]);
    }

    #[test]
    fn batches_share_nothing() {
        let mut told = Told::default();
        let first = told.copy(b"one");
        told.end();
        let second = told.copy(b"two");
        assert_ne!(first.as_ptr_range().end, second.as_ptr());
        assert_eq!((&first[..], &second[..]), (&b"one"[..], &b"two"[..]));
    }
}
