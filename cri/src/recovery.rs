//! The start of the daemon with the pods and containers that the last one left: the runtime's records become pods and
//! containers again, intents are carried out, and creations that were cut short are removed.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use slipway_runtime::{ContainerId, ContainerState, Owner, PodState, SandboxId};

use crate::error::{Error, Result};
use crate::names::Leaving;
use crate::node::{Container, Node, Pod};
use crate::records::PodRecord;
use crate::{container, damage, sandbox};

/// Pods and containers whose creation was cut short, and those of builds that have ended.
#[derive(Debug)]
pub(crate) struct Strangers {
    containers: Vec<ContainerId>,
    pods: Vec<SandboxId>,
}

/// Takes the runtime's records into the tables and takes the images' leases again. Gives what is to be removed, once the
/// daemon serves.
pub(crate) fn load(node: &Node) -> Result<Strangers> {
    let mut strangers = Strangers { containers: Vec::new(), pods: Vec::new() };
    let mut containers = Vec::new();
    for id in node.runtime.containers() {
        match damage::container(node, &id)? {
            Some(record) => containers.push(record),
            None => strangers.containers.push(id),
        }
    }
    let mut pods = Vec::new();
    for status in node.runtime.sandboxes() {
        let id = status.config.id.clone();
        match damage::pod(node, status, &containers) {
            Some(record) => pods.push(record),
            None => strangers.pods.push(id),
        }
    }
    damage::give_owners(&pods, &mut containers);
    // Those of whom the request is lost may be the containers of pods that seem to have none.
    let certain = pods.iter().all(|record| record.damage.is_none())
        && containers.iter().all(|record| record.damage.is_none());
    // A run that was cut short before it had its container: its name is free before the first request comes.
    let filled: BTreeSet<&str> = containers.iter().map(|record| record.pod.as_str()).collect();
    let empty = |record: &mut PodRecord| {
        certain && record.owner == Owner::Run && !filled.contains(record.id.as_str())
    };
    strangers.pods.extend(pods.extract_if(.., empty).map(|record| record.id));
    for record in pods {
        node.pod_names.hold(&record.name, record.id.as_str());
        node.pods.insert(record.id.clone().as_str(), Pod::new(record));
    }
    for record in containers {
        node.container_names.hold(&record.name, record.id.as_str());
        let lease = damage::lease(node, &record);
        node.containers.insert(record.id.clone().as_str(), Container::new(record, lease));
    }
    Ok(strangers)
}

/// Removes what nobody knows of.
fn drop_strangers(node: &Node, strangers: &Strangers) {
    for id in &strangers.containers {
        told("container", id.as_str(), node.runtime.remove_container(id).map_err(Error::from));
    }
    for id in &strangers.pods {
        told("pod", id.as_str(), node.runtime.remove_sandbox(id).map_err(Error::from));
    }
}

fn told(kind: &str, id: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => tracing::info!(kind, id, "removed what had no record"),
        Err(error) => tracing::warn!(kind, id, error = error.chain(), "what has no record stays"),
    }
}

/// The action that a pod is left in need of by the last daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doom {
    Stop,
    Remove,
}

/// Marks the names of everything that is to be removed: a request for one of them waits for the removal from now on.
fn leaving(node: &Node, containers: &[Arc<Container>], pods: &[(Arc<Pod>, Doom)]) -> Vec<Leaving> {
    let removed = pods.iter().filter(|(_, doom)| *doom == Doom::Remove);
    let pods = removed.map(|(pod, _)| node.pod_names.leave(&pod.record.name, pod.id()));
    let containers = containers.iter().map(|row| node.container_names.leave(&row.record.name, row.id()));
    containers.chain(pods).collect()
}

/// Carries out what was intended when the last daemon ended. What is to be done is decided in the call, so that what
/// requests make from then on is left alone; it is done by awaiting.
pub(crate) fn resume(node: Arc<Node>, strangers: Strangers) -> impl Future<Output = ()> + Send {
    let (containers, pods) = (node.containers.all(), node.pods.all());
    let doomed = move |node: &Node, row: &Container| {
        // A container whose record is damaged may not know its pod: it stays until a client removes it.
        let orphan = node.pods.find(row.record.pod.as_str()).is_err() && row.record.damage.is_none();
        // Whoever was to start one that is not to stay went with the last daemon. One that is recorded to run is decided
        // on when its monitor has been heard of.
        let state = node.runtime.container_state(&row.record.id);
        let ended = row.record.transient && !matches!(state, Ok(ContainerState::Running { .. }));
        orphan || ended || node.runtime.is_container_removed(&row.record.id)
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
    // A container of `run` that ended while no daemon ran: its pod is stopped, as at any other time.
    let over: BTreeSet<SandboxId> = kept
        .iter()
        .filter(|row| row.record.owner == Owner::Run && container::view::life(&node, row).finished_at != 0)
        .map(|row| row.record.pod.clone())
        .collect();
    let pods: Vec<_> = pods
        .into_iter()
        .filter_map(|pod| {
            let doom = match node.runtime.sandbox_status(&pod.record.id).map(|status| status.state) {
                _ if empty(&pod) => Some(Doom::Remove),
                Ok(PodState::Removing) | Err(_) => Some(Doom::Remove),
                // The runtime itself goes on with the stop of one that was to be stopped.
                Ok(PodState::Stopped) => None,
                Ok(PodState::Creating | PodState::Ready | PodState::Lost) => {
                    over.contains(&pod.record.id).then_some(Doom::Stop)
                }
            };
            doom.map(|doom| (pod, doom))
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
        for (pod, doom) in pods {
            let outcome = match doom {
                Doom::Remove => sandbox::remove::carry_out(&node, pod.clone()).await,
                Doom::Stop => sandbox::stop::carry_out(&node, pod.clone()).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(pod = pod.id(), error = error.chain(), "the pod stays: remove it again");
            }
        }
    }
}
