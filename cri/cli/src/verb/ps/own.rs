//! The list of containers of every owner, by slipway.v1.

use slipway_proto::runtime::v1 as cri;
use slipway_proto::slipway::v1::{
    Container, ContainerOwner, ContainerState, ListContainersRequest, ListContainersResponse, PublishedPort,
};

use super::Args;
use crate::args::Format;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::verb::filter::{self, Pattern};
use crate::verb::images;
use crate::{output, units};

pub(super) async fn perform(args: &Args, session: &Session) -> Result<()> {
    let containers = list(args, session).await?;
    if args.output != Format::Table || args.verbose {
        let answer = ListContainersResponse { containers };
        return output::message(args.output, "slipway.v1.ListContainersResponse", &answer);
    }
    if args.quiet {
        return containers.iter().try_for_each(|container| output::line(&container.id));
    }
    let heads = ["CONTAINER", "NAME", "IMAGE", "COMMAND", "CREATED", "STATE", "PORTS", "OWNER"];
    let mut table = Table::new(session.dialect, &heads);
    let shorten = |id: &str| if args.no_trunc { id.to_owned() } else { units::short(id) };
    for container in containers {
        let image = &container.image;
        table.row(vec![
            shorten(&container.id),
            container.name.clone(),
            if image.starts_with("sha256:") { shorten(image) } else { image.clone() },
            command(&container, args.no_trunc),
            units::age(container.created_at),
            state(&container),
            container.ports.iter().map(port).collect::<Vec<_>>().join(", "),
            owner(&container),
        ]);
    }
    table.print()
}

async fn list(args: &Args, session: &Session) -> Result<Vec<Container>> {
    let which = &args.which;
    let (name, namespace) = (Pattern::new(which.name.as_deref())?, Pattern::new(which.namespace.as_deref())?);
    let wanted = which.state()?;
    let request = ListContainersRequest {
        all: wanted != Some(cri::ContainerState::ContainerRunning),
        owners: Vec::new(),
        label_selector: filter::pairs(&which.label, "label")?,
    };
    let answer = session.own().await?.list_containers(request).await;
    let mut items = answer.map_err(Error::call("list containers"))?.into_inner().containers;
    let image = match &which.image {
        Some(image) => Some(images::id(image, session).await?),
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

fn command(container: &Container, whole: bool) -> String {
    const WIDTH: usize = 24;
    let command = container.command.join(" ").replace(char::is_control, " ");
    if whole || command.chars().count() <= WIDTH {
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
        assert_eq!(command(&container("a\x1b[2Jb"), false), "a [2Jb");
        assert_eq!(command(&container(&"x".repeat(50)), false).chars().count(), 24);
        assert_eq!(command(&container(&"x".repeat(50)), true).len(), 50);
    }

    #[test]
    fn ports_read_from_the_node_inwards() {
        let published = PublishedPort { host_port: 8080, container_port: 80, ..PublishedPort::default() };
        assert_eq!(port(&published), "8080->80/tcp");
    }
}
