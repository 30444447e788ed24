//! The daemon's errors, and the one place where an error becomes a gRPC status. The words that kubelet looks for
//! in some messages are known in this file alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_proto::PROGRAM_STATUS;
use tonic::{Code, Status};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the image service.
    #[error(transparent)]
    Image(#[from] slipway_image::Error),
    /// An error of the runtime.
    #[error(transparent)]
    Runtime(#[from] slipway_runtime::Error),
    /// An error of the builder.
    #[error(transparent)]
    Build(#[from] slipway_builder::Error),
    /// A container's log can't be read.
    #[error(transparent)]
    Log(#[from] slipway_log::Error),
    /// A request sets a field that is not supported yet and whose value can't be ignored.
    #[error("field {field} is not supported yet: leave it out")]
    Unsupported {
        /// The field's path in the request.
        field: String,
    },
    /// A field of a request has a value that is not allowed.
    #[error("field {field} is invalid: {reason}")]
    Invalid {
        /// The field's path in the request.
        field: String,
        /// The fault, such as `it is empty`.
        reason: String,
    },
    /// The RPC is not served yet.
    #[error("{call} is not served yet: {instead}")]
    Unserved {
        /// The RPC.
        call: &'static str,
        /// Advice, such as `call ListImages`.
        instead: &'static str,
    },
    /// No pod or container has this id.
    #[error("{kind} {id} does not exist")]
    NotFound {
        /// `pod`, `container`.
        kind: &'static str,
        /// The id of the request.
        id: String,
    },
    /// The short id is a prefix of several ids.
    #[error("{kind} id {id} fits {count}: give more digits")]
    Ambiguous {
        /// `pod`, `container`.
        kind: &'static str,
        /// The id of the request.
        id: String,
        /// How many ids have this prefix.
        count: usize,
    },
    /// The name is held by a pod or container whose creation has ended.
    #[error("{kind} name {name} is in use by {id}: remove that one first")]
    Exists {
        /// `pod`, `container`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The id of the holder.
        id: String,
    },
    /// The name is held by a pod or container whose removal is still under way after the wait for it.
    #[error("{kind} name {name} is in use by {id}, whose removal is still under way: try again")]
    Leaving {
        /// `pod`, `container`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The id of the holder.
        id: String,
    },
    /// The name is being taken by a different request.
    #[error("{kind} name {name} is being created by a different request: wait for that one to end")]
    InFlight {
        /// `pod`, `container`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The action is not possible in the state of the pod or container.
    #[error("{action} {kind} {id}: it is {state}")]
    WrongState {
        /// `start`, `exec in`, …
        action: &'static str,
        /// `pod`, `container`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The state's name.
        state: &'static str,
    },
    /// The configuration file can't be used.
    #[error("configuration {}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The fault, in one line.
        reason: String,
    },
    /// A setting has a value that is not allowed.
    #[error("setting {key}: {reason}")]
    Setting {
        /// Its key.
        key: &'static str,
        /// The fault, such as `it must be 1 or more`.
        reason: String,
    },
    /// Another daemon has locked the directory.
    #[error("directory {} is in use by another slipwayd: stop that one or give another", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A record is damaged.
    #[error("record {}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// The operation, such as `read configuration`.
        action: &'static str,
        /// The path it was applied to, or the name of another object, such as a thread.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The server's transport ended badly.
    #[error("serve {}", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// The transport's error.
        source: tonic::transport::Error,
    },
    /// A task ended without an outcome, by a panic: a defect of the daemon, which its log shows.
    #[error("{what} ended without an outcome: see the daemon's log")]
    Lost {
        /// The task, such as `creation of pod web`.
        what: String,
    },
    /// A command ran longer than its request allows.
    #[error("{what} was killed: it took more than {seconds} s")]
    TimedOut {
        /// The command, such as `command in container 3f2a`.
        what: String,
        /// The timeout, in seconds.
        seconds: u64,
    },
    /// The error of a creation that several equal requests wait for.
    #[error(transparent)]
    Joined(Arc<Self>),
}

impl Error {
    /// Makes a closure for `map_err` that turns an error into [`Error::Io`] of this action and path.
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

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into() }
    }

    /// Whether the error is [`slipway_runtime::Error::InUse`]: a resource that was asked for is taken.
    pub(crate) fn is_in_use(&self) -> bool {
        match self {
            Self::Runtime(slipway_runtime::Error::InUse(_)) => true,
            Self::Joined(error) => error.is_in_use(),
            _ => false,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// The gRPC code.
    fn code(&self) -> Code {
        match self {
            Self::Image(error) => image_code(error),
            Self::Runtime(error) => runtime_code(error),
            Self::Build(error) => build_code(error),
            Self::Log(error) => io_code(error.io()),
            Self::Unsupported { .. } | Self::Unserved { .. } => Code::Unimplemented,
            Self::Invalid { .. } | Self::Ambiguous { .. } => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::Exists { .. } | Self::Leaving { .. } | Self::InFlight { .. } => Code::AlreadyExists,
            Self::WrongState { .. } | Self::Busy { .. } => Code::FailedPrecondition,
            Self::Config { .. } | Self::Setting { .. } | Self::Serve { .. } => Code::Internal,
            Self::Record { .. } => Code::DataLoss,
            Self::Io { source, .. } => io_code(source),
            Self::Lost { .. } => Code::Internal,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Joined(error) => error.code(),
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        slipway_runtime::chain(self)
    }

    /// The exit status by which shells tell that a program can't be executed (126) or does not exist (127).
    fn program_status(&self) -> Option<u16> {
        match self {
            Self::Runtime(slipway_runtime::Error::Program { source, .. }) => {
                Some(if source.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
            }
            Self::Joined(error) => error.program_status(),
            _ => None,
        }
    }

    fn prefix(&self) -> &'static str {
        match self {
            // kubelet looks for these words to tell the user what a pull needs.
            Self::Image(error)
                if matches!(error.cause(), slipway_image::Error::RegistryUnavailable { .. }) =>
            {
                "RegistryUnavailable: "
            }
            Self::Unsupported { field } if field.ends_with("recursive_read_only") => "RROUnsupported: ",
            Self::Joined(error) => error.prefix(),
            _ => "",
        }
    }
}

impl From<slipway_reference::Error> for Error {
    fn from(error: slipway_reference::Error) -> Self {
        Self::Image(error.into())
    }
}

impl From<slipway_disk::Error> for Error {
    fn from(error: slipway_disk::Error) -> Self {
        Self::Io { action: error.action, path: error.path, source: error.source }
    }
}

fn image_code(error: &slipway_image::Error) -> Code {
    use slipway_image::Error as Image;
    match error.cause() {
        Image::Of { .. } => Code::Internal,
        Image::Name(_) | Image::AmbiguousId { .. } => Code::InvalidArgument,
        Image::InvalidHosts { .. } | Image::ImageInUse { .. } | Image::StoreBusy { .. } => {
            Code::FailedPrecondition
        }
        Image::ImageMissing { .. } | Image::NotFoundInRegistry { .. } => Code::NotFound,
        Image::LayerMissing { .. } | Image::Corrupt { .. } => Code::DataLoss,
        Image::Unauthorized { .. } => Code::PermissionDenied,
        // kubelet strips the code from a message only if the code is Unknown, and looks for its word at the
        // beginning of the message.
        Image::RegistryUnavailable { .. } => Code::Unknown,
        Image::DigestMismatch { .. } => Code::DataLoss,
        Image::ManifestRejected { .. } | Image::LayerRejected { .. } => Code::FailedPrecondition,
        Image::Cancelled { .. } => Code::Cancelled,
        Image::Io { source, .. } => io_code(source),
    }
}

fn runtime_code(error: &slipway_runtime::Error) -> Code {
    use slipway_runtime::Error as Runtime;
    match error {
        Runtime::Io { source, .. } | Runtime::Kernel { source, .. } => io_code(source),
        Runtime::Invalid(_) => Code::InvalidArgument,
        Runtime::Unsupported(_) => Code::FailedPrecondition,
        Runtime::Exhausted(_) => Code::ResourceExhausted,
        Runtime::NotFound { .. } => Code::NotFound,
        Runtime::InUse(_) | Runtime::WrongState { .. } | Runtime::Program { .. } => Code::FailedPrecondition,
        Runtime::Start { source, .. } => io_code(source),
        Runtime::Monitor { .. } | Runtime::Unreachable { .. } => Code::Unavailable,
        Runtime::Record { .. } => Code::DataLoss,
    }
}

fn build_code(error: &slipway_builder::Error) -> Code {
    use slipway_builder::Error as Build;
    match error {
        Build::Dockerfile { .. } | Build::Invalid(_) | Build::Context { .. } | Build::Missing { .. } => {
            Code::InvalidArgument
        }
        Build::RunFailed { .. } => Code::FailedPrecondition,
        Build::Step { source, .. } => build_code(source),
        Build::Cancelled => Code::Cancelled,
        Build::Image(error) => image_code(error),
        Build::Runtime(error) => runtime_code(error),
        Build::Log(error) => io_code(error.io()),
        Build::Io { source, .. } => io_code(source),
    }
}

fn io_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        io::ErrorKind::TimedOut => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(error.code(), format!("{}{}", error.prefix(), error.chain()));
        if let Some(number) = error.program_status() {
            status.metadata_mut().insert(PROGRAM_STATUS, number.into());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let source = io::Error::from_raw_os_error(28);
        let error = Error::io("write", "/x")(source);
        let status = Status::from(error);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message().matches("No space left").count(), 1, "{}", status.message());
        assert!(status.message().starts_with("write /x: "), "{}", status.message());
    }

    #[test]
    fn a_program_that_does_not_run_has_the_status_that_shells_give_it() {
        let told = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            let error = slipway_runtime::Error::Program { id: "c".into(), program: "p".into(), source };
            let status = Status::from(Error::Joined(Arc::new(error.into())));
            status.metadata().get(PROGRAM_STATUS).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        assert_eq!(told(2).as_deref(), Some("127"), "ENOENT");
        assert_eq!(told(13).as_deref(), Some("126"), "EACCES");
        assert_eq!(told(8).as_deref(), Some("126"), "ENOEXEC");
        let other = Status::from(Error::invalid("name", "it is empty"));
        assert!(other.metadata().is_empty(), "{other:?}");
    }

    #[test]
    fn kubelet_finds_its_word_for_a_registry_that_is_down() {
        let down = slipway_image::Error::RegistryUnavailable {
            host: "h".to_owned(),
            object: "o".to_owned(),
            reason: "r".to_owned(),
        };
        let status = Status::from(Error::Joined(Arc::new(Error::Image(down))));
        assert_eq!(status.code(), Code::Unknown);
        assert!(status.message().starts_with("RegistryUnavailable: "), "{}", status.message());
    }
}
