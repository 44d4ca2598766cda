//! The disk's floor: how long one durable write of a block takes into a file that is already there, written as coffer
//! writes its log. No put that waits for this disk can be faster.

use crate::load::Failed;
use coffer_engine::disk::{BLOCK_BYTES, Disk, DiskIo, Done, IoBuf, Op, open_disk};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Blocks of the file that is written over and over: a segment of the log.
const FILE_BLOCKS: usize = 4096;

/// Durable writes one after the other.
pub(super) struct Floor {
    latency_ns: Histogram<u64>,
    took: Duration,
}

impl Floor {
    /// Nothing measured yet.
    pub(super) fn new() -> Result<Floor, Failed> {
        let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Floor { latency_ns, took: Duration::ZERO })
    }

    /// Measures for so many seconds in a file below `directory`, which goes again.
    pub(super) fn measure(&mut self, directory: &Path, seconds: f64) -> Result<(), Failed> {
        let path = directory.join("floor");
        let done = self.write(&path, seconds);
        std::fs::remove_file(&path)?;
        done
    }

    fn write(&mut self, path: &Path, seconds: f64) -> Result<(), Failed> {
        let mut disk = open_disk(DiskIo::Auto)?;
        let open = Op::Open { path: path.to_owned(), create: true, cached: false };
        let (Done::Opened(file, _), _) = run(disk.as_mut(), open)? else {
            return Err("a file that was opened is not told".into());
        };
        let whole = IoBuf::zeroed(FILE_BLOCKS * BLOCK_BYTES);
        run(disk.as_mut(), Op::Write { file, offset: 0, buf: whole })?;
        run(disk.as_mut(), Op::Sync { file })?;
        let (begun, mut block, mut buf) = (Instant::now(), 0, Some(IoBuf::zeroed(BLOCK_BYTES)));
        while begun.elapsed().as_secs_f64() < seconds {
            let at = Instant::now();
            let full = buf.take().unwrap_or_else(|| IoBuf::zeroed(BLOCK_BYTES));
            let offset = (block % FILE_BLOCKS * BLOCK_BYTES) as u64;
            buf = run(disk.as_mut(), Op::WriteDurable { file, offset, buf: full })?.1;
            self.latency_ns.saturating_record(at.elapsed().as_nanos() as u64);
            block += 1;
        }
        self.took += begun.elapsed();
        Ok(())
    }

    /// The figures, in the form of a run of puts.
    pub(super) fn json(&self) -> Value {
        let us = |quantile: f64| self.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        json!({
            "requests": self.latency_ns.len(),
            "seconds": self.took.as_secs_f64(),
            "put": {
                "count": self.latency_ns.len(),
                "mean_us": self.latency_ns.mean() / 1e3,
                "p50_us": us(0.5),
                "p99_us": us(0.99),
                "p99.9_us": us(0.999),
                "max_us": us(1.0),
            },
        })
    }
}

/// One operation to its end.
fn run(disk: &mut dyn Disk, op: Op) -> Result<(Done, Option<IoBuf>), Failed> {
    let token = disk.submit(op);
    let mut out = Vec::new();
    loop {
        disk.poll(&mut out);
        if let Some(place) = out.iter().position(|completion| completion.token == token) {
            let completion = out.swap_remove(place);
            return Ok((completion.result?, completion.buf));
        }
        disk.wait(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_measured_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let mut floor = Floor::new().unwrap();
        floor.measure(directory.path(), 0.05).unwrap();
        let once = floor.json()["requests"].as_u64().unwrap();
        floor.measure(directory.path(), 0.05).unwrap();
        let figures = floor.json();
        assert!(once > 0 && figures["requests"].as_u64().unwrap() > once);
        assert!(figures["put"]["p50_us"].as_f64().unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
