//! Manifests and indexes, Docker's and OCI's, read strictly: what could be taken for both is refused.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What a client can read.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// A manifest, index or configuration is never larger.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
const LAYERS_MAX: usize = 500;

/// What an object is found by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing)]
    platform: Option<Platform>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None }
    }
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

/// What a registry answers for a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    /// The manifest for this machine's platform.
    Index(Descriptor),
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
            choose(manifests).map(Document::Index)
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

/// The manifest for this machine; a plain match of the variant goes before one without a word on it.
fn choose(manifests: Vec<serde_json::Value>) -> Result<Descriptor, String> {
    let (architecture, variant) = machine();
    let mut fits: Vec<Descriptor> = manifests
        .into_iter()
        // A descriptor of another platform may use a digest that is not known here: it is not asked for.
        .filter_map(|value| serde_json::from_value::<Descriptor>(value).ok())
        .filter(|one| {
            one.platform
                .as_ref()
                .is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
        })
        .collect();
    let rank = |one: &Descriptor| match one.platform.as_ref().and_then(|platform| platform.variant.as_deref())
    {
        said if said == variant => 0,
        None => 1,
        Some(_) => 2,
    };
    fits.sort_by_key(rank);
    let reason = || format!("it has no manifest for linux/{architecture}");
    fits.into_iter().next().ok_or_else(reason)
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
        let document = parse(index.as_bytes(), None);
        assert!(matches!(document, Ok(Document::Index(one)) if one.digest == Digest::of(b"ours")));
        let none = json!({"schemaVersion": 2, "manifests": [theirs]}).to_string();
        assert!(parse(none.as_bytes(), None).is_err_and(|reason| reason.contains("linux/")));
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
