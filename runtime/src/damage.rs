//! Records that can't be used: what stands in for them, how they are reported, and how they become whole again.
//!
//! A pod or container of this boot has copies of its records, from which a damaged one is written again. Without a copy
//! (after a reboot, or where both are damaged) a stand-in takes the record's place: its id is known from the directory,
//! its cgroup and its monitor's socket follow from that, so that it is listed, can be stopped and can be removed.

use crate::cgroup::ContainerCgroup;
use crate::found;
use crate::life::{PodEvent, PodState};
use crate::link::Contact;
use crate::pod::{
    Container, ContainerRecord, EndRecord, FoundLife, FoundPod, Pod, PodFacts, PodRecord, StartRecord, lock,
    now,
};
use crate::records::Intent;
use crate::runtime::Shared;
use crate::state::{Healed, Place};
use crate::{
    ContainerId, ContainerPid, ContainerRequest, ContainerState, Dns, Document, IpcMode, Network, Owner,
    PidMode, Result, RootFs, SandboxConfig, SandboxId, Seccomp, User, state,
};
use oci_spec::runtime::Spec;
use slipway_disk::record::Damage;
use slipway_monitor::protocol::{Known, Request};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// The monitor's name for the first process of a shared pid namespace.
const PAUSE: &str = "pause";
const KILL: i32 = 9;
/// The pod of a container that has lost what says which it is.
const UNKNOWN: &str = "unknown";

/// A record that is, or was, damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// A sentence that says how it is damaged, and what to do.
    pub problem: String,
    /// It is whole again.
    pub mended: bool,
}

/// Records that were damaged and are whole again since the daemon has started, and objects in the way of records.
#[derive(Debug, Default)]
pub(crate) struct Damages(Mutex<Vec<Damaged>>);

impl Damages {
    /// Notes, and logs, records that were damaged and are whole again.
    pub(crate) fn healed(&self, records: &Healed) {
        for (path, reason) in records {
            tracing::warn!(path = %path.display(), reason, "a record was damaged");
            lock(&self.0).push(Damaged { path: path.clone(), problem: reason.clone(), mended: true });
        }
    }

    /// Notes, and logs, that the end of a container is known no more than this.
    pub(crate) fn replaced_end(&self, damage: &Damage, end: &EndRecord) {
        tracing::error!(%damage, code = end.code, "the end of a container was written again as far as it is known");
        let problem = format!("{}; it was written again as far as the end is known", damage.reason);
        lock(&self.0).push(Damaged { path: damage.path.clone(), problem, mended: true });
    }

    /// Notes, and logs, what could not be taken up at all.
    pub(crate) fn left(&self, path: &Path, error: &crate::Error) {
        let error = crate::chain(error);
        tracing::error!(path = %path.display(), error, "it can't be taken up and is left alone");
        let problem = format!("{error}: mend it or remove it, and start the daemon again");
        lock(&self.0).push(Damaged { path: path.to_owned(), problem, mended: false });
    }
}

impl Shared {
    /// Stands in for a pod whose record is damaged: nothing starts in it, and it can be stopped and removed.
    pub(crate) fn stand_in_pod(&self, id: &SandboxId, place: Place, damage: Damage) -> Result<Pod> {
        tracing::error!(path = %damage.path.display(), reason = damage.reason, "only the id of a pod is known");
        let own = self.config.state.join("pods").join(id.as_str());
        let lives = own.exists();
        state::make_directory(&own)?;
        let mut healed = Healed::new();
        // Its monitor is asked, where it has one; a reboot has ended all others.
        let life =
            if lives { [PodEvent::Made, PodEvent::MonitorLost] } else { [PodEvent::Made, PodEvent::Stop] };
        let state = PodState::folded(life.into_iter().chain(found::intents(&place, &mut healed).events));
        self.damages.healed(&healed);
        let contact = if state.has_monitor() { Contact::Pending } else { Contact::Answering };
        let cgroup = Some(self.cgroups.plan(None, id.as_str())?);
        let pause = self.cgroups.find(&format!("pause-{id}"));
        let mut made = PodRecord::new(&unknown_config(id), cgroup, pause);
        made.created_at = changed_at(&place.directory);
        let found = FoundPod { made, state, facts: PodFacts::default(), damage: Some(damage) };
        Ok(Pod::new(place, own, found, contact))
    }

    /// Stands in for a container whose record is damaged; it can't be started.
    pub(crate) fn stand_in_container(
        id: &ContainerId,
        place: &Place,
        started: Option<&StartRecord>,
        damage: Damage,
    ) -> Result<ContainerRecord> {
        tracing::error!(path = %damage.path.display(), reason = damage.reason, "only the id of a container is known");
        let sandbox = match started.and_then(|started| started.sandbox.clone()) {
            Some(sandbox) => sandbox,
            None => SandboxId::new(UNKNOWN)?,
        };
        Ok(ContainerRecord {
            request: unknown_request(id, sandbox),
            created_at: changed_at(&place.directory),
            damage: Some(damage),
        })
    }

