//! StopPodSandbox.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;

use crate::error::Result;
use crate::node::{Node, Pod};

/// Ends a pod's containers and gives back its network; a pod that is not there has been stopped.
pub(crate) async fn stop(node: &Arc<Node>, id: &str) -> Result<cri::StopPodSandboxResponse> {
    if let Some(pod) = node.pods.left_of_cri(id)? {
        carry_out(node, pod).await?;
    }
    Ok(cri::StopPodSandboxResponse {})
}

/// Stops a pod of any owner, in a task of its own.
pub(crate) async fn carry_out(node: &Arc<Node>, pod: Arc<Pod>) -> Result<()> {
    let work = {
        let node = node.clone();
        async move {
            let _turn = pod.turn.lock().await;
            if node.pods.find(pod.id()).is_err() {
                return Ok(());
            }
            let (runtime, id) = (node.runtime.clone(), pod.record.id.clone());
            node.blocking(move || runtime.stop_sandbox(&id)).await
        }
    };
    node.detached("stop of a pod", work).await
}
