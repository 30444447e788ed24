//! The daemon's status: its version, and the conditions that kubelet reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway_disk::atomic;
use slipway_image::Finding;
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{NetworkStatus, Unreachable};

use crate::damage;
use crate::error::{Error, Result};
use crate::node::Node;

/// The version, in kubelet's words.
pub(crate) fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "slipway".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

/// The conditions, the handlers and what they can do.
pub(crate) async fn status(node: &Arc<Node>, verbose: bool) -> Result<cri::StatusResponse> {
    let (damaged, runtime, network) = node
        .blocking({
            let node = node.clone();
            move || {
                let damaged = damage::known(&node);
                let runtime = runtime_condition(&node, &damaged);
                Ok::<_, Error>((damaged, runtime, node.runtime.network_status()))
            }
        })
        .await?;
    let unreachable = node.runtime.unreachable_sandboxes();
    let features = cri::RuntimeHandlerFeatures { recursive_read_only_mounts: false, user_namespaces: false };
    let mut info = BTreeMap::new();
    if verbose {
        info.insert("config".to_owned(), described(node, &network).to_string());
        info.insert("unreachablePods".to_owned(), listed(&unreachable).to_string());
        // By their paths, for the reason that `listed` gives.
        let view = |found: &Finding| {
            let Finding { path, problem, mended } = found;
            (path.display().to_string(), serde_json::json!({ "problem": problem, "mended": mended }))
        };
        let damaged: serde_json::Value = damaged.iter().map(view).collect::<serde_json::Map<_, _>>().into();
        info.insert("damaged".to_owned(), damaged.to_string());
    }
    Ok(cri::StatusResponse {
        status: Some(cri::RuntimeStatus {
            conditions: vec![runtime, network_condition(network), pods_condition(&unreachable)],
        }),
        info,
        runtime_handlers: vec![cri::RuntimeHandler { name: String::new(), features: Some(features) }],
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    })
}

/// Damaged records are told of, and keep nobody from using what is whole.
fn runtime_condition(node: &Node, damaged: &[Finding]) -> cri::RuntimeCondition {
    let broken = [&node.config.root, &node.config.state].into_iter().find_map(|directory| {
        // A name that nothing can have taken: what a crash leaves goes with the next start.
        let probe = directory.join(atomic::temporary_name());
        let outcome = std::fs::File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe));
        outcome.err().map(|error| Error::io("write into", directory)(error).chain())
    });
    let damaged: Vec<_> = damaged.iter().filter(|found| !found.mended).collect();
    let (reason, message) = match (broken, damaged.first()) {
        (Some(broken), _) => ("DirectoryNotWritable", broken),
        (None, Some(Finding { path, problem, .. })) => {
            let count = damaged.len();
            ("RecordsDamaged", format!("{count} damaged, see slipway check; {}: {problem}", path.display()))
        }
        (None, None) => ("", String::new()),
    };
    cri::RuntimeCondition {
        r#type: "RuntimeReady".to_owned(),
        status: reason != "DirectoryNotWritable",
        reason: reason.to_owned(),
        message,
    }
}

fn network_condition(network: NetworkStatus) -> cri::RuntimeCondition {
    cri::RuntimeCondition {
        r#type: "NetworkReady".to_owned(),
        status: network.ready,
        reason: if network.ready { network.reason } else { "NetworkPluginNotReady".to_owned() },
        message: network.message,
    }
}

/// How many pods a message names.
const NAMED: usize = 10;

/// Whether every pod's monitor answers. The runtime is ready all the same: a pod that can't be reached is one of many.
fn pods_condition(unreachable: &[Unreachable]) -> cri::RuntimeCondition {
    let named: Vec<_> = unreachable.iter().take(NAMED).map(|one| one.sandbox.as_str()).collect();
    let message = format!(
        "monitors of {} pods can't be reached, and their containers are as they were: resume them if they are stopped, \
         mend the file systems of their logs if those hang, or stop the pods: {}{}",
        unreachable.len(),
        named.join(", "),
        if unreachable.len() > NAMED { ", …" } else { "" },
    );
    let is_well = unreachable.is_empty();
    cri::RuntimeCondition {
        r#type: "PodsReachable".to_owned(),
        status: is_well,
        reason: if is_well { String::new() } else { "MonitorUnreachable".to_owned() },
        message: if is_well { String::new() } else { message },
    }
}

/// The pods by their ids: crictl shows an object as such, and anything else as a string.
fn listed(unreachable: &[Unreachable]) -> serde_json::Value {
    let one = |one: &Unreachable| {
        let why = serde_json::json!({ "monitor": one.monitor, "since": one.since, "reason": one.why });
        (one.sandbox.to_string(), why)
    };
    unreachable.iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

fn described(node: &Node, network: &NetworkStatus) -> serde_json::Value {
    let features = node.runtime.features();
    let switches: BTreeMap<_, _> = features.list().collect();
    serde_json::json!({
        "rootDir": node.config.root,
        "stateDir": node.config.state,
        "socket": node.config.socket(),
        "configuration": node.config,
        "network": { "forwarding": network.forwarding, "hostPorts": network.host_ports },
        "features": {
            "cgroup": if features.unified_cgroup { "v2" } else { "v1" },
            "openFiles": features.open_files,
            "kernel": switches,
        },
    })
}

/// Takes what kubelet says of the pods' addresses, which must be what the bridge is configured for.
pub(crate) fn update(node: &Node, request: cri::UpdateRuntimeConfigRequest) -> Result<()> {
    let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
    let told = network.pod_cidr.split(',').map(str::trim).filter(|part| !part.is_empty());
    Ok(node.runtime.check_pod_cidrs(&told.collect::<Vec<_>>())?)
}
