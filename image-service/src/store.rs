//! The store's face: every operation on images, each one line to the module that does it.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use slipway_disk::walker::{Remnants, Stop};
use slipway_disk::{Lock, atomic};
use slipway_reference::Reference;

use crate::config::StoreConfig;
use crate::credentials::Credentials;
use crate::digest::{DiffId, Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{
    Checked, Finding, Image, LayerRecord, Leased, Lower, PruneOptions, Pruned, PullProgress, Removed,
    Snapshot, Usage,
};
use crate::index::{Held, Index};
use crate::layer::{compression, tar};
use crate::lease::Lease;
use crate::places::Places;
use crate::pull::Pulls;
use crate::records::{CacheRecord, VERSION};
use crate::{check, gc, images, layers, pull, push};

/// The part of a store that its clones share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    pub(crate) places: Places,
    pub(crate) pulls: Pulls,
    /// The files that could not be removed.
    pub(crate) remnants: Remnants,
    index: Mutex<Index>,
    placing: Mutex<()>,
    naming: Mutex<()>,
    caching: Mutex<()>,
    /// Held for its lock: one process has the store.
    _lock: Lock,
}

impl Shared {
    /// The index; the lock is held for memory only, never across a system call.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a layer gets its name or loses it, so that a collection and a pull never mean different directories.
    pub(crate) fn placing(&self) -> MutexGuard<'_, ()> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while an image or a tag becomes known or is forgotten, so that no tag outlives its image.
    pub(crate) fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while an entry of the build cache is written or removed, so that its file and the index say the same.
    pub(crate) fn caching(&self) -> MutexGuard<'_, ()> {
        self.caching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

impl Store {
    /// Opens the store, creating it where it is absent, and reads its records into memory.
    pub fn open(config: StoreConfig) -> Result<Self> {
        let places = Places { root: config.root.clone() };
        create_private(&places.root)?;
        let lock = lock(&places.root)?;
        for folder in Places::FOLDERS {
            if let Some(aside) = create_private(&places.folder(folder))? {
                tracing::error!(aside = %aside.display(), "it stood where a directory belongs and was renamed");
            }
        }
        let remnants = Remnants::default();
        gc::clear_leftovers(&places, &remnants);
        for folder in Places::FOLDERS.iter().filter(|name| !matches!(**name, "drafts" | "trash")) {
            if let Err(error) = gc::remove_unfinished(&places.folder(folder), &remnants) {
                tracing::error!(%error, "unfinished writes stay");
            }
        }
        let index = Mutex::new(Index::read(&places));
        let pulls = Pulls::new(config.parallel_layers);
        let shared = Shared {
            config,
            places,
            pulls,
            remnants,
            index,
            placing: Mutex::new(()),
            naming: Mutex::new(()),
            caching: Mutex::new(()),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Every image, sorted by id.
    pub fn images(&self) -> Vec<Image> {
        let index = self.shared.index();
        index.images.keys().filter_map(|id| index.image(id)).collect()
    }

    /// The image of a tag, `name@digest`, id or unique prefix of an id.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let index = self.shared.index();
        index.image(&index.find(name)?).ok_or_else(|| Error::ImageMissing { name: name.to_owned() })
    }

    /// The image of a name, as [`Store::resolve`] finds it, with a lease on it: nothing comes between the two.
    pub fn hold(&self, name: &str) -> Result<Leased> {
        let mut index = self.shared.index();
        let missing = || Error::ImageMissing { name: name.to_owned() };
        let id = index.find(name)?;
        let image = index.image(&id).ok_or_else(missing)?;
        let lease = Lease::of_image(&self.shared, &mut index, &image);
        Ok(Leased { image, lease })
    }

    /// Pulls an image and tags it with the reference. Two pulls of one image are one piece of work. The lease lasts from
    /// before the image's record was written.
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        progress: &(dyn Fn(PullProgress) + Sync),
    ) -> Result<Leased> {
        pull::pull(&self.shared, reference, credentials, progress).await
    }

    /// Pushes the image that has this tag here; the manifest's digest is returned.
    pub async fn push(
        &self,
        reference: &Reference,
        credentials: &Credentials,
        progress: &(dyn Fn(PullProgress) + Sync),
    ) -> Result<Digest> {
        push::push(&self.shared, reference, credentials, progress).await
    }

    /// Gives an image a name, taking it from the image that had it.
    pub fn tag(&self, image: &ImageId, name: &Reference) -> Result<()> {
        images::tag(&self.shared, image, name)
    }

