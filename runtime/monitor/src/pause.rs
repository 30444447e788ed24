//! The first process of a pod's shared pid namespace: it reaps what is orphaned there and does nothing else.
//!
//! The daemon runs this program under the name `pause` as a container of its own. Signals are blocked; it ends with
//! its cgroup.

use crate::sys::{Result, process, signal};
use std::fs::File;
use std::io::Read;

/// The name that asks for it.
pub(crate) const NAME: &str = "pause";

/// Reaps for as long as it lives.
pub(crate) fn reap() -> Result<()> {
    let mut signals = File::from(signal::block_all()?);
    let mut entry =
        [libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&signals), events: libc::POLLIN, revents: 0 }];
    let mut told = [0; 128];
    loop {
        // Without a child there is nothing to wait for until the next signal.
        while matches!(process::wait_any(), Ok(Some(_))) {}
        signal::poll(&mut entry, -1)?;
        let _ = signals.read(&mut told);
    }
}
