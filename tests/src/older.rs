//! A monitor of an earlier release, as far as the protocol goes: what stands between a daemon and a monitor lowers the
//! version that each tells the other, so that both speak that one.

use crate::Node;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first byte of a greeting, in both directions; its version follows.
const HELLO: u8 = 1;
/// The largest packet, and the most descriptors that come with one.
const PACKET: usize = 64 * 1024;
const BATCH: usize = 128;

/// A pod's monitor behind its version.
#[derive(Debug)]
pub struct OlderMonitor {
    greetings: Arc<AtomicUsize>,
}

impl OlderMonitor {
    /// Makes a pod's monitor one of this version, for the next daemon; the present one is dead.
    ///
    /// # Panics
    /// When its socket can't be replaced.
    #[must_use]
    pub fn of(node: &Node, pod: &str, version: u16) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, node.path(format!("run/pods/{pod}")), flags, Mode::empty());
        let directory = directory.expect("the pod's directory");
        let address = move |name: &str| {
            // Short however deep the directory lies.
            SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
                .expect("an address")
        };
        let path = |name: &str| node.path(format!("run/pods/{pod}/{name}"));
        std::fs::rename(path("monitor.sock"), path("monitor.real")).expect("the socket is moved");
        let listener = open();
        bind(&listener, &address("monitor.sock")).expect("it is bound");
        listen(&listener, 128).expect("it listens");
        let greetings = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&greetings);
        std::thread::spawn(move || {
            while let Ok(client) = accept_with(&listener, SocketFlags::CLOEXEC) {
                let monitor = open();
                // A client of a monitor that has ended sees the end of its connection.
                if connect(&monitor, &address("monitor.real")).is_ok() {
                    relay(client, monitor, version, &counted);
                }
            }
        });
        Self { greetings }
    }

    /// How many connections have begun.
    #[must_use]
    pub fn greetings(&self) -> usize {
        self.greetings.load(Ordering::Relaxed)
    }
}

fn open() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket")
}

fn relay(client: OwnedFd, monitor: OwnedFd, version: u16, greetings: &Arc<AtomicUsize>) {
    let (client, monitor) = (Arc::new(client), Arc::new(monitor));
    for (from, to) in [(&client, &monitor), (&monitor, &client)] {
        let (from, to, greetings) = (Arc::clone(from), Arc::clone(to), Arc::clone(greetings));
        std::thread::spawn(move || {
            while pass(&from, &to, version, &greetings) {}
            let _ = shutdown(&to, Shutdown::Both);
            let _ = shutdown(&from, Shutdown::Both);
        });
    }
}

/// Passes one packet on; false at the end.
fn pass(from: &OwnedFd, to: &OwnedFd, version: u16, greetings: &AtomicUsize) -> bool {
    let mut bytes = vec![0; PACKET];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let Ok(length) = received.map(|received| received.bytes) else { return false };
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if length == 0 {
        return false;
    }
    if bytes[0] == HELLO {
        let lower = u16::from_le_bytes([bytes[1], bytes[2]]).min(version);
        bytes[1..3].copy_from_slice(&lower.to_le_bytes());
        greetings.fetch_add(1, Ordering::Relaxed);
    }
    let rights: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !rights.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&rights)), "there is room for {BATCH}");
    }
    sendmsg(to, &[IoSlice::new(&bytes[..length])], &mut control, SendFlags::NOSIGNAL).is_ok()
}