    /// Takes a name away; the image stays until it is pruned.
    pub fn untag(&self, name: &Reference) -> Result<()> {
        images::untag(&self.shared, name)
    }

    /// Removes the image with all its names. One that is not here is `ImageMissing`, one that is leased `ImageInUse`.
    pub fn remove(&self, name: &str) -> Result<Removed> {
        images::remove(&self.shared, name)
    }

    /// Removes images that nothing names, or all that nothing uses, then collects garbage. An image that was made, named
    /// or pulled after this began stays.
    pub fn prune(&self, options: PruneOptions) -> Result<Pruned> {
        images::prune(&self.shared, options)
    }

    /// Removes what nothing reaches; returns the bytes given back.
    pub fn collect(&self) -> Result<u64> {
        gc::collect(&self.shared)
    }

    /// The disk space that the store takes, from its records.
    pub fn usage(&self) -> Result<Usage> {
        let path = self.shared.places.root.clone();
        let index = self.shared.index();
        let images = index.images.values().map(|image| (image.config_size, 3));
        let layers = index.layers.values().map(|layer| (layer.bytes, layer.inodes + 4));
        let (bytes, inodes) =
            images.chain(layers).fold((0, 0), |sum: (u64, u64), one| (sum.0 + one.0, sum.1 + one.1));
        Ok(Usage { bytes, inodes, path })
    }

    /// Verifies every object and layer.
    pub fn check(&self) -> Result<Checked> {
        check::check(&self.shared)
    }

    /// Verifies every object and layer and mends what it can: what came from a registry is fetched again.
    pub async fn mend(&self) -> Result<Checked> {
        check::mend(&self.shared).await
    }

    /// Keeps an image's layers while the lease lives.
    pub fn lease(&self, image: &ImageId) -> Result<Lease> {
        let mut index = self.shared.index();
        let found = index.image(image).ok_or_else(|| Error::ImageMissing { name: image.to_string() })?;
        Ok(Lease::of_image(&self.shared, &mut index, &found))
    }

    /// Keeps the layers of these directories, as [`Snapshot`] names them, while the lease lives: for a container of which
    /// no more is known.
    pub fn lease_directories(&self, directories: &[PathBuf]) -> Lease {
        let name = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse().ok().map(Held::Layer);
        Lease::take(&self.shared, directories.iter().filter_map(name).collect())
    }

    /// Keeps every layer that is here while the lease lives: for a container of which not even its layers are known.
    pub fn lease_everything(&self) -> Lease {
        let mut index = self.shared.index();
        let held = index.layers.keys().copied().map(Held::Layer).collect();
        Lease::take_in(&self.shared, &mut index, held)
    }

    /// Records that were damaged when the store was opened, and still are or have been made whole.
    pub fn damaged(&self) -> Vec<Finding> {
        check::known(&self.shared)
    }

    /// Keeps layers while the lease lives; `LayerMissing` when one is not here.
    pub fn lease_layers(&self, layers: &[DiffId]) -> Result<Lease> {
        let mut index = self.shared.index();
        index.keys(layers)?;
        Ok(Lease::take_in(&self.shared, &mut index, layers::held(layers)))
    }

    /// An image's layers for who mounts them.
    pub fn snapshot(&self, image: &ImageId) -> Result<Snapshot> {
        let layers = self.shared.index().images.get(image).map(|image| image.record.layers.clone());
        self.lowers(&layers.ok_or_else(|| Error::ImageMissing { name: image.to_string() })?)
    }

    /// The snapshot of these layers, bottom first (an unfinished build's).
    pub fn lowers(&self, layers: &[DiffId]) -> Result<Snapshot> {
        let below = self.shared.below(layers)?;
        // overlayfs refuses one directory twice. All that the lower of two has, the upper has too, whiteouts included, so
        // the upper one alone says the same.
        let mut seen = BTreeSet::new();
        let once = below.layers.into_iter().filter(|path| seen.insert(path.clone()));
        Ok(Snapshot { lowers: once.map(Lower::Directory).collect() })
    }

    /// Makes a layer of an overlayfs upper directory that is no longer mounted, and takes the directory: it is gone
    /// afterwards (moved, or the layer was here already and the caller removes it). Its parents' metadata is in it, as
    /// overlayfs copies them up, so the layers below don't matter. It is given up with `Cancelled` once `stop` says so.
    pub fn commit_layer(&self, upper: &Path, stop: Stop<'_>) -> Result<LayerRecord> {
        layers::commit(&self.shared, upper, stop)
    }

