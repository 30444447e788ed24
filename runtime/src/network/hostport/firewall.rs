//! The one nftables table's life: probed, loaded, examined, its host ports opened and closed.
//!
//! Whether someone changed the table is told by the generation of nftables, a number that each change by anyone raises
//! by one: as long as it is the one of our own last change, nothing else need be looked at.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::network::cidr::Cidr;
use crate::network::config::NetworkConfig;
use crate::network::hostport::Forward;
use crate::network::hostport::conntrack;
use crate::network::hostport::listing;
use crate::network::hostport::nft::{self, Table};
use crate::network::hostport::rules::{Element, element};
use crate::network::message::Answer;
use crate::network::netlink::{Socket, errno};
use crate::{Error, Result};

/// The table, by its name, and the links and subnets that it serves.
#[derive(Debug)]
pub(in crate::network) struct Firewall {
    pub(in crate::network) table: String,
    pub(in crate::network) bridge: String,
    pub(in crate::network) subnets: Vec<Cidr>,
    /// The table's comment: whose it is.
    mark: String,
    wire: Mutex<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    /// Kept open: its end would wait until the kernel has freed what was removed by it.
    socket: Option<Socket>,
    known: Known,
}

/// The knowledge of the table that this process has.
#[derive(Debug, Default)]
struct Known {
    /// The generation of nftables in which the table was whole.
    whole: Option<u32>,
    /// The host ports that it should have; none when this process has not made it yet.
    elements: Option<BTreeSet<Element>>,
    /// The rules as this kernel lists them, where that is otherwise than they were sent.
    listed: Option<Vec<Answer>>,
}

/// How the table was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum Found {
    /// With all its rules and host ports.
    Whole,
    /// Not at all.
    Absent,
    /// With other rules or host ports than it should have.
    Changed,
    /// Made by someone else; this is its comment.
    Foreign(String),
}

impl Firewall {
    /// The table of this network; nothing is asked yet.
    pub(in crate::network) fn new(config: &NetworkConfig) -> Self {
        let mark = format!("slipway {}", config.root.display());
        Self {
            table: config.table.clone(),
            bridge: config.bridge.clone(),
            subnets: config.subnets.clone(),
            mark: mark.chars().filter(char::is_ascii).take(120).collect(),
            wire: Mutex::default(),
        }
    }

    /// The table's comment.
    pub(in crate::network) fn mark(&self) -> &str {
        &self.mark
    }

    /// Whether the kernel would take the table; nothing is changed.
    pub(in crate::network) fn probe(&self) -> Result<()> {
        let mut batch = vec![nft::begin()];
        batch.extend(self.contents());
        self.with(|socket| socket.execute(&self.action("probe"), &batch)).map(drop)
    }

    /// Looks at the table, which should have these host ports if this process has not changed any yet.
    pub(in crate::network) fn examine(
        &self,
        forwards: impl FnOnce() -> Result<Vec<Forward>>,
    ) -> Result<Found> {
        self.on_wire(|socket, known| {
            let generation = generation(socket)?;
            if generation.is_some() && generation == known.whole {
                return Ok(Found::Whole);
            }
            let look_up = Table(&self.table).look_up();
            let comment = match socket.execute(&self.action("look up"), std::slice::from_ref(&look_up)) {
                Ok(answers) => answers.first().and_then(nft::comment).unwrap_or_default(),
                Err(error) if errno(&error) == Some(libc::ENOENT) => return Ok(Found::Absent),
                Err(error) => return Err(error),
            };
            if comment != self.mark {
                return Ok(Found::Foreign(comment));
            }
            let (rules, elements) = self.read(socket)?;
            let expected = match &known.elements {
                Some(expected) => elements == *expected,
                None => elements == forwards()?.iter().map(element).collect(),
            };
            let sent = self.rules();
            let alike = listing::are_alike(&sent, &rules) || known.listed.as_ref() == Some(&rules);
            if !alike || !expected {
                return Ok(Found::Changed);
            }
            known.whole = generation;
            known.elements = Some(elements);
            Ok(Found::Whole)
        })
    }

    fn list_rules(&self, socket: &mut Socket) -> Result<Vec<Answer>> {
        socket.dump(&self.action("list rules of"), &Table(&self.table).list_rules())
    }

