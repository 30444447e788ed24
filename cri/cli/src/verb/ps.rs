//! `ps`: containers. Called slipway it shows those of every owner.

mod own;

use slipway_proto::runtime::v1::{
    Container, ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest,
    ListContainersResponse,
};

use super::filter::{self, Pattern};
use super::images;
use crate::args::Format;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::{output, status_view, units};

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
    /// Show the name of an image where a container was made by its id
    #[arg(short, long)]
    resolve_image_path: bool,
}

/// Which containers.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Which {
    /// Also those that don't run
    #[arg(short, long)]
    pub(super) all: bool,
    /// Only the one of this id
    #[arg(long)]
    pub(super) id: Option<String>,
    /// Only those whose names fit a regular expression
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Only those of this pod
    #[arg(short, long)]
    pub(super) pod: Option<String>,
    /// Only those of this image
    #[arg(long)]
    pub(super) image: Option<String>,
    /// Only those of pods whose namespaces fit a regular expression
    #[arg(long)]
    pub(super) namespace: Option<String>,
    /// Only those created, running, exited or unknown
    #[arg(short, long)]
    pub(super) state: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Vec<String>,
    /// Only the newest, whether it runs or not
    #[arg(short, long)]
    pub(super) latest: bool,
    /// Only the newest so many, whether they run or not
    #[arg(short = 'n', long)]
    pub(super) last: Option<usize>,
}

impl Which {
    /// Every container.
    pub(super) fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The state asked for. `None` is every state.
    fn state(&self) -> Result<Option<ContainerState>> {
        match self.state.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("created") => Ok(Some(ContainerState::ContainerCreated)),
            Some("running") => Ok(Some(ContainerState::ContainerRunning)),
            Some("exited") => Ok(Some(ContainerState::ContainerExited)),
            Some("unknown") => Ok(Some(ContainerState::ContainerUnknown)),
            Some(other) => Err(Error::Usage(format!(
                "state {other} is not known: use created, running, exited or unknown"
            ))),
            None if self.all || self.latest || self.last.is_some() => Ok(None),
            None => Ok(Some(ContainerState::ContainerRunning)),
        }
    }
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    if session.speaks_own() {
        match own::perform(&args, session).await {
            Err(error) if error.is_unimplemented() => {}
            result => return result,
        }
    }
    let containers = list(&args.which, session).await?;
    if args.output != Format::Table {
        let answer = ListContainersResponse { containers };
        return output::message(args.output, "runtime.v1.ListContainersResponse", &answer);
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
    print_table(&containers, args.no_trunc, session)
}

/// Names the images by their first tags.
async fn resolve(containers: &mut [Container], session: &Session) -> Result<()> {
    let known = images::list(None, &[], session).await?;
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

/// The containers that CRI knows, the newest first.
pub(super) async fn list(which: &Which, session: &Session) -> Result<Vec<Container>> {
    let (name, namespace) = (Pattern::new(which.name.as_deref())?, Pattern::new(which.namespace.as_deref())?);
    let filter = ContainerFilter {
        id: which.id.clone().unwrap_or_default(),
        state: which.state()?.map(|state| ContainerStateValue { state: state.into() }),
        pod_sandbox_id: which.pod.clone().unwrap_or_default(),
        label_selector: filter::pairs(&which.label, "label")?,
    };
    let answer =
        session.runtime().await?.list_containers(ListContainersRequest { filter: Some(filter) }).await;
    let mut items = answer.map_err(Error::call("list containers"))?.into_inner().containers;
    let image = match &which.image {
        Some(image) => Some(images::id(image, session).await?),
        None => None,
    };
    items.retain(|container| {
        name.fits(container_name(container))
            && namespace.fits(label(container, "io.kubernetes.pod.namespace"))
            && image.as_ref().is_none_or(|id| id.as_ref() == Some(&container.image_id))
    });
    Ok(filter::newest(items, |container| container.created_at, filter::count(which.latest, which.last)))
}

fn container_name(container: &Container) -> &str {
    container.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

fn label<'a>(container: &'a Container, key: &str) -> &'a str {
    container.labels.get(key).map_or("unknown", String::as_str)
}

fn state_name(container: &Container) -> &'static str {
    match container.state() {
        ContainerState::ContainerCreated => "Created",
        ContainerState::ContainerRunning => "Running",
        ContainerState::ContainerExited => "Exited",
        ContainerState::ContainerUnknown => "Unknown",
    }
}

fn print_table(containers: &[Container], whole: bool, session: &Session) -> Result<()> {
    let heads = ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"];
    let mut table = Table::new(session.dialect, &heads);
    let shorten = |id: &str| if whole { id.to_owned() } else { units::short(id) };
    for container in containers {
        let image = container.image.as_ref().map_or("", |spec| &spec.image);
        table.row(vec![
            shorten(&container.id),
            if image.starts_with("sha256:") { shorten(image) } else { image.to_owned() },
            units::age(container.created_at),
            state_name(container).to_owned(),
            container_name(container).to_owned(),
            container.metadata.as_ref().map_or(0, |metadata| metadata.attempt).to_string(),
            shorten(&container.pod_sandbox_id),
            label(container, "io.kubernetes.pod.name").to_owned(),
            label(container, "io.kubernetes.pod.namespace").to_owned(),
        ]);
    }
    table.print()
}

fn describe(container: &Container) -> Result<()> {
    output::line(format_args!("ID: {}", container.id))?;
    output::line(format_args!("PodID: {}", container.pod_sandbox_id))?;
    output::line(format_args!("Namespace: {}", label(container, "io.kubernetes.pod.namespace")))?;
    output::line(format_args!("Name: {}", container_name(container)))?;
    output::line(format_args!(
        "Attempt: {}",
        container.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
    ))?;
    output::line(format_args!("State: {}", state_name(container)))?;
    output::line(format_args!("Image: {}", container.image.as_ref().map_or("", |spec| &spec.image)))?;
    output::line(format_args!("Created: {}", units::age(container.created_at)))?;
    status_view::print_maps([("Labels:", &container.labels), ("Annotations:", &container.annotations)])?;
    output::line("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_ones_unless_asked_otherwise() {
        assert_eq!(Which::default().state().unwrap(), Some(ContainerState::ContainerRunning));
        assert_eq!(Which { all: true, ..Which::default() }.state().unwrap(), None);
        assert_eq!(Which { latest: true, ..Which::default() }.state().unwrap(), None);
        let exited = Which { all: true, state: Some("Exited".to_owned()), ..Which::default() };
        assert_eq!(exited.state().unwrap(), Some(ContainerState::ContainerExited));
        assert!(Which { state: Some("gone".to_owned()), ..Which::default() }.state().is_err());
    }
}
