//! Clients that follow a container's streams: each has a bounded queue of its own, and one that does not keep up is cut.

use crate::connection::{Connection, Role};
use crate::log::Stream;
use crate::server::Server;
use slipway_monitor::protocol::{Exit, NEVER_RAN, Reply, stream};
use std::collections::BTreeMap;

/// Copies output to every client that asked for it.
pub(crate) fn copy(connections: &mut BTreeMap<u64, Connection>, container: &str, from: Stream, bytes: &[u8]) {
    let bit = match from {
        Stream::Out => stream::STDOUT,
        Stream::Error => stream::STDERR,
    };
    for connection in connections.values_mut() {
        let wants = matches!(
            &connection.role,
            Role::Attached { container: its, streams } if its == container && streams & bit != 0
        );
        if wants && !connection.cut {
            // A packet holds its head besides the bytes.
            for part in bytes.chunks(32 * 1024) {
                connection.send(&Reply::Output { stream: bit, bytes: part.to_vec() }, Vec::new());
            }
        }
    }
}

/// Tells every client of a container that never ran that it never will.
pub(crate) fn dismiss(connections: &mut BTreeMap<u64, Connection>, container: &str) {
    let exit =
        Exit { wait_status: NEVER_RAN << 8, oom_kills: 0, started_at: 0, finished_at: 0, timed_out: false };
    let told = Reply::Exited { container: container.into(), exit };
    for connection in connections.values_mut() {
        if matches!(&connection.role, Role::Attached { container: its, .. } if its == container) {
            connection.send(&told, Vec::new());
        }
    }
}

impl Server {
    /// Whether a connection's next packet can be taken: one that may carry input waits until the container can.
    pub(crate) fn takes_packets(&self, connection: &Connection) -> bool {
        match &connection.role {
            Role::Attached { container, streams } if streams & stream::STDIN != 0 => {
                self.containers.get(container).is_some_and(|container| container.streams.takes_input())
            }
            Role::Control | Role::Attached { .. } | Role::Session(_) => true,
        }
    }

    /// Serves `Input`.
    pub(crate) fn input(&mut self, id: u64, bytes: &[u8]) -> Result<(), Reply> {
        let attached = match self.connections.get(&id).map(|connection| &connection.role) {
            Some(Role::Attached { container, streams }) if streams & stream::STDIN != 0 => container,
            _ => {
                return Err(Reply::Refused {
                    why: "input of a connection that is not attached to it".into(),
                });
            }
        };
        let Some(container) = self.containers.get_mut(attached) else { return Ok(()) };
        if !bytes.is_empty() {
            container.streams.give(bytes);
        } else if container.stdin_once {
            container.streams.end_input();
        }
        Ok(())
    }

    /// The end of an attached client is the end of its input.
    pub(crate) fn detach(&mut self, container: &str, streams: u8) {
        let Some(container) = self.containers.get_mut(container) else { return };
        if streams & stream::STDIN != 0 && container.stdin_once {
            container.streams.end_input();
        }
    }
}
