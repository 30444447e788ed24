//! `create`: a container in a pod, from a file.

use std::path::PathBuf;

use slipway_proto::runtime::v1::{CreateContainerRequest, PullImageRequest};

use crate::connection::Session;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::{credentials, output, pod_file};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    credentials: credentials::Args,
    /// Pull the image first
    #[arg(long)]
    with_pull: bool,
    /// Don't pull the image (which is so anyway)
    #[arg(long, conflicts_with = "with_pull")]
    no_pull: bool,
    /// How long the pull may take (or CRICTL_PULL_TIMEOUT); 0s for ever
    #[arg(long, visible_alias = "pt", value_name = "DURATION")]
    pull_timeout: Option<Deadline>,
    /// How long the call may take; 0s for ever
    #[arg(short = 'T', long, value_name = "DURATION", default_value = "0s", hide_default_value = true)]
    cancel_timeout: Deadline,
    /// The pod's id
    pod: String,
    /// Configuration of the container
    #[arg(value_name = "CONTAINER.json")]
    container: PathBuf,
    /// Configuration with which the pod was run
    #[arg(value_name = "POD.json")]
    pod_config: PathBuf,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let config = pod_file::container(&args.container)?;
    let sandbox_config = pod_file::pod(&args.pod_config)?;
    if args.with_pull {
        let request = PullImageRequest {
            image: config.image.clone(),
            auth: args.credentials.for_cri()?,
            sandbox_config: Some(sandbox_config.clone()),
        };
        let mut client = session.images().await?;
        let call = async { client.pull_image(request).await.map_err(Error::call("pull the image")) };
        Deadline::for_pull(args.pull_timeout)?.hold("pull the image", call).await?;
    }
    let request = CreateContainerRequest {
        pod_sandbox_id: args.pod,
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let mut client = session.runtime().await?;
    let call = async { client.create_container(request).await.map_err(Error::call("create container")) };
    output::line(args.cancel_timeout.hold("create container", call).await?.into_inner().container_id)
}
