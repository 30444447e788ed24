//! Manifests and indexes, Docker's and OCI's, read strictly: a document that could be taken for both is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The annotation by which an index marks what only goes with an image, as attestations.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media types that a client can read.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// A manifest, index or configuration is never larger.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
const LAYERS_MAX: usize = 500;

/// The descriptor by which an object is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size }
    }
}

/// An entry of an index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<Platform>,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A manifest of an index that may be this machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) descriptor: Descriptor,
    /// The index says that it is for this machine's platform; else its configuration has to tell.
    pub(crate) certain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// Whether its configuration is an image's by its type; other artifacts are described by manifests too.
    pub(crate) fn is_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), "" | OCI_CONFIG | DOCKER_CONFIG)
    }
}

impl Platform {
    fn is_this_machine(&self) -> bool {
        self.os == "linux" && self.architecture == machine().0
    }
}

/// A registry's answer for a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    /// The manifests that may be for this machine, the best first.
    Index(Vec<Candidate>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<serde_json::Value>>,
}

/// Reads a document; the error says what is wrong with it.
pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, String> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))?;
    if raw.schema_version != 2 {
        return Err(format!(
            "its schema version is {}, not 2: push the image again with a current tool",
            raw.schema_version
        ));
    }
    let said = raw.media_type.as_deref().or(content_type).unwrap_or_default();
    let says_index = said.contains("index") || said.contains("manifest.list");
    match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(manifests)) if says_index || said.is_empty() => {
            Ok(Document::Index(candidates(manifests)))
        }
        (Some(config), Some(layers), None) if !says_index => {
            if layers.len() > LAYERS_MAX {
                return Err(format!("it has {} layers, more than {LAYERS_MAX}", layers.len()));
            }
            let media_type = if said.is_empty() { OCI_MANIFEST } else { said }.to_owned();
            Ok(Document::Manifest(Manifest { schema_version: 2, media_type, config, layers }))
        }
        _ => Err("it is neither plainly a manifest nor plainly an index".into()),
    }
}

/// The manifests for this machine: those of its own variant, those that name no variant, those of others, then those
/// without a platform.
fn candidates(manifests: Vec<serde_json::Value>) -> Vec<Candidate> {
    let variant = machine().1;
    let rank = |entry: &Entry| match entry.platform.as_ref().map(|platform| platform.variant.as_deref()) {
        Some(said) if said == variant => 0,
        Some(None) => 1,
        Some(Some(_)) => 2,
        None => 3,
    };
    // A descriptor of another platform may use a digest that is not known here: it is not asked for.
    let read = manifests.into_iter().filter_map(|value| serde_json::from_value::<Entry>(value).ok());
    let mut fits: Vec<Entry> = read
        .filter(|entry| entry.platform.as_ref().is_none_or(Platform::is_this_machine))
        // Attestations, signatures and other artifacts that go with an image.
        .filter(|entry| entry.artifact_type.is_none() && !entry.annotations.contains_key(REFERENCE_TYPE))
        .collect();
    fits.sort_by_key(rank);
    let candidate =
        |entry: Entry| Candidate { descriptor: entry.descriptor, certain: entry.platform.is_some() };
    fits.into_iter().map(candidate).collect()
}

/// Whether an image's configuration is for this machine's platform.
pub(crate) fn is_for_this_machine(config: &[u8]) -> bool {
    serde_json::from_slice::<Platform>(config).is_ok_and(|platform| platform.is_this_machine())
}

/// This machine's platform as users write it.
pub(crate) fn platform() -> String {
    format!("linux/{}", machine().0)
}

/// This machine in Go's words.
fn machine() -> (&'static str, Option<&'static str>) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "aarch64" => ("arm64", Some("v8")),
        "arm" => ("arm", Some("v7")),
        "powerpc64" => ("ppc64le", None),
        "loongarch64" => ("loong64", None),
        other => (other, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(name: &str) -> serde_json::Value {
        json!({"mediaType": "x", "size": 1, "digest": Digest::of(name.as_bytes())})
    }

    #[test]
    fn an_index_leads_to_this_machine() {
        let mut ours = descriptor("ours");
        ours["platform"] = json!({"os": "linux", "architecture": machine().0});
        let mut theirs = descriptor("theirs");
        theirs["platform"] = json!({"os": "windows", "architecture": machine().0});
        let odd =
            json!({"digest": "sha512:00", "size": 1, "platform": {"os": "linux", "architecture": "odd"}});
        let index = json!({"schemaVersion": 2, "manifests": [odd, theirs, ours]}).to_string();
        assert_eq!(found(&index), [(Digest::of(b"ours"), true)]);
        let none = json!({"schemaVersion": 2, "manifests": [theirs]}).to_string();
        assert_eq!(found(&none), []);
    }

    fn found(index: &str) -> Vec<(Digest, bool)> {
        let Ok(Document::Index(candidates)) = parse(index.as_bytes(), None) else {
            panic!("no index: {index}")
        };
        candidates.into_iter().map(|one| (one.descriptor.digest, one.certain)).collect()
    }

    #[test]
    fn a_manifest_without_a_platform_is_asked_for_last_and_an_attestation_never() {
        let mut ours = descriptor("ours");
        ours["platform"] = json!({"os": "linux", "architecture": machine().0});
        let mut attestation = descriptor("attestation");
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let mut unknown = attestation.clone();
        unknown["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let mut artifact = descriptor("artifact");
        artifact["artifactType"] = json!("application/x");
        let manifests = [descriptor("plain"), attestation, unknown, artifact, ours];
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        assert_eq!(found(&index), [(Digest::of(b"ours"), true), (Digest::of(b"plain"), false)]);
    }

    #[test]
    fn a_document_that_is_both_is_refused() {
        let both =
            json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [], "manifests": []}).to_string();
        assert!(parse(both.as_bytes(), None).is_err());
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": []}).to_string();
        assert!(parse(manifest.as_bytes(), Some(index)).is_err());
        assert!(parse(manifest.as_bytes(), Some(OCI_MANIFEST)).is_ok());
        assert!(parse(b"{}", None).is_err());
        assert!(parse(b"", None).is_err());
    }
}
