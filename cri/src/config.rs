//! The daemon's configuration: one TOML file with one struct per section. Command-line arguments override the
//! file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use serde::{Deserialize, Serialize};
use slipway_image::{Limits, StoreConfig};

use crate::error::{Error, Result};

/// The file that is read when `--config` is not given; it may be absent.
pub const DEFAULT_FILE: &str = "/etc/slipway/slipwayd.toml";

/// Slipway's daemon: serves the CRI and slipway.v1 on a unix socket.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "slipwayd", version)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where images and containers are kept
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where sockets, namespaces and mounts are; gone after a reboot
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The socket to serve on
    #[arg(long, value_name = "SOCKET")]
    pub listen: Option<String>,
    /// Remove the bridge, the nftables table, the cgroups and the state directory from the node, and end: for an
    /// uninstallation. Images stay; it is refused while pods exist or a daemon runs
    #[arg(long)]
    pub dismantle: bool,
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where images and containers are kept.
    pub root: PathBuf,
    /// Where sockets, namespaces and mounts are; gone after a reboot.
    pub state: PathBuf,
    /// The socket to serve on; `None` is `slipway.sock` in the state directory.
    pub listen: Option<String>,
    /// Log level `error`, `warn`, `info`, `debug` or `trace`, or a filter by modules.
    pub log: String,
    /// Images and registries.
    pub image: ImageConfig,
    /// Containers.
    pub runtime: RuntimeConfig,
    /// The built-in bridge.
    pub network: NetworkConfig,
}

/// Images and registries.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// One or several directories of registry hosts and mirrors in containerd's `certs.d` layout; the first that
    /// has an entry for a registry counts. By default `/etc/slipway/certs.d`, then `/etc/containerd/certs.d`.
    pub hosts_dir: OneOrMore,
    /// Keep compressed layers after they are unpacked.
    pub keep_blobs: bool,
    /// The most entries that a layer may have.
    pub max_layer_entries: u64,
    /// The most bytes that a layer's tar may have.
    pub max_layer_bytes: u64,
    /// How many layers are fetched and unpacked at once.
    pub parallel_layers: usize,
    /// Speak plain HTTP to registries on loopback addresses.
    pub plain_http_loopback: bool,
    /// Idle timeout in seconds: a registry or mirror that sends no byte of a pull, or takes no byte of a push, for
    /// this long is given up.
    pub registry_silence_seconds: u64,
}

/// A path, or a list of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(PathBuf),
    /// Several, in order; none for an empty list.
    More(Vec<PathBuf>),
}

impl OneOrMore {
    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![path.clone()],
            Self::More(paths) => paths.clone(),
        }
    }
}

/// Containers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// The parent of all cgroups that the daemon creates, relative to the daemon's own cgroup; `None` is the
    /// daemon's own. In a systemd service on cgroup v2 it is relative to the root of the hierarchy, and `None` is
    /// `/slipway`.
    pub cgroup_root: Option<String>,
    /// The directory in which relative paths of Localhost seccomp profiles are looked up.
    pub seccomp_dir: Option<PathBuf>,
    /// Seccomp profile of a CRI container whose request names none. `run` and builds always have the default
    /// profile.
    pub unset_seccomp_profile: UnsetSeccomp,
    /// Kernel features that are not used although the kernel has them, by the names that `slipway info` shows.
    pub disable_features: Vec<String>,
}

/// The seccomp profile of a container whose request names none.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum UnsetSeccomp {
    /// No system call is filtered, as critest expects; kubelet always sends a profile.
    #[default]
    Unconfined,
    /// The default profile.
    RuntimeDefault,
}

/// The built-in bridge; an absent key has the runtime's default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The bridge's name.
    pub bridge: Option<String>,
    /// Its subnets, `a.b.c.d/n`, one per address family.
    pub subnets: Option<Vec<String>>,
    /// The name of the nftables table.
    pub table: Option<String>,
    /// `false` disables nftables, as on a kernel that lacks it: no host ports, no egress.
    pub nftables: Option<bool>,
    /// Every user in a pod may listen on ports below 1024, unless the pod's parameters say otherwise.
    pub unprivileged_ports: Option<bool>,
    /// Every user in a pod may send echo requests (ping), unless the pod's parameters say otherwise.
    pub unprivileged_icmp: Option<bool>,
}

impl Default for ImageConfig {
    fn default() -> Self {
        let store = StoreConfig::new("");
        Self {
            hosts_dir: OneOrMore::More(vec!["/etc/slipway/certs.d".into(), "/etc/containerd/certs.d".into()]),
            keep_blobs: store.keep_blobs,
            max_layer_entries: store.limits.max_entries,
            max_layer_bytes: store.limits.max_bytes,
            parallel_layers: store.parallel_layers,
            plain_http_loopback: store.plain_http_loopback,
            registry_silence_seconds: store.registry_silence.as_secs(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/var/lib/slipway"),
            state: PathBuf::from("/run/slipway"),
            listen: None,
            log: "info".to_owned(),
            image: ImageConfig::default(),
            runtime: RuntimeConfig::default(),
            network: NetworkConfig::default(),
        }
    }
}

impl Config {
    /// Reads the file that the arguments name, or the default one if it exists, and lets the arguments override
    /// it.
    pub fn load(arguments: &Arguments) -> Result<Self> {
        let mut config = match &arguments.config {
            Some(path) => Self::parse(path, &read(path)?)?,
            None => {
                let path = Path::new(DEFAULT_FILE);
                if path.exists() { Self::parse(path, &read(path)?)? } else { Self::default() }
            }
        };
        if let Some(root) = &arguments.root {
            config.root.clone_from(root);
        }
        if let Some(state) = &arguments.state {
            config.state.clone_from(state);
        }
        if arguments.listen.is_some() {
            config.listen.clone_from(&arguments.listen);
        }
        config.check()?;
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        toml::from_str(text)
            .map_err(|error| Error::Config { path: path.to_owned(), reason: one_line(&error.to_string()) })
    }

