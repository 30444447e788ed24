//! Creating, stopping and removing a container, and hearing of its end.

use super::{ContainerRequest, ContainerState, unmonitored};
use crate::bundle::ContainerSpec;
use crate::capabilities::{Capabilities, CapabilitySet};
use crate::life::{LifeEvent, PodState};
use crate::link::Contact;
use crate::pod::{Container, ContainerRecord, EndRecord, FoundLife, Pod, lock, now};
use crate::runtime::Shared;
use crate::state::Place;
use crate::{
    ContainerEvent, ContainerId, Error, Result, SandboxConfig, SandboxId, cgroup, launch, recovery, state,
};
use rustix::process::Signal;
use slipway_monitor::exit_file;
use slipway_monitor::protocol::Request;
use std::borrow::Borrow;
use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much later than its deadline a stop may be known.
const SLACK: Duration = Duration::from_secs(10);
/// How long processes may take to die of SIGKILL: the kernel may hold them in a system call.
const KILL: Duration = Duration::from_secs(10);
/// How long the ends of killed containers may take to be told.
const DRAIN: Duration = Duration::from_secs(2);

impl Shared {
    pub(crate) fn create_container(&self, request: ContainerRequest) -> Result<()> {
        let pod = self.pod(&request.sandbox)?;
        self.await_adoption(&pod)?;
        if pod.state() != PodState::Ready {
            let (kind, id) = ("sandbox", request.sandbox.to_string());
            return Err(Error::WrongState { kind, id, state: "not ready", action: "create a container in" });
        }
        if request.owner != pod.record().config.owner {
            let (id, sandbox) = (&request.id, &request.sandbox);
            return Err(Error::Invalid(format!(
                "container {id} has another owner than its sandbox {sandbox}"
            )));
        }
        if let Some(resources) = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) {
            cgroup::check(resources, self.cgroups.unified())?;
        }
        check_capabilities(&pod.record().config, &request)?;
        let id = request.id.clone();
        let place = Place::container(&self.config, id.as_str());
        let record = ContainerRecord { request, created_at: now(), damage: None };
        let life = FoundLife::new(record.created_at);
        let container = Arc::new(Container::new(place, record, life));
        // A request that can't be met is refused now, not at the start.
        drop(ContainerSpec::of(self, &pod, &container, None)?);
        {
            let mut containers = lock(&self.containers);
            if containers.contains_key(&id) {
                return Err(Error::InUse(format!("container {id} exists already")));
            }
            containers.insert(id.clone(), Arc::clone(&container));
        }
        let written = state::make_directory(&container.directory)
            .and_then(|()| Ok(container.place.record().write(&container.record)?));
        if written.is_err() {
            let _ = container.place.remove();
            lock(&self.containers).remove(&id);
        }
        written
    }

    pub(crate) fn stop_container(&self, id: &ContainerId, signal: i32, grace: Duration) -> Result<()> {
        let container = self.container(id)?;
        if !matches!(container.state(), ContainerState::Running { .. }) {
            return Ok(());
        }
        let Some(pod) = self.find_pod(&container.record.request.sandbox) else {
            return self.stop_without_pod(&container);
        };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { container: id.to_string(), signal, grace_ms };
        // A monitor that is known not to answer is not waited for again: there is another way.
        let connection = if pod.link.is_silent() { self.connect_now(&pod) } else { self.connect(&pod) };
        match connection.and_then(|connection| connection.order(&request, &[])) {
            Ok(()) => {
                if container.wait(grace.saturating_add(SLACK)).is_some() {
                    return Ok(());
                }
            }
            // It has meanwhile been found to have ended, or never to have run.
            Err(_) if !matches!(container.state(), ContainerState::Running { .. }) => return Ok(()),
            Err(error) => {
                tracing::warn!(container = %id, %error, "it is stopped without its monitor");
                unmonitored::signal(self, &pod, &container, signal, grace)?;
            }
        }
        self.kill_container(&pod, &container)?;
        let patience = if pod.link.is_silent() { Duration::ZERO } else { SLACK };
        if container.wait(patience).is_some() {
            return Ok(());
        }
        Err(Error::Unreachable {
            sandbox: container.record.request.sandbox.to_string(),
            why: format!("container {id} is killed, and only its monitor knows how it has ended"),
        })
    }

    /// A stand-in that no monitor has told of: its cgroup, found by its id, is all that is known.
    fn stop_without_pod(&self, container: &Container) -> Result<()> {
        if let Some(started) = self.start_record(container) {
            started.cgroup.kill(&self.features)?;
        }
        recovery::settle(self, container);
        Ok(())
    }

    pub(crate) fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let (container, pod) = self.adopted(id)?;
        container.pid("signal")?;
        self.connect(&pod)?.order(&Request::Signal { container: id.to_string(), signal }, &[])
    }

    /// Kills whatever is left of a container, and waits a little for its end to be told. Where its monitor does not tell
    /// it, the end is read from the process that the monitor has not reaped.
    pub(crate) fn kill_container(&self, pod: &Pod, container: &Container) -> Result<()> {
        self.kill_containers(pod, std::slice::from_ref(container))
    }

    /// The same for several at once.
    pub(crate) fn kill_containers<C: Borrow<Container>>(&self, pod: &Pod, containers: &[C]) -> Result<()> {
        let mut outcome = Ok(());
        let mut doomed = Vec::new();
        for container in containers.iter().map(Borrow::borrow) {
            if matches!(container.state(), ContainerState::Exited { .. }) {
                continue;
            }
            if let Some(started) = self.start_record(container) {
                doomed.push((container, unmonitored::first(self, pod, container), started));
            }
        }
        let end = Instant::now() + KILL;
        // All are told before any is waited for.
        for (_, _, started) in &doomed {
            let _ = started.cgroup.kill_until(&self.features, Instant::now());
        }
        for (_, _, started) in &doomed {
            outcome = outcome.and(started.cgroup.kill_until(&self.features, end));
        }
        // The monitor tells the ends once the pipes are drained.
        let told = Instant::now() + DRAIN;
        for (container, first, started) in &doomed {
            if container.wait(told.saturating_duration_since(Instant::now())).is_some() {
                continue;
            }
            match first.and_then(|first| unmonitored::end(pod, container, first, started)) {
                Some(end) => self.finish(container, &end),
                None => {
                    tracing::warn!(container = %container.record.request.id, "killed, but its monitor has not told the end");
                }
            }
        }
        outcome
    }

    pub(crate) fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let Some(container) = self.find_container(id) else { return Ok(()) };
        let _operation = lock(&container.operation);
        container.remove_begins();
        if let Some(pod) = self.find_pod(&container.record.request.sandbox) {
            self.kill_container(&pod, &container)?;
        }
        if let Some(started) = self.start_record(&container) {
            started.cgroup.kill(&self.features)?;
            started.cgroup.remove()?;
        }
        if let Some(pod) = self.find_pod(&container.record.request.sandbox) {
            // Nothing is left to be forgotten by a monitor that has ended; one that does not answer keeps a few bytes.
            if matches!(pod.link.contact(), Contact::Answering) {
                let _ = self.forget(&pod, id);
            }
            for name in [exit_file::name(id.as_str()), exit_file::stop_name(id.as_str())] {
                let _ = fs::remove_file(pod.state.join(name));
            }
        }
        // Without its record a directory is garbage, whatever happens next.
        container.place.remove()?;
        lock(&self.containers).remove(id);
        Ok(())
    }

    /// The monitor lets go of what it has of a container: of one that never ran, those who wait for its streams.
    pub(crate) fn forget(&self, pod: &Pod, id: &ContainerId) -> Result<()> {
        self.connect_now(pod)?.order(&Request::Forget { container: id.to_string() }, &[])
    }

    pub(crate) fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        let (container, pod) = self.adopted(id)?;
        container.pid("reopen the log of")?;
        let path = container.record.request.log_path.as_deref();
        let path = path.ok_or_else(|| Error::Invalid(format!("container {id} has no log")))?;
        let log = launch::open_log_in_time(&self.opener, path)?;
        self.connect(&pod)?.order(&Request::ReopenLog { container: id.to_string() }, &[log.as_fd()])
    }

    pub(crate) fn resize(&self, id: &ContainerId, width: u16, height: u16) -> Result<()> {
        let (container, pod) = self.adopted(id)?;
        container.pid("resize the terminal of")?;
        self.connect(&pod)?.order(&Request::Resize { container: id.to_string(), width, height }, &[])
    }

    /// A container's end is known: it is recorded and told. The first end counts, on disk as in memory.
    pub(crate) fn finish(&self, container: &Container, end: &EndRecord) {
        let _ending = lock(&container.ending);
        if matches!(container.state(), ContainerState::Exited { .. }) {
            return;
        }
        if let Err(error) = container.place.write_end(container.run, end)
            && container.directory.exists()
        {
            tracing::warn!(container = %container.record.request.id, %error, "the end of a container can't be recorded");
        }
        if let Some(started) = self.start_record(container)
            && let Err(error) = started.cgroup.remove()
        {
            tracing::debug!(container = %container.record.request.id, %error, "its cgroup stays until it is removed");
        }
        self.count_log_writes_dropped(container);
        // The first end counts.
        if let Ok(Some(state)) = container.happened(LifeEvent::Ended(end.clone())) {
            let ContainerRequest { id, sandbox, .. } = &container.record.request;
            self.tell(&ContainerEvent { container: id.clone(), sandbox: sandbox.clone(), state });
        }
    }

    /// Tells all who subscribed.
    pub(crate) fn tell(&self, event: &ContainerEvent) {
        lock(&self.subscribers).retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    /// Keeps what the exit file says of the log: the file goes with the container, who follows the container may not.
    fn count_log_writes_dropped(&self, container: &Container) {
        let request = &container.record.request;
        let dropped = recovery::exit_text(self, request)
            .and_then(|text| exit_file::log_writes_dropped(request.id.as_str(), &text));
        if let Some(dropped) = dropped {
            // A count that is known stays.
            let _ = container.log_writes_dropped.set(dropped);
        }
    }

    /// A monitor tells an end.
    pub(crate) fn heard(&self, container: &str, end: &EndRecord) {
        let found = ContainerId::new(container).ok().and_then(|id| self.find_container(&id));
        if let Some(container) = found {
            self.finish(&container, end);
        }
    }

    pub(crate) fn find_container(&self, id: &ContainerId) -> Option<Arc<Container>> {
        lock(&self.containers).get(id).cloned()
    }

    pub(crate) fn container(&self, id: &ContainerId) -> Result<Arc<Container>> {
        self.find_container(id).ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })
    }

    /// A container and its sandbox, once what the sandbox's monitor knows of it is taken over.
    pub(crate) fn adopted(&self, id: &ContainerId) -> Result<(Arc<Container>, Arc<Pod>)> {
        let container = self.container(id)?;
        let pod = self.pod(&container.record.request.sandbox)?;
        self.await_adoption(&pod)?;
        Ok((container, pod))
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        lock(&self.containers)
            .values()
            .filter(|one| one.record.request.sandbox == *sandbox)
            .cloned()
            .collect()
    }
}

/// A pod's monitor has given up what its containers may not be given: who asks for more is told so at once.
fn check_capabilities(sandbox: &SandboxConfig, request: &ContainerRequest) -> Result<()> {
    let Some(most) = sandbox.capabilities.filter(|_| sandbox.userns.is_none()) else { return Ok(()) };
    let available = CapabilitySet::available()?;
    let process = request.spec.process().as_ref();
    let asked = match process.and_then(|process| process.capabilities().as_ref()) {
        Some(asked) => Capabilities::from_spec(asked, available)?,
        None => Capabilities::default_for(available),
    };
    let beyond = asked.all().without(most);
    if beyond.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "container {} asks for {beyond}, and sandbox {} was made without: ask when the sandbox is created",
        request.id, request.sandbox
    )))
}

/// A signal's number is one the kernel has.
pub(crate) fn check_signal(signal: i32) -> Result<i32> {
    if (1..=64).contains(&signal) || Signal::from_named_raw(signal).is_some() {
        Ok(signal)
    } else {
        Err(Error::Invalid(format!("signal {signal} does not exist")))
    }
}
