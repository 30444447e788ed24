//! What the files say, in memory: rebuilt at every start, and changed only after the files were.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde::de::DeserializeOwned;
use slipway_reference::Reference;

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Finding, Image};
use crate::records::{
    CacheRecord, ImageRecord, LayerFile, LayerKey, ManifestRecord, Stored, TagRecord, VERSION,
};
use crate::registry::Document;

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
    /// Images of which no more than the id is known: neither their record nor their configuration can be read.
    pub(crate) lost: BTreeSet<ImageId>,
    /// What could not be read when the store was opened.
    pub(crate) damaged: Vec<Damaged>,
    /// What was here then, and may be what a damaged record refers to.
    pub(crate) suspected: Suspected,
}

/// A record that could not be read when the store was opened.
#[derive(Clone, Debug)]
pub(crate) struct Damaged {
    pub(crate) finding: Finding,
    pub(crate) hides: Hides,
}

/// What can't be known while a record is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hides {
    /// Nothing that a collection has to know: a cache, or what other records say too.
    Nothing,
    /// Which layers and objects an image has: all that were here when the store was opened are kept.
    Layers,
    /// Which image a name gives: all that were here when the store was opened count as named.
    Name,
}

/// What was here when the store was opened with damaged records.
#[derive(Debug, Default)]
pub(crate) struct Suspected {
    pub(crate) held: HashSet<Held>,
    pub(crate) images: BTreeSet<ImageId>,
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
    /// Reads every record. What can't be understood is made again where the rest of the store says what it was; else it
    /// is noted and stays where it is.
    pub(crate) fn read(places: &Places) -> Self {
        let mut index = Self::default();
        for (name, path) in index.listed(places, "layers") {
            let Ok(key) = name.parse() else { continue };
            if let Some(layer) = index.record::<LayerFile>(&path.join("record"), Hides::Nothing) {
                index.layers.insert(key, layer);
            }
        }
        for (_, path) in index.listed(places, "refs") {
            if let Some(tag) = index.record::<TagRecord>(&path, Hides::Name) {
                index.tags.insert(tag.name, tag.image);
            }
        }
        for (name, path) in index.listed(places, "images") {
            let Ok(id) = Digest::from_hex(&name).map(ImageId) else { continue };
            index.image_at(places, id, &path);
        }
        index.restore_named(places);
        for (name, path) in index.listed(places, "build-cache") {
            let Ok(key) = Digest::from_hex(&name) else { continue };
            if let Some(entry) = index.record::<CacheRecord>(&path, Hides::Nothing) {
                index.cache.insert(key, entry);
            }
        }
        index.suspect_what_is_here(places);
        index
    }

    /// The entries of a folder; one that can't be read hides everything.
    fn listed(&mut self, places: &Places, folder: &str) -> Vec<(String, PathBuf)> {
        let path = places.folder(folder);
        entries(&path).unwrap_or_else(|error| {
            self.note(path, &error, Hides::Layers);
            Vec::new()
        })
    }

    fn image_at(&mut self, places: &Places, id: ImageId, path: &Path) {
        let (blob, damage) = (places.blob(&id.0), durable::read_record::<ImageRecord>(path));
        match (damage, read_config(&blob)) {
            (Ok(None), _) => {}
            (Ok(Some(record)), Ok((config, config_size))) => {
                self.images.insert(id, IndexedImage { record, config, config_size, touched: 0 });
            }
            (Ok(Some(record)), Err(error)) => {
                self.note(blob, &error, Hides::Nothing);
                self.unreadable.insert(id, record);
            }
            (Err(error), _) => match rebuilt(places, &self.tags, &id) {
                Some(image) => self.restored(id, image, path, &error.to_string()),
                None => {
                    self.note(path.to_path_buf(), &error, Hides::Layers);
                    self.lost.insert(id);
                }
            },
        }
    }

    /// Images that a name gives and that have no record: it is removed after the names, so that it was lost.
    fn restore_named(&mut self, places: &Places) {
        let named: BTreeSet<ImageId> = self.tags.values().copied().collect();
        for id in named {
            let known = self.images.contains_key(&id) || self.unreadable.contains_key(&id);
            if known || self.lost.contains(&id) {
                continue;
            }
            let whole = |image: &IndexedImage| self.keys(&image.record.layers).is_ok();
            if let Some(image) = rebuilt(places, &self.tags, &id).filter(whole) {
                self.restored(id, image, &places.image(&id), "it was absent while a name gave it");
            }
        }
    }

    /// An image's record was made again from its configuration.
    fn restored(&mut self, id: ImageId, image: IndexedImage, path: &Path, reason: &str) {
        let written = durable::write_record(path, &image.record);
        tracing::warn!(image = %id, reason, "the record of an image was made again from its configuration");
        if let Err(error) = written {
            tracing::warn!(%error, "it is not on disk");
        }
        let problem = format!("{reason}; it was made again from the image's configuration");
        let finding = Finding { path: path.to_path_buf(), problem, mended: true };
        self.damaged.push(Damaged { finding, hides: Hides::Nothing });
        self.images.insert(id, image);
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
        old && !leased && (named_too || !self.is_named(id))
    }

    fn record<T: DeserializeOwned + Stored>(&mut self, path: &Path, hides: Hides) -> Option<T> {
        durable::read_record::<T>(path).unwrap_or_else(|error| {
            self.note(path.to_path_buf(), &error, hides);
            None
        })
    }

    /// A record was written or removed, whatever was there before.
    pub(crate) fn healed(&mut self, path: &Path) {
        self.damaged.retain(|damaged| damaged.finding.path != path);
    }

