//! The maps, chains and rules of the one nftables table.
//!
//! ```text
//! table inet slipway {
//!   map any4 { inet_proto . inet_service : ipv4_addr . inet_service }              (any6 alike)
//!   map on4  { inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service }  (on6 alike)
//!   chain guard       hook prerouting, before all else: 127/8 that comes in elsewhere than by lo is dropped
//!   chain prerouting  dnat: to an address of this node and in a map -> the pod
//!   chain output      the same for the node's own connections
//!   chain postrouting masquerade: 127/8 to the bridge; translated from pod to pod; from pods to elsewhere
//! }
//! ```

use std::net::IpAddr;

use crate::network::cidr::{Cidr, octets};
use crate::network::hostport::Forward;
use crate::network::hostport::firewall::Firewall;
use crate::network::hostport::nft::{self, Base, Hook, Map, Meta, REGISTER, Table};
use crate::network::message::{Attributes, Message};

/// `NF_INET_PRE_ROUTING` and its kin, with the priorities of nftables' own names.
const GUARD: Hook = Hook { chain: "guard", kind: "filter", number: 0, priority: -300 };
const PREROUTING: Hook = Hook { chain: "prerouting", kind: "nat", number: 0, priority: -100 };
const OUTPUT: Hook = Hook { chain: "output", kind: "nat", number: 3, priority: -100 };
const POSTROUTING: Hook = Hook { chain: "postrouting", kind: "nat", number: 4, priority: 100 };

/// nft's numbers of the field types, so that a listing reads well.
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
const ADDRESS4: u32 = 7;
const ADDRESS6: u32 = 8;
const LOOPBACK_INDEX: u32 = 1;
/// Elements in one message: an attribute's length has 16 bits.
const CHUNK: usize = 400;

/// An address family's protocol number, header fields and maps.
struct Family {
    number: u8,
    source: (u32, u32),
    destination: (u32, u32),
    any: Map,
    on: Map,
}

const FAMILIES: [Family; 2] = [
    Family {
        number: nft::IPV4,
        source: (12, 4),
        destination: (16, 4),
        any: Map {
            name: "any4",
            id: 1,
            key: (PROTOCOL << 6 | SERVICE, 8),
            value: (ADDRESS4 << 6 | SERVICE, 8),
        },
        on: Map {
            name: "on4",
            id: 2,
            key: ((PROTOCOL << 6 | ADDRESS4) << 6 | SERVICE, 12),
            value: (ADDRESS4 << 6 | SERVICE, 8),
        },
    },
    Family {
        number: nft::IPV6,
        source: (8, 16),
        destination: (24, 16),
        any: Map {
            name: "any6",
            id: 3,
            key: (PROTOCOL << 6 | SERVICE, 8),
            value: (ADDRESS6 << 6 | SERVICE, 20),
        },
        on: Map {
            name: "on6",
            id: 4,
            key: ((PROTOCOL << 6 | ADDRESS6) << 6 | SERVICE, 24),
            value: (ADDRESS6 << 6 | SERVICE, 20),
        },
    },
];

impl Family {
    fn of(address: IpAddr) -> &'static Self {
        let [v4, v6] = &FAMILIES;
        if address.is_ipv4() { v4 } else { v6 }
    }

    /// Registers that an address fills.
    fn width(&self) -> u32 {
        self.destination.1 / 4
    }

    fn only(&self) -> Vec<Attributes> {
        vec![nft::meta(Meta::Family, REGISTER), nft::compare(REGISTER, true, &[self.number])]
    }

    /// Goes on when the field is, or is not, within the network.
    fn within(field: (u32, u32), subnet: Cidr, inside: bool) -> [Attributes; 3] {
        [
            nft::payload(Base::Network, field, REGISTER),
            nft::masked(REGISTER, &subnet.mask()),
            nft::compare(REGISTER, inside, &octets(subnet.network())),
        ]
    }
}

impl Firewall {
    /// The messages that add these host ports or remove them.
    pub(in crate::network) fn changes(&self, add: bool, forwards: &[Forward]) -> Vec<Message> {
        let mut messages = Vec::new();
        for map in FAMILIES.iter().flat_map(|family| [family.any, family.on]) {
            let elements: Vec<_> =
                forwards.iter().filter(|forward| map_of(forward).id == map.id).map(element).collect();
            messages.extend(
                elements.chunks(CHUNK).map(|chunk| Table(&self.table).elements(map.name, add, chunk)),
            );
        }
        messages
    }

