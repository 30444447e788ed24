//! The errors of sandboxes and containers; a variant of its own exists where a caller acts differently.

use std::path::{Path, PathBuf};

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// The operation, as a verb phrase.
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
    /// The node has no more of something; the message says of what.
    #[error("{0}")]
    Exhausted(String),
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
    /// A sandbox or container is not in the state that the call needs.
    #[error("{kind} {id} is {state}, can't {action} it")]
    WrongState {
        /// `sandbox`, `container`.
        kind: &'static str,
        /// Its name.
        id: String,
        /// `not ready`, `created`, `running`, `exited`.
        state: &'static str,
        /// The action that was asked for, as a verb.
        action: &'static str,
    },
    /// A container's child failed before its program ran.
    #[error("start {id}: {what}")]
    Start {
        /// The container.
        id: String,
        /// The step and its object.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The program of a container or an exec does not exist or can't be executed.
    #[error("execute {program} in container {id}")]
    Program {
        /// The container.
        id: String,
        /// The program as asked for.
        program: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The monitor of a sandbox is gone or does not answer.
    #[error("monitor of sandbox {sandbox}: {why}")]
    Monitor {
        /// The sandbox.
        sandbox: String,
        /// The failure: the call and its error, or the monitor's reason.
        why: String,
    },
    /// The monitor of a sandbox does not answer, or can't be asked: that is not its end, and its containers go on.
    #[error(
        "sandbox {sandbox}: its monitor can't be reached ({why}); its containers are as they were: try again, resume the \
         monitor if it is stopped, or stop the sandbox"
    )]
    Unreachable {
        /// The sandbox.
        sandbox: String,
        /// The reason: the call that failed or was not answered, and its error.
        why: String,
    },
    /// A record on disk can't be used.
    #[error("record {}: {why}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The reason why it can't be used.
        why: String,
    },
}

impl Error {
    /// Adds to an `ENOSPC` whether it is inodes that the file system has run out of: that of the path that the error
    /// names, or else that of the container's own directory, in which its root is written.
    pub(crate) fn explained(mut self, directory: &Path) -> Self {
        let (path, source) = match &mut self {
            Self::Io { path, source, .. } => (path.as_path(), source),
            Self::Start { source, .. } | Self::Program { source, .. } | Self::Kernel { source, .. } => {
                (directory, source)
            }
            _ => return self,
        };
        let answer = std::mem::replace(source, std::io::ErrorKind::Other.into());
        *source = slipway_disk::explained(path, answer);
        self
    }
}

impl From<slipway_disk::Error> for Error {
    fn from(error: slipway_disk::Error) -> Self {
        Self::Io { action: error.action, path: error.path, source: error.source }
    }
}

impl From<slipway_disk::record::Damage> for Error {
    fn from(damage: slipway_disk::record::Damage) -> Self {
        Self::Record { path: damage.path, why: damage.reason }
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

impl From<slipway_disk::walker::Error> for Error {
    fn from(error: slipway_disk::walker::Error) -> Self {
        let (action, path, source) = error.into_parts();
        Self::Io { action, path, source }
    }
}
