//! ExecSync and ReopenContainerLog.

use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::Exec;

use crate::error::{Error, Result};
use crate::node::Node;

/// Runs a command to its end.
pub(crate) async fn exec_sync(
    node: &Arc<Node>,
    request: cri::ExecSyncRequest,
) -> Result<cri::ExecSyncResponse> {
    let container = node.containers.find_cri(&request.container_id)?;
    if request.cmd.is_empty() {
        return Err(Error::invalid("cmd", "it is empty"));
    }
    let seconds = u64::try_from(request.timeout).unwrap_or_default();
    let timeout = Some(Duration::from_secs(seconds)).filter(|timeout| !timeout.is_zero());
    let exec = Exec { argv: request.cmd, timeout, ..Exec::default() };
    let (runtime, id) = (node.runtime.clone(), container.record.id.clone());
    // The process ends with the call, as by a client that gives up: this end is closed then.
    let (client, _waiting) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("make", "a pipe"))?;
    let output = node.blocking(move || runtime.exec_sync(&id, &exec, &client)).await?;
    if output.timed_out {
        return Err(Error::TimedOut { what: format!("command in container {}", container.id()), seconds });
    }
    Ok(cri::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code })
}

/// Goes on logging into a fresh file.
pub(crate) async fn reopen_log(node: &Arc<Node>, id: &str) -> Result<cri::ReopenContainerLogResponse> {
    let container = node.containers.find_cri(id)?;
    let (runtime, id) = (node.runtime.clone(), container.record.id.clone());
    node.blocking(move || runtime.reopen_log(&id)).await?;
    Ok(cri::ReopenContainerLogResponse {})
}
