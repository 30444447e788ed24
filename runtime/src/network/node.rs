//! The node's side of the network: table, bridge and forwarding made ready, mended, and reported.

use std::sync::{MutexGuard, PoisonError};

use super::bridge::{forwarding, link};
use super::cidr::Cidr;
use super::hostport::firewall::Found;
use super::hostport::{self, Forward};
use super::netlink::Socket;
use super::{Network, bridge, namespaces};
use crate::{Error, Result};

/// How the network fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Whether pods can be connected.
    pub ready: bool,
    /// One word for programs; empty when there is nothing to say.
    pub reason: &'static str,
    /// Sentences for people, each with what to do.
    pub message: String,
    /// Whether host ports (and egress by masquerade) work.
    pub host_ports: bool,
    /// Whether the node forwards the packets of each family that pods have.
    pub forwarding: bool,
}

/// The node's side: a socket in the node's own network namespace, and what was found there.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) route: Socket,
    pub(super) nftables: Nftables,
    /// The bridge that this process has prepared.
    pub(super) bridge: Option<u32>,
    /// Whether the kernel makes bridges and veth pairs: asked once, in a namespace of its own.
    links: Option<std::result::Result<(), String>>,
    advice: Vec<String>,
}

/// Table, bridge and veth pairs as they were found.
#[derive(Debug)]
struct Inspection {
    table: Found,
    bridge: bridge::Inspected,
    /// Pods whose veth pairs are no ports of the bridge.
    astray: Vec<String>,
}

/// The knowledge of the nftables table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nftables {
    /// Nobody asked yet.
    Unknown,
    /// The kernel would take it; it is not loaded by this process.
    Possible,
    /// Loaded by this process.
    Loaded,
    /// The kernel or the configuration refuses it, with these words.
    Missing(String),
}

impl Node {
    /// Opens the socket; nothing is asked yet.
    pub(super) fn open() -> Result<Self> {
        Ok(Self {
            route: Socket::route()?,
            nftables: Nftables::Unknown,
            bridge: None,
            links: None,
            advice: Vec::new(),
        })
    }
}

impl Network {
    /// The network's state now. From its first pod on, what someone has changed in it is repaired first.
    pub fn status(&self) -> NetworkStatus {
        let mut node = self.node();
        if matches!(node.nftables, Nftables::Unknown | Nftables::Missing(_)) {
            node.nftables = self.probe();
        }
        let inspected = self.inspect(&mut node);
        // Before its first pod nothing is made.
        let mended = inspected.and_then(|found| match node.bridge {
            Some(_) => self.repair(&mut node, &found),
            None => Ok(()),
        });
        if let Err(error) = mended {
            let message = words(&error);
            let (reason, host_ports, forwarding) = ("BridgeUnavailable", false, false);
            return NetworkStatus { ready: false, reason, message, host_ports, forwarding };
        }
        let (mut reason, mut sentences) = ("", node.advice.clone());
        let stopped = forwarding::missing(&self.config.subnets);
        let forwarding = stopped.is_empty();
        if node.bridge.is_some() {
            sentences.extend(stopped);
        }
        if !sentences.is_empty() {
            reason = "ForwardingOff";
        }
        match self.firewall.obstacles() {
            Ok(obstacles) if !obstacles.is_empty() => {
                reason = "ForwardDropped";
                sentences.extend(obstacles);
            }
            Err(error) if !matches!(node.nftables, Nftables::Missing(_)) => {
                tracing::warn!(%error, "what other tables do to forwarded packets is not known");
            }
            _ => {}
        }
        if let Nftables::Missing(words) = &node.nftables {
            reason = "HostPortsUnavailable";
            sentences.insert(0, format!("host ports and egress are not available: {words}"));
        }
        let host_ports = !matches!(node.nftables, Nftables::Missing(_));
        NetworkStatus { ready: true, reason, message: sentences.join("; "), host_ports, forwarding }
    }

    /// Looks at table, bridge and veth pairs; nothing is changed.
    fn inspect(&self, node: &mut Node) -> Result<Inspection> {
        let table = match node.nftables {
            Nftables::Missing(_) => Found::Whole,
            Nftables::Unknown | Nftables::Possible | Nftables::Loaded => {
                self.firewall.examine(|| self.forwards())?
            }
        };
        refuse_foreign(&table, &self.config.table)?;
        let bridge = bridge::inspect(&mut node.route, &self.config.bridge, &self.config.subnets)?;
        if !bridge.exists() {
            self.check_links(node)?;
        }
        let astray = match bridge.whole() {
            Some(index) => bridge::astray(&mut node.route, index, &self.pods())?,
            None => Vec::new(),
        };
        Ok(Inspection { table, bridge, astray })
    }

    /// Makes what an inspection has found as it should be.
    fn repair(&self, node: &mut Node, found: &Inspection) -> Result<()> {
        if found.table != Found::Whole {
            self.load(node)?;
        }
        match found.bridge.whole() {
            Some(index) if Some(index) == node.bridge => {
                bridge::reconnect(&mut node.route, index, &found.astray)
            }
            _ => {
                let bridge = &self.config.bridge;
                tracing::warn!(bridge, "the bridge was removed or changed by someone; it is repaired");
                self.prepare_bridge(node, &found.bridge).map(drop)
            }
        }
    }

