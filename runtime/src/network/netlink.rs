//! Netlink by hand: messages and attributes are encoded here, sent over one socket, and the answers are read back.
//!
//! Several messages travel in one datagram. Only the last one asks for an acknowledgement: the kernel answers in
//! order and reports every failure unasked, so that the first answer is either the first failure or the success of
//! all.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::{Error, Result, sys};

/// `NLM_F_ACK`.
const ACK: u16 = 0x4;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;
/// `NLM_F_REPLACE`.
pub(super) const REPLACE: u16 = 0x100;
/// `NLM_F_DUMP_INTR` in an answer: the list changed while it was read.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_CAPPED` in an error: the request is not repeated in full.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS` in an error: attributes follow.
const ACK_ATTRIBUTES: u16 = 0x200;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const HEADER: usize = 16;
/// The most that one answer may hold, so that a broken peer can't fill the memory.
const ANSWER_LIMIT: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// A list of attributes, each a length, a kind and a padded value.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// An empty list.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds raw bytes.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // A length beyond u16 is made invalid rather than wrapped: the kernel refuses it.
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds one byte.
    pub(super) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// Adds a number in the machine's order.
    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network order, as nf_tables wants all its numbers.
    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a NUL-terminated string.
    pub(super) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds a list below this one.
    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | 0x8000, &inner.0)
    }

    /// Adds a structure in front of the attributes of a nest that has one.
    pub(super) fn prefixed(header: &[u8]) -> Self {
        let mut bytes = header.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }
}

/// One request, with a label that says what it does.
#[derive(Debug, Clone)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    label: Cow<'static, str>,
    body: Vec<u8>,
}

impl Message {
    /// A request of this kind; `header` is the family's own structure.
    pub(super) fn new(
        label: impl Into<Cow<'static, str>>,
        (kind, flags): (u16, u16),
        header: &[u8],
        attributes: &Attributes,
    ) -> Self {
        let mut body = header.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend_from_slice(&attributes.0);
        Self {
            kind,
            flags,
            label: label.into(),
            body,
        }
    }

    fn encode(&self, out: &mut Vec<u8>, sequence: u32, flags: u16) {
        let length = u32::try_from(self.body.len().saturating_add(HEADER)).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | flags | REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.body);
    }
}

/// One message of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    payload: Vec<u8>,
}

impl Answer {
    /// The bytes of the family's own structure, if there are that many.
    pub(super) fn header(&self, length: usize) -> Option<&[u8]> {
        self.payload.get(..length)
    }

    /// The attributes behind the family's own structure.
    pub(super) fn attributes(&self, header: usize) -> Parsed<'_> {
        Parsed(
            self.payload
                .get(header.next_multiple_of(4)..)
                .unwrap_or_default(),
        )
    }

    /// Whether these bytes occur anywhere in the answer.
    pub(super) fn mentions(&self, needle: &[u8]) -> bool {
        !needle.is_empty()
            && self
                .payload
                .windows(needle.len())
                .any(|window| window == needle)
    }
}

/// Attributes as they arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<'a>(&'a [u8]);

