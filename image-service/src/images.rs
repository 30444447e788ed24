//! Image records and their names: committed, tagged, untagged, removed, pruned.
//!
//! Whether an image may go is decided in the step in which it goes from the index, under the lock of the index: who takes
//! a lease on it, or finds it by a name, does so before that or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use slipway_reference::Reference;

use crate::digest::{DiffId, Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Image, PruneOptions, Pruned, Removed};
use crate::index::{Held, Index, IndexedImage};
use crate::lease::Lease;
use crate::records::{CacheRecord, ImageRecord, ManifestRecord, TagRecord, VERSION};
use crate::store::Shared;
use crate::{gc, layers};

/// Makes an image of a configuration and layers that are here.
pub(crate) fn commit(
    shared: &Arc<Shared>,
    config: &impl Serialize,
    diff_ids: &[DiffId],
    names: &[Reference],
) -> Result<Image> {
    let refused = |error: serde_json::Error| Error::ManifestRejected {
        object: "the image's configuration".into(),
        reason: error.to_string(),
    };
    let mut value = serde_json::to_value(config).map_err(refused)?;
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
    value.as_object_mut().map(|fields| fields.insert("rootfs".into(), rootfs));
    let bytes = serde_json::to_vec(&sorted(value)).map_err(refused)?;
    let id = ImageId(Digest::of(&bytes));
    let mut held = layers::held(diff_ids);
    held.extend([Held::Blob(id.0), Held::Image(id)]);
    let _lease = Lease::take(shared, held);
    shared.index().keys(diff_ids)?;
    write_blob(shared, &id.0, &bytes)?;
    let record =
        ImageRecord { version: VERSION, id, layers: diff_ids.to_vec(), manifests: Vec::new(), built: true };
    put(shared, record)?;
    for name in names {
        tag(shared, &id, name)?;
    }
    shared.index().image(&id).ok_or_else(|| Error::ImageMissing { name: id.to_string() })
}

/// Keys in one order, whatever map the serialiser uses: equal configurations are equal images.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> =
                fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Writes a small object that the caller has a lease on; one that is here already is left as it is.
pub(crate) fn write_blob(shared: &Shared, digest: &Digest, bytes: &[u8]) -> Result<()> {
    let path = shared.places.blob(digest);
    let present = {
        // A collection that looked before the lease was taken removes it before this looks.
        let _placing = shared.placing();
        durable::read_object(&path)
    };
    match present {
        Ok(present) if Digest::of(&present) == *digest => Ok(()),
        _ => durable::write(&path, bytes),
    }
}

/// Makes an image known, or what is known of it more: manifests add up, and once built is built.
pub(crate) fn put(shared: &Shared, mut record: ImageRecord) -> Result<()> {
    let _naming = shared.naming();
    {
        let index = shared.index();
        let known = index.images.get(&record.id).map(|image| &image.record);
        if let Some(known) = known.or_else(|| index.unreadable.get(&record.id)) {
            let mut manifests: Vec<ManifestRecord> = known.manifests.clone();
            manifests.retain(|one| !record.manifests.contains(one));
            record.manifests.splice(0..0, manifests);
            record.built |= known.built;
        }
    }
    let (config, config_size) = durable::read_config(&shared.places.blob(&record.id.0))?;
    durable::write_record(&shared.places.image(&record.id), &record)?;
    let mut index = shared.index();
    index.unreadable.remove(&record.id);
    index.lost.remove(&record.id);
    index.healed(&shared.places.image(&record.id));
    index.healed(&shared.places.blob(&record.id.0));
    let id = record.id;
    index.images.insert(id, IndexedImage { record, config, config_size, touched: 0 });
    index.touch(&id);
    Ok(())
}

/// Names an image.
pub(crate) fn tag(shared: &Shared, image: &ImageId, name: &Reference) -> Result<()> {
    if name.tag().is_none() || name.digest().is_some() {
        let reason = "a name that is given to an image needs a tag and no digest";
        return Err(slipway_reference::Error::InvalidReference { reference: name.to_string(), reason }.into());
    }
    let _naming = shared.naming();
    if !shared.index().images.contains_key(image) {
        return Err(Error::ImageMissing { name: image.to_string() });
    }
    let record = TagRecord { version: VERSION, name: name.clone(), image: *image };
    durable::write_record(&shared.places.tag(name), &record)?;
    let mut index = shared.index();
    index.healed(&shared.places.tag(name));
    index.tags.insert(name.clone(), *image);
    index.touch(image);
    Ok(())
}

