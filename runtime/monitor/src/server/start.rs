//! Starting a container: from the request until its program runs or nothing of it is left.

use super::{Server, real_time};
use crate::cgroup::Cgroup;
use crate::container::{Container, Failing, Phase, is_valid_id};
use crate::launch::prepared::Prepared;
use crate::launch::{Failure, Launch, Order, Progress};
use crate::log::Log;
use crate::stdio::{Ends, Streams};
use crate::sys::process;
use slipway_monitor::protocol::{Reply, Start};
use std::os::fd::{AsFd, OwnedFd};

/// The most containers that a monitor keeps, exited ones included.
const CONTAINERS: usize = 1024;

/// The descriptors of a start, by what they are for.
struct Parts {
    plan: OwnedFd,
    log: Option<OwnedFd>,
    cgroup: Vec<OwnedFd>,
    rest: Vec<OwnedFd>,
}

impl Parts {
    fn of(start: &Start, descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut all = descriptors.into_iter();
        let plan = all.next()?;
        let log = if start.log { Some(all.next()?) } else { None };
        let count = usize::from(start.cgroups);
        let cgroup: Vec<_> = all.by_ref().take(count).collect();
        (cgroup.len() == count).then(|| Self { plan, log, cgroup, rest: all.collect() })
    }
}

impl Server {
    /// Serves `Start`; its answer comes when the exec has succeeded or a step failed.
    pub(super) fn start(&mut self, id: u64, start: &Start, descriptors: Vec<OwnedFd>) -> Result<(), Reply> {
        let refused = |why: String| Reply::Refused { why };
        let pod = self.pod.as_ref().ok_or_else(|| refused("the monitor has no pod yet".into()))?;
        let name = start.container.clone();
        if !is_valid_id(&name) {
            return Err(refused(format!("{name:?} is no container's id")));
        }
        if self.containers.contains_key(&name) {
            return Err(refused(format!("container {name} has been started already")));
        }
        if self.containers.len() >= CONTAINERS {
            return Err(refused(format!("the pod has {CONTAINERS} containers; forget exited ones")));
        }
        let missing = || refused("descriptors of the plan, the log or the cgroup are missing".into());
        let parts = Parts::of(start, descriptors).ok_or_else(missing)?;
        let prepared =
            Prepared::read(parts.plan.as_fd(), parts.rest.len(), start.terminal).map_err(refused)?;
        let (streams, ends) =
            streams(start, &prepared).map_err(|error| refused(format!("make pipes: {error}")))?;
        let cgroup = Cgroup::new(parts.cgroup, start.hierarchy);
        let order = Order {
            prepared: &prepared,
            descriptors: &parts.rest,
            streams: ends.as_ref().map(|ends| ends.each_ref().map(AsFd::as_fd)),
            cgroup: &cgroup,
            init: 0,
            proc: pod.proc.as_fd(),
        };
        let launch = Launch::begin(&order).map_err(Failure::reply)?;
        let container = Container {
            phase: Phase::Launching { launch, paused: 0 },
            pid: 0,
            started_at: 0,
            requester: id,
            cgroup,
            streams,
            log: Log::new(parts.log),
            stdin: start.stdin,
            stdin_once: start.stdin_once,
            kill_rest: start.kill_rest,
            deadline: None,
            timed_out: false,
            unfiled: None,
        };
        self.containers.insert(name, container);
        Ok(())
    }

    /// Reads what the child of a container has told.
    pub(super) fn advance_launch(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Phase::Launching { launch, .. } = &mut container.phase {
            let progress = launch.progress();
            self.advance(id, progress);
        }
    }

    /// Follows a launch.
    pub(crate) fn advance(&mut self, id: &str, progress: Progress) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Phase::Launching { launch, paused } = &mut container.phase else { return };
        let mut mount = None;
        let reply = match progress {
            Progress::Waiting => return,
            Progress::AtSyncPoint(point) => {
                *paused = point;
                Reply::AtSyncPoint { container: id.into(), point, pid: launch.pid() }
            }
            Progress::Started => {
                container.pid = launch.pid();
                container.started_at = real_time();
                if let Some(master) = launch.take_terminal()
                    && let Err(error) = container.streams.take_terminal(master, container.stdin)
                {
                    crate::complain(&format!("container {id}: take its terminal: {error}"));
                }
                mount = launch.take_mount();
                container.phase = Phase::Running;
                Reply::Started { pid: container.pid, started_at: container.started_at }
            }
            Progress::Failed(failure) => return self.fail(id, failure.reply()),
        };
        let requester = container.requester;
        self.answer(requester, &reply, mount);
    }

    fn answer(&mut self, requester: u64, reply: &Reply, right: Option<OwnedFd>) {
        if let Some(connection) = self.connections.get_mut(&requester) {
            connection.send(reply, right.into_iter().collect());
        }
    }

    /// Kills what there is of a launch; the answer waits until all of it is reaped.
    fn fail(&mut self, id: &str, reply: Reply) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let failing = Phase::Failing(Failing { pids: Vec::new(), reply });
        let Phase::Launching { launch, .. } = std::mem::replace(&mut container.phase, failing) else {
            return;
        };
        let pids = launch.abort();
        container.cgroup.kill();
        if let Phase::Failing(failing) = &mut container.phase {
            failing.pids = pids;
        }
        self.finish_failing(id);
    }

    /// Forgets a container whose launch failed, once all of it is reaped.
    pub(crate) fn finish_failing(&mut self, id: &str) {
        let Some(Phase::Failing(failing)) = self.containers.get(id).map(|container| &container.phase) else {
            return;
        };
        if !failing.pids.is_empty() {
            return;
        }
        let reply = failing.reply.clone();
        if let Some(container) = self.containers.remove(id) {
            if let Some(pod) = &self.pod {
                pod.remove(&slipway_monitor::exit_file::stop_name(id));
            }
            self.answer(container.requester, &reply, None);
        }
    }

    /// A launch whose connection is gone has nobody to go on for.
    pub(super) fn abandon_launches(&mut self, connection: u64) {
        let launching = |container: &Container| {
            container.requester == connection && matches!(container.phase, Phase::Launching { .. })
        };
        let ids: Vec<_> = self
            .containers
            .iter()
            .filter(|(_, container)| launching(container))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            // It may have passed its exec meanwhile; then it runs, and the next daemon finds it.
            self.advance_launch(&id);
            let why = "the connection that asked for the start is gone".into();
            if self.containers.get(&id).is_some_and(launching) {
                self.fail(&id, Reply::Refused { why });
            }
        }
    }

    /// Serves `Continue`.
    pub(super) fn go_on(&mut self, id: &str) -> Reply {
        let waiting = self.containers.get_mut(id).map(|container| &mut container.phase);
        let Some(Phase::Launching { launch, paused }) = waiting else {
            return Reply::Refused { why: format!("container {id} is not being started") };
        };
        if *paused == 0 {
            return Reply::Refused { why: format!("container {id} waits at no sync point") };
        }
        *paused = 0;
        match launch.go_on() {
            Ok(()) => Reply::Done {},
            Err(error) => {
                let _ = process::kill(launch.pid(), libc::SIGKILL);
                Reply::Refused { why: format!("container {id}: continue: {error}") }
            }
        }
    }
}

/// The monitor's streams and, without a terminal, the child's ends.
fn streams(start: &Start, prepared: &Prepared) -> crate::sys::Result<(Streams, Option<Ends>)> {
    if start.terminal {
        return Ok((Streams::default(), None));
    }
    let (streams, ends) = Streams::pipes(start.stdin, prepared.joins_user_namespace())?;
    Ok((streams, Some(ends)))
}
