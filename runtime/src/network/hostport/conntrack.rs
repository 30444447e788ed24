//! Connections that the kernel remembers: UDP ones outlive the pod that they lead to, for as long as a client keeps
//! sending, and one that began before a host port was opened never reaches the pod.

use std::collections::BTreeSet;

use crate::Result;
use crate::network::hostport::nft;
use crate::network::hostport::{Forward, Protocol};
use crate::network::message::{Attributes, Message};
use crate::network::netlink::{Socket, errno};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const ORIGINAL: u16 = 1;
const STATUS: u16 = 3;
/// `IPS_SRC_NAT` without `IPS_DST_NAT`: a connection out of the node, none to a host port.
const SOURCE_TRANSLATED: u32 = 1 << 4;
const DESTINATION_TRANSLATED: u32 = 1 << 5;

/// Forgets the UDP connections to these host ports, so that the next packet of each is judged anew.
pub(in crate::network) fn forget(socket: &mut Socket, forwards: &[Forward]) -> Result<()> {
    for (family, v4) in [(nft::IPV4, true), (nft::IPV6, false)] {
        let udp = forwards.iter().filter(|forward| forward.protocol == Protocol::Udp);
        let ports: BTreeSet<[u8; 2]> = udp
            .filter(|forward| forward.to.is_ipv4() == v4)
            .map(|forward| forward.port.to_be_bytes())
            .collect();
        if !ports.is_empty() {
            forget_family(socket, family, &ports)?;
        }
    }
    Ok(())
}

fn forget_family(socket: &mut Socket, family: u8, ports: &BTreeSet<[u8; 2]>) -> Result<()> {
    let header = [family, 0, 0, 0];
    let list = Message::new("", (GET, 0), &header, &Attributes::new());
    for answer in socket.dump("list connections", &list)? {
        let attributes = answer.attributes(nft::HEADER);
        let Some(original) = attributes.find(ORIGINAL) else { continue };
        let transport = attributes.nested(ORIGINAL).and_then(|tuple| tuple.nested(2));
        let Some(transport) = transport.filter(|transport| transport.find(1) == Some(&[17])) else {
            continue;
        };
        let translated = attributes.be32(STATUS).unwrap_or(0) & (SOURCE_TRANSLATED | DESTINATION_TRANSLATED);
        let to_port = transport.find(3).is_some_and(|port| ports.iter().any(|wanted| wanted == port));
        if !to_port || translated == SOURCE_TRANSLATED {
            continue;
        }
        let tuple = Attributes::new().bytes(ORIGINAL | 0x8000, original);
        let delete = Message::new("", (DELETE, 0), &header, &tuple);
        match socket.execute("forget a connection", &[delete]) {
            Err(error) if errno(&error) != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
