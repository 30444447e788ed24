//! The work on disk that every crate shares: records, atomic writes, and walks over trees that containers and images
//! wrote.
//!
//! This is a leaf package: it depends on no other crate of the project. Nothing in it recurses over a tree, follows a
//! symbolic link that a container wrote, or reads more of a file than its caller allows.
//!
//! - [`atomic`]: files that are written whole or not at all, and bounded reads of regular files
//! - [`record`]: JSON behind a header with a checksum, bound to the name of what it describes
//! - [`walker`]: removal, usage and other walks over trees of any depth
//! - [`Lock`]: a file that one process has
//! - [`SingleFlight`]: equal work of several callers, done once
//! - [`openat2()`]: bounded look-ups that renames elsewhere don't fail

pub mod atomic;
mod lock;
mod lookup;
pub mod record;
mod room;
mod single_flight;
pub mod walker;

pub use lock::Lock;
pub use lookup::openat2;
pub use room::{explained, why_read_only};
pub use single_flight::{Follow, Joined, Lead, SingleFlight};
pub use walker::remove_tree;

use std::io;
use std::path::{Path, PathBuf};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct Error {
    /// The action, as a verb phrase.
    pub action: &'static str,
    /// The file it was done to.
    pub path: PathBuf,
    /// The operating system's answer.
    pub source: io::Error,
}

impl Error {
    /// Makes a closure for `map_err` that says what was done to which path, and where inodes are what is lacking.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self { action, path: path.to_owned(), source: explained(path, source.into()) }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
