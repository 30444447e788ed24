//! `runp`: a pod from a file.

use std::path::PathBuf;

use slipway_proto::runtime::v1::RunPodSandboxRequest;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::{output, pod_file};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handler by which to run it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    runtime: String,
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
    let answer = session.runtime().await?.run_pod_sandbox(request).await;
    Ok(answer.map_err(Error::call("run pod"))?.into_inner().pod_sandbox_id)
}
