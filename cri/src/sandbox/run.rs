//! RunPodSandbox.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::capabilities::CapabilitySet;
use slipway_runtime::{Document, Owner, SandboxConfig, SandboxId};

use crate::error::{Error, Result};
use crate::names::Fingerprint;
use crate::node::{Node, Pod, fresh_id};
use crate::records::{Encoded, PodDocument, PodRecord};
use crate::sandbox::{remove, validate};

/// Makes a pod, or joins the equal request that is making it.
pub(crate) async fn run(
    node: &Arc<Node>,
    request: cri::RunPodSandboxRequest,
) -> Result<cri::RunPodSandboxResponse> {
    let pod_sandbox_id = make(node, request, Owner::Cri).await?;
    Ok(cri::RunPodSandboxResponse { pod_sandbox_id })
}

/// Makes a pod for an owner and gives its id.
pub(crate) async fn make(
    node: &Arc<Node>,
    request: cri::RunPodSandboxRequest,
    owner: Owner,
) -> Result<String> {
    let name = validate::name(request.config.as_ref().and_then(|config| config.metadata.as_ref()))?;
    let mut config = validate::config(SandboxId::new(fresh_id()?)?, owner, &request)?;
    if owner == Owner::Run {
        config.capabilities = of_run(&request);
    }
    let fingerprint = match owner {
        Owner::Cri | Owner::Build | Owner::Cluster => Fingerprint::of(&request),
        // The pod is one container's: who joined its making would take it away when that container is another's.
        Owner::Run => Fingerprint::of_fresh(config.id.as_str()),
    };
    let draft = Draft { name: name.clone(), config };
    let work = Box::pin(carry_out(node.clone(), draft, request));
    node.pod_names.create(&name, fingerprint, work).await
}

/// The capabilities that the one container of a pod of `run` may be given: all that the daemon has, or the default ones.
fn of_run(request: &cri::RunPodSandboxRequest) -> Option<CapabilitySet> {
    let linux = request.config.as_ref().and_then(|config| config.linux.as_ref());
    let context = linux.and_then(|linux| linux.security_context.as_ref());
    let privileged = context.is_some_and(|context| context.privileged);
    (!privileged).then(CapabilitySet::default_set)
}

struct Draft {
    name: String,
    config: SandboxConfig,
}

async fn carry_out(node: Arc<Node>, draft: Draft, request: cri::RunPodSandboxRequest) -> Result<String> {
    let id = draft.config.id.clone();
    match bring_up(&node, draft, request).await {
        Ok(pod) => {
            node.pod_names.hold(&pod.record.name, id.as_str());
            let row = node.pods.insert(id.as_str(), pod);
            tracing::info!(pod = row.id(), name = row.record.name, "pod is ready");
            Ok(id.to_string())
        }
        Err(error) => {
            if let Err(error) = remove::clear(&node, &id).await {
                tracing::warn!(pod = id.as_str(), error = error.chain(), "what was made of the pod stays");
            }
            Err(error)
        }
    }
}

async fn bring_up(node: &Arc<Node>, draft: Draft, request: cri::RunPodSandboxRequest) -> Result<Pod> {
    let node = node.clone();
    let work = move || {
        let document = PodDocument { name: draft.name, request: Encoded(request) };
        let kept = Document::of(&document).map_err(|error| Error::invalid("config", error.to_string()))?;
        let config = SandboxConfig { document: kept, ..draft.config };
        let status = node.runtime.create_sandbox(&config)?;
        Ok::<_, Error>(Pod::new(PodRecord::new(status, document)))
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Lost { what: "start of a pod".to_owned() })?
}
