//! The directories that a tar names, without its data: its layer has more, those that its entries only need.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::{Bounds, Kind, TarReader};
use crate::layer::Failure;
use crate::layer::apply::name;
use crate::layer::skeleton::SkeletonWriter;

const BUFFER: usize = 128 << 10;
/// The memory that the paths of a tar's directories may take, in bytes.
const MEMORY_MAX: usize = 64 << 20;
/// The memory that a directory takes besides its path, in bytes.
const BESIDES: usize = 96;

/// The directories that have entries of their own, by their paths from the root.
pub(crate) fn directories(tar: impl Read, bounds: Bounds) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut reader = TarReader::new(tar, SkeletonWriter::none(), bounds);
    let mut found = BTreeSet::new();
    let mut memory = 0_usize;
    let mut buffer = vec![0; BUFFER];
    while let Some(entry) = reader.next()? {
        if entry.kind == Kind::Directory {
            let path = name::normalise(&entry.path)?;
            memory = memory.saturating_add(path.len()).saturating_add(BESIDES);
            if memory > MEMORY_MAX {
                return Err(Failure::entry(&entry.path, "too many directories are before it"));
            }
            found.insert(PathBuf::from(OsString::from_vec(path)));
        }
        while reader.data(&mut buffer)? > 0 {}
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of a tar's directories were kept in memory, as many as it had.
    #[test]
    fn a_tar_of_too_many_directories_is_refused() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        let path = ["d".repeat(250).as_str(); 15].join("/");
        let count = MEMORY_MAX / path.len() + 1;
        for _ in 0..count {
            builder.append_data(&mut header, &path, &b""[..]).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let bounds = Bounds { entries: 1 << 30, bytes: 1 << 30 };
        let Err(Failure::Rejected(reason)) = directories(tar.as_slice(), bounds) else {
            panic!("it is taken")
        };
        assert!(reason.contains("too many directories are before it"), "{reason}");
    }
}
