//! What it takes to make a batch durable: records of 300 bytes, appended and waited for, by batch size and by the way
//! the log writes. Beside criterion's mean, the percentiles of single batches.
//!
//! The log lies in the build directory (`CARGO_TARGET_TMPDIR`), on the disk that is to be measured; not in memory. Old
//! segments are released as it goes, so that it stays small and recycles them, as it does under a page file.

use bytes::Bytes;
use coffer_engine::disk::uring::UringDisk;
use coffer_engine::disk::{Completion, Disk, DiskIo, Done, IoBuf, Op, open_disk};
use coffer_engine::wal::{EntryKind, HardState, LogEntry, NewBatch, Wal, WalOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hdrhistogram::Histogram;
use std::path::Path;
use std::time::{Duration, Instant};

const RECORD_BYTES: usize = 300;
const BATCHES: [u64; 4] = [1, 8, 64, 512];

struct Log {
    disk: Box<dyn Disk>,
    wal: Wal,
    start: Instant,
    data: Bytes,
    last: u64,
    completions: Vec<Completion>,
}

impl Log {
    fn open(dir: &Path, choice: DiskIo) -> Log {
        let mut disk = open_disk(choice).expect("the disk opens");
        let mut options = WalOptions::new(dir.join("wal"), *b"bench, one owner", 1);
        options.segment_bytes_max = 16 << 20;
        let (wal, _) = Wal::open(disk.as_mut(), options, 0, &mut |_| Ok(())).expect("the log opens");
        let data = Bytes::from(vec![0x5a; RECORD_BYTES]);
        Log { disk, wal, start: Instant::now(), data, last: 0, completions: Vec::new() }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Appends `count` records and waits until they are durable.
    fn append(&mut self, count: u64) {
        let entries = (self.last + 1..=self.last + count).map(|index| LogEntry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: self.data.clone(),
        });
        let hard_state = HardState { term: 1, vote: 1, commit: self.last };
        let seq = self.wal.append(NewBatch { hard_state, entries: entries.collect() });
        self.last += count;
        self.wal.release(self.last.saturating_sub(100_000));
        while self.wal.durable() < seq {
            let now = self.now();
            self.wal.step(self.disk.as_mut(), now).expect("no fault");
            let timeout = self.wal.wakeup().map(|at| at.saturating_sub(now));
            self.disk.wait(timeout);
            self.disk.poll(&mut self.completions);
            let now = self.now();
            for completion in self.completions.drain(..) {
                self.wal.complete(completion, now);
            }
        }
    }
}

fn disks() -> Vec<(&'static str, DiskIo)> {
    match UringDisk::open() {
        Ok(_) => vec![("io_uring", DiskIo::Uring), ("pwrite", DiskIo::Sync)],
        Err(error) => {
            eprintln!("SKIPPED: io_uring, the kernel refuses it: {error}");
            vec![("pwrite", DiskIo::Sync)]
        }
    }
}

/// From 1 ns to a minute, three digits.
fn percentiles() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are allowed")
}

fn text(latency: &Histogram<u64>) -> String {
    let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    format!(
        "p50 {:.0} us, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        us(0.5),
        us(0.9),
        us(0.99),
        us(0.999),
        us(1.0)
    )
}

fn run(disk: &mut dyn Disk, op: Op) -> (Option<IoBuf>, Done) {
    let token = disk.submit(op);
    let mut out = Vec::new();
    loop {
        disk.poll(&mut out);
        if let Some(place) = out.iter().position(|completion| completion.token == token) {
            let completion = out.swap_remove(place);
            return (completion.buf, completion.result.expect("the disk works"));
        }
        disk.wait(None);
    }
}

/// The floor: one durable write of a block into a file filled before, without a log.
fn raw(c: &mut Criterion) {
    const FILE_BLOCKS: u64 = 4096;
    for (name, choice) in disks() {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut disk = open_disk(choice).expect("the disk opens");
        let path = dir.path().join("raw");
        let (_, Done::Opened(file, _)) = run(disk.as_mut(), Op::Open { path, create: true, cached: false })
        else {
            return;
        };
        run(disk.as_mut(), Op::Write { file, offset: 0, buf: IoBuf::zeroed(FILE_BLOCKS as usize * 4096) });
        run(disk.as_mut(), Op::Sync { file });
        let (mut latency, mut block, mut buf) = (percentiles(), 0, Some(IoBuf::zeroed(4096)));
        let mut group = c.benchmark_group("one durable block, no log");
        group
            .sample_size(20)
            .measurement_time(Duration::from_secs(3))
            .warm_up_time(Duration::from_millis(500));
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    let begun = Instant::now();
                    block = (block + 1) % FILE_BLOCKS;
                    let full = buf.take().unwrap_or_else(|| IoBuf::zeroed(4096));
                    buf = run(disk.as_mut(), Op::WriteDurable { file, offset: block * 4096, buf: full }).0;
                    latency.saturating_record(begun.elapsed().as_nanos() as u64);
                }
                start.elapsed()
            });
        });
        println!("  {name}: {}", text(&latency));
        group.finish();
    }
}

fn append(c: &mut Criterion) {
    for (name, choice) in disks() {
        let mut group = c.benchmark_group(format!("wal append, {name}"));
        group
            .sample_size(20)
            .measurement_time(Duration::from_secs(3))
            .warm_up_time(Duration::from_millis(500));
        for count in BATCHES {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            let mut log = Log::open(dir.path(), choice);
            let mut latency = percentiles();
            group.throughput(Throughput::Elements(count));
            group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, count| {
                b.iter_custom(|rounds| {
                    let start = Instant::now();
                    for _ in 0..rounds {
                        let begun = Instant::now();
                        log.append(*count);
                        latency.saturating_record(begun.elapsed().as_nanos() as u64);
                    }
                    start.elapsed()
                });
            });
            let stats = log.wal.stats();
            println!(
                "  {name}, {count} records: {}; {} batches, {} bytes each, {} segments recycled",
                text(&latency),
                stats.batches,
                stats.bytes_written / stats.writes.max(1),
                stats.segments_recycled,
            );
        }
        group.finish();
    }
}

criterion_group!(benches, raw, append);
criterion_main!(benches);
