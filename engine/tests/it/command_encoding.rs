//! The bytes of commands.

use crate::arbitrary::{Source, config};
use bytes::Bytes;
use coffer_engine::command::encoding::{TXN_LEVELS_MAX, TooDeep};
use coffer_engine::command::samples::{fuzz_command_decode, sample_encodings, samples};
use coffer_engine::command::*;
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<Stamped, encoding::DecodeError> {
    Stamped::decode(bytes)
}

fn nested(levels: usize) -> TxnRequest {
    let mut txn = TxnRequest::default();
    for _ in 1..levels {
        txn = TxnRequest { failure: vec![TxnOp::Txn(txn)], ..TxnRequest::default() };
    }
    txn
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn every_command_comes_back_from_its_bytes(clock_ms: u64, command in Source::wide().command()) {
        let stamped = Stamped { clock_ms, command };
        prop_assert_eq!(Stamped::decode(&stamped.encode().unwrap()), Ok(stamped));
    }

    #[test]
    fn any_bytes_are_refused_or_are_the_one_encoding_of_a_command(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        fuzz_command_decode(&bytes);
        let mut with_version = vec![encoding::VERSION];
        with_version.extend(bytes);
        fuzz_command_decode(&with_version);
    }

    #[test]
    fn damaged_bytes_are_refused_or_are_another_command(
        command in Source::narrow().command(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Stamped { clock_ms: 1, command }.encode().unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzz_command_decode(&bytes);
    }
}

#[test]
fn samples_come_back_and_no_part_of_one_is_a_command() {
    for (sample, bytes) in samples().iter().zip(sample_encodings()) {
        assert_eq!(decode(&bytes).as_ref(), Ok(sample));
        for cut in 0..bytes.len() {
            let error = decode(&bytes[..cut]).unwrap_err();
            assert!(error.offset <= cut, "{error}");
        }
        fuzz_command_decode(&bytes);
    }
}

#[test]
fn trailing_bytes_are_refused_and_named() {
    for mut bytes in sample_encodings() {
        bytes.push(7);
        let error = decode(&bytes).unwrap_err();
        let expected =
            format!("not a command: offset {}: expected the end, found byte 0x07", bytes.len() - 1);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_bytes_of_version_1_stay_as_they_are() {
    let put =
        PutRequest { key: "k".into(), value: "v".into(), lease: -2, prev_kv: true, ..PutRequest::default() };
    let bytes = Stamped { clock_ms: 300, command: Command::Put(put) }.encode().unwrap();
    assert_eq!(bytes, [1, 0xac, 2, 1, 1, 1, b'k', 1, b'v', 3]);
    // every sample, by length and sum: a change here is a change of the format, which takes a new version
    let all = sample_encodings().concat();
    assert_eq!((all.len(), crc32c::crc32c(&all)), (715, 0xed15_b784));
}

#[test]
fn txns_nest_to_their_bound_and_not_deeper() {
    let stamped = |levels| Stamped { clock_ms: 0, command: Command::Txn(nested(levels)) };
    let deepest = stamped(TXN_LEVELS_MAX).encode().unwrap();
    assert_eq!(decode(&deepest), Ok(stamped(TXN_LEVELS_MAX)));
    const { assert!(TXN_LEVELS_MAX >= 50, "a client can send 50 levels") };
    fuzz_command_decode(&deepest);
    assert_eq!(stamped(TXN_LEVELS_MAX + 1).encode(), Err(TooDeep { levels: TXN_LEVELS_MAX + 1 }));
    // one level more by hand: no compares, nothing to do, one thing else: a txn
    let head = deepest.len() - 3 * TXN_LEVELS_MAX - (TXN_LEVELS_MAX - 1);
    let mut deeper = deepest[..head].to_vec();
    deeper.extend([0, 0, 1, 4]);
    deeper.extend(&deepest[head..]);
    let error = decode(&deeper).unwrap_err();
    assert_eq!(error.expected, "no txn deeper than 64 levels");
    // very deep ones do not exhaust the stack
    let mut endless = deepest[..head].to_vec();
    endless.extend([0, 0, 1, 4].repeat(1_000_000));
    assert_eq!(decode(&endless).unwrap_err().expected, "no txn deeper than 64 levels");
}

#[test]
fn lengths_and_numbers_are_held_against_what_is_there() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    // a key of 2^64 - 1 bytes; as many compares; as many lease ids
    for head in [&[1, 0, 1, 0][..], &[1, 0, 3], &[1, 0, 7]] {
        let bytes = [head, &huge].concat();
        assert_eq!(decode(&bytes).unwrap_err().offset, head.len());
    }
    // eleven bytes of a number; ten that hold more than 64 bits; one longer than needed
    assert!(decode(&[&[1][..], &[0x80; 11], &[1, 4, 0]].concat()).is_err());
    assert!(decode(&[&[1][..], &[0xff; 9], &[2, 4, 0]].concat()).is_err());
    assert!(decode(&[1, 0x80, 0, 4, 0]).is_err());
    assert!(decode(&[1, 0, 4, 0]).is_ok());
}

#[test]
fn unknown_versions_kinds_flags_and_choices_are_refused() {
    for bytes in [
        &[0, 0, 4, 0][..],
        &[2, 0, 4, 0],
        &[1, 0, 0],
        &[1, 0, 12],
        &[1, 0, 1, 8, 0, 0, 0],     // a put's flag
        &[1, 0, 2, 2, 0, 0],        // a delete's flag
        &[1, 0, 9, 3, 0, 0],        // an alarm's action
        &[1, 0, 9, 0, 0, 3],        // an alarm
        &[1, 0, 3, 1, 4, 0],        // a comparison's result
        &[1, 0, 3, 1, 0, 5],        // its target
        &[1, 0, 3, 0, 1, 5],        // an operation
        &[1, 0, 11, 1, 1, 0xff, 0], // a name that is no UTF-8
    ] {
        let error = decode(bytes).unwrap_err();
        assert!(error.found.is_some(), "{bytes:?}: {error}");
    }
}

#[test]
fn decoded_keys_do_not_keep_the_entry_alive() {
    let put = PutRequest { key: "key".into(), value: Bytes::from(vec![1; 9000]), ..PutRequest::default() };
    let bytes = Bytes::from(Stamped { clock_ms: 0, command: Command::Put(put) }.encode().unwrap());
    let stamped = decode(&bytes).unwrap();
    assert!(bytes.is_unique());
    drop(stamped);
}
