//! `pull`: fetch an image from its registry. Called slipway it tells how far it is, and prints the image's id.

use std::path::PathBuf;

use slipway_proto::runtime::v1::{self, ImageSpec};
use slipway_proto::slipway::v1 as own;

use super::{credentials, filter};
use crate::connection::Session;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::{output, pod_file, progress};

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
    /// Tell nothing while it is pulled
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    image: String,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let (deadline, action) = (Deadline::for_pull(args.pull_timeout)?, format!("pull {}", args.image));
    let plain = args.pod_config.is_none() && args.annotation.is_empty();
    if session.speaks_own() && plain {
        let credentials = args.credentials.for_own(&args.image)?;
        match deadline.hold(&action, own(&args.image, credentials, args.quiet, session)).await {
            Err(error) if error.is_unimplemented() => {}
            Err(error) => return Err(error),
            Ok(done) => return output::line(done.image_id),
        }
    }
    let spec = ImageSpec {
        image: args.image.clone(),
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

/// Pulls by slipway.v1.
pub(super) async fn own(
    image: &str,
    credentials: Option<own::Credentials>,
    quiet: bool,
    session: &Session,
) -> Result<own::TransferDone> {
    let action = format!("pull {image}");
    let request = own::PullImageRequest { image: image.to_owned(), credentials };
    let events = session.own().await?.pull_image(request).await.map_err(Error::call(action.as_str()))?;
    progress::follow(events.into_inner(), &action, quiet).await
}
