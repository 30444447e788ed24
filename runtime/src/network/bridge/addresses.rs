//! The leases of pod addresses: one record an address, written before the address is used and removed when nothing
//! uses it any more.
//!
//! ```text
//! <root>/addresses/10.88.0.5   {"pod":"…","addresses":["10.88.0.5/16"],"ports":[…]}
//! <root>/addresses/.last       the address given last in each subnet, so that none is given again soon
//! ```
//! Each of a pod's address records holds the whole lease, and so does the record of the pod itself: a damaged record is
//! written again from another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use slipway_disk::atomic::{self, Durability};
use slipway_disk::record::Kind;

use crate::network::cidr::{self, Cidr};
use crate::network::hostport::PortMapping;
use crate::{Damaged, Error, Result};

const LAST: &str = ".last";
const LEASE: Kind = kind("address");
const GIVEN_LAST: Kind = kind("addresses-given-last");

const fn kind(name: &'static str) -> Kind {
    Kind { name, most: 1 << 20, durability: Durability::DaemonDeath, once_plain: true }
}

/// The addresses and host ports that one pod holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::network) struct Lease {
    pub(in crate::network) pod: String,
    pub(in crate::network) addresses: Vec<Cidr>,
    pub(in crate::network) ports: Vec<PortMapping>,
}

/// All leases of a node.
#[derive(Debug)]
pub(in crate::network) struct Addresses {
    directory: PathBuf,
    subnets: Vec<Cidr>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    leases: BTreeMap<String, Lease>,
    taken: BTreeSet<IpAddr>,
    /// Damaged records; their addresses stay reserved until a pod's record tells their owner, or recovery removes them.
    torn: Vec<(IpAddr, PathBuf)>,
    /// Records that were damaged when they were read at the start, each with the reason.
    noted: Vec<(PathBuf, String)>,
    last: BTreeMap<IpAddr, IpAddr>,
}

impl Addresses {
    /// Reads the leases of earlier runs.
    pub(in crate::network) fn open(directory: PathBuf, subnets: Vec<Cidr>) -> Result<Self> {
        if let Some(aside) = atomic::make_directory(&directory, 0o755)? {
            tracing::error!(aside = %aside.display(), "it stood where the addresses belong and was renamed");
        }
        let table = Mutex::new(read(&directory, &subnets)?);
        Ok(Self { directory, subnets, table })
    }

    /// Restores the lease of a live pod: a record of it that is damaged or absent is written again.
    pub(in crate::network) fn restore(
        &self,
        pod: &str,
        addresses: &[IpAddr],
        ports: &[PortMapping],
    ) -> Result<()> {
        let mut table = self.lock();
        let known = table.leases.get(pod).cloned();
        let lease = known.unwrap_or_else(|| Lease {
            pod: pod.to_owned(),
            addresses: addresses.iter().map(|address| self.in_subnet(*address)).collect(),
            ports: ports.to_vec(),
        });
        // Another pod's readable record of the same address takes precedence.
        let others = |address: &Cidr| {
            let mut leases = table.leases.values();
            leases.any(|other| {
                other.pod != pod && other.addresses.iter().any(|one| one.address == address.address)
            })
        };
        if lease.addresses.iter().any(others) {
            return Ok(());
        }
        let whole = |address: &Cidr| {
            record(&self.directory.join(address.address.to_string()), address.address).is_ok()
        };
        if !lease.addresses.iter().all(whole) {
            tracing::warn!(pod, "the record of its addresses is written again");
            for address in &lease.addresses {
                let path = self.directory.join(address.address.to_string());
                if path.symlink_metadata().is_err() {
                    table
                        .noted
                        .push((path, "it was absent while its pod lived; it was written again".to_owned()));
                }
            }
            self.write(&lease)?;
        }
        table.torn.retain(|(address, _)| !lease.addresses.iter().any(|held| held.address == *address));
        table.taken.extend(lease.addresses.iter().map(|held| held.address));
        table.leases.insert(pod.to_owned(), lease);
        Ok(())
    }

