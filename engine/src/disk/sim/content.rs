//! The bytes of a simulated file, in pages that copies share: a disk is forked thousands of times in a test.

use crate::disk::BLOCK_BYTES;
use std::sync::Arc;

/// A page of it. One that is shared is never changed: whoever writes gets a copy.
pub(super) type Block = [u8; BLOCK_BYTES];

/// The bytes. What lies behind the length in the last block is zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    blocks: Vec<Arc<Block>>,
    len: usize,
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes);
        content
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes it longer, with zeros, or shorter.
    pub(super) fn resize(&mut self, len: usize) {
        let blocks = len.div_ceil(BLOCK_BYTES);
        if blocks > self.blocks.len() {
            // all of them one and the same until they are written
            let zeros = Arc::new([0; BLOCK_BYTES]);
            self.blocks.resize_with(blocks, || Arc::clone(&zeros));
        }
        self.blocks.truncate(blocks);
        if len < self.len && !len.is_multiple_of(BLOCK_BYTES) {
            Arc::make_mut(&mut self.blocks[blocks - 1])[len % BLOCK_BYTES..].fill(0);
        }
        self.len = len;
    }

    /// Writes bytes, beyond the end too.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if offset + bytes.len() > self.len {
            self.resize(offset + bytes.len());
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = (offset + done) % BLOCK_BYTES;
            let count = (BLOCK_BYTES - at).min(bytes.len() - done);
            let block = Arc::make_mut(&mut self.blocks[(offset + done) / BLOCK_BYTES]);
            block[at..at + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
    }

    /// Fills `out` as far as the file goes; how far that is.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) -> usize {
        let wanted = self.len.saturating_sub(offset).min(out.len());
        let mut done = 0;
        while done < wanted {
            let at = (offset + done) % BLOCK_BYTES;
            let count = (BLOCK_BYTES - at).min(wanted - done);
            let block = &self.blocks[(offset + done) / BLOCK_BYTES];
            out[done..done + count].copy_from_slice(&block[at..at + count]);
            done += count;
        }
        wanted
    }

    /// A whole page, if the file goes so far.
    pub(super) fn block(&self, number: usize) -> Option<Arc<Block>> {
        let whole = (number + 1) * BLOCK_BYTES <= self.len;
        whole.then(|| Arc::clone(&self.blocks[number]))
    }

    /// The bytes of a range, as far as the file goes.
    pub(super) fn range(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; self.len.saturating_sub(offset).min(len)];
        self.read(offset, &mut out);
        out
    }

    /// All of it.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.range(0, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::rng::Rng;

    #[test]
    fn it_does_what_a_vector_does() {
        let mut rng = Rng::new(3);
        let (mut content, mut model) = (Content::default(), Vec::new());
        for _ in 0..2_000 {
            let offset = rng.below(20_000) as usize;
            let copy = content.clone();
            let before = model.clone();
            if rng.once_in(4) {
                content.resize(offset);
                model.resize(offset, 0);
            } else {
                let bytes = vec![rng.next_u64() as u8; rng.below(9_000) as usize];
                content.write(offset, &bytes);
                if !bytes.is_empty() || offset > model.len() {
                    model.resize(model.len().max(offset + bytes.len()), 0);
                }
                model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            assert!(content.to_vec() == model && content.len() == model.len());
            assert!(copy.to_vec() == before, "a copy stays");
            let range = rng.below(20_000) as usize;
            let end = (range + 5_000).min(model.len());
            assert!(content.range(range, 5_000) == model.get(range..end).unwrap_or(&[]));
        }
    }
}
