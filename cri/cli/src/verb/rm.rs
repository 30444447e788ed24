//! `rm`: remove containers. One that runs is removed only when forced.

use std::path::Path;

use slipway_proto::runtime::v1::{ContainerState, ContainerStatusRequest, RemoveContainerRequest};
use slipway_proto::slipway::v1 as own;

use super::{each, ps, stop};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that run
    #[arg(short, long)]
    force: bool,
    /// Leave the log's file and its rotations (which slipway's own verb always does)
    #[arg(short, long)]
    keep_logs: bool,
    /// Remove all (of those that `slipway run` made, when called slipway)
    #[arg(short, long)]
    all: bool,
    /// Ids (or names, when called slipway)
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.containers;
    if args.all && session.speaks_own() {
        ids.extend(own_containers(true, session).await?);
    } else if args.all {
        let listed = ps::list(&ps::Which::all(), session).await?;
        ids.extend(listed.into_iter().map(|container| container.id));
    }
    let remove = async |id: &String| {
        remove(id, args.force, args.keep_logs, session).await.and_then(|()| output::line(id))
    };
    each(&ids, remove, session).await
}

/// What `slipway run` has made. Other owners' containers are not touched in bulk.
pub(super) async fn own_containers(all: bool, session: &Session) -> Result<Vec<String>> {
    let owners = vec![own::ContainerOwner::Run.into()];
    let request = own::ListContainersRequest { all, owners, ..own::ListContainersRequest::default() };
    let answer =
        session.own().await?.list_containers(request).await.map_err(Error::call("list containers"))?;
    Ok(answer.into_inner().containers.into_iter().map(|container| container.id).collect())
}

async fn remove(id: &str, force: bool, keep_logs: bool, session: &Session) -> Result<()> {
    let action = || Error::call(format!("remove container {id}"));
    if session.speaks_own() {
        let request = own::RemoveContainerRequest { container: id.to_owned(), force };
        match session.own().await?.remove_container(request).await.map_err(action()) {
            Err(error) if error.is_unimplemented() => {}
            result => return result.map(drop),
        }
    }
    let mut client = session.runtime().await?;
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer =
        client.container_status(request).await.map_err(Error::call(format!("find container {id}")))?;
    let status = answer.into_inner().status.unwrap_or_default();
    if status.state() == ContainerState::ContainerRunning {
        if !force {
            return Err(Error::Refused(format!("container {id} is running, please stop it first")));
        }
        stop::stop(id, Some(0), session).await?;
    }
    let request = RemoveContainerRequest { container_id: id.to_owned() };
    client.remove_container(request).await.map_err(action())?;
    if !keep_logs && !status.log_path.is_empty() {
        remove_logs(Path::new(&status.log_path));
    }
    Ok(())
}

/// Removes a log and what rotations have left beside it: `name.` and a time. What stays is told.
fn remove_logs(log: &Path) {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let rest = found.to_str().and_then(|found| found.strip_prefix(name));
        let rotated = |rest: &str| {
            rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        if rest.is_some_and(|rest| rest.is_empty() || rotated(rest))
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            output::note(format_args!("warning: remove {}: {error}", entry.path().display()));
        }
    }
}
