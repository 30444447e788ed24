//! `pull`: fetch an image from its registry. Over slipway.v1 its progress is reported, and the image's id printed.

use std::path::PathBuf;

use slipway_proto::runtime::v1::{self, ImageSpec};
use slipway_proto::slipway::v1 as slipway;

use super::transfer;
use crate::connection::Session;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::{credentials, filter, output, pod_file};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    credentials: credentials::Args,
    /// The pod for which it is pulled
    #[arg(long, value_name = "POD.json")]
    pod_config: Option<PathBuf>,
    /// Annotation to send along
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// How long the pull may take (or CRICTL_PULL_TIMEOUT); 0s for ever
    #[arg(long, visible_alias = "pt", value_name = "DURATION")]
    pull_timeout: Option<Deadline>,
    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    image: String,
}

/// Pulls over slipway.v1, or over the CRI for what only that has a field for, and where slipway.v1 is not served.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    if args.pod_config.is_some() || !args.annotation.is_empty() {
        return by_cri(args, session).await;
    }
    let (deadline, action) = (Deadline::for_pull(args.pull_timeout)?, format!("pull {}", args.image));
    let credentials = args.credentials.for_slipway(&args.image)?;
    match deadline.hold(&action, pull(&args.image, credentials, args.quiet, session)).await {
        Err(error) if error.is_unimplemented() => by_cri(args, session).await,
        Err(error) => Err(error),
        Ok(done) => output::line(done.image_id),
    }
}

/// Pulls over the CRI.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    let (deadline, action) = (Deadline::for_pull(args.pull_timeout)?, format!("pull {}", args.image));
    let spec = ImageSpec {
        image: args.image,
        annotations: filter::pairs(&args.annotation, "annotation")?,
        ..ImageSpec::default()
    };
    let sandbox_config = args.pod_config.as_deref().map(pod_file::pod).transpose()?;
    let request =
        v1::PullImageRequest { image: Some(spec), auth: args.credentials.for_cri()?, sandbox_config };
    let mut client = session.images().await?;
    let call = async { client.pull_image(request).await.map_err(Error::call(action.as_str())) };
    let answer = deadline.hold(&action, call).await?.into_inner();
    output::line(format_args!("Image is up to date for {}", answer.image_ref))
}

/// Pulls over slipway.v1 and reports the progress, unless it is to be quiet.
pub(crate) async fn pull(
    image: &str,
    credentials: Option<slipway::Credentials>,
    quiet: bool,
    session: &Session,
) -> Result<slipway::TransferDone> {
    let action = format!("pull {image}");
    let request = slipway::PullImageRequest { image: image.to_owned(), credentials };
    let events = session.slipway().await?.pull_image(request).await.map_err(Error::call(action.as_str()))?;
    transfer::follow(events.into_inner(), &action, quiet).await
}
