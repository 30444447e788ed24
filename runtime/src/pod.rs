//! A sandbox and a container as the daemon holds them in memory.

pub(crate) use crate::clock::now;
pub(crate) use crate::end::EndRecord;
pub(crate) use crate::found::{FoundLife, FoundPod};
pub(crate) use crate::guard::lock;
pub(crate) use crate::records::{ContainerRecord, PodFacts, PodRecord, StartRecord};

use crate::cgroup::{ContainerCgroup, PodCgroup};
use crate::life::{LifeEvent, PodEvent, PodState};
use crate::link::{Contact, Link};
use crate::monitor_process::Started;
use crate::network::Attachment;
use crate::process::Process;
use crate::records::Intent;
use crate::rootfs::users::Identity;
use crate::state::Place;
use crate::{ContainerState, Error, Result, SandboxConfig, SandboxStatus, found};
use slipway_disk::record::Damage;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A sandbox at one moment: its record, its state and what has become known since.
#[derive(Debug, Clone)]
pub(crate) struct PodSnapshot {
    pub(crate) config: SandboxConfig,
    pub(crate) state: PodState,
    pub(crate) created_at: i64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) cgroup: Option<PodCgroup>,
    pub(crate) pause: Option<ContainerCgroup>,
    /// Its monitor's process, once there is one.
    pub(crate) monitor: Option<Process>,
    /// The damage to its records, where some of them are lost.
    pub(crate) damage: Option<Damage>,
}

#[derive(Debug)]
struct PodLife {
    state: PodState,
    facts: PodFacts,
}

/// A sandbox.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its records and files, which last.
    pub(crate) root: PathBuf,
    /// Its socket, exit files and mounts, gone after a reboot.
    pub(crate) state: PathBuf,
    pub(crate) place: Place,
    /// Its record, which never changes.
    pub(crate) made: PodRecord,
    damage: Option<Damage>,
    life: Mutex<PodLife>,
    /// Held while an event is written, so that readers wait for no disk.
    writing: Mutex<()>,
    /// The way to its monitor.
    pub(crate) link: Link,
    /// Held while the sandbox is made, stopped or removed.
    pub(crate) operation: Mutex<()>,
    /// The monitor, when this daemon started it.
    pub(crate) monitor: Mutex<Option<Started>>,
}

impl Pod {
    pub(crate) fn new(place: Place, state: PathBuf, found: FoundPod, contact: Contact) -> Self {
        Self {
            root: place.directory.clone(),
            state,
            place,
            made: found.made,
            damage: found.damage,
            life: Mutex::new(PodLife { state: found.state, facts: found.facts }),
            writing: Mutex::new(()),
            link: Link::new(contact),
            operation: Mutex::new(()),
            monitor: Mutex::new(None),
        }
    }

    pub(crate) fn record(&self) -> PodSnapshot {
        let life = lock(&self.life);
        PodSnapshot {
            config: self.made.config.clone(),
            state: life.state,
            created_at: self.made.created_at,
            addresses: life.facts.addresses.clone(),
            netns: life.facts.netns.clone(),
            cgroup: self.made.cgroup.clone(),
            pause: self.made.pause.clone(),
            monitor: life.facts.monitor,
            damage: self.damage.clone(),
        }
    }

    pub(crate) fn state(&self) -> PodState {
        lock(&self.life).state
    }

    /// The facts that [`Self::enter`] writes once it is made.
    pub(crate) fn facts(&self) -> PodFacts {
        lock(&self.life).facts.clone()
    }

    /// Something has happened: it is written, then the state changes.
    ///
    /// # Errors
    /// [`Error::WrongState`], or when it can't be written: the state is as it was.
    pub(crate) fn enter(&self, event: PodEvent) -> Result<()> {
        let _writing = lock(&self.writing);
        let before = self.state();
        let after =
            before.after(event).map_err(|refused| refused.of("sandbox", self.made.config.id.as_str()))?;
        if after != before {
            found::write(&self.place, event, &self.facts())?;
            lock(&self.life).state = after;
        }
        Ok(())
    }

    /// The sandbox has ended, or is to end, whether or not the disk has room to say so: a later daemon finds that for
    /// itself.
    pub(crate) fn end(&self, event: PodEvent) {
        if let Err(error) = self.enter(event) {
            tracing::warn!(sandbox = %self.made.config.id, %error, "its end can't be recorded");
            let mut life = lock(&self.life);
            life.state = life.state.after(event).unwrap_or(life.state);
        }
    }

