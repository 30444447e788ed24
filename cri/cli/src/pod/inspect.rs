//! `inspectp`: the whole state of pods.

use slipway_proto::runtime::v1::{PodSandboxStatus, PodSandboxStatusRequest};

use super::list;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::protojson::Registry;
use crate::status_view::{How, States};
use crate::{output, status_view, time};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    which: list::Which,
    /// Ids; without any, those that the filters find
    pods: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let ids = if args.pods.is_empty() {
        list::list(&args.which, session).await?.into_iter().map(|pod| pod.id).collect()
    } else {
        args.pods
    };
    let mut client = session.runtime().await?;
    let registry = Registry::load()?;
    let mut states = States::new(args.how);
    for id in ids {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: states.verbose() };
        let answer = client.pod_sandbox_status(request).await;
        let answer = answer.map_err(Error::call(format!("inspect pod {id}")))?.into_inner();
        let found = answer.status.unwrap_or_default();
        let object = || {
            let status = registry.to_json(&found)?;
            Ok(status_view::with_readable_times(status, &["createdAt"]))
        };
        states.show(&answer.info, || print_table(&found), object)?;
    }
    states.print()
}

fn print_table(pod: &PodSandboxStatus) -> Result<()> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    output::line(format_args!("ID: {}", pod.id))?;
    output::line(format_args!("Name: {}", metadata.name))?;
    output::line(format_args!("UID: {}", metadata.uid))?;
    output::line(format_args!("Namespace: {}", metadata.namespace))?;
    output::line(format_args!("Attempt: {}", metadata.attempt))?;
    output::line(format_args!("Status: {}", pod.state().as_str_name()))?;
    output::line(format_args!("Created: {}", time::full(pod.created_at)))?;
    if let Some(network) = &pod.network {
        let more = network.additional_ips.iter().map(|address| &address.ip);
        let addresses: Vec<&str> = [&network.ip].into_iter().chain(more).map(String::as_str).collect();
        output::line(format_args!("IP Addresses: {}", addresses.join(", ")))?;
    }
    status_view::print_maps([("Labels:", &pod.labels), ("Annotations:", &pod.annotations)])
}
