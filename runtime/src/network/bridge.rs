//! The node's bridge: made when the first pod needs it, mended when someone removed it, and the cables of the pods.

use std::net::IpAddr;
use std::os::fd::AsFd;

use super::cidr::{self, Cidr};
use super::link::{self, Cable, Link};
use super::netlink::{Socket, errno};
use super::netns::Namespace;
use crate::{Error, Result};

/// The pod's end of the cable, as every image expects it.
const POD_END: &str = "eth0";
/// What the names of the node's ends begin with.
pub(super) const PREFIX: &str = "slw";

/// Makes sure that the bridge is there, is up and has the gateways' addresses and no others; returns its index. `known` is
/// the one that this process last gave its addresses.
pub(super) fn ensure(socket: &mut Socket, name: &str, subnets: &[Cidr], known: Option<u32>) -> Result<u32> {
    let found = existing(socket, name)?;
    if let Some(bridge) = found.as_ref().filter(|bridge| bridge.up && known == Some(bridge.index)) {
        return Ok(bridge.index);
    }
    check_overlap(socket, subnets, found.as_ref())?;
    if found.is_none() {
        let mtu = uplink_mtu(socket);
        match link::make_bridge(socket, name, hardware_of(name), mtu) {
            Err(error) if errno(&error) != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
    }
    let bridge =
        existing(socket, name)?.ok_or_else(|| Error::NotFound { kind: "bridge", id: name.to_owned() })?;
    let mut addresses: Vec<Cidr> =
        subnets.iter().map(|subnet| Cidr { address: subnet.gateway(), prefix: subnet.prefix }).collect();
    if addresses.iter().any(|address| address.address.is_ipv6()) {
        // The node asks for a pod's hardware address in its link-local one's name when it forwards. One that the kernel
        // makes is of no use for the second or two that its confirmation takes after the first pod has come.
        link::generate_no_address(socket, bridge.index)?;
        addresses.push(link_local(hardware_of(name)));
    }
    remove_others(socket, bridge.index, &addresses)?;
    link::configure(socket, bridge.index, &addresses, &[])?;
    Ok(bridge.index)
}

/// Removes what subnets of an earlier configuration have left, and their routes with it. Link-local addresses stay: they
/// are the kernel's where no subnet is of IPv6.
fn remove_others(socket: &mut Socket, bridge: u32, addresses: &[Cidr]) -> Result<()> {
    let is_local =
        |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    for (link, address) in link::addresses(socket)? {
        if link == bridge && !addresses.contains(&address) && !is_local(address.address) {
            link::remove_address(socket, bridge, address)?;
        }
    }
    Ok(())
}

/// Whether [`ensure`] can work, without doing anything on the node. `possible` says whether the kernel makes such links.
pub(super) fn check(
    socket: &mut Socket,
    name: &str,
    subnets: &[Cidr],
    possible: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let found = existing(socket, name)?;
    check_overlap(socket, subnets, found.as_ref())?;
    if found.is_some() { Ok(()) } else { possible() }
}

/// Makes a bridge and a cable in a network namespace that nobody uses, so that a kernel without them is known.
pub(super) fn probe(namespace: &mut Namespace) -> Result<()> {
    const NAME: &str = "probe";
    link::make_bridge(&mut namespace.route, NAME, hardware_of(NAME), None)?;
    let bridge = existing(&mut namespace.route, NAME)?.map_or(0, |bridge| bridge.index);
    let cable =
        Cable { node_end: "probe0", pod_end: POD_END, hardware: hardware_of(POD_END), bridge, mtu: None };
    link::make_cable(&mut namespace.route, namespace.descriptor.as_fd(), &cable)
}

fn existing(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    match link::find(socket, name)? {
        Some(link) if link.kind.as_deref() == Some("bridge") => Ok(Some(link)),
        Some(_) => {
            Err(Error::InUse(format!("link {name} is not a bridge; remove it or set another network.bridge")))
        }
        None => Ok(None),
    }
}

/// A subnet that the node is in already would take the way to its neighbours; one that the bridge has is there anyway.
fn check_overlap(socket: &mut Socket, subnets: &[Cidr], bridge: Option<&Link>) -> Result<()> {
    let is_bridge = |link: u32| bridge.is_some_and(|bridge| bridge.index == link);
    let (own, taken): (Vec<_>, Vec<_>) =
        link::addresses(socket)?.into_iter().partition(|(link, _)| is_bridge(*link));
    let has = |subnet: &Cidr| {
        own.iter().any(|(_, own)| own.address == subnet.gateway() && own.prefix == subnet.prefix)
    };
    for subnet in subnets.iter().filter(|subnet| !has(subnet)) {
        if let Some((_, other)) = taken.iter().find(|(_, other)| subnet.overlaps(*other)) {
            return Err(Error::InUse(format!(
                "subnet {subnet} overlaps the node's own address {other}; set another in network.subnets"
            )));
        }
    }
    Ok(())
}

/// Makes the cables of these pods ports of the bridge, which may be another one than they were made for.
pub(super) fn reconnect<'a>(
    socket: &mut Socket,
    bridge: u32,
    pods: impl Iterator<Item = &'a str>,
) -> Result<()> {
    pods.map(|pod| link::connect(socket, &node_end(pod), bridge)).fold(Ok(()), Result::and)
}

