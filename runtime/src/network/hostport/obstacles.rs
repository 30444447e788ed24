//! Detection of other tables' chains that drop forwarded packets, and the packets of pods with them.
//!
//! A chain is an obstacle when it drops by default, by its policy or by its last rule, and none of its rules names the
//! bridge. Both kinds of tables are read: those of nftables (iptables-nft's too) and those of iptables-legacy, which
//! nftables does not list.

use crate::Result;
use crate::network::hostport::firewall::Firewall;
use crate::network::hostport::nft;
use crate::network::message::{Answer, Parsed};
use crate::network::netlink::Socket;
use crate::sys::xtables::{self, Family};

/// `NF_INET_FORWARD`.
const FORWARD: usize = 2;
const FORWARD_HOOK: u32 = 2;
const DROP: u32 = 0;
/// How `iptables-legacy -P FORWARD DROP` is stored: -(NF_DROP) - 1.
const DROP_VERDICT: i32 = -1;
/// A table's name comes first in `struct ipt_getinfo`, then numbers.
const NAME: usize = 32;
/// The verdict follows the header of the target.
const TARGET_HEADER: usize = 32;

impl Firewall {
    /// Other tables' chains that drop what is forwarded by default and have no rule for the bridge, each with the
    /// command that mends it.
    pub(in crate::network) fn obstacles(&self) -> Result<Vec<String>> {
        let mut found = self.with(|socket| self.nftables_obstacles(socket))?;
        found.extend(self.legacy_obstacles());
        Ok(found)
    }

    fn nftables_obstacles(&self, socket: &mut Socket) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for answer in socket.dump("list nftables chains", &nft::list_chains())? {
            let Some(&[family, ..]) = answer.header(nft::HEADER) else {
                continue;
            };
            let attributes = answer.attributes(nft::HEADER);
            let forwards = attributes.nested(4).and_then(|hook| hook.be32(1)) == Some(FORWARD_HOOK);
            let Some((table, chain)) = attributes.string(1).zip(attributes.string(3)) else {
                continue;
            };
            if !forwards || table == self.table || !self.serves(family) {
                continue;
            }
            let rules = socket.dump("list nftables rules", &nft::list_rules(family, &table, &chain))?;
            let drops = attributes.be32(5) == Some(DROP) || rules.last().is_some_and(drops_all);
            if drops && !rules.iter().any(|rule| rule.mentions(&self.needle())) {
                found.push(self.nftables_advice(family, &table, &chain));
            }
        }
        Ok(found)
    }

    /// The bridge's name with its end mark, so that it is not taken for the beginning of a longer one.
    fn needle(&self) -> Vec<u8> {
        let mut needle = self.bridge.as_bytes().to_vec();
        needle.push(0);
        needle
    }

    fn nftables_advice(&self, family: u8, table: &str, chain: &str) -> String {
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

    fn legacy_obstacles(&self) -> Vec<String> {
        let families =
            [(Family::V4, nft::IPV4, "iptables-legacy"), (Family::V6, nft::IPV6, "ip6tables-legacy")];
        let served = families.into_iter().filter(|(_, number, _)| self.serves(*number));
        let dropping = served.filter(|(family, ..)| {
            Legacy::read(*family).is_some_and(|table| table.drops() && !table.mentions(&self.needle()))
        });
        let bridge = &self.bridge;
        dropping
            .map(|(.., program)| {
                format!(
                    "the FORWARD chain of {program} drops forwarded packets, those of pods too; run: {program} -I \
                     FORWARD -i {bridge} -j ACCEPT; {program} -I FORWARD -o {bridge} -j ACCEPT"
                )
            })
            .collect()
    }
}

/// Whether a rule drops or rejects every packet that comes to it.
fn drops_all(rule: &Answer) -> bool {
    let Some(list) = rule.attributes(nft::HEADER).nested(4) else { return false };
    let parts = list.all().filter_map(|(_, part)| {
        let part = Parsed::new(part);
        Some((part.string(1)?, part.nested(2)))
    });
    let mut verdict = false;
    for (name, data) in parts {
        match (name.as_str(), data) {
            ("counter" | "log" | "limit", _) => {}
            ("reject", _) => verdict = true,
            ("immediate", Some(data)) => {
                let code = data.nested(2).and_then(|data| data.nested(2)).and_then(|verdict| verdict.be32(1));
                verdict = code == Some(DROP);
            }
            _ => return false,
        }
    }
    verdict
}

/// The filter table of iptables-legacy, as far as it says what becomes of forwarded packets.
#[derive(Debug)]
struct Legacy {
    family: Family,
    entries: Vec<u8>,
    first: usize,
    policy: usize,
}

impl Legacy {
    /// None when nobody has made the table: asking for it by name would make it.
    fn read(family: Family) -> Option<Self> {
        let names = match family {
            Family::V4 => "/proc/net/ip_tables_names",
            Family::V6 => "/proc/net/ip6_tables_names",
        };
        let names = std::fs::read_to_string(names).ok()?;
        if !names.lines().any(|name| name == "filter") {
            return None;
        }
        let info = xtables::info(family, "filter").ok()?;
        let number = |index: usize| {
            let at = NAME.checked_add(index.checked_mul(4)?)?;
            let bytes: [u8; 4] = info.get(at..at.checked_add(4)?)?.try_into().ok()?;
            usize::try_from(u32::from_ne_bytes(bytes)).ok()
        };
        // valid_hooks, hook_entry[5], underflow[5], num_entries, size
        let (first, policy, size) =
            (number(FORWARD.checked_add(1)?)?, number(FORWARD.checked_add(6)?)?, number(12)?);
        let entries = xtables::entries(family, "filter", size).ok()?;
        Some(Self { family, entries, first, policy })
    }

    fn drops(&self) -> bool {
        let verdict = || {
            let target: [u8; 2] = self.at(self.policy, self.target_offset(), 2)?.try_into().ok()?;
            let target = usize::from(u16::from_ne_bytes(target)).checked_add(TARGET_HEADER)?;
            let verdict: [u8; 4] = self.at(self.policy, target, 4)?.try_into().ok()?;
            Some(i32::from_ne_bytes(verdict))
        };
        verdict() == Some(DROP_VERDICT)
    }

    /// Where an entry says how far its target is: `ipt_entry.target_offset`, `ip6t_entry.target_offset`.
    fn target_offset(&self) -> usize {
        match self.family {
            Family::V4 => 88,
            Family::V6 => 140,
        }
    }

    fn at(&self, entry: usize, offset: usize, length: usize) -> Option<&[u8]> {
        let start = entry.checked_add(offset)?;
        self.entries.get(start..start.checked_add(length)?)
    }

    fn mentions(&self, needle: &[u8]) -> bool {
        let chain = self.entries.get(self.first..self.policy).unwrap_or_default();
        chain.windows(needle.len()).any(|window| window == needle)
    }
}
