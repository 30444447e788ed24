//! What a start of the daemon does with what the last one left: records become pods and containers again, intents are
//! carried out, and what has no record is garbage.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use slipway_runtime::{ContainerId, ContainerState, Owner, SandboxId};

use crate::error::{Error, Result};
use crate::names::Leaving;
use crate::node::{Container, Node, Pod, locked};
use crate::records::{Phase, PodRecord};
use crate::{container, damage, sandbox};

/// What the runtime has and no record tells of.
#[derive(Debug)]
pub(crate) struct Strangers {
    containers: Vec<ContainerId>,
    pods: Vec<SandboxId>,
}

/// Reads the records into the tables and takes the images' leases again. Gives what is to be removed, once the daemon
/// serves.
pub(crate) fn load(node: &Node) -> Result<Strangers> {
    let mut pods = node.pod_records.load()?;
    let mut containers = node.container_records.load()?;
    locked(&node.healed).extend(pods.healed.drain(..).chain(containers.healed.drain(..)));
    // Those of whom the runtime, too, has lost all but the id have no request, or one that was never written.
    let certain = damage::stand_ins(node, &mut pods, &mut containers)?;
    // A run that was cut short before it had its container: its name is free before the first request comes.
    let filled: BTreeSet<&str> = containers.records.iter().map(|record| record.pod.as_str()).collect();
    let empty = |record: &mut PodRecord| {
        certain && record.owner == Owner::Run && !filled.contains(record.id.as_str())
    };
    let abandoned: Vec<_> = pods.records.extract_if(.., empty).map(|record| record.id.to_string()).collect();
    pods.torn.extend(abandoned);
    for record in pods.records {
        node.pod_names.hold(&record.name, record.id.as_str());
        node.pods.insert(record.id.clone().as_str(), Pod::new(record));
    }
    for record in containers.records {
        node.container_names.hold(&record.name, record.id.as_str());
        let lease = damage::lease(node, &record);
        node.containers.insert(record.id.clone().as_str(), Container::new(record, lease));
    }
    Ok(strangers(node, &containers.torn, &pods.torn))
}

/// What the runtime has and no record tells of.
fn strangers(node: &Node, torn_containers: &[String], torn_pods: &[String]) -> Strangers {
    let known: BTreeSet<String> = node.containers.all().iter().map(|row| row.id().to_owned()).collect();
    let found = node.runtime.containers().into_iter();
    let containers = found
        .filter(|id| !known.contains(id.as_str()))
        .chain(torn_containers.iter().filter_map(|id| ContainerId::new(id.as_str()).ok()));
    let known: BTreeSet<String> = node.pods.all().iter().map(|row| row.id().to_owned()).collect();
    let found = node.runtime.sandboxes().into_iter().map(|status| status.config.id);
    let pods = found
        .filter(|id| !known.contains(id.as_str()))
        .chain(torn_pods.iter().filter_map(|id| SandboxId::new(id.as_str()).ok()));
    Strangers { containers: containers.collect(), pods: pods.collect() }
}

/// Removes what nobody knows of.
fn drop_strangers(node: &Node, strangers: &Strangers) {
    for id in &strangers.containers {
        let outcome = node.runtime.remove_container(id).map_err(Error::from);
        told("container", id.as_str(), outcome.and_then(|()| node.container_records.remove(id.as_str())));
    }
    for id in &strangers.pods {
        let outcome = node.runtime.remove_sandbox(id).map_err(Error::from);
        told("pod", id.as_str(), outcome.and_then(|()| node.pod_records.remove(id.as_str())));
    }
}

fn told(kind: &str, id: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => tracing::info!(kind, id, "removed what had no record"),
        Err(error) => tracing::warn!(kind, id, error = error.chain(), "what has no record stays"),
    }
}

/// Who asks for the name of what goes waits for it from now on, though its turn comes later.
fn leaving(node: &Node, containers: &[Arc<Container>], pods: &[(Arc<Pod>, Phase)]) -> Vec<Leaving> {
    let removed = pods.iter().filter(|(_, phase)| *phase == Phase::Removing);
    let pods = removed.map(|(pod, _)| node.pod_names.leave(&pod.record.name, pod.id()));
    let containers = containers.iter().map(|row| node.container_names.leave(&row.record.name, row.id()));
    containers.chain(pods).collect()
}

/// Carries out what was intended when the last daemon ended. What is to be done is decided in the call, so that what
/// requests make from then on is left alone; it is done by awaiting.
pub(crate) fn resume(node: Arc<Node>, strangers: Strangers) -> impl Future<Output = ()> + Send {
    let (containers, pods) = (node.containers.all(), node.pods.all());
    let doomed = move |node: &Node, row: &Container| {
        // One that has lost what says which its pod is stays until it is removed.
        let damaged = row.record.damage.is_some() || node.runtime.is_damaged_container(&row.record.id);
        let orphan = node.pods.find(row.record.pod.as_str()).is_err() && !damaged;
        // Whoever was to start one that is not to stay went with the last daemon. One that is recorded to run is decided
        // on when its monitor has been heard of.
        let state = node.runtime.container_state(&row.record.id);
        let ended = row.record.transient && !matches!(state, Ok(ContainerState::Running { .. }));
        orphan || ended || row.phase() == Phase::Removing
    };
    let (doomed, kept): (Vec<_>, Vec<_>) = containers.into_iter().partition(|row| doomed(&node, row));
    let known = node.runtime.containers();
    let known = known.iter().filter_map(|id| node.runtime.container_request(id).ok());
    let mut filled: BTreeSet<SandboxId> = known.map(|request| request.sandbox).collect();
    for row in &doomed {
        filled.remove(&row.record.pod);
    }
    filled.extend(kept.iter().map(|row| row.record.pod.clone()));
    let empty = move |pod: &Pod| pod.record.owner == Owner::Run && !filled.contains(&pod.record.id);
    // What ended while no daemon saw it: its pod goes down with it, as at any other time.
    let over: BTreeSet<SandboxId> = kept
        .iter()
        .filter(|row| row.record.owner == Owner::Run && container::view::life(&node, row).finished_at != 0)
        .map(|row| row.record.pod.clone())
        .collect();
    let pods: Vec<_> = pods
        .into_iter()
        .filter_map(|pod| {
            let phase = match pod.phase() {
                _ if empty(&pod) => Phase::Removing,
                Phase::Live if over.contains(&pod.record.id) => Phase::Stopping,
                phase => phase,
            };
            (phase != Phase::Live).then_some((pod, phase))
        })
        .collect();
    let leaving = leaving(&node, &doomed, &pods);
    async move {
        let _leaving = leaving;
        let node_too = node.clone();
        let dropped = node.blocking(move || {
            drop_strangers(&node_too, &strangers);
            Ok::<_, Error>(())
        });
        if let Err(error) = dropped.await {
            tracing::warn!(error = error.chain(), "what has no record stays");
        }
        for row in doomed {
            told("container", row.id(), container::remove::carry_out(&node, row.clone()).await);
        }
        for (pod, phase) in pods {
            let outcome = match phase {
                Phase::Removing => sandbox::remove::carry_out(&node, pod.clone()).await,
                Phase::Live | Phase::Stopping => sandbox::stop::carry_out(&node, pod.clone()).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(pod = pod.id(), error = error.chain(), "the pod stays: remove it again");
            }
        }
    }
}
