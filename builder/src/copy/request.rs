//! A COPY or ADD as it is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::mode::Chmod;

/// A COPY with its variables expanded.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The sources as written.
    pub(crate) sources: Vec<String>,
    /// The absolute destination; a `/` at its end says that it is a directory.
    pub(crate) destination: String,
    /// The owner to give.
    pub(crate) owner: Option<(u32, u32)>,
    /// The mode to give.
    pub(crate) chmod: Option<Chmod>,
    /// When an archive is unpacked, the directories that it has entries of its own for. What is there and of another
    /// kind then gives way to what it has.
    pub(crate) archive: Option<BTreeSet<PathBuf>>,
}