    /// Makes a layer of a tar, plain or compressed by gzip or zstd, that lies on `parents`.
    pub fn import_layer(&self, tar: impl Read + Send, parents: &[DiffId]) -> Result<LayerRecord> {
        let plain = compression::decoder(BufReader::new(tar)).map_err(Error::io("read", "the given tar"))?;
        layers::import(&self.shared, plain, parents)
    }

    /// The directories that a tar, plain or compressed, has entries of its own for. A layer made of it also has those
    /// that its entries only need.
    ///
    /// # Errors
    /// When it is no tar, or has more entries or bytes than a layer may have.
    pub fn named_directories(&self, file: impl Read + Send) -> Result<BTreeSet<PathBuf>> {
        let plain = compression::decoder(BufReader::new(file)).map_err(Error::io("read", "the given tar"))?;
        let named = tar::directories(plain, self.shared.bounds());
        named.map_err(|failure| failure.for_layer("of the given tar"))
    }

    /// Writes a layer's exact tar and verifies its diff id.
    pub fn layer_tar(&self, layer: &DiffId, writer: &mut dyn Write) -> Result<()> {
        self.shared.layer_tar(layer, writer)
    }

    /// Makes an image of a configuration and layers; the configuration's diff ids are set from `layers`.
    pub fn commit_image(
        &self,
        config: &impl Serialize,
        layers: &[DiffId],
        names: &[Reference],
    ) -> Result<Image> {
        images::commit(&self.shared, config, layers, names)
    }

    /// An image's configuration as it was written, also with what the OCI's specification does not know.
    pub fn written_config(&self, image: &ImageId) -> Result<Value> {
        let path = self.shared.places.blob(&image.0);
        let bytes = durable::read_object(&path)?;
        let damaged = |error: serde_json::Error| Error::Corrupt { path, reason: error.to_string() };
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// The entry of the build cache for a step.
    pub fn cache_get(&self, key: &Digest) -> Option<Vec<u8>> {
        self.shared.index().cache.get(key).map(|entry| entry.value.clone())
    }

    /// Puts a step's result into the build cache; its layers are kept until `prune` with `all`.
    pub fn cache_put(&self, key: &Digest, layers: &[DiffId], value: &[u8]) -> Result<()> {
        let record = CacheRecord { version: VERSION, layers: layers.to_vec(), value: value.to_vec() };
        images::cache(&self.shared, key, record)
    }
}

/// Makes a directory for root alone; says where what was in its place is now.
fn create_private(path: &Path) -> Result<Option<PathBuf>> {
    Ok(atomic::make_directory(path, 0o700)?)
}

fn lock(root: &Path) -> Result<Lock> {
    let path = root.join("images.lock");
    let lock = Lock::take(&path).map_err(Error::io("lock", &path))?;
    lock.ok_or_else(|| Error::StoreBusy { path: root.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open(folder: &Path) -> Store {
        Store::open(StoreConfig::new(folder.join("store"))).unwrap()
    }

    fn layer(store: &Store, folder: &Path, content: &str) -> LayerRecord {
        let upper = folder.join("upper");
        fs::create_dir_all(upper.join("d")).unwrap();
        fs::write(upper.join("d/f"), content).unwrap();
        store.commit_layer(&upper, &slipway_disk::walker::never).unwrap()
    }

    fn image(store: &Store, layers: &[DiffId], name: &str) -> Image {
        store
            .commit_image(&oci_spec::image::ImageConfiguration::default(), layers, &[name.parse().unwrap()])
            .unwrap()
    }

    /// Images whose steps change nothing have the empty layer many times; overlayfs said ELOOP to them.
    #[test]
    fn a_layer_that_an_image_has_twice_is_stacked_once_where_it_is_highest() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (one, two) = (layer(&store, folder.path(), "one"), layer(&store, folder.path(), "two"));
        let (one, two) = (one.diff_id, two.diff_id);
        let stacked = store.lowers(&[one, two, one, one]).unwrap();
        assert_eq!(stacked, store.lowers(&[two, one]).unwrap());
        assert_ne!(stacked, store.lowers(&[one, two]).unwrap());
    }

    fn layers_on_disk(folder: &Path) -> usize {
        fs::read_dir(folder.join("store/layers")).unwrap().count()
    }

    #[test]
    fn what_a_lease_or_an_image_reaches_stays_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (kept, leased) = (layer(&store, folder.path(), "kept"), layer(&store, folder.path(), "leased"));
        image(&store, &[kept.diff_id], "kept");
        let diff_id = kept.diff_id;
        assert_eq!(store.collect().unwrap(), 0);
        assert_eq!(layers_on_disk(folder.path()), 2);
        drop((kept, leased));
        assert!(store.collect().unwrap() > 0);
        assert_eq!(layers_on_disk(folder.path()), 1);
        store.layer_tar(&diff_id, &mut std::io::sink()).unwrap();
        assert_eq!(store.remove("kept").unwrap().untagged, ["kept".parse().unwrap()]);
        assert_eq!(layers_on_disk(folder.path()), 0);
        assert!(matches!(store.remove("kept"), Err(Error::ImageMissing { .. })));
    }

    #[test]
    fn the_build_cache_keeps_its_layers_until_all_is_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let key = Digest::of(b"step");
        let made = layer(&store, folder.path(), "cached").diff_id;
        store.cache_put(&key, &[made], b"value").unwrap();
        store.prune(PruneOptions { all: false }).unwrap();
        drop(store);
        let store = open(folder.path());
        assert_eq!(store.cache_get(&key).as_deref(), Some(&b"value"[..]));
        drop(store.lease_layers(&[made]).unwrap());
        store.prune(PruneOptions { all: true }).unwrap();
        assert_eq!((store.cache_get(&key), layers_on_disk(folder.path())), (None, 0));
        assert!(matches!(store.lease_layers(&[made]), Err(Error::LayerMissing { .. })));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_reported_and_kept_while_an_image_needs_what_it_describes() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let made = layer(&store, folder.path(), "content").diff_id;
        let image = image(&store, &[made], "app:1");
        let record = folder.path().join("store/layers").join(made.hex()).join("record");
        fs::write(&record, "{\"version\": 99").unwrap();
        drop(store);
        let store = open(folder.path());
        let reported = || store.check().unwrap().findings.iter().any(|finding| finding.path == record);
        store.collect().unwrap();
        assert_eq!((layers_on_disk(folder.path()), reported()), (1, true));
        store.remove(&image.id.to_string()).unwrap();
        assert_eq!((layers_on_disk(folder.path()), reported()), (0, false));
    }

