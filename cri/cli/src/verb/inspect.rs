//! `inspect`: all that is known of containers.

use serde_json::Value;
use slipway_proto::runtime::v1::{ContainerStatus, ContainerStatusRequest};
use slipway_proto::slipway::v1 as own;

use super::ps;
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
    which: ps::Which,
    /// Ids (or names, when called slipway); without any, those that the filters find
    containers: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let ids = if args.containers.is_empty() {
        let listed = ps::list(&args.which, session).await?;
        listed.into_iter().map(|container| container.id).collect()
    } else {
        args.containers
    };
    let registry = Registry::load()?;
    let mut states = States::new(args.how);
    for id in ids {
        if session.speaks_own() && !states.are_tables() {
            match own_view(&id, &registry, session).await {
                Err(error) if error.is_unimplemented() => {}
                result => {
                    states.push(result?);
                    continue;
                }
            }
        }
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: states.verbose() };
        let answer = session.runtime().await?.container_status(request).await;
        let answer = answer.map_err(Error::call(format!("inspect container {id}")))?.into_inner();
        let found = answer.status.unwrap_or_default();
        let object = || {
            let name = "runtime.v1.ContainerStatus";
            let status = registry.with_nulls(name, registry.to_json(name, &found)?);
            Ok(status_view::with_readable_times(status, &TIMES))
        };
        states.show(&answer.info, || print_table(&found), object)?;
    }
    states.print()
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

/// The container with what belongs to it beside it, in one object.
async fn own_view(id: &str, registry: &Registry, session: &Session) -> Result<Value> {
    let request = own::ContainerStatusRequest { container: id.to_owned() };
    let answer = session.own().await?.container_status(request).await;
    let mut answer = answer.map_err(Error::call(format!("inspect container {id}")))?.into_inner();
    let info = std::mem::take(&mut answer.info);
    let mut status = registry.to_json("slipway.v1.ContainerStatusResponse", &answer)?;
    if let Some(object) = status.as_object_mut() {
        object.remove("info");
        if let Some(Value::Object(container)) = object.remove("container") {
            object.extend(container);
        }
    }
    Ok(status_view::with_info(status_view::with_readable_times(status, &TIMES), &info))
}
