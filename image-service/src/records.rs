//! What the store's files say. All are JSON with a version; an unknown version is reported and kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::Error;
use crate::reference::Reference;

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// A record that carries its version.
pub(crate) trait Versioned {
    /// The version that it was written with.
    fn version(&self) -> u32;
}

/// `images/<id>`: an image that exists until it is removed or pruned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) id: ImageId,
    pub(crate) layers: Vec<DiffId>,
    pub(crate) manifests: Vec<ManifestRecord>,
    /// Made here, so that nothing can bring it back.
    pub(crate) built: bool,
}

/// A manifest that leads to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestRecord {
    /// The repository, domain and path.
    pub(crate) name: String,
    /// What was asked for: an index or the manifest itself.
    pub(crate) target: Digest,
    /// The manifest.
    pub(crate) manifest: Digest,
}

/// `refs/<sha256 of the name>`: a tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TagRecord {
    pub(crate) version: u32,
    pub(crate) name: Reference,
    pub(crate) image: ImageId,
}

/// `layers/<key>/record`: a layer that is complete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerFile {
    pub(crate) version: u32,
    pub(crate) diff_id: DiffId,
    /// The size of its tar.
    pub(crate) size: u64,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) kept: u64,
    /// Compressed forms that registries have or had, the last used first.
    pub(crate) compressed: Vec<Compressed>,
}

/// A compressed form of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compressed {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// `build-cache/<key>`: the layers that an entry keeps, and the builder's own value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheRecord {
    pub(crate) version: u32,
    pub(crate) layers: Vec<DiffId>,
    pub(crate) value: Vec<u8>,
}

macro_rules! versioned {
    ($($name:ident),*) => {
        $(impl Versioned for $name {
            fn version(&self) -> u32 {
                self.version
            }
        })*
    };
}
versioned!(ImageRecord, TagRecord, LayerFile, CacheRecord);

/// The name of a layer's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LayerKey {
    /// A layer that depends on its tar alone.
    Diff(DiffId),
    /// A layer that took something from what lies below.
    Chain(ChainId),
}

impl fmt::Display for LayerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diff(id) => formatter.write_str(&id.hex()),
            Self::Chain(id) => write!(formatter, "chain-{}", id.hex()),
        }
    }
}

impl FromStr for LayerKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("chain-") {
            Some(hex) => Digest::from_hex(hex).map(|digest| Self::Chain(ChainId(digest))),
            None => Digest::from_hex(text).map(|digest| Self::Diff(DiffId(digest))),
        }
    }
}
