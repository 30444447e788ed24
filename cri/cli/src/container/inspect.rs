//! `inspect`: the whole state of containers.

use serde_json::Value;
use slipway_proto::runtime::v1::{ContainerStatus, ContainerStatusRequest};
use slipway_proto::slipway::v1 as slipway;

use super::select::{self, Which};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::protojson::Registry;
use crate::status_view::{How, States};
use crate::{output, status_view, units};

const TIMES: [&str; 3] = ["createdAt", "startedAt", "finishedAt"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    which: Which,
    /// Ids (or names, when called slipway); without any, those that the filters find
    containers: Vec<String>,
}

/// Shows the state of containers of every owner over slipway.v1; in a table, or where slipway.v1 is not served, that of
/// containers of pods.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    let ids = ids(&args, session).await?;
    let registry = Registry::load()?;
    let mut states = States::new(args.how);
    for id in ids {
        if states.are_tables() {
            show(&id, &registry, &mut states, session).await?;
            continue;
        }
        match view(&id, &registry, session).await {
            Err(error) if error.is_unimplemented() => show(&id, &registry, &mut states, session).await?,
            result => states.push(result?),
        }
    }
    states.print()
}

/// Shows the state of containers of pods over the CRI.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    let ids = ids(&args, session).await?;
    let registry = Registry::load()?;
    let mut states = States::new(args.how);
    for id in ids {
        show(&id, &registry, &mut states, session).await?;
    }
    states.print()
}

/// The containers that are named, or else those that the flags choose.
async fn ids(args: &Args, session: &Session) -> Result<Vec<String>> {
    if !args.containers.is_empty() {
        return Ok(args.containers.clone());
    }
    let listed = select::list(&args.which, session).await?;
    Ok(listed.into_iter().map(|container| container.id).collect())
}

/// Shows the state that the CRI has of a container.
async fn show(id: &str, registry: &Registry, states: &mut States, session: &Session) -> Result<()> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: states.verbose() };
    let answer = session.runtime().await?.container_status(request).await;
    let answer = answer.map_err(Error::call(format!("inspect container {id}")))?.into_inner();
    let found = answer.status.unwrap_or_default();
    let object = || {
        let status = registry.to_json_with_nulls(&found)?;
        Ok(status_view::with_readable_times(status, &TIMES))
    };
    states.show(&answer.info, || print_table(&found), object)
}

fn print_table(container: &ContainerStatus) -> Result<()> {
    let metadata = container.metadata.clone().unwrap_or_default();
    output::line(format_args!("ID: {}", container.id))?;
    output::line(format_args!("Name: {}", metadata.name))?;
    if metadata.attempt != 0 {
        output::line(format_args!("Attempt: {}", metadata.attempt))?;
    }
    output::line(format_args!("State: {}", container.state().as_str_name()))?;
    output::line(format_args!("Created: {}", units::age(container.created_at)))?;
    if container.started_at != 0 {
        output::line(format_args!("Started: {}", units::age(container.started_at)))?;
    }
    if container.finished_at != 0 {
        output::line(format_args!("Finished: {}", units::age(container.finished_at)))?;
        output::line(format_args!("Exit Code: {}", container.exit_code))?;
    }
    status_view::print_maps([("Labels:", &container.labels), ("Annotations:", &container.annotations)])
}

/// The state that slipway.v1 has of a container, as one object.
async fn view(id: &str, registry: &Registry, session: &Session) -> Result<Value> {
    let request = slipway::ContainerStatusRequest { container: id.to_owned() };
    let answer = session.slipway().await?.container_status(request).await;
    let mut answer = answer.map_err(Error::call(format!("inspect container {id}")))?.into_inner();
    let info = std::mem::take(&mut answer.info);
    let mut status = registry.to_json(&answer)?;
    if let Some(object) = status.as_object_mut() {
        object.remove("info");
        if let Some(Value::Object(container)) = object.remove("container") {
            object.extend(container);
        }
    }
    Ok(status_view::with_info(status_view::with_readable_times(status, &TIMES), &info))
}
