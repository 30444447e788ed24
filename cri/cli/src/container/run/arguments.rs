//! The flags and arguments of `run`, and the request that they mean.

use std::path::Path;

use slipway_proto::slipway::v1::{Bind, ContainerNetwork, PublishedPort, RunContainerRequest};

use crate::error::{Error, Result};
use crate::{credentials, filter, terminal};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Leave it running and print its id
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Send standard input to it
    #[arg(short, long, conflicts_with = "detach")]
    pub(super) interactive: bool,
    /// Give it a terminal; with --interactive it is this one
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Its name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Publish a port on the node; without HOST on a free one, which ps shows
    #[arg(short, long, value_name = "[[IP:][HOST]:]CONTAINER[/PROTOCOL]")]
    publish: Vec<String>,
    /// Mount a directory or file of the node
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:ro]")]
    volume: Vec<String>,
    /// Set a variable of its environment; without a value, to that of this program's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Remove it when it has ended
    #[arg(long)]
    rm: bool,
    /// User and group of the command
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIRECTORY", default_value = "", hide_default_value = true)]
    workdir: String,
    /// Its host name
    #[arg(long, default_value = "", hide_default_value = true)]
    hostname: String,
    /// Its network
    #[arg(long, value_name = "bridge|host", default_value = "bridge")]
    network: String,
    /// A program in place of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// A label to find it by
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Mount its root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Give it all capabilities and devices
    #[arg(long)]
    privileged: bool,
    /// Don't pull the image when it is not on the node
    #[arg(long)]
    pub(super) no_pull: bool,
    #[command(flatten)]
    pub(super) credentials: credentials::Args,
    /// Name or id of the image
    pub(super) image: String,
    /// A command in place of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    /// Whether this program's own terminal becomes the container's.
    pub(super) fn takes_terminal(&self) -> bool {
        self.tty && self.interactive
    }

    pub(super) fn removes(&self) -> bool {
        self.rm
    }

    pub(super) fn request(&self) -> Result<RunContainerRequest> {
        Ok(RunContainerRequest {
            image: self.image.clone(),
            name: self.name.clone(),
            command: self.command.clone(),
            entrypoint: self.entrypoint.iter().cloned().collect(),
            env: self.env.iter().filter_map(|word| variable(word)).collect(),
            working_dir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            ports: self.publish.iter().map(|word| port(word)).collect::<Result<_>>()?,
            binds: self.volume.iter().map(|word| bind(word)).collect::<Result<_>>()?,
            network: network(&self.network)?.into(),
            labels: filter::pairs(&self.label, "label")?,
            detach: self.detach,
            remove: self.rm,
            stdin: self.interactive,
            tty: self.tty,
            readonly_rootfs: self.read_only,
            privileged: self.privileged,
            size: terminal::size().filter(|_| self.tty),
        })
    }
}

/// A variable of the environment; a word without a value takes that of this program's variable, if it is set.
fn variable(word: &str) -> Option<String> {
    if word.contains('=') {
        return Some(word.to_owned());
    }
    std::env::var(word).ok().map(|value| format!("{word}={value}"))
}

fn network(word: &str) -> Result<ContainerNetwork> {
    match word {
        "bridge" => Ok(ContainerNetwork::Unspecified),
        "host" => Ok(ContainerNetwork::Host),
        other => Err(Error::Usage(format!("network {other} is not known: use bridge or host"))),
    }
}

fn port(word: &str) -> Result<PublishedPort> {
    let refuse =
        || Error::Usage(format!("port {word} is not of the form [[ip:][host]:]container[/protocol]"));
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(Error::Usage(format!("port {word}: protocol {protocol} is not tcp, udp or sctp")));
    }
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(refuse);
    let (rest, container) = ports.rsplit_once(':').map_or((None, ports), |(rest, last)| (Some(rest), last));
    let (host_ip, host_port) = match rest.map(|rest| rest.rsplit_once(':').unwrap_or(("", rest))) {
        None => ("", 0),
        Some(("", "")) => return Err(refuse()),
        Some((host_ip, "")) => (host_ip, 0),
        Some((host_ip, host)) => (host_ip, number(host)?),
    };
    Ok(PublishedPort {
        host_ip: host_ip.trim_matches(['[', ']']).to_owned(),
        host_port: host_port.into(),
        container_port: number(container)?.into(),
        protocol: protocol.to_owned(),
    })
}

fn bind(word: &str) -> Result<Bind> {
    let refuse = || Error::Usage(format!("volume {word} is not of the form source:destination[:ro]"));
    let (source, rest) = word.split_once(':').ok_or_else(refuse)?;
    let (destination, mode) = rest.split_once(':').unwrap_or((rest, "rw"));
    let readonly = match mode {
        "ro" => true,
        "rw" => false,
        _ => return Err(refuse()),
    };
    if source.is_empty() || !destination.starts_with('/') {
        return Err(Error::Usage(format!("volume {word}: the destination must be an absolute path")));
    }
    let fail = |error| Error::Read { path: source.into(), source: error };
    let source = std::path::absolute(Path::new(source)).map_err(fail)?;
    let source = source.into_os_string().into_string();
    let source =
        source.map_err(|_| Error::Usage(format!("volume {word}: the source's path is not UTF-8")))?;
    Ok(Bind { source, destination: destination.to_owned(), readonly })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_an_address_and_a_protocol_if_they_like() {
        let port =
            |word| port(word).map(|port| (port.host_ip, port.host_port, port.container_port, port.protocol));
        assert_eq!(port("8080:80").unwrap(), (String::new(), 8080, 80, "tcp".to_owned()));
        assert_eq!(port("127.0.0.1:53:53/udp").unwrap(), ("127.0.0.1".to_owned(), 53, 53, "udp".to_owned()));
        assert_eq!(port("[::1]:1:2").unwrap().0, "::1");
        assert_eq!(port("80").unwrap(), (String::new(), 0, 80, "tcp".to_owned()));
        assert_eq!(port("127.0.0.1::53/udp").unwrap(), ("127.0.0.1".to_owned(), 0, 53, "udp".to_owned()));
        for wrong in ["0", "0:80", ":80", "x:80", "80:80/icmp", "70000:1", "80:", "a", ""] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn volumes_name_a_source_and_an_absolute_destination() {
        let read_only = bind("/a:/b:ro").unwrap();
        assert_eq!(read_only, Bind { source: "/a".into(), destination: "/b".into(), readonly: true });
        assert!(bind("rel:/b").unwrap().source.ends_with("/rel"));
        for wrong in ["/a", "/a:b", ":/b", "/a:/b:rx"] {
            assert!(bind(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_and_variables() {
        assert!(network("none").is_err());
        assert_eq!(variable("A=b"), Some("A=b".to_owned()));
        assert_eq!(variable("SURELY_NOT_SET_ANYWHERE"), None);
    }
}
