//! RemoveContainer; a failed CreateContainer, RemovePodSandbox and recovery end here too.

use std::sync::Arc;

use slipway_proto::runtime::v1 as cri;
use slipway_runtime::ContainerId;

use crate::error::Result;
use crate::node::{Container, Node};

/// Removes a container of the CRI's, killing it if it runs; one that is not there has been removed.
pub(crate) async fn remove(node: &Arc<Node>, id: &str) -> Result<cri::RemoveContainerResponse> {
    if let Some(container) = node.containers.left_of_cri(id)? {
        carry_out(node, container).await?;
    }
    Ok(cri::RemoveContainerResponse {})
}

/// Removes a container of any owner, in a task of its own.
pub(crate) async fn carry_out(node: &Arc<Node>, container: Arc<Container>) -> Result<()> {
    let work = {
        let node = node.clone();
        async move { clear(&node, &container).await }
    };
    node.detached("removal of a container", work).await
}

/// Removes a container within the task of the caller.
pub(crate) async fn clear(node: &Arc<Node>, container: &Container) -> Result<()> {
    let _leaving = node.container_names.leave(&container.record.name, container.id());
    let _turn = container.turn.lock().await;
    if node.containers.find(container.id()).is_err() {
        // Whoever had the turn before has removed it.
        return Ok(());
    }
    wipe(node, &container.record.id).await?;
    node.containers.remove(container.id());
    node.container_names.release(&container.record.name, container.id());
    tracing::info!(container = container.id(), "container is removed");
    Ok(())
}

/// Takes away whatever there is of a container: nothing at all is fine.
pub(crate) async fn wipe(node: &Arc<Node>, id: &ContainerId) -> Result<()> {
    let (runtime, id) = (node.runtime.clone(), id.clone());
    node.blocking(move || runtime.remove_container(&id)).await
}
