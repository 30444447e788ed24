//! A push: every layer in a compressed form that the registry has or gets, then the configuration, then the manifest.
//!
//! A layer's compressed forms are remembered with it, so that a second push, or the push of a pulled image, is the same
//! manifest again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use slipway_reference::Reference;

use crate::credentials::Credentials;
use crate::digest::{DiffId, Digest};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Image, Leased, PullProgress};
use crate::images;
use crate::index::Held;
use crate::layer::compression;
use crate::layers::Draft;
use crate::lease::Lease;
use crate::pull::blocking;
use crate::records::{Compressed, ImageRecord, LayerFile, LayerKey, ManifestRecord, VERSION};
use crate::registry::client::Content;
use crate::registry::manifest::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST};
use crate::registry::{Access, Descriptor, Document, Manifest, Session, manifest};
use crate::store::Shared;

/// Pushes the image of a tag. Every error names the image first, then the layer where it is one layer's.
pub(crate) async fn push(
    shared: &Arc<Shared>,
    reference: &Reference,
    credentials: &Credentials,
    progress: &(dyn Fn(PullProgress) + Sync),
) -> Result<Digest> {
    let Leased { image, lease: _lease } = find(shared, reference)?;
    let pushed = push_image(shared, &image, (reference, credentials), progress).await;
    pushed.map_err(|error| error.of_image(reference))
}

async fn push_image(
    shared: &Arc<Shared>,
    image: &Image,
    (reference, credentials): (&Reference, &Credentials),
    progress: &(dyn Fn(PullProgress) + Sync),
) -> Result<Digest> {
    let session = Session::new(reference, credentials, Access::Push, &shared.config)?;
    let keys = shared.index().keys(&image.layers)?;
    let mut now = PullProgress { layers: keys.len(), ..PullProgress::default() };
    let mut descriptors = Vec::new();
    for (diff_id, key) in image.layers.iter().zip(&keys) {
        progress(now);
        let descriptor = layer(shared, &session, &reference.name(), (diff_id, key)).await;
        let descriptor = descriptor.map_err(|error| error.of_layer(diff_id))?;
        now.layers_done += 1;
        now.bytes += descriptor.size;
        now.bytes_done = now.bytes;
        descriptors.push(descriptor);
    }
    let path = shared.places.blob(&image.id.0);
    let config = durable::read_object(&path)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.into(),
        config: Descriptor::new(OCI_CONFIG, image.id.0, config.len() as u64),
        layers: descriptors,
    };
    let (media_type, bytes) =
        known_manifest(shared, image, &manifest).map_or_else(|| encode(&manifest), Ok)?;
    if !session.has_blob(&image.id.0).await? {
        session.upload(&manifest.config, Content::Bytes(config.into())).await?;
    }
    let digest = session.upload_manifest(&reference.selector(), &media_type, bytes.clone()).await?;
    progress(now);
    remember(shared, image, (reference.name(), digest), bytes).await?;
    Ok(digest)
}

/// The image of the tag, with a lease, taken in the moment in which it is found.
fn find(shared: &Arc<Shared>, reference: &Reference) -> Result<Leased> {
    if reference.tag().is_none() || reference.digest().is_some() {
        let reason = "a push needs a tag and no digest";
        return Err(
            slipway_reference::Error::InvalidReference { reference: reference.to_string(), reason }.into()
        );
    }
    let missing = || Error::ImageMissing { name: reference.to_string() };
    let mut index = shared.index();
    let image = index.tags.get(reference).and_then(|id| index.image(id)).ok_or_else(missing)?;
    let lease = Lease::of_image(shared, &mut index, &image);
    Ok(Leased { image, lease })
}

