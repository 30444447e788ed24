//! `stopp`: stop pods.

use slipway_proto::runtime::v1::StopPodSandboxRequest;

use crate::connection::Session;
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids
    #[arg(required = true)]
    pods: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    each(&args.pods, async |id| stop(id, session).await, session).await
}

pub(crate) async fn stop(id: &str, session: &Session) -> Result<()> {
    let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    let stopped = session.runtime().await?.stop_pod_sandbox(request).await;
    stopped.map_err(Error::call(format!("stop pod {id}")))?;
    output::line(format_args!("Stopped sandbox {id}"))
}
