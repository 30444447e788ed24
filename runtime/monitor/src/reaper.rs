//! Children that have ended: whose they were, and what follows.

use crate::connection::Role;
use crate::container::{Container, Phase};
use crate::launch::Launch;
use crate::server::Server;
use crate::session::Session;
use crate::sys::{file, process};
use std::os::fd::AsFd;

impl Server {
    /// Takes every child that has ended. One that is nobody's is an orphan that came to this subreaper, unless a launch
    /// still waits for the pid of its second process: that may be the one. Only processes that are known are reaped
    /// then, so that a pid stays that process's own until the launch has heard of it.
    pub(crate) fn reap(&mut self) {
        let mut information = [0; 128];
        while file::read(self.process.signals.as_fd(), &mut information).is_ok_and(|length| length > 0) {}
        self.deferred = self.awaits_pid();
        if self.deferred {
            for pid in self.pids() {
                if let Ok(Some((pid, status))) = process::wait_if_ended(pid) {
                    self.reaped(pid, status);
                }
            }
            return;
        }
        while let Ok(Some((pid, status))) = process::wait_any() {
            self.reaped(pid, status);
        }
    }

    /// Takes the children that were left while a launch waited for a pid.
    pub(crate) fn reap_deferred(&mut self) {
        if self.deferred && !self.awaits_pid() {
            self.reap();
        }
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.connections.values().filter_map(|connection| match &connection.role {
            Role::Session(session) => Some(&**session),
            Role::Control | Role::Attached { .. } => None,
        })
    }

    fn awaits_pid(&self) -> bool {
        let launches = self.containers.values().filter_map(Container::launch);
        launches.chain(self.sessions().filter_map(Session::launch)).any(Launch::awaits_pid)
    }

    fn pids(&self) -> Vec<i32> {
        let containers = self.containers.values().flat_map(Container::pids);
        containers.chain(self.sessions().flat_map(Session::pids)).collect()
    }

    fn reaped(&mut self, pid: i32, status: i32) {
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            self.reaped_of_container(&id, pid, status);
        }
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if let Role::Session(session) = &mut connection.role {
                let replies = session.reaped(pid, status);
                self.tell_session(id, replies);
            }
        }
    }

    fn reaped_of_container(&mut self, id: &str, pid: i32, status: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Phase::Launching { launch, .. } = &mut container.phase {
            let progress = launch.reaped(pid);
            self.advance(id, progress);
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        match &mut container.phase {
            Phase::Failing(failing) => {
                failing.pids.retain(|waited| *waited != pid);
                self.finish_failing(id);
            }
            Phase::Running if container.pid == pid => self.ended(id, status),
            Phase::Launching { .. } | Phase::Running | Phase::Draining { .. } | Phase::Exited(_) => {}
        }
    }
}
