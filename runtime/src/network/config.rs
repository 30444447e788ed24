//! How the built-in network is configured, and which names it accepts.

use std::path::{Path, PathBuf};

use super::cidr::Cidr;
use crate::{Error, Result};

/// How the built-in network is made.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The bridge's name.
    pub bridge: String,
    /// The pods' subnets, one an address family at most; the first address of each is the bridge's.
    pub subnets: Vec<Cidr>,
    /// The nftables table's name.
    pub table: String,
    /// Whether nftables is used: without it there are neither host ports nor egress.
    pub nftables: bool,
    /// The network operations that need no privilege in a pod, unless the pod's own kernel parameters say otherwise.
    pub unprivileged: Unprivileged,
    /// The directory for state that a reboot may erase: network namespaces are kept below it.
    pub state: PathBuf,
    /// The directory for state that survives a reboot: addresses are kept below it.
    pub root: PathBuf,
    /// How many network namespaces are made ahead.
    pub pool: usize,
}

/// The operations that need no privilege in a pod's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unprivileged {
    /// Listening on ports below 1024.
    pub ports: bool,
    /// Sending ICMP echo requests.
    pub icmp: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let subnet = Cidr { address: std::net::Ipv4Addr::new(10, 88, 0, 0).into(), prefix: 16 };
        Self {
            bridge: "slipway0".to_owned(),
            subnets: vec![subnet],
            table: "slipway".to_owned(),
            nftables: true,
            unprivileged: Unprivileged { ports: true, icmp: true },
            state: PathBuf::from("/run/slipway"),
            root: PathBuf::from("/var/lib/slipway"),
            pool: 4,
        }
    }
}

impl NetworkConfig {
    /// Refuses settings that can't work, with an error that names the setting.
    pub(super) fn check(&self) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name_ok = |name: &str, most| (1..=most).contains(&name.len()) && name.bytes().all(plain);
        if !name_ok(&self.bridge, 15) || self.bridge.starts_with('.') {
            return Err(Error::Invalid(format!(
                "{:?} is no name for a bridge; use 1 to 15 of a-z 0-9 - _",
                self.bridge
            )));
        }
        if !name_ok(&self.table, 64) {
            return Err(Error::Invalid(format!("{:?} is no name for an nftables table", self.table)));
        }
        for subnet in &self.subnets {
            let fits = if subnet.address.is_ipv4() { 8..=29 } else { 48..=124 };
            if !fits.contains(&subnet.prefix) {
                let (low, high) = (fits.start(), fits.end());
                return Err(Error::Invalid(format!("subnet {subnet} needs a prefix from /{low} to /{high}")));
            }
            if self.subnets.iter().filter(|other| other.address.is_ipv4() == subnet.address.is_ipv4()).count()
                > 1
            {
                return Err(Error::Invalid(format!(
                    "subnet {subnet} is the second of its family; give one each"
                )));
            }
        }
        if self.subnets.is_empty() {
            Err(Error::Invalid("pods need at least one subnet".to_owned()))
        } else {
            Ok(())
        }
    }
}

/// An id becomes a file name: it may hold nothing that leads elsewhere.
pub(super) fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(plain)
        && Path::new(id).is_relative()
    {
        Ok(())
    } else {
        Err(Error::Invalid(format!("{id:?} is no pod id; use letters, digits, - _ .")))
    }
}
