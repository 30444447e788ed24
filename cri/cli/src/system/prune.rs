//! `prune`: remove what nothing names or uses.

use slipway_proto::slipway::v1::PruneRequest;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::{output, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also images that have a name but no container, and the build cache
    #[arg(short, long)]
    all: bool,
    /// Don't ask (nothing is asked anyway)
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let answer = session.slipway().await?.prune(PruneRequest { all: args.all }).await;
    let pruned = answer.map_err(Error::call("prune"))?.into_inner();
    for container in pruned.containers {
        output::line(format_args!("Deleted container: {container}"))?;
    }
    for image in pruned.images {
        output::line(format_args!("Deleted: {image}"))?;
    }
    output::line(format_args!("Freed: {}", units::size(pruned.bytes)))
}
