//! Network namespaces: made on a thread of their own, kept by a bind mount, and a few made ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::thread::LinkNameSpaceType;

use super::bridge::{forwarding, link};
use super::config::Unprivileged;
use super::netlink::Socket;
use crate::{Error, Result, sys};

/// A network namespace and a route socket inside it.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) descriptor: OwnedFd,
    pub(super) route: Socket,
}

impl Namespace {
    /// Moves the calling thread into a new namespace with its loopback up.
    fn make_here(unprivileged: Unprivileged) -> Result<Self> {
        sys::netns::unshare_network()
            .map_err(|source| Error::Kernel { call: "make a network namespace".to_owned(), source })?;
        let path = Path::new("/proc/thread-self/ns/net");
        let descriptor =
            File::open(path).map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })?;
        forwarding::ignore_advertisements_here();
        allow_here(unprivileged);
        let mut route = Socket::route()?;
        link::loopback_up(&mut route)?;
        Ok(Self { descriptor: descriptor.into(), route })
    }

    /// Enters a namespace that someone else made.
    pub(super) fn enter(descriptor: BorrowedFd<'_>, unprivileged: Unprivileged) -> Result<Self> {
        let mut route = in_netns(descriptor, || {
            forwarding::ignore_advertisements_here();
            allow_here(unprivileged);
            Socket::route()
        })??;
        link::loopback_up(&mut route)?;
        let descriptor = descriptor
            .try_clone_to_owned()
            .map_err(|source| Error::Kernel { call: "duplicate a network namespace".to_owned(), source })?;
        Ok(Self { descriptor, route })
    }
}

/// Allows the users of the thread's network namespace what needs privilege by the kernel's defaults. The groups are those
/// of the writer's user namespace: all, also in a pod that has one of its own.
fn allow_here(unprivileged: Unprivileged) {
    let wanted = [
        (unprivileged.ports, "ip_unprivileged_port_start", "0"),
        (unprivileged.icmp, "ping_group_range", "0 2147483647"),
    ];
    for (_, name, value) in wanted.into_iter().filter(|(wanted, ..)| *wanted) {
        if let Err(error) = std::fs::write(Path::new("/proc/sys/net/ipv4").join(name), value) {
            tracing::warn!(%error, "net.ipv4.{name} of a pod stays as the kernel has it");
        }
    }
}

/// Runs `work` on a thread of its own inside the network namespace, and waits for it.
pub fn in_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let body = || {
            rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(
                |errno| Error::Kernel {
                    call: "enter a pod's network namespace".to_owned(),
                    source: errno.into(),
                },
            )?;
            Ok(work())
        };
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, body);
        let thread = thread.map_err(|source| Error::Kernel { call: "start a thread".to_owned(), source })?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::Kernel {
                call: "work in a pod's network namespace".to_owned(),
                source: io::Error::other("the thread ended early"),
            })
        })
    })
}

/// Namespaces made ahead, so that a pod need not wait for one.
#[derive(Debug)]
pub(super) struct Pool {
    size: usize,
    unprivileged: Unprivileged,
    ready: Mutex<VecDeque<Namespace>>,
    filling: AtomicBool,
}

impl Pool {
    /// A pool that keeps this many; it starts to fill at the first [`Self::take`].
    pub(super) fn new(size: usize, unprivileged: Unprivileged) -> Arc<Self> {
        Arc::new(Self { size, unprivileged, ready: Mutex::default(), filling: AtomicBool::new(false) })
    }

    /// Takes one that is ready, else makes one.
    pub(super) fn take(&self) -> Result<Namespace> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        ready.map_or_else(|| make(self.unprivileged), Ok)
    }

    /// Fills the pool in the background, by a thread that ends when it is full.
    pub(super) fn refill(self: &Arc<Self>) {
        if self.size == 0 || self.filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("netns-pool".to_owned()).spawn(move || pool.fill());
        if let Err(error) = thread {
            tracing::warn!(%error, "network namespaces can't be made ahead");
            self.filling.store(false, Ordering::Release);
        }
    }

    fn fill(&self) {
        while self.ready.lock().unwrap_or_else(PoisonError::into_inner).len() < self.size {
            match Namespace::make_here(self.unprivileged) {
                Ok(namespace) => {
                    self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(namespace)
                }
                Err(error) => {
                    tracing::warn!(%error, "network namespaces can't be made ahead");
                    break;
                }
            }
        }
        self.filling.store(false, Ordering::Release);
    }
}

/// Makes one on a thread of its own.
pub(super) fn make(unprivileged: Unprivileged) -> Result<Namespace> {
    let failed = |source| Error::Kernel { call: "start a thread for a network namespace".to_owned(), source };
    let thread = thread::Builder::new().name("netns".to_owned());
    let thread = thread.spawn(move || Namespace::make_here(unprivileged)).map_err(failed)?;
    thread.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread ended early"))))
}