/// Takes a name away.
pub(crate) fn untag(shared: &Shared, name: &Reference) -> Result<()> {
    let _naming = shared.naming();
    let path = shared.places.tag(name);
    let known = {
        let index = shared.index();
        index.tags.contains_key(name) || index.damaged.iter().any(|damaged| damaged.finding.path == path)
    };
    if !known {
        return Err(Error::ImageMissing { name: name.to_string() });
    }
    slipway_disk::remove_tree(&shared.places.tag(name))?;
    durable::sync_directory(&shared.places.folder("refs"))?;
    let mut index = shared.index();
    index.healed(&shared.places.tag(name));
    index.tags.remove(name);
    Ok(())
}

/// Removes an image and all its names.
pub(crate) fn remove(shared: &Arc<Shared>, name: &str) -> Result<Removed> {
    let found = forget(shared, |index| {
        let id = index.find(name)?;
        match index.leases.contains_key(&Held::Image(id)) {
            true => Err(Error::ImageInUse { name: name.to_owned() }),
            false => Ok(Some(id)),
        }
    });
    let (id, untagged) = match found {
        Ok(found) => found.ok_or_else(|| Error::ImageMissing { name: name.to_owned() })?,
        Err(error) if matches!(error, Error::ImageInUse { .. } | Error::AmbiguousId { .. }) => {
            return Err(error);
        }
        Err(error) => return remove_damaged(shared, name)?.ok_or(error),
    };
    let bytes = collect_if_possible(shared);
    Ok(Removed { untagged, deleted: Some(id), bytes })
}

/// Removes the names and the record of the image that is chosen; its layers are garbage then, unless something else has
/// them. The choice and the image's going from the index are one step. What can't be removed on disk comes back.
fn forget(
    shared: &Shared,
    choose: impl FnOnce(&Index) -> Result<Option<ImageId>>,
) -> Result<Option<(ImageId, Vec<Reference>)>> {
    let _naming = shared.naming();
    let (id, image, names) = {
        let mut index = shared.index();
        let Some(id) = choose(&index)? else { return Ok(None) };
        let named = index.tags.iter().filter(|(_, tagged)| **tagged == id);
        let names: Vec<Reference> = named.map(|(name, _)| name.clone()).collect();
        index.tags.retain(|_, tagged| *tagged != id);
        (id, index.images.remove(&id), names)
    };
    let mut left = names.as_slice();
    let removed = remove_files(shared, &id, &mut left);
    let mut index = shared.index();
    if removed.is_err() {
        index.tags.extend(left.iter().map(|name| (name.clone(), id)));
        index.images.extend(image.map(|image| (id, image)));
    } else {
        index.unreadable.remove(&id);
        index.lost.remove(&id);
        index.healed(&shared.places.image(&id));
        index.healed(&shared.places.blob(&id.0));
    }
    removed.map(|()| Some((id, names)))
}

/// Removes the files of an image's names, then its record; `left` are the names whose files are there still.
fn remove_files(shared: &Shared, id: &ImageId, left: &mut &[Reference]) -> Result<()> {
    while let Some((name, rest)) = left.split_first() {
        slipway_disk::remove_tree(&shared.places.tag(name))?;
        *left = rest;
    }
    durable::sync_directory(&shared.places.folder("refs"))?;
    slipway_disk::remove_tree(&shared.places.image(id))?;
    durable::sync_directory(&shared.places.folder("images"))
}

/// Removes what is left of an image that is damaged, or of a name whose image is lost or whose record is damaged; none
/// where there is no such thing.
fn remove_damaged(shared: &Arc<Shared>, name: &str) -> Result<Option<Removed>> {
    let found = forget(shared, |index| match index.find_damaged(name) {
        Some(id) if index.leases.contains_key(&Held::Image(id)) => {
            Err(Error::ImageInUse { name: name.to_owned() })
        }
        found => Ok(found),
    })?;
    let (untagged, deleted) = match (found, Reference::parse(name)) {
        (Some((id, untagged)), _) => (untagged, Some(id)),
        (None, Ok(name)) if untag(shared, &name).is_ok() => (vec![name], None),
        (None, _) => return Ok(None),
    };
    Ok(Some(Removed { untagged, deleted, bytes: collect_if_possible(shared) }))
}

/// The images were removed; what can't be collected now is told and collected later.
fn collect_if_possible(shared: &Arc<Shared>) -> u64 {
    gc::collect(shared).unwrap_or_else(|error| {
        tracing::warn!(%error, "the layers of removed images can't be collected");
        0
    })
}

/// Removes what nobody wants, then collects. What was built, tagged or pulled after this began stays, as does what got a
/// name or a lease before its turn came.
pub(crate) fn prune(shared: &Arc<Shared>, options: PruneOptions) -> Result<Pruned> {
    let (began, known, cached) = {
        let index = shared.index();
        let cached = if options.all { index.cache.clone() } else { HashMap::new() };
        (index.count, index.images.keys().copied().collect::<Vec<_>>(), cached)
    };
    let mut images = Vec::new();
    for id in known {
        let unwanted = |index: &Index| index.is_unwanted(&id, began, options.all).then_some(id);
        if forget(shared, |index| Ok(unwanted(index)))?.is_some() {
            images.push(id);
        }
    }
    for (key, entry) in cached {
        drop_cached(shared, &key, &entry)?;
    }
    Ok(Pruned { images, bytes: gc::collect(shared)? })
}

