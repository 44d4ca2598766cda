//! Whose log lies in a directory, told without opening it: a member that starts again is who its log says, whatever its
//! flags say now.

use super::segment::{FirstBlock, segment_of_name};
use crate::disk::BLOCK_BYTES;
use crate::error::Fault;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The owner that the log in `dir` names, `None` where there is no log, or none whose header can be read (opening it
/// says what is wrong).
///
/// # Errors
/// [`Fault::Io`].
pub fn owner_of(dir: &Path) -> Result<Option<[u8; 16]>, Fault> {
    let fault = |operation, path: &Path| {
        let path: PathBuf = path.to_path_buf();
        move |source| Fault::Io { operation, path, offset: 0, source }
    };
    let names = match std::fs::read_dir(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("list", dir)(error)),
    };
    let mut segments = Vec::new();
    for name in names {
        let path = name.map_err(fault("list", dir))?.path();
        if path.file_name().is_some_and(|name| segment_of_name(Path::new(name)).is_some()) {
            segments.push(path);
        }
    }
    segments.sort_unstable();
    for path in segments {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let file = File::open(&path).map_err(fault("open", &path))?;
        file.take(BLOCK_BYTES as u64).read_to_end(&mut block).map_err(fault("read", &path))?;
        block.resize(BLOCK_BYTES, 0);
        if let FirstBlock::Header(header) = FirstBlock::read(&block) {
            return Ok(Some(header.owner));
        }
    }
    Ok(None)
}
