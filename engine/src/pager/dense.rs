//! A value for every page id, found by two loads; a stretch of ids in which no value was ever set costs nothing.

/// Ids of one stretch.
const STRETCH: usize = 1 << 13;

/// The values; what was never set is `T::default()`.
pub(super) struct Dense<T> {
    stretches: Vec<Option<Box<[T]>>>,
}

impl<T: Copy + Default> Dense<T> {
    pub(super) fn new() -> Dense<T> {
        Dense { stretches: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> T {
        match self.stretches.get(index as usize / STRETCH) {
            Some(Some(stretch)) => stretch[index as usize % STRETCH],
            _ => T::default(),
        }
    }

    /// Bytes of memory it has.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.stretches.iter().flatten().map(|stretch| size_of_val(&**stretch)).sum()
    }

    #[inline]
    pub(super) fn set(&mut self, index: u32, value: T) {
        let at = index as usize / STRETCH;
        if at >= self.stretches.len() {
            self.stretches.resize_with(at + 1, || None);
        }
        let stretch = self.stretches[at].get_or_insert_with(|| vec![T::default(); STRETCH].into());
        stretch[index as usize % STRETCH] = value;
    }
}