    fn check(&self) -> Result<()> {
        for (key, path) in [("root", &self.root), ("state", &self.state), ("listen", &self.socket())] {
            if !path.is_absolute() {
                return Err(Error::Setting {
                    key,
                    reason: format!("{} is no absolute path", path.display()),
                });
            }
        }
        if self.root == self.state {
            return Err(Error::Setting {
                key: "state",
                reason: "it is the same directory as root".to_owned(),
            });
        }
        for (key, value) in [
            ("image.parallel_layers", self.image.parallel_layers as u64),
            ("image.registry_silence_seconds", self.image.registry_silence_seconds),
        ] {
            if value == 0 {
                return Err(Error::Setting { key, reason: "it must be 1 or more".to_owned() });
            }
        }
        Ok(())
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        match &self.listen {
            Some(listen) => PathBuf::from(listen.strip_prefix("unix://").unwrap_or(listen)),
            None => self.state.join("slipway.sock"),
        }
    }

    pub(crate) fn store(&self) -> StoreConfig {
        StoreConfig {
            hosts_dirs: self.image.hosts_dir.paths(),
            keep_blobs: self.image.keep_blobs,
            limits: Limits {
                max_entries: self.image.max_layer_entries,
                max_bytes: self.image.max_layer_bytes,
            },
            parallel_layers: self.image.parallel_layers,
            plain_http_loopback: self.image.plain_http_loopback,
            registry_silence: Duration::from_secs(self.image.registry_silence_seconds),
            ..StoreConfig::new(&self.root)
        }
    }

    pub(crate) fn runtime(&self) -> slipway_runtime::RuntimeConfig {
        let default = slipway_runtime::NetworkConfig::default();
        slipway_runtime::RuntimeConfig {
            state: self.state.clone(),
            root: self.root.clone(),
            cgroup_root: self.runtime.cgroup_root.clone(),
            network: slipway_runtime::NetworkConfig {
                bridge: self.network.bridge.clone().unwrap_or(default.bridge),
                subnets: self.network.subnets.clone().unwrap_or(default.subnets),
                table: self.network.table.clone().unwrap_or(default.table),
                nftables: self.network.nftables.unwrap_or(default.nftables),
                unprivileged_ports: self.network.unprivileged_ports.unwrap_or(default.unprivileged_ports),
                unprivileged_icmp: self.network.unprivileged_icmp.unwrap_or(default.unprivileged_icmp),
            },
            disable_features: self.runtime.disable_features.clone(),
        }
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("read configuration", path))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(Path::new("slipwayd.toml"), text)
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    /// Collects the keys of a serialised configuration, each as `section.key`.
    fn keys(section: &str, value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        for (key, value) in value.as_object().unwrap() {
            let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            if value.is_object() {
                keys(&path, value, found);
            } else {
                found.insert(path);
            }
        }
    }

    #[test]
    fn the_installed_file_has_every_key_with_its_default() {
        let text = include_str!("../../deploy/slipwayd.toml");
        assert_eq!(parse(text).unwrap(), Config::default(), "as it is installed");
        let is_key = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let mut section = String::new();
        let mut named = std::collections::BTreeSet::new();
        // A line that is commented out counts as a key if it has the form `key = …`.
        for line in text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = format!("{name}.");
            }
            if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
                assert!(named.insert(format!("{section}{key}")), "{key} is there twice");
            }
        }
        let mut expected = std::collections::BTreeSet::new();
        keys("", &serde_json::to_value(Config::default()).unwrap(), &mut expected);
        assert_eq!(named, expected);
        // The network's keys are commented out in the file; their values there have to be the runtime's defaults.
        let network = text.split_once("[network]").unwrap().1.replace("\n# ", "\n");
        let written = parse(&format!("[network]{network}")).unwrap();
        assert!(written.network.subnets.is_some());
        assert_eq!(written.runtime().network, Config::default().runtime().network);
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_name() {
        let error = parse("[image]\nkeep_blob = true\n").unwrap_err();
        assert!(error.to_string().contains("keep_blob"), "{error}");
        assert!(!error.to_string().contains('\n'));
    }

    #[test]
    fn arguments_go_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "root = '/a'\nstate = '/b'\n").unwrap();
        let arguments = Arguments {
            config: Some(file),
            root: Some("/c".into()),
            listen: Some("unix:///d/s".into()),
            ..Arguments::default()
        };
        let config = Config::load(&arguments).unwrap();
        assert_eq!((config.root, config.state), ("/c".into(), "/b".into()));
        assert_eq!(Config { listen: arguments.listen, ..Config::default() }.socket(), Path::new("/d/s"));
    }

    #[test]
    fn a_relative_root_is_refused() {
        let arguments = Arguments { root: Some("here".into()), ..Arguments::default() };
        assert!(Config::load(&arguments).is_err());
    }
}
