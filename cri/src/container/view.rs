//! ListContainers and ContainerStatus.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{ContainerState, ExitReason};

use crate::error::{Error, Result};
use crate::images;
use crate::node::{Container, Node};
use crate::sandbox::view::matches;
use crate::spec;
use crate::verbose;

/// The containers that a filter lets through.
pub(crate) async fn list(
    node: &Arc<Node>,
    request: cri::ListContainersRequest,
) -> Result<cri::ListContainersResponse> {
    let node_too = node.clone();
    let containers = node
        .blocking(move || {
            let filter = request.filter.unwrap_or_default();
            let rows = node_too.containers.cri();
            let items = rows.iter().filter(|row| wanted(row, &filter));
            let items = items.filter_map(|row| item(&node_too, row));
            let state = filter.state.map(|state| state.state);
            Ok::<_, Error>(items.filter(|item| state.is_none_or(|state| state == item.state)).collect())
        })
        .await?;
    Ok(cri::ListContainersResponse { containers })
}

/// One container.
pub(crate) async fn status(
    node: &Arc<Node>,
    request: cri::ContainerStatusRequest,
) -> Result<cri::ContainerStatusResponse> {
    let container = node.containers.find_cri(&request.container_id)?;
    let node_too = node.clone();
    node.blocking(move || {
        let absent = || Error::NotFound { kind: "container", id: request.container_id };
        Ok::<_, Error>(cri::ContainerStatusResponse {
            status: Some(described(&node_too, &container).ok_or_else(absent)?),
            info: if request.verbose { told(&node_too, &container) } else { BTreeMap::new() },
        })
    })
    .await
}

fn told(node: &Node, container: &Container) -> BTreeMap<String, String> {
    verbose::container(node, container, config(container), life(node, container).pid)
}

/// The client's request for the container.
pub(crate) fn config(container: &Container) -> &cri::ContainerConfig {
    static NONE: std::sync::LazyLock<cri::ContainerConfig> = std::sync::LazyLock::new(Default::default);
    container.record.request.0.config.as_ref().unwrap_or_else(|| &NONE)
}

/// A container's state and times in the CRI's words.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) state: cri::ContainerState,
    pub(crate) pid: u32,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Where a container is in its life; unknown when the runtime can't say.
pub(crate) fn life(node: &Node, container: &Container) -> Life {
    match node.runtime.container_state(&container.record.id) {
        Ok(state) => life_of(&state),
        Err(error) => Life {
            state: cri::ContainerState::ContainerUnknown,
            message: Error::from(error).chain(),
            ..Life::default()
        },
    }
}

/// The runtime's state of a container, in the CRI's words.
pub(crate) fn life_of(state: &ContainerState) -> Life {
    match *state {
        ContainerState::Created { .. } => Life::default(),
        ContainerState::Running { pid, started_at } => Life {
            state: cri::ContainerState::ContainerRunning,
            pid: u32::try_from(pid).unwrap_or_default(),
            started_at,
            ..Life::default()
        },
        ContainerState::Exited { started_at, finished_at, code, reason, ref message } => Life {
            state: cri::ContainerState::ContainerExited,
            started_at,
            finished_at,
            code,
            reason: word(reason),
            message: message.clone(),
            ..Life::default()
        },
    }
}

fn word(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Completed => "Completed",
        ExitReason::Error => "Error",
        ExitReason::OomKilled => "OOMKilled",
        ExitReason::MonitorLost => "MonitorLost",
        ExitReason::StartError => "StartError",
    }
}

fn wanted(container: &Container, filter: &cri::ContainerFilter) -> bool {
    container.id().starts_with(&filter.id)
        && container.record.pod.as_str().starts_with(&filter.pod_sandbox_id)
        && matches(&filter.label_selector, &config(container).labels)
}

/// As [`life`], of a container that is there: none where a removal has taken it away since it was looked up.
fn present(node: &Node, container: &Container) -> Option<Life> {
    let life = life(node, container);
    let removed = life.state == cri::ContainerState::ContainerUnknown
        && node.runtime.is_container_removed(&container.record.id);
    (!removed).then_some(life)
}

fn item(node: &Node, container: &Container) -> Option<cri::Container> {
    let config = config(container);
    let record = &container.record;
    let life = present(node, container)?;
    Some(cri::Container {
        id: container.id().to_owned(),
        pod_sandbox_id: record.pod.to_string(),
        metadata: config.metadata.clone(),
        image: Some(config.image.clone().unwrap_or_default()),
        image_ref: image_ref(container),
        state: life.state.into(),
        created_at: record.created_at,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image_id: record.image_id.to_string(),
    })
}

/// A container in full; none where a removal has taken it away. What can't be found out is said in its state and message.
pub(crate) fn described(node: &Node, container: &Container) -> Option<cri::ContainerStatus> {
    let config = config(container);
    let record = &container.record;
    let life = present(node, container)?;
    let asked = config.image.clone().unwrap_or_default();
    let image = images::known_as(node, &record.image_id, &asked.image);
    let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone());
    let signal = spec::signal::to_cri(record.stop_signal);
    Some(cri::ContainerStatus {
        id: container.id().to_owned(),
        metadata: config.metadata.clone(),
        state: life.state.into(),
        created_at: record.created_at,
        started_at: life.started_at,
        finished_at: life.finished_at,
        exit_code: life.code,
        image: Some(cri::ImageSpec { image, ..asked }),
        image_ref: image_ref(container),
        reason: life.reason.to_owned(),
        message: life.message,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        resources: resources.map(|linux| cri::ContainerResources { linux: Some(linux), windows: None }),
        image_id: record.image_id.to_string(),
        user: user(node, container),
        stop_signal: signal.into(),
    })
}

/// The repository digest, which a scanner can look up; the id of an image that was made here.
fn image_ref(container: &Container) -> String {
    let record = &container.record;
    record.image_digest.clone().unwrap_or_else(|| record.image_id.to_string())
}

/// The user that it runs as, by the image's own files; known once it has been started.
fn user(node: &Node, container: &Container) -> Option<cri::ContainerUser> {
    let identity = node.runtime.container_identity(&container.record.id).ok()??;
    let linux = cri::LinuxContainerUser {
        uid: identity.uid.into(),
        gid: identity.gid.into(),
        supplemental_groups: identity.groups.into_iter().map(i64::from).collect(),
    };
    Some(cri::ContainerUser { linux: Some(linux) })
}
