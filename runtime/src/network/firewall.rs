//! The one nftables table's life: probed, loaded, looked for, its host ports opened and closed, and what other
//! tables do to forwarded packets.

use std::sync::{Mutex, PoisonError};

use super::cidr::Cidr;
use super::config::NetworkConfig;
use super::conntrack;
use super::hostport::Forward;
use super::message::Message;
use super::netlink::{Socket, errno};
use super::nft::{self, Table};
use crate::{Error, Result};

/// What the table is called and what it serves.
#[derive(Debug)]
pub(super) struct Firewall {
    pub(super) table: String,
    pub(super) bridge: String,
    pub(super) subnets: Vec<Cidr>,
    /// Kept open: its end would wait until the kernel has freed what was removed by it.
    socket: Mutex<Option<Socket>>,
}

impl Firewall {
    /// The table of this network; nothing is asked yet.
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            table: config.table.clone(),
            bridge: config.bridge.clone(),
            subnets: config.subnets.clone(),
            socket: Mutex::default(),
        }
    }

    /// Whether the kernel would take the table; nothing is changed.
    pub(super) fn probe(&self) -> Result<()> {
        let mut batch = vec![nft::begin()];
        batch.extend(self.contents());
        self.with(|socket| socket.execute(&self.action("probe"), &batch)).map(drop)
    }

    /// Whether the table is there.
    pub(super) fn exists(&self) -> Result<bool> {
        let look_up = Table(&self.table).look_up();
        match self.with(|socket| socket.execute(&self.action("look up"), std::slice::from_ref(&look_up))) {
            Ok(_) => Ok(true),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the table anew with these host ports, in one step: nobody sees it half made.
    pub(super) fn build(&self, forwards: &[Forward]) -> Result<()> {
        let table = Table(&self.table);
        let mut batch = vec![nft::begin(), table.make(), table.delete()];
        batch.extend(self.contents());
        batch.extend(self.changes(true, forwards));
        batch.push(nft::end());
        self.with(|socket| socket.execute_batch(&self.action("load"), &batch))
    }

    /// Opens host ports, all or none.
    pub(super) fn open(&self, forwards: &[Forward]) -> Result<()> {
        match self.commit("open host ports in", self.changes(true, forwards)) {
            Err(error) if matches!(errno(&error), Some(libc::EBUSY | libc::EEXIST)) => {
                let ports: Vec<String> =
                    forwards.iter().map(|forward| format!("{}/{}", forward.port, forward.protocol)).collect();
                let ports = ports.join(", ");
                Err(Error::InUse(format!(
                    "a host port of {ports} still leads to another pod; remove that pod first"
                )))
            }
            answer => {
                self.forget_flows(forwards);
                answer
            }
        }
    }

    /// Closes host ports; those that are not open are fine.
    pub(super) fn close(&self, forwards: &[Forward]) -> Result<()> {
        match self.commit("close host ports in", self.changes(false, forwards)) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => {}
            answer => {
                self.forget_flows(forwards);
                return answer;
            }
        }
        for forward in forwards {
            let one = self.commit("close a host port in", self.changes(false, std::slice::from_ref(forward)));
            if let Err(error) = one
                && errno(&error) != Some(libc::ENOENT)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the table; none is fine.
    pub(super) fn remove(&self) -> Result<()> {
        match self.commit("remove", vec![Table(&self.table).delete()]) {
            Err(error) if errno(&error) != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Other tables' chains that drop what is forwarded by default and have no rule for the bridge, each with the
    /// command that mends it.
    pub(super) fn obstacles(&self) -> Result<Vec<String>> {
        self.with(|socket| self.find_obstacles(socket))
    }

    fn find_obstacles(&self, socket: &mut Socket) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for answer in socket.dump("list nftables chains", &nft::list_chains())? {
            let Some(&[family, ..]) = answer.header(nft::HEADER) else {
                continue;
            };
            let attributes = answer.attributes(nft::HEADER);
            let forwarding = attributes.nested(4).and_then(|hook| hook.be32(1)) == Some(2);
            let Some((table, chain)) = attributes.string(1).zip(attributes.string(3)) else {
                continue;
            };
            if !forwarding || attributes.be32(5) != Some(0) || table == self.table || !self.serves(family) {
                continue;
            }
            let rules = socket.dump("list nftables rules", &nft::list_rules(family, &table, &chain))?;
            if !rules.iter().any(|rule| rule.mentions(self.bridge.as_bytes())) {
                found.push(self.mend(family, &table, &chain));
            }
        }
        Ok(found)
    }

    /// Whether a table of this family sees the pods' packets.
    pub(super) fn serves(&self, family: u8) -> bool {
        match family {
            nft::INET => true,
            nft::IPV4 => self.subnets.iter().any(|subnet| subnet.address.is_ipv4()),
            nft::IPV6 => self.subnets.iter().any(|subnet| !subnet.address.is_ipv4()),
            _ => false,
        }
    }

    fn mend(&self, family: u8, table: &str, chain: &str) -> String {
        let family = match family {
            nft::IPV4 => "ip",
            nft::IPV6 => "ip6",
            _ => "inet",
        };
        let (bridge, place) = (&self.bridge, format!("{family} {table} {chain}"));
        format!(
            "{place} drops forwarded packets, those of pods too; run: nft 'insert rule {place} iifname \"{bridge}\" \
             accept; insert rule {place} oifname \"{bridge}\" accept'"
        )
    }

    fn action(&self, verb: &str) -> String {
        format!("{verb} nftables table {}", self.table)
    }

    /// Without it old UDP flows go astray until they time out; host ports work for all others.
    fn forget_flows(&self, forwards: &[Forward]) {
        if let Err(error) = self.with(|socket| conntrack::forget(socket, forwards)) {
            tracing::warn!(%error, "old UDP flows to host ports can't be ended");
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Socket) -> Result<T>) -> Result<T> {
        let mut slot = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = match slot.take() {
            Some(socket) => socket,
            None => Socket::netfilter()?,
        };
        let answer = work(&mut socket)?;
        *slot = Some(socket);
        Ok(answer)
    }

    fn commit(&self, verb: &str, changes: Vec<Message>) -> Result<()> {
        let mut batch = vec![nft::begin()];
        batch.extend(changes);
        batch.push(nft::end());
        self.with(|socket| socket.execute_batch(&self.action(verb), &batch))
    }
}
