//! The store's face: every operation on images, each one line to the module that does it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;

use crate::credentials::Credentials;
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::image::{
    Finding, Image, LayerRecord, PruneOptions, Pruned, PullProgress, Removed, Snapshot, Usage,
};
use crate::reference::Reference;

/// Where the store is and how it behaves.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The root, `/var/lib/slipway`.
    pub root: PathBuf,
    /// Registry hosts and mirrors in containerd's `certs.d` layout.
    pub hosts_dir: Option<PathBuf>,
    /// Keep compressed layers after they are unpacked.
    pub keep_blobs: bool,
    /// What a layer may be.
    pub limits: Limits,
    /// How many layers are fetched and unpacked at once.
    pub parallel_layers: usize,
    /// Speak plain HTTP to registries on loopback addresses.
    pub plain_http_loopback: bool,
}

impl StoreConfig {
    /// The defaults for a root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            hosts_dir: None,
            keep_blobs: false,
            limits: Limits::default(),
            parallel_layers: 4,
            plain_http_loopback: true,
        }
    }
}

/// What a layer may be; more is refused with the numbers.
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

/// Keeps what it was taken for from being collected while it, or a clone of it, lives.
#[derive(Clone, Debug)]
pub struct Lease(#[expect(dead_code, reason = "held for its drop")] Arc<()>);

/// The image store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<StoreConfig>,
}

impl Store {
    /// Opens the store, creating it where it is absent, and reads its records into memory.
    pub fn open(config: StoreConfig) -> Result<Self> {
        Ok(Self { shared: Arc::new(config) })
    }

    fn unfinished<T>(&self) -> Result<T> {
        Err(Error::StoreBusy { path: self.shared.root.clone() })
    }

    /// Every image, sorted by id.
    pub fn images(&self) -> Vec<Image> {
        Vec::new()
    }

    /// The image of a tag, `name@digest`, id or unique prefix of an id.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        Err(Error::ImageMissing { name: name.to_owned() })
    }

    /// Pulls an image and tags it with the reference. Two pulls of one image are one piece of work.
    pub async fn pull(
        &self,
        _reference: &Reference,
        _credentials: &Credentials,
        _progress: &(dyn Fn(PullProgress) + Sync),
    ) -> Result<Image> {
        self.unfinished()
    }

    /// Pushes the image that has this tag here; the manifest's digest is returned.
    pub async fn push(
        &self,
        _reference: &Reference,
        _credentials: &Credentials,
        _progress: &(dyn Fn(PullProgress) + Sync),
    ) -> Result<Digest> {
        self.unfinished()
    }

    /// Gives an image a name, taking it from the image that had it.
    pub fn tag(&self, _image: &ImageId, _name: &Reference) -> Result<()> {
        self.unfinished()
    }

    /// Takes a name away; the image stays until it is pruned.
    pub fn untag(&self, _name: &Reference) -> Result<()> {
        self.unfinished()
    }

    /// Removes the image with all its names. One that is not here is `ImageMissing`, one that is leased `ImageInUse`.
    pub fn remove(&self, _name: &str) -> Result<Removed> {
        self.unfinished()
    }

    /// Removes images that nothing names, or all that nothing uses, then collects garbage.
    pub fn prune(&self, _options: PruneOptions) -> Result<Pruned> {
        self.unfinished()
    }

    /// Removes what nothing reaches; returns the bytes given back.
    pub fn collect(&self) -> Result<u64> {
        self.unfinished()
    }

    /// What the store takes, from its records.
    pub fn usage(&self) -> Result<Usage> {
        self.unfinished()
    }

    /// Verifies every object and layer.
    pub fn check(&self) -> Result<Vec<Finding>> {
        self.unfinished()
    }

    /// Keeps an image's layers while the lease lives.
    pub fn lease(&self, _image: &ImageId) -> Result<Lease> {
        self.unfinished()
    }

    /// Keeps layers while the lease lives; `LayerMissing` when one is not here.
    pub fn lease_layers(&self, _layers: &[DiffId]) -> Result<Lease> {
        self.unfinished()
    }

    /// An image's layers for who mounts them.
    pub fn snapshot(&self, _image: &ImageId) -> Result<Snapshot> {
        self.unfinished()
    }

    /// The snapshot of these layers, bottom first (an unfinished build's).
    pub fn lowers(&self, _layers: &[DiffId]) -> Result<Snapshot> {
        self.unfinished()
    }

    /// Makes a layer of an overlayfs upper directory that is no longer mounted; `parents` are the layers below it.
    pub fn commit_layer(&self, _upper: &Path, _parents: &[DiffId]) -> Result<LayerRecord> {
        self.unfinished()
    }

    /// Makes a layer of an uncompressed tar that lies on `parents`.
    pub fn import_layer(&self, _tar: impl Read + Send, _parents: &[DiffId]) -> Result<LayerRecord> {
        self.unfinished()
    }

    /// Writes a layer's exact tar and verifies its diff id.
    pub fn layer_tar(&self, _layer: &DiffId, _writer: &mut dyn Write) -> Result<()> {
        self.unfinished()
    }

    /// Makes an image of a configuration and layers; the configuration's diff ids are set from `layers`.
    pub fn commit_image(
        &self,
        _config: &ImageConfiguration,
        _layers: &[DiffId],
        _names: &[Reference],
    ) -> Result<Image> {
        self.unfinished()
    }

    /// What the build cache holds for a step.
    pub fn cache_get(&self, _key: &Digest) -> Option<Vec<u8>> {
        None
    }

    /// Puts a step's result into the build cache; its layers are kept until `prune` with `all`.
    pub fn cache_put(&self, _key: &Digest, _layers: &[DiffId], _value: &[u8]) -> Result<()> {
        self.unfinished()
    }
}
