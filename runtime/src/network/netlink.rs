//! Netlink by hand: requests are sent over one socket, and the answers are read back.
//!
//! Several messages travel in one datagram. Only the last one asks for an acknowledgement: the kernel answers in
//! order and reports every failure unasked, so that the first answer is either the first failure or the success of
//! all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Answer, HEADER, Message, Parsed, u16_at, u32_at};
use crate::{Error, Result, sys};

/// `NLM_F_ACK`.
const ACK: u16 = 0x4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR` in an answer: the list changed while it was read.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_CAPPED` in an error: the request is not repeated in full.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS` in an error: attributes follow.
const ACK_ATTRIBUTES: u16 = 0x200;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
/// The most that one answer may hold, so that a broken peer can't fill the memory.
const ANSWER_LIMIT: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

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
        Self::open("open a netfilter netlink socket", Some(rustix::net::netlink::NETFILTER))
    }

    fn open(call: &str, protocol: Option<Protocol>) -> Result<Self> {
        let kernel = |source: io::Error| Error::Kernel { call: call.to_owned(), source };
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let descriptor = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| kernel(errno.into()))?;
        rustix::net::bind(&descriptor, &SocketAddrNetlink::new(0, 0))
            .map_err(|errno| kernel(errno.into()))?;
        set_socket_timeout(&descriptor, Timeout::Recv, Some(PATIENCE))
            .map_err(|errno| kernel(errno.into()))?;
        // Without it errors lack the kernel's own sentence, nothing else.
        let _ = sys::netns::netlink_extended_ack(descriptor.as_fd());
        Ok(Self { descriptor, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// Has the kernel carry out these requests in order; returns what it had to say beside success.
    pub(super) fn execute(&mut self, action: &str, messages: &[Message]) -> Result<Vec<Answer>> {
        self.send(action, messages, messages.len())
    }

    /// Carries out a batch whose last message is only a mark that is never acknowledged.
    pub(super) fn execute_batch(&mut self, action: &str, messages: &[Message]) -> Result<()> {
        self.send(action, messages, messages.len().saturating_sub(1)).map(drop)
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
        Err(Error::Kernel { call: action.to_owned(), source: io::ErrorKind::Interrupted.into() })
    }

    fn send(&mut self, action: &str, messages: &[Message], acknowledged: usize) -> Result<Vec<Answer>> {
        let mut bytes = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = if index.saturating_add(1) == acknowledged { ACK } else { 0 };
            message.encode(&mut bytes, self.sequence, flags);
        }
        self.transmit(action, &bytes)?;
        let unacknowledged = u32::try_from(messages.len().saturating_sub(acknowledged)).unwrap_or(0);
        let last = self.sequence.wrapping_sub(unacknowledged);
        Ok(self.collect(action, messages, &Until::Acknowledged(last))?.unwrap_or_default())
    }

    fn transmit(&self, action: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() > 128 << 10 {
            // Refused without the privilege; the send below then says that the message is too long.
            let _ = set_socket_send_buffer_size_force(&self.descriptor, bytes.len().saturating_mul(2));
        }
        rustix::net::sendto(&self.descriptor, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
            .map(drop)
            .map_err(|errno| Error::Kernel { call: action.to_owned(), source: errno.into() })
    }

    /// Gathers the answer; `None` asks for another try.
    fn collect(&mut self, action: &str, sent: &[Message], until: &Until) -> Result<Option<Vec<Answer>>> {
        let kernel = |source: io::Error| Error::Kernel { call: action.to_owned(), source };
        let first = self.sequence.wrapping_sub(u32::try_from(sent.len().saturating_sub(1)).unwrap_or(0));
        let (mut answers, mut total, mut whole) = (Vec::new(), 0_usize, true);
        loop {
            let received = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.descriptor, self.buffer.as_mut_slice(), RecvFlags::TRUNC)
            });
            let (_, length) = received.map_err(|errno| kernel(errno.into()))?;
            total = total.saturating_add(length);
            let Some(mut rest) = self.buffer.get(..length).filter(|_| total < ANSWER_LIMIT) else {
                return Err(kernel(io::Error::other("the kernel's answer is too long")));
            };
            while let Some(message) = Incoming::first(rest) {
                rest = rest.get(message.length.next_multiple_of(4)..).unwrap_or_default();
                let index = message.sequence.wrapping_sub(first);
                let Some(request) = usize::try_from(index).ok().and_then(|index| sent.get(index)) else {
                    continue; // the tail of an earlier request that failed
                };
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    TYPE_ERROR => message.verdict(action, request.label())?,
                    TYPE_DONE => {}
                    _ => answers.push(Answer::new(message.payload)),
                }
                let finished = match until {
                    Until::Acknowledged(last) => message.kind == TYPE_ERROR && message.sequence == *last,
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

    /// Turns an error message into a result: an error number of zero is an acknowledgement.
    fn verdict(&self, action: &str, label: &str) -> Result<()> {
        let code =
            u32_at(self.payload, 0).map_or(-libc::EBADMSG, |bits| i32::from_ne_bytes(bits.to_ne_bytes()));
        if code == 0 {
            return Ok(());
        }
        let mut call = if label.is_empty() { action.to_owned() } else { format!("{action}: {label}") };
        if let Some(sentence) = self.sentence() {
            call = format!("{call} ({sentence})");
        }
        Err(Error::Kernel { call, source: io::Error::from_raw_os_error(code.saturating_neg()) })
    }

    fn sentence(&self) -> Option<String> {
        if self.flags & ACK_ATTRIBUTES == 0 {
            return None;
        }
        let request =
            if self.flags & CAPPED != 0 { HEADER } else { usize::try_from(u32_at(self.payload, 4)?).ok()? };
        let attributes = self.payload.get(request.checked_add(4)?.next_multiple_of(4)..)?;
        Parsed::new(attributes).string(1).filter(|text| !text.is_empty())
    }
}

/// The error number of a kernel's refusal.
pub(super) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Kernel { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::message::Attributes;

    #[test]
    fn an_error_carries_the_kernels_sentence() {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(&16_u32.to_ne_bytes());
        payload.extend_from_slice(&[0; 12]);
        payload.extend_from_slice(Attributes::new().string(1, "no such thing").as_bytes());
        let flags = ACK_ATTRIBUTES | CAPPED;
        let message = Incoming { length: 0, kind: TYPE_ERROR, flags, sequence: 1, payload: &payload };
        let error = message.verdict("make bridge b0", "").unwrap_err();
        assert_eq!(error.to_string(), "make bridge b0 (no such thing)");
        assert_eq!(errno(&error), Some(libc::EINVAL));
    }
}
