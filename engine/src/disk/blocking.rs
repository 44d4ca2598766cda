//! One operation after the other: what opening does before anything is a state machine. Nothing else may be under way
//! on the disk meanwhile.

use super::{Disk, Done, IoBuf, Op};
use crate::error::Fault;
use std::io;
use std::path::Path;

/// Runs one operation to its end.
pub(crate) fn run(disk: &mut dyn Disk, op: Op) -> (Option<IoBuf>, io::Result<Done>) {
    let token = disk.submit(op);
    let mut completions = Vec::new();
    loop {
        disk.poll(&mut completions);
        if let Some(place) = completions.iter().position(|completion| completion.token == token) {
            let completion = completions.swap_remove(place);
            return (completion.buf, completion.result);
        }
        disk.wait(None);
    }
}

/// Runs one operation and names it in the fault if it fails.
pub(crate) fn run_named(
    disk: &mut dyn Disk,
    operation: &'static str,
    path: &Path,
    op: Op,
) -> Result<Done, Fault> {
    run(disk, op).1.map_err(|source| Fault::Io { operation, path: path.to_path_buf(), offset: 0, source })
}

/// A disk that answers another question than was asked.
pub(crate) fn unexpected(operation: &'static str, path: &Path, done: &Done) -> Fault {
    let source = io::Error::other(format!("the disk answered {done:?}"));
    Fault::Io { operation, path: path.to_path_buf(), offset: 0, source }
}
