//! Stops: a signal now, and the end of the whole cgroup at a deadline, whoever lives to see it.

use crate::container::Phase;
use crate::server::{Server, boot_time};
use crate::sys::process;
use slipway_monitor::exit_file;
use slipway_monitor::protocol::Reply;

const MILLISECOND: i64 = 1_000_000;
/// After a kill, when to kill again what is still there.
const AGAIN: i64 = 50 * MILLISECOND;

impl Server {
    /// Serves `Stop`: the deadline is on disk before the signal, the signal sent before the answer.
    pub(crate) fn stop(&mut self, id: &str, signal: i32, grace_ms: u64) -> Reply {
        let Some(container) = self.containers.get_mut(id) else {
            return Reply::Refused { why: format!("container {id} is not known") };
        };
        if !matches!(container.phase, Phase::Running | Phase::Launching { .. }) {
            return Reply::Done {};
        }
        let grace = i64::try_from(grace_ms).unwrap_or(i64::MAX).saturating_mul(MILLISECOND);
        let asked = boot_time().saturating_add(grace);
        let deadline = container.deadline.map_or(asked, |earlier| earlier.min(asked));
        container.deadline = Some(deadline);
        if let Some(pod) = &self.pod {
            let text = format!("deadline={deadline}\nsignal={signal}\n");
            if let Err(error) = pod.write(&exit_file::stop_name(id), &text) {
                crate::complain(&format!("container {id}: keep its deadline: {error}"));
            }
        }
        if container.is_running() && grace_ms > 0 {
            let _ = process::kill(container.pid, signal);
        }
        if grace_ms == 0 {
            self.expire_container(id);
        }
        Reply::Done {}
    }

    /// Serves `Signal`.
    pub(crate) fn signal(&self, id: &str, signal: i32) -> Reply {
        let Some(container) = self.containers.get(id).filter(|container| container.is_running()) else {
            return Reply::Refused { why: format!("container {id} is not running") };
        };
        match process::kill(container.pid, signal) {
            Ok(()) => Reply::Done {},
            Err(error) => Reply::Refused { why: format!("container {id}: signal {signal}: {error}") },
        }
    }

    /// Does what a container's time has come for.
    pub(crate) fn expire_container(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        match &mut container.phase {
            Phase::Running | Phase::Launching { .. } => {
                container.timed_out = true;
                container.deadline = Some(boot_time().saturating_add(AGAIN));
                let pid = match &container.phase {
                    Phase::Launching { launch, .. } => launch.pid(),
                    _ => container.pid,
                };
                if pid > 0 {
                    let _ = process::kill(pid, libc::SIGKILL);
                }
                container.cgroup.kill();
            }
            Phase::Draining { .. } => self.finish_if_drained(id),
            Phase::Exited(_) => self.file_exit(id),
            Phase::Failing(_) => {}
        }
    }
}
