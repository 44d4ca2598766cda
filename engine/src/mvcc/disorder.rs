//! For tests: a store whose pages are whole and whose order is not, as a coffer does not write them.

use super::apply::Mvcc;
use crate::btree::SLOT_BYTES;
use crate::command::{Command, PutRequest, Stamped};
use crate::pager::page::{HEAD_BYTES, TreeId};
use crate::pager::{Paged, Pager, PagesMut as _};

/// Keys of it, each put once: all in one leaf, and so are their records.
pub(super) const KEYS: usize = 20;

/// The store; where everything stands in its leaves follows `seed`.
pub(super) fn store(seed: u64) -> Mvcc<Pager> {
    let mut mvcc = Mvcc::new(Pager::in_memory());
    for number in 0..KEYS {
        let key = format!("key {number:02}").into_bytes().into();
        let put = PutRequest { key, value: "value".into(), ..PutRequest::default() };
        let stamped = Stamped { clock_ms: 0, command: Command::Put(put) };
        mvcc.apply(number as u64 + 1, 1, &stamped).unwrap();
    }
    for tree in [TreeId::Keys, TreeId::Revisions] {
        let root = mvcc.trees[tree.place()].as_mut().unwrap();
        let page = mvcc.pages.page_mut(tree, root).unwrap();
        let slots = &mut page.0[HEAD_BYTES..][..KEYS * SLOT_BYTES];
        let mut state = seed;
        for place in (1..KEYS).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = (state >> 33) as usize % (place + 1);
            for byte in 0..SLOT_BYTES {
                slots.swap(place * SLOT_BYTES + byte, other * SLOT_BYTES + byte);
            }
        }
    }
    mvcc
}

/// Goes on with a walk until it ends, true, or meets a fault, false.
///
/// # Panics
/// It goes on for ever.
pub(super) fn ends(seed: u64, mut step: impl FnMut() -> Paged<bool>) -> bool {
    for _ in 0..10 * KEYS {
        match step() {
            Ok(true) => {}
            Ok(false) => return true,
            Err(fault) => {
                let text = fault.to_string();
                assert!(text.contains("that rise"), "seed {seed}: {text}");
                return false;
            }
        }
    }
    panic!("seed {seed}: it never ends");
}
