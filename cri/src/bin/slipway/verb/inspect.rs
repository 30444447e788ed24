//! `inspect`: all that is known of containers.

use serde_json::Value;
use slipway_proto::runtime::v1::ContainerStatusRequest;
use slipway_proto::slipway::v1 as own;

use super::ps;
use crate::args::Format;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::protojson::Registry;
use crate::status_view;

const TIMES: [&str; 3] = ["createdAt", "startedAt", "finishedAt"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json
    #[arg(short, long, default_value = "json")]
    output: Format,
    /// Leave the runtime's verbose texts out
    #[arg(short, long)]
    quiet: bool,
    /// Ids (or names, when called slipway); without any, those that run
    containers: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    if args.output != Format::Json {
        return Err(Error::Usage("inspect is shown as json only".to_owned()));
    }
    let ids = if args.containers.is_empty() {
        let listed = ps::list(&ps::Which::default(), session).await?;
        listed.into_iter().map(|container| container.id).collect()
    } else {
        args.containers
    };
    let registry = Registry::load()?;
    let mut views = Vec::new();
    for id in ids {
        if session.speaks_own() {
            match own_view(&id, &registry, session).await {
                Err(error) if error.is_unimplemented() => {}
                result => {
                    views.push(result?);
                    continue;
                }
            }
        }
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: !args.quiet };
        let answer = session.runtime().await?.container_status(request).await;
        let answer = answer.map_err(Error::call(format!("inspect container {id}")))?.into_inner();
        let status = registry.to_json("runtime.v1.ContainerStatus", &answer.status.unwrap_or_default())?;
        let status = status_view::with_readable_times(status, &TIMES);
        views.push(status_view::with_info(status, &answer.info));
    }
    status_view::print(views)
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
