//! Damaged records: the stand-in for one that is lost, and how all of the node's are verified and reported.
//!
//! A pod or container whose request is lost is listed under its id, with what the runtime knows of it: its state, its
//! command, its log. It can be stopped and removed, and is never started again.

use std::path::{Path, PathBuf};

use slipway_disk::{atomic, walker};
use slipway_image::{Finding, ImageId, Lease};
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{ContainerId, ContainerRequest, Owner, PodState, SandboxStatus};

use crate::error::{Error, Result};
use crate::node::{Node, now};
use crate::records::{ContainerRecord, Encoded, PodRecord};

/// The namespace of pods that have lost theirs.
const NAMESPACE: &str = "damaged";
/// SIGTERM: what a lost request asked for is not known.
const STOP_SIGNAL: i32 = 15;
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A pod by the runtime's record; a stand-in where its request is lost; none where its creation was cut short or it is
/// not one of a client's.
pub(crate) fn pod(node: &Node, status: SandboxStatus, containers: &[ContainerRecord]) -> Option<PodRecord> {
    let id = &status.config.id;
    let damage = node.runtime.damage_of_sandbox(id);
    match (damage, status.config.owner, status.state) {
        (None, Owner::Build, _) | (None, _, PodState::Creating) => None,
        (None, ..) if status.config.document.is_null() => None,
        (None, ..) => match status.config.document.read() {
            Ok(document) => Some(PodRecord::new(status, document)),
            Err(error) => Some(stand_in_pod(&status, status.config.owner, error.to_string())),
        },
        (Some(damage), ..) => {
            let of_pod = |record: &&ContainerRecord| record.pod == *id && record.damage.is_none();
            let owner = containers.iter().find(of_pod).map_or(Owner::Cri, |record| record.owner);
            Some(stand_in_pod(&status, owner, damage))
        }
    }
}

/// A container likewise.
pub(crate) fn container(node: &Node, id: &ContainerId) -> Result<Option<ContainerRecord>> {
    let request = node.runtime.container_request(id)?;
    match node.runtime.damage_of_container(id) {
        Some(damage) => stand_in_container(node, request, damage).map(Some),
        None if request.document.is_null() || request.owner == Owner::Build => Ok(None),
        None => match request.document.read() {
            Ok(document) => {
                let created_at = node.runtime.container_created_at(id)?;
                Ok(Some(ContainerRecord::new(request, created_at, document)))
            }
            Err(error) => stand_in_container(node, request, error.to_string()).map(Some),
        },
    }
}

/// Containers that have lost their request have their pods' owners.
pub(crate) fn give_owners(pods: &[PodRecord], containers: &mut [ContainerRecord]) {
    for record in containers.iter_mut().filter(|record| record.damage.is_some()) {
        let owner = pods.iter().find(|pod| pod.id == record.pod).map(|pod| pod.owner);
        record.owner = owner.unwrap_or(record.owner);
    }
}

/// The first digits of an id, as people are shown them.
fn short(id: &str) -> String {
    id.chars().take(13).collect()
}

fn stand_in_pod(status: &SandboxStatus, owner: Owner, damage: String) -> PodRecord {
    let id = status.config.id.clone();
    // kubelet and crictl refuse a pod without any of these.
    let metadata = cri::PodSandboxMetadata {
        name: short(id.as_str()),
        uid: id.to_string(),
        namespace: NAMESPACE.to_owned(),
        attempt: 0,
    };
    let config = cri::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: status.config.hostname.clone(),
        ..cri::PodSandboxConfig::default()
    };
    PodRecord {
        owner,
        name: id.to_string(),
        created_at: status.created_at,
        addresses: status.addresses.clone(),
        request: Encoded(cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }),
        damage: Some(damage),
        id,
    }
}

/// When a directory was last changed, or now: kubelet refuses 0.
fn created_at(directory: &Path) -> i64 {
    let changed = std::fs::symlink_metadata(directory).and_then(|stat| stat.modified()).ok();
    let since = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or_else(now)
}

fn stand_in_container(node: &Node, request: ContainerRequest, damage: String) -> Result<ContainerRecord> {
    let (id, pod) = (request.id.clone(), request.sandbox.clone());
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: short(id.as_str()), attempt: 0 }),
        image: Some(cri::ImageSpec { image: NO_IMAGE.to_owned(), ..cri::ImageSpec::default() }),
        stdin: request.stdin,
        stdin_once: request.stdin_once,
        tty: request.tty,
        ..cri::ContainerConfig::default()
    };
    let process = request.spec.process().as_ref();
    Ok(ContainerRecord {
        id: id.clone(),
        owner: Owner::Cri,
        name: id.to_string(),
        created_at: created_at(&node.directory("containers", id.as_str())),
        image_id: ImageId(NO_IMAGE.parse()?),
        image_digest: Default::default(),
        command: process.and_then(|process| process.args().clone()).unwrap_or_default(),
        stop_signal: STOP_SIGNAL,
        log_path: request.log_path,
        transient: false,
        request: Encoded(cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_string(),
            config: Some(config),
            sandbox_config: None,
        }),
        damage: Some(damage),
        pod,
    })
}

