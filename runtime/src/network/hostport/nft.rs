//! nf_tables expressions, rules, chains and maps as netlink messages.
//!
//! A batch is all or nothing; one without its end mark is checked in full and then dropped, which probes a kernel
//! without changing it.

use std::borrow::Cow;

use crate::network::message::{APPEND, Answer, Attributes, CREATE, Message, Parsed};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
/// `NFTA_TABLE_USERDATA`, and within it the comment that nft shows: a kind, a length, a string.
const USER_DATA: u16 = 6;
const COMMENT: u8 = 0;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The size of `struct nfgenmsg`.
pub(in crate::network) const HEADER: usize = 4;
/// `NFPROTO_INET`: rules for both address families.
pub(in crate::network) const INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub(in crate::network) const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub(in crate::network) const IPV6: u8 = 10;
/// The first of the 4-byte registers; a 16-byte value takes four.
pub(in crate::network) const REGISTER: u32 = 8;
/// The first of the 16-byte registers, which are the same memory.
const WIDE: u32 = 1;

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Hook {
    pub(in crate::network) chain: &'static str,
    pub(in crate::network) kind: &'static str,
    pub(in crate::network) number: u32,
    pub(in crate::network) priority: i32,
}

/// A map from a key to a value, both a chain of fields.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Map {
    pub(in crate::network) name: &'static str,
    pub(in crate::network) id: u32,
    pub(in crate::network) key: (u32, u32),
    pub(in crate::network) value: (u32, u32),
}

fn generic(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The marks that begin and end a batch.
pub(in crate::network) fn begin() -> Message {
    Message::new("begin", (BATCH_BEGIN, 0), &[0, 0, 0, 10], &Attributes::new())
}

/// See [`begin`].
pub(in crate::network) fn end() -> Message {
    Message::new("commit", (BATCH_END, 0), &[0, 0, 0, 10], &Attributes::new())
}

/// The table's lookup, deletion, and creation.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Table<'a>(pub(in crate::network) &'a str);

impl Table<'_> {
    fn message(
        self,
        label: impl Into<Cow<'static, str>>,
        kind: (u16, u16),
        attributes: &Attributes,
    ) -> Message {
        Message::new(label, kind, &generic(INET), attributes)
    }

    fn named(self) -> Attributes {
        Attributes::new().string(1, self.0)
    }

    /// Asks whether it exists.
    pub(in crate::network) fn look_up(self) -> Message {
        self.message("look it up", (GET_TABLE, 0), &self.named())
    }

    /// Makes it, if it is not there.
    pub(in crate::network) fn make(self) -> Message {
        self.message("make it (CONFIG_NF_TABLES_INET)", (NEW_TABLE, CREATE), &self.named())
    }

    /// Makes it with a comment, which tells whose it is.
    pub(in crate::network) fn make_with(self, comment: &str) -> Message {
        let length = u8::try_from(comment.len().saturating_add(1)).unwrap_or(u8::MAX);
        let mut data = vec![COMMENT, length];
        data.extend_from_slice(comment.as_bytes());
        data.push(0);
        let attributes = self.named().bytes(USER_DATA, &data);
        self.message("make it (CONFIG_NF_TABLES_INET)", (NEW_TABLE, CREATE), &attributes)
    }

    /// Asks for its rules.
    pub(in crate::network) fn list_rules(self) -> Message {
        self.message("list its rules", (GET_RULE, 0), &self.named())
    }

    /// Asks for the elements of a map.
    pub(in crate::network) fn list_elements(self, map: &str) -> Message {
        let attributes = self.named().string(2, map);
        self.message(format!("list map {map}"), (GET_ELEMENT, 0), &attributes)
    }

    /// Removes it with all in it.
    pub(in crate::network) fn delete(self) -> Message {
        self.message("delete it", (DELETE_TABLE, 0), &self.named())
    }

    /// Makes a base chain that accepts what no rule decides.
    pub(in crate::network) fn chain(self, hook: Hook) -> Message {
        let place =
            Attributes::new().be32(1, hook.number).be32(2, u32::from_ne_bytes(hook.priority.to_ne_bytes()));
        let attributes = self.named().string(3, hook.chain).nest(4, &place).be32(5, 1).string(7, hook.kind);
        let label = format!("make {} chain {}", hook.kind, hook.chain);
        self.message(label, (NEW_CHAIN, CREATE), &attributes)
    }

    /// Makes a map.
    pub(in crate::network) fn map(self, map: Map) -> Message {
        let attributes = self
            .named()
            .string(2, map.name)
            .be32(3, 0x8)
            .be32(4, map.key.0)
            .be32(5, map.key.1)
            .be32(6, map.value.0)
            .be32(7, map.value.1)
            .be32(10, map.id);
        self.message(format!("make map {}", map.name), (NEW_SET, CREATE), &attributes)
    }

    /// Appends a rule.
    pub(in crate::network) fn rule(self, chain: &str, what: &str, expressions: &[Attributes]) -> Message {
        let list = expressions.iter().fold(Attributes::new(), |list, expression| list.nest(1, expression));
        let attributes = self.named().string(2, chain).nest(4, &list);
        let label = format!("add the rule in {chain} that {what}");
        self.message(label, (NEW_RULE, CREATE | APPEND), &attributes)
    }

    /// Adds or removes elements of a map.
    pub(in crate::network) fn elements(
        self,
        map: &str,
        add: bool,
        elements: &[(Vec<u8>, Vec<u8>)],
    ) -> Message {
        let list = elements.iter().fold(Attributes::new(), |list, (key, value)| {
            let mut element = Attributes::new().nest(1, &Attributes::new().bytes(1, key));
            if add {
                element = element.nest(2, &Attributes::new().bytes(1, value));
            }
            list.nest(1, &element)
        });
        let attributes = self.named().string(2, map).nest(3, &list);
        let (label, kind) = if add {
            (format!("add to map {map}"), (NEW_ELEMENT, CREATE))
        } else {
            (format!("remove from map {map}"), (DELETE_ELEMENT, 0))
        };
        self.message(label, kind, &attributes)
    }
}

