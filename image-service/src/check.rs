//! Verifies the store: every record readable, every small object and every layer's tar what its digest says, every image's
//! layers here, every tag's image here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_disk::atomic;
use slipway_reference::Reference;

use crate::digest::{Digest, ImageId};
use crate::durable;
use crate::error::{Error, Result};
use crate::image::{Checked, Finding};
use crate::index::{Damaged, Hides, Index};
use crate::places::entries;
use crate::records::{CacheRecord, ImageRecord, LayerFile, LayerKey, TagRecord};
use crate::store::Shared;

mod mend;

pub(crate) use mend::mend;

/// A fault, by the way in which it can be mended.
#[derive(Clone, Debug)]
struct Fault {
    kind: Kind,
    finding: Finding,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// An object's bytes.
    Blob(Digest),
    /// A layer's files, or what describes them.
    Layer(LayerKey),
    /// An image with a layer that is not here.
    Image(ImageId),
    /// A tag whose image is not here.
    Tag(Reference),
    /// A record that could not be understood when the store was opened.
    Record,
    /// A record that is known in memory and damaged on disk.
    Written(Written),
    /// A file that has no place in the store.
    Stranger,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Image(ImageId),
    Tag(Reference),
    Layer(LayerKey),
    Step(Digest),
}

/// Looks at everything and says what is wrong.
pub(crate) fn check(shared: &Arc<Shared>) -> Result<Checked> {
    let (faults, objects) = scan(shared)?;
    Ok(Checked { findings: faults.into_iter().map(|fault| fault.finding).collect(), objects })
}

fn fault(kind: Kind, path: PathBuf, problem: impl Into<String>) -> Fault {
    Fault { kind, finding: Finding { path, problem: problem.into(), mended: false } }
}

fn scan(shared: &Arc<Shared>) -> Result<(Vec<Fault>, u64)> {
    let (mut faults, mut objects) = (damaged_records(shared), 0);
    faults.extend(shared.remnants.list().into_iter().map(|(path, problem)| {
        let problem = format!("it can't be removed: {problem}: mend that, then check with --repair");
        fault(Kind::Stranger, path, problem)
    }));
    faults.extend(written(shared));
    faults.extend(strangers(shared));
    objects += names(shared, &mut faults);
    for (name, path) in entries(&shared.places.folder("blobs/sha256"))? {
        objects += 1;
        let Ok(digest) = Digest::from_hex(&name) else { continue };
        if let Err(problem) = blob(&path, &digest) {
            faults.push(fault(Kind::Blob(digest), path, format!("{problem}: {}", advice(shared, &digest))));
        }
    }
    let keys: Vec<LayerKey> = shared.index().layers.keys().copied().collect();
    for key in keys {
        objects += 1;
        if let Err(error) = layer(shared, &key) {
            let problem = format!("{error}: pull or build its images again");
            faults.push(fault(Kind::Layer(key), shared.places.layer(&key), problem));
        }
    }
    Ok((once(faults), objects))
}

/// One fault a path: what is wrong with an object itself says more than that it could not be read at the start.
fn once(faults: Vec<Fault>) -> Vec<Fault> {
    let mut kept: Vec<Fault> = Vec::new();
    for fault in faults {
        match kept.iter_mut().find(|one| one.finding.path == fault.finding.path) {
            Some(one) if one.kind == Kind::Record => *one = fault,
            Some(_) => {}
            None => kept.push(fault),
        }
    }
    kept
}

/// The advice for an object that can't be fetched again by itself.
fn advice(shared: &Shared, digest: &Digest) -> &'static str {
    let index = shared.index();
    let records = index.images.values().map(|image| &image.record).chain(index.unreadable.values());
    let made_here = |image: &ImageRecord| image.built && image.id.0 == *digest;
    if records.into_iter().any(made_here) {
        "its image was built here: rmi -f it and build it again"
    } else {
        "pull its image again"
    }
}

/// Records that are known in memory and can't be read from the disk any more.
fn written(shared: &Shared) -> Vec<Fault> {
    let places = &shared.places;
    let known: Vec<(PathBuf, Written)> = {
        let index = shared.index();
        let images = index.images.keys().chain(index.unreadable.keys());
        let images = images.map(|id| (places.image(id), Written::Image(*id)));
        let tags = index.tags.keys().map(|name| (places.tag(name), Written::Tag(name.clone())));
        let layers = index.layers.keys().map(|key| (places.layer(key).join("record"), Written::Layer(*key)));
        let steps = index.cache.keys().map(|key| (places.cache(key), Written::Step(*key)));
        images.chain(tags).chain(layers).chain(steps).collect()
    };
    let judge = |(path, what): (PathBuf, Written)| {
        let reason = match is_readable(&path, &what) {
            Ok(true) => return None,
            Ok(false) => "it is absent".to_owned(),
            Err(error) => error.to_string(),
        };
        // It may have been removed between the two looks.
        if !is_known(shared, &what) {
            return None;
        }
        Some(fault(Kind::Written(what), path, format!("{reason}: check --repair writes it again")))
    };
    known.into_iter().filter_map(judge).collect()
}

fn is_known(shared: &Shared, what: &Written) -> bool {
    let index = shared.index();
    match what {
        Written::Image(id) => index.images.contains_key(id) || index.unreadable.contains_key(id),
        Written::Tag(name) => index.tags.contains_key(name),
        Written::Layer(key) => index.layers.contains_key(key),
        Written::Step(key) => index.cache.contains_key(key),
    }
}

