use super::*;
use crate::disk::sim::rng::Rng;

fn meta(number: u64) -> Meta {
    let mut root = Root { tx: 77, pages_used: 900, pages_end: 70_000, ..Root::default() };
    root.standing = Standing {
        applied: 1,
        applied_term: 2,
        revision: 3,
        compacted: -1,
        compaction_done: -1,
        compaction_next: Revision { main: 4, sub: 5 },
        clock_ms: 6,
    };
    root.trees[0] = Some(ChildRef { id: PageId(10), tx: 77, crc: Some(9), count: 1000 });
    root.trees[7] = Some(ChildRef { id: PageId(69_999), tx: 3, crc: Some(0), count: 1 });
    let directories = vec![PlaceRef { place: PageId(7), crc: 5, tx: 70 }];
    Meta { owner: *b"cluster1 member2", number, root, blocks: 3, directories }
}

#[test]
fn a_meta_reads_back_and_stands_at_its_own_places_only() {
    for number in [0, 1, 8, COUNT_MAX] {
        let meta = meta(number);
        for place in meta_places(number) {
            let page = meta.encode(place);
            let read = Meta::decode(&page, place).expect("it is a meta");
            assert_eq!(format!("{read:?}"), format!("{meta:?}"));
            for other in 0..META_PAGES {
                assert!(other == place.0 || Meta::decode(&page, PageId(other)).is_err());
            }
        }
        let other = PageId(meta_places(number)[0].0 ^ 2);
        assert!(Meta::decode(&meta.encode(other), other).is_err(), "not its place");
    }
}

#[test]
fn every_flipped_bit_and_zeroed_sector_of_a_meta_is_found() {
    let place = meta_places(1)[1];
    let whole = meta(1).encode(place);
    for bit in 0..PAGE_BYTES * 8 {
        let mut page = whole.clone();
        page.0[bit / 8] ^= 1 << (bit % 8);
        assert!(Meta::decode(&page, place).is_err(), "bit {bit}");
    }
    for sector in 0..PAGE_BYTES / 512 {
        let mut page = whole.clone();
        page.0[sector * 512..][..512].fill(0);
        // a sector that was zero before is unharmed
        let harmless = page.0 == whole.0;
        assert_eq!(Meta::decode(&page, place).is_ok(), harmless, "sector {sector}");
    }
    assert_eq!(Meta::decode(&Page([0; PAGE_BYTES]), place).expect_err("blank"), NoMeta::Blank);
}

#[test]
fn whatever_stands_under_a_right_crc_is_refused_or_makes_sense_and_never_a_panic() {
    let mut rng = Rng::new(1);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..100_000 {
        let place = meta_places(1)[0];
        let mut page = meta(1).encode(place);
        for _ in 0..rng.between(1, 3) {
            let at = rng.between(4, 400) as usize;
            page.0[at] = if rng.once_in(2) { rng.next_u64() as u8 } else { page.0[at] ^ (1 << rng.below(8)) };
        }
        seal(&mut page);
        match Meta::decode(&page, place) {
            Err(_) => refused += 1,
            Ok(meta) => {
                taken += 1;
                assert_eq!(meta.directories.len() as u32, meta.blocks.div_ceil(DIRECTORY_BLOCKS));
                assert!(meta.encode(place).0 == page.0, "it reads back");
            }
        }
    }
    println!("changed metas under a right CRC: {refused} refused, {taken} taken");
    assert!(refused > 10_000 && taken > 10_000, "{refused} {taken}");
}

#[test]
fn a_meta_of_another_format_and_one_of_bbolt_are_told_apart() {
    let place = meta_places(0)[0];
    let mut page = meta(0).encode(place);
    page.put_u32(FORMAT_AT, 9);
    seal(&mut page);
    assert_eq!(Meta::decode(&page, place).expect_err("another format"), NoMeta::Format(9));
    let mut page = meta(0).encode(place);
    page.put_u32(PAGE_BYTES_AT, 8192);
    seal(&mut page);
    assert_eq!(Meta::decode(&page, place).expect_err("another size"), NoMeta::PageBytes(8192));
    let mut page = Page([0; PAGE_BYTES]);
    page.put_u16(8, 4);
    page.put_u32(BBOLT_MAGIC_AT, BBOLT_MAGIC);
    assert_eq!(Meta::decode(&page, place).expect_err("bbolt's"), NoMeta::Bbolt);
}

#[test]
fn directories_and_blocks_read_back_and_every_flipped_bit_is_found() {
    let blocks: Vec<PlaceRef> = (0..3)
        .map(|block| PlaceRef { place: bitmap_places(block)[1], crc: block, tx: 40 + u64::from(block) })
        .collect();
    let (page, named) = encode_directory(0, directory_places(0)[1], 50, &blocks);
    Which::Directory(0).check(&page, &named).expect("whole");
    assert_eq!(decode_directory(&page, 0, 3).expect("whole"), blocks);
    assert!(decode_directory(&page, 0, 2).is_err() && decode_directory(&page, 0, 4).is_err());
    assert!(decode_directory(&page, 1, 3).is_err(), "places of other blocks");

    let bits = std::array::from_fn(|at| at as u8);
    let (block, named_block) = encode_block(2, bitmap_places(2)[0], 60, &bits);
    Which::Block(2).check(&block, &named_block).expect("whole");
    assert_eq!(block_bits(&block), bits);
    assert!(Which::Block(1).check(&block, &named_block).is_err(), "another block");
    assert!(Which::Directory(2).check(&block, &named_block).is_err(), "another kind");
    let older = PlaceRef { tx: 59, ..named_block };
    assert!(Which::Block(2).check(&block, &older).is_err(), "another transaction");
    for (whole, named, which) in [(page, named, Which::Directory(0)), (block, named_block, Which::Block(2))] {
        for bit in 0..PAGE_BYTES * 8 {
            let mut page = whole.clone();
            page.0[bit / 8] ^= 1 << (bit % 8);
            assert!(which.check(&page, &named).is_err(), "{which:?}, bit {bit}");
        }
    }
}

#[test]
fn what_changed_goes_to_the_other_place() {
    let which = Which::Block(3);
    let [first, second] = which.places();
    assert_eq!(which.other_place(first), second);
    assert_eq!(which.other_place(second), first);
    assert_eq!(which.other_place(PageId(0)), first, "none is named yet");
}
