//! What the files say, in memory: rebuilt at every start, and changed only after the files were.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde::de::DeserializeOwned;

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Finding, Image};
use crate::records::{CacheRecord, ImageRecord, LayerFile, LayerKey, TagRecord, VERSION, Versioned};
use crate::reference::Reference;

/// What a lease holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    Image(ImageId),
    Layer(LayerKey),
    Blob(Digest),
}

/// An image and its parsed configuration.
#[derive(Clone, Debug)]
pub(crate) struct IndexedImage {
    pub(crate) record: ImageRecord,
    pub(crate) config: ImageConfiguration,
    pub(crate) config_size: u64,
    /// The count at which it was last made, named or pulled.
    pub(crate) touched: u64,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Counts what is made, named and pulled, so that a prune knows what has come since it began.
    pub(crate) count: u64,
    pub(crate) images: BTreeMap<ImageId, IndexedImage>,
    pub(crate) tags: BTreeMap<Reference, ImageId>,
    pub(crate) layers: HashMap<LayerKey, LayerFile>,
    /// Layers that are unpacked but not yet synced and recorded.
    pub(crate) placed: HashMap<LayerKey, LayerFile>,
    pub(crate) cache: HashMap<Digest, CacheRecord>,
    pub(crate) leases: HashMap<Held, usize>,
    /// Layers that a check found damaged: nothing builds on them, and a pull replaces them.
    pub(crate) suspect: HashSet<LayerKey>,
    /// Images whose configuration could not be read.
    pub(crate) unreadable: BTreeMap<ImageId, ImageRecord>,
    /// What could not be read; while there is any, nothing is collected.
    pub(crate) damaged: Vec<Finding>,
}

/// Where the store's parts are.
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

impl Index {
    /// Reads every record. What can't be understood is noted and stays where it is.
    pub(crate) fn read(places: &Places) -> Result<Self> {
        let mut index = Self::default();
        for (name, path) in entries(&places.folder("layers"))? {
            if let (Ok(key), Some(layer)) = (name.parse(), index.record::<LayerFile>(&path.join("record"))) {
                index.layers.insert(key, layer);
            }
        }
        for (_, path) in entries(&places.folder("images"))? {
            let Some(record) = index.record::<ImageRecord>(&path) else { continue };
            match read_config(&places.blob(&record.id.0)) {
                Ok((config, config_size)) => {
                    let image = IndexedImage { record, config, config_size, touched: 0 };
                    index.images.insert(image.record.id, image);
                }
                Err(error) => {
                    index.note(path, &error);
                    index.unreadable.insert(record.id, record);
                }
            }
        }
        for (_, path) in entries(&places.folder("refs"))? {
            if let Some(tag) = index.record::<TagRecord>(&path) {
                index.tags.insert(tag.name, tag.image);
            }
        }
        for (name, path) in entries(&places.folder("build-cache"))? {
            if let (Ok(key), Some(entry)) = (Digest::from_hex(&name), index.record::<CacheRecord>(&path)) {
                index.cache.insert(key, entry);
            }
        }
        Ok(index)
    }

    fn record<T: DeserializeOwned + Versioned>(&mut self, path: &Path) -> Option<T> {
        match durable::read_record::<T>(path) {
            Ok(Some(record)) if record.version() != VERSION => {
                let reason = format!("it has version {}, this program reads {VERSION}", record.version());
                self.note(path.to_path_buf(), &Error::Corrupt { path: path.to_path_buf(), reason });
                None
            }
            Ok(record) => record,
            Err(error) => {
                self.note(path.to_path_buf(), &error);
                None
            }
        }
    }

    /// Notes that an image was made, named or pulled just now.
    pub(crate) fn touch(&mut self, id: &ImageId) {
        self.count += 1;
        if let Some(image) = self.images.get_mut(id) {
            image.touched = self.count;
        }
    }

    /// Whether a prune that began at this count takes an image: nothing has made or named it since, nothing has a lease
    /// on it, and it has no name or names don't count.
    pub(crate) fn is_unwanted(&self, id: &ImageId, began: u64, named_too: bool) -> bool {
        let old = self.images.get(id).is_some_and(|image| image.touched <= began);
        let leased = self.leases.contains_key(&Held::Image(*id));
        old && !leased && (named_too || !self.tags.values().any(|tagged| tagged == id))
    }

    /// A record was written, whatever was there before.
    pub(crate) fn healed(&mut self, path: &Path) {
        self.damaged.retain(|finding| finding.path != path);
    }

    fn note(&mut self, path: PathBuf, error: &Error) {
        tracing::warn!(%error, "a record of the image store can't be used; it is kept and nothing is collected");
        self.damaged.push(Finding { path, problem: error.to_string(), mended: false });
    }

