//! Mends what the check finds: what describes a layer is made again from its files, what can be fetched is fetched again
//! by the digest that it must have, and what is only a cache goes. A layer that is in use is left: its files can't be
//! swapped under a container.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Fault, Kind, Written, blob, is_needed, is_readable, layer, scan};
use slipway_reference::Reference;

use crate::credentials::Credentials;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::Checked;
use crate::images;
use crate::index::{Damaged, Held, Index};
use crate::layers;
use crate::lease::Lease;
use crate::pull::{self, blocking};
use crate::records::{ImageRecord, LayerKey, TagRecord, VERSION};
use crate::registry::{Access, Session};
use crate::store::Shared;

/// The domain of names that no registry has.
const LOCAL: &str = "localhost";

/// Where something is fetched from again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// By the digest that it must have.
    Digest(Reference),
    /// By a name, as long as that leads to this image: a registry's may be another by now, or another's.
    Tag(Reference, ImageId),
}

impl Source {
    fn name(&self) -> &Reference {
        match self {
            Self::Digest(name) | Self::Tag(name, _) => name,
        }
    }
}

/// Checks everything and mends what can be mended.
pub(crate) async fn mend(shared: &Arc<Shared>) -> Result<Checked> {
    let own = Arc::clone(shared);
    let (faults, objects, sources) = blocking(move || {
        let (faults, objects) = scan(&own)?;
        own.remnants.retry();
        let mut sources = BTreeSet::new();
        for fault in &faults {
            sources.extend(prepare(&own, fault)?);
        }
        sources.extend(records(&own, &faults)?);
        Ok((faults, objects, sources))
    })
    .await?;
    let mut failures = Vec::new();
    for source in sources {
        if source.name().domain() == LOCAL {
            failures.push(format!("{} was built here: rmi -f it and build it again", source.name()));
        } else if let Err(error) = fetch(shared, &source).await {
            failures.push(format!("{error}: {}", error.cause()));
        }
    }
    let own = Arc::clone(shared);
    let findings = blocking(move || judge(&own, faults, &failures.join("; "))).await?;
    Ok(Checked { findings, objects })
}

/// Does what needs no registry, and says which images are to be fetched again.
fn prepare(shared: &Arc<Shared>, Fault { kind, finding }: &Fault) -> Result<Vec<Source>> {
    match kind {
        Kind::Layer(key) if restored(shared, key)? => Ok(Vec::new()),
        Kind::Layer(key) => {
            let mut index = shared.index();
            if index.leases.contains_key(&Held::Layer(*key)) {
                return Ok(Vec::new());
            }
            index.suspect.insert(*key);
            Ok(sources(&index, |image| Index::candidates(&image.layers).any(|one| one == *key)))
        }
        Kind::Blob(digest) => {
            let names = |image: &ImageRecord| {
                let mut manifests = image.manifests.iter();
                image.id.0 == *digest || manifests.any(|one| one.target == *digest || one.manifest == *digest)
            };
            let index = shared.index();
            let known = index.images.values().map(|image| &image.record).chain(index.unreadable.values());
            if known.into_iter().any(names) {
                return Ok(sources(&index, names));
            }
            drop(index);
            // A kept compressed layer, or garbage: nothing needs it, unless something has come to need it since.
            let _placing = shared.placing();
            if !shared.index().leases.contains_key(&Held::Blob(*digest)) {
                slipway_disk::remove_tree(&shared.places.blob(digest))?;
            }
            Ok(Vec::new())
        }
        Kind::Image(id) => {
            restore_missing(shared, id)?;
            // The faults of its layers may be mended by now.
            if is_well(shared, kind, Path::new("")) {
                return Ok(Vec::new());
            }
            Ok(sources(&shared.index(), |image| image.id == *id))
        }
        Kind::Tag(name) => {
            Ok(shared.index().tags.get(name).map(|id| Source::Tag(name.clone(), *id)).into_iter().collect())
        }
        Kind::Written(what) => write_again(shared, what).map(|()| Vec::new()),
        Kind::Stranger
            if finding.path.file_name().is_some_and(|name| durable::is_aside(&name.to_string_lossy())) =>
        {
            slipway_disk::remove_tree(&finding.path)?;
            Ok(Vec::new())
        }
        Kind::Record | Kind::Stranger => Ok(Vec::new()),
    }
}

/// Makes the records of an image's layers again that are absent while their files are there.
fn restore_missing(shared: &Arc<Shared>, id: &ImageId) -> Result<()> {
    let missing: Vec<LayerKey> = {
        let index = shared.index();
        let layers = index.images.get(id).map(|image| image.record.layers.clone()).unwrap_or_default();
        Index::candidates(&layers).filter(|key| !index.layers.contains_key(key)).collect()
    };
    for key in missing.iter().filter(|key| shared.places.layer(key).is_dir()) {
        restored(shared, key)?;
    }
    Ok(())
}

/// Writes a record that is known in memory.
fn write_again(shared: &Shared, what: &Written) -> Result<()> {
    let _naming = shared.naming();
    let (images, tags, layers, steps) = {
        let index = shared.index();
        match what {
            Written::Image(id) => {
                let known = index.images.get(id).map(|image| &image.record);
                (known.or_else(|| index.unreadable.get(id)).cloned(), None, None, None)
            }
            Written::Tag(name) => (None, index.tags.get(name).copied(), None, None),
            Written::Layer(key) => (None, None, index.layers.get(key).cloned(), None),
            Written::Step(key) => (None, None, None, index.cache.get(key).cloned()),
        }
    };
    let places = &shared.places;
    match what {
        Written::Image(id) => {
            images.map_or(Ok(()), |record| durable::write_record(&places.image(id), &record))
        }
        Written::Tag(name) => tags.map_or(Ok(()), |image| {
            let record = TagRecord { version: VERSION, name: name.clone(), image };
            durable::write_record(&places.tag(name), &record)
        }),
        Written::Layer(key) => {
            layers.map_or(Ok(()), |record| durable::write_record(&places.layer(key).join("record"), &record))
        }
        Written::Step(key) => {
            steps.map_or(Ok(()), |record| durable::write_record(&places.cache(key), &record))
        }
    }
}

