//! The records in memory: rebuilt at every start, and changed only after the files were.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use oci_spec::image::ImageConfiguration;
use slipway_reference::Reference;

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::image::{Finding, Image};
use crate::records::{CacheRecord, ImageRecord, LayerFile, LayerKey};

mod read;

/// An object that a lease holds.
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
    /// The records that could not be read when the store was opened.
    pub(crate) damaged: Vec<Damaged>,
    /// The images and objects that were here then, to which a damaged record may refer.
    pub(crate) suspected: Suspected,
}

/// A record that could not be read when the store was opened.
#[derive(Clone, Debug)]
pub(crate) struct Damaged {
    pub(crate) finding: Finding,
    pub(crate) hides: Hides,
}

/// The facts that can't be known while a record is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hides {
    /// Nothing that a collection has to know: a cache, or what other records say too.
    Nothing,
    /// Which layers and objects an image has: all that were here when the store was opened are kept.
    Layers,
    /// Which image a name gives: all that were here when the store was opened count as named.
    Name,
}

/// The images and objects that were here when the store was opened with damaged records.
#[derive(Debug, Default)]
pub(crate) struct Suspected {
    pub(crate) held: HashSet<Held>,
    pub(crate) images: BTreeSet<ImageId>,
}

impl Index {
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

    /// A record was written or removed, whatever was there before.
    pub(crate) fn healed(&mut self, path: &Path) {
        self.damaged.retain(|damaged| damaged.finding.path != path);
    }

    /// Whether a record that is damaged still hides such a thing.
    pub(crate) fn hides(&self, what: Hides) -> bool {
        self.damaged.iter().any(|damaged| damaged.hides == what)
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
