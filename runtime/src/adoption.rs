//! Adopts the monitors that an earlier daemon has left, and listens to each for as long as it lives.
//!
//! Each pod has a thread of its own, so that one monitor that does not answer holds up no other. Only a monitor that is
//! proven dead is lost; one that can't be reached keeps its containers, and its thread waits in the kernel for its answer
//! or its end.

use crate::life::{LifeEvent, PodState};
use crate::link::Contact;
use crate::monitor_client::{Connection, Failure, PROMPT};
use crate::pod::{Container, EndRecord, Pod, lock};
use crate::process::Process;
use crate::runtime::Shared;
use crate::{ContainerEvent, ContainerState, Error, Result, SandboxId, recovery};
use slipway_monitor::protocol::{Known, Reply, Request};
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

/// How long a monitor that has closed its socket may take to end.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// Pauses between attempts that fail at once, growing from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The stack of a thread that listens, in bytes.
const STACK: usize = 256 * 1024;

/// The outcome of one attempt to take a monitor up.
enum Adoption {
    /// It answers, and what it knows is taken over.
    Alive(Arc<Connection>),
    /// It is proven to have ended.
    Gone,
    /// It could not be asked, which says nothing of whether it lives.
    Unreachable(String),
}

/// A sandbox whose monitor does not answer, or can't be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its monitor's process, where that is known.
    pub monitor: Option<i32>,
    /// Nanoseconds since the epoch.
    pub since: i64,
    /// The reason: the call that failed or was not answered, and its error.
    pub why: String,
}

impl Shared {
    /// Takes up, in the background, what was found at the start: monitors are adopted, each on a thread of its own, and
    /// what a dead daemon left half-made or half-stopped is ended. What is found is decided in the call, which waits until
    /// all that is done, at most for the given time.
    pub(crate) fn adopt(self: &Arc<Self>, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let pods: Vec<_> = lock(&self.pods).values().cloned().collect();
        let (mut pending, rest): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|pod| pod.link.contact() == Contact::Pending);
        let (shared, asked) = (Arc::downgrade(self), pending.clone());
        let (cleared, clear) = mpsc::channel::<()>();
        let work = move || {
            let mut cleared = Some(cleared);
            let mut pause = PAUSES.0;
            let mut rest = Some(rest);
            while let Some(shared) = shared.upgrade() {
                pending.retain(|pod| match shared.watch(pod, None) {
                    Ok(()) => false,
                    Err(error) => {
                        unreachable(pod, &error.to_string());
                        true
                    }
                });
                rest.take().unwrap_or_default().iter().for_each(|pod| shared.clear_away(pod));
                drop(cleared.take());
                if pending.is_empty() {
                    return;
                }
                drop(shared);
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
        };
        let spawned = std::thread::Builder::new().name("adopt".into()).spawn(work);
        spawned.map_err(|source| Error::Kernel { call: "start a thread".into(), source })?;
        // Nothing is ever sent: the thread drops the sender when it has ended what was half-made or half-stopped.
        let _ = clear.recv_timeout(end.saturating_duration_since(Instant::now()));
        asked.iter().for_each(|pod| pod.link.wait_heard_of(end));
        Ok(())
    }

    /// Ends what a dead daemon was making or stopping.
    fn clear_away(&self, pod: &Pod) {
        let record = pod.record();
        let id = &record.config.id;
        let outcome = match record.state {
            PodState::Creating => {
                tracing::info!(sandbox = %id, "its creation was interrupted; removing it");
                self.remove_sandbox(id)
            }
            PodState::Removing => self.remove_sandbox(id),
            PodState::Stopped => self.stop_sandbox(id),
            PodState::Ready | PodState::Lost => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!(sandbox = %id, %error, "not recovered");
        }
    }

    /// Listens to a pod's monitor on a thread of its own until it has ended; without a connection it is adopted first.
    pub(crate) fn watch(self: &Arc<Self>, pod: &Arc<Pod>, connection: Option<Connection>) -> Result<()> {
        let connection = connection.map(Arc::new);
        pod.link.watch_by(connection.clone());
        let watch = Watch { shared: Arc::downgrade(self), pod: Arc::downgrade(pod) };
        std::thread::Builder::new()
            .name("watch".into())
            .stack_size(STACK)
            .spawn(move || watch.follow(connection))
            .map(drop)
            .map_err(|source| Error::Kernel { call: "start a thread".into(), source })
    }

    /// Connects to a pod's monitor. While the monitor is not adopted yet, or does not answer, this waits without
    /// sending it anything, and fails after [`PROMPT`].
    pub(crate) fn connect(&self, pod: &Pod) -> Result<Connection> {
        self.await_adoption(pod)?;
        self.connect_now(pod)
    }

