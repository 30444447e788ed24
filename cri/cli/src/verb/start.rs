//! `start`: run the processes of created containers.

use slipway_proto::runtime::v1::StartContainerRequest;
use slipway_proto::slipway::v1 as own;

use super::each;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids (or names, when called slipway)
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    each(&args.containers, async |id| start(id, session).await, session).await
}

async fn start(id: &str, session: &Session) -> Result<()> {
    let action = || Error::call(format!("start container {id}"));
    if session.speaks_own() {
        let request = own::StartContainerRequest { container: id.to_owned() };
        match session.own().await?.start_container(request).await.map_err(action()) {
            Err(error) if error.is_unimplemented() => {}
            result => return result.and_then(|_| output::line(id)),
        }
    }
    let request = StartContainerRequest { container_id: id.to_owned() };
    session.runtime().await?.start_container(request).await.map_err(action())?;
    output::line(id)
}
