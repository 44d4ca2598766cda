//! What every peer is given to do, and how it is measured.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;
/// What all keys begin with.
pub const PREFIX: &[u8] = b"keys/";
/// Keys in one transaction.
pub const BATCH: usize = 100;

/// The range of all keys that begin with [`PREFIX`]: its first key, and the first one behind it.
pub fn prefix() -> (Vec<u8>, Vec<u8>) {
    let mut end = PREFIX.to_vec();
    *end.last_mut().expect("the prefix is not empty") += 1;
    (PREFIX.to_vec(), end)
}

/// A key.
pub type Key = [u8; KEY_BYTES];
/// A value.
pub type Value = [u8; VALUE_BYTES];

/// A store of keys. Any error of it ends the program.
pub trait Peer {
    /// Writes all of `batch` in one transaction.
    fn write(&mut self, batch: &[(Key, Value)]);
    /// Reads `keys` in one read transaction; all of them must be there. The sum of the first bytes of their values.
    fn get(&self, keys: &[Key]) -> u64;
    /// Goes over all keys in order: how many, and the sum of the first bytes of their values.
    fn scan(&self) -> (u64, u64);
    /// How many keys begin with [`PREFIX`].
    fn count(&self) -> u64;
    /// Bytes of its files; `None` if it has none.
    fn file_bytes(&self) -> Option<u64>;
}

/// How much there is to do.
pub struct Plan {
    /// Keys loaded.
    pub keys: u64,
    /// Puts on random ones of them.
    pub overwrites: u64,
    /// Reads of random ones of them, each way.
    pub gets: u64,
}

/// Numbers that look random, the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The `number`-th key: numbers are scattered over the key space, without meeting (the factor is odd).
fn key(number: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..PREFIX.len()].copy_from_slice(PREFIX);
    let mut left = number.wrapping_mul(0x9e37_79b9_7f4b) & 0xfff_ffff_ffff;
    for place in key[PREFIX.len()..].iter_mut().rev() {
        *place = b"0123456789abcdef"[(left & 15) as usize];
        left >>= 4;
    }
    key
}

fn value(numbers: &mut Numbers) -> Value {
    let mut value = [0; VALUE_BYTES];
    for piece in value.chunks_mut(8) {
        piece.copy_from_slice(&numbers.next().to_le_bytes()[..piece.len()]);
    }
    value
}

/// Wall and CPU time of a piece of work, summed up.
#[derive(Default)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Cost {
    fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall, before) = (Instant::now(), cpu());
        let out = work();
        self.cpu += cpu() - before;
        self.wall += wall.elapsed();
        out
    }
}

/// Prints what a table's rows mean.
pub fn print_head(plan: &Plan) {
    println!(
        "{} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}; {} overwrites and {} gets; transactions of {BATCH}",
        plan.keys, plan.overwrites, plan.gets
    );
    println!(
        "{:<12} {:<20} {:>12} {:>12} {:>14}",
        "peer", "work", "us of wall", "us of CPU", "a second (CPU)"
    );
}

fn row(name: &str, work: &str, cost: &Cost, done: u64) {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
    let rate = done as f64 / cost.cpu.as_secs_f64();
    println!("{name:<12} {work:<20} {:>12.3} {:>12.3} {rate:>14.0}", each(cost.wall), each(cost.cpu));
}

/// Runs the whole plan on one peer and prints its rows.
pub fn run(name: &str, peer: &mut dyn Peer, plan: &Plan) {
    let mut numbers = Numbers(1);
    let mut next = 0;
    let load = write(peer, plan.keys, &mut numbers, |_| {
        next += 1;
        key(next - 1)
    });
    row(name, "load", &load, plan.keys);
    let overwrite = write(peer, plan.overwrites, &mut numbers, |numbers| key(numbers.below(plan.keys)));
    row(name, "overwrite", &overwrite, plan.overwrites);
    for (work, at_once) in [("get, one at a time", 1), ("get, 100 at a time", BATCH)] {
        row(name, work, &get(peer, plan, &mut numbers, at_once), plan.gets);
    }
    let mut scan = Cost::default();
    let (keys, sum) = scan.of(|| peer.scan());
    assert_eq!(keys, plan.keys, "{name} scans all keys");
    std::hint::black_box(sum);
    row(name, "scan", &scan, keys);
    let mut count = Cost::default();
    let keys = count.of(|| peer.count());
    assert_eq!(keys, plan.keys, "{name} counts all keys");
    row(name, "count, all of it", &count, 1);
    if let Some(bytes) = peer.file_bytes() {
        println!("{name:<12} {:<20} {:>12.1} MB", "file", bytes as f64 / 1e6);
    }
}

fn write(
    peer: &mut dyn Peer,
    puts: u64,
    numbers: &mut Numbers,
    mut pick: impl FnMut(&mut Numbers) -> Key,
) -> Cost {
    let mut cost = Cost::default();
    let mut batch = Vec::with_capacity(BATCH);
    for put in 1..=puts {
        batch.push((pick(numbers), value(numbers)));
        if batch.len() == BATCH || put == puts {
            cost.of(|| peer.write(&batch));
            batch.clear();
        }
    }
    cost
}

fn get(peer: &dyn Peer, plan: &Plan, numbers: &mut Numbers, at_once: usize) -> Cost {
    let mut cost = Cost::default();
    let mut left = plan.gets;
    while left > 0 {
        // so many between two looks at the clock that these do not count
        let keys: Vec<Key> = (0..left.min(10_000)).map(|_| key(numbers.below(plan.keys))).collect();
        left -= keys.len() as u64;
        let sum = cost.of(|| keys.chunks(at_once).map(|keys| peer.get(keys)).sum::<u64>());
        std::hint::black_box(sum);
    }
    cost
}
