//! One connection to the monitor, as a daemon or a client has it.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use slipway_monitor::message::Message;
use slipway_monitor::protocol::{Reply, Request, VERSION};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// One connection to the monitor.
pub(crate) struct Client(pub(crate) OwnedFd);

impl Client {
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL).unwrap();
    }

    pub(crate) fn send(&self, request: &Request) {
        self.send_bytes(&request.to_bytes(VERSION));
    }

    pub(crate) fn send_descriptors(&self, descriptors: &[OwnedFd]) {
        let count = u16::try_from(descriptors.len()).unwrap();
        let bytes = Request::Descriptors { count }.to_bytes(VERSION);
        let rights: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
        let parts = [IoSlice::new(&bytes)];
        rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    pub(crate) fn send_with(&self, descriptors: &[OwnedFd], request: &Request) {
        self.send_descriptors(descriptors);
        assert_eq!(self.ask(request), Reply::Done {});
    }

    pub(crate) fn receive(&self) -> (Reply, Vec<OwnedFd>) {
        let mut bytes = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received =
            rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        (Reply::of_bytes(&bytes[..received.bytes], VERSION).expect("a reply"), descriptors)
    }

    pub(crate) fn next(&self) -> Reply {
        self.receive().0
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        self.send(request);
        self.next()
    }
}
