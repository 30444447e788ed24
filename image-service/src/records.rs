//! The content of the store's files. All are records with a version; an unknown version is reported and kept.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use slipway_disk::atomic::Durability;
use slipway_disk::record::Kind;
use slipway_reference::Reference;

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::Error;

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// A record of the store.
pub(crate) trait Stored {
    /// The properties that all of its kind share.
    const KIND: Kind;

    /// The name that the record at a path is bound to: the file's, or its directory's.
    fn name(path: &Path) -> String;

    /// The version that it was written with.
    fn version(&self) -> u32;

    /// Whether the record of this name can say what this one does.
    fn fits(&self, name: &str) -> bool;

    /// Why the record of this name can't be used, if so.
    fn refusal(&self, name: &str) -> Option<String> {
        if self.version() != VERSION {
            return Some(format!("it has version {}, this program reads {VERSION}", self.version()));
        }
        (!self.fits(name)).then(|| "it is the record of something else, under this name".to_owned())
    }
}

const fn kind(name: &'static str) -> Kind {
    Kind { name, most: 16 << 20, durability: Durability::PowerCut, once_plain: true }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
    /// The object that was asked for: an index or the manifest itself.
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

/// `build-cache/<key>`: the layers that a build step has led to, and what the builder keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheRecord {
    pub(crate) version: u32,
    pub(crate) layers: Vec<DiffId>,
    pub(crate) value: Vec<u8>,
}

macro_rules! stored {
    ($($record:ident $word:literal $of:expr, $fits:expr;)*) => {
        $(impl Stored for $record {
            const KIND: Kind = kind($word);

            fn name(path: &Path) -> String {
                let of: fn(&Path) -> &Path = $of;
                file_name(of(path))
            }

            fn version(&self) -> u32 {
                self.version
            }

            fn fits(&self, name: &str) -> bool {
                let fits: fn(&Self, &str) -> bool = $fits;
                fits(self, name)
            }
        })*
    };
}
stored! {
    ImageRecord "image" |path| path, |record, name| record.id.hex() == name;
    TagRecord "tag" |path| path, |record, name| Digest::of(record.name.to_string().as_bytes()).hex() == name;
    LayerFile "layer" |path| path.parent().unwrap_or(path), |record, name| record.is_of(name);
    CacheRecord "build-step" |path| path, |_, _| true;
}

impl LayerFile {
    /// Whether a directory of this name can hold it: only that of a layer that took nothing from below names its tar.
    fn is_of(&self, name: &str) -> bool {
        !matches!(name.parse(), Ok(LayerKey::Diff(id)) if id != self.diff_id)
    }
}

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
        Ok(match text.strip_prefix("chain-") {
            Some(hex) => Self::Chain(ChainId(Digest::from_hex(hex)?)),
            None => Self::Diff(DiffId(Digest::from_hex(text)?)),
        })
    }
}
