//! `rmp`: remove pods. One that is ready is stopped first only when forced.

use slipway_proto::runtime::v1::{PodSandboxState, PodSandboxStatusRequest, RemovePodSandboxRequest};

use super::{list, stop};
use crate::connection::Session;
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that are ready
    #[arg(short, long)]
    force: bool,
    /// Remove all pods
    #[arg(short, long)]
    all: bool,
    /// Ids
    #[arg(required_unless_present = "all")]
    pods: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.pods;
    if args.all {
        let listed = list::list(&list::Which::default(), session).await?;
        ids.extend(listed.into_iter().map(|pod| pod.id));
    }
    each(&ids, async |id| remove(id, args.force, session).await, session).await
}

async fn remove(id: &str, force: bool, session: &Session) -> Result<()> {
    let mut client = session.runtime().await?;
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let answer = client.pod_sandbox_status(request).await;
    let status =
        answer.map_err(Error::call(format!("find pod {id}")))?.into_inner().status.unwrap_or_default();
    if status.state() == PodSandboxState::SandboxReady {
        if !force {
            return Err(Error::Refused(format!("pod sandbox {id} is running, please stop it first")));
        }
        stop::stop(id, session).await?;
    }
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.remove_pod_sandbox(request).await.map_err(Error::call(format!("remove pod {id}")))?;
    output::line(format_args!("Removed sandbox {id}"))
}