/// Asks how often anything in nftables has been changed.
pub(in crate::network) fn generation() -> Message {
    Message::new("", (GET_GENERATION, 0), &generic(0), &Attributes::new())
}

/// The comment of a table, as an answer to its lookup tells it.
pub(in crate::network) fn comment(table: &Answer) -> Option<String> {
    let data = table.attributes(HEADER).find(USER_DATA)?;
    let (kind, length) = (data.first()?, data.get(1)?);
    let text = data.get(2..usize::from(*length).checked_add(2)?)?;
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    (*kind == COMMENT).then(|| String::from_utf8_lossy(text).into_owned())
}

/// The elements in an answer to [`Table::list_elements`], each a key and a value.
pub(in crate::network) fn elements(answer: &Answer) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Some(list) = answer.attributes(HEADER).nested(3) else { return Vec::new() };
    let bytes = |element: Parsed<'_>, kind| Some(element.nested(kind)?.find(1)?.to_vec());
    list.all()
        .filter_map(|(_, element)| {
            let element = Parsed::new(element);
            bytes(element, 1).zip(bytes(element, 2))
        })
        .collect()
}

/// Asks for the chains of every table.
pub(in crate::network) fn list_chains() -> Message {
    Message::new("", (GET_CHAIN, 0), &generic(0), &Attributes::new())
}

/// Asks for the rules of one chain.
pub(in crate::network) fn list_rules(family: u8, table: &str, chain: &str) -> Message {
    let attributes = Attributes::new().string(1, table).string(2, chain);
    Message::new("", (GET_RULE, 0), &generic(family), &attributes)
}

