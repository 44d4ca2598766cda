//! An array that grows while others read it: it is made of pieces, each twice as long as the one before, and none moves.

use std::sync::OnceLock;

/// Elements of the first piece.
const FIRST: u64 = 1024;
/// Pieces until every `u32` is an index.
const PIECES: usize = 23;
const _: () = assert!((FIRST << PIECES) - FIRST > u32::MAX as u64);

/// The array. Element `i` lies in piece `log2(i + FIRST) - log2(FIRST)`.
pub(super) struct Doubling<T> {
    pieces: [OnceLock<Box<[T]>>; PIECES],
}

impl<T> Doubling<T> {
    pub(super) fn new() -> Doubling<T> {
        Doubling { pieces: [const { OnceLock::new() }; PIECES] }
    }

    /// The element, if the array was made long enough.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (piece, offset) = place(index);
        self.pieces[piece].get()?.get(offset)
    }

    /// Makes the array long enough for `index`; `make` gives a piece of a length.
    #[inline]
    pub(super) fn reserve(&self, index: u32, make: fn(usize) -> Box<[T]>) -> &T {
        let (piece, offset) = place(index);
        &self.pieces[piece].get_or_init(|| make((FIRST << piece) as usize))[offset]
    }

    /// All elements there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces().flatten()
    }

    /// The pieces there are.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[T]> {
        self.pieces.iter().filter_map(OnceLock::get).map(|piece| &**piece)
    }
}

#[inline]
fn place(index: u32) -> (usize, usize) {
    let number = u64::from(index) + FIRST;
    let piece = number.ilog2() - FIRST.ilog2();
    (piece as usize, (number - (FIRST << piece)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(1023), (0, 1023));
        assert_eq!(place(1024), (1, 0));
        assert_eq!(place(3071), (1, 2047));
        assert_eq!(place(3072), (2, 0));
        let (piece, offset) = place(u32::MAX);
        assert!(piece < PIECES && (offset as u64) < FIRST << piece);
    }

    #[test]
    fn it_grows_where_it_is_needed_and_nowhere_else() {
        let array: Doubling<u8> = Doubling::new();
        assert_eq!(array.get(5000), None);
        assert_eq!(*array.reserve(5000, |len| vec![7; len].into()), 7);
        assert_eq!(array.get(5000), Some(&7));
        assert_eq!(array.get(0), None);
        assert_eq!(array.iter().count(), 4096);
    }
}
