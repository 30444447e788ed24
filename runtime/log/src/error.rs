//! Why a log can't be read.

use std::io;
use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A log that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on the log's file.
    #[error("{action} {}", path.display())]
    Io {
        /// `open log`, `read log`, `wait for log`.
        action: &'static str,
        /// The log.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is no event descriptor by which to wake the reader, eventfd(2).
    #[error("eventfd")]
    Waker(#[source] io::Error),
}

impl Error {
    /// The operating system's answer.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        match self {
            Self::Io { source, .. } | Self::Waker(source) => source,
        }
    }
}
