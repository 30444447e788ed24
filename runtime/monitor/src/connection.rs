//! One connection of a client: its packets in, its bounded queue out, and its role.

use crate::session::Session;
use crate::sys::{Error, Result, socket};
use slipway_monitor::message::Message;
use slipway_monitor::protocol::{DESCRIPTORS, OLDEST, Reply};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most bytes that wait for a client; one that is slower is cut.
const QUEUE: usize = 1 << 20;

/// The use of a connection.
#[derive(Debug)]
pub(crate) enum Role {
    /// Requests, each answered.
    Control,
    /// Follows a container's streams.
    Attached {
        /// Which container.
        container: String,
        /// Bits of [`slipway_monitor::protocol::stream`].
        streams: u8,
    },
    /// Runs a process.
    Session(Box<Session>),
}

/// A packet that waits.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    rights: Vec<OwnedFd>,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    queue: VecDeque<Waiting>,
    queued: usize,
    descriptors: Vec<OwnedFd>,
    /// The version of the protocol that was agreed on.
    pub(crate) version: u16,
    /// Its use.
    pub(crate) role: Role,
    /// Whether it is told of every exit.
    pub(crate) watching: bool,
    /// Whether it is over.
    pub(crate) cut: bool,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
            queued: 0,
            descriptors: Vec::new(),
            version: OLDEST,
            role: Role::Control,
            watching: false,
            cut: false,
        }
    }

    /// The socket, for polling.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether packets wait for room.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends a reply, or keeps it until there is room; too much of it cuts the connection.
    pub(crate) fn send(&mut self, reply: &Reply, rights: Vec<OwnedFd>) {
        let bytes = reply.to_bytes(self.version);
        self.queued += bytes.len();
        if self.queued > QUEUE {
            self.cut = true;
            return;
        }
        self.queue.push_back(Waiting { bytes, rights });
        self.flush();
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some(first) = self.queue.front() {
            let rights: Vec<_> = first.rights.iter().map(AsFd::as_fd).collect();
            match socket::send(self.socket.as_fd(), &first.bytes, &rights, libc::MSG_DONTWAIT) {
                Ok(()) => {
                    self.queued = self.queued.saturating_sub(first.bytes.len());
                    self.queue.pop_front();
                }
                Err(error) if matches!(error.errno, libc::EAGAIN | libc::ENOBUFS) => return,
                Err(_) => {
                    self.cut = true;
                    return;
                }
            }
        }
    }

    /// Receives one packet into the buffer: its length, none when there is none, 0 at the end.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match socket::receive(self.socket.as_fd(), buffer, libc::MSG_DONTWAIT) {
            Ok(packet) => {
                self.descriptors.extend(packet.descriptors);
                if packet.truncated || self.descriptors.len() > DESCRIPTORS {
                    return Err(Error { call: "recvmsg: packet too large", errno: libc::EMSGSIZE });
                }
                Ok(Some(packet.length))
            }
            Err(error) if error.errno == libc::EAGAIN => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The descriptors that came ahead of the present request.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }
}
