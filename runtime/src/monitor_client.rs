//! The daemon's side of a monitor's socket: requests with a deadline, descriptors in batches.

use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg,
    sendmsg, socket_with,
};
use slipway_monitor::protocol::{BATCH, PACKET, Reply, Request, VERSION};
use slipway_monitor::wire::Wire;
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
}

/// A reply and the descriptors that came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The address of a pod's socket, short however deep the state directory lies.
fn address(directory: &Path) -> Result<(SocketAddrUnix, OwnedFd)> {
    let failed = |errno: Errno| Error::Io { action: "open", path: directory.into(), source: errno.into() };
    let opened = openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    Ok((SocketAddrUnix::new(path).map_err(failed)?, opened))
}

fn open_socket() -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::Kernel { call: "socket".into(), source: errno.into() })
}

/// Binds the socket that a monitor will serve.
pub(crate) fn listener(directory: &Path) -> Result<OwnedFd> {
    let (address, _directory) = address(directory)?;
    let _ = std::fs::remove_file(directory.join(SOCKET));
    let socket = open_socket()?;
    let failed =
        |errno: Errno| Error::Io { action: "bind", path: directory.join(SOCKET), source: errno.into() };
    bind(&socket, &address).map_err(failed)?;
    listen(&socket, 128).map_err(failed)?;
    Ok(socket)
}

impl Connection {
    /// Connects to a pod's monitor and agrees on the version; gives the monitor's pid too.
    pub(crate) fn open(sandbox: &str, directory: &Path) -> Result<(Self, i32)> {
        let (address, _directory) = address(directory)?;
        let socket = open_socket()?;
        connect(&socket, &address).map_err(|errno| lost(sandbox, &format!("connect: {errno}")))?;
        let connection = Self { socket, sandbox: sandbox.into() };
        let answer = connection.request(&Request::Hello { version: VERSION }, &[], PROMPT)?;
        match answer.reply {
            Reply::Hello { version, pid, .. } if [VERSION - 1, VERSION].contains(&version) => {
                Ok((connection, pid))
            }
            Reply::Hello { version, .. } => Err(lost(sandbox, &format!("it speaks version {version}"))),
            other => Err(connection.unexpected(&other)),
        }
    }

    /// Sends descriptors and a request, and waits for its one answer.
    pub(crate) fn request(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Answer> {
        self.send(request, descriptors)?;
        self.receive(Some(deadline))?.ok_or_else(|| lost(&self.sandbox, "it hung up"))
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
            self.packet(&Request::Descriptors { count }, batch)?;
        }
        self.packet(request, &[])
    }

    fn packet(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = request.encode();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(lost(&self.sandbox, "too many descriptors for one packet"));
        }
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(lost(&self.sandbox, &format!("send: {errno}"))),
            }
        }
    }

    /// Waits for the next reply; none at the end of the connection.
    pub(crate) fn receive(&self, deadline: Option<Duration>) -> Result<Option<Answer>> {
        if let Some(deadline) = deadline
            && !self.wait_readable(deadline)?
        {
            return Err(lost(&self.sandbox, &format!("no answer in {} s", deadline.as_secs())));
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
                Err(errno) => return Err(lost(&self.sandbox, &format!("receive: {errno}"))),
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
        let reply = Reply::decode(bytes.get(..received).unwrap_or_default())
            .map_err(|malformed| lost(&self.sandbox, &malformed.to_string()))?;
        Ok(Some(Answer { reply, descriptors }))
    }

    /// Whether something can be received before the deadline.
    pub(crate) fn wait_readable(&self, deadline: Duration) -> Result<bool> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(lost(&self.sandbox, &format!("poll: {errno}"))),
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

    /// A further handle on the same connection.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let socket = self
            .socket
            .try_clone()
            .map_err(|source| Error::Kernel { call: "duplicate a socket".into(), source })?;
        Ok(Self { socket, sandbox: self.sandbox.clone() })
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
