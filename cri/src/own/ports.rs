//! Free ports of the node, for what is published without one being named.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use slipway_proto::slipway::v1::PublishedPort;

use crate::error::{Error, Result};

/// Names a free port for each that has none. It is free for now: who takes it first has it, and is told if that was
/// someone else.
pub(crate) fn choose(ports: &mut [PublishedPort]) -> Result<()> {
    let mut held = Vec::new();
    for port in ports.iter_mut().filter(|port| port.host_port == 0) {
        let (number, socket) = free(port)?;
        port.host_port = number.into();
        held.push(socket);
    }
    Ok(())
}

fn free(port: &PublishedPort) -> Result<(u16, OwnedFd)> {
    let address = match port.host_ip.as_str() {
        "" => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        text => {
            text.parse().map_err(|_| Error::invalid("ports.host_ip", format!("{text:?} is no IP address")))?
        }
    };
    let (kind, protocol) = match port.protocol.as_str() {
        "udp" => (SocketType::DGRAM, ipproto::UDP),
        "sctp" => (SocketType::STREAM, ipproto::SCTP),
        _ => (SocketType::STREAM, ipproto::TCP),
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let failed = || Error::io("find a free port on", address.to_string());
    let socket =
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)).map_err(failed())?;
    rustix::net::bind(&socket, &SocketAddr::new(address, 0)).map_err(failed())?;
    let bound = rustix::net::getsockname(&socket).map_err(failed())?;
    let bound = SocketAddr::try_from(bound).map_err(failed())?;
    Ok((bound.port(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_without_a_number_gets_one_of_its_own() {
        let port = |number, protocol: &str| PublishedPort {
            host_ip: "127.0.0.1".to_owned(),
            host_port: number,
            container_port: 80,
            protocol: protocol.to_owned(),
        };
        let mut ports = [port(0, "tcp"), port(8080, "tcp"), port(0, ""), port(0, "udp")];
        choose(&mut ports).unwrap();
        let [first, named, second, third] = ports.map(|port| port.host_port);
        assert_eq!(named, 8080);
        assert!(first != second && first > 0 && second > 0 && third > 0);
        assert!(
            choose(&mut [PublishedPort { host_ip: "here".to_owned(), ..PublishedPort::default() }]).is_err()
        );
    }
}
