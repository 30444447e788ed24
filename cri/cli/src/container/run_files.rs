//! crictl's `run`: a pod and a container in it, from two files. Nothing stays when the container does not start.

use std::path::PathBuf;

use slipway_proto::runtime::v1::{
    CreateContainerRequest, PodSandboxConfig, PullImageRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest,
};

use crate::connection::{RuntimeClient, Session};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::{credentials, output, pod_file};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    credentials: credentials::Args,
    /// Don't pull the image
    #[arg(long)]
    no_pull: bool,
    /// Pull the image (which is done anyway)
    #[arg(long, conflicts_with = "no_pull")]
    with_pull: bool,
    /// Handler by which to run the pod
    #[arg(short, long, default_value = "", hide_default_value = true)]
    runtime: String,
    /// How long the pull may take (or CRICTL_PULL_TIMEOUT); 0s for ever
    #[arg(long, visible_alias = "pt", value_name = "DURATION")]
    pull_timeout: Option<Deadline>,
    /// How long the call may take; 0s for ever
    #[arg(short = 'T', long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    cancel_timeout: Deadline,
    /// Configuration of the container
    #[arg(value_name = "CONTAINER.json")]
    container: PathBuf,
    /// Configuration of the pod
    #[arg(value_name = "POD.json")]
    pod: PathBuf,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let pod = pod_file::pod(&args.pod)?;
    let container = pod_file::container(&args.container)?;
    if !args.no_pull {
        let request = PullImageRequest {
            image: container.image.clone(),
            auth: args.credentials.for_cri()?,
            sandbox_config: Some(pod.clone()),
        };
        let mut client = session.images().await?;
        let call = async { client.pull_image(request).await.map_err(Error::call("pull the image")) };
        Deadline::for_pull(args.pull_timeout)?.hold("pull the image", call).await?;
    }
    let mut client = session.runtime().await?;
    let request = RunPodSandboxRequest { config: Some(pod.clone()), runtime_handler: args.runtime };
    let answer = client.run_pod_sandbox(request).await.map_err(Error::call("run pod"))?;
    let pod_sandbox_id = answer.into_inner().pod_sandbox_id;
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: None,
    };
    let launch = Box::pin(launch(request, pod, &mut client));
    match args.cancel_timeout.hold("run container", launch).await {
        Ok(id) => output::line(id),
        Err(error) => {
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            if let Err(status) = client.remove_pod_sandbox(request).await {
                output::note(format_args!("pod {pod_sandbox_id} is left: {}", status.message()));
            }
            Err(error)
        }
    }
}

async fn launch(
    mut request: CreateContainerRequest,
    pod: PodSandboxConfig,
    client: &mut RuntimeClient,
) -> Result<String> {
    request.sandbox_config = Some(pod);
    let answer = client.create_container(request).await.map_err(Error::call("create container"))?;
    let container_id = answer.into_inner().container_id;
    let request = StartContainerRequest { container_id: container_id.clone() };
    client.start_container(request).await.map_err(Error::call(format!("start container {container_id}")))?;
    Ok(container_id)
}
