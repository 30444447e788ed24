//! Containers in motion: sandboxes and containers made from data, by launch plans that a monitor executes.
//!
//! The crate knows neither gRPC nor images: a root file system arrives as directories, a configuration as an
//! `oci_spec` document. Everything here is synchronous; [`Runtime`] is the way in.

mod adoption;
mod attach;
mod bundle;
pub mod capabilities;
pub mod cgroup;
mod clock;
mod config;
mod container;
mod cpuset;
mod damage;
mod dismantle;
mod document;
mod end;
mod error;
mod exec;
mod features;
mod former;
mod found;
mod guard;
mod id;
mod launch;
mod life;
mod link;
mod monitor_client;
mod monitor_process;
mod namespace;
pub mod network;
mod opener;
mod owner;
mod patience;
mod plan;
mod pod;
mod process;
mod records;
mod recovery;
mod rootfs;
mod runtime;
mod sandbox;
pub mod seccomp;
pub mod signal;
pub mod spec;
mod state;
#[expect(unsafe_code, reason = "every raw system call of the crate lives here")]
mod sys;

pub use adoption::Unreachable;
pub use attach::{AttachEnd, AttachEvent, AttachInput, AttachSession};
pub use config::{NetworkConfig, RuntimeConfig};
pub use container::{
    ContainerEvent, ContainerPid, ContainerRequest, ContainerState, ExitReason, GroupsPolicy, RootFs,
    Seccomp, TerminalSize, User,
};
pub use cpuset::{Bound, Numbers};
pub use damage::Damaged;
pub use document::Document;
pub use error::{Error, Result, chain};
pub use exec::{Exec, ExecOutput, ExecSession};
pub use features::Features;
pub use id::{ContainerId, SandboxId};
pub use life::PodState;
pub use network::{PortMapping, Protocol};
pub use opener::Opener;
pub use owner::Owner;
pub use rootfs::users::Identity;
pub use runtime::{NetworkStatus, Runtime};
pub use sandbox::{
    Dns, IdMap, IdRange, Interface, IpcMode, Network, PidMode, SandboxConfig, SandboxDetails, SandboxStatus,
};
pub use sys::memory::keep_heap_small;
