//! `runp`: a pod from a file.

use std::path::PathBuf;

use slipway_proto::runtime::v1::RunPodSandboxRequest;

use crate::connection::Session;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::{output, pod_file};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handler by which to run it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    runtime: String,
    /// How long the call may take; 0s for ever
    #[arg(short = 'T', long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    cancel_timeout: Deadline,
    /// Configuration of the pod
    #[arg(value_name = "POD.json")]
    pod: PathBuf,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    output::line(run(args, session).await?)
}

async fn run(args: Args, session: &Session) -> Result<String> {
    let config = pod_file::pod(&args.pod)?;
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: args.runtime };
    let mut client = session.runtime().await?;
    let call = async { client.run_pod_sandbox(request).await.map_err(Error::call("run pod")) };
    Ok(args.cancel_timeout.hold("run pod", call).await?.into_inner().pod_sandbox_id)
}
