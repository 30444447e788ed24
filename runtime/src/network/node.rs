//! The node's side of the network: table, bridge and forwarding made ready, mended, and reported.

use std::net::IpAddr;
use std::sync::{MutexGuard, PoisonError};

use super::hostport::{self, Forward, Protocol};
use super::netlink::Socket;
use super::{Network, bridge, forwarding, link};
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
}

/// The node's side: a socket in the node's own network namespace, and what was found there.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) route: Socket,
    pub(super) nftables: Nftables,
    advice: Vec<String>,
}

/// What is known of the nftables table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nftables {
    /// Nobody asked yet.
    Unknown,
    /// The kernel would take it; it is not loaded by this process.
    Possible,
    /// Loaded by this process.
    Loaded,
    /// The kernel refuses it, with these words.
    Missing(String),
}

impl Node {
    /// Opens the socket; nothing is asked yet.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { route: Socket::route()?, nftables: Nftables::Unknown, advice: Vec::new() })
    }
}

impl Network {
    /// How the network fares now; repairs the table if someone flushed it.
    pub fn status(&self) -> NetworkStatus {
        let mut node = self.node();
        if matches!(node.nftables, Nftables::Unknown) {
            node.nftables = self.probe();
        }
        if matches!(node.nftables, Nftables::Loaded)
            && let Err(error) = self.load(&mut node)
        {
            tracing::warn!(%error, "the nftables table can't be restored");
        }
        let mut sentences = node.advice.clone();
        let mut reason = if sentences.is_empty() { "" } else { "ForwardingOff" };
        match self.firewall.obstacles() {
            Ok(obstacles) if !obstacles.is_empty() => {
                reason = "ForwardDropped";
                sentences.extend(obstacles);
            }
            _ => {}
        }
        let host_ports = match &node.nftables {
            Nftables::Missing(words) => {
                reason = "HostPortsUnavailable";
                sentences.insert(0, format!("host ports and egress are not available: {words}"));
                false
            }
            _ => true,
        };
        NetworkStatus { ready: true, reason, message: sentences.join("; "), host_ports }
    }

    /// Makes sure that table, bridge and forwarding are there. The table comes before `route_localnet`, which is
    /// harmful without its guard.
    pub(super) fn prepare(&self, host_ports: bool) -> Result<()> {
        let mut node = self.node();
        self.load(&mut node)?;
        if let Nftables::Missing(words) = &node.nftables
            && host_ports
        {
            return Err(Error::Unsupported(format!("host ports are not available: {words}")));
        }
        let guarded = matches!(node.nftables, Nftables::Loaded);
        let index = bridge::ensure(&mut node.route, &self.config.bridge, &self.config.subnets)?;
        link::route_localnet(&mut node.route, index, guarded)?;
        node.advice = forwarding::ensure(&self.config.subnets);
        Ok(())
    }

    /// Loads the table if it is not there; a kernel that has no nftables is remembered.
    fn load(&self, node: &mut Node) -> Result<()> {
        match &node.nftables {
            Nftables::Missing(_) => return Ok(()),
            Nftables::Loaded if self.firewall.exists()? => return Ok(()),
            Nftables::Unknown | Nftables::Possible | Nftables::Loaded => {}
        }
        if let missing @ Nftables::Missing(_) = self.probe() {
            node.nftables = missing;
            return Ok(());
        }
        let leases = self.addresses.all();
        let forwards = leases.iter().map(|lease| hostport::forwards(&lease.ports, &lease.addresses));
        let mut elements: Vec<Forward> = Vec::new();
        for forward in forwards.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            if !elements.iter().any(|other| key(other) == key(&forward)) {
                elements.push(forward);
            }
        }
        self.firewall.build(&elements)?;
        node.nftables = Nftables::Loaded;
        Ok(())
    }

    fn probe(&self) -> Nftables {
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

fn key(forward: &Forward) -> (Protocol, Option<IpAddr>, u16) {
    (forward.protocol, forward.on, forward.port)
}
