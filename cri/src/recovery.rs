//! What a start of the daemon does with what the last one left: records become pods and containers again, intents are
//! carried out, and what has no record is garbage.

use std::collections::BTreeSet;
use std::sync::Arc;

use slipway_runtime::{ContainerId, SandboxId};

use crate::error::{Error, Result};
use crate::node::{Container, Node, Pod};
use crate::records::{Loaded, Owner, Phase};
use crate::{container, sandbox};

/// Reads the records into the tables and takes the images' leases again.
pub(crate) fn load(node: &Node) -> Result<()> {
    let pods = node.pod_records.load()?;
    let containers = node.container_records.load()?;
    report(&pods);
    report(&containers);
    for record in pods.records {
        node.pod_names.hold(&record.name, record.id.as_str());
        node.pods.insert(record.id.clone().as_str(), Pod::new(record));
    }
    for record in containers.records {
        node.container_names.hold(&record.name, record.id.as_str());
        let lease = node.store.lease(&record.image_id);
        if let Err(error) = &lease {
            tracing::warn!(container = record.id.as_str(), %error, "the container's image is not held");
        }
        node.containers.insert(record.id.clone().as_str(), Container::new(record, lease.ok()));
    }
    drop_strangers(node, &containers.torn, &pods.torn);
    Ok(())
}

fn report<R>(loaded: &Loaded<R>) {
    for error in &loaded.unreadable {
        tracing::error!(error = error.chain(), "a record is kept for a person to look at");
    }
}

/// Removes what the runtime has and no record tells of, unless the record is there but can't be read.
fn drop_strangers(node: &Node, torn_containers: &[String], torn_pods: &[String]) {
    let known: BTreeSet<String> = node.containers.all().iter().map(|row| row.id().to_owned()).collect();
    let unknown = |id: &str, known: &BTreeSet<String>, directory: std::path::PathBuf| {
        !known.contains(id) && !directory.join("request").exists()
    };
    let found = node.runtime.containers().into_iter();
    let strange = found
        .filter(|id| unknown(id.as_str(), &known, node.container_records.directory(id.as_str())))
        .chain(torn_containers.iter().filter_map(|id| ContainerId::new(id.as_str()).ok()));
    for id in strange {
        let outcome = node.runtime.remove_container(&id).map_err(Error::from);
        told("container", id.as_str(), outcome.and_then(|()| node.container_records.remove(id.as_str())));
    }
    let known: BTreeSet<String> = node.pods.all().iter().map(|row| row.id().to_owned()).collect();
    let found = node.runtime.sandboxes().into_iter().map(|status| status.config.id);
    let strange = found
        .filter(|id| unknown(id.as_str(), &known, node.pod_records.directory(id.as_str())))
        .chain(torn_pods.iter().filter_map(|id| SandboxId::new(id.as_str()).ok()));
    for id in strange {
        let outcome = node.runtime.remove_sandbox(&id).map_err(Error::from);
        told("pod", id.as_str(), outcome.and_then(|()| node.pod_records.remove(id.as_str())));
    }
}

fn told(kind: &str, id: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => tracing::info!(kind, id, "removed what had no record"),
        Err(error) => tracing::warn!(kind, id, error = error.chain(), "what has no record stays"),
    }
}

/// Carries out what was intended when the last daemon ended.
pub(crate) async fn resume(node: &Arc<Node>) {
    for row in node.containers.all() {
        let orphan = node.pods.find(row.record.pod.as_str()).is_err();
        let ended = row.record.transient && container::view::life(node, &row).finished_at != 0;
        if orphan || ended || row.phase() == Phase::Removing {
            told("container", row.id(), container::remove::carry_out(node, row.clone()).await);
        }
    }
    for row in node.pods.all() {
        let empty = row.record.owner == Owner::Run
            && !node.containers.all().iter().any(|container| container.record.pod == row.record.id);
        let outcome = match row.phase() {
            Phase::Live if !empty => continue,
            Phase::Stopping => sandbox::stop::carry_out(node, row.clone()).await,
            Phase::Live | Phase::Removing => sandbox::remove::carry_out(node, row.clone()).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(pod = row.id(), error = error.chain(), "the pod stays: remove it again");
        }
    }
}