    /// It is of another boot and has ended with it, which is written once in this boot.
    pub(crate) fn restarted(&self) {
        if let Err(error) = found::write(&self.place, PodEvent::Stop, &self.facts()) {
            tracing::warn!(sandbox = %self.made.config.id, %error, "its end can't be recorded");
        }
    }

    /// Its network is there. Written when all of it is made: until then a crash is cleared away by the pod's id.
    pub(crate) fn attached(&self, attachment: &Attachment) {
        let mut life = lock(&self.life);
        life.facts.addresses = attachment.addresses.iter().map(|cidr| cidr.address).collect();
        life.facts.netns = Some(attachment.netns_path.clone());
    }

    /// Its monitor's process is known.
    pub(crate) fn monitored_by(&self, process: Option<Process>) {
        lock(&self.life).facts.monitor = process;
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        let record = self.record();
        SandboxStatus {
            state: record.state,
            created_at: record.created_at,
            addresses: record.addresses,
            netns: record.netns,
            config: record.config,
        }
    }
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its record, upper and work directories.
    pub(crate) directory: PathBuf,
    pub(crate) place: Place,
    pub(crate) record: ContainerRecord,
    /// The number of its present or next start, which the files of that start and of its end have.
    pub(crate) run: u32,
    state: Mutex<ContainerState>,
    /// Its removal has been begun.
    removing: AtomicBool,
    changed: Condvar,
    identity: Mutex<Option<Identity>>,
    /// Its first process, where it was looked for because its monitor does not answer.
    pub(crate) first: Mutex<Option<Process>>,
    /// How many writes to its log were lost; known from its end on, where its monitor could say it.
    pub(crate) log_writes_dropped: OnceLock<u64>,
    /// Held while it is started or removed.
    pub(crate) operation: Mutex<()>,
    /// Held while its end is recorded.
    pub(crate) ending: Mutex<()>,
}

impl Container {
    pub(crate) fn new(place: Place, record: ContainerRecord, found: FoundLife) -> Self {
        Self {
            directory: place.directory.clone(),
            place,
            record,
            run: found.run,
            state: Mutex::new(found.state),
            removing: AtomicBool::new(found.is_removing),
            changed: Condvar::new(),
            identity: Mutex::new(None),
            first: Mutex::new(None),
            log_writes_dropped: OnceLock::new(),
            operation: Mutex::new(()),
            ending: Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> ContainerState {
        lock(&self.state).clone()
    }

    /// Whether its removal has been begun.
    pub(crate) fn is_removing(&self) -> bool {
        self.removing.load(Ordering::Acquire)
    }

    /// Its removal begins, whether or not the disk has room to say so.
    pub(crate) fn remove_begins(&self) {
        if self.removing.swap(true, Ordering::AcqRel) || !self.directory.exists() {
            return;
        }
        if let Err(error) = self.place.intent(0).write(&Intent::Remove) {
            tracing::warn!(container = %self.record.request.id, %error, "that it is to be removed can't be recorded");
        }
    }

    /// The user and groups that it runs as; known from its start on.
    pub(crate) fn identity(&self) -> Option<Identity> {
        lock(&self.identity).clone()
    }

    pub(crate) fn runs_as(&self, identity: Option<Identity>) {
        *lock(&self.identity) = identity;
    }

    /// Something has happened to the container. Gives its state when that has changed.
    ///
    /// # Errors
    /// [`Error::WrongState`] for an event that its state does not allow.
    pub(crate) fn happened(&self, event: LifeEvent) -> Result<Option<ContainerState>> {
        let mut state = lock(&self.state);
        let id = self.record.request.id.as_str();
        let after = state.clone().after(event).map_err(|refused| refused.of("container", id))?;
        let changed = after != *state;
        *state = after;
        self.changed.notify_all();
        Ok(changed.then(|| state.clone()))
    }

    /// Whether it is taken to run by its record alone: its monitor has not been heard of yet.
    pub(crate) fn is_only_recorded(&self) -> bool {
        matches!(*lock(&self.state), ContainerState::Running { pid: 0, .. })
    }

    /// Waits for the end; beyond what a clock can count, for as long as it takes.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<ContainerState> {
        let end = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        loop {
            if matches!(*state, ContainerState::Exited { .. }) {
                return Some(state.clone());
            }
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first process, when it runs.
    pub(crate) fn pid(&self, action: &'static str) -> Result<i32> {
        let state = self.state();
        if let ContainerState::Running { pid, .. } = state {
            return Ok(pid);
        }
        let (kind, id) = ("container", self.record.request.id.to_string());
        Err(Error::WrongState { kind, id, state: state.name(), action })
    }
}
