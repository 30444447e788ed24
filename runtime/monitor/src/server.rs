//! The event loop: polls all descriptors of the monitor and handles one event at a time, on a single thread that
//! blocks nowhere else.

mod requests;
mod start;

use crate::connection::{Connection, Role};
use crate::container::{Container, Phase};
use crate::log::Stream;
use crate::session::Stage;
use crate::setup::{Pod, Process};
use crate::stdio::Read;
use crate::sys::{Result, memory, process, signal, socket};
use slipway_monitor::protocol::PACKET;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most connections at once.
const CLIENTS: usize = 512;
/// How long a monitor without a pod waits for its daemon, in nanoseconds.
const PATIENCE: i64 = 60_000_000_000;

/// Idle time, in milliseconds, after which free memory is returned to the kernel.
const QUIET: i32 = 1000;

/// The subject of a poll entry.
#[derive(Debug, Clone)]
enum Source {
    Listener,
    Signals,
    Connection(u64),
    SessionLaunch(u64),
    Launch(String),
    Output(String, Stream),
    Input(String),
}

/// The state of a monitor.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) pod: Option<Pod>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) containers: BTreeMap<String, Container>,
    /// The receive buffer; freed when idle, and allocated again when it is needed.
    pub(crate) buffer: Vec<u8>,
    next: u64,
    born: i64,
    /// Descriptors kept open for the daemon, by name.
    held: BTreeMap<String, Vec<OwnedFd>>,
    /// Whether an event was handled since memory was last returned to the kernel.
    pub(crate) used: bool,
    /// Whether children that have ended are left until a launch knows its second process (`reaper.rs`).
    pub(crate) deferred: bool,
    /// The latest time of the shutdown, in nanoseconds since boot, even if clients have not read everything.
    shutdown: Option<i64>,
}

/// Nanoseconds since the epoch.
pub(crate) fn real_time() -> i64 {
    process::clock(libc::CLOCK_REALTIME)
}

/// Nanoseconds since boot, time in suspend included.
pub(crate) fn boot_time() -> i64 {
    process::clock(libc::CLOCK_BOOTTIME)
}

impl Server {
    /// A monitor that has no pod yet.
    pub(crate) fn new(process: Process) -> Self {
        Self {
            process,
            pod: None,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            buffer: Vec::new(),
            next: 0,
            born: boot_time(),
            held: BTreeMap::new(),
            used: true,
            deferred: false,
            shutdown: None,
        }
    }

    /// Serves until the shutdown or, while it has no pod, until its daemon is gone.
    pub(crate) fn serve(&mut self) -> Result<()> {
        while !self.is_over() {
            let (sources, mut entries) = self.entries();
            if signal::poll(&mut entries, self.wait())? == 0 && self.used {
                self.used = false;
                self.buffer = Vec::new();
                memory::trim();
            }
            for (source, entry) in sources.into_iter().zip(&entries) {
                if entry.revents != 0 {
                    self.turn(source, entry.revents);
                }
            }
            self.expire();
            self.sweep();
            self.reap_deferred();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let unheard = self.connections.values().all(|connection| !connection.is_blocked());
        let deserted = self.pod.is_none()
            && self.connections.is_empty()
            && (self.next > 0 || boot_time() > self.born.saturating_add(PATIENCE));
        let shut = self.shutdown.is_some_and(|latest| unheard || boot_time() >= latest);
        shut || deserted
    }

    /// The poll entries, each with its subject.
    fn entries(&self) -> (Vec<Source>, Vec<libc::pollfd>) {
        let (mut sources, mut entries) = (Vec::new(), Vec::new());
        let mut add = |source, file: BorrowedFd<'_>, events| {
            sources.push(source);
            entries.push(libc::pollfd { fd: file.as_raw_fd(), events, revents: 0 });
        };
        for (id, container) in &self.containers {
            if let Phase::Launching { launch, .. } = &container.phase {
                add(Source::Launch(id.clone()), launch.channel(), libc::POLLIN);
            }
            for (stream, file) in container.streams.outputs() {
                add(Source::Output(id.clone(), stream), file, libc::POLLIN);
            }
            if let Some(file) = container.streams.blocked_input() {
                add(Source::Input(id.clone()), file, libc::POLLOUT);
            }
        }
        for (id, connection) in &self.connections {
            let mut events = if self.takes_packets(connection) { libc::POLLIN } else { 0 };
            if connection.is_blocked() {
                events |= libc::POLLOUT;
            }
            add(Source::Connection(*id), connection.socket(), events);
            if let Role::Session(session) = &connection.role
                && let Stage::Launching(launch) = &session.stage
            {
                add(Source::SessionLaunch(*id), launch.channel(), libc::POLLIN);
            }
        }
        add(Source::Signals, self.process.signals.as_fd(), libc::POLLIN);
        add(Source::Listener, self.process.listener.as_fd(), libc::POLLIN);
        (sources, entries)
    }

