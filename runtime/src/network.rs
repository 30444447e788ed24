//! The network of pods: namespaces, the built-in bridge, addresses, host ports, and what the node lacks for them.
//!
//! ```text
//! attach: take host ports -> lease addresses (on disk) -> namespace -> bind mount -> cable -> map elements
//! detach: map elements -> cable -> bind mount -> addresses given back
//! ```
//! A failed attach calls detach, and so does recovery: there is no other way back.

use std::fs::Permissions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

mod addresses;
mod bridge;
mod cidr;
mod firewall;
mod forwarding;
mod hostport;
mod link;
mod netlink;
mod netns;
mod nft;

use addresses::{Addresses, Lease};
pub use cidr::Cidr;
use firewall::Firewall;
use hostport::Forward;
pub use hostport::{PortMapping, Protocol};
use netlink::Socket;
pub use netns::in_netns;
use netns::{Namespace, Pool};

/// How the built-in network is made.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The bridge's name.
    pub bridge: String,
    /// The pods' subnets, one an address family at most; the first address of each is the bridge's.
    pub subnets: Vec<Cidr>,
    /// The nftables table's name.
    pub table: String,
    /// What a reboot may forget: network namespaces are kept below it.
    pub state: PathBuf,
    /// What lasts: addresses are kept below it.
    pub root: PathBuf,
    /// How many network namespaces are made ahead.
    pub pool: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let subnet = Cidr {
            address: std::net::Ipv4Addr::new(10, 88, 0, 0).into(),
            prefix: 16,
        };
        Self {
            bridge: "slipway0".to_owned(),
            subnets: vec![subnet],
            table: "slipway".to_owned(),
            state: PathBuf::from("/run/slipway"),
            root: PathBuf::from("/var/lib/slipway"),
            pool: 4,
        }
    }
}

impl NetworkConfig {
    fn check(&self) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name_ok =
            |name: &str, most| (1..=most).contains(&name.len()) && name.bytes().all(plain);
        if !name_ok(&self.bridge, 15) || self.bridge.starts_with('.') {
            return Err(Error::Invalid(format!(
                "{:?} is no name for a bridge; use 1 to 15 of a-z 0-9 - _",
                self.bridge
            )));
        }
        if !name_ok(&self.table, 64) {
            return Err(Error::Invalid(format!(
                "{:?} is no name for an nftables table",
                self.table
            )));
        }
        for subnet in &self.subnets {
            let fits = if subnet.address.is_ipv4() {
                8..=29
            } else {
                48..=124
            };
            if !fits.contains(&subnet.prefix) {
                let (low, high) = (fits.start(), fits.end());
                return Err(Error::Invalid(format!(
                    "subnet {subnet} needs a prefix from /{low} to /{high}"
                )));
            }
            if self
                .subnets
                .iter()
                .filter(|other| other.address.is_ipv4() == subnet.address.is_ipv4())
                .count()
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

/// Where a pod's network namespace comes from.
#[derive(Debug, Clone, Copy)]
pub enum NetnsSource<'a> {
    /// A new one, owned by the node.
    Fresh,
    /// One that exists, such as that of a pod with a user namespace.
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

/// The network of one node.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    firewall: Firewall,
    addresses: Addresses,
    pool: Arc<Pool>,
    node: Mutex<Node>,
}

/// The node's side: a socket in the node's own network namespace, and what was found there.
#[derive(Debug)]
struct Node {
    route: Socket,
    nftables: Nftables,
    advice: Vec<String>,
}

/// What is known of the nftables table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Nftables {
    /// Nobody asked yet.
    Unknown,
    /// The kernel would take it; it is not loaded by this process.
    Possible,
    /// Loaded by this process.
    Loaded,
    /// The kernel refuses it, with these words.
    Missing(String),
}