    #[test]
    fn a_directory_without_a_record_and_a_draft_are_garbage() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        let root = folder.path().join("store");
        fs::create_dir_all(root.join("layers").join(Digest::of(b"x").hex()).join("fs")).unwrap();
        fs::create_dir_all(root.join("drafts/x/fs")).unwrap();
        fs::write(root.join("images/.tmp-1-1"), "half").unwrap();
        let store = open(folder.path());
        store.collect().unwrap();
        assert_eq!(layers_on_disk(folder.path()), 0);
        assert_eq!(fs::read_dir(root.join("drafts")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(root.join("images")).unwrap().count(), 0);
    }

    #[test]
    fn check_finds_a_layer_that_was_altered() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let made = layer(&store, folder.path(), "content");
        assert_eq!(store.check().unwrap().findings, []);
        let Lower::Directory(path) = store.lowers(&[made.diff_id]).unwrap().lowers.remove(0);
        fs::write(path.join("d/f"), "CONTENT").unwrap();
        assert_eq!(store.check().unwrap().findings.len(), 1);
    }

    #[test]
    fn an_image_is_found_by_each_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let made = image(&store, &[layer(&store, folder.path(), "content").diff_id], "app:1");
        store.tag(&made.id, &"other/app:2".parse().unwrap()).unwrap();
        for name in
            ["app:1", "docker.io/library/app:1", "other/app:2", &made.id.to_string(), &made.id.hex()[..12]]
        {
            assert_eq!(store.resolve(name).unwrap().id, made.id, "{name}");
        }
        assert!(matches!(store.resolve("app"), Err(Error::ImageMissing { .. })));
        assert!(matches!(
            store.resolve("A b"),
            Err(Error::Name(slipway_reference::Error::InvalidReference { .. }))
        ));
        store.untag(&"app:1".parse().unwrap()).unwrap();
        assert!(store.resolve(&made.id.to_string()).unwrap().pinned);
        store.untag(&"other/app:2".parse().unwrap()).unwrap();
        assert!(!store.resolve(&made.id.to_string()).unwrap().pinned);
    }

    #[test]
    fn a_second_process_is_told_that_the_store_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path());
        let second = Store::open(StoreConfig::new(folder.path().join("store")));
        assert!(matches!(second, Err(Error::StoreBusy { .. })));
    }
}
