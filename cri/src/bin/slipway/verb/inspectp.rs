//! `inspectp`: all that is known of pods.

use slipway_proto::runtime::v1::PodSandboxStatusRequest;

use super::pods;
use crate::args::Format;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::protojson::Registry;
use crate::status_view;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format: json
    #[arg(short, long, default_value = "json")]
    output: Format,
    /// Leave the runtime's verbose texts out
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    which: pods::Which,
    /// Ids; without any, those that the filters find
    pods: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    if args.output != Format::Json {
        return Err(Error::Usage("inspectp is shown as json only".to_owned()));
    }
    let ids = if args.pods.is_empty() {
        pods::list(&args.which, session).await?.into_iter().map(|pod| pod.id).collect()
    } else {
        args.pods
    };
    let mut client = session.runtime().await?;
    let registry = Registry::load()?;
    let mut views = Vec::new();
    for id in ids {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: !args.quiet };
        let answer = client.pod_sandbox_status(request).await;
        let answer = answer.map_err(Error::call(format!("inspect pod {id}")))?.into_inner();
        let status = registry.to_json("runtime.v1.PodSandboxStatus", &answer.status.unwrap_or_default())?;
        let status = status_view::with_readable_times(status, &["createdAt"]);
        views.push(status_view::with_info(status, &answer.info));
    }
    status_view::print(views)
}
