//! ListContainers and ContainerStatus, for every owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_proto::slipway::v1 as own;
use slipway_runtime::Owner;

use crate::container::view::{config, life};
use crate::error::{Error, Result};
use crate::images;
use crate::node::{Container, Node};
use crate::sandbox::view::{addresses, config as pod_config, matches};
use crate::verbose;

pub(crate) async fn list(
    node: &Arc<Node>,
    request: own::ListContainersRequest,
) -> Result<own::ListContainersResponse> {
    let node_too = node.clone();
    node.blocking(move || {
        let rows = node_too.containers.all();
        let items = rows.iter().map(|row| view(&node_too, row)).filter(|item| {
            (request.all || item.state == i32::from(own::ContainerState::Running))
                && (request.owners.is_empty() || request.owners.contains(&item.owner))
                && matches(&request.label_selector, &item.labels)
        });
        Ok::<_, Error>(own::ListContainersResponse { containers: items.collect() })
    })
    .await
}

pub(crate) async fn status(
    node: &Arc<Node>,
    request: own::ContainerStatusRequest,
) -> Result<own::ContainerStatusResponse> {
    let row = node.containers.find(&request.container)?;
    let node_too = node.clone();
    node.blocking(move || Ok::<_, Error>(described(&node_too, &row))).await
}

fn view(node: &Node, row: &Container) -> own::Container {
    let (record, config) = (&row.record, config(row));
    let life = life(node, row);
    let asked = config.image.clone().unwrap_or_default().image;
    let pod = node.pods.find(record.pod.as_str()).ok();
    let metadata = pod.as_ref().and_then(|pod| pod_config(pod).metadata.clone());
    let name = config.metadata.clone().unwrap_or_default().name;
    own::Container {
        id: row.id().to_owned(),
        name,
        owner: owner(record.owner).into(),
        state: state(life.state).into(),
        image: images::known_as(node, &record.image_id, &asked),
        image_id: record.image_id.to_string(),
        command: record.command.clone(),
        created_at: record.created_at,
        started_at: life.started_at,
        finished_at: life.finished_at,
        exit_code: life.code,
        reason: life.reason.to_owned(),
        message: life.message,
        pod_id: record.pod.to_string(),
        pod_name: match (record.owner, metadata) {
            (Owner::Cri, Some(pod)) => format!("{}/{}", pod.namespace, pod.name),
            _ => String::new(),
        },
        ports: pod.as_ref().map(|pod| ports(pod_config(pod))).unwrap_or_default(),
        addresses: pod
            .map(|pod| addresses(node, &pod).iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        labels: config.labels.clone(),
    }
}

fn described(node: &Node, row: &Container) -> own::ContainerStatusResponse {
    let config = config(row);
    let request = node.runtime.container_request(&row.record.id).ok();
    let process = request.as_ref().and_then(|request| request.spec.process().clone());
    let hostname = node.pods.find(row.record.pod.as_str()).map(|pod| pod_config(&pod).hostname.clone());
    let spec = verbose::specification(node, row);
    let info = serde_json::json!({ "runtimeSpec": spec, "phase": node.phase(row) });
    own::ContainerStatusResponse {
        container: Some(view(node, row)),
        binds: config
            .mounts
            .iter()
            .map(|mount| own::Bind {
                source: mount.host_path.clone(),
                destination: mount.container_path.clone(),
                readonly: mount.readonly,
            })
            .collect(),
        hostname: hostname.unwrap_or_default(),
        working_dir: process.as_ref().map(|process| process.cwd().display().to_string()).unwrap_or_default(),
        user: request.as_ref().map(|request| request.user.name.clone()).unwrap_or_default(),
        env: process.and_then(|process| process.env().clone()).unwrap_or_default(),
        pid: life(node, row).pid,
        log_path: row.record.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        info: BTreeMap::from([("info".to_owned(), info.to_string())]),
    }
}

fn owner(owner: Owner) -> own::ContainerOwner {
    match owner {
        Owner::Cri => own::ContainerOwner::Cri,
        Owner::Run => own::ContainerOwner::Run,
        Owner::Build => own::ContainerOwner::Build,
        Owner::Cluster => own::ContainerOwner::Cluster,
    }
}

fn state(state: cri::ContainerState) -> own::ContainerState {
    match state {
        cri::ContainerState::ContainerCreated => own::ContainerState::Created,
        cri::ContainerState::ContainerRunning => own::ContainerState::Running,
        cri::ContainerState::ContainerExited => own::ContainerState::Exited,
        cri::ContainerState::ContainerUnknown => own::ContainerState::Unspecified,
    }
}

fn ports(pod: &cri::PodSandboxConfig) -> Vec<own::PublishedPort> {
    let mapped = pod.port_mappings.iter().filter(|mapping| mapping.host_port != 0);
    let number = |port: i32| u32::try_from(port).unwrap_or_default();
    mapped
        .map(|mapping| own::PublishedPort {
            host_ip: mapping.host_ip.clone(),
            host_port: number(mapping.host_port),
            container_port: number(mapping.container_port),
            protocol: mapping.protocol().as_str_name().to_ascii_lowercase(),
        })
        .collect()
}
