//! COPY and ADD: sources to a list of entries, the list to a content hash, the list to files in a draft layer.

mod draft;
mod mode;
mod select;
pub(crate) mod user;

pub(crate) use draft::Draft;
pub(crate) use mode::Chmod;
pub(crate) use select::{Item, Selection, hash, select};

use std::path::{Path, PathBuf};

use crate::ignore::Ignore;
use crate::tree::Tree;

/// Where a COPY takes from.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// The files.
    pub(crate) tree: &'a Tree,
    /// What stays out.
    pub(crate) ignore: Option<&'a Ignore>,
    /// `the build context`, `stage base`, `image x`.
    pub(crate) place: String,
}

/// What a COPY asks for, with its variables expanded.
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
}

/// Joins a path to the working directory; a `/` at the end stays, and `.` gets one.
pub(crate) fn absolute(workdir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{workdir}/{path}") };
    let directory = joined.ends_with('/') || joined.ends_with("/.") || joined.ends_with("/..");
    let mut clean = normal(&joined);
    if directory && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Below which path of the destination a selection lands: relative to the root, links not yet followed.
fn landing(destination: &str, name: &Path) -> PathBuf {
    Path::new(destination.trim_start_matches('/')).join(name)
}