/// The MTU of the link that the default route leaves by, so that a pod's packets fit.
fn uplink_mtu(socket: &mut Socket) -> Option<u32> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let uplink = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination) = fields.next().zip(fields.next())?;
        (destination == "00000000").then_some(name)
    })?;
    link::find(socket, uplink).ok()??.mtu.filter(|mtu| (1280..=65535).contains(mtu))
}

/// Connects a pod's network namespace to the bridge and gives it its addresses and default routes.
pub(super) fn connect(
    socket: &mut Socket,
    (pod, bridge): (&str, u32),
    namespace: &mut Namespace,
    addresses: &[Cidr],
) -> Result<()> {
    let hardware = addresses.first().map_or_else(|| hardware_of(pod), |first| hardware_for(first.address));
    let node_end = node_end(pod);
    let mtu = uplink_mtu(socket);
    let cable = Cable { node_end: &node_end, pod_end: POD_END, hardware, bridge, mtu };
    link::make_cable(socket, namespace.descriptor.as_fd(), &cable)?;
    let eth0 = link::find(&mut namespace.route, POD_END)?
        .ok_or_else(|| Error::NotFound { kind: "link", id: format!("{POD_END} of pod {pod}") })?;
    let gateways: Vec<IpAddr> = addresses.iter().map(|address| address.gateway()).collect();
    link::configure(&mut namespace.route, eth0.index, addresses, &gateways)
}

/// Removes the pod's cable; none is fine.
pub(super) fn disconnect(socket: &mut Socket, pod: &str) -> Result<()> {
    link::remove(socket, &node_end(pod))
}

/// The names of cables on this bridge that none of these pods owns.
pub(super) fn strays(socket: &mut Socket, bridge: &str, pods: &[&str]) -> Result<Vec<String>> {
    let Some(bridge) = link::find(socket, bridge)? else {
        return Ok(Vec::new());
    };
    let owned: Vec<String> = pods.iter().map(|pod| node_end(pod)).collect();
    let links = link::list(socket)?.into_iter();
    Ok(links
        .filter(|link| link.master == Some(bridge.index) && link.name.starts_with(PREFIX))
        .map(|link| link.name)
        .filter(|name| !owned.contains(name))
        .collect())
}

/// The name of the node's end of a pod's cable, which follows from the pod's id alone.
fn node_end(pod: &str) -> String {
    format!("{PREFIX}{:012x}", fingerprint(pod) & 0xffff_ffff_ffff)
}

/// A hardware address that follows from the pod's, so that no neighbour's memory of an address goes stale.
fn hardware_for(address: IpAddr) -> [u8; 6] {
    let [.., a, b, c, d] = cidr::value(address).to_be_bytes();
    [0x0a, 0x58, a, b, c, d]
}

fn hardware_of(name: &str) -> [u8; 6] {
    let [.., a, b, c, d] = fingerprint(name).to_be_bytes();
    [0x0a, 0x59, a, b, c, d]
}

/// The link-local address that follows from a hardware address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Cidr {
    let address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Cidr { address: IpAddr::from(address), prefix: 64 }
}

/// FNV-1a: short names from long ids, with no need to withstand an adversary.
fn fingerprint(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_limit_and_differ() {
        let names: std::collections::BTreeSet<String> =
            (0..10_000).map(|pod| node_end(&format!("pod-{pod}"))).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 15));
    }

    #[test]
    fn hardware_addresses_are_local_and_unicast() {
        let hardware = hardware_for("10.88.1.2".parse().unwrap());
        assert_eq!(hardware, [0x0a, 0x58, 10, 88, 1, 2]);
        assert_eq!(hardware_of("slipway0")[0] & 3, 2);
    }

    #[test]
    fn a_link_local_address_is_the_one_that_the_kernel_would_make() {
        let address = link_local([0x0a, 0x59, 0xab, 0x6f, 0x35, 0xa2]);
        assert_eq!(address.to_string(), "fe80::859:abff:fe6f:35a2/64");
    }
}
