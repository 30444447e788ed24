//! Version, Tag, Untag, Prune, DiskUsage and Check.

use std::path::PathBuf;
use std::sync::Arc;

use slipway_image::{PruneOptions, Reference};
use slipway_proto::slipway::v1 as own;
use slipway_runtime::Owner;

use crate::container;
use crate::damage;
use crate::disk;
use crate::error::{Error, Result};
use crate::node::Node;
use crate::own::run;

pub(crate) fn version(node: &Node) -> own::VersionResponse {
    let features = node.runtime.features();
    let cgroup = if features.unified_cgroup { "v2" } else { "v1" };
    own::VersionResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: String::new(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        features: features
            .list()
            .map(|(name, used)| (name.to_owned(), used.to_string()))
            .chain([
                ("cgroup".to_owned(), cgroup.to_owned()),
                ("open-files".to_owned(), features.open_files.to_string()),
                ("host-ports".to_owned(), node.runtime.network_status().host_ports.to_string()),
            ])
            .collect(),
    }
}

pub(crate) async fn tag(node: &Arc<Node>, request: own::TagRequest) -> Result<own::TagResponse> {
    let name: Reference = request.name.parse()?;
    let store = node.store.clone();
    node.blocking(move || {
        let held = store.hold(&request.image)?;
        store.tag(&held.image.id, &name)?;
        Ok::<_, Error>(own::TagResponse { image_id: held.image.id.to_string(), reference: name.to_string() })
    })
    .await
}

pub(crate) async fn untag(node: &Arc<Node>, request: own::UntagRequest) -> Result<own::UntagResponse> {
    let name: Reference = request.name.parse()?;
    let store = node.store.clone();
    node.blocking(move || store.untag(&name)).await?;
    Ok(own::UntagResponse {})
}

/// Removes what nothing names or uses; containers of `run` that have ended go first, for they hold images.
pub(crate) async fn prune(node: &Arc<Node>, request: own::PruneRequest) -> Result<own::PruneResponse> {
    let mut containers = Vec::new();
    for row in node.containers.all() {
        if row.record.owner == Owner::Run && container::view::life(node, &row).finished_at != 0 {
            containers.push(row.id().to_owned());
            run::remove_both(node, row).await?;
        }
    }
    let store = node.store.clone();
    let pruned = node.blocking(move || store.prune(PruneOptions { all: request.all })).await?;
    Ok(own::PruneResponse {
        images: pruned.images.iter().map(ToString::to_string).collect(),
        containers,
        bytes: pruned.bytes,
    })
}

pub(crate) async fn disk_usage(node: &Arc<Node>) -> Result<own::DiskUsageResponse> {
    let node_too = node.clone();
    node.blocking(move || {
        let node = node_too;
        let usage = node.store.usage()?;
        let stored = node.store.images();
        let rows = node.containers.all();
        let held = |id| rows.iter().any(|row| row.record.image_id == id);
        let free = stored.iter().filter(|image| !held(image.id)).map(|image| image.size);
        let ended: Vec<_> = rows
            .iter()
            .filter(|row| row.record.owner == Owner::Run)
            .filter(|row| container::view::life(&node, row).finished_at != 0)
            .collect();
        let stop = || node.is_ending();
        let written = |id: &str| Ok(disk::usage(&node.directory("containers", id), &stop)?.0);
        let entry = |kind: &str, count: usize, bytes: u64, reclaimable_bytes: u64| own::DiskUsageEntry {
            kind: kind.to_owned(),
            count: u64::try_from(count).unwrap_or(u64::MAX),
            bytes,
            reclaimable_bytes,
        };
        let all = rows.iter().map(|row| written(row.id())).sum::<Result<u64>>()?;
        let of_ended = ended.iter().map(|row| written(row.id())).sum::<Result<u64>>()?;
        let cache = disk::usage(&node.config.root.join("build-cache"), &stop)?;
        Ok::<_, Error>(own::DiskUsageResponse {
            root: usage.path.display().to_string(),
            entries: vec![
                entry("images", stored.len(), usage.bytes, free.sum::<u64>().min(usage.bytes)),
                entry("containers", rows.len(), all, of_ended),
                entry("build cache", usize::try_from(cache.1).unwrap_or(usize::MAX), cache.0, cache.0),
            ],
        })
    })
    .await
}

/// Verifies the store and every record of pods and containers; what can be mended is, where that is asked for.
pub(crate) async fn check(node: &Arc<Node>, request: own::CheckRequest) -> Result<own::CheckResponse> {
    let repair = request.repair;
    let store = node.store.clone();
    let checked = if repair { store.mend().await? } else { node.blocking(move || store.check()).await? };
    let node_too = node.clone();
    let (records, count) = node.blocking(move || Ok::<_, Error>(damage::check(&node_too, repair))).await?;
    let findings = checked.findings.into_iter().chain(records).map(|finding| own::Finding {
        object: finding.path.display().to_string(),
        problem: finding.problem,
        mended: finding.mended,
    });
    let mut findings: Vec<_> = findings.collect();
    let node = node.clone();
    findings.extend(node.clone().blocking(move || Ok::<_, Error>(remnants(&node, repair))).await?);
    Ok(own::CheckResponse { findings, checked: checked.objects.saturating_add(count) })
}

/// Files that builds have left and could not remove; with `repair` their removal is tried again.
fn remnants(node: &Node, repair: bool) -> Vec<own::Finding> {
    let remnants = node.builder.remnants();
    let found = remnants.list();
    if repair {
        remnants.retry();
    }
    let finding = |(path, problem): (PathBuf, String)| own::Finding {
        mended: path.symlink_metadata().is_err(),
        object: path.display().to_string(),
        problem: format!("it can't be removed: {problem}: mend that, then check with --repair"),
    };
    found.into_iter().map(finding).collect()
}