    fn in_subnet(&self, address: IpAddr) -> Cidr {
        let subnet = self.subnets.iter().find(|subnet| subnet.contains(address));
        let alone = if address.is_ipv4() { 32 } else { 128 };
        Cidr { address, prefix: subnet.map_or(alone, |subnet| subnet.prefix) }
    }

    /// Records that were damaged when they were read.
    pub(in crate::network) fn damaged(&self) -> Vec<Damaged> {
        let table = self.lock();
        let view = |(path, reason): &(PathBuf, String)| {
            let mended = !table.torn.iter().any(|(_, torn)| torn == path);
            let problem = if mended {
                reason.clone()
            } else {
                format!("{reason}: remove it when no pod has the address")
            };
            Damaged { path: path.clone(), problem, mended }
        };
        table.noted.iter().map(view).collect()
    }

    /// Verifies the records on disk; with `repair` a damaged one is written again.
    pub(in crate::network) fn check(&self, repair: bool) -> Vec<Damaged> {
        let table = self.lock();
        let mut found = Vec::new();
        for lease in table.leases.values() {
            for held in &lease.addresses {
                let path = self.directory.join(held.address.to_string());
                let Err(reason) = record(&path, held.address) else { continue };
                let mended = repair && self.write(lease).is_ok();
                let problem =
                    if mended { reason } else { format!("{reason}: check --repair writes it again") };
                found.push(Damaged { path, problem, mended });
            }
        }
        found
    }

    /// Gives the pod an address in each subnet; the records are on disk when this returns.
    pub(in crate::network) fn lease(&self, pod: &str, ports: &[PortMapping]) -> Result<Lease> {
        let mut table = self.lock();
        if table.leases.contains_key(pod) {
            return Err(Error::InUse(format!("pod {pod} has its addresses already; detach it first")));
        }
        let mut addresses = Vec::new();
        for subnet in &self.subnets {
            let address = table.next(*subnet).ok_or_else(|| {
                Error::Exhausted(format!(
                    "subnet {subnet} has no free address; remove pods or set a wider one in network.subnets"
                ))
            })?;
            addresses.push(Cidr { address, prefix: subnet.prefix });
        }
        let lease = Lease { pod: pod.to_owned(), addresses, ports: ports.to_vec() };
        if let Err(error) = self.write(&lease).and_then(|()| self.write_last(&lease, &table)) {
            // Nothing uses the addresses yet.
            let _ = self.erase(&lease);
            return Err(error);
        }
        for address in &lease.addresses {
            table.taken.insert(address.address);
            table.last.insert(subnet_of(&self.subnets, address.address), address.address);
        }
        table.leases.insert(pod.to_owned(), lease.clone());
        Ok(lease)
    }

    /// Returns the pod's lease.
    pub(in crate::network) fn find(&self, pod: &str) -> Option<Lease> {
        self.lock().leases.get(pod).cloned()
    }

    /// Every lease.
    pub(in crate::network) fn all(&self) -> Vec<Lease> {
        self.lock().leases.values().cloned().collect()
    }

    /// Forgets the pod's host ports, so that they can be another's while its addresses are not given back yet.
    pub(in crate::network) fn forget_ports(&self, pod: &str) -> Result<()> {
        let mut table = self.lock();
        let Some(lease) = table.leases.get(pod) else {
            return Ok(());
        };
        let lease = Lease { ports: Vec::new(), ..lease.clone() };
        self.write(&lease)?;
        table.leases.insert(pod.to_owned(), lease);
        Ok(())
    }

    /// Releases the pod's lease, once nothing uses its addresses.
    pub(in crate::network) fn release(&self, pod: &str) -> Result<()> {
        let mut table = self.lock();
        let Some(lease) = table.leases.get(pod).cloned() else {
            return Ok(());
        };
        self.erase(&lease)?;
        table.leases.remove(pod);
        for address in &lease.addresses {
            table.taken.remove(&address.address);
        }
        Ok(())
    }

    /// Removes the damaged records, once everything that belongs to no live pod is gone.
    pub(in crate::network) fn sweep(&self) -> Result<()> {
        let mut table = self.lock();
        while let Some((address, path)) = table.torn.pop() {
            remove(&path)?;
            table.taken.remove(&address);
        }
        Ok(())
    }

