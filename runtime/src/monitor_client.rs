//! The daemon's side of a monitor's socket: requests with a deadline, descriptors in batches.

use crate::process::{Process, timespec};
use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg,
    sendmsg, socket_with,
};
use slipway_monitor::message::Message;
use slipway_monitor::plan::Plan;
use slipway_monitor::protocol::{BATCH, OLDEST, PACKET, Reply, Request, VERSION, agreed};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a monitor may take to answer what it answers at once.
pub(crate) const PROMPT: Duration = Duration::from_secs(10);
const SOCKET: &str = "monitor.sock";

/// A connection to one monitor.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    sandbox: String,
    /// The version of the protocol that was agreed on.
    version: u16,
}

/// Why there is no connection to a monitor.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody listens at the pod's socket, or there is none. A monitor keeps it open for as long as it lives.
    Absent(String),
    /// It did not answer in time, or could not be asked: that says nothing of whether it lives.
    Silent(String),
}

impl Failure {
    fn of(call: &str, errno: Errno) -> Self {
        match errno {
            Errno::CONNREFUSED | Errno::NOENT => Self::Absent(format!("{call}: {errno}")),
            Errno::AGAIN => Self::Silent(format!("{call}: no answer in {} s", PROMPT.as_secs())),
            _ => Self::Silent(format!("{call}: {errno}")),
        }
    }

    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Absent(why) | Self::Silent(why) => why,
        }
    }

    pub(crate) fn error(self, sandbox: &str) -> Error {
        let sandbox = sandbox.to_owned();
        match self {
            Self::Absent(why) => Error::Monitor { sandbox, why },
            Self::Silent(why) => Error::Unreachable { sandbox, why },
        }
    }
}

/// A reply and the descriptors that came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The address of a pod's socket, short however deep the state directory lies.
fn address(directory: &Path) -> rustix::io::Result<(SocketAddrUnix, OwnedFd)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, directory, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    Ok((SocketAddrUnix::new(path)?, opened))
}

fn open_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Binds the socket that a monitor will serve.
pub(crate) fn listener(directory: &Path) -> Result<OwnedFd> {
    let failed =
        |errno: Errno| Error::Io { action: "bind", path: directory.join(SOCKET), source: errno.into() };
    let (address, _directory) = address(directory).map_err(failed)?;
    let _ = std::fs::remove_file(directory.join(SOCKET));
    let socket = open_socket().map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    listen(&socket, 128).map_err(failed)?;
    Ok(socket)
}

impl Connection {
    /// Connects to a pod's monitor and agrees on the version; gives the monitor's pid too. Takes at most [`PROMPT`].
    pub(crate) fn open(sandbox: &str, directory: &Path) -> std::result::Result<(Self, i32), Failure> {
        let end = Instant::now() + PROMPT;
        let connection = Self::dial(sandbox, directory)?;
        let left = end.saturating_duration_since(Instant::now());
        match connection.wait_readable(Some(left), None) {
            Ok(true) => connection.greet(),
            Ok(false) => Err(Failure::of("hello", Errno::AGAIN)),
            Err(errno) => Err(Failure::of("poll", errno)),
        }
    }

