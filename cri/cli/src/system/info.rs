//! `info`: whether the runtime is ready, and what it can do.

use slipway_proto::runtime::v1::StatusRequest;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::protojson::Registry;
use crate::{output, status_view};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json or yaml
    #[arg(short, long, default_value = "json")]
    output: Format,
    /// Leave the runtime's verbose texts out
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    if args.output == Format::Table {
        return Err(Error::Usage("info has no table: use json or yaml".to_owned()));
    }
    let mut client = session.runtime().await?;
    let answer = client.status(StatusRequest { verbose: !args.quiet }).await;
    let answer = answer.map_err(Error::call("ask for the status"))?.into_inner();
    let registry = Registry::load()?;
    let status = registry.to_json(&answer.status.unwrap_or_default())?;
    let mut view = status_view::with_info(status, &answer.info);
    if let Some(object) = view.as_object_mut() {
        let handlers: Result<Vec<_>> =
            answer.runtime_handlers.iter().map(|handler| registry.to_compact_json(handler)).collect();
        object.insert("runtimeHandlers".to_owned(), handlers?.into());
        if let Some(features) = &answer.features {
            object.insert("features".to_owned(), registry.to_compact_json(features)?);
        }
    }
    output::value(args.output, &view)
}
