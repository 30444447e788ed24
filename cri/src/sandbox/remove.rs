//! RemovePodSandbox; a failed RunPodSandbox and recovery end here too.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::SandboxId;

use crate::container;
use crate::error::{Error, Result};
use crate::node::{Node, Pod};

/// Removes a pod and its containers; one that is not there has been removed.
pub(crate) async fn remove(node: &Arc<Node>, id: &str) -> Result<cri::RemovePodSandboxResponse> {
    if let Some(pod) = node.pods.left_of_cri(id)? {
        carry_out(node, pod).await?;
    }
    Ok(cri::RemovePodSandboxResponse {})
}

/// Removes a pod of any owner, in a task of its own.
pub(crate) async fn carry_out(node: &Arc<Node>, pod: Arc<Pod>) -> Result<()> {
    let work = {
        let node = node.clone();
        async move {
            let _leaving = node.pod_names.leave(&pod.record.name, pod.id());
            let _turn = pod.turn.lock().await;
            if node.pods.find(pod.id()).is_err() {
                // Whoever had the turn before has removed it.
                return Ok(());
            }
            let (runtime, id) = (node.runtime.clone(), pod.record.id.clone());
            // Before its containers are looked for: one that is created meanwhile is seen here, or sees this.
            let begin = move || {
                runtime.begin_removal(&id);
                Ok::<_, Error>(())
            };
            node.blocking(begin).await?;
            for row in node.containers.all().into_iter().filter(|row| row.record.pod == pod.record.id) {
                container::remove::clear(&node, &row).await?;
            }
            clear(&node, &pod.record.id).await?;
            node.pods.remove(pod.id());
            node.pod_names.release(&pod.record.name, pod.id());
            tracing::info!(pod = pod.id(), "pod is removed");
            Ok(())
        }
    };
    node.detached("removal of a pod", work).await
}

/// Takes away whatever there is of a pod: nothing at all is fine.
pub(crate) async fn clear(node: &Arc<Node>, id: &SandboxId) -> Result<()> {
    let (runtime, id) = (node.runtime.clone(), id.clone());
    node.blocking(move || runtime.remove_sandbox(&id)).await
}
