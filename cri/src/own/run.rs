//! RunContainer and what ends it: a pod of one container, made of the same requests as the CRI's.

use std::sync::Arc;
use std::time::Duration;

use slipway_proto::runtime::v1 as cri;
use slipway_proto::slipway::v1 as own;
use slipway_runtime::spec::{Privilege, default_spec};
use slipway_runtime::{ContainerEvent, ContainerState, Owner};
use tokio::sync::oneshot;

use crate::container::create::{self, Extra};
use crate::error::{Error, Result};
use crate::node::{Container, Node, fresh_id};
use crate::own::ports;
use crate::{container, sandbox};

const GRACE: u32 = 10;
const PORT_ATTEMPTS: u32 = 5;
/// How long attached clients have to read the end of what a container wrote.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Makes a container in a pod of its own, and starts it when the client does not attach first. What nobody waits for any
/// more when it is there is removed: its name would be taken, by what nobody knows of.
pub(crate) async fn run(
    node: &Arc<Node>,
    request: own::RunContainerRequest,
) -> Result<own::RunContainerResponse> {
    let (answer, outcome) = oneshot::channel();
    let work = {
        let node = node.clone();
        async move {
            let outcome = Box::pin(carry_out(&node, request)).await;
            let Err(Ok(unheard)) = answer.send(outcome) else { return };
            let Ok(row) = node.containers.find(&unheard.id) else { return };
            if let Err(error) = remove_both(&node, row).await {
                let container = unheard.id;
                tracing::warn!(container, error = error.chain(), "what nobody waits for stays");
            }
        }
    };
    node.tasks.spawn(work);
    outcome.await.map_err(|_| Error::Lost { what: "run of a container".to_owned() })?
}

async fn carry_out(node: &Arc<Node>, request: own::RunContainerRequest) -> Result<own::RunContainerResponse> {
    let name = name(node, &request.name)?;
    // It stays until the container has a lease of its own.
    let _held = node.store.hold(&request.image)?;
    let pod = make_pod(node, &name, &request).await?;
    let outcome = fill(node, &pod, &name, &request).await;
    if outcome.is_err()
        && let Ok(pod) = node.pods.find(&pod)
        && let Err(error) = sandbox::remove::carry_out(node, pod).await
    {
        tracing::warn!(name, error = error.chain(), "the pod of a failed run stays");
    }
    Ok(own::RunContainerResponse { id: outcome?, name })
}

/// Makes the pod. A free port that was found for it may be taken meanwhile: then another is looked for.
async fn make_pod(node: &Arc<Node>, name: &str, request: &own::RunContainerRequest) -> Result<String> {
    let mut attempts = if request.ports.iter().any(|port| port.host_port == 0) { PORT_ATTEMPTS } else { 1 };
    loop {
        let mut request = request.clone();
        ports::choose(&mut request.ports)?;
        attempts -= 1;
        match sandbox::run::make(node, pod(name, &request), Owner::Run).await {
            Err(error) if error.is_in_use() && attempts > 0 => {}
            outcome => return outcome,
        }
    }
}

async fn fill(node: &Arc<Node>, pod: &str, name: &str, request: &own::RunContainerRequest) -> Result<String> {
    let extra = Extra {
        entrypoint: request.entrypoint.clone(),
        user: request.user.clone(),
        transient: request.remove,
        size: request.size.filter(|_| request.tty),
    };
    let pod = node.pods.find(pod)?;
    let creation = cri::CreateContainerRequest {
        pod_sandbox_id: pod.id().to_owned(),
        config: Some(config(name, request)?),
        sandbox_config: None,
    };
    let id = create::make(node, pod, creation, extra).await?;
    if request.detach {
        container::start::carry_out(node, node.containers.find(&id)?).await?;
    }
    Ok(id)
}

fn name(node: &Node, wanted: &str) -> Result<String> {
    if wanted.is_empty() {
        return Ok(format!("run-{}", fresh_id()?.chars().take(12).collect::<String>()));
    }
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if wanted.len() > 128 || !wanted.chars().all(fine) || wanted.starts_with(['-', '.']) {
        let reason = format!("{wanted:?} is not made of at most 128 letters, digits, -, _ and .");
        return Err(Error::invalid("name", reason));
    }
    // A container that is being removed is waited for.
    let holds = |row: &Arc<Container>| {
        row.record.name == wanted && !node.runtime.is_container_removed(&row.record.id)
    };
    match node.containers.all().into_iter().find(holds) {
        Some(row) => {
            Err(Error::Exists { kind: "container", name: wanted.to_owned(), id: row.id().to_owned() })
        }
        None => Ok(wanted.to_owned()),
    }
}

fn pod(name: &str, request: &own::RunContainerRequest) -> cri::RunPodSandboxRequest {
    let host = request.network() == own::ContainerNetwork::Host;
    let network = if host { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let hostname = if request.hostname.is_empty() && !host {
        name.chars().take(63).collect()
    } else {
        request.hostname.clone()
    };
    let options = cri::NamespaceOption {
        network: network.into(),
        pid: cri::NamespaceMode::Container.into(),
        ..cri::NamespaceOption::default()
    };
    let context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        privileged: request.privileged,
        ..Default::default()
    };
    let config = cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            namespace: "run".to_owned(),
            ..cri::PodSandboxMetadata::default()
        }),
        hostname,
        port_mappings: request.ports.iter().map(port).collect(),
        labels: request.labels.clone(),
        linux: Some(cri::LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() }),
        ..cri::PodSandboxConfig::default()
    };
    cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
}

