//! StopContainer.

use std::sync::Arc;
use std::time::Duration;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::ContainerState;

use crate::error::Result;
use crate::node::{Container, Node};

/// Stops a container of the CRI's; one that is not there, or does not run, has been stopped.
pub(crate) async fn stop(
    node: &Arc<Node>,
    request: cri::StopContainerRequest,
) -> Result<cri::StopContainerResponse> {
    if let Some(container) = node.containers.left_of_cri(&request.container_id)? {
        let seconds = u64::try_from(request.timeout).unwrap_or_default();
        carry_out(node, container, Duration::from_secs(seconds)).await?;
    }
    Ok(cri::StopContainerResponse {})
}

/// Stops a container of any owner, in a task of its own.
pub(crate) async fn carry_out(node: &Arc<Node>, container: Arc<Container>, grace: Duration) -> Result<()> {
    let work = {
        let node = node.clone();
        async move {
            let runtime = node.runtime.clone();
            node.blocking(move || {
                let id = &container.record.id;
                match runtime.container_state(id)? {
                    ContainerState::Running { .. } => {
                        runtime.stop_container(id, container.record.stop_signal, grace)
                    }
                    ContainerState::Created { .. } | ContainerState::Exited { .. } => Ok(()),
                }
            })
            .await
        }
    };
    node.detached("stop of a container", work).await
}
