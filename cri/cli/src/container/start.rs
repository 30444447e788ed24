//! `start`: run the processes of created containers.

use slipway_proto::runtime::v1::StartContainerRequest;
use slipway_proto::slipway::v1 as slipway;

use crate::connection::Session;
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids (or names, when called slipway)
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Starts containers of every owner over slipway.v1, or those of pods where that is not served.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    let act = async |id: &String| {
        let request = slipway::StartContainerRequest { container: id.clone() };
        match session.slipway().await?.start_container(request).await.map_err(action(id)) {
            Err(error) if error.is_unimplemented() => start(id, session).await,
            result => result.and_then(|_| output::line(id)),
        }
    };
    each(&args.containers, act, session).await
}

/// Starts containers of pods over the CRI.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    each(&args.containers, async |id| start(id, session).await, session).await
}

async fn start(id: &str, session: &Session) -> Result<()> {
    let request = StartContainerRequest { container_id: id.to_owned() };
    session.runtime().await?.start_container(request).await.map_err(action(id))?;
    output::line(id)
}

fn action(id: &str) -> impl FnOnce(tonic::Status) -> Error + use<> {
    Error::call(format!("start container {id}"))
}
