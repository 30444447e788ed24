//! A process beside the daemon that opens what clients name, each in a child of its own.
//!
//! A system call on the file system of a server that is gone, or of a frozen device, may not return, and not be
//! interrupted by SIGKILL either: a thread in it keeps its whole process from ending. So it is no thread of the daemon
//! that makes it. The opener is a copy of the daemon from before its first other thread; it ends with the daemon.
//!
//! ```text
//! daemon ── request, a socket for the answer ──► opener ──fork──► child: open, answer with a descriptor, end
//! ```

use crate::rootfs::binds::{self, Bind, BindOptions};
use crate::sys::fork::{fork, reap_children_by_itself, silence};
use crate::{Error, Result, launch};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The longest message, in bytes: a path, or an error that names it.
const LONGEST: usize = 64 * 1024;
/// How long the opener may take to take a request.
const PROMPT: Duration = Duration::from_secs(10);

/// The daemon's end of the opener's socket. The default one has no other end: it opens everything in this process.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    socket: Option<Arc<OwnedFd>>,
}

/// A file to be opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A source of a bind.
    Bind { source: PathBuf, options: BindOptions },
    /// A log, with its directories.
    Log { path: PathBuf },
}

/// The actions that an error of a task names.
const ACTIONS: [&str; 5] =
    ["bind", "open log", "create directory", "make the host's directory", "find the mount of"];

/// The operating system's answer, as a number where it had one, else as text.
#[derive(Debug, Serialize, Deserialize)]
enum Cause {
    Errno(i32),
    Told { is_full: bool, text: String },
}

/// An error as it is sent: the caller's words, and the operating system's.
#[derive(Debug, Serialize, Deserialize)]
enum Failure {
    Io { action: String, path: PathBuf, cause: Cause },
    Invalid(String),
    Unsupported(String),
    Other(String),
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error {
            Error::Io { action, path, source } => {
                let cause = source.raw_os_error().map_or_else(
                    || Cause::Told {
                        is_full: source.kind() == ErrorKind::StorageFull,
                        text: source.to_string(),
                    },
                    Cause::Errno,
                );
                Self::Io { action: (*action).to_owned(), path: path.clone(), cause }
            }
            Error::Invalid(text) => Self::Invalid(text.clone()),
            Error::Unsupported(text) => Self::Unsupported(text.clone()),
            other => Self::Other(crate::chain(other)),
        }
    }

    fn error(self) -> Error {
        match self {
            Self::Io { action, path, cause } => Error::Io {
                action: ACTIONS.into_iter().find(|known| *known == action).unwrap_or("open"),
                path,
                source: match cause {
                    Cause::Errno(errno) => std::io::Error::from_raw_os_error(errno),
                    Cause::Told { is_full: true, text } => std::io::Error::new(ErrorKind::StorageFull, text),
                    Cause::Told { is_full: false, text } => std::io::Error::other(text),
                },
            },
            Self::Invalid(text) => Error::Invalid(text),
            Self::Unsupported(text) => Error::Unsupported(text),
            Self::Other(text) => Error::Kernel { call: text, source: ErrorKind::Other.into() },
        }
    }
}

/// An opened file, and whether it is a directory.
type Opened = (OwnedFd, bool);

impl Task {
    fn perform(&self) -> Result<Opened> {
        match self {
            Self::Bind { source, options } => {
                binds::open_or_make(source, *options).map(|bind| (bind.mount, bind.is_directory))
            }
            Self::Log { path } => launch::open_log(path).map(|log| (log, false)),
        }
    }
}

