//! Following a container's streams.

use crate::monitor_client::Connection;
use crate::pod::EndRecord;
use crate::runtime::Shared;
use crate::{ContainerId, Result};
use slipway_monitor::protocol::{PACKET, Reply, Request, stream};

/// A client's view of a container's streams; dropping it and its inputs detaches.
#[derive(Debug)]
pub struct AttachSession {
    connection: Connection,
}

/// The writing side of an attached client.
#[derive(Debug)]
pub struct AttachInput {
    connection: Connection,
}

/// What an attached client hears.
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
    /// Waits for the next event; none when the monitor has cut the session (a reader too slow).
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

    /// A handle to write standard input with, from any thread.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn input(&self) -> Result<AttachInput> {
        Ok(AttachInput { connection: self.connection.duplicate()? })
    }
}

impl AttachInput {
    /// Sends bytes to the container's standard input.
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
}

impl Shared {
    pub(crate) fn attach(&self, id: &ContainerId, stdin: bool) -> Result<AttachSession> {
        let container = self.container(id)?;
        let pod = self.pod(&container.record.request.sandbox)?;
        let connection = self.connect(&pod)?;
        let input = if stdin { stream::STDIN } else { 0 };
        let streams = stream::STDOUT | stream::STDERR | input;
        connection.order(&Request::Attach { container: id.to_string(), streams }, &[])?;
        Ok(AttachSession { connection })
    }
}