    /// The record of a container's start. Where it can't be read, the cgroup is found by the container's id.
    pub(crate) fn start_record(&self, container: &Container) -> Option<StartRecord> {
        match container.place.started(container.run).read::<StartRecord>() {
            Ok(found) => found.map(|loaded| loaded.value),
            Err(_) => Some(StartRecord {
                cgroup: self.cgroup_of(container)?,
                at: container.record.created_at,
                identity: container.identity(),
                sandbox: Some(container.record.request.sandbox.clone()),
            }),
        }
    }

    /// Where a container's cgroup is: as its pod has it, else found by its id.
    pub(crate) fn cgroup_of(&self, container: &Container) -> Option<ContainerCgroup> {
        let request = &container.record.request;
        let pod = self.find_pod(&request.sandbox).and_then(|pod| pod.record().cgroup);
        let planned = pod.and_then(|cgroup| cgroup.plan(request.id.as_str()).ok());
        match planned {
            Some(planned) if planned.exists() => Some(planned),
            planned => self.cgroups.find(request.id.as_str()).or(planned),
        }
    }

    /// A monitor has told of a container that does not know its pod: it is this one.
    fn bind_stand_in(&self, id: &ContainerId, pod: &SandboxId) {
        let Some(container) = self.find_container(id) else { return };
        if container.record.damage.is_none() || container.record.request.sandbox == *pod {
            return;
        }
        let _operation = lock(&container.operation);
        // It may have been removed meanwhile: then it stays removed.
        if self.find_container(id).is_none() {
            return;
        }
        let mut record = container.record.clone();
        record.request.sandbox = pod.clone();
        let (state, run, is_removing) = (container.state(), container.run, container.is_removing());
        let found = FoundLife { state, run, is_removing };
        let bound = Container::new(container.place.clone(), record, found);
        lock(&self.containers).insert(id.clone(), bound.into());
    }

    /// Takes up what a monitor says it has: a stand-in learns its pod, and what no record tells of does not go on.
    pub(crate) fn claim_known(&self, pod: &Pod, known: &Known) {
        let Ok(id) = ContainerId::new(known.container.as_str()) else { return };
        let sandbox = pod.record().config.id;
        if self.find_container(&id).is_some() {
            self.bind_stand_in(&id, &sandbox);
            return;
        }
        // The first process of a shared pid namespace has no record of its own.
        if id.as_str() == PAUSE || known.exit.is_some() || known.pid <= 0 {
            return;
        }
        tracing::error!(container = %id, %sandbox, "it runs, and no record tells of it: it is killed");
        let request = Request::Stop { container: id.to_string(), signal: KILL, grace_ms: 0 };
        let killed = self.connect_now(pod).and_then(|connection| connection.order(&request, &[]));
        if let Err(error) = killed {
            tracing::warn!(container = %id, %error, "not killed");
        }
    }

    /// Every record of pods and containers that is damaged now, or was when it was read. With `repair` it is written
    /// again from what is known in memory.
    pub(crate) fn check_records(&self, repair: bool) -> Vec<Damaged> {
        let mut found = self.known_damages();
        found.extend(self.network.damaged(true, repair));
        let pods: Vec<_> = lock(&self.pods).values().cloned().collect();
        for pod in pods.iter().filter(|pod| pod.record().damage.is_none()) {
            // While a pod is made, stopped or removed, that operation writes its records.
            let Some(_operation) = unlocked(&pod.operation) else { continue };
            if self.find_pod(&pod.record().config.id).is_none() {
                continue;
            }
            found.extend(check_pod(pod, repair));
        }
        let containers: Vec<_> = lock(&self.containers).values().cloned().collect();
        for container in containers.iter().filter(|one| one.record.damage.is_none()) {
            let Some(_operation) = unlocked(&container.operation) else { continue };
            if self.find_container(&container.record.request.id).is_none() {
                continue;
            }
            let slot = container.place.record();
            let verified = slot.verify::<ContainerRecord>();
            found.extend(judge(verified, || repair && slot.write(&container.record).is_ok()));
            found.extend(self.check_life(container, repair));
        }
        found
    }

