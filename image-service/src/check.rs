//! Verifies the store: every record readable, every small object and every layer's tar what its digest says, every image's
//! layers here, every tag's image here.

use std::fs;
use std::io;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Finding;
use crate::index::entries;
use crate::store::Shared;

/// Looks at everything and says what is wrong.
pub(crate) fn check(shared: &Arc<Shared>) -> Result<Vec<Finding>> {
    let mut findings = shared.index().damaged.clone();
    names(shared, &mut findings);
    for (name, path) in entries(&shared.places.folder("blobs/sha256"))? {
        let Ok(digest) = Digest::from_hex(&name) else {
            findings.push(Finding { path, problem: "it is no object: remove it".into() });
            continue;
        };
        match digest_of_file(&path) {
            Ok(actual) if actual == digest => {}
            Ok(actual) => {
                findings
                    .push(Finding { path, problem: format!("it has digest {actual}: pull its image again") });
            }
            Err(error) => findings.push(Finding { path, problem: error.to_string() }),
        }
    }
    let layers: Vec<_> = shared.index().layers.iter().map(|(key, file)| (*key, file.clone())).collect();
    for (key, file) in layers {
        if let Err(error) = shared.layer_tar_at(&key, &file, &mut io::sink()) {
            let problem = format!("{error}: remove its images and pull them again");
            findings.push(Finding { path: shared.places.layer(&key), problem });
        }
    }
    Ok(findings)
}

fn names(shared: &Shared, findings: &mut Vec<Finding>) {
    let index = shared.index();
    for (id, image) in &index.images {
        if let Err(error) = index.keys(&image.record.layers) {
            findings.push(Finding { path: shared.places.image(id), problem: error.to_string() });
        }
    }
    for (tag, id) in &index.tags {
        if !index.images.contains_key(id) {
            let problem = format!("{tag} names the image {id}, which is not here: pull it again");
            findings.push(Finding { path: shared.places.tag(tag), problem });
        }
    }
}

fn digest_of_file(path: &std::path::Path) -> Result<Digest> {
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
