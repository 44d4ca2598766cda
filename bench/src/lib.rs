//! coffer's benchmarks.
