//! A pager without a file.

use super::*;

#[test]
fn a_reader_sees_its_root_until_it_goes() {
    let mut pager = Pager::in_memory();
    let reader = pager.reader();
    let mut at = make(&mut pager);
    publish(&mut pager, Some(at));
    let first = at;
    let guard = reader.read();
    for _ in 0..20 {
        change(&mut pager, &mut at);
        publish(&mut pager, Some(at));
        check(&reader.read(), &at);
        assert_eq!(reader.read().root().tree(TREE), Some(at));
    }
    assert_eq!(guard.root().tree(TREE), Some(first));
    check(&guard, &first);
    let pinned = reader.pin_published();
    drop(guard);
    change(&mut pager, &mut at);
    publish(&mut pager, Some(at));
    assert_eq!(pinned.root().tx, 21);
    check(&pinned, &pinned.root().tree(TREE).expect("one page"));
    assert_eq!(reader.pin_durable().root().tx, 22, "nothing in memory is durable, so it is the newest");
}

#[test]
fn what_a_reader_held_back_is_given_back_in_portions() {
    let mut pager = Pager::in_memory();
    let made: Vec<_> = (0..5_000).map(|_| make(&mut pager)).collect();
    publish(&mut pager, None);
    let pin = pager.reader().pin_published();
    made.iter().for_each(|at| pager.free_page(at));
    publish(&mut pager, None);
    drop(pin);
    let held = |pager: &Pager| (pager.held_back().ids_for_readers, pager.held_back().in_memory);
    let (mut before, mut portions) = (held(&pager), 0);
    assert_eq!(before.0, 5_000);
    while before != (0, 0) {
        pager.reclaim();
        let now = held(&pager);
        assert!(
            before.0.abs_diff(now.0) <= 512 && before.1.abs_diff(now.1) <= 1_024,
            "{before:?}, then {now:?}"
        );
        (before, portions) = (now, portions + 1);
        assert!(portions < 50, "it does not end: {now:?}");
    }
    assert!(portions >= 9, "{portions}");
}

#[test]
fn a_page_of_the_open_transaction_is_changed_in_place() {
    let mut pager = Pager::in_memory();
    let mut at = make(&mut pager);
    let before = at;
    change(&mut pager, &mut at);
    assert_eq!(at, before);
    publish(&mut pager, Some(at));
    change(&mut pager, &mut at);
    assert_ne!(at.id, before.id);
    assert_eq!(at.tx, 2);
    let copy = at;
    change(&mut pager, &mut at);
    assert_eq!(at, copy);
}

#[test]
fn ids_are_given_out_lowest_first_and_at_once_if_nobody_saw_them() {
    let mut pager = Pager::in_memory();
    let made: Vec<_> = (0..5).map(|_| make(&mut pager)).collect();
    assert_eq!(made.iter().map(|at| at.id.0).collect::<Vec<_>>(), [8, 9, 10, 11, 12]);
    pager.free_page(&made[3]);
    pager.free_page(&made[1]);
    assert_eq!(make(&mut pager).id.0, 9);
    assert_eq!(pager.pages_in_use(), (8 + 4, 13));
    publish(&mut pager, None);
    let guard = pager.reader();
    let guard = guard.read();
    pager.free_page(&made[0]);
    publish(&mut pager, None);
    assert_eq!(make(&mut pager).id.0, 11);
    assert_eq!(make(&mut pager).id.0, 13, "8 is still within reach");
    drop(guard);
    publish(&mut pager, None);
    assert_eq!(make(&mut pager).id.0, 8);
}

#[test]
fn what_is_not_there_is_a_fault_and_no_panic() {
    let mut pager = Pager::in_memory();
    let mut at = make(&mut pager);
    publish(&mut pager, Some(at));
    let reader = pager.reader();
    let guard = reader.read();
    for (id, tx) in [(at.id, 7), (at.id, 0), (PageId(99), 1), (PageId(u32::MAX), 1)] {
        let fault = guard.page(TREE, &ChildRef { id, tx, ..at }).expect_err("it is not there");
        assert!(fault.to_string().contains(&format!("page {id} of tx {tx}")), "{fault}");
    }
    at.id = PageId(99);
    assert!(pager.page_mut(TREE, &mut at).is_err());
    at.tx = 2;
    assert!(pager.page_mut(TREE, &mut at).is_err());
}

#[test]
fn runs_are_consecutive_and_come_back_whole() {
    let mut pager = Pager::in_memory();
    let bytes: Vec<u8> = (0..20_000u32).map(|at| (at * 7 % 251) as u8).collect();
    let gap: Vec<_> = (0..3).map(|_| make(&mut pager)).collect();
    let small = pager.new_run(TREE, &bytes[..1]);
    let exact = pager.new_run(TREE, &bytes[..4064]);
    let long = pager.new_run(TREE, &bytes);
    assert_eq!((small.pages(), exact.pages(), long.pages()), (1, 1, 5));
    assert_eq!(long.first.0, exact.first.0 + 1);
    let check = |pages: &dyn Fn(&_) -> bytes::Bytes| {
        assert_eq!(pages(&small), bytes[..1]);
        assert_eq!(pages(&exact), bytes[..4064]);
        assert_eq!(pages(&long), bytes);
    };
    check(&|run| pager.run(TREE, run).expect("in memory"));
    for at in &gap {
        pager.free_page(at);
    }
    // the hole of three pages takes a run of three, not one of four
    let two = pager.new_run(TREE, &bytes[..2 * 4064 + 1]);
    assert_eq!(two.first.0, 8);
    publish(&mut pager, None);
    let reader = pager.reader();
    let guard = reader.read();
    check(&|run| guard.run(TREE, run).expect("in memory"));
    pager.free_run(&long);
    publish(&mut pager, None);
    check(&|run| guard.run(TREE, run).expect("in memory"));
    drop(guard);
    publish(&mut pager, None);
    assert_eq!(pager.new_run(TREE, &bytes).first, long.first);
    assert!(pager.run(TREE, &page::RunRef { bytes: u32::MAX, ..long }).is_err());
}

#[test]
fn a_writer_may_go_before_its_readers() {
    let mut pager = Pager::in_memory();
    let reader = pager.reader();
    let mut at = make(&mut pager);
    publish(&mut pager, Some(at));
    let (guard, first) = (reader.read(), at);
    for _ in 0..3 {
        change(&mut pager, &mut at);
        publish(&mut pager, Some(at));
    }
    let pinned = reader.pin_published();
    drop(pager);
    check(&guard, &first);
    drop(guard);
    drop(reader);
    check(&pinned, &at);
}
