//! StartContainer.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{ContainerState, ExitReason};

use crate::damage;
use crate::error::Result;
use crate::node::{Container, Node};

/// Starts a created container of the CRI's.
pub(crate) async fn start(node: &Arc<Node>, id: &str) -> Result<cri::StartContainerResponse> {
    let container = node.containers.find_cri(id)?;
    carry_out(node, container).await?;
    Ok(cri::StartContainerResponse {})
}

/// Starts a container of any owner, in a task of its own. Who asked while it was being started finds it started, or is
/// told as anyone later that it has ended without ever having run.
pub(crate) async fn carry_out(node: &Arc<Node>, container: Arc<Container>) -> Result<()> {
    let work = {
        let node = node.clone();
        async move {
            let id = container.record.id.clone();
            let waited = container.turn.try_lock().is_err();
            let _turn = container.turn.lock().await;
            damage::refuse(&container.record, &node.directory("containers", container.id()).join("record"))?;
            let runtime = node.runtime.clone();
            node.blocking(move || match runtime.container_state(&id)? {
                ContainerState::Exited { reason: ExitReason::StartError, .. } => runtime.start_container(&id),
                ContainerState::Running { .. } | ContainerState::Exited { .. } if waited => Ok(()),
                ContainerState::Created { .. }
                | ContainerState::Running { .. }
                | ContainerState::Exited { .. } => runtime.start_container(&id),
            })
            .await
        }
    };
    node.detached("start of a container", work).await
}
