//! Children that have ended: whose they were, and what follows.

use crate::connection::Role;
use crate::container::Phase;
use crate::server::Server;
use crate::sys::{file, process};
use std::os::fd::AsFd;

impl Server {
    /// Takes every child that has ended. One that is nobody's is an orphan that came to this subreaper.
    pub(crate) fn reap(&mut self) {
        let mut information = [0; 128];
        while file::read(self.process.signals.as_fd(), &mut information).is_ok_and(|length| length > 0) {}
        while let Ok(Some((pid, status))) = process::wait_any() {
            self.reaped(pid, status);
        }
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
        if let Phase::Launching { launch, .. } = &mut container.phase
            && launch.reaped(pid)
        {
            let progress = launch.after_reaping();
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
