//! Image records and their names: committed, tagged, untagged, removed, pruned.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::digest::{DiffId, Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Image, PruneOptions, Pruned, Removed};
use crate::index::{Held, IndexedImage};
use crate::lease::Lease;
use crate::records::{ImageRecord, ManifestRecord, TagRecord, VERSION};
use crate::reference::Reference;
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
        std::fs::read(&path)
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
    let (config, config_size) = crate::index::read_config(&shared.places.blob(&record.id.0))?;
    durable::write_record(&shared.places.image(&record.id), &record)?;
    let mut index = shared.index();
    index.unreadable.remove(&record.id);
    index.healed(&shared.places.image(&record.id));
    index.images.insert(record.id, IndexedImage { record, config, config_size });
    Ok(())
}

/// Names an image.
pub(crate) fn tag(shared: &Shared, image: &ImageId, name: &Reference) -> Result<()> {
    if name.tag().is_none() || name.digest().is_some() {
        let reason = "a name that is given to an image needs a tag and no digest";
        return Err(Error::InvalidReference { reference: name.to_string(), reason });
    }
    let _naming = shared.naming();
    if !shared.index().images.contains_key(image) {
        return Err(Error::ImageMissing { name: image.to_string() });
    }
    let record = TagRecord { version: VERSION, name: name.clone(), image: *image };
    durable::write_record(&shared.places.tag(name), &record)?;
    shared.index().tags.insert(name.clone(), *image);
    Ok(())
}

/// Takes a name away.
pub(crate) fn untag(shared: &Shared, name: &Reference) -> Result<()> {
    let _naming = shared.naming();
    if !shared.index().tags.contains_key(name) {
        return Err(Error::ImageMissing { name: name.to_string() });
    }
    drop_tag(shared, name)
}

fn drop_tag(shared: &Shared, name: &Reference) -> Result<()> {
    durable::remove(&shared.places.tag(name))?;
    durable::sync_directory(&shared.places.folder("refs"))?;
    shared.index().tags.remove(name);
    Ok(())
}

/// Removes an image and all its names.
pub(crate) fn remove(shared: &Arc<Shared>, name: &str) -> Result<Removed> {
    let id = shared.index().find(name)?;
    let untagged = forget(shared, &id, name)?;
    let bytes = collect_if_possible(shared);
    Ok(Removed { untagged, deleted: Some(id), bytes })
}

/// Removes an image's names and record; its layers are garbage then, unless something else has them.
/// Who makes an image has a lease on it before its record is written, so either this sees the lease or the record is new.
fn forget(shared: &Shared, id: &ImageId, name: &str) -> Result<Vec<Reference>> {
    let _naming = shared.naming();
    let tags: Vec<Reference> = {
        let index = shared.index();
        if index.leases.contains_key(&Held::Image(*id)) {
            return Err(Error::ImageInUse { name: name.to_owned() });
        }
        index.tags.iter().filter(|(_, image)| *image == id).map(|(tag, _)| tag.clone()).collect()
    };
    for tag in &tags {
        drop_tag(shared, tag)?;
    }
    durable::remove(&shared.places.image(id))?;
    durable::sync_directory(&shared.places.folder("images"))?;
    shared.index().images.remove(id);
    Ok(tags)
}

/// The images were removed; what can't be collected now (a damaged record stops it) is told and collected later.
fn collect_if_possible(shared: &Arc<Shared>) -> u64 {
    gc::collect(shared).unwrap_or_else(|error| {
        tracing::warn!(%error, "the layers of removed images can't be collected");
        0
    })
}

/// Removes what nobody wants, then collects.
pub(crate) fn prune(shared: &Arc<Shared>, options: PruneOptions) -> Result<Pruned> {
    let candidates: Vec<ImageId> = {
        let index = shared.index();
        let unwanted = |id: &&ImageId| options.all || !index.tags.values().any(|tagged| tagged == *id);
        index.images.keys().filter(unwanted).copied().collect()
    };
    let mut images = Vec::new();
    for id in candidates {
        match forget(shared, &id, &id.to_string()) {
            Ok(_) => images.push(id),
            Err(Error::ImageInUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if options.all {
        let keys: Vec<Digest> = shared.index().cache.keys().copied().collect();
        for key in keys {
            durable::remove(&shared.places.cache(&key))?;
            shared.index().cache.remove(&key);
        }
    }
    Ok(Pruned { images, bytes: gc::collect(shared)? })
}
