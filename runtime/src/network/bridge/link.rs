//! Links, addresses and routes as rtnetlink requests (rtnetlink(7)).

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Result;
use crate::network::cidr::{self, Cidr};
use crate::network::message::{Answer, Attributes, CREATE, EXCLUSIVE, Message, REPLACE};
use crate::network::netlink::{Socket, errno};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const UP: u32 = 1;
const LOOPBACK: u32 = 1;
/// The size of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// The size of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const AF_SPEC: u16 = 26;
const NETNS_DESCRIPTOR: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_PEER: u16 = 1;
/// `IFLA_BRPORT_MODE`: a frame may leave by the port it came in by.
const PORT_HAIRPIN: u16 = 4;
const INET: u16 = 2;
const INET6: u16 = 10;
/// `IFLA_INET6_ADDR_GEN_MODE`, and its `IN6_ADDR_GEN_MODE_NONE`.
const GENERATION_MODE: u16 = 8;
const GENERATE_NONE: u8 = 1;
/// `IPV4_DEVCONF_ROUTE_LOCALNET`.
const ROUTE_LOCALNET: u16 = 26;

/// A link as the kernel describes it.
#[derive(Debug)]
pub(in crate::network) struct Link {
    pub(in crate::network) index: u32,
    pub(in crate::network) name: String,
    pub(in crate::network) kind: Option<String>,
    pub(in crate::network) master: Option<u32>,
    pub(in crate::network) mtu: Option<u32>,
    pub(in crate::network) up: bool,
}

fn header(index: u32, up: bool) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&index.to_ne_bytes());
    let flags = if up { UP } else { 0 };
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes
}

/// Brings the loopback device up.
pub(in crate::network) fn loopback_up(socket: &mut Socket) -> Result<()> {
    let message = Message::new("", (SET_LINK, 0), &header(LOOPBACK, true), &Attributes::new());
    socket.execute("bring lo up", &[message]).map(drop)
}