impl Opener {
    /// Begins the process. Call it while this one has one thread.
    ///
    /// # Errors
    /// When there can be no further process.
    pub fn begin() -> Result<Self> {
        let failed = |source| Error::Kernel { call: "start the opener".into(), source };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed(errno.into()))?;
        if fork().map_err(failed)?.is_none() {
            drop(ours);
            serve(theirs);
        }
        set_socket_timeout(&ours, Timeout::Send, Some(PROMPT)).map_err(|errno| failed(errno.into()))?;
        Ok(Self { socket: Some(Arc::new(ours)) })
    }

    /// Opens a source of a bind, for as long as it takes.
    pub(crate) fn bind(&self, source: PathBuf, options: BindOptions) -> Result<Bind> {
        let opened = self.open(&Task::Bind { source, options });
        opened.map(|(mount, is_directory)| Bind { mount, is_directory })
    }

    /// Opens a log, for as long as it takes.
    pub(crate) fn log(&self, path: PathBuf) -> Result<OwnedFd> {
        self.open(&Task::Log { path }).map(|(log, _)| log)
    }

    /// A runtime whose program has begun no opener, or whose opener was killed, does it here.
    fn open(&self, task: &Task) -> Result<Opened> {
        let failed = |errno: Errno| Error::Kernel { call: "ask the opener".into(), source: errno.into() };
        let Some(opener) = &self.socket else { return task.perform() };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed)?;
        match send(opener, task, Some(theirs.as_fd())) {
            Ok(()) => drop(theirs),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => return task.perform(),
            Err(errno) => return Err(failed(errno)),
        }
        match receive::<std::result::Result<bool, Failure>>(&ours).map_err(failed)? {
            Some((Ok(is_directory), Some(opened))) => Ok((opened, is_directory)),
            Some((Err(failure), _)) => Err(failure.error()),
            // There was no room for the descriptor.
            Some((Ok(_), None)) => Err(failed(Errno::MFILE)),
            None => Err(failed(Errno::PIPE)),
        }
    }
}

/// The opener: until the daemon's end of the socket is closed.
fn serve(requests: OwnedFd) -> ! {
    // The name is for people, and what it has to say it answers: a log that it held open would seem to be in use.
    let _ = rustix::thread::set_name(c"slipway-opener");
    for stream in 0..=2 {
        let _ = silence(stream);
    }
    reap_children_by_itself();
    loop {
        match receive::<Task>(&requests) {
            Ok(Some((task, Some(answer)))) => match fork() {
                Ok(None) => {
                    drop(requests);
                    perform(&task, &answer);
                }
                Ok(Some(_)) => {}
                Err(source) => {
                    let failed = Failure::of(&Error::Kernel { call: "fork".into(), source });
                    // A daemon that is gone needs no answer.
                    let _ = send(&answer, &Err::<bool, _>(failed), None);
                }
            },
            // Nobody else writes to this socket, and the daemon sends a socket with each request.
            Ok(Some((_, None))) | Err(Errno::INTR | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {}
            Ok(None) | Err(_) => end(),
        }
    }
}

fn perform(task: &Task, answer: &OwnedFd) -> ! {
    let outcome = task.perform();
    let sent = match &outcome {
        Ok((_, is_directory)) => Ok(*is_directory),
        Err(error) => Err(Failure::of(error)),
    };
    let descriptor = outcome.as_ref().ok().map(|(opened, _)| opened.as_fd());
    // The caller may have given up waiting.
    let _ = send(answer, &sent, descriptor);
    end()
}

#[expect(clippy::exit, reason = "a copy of the daemon must not become one")]
fn end() -> ! {
    std::process::exit(0)
}

fn send<T: Serialize>(
    socket: &OwnedFd,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::TOOMANYREFS);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> rustix::io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?.bytes,
        }
    };
    if received == 0 {
        return Ok(None);
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut one| one.next());
    let message = bytes.get(..received).and_then(|bytes| serde_json::from_slice(bytes).ok());
    message.map(|message| Some((message, descriptor))).ok_or(Errno::BADMSG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_on_the_other_side() {
        let source = std::io::Error::from_raw_os_error(libc::ELOOP);
        let error = Error::Io { action: "open log", path: "/a".into(), source };
        let told = Failure::of(&error).error();
        assert_eq!(crate::chain(&told), crate::chain(&error));
        assert!(matches!(told, Error::Io { source, .. } if source.raw_os_error() == Some(libc::ELOOP)));
        let refused = Failure::of(&Error::Invalid("no".into())).error();
        assert!(matches!(refused, Error::Invalid(text) if text == "no"));
    }

    #[test]
    fn a_process_with_several_threads_has_no_opener() {
        // The test's own thread is beside the first one.
        assert!(Opener::begin().is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Opener::default().log(file.path().to_owned()).is_ok(), "it is done here");
    }
}
