//! The index at the opening of the store: every record is read. One that is damaged is made again where the rest of the store
//! says what it was; else it is noted, with what it may hide.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use slipway_reference::Reference;

use super::{Damaged, Held, Hides, Index, IndexedImage};
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable;
use crate::error::Error;
use crate::image::Finding;
use crate::places::{Places, entries};
use crate::records::{CacheRecord, ImageRecord, LayerFile, ManifestRecord, Stored, TagRecord, VERSION};
use crate::registry::Document;

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
        match (damage, durable::read_config(&blob)) {
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

    fn record<T: DeserializeOwned + Stored>(&mut self, path: &Path, hides: Hides) -> Option<T> {
        durable::read_record::<T>(path).unwrap_or_else(|error| {
            self.note(path.to_path_buf(), &error, hides);
            None
        })
    }

    fn note(&mut self, path: PathBuf, error: &Error, hides: Hides) {
        tracing::error!(%error, "damaged: slipway check says what to do, the rest of the image store works");
        let problem = error.to_string();
        self.damaged.push(Damaged { finding: Finding { path, problem, mended: false }, hides });
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
}

/// An image made again from its configuration, which says its layers, and from the manifests here that lead to it.
fn rebuilt(places: &Places, tags: &BTreeMap<Reference, ImageId>, id: &ImageId) -> Option<IndexedImage> {
    let path = places.blob(&id.0);
    let bytes = durable::read_object(&path).ok()?;
    if Digest::of(&bytes) != id.0 {
        return None;
    }
    let (config, config_size) = durable::read_config(&path).ok()?;
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