/// Puts a step's result into the build cache.
pub(crate) fn cache(shared: &Arc<Shared>, key: &Digest, record: CacheRecord) -> Result<()> {
    let _lease = {
        let mut index = shared.index();
        index.keys(&record.layers)?;
        Lease::take_in(shared, &mut index, layers::held(&record.layers))
    };
    let _caching = shared.caching();
    let path = shared.places.cache(key);
    durable::write_record(&path, &record)?;
    let mut index = shared.index();
    index.healed(&path);
    index.cache.insert(*key, record);
    Ok(())
}

/// Removes an entry of the build cache, unless another has taken its place.
fn drop_cached(shared: &Shared, key: &Digest, entry: &CacheRecord) -> Result<()> {
    let _caching = shared.caching();
    if shared.index().cache.get(key) != Some(entry) {
        return Ok(());
    }
    slipway_disk::remove_tree(&shared.places.cache(key))?;
    shared.index().cache.remove(key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreConfig};
    use oci_spec::image::ImageConfigurationBuilder;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn open(folder: &Path) -> Store {
        Store::open(StoreConfig::new(folder.join("store"))).unwrap()
    }

    fn image(store: &Store, number: usize, names: &[Reference]) -> Image {
        let config = ImageConfigurationBuilder::default();
        let config = config.os("linux").architecture("amd64").author(number.to_string());
        let layers =
            oci_spec::image::RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap();
        store.commit_image(&config.rootfs(layers).build().unwrap(), &[], names).unwrap()
    }

    /// A prune chose images without a name, and took them later with the names that they had got by then.
    #[test]
    fn a_name_that_was_given_beside_prunes_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (store, over) = (open(folder.path()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    store.prune(PruneOptions { all: false }).unwrap();
                }
            });
            let named = (0..200).map(|number| {
                let name: Reference = format!("made:{number}").parse().unwrap();
                (image(&store, number, std::slice::from_ref(&name)).id, name)
            });
            let named: Vec<_> = named.collect();
            over.store(true, Ordering::SeqCst);
            let lost = named
                .iter()
                .filter(|(id, name)| store.resolve(&name.to_string()).map_or(true, |found| found.id != *id));
            assert_eq!(lost.count(), 0);
        });
    }

    /// A removal looked for leases, and forgot the image later: a container that was created in between lost it.
    #[test]
    fn an_image_is_leased_or_removed_and_never_both() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for number in 0..200 {
            let id = image(&store, number, &["app:1".parse().unwrap()]).id;
            std::thread::scope(|scope| {
                let removal = scope.spawn(|| store.remove("app:1"));
                let lease = store.lease(&id);
                let removed = removal.join().unwrap();
                assert_ne!(removed.is_ok(), lease.is_ok(), "{number}: {removed:?} {lease:?}");
                assert_eq!(store.resolve("app:1").is_ok(), lease.is_ok(), "{number}");
            });
            drop(store.remove("app:1"));
        }
    }

    #[test]
    fn a_prune_takes_what_was_there_unused_when_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let (bare, named) = (image(&store, 1, &[]).id, image(&store, 2, &["app:1".parse().unwrap()]).id);
        let unwanted = |all, began| {
            let index = store.shared.index();
            [bare, named].map(|id| index.is_unwanted(&id, began, all))
        };
        let began = store.shared.index().count;
        assert_eq!((unwanted(false, began), unwanted(true, began)), ([true, false], [true, true]));
        let held = store.hold("app:1").unwrap();
        assert_eq!(unwanted(true, began), [true, false]);
        drop(held);
        store.tag(&named, &"app:2".parse().unwrap()).unwrap();
        assert_eq!((unwanted(true, began), unwanted(true, began + 1)), ([true, false], [true, true]));
    }

    #[test]
    fn an_image_whose_files_cannot_be_removed_is_there_still() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let id = image(&store, 1, &["app:1".parse().unwrap(), "app:2".parse().unwrap()]).id;
        // Nothing can be removed from a folder that is a file.
        let (images, moved) = (folder.path().join("store/images"), folder.path().join("moved"));
        std::fs::rename(&images, &moved).unwrap();
        std::fs::write(&images, "").unwrap();
        assert!(store.remove("app:1").is_err());
        assert_eq!(store.resolve(&id.to_string()).unwrap().id, id);
        std::fs::remove_file(&images).unwrap();
        std::fs::rename(&moved, &images).unwrap();
        assert!(store.remove(&id.to_string()).is_ok());
        assert!(store.images().is_empty());
    }
}