    /// Milliseconds until the next deadline, or -1.
    fn wait(&self) -> i32 {
        let containers = self.containers.values().filter_map(Container::due);
        let sessions = self.connections.values().filter_map(|connection| match &connection.role {
            Role::Session(session) => session.deadline.filter(|_| !session.timed_out),
            Role::Control | Role::Attached { .. } => None,
        });
        let birth = (self.pod.is_none()).then(|| self.born.saturating_add(PATIENCE));
        let quiet = if self.used { QUIET } else { i32::MAX };
        let Some(next) = containers.chain(sessions).chain(birth).chain(self.shutdown).min() else {
            return if self.used { quiet } else { -1 };
        };
        let rest = next.saturating_sub(boot_time()).max(0);
        // Rounded up, so that the time has come when the poll returns.
        i32::try_from(rest.saturating_add(999_999) / 1_000_000).unwrap_or(i32::MAX).min(quiet)
    }

    fn turn(&mut self, source: Source, events: i16) {
        self.used = true;
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Connection(id) => self.connection_turn(id, events),
            Source::SessionLaunch(id) => self.advance_session(id),
            Source::Launch(id) => self.advance_launch(&id),
            Source::Output(id, stream) => {
                if self.pump(&id, stream) == Read::End {
                    self.streams_ended(&id);
                }
            }
            Source::Input(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.streams.flush_input();
                }
            }
        }
    }

    fn streams_ended(&mut self, id: &str) {
        let draining = self
            .containers
            .get(id)
            .is_some_and(|container| matches!(container.phase, Phase::Draining { .. }));
        if draining {
            self.finish_if_drained(id);
        }
    }

    fn accept(&mut self) {
        while let Ok(socket) = socket::accept(self.process.listener.as_fd()) {
            // A second check: the mode of the socket's directory keeps other users out already.
            let trusted = socket::peer_uid(socket.as_fd()).is_ok_and(|uid| uid == 0);
            if trusted && self.connections.len() < CLIENTS {
                self.connections.insert(self.next, Connection::new(socket));
                self.next += 1;
            }
        }
    }

    fn connection_turn(&mut self, id: u64, events: i16) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if events & libc::POLLOUT != 0 {
            connection.flush();
        }
        if events & libc::POLLIN != 0 {
            self.receive(id);
        } else if events & (libc::POLLHUP | libc::POLLERR) != 0 {
            connection.cut = true;
        }
    }

    fn receive(&mut self, id: u64) {
        self.buffer.resize(PACKET, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = match self.connections.get_mut(&id) {
            Some(connection) => connection.receive(&mut buffer),
            None => Ok(None),
        };
        let packet = match received {
            Ok(Some(length)) if length > 0 => buffer.get(..length).map(<[u8]>::to_vec),
            Ok(None) => Some(Vec::new()),
            _ => None,
        };
        self.buffer = buffer;
        match packet {
            Some(packet) if packet.is_empty() => {}
            Some(packet) => self.request(id, &packet),
            None => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.cut = true;
                }
            }
        }
    }

    /// Handles the deadlines that have passed.
    fn expire(&mut self) {
        let now = boot_time();
        let due = |container: &Container| container.due().is_some_and(|due| due <= now);
        let ids: Vec<_> = self
            .containers
            .iter()
            .filter(|(_, container)| due(container))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.expire_container(&id);
        }
        for connection in self.connections.values_mut() {
            let Role::Session(session) = &mut connection.role else { continue };
            if matches!(session.stage, Stage::Running)
                && !session.timed_out
                && session.deadline.is_some_and(|deadline| deadline <= now)
            {
                session.timed_out = true;
                session.kill();
            }
        }
    }

    /// Removes closed connections and ends their sessions, attachments and launches.
    fn sweep(&mut self) {
        let over: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.cut).map(|(id, _)| *id).collect();
        for id in over {
            match self.connections.remove(&id).map(|connection| connection.role) {
                Some(Role::Session(session)) => session.abandon(),
                Some(Role::Attached { container, streams }) => self.detach(&container, streams),
                Some(Role::Control) | None => {}
            }
            self.abandon_launches(id);
        }
    }
}