/// Whether a record is there; an error where it is damaged.
fn is_readable(path: &Path, what: &Written) -> Result<bool> {
    Ok(match what {
        Written::Image(_) => durable::read_record::<ImageRecord>(path)?.is_some(),
        Written::Tag(_) => durable::read_record::<TagRecord>(path)?.is_some(),
        Written::Layer(_) => durable::read_record::<LayerFile>(path)?.is_some(),
        Written::Step(_) => durable::read_record::<CacheRecord>(path)?.is_some(),
    })
}

/// Names that nothing of the store has.
fn strangers(shared: &Shared) -> Vec<Fault> {
    let is_one = |folder: &str, name: &str| match folder {
        "layers" => name.parse::<LayerKey>().is_ok(),
        _ => Digest::from_hex(name).is_ok(),
    };
    let mut found = Vec::new();
    for folder in ["blobs/sha256", "layers", "images", "refs", "build-cache"] {
        let entries = std::fs::read_dir(shared.places.folder(folder)).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_one(folder, &name) && !durable::is_temporary(&name) {
                let aside = durable::is_aside(&name);
                let why =
                    if aside { "it stood in the way of a record" } else { "it has no place in the store" };
                found.push(fault(Kind::Stranger, entry.path(), format!("{why}: remove it")));
            }
        }
    }
    found
}

/// The damage that was found when the store was opened, with advice.
pub(crate) fn known(shared: &Shared) -> Vec<Finding> {
    damaged_records(shared).into_iter().map(|fault| fault.finding).collect()
}

/// Records that could not be read when the store was opened.
fn damaged_records(shared: &Shared) -> Vec<Fault> {
    let damaged = shared.index().damaged.clone();
    let folder = |name: &str| shared.places.folder(name);
    let view = |damaged: Damaged| {
        let Damaged { mut finding, hides } = damaged;
        let parent = finding.path.parent().map(Path::to_path_buf).unwrap_or_default();
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let key = (parent.parent() == Some(&folder("layers"))).then(|| name(&parent)?.parse().ok()).flatten();
        let id = name(&finding.path).unwrap_or_default();
        let remedy = match hides {
            _ if finding.mended => String::new(),
            Hides::Name => ": tag or pull its image again, or have check --repair remove it".to_owned(),
            Hides::Layers => format!(": pull or build its image again, or remove it: rmi -f {id}"),
            Hides::Nothing if parent == folder("build-cache") => {
                ": it is only a cache, check --repair removes it".to_owned()
            }
            Hides::Nothing if key.is_some() => ": check --repair makes it again".to_owned(),
            Hides::Nothing => format!(": pull or build its image again, or remove it: rmi -f {id}"),
        };
        finding.problem.push_str(&remedy);
        Fault { kind: key.map_or(Kind::Record, Kind::Layer), finding }
    };
    damaged.into_iter().map(view).collect()
}

fn names(shared: &Shared, faults: &mut Vec<Fault>) -> u64 {
    let index = shared.index();
    for (id, image) in &index.images {
        if let Err(error) = index.keys(&image.record.layers) {
            let keys = Index::candidates(&image.record.layers);
            let absent =
                keys.filter(|key| !index.layers.contains_key(key) && !index.placed.contains_key(key));
            for key in absent {
                let path = shared.places.layer(&key).join("record");
                if shared.places.layer(&key).is_dir() && path.symlink_metadata().is_err() {
                    faults.push(fault(Kind::Layer(key), path, "it is absent: check --repair makes it again"));
                }
            }
            faults.push(fault(Kind::Image(*id), shared.places.image(id), error.to_string()));
        }
    }
    for (tag, id) in &index.tags {
        // A damaged image has a finding of its own.
        if !index.images.contains_key(id) && !index.unreadable.contains_key(id) && !index.lost.contains(id) {
            let problem = format!(
                "{tag} names the image {id}, which is not here: pull or build it again, or rmi -f {tag}"
            );
            faults.push(fault(Kind::Tag(tag.clone()), shared.places.tag(tag), problem));
        }
    }
    for image in index.images.values() {
        let manifests = image.record.manifests.iter().flat_map(|one| [one.target, one.manifest]);
        for digest in manifests.chain([image.record.id.0]) {
            let path = shared.places.blob(&digest);
            if path.symlink_metadata().is_err() {
                faults.push(fault(Kind::Blob(digest), path, "it is absent: pull or build its image again"));
            }
        }
    }
    (index.images.len() + index.tags.len()) as u64
}

/// Whether a manifest, an index or a configuration is one that an image has.
fn is_needed(shared: &Shared, digest: &Digest) -> bool {
    let index = shared.index();
    let mut records = index.images.values().map(|image| &image.record).chain(index.unreadable.values());
    records.any(|image| {
        let mut manifests = image.manifests.iter();
        image.id.0 == *digest || manifests.any(|one| one.target == *digest || one.manifest == *digest)
    })
}

/// Whether a layer's tar is what its record says.
fn layer(shared: &Shared, key: &LayerKey) -> Result<()> {
    let file = shared.index().layers.get(key).cloned();
    let file = file.ok_or_else(|| Error::LayerMissing { layer: key.to_string() })?;
    shared.layer_tar_at(key, &file, &mut io::sink())
}

/// Whether an object is what its name says.
fn blob(path: &Path, digest: &Digest) -> Result<(), String> {
    match digest_of_file(path) {
        Ok(actual) if actual == *digest => Ok(()),
        Ok(actual) => Err(format!("it has digest {actual}")),
        Err(error) => Err(error.to_string()),
    }
}

fn digest_of_file(path: &Path) -> Result<Digest> {
    use sha2::{Digest as _, Sha256};
    let mut file = atomic::open_regular(path).map_err(Error::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        let count = io::Read::read(&mut file, &mut buffer).map_err(Error::io("read", path))?;
        match buffer.get(..count) {
            Some([]) | None => return Ok(Digest::finish(hasher)),
            Some(part) => hasher.update(part),
        }
    }
}