    /// Where these layers, bottom first, are.
    pub(crate) fn keys(&self, layers: &[DiffId]) -> Result<Vec<LayerKey>> {
        let chain = ChainId::of(layers);
        layers
            .iter()
            .zip(chain)
            .map(|(layer, chain)| {
                let keys = [LayerKey::Diff(*layer), LayerKey::Chain(chain)];
                let here = |key: &LayerKey| self.layers.contains_key(key) && !self.suspect.contains(key);
                let key = keys.into_iter().find(here);
                key.ok_or_else(|| Error::LayerMissing { layer: layer.to_string() })
            })
            .collect()
    }

    /// Both names that each of these layers may have.
    pub(crate) fn candidates(layers: &[DiffId]) -> impl Iterator<Item = LayerKey> {
        let chain = ChainId::of(layers).into_iter().map(LayerKey::Chain);
        layers.iter().copied().map(LayerKey::Diff).chain(chain)
    }

    /// An image as callers see it.
    pub(crate) fn image(&self, id: &ImageId) -> Option<Image> {
        let image = self.images.get(id)?;
        let tags: Vec<Reference> =
            self.tags.iter().filter(|(_, tagged)| *tagged == id).map(|(tag, _)| tag.clone()).collect();
        let mut digests: Vec<String> = image
            .record
            .manifests
            .iter()
            .map(|manifest| format!("{}@{}", manifest.name, manifest.target))
            .collect();
        digests.sort();
        digests.dedup();
        let keys = self.keys(&image.record.layers).unwrap_or_default();
        let bytes: u64 = keys.iter().filter_map(|key| self.layers.get(key)).map(|layer| layer.bytes).sum();
        Some(Image {
            id: *id,
            pinned: image.record.built && !tags.is_empty(),
            tags,
            digests,
            size: bytes + image.config_size,
            config: image.config.clone(),
            layers: image.record.layers.clone(),
        })
    }

    /// The image of a name, in any of its forms.
    pub(crate) fn find(&self, name: &str) -> Result<ImageId> {
        let missing = || Error::ImageMissing { name: name.to_owned() };
        let known = |id: ImageId| self.images.contains_key(&id).then_some(id).ok_or_else(missing);
        if let Ok(digest) = name.parse().or_else(|_| Digest::from_hex(name)) {
            return known(ImageId(digest));
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if let Ok(reference) = Reference::parse(name) {
            if let Some(found) = self.find_reference(&reference) {
                return Ok(found);
            }
        } else if !name.starts_with("sha256:") {
            return Err(Reference::parse(name).err().unwrap_or_else(missing));
        }
        if prefix.is_empty() || !prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(missing());
        }
        let fits: Vec<&ImageId> = self.images.keys().filter(|id| id.hex().starts_with(prefix)).collect();
        match fits.as_slice() {
            [] => Err(missing()),
            [id] => Ok(**id),
            several => Err(Error::AmbiguousId { name: name.to_owned(), count: several.len() }),
        }
    }

    fn find_reference(&self, reference: &Reference) -> Option<ImageId> {
        let Some(digest) = reference.digest() else {
            return self.tags.get(reference).copied().filter(|id| self.images.contains_key(id));
        };
        let name = reference.name();
        let leads = |image: &&IndexedImage| {
            let mut manifests = image.record.manifests.iter();
            manifests.any(|one| one.name == name && (one.target == digest || one.manifest == digest))
        };
        self.images.values().find(leads).map(|image| image.record.id)
    }

    /// Everything that images, the build cache and leases reach.
    pub(crate) fn reachable(&self) -> HashSet<Held> {
        let mut held: HashSet<Held> = self.leases.keys().copied().collect();
        let lists = self.images.values().map(|image| &image.record.layers);
        for layers in lists.chain(self.cache.values().map(|entry| &entry.layers)) {
            // Both names of each layer: a directory that is not needed under one of them does not exist under it.
            held.extend(Self::candidates(layers).map(Held::Layer));
        }
        for image in self.images.values() {
            held.insert(Held::Blob(image.record.id.0));
            for manifest in &image.record.manifests {
                held.extend([Held::Blob(manifest.target), Held::Blob(manifest.manifest)]);
            }
            let keys = self.keys(&image.record.layers).unwrap_or_default();
            let layers = keys.iter().filter_map(|key| self.layers.get(key));
            held.extend(layers.flat_map(|layer| &layer.compressed).map(|one| Held::Blob(one.digest)));
        }
        held
    }
}

/// Reads an image's configuration.
pub(crate) fn read_config(path: &Path) -> Result<(ImageConfiguration, u64)> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Corrupt { path: path.to_path_buf(), reason: error.to_string() })?;
    Ok((config, bytes.len() as u64))
}

/// The names and paths in a folder, but for unfinished writes.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !durable::is_temporary(&name) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
