//! The layers below a layer, for the rare tar that leans on them: overlayfs' lookup, done by hand over layer directories.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::root::{self, Root};
use crate::error::Result;

/// A name found below.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
}

/// The layers below, topmost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    pub(crate) layers: Vec<PathBuf>,
}

impl Below {
    /// Looks up a path without links, as overlayfs would show it.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<Found>> {
        for layer in &self.layers {
            match Self::find_in(layer, path)? {
                Step::Found(found) => return Ok(Some(found)),
                Step::Hidden => return Ok(None),
                Step::Absent => {}
            }
        }
        Ok(None)
    }

    fn find_in(layer: &Path, path: &[u8]) -> Result<Step> {
        let root = Root::open(layer)?;
        let mut current: Vec<u8> = Vec::new();
        let mut hidden = false;
        let mut components = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = components.next() {
            let Ok(directory) = root.directory(&current) else { return Ok(Step::Hidden) };
            hidden |= !current.is_empty() && is_opaque(&layer.join(OsStr::from_bytes(&current)))?;
            let Ok(stat) = root::stat(directory.as_fd(), name) else {
                return Ok(if hidden { Step::Hidden } else { Step::Absent });
            };
            if !current.is_empty() {
                current.push(b'/');
            }
            current.extend_from_slice(name);
            if root::is_whiteout(&stat) {
                return Ok(Step::Hidden);
            }
            if components.peek().is_none() {
                return Ok(Step::Found(Found { path: layer.join(OsStr::from_bytes(&current)), stat }));
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(Step::Hidden);
            }
        }
        Ok(Step::Absent)
    }
}

enum Step {
    Found(Found),
    Hidden,
    Absent,
}

fn is_opaque(path: &Path) -> Result<bool> {
    Ok(root::xattrs(path)?.iter().any(|(name, _)| name == root::opaque_name().as_bytes()))
}
