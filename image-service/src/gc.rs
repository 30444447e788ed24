//! Garbage collection by reachability: images, the build cache and leases are the roots. What goes is first renamed into
//! `trash/`, so that it is never half there under its name, and removed from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slipway_disk::walker::{self, Remnants};

use crate::digest::{DiffId, Digest};
use crate::durable;
use crate::error::{Error, Result};
use crate::index::{Held, Index};
use crate::places::{Places, entries};
use crate::records::LayerKey;
use crate::store::Shared;

/// A partial blob that nobody resumed for this long is garbage.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// A layer of so many inodes is removed after the answer.
const LARGE: u64 = 50_000;

impl Shared {
    /// Moves a directory to the trash and says where it is now.
    pub(crate) fn to_trash(&self, path: &Path) -> Result<PathBuf> {
        let trash = self.places.folder("trash").join(durable::temporary_name());
        fs::rename(path, &trash).map_err(Error::io("remove", path))?;
        Ok(trash)
    }

    /// Removes what is in the trash. Nothing refers to it, so that what can't be removed is no failure of whoever threw it
    /// away: a check reports it, and the next start tries again.
    pub(crate) fn empty_trash(&self, trash: &Path) {
        if let Err(error) = self.remnants.remove(trash) {
            stays(trash, &error);
        }
    }
}

/// How long the removal of what an earlier process has left may delay the opening of the store.
const PATIENCE: Duration = Duration::from_secs(1);

/// Removes the drafts and the trash of an earlier process, which may be large: after a moment in the background.
pub(crate) fn clear_leftovers(places: &Places, remnants: &Remnants) {
    let mut left = Vec::new();
    for (folder, is_draft) in [("trash", false), ("drafts", true)] {
        match paths(&places.folder(folder)) {
            Ok(paths) if is_draft => left.extend(paths.into_iter().map(|path| {
                let trash = places.folder("trash").join(durable::temporary_name());
                // A layer that can't be moved is removed where it is.
                if fs::rename(&path, &trash).is_ok() { trash } else { path }
            })),
            Ok(paths) => left.extend(paths),
            Err(error) => tracing::error!(%error, "what an earlier daemon has left there is not removed"),
        }
    }
    if let Err(error) = remnants.sweep(left, PATIENCE, stays) {
        tracing::error!(%error, "what an earlier daemon has left is not removed before the next start");
    }
}

fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<std::io::Result<_>>().map_err(Error::io("read", folder))
}

fn stays(path: &Path, error: &walker::Error) {
    tracing::error!(
        path = %path.display(),
        error = walker::told(error),
        "it can't be removed and stays: mend that, then run slipway check --repair"
    );
}

/// Removes what nothing reaches; returns the bytes given back. A damaged record that hides what an image has keeps all
/// that was here when the store was opened: nothing that came later can be what it refers to.
pub(crate) fn collect(shared: &Arc<Shared>) -> Result<u64> {
    let (layers, blobs, partial) = (layers(shared), blobs(shared), partial_blobs(shared));
    let bytes = layers? + blobs?;
    partial.map(|()| bytes)
}

fn layers(shared: &Shared) -> Result<u64> {
    let mut bytes = 0;
    let mut first = None;
    let reachable = shared.index().reachable();
    for (name, path) in entries(&shared.places.folder("layers"))? {
        if let Some(key) = name.parse().ok().filter(|key| !reachable.contains(&Held::Layer(*key))) {
            match layer(shared, key, &path) {
                Ok(freed) => bytes += freed,
                // The others can be removed all the same.
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
    }
    first.map_or(Ok(bytes), Err)
}

/// Removes a layer's directory, recorded or not, unless something reaches it by now.
fn layer(shared: &Shared, key: LayerKey, path: &Path) -> Result<u64> {
    let placing = shared.placing();
    if fs::symlink_metadata(path).is_err() {
        return Ok(0);
    }
    let known = {
        // It is forgotten in the same moment: who takes a lease after this does not find it any more.
        let mut index = shared.index();
        if index.reachable().contains(&Held::Layer(key)) {
            return Ok(0);
        }
        index.placed.remove(&key);
        index.healed(&path.join("record"));
        index.layers.remove(&key)
    };
    let trash = shared.to_trash(path)?;
    drop(placing);
    let (bytes, inodes) = known.map_or((0, 0), |layer| (layer.bytes, layer.inodes));
    // A million files take a minute to remove, longer than a client waits; what a crash leaves goes at the next start.
    if inodes < LARGE {
        shared.empty_trash(&trash);
    } else if let Err(error) = shared.remnants.sweep(vec![trash], Duration::ZERO, stays) {
        tracing::warn!(%error, "a removed layer is left in the trash until the next start");
    }
    Ok(bytes)
}

/// Removes what a pull that was refused has brought: layers that nothing else reaches, and its partial blobs.
pub(crate) fn discard(shared: &Arc<Shared>, layers: &[DiffId], blobs: &[Digest]) -> Result<()> {
    for key in Index::candidates(layers) {
        layer(shared, key, &shared.places.layer(&key))?;
    }
    for digest in blobs {
        discard_partial(shared, digest)?;
        let _placing = shared.placing();
        if !shared.index().reachable().contains(&Held::Blob(*digest)) {
            slipway_disk::remove_tree(&shared.places.blob(digest))?;
        }
    }
    Ok(())
}

/// Removes a partial blob that nobody is filling.
pub(crate) fn discard_partial(shared: &Shared, digest: &Digest) -> Result<()> {
    let path = shared.places.partial(digest);
    match fs::File::open(&path) {
        Ok(file) if durable::lock_named(&file, &path) => Ok(slipway_disk::remove_tree(&path)?),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("open", &path)(error)),
    }
}

fn blobs(shared: &Shared) -> Result<u64> {
    let mut bytes = 0;
    let reachable = shared.index().reachable();
    for (name, path) in entries(&shared.places.folder("blobs/sha256"))? {
        let Some(digest) =
            Digest::from_hex(&name).ok().filter(|digest| !reachable.contains(&Held::Blob(*digest)))
        else {
            continue;
        };
        let _placing = shared.placing();
        if shared.index().reachable().contains(&Held::Blob(digest)) {
            continue;
        }
        bytes += fs::symlink_metadata(&path).map_or(0, |stat| stat.len());
        slipway_disk::remove_tree(&path)?;
    }
    Ok(bytes)
}

fn partial_blobs(shared: &Shared) -> Result<()> {
    for (name, path) in entries(&shared.places.folder("blobs/partial"))? {
        let age = fs::symlink_metadata(&path).and_then(|stat| stat.modified()).ok();
        let age = age.and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default();
        let leased = Digest::from_hex(&name)
            .is_ok_and(|digest| shared.index().leases.contains_key(&Held::Blob(digest)));
        if age <= PARTIAL_AGE || leased {
            continue;
        }
        match Digest::from_hex(&name) {
            // A pull may have begun to fill it since: then it is locked.
            Ok(digest) => discard_partial(shared, &digest)?,
            Err(_) => slipway_disk::remove_tree(&path)?,
        }
    }
    Ok(())
}

/// Removes writes that a crash left unfinished. What can't be removed stays: nothing reads it.
pub(crate) fn remove_unfinished(folder: &Path, remnants: &Remnants) -> Result<()> {
    let is_unfinished =
        |path: &PathBuf| path.file_name().is_some_and(|name| durable::is_temporary(&name.to_string_lossy()));
    for path in paths(folder)?.into_iter().filter(is_unfinished) {
        if let Err(error) = remnants.remove(&path) {
            stays(&path, &error);
        }
    }
    Ok(())
}
