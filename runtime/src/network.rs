//! The network of pods: namespaces, the built-in bridge, addresses, host ports, and what the node lacks for them.
//!
//! ```text
//! attach: take host ports -> lease addresses (on disk) -> namespace -> bind mount -> veth pair -> map elements
//! detach: map elements -> bind mount -> (in the background) veth pair -> addresses given back
//! ```
//! A failed attach calls detach, and so does recovery: there is no other rollback code.
//!
//! - `namespaces`: the pods' network namespaces
//! - `bridge`: the bridge with the pods' links, their addresses, and the node's forwarding
//! - `hostport`: the ports of the node that lead to pods, and the nftables table that forwards them
//! - `node`: the state of all that on the node, inspected, repaired and reported

use std::fs::Permissions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::{Error, Result, namespace};

mod bridge;
mod cidr;
mod config;
mod hostport;
mod message;
mod namespaces;
mod netlink;
mod node;

use bridge::addresses::{Addresses, Lease};
use bridge::link;
use bridge::sweeper::Sweeper;
pub use cidr::Cidr;
use config::check_id;
pub use config::{NetworkConfig, Unprivileged};
use hostport::firewall::{Firewall, Found};
use hostport::{Forward, holder};
pub use hostport::{PortMapping, Protocol};
pub use namespaces::in_netns;
use namespaces::{Namespace, Pool};
pub use node::NetworkStatus;
use node::{Nftables, Node};

/// Where a pod's network namespace comes from.
#[derive(Debug, Clone, Copy)]
pub enum NetnsSource<'a> {
    /// A new one, owned by the node.
    Fresh,
    /// An existing namespace, such as that of a pod with a user namespace.
    Existing(BorrowedFd<'a>),
}

/// A pod that is connected.
#[derive(Debug)]
pub struct Attachment {
    /// Where the network namespace is kept.
    pub netns_path: PathBuf,
    /// The pod's addresses, one a subnet.
    pub addresses: Vec<Cidr>,
    /// The default gateway of each address.
    pub gateways: Vec<std::net::IpAddr>,
    /// Sockets that keep the host ports from others for as long as they are open; they never listen.
    pub port_sockets: Vec<OwnedFd>,
}

/// The network of one node.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    firewall: Firewall,
    addresses: Arc<Addresses>,
    sweeper: Arc<Sweeper>,
    pool: Arc<Pool>,
    node: Mutex<Node>,
}

