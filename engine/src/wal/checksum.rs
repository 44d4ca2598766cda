//! CRC-32, and the little-endian numbers of the log's formats.
//!
//! Under `cfg(fuzzing)` every checksum matches, so that a fuzzer gets past it into the code behind.

/// CRC-32 of `bytes`, going on from `seed`.
pub(super) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// Whether a stored checksum is right.
pub(super) fn matches(stored: u32, computed: u32) -> bool {
    stored == computed || cfg!(fuzzing)
}

/// The four bytes at `at`, 0 beyond the end (formats check their lengths first).
pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    if let Some(here) = bytes.get(at..at + 4) {
        number.copy_from_slice(here);
    }
    u32::from_le_bytes(number)
}

/// The eight bytes at `at`, 0 beyond the end.
pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(here) = bytes.get(at..at + 8) {
        number.copy_from_slice(here);
    }
    u64::from_le_bytes(number)
}

/// Writes four bytes.
pub(super) fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Writes eight bytes.
pub(super) fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}