    /// Whether the kernel makes bridges and veth pairs.
    fn check_links(&self, node: &mut Node) -> Result<()> {
        let found = node.links.get_or_insert_with(|| {
            let probed = namespaces::make(self.config.unprivileged)
                .and_then(|mut namespace| bridge::probe(&mut namespace));
            probed.map_err(|error| words(&error))
        });
        found.clone().map_err(|words| {
            Error::Unsupported(format!(
                "the kernel makes no bridges with veth pairs: {words}; load its modules"
            ))
        })
    }

    /// Makes sure that table, bridge and forwarding are there; returns the bridge. The table comes before
    /// `route_localnet`, which is harmful without its guard.
    pub(super) fn prepare(&self, host_ports: bool) -> Result<u32> {
        let mut node = self.node();
        self.load(&mut node)?;
        if let Nftables::Missing(words) = &node.nftables
            && host_ports
        {
            return Err(Error::Unsupported(format!("host ports are not available: {words}")));
        }
        let found = bridge::inspect(&mut node.route, &self.config.bridge, &self.config.subnets)?;
        self.prepare_bridge(&mut node, &found)
    }

    fn prepare_bridge(&self, node: &mut Node, found: &bridge::Inspected) -> Result<u32> {
        let guarded = matches!(node.nftables, Nftables::Loaded);
        let index = match found.whole() {
            Some(index) => index,
            None => bridge::repair(&mut node.route, &self.config.bridge, &self.config.subnets, found)?,
        };
        if node.bridge != Some(index) {
            bridge::reconnect(&mut node.route, index, &self.pods())?;
        }
        node.bridge = Some(index);
        link::route_localnet(&mut node.route, index, guarded)?;
        node.advice = forwarding::ensure(&self.config.subnets, &self.config.bridge);
        Ok(index)
    }

    /// The pods that have addresses.
    fn pods(&self) -> Vec<String> {
        self.addresses.all().into_iter().map(|lease| lease.pod).collect()
    }

    /// Whether there can be a table; a kernel that has no nftables is remembered.
    pub(super) fn has_nftables(&self, node: &mut Node) -> bool {
        if matches!(node.nftables, Nftables::Unknown) {
            node.nftables = self.probe();
        }
        !matches!(node.nftables, Nftables::Missing(_))
    }

    /// Loads the table if it is not there or not as it should be.
    fn load(&self, node: &mut Node) -> Result<()> {
        if !self.has_nftables(node) {
            return Ok(());
        }
        let found = self.firewall.examine(|| self.forwards())?;
        if found == Found::Whole {
            node.nftables = Nftables::Loaded;
            return Ok(());
        }
        refuse_foreign(&found, &self.config.table)?;
        if matches!(node.nftables, Nftables::Loaded) || !self.addresses.all().is_empty() {
            let table = &self.config.table;
            tracing::warn!(table, "the nftables table was removed or changed by someone; it is made anew");
        }
        self.firewall.build(&self.forwards()?)?;
        node.nftables = Nftables::Loaded;
        Ok(())
    }

    /// Accepts these subnets, if they are the bridge's own.
    pub(crate) fn check_subnets(&self, told: &[&str]) -> Result<()> {
        let told = told.iter().map(|text| text.parse::<Cidr>()).collect::<Result<Vec<_>>>()?;
        let own = &self.config.subnets;
        let same = |one: &Cidr, other: &Cidr| one.network() == other.network() && one.prefix == other.prefix;
        if told.iter().all(|told| own.iter().any(|own| same(told, own))) {
            return Ok(());
        }
        let list = |subnets: &[Cidr]| {
            subnets.iter().map(|subnet| format!("\"{subnet}\"")).collect::<Vec<_>>().join(", ")
        };
        Err(Error::Unsupported(format!(
            "pod CIDR {} is not the bridge's {}; set network.subnets = [{0}] in the configuration and start the \
             daemon anew",
            list(&told),
            list(own)
        )))
    }

    /// Every host port of every pod.
    fn forwards(&self) -> Result<Vec<Forward>> {
        let leases = self.addresses.all();
        let forwards = leases.iter().map(|lease| hostport::forwards(&lease.ports, &lease.addresses));
        Ok(forwards.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    pub(super) fn probe(&self) -> Nftables {
        if !self.config.nftables {
            return Nftables::Missing("the configuration says network.nftables = false".to_owned());
        }
        match self.firewall.probe() {
            Ok(()) => Nftables::Possible,
            Err(Error::Kernel { call, source }) => Nftables::Missing(format!(
                "the kernel lacks nftables with NAT ({call}: {source}); load its modules"
            )),
            Err(error) => Nftables::Missing(error.to_string()),
        }
    }

    /// The node's side, for one caller at a time.
    pub(super) fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse_foreign(found: &Found, table: &str) -> Result<()> {
    match found {
        Found::Foreign(comment) => {
            let whose = if comment.is_empty() { String::new() } else { format!(" ({comment})") };
            Err(Error::InUse(format!(
                "nftables table inet {table} is someone else's{whose}; delete it or set another network.table"
            )))
        }
        Found::Whole | Found::Absent | Found::Changed => Ok(()),
    }
}

/// An error and its cause in one line.
fn words(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
