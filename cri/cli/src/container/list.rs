//! `ps` over the CRI: the containers of pods.

use slipway_proto::runtime::v1::{Container, ContainerState, ListContainersResponse};

use super::select::{self, Which, label, name_of};
use crate::connection::Session;
use crate::error::Result;
use crate::format::Format;
use crate::table::{self, Column};
use crate::units::Ids;
use crate::{image, output, status_view, units};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show all that is known of each
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Output format: json, yaml or table
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Format,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show the name of an image where a container was made by its id
    #[arg(short, long)]
    resolve_image_path: bool,
}

const COLUMNS: &[&Column<Container>] = &[
    &Column { head: "CONTAINER", cell: |container, ids| ids.show(&container.id) },
    &Column { head: "IMAGE", cell: |container, ids| ids.show_image(image_name(container)) },
    &Column { head: "CREATED", cell: |container, _| units::age(container.created_at) },
    &Column { head: "STATE", cell: |container, _| state_name(container).to_owned() },
    &Column { head: "NAME", cell: |container, _| name_of(container).to_owned() },
    &Column { head: "ATTEMPT", cell: |container, _| attempt(container).to_string() },
    &Column { head: "POD ID", cell: |container, ids| ids.show(&container.pod_sandbox_id) },
    &Column { head: "POD", cell: |container, _| label(container, "io.kubernetes.pod.name").to_owned() },
    &Column {
        head: "NAMESPACE",
        cell: |container, _| label(container, "io.kubernetes.pod.namespace").to_owned(),
    },
];

/// Lists the containers of pods.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    let containers = select::list(&args.which, session).await?;
    if args.output != Format::Table {
        let answer = ListContainersResponse { containers };
        return output::message(args.output, &answer);
    }
    if args.quiet {
        return containers.iter().try_for_each(|container| output::line(&container.id));
    }
    if args.verbose {
        return containers.iter().try_for_each(describe);
    }
    let mut containers = containers;
    if args.resolve_image_path {
        resolve(&mut containers, session).await?;
    }
    table::print(session.style, COLUMNS, &containers, Ids::new(args.no_trunc))
}

/// Names the images by their first tags.
async fn resolve(containers: &mut [Container], session: &Session) -> Result<()> {
    let known = image::list::list(None, &[], session).await?;
    for container in containers {
        let found = known.iter().find(|image| image.id == container.image_id);
        if let (Some(tag), Some(spec)) =
            (found.and_then(|image| image.repo_tags.first()), &mut container.image)
        {
            spec.image.clone_from(tag);
        }
    }
    Ok(())
}

fn state_name(container: &Container) -> &'static str {
    match container.state() {
        ContainerState::ContainerCreated => "Created",
        ContainerState::ContainerRunning => "Running",
        ContainerState::ContainerExited => "Exited",
        ContainerState::ContainerUnknown => "Unknown",
    }
}

fn image_name(container: &Container) -> &str {
    container.image.as_ref().map_or("", |spec| &spec.image)
}

fn attempt(container: &Container) -> u32 {
    container.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

fn describe(container: &Container) -> Result<()> {
    output::line(format_args!("ID: {}", container.id))?;
    output::line(format_args!("PodID: {}", container.pod_sandbox_id))?;
    output::line(format_args!("Namespace: {}", label(container, "io.kubernetes.pod.namespace")))?;
    output::line(format_args!("Name: {}", name_of(container)))?;
    output::line(format_args!("Attempt: {}", attempt(container)))?;
    output::line(format_args!("State: {}", state_name(container)))?;
    output::line(format_args!("Image: {}", image_name(container)))?;
    output::line(format_args!("Created: {}", units::age(container.created_at)))?;
    status_view::print_maps([("Labels:", &container.labels), ("Annotations:", &container.annotations)])?;
    output::line("")
}
