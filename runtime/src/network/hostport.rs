//! Ports of the node that lead to a pod: how they are asked for, and the bound sockets that reserve them.

mod conntrack;
pub(super) mod firewall;
pub(super) mod holder;
mod listing;
mod nft;
mod obstacles;
mod rules;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use crate::{Error, Result};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol's number in an IP header.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The node's address to listen on; none, `0.0.0.0` and `::` mean all of their family.
    pub host_ip: Option<IpAddr>,
    /// The node's port; a mapping with port 0 only informs.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
}

/// One mapping in one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) protocol: Protocol,
    /// The node's address, or none for any.
    pub(super) on: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) to: SocketAddr,
}

/// Resolves port mappings to forwards: one for each mapping and each of the pod's addresses in the mapping's address
/// family. A mapping with host port 0 is left out.
///
/// # Errors
/// When a mapping has container port 0, or asks for an address family that the pod has no address of.
pub(super) fn forwards(ports: &[PortMapping], addresses: &[Cidr]) -> Result<Vec<Forward>> {
    let mut forwards = Vec::new();
    for port in ports.iter().filter(|port| port.host_port != 0) {
        if port.container_port == 0 {
            return Err(Error::Invalid(format!(
                "host port {}/{} leads to container port 0; name the container's port",
                port.host_port, port.protocol
            )));
        }
        let before = forwards.len();
        for pod in addresses.iter().map(|cidr| cidr.address) {
            if port.host_ip.is_none_or(|on| on.is_ipv4() == pod.is_ipv4()) {
                forwards.push(Forward {
                    protocol: port.protocol,
                    on: port.host_ip.filter(|on| !on.is_unspecified()),
                    port: port.host_port,
                    to: SocketAddr::new(pod, port.container_port),
                });
            }
        }
        if forwards.len() == before {
            return Err(Error::Invalid(format!(
                "host port {}/{} asks for {}, but pods have no address of that family",
                port.host_port,
                port.protocol,
                port.host_ip.map_or_else(String::new, |on| on.to_string())
            )));
        }
    }
    Ok(forwards)
}

/// Whether two host ports can't be had at once.
pub(super) fn collide(one: &Forward, other: &Forward) -> bool {
    one.protocol == other.protocol
        && one.port == other.port
        && one.to.is_ipv4() == other.to.is_ipv4()
        && (one.on == other.on || one.on.is_none() || other.on.is_none())
}

/// Reserves the node's port by a socket that is bound and never listens. It has no `SO_REUSEADDR`: with it another
/// socket could bind the same port (socket(7)). `holder` names the pod or process that has a taken port.
pub(super) fn reserve(forward: &Forward, holder: impl FnOnce() -> Option<String>) -> Result<OwnedFd> {
    let any =
        if forward.to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(forward.on.unwrap_or(any), forward.port);
    let (kind, protocol) = match forward.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let name = format!("host port {address}/{}", forward.protocol);
    let socket =
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)).map_err(|errno| {
            if matches!(errno, Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::SOCKTNOSUPPORT) {
                Error::Unsupported(format!(
                    "{name}: this kernel has no {}; load its module",
                    forward.protocol
                ))
            } else {
                Error::Kernel { call: format!("open a socket for {name}"), source: errno.into() }
            }
        })?;
    if !address.is_ipv4() {
        sockopt::set_ipv6_v6only(&socket, true)
            .map_err(|errno| Error::Kernel { call: format!("keep {name} to IPv6"), source: errno.into() })?;
    }
    match rustix::net::bind(&socket, &address) {
        Ok(()) => Ok(socket),
        Err(Errno::ADDRINUSE) => {
            let by = holder().map_or_else(String::new, |holder| format!(" by {holder}"));
            Err(Error::InUse(format!("{name} is in use{by}; choose another or stop what uses it")))
        }
        Err(Errno::ADDRNOTAVAIL) => Err(Error::Invalid(format!(
            "{name}: the node has no such address; name one of its addresses or none"
        ))),
        Err(errno) => Err(Error::Kernel { call: format!("bind {name}"), source: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_ip: Option<&str>, host_port: u16) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol: Protocol::Tcp, host_ip, host_port, container_port: 80 }
    }

    #[test]
    fn a_mapping_without_an_address_serves_every_family() {
        let addresses: Vec<Cidr> =
            ["10.88.0.2/16", "fd00::2/64"].iter().map(|text| text.parse().unwrap()).collect();
        let ports =
            [mapping(None, 8080), mapping(None, 0), mapping(Some("0.0.0.0"), 81), mapping(Some("::1"), 82)];
        let forwards = forwards(&ports, &addresses).unwrap();
        let seen: Vec<_> =
            forwards.iter().map(|forward| (forward.port, forward.to.is_ipv4(), forward.on)).collect();
        let one: IpAddr = "::1".parse().unwrap();
        assert_eq!(seen, [(8080, true, None), (8080, false, None), (81, true, None), (82, false, Some(one))]);
    }

    #[test]
    fn a_family_the_pod_lacks_is_refused_by_name() {
        let error = forwards(&[mapping(Some("::1"), 82)], &["10.88.0.2/16".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("82/tcp asks for ::1"), "{error}");
    }

    #[test]
    fn a_reserved_port_is_kept_from_others() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let to = "10.88.0.2:80".parse().unwrap();
        let forward = Forward { protocol: Protocol::Tcp, on: Some(address.ip()), port: address.port(), to };
        let error = reserve(&forward, || Some("pod one".to_owned())).unwrap_err();
        assert!(matches!(&error, Error::InUse(text) if text.contains("in use by pod one")), "{error}");
        drop(taken);
        let held = reserve(&forward, || None).unwrap();
        assert!(std::net::TcpListener::bind(address).is_err());
        drop(held);
    }
}