    /// Waits until what a monitor knows is taken over, or it is lost.
    pub(crate) fn await_adoption(&self, pod: &Pod) -> Result<()> {
        let sandbox = pod.record().config.id.to_string();
        pod.link.wait().map_err(|why| Error::Unreachable { sandbox, why })
    }

    /// Connects as [`Self::connect`] does, but at once, also to a monitor that is known not to answer.
    pub(crate) fn connect_now(&self, pod: &Pod) -> Result<Connection> {
        let id = pod.record().config.id;
        match Connection::open(id.as_str(), &pod.state) {
            Ok((connection, _)) => Ok(connection),
            Err(failure) => {
                if let Failure::Silent(why) = &failure {
                    unreachable(pod, why);
                }
                Err(failure.error(id.as_str()))
            }
        }
    }

    /// The sandboxes whose monitors do not answer.
    pub(crate) fn unreachable(&self) -> Vec<Unreachable> {
        let pods: Vec<_> = lock(&self.pods).values().cloned().collect();
        let silent = pods.iter().filter_map(|pod| {
            let Contact::Silent { since, why } = pod.link.contact() else { return None };
            let record = pod.record();
            let monitor = record.monitor.map(|process| process.pid);
            Some(Unreachable { sandbox: record.config.id, monitor, since, why })
        });
        silent.collect()
    }
}

/// Marks a monitor as unreachable. The first time, it also logs a warning and sends the monitor a probe, whose answer
/// tells the watching thread that the monitor answers again.
fn unreachable(pod: &Pod, why: &str) {
    if pod.link.is_lost_sight_of(why) {
        let record = pod.record();
        let monitor = record.monitor.map(|process| process.pid);
        tracing::warn!(
            sandbox = %record.config.id,
            monitor,
            why,
            "its monitor can't be reached: its containers are left as they are, and it is tried again"
        );
        pod.link.probe();
    }
}

/// The thread that listens to one pod's monitor.
struct Watch {
    shared: Weak<Shared>,
    pod: Weak<Pod>,
}

impl Watch {
    fn follow(&self, mut held: Option<Arc<Connection>>) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            let adoption = match held.take() {
                Some(connection) => Adoption::Alive(connection),
                None => match self.adopt() {
                    Some(adoption) => adoption,
                    None => break,
                },
            };
            match adoption {
                Adoption::Alive(connection) => {
                    pause = PAUSES.0;
                    self.listen(&connection);
                }
                Adoption::Gone => {
                    if let (Some(shared), Some(pod)) = (self.shared.upgrade(), self.pod.upgrade()) {
                        recovery::monitor_lost(&shared, &pod);
                        pod.link.is_gone();
                    }
                    break;
                }
                Adoption::Unreachable(why) => {
                    let Some(pod) = self.pod.upgrade() else { break };
                    unreachable(&pod, &why);
                    let process = pod.record().monitor;
                    drop(pod);
                    // An attempt that has waited in the kernel for as long as the pause is repeated at once.
                    if began.elapsed() < pause {
                        sleep(pause, process);
                        pause = (pause * 2).min(PAUSES.1);
                    }
                }
            }
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.reap();
        }
    }

    /// Receives exits until the connection ends, which does not prove that the monitor has ended.
    fn listen(&self, connection: &Connection) {
        while let Ok(Some(answer)) = connection.receive(None) {
            match answer.reply {
                Reply::Exited { container, exit } => {
                    let Some(shared) = self.shared.upgrade() else { return };
                    shared.heard(&container, &EndRecord::seen(&exit));
                }
                Reply::Hello { .. } => {
                    let Some(pod) = self.pod.upgrade() else { return };
                    if pod.link.is_silent() {
                        tracing::info!(sandbox = %pod.record().config.id, "its monitor answers again");
                    }
                    pod.link.answers();
                }
                _ => {}
            }
        }
        if let Some(pod) = self.pod.upgrade() {
            pod.link.watch_by(None);
        }
    }

    /// Attempts to adopt the monitor once; `None` when the pod needs no monitor any more.
    fn adopt(&self) -> Option<Adoption> {
        let (record, directory) = {
            let pod = self.pod.upgrade()?;
            (pod.record(), pod.state.clone())
        };
        if !record.state.has_monitor() {
            return None;
        }
        let reached = self.reach(record.config.id.as_str(), &directory, record.monitor);
        let (shared, pod) = (self.shared.upgrade()?, self.pod.upgrade()?);
        let failure = match reached {
            Ok((connection, pid)) => match shared.take_up(&pod, connection, pid) {
                Ok(connection) => return Some(Adoption::Alive(connection)),
                Err(error) => Failure::Silent(error.to_string()),
            },
            Err(failure) => failure,
        };
        Some(match (&failure, record.monitor) {
            // The record names no process: the absence of the socket is the only evidence.
            (Failure::Absent(_), None) => Adoption::Gone,
            (Failure::Absent(_), Some(process)) if process.wait(LAST_STEPS) => Adoption::Gone,
            (Failure::Silent(_), Some(process)) if process.is_dead() => Adoption::Gone,
            _ => Adoption::Unreachable(failure.why().to_owned()),
        })
    }

    /// Connects, and waits for the answer for as long as the monitor lives.
    fn reach(
        &self,
        sandbox: &str,
        directory: &std::path::Path,
        process: Option<Process>,
    ) -> std::result::Result<(Connection, i32), Failure> {
        let connection = Connection::dial(sandbox, directory)?;
        let failed = |errno| Failure::Silent(format!("poll: {errno}"));
        if !connection.wait_readable(Some(PROMPT), process).map_err(failed)? {
            if let Some(pod) = self.pod.upgrade() {
                unreachable(&pod, &format!("hello: no answer in {} s", PROMPT.as_secs()));
            }
            connection.wait_readable(None, process).map_err(failed)?;
        }
        connection.greet()
    }
}

