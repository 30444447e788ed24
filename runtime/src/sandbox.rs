//! What a sandbox is asked to be and what it is.

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

/// What a sandbox is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Its name, unique on the node.
    pub id: SandboxId,
    /// Whose it is.
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
    /// Who shares process ids.
    pub pid: PidMode,
    /// Who shares System V objects and message queues.
    pub ipc: IpcMode,
    /// The pod's user namespace, when it has one.
    pub userns: Option<IdMap>,
    /// What resolv.conf says; when all of it is empty, the host's.
    pub dns: Dns,
    /// The size of /dev/shm in bytes; 0 is 64 MiB.
    pub shm_size: u64,
    /// What its containers may be given, where that is known ahead; none is all that the daemon has. The pod's monitor
    /// gives up the rest. In a user namespace of its own a pod's containers have all of that namespace's.
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

/// Who shares process ids with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Each container has its own namespace.
    Container,
    /// The pod's containers share one.
    Pod,
    /// The host's.
    Host,
}

/// Who shares System V objects and message queues.
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

/// What resolv.conf says.
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
    /// What was asked.
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
    /// What the containers of the pod may be given of what the daemon has, in the daemon's own user namespace.
    pub(crate) fn may_be_given(&self, available: CapabilitySet) -> CapabilitySet {
        match (&self.userns, self.capabilities) {
            (Some(_), _) => CapabilitySet::EMPTY,
            (None, Some(most)) => most.within(available),
            (None, None) => available,
        }
    }
}