/// Sees to it that the registry has a layer; says in which form.
async fn layer(
    shared: &Arc<Shared>,
    session: &Session,
    name: &str,
    (diff_id, key): (&DiffId, &LayerKey),
) -> Result<Descriptor> {
    let file = shared.index().layers.get(key).cloned();
    let file = file.ok_or_else(|| Error::LayerMissing { layer: diff_id.to_string() })?;
    for form in &file.compressed {
        let descriptor = Descriptor::new(oci_type(&form.media_type), form.digest, form.size);
        if session.has_blob(&form.digest).await? {
            return Ok(descriptor);
        }
        for from in siblings(shared, name, diff_id) {
            if session.mount_blob(&form.digest, &from).await? {
                return Ok(descriptor);
            }
        }
        let kept = shared.places.blob(&form.digest);
        if fs::metadata(&kept).is_ok_and(|stat| stat.len() == form.size) {
            session.upload(&descriptor, Content::File { path: kept, size: form.size }).await?;
            return Ok(descriptor);
        }
    }
    let draft = Draft::create(shared)?;
    let (blob, own, key) = (draft.path().join("blob"), Arc::clone(shared), *key);
    let path = blob.clone();
    let form = blocking(move || compress(&own, &key, &file, &path)).await?;
    let descriptor = Descriptor::new(OCI_LAYER_GZIP, form.digest, form.size);
    if !session.has_blob(&form.digest).await? {
        session.upload(&descriptor, Content::File { path: blob, size: form.size }).await?;
    }
    let shared = Arc::clone(shared);
    blocking(move || shared.remember(&key, form)).await?;
    drop(draft);
    Ok(descriptor)
}

/// Other repositories of the registry that have, or had, an image with this layer.
fn siblings(shared: &Shared, name: &str, diff_id: &DiffId) -> Vec<String> {
    const MOST: usize = 4;
    let Some((domain, own)) = name.split_once('/') else { return Vec::new() };
    let index = shared.index();
    let images = index.images.values().filter(|image| image.record.layers.contains(diff_id));
    let names = images.flat_map(|image| &image.record.manifests).filter_map(|one| one.name.split_once('/'));
    let paths =
        names.filter(|(other, path)| *other == domain && *path != own).map(|(_, path)| path.to_owned());
    let found: BTreeSet<String> = paths.collect();
    found.into_iter().take(MOST).collect()
}

/// Rebuilds a layer's tar into a gzip file.
fn compress(shared: &Shared, key: &LayerKey, file: &LayerFile, path: &Path) -> Result<Compressed> {
    let output = File::create_new(path).map_err(Error::io("create", path))?;
    let mut gzip =
        compression::gzip(Counting { output: io::BufWriter::new(output), hasher: Sha256::new(), size: 0 });
    shared.layer_tar_at(key, file, &mut gzip)?;
    let mut counting = gzip.finish().map_err(Error::io("write", path))?;
    counting.flush().map_err(Error::io("write", path))?;
    let (digest, size) = (Digest::finish(counting.hasher), counting.size);
    Ok(Compressed { media_type: OCI_LAYER_GZIP.into(), digest, size })
}

/// Docker's name of a layer form in OCI's words: the manifest is OCI's.
fn oci_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        other => other,
    }
}

fn encode(manifest: &Manifest) -> Result<(String, Vec<u8>)> {
    let bytes = serde_json::to_vec(manifest);
    let refused = |error: serde_json::Error| Error::ManifestRejected {
        object: "the manifest".into(),
        reason: error.to_string(),
    };
    Ok((manifest.media_type.clone(), bytes.map_err(refused)?))
}

/// A manifest that led to this image and names the same blobs: pushed again as it was.
fn known_manifest(shared: &Shared, image: &Image, wanted: &Manifest) -> Option<(String, Vec<u8>)> {
    let records = shared.index().images.get(&image.id)?.record.manifests.clone();
    let digests = |manifest: &Manifest| manifest.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    records.iter().find_map(|record| {
        let bytes = durable::read_object(&shared.places.blob(&record.manifest)).ok()?;
        match manifest::parse(&bytes, None).ok()? {
            Document::Manifest(known)
                if known.config.digest == wanted.config.digest && digests(&known) == digests(wanted) =>
            {
                Some((known.media_type, bytes))
            }
            _ => None,
        }
    })
}

/// The image has a manifest now.
async fn remember(
    shared: &Arc<Shared>,
    image: &Image,
    (name, digest): (String, Digest),
    bytes: Vec<u8>,
) -> Result<()> {
    let (shared, id, layers) = (Arc::clone(shared), image.id, image.layers.clone());
    blocking(move || {
        let _lease = Lease::take(&shared, vec![Held::Blob(digest)]);
        images::write_blob(&shared, &digest, &bytes)?;
        let manifests = vec![ManifestRecord { name, target: digest, manifest: digest }];
        images::put(&shared, ImageRecord { version: VERSION, id, layers, manifests, built: false })
    })
    .await
}

/// Hashes and counts what it passes on.
struct Counting<W> {
    output: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
