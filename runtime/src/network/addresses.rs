//! Who has which address: one file an address, written before the address is used and removed when nothing uses it
//! any more.
//!
//! ```text
//! <root>/addresses/10.88.0.5   {"pod":"…","addresses":["10.88.0.5/16"],"ports":[…]}
//! <root>/addresses/.last       the address given last in each subnet, so that none is given again soon
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::cidr::{self, Cidr};
use super::hostport::PortMapping;
use crate::{Error, Result};

const LAST: &str = ".last";
const RECORD_LIMIT: u64 = 1 << 20;

/// What one pod holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) pod: String,
    pub(super) addresses: Vec<Cidr>,
    pub(super) ports: Vec<PortMapping>,
}

/// All leases of a node.
#[derive(Debug)]
pub(super) struct Addresses {
    directory: PathBuf,
    subnets: Vec<Cidr>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    leases: BTreeMap<String, Lease>,
    taken: BTreeSet<IpAddr>,
    torn: Vec<(IpAddr, PathBuf)>,
    last: BTreeMap<IpAddr, IpAddr>,
}

impl Addresses {
    /// Reads the leases of earlier runs.
    pub(super) fn open(directory: PathBuf, subnets: Vec<Cidr>) -> Result<Self> {
        std::fs::create_dir_all(&directory).map_err(|source| Error::Io {
            action: "create directory",
            path: directory.clone(),
            source: slipway_disk::explained(&directory, source),
        })?;
        let table = Mutex::new(read(&directory, &subnets)?);
        Ok(Self { directory, subnets, table })
    }

    /// Gives the pod an address in each subnet; the records are on disk when this returns.
    pub(super) fn lease(&self, pod: &str, ports: &[PortMapping]) -> Result<Lease> {
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

    /// What the pod holds.
    pub(super) fn find(&self, pod: &str) -> Option<Lease> {
        self.lock().leases.get(pod).cloned()
    }

    /// Every lease.
    pub(super) fn all(&self) -> Vec<Lease> {
        self.lock().leases.values().cloned().collect()
    }

    /// Forgets the pod's host ports, so that they can be another's while its addresses are not given back yet.
    pub(super) fn forget_ports(&self, pod: &str) -> Result<()> {
        let mut table = self.lock();
        let Some(lease) = table.leases.get(pod) else {
            return Ok(());
        };
        let lease = Lease { ports: Vec::new(), ..lease.clone() };
        self.write(&lease)?;
        table.leases.insert(pod.to_owned(), lease);
        Ok(())
    }

    /// Takes back what the pod holds, once nothing uses it.
    pub(super) fn release(&self, pod: &str) -> Result<()> {
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

    /// Removes records that no reader understands, once everything without an owner is gone.
    pub(super) fn sweep(&self) -> Result<()> {
        let mut table = self.lock();
        while let Some((address, path)) = table.torn.pop() {
            remove(&path)?;
            table.taken.remove(&address);
        }
        Ok(())
    }

    fn write(&self, lease: &Lease) -> Result<()> {
        let record = serde_json::to_vec(lease).map_err(|error| invalid(lease, &error))?;
        for address in &lease.addresses {
            replace(&self.directory.join(address.address.to_string()), &record)?;
        }
        Ok(())
    }

    fn write_last(&self, lease: &Lease, table: &Table) -> Result<()> {
        let mut last = table.last.clone();
        for address in &lease.addresses {
            last.insert(subnet_of(&self.subnets, address.address), address.address);
        }
        let last: Vec<IpAddr> = last.into_values().collect();
        let record = serde_json::to_vec(&last).map_err(|error| invalid(lease, &error))?;
        replace(&self.directory.join(LAST), &record)
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

fn invalid(lease: &Lease, error: &serde_json::Error) -> Error {
    Error::Invalid(format!("address record of {}: {error}", lease.pod))
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
            let last: Vec<IpAddr> = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default();
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
            Some(lease) => drop(table.leases.insert(lease.pod.clone(), lease)),
            None => {
                tracing::warn!(path = %path.display(), "torn address record; removed by the next recovery");
                table.torn.push((address, path));
            }
        }
    }
    Ok(table)
}

fn record(path: &Path, address: IpAddr) -> Option<Lease> {
    let length = std::fs::metadata(path).ok()?.len();
    let bytes = (length <= RECORD_LIMIT).then(|| std::fs::read(path).ok()).flatten()?;
    let lease: Lease = serde_json::from_slice(&bytes).ok()?;
    lease.addresses.iter().any(|held| held.address == address).then_some(lease)
}

/// Writes under another name and renames: a reader sees the old record or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // An earlier one that can't be removed is not in the way.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}.new", since.as_nanos()));
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|source| slipway_disk::explained(path, source))
        .map_err(|source| Error::Io { action: "write address record", path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove address record", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
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

    /// A pod that was stopped, and whose cable was still being removed, closed its host port a second time when it was
    /// removed: by then the port led to the pod that had replaced it.
    #[test]
    fn forgotten_ports_stay_forgotten_and_the_address_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let addresses = open(directory.path());
        let protocol = super::super::hostport::Protocol::Tcp;
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
}
