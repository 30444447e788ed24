//! `stop`: end containers by their stop signal, and by SIGKILL after a grace period.

use slipway_proto::runtime::v1::StopContainerRequest;
use slipway_proto::slipway::v1 as slipway;

use super::select::{self, Which};
use crate::connection::Session;
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

/// The grace period over the CRI, in seconds; slipway.v1 leaves it to the daemon.
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

/// Stops containers of every owner over slipway.v1, or those of pods where that is not served. `--all` means those that
/// `slipway run` has started.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.containers;
    if args.all {
        ids.extend(select::of_run(false, session).await?);
    }
    let act = async |id: &String| {
        let request = slipway::StopContainerRequest { container: id.clone(), timeout: args.timeout };
        match session.slipway().await?.stop_container(request).await.map_err(action(id)) {
            Err(error) if error.is_unimplemented() => stop(id, args.timeout, session).await?,
            result => result.map(drop)?,
        }
        output::line(id)
    };
    each(&ids, act, session).await
}

/// Stops containers of pods over the CRI.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.containers;
    if args.all {
        let listed = select::list(&Which::default(), session).await?;
        ids.extend(listed.into_iter().map(|container| container.id));
    }
    let act = async |id: &String| {
        stop(id, args.timeout, session).await?;
        output::line(id)
    };
    each(&ids, act, session).await
}

/// Stops a container of a pod.
pub(crate) async fn stop(id: &str, timeout: Option<u32>, session: &Session) -> Result<()> {
    let request = StopContainerRequest {
        container_id: id.to_owned(),
        timeout: timeout.unwrap_or(CRICTL_TIMEOUT).into(),
    };
    session.runtime().await?.stop_container(request).await.map_err(action(id)).map(drop)
}

fn action(id: &str) -> impl FnOnce(tonic::Status) -> Error + use<> {
    Error::call(format!("stop container {id}"))
}
