//! CreateContainer: image -> snapshot -> specification -> record. No process and no mount yet.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use slipway_image::{Image, Lease, Leased, Lower, Snapshot};
use slipway_proto::runtime::v1 as cri;
use slipway_proto::slipway::v1 as own;
use slipway_runtime::{ContainerId, ContainerRequest, Document, Owner, RootFs};

use crate::container::{remove, validate};
use crate::error::{Error, Result};
use crate::images;
use crate::names::Fingerprint;
use crate::node::{Container, Node, Pod, fresh_id};
use crate::records::{ContainerDocument, ContainerRecord, Encoded};
use crate::sandbox;
use crate::spec;

/// Creates a container of the CRI's.
pub(crate) async fn create(
    node: &Arc<Node>,
    request: cri::CreateContainerRequest,
) -> Result<cri::CreateContainerResponse> {
    let pod = node.pods.find_cri(&request.pod_sandbox_id)?;
    let container_id = make(node, pod, request, Extra::default()).await?;
    Ok(cri::CreateContainerResponse { container_id })
}

/// Settings that the CRI has no field for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    /// Added to the image's entry point in place of its own.
    pub(crate) entrypoint: Vec<String>,
    /// `user`, `user:group`, …, with names.
    pub(crate) user: String,
    /// Remove it when it has ended.
    pub(crate) transient: bool,
    /// The first size of its terminal.
    pub(crate) size: Option<own::TerminalSize>,
}

/// Creates a container in a pod of any owner, or joins the equal request that does; gives its id.
pub(crate) async fn make(
    node: &Arc<Node>,
    pod: Arc<Pod>,
    request: cri::CreateContainerRequest,
    extra: Extra,
) -> Result<String> {
    let config = request.config.clone().unwrap_or_default();
    let name = name(&config, &pod)?;
    validate::check(&config, sandbox::view::config(&pod))?;
    let fingerprint = Fingerprint::of(&request);
    let id = ContainerId::new(fresh_id()?)?;
    let draft = Draft { id, name: name.clone(), pod, config, extra };
    let work = Box::pin(carry_out(node.clone(), draft, request));
    node.container_names.create(&name, fingerprint, work).await
}

struct Draft {
    id: ContainerId,
    name: String,
    pod: Arc<Pod>,
    config: cri::ContainerConfig,
    extra: Extra,
}

fn name(config: &cri::ContainerConfig, pod: &Pod) -> Result<String> {
    let metadata =
        config.metadata.as_ref().ok_or_else(|| Error::invalid("config.metadata", "it is absent"))?;
    if metadata.name.is_empty() {
        return Err(Error::invalid("config.metadata.name", "it is empty"));
    }
    Ok(match pod.record.owner {
        Owner::Cri | Owner::Build | Owner::Cluster => {
            format!("{}_{}_{}", metadata.name, pod.record.id, metadata.attempt)
        }
        Owner::Run => metadata.name.clone(),
    })
}

async fn carry_out(node: Arc<Node>, draft: Draft, request: cri::CreateContainerRequest) -> Result<String> {
    let (id, pod) = (draft.id.clone(), draft.pod.clone());
    let made = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || bring_up(&node, &draft, request)).await
    };
    match made.map_err(|_| Error::Lost { what: "creation of a container".to_owned() })? {
        Ok(container) => {
            node.container_names.hold(&container.record.name, id.as_str());
            let row = node.containers.insert(id.as_str(), container);
            // A removal of the pod says so before it looks for containers: it has seen this one, or is seen here.
            if sandbox::view::is_removed(&node, &pod) {
                remove::carry_out(&node, row).await?;
                return Err(not_ready(&pod));
            }
            tracing::info!(container = row.id(), name = row.record.name, "container is created");
            Ok(id.to_string())
        }
        Err(error) => {
            if let Err(error) = remove::wipe(&node, &id).await {
                tracing::warn!(container = id.as_str(), error = error.chain(), "what was made of it stays");
            }
            if sandbox::view::is_removed(&node, &pod) {
                return Err(not_ready(&pod));
            }
            Err(error)
        }
    }
}

fn not_ready(pod: &Pod) -> Error {
    let id = pod.id().to_owned();
    Error::WrongState { action: "create a container in", kind: "pod", id, state: "not ready" }
}

fn bring_up(node: &Node, draft: &Draft, request: cri::CreateContainerRequest) -> Result<Container> {
    if !sandbox::view::is_ready(node, &draft.pod) {
        return Err(not_ready(&draft.pod));
    }
    spec::resources::check_sets(node, &draft.pod.record.id, &draft.config)?;
    let (image, lease, snapshot) = image(node, &draft.config)?;
    let log_path = log_path(node, draft)?;
    let compiled = spec::compile(
        node,
        &spec::Sources {
            config: &draft.config,
            pod_id: &draft.pod.record.id,
            pod: sandbox::view::config(&draft.pod),
            image: &image,
            extra: &draft.extra,
        },
    )?;
    let document = ContainerDocument {
        name: draft.name.clone(),
        image_digest: images::pulled_by(&image, draft.config.image.as_ref()),
        image_id: image.id,
        stop_signal: compiled.stop_signal,
        transient: draft.extra.transient,
        request: Encoded(request),
    };
    let kept = Document::of(&document).map_err(|error| Error::invalid("config", error.to_string()))?;
    let wanted = ContainerRequest {
        id: draft.id.clone(),
        sandbox: draft.pod.record.id.clone(),
        owner: draft.pod.record.owner,
        document: kept,
        spec: compiled.spec,
        rootfs: RootFs {
            lowers: snapshot.lowers.into_iter().map(directory).collect::<Result<_>>()?,
            readonly: compiled.readonly_rootfs,
            volatile: draft.pod.record.owner == Owner::Cri,
        },
        log_path,
        stdin: draft.config.stdin,
        stdin_once: draft.config.stdin_once,
        tty: draft.config.tty,
        volumes: compiled.volumes,
        user: compiled.user,
        seccomp: compiled.seccomp,
        raw_env: compiled.raw_env,
        pid: validate::process_ids(&draft.config, sandbox::view::config(&draft.pod))?,
    };
    node.runtime.create_container(wanted.clone())?;
    let created_at = node.runtime.container_created_at(&draft.id)?;
    let record = ContainerRecord::new(wanted, created_at, document);
    Ok(Container::new(record, Some(lease)))
}

fn image(node: &Node, config: &cri::ContainerConfig) -> Result<(Image, Lease, Snapshot)> {
    let Leased { image, lease } = node.store.hold(&images::name(config.image.clone())?)?;
    let snapshot = node.store.snapshot(&image.id)?;
    Ok((image, lease, snapshot))
}

fn directory(lower: Lower) -> Result<PathBuf> {
    match lower {
        Lower::Directory(path) => Ok(path),
        // The enum is open: a form that is not known here can't be mounted.
        _ => Err(Error::invalid("config.image", "its layers have a form that can't be mounted")),
    }
}

fn log_path(node: &Node, draft: &Draft) -> Result<Option<PathBuf>> {
    if draft.pod.record.owner == Owner::Run {
        return Ok(Some(node.directory("containers", draft.id.as_str()).join("log")));
    }
    let directory = &sandbox::view::config(&draft.pod).log_directory;
    if directory.is_empty() || draft.config.log_path.is_empty() {
        return Ok(None);
    }
    let relative = Path::new(&draft.config.log_path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(Error::invalid("config.log_path", "it leads out of the pod's log directory"));
    }
    // Its directory is made by the start, which can give up a file system that does not answer.
    Ok(Some(Path::new(directory).join(relative)))
}