    fn check_life(&self, container: &Container, repair: bool) -> Vec<Damaged> {
        let slot = container.place.started(container.run);
        let mut found = Vec::new();
        if slot.path().symlink_metadata().is_ok() {
            let again = || {
                let started = self.start_record(container);
                repair && started.is_some_and(|started| slot.write(&started).is_ok())
            };
            found.extend(judge(slot.verify::<StartRecord>(), again));
        }
        if let ContainerState::Exited { started_at, finished_at, code, reason, message } = container.state() {
            let path = container.place.ended_path(container.run);
            let verified = match container.place.read_end::<EndRecord>(container.run) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(Damage { path, reason: "it is absent".to_owned(), torn: false }),
                Err(damage) => Err(damage),
            };
            let end = EndRecord { started_at, finished_at, code, reason, message };
            found
                .extend(judge(verified, || repair && container.place.write_end(container.run, &end).is_ok()));
        }
        found
    }

    /// Every record that is known to be damaged, without a look at the disk.
    pub(crate) fn damaged_records(&self) -> Vec<Damaged> {
        let mut found = self.known_damages();
        found.extend(self.network.damaged(false, false));
        found
    }

    fn known_damages(&self) -> Vec<Damaged> {
        let mut found = lock(&self.damages.0).clone();
        for pod in lock(&self.pods).values() {
            let record = pod.record();
            let id = record.config.id.as_str();
            found.extend(record.damage.map(|damage| lost(damage.path, "pod", id, &damage.reason)));
        }
        for container in lock(&self.containers).values() {
            let ContainerRecord { request, damage, .. } = &container.record;
            let lost = |damage: Damage| lost(damage.path, "container", request.id.as_str(), &damage.reason);
            found.extend(damage.clone().map(lost));
        }
        found
    }
}

/// Verifies the records of a pod that is known whole.
fn check_pod(pod: &Pod, repair: bool) -> Vec<Damaged> {
    let mut found = Vec::new();
    let slot = pod.place.record();
    found.extend(judge(slot.verify::<PodRecord>(), || repair && slot.write(&pod.made).is_ok()));
    let slot = pod.place.ready();
    if pod.made.former.is_none() && pod.state() == PodState::Ready {
        found.extend(judge(slot.verify::<PodFacts>(), || repair && slot.write(&pod.facts()).is_ok()));
    }
    let intent = match pod.state() {
        PodState::Removing => Intent::Remove,
        PodState::Creating | PodState::Ready | PodState::Lost | PodState::Stopped => Intent::Stop,
    };
    for number in pod.place.numbers("intent") {
        let slot = pod.place.intent(number);
        found.extend(judge(slot.verify::<Intent>(), || repair && slot.write(&intent).is_ok()));
    }
    found
}

/// A lock that nobody has now.
fn unlocked(mutex: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn lost(path: PathBuf, kind: &str, id: &str, damage: &str) -> Damaged {
    let remove = if kind == "pod" { "crictl rmp -f" } else { "slipway rm -f" };
    let problem =
        format!("{damage}: too little is known of the {kind} to go on with it, remove it: {remove} {id}");
    Damaged { path, problem, mended: false }
}

fn judge(verified: std::result::Result<(), Damage>, again: impl FnOnce() -> bool) -> Option<Damaged> {
    let Damage { path, reason, .. } = verified.err()?;
    let mended = again();
    let problem = if mended { reason } else { format!("{reason}: check --repair writes it again") };
    Some(Damaged { path, problem, mended })
}

/// When a directory was last changed, in nanoseconds since the epoch; now when it is not there. kubelet refuses 0.
fn changed_at(directory: &Path) -> i64 {
    let stat = std::fs::symlink_metadata(directory);
    stat.map_or_else(
        |_| now(),
        |stat| stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()),
    )
}

pub(crate) fn unknown_config(id: &SandboxId) -> SandboxConfig {
    SandboxConfig {
        id: id.clone(),
        owner: Owner::of_unnamed(id.as_str()),
        document: Document::default(),
        hostname: String::new(),
        network: Network::Pod { ports: Vec::new() },
        cgroup_parent: None,
        sysctls: std::collections::BTreeMap::default(),
        pid: PidMode::Container,
        ipc: IpcMode::Pod,
        userns: None,
        dns: Dns::default(),
        shm_size: 0,
        capabilities: None,
    }
}

pub(crate) fn unknown_request(id: &ContainerId, sandbox: SandboxId) -> ContainerRequest {
    ContainerRequest {
        id: id.clone(),
        owner: Owner::of_unnamed(sandbox.as_str()),
        document: Document::default(),
        sandbox,
        spec: Spec::default(),
        rootfs: RootFs::default(),
        log_path: None,
        stdin: false,
        stdin_once: false,
        tty: false,
        volumes: Vec::new(),
        user: User::default(),
        seccomp: Seccomp::default(),
        raw_env: Vec::new(),
        pid: ContainerPid::default(),
    }
}