    fn note(&mut self, path: PathBuf, error: &Error, hides: Hides) {
        tracing::error!(%error, "damaged: slipway check says what to do, the rest of the image store works");
        let problem = error.to_string();
        self.damaged.push(Damaged { finding: Finding { path, problem, mended: false }, hides });
    }

    /// Whether a record that is damaged still hides such a thing.
    pub(crate) fn hides(&self, what: Hides) -> bool {
        self.damaged.iter().any(|damaged| damaged.hides == what)
    }

    /// Notes what is here, for damaged records may refer to any of it; what comes later they can't know.
    fn suspect_what_is_here(&mut self, places: &Places) {
        if self.hides(Hides::Layers) {
            let layers = entries(&places.folder("layers")).unwrap_or_default();
            let blobs = entries(&places.folder("blobs/sha256")).unwrap_or_default();
            let layers = layers.iter().filter_map(|(name, _)| name.parse().ok().map(Held::Layer));
            let blobs = blobs.iter().filter_map(|(name, _)| Digest::from_hex(name).ok().map(Held::Blob));
            self.suspected.held = layers.chain(blobs).collect();
        }
        if self.hides(Hides::Name) {
            self.suspected.images = self.images.keys().copied().collect();
        }
    }

    /// Whether an image has a name, or may have one that a damaged record gives.
    pub(crate) fn is_named(&self, id: &ImageId) -> bool {
        self.tags.values().any(|tagged| tagged == id)
            || self.suspected.images.contains(id) && self.hides(Hides::Name)
    }

    /// A damaged image by its id, the beginning of one, or a name that gives it.
    pub(crate) fn find_damaged(&self, name: &str) -> Option<ImageId> {
        let damaged = || self.unreadable.keys().chain(&self.lost);
        if let Ok(reference) = Reference::parse(name) {
            let leads = |record: &&ImageRecord| {
                let mut manifests = record.manifests.iter();
                let digest = reference.digest();
                manifests.any(|one| {
                    one.name == reference.name()
                        && (Some(one.target) == digest || Some(one.manifest) == digest)
                })
            };
            let tagged = self.tags.get(&reference).copied().filter(|id| damaged().any(|one| one == id));
            let found = tagged.or_else(|| self.unreadable.values().find(leads).map(|record| record.id));
            if found.is_some() {
                return found;
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let mut fits = damaged().filter(|id| !prefix.is_empty() && id.hex().starts_with(prefix));
        fits.next().copied().filter(|_| fits.next().is_none())
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
            return Err(Reference::parse(name).err().map_or_else(missing, Error::from));
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
        if self.hides(Hides::Layers) {
            held.extend(self.suspected.held.iter().copied());
        }
        let records = || self.images.values().map(|image| &image.record).chain(self.unreadable.values());
        let lists = records().map(|record| &record.layers);
        for layers in lists.chain(self.cache.values().map(|entry| &entry.layers)) {
            // Both names of each layer: a directory that is not needed under one of them does not exist under it.
            held.extend(Self::candidates(layers).map(Held::Layer));
        }
        for record in records() {
            held.insert(Held::Blob(record.id.0));
            for manifest in &record.manifests {
                held.extend([Held::Blob(manifest.target), Held::Blob(manifest.manifest)]);
            }
            let keys = self.keys(&record.layers).unwrap_or_default();
            let layers = keys.iter().filter_map(|key| self.layers.get(key));
            held.extend(layers.flat_map(|layer| &layer.compressed).map(|one| Held::Blob(one.digest)));
        }
        held
    }
}

/// Reads an image's configuration.
pub(crate) fn read_config(path: &Path) -> Result<(ImageConfiguration, u64)> {
    let bytes = durable::read_object(path)?;
    let config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Corrupt { path: path.to_path_buf(), reason: error.to_string() })?;
    Ok((config, bytes.len() as u64))
}

/// An image made again from its configuration, which says its layers, and from the manifests here that lead to it.
fn rebuilt(places: &Places, tags: &BTreeMap<Reference, ImageId>, id: &ImageId) -> Option<IndexedImage> {
    let path = places.blob(&id.0);
    let bytes = durable::read_object(&path).ok()?;
    if Digest::of(&bytes) != id.0 {
        return None;
    }
    let (config, config_size) = read_config(&path).ok()?;
    let layers: Option<Vec<DiffId>> =
        config.rootfs().diff_ids().iter().map(|text| text.parse().ok()).collect();
    let names: BTreeSet<String> =
        tags.iter().filter(|(_, tagged)| *tagged == id).map(|(name, _)| name.name()).collect();
    let leading = manifests(places, id);
    let record = |name: &String, digest: &Digest| ManifestRecord {
        name: name.clone(),
        target: *digest,
        manifest: *digest,
    };
    let manifests: Vec<_> =
        names.iter().flat_map(|name| leading.iter().map(move |digest| record(name, digest))).collect();
    let built = leading.is_empty();
    let record = ImageRecord { version: VERSION, id: *id, layers: layers?, manifests, built };
    Some(IndexedImage { record, config, config_size, touched: 0 })
}

/// The manifests that name an image's configuration.
fn manifests(places: &Places, id: &ImageId) -> Vec<Digest> {
    let leads = |digest: &Digest| {
        let Ok(bytes) = durable::read_object(&places.blob(digest)) else { return false };
        let parsed = crate::registry::manifest::parse(&bytes, None);
        matches!(parsed, Ok(Document::Manifest(manifest)) if manifest.config.digest == id.0)
            && Digest::of(&bytes) == *digest
    };
    let blobs = entries(&places.folder("blobs/sha256")).unwrap_or_default();
    let digests = blobs.iter().filter_map(|(name, _)| Digest::from_hex(name).ok());
    digests.filter(|digest| *digest != id.0).filter(leads).collect()
}

/// The names and paths in a folder, but for unfinished writes and what was set aside.
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
