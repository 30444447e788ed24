//! `push`: send an image to the registry of its name.

use slipway_proto::slipway::v1::PushRequest;

use super::transfer;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::{credentials, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    credentials: credentials::Args,
    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image, with its registry
    image: String,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let action = format!("push {}", args.image);
    let credentials = args.credentials.for_slipway(&args.image)?;
    let request = PushRequest { image: args.image, credentials };
    let events = session.slipway().await?.push(request).await.map_err(Error::call(action.as_str()))?;
    let done = transfer::follow(events.into_inner(), &action, args.quiet).await?;
    output::line(format_args!("{}: {}", done.reference, done.digest))
}