/// Keeps what a container runs from: its image, or its layers by their directories where that is not known. Where not
/// even those are known, every layer that is here.
pub(crate) fn lease(node: &Node, record: &ContainerRecord) -> Option<Lease> {
    let image = if record.damage.is_none() { node.store.lease(&record.image_id).ok() } else { None };
    if let Some(lease) = image {
        return Some(lease);
    }
    tracing::warn!(container = record.id.as_str(), "the container's image is not known: its layers are kept");
    let request = node.runtime.container_request(&record.id).ok();
    // A stand-in for a record that is lost altogether names no layers.
    match request.filter(|request| !request.rootfs.lowers.is_empty()) {
        Some(request) => Some(node.store.lease_directories(&request.rootfs.lowers)),
        None => Some(node.store.lease_everything()),
    }
}

/// Every record of the node that is known to be damaged, or was when the daemon has started.
pub(crate) fn known(node: &Node) -> Vec<Finding> {
    let mut found: Vec<Finding> = node.runtime.damaged().into_iter().map(finding).collect();
    found.extend(node.store.damaged());
    found.extend(lost(node));
    found.extend(asides(node, false));
    once(found)
}

/// Verifies the records of pods and containers on disk. With `repair` those that are damaged are written again.
pub(crate) fn check(node: &Node, repair: bool) -> (Vec<Finding>, u64) {
    let mut found: Vec<Finding> = node.runtime.check(repair).into_iter().map(finding).collect();
    found.extend(lost(node));
    found.extend(asides(node, repair));
    let count = node.pods.all().len().saturating_add(node.containers.all().len());
    (once(found), u64::try_from(count).unwrap_or(u64::MAX))
}

/// Pods and containers whose request is lost.
fn lost(node: &Node) -> Vec<Finding> {
    let problem = |reason: &str, remove: &str, id: &str| {
        format!("{reason}: who asked for it is not known any more, remove it: {remove} {id}")
    };
    let mut found = Vec::new();
    for pod in node.pods.all() {
        if let Some(reason) = &pod.record.damage {
            let problem = problem(reason, "crictl rmp -f", pod.id());
            found.push(Finding {
                path: node.directory("pods", pod.id()).join("record"),
                problem,
                mended: false,
            });
        }
    }
    for row in node.containers.all() {
        if let Some(reason) = &row.record.damage {
            let problem = problem(reason, "slipway rm -f", row.id());
            found.push(Finding {
                path: node.directory("containers", row.id()).join("record"),
                problem,
                mended: false,
            });
        }
    }
    found
}

/// Entries that stood in the place of one of the node's and were set aside; with `repair` they are removed.
fn asides(node: &Node, repair: bool) -> Vec<Finding> {
    let (root, state) = (&node.config.root, &node.config.state);
    let of_root = ["", "addresses", "blobs"].map(|name| root.join(name));
    let of_state = ["", "copies", "netns"].map(|name| state.join(name));
    let folders: Vec<_> = of_root.into_iter().chain(of_state).collect();
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let asides = entries.filter(|entry| atomic::is_aside(&entry.file_name().to_string_lossy()));
    let finding = |path: PathBuf| {
        let mended = repair && walker::remove(&path, &|| node.is_ending()).is_ok();
        let problem = "it stood in the place of a file or directory of the node: remove it".to_owned();
        Finding { path, problem, mended }
    };
    asides.map(|entry| finding(entry.path())).collect()
}

fn finding(damaged: slipway_runtime::Damaged) -> Finding {
    Finding { path: damaged.path, problem: damaged.problem, mended: damaged.mended }
}

/// One finding a file: what is damaged now stands before what was.
fn once(mut found: Vec<Finding>) -> Vec<Finding> {
    found.sort_by(|one, other| (&one.path, one.mended).cmp(&(&other.path, other.mended)));
    found.dedup_by(|one, other| one.path == other.path);
    found
}

/// Says why a container that stands in for a lost request can't be started.
pub(crate) fn refuse(record: &ContainerRecord, path: &Path) -> Result<()> {
    match &record.damage {
        None => Ok(()),
        Some(damage) => {
            let reason = format!("{damage}: remove container {} and create it again", record.id);
            Err(Error::Record { path: path.to_owned(), reason })
        }
    }
}
