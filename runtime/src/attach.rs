//! Sessions of clients that follow a container's streams.

use crate::monitor_client::Connection;
use crate::pod::{Container, EndRecord};
use crate::runtime::Shared;
use crate::{ContainerId, ContainerState, Error, Result};
use rustix::net::{Shutdown, shutdown};
use slipway_monitor::protocol::{PACKET, Reply, Request, stream};
use std::sync::Arc;
use std::time::Duration;

/// A client's view of a container's streams; dropping it detaches.
#[derive(Debug)]
pub struct AttachSession {
    connection: Connection,
    /// A connection of its own: the connection that carries output is cut when its reader is too slow.
    input: Option<AttachInput>,
    container: Arc<Container>,
}

/// The writing side of an attached client; dropping it is the end of the client's input.
#[derive(Debug)]
pub struct AttachInput {
    connection: Connection,
}

/// Ends a session while another thread waits for its next event or its end.
#[derive(Debug)]
pub struct AttachEnd {
    pub(crate) connection: Connection,
}

/// An event that an attached client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachEvent {
    /// Bytes of standard output (also a terminal's).
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// The container has ended with this code; nothing follows.
    Exited(i32),
}

impl AttachSession {
    /// Waits for the next event; none when the session is over before the container's end was told: its reader is too
    /// slow, the container is removed, the monitor is lost, or [`AttachEnd::end`] was called.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn next_event(&mut self) -> Result<Option<AttachEvent>> {
        while let Some(answer) = self.connection.receive(None)? {
            match answer.reply {
                Reply::Output { stream: stream::STDERR, bytes } => {
                    return Ok(Some(AttachEvent::Stderr(bytes)));
                }
                Reply::Output { bytes, .. } => return Ok(Some(AttachEvent::Stdout(bytes))),
                Reply::Exited { exit, .. } => {
                    return Ok(Some(AttachEvent::Exited(EndRecord::seen(&exit).code)));
                }
                Reply::Refused { .. } => return Err(self.connection.unexpected(&answer.reply)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Takes the writing side of standard input, if it was asked for and not taken before; it outlives the session.
    pub fn take_input(&mut self) -> Option<AttachInput> {
        self.input.take()
    }

    /// Returns a handle that ends the session from another thread.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn ender(&self) -> Result<AttachEnd> {
        Ok(AttachEnd { connection: self.connection.duplicate()? })
    }

    /// Waits for the container's end, which is known also once the container has been removed; none when it has not
    /// ended after `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<ContainerState> {
        self.container.wait(timeout)
    }

    /// How many writes to the container's log were lost, once it has ended; none when that is not known.
    #[must_use]
    pub fn log_writes_dropped(&self) -> Option<u64> {
        self.container.log_writes_dropped.get().copied()
    }
}

impl AttachEnd {
    /// Ends the session: its next event is none.
    pub fn end(&self) {
        // A connection that is gone has ended.
        let _ = shutdown(&self.connection, Shutdown::Both);
    }
}

impl AttachInput {
    /// Sends bytes to the container's standard input, waiting while the container does not read.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(PACKET - 16) {
            self.connection.send(&Request::Input { bytes: chunk.to_vec() }, &[])?;
        }
        Ok(())
    }

    /// Ends the container's standard input, as far as this client may.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn close(&self) -> Result<()> {
        self.connection.send(&Request::Input { bytes: Vec::new() }, &[])
    }

    /// Gives up what the container has not taken: a write that waits fails, and so do those to come.
    pub fn abandon(&self) {
        // A connection that is gone has no input.
        let _ = shutdown(&self.connection, Shutdown::Both);
    }
}

impl Shared {
    pub(crate) fn attach(&self, id: &ContainerId, stdin: bool) -> Result<AttachSession> {
        let (container, pod) = self.adopted(id)?;
        let open = |streams| {
            let connection = self.connect(&pod)?;
            connection.order(&Request::Attach { container: id.to_string(), streams }, &[])?;
            Ok::<_, Error>(connection)
        };
        let connection = open(stream::STDOUT | stream::STDERR)?;
        let input = if stdin { Some(AttachInput { connection: open(stream::STDIN)? }) } else { None };
        if let Some(input) = &input {
            // A container may take any time to read its input, so that these sends have no timeout.
            input.connection.send_patiently()?;
        }
        Ok(AttachSession { connection, input, container })
    }
}
