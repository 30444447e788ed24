//! Mends what the check finds: what describes a layer is made again from its files, what can be fetched is fetched again
//! by the digest that it must have, and what is only a cache goes. A layer that is in use is left: its files can't be
//! swapped under a container.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Fault, Kind, blob, damaged_records, layer, scan};
use crate::credentials::Credentials;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::durable;
use crate::error::Result;
use crate::image::Checked;
use crate::index::{Held, Index};
use crate::layers;
use crate::lease::Lease;
use crate::pull::{self, blocking};
use crate::records::{ImageRecord, LayerKey};
use crate::reference::Reference;
use crate::store::Shared;

/// Checks everything and mends what can be mended.
pub(crate) async fn mend(shared: &Arc<Shared>) -> Result<Checked> {
    let own = Arc::clone(shared);
    let (faults, objects, sources) = blocking(move || {
        let (faults, objects) = scan(&own)?;
        own.remnants.retry();
        let mut sources = BTreeSet::new();
        for fault in &faults {
            sources.extend(prepare(&own, &fault.kind)?);
        }
        sources.extend(records(&own, &faults)?);
        Ok((faults, objects, sources))
    })
    .await?;
    let mut failures = Vec::new();
    for source in sources {
        if let Err(error) = fetch(shared, &source).await {
            failures.push(format!("{error}: {}", error.cause()));
        }
    }
    let own = Arc::clone(shared);
    let findings = blocking(move || judge(&own, faults, &failures.join("; "))).await?;
    Ok(Checked { findings, objects })
}

/// Does what needs no registry, and says which images are to be fetched again.
fn prepare(shared: &Arc<Shared>, kind: &Kind) -> Result<Vec<Reference>> {
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
                durable::remove(&shared.places.blob(digest))?;
            }
            Ok(Vec::new())
        }
        // What was wrong with its layers may be mended by now.
        Kind::Image(_) if is_well(shared, kind, Path::new("")) => Ok(Vec::new()),
        Kind::Image(id) => Ok(sources(&shared.index(), |image| image.id == *id)),
        Kind::Tag(name) => Ok(vec![name.clone()]),
        Kind::Record | Kind::Stranger => Ok(Vec::new()),
    }
}

/// The names by which the images that something is wrong with came here.
fn sources(index: &Index, concerned: impl Fn(&ImageRecord) -> bool) -> Vec<Reference> {
    let known = index.images.values().map(|image| &image.record).chain(index.unreadable.values());
    let manifests = known.filter(|image| concerned(image)).flat_map(|image| &image.manifests);
    manifests.filter_map(|one| format!("{}@{}", one.name, one.target).parse().ok()).collect()
}

/// Records that can't be read: a build step's is only a cache; an image's comes again with its tags.
fn records(shared: &Shared, faults: &[Fault]) -> Result<Vec<Reference>> {
    let mut names = Vec::new();
    for path in faults.iter().filter(|fault| fault.kind == Kind::Record).map(|fault| &fault.finding.path) {
        if path.parent() == Some(&shared.places.folder("build-cache")) {
            durable::remove(path)?;
        }
        if path.parent() == Some(&shared.places.folder("images")) {
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| Digest::from_hex(name).ok());
            let index = shared.index();
            let tags = index.tags.iter().filter(|(_, image)| Some(image.0) == id);
            names.extend(tags.map(|(tag, _)| tag.clone()));
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

async fn fetch(shared: &Arc<Shared>, source: &Reference) -> Result<ImageId> {
    // A pull takes what is suspect as absent, and puts what it fetched in its place.
    pull::pull(shared, source, &Credentials::Anonymous, &|_| {}).await.map(|pulled| pulled.image.id)
}

/// Looks again at what was wrong.
fn judge(shared: &Arc<Shared>, faults: Vec<Fault>, failures: &str) -> Result<Vec<crate::image::Finding>> {
    let fresh = Index::read(&shared.places)?;
    shared.index().damaged = fresh.damaged;
    let damaged: Vec<_> = damaged_records(shared).into_iter().map(|fault| fault.finding.path).collect();
    let findings = faults.into_iter().map(|fault| {
        let mut finding = fault.finding;
        let readable = !damaged.contains(&finding.path);
        finding.mended = readable && is_well(shared, &fault.kind, &finding.path);
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
        Kind::Blob(digest) => !path.exists() || blob(path, digest).is_ok(),
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
        Kind::Stranger => !path.exists(),
    }
}
