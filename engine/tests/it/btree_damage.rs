//! Trees whose pages are not what was written: an error or an answer, never a panic.

use crate::arbitrary::config;
use crate::btree_rig::{Rig, TREE};
use coffer_engine::btree::{self, Cursor, KEY_INLINE_MAX};
use coffer_engine::error::Fault;
use coffer_engine::pager::page::{CHILD_REF_BYTES, HEAD_BYTES, PAGE_BYTES, Page, PageId, PageKind};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Bound;

/// A tree of three levels with some long keys.
fn tree() -> Rig {
    let mut rig = Rig::default();
    for n in 0..1_500u32 {
        let mut key = format!("key {:05}", n.wrapping_mul(7_919) % 3_000).into_bytes();
        if n % 100 == 0 {
            key.resize(KEY_INLINE_MAX + 20 + n as usize, b'l');
        }
        rig.insert(&key, &vec![n as u8; 30 + n as usize % 100]);
    }
    rig.publish(false);
    rig.check();
    rig
}

/// Everything one can do with a tree; what comes of it does not matter.
fn use_all(rig: &mut Rig, keys: &[Vec<u8>]) {
    let root = rig.root;
    let mut cursor = Cursor::new(&rig.pages, TREE, root.as_ref());
    let mut steps = 0;
    while let Ok(Some(_)) = cursor.next() {
        steps += 1;
        assert!(steps < 1_000_000, "a walk ends");
    }
    while let Ok(Some(_)) = cursor.prev() {}
    let _ = btree::check(&rig.pages, TREE, root.as_ref(), &mut |_| ());
    for key in keys {
        let _ = btree::get(&rig.pages, TREE, root.as_ref(), key);
        let _ = cursor.seek(key).and_then(|()| cursor.prev());
        let _ = btree::count(&rig.pages, TREE, root.as_ref(), Bound::Excluded(key), Bound::Unbounded);
    }
    for (n, key) in keys.iter().enumerate() {
        let _ = match n % 4 {
            0 | 1 => btree::remove(&mut rig.pages, TREE, &mut rig.root, key),
            2 => btree::insert(&mut rig.pages, TREE, &mut rig.root, key, &[1; 900]),
            _ => {
                let mut longer = key.clone();
                longer.push(b'+');
                btree::insert(&mut rig.pages, TREE, &mut rig.root, &longer, &[1; 300])
            }
        };
    }
    rig.pages.move_from(20);
    let _ = btree::relocate(&mut rig.pages, TREE, &mut rig.root, &[], 1_000);
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn damaged_bytes_are_never_a_panic(
        page in any::<prop::sample::Index>(),
        bytes in vec((0usize..PAGE_BYTES, any::<u8>()), 1..6),
        near_the_head in any::<bool>(),
    ) {
        let mut rig = tree();
        rig.pages.lenient();
        let keys: Vec<_> = rig.model.keys().step_by(7).cloned().collect();
        let used = rig.pages.used();
        let Some(page) = rig.pages.damage(used[page.index(used.len())]) else { return Ok(()) };
        for (at, byte) in bytes {
            // where the slots are, damage does most
            page.0[if near_the_head { at % 300 } else { at }] = byte;
        }
        use_all(&mut rig, &keys);
    }

    #[test]
    fn a_page_of_anything_is_never_a_panic(
        body in vec(any::<u8>(), PAGE_BYTES - HEAD_BYTES),
        entries in prop_oneof![0u16..50, any::<u16>()],
        heap in any::<u16>(),
        leaf in any::<bool>(),
    ) {
        let mut rig = tree();
        rig.pages.lenient();
        let keys: Vec<_> = rig.model.keys().step_by(19).cloned().collect();
        let root = rig.root.expect("not empty");
        let page = rig.pages.damage(root.id).expect("the root is there");
        page.0[HEAD_BYTES..].copy_from_slice(&body);
        page.put_u16(12, entries);
        page.put_u16(14, heap);
        if leaf {
            (page.0[4], page.0[6]) = (PageKind::Leaf as u8, 0);
        }
        use_all(&mut rig, &keys);
    }

    #[test]
    fn a_tree_that_a_check_accepts_works(
        pieces in vec((any::<u8>(), 0u16..PAGE_BYTES as u16, vec(any::<u8>(), 1..4)), 1..4),
    ) {
        let mut input = Vec::new();
        for (page, at, bytes) in pieces {
            input.push(page);
            input.extend(at.to_le_bytes());
            input.push(bytes.len() as u8);
            input.extend(bytes);
        }
        btree::fuzz::run(&input);
    }

    /// What `validate` accepts can be read from end to end.
    #[test]
    fn a_page_found_right_reads_on(
        damaged in any::<prop::sample::Index>(),
        at in 0usize..PAGE_BYTES,
        bit in 0u32..8,
    ) {
        let mut rig = tree();
        let used = rig.pages.used();
        let id = used[damaged.index(used.len())];
        let Some(page) = rig.pages.damage(id) else { return Ok(()) };
        page.0[at] ^= 1 << bit;
        let page = page.clone();
        if btree::validate(&page).is_ok() && page.level() == 0 {
            let place = coffer_engine::pager::page::ChildRef { id, tx: page.tx(), crc: None, count: 0 };
            rig.pages.lenient();
            let mut cursor = Cursor::new(&rig.pages, TREE, Some(&place));
            let mut read = 0;
            loop {
                match cursor.next() {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => break,
                    // the run of a long key, or the page itself, is named otherwise now
                    Err(_) => return Ok(()),
                }
            }
            prop_assert_eq!(read, page.u16_at(12));
        }
    }
}

