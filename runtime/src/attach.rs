//! Following a container's streams.

use crate::Result;
use std::os::fd::OwnedFd;

/// A client's view of a container's streams; dropping it detaches.
#[derive(Debug)]
pub struct AttachSession {
    connection: OwnedFd,
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
        let _ = &self.connection;
        Ok(None)
    }
}
