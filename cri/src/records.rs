//! The daemon's part of a pod's and a container's record: the client's request, and what followed from it. The runtime keeps
//! it, as a document, in the one record that each has, with the state.

use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use slipway_image::ImageId;
use slipway_proto::runtime::v1::{CreateContainerRequest, RunPodSandboxRequest};
use slipway_runtime::{ContainerId, ContainerRequest, Owner, SandboxId, SandboxStatus};

use crate::error::Result;

/// A pod's document.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PodDocument {
    pub(crate) name: String,
    pub(crate) request: Encoded<RunPodSandboxRequest>,
}

/// A container's document.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ContainerDocument {
    pub(crate) name: String,
    pub(crate) image_id: ImageId,
    /// The repository and digest by which the image was pulled; none of one that was made here.
    #[serde(default)]
    pub(crate) image_digest: Option<String>,
    pub(crate) stop_signal: i32,
    /// Remove it when it has ended.
    pub(crate) transient: bool,
    pub(crate) request: Encoded<CreateContainerRequest>,
}

/// A pod as views show it: the parts of the runtime's record that never change, and the document.
#[derive(Clone, Debug)]
pub(crate) struct PodRecord {
    pub(crate) id: SandboxId,
    pub(crate) owner: Owner,
    pub(crate) name: String,
    pub(crate) created_at: i64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) request: Encoded<RunPodSandboxRequest>,
    /// The reason why this stands in for a record that is lost.
    pub(crate) damage: Option<String>,
}

impl PodRecord {
    pub(crate) fn new(status: SandboxStatus, document: PodDocument) -> Self {
        Self {
            id: status.config.id,
            owner: status.config.owner,
            name: document.name,
            created_at: status.created_at,
            addresses: status.addresses,
            request: document.request,
            damage: None,
        }
    }
}

/// A container as views show it, likewise.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) owner: Owner,
    pub(crate) pod: SandboxId,
    pub(crate) name: String,
    pub(crate) created_at: i64,
    pub(crate) image_id: ImageId,
    pub(crate) image_digest: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) stop_signal: i32,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) transient: bool,
    pub(crate) request: Encoded<CreateContainerRequest>,
    /// As [`PodRecord::damage`].
    pub(crate) damage: Option<String>,
}

impl ContainerRecord {
    pub(crate) fn new(request: ContainerRequest, created_at: i64, document: ContainerDocument) -> Self {
        let process = request.spec.process().as_ref();
        Self {
            owner: request.owner,
            name: document.name,
            created_at,
            image_id: document.image_id,
            image_digest: document.image_digest,
            command: process.and_then(|process| process.args().clone()).unwrap_or_default(),
            stop_signal: document.stop_signal,
            log_path: request.log_path,
            transient: document.transient,
            request: document.request,
            damage: None,
            id: request.id,
            pod: request.sandbox,
        }
    }
}

/// A protobuf message as base64 in a JSON text: bytes that are no text survive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoded<M>(pub(crate) M);

impl<M: prost::Message> Serialize for Encoded<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: prost::Message + Default> Deserialize<'de> for Encoded<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        M::decode(bytes.as_slice()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_survive_a_record() {
        use slipway_proto::runtime::v1::KeyValue;
        let value = Encoded(KeyValue { key: "k".into(), value: vec![0, 255, 10] });
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Encoded<KeyValue>>(&text).unwrap(), value);
    }

    /// Earlier releases kept these in records of their own, whose contents the runtime gives as documents.
    #[test]
    fn the_requests_that_earlier_releases_recorded_are_read_as_documents() {
        let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/tests/records");
        let requests = |release: &str, group: &str| {
            let entries = std::fs::read_dir(top.join(release).join(group)).unwrap();
            let read =
                entries.map(|entry| std::fs::read_to_string(entry.unwrap().path().join("request")).unwrap());
            let body = |text: String| text.lines().last().unwrap().to_owned();
            read.map(body).collect::<Vec<_>>()
        };
        for release in ["first", "replaced"] {
            let pods: Vec<PodDocument> =
                requests(release, "pods").iter().map(|body| serde_json::from_str(body).unwrap()).collect();
            let mut names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["boat_run__0", "two_default_two_0", "web_default_web_0"]);
            assert!(pods.iter().all(|pod| pod.request.0.config.is_some()));
            let containers = requests(release, "containers");
            let containers: Vec<ContainerDocument> =
                containers.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
            assert_eq!(containers.len(), 4);
            assert!(containers.iter().all(|one| one.stop_signal == 15 && one.request.0.config.is_some()));
        }
    }
}
