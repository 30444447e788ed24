//! Removes the veth pairs of detached pods in the background, then gives their addresses back.
//!
//! A pod's record stays on disk until its veth pair is gone, so that a crash in between leaves nothing that recovery
//! would not find. The thread ends when there is nothing left to do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::Result;
use crate::network::bridge;
use crate::network::bridge::addresses::Addresses;
use crate::network::netlink::Socket;

/// The pods whose veth pairs are to go.
#[derive(Debug)]
pub(in crate::network) struct Sweeper {
    addresses: Arc<Addresses>,
    work: Mutex<Work>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    queue: VecDeque<String>,
    /// Queued or being worked on.
    pending: BTreeSet<String>,
    running: bool,
}

impl Sweeper {
    /// A sweeper that gives back to these addresses.
    pub(in crate::network) fn new(addresses: Arc<Addresses>) -> Arc<Self> {
        Arc::new(Self { addresses, work: Mutex::default(), done: Condvar::new() })
    }

    /// Has the pod's veth pair removed and its addresses given back.
    pub(in crate::network) fn sweep(self: &Arc<Self>, pod: &str) {
        let mut work = self.work();
        if !work.pending.insert(pod.to_owned()) {
            return;
        }
        work.queue.push_back(pod.to_owned());
        if work.running {
            return;
        }
        work.running = true;
        drop(work);
        let sweeper = Arc::clone(self);
        let thread = thread::Builder::new().name("net-sweeper".to_owned()).spawn(move || sweeper.run());
        if thread.is_err() {
            self.run();
        }
    }

    /// Waits until nothing is left to do for the pod.
    pub(in crate::network) fn finish(&self, pod: &str) {
        self.wait(|work| work.pending.contains(pod));
    }

    /// Waits until nothing is left to do.
    pub(in crate::network) fn finish_all(&self) {
        self.wait(|work| !work.pending.is_empty());
    }

    fn wait(&self, busy: impl Fn(&Work) -> bool) {
        let mut work = self.work();
        while busy(&work) {
            work = self.done.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self) {
        let mut socket = None;
        while let Some(pod) = self.next() {
            if let Err(error) = self.remove(&mut socket, &pod) {
                // The record stays: the next detach or recovery of the pod tries again.
                tracing::warn!(pod, %error, "the pod's veth pair or addresses remain");
                socket = None;
            }
            self.work().pending.remove(&pod);
            self.done.notify_all();
        }
    }

    fn next(&self) -> Option<String> {
        let mut work = self.work();
        let next = work.queue.pop_front();
        work.running = next.is_some();
        next
    }

    fn remove(&self, socket: &mut Option<Socket>, pod: &str) -> Result<()> {
        let mut route = match socket.take() {
            Some(route) => route,
            None => Socket::route()?,
        };
        bridge::disconnect(&mut route, pod)?;
        *socket = Some(route);
        self.addresses.release(pod)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_a_veth_pair_gives_its_addresses_back() {
        let directory = tempfile::tempdir().unwrap();
        let subnets = vec!["10.88.0.0/29".parse().unwrap()];
        let addresses = Arc::new(Addresses::open(directory.path().to_owned(), subnets).unwrap());
        addresses.lease("never-connected", &[]).unwrap();
        let sweeper = Sweeper::new(Arc::clone(&addresses));
        sweeper.sweep("never-connected");
        sweeper.finish("never-connected");
        assert!(addresses.find("never-connected").is_none());
        sweeper.finish_all();
    }
}
