//! `create`: a container in a pod, from a file.

use std::path::PathBuf;

use slipway_proto::runtime::v1::{CreateContainerRequest, PullImageRequest};

use super::credentials;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::{output, pod_file};

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
        session.images().await?.pull_image(request).await.map_err(Error::call("pull the image"))?;
    }
    let request = CreateContainerRequest {
        pod_sandbox_id: args.pod,
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let answer = session.runtime().await?.create_container(request).await;
    output::line(answer.map_err(Error::call("create container"))?.into_inner().container_id)
}
