//! An image's documents and blobs, made by the test itself: what a registry, honest or not, hands out.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;

/// OCI's type of a manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's type of an index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's type of a manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// `sha256:` and the digest of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Compressed by gzip.
///
/// # Panics
/// Never: memory takes it all.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Compressed by zstd.
///
/// # Panics
/// Never: memory takes it all.
#[must_use]
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("memory takes it")
}

/// A manifest, a configuration and layers.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The manifest; a test may put anything here.
    pub manifest: Value,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The layers' bytes, as they travel.
    pub layers: Vec<Vec<u8>>,
}

impl Artifact {
    /// An image of these tars, each as it is.
    #[must_use]
    pub fn of(tars: &[Vec<u8>]) -> Self {
        let layers = tars.iter().map(|tar| (tar.as_slice(), tar.clone(), "tar")).collect::<Vec<_>>();
        Self::with(&layers)
    }

    /// An image of tars, each with the bytes that travel and the end of its media type.
    #[must_use]
    pub fn with(layers: &[(&[u8], Vec<u8>, &str)]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _, _)| digest(tar)).collect();
        let config = json!({"architecture": architecture(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let described: Vec<Value> = layers
            .iter()
            .map(|(_, blob, form)| descriptor(&format!("application/vnd.oci.image.layer.v1.{form}"), blob))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": described});
        Self { manifest, config, layers: layers.iter().map(|(_, blob, _)| blob.clone()).collect() }
    }

    /// The same in Docker's words.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.manifest["mediaType"] = json!(DOCKER_MANIFEST);
        self.manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
        for layer in self.manifest["layers"].as_array_mut().into_iter().flatten() {
            layer["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        }
        self
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest_bytes(&self) -> Vec<u8> {
        self.manifest.to_string().into_bytes()
    }

    /// The image's id.
    #[must_use]
    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// The diff ids that the configuration names.
    ///
    /// # Panics
    /// When the configuration is no JSON.
    #[must_use]
    pub fn diff_ids(&self) -> Value {
        let config: Value = serde_json::from_slice(&self.config).expect("a configuration");
        config["rootfs"]["diff_ids"].clone()
    }
}

/// The OCI descriptor of some bytes.
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// An index with one manifest for this machine.
#[must_use]
pub fn index(manifest: &[u8]) -> Value {
    let mut ours = descriptor(OCI_MANIFEST, manifest);
    ours["platform"] = json!({"os": "linux", "architecture": architecture()});
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [ours]})
}

/// This machine in Go's words.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
