//! How a runtime is set up.

use std::path::PathBuf;

/// Where a runtime keeps its things and what it may use.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Sockets, network namespaces and mounts, gone after a reboot: `/run/slipway`.
    pub state: PathBuf,
    /// Records, upper and work directories: `/var/lib/slipway`.
    pub root: PathBuf,
    /// The cgroup below which the pods without a parent of their own go; the daemon's own when absent.
    pub cgroup_root: Option<String>,
    /// The built-in bridge.
    pub network: NetworkConfig,
    /// Kernel features to do without, by the names of [`Features::list`](crate::Features::list).
    pub disable_features: Vec<String>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            state: "/run/slipway".into(),
            root: "/var/lib/slipway".into(),
            cgroup_root: None,
            network: NetworkConfig::default(),
            disable_features: Vec::new(),
        }
    }
}

/// The built-in bridge's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The link's name.
    pub bridge: String,
    /// Subnets in CIDR form, one a family.
    pub subnets: Vec<String>,
    /// The nftables table.
    pub table: String,
    /// Whether nftables is used, where the kernel has it.
    pub nftables: bool,
    /// Every user in a pod may listen on ports below 1024 (`net.ipv4.ip_unprivileged_port_start` is 0).
    pub unprivileged_ports: bool,
    /// Every user in a pod may send echo requests (`net.ipv4.ping_group_range` has all groups).
    pub unprivileged_icmp: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "slipway0".into(),
            subnets: vec!["10.88.0.0/16".into()],
            table: "slipway".into(),
            nftables: true,
            unprivileged_ports: true,
            unprivileged_icmp: true,
        }
    }
}
