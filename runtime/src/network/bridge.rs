//! The node's bridge: made when the first pod needs it, repaired when someone has changed it, and the veth pairs of the pods.

pub(super) mod addresses;
pub(super) mod forwarding;
pub(super) mod link;
pub(super) mod sweeper;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::cidr::{self, Cidr};
use super::namespaces::Namespace;
use super::netlink::{Socket, errno};
use crate::{Error, Result};
use link::{Link, VethPair};

/// The pod's end of the veth pair, as every image expects it.
pub(super) const POD_END: &str = "eth0";
/// The beginning of the names of the node's ends.
pub(super) const PREFIX: &str = "slw";

/// The bridge as it was found, compared with what it should be.
#[derive(Debug)]
pub(super) struct Inspected {
    /// None where it does not exist.
    link: Option<Link>,
    /// Addresses that it should have and has not.
    lacking: Vec<Cidr>,
    /// Addresses that subnets of an earlier configuration, or someone else, have left.
    superfluous: Vec<Cidr>,
}

impl Inspected {
    /// Its index, where it is as it should be.
    pub(super) fn whole(&self) -> Option<u32> {
        let is_whole = self.lacking.is_empty() && self.superfluous.is_empty();
        self.link.as_ref().filter(|link| link.up && is_whole).map(|link| link.index)
    }

    /// Whether it exists.
    pub(super) fn exists(&self) -> bool {
        self.link.is_some()
    }
}

/// Looks at the bridge and its addresses; nothing is changed.
///
/// # Errors
/// [`Error::InUse`] where the name or a subnet is taken.
pub(super) fn inspect(socket: &mut Socket, name: &str, subnets: &[Cidr]) -> Result<Inspected> {
    let link = existing(socket, name)?;
    let addresses = link::addresses(socket)?;
    check_overlap(&addresses, subnets, link.as_ref())?;
    let has =
        |index: u32| addresses.iter().filter(move |(link, _)| *link == index).map(|(_, address)| *address);
    let own: Vec<Cidr> = link.as_ref().map(|link| has(link.index).collect()).unwrap_or_default();
    let wanted = addresses_of(name, subnets);
    // Link-local ones are the kernel's where no subnet is of IPv6.
    let is_local =
        |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let superfluous = own.iter().filter(|own| !wanted.contains(own) && !is_local(own.address));
    Ok(Inspected {
        superfluous: superfluous.copied().collect(),
        lacking: wanted.into_iter().filter(|wanted| !own.contains(wanted)).collect(),
        link,
    })
}

/// Makes the bridge what it should be: it exists, is up and has the gateways' addresses and no others. Gives its index.
pub(super) fn repair(socket: &mut Socket, name: &str, subnets: &[Cidr], found: &Inspected) -> Result<u32> {
    if found.link.is_none() {
        let mtu = uplink_mtu(socket);
        match link::make_bridge(socket, name, hardware_of(name), mtu) {
            Err(error) if errno(&error) != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
    }
    let bridge =
        existing(socket, name)?.ok_or_else(|| Error::NotFound { kind: "bridge", id: name.to_owned() })?;
    if subnets.iter().any(|subnet| subnet.address.is_ipv6()) {
        // The link-local address that the kernel makes would be confirmed a second or two after the first pod has come.
        link::generate_no_address(socket, bridge.index)?;
    }
    // Their routes go with them.
    for address in &found.superfluous {
        link::remove_address(socket, bridge.index, *address)?;
    }
    link::configure(socket, bridge.index, &addresses_of(name, subnets), &[])?;
    Ok(bridge.index)
}

/// The addresses of the bridge: the gateways', and with IPv6 a link-local one, from which the node asks for a pod's hardware
/// address when it forwards.
fn addresses_of(name: &str, subnets: &[Cidr]) -> Vec<Cidr> {
    let gateway = |subnet: &Cidr| Cidr { address: subnet.gateway(), prefix: subnet.prefix };
    let mut addresses: Vec<Cidr> = subnets.iter().map(gateway).collect();
    if addresses.iter().any(|address| address.address.is_ipv6()) {
        addresses.push(link_local(hardware_of(name)));
    }
    addresses
}

/// Makes a bridge and a veth pair in a network namespace that nobody uses, so that a kernel without them is known.
pub(super) fn probe(namespace: &mut Namespace) -> Result<()> {
    const NAME: &str = "probe";
    link::make_bridge(&mut namespace.route, NAME, hardware_of(NAME), None)?;
    let bridge = existing(&mut namespace.route, NAME)?.map_or(0, |bridge| bridge.index);
    let pair =
        VethPair { node_end: "probe0", pod_end: POD_END, hardware: hardware_of(POD_END), bridge, mtu: None };
    link::make_veth_pair(&mut namespace.route, namespace.descriptor.as_fd(), &pair)
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
fn check_overlap(addresses: &[(u32, Cidr)], subnets: &[Cidr], bridge: Option<&Link>) -> Result<()> {
    let is_bridge = |link: u32| bridge.is_some_and(|bridge| bridge.index == link);
    let (own, taken): (Vec<_>, Vec<_>) = addresses.iter().partition(|(link, _)| is_bridge(*link));
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

/// The pods among these whose veth pairs are there and no ports of the bridge.
pub(super) fn astray(socket: &mut Socket, bridge: u32, pods: &[String]) -> Result<Vec<String>> {
    let links = link::list(socket)?;
    let others: BTreeSet<&str> =
        links.iter().filter(|link| link.master != Some(bridge)).map(|link| link.name.as_str()).collect();
    Ok(pods.iter().filter(|pod| others.contains(node_end(pod).as_str())).cloned().collect())
}

/// Makes the veth pairs of these pods ports of the bridge, which may be another one than they were made for.
pub(super) fn reconnect(socket: &mut Socket, bridge: u32, pods: &[String]) -> Result<()> {
    pods.iter().map(|pod| link::connect(socket, &node_end(pod), bridge)).fold(Ok(()), Result::and)
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
    let hardware = hardware(pod, addresses.first().map(|first| first.address));
    let node_end = node_end(pod);
    let mtu = uplink_mtu(socket);
    let pair = VethPair { node_end: &node_end, pod_end: POD_END, hardware, bridge, mtu };
    link::make_veth_pair(socket, namespace.descriptor.as_fd(), &pair)?;
    let eth0 = link::find(&mut namespace.route, POD_END)?
        .ok_or_else(|| Error::NotFound { kind: "link", id: format!("{POD_END} of pod {pod}") })?;
    let gateways: Vec<IpAddr> = addresses.iter().map(|address| address.gateway()).collect();
    link::configure(&mut namespace.route, eth0.index, addresses, &gateways)
}

/// Removes the pod's veth pair; none is fine.
pub(super) fn disconnect(socket: &mut Socket, pod: &str) -> Result<()> {
    link::remove(socket, &node_end(pod))
}

/// The names of veth pairs on this bridge that none of these pods owns.
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

/// The name of the node's end of a pod's veth pair, which follows from the pod's id alone.
fn node_end(pod: &str) -> String {
    format!("{PREFIX}{:012x}", fingerprint(pod) & 0xffff_ffff_ffff)
}

/// The hardware address of a pod's link: by the pod's first address, else by its id.
pub(super) fn hardware(pod: &str, first: Option<IpAddr>) -> [u8; 6] {
    first.map_or_else(|| hardware_of(pod), hardware_for)
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
        let names: BTreeSet<String> = (0..10_000).map(|pod| node_end(&format!("pod-{pod}"))).collect();
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
