//! From what a registry answers for a reference to the manifest of this machine's image, through indexes and indexes
//! within them (OCI image specification, "Image Index"; containerd follows the same order).

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::registry::manifest::{self, Candidate};
use crate::registry::session::Fetched;
use crate::registry::{Document, Manifest, Session};

/// Indexes within indexes; honest ones have two.
const DEPTH_MAX: usize = 4;
/// Manifests and indexes that are asked for to find one image.
const DOCUMENTS_MAX: usize = 64;
/// The documents in errors, whose image is named before them.
const OBJECT: &str = "its manifest";

/// An image's documents, verified.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The digest of what was asked for: an index or the manifest itself.
    pub(super) target: Digest,
    /// The manifest's digest.
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    pub(super) config: Fetched,
    /// The documents to keep: what was asked for, and the manifest. Indexes between them are not needed.
    pub(super) objects: Vec<(Digest, Vec<u8>)>,
}

/// Follows what was answered for a reference.
///
/// # Errors
/// `ManifestRejected` where no document leads to an image for this machine, or too many would have to be asked for.
pub(super) async fn choose(session: &Session, root: Fetched) -> Result<Chosen> {
    let candidates = match read(&root)? {
        Document::Manifest(manifest) => {
            let config = config(session, &manifest).await?;
            let objects = vec![(root.digest, root.bytes)];
            return Ok(Chosen { target: root.digest, digest: root.digest, manifest, config, objects });
        }
        Document::Index(candidates) => candidates,
    };
    // The best candidate is the last: an index that it turns out to be is followed before the others.
    let mut ahead: Vec<(usize, Candidate)> = candidates.into_iter().rev().map(|one| (1, one)).collect();
    let mut asked = 1;
    while let Some((depth, candidate)) = ahead.pop() {
        asked += 1;
        if asked > DOCUMENTS_MAX {
            return Err(rejected(format!("its index leads to more than {DOCUMENTS_MAX} manifests")));
        }
        let Some((fetched, document)) = ask(session, &candidate).await? else { continue };
        match document {
            Document::Index(_) if depth >= DEPTH_MAX => {
                return Err(rejected(format!("its indexes lead to each other, {DEPTH_MAX} deep and more")));
            }
            Document::Index(candidates) => {
                ahead.extend(candidates.into_iter().rev().map(|one| (depth + 1, one)));
            }
            Document::Manifest(manifest) => {
                if !candidate.certain && !manifest.is_image() {
                    continue;
                }
                let config = config(session, &manifest).await?;
                if !candidate.certain && !manifest::is_for_this_machine(&config.bytes) {
                    continue;
                }
                let objects = vec![(root.digest, root.bytes), (fetched.digest, fetched.bytes)];
                return Ok(Chosen { target: root.digest, digest: fetched.digest, manifest, config, objects });
            }
        }
    }
    Err(rejected(format!("its index has no manifest for {}", manifest::platform())))
}

/// A candidate's document. One without a platform may be missing or no image's at all: then it is none.
async fn ask(session: &Session, candidate: &Candidate) -> Result<Option<(Fetched, Document)>> {
    let Candidate { descriptor, certain } = candidate;
    let fetched = match session.manifest(&descriptor.digest.to_string(), OBJECT).await {
        Err(Error::NotFoundInRegistry { .. }) if !certain => return Ok(None),
        fetched => fetched?,
    };
    if fetched.bytes.len() as u64 != descriptor.size {
        return Err(rejected(format!("it has not the {} bytes that the index says", descriptor.size)));
    }
    match read(&fetched) {
        Err(_) if !certain => Ok(None),
        document => Ok(Some((fetched, document?))),
    }
}

async fn config(session: &Session, manifest: &Manifest) -> Result<Fetched> {
    session.small_blob(&manifest.config, "its configuration").await
}

fn read(fetched: &Fetched) -> Result<Document> {
    manifest::parse(&fetched.bytes, fetched.content_type.as_deref()).map_err(rejected)
}

fn rejected(reason: String) -> Error {
    Error::ManifestRejected { object: OBJECT.to_owned(), reason }
}
