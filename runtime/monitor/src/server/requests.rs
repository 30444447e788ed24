//! The meaning of each request.

use super::{Server, boot_time};
use crate::attach;
use crate::connection::Role;
use crate::container::{Container, Phase, is_valid_id};
use crate::namespaces;
use crate::setup::{self, Pod};
use slipway_monitor::message::Message;
use slipway_monitor::protocol::{Reply, Request, VERSION, agreed};
use slipway_monitor::wire::List;
use std::os::fd::OwnedFd;

/// The most descriptors that are kept for the daemon.
const HELD: usize = 4096;
/// How long clients have to read what was told before the shutdown.
const LAST_WORDS: i64 = 1_000_000_000;

fn refused(why: impl Into<String>) -> Reply {
    Reply::Refused { why: why.into() }
}

fn keep(permitted: u64, effective: u64) -> Reply {
    match setup::keep(permitted, effective) {
        Ok(()) => Reply::Done {},
        Err(error) => refused(format!("give up capabilities: {error}")),
    }
}

impl Server {
    /// Serves one packet.
    pub(super) fn request(&mut self, id: u64, packet: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let request = match Request::of_bytes(packet, connection.version) {
            // Descriptors wait for the request that they are for.
            Ok(Request::Descriptors { .. }) => return,
            request => request,
        };
        let descriptors = connection.take_descriptors();
        let reply = match request {
            Ok(request) => self.serve_request(id, request, descriptors),
            Err(error) => Some((refused(error.to_string()), Vec::new())),
        };
        if let (Some((reply, rights)), Some(connection)) = (reply, self.connections.get_mut(&id)) {
            connection.send(&reply, rights);
        }
    }

