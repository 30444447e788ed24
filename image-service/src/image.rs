//! Images, layers and findings as callers of the store see them.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use slipway_reference::Reference;

use crate::digest::{DiffId, ImageId};
use crate::lease::Lease;

/// An image that is complete in the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Its names, sorted.
    pub tags: Vec<Reference>,
    /// The manifests it was pulled or pushed by, as `name@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes on disk, layers that other images share included.
    pub size: u64,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Its layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Built here and tagged: an automatic collection must not take it, for nothing can bring it back.
    pub pinned: bool,
}

/// An image that stays in the store while the lease lives.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The image as it was when the lease was taken.
    pub image: Image,
    /// Keeps it.
    pub lease: Lease,
}

/// The layers of an image as data for who mounts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The layers to stack, topmost first.
    pub lowers: Vec<Lower>,
}

/// One lower of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lower {
    /// A directory in overlayfs form: whiteouts are 0:0 character devices.
    Directory(PathBuf),
}

/// A layer in the store. While it lives, the layer is not collected.
#[derive(Clone, Debug)]
pub struct LayerRecord {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// The size of its tar.
    pub size: u64,
    /// Keeps the layer until an image or a cache entry names it.
    pub lease: Lease,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers of the image.
    pub layers: usize,
    /// Layers that are in the store.
    pub layers_done: usize,
    /// Compressed bytes to fetch.
    pub bytes: u64,
    /// Compressed bytes fetched.
    pub bytes_done: u64,
}

/// The outcome of `remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub untagged: Vec<Reference>,
    /// The image, when it is gone too.
    pub deleted: Option<ImageId>,
    /// Bytes given back.
    pub bytes: u64,
}

/// The choice of images that `prune` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Every image that no lease holds, tagged or not, and the whole build cache; otherwise only untagged images and
    /// garbage.
    pub all: bool,
}

/// The outcome of `prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The images that are gone.
    pub images: Vec<ImageId>,
    /// Bytes given back.
    pub bytes: u64,
}

/// The disk space that the store takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// The store's root.
    pub path: PathBuf,
}

/// Something that `check` found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// The fault, and advice.
    pub problem: String,
    /// It is well again.
    pub mended: bool,
}

/// The outcome of `check` and `mend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The faults that are there, or were.
    pub findings: Vec<Finding>,
    /// How many objects, layers, images and tags were looked at.
    pub objects: u64,
}
