//! The errors of a build, one for each way in which a caller treats them.

use std::io;
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile is not right; the reason says what to do.
    #[error("Dockerfile line {line}: {reason}")]
    Dockerfile {
        /// The line that the instruction begins on, from 1.
        line: usize,
        /// The fault and the way to mend it.
        reason: String,
    },
    /// The request is not right: a tag, a target, a path.
    #[error("{0}")]
    Invalid(String),
    /// The build context can't be used.
    #[error("build context {}: {reason}", path.display())]
    Context {
        /// The context as it was named.
        path: PathBuf,
        /// The fault and the way to mend it.
        reason: String,
    },
    /// A file that the build needs is not there.
    #[error("{path} is not in {place}: check the name, and .dockerignore")]
    Missing {
        /// The path as the user wrote it.
        path: String,
        /// `the build context`, `stage base`, `image x`.
        place: String,
    },
    /// The command of a RUN ended badly.
    #[error("{command:?} ended with exit code {code}{hint}")]
    RunFailed {
        /// The command.
        command: String,
        /// The exit code, or 128 and the signal.
        code: i32,
        /// The meaning of the code, where it has one.
        hint: &'static str,
    },
    /// A step failed.
    #[error("Dockerfile line {line}: {step}")]
    Step {
        /// The line that the instruction begins on, from 1.
        line: usize,
        /// The instruction.
        step: String,
        /// Why.
        source: Box<Error>,
    },
    /// The client gave the build up.
    #[error("the build was cancelled")]
    Cancelled,
    /// The image store failed.
    #[error(transparent)]
    Image(#[from] slipway_image::Error),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] slipway_runtime::Error),
    /// The log of a RUN can't be read.
    #[error(transparent)]
    Log(#[from] slipway_log::Error),
    /// A system call on a file.
    #[error("{action} {}", path.display())]
    Io {
        /// The action, as a verb phrase.
        action: &'static str,
        /// To what, as the container or the context calls it.
        path: PathBuf,
        /// Why it can't be.
        source: io::Error,
    },
}

impl Error {
    /// Makes a closure for `map_err` that says what was done to which path.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| {
            let path = path.as_ref().to_path_buf();
            let source = slipway_disk::explained(&path, source.into());
            Self::Io { action, path, source }
        }
    }

    /// Says where it is inodes that the file system of the build's directory has no more of: the error's own path is one
    /// in the image.
    pub(crate) fn explained(self, scratch: &Path) -> Self {
        match self {
            Self::Io { action, path, source } => {
                Self::Io { action, path, source: slipway_disk::explained(scratch, source) }
            }
            other => other,
        }
    }

    /// A fault of the Dockerfile.
    pub(crate) fn dockerfile(line: usize, reason: impl Into<String>) -> Self {
        Self::Dockerfile { line, reason: reason.into() }
    }

    /// Says in which step an error happened; one that knows its line, and a cancellation, stay as they are.
    pub(crate) fn in_step(self, line: usize, step: &str) -> Self {
        match self {
            Self::Dockerfile { .. } | Self::Step { .. } | Self::Cancelled => self,
            source => Self::Step { line, step: step.to_owned(), source: Box::new(source) },
        }
    }
}

impl From<slipway_reference::Error> for Error {
    fn from(error: slipway_reference::Error) -> Self {
        Self::Image(error.into())
    }
}

impl From<slipway_disk::walker::Error> for Error {
    fn from(error: slipway_disk::walker::Error) -> Self {
        if matches!(error, slipway_disk::walker::Error::Stopped) {
            return Self::Cancelled;
        }
        let (action, path, source) = error.into_parts();
        Self::Io { action, path, source }
    }
}
