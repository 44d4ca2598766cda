//! The content of one simulated file: what can be read, what is durable, and what lies between.

use super::SECTOR_BYTES;
use super::content::Content;
use super::rng::Rng;
use std::io;
use std::ops::Range;

/// A change that can be seen but is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// One file. `visible` is `durable` with all of `pending` done, unless a failed sync left clean pages that never
/// reached the medium.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) visible: Content,
    durable: Content,
    pending: Vec<Change>,
    /// A failed sync left clean pages behind that the medium does not have.
    cache_lies: bool,
    /// What the medium does not give up.
    pub(super) unreadable: Vec<Range<u64>>,
}

impl Inode {
    /// A file whose whole content is durable.
    pub(super) fn durable(bytes: &[u8]) -> Inode {
        let durable = Content::from(bytes);
        Inode { visible: durable.clone(), durable, ..Inode::default() }
    }

    /// An error where the medium does not give up some of these bytes.
    pub(super) fn readable(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset + bytes;
        if self.unreadable.iter().any(|bad| bad.start < end && offset < bad.end) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// Makes a change visible.
    pub(super) fn change(&mut self, change: Change) {
        apply(&mut self.visible, &change);
        self.pending.push(change);
    }

    /// Makes all that is visible through changes durable.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// A change that is durable as soon as it is visible, whatever else is pending.
    pub(super) fn change_durably(&mut self, change: Change) {
        apply(&mut self.visible, &change);
        apply(&mut self.durable, &change);
        // what was pending below it must not come over it later
        if let Change::Write { offset, bytes } = &change {
            for older in &mut self.pending {
                overlay(older, *offset, bytes);
            }
        }
    }

    /// A sync that failed: some of what was pending is lost, and nothing is pending any more.
    pub(super) fn sync_failed(&mut self, rng: &mut Rng) {
        self.cache_lies = true;
        for change in std::mem::take(&mut self.pending) {
            if rng.once_in(2) {
                apply_torn(&mut self.durable, &change, rng);
            }
        }
    }

    /// A change that can be seen, but that no sync will make durable.
    pub(super) fn lie(&mut self, change: Change) {
        apply(&mut self.visible, &change);
        self.cache_lies = true;
    }

    /// Forgets what is only in the cache and clean.
    pub(super) fn drop_cache(&mut self) {
        if !std::mem::take(&mut self.cache_lies) {
            return;
        }
        self.visible = self.durable.clone();
        for change in &self.pending {
            apply(&mut self.visible, change);
        }
    }

    /// The power goes: of what was not durable, `in_flight` included, anything may be there.
    pub(super) fn power_cut(&mut self, in_flight: Vec<Change>, rng: &mut Rng) {
        let mut loose = std::mem::take(&mut self.pending);
        loose.extend(in_flight);
        // all of it, none of it, or each piece for itself in any order
        let fate = rng.below(4);
        if fate > 1 {
            for place in (1..loose.len()).rev() {
                loose.swap(place, rng.below(place as u64 + 1) as usize);
            }
        }
        for change in &loose {
            match fate {
                0 => {}
                1 => apply(&mut self.durable, change),
                _ => apply_torn(&mut self.durable, change, rng),
            }
        }
        self.visible = self.durable.clone();
        self.cache_lies = false;
    }

    /// Bytes written but not durable.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending
            .iter()
            .map(|change| match change {
                Change::Write { bytes, .. } => bytes.len(),
                Change::Length(_) => 0,
            })
            .sum()
    }

    /// Changes bytes on the medium and in the cache, as rot does.
    pub(super) fn damage(&mut self, place: Range<usize>, f: impl Fn(&mut [u8])) {
        for content in [&mut self.visible, &mut self.durable] {
            let mut bytes = content.range(place.start, place.len());
            assert_eq!(bytes.len(), place.len(), "damage behind the end of a file");
            f(&mut bytes);
            content.write(place.start, &bytes);
        }
    }
}

/// Puts newer bytes into an older write, where the two overlap.
fn overlay(older: &mut Change, offset: usize, newer: &[u8]) {
    let Change::Write { offset: at, bytes } = older else { return };
    let (start, end) = (offset.max(*at), (offset + newer.len()).min(*at + bytes.len()));
    if start < end {
        bytes[start - *at..end - *at].copy_from_slice(&newer[start - offset..end - offset]);
    }
}

fn apply(content: &mut Content, change: &Change) {
    match change {
        Change::Write { offset, bytes } => content.write(*offset, bytes),
        Change::Length(len) => content.resize(*len),
    }
}

/// Does a part of a change: sectors of a write are written or not, each for itself.
pub(super) fn apply_torn(content: &mut Content, change: &Change, rng: &mut Rng) {
    match change {
        Change::Length(_) => {
            if rng.once_in(2) {
                apply(content, change);
            }
        }
        Change::Write { offset, bytes } => {
            let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
            let style = rng.below(6);
            let chosen = rng.below(sectors);
            for sector in 0..sectors {
                let written = match style {
                    0 => false,
                    1 => true,
                    2 => sector < chosen,
                    3 => sector == chosen,
                    4 => sector != chosen,
                    _ => rng.once_in(2),
                };
                if written {
                    let start = sector as usize * SECTOR_BYTES;
                    let end = (start + SECTOR_BYTES).min(bytes.len());
                    content.write(offset + start, &bytes[start..end]);
                }
            }
        }
    }
}
