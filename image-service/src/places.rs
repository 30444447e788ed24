//! The layout of the store: the folders and files under its root.

use std::fs;
use std::path::{Path, PathBuf};

use slipway_reference::Reference;

use crate::digest::{Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::records::LayerKey;

/// The paths of the store's parts.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) root: PathBuf,
}

impl Places {
    pub(crate) const FOLDERS: [&'static str; 8] =
        ["blobs/sha256", "blobs/partial", "layers", "images", "refs", "build-cache", "drafts", "trash"];

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/partial").join(digest.hex())
    }

    pub(crate) fn layer(&self, key: &LayerKey) -> PathBuf {
        self.root.join("layers").join(key.to_string())
    }

    pub(crate) fn image(&self, id: &ImageId) -> PathBuf {
        self.root.join("images").join(id.hex())
    }

    pub(crate) fn tag(&self, name: &Reference) -> PathBuf {
        self.root.join("refs").join(Digest::of(name.to_string().as_bytes()).hex())
    }

    pub(crate) fn cache(&self, key: &Digest) -> PathBuf {
        self.root.join("build-cache").join(key.hex())
    }
}

/// The names and paths in a folder, but for unfinished writes and files that were set aside.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !durable::is_temporary(&name) && !durable::is_aside(&name) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
