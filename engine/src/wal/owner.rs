//! Whether a log lies in a directory, and whose, told without opening it: a member that starts again is who its log says,
//! whatever its flags say now.

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
    for path in segments(dir).map_err(fault("list", dir))? {
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

/// Whether a log was begun in `dir`: a file there has the name of a segment, whatever is in it. A directory that cannot be
/// read counts as one with a log: nobody should begin another there.
pub fn is_begun(dir: &Path) -> bool {
    segments(dir).map_or(true, |segments| !segments.is_empty())
}

/// The files in `dir` that have a segment's name, in order; none where there is no such directory.
fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let names = match std::fs::read_dir(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for name in names {
        let path = name?.path();
        if path.file_name().is_some_and(|name| segment_of_name(Path::new(name)).is_some()) {
            segments.push(path);
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_begun_where_a_file_has_a_segments_name() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("wal");
        assert!(!is_begun(&dir), "there is no such directory");
        std::fs::create_dir(&dir).expect("it is made");
        for other in ["lock", "next.tmp", "1.wal"] {
            std::fs::write(dir.join(other), "").expect("it is written");
        }
        assert!(!is_begun(&dir));
        std::fs::write(dir.join("0000000000000001.wal"), "").expect("it is written");
        assert!(is_begun(&dir), "an empty one too");
        assert_eq!(owner_of(&dir).expect("it is read"), None);
        assert!(is_begun(&dir.join("lock")), "what cannot be listed counts as begun");
    }
}
