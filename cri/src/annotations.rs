//! Annotations by which tools and hooks know a pod and container from an OCI specification alone: containerd's names.

use std::collections::HashMap;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::SandboxId;

const PREFIX: &str = "io.kubernetes.cri";

/// A pod's.
pub(crate) fn of_pod(id: &SandboxId, pod: &cri::PodSandboxConfig) -> HashMap<String, String> {
    let mut annotations = common(id, pod);
    annotations.insert(format!("{PREFIX}.container-type"), "sandbox".to_owned());
    annotations.insert(format!("{PREFIX}.sandbox-log-directory"), pod.log_directory.clone());
    annotations
}

/// A container's.
pub(crate) fn of_container(
    id: &SandboxId,
    pod: &cri::PodSandboxConfig,
    container: &cri::ContainerConfig,
) -> HashMap<String, String> {
    let mut annotations = common(id, pod);
    let name = container.metadata.clone().unwrap_or_default().name;
    let image = container.image.clone().unwrap_or_default();
    // kubelet asks by id; the name that the pod was written with is beside it.
    let image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    for (key, value) in
        [("container-type", "container".to_owned()), ("container-name", name), ("image-name", image)]
    {
        annotations.insert(format!("{PREFIX}.{key}"), value);
    }
    annotations
}

fn common(id: &SandboxId, pod: &cri::PodSandboxConfig) -> HashMap<String, String> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    let known = [
        ("sandbox-id", id.to_string()),
        ("sandbox-name", metadata.name),
        ("sandbox-namespace", metadata.namespace),
        ("sandbox-uid", metadata.uid),
    ];
    known.into_iter().map(|(key, value)| (format!("{PREFIX}.{key}"), value)).collect()
}
