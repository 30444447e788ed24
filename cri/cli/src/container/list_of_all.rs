//! `ps` over slipway.v1: the containers of every owner.

use slipway_proto::runtime::v1 as cri;
use slipway_proto::slipway::v1::{
    Container, ContainerOwner, ContainerState, ListContainersRequest, ListContainersResponse, PublishedPort,
};

use super::list::{self, Args};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::filter::{self, Pattern};
use crate::format::Format;
use crate::table::{self, Column};
use crate::units::Ids;
use crate::{image, output, units};

const COLUMNS: &[&Column<Container>] = &[
    &Column { head: "CONTAINER", cell: |container, ids| ids.show(&container.id) },
    &Column { head: "NAME", cell: |container, _| container.name.clone() },
    &Column { head: "IMAGE", cell: |container, ids| ids.show_image(&container.image) },
    &Column { head: "COMMAND", cell: |container, ids| command(container, ids) },
    &Column { head: "CREATED", cell: |container, _| units::age(container.created_at) },
    &Column { head: "STATE", cell: |container, _| state(container) },
    &Column {
        head: "PORTS",
        cell: |container, _| container.ports.iter().map(port).collect::<Vec<_>>().join(", "),
    },
    &Column { head: "OWNER", cell: |container, _| owner(container) },
];

/// Lists the containers of every owner; those of pods where slipway.v1 is not served.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    match chosen(&args, session).await {
        Err(error) if error.is_unimplemented() => list::by_cri(args, session).await,
        Err(error) => Err(error),
        Ok(containers) => print(containers, &args, session),
    }
}

fn print(containers: Vec<Container>, args: &Args, session: &Session) -> Result<()> {
    if args.output != Format::Table || args.verbose {
        let answer = ListContainersResponse { containers };
        return output::message(args.output, &answer);
    }
    if args.quiet {
        return containers.iter().try_for_each(|container| output::line(&container.id));
    }
    table::print(session.style, COLUMNS, &containers, Ids::new(args.no_trunc))
}

/// The containers that the flags choose, the newest first.
async fn chosen(args: &Args, session: &Session) -> Result<Vec<Container>> {
    let which = &args.which;
    let (name, namespace) = (Pattern::new(which.name.as_deref())?, Pattern::new(which.namespace.as_deref())?);
    let wanted = which.state()?;
    let request = ListContainersRequest {
        all: wanted != Some(cri::ContainerState::ContainerRunning),
        owners: Vec::new(),
        label_selector: filter::pairs(&which.label, "label")?,
    };
    let answer = session.slipway().await?.list_containers(request).await;
    let mut items = answer.map_err(Error::call("list containers"))?.into_inner().containers;
    let image = match &which.image {
        Some(image) => Some(image::list::id(image, session).await?),
        None => None,
    };
    items.retain(|container| {
        let pod_namespace = container.pod_name.split_once('/').map_or("", |(namespace, _)| namespace);
        wanted.is_none_or(|wanted| is_in(container.state(), wanted))
            && which.id.as_deref().is_none_or(|id| container.id.starts_with(id))
            && which.pod.as_deref().is_none_or(|pod| container.pod_id.starts_with(pod))
            && image.as_ref().is_none_or(|id| id.as_ref() == Some(&container.image_id))
            && name.fits(&container.name)
            && namespace.fits(pod_namespace)
    });
    Ok(filter::newest(items, |container| container.created_at, filter::count(which.latest, which.last)))
}

fn is_in(state: ContainerState, wanted: cri::ContainerState) -> bool {
    match state {
        ContainerState::Created => wanted == cri::ContainerState::ContainerCreated,
        ContainerState::Running => wanted == cri::ContainerState::ContainerRunning,
        ContainerState::Exited => wanted == cri::ContainerState::ContainerExited,
        ContainerState::Unspecified => wanted == cri::ContainerState::ContainerUnknown,
    }
}

fn command(container: &Container, ids: Ids) -> String {
    const WIDTH: usize = 24;
    let command = container.command.join(" ").replace(char::is_control, " ");
    if ids == Ids::Whole || command.chars().count() <= WIDTH {
        return command;
    }
    command.chars().take(WIDTH - 1).chain(['…']).collect()
}

fn state(container: &Container) -> String {
    match container.state() {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => "Running".to_owned(),
        ContainerState::Exited => format!("Exited ({})", container.exit_code),
        ContainerState::Unspecified => "Unknown".to_owned(),
    }
}

fn port(port: &PublishedPort) -> String {
    let host = if port.host_ip.is_empty() { String::new() } else { format!("{}:", port.host_ip) };
    let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
    format!("{host}{}->{}/{protocol}", port.host_port, port.container_port)
}

fn owner(container: &Container) -> String {
    let owner = match container.owner() {
        ContainerOwner::Cri => "cri",
        ContainerOwner::Run => "run",
        ContainerOwner::Build => "build",
        ContainerOwner::Cluster => "cluster",
        ContainerOwner::Unspecified => "unknown",
    };
    if container.pod_name.is_empty() { owner.to_owned() } else { format!("{owner} {}", container.pod_name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_cut_and_control_characters_do_not_reach_the_terminal() {
        let container =
            |command: &str| Container { command: vec![command.to_owned()], ..Container::default() };
        assert_eq!(command(&container("a\x1b[2Jb"), Ids::Short), "a [2Jb");
        assert_eq!(command(&container(&"x".repeat(50)), Ids::Short).chars().count(), 24);
        assert_eq!(command(&container(&"x".repeat(50)), Ids::Whole).len(), 50);
    }

    #[test]
    fn ports_read_from_the_node_inwards() {
        let published = PublishedPort { host_port: 8080, container_port: 80, ..PublishedPort::default() };
        assert_eq!(port(&published), "8080->80/tcp");
    }
}
