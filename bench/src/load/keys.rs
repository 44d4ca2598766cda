//! Which key a request is about, how it is spelled, and what is put there.

use super::zipf::Zipf;
use super::{Distribution, LoadOptions};
use bytes::{BufMut as _, Bytes, BytesMut};

/// Before the number of each key.
const PREFIX: &[u8] = b"bench/";
/// The lowest key of a run's range, and what lies behind all of them.
pub(super) const FIRST: &[u8] = PREFIX;
pub(super) const END: &[u8] = b"bench0";
/// Digits of the largest number.
const DIGITS_MAX: usize = 20;
/// Places in a supply of bytes where values begin: so many that two requests seldom have the same, so few that the supply stays
/// in a core's cache.
const SUPPLY_BYTES: usize = 32 << 10;
/// Room for keys that is made at once.
const ROOM_BYTES: usize = 4 << 10;

/// The next number of a sequence that looks random (splitmix64).
pub(super) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The random number that belongs to request `number`.
pub(super) fn drawn(seed: u64, number: u64) -> u64 {
    scatter(seed.wrapping_mul(0x1_0000_0001).wrapping_add(number))
}

/// Key number `number`, padded to `bytes`.
pub(super) fn key(number: u64, bytes: usize) -> Bytes {
    Speller::new(bytes).key(number)
}

/// Writes keys, many into one piece of memory.
#[derive(Debug)]
pub(super) struct Speller {
    room: BytesMut,
    digits: usize,
}

impl Speller {
    /// Keys of `bytes` bytes, more if the number asks for them.
    pub(super) fn new(bytes: usize) -> Speller {
        Speller { room: BytesMut::new(), digits: bytes.saturating_sub(PREFIX.len()).max(1) }
    }

    /// Key number `number`.
    pub(super) fn key(&mut self, mut number: u64) -> Bytes {
        let mut digits = [b'0'; DIGITS_MAX];
        let mut first = DIGITS_MAX;
        while number > 0 {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        let padding = self.digits.saturating_sub(DIGITS_MAX - first);
        let len = PREFIX.len() + padding + DIGITS_MAX - first;
        if self.room.capacity() < len {
            self.room.reserve(ROOM_BYTES.max(len));
        }
        self.room.put_slice(PREFIX);
        self.room.put_bytes(b'0', padding);
        self.room.put_slice(&digits[first..]);
        self.room.split().freeze()
    }
}

/// Values, cut out of one piece of memory that does not compress to nothing.
#[derive(Clone, Debug)]
pub(super) struct Values {
    supply: Bytes,
    value_bytes: usize,
}

impl Values {
    pub(super) fn new(value_bytes: usize, seed: u64) -> Values {
        let mut supply = BytesMut::with_capacity(SUPPLY_BYTES + value_bytes + 8);
        let mut at = seed;
        while supply.len() < SUPPLY_BYTES + value_bytes {
            at = at.wrapping_add(1);
            supply.put_u64_le(scatter(at));
        }
        Values { supply: supply.freeze(), value_bytes }
    }

    /// The value that follows from `drawn`.
    pub(super) fn value(&self, drawn: u64) -> Bytes {
        let from = scatter(drawn) as usize % SUPPLY_BYTES;
        self.supply.slice(from..from + self.value_bytes)
    }

