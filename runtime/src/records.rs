//! The records of sandboxes and containers: each is written once.

use crate::cgroup::{ContainerCgroup, PodCgroup};
use crate::clock::now;
use crate::life::{PodEvent, PodState};
use crate::owner::read_owned;
use crate::process::Process;
use crate::rootfs::users::Identity;
use crate::{ContainerRequest, SandboxConfig, SandboxId};
use serde::{Deserialize, Deserializer, Serialize};
use slipway_disk::record::Damage;
use std::net::IpAddr;
use std::path::PathBuf;

/// A sandbox's record, written before anything of it is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    #[serde(deserialize_with = "read_config")]
    pub(crate) config: SandboxConfig,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    /// Its cgroup.
    pub(crate) cgroup: Option<PodCgroup>,
    /// The cgroup of the first process of its shared pid namespace, when it has one.
    pub(crate) pause: Option<ContainerCgroup>,
    /// The rest of a record of the form that was replaced with each change; written again as it was.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<FormerPod>,
}

impl PodRecord {
    pub(crate) fn new(
        config: &SandboxConfig,
        cgroup: Option<PodCgroup>,
        pause: Option<ContainerCgroup>,
    ) -> Self {
        Self { config: config.clone(), created_at: now(), cgroup, pause, former: None }
    }
}

/// The part of a pod's former record that changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FormerPod {
    pub(crate) stage: PodState,
    #[serde(flatten)]
    pub(crate) facts: PodFacts,
}

impl FormerPod {
    /// The events that led to its stage.
    pub(crate) fn events(&self) -> &'static [PodEvent] {
        match self.stage {
            PodState::Creating => &[],
            PodState::Ready => &[PodEvent::Made],
            PodState::Lost => &[PodEvent::Made, PodEvent::MonitorLost],
            PodState::Stopped => &[PodEvent::Stop],
            PodState::Removing => &[PodEvent::Remove],
        }
    }
}

/// The facts of a sandbox that are known once it is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodFacts {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) netns: Option<PathBuf>,
    /// Its monitor's process.
    #[serde(default)]
    pub(crate) monitor: Option<Process>,
}

/// The end of a sandbox's monitor that nobody had asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodEnd {
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
}

/// The wish to stop or remove a sandbox, written before it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Intent {
    /// Stop it.
    Stop,
    /// Remove it.
    Remove,
}

impl Intent {
    pub(crate) fn event(self) -> PodEvent {
        match self {
            Self::Stop => PodEvent::Stop,
            Self::Remove => PodEvent::Remove,
        }
    }
}

fn read_config<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SandboxConfig, D::Error> {
    read_owned(deserializer, "id")
}

fn read_request<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ContainerRequest, D::Error> {
    read_owned(deserializer, "sandbox")
}

/// A container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    #[serde(deserialize_with = "read_request")]
    pub(crate) request: ContainerRequest,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    /// The damage to its records, where some of them are lost: then it is never started again.
    #[serde(skip)]
    pub(crate) damage: Option<Damage>,
}

/// Written before a container is started: what must be killed should it be found without an end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartRecord {
    pub(crate) cgroup: ContainerCgroup,
    pub(crate) at: i64,
    #[serde(default)]
    pub(crate) identity: Option<Identity>,
    /// Its pod, should its own record be damaged.
    #[serde(default)]
    pub(crate) sandbox: Option<SandboxId>,
}