/// Looks a link up by its name.
pub(in crate::network) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    let attributes = Attributes::new().string(NAME, name);
    let message = Message::new("", (GET_LINK, 0), &header(0, false), &attributes);
    match socket.execute(&format!("look up link {name}"), &[message]) {
        Ok(answers) => Ok(answers.first().and_then(parse)),
        Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace.
pub(in crate::network) fn list(socket: &mut Socket) -> Result<Vec<Link>> {
    let message = Message::new("", (GET_LINK, 0), &header(0, false), &Attributes::new());
    Ok(socket.dump("list links", &message)?.iter().filter_map(parse).collect())
}

fn parse(answer: &Answer) -> Option<Link> {
    let number = |at: std::ops::Range<usize>| {
        answer.header(LINK_HEADER)?.get(at)?.try_into().ok().map(u32::from_ne_bytes)
    };
    let index = number(4..8)?;
    let attributes = answer.attributes(LINK_HEADER);
    Some(Link {
        index,
        name: attributes.string(NAME)?,
        kind: attributes.nested(LINK_INFO).and_then(|info| info.string(INFO_KIND)),
        master: attributes.u32(MASTER),
        mtu: attributes.u32(MTU),
        up: number(8..12)? & UP != 0,
    })
}

/// The addresses of all links of the namespace, each with its link's index.
pub(in crate::network) fn addresses(socket: &mut Socket) -> Result<Vec<(u32, Cidr)>> {
    let message = Message::new("", (GET_ADDRESS, 0), &[0; ADDRESS_HEADER], &Attributes::new());
    Ok(socket.dump("list addresses", &message)?.iter().filter_map(parse_address).collect())
}

fn parse_address(answer: &Answer) -> Option<(u32, Cidr)> {
    let header = answer.header(ADDRESS_HEADER)?;
    let prefix = *header.get(1)?;
    let index = header.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)?;
    let attributes = answer.attributes(ADDRESS_HEADER);
    // IFA_LOCAL, which a point-to-point link has beside its peer's IFA_ADDRESS.
    let octets = attributes.find(2).or_else(|| attributes.find(1))?;
    let address = match *octets {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    Some((index, Cidr { address, prefix }))
}

/// Makes a link a hairpin port of a bridge; a link that is not there is fine.
pub(in crate::network) fn connect(socket: &mut Socket, name: &str, bridge: u32) -> Result<()> {
    let attributes = Attributes::new().string(NAME, name).u32(MASTER, bridge);
    let joined = Message::new("", (SET_LINK, 0), &header(0, false), &attributes);
    match socket.execute(&format!("connect link {name} to the bridge"), &[joined, hairpin(name)]) {
        Err(error) if errno(&error) != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

fn hairpin(name: &str) -> Message {
    let port = Attributes::new()
        .string(INFO_SLAVE_KIND, "bridge")
        .nest(INFO_SLAVE_DATA, &Attributes::new().u8(PORT_HAIRPIN, 1));
    let attributes = Attributes::new().string(NAME, name).nest(LINK_INFO, &port);
    Message::new("set hairpin mode", (NEW_LINK, 0), &header(0, false), &attributes)
}

/// Makes a bridge with a hardware address of its own (else it takes the lowest of its ports', which changes).
pub(in crate::network) fn make_bridge(
    socket: &mut Socket,
    name: &str,
    hardware: [u8; 6],
    mtu: Option<u32>,
) -> Result<()> {
    let mut attributes = Attributes::new()
        .string(NAME, name)
        .bytes(ADDRESS, &hardware)
        .nest(LINK_INFO, &Attributes::new().string(INFO_KIND, "bridge"));
    if let Some(mtu) = mtu {
        attributes = attributes.u32(MTU, mtu);
    }
    let made = Message::new("", (NEW_LINK, CREATE | EXCLUSIVE), &header(0, true), &attributes);
    socket.execute(&format!("make bridge {name}"), &[made]).map(drop)
}

/// Brings a link up and gives it addresses; those it has already are fine.
pub(in crate::network) fn configure(
    socket: &mut Socket,
    link: u32,
    addresses: &[Cidr],
    gateways: &[IpAddr],
) -> Result<()> {
    let mut messages = vec![Message::new("up", (SET_LINK, 0), &header(link, true), &Attributes::new())];
    messages.extend(addresses.iter().map(|address| address_message(link, *address)));
    messages.extend(gateways.iter().map(|gateway| route_message(link, *gateway)));
    socket.execute("configure link", &messages).map(drop)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// Takes an address from a link; one that it has not is fine.
pub(in crate::network) fn remove_address(socket: &mut Socket, link: u32, address: Cidr) -> Result<()> {
    let message = addressed((DELETE_ADDRESS, 0), link, address);
    match socket.execute("remove from link", &[message]) {
        Err(error) if errno(&error) != Some(libc::EADDRNOTAVAIL) => Err(error),
        _ => Ok(()),
    }
}

fn address_message(link: u32, address: Cidr) -> Message {
    addressed((NEW_ADDRESS, CREATE | REPLACE), link, address)
}

fn addressed(kind: (u16, u16), link: u32, address: Cidr) -> Message {
    // IFA_F_NODAD: the address is ours alone, so that nothing waits for its confirmation.
    let flags = if address.address.is_ipv4() { 0 } else { 2 };
    let mut header = vec![family(address.address), address.prefix, flags, 0];
    header.extend_from_slice(&link.to_ne_bytes());
    let octets = cidr::octets(address.address);
    let mut attributes = Attributes::new().bytes(2, &octets).bytes(1, &octets);
    if address.address.is_ipv4() {
        attributes = attributes.bytes(4, &cidr::octets(address.last()));
    }
    Message::new(format!("address {address}"), kind, &header, &attributes)
}

fn route_message(link: u32, gateway: IpAddr) -> Message {
    // The main table, static, of global scope, unicast.
    let header = [family(gateway), 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    let attributes = Attributes::new().bytes(5, &cidr::octets(gateway)).u32(4, link);
    Message::new(format!("default route by {gateway}"), (NEW_ROUTE, CREATE | REPLACE), &header, &attributes)
}

/// Has the kernel make no link-local address for this link when it comes up.
pub(in crate::network) fn generate_no_address(socket: &mut Socket, link: u32) -> Result<()> {
    let configuration = Attributes::new().nest(INET6, &Attributes::new().u8(GENERATION_MODE, GENERATE_NONE));
    let attributes = Attributes::new().nest(AF_SPEC, &configuration);
    let message = Message::new("", (SET_LINK, 0), &header(link, false), &attributes);
    socket.execute("set the bridge's address generation mode", &[message]).map(drop)
}

/// Lets packets of 127/8 be routed over this link (`route_localnet`), without a writable /proc/sys.
pub(in crate::network) fn route_localnet(socket: &mut Socket, link: u32, on: bool) -> Result<()> {
    let configuration = Attributes::new().nest(1, &Attributes::new().u32(ROUTE_LOCALNET, u32::from(on)));
    let attributes = Attributes::new().nest(AF_SPEC, &Attributes::new().nest(INET, &configuration));
    let message = Message::new("", (SET_LINK, 0), &header(link, false), &attributes);
    socket.execute("set route_localnet of the bridge", &[message]).map(drop)
}

/// One end of a pod's veth pair to the bridge.
#[derive(Debug)]
pub(in crate::network) struct VethPair<'a> {
    pub(in crate::network) node_end: &'a str,
    pub(in crate::network) pod_end: &'a str,
    pub(in crate::network) hardware: [u8; 6],
    pub(in crate::network) bridge: u32,
    pub(in crate::network) mtu: Option<u32>,
}

/// Makes a veth pair: its far end in the pod's network namespace (it comes up later, having no peer while it is made),
/// its near end a hairpin port of the bridge.
pub(in crate::network) fn make_veth_pair(
    socket: &mut Socket,
    netns: BorrowedFd<'_>,
    pair: &VethPair<'_>,
) -> Result<()> {
    let descriptor = u32::try_from(netns.as_raw_fd()).unwrap_or(u32::MAX);
    let mut peer = Attributes::prefixed(&header(0, false))
        .string(NAME, pair.pod_end)
        .bytes(ADDRESS, &pair.hardware)
        .u32(NETNS_DESCRIPTOR, descriptor);
    let mut attributes = Attributes::new().string(NAME, pair.node_end).u32(MASTER, pair.bridge);
    if let Some(mtu) = pair.mtu {
        peer = peer.u32(MTU, mtu);
        attributes = attributes.u32(MTU, mtu);
    }
    let kind = Attributes::new()
        .string(INFO_KIND, "veth")
        .nest(INFO_DATA, &Attributes::new().nest(VETH_PEER, &peer));
    attributes = attributes.nest(LINK_INFO, &kind);
    let made = Message::new("make it", (NEW_LINK, CREATE | EXCLUSIVE), &header(0, true), &attributes);
    socket.execute(&format!("veth {}", pair.node_end), &[made, hairpin(pair.node_end)]).map(drop)
}

/// Removes a link; none of that name is fine.
pub(in crate::network) fn remove(socket: &mut Socket, name: &str) -> Result<()> {
    let attributes = Attributes::new().string(NAME, name);
    let message = Message::new("", (DELETE_LINK, 0), &header(0, false), &attributes);
    match socket.execute(&format!("remove link {name}"), &[message]) {
        Err(error) if errno(&error) != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}
