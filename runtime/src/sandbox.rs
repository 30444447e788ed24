//! The configuration that a sandbox is created from, and the sandbox's status.

pub(crate) mod files;
mod inspect;
mod lifecycle;

pub use inspect::{Interface, SandboxDetails};
pub(crate) use lifecycle::{PROC, host_name, pause_program};

use crate::capabilities::CapabilitySet;
use crate::id::SandboxId;
use crate::network::PortMapping;
use crate::{Document, Error, Owner, PodState, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// The configuration that a sandbox is created from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Its name, unique on the node.
    pub id: SandboxId,
    /// The owner.
    pub owner: Owner,
    /// A document of the owner's, kept with it.
    #[serde(default)]
    pub document: Document,
    /// The name of its uts namespace; empty takes the host's.
    pub hostname: String,
    /// Its network.
    pub network: Network,
    /// The cgroup below which the pod's own is made.
    pub cgroup_parent: Option<String>,
    /// Kernel parameters of the pod's namespaces, with dots or slashes.
    pub sysctls: BTreeMap<String, String>,
    /// The scope of its pid namespaces.
    pub pid: PidMode,
    /// The scope of its ipc namespace (System V objects, POSIX message queues).
    pub ipc: IpcMode,
    /// The pod's user namespace, when it has one.
    pub userns: Option<IdMap>,
    /// The content of resolv.conf; the host's when all of it is empty.
    pub dns: Dns,
    /// The size of /dev/shm in bytes; 0 is 64 MiB.
    pub shm_size: u64,
    /// The capabilities that its containers may be granted, if known in advance; `None` allows all that the daemon has.
    /// The pod's monitor drops the others that it does not need itself. With a user namespace this is ignored, for
    /// entering it gives a process all of that namespace's capabilities.
    #[serde(default)]
    pub capabilities: Option<CapabilitySet>,
}

/// A pod's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's.
    Host,
    /// Its own namespace on the built-in bridge.
    Pod {
        /// Host ports that lead to it.
        ports: Vec<PortMapping>,
    },
}

/// The scope of a pod's pid namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Each container has its own namespace.
    Container,
    /// The pod's containers share one.
    Pod,
    /// The host's.
    Host,
}

/// The scope of a pod's ipc namespace: System V objects and POSIX message queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// The pod has its own namespace.
    Pod,
    /// The host's.
    Host,
}

/// The maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl IdMap {
    /// The user outside that is root inside.
    pub(crate) fn root_uid(&self) -> Result<u32> {
        Self::root_of(&self.uids)
    }

    /// The group outside that is root's inside.
    pub(crate) fn root_gid(&self) -> Result<u32> {
        Self::root_of(&self.gids)
    }

    fn root_of(ranges: &[IdRange]) -> Result<u32> {
        let range = ranges.iter().find(|range| range.inside == 0 && range.count > 0);
        range.map(|range| range.outside).ok_or_else(|| Error::Invalid("an id map must map id 0".into()))
    }
}

/// One line of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The content of resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A sandbox as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStatus {
    /// The configuration that it was created from.
    pub config: SandboxConfig,
    /// Its state.
    pub state: PodState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Its addresses, the primary first; none on the host's network.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace, when it has one.
    pub netns: Option<PathBuf>,
}

impl SandboxConfig {
    /// Returns those of the daemon's capabilities that the pod's containers may be granted in the daemon's own user
    /// namespace: none when the pod has a user namespace of its own.
    pub(crate) fn may_be_given(&self, available: CapabilitySet) -> CapabilitySet {
        match (&self.userns, self.capabilities) {
            (Some(_), _) => CapabilitySet::EMPTY,
            (None, Some(most)) => most.within(available),
            (None, None) => available,
        }
    }
}
