//! What can go wrong with a sandbox or a container, told apart where a caller acts differently.

use std::path::PathBuf;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A system call without a path failed.
    #[error("{call}")]
    Kernel {
        /// The call and its object.
        call: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The request asks for something that can't be.
    #[error("{0}")]
    Invalid(String),
    /// The node lacks something the request needs; the message says what.
    #[error("{0}")]
    Unsupported(String),
    /// A named thing does not exist.
    #[error("{kind} {id} does not exist")]
    NotFound {
        /// `sandbox`, `container`, …
        kind: &'static str,
        /// Its name.
        id: String,
    },
    /// A named thing exists already, or a resource is taken.
    #[error("{0}")]
    InUse(String),
}
