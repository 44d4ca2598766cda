//! The table of readers.

use crate::pager::readers::{Place, Readers};
use crate::pager::sync::SLOTS;

#[test]
fn readers_beyond_the_slots_are_counted_too() {
    let readers = Readers::new();
    let all = SLOTS as u64 + 3;
    let mut places: Vec<Place> = (0..all).map(|tx| readers.enter(7, tx)).collect();
    let mut list = Vec::new();
    readers.list(&mut list);
    assert_eq!(list, (0..all).collect::<Vec<_>>());
    assert_eq!(readers.count() as u64, all);
    let last = places.pop().expect("one is there");
    assert!(matches!(last, Place::Other(_)));
    readers.change(&last, 5000);
    readers.list(&mut list);
    assert_eq!(list.last(), Some(&5000));
    readers.leave(&last);
    for place in &places {
        readers.leave(place);
    }
    readers.list(&mut list);
    assert!(list.is_empty());
    assert_eq!(readers.count(), 0);
    assert!(matches!(readers.enter(7, 1), Place::Slot(7)));
}
