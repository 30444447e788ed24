//! `rm`: remove containers, running ones only with `--force`.

use std::path::Path;

use slipway_proto::runtime::v1::{ContainerState, ContainerStatusRequest, RemoveContainerRequest};
use slipway_proto::slipway::v1 as slipway;

use super::select::{self, Which};
use super::stop;
use crate::connection::Session;
use crate::each::each;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that run
    #[arg(short, long)]
    force: bool,
    /// Leave the log's file and its rotations (always so when called slipway)
    #[arg(short, long)]
    keep_logs: bool,
    /// Remove all (of those that `slipway run` made, when called slipway)
    #[arg(short, long)]
    all: bool,
    /// Ids (or names, when called slipway)
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

/// Removes containers of every owner over slipway.v1, or those of pods where that is not served. `--all` means those that
/// `slipway run` has made.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.containers;
    if args.all {
        ids.extend(select::of_run(true, session).await?);
    }
    let act = async |id: &String| {
        let request = slipway::RemoveContainerRequest { container: id.clone(), force: args.force };
        match session.slipway().await?.remove_container(request).await.map_err(action(id)) {
            Err(error) if error.is_unimplemented() => {
                remove(id, args.force, args.keep_logs, session).await?;
            }
            result => result.map(drop)?,
        }
        output::line(id)
    };
    each(&ids, act, session).await
}

/// Removes containers of pods over the CRI, and their logs, which the CRI leaves to its client.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    let mut ids = args.containers;
    if args.all {
        let listed = select::list(&Which::all(), session).await?;
        ids.extend(listed.into_iter().map(|container| container.id));
    }
    let act = async |id: &String| {
        remove(id, args.force, args.keep_logs, session).await?;
        output::line(id)
    };
    each(&ids, act, session).await
}

async fn remove(id: &str, force: bool, keep_logs: bool, session: &Session) -> Result<()> {
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
    client.remove_container(request).await.map_err(action(id))?;
    if !keep_logs && !status.log_path.is_empty() {
        remove_logs(Path::new(&status.log_path));
    }
    Ok(())
}

fn action(id: &str) -> impl FnOnce(tonic::Status) -> Error + use<> {
    Error::call(format!("remove container {id}"))
}

/// Removes a log and its rotations beside it: `name.` and a time. A file that can't be removed is reported.
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
