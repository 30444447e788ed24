//! ListPodSandbox and PodSandboxStatus.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::PodState;

use crate::container;
use crate::error::{Error, Result};
use crate::node::{Node, Pod, now};
use crate::verbose;

/// The pods that a filter lets through.
pub(crate) async fn list(
    node: &Arc<Node>,
    request: cri::ListPodSandboxRequest,
) -> Result<cri::ListPodSandboxResponse> {
    let node_too = node.clone();
    let items = node
        .blocking(move || {
            let filter = request.filter.unwrap_or_default();
            let pods = node_too.pods.cri();
            let items = pods.iter().filter(|pod| wanted(pod, &filter)).map(|pod| item(&node_too, pod));
            let state = filter.state.map(|state| state.state);
            Ok::<_, Error>(items.filter(|item| state.is_none_or(|state| state == item.state)).collect())
        })
        .await?;
    Ok(cri::ListPodSandboxResponse { items })
}

/// One pod with its addresses.
pub(crate) async fn status(
    node: &Arc<Node>,
    request: cri::PodSandboxStatusRequest,
) -> Result<cri::PodSandboxStatusResponse> {
    let pod = node.pods.find_cri(&request.pod_sandbox_id)?;
    let node_too = node.clone();
    node.blocking(move || {
        let rows = node_too.containers.all();
        let of_pod = rows.iter().filter(|row| row.record.pod == pod.record.id);
        let containers_statuses = of_pod.filter_map(|row| container::view::described(&node_too, row));
        Ok::<_, Error>(cri::PodSandboxStatusResponse {
            containers_statuses: containers_statuses.collect(),
            info: if request.verbose {
                verbose::pod(&node_too, &pod, config(&pod), is_ready(&node_too, &pod))
            } else {
                BTreeMap::new()
            },
            timestamp: now(),
            status: Some(described(&node_too, &pod)),
        })
    })
    .await
}

fn wanted(pod: &Pod, filter: &cri::PodSandboxFilter) -> bool {
    pod.id().starts_with(&filter.id) && matches(&filter.label_selector, &config(pod).labels)
}

/// Whether labels carry all that a selector asks for.
pub(crate) fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The client's request for the pod.
pub(crate) fn config(pod: &Pod) -> &cri::PodSandboxConfig {
    static NONE: std::sync::LazyLock<cri::PodSandboxConfig> = std::sync::LazyLock::new(Default::default);
    pod.record.request.0.config.as_ref().unwrap_or_else(|| &NONE)
}

/// Whether containers can start in it.
pub(crate) fn is_ready(node: &Node, pod: &Pod) -> bool {
    node.runtime.sandbox_status(&pod.record.id).is_ok_and(|status| status.state == PodState::Ready)
}

/// Whether its removal has been begun, or it is gone.
pub(crate) fn is_removed(node: &Node, pod: &Pod) -> bool {
    match node.runtime.sandbox_status(&pod.record.id).map(|status| status.state) {
        Ok(PodState::Removing) | Err(_) => true,
        Ok(PodState::Creating | PodState::Ready | PodState::Lost | PodState::Stopped) => false,
    }
}

/// Its addresses: a pod that has been stopped has none, and what was its own may be another's.
pub(crate) fn addresses<'a>(node: &Node, pod: &'a Pod) -> &'a [IpAddr] {
    if is_ready(node, pod) { &pod.record.addresses } else { &[] }
}

fn state(node: &Node, pod: &Pod) -> i32 {
    let ready = is_ready(node, pod);
    let state =
        if ready { cri::PodSandboxState::SandboxReady } else { cri::PodSandboxState::SandboxNotready };
    state.into()
}

fn item(node: &Node, pod: &Pod) -> cri::PodSandbox {
    let config = config(pod);
    cri::PodSandbox {
        id: pod.id().to_owned(),
        metadata: config.metadata.clone(),
        state: state(node, pod),
        created_at: pod.record.created_at,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: pod.record.request.0.runtime_handler.clone(),
    }
}

fn described(node: &Node, pod: &Pod) -> cri::PodSandboxStatus {
    let item = item(node, pod);
    let mut addresses = addresses(node, pod).iter().map(ToString::to_string);
    let context = config(pod).linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.clone()).unwrap_or_default();
    cri::PodSandboxStatus {
        id: item.id,
        metadata: item.metadata,
        state: item.state,
        created_at: item.created_at,
        network: Some(cri::PodSandboxNetworkStatus {
            ip: addresses.next().unwrap_or_default(),
            additional_ips: addresses.map(|ip| cri::PodIp { ip }).collect(),
        }),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(options) }),
        }),
        labels: item.labels,
        annotations: item.annotations,
        runtime_handler: item.runtime_handler,
    }
}