#[test]
fn seeds_of_a_fuzzer_are_told_apart() {
    let (accepted, refused): (Vec<_>, Vec<_>) =
        btree::fuzz::seeds().iter().map(|seed| btree::fuzz::run(seed)).partition(|accepted| *accepted);
    assert!(accepted.len() > 10, "values may be anything, and the undamaged tree is whole");
    assert!(refused.len() > 30, "heads and slots may not");
}

/// A leaf with two entries, `a` = 1 and `b` = 22.
fn leaf() -> Page {
    let mut rig = Rig::default();
    rig.insert(b"a", b"1");
    rig.insert(b"b", b"22");
    let root = rig.root.expect("not empty");
    rig.pages.damage(root.id).expect("the root is there").clone()
}

/// What is said, and the damage it is said of.
type Case<'c> = (&'c str, &'c dyn Fn(&mut Page));

#[test]
fn a_page_that_cannot_be_is_told() {
    let said = |damage: &dyn Fn(&mut Page)| {
        let mut page = leaf();
        damage(&mut page);
        btree::validate(&page).expect_err("damaged")
    };
    assert_eq!(btree::validate(&leaf()), Ok(()));
    let cases: [Case; 12] = [
        ("between 1 and 1016 entries", &|page| page.put_u16(12, 0)),
        ("between 1 and 1016 entries", &|page| page.put_u16(12, 5_000)),
        ("a leaf of level 0", &|page| page.0[6] = 1),
        ("cannot begin at 33", &|page| page.put_u16(14, 33)),
        ("is not above", &|page| {
            let (first, second) = (page.u32_at(32), page.u32_at(36));
            page.put_u32(32, second);
            page.put_u32(36, first);
        }),
        ("overlaps", &|page| page.put_u16(36, page.u16_at(32))),
        ("hint of entry 1", &|page| page.put_u16(38, 7)),
        ("the same 600 bytes", &|page| page.put_u16(26, 600)),
        ("does not begin with the 1 bytes", &|page| {
            page.put_u16(26, 1);
            page.put_u16(34, 0);
            page.put_u16(38, 0);
        }),
        ("before", &|page| page.put_u16(14, page.u16_at(14) + 1)),
        ("within the page", &|page| page.put_u16(32, 4_095)),
        ("dead bytes", &|page| page.put_u16(24, 1)),
    ];
    for (expected, damage) in cases {
        let said = said(damage);
        assert!(said.contains(expected), "{said} tells {expected}");
    }
}