    /// A value that begins with `stamp`, and is long enough for it.
    pub(super) fn stamped(&self, drawn: u64, stamp: u64) -> Bytes {
        let mut value = BytesMut::with_capacity(self.value_bytes.max(STAMP_BYTES));
        value.put_u64_le(stamp);
        let rest = self.value_bytes.saturating_sub(STAMP_BYTES);
        value.put_slice(&self.value(drawn)[..rest]);
        value.freeze()
    }
}

const STAMP_BYTES: usize = 8;

/// What [`Values::stamped`] put into a value.
pub(super) fn stamp(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Which key is next.
#[derive(Debug)]
pub(super) enum Chooser {
    Uniform { keys: u64, seed: u64 },
    Zipf { zipf: Zipf, places: Places, seed: u64 },
    Sequential { keys: u64 },
}

impl Chooser {
    pub(super) fn new(options: &LoadOptions) -> Chooser {
        let (keys, seed) = (options.keys.max(1), options.seed);
        match options.distribution {
            Distribution::Uniform => Chooser::Uniform { keys, seed },
            Distribution::Sequential => Chooser::Sequential { keys },
            Distribution::Zipf => {
                let zipf = Zipf::new(keys, options.zipf_exponent);
                Chooser::Zipf { zipf, places: Places::new(keys), seed }
            }
        }
    }

    /// The key of request `number`.
    pub(super) fn choose(&self, number: u64) -> u64 {
        match self {
            Chooser::Uniform { keys, seed } => drawn(*seed, number) % keys,
            Chooser::Zipf { zipf, places, seed } => places.of(zipf.draw(drawn(*seed, number)) - 1),
            Chooser::Sequential { keys } => number % keys,
        }
    }
}

/// Where the hottest key stands among all, the second hottest, and so on: each in a place of its own, far from the others.
#[derive(Debug)]
pub(super) struct Places {
    keys: u64,
    stride: u64,
}

impl Places {
    fn new(keys: u64) -> Places {
        // steps of the golden ratio come near to no place that was taken shortly before
        let mut stride = ((keys as f64 * 0.618_033_988_749_895) as u64).max(1);
        while common_divisor(stride, keys) > 1 {
            stride += 1;
        }
        Places { keys, stride }
    }

    fn of(&self, rank: u64) -> u64 {
        (u128::from(rank) * u128::from(self.stride) % u128::from(self.keys)) as u64
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_as_long_as_asked_and_in_order() {
        assert_eq!(&key(7, 24)[..], b"bench/000000000000000007");
        assert_eq!(&key(0, 3)[..], b"bench/0");
        assert_eq!(&key(1_234, 9)[..], b"bench/1234");
        assert_eq!(&key(u64::MAX, 6)[..], b"bench/18446744073709551615");
        assert!(key(9, 24) < key(10, 24));
        assert!(key(0, 24) > FIRST && key(u64::MAX, 24) < END);
        let mut speller = Speller::new(200);
        let keys: HashSet<Bytes> = (0..1_000).map(|number| speller.key(number)).collect();
        assert!(keys.len() == 1_000 && keys.iter().all(|key| key.len() == 200));
    }

    #[test]
    fn values_are_as_long_as_asked_and_differ() {
        let values = Values::new(256, 1);
        assert_eq!((values.value(1).len(), Values::new(0, 1).value(1).len()), (256, 0));
        let different: HashSet<Bytes> = (0..1_000).map(|drawn| values.value(drawn)).collect();
        assert!(different.len() > 950);
    }

    #[test]
    fn a_stamp_is_read_back() {
        for (value_bytes, len) in [(0, 8), (8, 8), (100, 100)] {
            let value = Values::new(value_bytes, 1).stamped(3, 4_711);
            assert_eq!((value.len(), stamp(&value)), (len, Some(4_711)));
        }
        assert_eq!(stamp(b"short"), None);
    }

    fn chosen(distribution: Distribution, keys: u64, requests: u64) -> Vec<u64> {
        let chooser = Chooser::new(&LoadOptions { distribution, keys, ..LoadOptions::default() });
        (0..requests).map(|number| chooser.choose(number)).collect()
    }

    #[test]
    fn a_sequence_takes_every_key_in_turn() {
        assert_eq!(chosen(Distribution::Sequential, 4, 9), [0, 1, 2, 3, 0, 1, 2, 3, 0]);
    }

    #[test]
    fn all_keys_are_alike_where_none_is_hot() {
        let mut seen = [0u32; 10];
        chosen(Distribution::Uniform, 10, 100_000).iter().for_each(|key| seen[*key as usize] += 1);
        assert!(seen.iter().all(|seen| (9_400..10_600).contains(seen)), "{seen:?}");
    }

    #[test]
    fn each_rank_has_a_place_of_its_own_and_the_hot_ones_are_no_neighbours() {
        for keys in [1, 2, 3, 10, 1_000, 4_096, 99_991] {
            let places = Places::new(keys);
            let taken: HashSet<u64> = (0..keys).map(|rank| places.of(rank)).collect();
            assert!(taken.len() as u64 == keys && taken.iter().all(|place| *place < keys));
        }
        let places = Places::new(100_000);
        let mut hot: Vec<u64> = (0..100).map(|rank| places.of(rank)).collect();
        hot.sort_unstable();
        assert!(hot.windows(2).all(|pair| pair[1] - pair[0] > 100), "{hot:?}");
    }

    #[test]
    fn the_hottest_key_of_a_zipf_run_has_its_share() {
        let seen = chosen(Distribution::Zipf, 1_000, 100_000);
        let sum: f64 = (1..=1_000).map(|k| f64::from(k).powf(-0.99)).sum();
        let hottest = seen.iter().filter(|key| **key == 0).count() as f64;
        assert!((hottest - 100_000.0 / sum).abs() < 1_000.0, "{hottest}");
    }
}
