//! `tag`: give an image one more name.

use slipway_proto::slipway::v1::TagRequest;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id or name of the image
    image: String,
    /// The name to give
    name: String,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let action = format!("tag {} as {}", args.image, args.name);
    let request = TagRequest { image: args.image, name: args.name };
    let answer = session.slipway().await?.tag(request).await.map_err(Error::call(action))?;
    output::line(answer.into_inner().reference)
}