impl<'a> Parsed<'a> {
    /// The value of the first attribute of this kind.
    pub(super) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes within the first attribute of this kind.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Parsed)
    }

    /// A string without its end mark.
    pub(super) fn string(self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// A number in the machine's order.
    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// A number in network order.
    pub(super) fn be32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn find_map<T>(self, test: impl Fn((u16, &'a [u8])) -> Option<T>) -> Option<T> {
        let mut rest = self.0;
        while let Some((length, kind)) = u16_at(rest, 0).zip(u16_at(rest, 2)) {
            let length = usize::from(length);
            let value = rest.get(4..length)?;
            if let Some(found) = test((kind & 0x3fff, value)) {
                return Some(found);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }
}

/// A socket of one netlink family, in the network namespace where it was opened.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// How the answer to what was sent ends.
enum Until {
    Acknowledged(u32),
    Done(u32),
}

impl Socket {
    /// Opens a socket for links, addresses and routes.
    pub(super) fn route() -> Result<Self> {
        Self::open("open a route netlink socket", None)
    }

    /// Opens a socket for nftables and its kin.
    pub(super) fn netfilter() -> Result<Self> {
        Self::open(
            "open a netfilter netlink socket",
            Some(rustix::net::netlink::NETFILTER),
        )
    }

    fn open(call: &str, protocol: Option<Protocol>) -> Result<Self> {
        let kernel = |source: io::Error| Error::Kernel {
            call: call.to_owned(),
            source,
        };
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let descriptor = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| kernel(errno.into()))?;
        rustix::net::bind(&descriptor, &SocketAddrNetlink::new(0, 0))
            .map_err(|errno| kernel(errno.into()))?;
        set_socket_timeout(&descriptor, Timeout::Recv, Some(PATIENCE))
            .map_err(|errno| kernel(errno.into()))?;
        // Without it errors lack the kernel's own sentence, nothing else.
        let _ = sys::netns::netlink_extended_ack(descriptor.as_fd());
        Ok(Self {
            descriptor,
            sequence: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Has the kernel carry out these requests in order; returns what it had to say beside success.
    pub(super) fn execute(&mut self, action: &str, messages: &[Message]) -> Result<Vec<Answer>> {
        self.send(action, messages, messages.len())
    }

    /// Carries out a batch whose last message is only a mark that is never acknowledged.
    pub(super) fn execute_batch(&mut self, action: &str, messages: &[Message]) -> Result<()> {
        self.send(action, messages, messages.len().saturating_sub(1))
            .map(drop)
    }

    /// Reads a whole list; a list that changed meanwhile is read again.
    pub(super) fn dump(&mut self, action: &str, message: &Message) -> Result<Vec<Answer>> {
        for _ in 0..8 {
            self.sequence = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            message.encode(&mut bytes, self.sequence, DUMP);
            self.transmit(action, &bytes)?;
            let labels = std::slice::from_ref(message);
            if let Some(answers) = self.collect(action, labels, &Until::Done(self.sequence))? {
                return Ok(answers);
            }
        }
        Err(Error::Kernel {
            call: action.to_owned(),
            source: io::ErrorKind::Interrupted.into(),
        })
    }

    fn send(
        &mut self,
        action: &str,
        messages: &[Message],
        acknowledged: usize,
    ) -> Result<Vec<Answer>> {
        let mut bytes = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = if index.saturating_add(1) == acknowledged {
                ACK
            } else {
                0
            };
            message.encode(&mut bytes, self.sequence, flags);
        }
        self.transmit(action, &bytes)?;
        let unacknowledged =
            u32::try_from(messages.len().saturating_sub(acknowledged)).unwrap_or(0);
        let last = self.sequence.wrapping_sub(unacknowledged);
        Ok(self
            .collect(action, messages, &Until::Acknowledged(last))?
            .unwrap_or_default())
    }

    fn transmit(&self, action: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() > 128 << 10 {
            // Refused without the privilege; the send below then says that the message is too long.
            let _ =
                set_socket_send_buffer_size_force(&self.descriptor, bytes.len().saturating_mul(2));
        }
        rustix::net::sendto(
            &self.descriptor,
            bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )
        .map(drop)
        .map_err(|errno| Error::Kernel {
            call: action.to_owned(),
            source: errno.into(),
        })
    }

    /// Gathers the answer; `None` asks for another try.
    fn collect(
        &mut self,
        action: &str,
        sent: &[Message],
        until: &Until,
    ) -> Result<Option<Vec<Answer>>> {
        let kernel = |source: io::Error| Error::Kernel {
            call: action.to_owned(),
            source,
        };
        let first = self
            .sequence
            .wrapping_sub(u32::try_from(sent.len().saturating_sub(1)).unwrap_or(0));
        let (mut answers, mut total, mut whole) = (Vec::new(), 0_usize, true);
        loop {
            let received = rustix::io::retry_on_intr(|| {
                rustix::net::recv(
                    &self.descriptor,
                    self.buffer.as_mut_slice(),
                    RecvFlags::TRUNC,
                )
            });
            let (_, length) = received.map_err(|errno| kernel(errno.into()))?;
            total = total.saturating_add(length);
            let Some(mut rest) = self.buffer.get(..length).filter(|_| total < ANSWER_LIMIT) else {
                return Err(kernel(io::Error::other("the kernel's answer is too long")));
            };
            while let Some(message) = Incoming::first(rest) {
                rest = rest
                    .get(message.length.next_multiple_of(4)..)
                    .unwrap_or_default();
                let index = message.sequence.wrapping_sub(first);
                let Some(request) = usize::try_from(index)
                    .ok()
                    .and_then(|index| sent.get(index))
                else {
                    continue; // the tail of an earlier request that failed
                };
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    TYPE_ERROR => message.verdict(action, &request.label)?,
                    TYPE_DONE => {}
                    _ => answers.push(Answer {
                        payload: message.payload.to_vec(),
                    }),
                }
                let finished = match until {
                    Until::Acknowledged(last) => {
                        message.kind == TYPE_ERROR && message.sequence == *last
                    }
                    Until::Done(last) => message.kind == TYPE_DONE && message.sequence == *last,
                };
                if finished {
                    return Ok(whole.then_some(answers));
                }
            }
        }
    }
}

/// A received message, cut out of the datagram.
struct Incoming<'a> {
    length: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Incoming<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        Some(Self {
            length,
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        })
    }

    /// What an error message says: an error number of zero is an acknowledgement.
    fn verdict(&self, action: &str, label: &str) -> Result<()> {
        let code = u32_at(self.payload, 0).map_or(-libc::EBADMSG, |bits| {
            i32::from_ne_bytes(bits.to_ne_bytes())
        });
        if code == 0 {
            return Ok(());
        }
        let mut call = if label.is_empty() {
            action.to_owned()
        } else {
            format!("{action}: {label}")
        };
        if let Some(sentence) = self.sentence() {
            call = format!("{call} ({sentence})");
        }
        Err(Error::Kernel {
            call,
            source: io::Error::from_raw_os_error(code.saturating_neg()),
        })
    }

    fn sentence(&self) -> Option<String> {
        if self.flags & ACK_ATTRIBUTES == 0 {
            return None;
        }
        let request = if self.flags & CAPPED != 0 {
            HEADER
        } else {
            usize::try_from(u32_at(self.payload, 4)?).ok()?
        };
        let attributes = self
            .payload
            .get(request.checked_add(4)?.next_multiple_of(4)..)?;
        Parsed(attributes).string(1).filter(|text| !text.is_empty())
    }
}

/// The error number of a kernel's refusal.
pub(super) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Kernel { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at.checked_add(2)?)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let inner = Attributes::new().string(3, "eth0").u32(4, 1500);
        let list = Attributes::new().u8(1, 7).nest(2, &inner);
        assert_eq!(list.0.len() % 4, 0);
        let parsed = Parsed(&list.0);
        assert_eq!(parsed.find(1), Some(&[7][..]));
        let nested = parsed.nested(2).unwrap();
        assert_eq!(nested.string(3).as_deref(), Some("eth0"));
        assert_eq!(nested.u32(4), Some(1500));
        assert_eq!(parsed.find(9), None);
    }

    #[test]
    fn cut_or_lying_attributes_end_the_search() {
        for bytes in [
            &[][..],
            &[1],
            &[0, 0, 1, 0],
            &[255, 255, 1, 0, 9],
            &[3, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(Parsed(bytes).find(1), None);
        }
    }

    #[test]
    fn an_error_carries_the_kernels_sentence() {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(&16_u32.to_ne_bytes());
        payload.extend_from_slice(&[0; 12]);
        payload.extend_from_slice(&Attributes::new().string(1, "no such thing").0);
        let flags = ACK_ATTRIBUTES | CAPPED;
        let message = Incoming {
            length: 0,
            kind: TYPE_ERROR,
            flags,
            sequence: 1,
            payload: &payload,
        };
        let error = message.verdict("make bridge b0", "").unwrap_err();
        assert_eq!(error.to_string(), "make bridge b0 (no such thing)");
        assert_eq!(errno(&error), Some(libc::EINVAL));
    }
}