    fn write(&self, lease: &Lease) -> Result<()> {
        for address in &lease.addresses {
            let name = address.address.to_string();
            LEASE.write(&self.directory.join(&name), &name, lease)?;
        }
        Ok(())
    }

    fn write_last(&self, lease: &Lease, table: &Table) -> Result<()> {
        let mut last = table.last.clone();
        for address in &lease.addresses {
            last.insert(subnet_of(&self.subnets, address.address), address.address);
        }
        let last: Vec<IpAddr> = last.into_values().collect();
        Ok(GIVEN_LAST.write(&self.directory.join(LAST), LAST, &last)?)
    }

    fn erase(&self, lease: &Lease) -> Result<()> {
        lease
            .addresses
            .iter()
            .try_for_each(|address| remove(&self.directory.join(address.address.to_string())))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The next free address after the one given last.
    fn next(&self, subnet: Cidr) -> Option<IpAddr> {
        let (first, last) = subnet.pods();
        let before = self.last.get(&subnet.network()).map(|address| cidr::value(*address));
        let start = before.map_or(first, |value| value.saturating_add(1)).max(first);
        let attempts = u128::try_from(self.taken.len()).unwrap_or(u128::MAX).saturating_add(1);
        let upward = (start..=last).take(usize::try_from(attempts).unwrap_or(usize::MAX));
        let again = (first..=last).take(usize::try_from(attempts).unwrap_or(usize::MAX));
        upward
            .chain(again)
            .map(|value| cidr::with_value(subnet.address, value))
            .find(|address| !self.taken.contains(address))
    }
}

fn subnet_of(subnets: &[Cidr], address: IpAddr) -> IpAddr {
    subnets.iter().find(|subnet| subnet.contains(address)).map_or(address, |subnet| subnet.network())
}

fn read(directory: &Path, subnets: &[Cidr]) -> Result<Table> {
    let failed = |source| Error::Io { action: "read directory", path: directory.to_owned(), source };
    let mut table = Table::default();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        if name == LAST {
            let last = given_last(&path).unwrap_or_else(|reason| {
                tracing::warn!(path = %path.display(), reason, "damaged; addresses begin at the first again");
                table.noted.push((path.clone(), reason));
                Vec::new()
            });
            table.last = last.into_iter().map(|address| (subnet_of(subnets, address), address)).collect();
            continue;
        }
        if name.starts_with('.') {
            // A write that a crash cut short.
            if let Err(error) = remove(&path) {
                tracing::error!(%error, "it can't be removed and stays: remove it by hand");
            }
            continue;
        }
        let Ok(address) = name.parse::<IpAddr>() else {
            tracing::warn!(path = %path.display(), "not an address record; left alone");
            continue;
        };
        table.taken.insert(address);
        match record(&path, address) {
            Ok(lease) => drop(table.leases.insert(lease.pod.clone(), lease)),
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "damaged address record; its pod, or recovery, replaces it");
                table.noted.push((path.clone(), reason));
                table.torn.push((address, path));
            }
        }
    }
    Ok(table)
}

fn given_last(path: &Path) -> std::result::Result<Vec<IpAddr>, String> {
    let found = GIVEN_LAST.read(path, LAST).map_err(|damage| damage.reason)?;
    Ok(found.map_or_else(Vec::new, |loaded| loaded.value))
}

fn record(path: &Path, address: IpAddr) -> std::result::Result<Lease, String> {
    let found = LEASE.read::<Lease>(path, &address.to_string()).map_err(|damage| damage.reason)?;
    let lease = found.ok_or("it is absent")?.value;
    if lease.addresses.iter().any(|held| held.address == address) {
        Ok(lease)
    } else {
        Err("it is the record of other addresses, under this name".to_owned())
    }
}

