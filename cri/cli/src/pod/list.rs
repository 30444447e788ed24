//! `pods`: the pods on the node.

use slipway_proto::runtime::v1::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue,
};

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::filter::{self, Pattern};
use crate::format::Format;
use crate::table::{self, Column};
use crate::units::Ids;
use crate::{output, status_view, time, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show all that is known of each
    #[arg(short, long)]
    verbose: bool,
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "table")]
    output: Format,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
}

/// Which pods.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Which {
    /// Only the one of this id
    #[arg(long)]
    id: Option<String>,
    /// Only those whose names fit a regular expression
    #[arg(long)]
    name: Option<String>,
    /// Only those whose namespaces fit a regular expression
    #[arg(long)]
    namespace: Option<String>,
    /// Only those that are ready, or notready
    #[arg(short, long)]
    state: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Only the newest
    #[arg(short, long)]
    latest: bool,
    /// Only the newest so many
    #[arg(short = 'n', long)]
    last: Option<usize>,
}

const COLUMNS: &[&Column<PodSandbox>] = &[
    &Column { head: "POD ID", cell: |pod, ids| ids.show(&pod.id) },
    &Column { head: "CREATED", cell: |pod, _| units::age(pod.created_at) },
    &Column { head: "STATE", cell: |pod, _| state_name(pod).to_owned() },
    &Column { head: "NAME", cell: |pod, _| pod.metadata.clone().unwrap_or_default().name },
    &Column { head: "NAMESPACE", cell: |pod, _| pod.metadata.clone().unwrap_or_default().namespace },
    &Column { head: "ATTEMPT", cell: |pod, _| pod.metadata.clone().unwrap_or_default().attempt.to_string() },
    &Column { head: "RUNTIME", cell: |pod, _| handler(pod) },
];

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let items = list(&args.which, session).await?;
    if args.output != Format::Table {
        let answer = ListPodSandboxResponse { items };
        return output::message(args.output, &answer);
    }
    if args.quiet {
        return items.iter().try_for_each(|pod| output::line(&pod.id));
    }
    if args.verbose {
        return items.iter().try_for_each(describe);
    }
    table::print(session.style, COLUMNS, &items, Ids::new(args.no_trunc))
}

/// The pods that the flags choose, the newest first.
pub(crate) async fn list(which: &Which, session: &Session) -> Result<Vec<PodSandbox>> {
    let (name, namespace) = (Pattern::new(which.name.as_deref())?, Pattern::new(which.namespace.as_deref())?);
    let filter = PodSandboxFilter {
        id: which.id.clone().unwrap_or_default(),
        state: which.state.as_deref().map(state).transpose()?,
        label_selector: filter::pairs(&which.label, "label")?,
    };
    let answer =
        session.runtime().await?.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await;
    let mut items = answer.map_err(Error::call("list pods"))?.into_inner().items;
    items.retain(|pod| {
        let metadata = pod.metadata.as_ref();
        name.fits(metadata.map_or("", |metadata| &metadata.name))
            && namespace.fits(metadata.map_or("", |metadata| &metadata.namespace))
    });
    Ok(filter::newest(items, |pod| pod.created_at, filter::count(which.latest, which.last)))
}

fn state(text: &str) -> Result<PodSandboxStateValue> {
    let state = match text.to_ascii_lowercase().as_str() {
        "ready" => PodSandboxState::SandboxReady,
        "notready" => PodSandboxState::SandboxNotready,
        _ => return Err(Error::Usage(format!("state {text} is not known: use ready or notready"))),
    };
    Ok(PodSandboxStateValue { state: state.into() })
}

fn state_name(pod: &PodSandbox) -> &'static str {
    match pod.state() {
        PodSandboxState::SandboxReady => "Ready",
        PodSandboxState::SandboxNotready => "NotReady",
    }
}

fn handler(pod: &PodSandbox) -> String {
    if pod.runtime_handler.is_empty() { "(default)".to_owned() } else { pod.runtime_handler.clone() }
}

fn describe(pod: &PodSandbox) -> Result<()> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    output::line(format_args!("ID: {}", pod.id))?;
    output::line(format_args!("Name: {}", metadata.name))?;
    output::line(format_args!("UID: {}", metadata.uid))?;
    output::line(format_args!("Namespace: {}", metadata.namespace))?;
    if metadata.attempt != 0 {
        output::line(format_args!("Attempt: {}", metadata.attempt))?;
    }
    output::line(format_args!("Status: {}", state_name(pod)))?;
    output::line(format_args!("Created: {}", time::full(pod.created_at)))?;
    status_view::print_maps([("Labels:", &pod.labels), ("Annotations:", &pod.annotations)])?;
    output::line(format_args!("Runtime: {}", handler(pod)))?;
    output::line("")
}