/// The names by which the images that something is wrong with came here.
fn sources(index: &Index, concerned: impl Fn(&ImageRecord) -> bool) -> Vec<Source> {
    let known = index.images.values().map(|image| &image.record).chain(index.unreadable.values());
    let manifests = known.filter(|image| concerned(image)).flat_map(|image| &image.manifests);
    let names = manifests.filter_map(|one| format!("{}@{}", one.name, one.target).parse().ok());
    names.map(Source::Digest).collect()
}

/// Records that could not be read: a build step's is only a cache, the name that a tag gave is lost with it, an image's
/// comes again by its names.
fn records(shared: &Shared, faults: &[Fault]) -> Result<Vec<Source>> {
    let mut names = Vec::new();
    let unread = faults.iter().filter(|fault| fault.kind == Kind::Record && !fault.finding.mended);
    for path in unread.map(|fault| &fault.finding.path) {
        let folder = |name: &str| path.parent() == Some(&shared.places.folder(name));
        if folder("build-cache") || folder("refs") {
            let _naming = shared.naming();
            slipway_disk::remove_tree(path)?;
            shared.index().healed(path);
        }
        if folder("images") {
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| Digest::from_hex(name).ok());
            let index = shared.index();
            let tags = index.tags.iter().filter(|(_, image)| Some(image.0) == id);
            names.extend(tags.map(|(tag, image)| Source::Tag(tag.clone(), *image)));
        }
    }
    Ok(names)
}

/// Writes a layer's record again where its files are whole; says whether they are.
fn restored(shared: &Arc<Shared>, key: &LayerKey) -> Result<bool> {
    let diff_id = match key {
        LayerKey::Diff(id) => Some(*id),
        LayerKey::Chain(id) => by_chain(&shared.index(), id),
    };
    let path = shared.places.layer(key);
    // No collection takes it between the writing of its record and its being known.
    let _lease = Lease::take(shared, vec![Held::Layer(*key)]);
    match diff_id {
        Some(diff_id) => layers::restore(shared, key, diff_id, &path),
        None => Ok(false),
    }
}

fn by_chain(index: &Index, wanted: &ChainId) -> Option<DiffId> {
    let lists = index.images.values().map(|image| &image.record.layers);
    lists
        .flat_map(|list| ChainId::of(list).into_iter().zip(list))
        .find(|(chain, _)| chain == wanted)
        .map(|(_, id)| *id)
}

async fn fetch(shared: &Arc<Shared>, source: &Source) -> Result<()> {
    // A pull takes what is suspect as absent, and puts what it fetched in its place.
    match source {
        Source::Digest(name) => by_digest(shared, name).await.map(drop),
        Source::Tag(name, wanted) => {
            let session = Session::new(name, &Credentials::Anonymous, Access::Pull, &shared.config)?;
            let digest = session.manifest(&name.selector(), &name.to_string()).await?.digest;
            let id = by_digest(shared, &name.with_digest(digest)).await?;
            if id != *wanted {
                let reason = format!("it is the image {id} by now, not {wanted}: pull it, or rmi -f {name}");
                return Err(Error::ManifestRejected { object: name.to_string(), reason });
            }
            let (shared, name) = (Arc::clone(shared), name.clone());
            blocking(move || images::tag(&shared, &id, &name)).await
        }
    }
}

async fn by_digest(shared: &Arc<Shared>, name: &Reference) -> Result<ImageId> {
    pull::pull(shared, name, &Credentials::Anonymous, &|_| {}).await.map(|pulled| pulled.image.id)
}

/// Looks again at what was wrong.
fn judge(shared: &Arc<Shared>, faults: Vec<Fault>, failures: &str) -> Result<Vec<crate::image::Finding>> {
    let findings = faults.into_iter().map(|fault| {
        let mut finding = fault.finding;
        let known = |damaged: &Damaged| damaged.finding.path == finding.path && !damaged.finding.mended;
        let unread = shared.index().damaged.iter().any(known);
        finding.mended = finding.mended || !unread && is_well(shared, &fault.kind, &finding.path);
        let held =
            matches!(&fault.kind, Kind::Layer(key) if shared.index().leases.contains_key(&Held::Layer(*key)));
        if held && !finding.mended {
            finding.problem.push_str("; it is in use: remove its containers and check again");
        }
        if !finding.mended && !failures.is_empty() {
            finding.problem.push_str(&format!("; it can't be fetched again: {failures}"));
        }
        finding
    });
    Ok(findings.collect())
}

fn is_well(shared: &Shared, kind: &Kind, path: &Path) -> bool {
    match kind {
        Kind::Blob(digest) => {
            let gone = path.symlink_metadata().is_err() && !is_needed(shared, digest);
            gone || blob(path, digest).is_ok()
        }
        Kind::Layer(key) => !shared.index().suspect.contains(key) && layer(shared, key).is_ok(),
        Kind::Image(id) => {
            let index = shared.index();
            index.images.get(id).is_some_and(|image| index.keys(&image.record.layers).is_ok())
        }
        Kind::Tag(name) => {
            let index = shared.index();
            index.tags.get(name).is_some_and(|id| index.images.contains_key(id))
        }
        Kind::Record => true,
        Kind::Written(what) => is_readable(path, what).is_ok_and(|there| there),
        Kind::Stranger => !path.exists(),
    }
}
