//! An address with the length of its network's prefix, such as `10.88.0.5/16`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// An address and its prefix length; both a subnet and an address in one are written so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// How many leading bits name the network.
    pub prefix: u8,
}

impl Cidr {
    /// The address of the network itself.
    pub(super) fn network(self) -> IpAddr {
        with_value(self.address, value(self.address) & !self.host_mask())
    }

    /// The first address of the network: the bridge's, which is the pods' gateway.
    pub(super) fn gateway(self) -> IpAddr {
        with_value(self.address, (value(self.address) & !self.host_mask()).saturating_add(1))
    }

    /// The network's last address, which for IPv4 is its broadcast address.
    pub(super) fn last(self) -> IpAddr {
        with_value(self.address, value(self.address) | self.host_mask())
    }

    /// The mask of the network as the address family's bytes.
    pub(super) fn mask(self) -> Vec<u8> {
        let bits = !self.host_mask();
        octets(with_value(self.address, bits))
    }

    /// The addresses that pods may have.
    pub(super) fn pods(self) -> (u128, u128) {
        let last = value(self.last());
        let last = if self.address.is_ipv4() { last.saturating_sub(1) } else { last };
        (value(self.gateway()).saturating_add(1), last)
    }

    /// Whether the address is one of the network's.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && value(address) & !self.host_mask() == value(self.address) & !self.host_mask()
    }

    /// Whether the two networks share an address.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    fn host_mask(self) -> u128 {
        let bits: u32 = if self.address.is_ipv4() { 32 } else { 128 };
        let host = bits.saturating_sub(u32::from(self.prefix));
        1_u128.checked_shl(host).map_or(u128::MAX, |bit| bit.wrapping_sub(1))
    }
}

/// The address as a number.
pub(super) fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of this number, in the family of `like`.
pub(super) fn with_value(like: IpAddr, value: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => {
            let low = u32::try_from(value & u128::from(u32::MAX)).unwrap_or_default();
            IpAddr::V4(Ipv4Addr::from_bits(low))
        }
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(value)),
    }
}

/// The address as it stands in a packet.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, prefix })
        });
        parts.ok_or_else(|| {
            Error::Invalid(format!("{text:?} is not an address with a prefix, such as 10.88.0.0/16"))
        })
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_ends() {
        let subnet: Cidr = "10.88.3.9/16".parse().unwrap();
        assert_eq!(subnet.network().to_string(), "10.88.0.0");
        assert_eq!(subnet.gateway().to_string(), "10.88.0.1");
        assert_eq!(subnet.last().to_string(), "10.88.255.255");
        assert_eq!(subnet.mask(), [255, 255, 0, 0]);
        assert!(subnet.contains("10.88.200.1".parse().unwrap()));
        assert!(!subnet.contains("10.89.0.1".parse().unwrap()));
        assert!(!subnet.contains("::1".parse().unwrap()));
        let wide: Cidr = "fd00:88::/64".parse().unwrap();
        assert_eq!(wide.gateway().to_string(), "fd00:88::1");
        assert!(subnet.overlaps("10.88.7.1/24".parse().unwrap()));
        assert!(subnet.overlaps("10.0.0.1/8".parse().unwrap()));
        assert!(!subnet.overlaps("10.89.0.1/16".parse().unwrap()));
        assert!(!subnet.overlaps("::1/128".parse().unwrap()));
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().last().to_string(), "255.255.255.255");
        assert_eq!("::/0".parse::<Cidr>().unwrap().pods().1, u128::MAX);
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
