//! The errors of the command line, and their form on one line of standard error.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use slipway_proto::PROGRAM_STATUS;

use crate::style::{RefusedCall, Style};

/// The exit status of a verb that failed.
pub(crate) const FAILED: u8 = 1;
/// The exit status for a command line that makes no sense.
pub(crate) const USAGE: u8 = 1;
/// The exit status of a `run` that failed before its program ran.
const RUN_FAILED: u8 = 125;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failure of a verb.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("start")]
    Start(#[source] io::Error),
    #[error("connect to {endpoint}: is the daemon running, and are you root?")]
    Connect { endpoint: String, source: io::Error },
    #[error("connect to {endpoint}")]
    Handshake { endpoint: String, source: tonic::transport::Error },
    /// The daemon refused.
    #[error("{action}: {}", status.message())]
    Call { action: String, status: Box<tonic::Status> },
    #[error("{action}: the daemon ended the stream too early")]
    Ended { action: String },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Parse { path: PathBuf, reason: String },
    /// The object is not in a state in which the verb can act on it.
    #[error("{0}")]
    Refused(String),
    /// Some of several operations failed; each error has been printed.
    #[error("{failed} of {total} failed")]
    Several { failed: usize, total: usize },
    #[error("set the modes of the terminal")]
    Terminal(#[source] io::Error),
    #[error("write to standard output")]
    Output(#[source] io::Error),
}

impl Error {
    /// A function for `map_err`: the call was refused; `action` says what was attempted.
    pub(crate) fn call(action: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let action = action.into();
        move |status| Self::Call { action, status: Box::new(status) }
    }

    /// Arguments that the parser let through and can't be taken: the first line of its error.
    pub(crate) fn arguments(error: &clap::Error) -> Self {
        let text = error.to_string();
        Self::Usage(text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
    }

    /// The socket's server does not know the call.
    pub(crate) fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == tonic::Code::Unimplemented)
    }

    /// The reader of standard output has closed it, so that there is nobody to report to.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit status of a `run` that failed before its program ran: 126 when the program can't be executed, 127 when there
    /// is none, 125 for the rest, as docker and podman have it. Programs may end with these, too.
    pub(crate) fn status_of_run(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Call { status, .. } => {
                let told = status.metadata().get(PROGRAM_STATUS).and_then(|value| value.to_str().ok());
                match told {
                    Some("126") => 126,
                    Some("127") => 127,
                    _ => RUN_FAILED,
                }
            }
            _ => RUN_FAILED,
        }
    }

    /// The error and its causes in one line.
    pub(crate) fn describe(&self, style: &Style) -> String {
        if let (RefusedCall::CodeAndMessage, Self::Call { action, status }) = (style.refused_call, self) {
            return format!("{action}: rpc error: code = {:?} desc = {}", status.code(), status.message());
        }
        let mut line = self.to_string();
        let mut cause = match self {
            // The transport's error, where the connection broke and the daemon did not answer.
            Self::Call { status, .. } => status.source(),
            _ => self.source(),
        };
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}
