//! Verifies the store: every record readable, every small object and every layer's tar what its digest says, every image's
//! layers here, every tag's image here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::image::{Checked, Finding};
use crate::index::entries;
use crate::records::LayerKey;
use crate::reference::Reference;
use crate::store::Shared;

mod mend;

pub(crate) use mend::mend;

/// What is wrong somewhere, as far as something can be done about it.
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
    /// A record that can't be understood.
    Record,
    /// What has no place in the store.
    Stranger,
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
    objects += names(shared, &mut faults);
    for (name, path) in entries(&shared.places.folder("blobs/sha256"))? {
        objects += 1;
        let Ok(digest) = Digest::from_hex(&name) else {
            faults.push(fault(Kind::Stranger, path, "it is no object: remove it"));
            continue;
        };
        if let Err(problem) = blob(&path, &digest) {
            faults.push(fault(Kind::Blob(digest), path, format!("{problem}: pull its image again")));
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
    Ok((faults, objects))
}

/// Records that could not be read when the daemon started.
fn damaged_records(shared: &Shared) -> Vec<Fault> {
    let damaged = shared.index().damaged.clone();
    let layers = shared.places.folder("layers");
    let kind = |path: &Path| {
        let name = path.parent().filter(|parent| parent.parent() == Some(&layers)).and_then(Path::file_name);
        let key = name.and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        key.map_or(Kind::Record, Kind::Layer)
    };
    damaged.into_iter().map(|finding| Fault { kind: kind(&finding.path), finding }).collect()
}

fn names(shared: &Shared, faults: &mut Vec<Fault>) -> u64 {
    let index = shared.index();
    for (id, image) in &index.images {
        if let Err(error) = index.keys(&image.record.layers) {
            faults.push(fault(Kind::Image(*id), shared.places.image(id), error.to_string()));
        }
    }
    for (tag, id) in &index.tags {
        if !index.images.contains_key(id) {
            let problem = format!("{tag} names the image {id}, which is not here: pull it again");
            faults.push(fault(Kind::Tag(tag.clone()), shared.places.tag(tag), problem));
        }
    }
    (index.images.len() + index.tags.len()) as u64
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
    let mut file = fs::File::open(path).map_err(Error::io("open", path))?;
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
