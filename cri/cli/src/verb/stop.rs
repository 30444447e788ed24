//! `stop`: end containers, gracefully first.

use slipway_proto::runtime::v1::StopContainerRequest;
use slipway_proto::slipway::v1 as own;

use super::{each, ps, rm};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

const CRICTL_TIMEOUT: u32 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds to wait before they are killed (default 10)
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Stop all that run (of those that `slipway run` started, when called slipway)
    #[arg(short, long)]
    all: bool,
    /// Ids (or names, when called slipway)
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.containers;
    if args.all {
        ids.extend(running(session).await?);
    }
    each(&ids, async |id| stop(id, args.timeout, session).await.and_then(|()| output::line(id)), session)
        .await
}

async fn running(session: &Session) -> Result<Vec<String>> {
    if session.speaks_own() {
        return rm::own_containers(false, session).await;
    }
    let listed = ps::list(&ps::Which::default(), session).await?;
    Ok(listed.into_iter().map(|container| container.id).collect())
}

pub(super) async fn stop(id: &str, timeout: Option<u32>, session: &Session) -> Result<()> {
    let action = || Error::call(format!("stop container {id}"));
    if session.speaks_own() {
        let request = own::StopContainerRequest { container: id.to_owned(), timeout };
        match session.own().await?.stop_container(request).await.map_err(action()) {
            Err(error) if error.is_unimplemented() => {}
            result => return result.map(drop),
        }
    }
    let request = StopContainerRequest {
        container_id: id.to_owned(),
        timeout: timeout.unwrap_or(CRICTL_TIMEOUT).into(),
    };
    session.runtime().await?.stop_container(request).await.map_err(action()).map(drop)
}