    /// The table's rules and its host ports.
    fn read(&self, socket: &mut Socket) -> Result<(Vec<Answer>, BTreeSet<Element>)> {
        let table = Table(&self.table);
        let rules = self.list_rules(socket)?;
        let mut elements = BTreeSet::new();
        for map in self.maps() {
            match socket.dump(&self.action("list a map of"), &table.list_elements(map.name)) {
                Ok(answers) => elements.extend(answers.iter().flat_map(nft::elements)),
                Err(error) if errno(&error) == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((rules, elements))
    }

    /// Makes the table anew with these host ports, in one step: nobody sees it half made.
    pub(in crate::network) fn build(&self, forwards: &[Forward]) -> Result<()> {
        let table = Table(&self.table);
        let mut batch = vec![nft::begin(), table.make(), table.delete()];
        batch.extend(self.contents());
        batch.extend(self.changes(true, forwards));
        batch.push(nft::end());
        self.on_wire(|socket, known| {
            // Others may change something in between: the next look at the table is a thorough one.
            *known = Known::default();
            socket.execute_batch(&self.action("load"), &batch)?;
            known.elements = Some(forwards.iter().map(element).collect());
            // Handles and defaults are in it, too: as long as nobody has touched a rule it is listed like that.
            let listed = self.list_rules(socket)?;
            known.listed = (!listing::are_alike(&self.rules(), &listed)).then_some(listed);
            Ok(())
        })
    }

    /// Opens host ports, all or none.
    pub(in crate::network) fn open(&self, forwards: &[Forward]) -> Result<()> {
        match self.change("open host ports in", true, forwards) {
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
    pub(in crate::network) fn close(&self, forwards: &[Forward]) -> Result<()> {
        match self.change("close host ports in", false, forwards) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => {}
            answer => {
                self.forget_flows(forwards);
                return answer;
            }
        }
        for forward in forwards {
            let one = self.change("close a host port in", false, std::slice::from_ref(forward));
            if let Err(error) = one
                && errno(&error) != Some(libc::ENOENT)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the table; none is fine, and someone else's is left alone.
    pub(in crate::network) fn remove(&self) -> Result<()> {
        if let Found::Foreign(_) = self.examine(|| Ok(Vec::new()))? {
            return Ok(());
        }
        let batch = [nft::begin(), Table(&self.table).delete(), nft::end()];
        let removed = self.on_wire(|socket, known| {
            *known = Known::default();
            socket.execute_batch(&self.action("remove"), &batch)
        });
        match removed {
            Err(error) if errno(&error) != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a table of this family sees the pods' packets.
    pub(in crate::network) fn serves(&self, family: u8) -> bool {
        match family {
            nft::INET => true,
            nft::IPV4 => self.subnets.iter().any(|subnet| subnet.address.is_ipv4()),
            nft::IPV6 => self.subnets.iter().any(|subnet| !subnet.address.is_ipv4()),
            _ => false,
        }
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

    pub(in crate::network) fn with<T>(&self, work: impl FnOnce(&mut Socket) -> Result<T>) -> Result<T> {
        self.on_wire(|socket, _| work(socket))
    }

    fn on_wire<T>(&self, work: impl FnOnce(&mut Socket, &mut Known) -> Result<T>) -> Result<T> {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = match wire.socket.take() {
            Some(socket) => socket,
            None => Socket::netfilter()?,
        };
        let answer = work(&mut socket, &mut wire.known)?;
        wire.socket = Some(socket);
        Ok(answer)
    }

    /// Adds or removes host ports, all or none.
    fn change(&self, verb: &str, add: bool, forwards: &[Forward]) -> Result<()> {
        let mut batch = vec![nft::begin()];
        batch.extend(self.changes(add, forwards));
        batch.push(nft::end());
        self.on_wire(|socket, known| {
            let before = known.whole.take();
            socket.execute_batch(&self.action(verb), &batch)?;
            // The kernel leaves out 0 when the number wraps.
            known.whole = before.map(|generation| generation.checked_add(1).unwrap_or(1));
            if let Some(elements) = &mut known.elements {
                for element in forwards.iter().map(element) {
                    if add {
                        elements.insert(element)
                    } else {
                        elements.remove(&element)
                    };
                }
            }
            Ok(())
        })
    }
}

fn generation(socket: &mut Socket) -> Result<Option<u32>> {
    let answers = socket.execute("ask for the generation of nftables", &[nft::generation()])?;
    Ok(answers.first().and_then(|answer| answer.attributes(nft::HEADER).be32(1)))
}
