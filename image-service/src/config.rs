//! The configuration of the store.

use std::path::PathBuf;
use std::time::Duration;

/// The place of the store and how it behaves.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The root, `/var/lib/slipway`.
    pub root: PathBuf,
    /// Folders of registry hosts and mirrors in containerd's `certs.d` layout; the first that has a registry counts.
    pub hosts_dirs: Vec<PathBuf>,
    /// Keep compressed layers after they are unpacked.
    pub keep_blobs: bool,
    /// The limits of a layer.
    pub limits: Limits,
    /// How many layers are fetched and unpacked at once.
    pub parallel_layers: usize,
    /// Speak plain HTTP to registries on loopback addresses.
    pub plain_http_loopback: bool,
    /// For how long a registry or mirror may send nothing, or take nothing of a push, before it is given up.
    pub registry_silence: Duration,
}

impl StoreConfig {
    /// The defaults for a root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            hosts_dirs: Vec::new(),
            keep_blobs: false,
            limits: Limits::default(),
            parallel_layers: 4,
            plain_http_loopback: true,
            registry_silence: Duration::from_secs(30),
        }
    }
}

/// The limits of a layer; more is refused with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one layer's tar.
    pub max_entries: u64,
    /// Bytes of one layer's tar.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_entries: 2_000_000, max_bytes: 64 << 30 }
    }
}
