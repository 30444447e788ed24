//! Damaged records: the stand-in for one that is lost, and how all of the node's are verified and reported.
//!
//! A pod or container whose request is lost is listed under its id, with what the runtime knows of it: its state, its
//! command, its log. It can be stopped and removed, and is never started again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use slipway_disk::{atomic, walker};
use slipway_image::{Finding, ImageId, Lease};
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{ContainerId, Owner, SandboxId, SandboxStatus};

use crate::error::{Error, Result};
use crate::node::{Node, locked, now};
use crate::records::{ContainerRecord, Encoded, Loaded, Phase, PodRecord};

/// The namespace of pods that have lost theirs.
const NAMESPACE: &str = "damaged";
/// SIGTERM: what a lost request asked for is not known.
const STOP_SIGNAL: i32 = 15;
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Adds a record for each pod and container that is there and whose request is lost; says whether there was none.
pub(crate) fn stand_ins(
    node: &Node,
    pods: &mut Loaded<PodRecord>,
    containers: &mut Loaded<ContainerRecord>,
) -> Result<bool> {
    let known: BTreeSet<String> = containers.records.iter().map(|record| record.id.to_string()).collect();
    let mut lost = 0;
    for id in node.runtime.containers() {
        let damage = reason(&containers.damaged, id.as_str(), node.runtime.is_damaged_container(&id));
        if let Some(damage) = damage.filter(|_| !known.contains(id.as_str())) {
            lost += 1;
            containers.records.push(container(node, &id, damage)?);
        }
    }
    let known: BTreeSet<String> = pods.records.iter().map(|record| record.id.to_string()).collect();
    for status in node.runtime.sandboxes() {
        let id = &status.config.id;
        let damage = reason(&pods.damaged, id.as_str(), node.runtime.is_damaged_sandbox(id));
        if let Some(damage) = damage.filter(|_| !known.contains(id.as_str())) {
            lost += 1;
            let of_pod = |record: &&ContainerRecord| record.pod == *id && record.damage.is_none();
            let owner = containers.records.iter().find(of_pod).map_or(Owner::Cri, |record| record.owner);
            pods.records.push(pod(&status, owner, damage));
        }
    }
    for record in containers.records.iter_mut().filter(|record| record.damage.is_some()) {
        let owner = pods.records.iter().find(|pod| pod.id == record.pod).map(|pod| pod.owner);
        record.owner = owner.unwrap_or(record.owner);
    }
    Ok(lost == 0)
}

fn reason(
    damaged: &[(String, slipway_disk::record::Damage)],
    id: &str,
    unknown_to_runtime: bool,
) -> Option<String> {
    let found = damaged.iter().find(|(damaged, _)| damaged == id);
    if let Some((_, damage)) = found {
        tracing::error!(path = %damage.path.display(), reason = damage.reason, "who asked for it, and for what, is lost");
    }
    let absent = || unknown_to_runtime.then(|| "it is absent".to_owned());
    found.map(|(_, damage)| damage.reason.clone()).or_else(absent)
}

/// The first digits of an id, as people are shown them.
fn short(id: &str) -> String {
    id.chars().take(13).collect()
}

fn pod(status: &SandboxStatus, owner: Owner, damage: String) -> PodRecord {
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
        phase: Phase::Live,
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

fn container(node: &Node, id: &ContainerId, damage: String) -> Result<ContainerRecord> {
    let request = node.runtime.container_request(id)?;
    let pod: SandboxId = request.sandbox.clone();
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
        created_at: created_at(&node.container_records.directory(id.as_str())),
        image_id: ImageId(NO_IMAGE.parse()?),
        image_digest: Default::default(),
        command: process.and_then(|process| process.args().clone()).unwrap_or_default(),
        stop_signal: STOP_SIGNAL,
        log_path: request.log_path,
        transient: false,
        phase: Phase::Live,
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
    let lost = node.runtime.is_damaged_container(&record.id);
    match request.filter(|_| !lost) {
        Some(request) => Some(node.store.lease_directories(&request.rootfs.lowers)),
        None => Some(node.store.lease_everything()),
    }
}

/// Every record of the node that is known to be damaged, or was when the daemon has started.
pub(crate) fn known(node: &Node) -> Vec<Finding> {
    let mut found: Vec<Finding> = node.runtime.damaged().into_iter().map(finding).collect();
    found.extend(locked(&node.healed).iter().cloned().map(finding));
    found.extend(node.store.damaged());
    found.extend(lost(node));
    found.extend(asides(node, false));
    once(found)
}

/// Verifies the records of pods and containers on disk. With `repair` what is damaged is written again.
pub(crate) fn check(node: &Node, repair: bool) -> (Vec<Finding>, u64) {
    let mut found: Vec<Finding> = node.runtime.check(repair).into_iter().map(finding).collect();
    found.extend(locked(&node.healed).iter().cloned().map(finding));
    let (pods, containers) = (node.pods.all(), node.containers.all());
    for pod in pods.iter().filter(|pod| pod.record.damage.is_none()) {
        // One that is being stopped or removed changes its record itself.
        let Ok(_turn) = pod.turn.try_lock() else { continue };
        if node.pods.find(pod.id()).is_err() {
            continue;
        }
        let record = PodRecord { phase: pod.phase(), ..pod.record.clone() };
        found.extend(node.pod_records.check(pod.id(), &record, repair).map(finding));
    }
    for row in containers.iter().filter(|row| row.record.damage.is_none()) {
        let Ok(_turn) = row.turn.try_lock() else { continue };
        if node.containers.find(row.id()).is_err() {
            continue;
        }
        let record = ContainerRecord { phase: row.phase(), ..row.record.clone() };
        found.extend(node.container_records.check(row.id(), &record, repair).map(finding));
    }
    found.extend(lost(node));
    found.extend(asides(node, repair));
    let count = pods.len().saturating_add(containers.len());
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
            found.push(Finding { path: node.pod_records.path(pod.id()), problem, mended: false });
        }
    }
    for row in node.containers.all() {
        if let Some(reason) = &row.record.damage {
            let problem = problem(reason, "slipway rm -f", row.id());
            found.push(Finding { path: node.container_records.path(row.id()), problem, mended: false });
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