#[test]
fn a_fault_names_the_page() {
    let mut rig = tree();
    let root = rig.root.expect("not empty");
    rig.pages.damage(root.id).expect("the root is there").put_u16(12, 0);
    let fault = btree::get(&rig.pages, TREE, Some(&root), b"key").expect_err("damaged");
    let Fault::Corrupt { offset, expected, found, .. } = *fault else { panic!("{fault}") };
    assert_eq!((offset, found.as_str()), (root.id.offset(), "0"));
    assert!(expected.contains("entries"), "{expected}");
}

#[test]
fn a_branch_that_is_its_own_child_is_told() {
    let mut rig = tree();
    rig.pages.lenient();
    let root = rig.root.expect("not empty");
    let page = rig.pages.damage(root.id).expect("the root is there");
    let cell = usize::from(page.u16_at(HEAD_BYTES));
    page.0[cell..cell + CHILD_REF_BYTES].copy_from_slice(&root.encode());
    let fault = btree::get(&rig.pages, TREE, Some(&root), b"").expect_err("damaged");
    assert!(fault.to_string().contains("a level below"), "{fault}");
    btree::insert(&mut rig.pages, TREE, &mut rig.root, b"", b"1").expect_err("damaged");
}

#[test]
fn a_cursor_that_met_an_error_stands_nowhere() {
    let mut rig = tree();
    let leaves: Vec<PageId> = rig.pages.used();
    let root = rig.root.expect("not empty");
    let mut damaged = 0;
    for id in leaves {
        if let Some(page) = rig.pages.damage(id)
            && page.level() == 0
            && page.kind() == Some(PageKind::Leaf)
        {
            damaged += 1;
            if damaged == 10 {
                page.put_u16(12, 0);
            }
        }
    }
    let mut cursor = Cursor::new(&rig.pages, TREE, Some(&root));
    while cursor.next().is_ok_and(|entry| entry.is_some()) {}
    for _ in 0..2 {
        assert!(matches!(*cursor.next().expect_err("lost"), Fault::Stopped));
        assert!(matches!(*cursor.prev().expect_err("lost"), Fault::Stopped));
    }
    cursor.seek_first().expect("the first leaf is whole");
    assert!(cursor.next().expect("the first leaf is whole").is_some());
}

/// What a check finds when a tree does not hold together.
#[test]
fn a_check_tells_what_does_not_hold() {
    let found = |damage: &dyn Fn(&mut Rig)| {
        let mut rig = tree();
        damage(&mut rig);
        btree::check(&rig.pages, TREE, rig.root.as_ref(), &mut |_| ()).expect("all pages can be had")
    };
    assert!(found(&|_| ()).is_ok());
    let root_page = |rig: &mut Rig, damage: &dyn Fn(&mut Page)| {
        let id = rig.root.expect("not empty").id;
        damage(rig.pages.damage(id).expect("the root is there"));
    };
    let wrong_count = found(&|rig| rig.root.as_mut().expect("not empty").count += 1);
    assert!(wrong_count.expect_err("count").contains("its parent counts"));
    let child_count = found(&|rig| {
        root_page(rig, &|page| {
            let cell = usize::from(page.u16_at(HEAD_BYTES));
            page.put_u64(cell + 16, page.u64_at(cell + 16) + 1);
        });
    });
    assert!(child_count.expect_err("count").contains("its parent counts"));
    let separator = found(&|rig| {
        root_page(rig, &|page| {
            let cell = usize::from(page.u16_at(HEAD_BYTES + 4));
            // the last byte of the separator, which is no part of its hint
            let len = usize::from(page.u16_at(cell + 24));
            assert!(len > usize::from(page.u16_at(26)) + 2);
            page.0[cell + 25 + len] = 0;
        });
    });
    assert!(separator.expect_err("separator").contains("belongs into another page"));
}