    /// Connects, waiting at most [`PROMPT`] for room in the monitor's listen backlog, and says hello.
    pub(crate) fn dial(sandbox: &str, directory: &Path) -> std::result::Result<Self, Failure> {
        let failed = |call: &'static str| move |errno| Failure::of(call, errno);
        let (address, _directory) = address(directory).map_err(failed("open its directory"))?;
        let socket = open_socket().map_err(failed("socket"))?;
        let end = Instant::now() + PROMPT;
        loop {
            // Of connect(2) too, as of each send: unix(7) sockets wait for room in the peer's queue for so long.
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            set_socket_timeout(&socket, Timeout::Send, Some(left)).map_err(failed("setsockopt"))?;
            match connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::of("connect", errno)),
            }
        }
        set_socket_timeout(&socket, Timeout::Send, Some(PROMPT)).map_err(failed("setsockopt"))?;
        let connection = Self { socket, sandbox: sandbox.into(), version: OLDEST };
        let hello = Request::Hello { version: VERSION };
        connection.packet(&hello, &[], SendFlags::empty()).map_err(failed("hello"))?;
        Ok(connection)
    }

    /// Receives the answer to the hello, which is there: the monitor's pid. What follows has the version that it names.
    pub(crate) fn greet(mut self) -> std::result::Result<(Self, i32), Failure> {
        let answer =
            self.receive(Some(Duration::ZERO)).map_err(|error| Failure::Silent(error.to_string()))?;
        match answer.map(|answer| answer.reply) {
            Some(Reply::Hello { version, pid, .. }) if agreed(version) == Some(version) => {
                self.version = version;
                Ok((self, pid))
            }
            Some(Reply::Hello { version, .. }) => Err(Failure::Silent(format!(
                "it speaks version {version} of the protocol, and this daemon speaks {OLDEST} to {VERSION}: start the \
                 release of the daemon that made the pod"
            ))),
            Some(other) => Err(Failure::Silent(self.unexpected(&other).to_string())),
            None => Err(Failure::Silent("hello: it hung up".into())),
        }
    }

    /// The plan as this monitor can execute it.
    pub(crate) fn plan(&self, plan: Plan) -> Result<Plan> {
        plan.for_version(self.version).map_err(|step| {
            Error::Unsupported(format!(
                "the monitor of sandbox {}, which an earlier release of the daemon has started, can't {}: make the pod \
                 anew",
                self.sandbox,
                step.describe()
            ))
        })
    }

    /// Sends descriptors and a request, and waits for its one answer.
    pub(crate) fn request(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Answer> {
        self.send(request, descriptors)?;
        self.receive(Some(deadline))?.ok_or_else(|| self.hung_up())
    }

    /// As [`Connection::request`], for a request whose answer is nothing but done.
    pub(crate) fn order(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        match self.request(request, descriptors, PROMPT)?.reply {
            Reply::Done {} => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends descriptors, in batches, and a request.
    pub(crate) fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        for batch in descriptors.chunks(BATCH) {
            let count = u16::try_from(batch.len()).unwrap_or(u16::MAX);
            self.packet(&Request::Descriptors { count }, batch, SendFlags::empty())
                .map_err(|errno| self.unsent(errno))?;
        }
        self.packet(request, &[], SendFlags::empty()).map_err(|errno| self.unsent(errno))
    }

    /// Sends a request if there is room for it now.
    pub(crate) fn send_at_once(&self, request: &Request) -> Result<()> {
        self.packet(request, &[], SendFlags::DONTWAIT).map_err(|errno| self.unsent(errno))
    }

    /// From now on a send waits for as long as there is no room.
    pub(crate) fn send_patiently(&self) -> Result<()> {
        set_socket_timeout(&self.socket, Timeout::Send, None).map_err(|errno| self.unsent(errno))
    }

    fn unsent(&self, errno: Errno) -> Error {
        match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => self.hung_up(),
            _ => Failure::of("send", errno).error(&self.sandbox),
        }
    }

    fn packet(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> rustix::io::Result<()> {
        let bytes = request.to_bytes(self.version);
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::TOOMANYREFS);
        }
        loop {
            let sent =
                sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags | SendFlags::NOSIGNAL);
            match sent {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// Waits for the next reply; none at the end of the connection.
    pub(crate) fn receive(&self, deadline: Option<Duration>) -> Result<Option<Answer>> {
        if let Some(limit) = deadline {
            let readable = self.wait_readable(Some(limit), None);
            if !readable.map_err(|errno| Failure::of("poll", errno).error(&self.sandbox))? {
                let why = format!("no answer in {} s", limit.as_secs());
                return Err(Failure::Silent(why).error(&self.sandbox));
            }
        }
        let mut bytes = vec![0; PACKET];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                Err(errno) => return Err(Failure::of("receive", errno).error(&self.sandbox)),
            }
        };
        if received == 0 {
            return Ok(None);
        }
        let descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let reply = Reply::of_bytes(bytes.get(..received).unwrap_or_default(), self.version)
            .map_err(|malformed| lost(&self.sandbox, &malformed.to_string()))?;
        Ok(Some(Answer { reply, descriptors }))
    }

    /// Waits until something can be received, or a process has ended; without a limit for as long as it takes. False
    /// when the time is over.
    pub(crate) fn wait_readable(
        &self,
        limit: Option<Duration>,
        process: Option<Process>,
    ) -> rustix::io::Result<bool> {
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        let process = process.and_then(|process| process.descriptor().ok());
        loop {
            let mut polled = vec![PollFd::new(&self.socket, PollFlags::IN)];
            polled.extend(process.as_ref().map(|process| PollFd::new(process, PollFlags::IN)));
            let left = end.map(|end| timespec(end.saturating_duration_since(Instant::now())));
            match poll(&mut polled, left.as_ref()) {
                Err(Errno::INTR) => {}
                readable => return readable.map(|count| count > 0),
            }
        }
    }

    /// The error that an answer out of turn, or a refusal, means.
    pub(crate) fn unexpected(&self, reply: &Reply) -> Error {
        match reply {
            Reply::Refused { why } => Error::Monitor { sandbox: self.sandbox.clone(), why: why.clone() },
            Reply::StepFailed { what, errno, .. } => Error::Kernel {
                call: format!("monitor of sandbox {}: {what}", self.sandbox),
                source: std::io::Error::from_raw_os_error(*errno),
            },
            _ => lost(&self.sandbox, "it answers out of turn"),
        }
    }

    /// The error that its end means.
    pub(crate) fn hung_up(&self) -> Error {
        lost(&self.sandbox, "it hung up")
    }

    /// A further handle on the same connection.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let socket = self
            .socket
            .try_clone()
            .map_err(|source| Error::Kernel { call: "duplicate a socket".into(), source })?;
        Ok(Self { socket, sandbox: self.sandbox.clone(), version: self.version })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn lost(sandbox: &str, why: &str) -> Error {
    Error::Monitor { sandbox: sandbox.into(), why: why.into() }
}
