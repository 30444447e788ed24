//! What a tar names, without its data: its layer has more, the directories that its entries only need.

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

/// The directories that have entries of their own, by their paths from the root.
pub(crate) fn directories(tar: impl Read, bounds: Bounds) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut reader = TarReader::new(tar, SkeletonWriter::none(), bounds);
    let mut found = BTreeSet::new();
    let mut buffer = vec![0; BUFFER];
    while let Some(entry) = reader.next()? {
        if entry.kind == Kind::Directory {
            found.insert(PathBuf::from(OsString::from_vec(name::normalise(&entry.path)?)));
        }
        while reader.data(&mut buffer)? > 0 {}
    }
    Ok(found)
}