/// Waits, but not beyond the end of a process.
fn sleep(pause: Duration, process: Option<Process>) {
    let begin = Instant::now();
    let has_ended = process.is_some_and(|process| process.wait(pause));
    if !has_ended {
        // Sleep the rest of the pause, which is all of it when there is no process to wait for.
        std::thread::sleep(pause.saturating_sub(begin.elapsed()));
    }
}

impl Shared {
    /// Takes over what a monitor that answers knows, and listens to it from there on.
    fn take_up(&self, pod: &Arc<Pod>, connection: Connection, pid: i32) -> Result<Arc<Connection>> {
        connection.order(&Request::Watch {}, &[])?;
        let known = self.known(&connection)?;
        for known in &known {
            self.claim_known(pod, known);
        }
        let id = pod.record().config.id;
        for container in self.containers_of(&id) {
            let name = container.record.request.id.as_str();
            match known.iter().find(|known| known.container == name) {
                Some(Known { exit: Some(exit), .. }) => self.finish(&container, &EndRecord::seen(exit)),
                Some(Known { pid, started_at, .. }) if *pid > 0 => {
                    let started = LifeEvent::Started { pid: *pid, at: *started_at };
                    drop(container.happened(started)?);
                }
                _ => self.unstarted(&container)?,
            }
        }
        let process = Process::of(pid);
        // It is in the pod's records, unless those are damaged or of an earlier release: then each daemon learns it here.
        if process.is_some() {
            pod.monitored_by(process);
        }
        let connection = Arc::new(connection);
        pod.link.watch_by(Some(Arc::clone(&connection)));
        if pod.link.is_silent() {
            tracing::info!(sandbox = %id, "its monitor answers again");
        }
        pod.link.answers();
        Ok(connection)
    }

    /// Asks a monitor for the containers that it knows and returns them; exits that arrive before its answer are
    /// recorded.
    fn known(&self, connection: &Connection) -> Result<Vec<Known>> {
        connection.send(&Request::List {}, &[])?;
        loop {
            match connection.receive(Some(PROMPT))?.map(|answer| answer.reply) {
                Some(Reply::Containers { containers }) => return Ok(containers.0),
                Some(Reply::Exited { container, exit }) => self.heard(&container, &EndRecord::seen(&exit)),
                Some(other) => return Err(connection.unexpected(&other)),
                None => return Err(connection.hung_up()),
            }
        }
    }

    /// Undoes a start that never reached its monitor: it has left a cgroup at most. A start that this daemon has begun
    /// itself is left alone, for its own call knows the outcome.
    fn unstarted(&self, container: &Container) -> Result<()> {
        if !container.is_only_recorded() {
            return Ok(());
        }
        if let Some(started) = self.start_record(container) {
            started.cgroup.kill(&self.features)?;
            started.cgroup.remove()?;
            container.place.started(container.run).remove()?;
        }
        let created_at = container.record.created_at;
        container.happened(LifeEvent::NeverStarted { created_at })?;
        let request = &container.record.request;
        self.tell(&ContainerEvent {
            container: request.id.clone(),
            sandbox: request.sandbox.clone(),
            state: ContainerState::Created { at: container.record.created_at },
        });
        Ok(())
    }
}