    /// The answer to a request; none where it comes later or not at all.
    fn serve_request(
        &mut self,
        id: u64,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Option<(Reply, Vec<OwnedFd>)> {
        let becomes_session = matches!(request, Request::Exec { .. } | Request::Attach { .. });
        let role = self.connections.get(&id).map(|connection| &connection.role);
        if becomes_session && !matches!(role, Some(Role::Control)) {
            return Some((refused("the connection has a session already"), Vec::new()));
        }
        let later = |result: Result<(), Reply>| result.err().map(|reply| (reply, Vec::new()));
        let reply = match request {
            Request::Descriptors { .. } => return None,
            Request::Start { start } => return later(self.start(id, &start, descriptors)),
            Request::Exec { container, terminal, deadline_ms } => {
                return later(self.exec(id, (container, terminal, deadline_ms), descriptors));
            }
            Request::Input { bytes } => return later(self.input(id, &bytes)),
            Request::Namespaces { kinds, uids, gids, hostname, sysctls } => {
                let order = namespaces::Order { kinds, uids, gids, hostname, sysctls };
                return Some(self.namespaces(&order));
            }
            Request::Hello { version } => self.hello(id, version),
            Request::Setup { pod } => self.set_up(pod, descriptors),
            Request::Continue { container } => self.go_on(&container),
            Request::Attach { container, streams } => self.attach(id, container, streams),
            Request::Resize { container, width, height } => self.resize(id, &container, (width, height)),
            Request::Stop { container, signal, grace_ms } => self.stop(&container, signal, grace_ms),
            Request::Signal { container, signal } => self.signal(&container, signal),
            Request::ReopenLog { container } => self.reopen_log(&container, descriptors),
            Request::List {} => Reply::Containers {
                containers: List(self.containers.iter().map(|(id, container)| container.known(id)).collect()),
            },
            Request::Watch {} => self.watch(id),
            Request::Forget { container } => self.forget(&container),
            Request::Shutdown {} => self.shut_down(),
            Request::Hold { name } => self.hold(name, descriptors),
            Request::Keep { permitted, effective } => keep(permitted, effective),
        };
        Some((reply, Vec::new()))
    }

    fn hello(&mut self, id: u64, theirs: u16) -> Reply {
        let version = agreed(theirs);
        if let (Some(version), Some(connection)) = (version, self.connections.get_mut(&id)) {
            connection.version = version;
        }
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let pod = self.pod.as_ref().map(|pod| pod.id.clone()).unwrap_or_default();
        Reply::Hello { version: version.unwrap_or(VERSION), pid, pod }
    }

    fn set_up(&mut self, id: String, descriptors: Vec<OwnedFd>) -> Reply {
        if let Some(pod) = &self.pod {
            return refused(format!("the monitor serves pod {} already", pod.id));
        }
        let mut descriptors = descriptors.into_iter();
        let (Some(state), Some(mounts), network, None) =
            (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
        else {
            return refused("setup takes the state directory, the mount namespace and a network namespace");
        };
        let entered = network.map_or(Ok(()), |network| namespaces::enter_network(&network));
        match entered.and_then(|()| Pod::enter(id, state, &mounts)) {
            Ok(pod) => {
                self.pod = Some(pod);
                Reply::Done {}
            }
            Err(error) => refused(format!("enter the pod's namespaces: {error}")),
        }
    }

    fn namespaces(&self, order: &namespaces::Order) -> (Reply, Vec<OwnedFd>) {
        let Some(pod) = &self.pod else {
            return (refused("the monitor has no pod yet"), Vec::new());
        };
        match namespaces::make(pod, order) {
            Ok(made) => match namespaces::enter(order.kinds, &made) {
                Ok(()) => (Reply::Done {}, made),
                Err(error) => (refused(format!("enter the pod's namespaces: {error}")), Vec::new()),
            },
            Err(reply) => (reply, Vec::new()),
        }
    }

    fn attach(&mut self, id: u64, container: String, streams: u8) -> Reply {
        if !is_valid_id(&container) {
            return refused(format!("{container:?} is no container's id"));
        }
        let ended = self.containers.get(&container).is_some_and(|found| !found.is_alive());
        if ended {
            return refused(format!("container {container} has exited"));
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = Role::Attached { container, streams };
        }
        Reply::Done {}
    }

    fn resize(&self, id: u64, container: &str, (width, height): (u16, u16)) -> Reply {
        if container.is_empty() {
            return match self.connections.get(&id).map(|connection| &connection.role) {
                Some(Role::Session(session)) => session.resize(width, height),
                _ => refused("the connection has no session"),
            };
        }
        let Some(found) = self.containers.get(container) else {
            return refused(format!("container {container} is not known"));
        };
        match found.streams.resize(width, height) {
            Ok(true) => Reply::Done {},
            Ok(false) => refused(format!("container {container} has no terminal")),
            Err(error) => refused(format!("container {container}: resize: {error}")),
        }
    }

    fn reopen_log(&mut self, container: &str, descriptors: Vec<OwnedFd>) -> Reply {
        let Some(found) = self.containers.get_mut(container).filter(|found| found.is_alive()) else {
            return refused(format!("container {container} is not running"));
        };
        let Ok([file]) = <[OwnedFd; 1]>::try_from(descriptors) else {
            return refused("a log is reopened with one descriptor");
        };
        found.log.reopen(file);
        Reply::Done {}
    }

    fn watch(&mut self, id: u64) -> Reply {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.watching = true;
        }
        Reply::Done {}
    }

    fn forget(&mut self, container: &str) -> Reply {
        match self.containers.get(container).map(|found| &found.phase) {
            Some(Phase::Exited(_)) => {
                self.containers.remove(container);
                Reply::Done {}
            }
            Some(_) => refused(format!("container {container} has not exited")),
            None => {
                attach::dismiss(&mut self.connections, container);
                Reply::Done {}
            }
        }
    }

    fn hold(&mut self, name: String, descriptors: Vec<OwnedFd>) -> Reply {
        self.held.remove(&name);
        let kept: usize = self.held.values().map(Vec::len).sum();
        if kept.saturating_add(descriptors.len()) > HELD {
            return refused(format!("hold {name}: the monitor keeps at most {HELD} descriptors"));
        }
        if !descriptors.is_empty() {
            self.held.insert(name, descriptors);
        }
        Reply::Done {}
    }

    fn shut_down(&mut self) -> Reply {
        if let Some((id, _)) = self.containers.iter().find(|(_, container)| Container::is_alive(container)) {
            return refused(format!("container {id} has not exited"));
        }
        self.shutdown = Some(boot_time().saturating_add(LAST_WORDS));
        Reply::Done {}
    }
}