impl Network {
    /// Reads what earlier runs left; the node itself is not touched before the first pod.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        config.check()?;
        let directory = config.state.join("netns");
        if let Some(aside) = slipway_disk::atomic::make_directory(&directory, 0o700)? {
            tracing::error!(aside = %aside.display(), "it stood where a directory belongs and was renamed");
        }
        std::fs::set_permissions(&directory, Permissions::from_mode(0o700)).map_err(|source| Error::Io {
            action: "create directory",
            path: directory,
            source,
        })?;
        let addresses = Arc::new(Addresses::open(config.root.join("addresses"), config.subnets.clone())?);
        let sweeper = Sweeper::new(Arc::clone(&addresses));
        let firewall = Firewall::new(&config);
        let node = Node::open()?;
        let pool = Pool::new(config.pool, config.unprivileged);
        Ok(Self { config, firewall, addresses, sweeper, pool, node: Mutex::new(node) })
    }

    /// Connects a pod. The remains of an interrupted attempt are removed first; a failure leaves nothing behind.
    pub fn attach(&self, id: &str, ports: &[PortMapping], netns: NetnsSource<'_>) -> Result<Attachment> {
        check_id(id)?;
        self.detach(id)?;
        self.sweeper.finish(id);
        let attached = self.try_attach(id, ports, netns);
        if attached.is_err()
            && let Err(error) = self.detach(id)
        {
            tracing::warn!(pod = id, %error, "an attempt to connect the pod left something behind");
        }
        attached
    }

    fn try_attach(&self, id: &str, ports: &[PortMapping], netns: NetnsSource<'_>) -> Result<Attachment> {
        let ports: Vec<PortMapping> = ports.iter().filter(|port| port.host_port != 0).cloned().collect();
        let wanted = hostport::forwards(&ports, &self.config.subnets)?;
        let bridge = self.prepare(!ports.is_empty())?;
        // The ports are this pod's before its record says so: no two records ever name the same port.
        let port_sockets = wanted.iter().map(|forward| self.reserve(forward)).collect::<Result<Vec<_>>>()?;
        let lease = self.addresses.lease(id, &ports)?;
        let forwards = hostport::forwards(&ports, &lease.addresses)?;
        let mut namespace = match netns {
            NetnsSource::Fresh => self.pool.take()?,
            NetnsSource::Existing(descriptor) => Namespace::enter(descriptor, self.config.unprivileged)?,
        };
        let netns_path = self.netns_path(id);
        namespace::keep(namespace.descriptor.as_fd(), &netns_path)?;
        bridge::connect(&mut self.node().route, (id, bridge), &mut namespace, &lease.addresses)?;
        if !forwards.is_empty() {
            self.firewall.open(&forwards)?;
        }
        self.pool.refill();
        let gateways = lease.addresses.iter().map(|address| address.gateway()).collect();
        Ok(Attachment { netns_path, addresses: lease.addresses, gateways, port_sockets })
    }

    fn reserve(&self, forward: &Forward) -> Result<OwnedFd> {
        hostport::reserve(forward, || {
            let has = |lease: &Lease| {
                let taken = hostport::forwards(&lease.ports, &lease.addresses).unwrap_or_default();
                taken.iter().any(|other| hostport::collide(forward, other))
            };
            let pod = self.addresses.all().into_iter().find(has).map(|lease| format!("pod {}", lease.pod));
            pod.or_else(|| holder::process(forward))
        })
    }

    /// Disconnects a pod; one that is not connected is fine. Its host ports and its namespace are gone when this
    /// returns. The kernel takes tens of milliseconds to remove a link, so that the veth pair is removed in the
    /// background; the addresses are given back last, and only when everything else is gone.
    pub fn detach(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let lease = self.addresses.find(id);
        let closed = match &lease {
            Some(lease) if !lease.ports.is_empty() => self.close(lease),
            _ => Ok(()),
        };
        closed.and(namespace::release(&self.netns_path(id)))?;
        if lease.is_some() {
            self.sweeper.sweep(id);
        }
        Ok(())
    }

    /// Removes the ports from the record first: if removing their map elements then fails, a later check finds that the
    /// table differs from the records.
    fn close(&self, lease: &Lease) -> Result<()> {
        let node = self.node();
        self.addresses.forget_ports(&lease.pod)?;
        if matches!(node.nftables, Nftables::Missing(_)) {
            return Ok(()); // no table, no elements
        }
        let forwards = hostport::forwards(&lease.ports, &lease.addresses)?;
        self.firewall.close(&forwards)
    }

    /// The link of a pod with these addresses.
    pub(crate) fn interface(&self, id: &str, addresses: &[std::net::IpAddr]) -> crate::Interface {
        let subnet = |address| self.config.subnets.iter().find(|subnet| subnet.contains(address));
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| (*address, subnet(*address).map(|found| found.gateway())))
            .collect();
        let hardware = bridge::hardware(id, addresses.first().map(|(address, _)| *address));
        let hardware: Vec<_> = hardware.iter().map(|byte| format!("{byte:02x}")).collect();
        crate::Interface { name: bridge::POD_END.into(), hardware: hardware.join(":"), addresses }
    }

    /// Where the pod's network namespace is kept.
    pub fn netns_path(&self, id: &str) -> PathBuf {
        self.config.state.join("netns").join(id)
    }

    /// Opens the pod's network namespace.
    pub fn netns(&self, id: &str) -> Result<OwnedFd> {
        check_id(id)?;
        namespace::open(&self.netns_path(id))
    }

    /// Removes the veth pairs, namespaces, host ports and addresses that belong to none of the live pods. Does all it
    /// can and returns the first error.
    pub fn recover(&self, live: &[&str]) -> Result<()> {
        let mut outcome = Ok(());
        for lease in self.addresses.all() {
            if !live.contains(&lease.pod.as_str()) {
                outcome = outcome.and(self.detach(&lease.pod));
            }
        }
        outcome = outcome.and(self.release_strays(live));
        self.sweeper.finish_all();
        let mut node = self.node();
        match bridge::strays(&mut node.route, &self.config.bridge, live) {
            Ok(strays) => {
                for name in strays {
                    outcome = outcome.and(link::remove(&mut node.route, &name));
                }
            }
            Err(error) => outcome = outcome.and(Err(error)),
        }
        drop(node);
        outcome?;
        self.addresses.sweep()?;
        // Repair a bridge that has other subnets than the configured ones now, not only when a pod comes.
        let needed = !self.addresses.all().is_empty() || self.has_bridge()?;
        if needed { self.prepare(false).map(drop) } else { self.close_strays() }
    }

    fn has_bridge(&self) -> Result<bool> {
        Ok(link::find(&mut self.node().route, &self.config.bridge)?.is_some())
    }

    /// Rebuilds the table without host ports when it has any: a daemon that died between removing a port from its
    /// record and from the table has left it there, also when its pod was the last.
    fn close_strays(&self) -> Result<()> {
        let mut node = self.node();
        if !self.has_nftables(&mut node) {
            return Ok(());
        }
        match self.firewall.examine(|| Ok(Vec::new()))? {
            Found::Changed => self.firewall.build(&[]),
            Found::Whole | Found::Absent | Found::Foreign(_) => Ok(()),
        }
    }

    /// Restores the lease of a live pod: its address records that are damaged or absent are written again, from another
    /// of them or else from these addresses and ports.
    pub fn restore(&self, id: &str, addresses: &[std::net::IpAddr], ports: &[PortMapping]) -> Result<()> {
        let ports: Vec<PortMapping> = ports.iter().filter(|port| port.host_port != 0).cloned().collect();
        self.addresses.restore(id, addresses, &ports)
    }

    /// Records of addresses that were damaged when they were read; with `verify` those that are damaged now too, which
    /// `repair` writes again.
    pub fn damaged(&self, verify: bool, repair: bool) -> Vec<crate::Damaged> {
        let mut found = self.addresses.damaged();
        if verify {
            found.extend(self.addresses.check(repair));
        }
        found
    }

    fn release_strays(&self, live: &[&str]) -> Result<()> {
        let directory = self.config.state.join("netns");
        let failed = |source| Error::Io { action: "read directory", path: directory.clone(), source };
        let mut outcome = Ok(());
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| live.contains(&name)) {
                outcome = outcome.and(namespace::release(&path));
            }
        }
        outcome
    }

    /// Removes bridge and table, once no pod is left: for an uninstallation or the end of a test.
    pub fn dismantle(&self) -> Result<()> {
        self.sweeper.finish_all();
        if let Some(lease) = self.addresses.all().first() {
            return Err(Error::InUse(format!("the network still has pod {}; remove it first", lease.pod)));
        }
        let mut node = self.node();
        let removed = if self.has_nftables(&mut node) { self.firewall.remove() } else { Ok(()) };
        (node.nftables, node.bridge) = (Nftables::Unknown, None);
        link::remove(&mut node.route, &self.config.bridge).and(removed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.sweeper.finish_all();
    }
}