fn remove(path: &Path) -> Result<()> {
    Ok(slipway_disk::remove_tree(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path) -> Addresses {
        Addresses::open(
            directory.to_owned(),
            vec!["10.88.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()],
        )
        .unwrap()
    }

    fn first(lease: &Lease) -> String {
        lease.addresses.first().unwrap().to_string()
    }

    #[test]
    fn addresses_go_round_and_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let addresses = open(directory.path());
        let one = addresses.lease("one", &[]).unwrap();
        assert_eq!(first(&one), "10.88.0.2/29");
        assert_eq!(one.addresses.get(1).unwrap().to_string(), "fd00::2/64");
        addresses.lease("two", &[]).unwrap();
        addresses.release("one").unwrap();
        drop(addresses);

        let addresses = open(directory.path());
        assert!(addresses.find("one").is_none());
        assert_eq!(first(&addresses.find("two").unwrap()), "10.88.0.3/29");
        assert_eq!(first(&addresses.lease("three", &[]).unwrap()), "10.88.0.4/29");
        for pod in ["four", "five"] {
            addresses.lease(pod, &[]).unwrap();
        }
        assert_eq!(first(&addresses.lease("six", &[]).unwrap()), "10.88.0.2/29");
        let full = addresses.lease("seven", &[]).unwrap_err();
        assert!(full.to_string().contains("no free address"), "{full}");
        addresses.release("five").unwrap();
        addresses.release("five").unwrap();
        assert_eq!(first(&addresses.lease("seven", &[]).unwrap()), "10.88.0.6/29");
    }

    /// A pod that was stopped, and whose veth pair was still being removed, closed its host port a second time when it
    /// was removed: by then the port led to the pod that had replaced it.
    #[test]
    fn forgotten_ports_stay_forgotten_and_the_address_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let addresses = open(directory.path());
        let protocol = crate::network::hostport::Protocol::Tcp;
        let port = PortMapping { protocol, host_ip: None, host_port: 8080, container_port: 80 };
        addresses.lease("one", &[port]).unwrap();
        addresses.forget_ports("one").unwrap();
        addresses.forget_ports("none").unwrap();
        for addresses in [addresses, open(directory.path())] {
            let lease = addresses.find("one").unwrap();
            assert_eq!((first(&lease).as_str(), lease.ports.len()), ("10.88.0.2/29", 0));
        }
    }

    #[test]
    fn a_torn_record_keeps_its_address_until_recovery() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("10.88.0.2"), b"{\"po").unwrap();
        std::fs::write(directory.path().join(".10.88.0.3.new"), b"").unwrap();
        let addresses = open(directory.path());
        assert_eq!(first(&addresses.lease("one", &[]).unwrap()), "10.88.0.3/29");
        addresses.sweep().unwrap();
        assert!(!directory.path().join("10.88.0.2").exists());
        assert_eq!(addresses.all().len(), 1);
    }

    /// The address of a pod that lived was given to the next one when its record was damaged.
    #[test]
    fn a_damaged_record_of_a_living_pod_is_written_again_from_the_other_family_s_or_from_the_pod() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let lease = open(directory.path()).lease("one", &[]).unwrap();
        let held: Vec<IpAddr> = lease.addresses.iter().map(|held| held.address).collect();
        for damaged in [&["10.88.0.2"][..], &["fd00::2"], &["10.88.0.2", "fd00::2"]] {
            for name in damaged {
                std::fs::write(path(name), b"{\"po").unwrap();
            }
            let addresses = open(directory.path());
            assert_eq!(addresses.damaged().iter().filter(|one| !one.mended).count(), damaged.len());
            addresses.restore("one", &held, &[]).unwrap();
            addresses.sweep().unwrap();
            assert_eq!(addresses.find("one").unwrap(), lease);
            assert!(addresses.damaged().iter().all(|one| one.mended));
            assert_eq!(open(directory.path()).damaged(), []);
        }
    }

    #[test]
    fn what_can_be_no_record_is_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        for name in [LAST, "10.88.0.2", ".10.88.0.3.new"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let addresses = open(directory.path());
        assert_eq!(first(&addresses.lease("one", &[]).unwrap()), "10.88.0.3/29");
        addresses.sweep().unwrap();
        assert!(!directory.path().join("10.88.0.2").exists());
    }
}