/// A register by the number that the kernel lists: that of the 16-byte one where it begins such a one.
fn listed(register: u32) -> u32 {
    match register.checked_sub(REGISTER) {
        Some(offset) if offset.is_multiple_of(4) => WIDE + offset / 4,
        _ => register,
    }
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new().string(1, name).nest(2, data)
}

/// The fact about a packet that a `meta` expression loads (`NFT_META_*`).
#[derive(Debug, Clone, Copy)]
pub(in crate::network) enum Meta {
    /// The index of the link a packet came in by.
    InputLink = 4,
    /// The name of the link a packet leaves by.
    OutputName = 7,
    /// The address family.
    Family = 15,
    /// The transport protocol.
    Transport = 16,
}

/// Loads a fact about the packet.
pub(in crate::network) fn meta(key: Meta, register: u32) -> Attributes {
    expression("meta", &Attributes::new().be32(2, key as u32).be32(1, listed(register)))
}

/// Where `payload` begins to count.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) enum Base {
    /// The network header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// Loads bytes of the packet.
pub(in crate::network) fn payload(base: Base, (offset, length): (u32, u32), register: u32) -> Attributes {
    let place =
        Attributes::new().be32(1, listed(register)).be32(2, base as u32).be32(3, offset).be32(4, length);
    expression("payload", &place)
}

/// Goes on only when the register equals `value`, or differs from it.
pub(in crate::network) fn compare(register: u32, equal: bool, value: &[u8]) -> Attributes {
    let data = Attributes::new().bytes(1, value);
    expression("cmp", &Attributes::new().be32(1, listed(register)).be32(2, u32::from(!equal)).nest(3, &data))
}

/// Keeps only the bits of `mask`.
pub(in crate::network) fn masked(register: u32, mask: &[u8]) -> Attributes {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let zero = vec![0; mask.len()];
    let data = Attributes::new()
        .be32(1, listed(register))
        .be32(2, listed(register))
        .be32(3, length)
        .nest(4, &Attributes::new().bytes(1, mask))
        .nest(5, &Attributes::new().bytes(1, &zero));
    expression("bitwise", &data)
}

/// Goes on only when the destination is an address of this node (`RTN_LOCAL`).
pub(in crate::network) fn to_this_node() -> [Attributes; 2] {
    let kind = Attributes::new().be32(1, listed(REGISTER)).be32(2, 3).be32(3, 2);
    [expression("fib", &kind), compare(REGISTER, true, &2_u32.to_ne_bytes())]
}

/// Goes on only for connections whose destination was translated (`IPS_DST_NAT`).
pub(in crate::network) fn was_translated() -> [Attributes; 3] {
    let status = Attributes::new().be32(2, 2).be32(1, listed(REGISTER));
    let bit = (1_u32 << 5).to_ne_bytes();
    [expression("ct", &status), masked(REGISTER, &bit), compare(REGISTER, false, &[0; 4])]
}

/// Replaces the key in the first register by its value in the map; goes on only if there is one.
pub(in crate::network) fn look_up(map: Map) -> Attributes {
    let data = Attributes::new()
        .string(1, map.name)
        .be32(2, listed(REGISTER))
        .be32(3, listed(REGISTER))
        .be32(4, map.id);
    expression("lookup", &data)
}

/// Sends the connection to the address and port in the registers.
pub(in crate::network) fn translate_destination(family: u8, address: u32, port: u32) -> Attributes {
    let data = Attributes::new()
        .be32(1, 1)
        .be32(2, u32::from(family))
        .be32(3, listed(address))
        .be32(5, listed(port));
    expression("nat", &data)
}

/// Gives the connection the address of the link it leaves by.
pub(in crate::network) fn masquerade() -> Attributes {
    expression("masq", &Attributes::new())
}

/// Drops the packet.
pub(in crate::network) fn drop_packet() -> Attributes {
    let verdict = Attributes::new().nest(2, &Attributes::new().be32(1, 0));
    expression("immediate", &Attributes::new().be32(1, 0).nest(2, &verdict))
}

/// A link's name as `meta` loads it.
pub(in crate::network) fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