/// A port that does not fit, or an unknown protocol, becomes one that is refused by its field's name.
fn port(port: &own::PublishedPort) -> cri::PortMapping {
    let protocol = match port.protocol.as_str() {
        "" | "tcp" => cri::Protocol::Tcp.into(),
        "udp" => cri::Protocol::Udp.into(),
        "sctp" => cri::Protocol::Sctp.into(),
        _ => -1,
    };
    cri::PortMapping {
        protocol,
        container_port: i32::try_from(port.container_port).unwrap_or(-1),
        host_port: i32::try_from(port.host_port).unwrap_or(-1),
        host_ip: port.host_ip.clone(),
    }
}

fn config(name: &str, request: &own::RunContainerRequest) -> Result<cri::ContainerConfig> {
    let spec = default_spec(Privilege::Confined);
    let linux = spec.linux().clone().unwrap_or_default();
    let seccomp = cri::security_profile::ProfileType::RuntimeDefault;
    let context = cri::LinuxContainerSecurityContext {
        privileged: request.privileged,
        seccomp: Some(cri::SecurityProfile { profile_type: seccomp.into(), localhost_ref: String::new() }),
        readonly_rootfs: request.readonly_rootfs,
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
        ..cri::LinuxContainerSecurityContext::default()
    };
    let mounts = request.binds.iter().map(|bind| cri::Mount {
        container_path: bind.destination.clone(),
        host_path: bind.source.clone(),
        readonly: bind.readonly,
        ..cri::Mount::default()
    });
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: request.image.clone(), ..cri::ImageSpec::default() }),
        args: request.command.clone(),
        working_dir: request.working_dir.clone(),
        envs: request.env.iter().map(|pair| variable(pair)).collect::<Result<_>>()?,
        mounts: mounts.collect(),
        labels: request.labels.clone(),
        stdin: request.stdin,
        stdin_once: request.stdin,
        tty: request.tty,
        linux: Some(cri::LinuxContainerConfig { security_context: Some(context), resources: None }),
        ..cri::ContainerConfig::default()
    })
}

fn variable(pair: &str) -> Result<cri::KeyValue> {
    let (key, value) =
        pair.split_once('=').ok_or_else(|| Error::invalid("env", format!("{pair:?} is no NAME=value")))?;
    Ok(cri::KeyValue { key: key.to_owned(), value: value.as_bytes().to_vec() })
}

pub(crate) async fn start(
    node: &Arc<Node>,
    request: own::StartContainerRequest,
) -> Result<own::StartContainerResponse> {
    container::start::carry_out(node, node.containers.find(&request.container)?).await?;
    Ok(own::StartContainerResponse {})
}

pub(crate) async fn stop(
    node: &Arc<Node>,
    request: own::StopContainerRequest,
) -> Result<own::StopContainerResponse> {
    let row = node.containers.find(&request.container)?;
    let grace = Duration::from_secs(request.timeout.unwrap_or(GRACE).into());
    container::stop::carry_out(node, row, grace).await?;
    Ok(own::StopContainerResponse {})
}

pub(crate) async fn remove(
    node: &Arc<Node>,
    request: own::RemoveContainerRequest,
) -> Result<own::RemoveContainerResponse> {
    let row = node.containers.find(&request.container)?;
    if !request.force && container::view::life(node, &row).state == cri::ContainerState::ContainerRunning {
        let id = row.id().to_owned();
        let state = "running: stop it first, or force the removal";
        return Err(Error::WrongState { action: "remove", kind: "container", id, state });
    }
    remove_both(node, row).await?;
    Ok(own::RemoveContainerResponse {})
}

/// Removes a container, and its pod where that was made for it.
pub(crate) async fn remove_both(node: &Arc<Node>, row: Arc<Container>) -> Result<()> {
    let (owner, pod) = (row.record.owner, row.record.pod.clone());
    // Its pod goes with it: who asks for the same name waits for both.
    let pod_too = node.pods.find(pod.as_str()).ok().filter(|_| owner == Owner::Run);
    let _leaving = pod_too.map(|pod| node.pod_names.leave(&pod.record.name, pod.id()));
    container::remove::carry_out(node, row).await?;
    match (owner, node.pods.find(pod.as_str())) {
        (Owner::Run, Ok(pod)) => sandbox::remove::carry_out(node, pod).await,
        (Owner::Run, Err(_)) | (Owner::Cri | Owner::Build | Owner::Cluster, _) => Ok(()),
    }
}

/// Acts on the end of a container of `run`: its pod is stopped, which gives back its ports, or all is removed.
pub(crate) async fn ended(node: &Arc<Node>, event: &ContainerEvent) {
    let Ok(row) = node.containers.find(event.container.as_str()) else { return };
    match event.state {
        ContainerState::Exited { .. } => {}
        // Whoever was to start it went with the last daemon.
        ContainerState::Created { .. } if row.record.transient => {
            return told(&row, remove_both(node, row.clone()).await);
        }
        ContainerState::Created { .. } | ContainerState::Running { .. } => return,
    }
    row.over.notify_waiters();
    if row.record.owner != Owner::Run {
        return;
    }
    // Attached clients hear the last line first, but one that does not read keeps nothing from ending.
    drop(tokio::time::timeout(LAST_WORDS, row.streams.write()).await);
    let outcome = if row.record.transient {
        remove_both(node, row.clone()).await
    } else {
        match node.pods.find(row.record.pod.as_str()) {
            Ok(pod) => sandbox::stop::carry_out(node, pod).await,
            Err(_) => Ok(()),
        }
    };
    told(&row, outcome);
}

fn told(row: &Container, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(container = row.id(), error = error.chain(), "what an ended container held stays");
    }
}