    fn families(&self) -> impl Iterator<Item = &'static Family> {
        FAMILIES.iter().filter(|family| self.serves(family.number))
    }

    /// The messages that make the table, without host ports.
    pub(in crate::network) fn contents(&self) -> Vec<Message> {
        let table = Table(&self.table);
        let mut messages = vec![table.make_with(self.mark())];
        messages.extend([GUARD, PREROUTING, OUTPUT, POSTROUTING].map(|hook| table.chain(hook)));
        for family in self.families() {
            messages.extend([table.map(family.any), table.map(family.on)]);
        }
        messages.extend(self.rules());
        messages
    }

    /// The messages that make the table's rules.
    pub(in crate::network) fn rules(&self) -> Vec<Message> {
        let mut messages = self.guard();
        for family in self.families() {
            for chain in [PREROUTING.chain, OUTPUT.chain] {
                messages.extend(self.translations(family, chain));
            }
        }
        messages.extend(self.subnets.iter().flat_map(|subnet| self.masquerades(*subnet)));
        messages
    }

    /// The maps of host ports.
    pub(in crate::network) fn maps(&self) -> impl Iterator<Item = Map> {
        self.families().flat_map(|family| [family.any, family.on])
    }

    /// Rules that drop packets from or for 127/8 that come in by any link but lo, which `route_localnet` would let in
    /// (CVE-2020-8558).
    fn guard(&self) -> Vec<Message> {
        let [v4, _] = &FAMILIES;
        let guarded = [(v4.destination, "drops strays for 127/8"), (v4.source, "drops strays from 127/8")];
        let rule = |(field, what): ((u32, u32), &str)| {
            let mut rule = v4.only();
            rule.push(nft::meta(Meta::InputLink, REGISTER));
            rule.push(nft::compare(REGISTER, false, &LOOPBACK_INDEX.to_ne_bytes()));
            rule.extend(Family::within(field, LOOPBACK4, true));
            rule.push(nft::drop_packet());
            Table(&self.table).rule(GUARD.chain, what, &rule)
        };
        guarded.into_iter().map(rule).collect()
    }

    fn translations(&self, family: &Family, chain: &str) -> [Message; 2] {
        let port = (2, 2);
        let (first, width) = (REGISTER.saturating_add(1), family.width());
        let mut start = family.only();
        if family.number == nft::IPV6 {
            // A connection from ::1 can't leave the node: it is refused at once instead.
            start.push(nft::payload(Base::Network, family.destination, REGISTER));
            start.push(nft::compare(REGISTER, false, &std::net::Ipv6Addr::LOCALHOST.octets()));
        }
        start.extend(nft::to_this_node());
        start.push(nft::meta(Meta::Transport, REGISTER));
        let send = nft::translate_destination(family.number, REGISTER, REGISTER.saturating_add(width));

        let mut on = start.clone();
        on.push(nft::payload(Base::Network, family.destination, first));
        on.push(nft::payload(Base::Transport, port, first.saturating_add(width)));
        on.extend([nft::look_up(family.on), send.clone()]);
        let mut any = start;
        any.push(nft::payload(Base::Transport, port, first));
        any.extend([nft::look_up(family.any), send]);
        let table = Table(&self.table);
        [
            table.rule(
                chain,
                "translates host ports of one address (CONFIG_NFT_FIB_INET, CONFIG_NFT_NAT)",
                &on,
            ),
            table.rule(chain, "translates host ports (CONFIG_NFT_FIB_INET, CONFIG_NFT_NAT)", &any),
        ]
    }

    fn masquerades(&self, subnet: Cidr) -> Vec<Message> {
        let family = Family::of(subnet.address);
        let bridge = nft::link_name(&self.bridge);
        let leaves =
            |by_bridge| [nft::meta(Meta::OutputName, REGISTER), nft::compare(REGISTER, by_bridge, &bridge)];
        let rule = |what, parts: Vec<Attributes>| {
            let mut whole = family.only();
            whole.extend(parts);
            whole.push(nft::masquerade());
            Table(&self.table).rule(POSTROUTING.chain, what, &whole)
        };
        let mut rules = Vec::new();
        if family.number == nft::IPV4 {
            let mut own = leaves(true).to_vec();
            own.extend(Family::within(family.source, LOOPBACK4, true));
            rules.push(rule("masquerades 127/8 (CONFIG_NFT_MASQ)", own));
        }
        let mut hairpin = leaves(true).to_vec();
        hairpin.extend(Family::within(family.source, subnet, true));
        hairpin.extend(nft::was_translated());
        rules.push(rule("masquerades a pod to a host port", hairpin));
        let mut egress = leaves(false).to_vec();
        egress.extend(Family::within(family.source, subnet, true));
        egress.extend(Family::within(family.destination, subnet, false));
        rules.push(rule("masquerades egress", egress));
        rules
    }
}

const LOOPBACK4: Cidr = Cidr { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), prefix: 8 };

fn map_of(forward: &Forward) -> Map {
    let family = Family::of(forward.to.ip());
    if forward.on.is_some() { family.on } else { family.any }
}

/// The key and the value of a map's element.
pub(in crate::network) type Element = (Vec<u8>, Vec<u8>);

/// A host port as an element; each field is padded to four bytes.
pub(in crate::network) fn element(forward: &Forward) -> Element {
    let mut key = vec![forward.protocol.number(), 0, 0, 0];
    key.extend(forward.on.map(octets).unwrap_or_default());
    key.extend_from_slice(&forward.port.to_be_bytes());
    key.extend_from_slice(&[0; 2]);
    let mut value = octets(forward.to.ip());
    value.extend_from_slice(&forward.to.port().to_be_bytes());
    value.extend_from_slice(&[0; 2]);
    (key, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::hostport::Protocol;

    #[test]
    fn elements_have_the_lengths_their_maps_declare() {
        for (on, to) in [
            (None, "10.88.0.2:80"),
            (Some("127.0.0.1"), "10.88.0.2:80"),
            (None, "[fd00::2]:80"),
            (Some("fd01::1"), "[fd00::2]:80"),
        ] {
            let on = on.map(|on| on.parse().unwrap());
            let forward = Forward { protocol: Protocol::Udp, on, port: 8080, to: to.parse().unwrap() };
            let (key, value) = element(&forward);
            let map = map_of(&forward);
            assert_eq!((key.len(), value.len()), (map.key.1 as usize, map.value.1 as usize), "{}", map.name);
        }
    }
}