impl Network {
    /// Reads what earlier runs left; the node itself is not touched before the first pod.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        config.check()?;
        let directory = config.state.join("netns");
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::set_permissions(&directory, Permissions::from_mode(0o700)))
            .map_err(|source| Error::Io {
                action: "create directory",
                path: directory,
                source,
            })?;
        let addresses = Addresses::open(config.root.join("addresses"), config.subnets.clone())?;
        let firewall = Firewall {
            table: config.table.clone(),
            bridge: config.bridge.clone(),
            subnets: config.subnets.clone(),
        };
        let node = Node {
            route: Socket::route()?,
            nftables: Nftables::Unknown,
            advice: Vec::new(),
        };
        let pool = Pool::new(config.pool);
        Ok(Self {
            config,
            firewall,
            addresses,
            pool,
            node: Mutex::new(node),
        })
    }

    /// Connects a pod. What an earlier, broken attempt left is removed first; a failure leaves nothing.
    pub fn attach(
        &self,
        id: &str,
        ports: &[PortMapping],
        netns: NetnsSource<'_>,
    ) -> Result<Attachment> {
        check_id(id)?;
        self.detach(id)?;
        let attached = self.try_attach(id, ports, netns);
        if attached.is_err()
            && let Err(error) = self.detach(id)
        {
            tracing::warn!(pod = id, %error, "an attempt to connect the pod left something behind");
        }
        attached
    }

    fn try_attach(
        &self,
        id: &str,
        ports: &[PortMapping],
        netns: NetnsSource<'_>,
    ) -> Result<Attachment> {
        let ports: Vec<PortMapping> = ports
            .iter()
            .filter(|port| port.host_port != 0)
            .cloned()
            .collect();
        let wanted = hostport::forwards(&ports, &self.config.subnets)?;
        self.prepare(!ports.is_empty())?;
        // The ports are this pod's before its record says so: no two records ever name the same port.
        let port_sockets = wanted
            .iter()
            .map(hostport::reserve)
            .collect::<Result<Vec<_>>>()?;
        let lease = self.addresses.lease(id, &ports)?;
        let forwards = hostport::forwards(&ports, &lease.addresses)?;
        let mut namespace = match netns {
            NetnsSource::Fresh => self.pool.take()?,
            NetnsSource::Existing(descriptor) => Namespace::enter(descriptor)?,
        };
        let netns_path = self.netns_path(id);
        netns::keep(namespace.descriptor.as_fd(), &netns_path)?;
        self.connect(id, &mut namespace, &lease)?;
        if !forwards.is_empty() {
            self.firewall.open(&forwards)?;
        }
        self.pool.refill();
        let gateways = lease
            .addresses
            .iter()
            .map(|address| address.gateway())
            .collect();
        Ok(Attachment {
            netns_path,
            addresses: lease.addresses,
            gateways,
            port_sockets,
        })
    }

    fn connect(&self, id: &str, namespace: &mut Namespace, lease: &Lease) -> Result<()> {
        let mut node = self.node();
        let bridge = bridge::ensure(&mut node.route, &self.config.bridge, &self.config.subnets)?;
        bridge::connect(&mut node.route, (id, bridge), namespace, &lease.addresses)
    }

    /// Disconnects a pod; one that is not connected is fine. The addresses are given back last, and only when
    /// everything else is gone.
    pub fn detach(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let lease = self.addresses.find(id);
        let closed = match &lease {
            Some(lease) if !lease.ports.is_empty() => self.close(lease),
            _ => Ok(()),
        };
        let path = self.netns_path(id);
        if lease.is_none() && !path.exists() {
            return closed;
        }
        let disconnected = bridge::disconnect(&mut self.node().route, id);
        let released = netns::release(&path);
        closed.and(disconnected).and(released)?;
        self.addresses.release(id)
    }

    fn close(&self, lease: &Lease) -> Result<()> {
        if matches!(self.node().nftables, Nftables::Missing(_)) {
            return Ok(()); // no table, no elements
        }
        let forwards = hostport::forwards(&lease.ports, &lease.addresses)?;
        self.firewall.close(&forwards)
    }

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
        let mut reason = if sentences.is_empty() {
            ""
        } else {
            "ForwardingOff"
        };
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
                sentences.insert(
                    0,
                    format!("host ports and egress are not available: {words}"),
                );
                false
            }
            _ => true,
        };
        NetworkStatus {
            ready: true,
            reason,
            message: sentences.join("; "),
            host_ports,
        }
    }

    /// Where the pod's network namespace is kept.
    pub fn netns_path(&self, id: &str) -> PathBuf {
        self.config.state.join("netns").join(id)
    }

    /// Opens the pod's network namespace.
    pub fn netns(&self, id: &str) -> Result<OwnedFd> {
        check_id(id)?;
        netns::open(&self.netns_path(id))
    }

    /// Removes what belongs to none of the live pods: cables, namespaces, host ports, addresses. Does all it can and
    /// returns the first error.
    pub fn recover(&self, live: &[&str]) -> Result<()> {
        let mut outcome = Ok(());
        for lease in self.addresses.all() {
            if !live.contains(&lease.pod.as_str()) {
                outcome = outcome.and(self.detach(&lease.pod));
            }
        }
        outcome = outcome.and(self.release_strays(live));
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
        if self.addresses.all().is_empty() {
            Ok(())
        } else {
            self.prepare(false)
        }
    }

    fn release_strays(&self, live: &[&str]) -> Result<()> {
        let directory = self.config.state.join("netns");
        let failed = |source| Error::Io {
            action: "read directory",
            path: directory.clone(),
            source,
        };
        let mut outcome = Ok(());
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| live.contains(&name))
            {
                outcome = outcome.and(netns::release(&path));
            }
        }
        outcome
    }

    /// Removes bridge and table, once no pod is left: for an uninstallation or the end of a test.
    pub fn dismantle(&self) -> Result<()> {
        if let Some(lease) = self.addresses.all().first() {
            return Err(Error::InUse(format!(
                "the network still has pod {}; remove it first",
                lease.pod
            )));
        }
        let mut node = self.node();
        let removed = match node.nftables {
            Nftables::Missing(_) => Ok(()),
            _ => self.firewall.remove(),
        };
        node.nftables = Nftables::Unknown;
        link::remove(&mut node.route, &self.config.bridge).and(removed)
    }

    /// Makes sure that table, bridge and forwarding are there. The table comes before `route_localnet`, which is
    /// harmful without its guard.
    fn prepare(&self, host_ports: bool) -> Result<()> {
        let mut node = self.node();
        self.load(&mut node)?;
        if let Nftables::Missing(words) = &node.nftables
            && host_ports
        {
            return Err(Error::Unsupported(format!(
                "host ports are not available: {words}"
            )));
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
        let forwards = leases
            .iter()
            .map(|lease| hostport::forwards(&lease.ports, &lease.addresses));
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

    fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(forward: &Forward) -> (Protocol, Option<std::net::IpAddr>, u16) {
    (forward.protocol, forward.on, forward.port)
}

/// An id becomes a file name: it may hold nothing that leads elsewhere.
fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=128).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(plain)
        && Path::new(id).is_relative()
    {
        Ok(())
    } else {
        Err(Error::Invalid(format!(
            "{id:?} is no pod id; use letters, digits, - _ ."
        )))
    }
}
