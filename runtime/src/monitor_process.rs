//! Monitors as processes: the embedded program, run from a sealed memfd.

mod started;

pub(crate) use started::Started;

use crate::cgroup::MonitorPlace;
use crate::monitor_client::{self, Connection};
use crate::process::Process;
use crate::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use slipway_disk::atomic;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// The beginning of the link to a monitor's program in /proc: that of a memfd of this name.
const LINK: &str = "/memfd:slipway-monitor (deleted)";
/// The beginning of a command line that is looked at, in bytes: a name and an id.
const LONGEST_COMMAND: u64 = 4096;

static PROGRAM: &[u8] = include_bytes!(env!("SLIPWAY_MONITOR"));

/// The monitor's program as this daemon holds it.
#[derive(Debug)]
pub(crate) struct MonitorProgram {
    memfd: OwnedFd,
}

impl MonitorProgram {
    /// Puts the embedded program where it can be executed and never changed.
    pub(crate) fn load() -> Result<Self> {
        Ok(Self { memfd: sealed(c"slipway-monitor", PROGRAM)? })
    }

    /// Starts a pod's monitor: `directory` gets its socket. Gives its pid too.
    pub(crate) fn start(
        &self,
        sandbox: &str,
        directory: &Path,
        place: &MonitorPlace,
    ) -> Result<(Started, Connection, i32)> {
        let mut first = self.spawn(sandbox, directory, place)?;
        let started = Started::of(&first);
        let connected = Connection::open(sandbox, directory).map_err(|failure| failure.error(sandbox));
        match connected.and_then(|connected| settle(&mut first, place).map(|()| connected)) {
            Ok((connection, pid)) => Ok((started, connection, pid)),
            Err(error) => {
                started.kill();
                let status = first.wait();
                started.wait();
                let refused = status.ok().and_then(|status| refused(sandbox, place, status));
                Err(refused.unwrap_or(error))
            }
        }
    }

    /// Its first process. Nothing of the socket stays here: the monitor's end is the end of what was asked of it.
    fn spawn(&self, sandbox: &str, directory: &Path, place: &MonitorPlace) -> Result<Child> {
        let listener = monitor_client::listener(directory)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()));
        command.arg0("slipway-monitor").arg(sandbox).env_clear().current_dir("/");
        command.stdin(Stdio::from(listener)).process_group(0);
        command.stdout(match place {
            MonitorPlace::Born(leaf) => Stdio::from(leaf.open()?),
            MonitorPlace::Moved(_) | MonitorPlace::WithDaemon => Stdio::null(),
        });
        command.spawn().map_err(|source| Error::Kernel {
            call: format!("start the monitor of sandbox {sandbox}"),
            source,
        })
    }

    /// Writes the program to a file: the first process of a pod's shared pid namespace is run from it.
    pub(crate) fn write_to(path: &Path) -> Result<()> {
        let most = u64::try_from(PROGRAM.len()).unwrap_or(u64::MAX);
        if atomic::read_regular(path, most).is_ok_and(|bytes| bytes == PROGRAM) {
            return Ok(());
        }
        Ok(atomic::write_program(path, PROGRAM)?)
    }
}

/// The monitors of a sandbox that run, found by their program and argument: for a sandbox whose record names no process, and
/// a monitor that does not answer. Nothing else has the daemon's memfd as its program, unless it pretends to be a monitor.
///
/// # Errors
/// When the processes can't be listed.
pub(crate) fn running(sandbox: &str) -> std::io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile is none of them.
        let Some(process) = Process::of(pid) else { continue };
        if is_monitor(pid, sandbox) && Process::of(pid) == Some(process) && !process.is_dead() {
            found.push(process);
        }
    }
    Ok(found)
}

fn is_monitor(pid: i32, sandbox: &str) -> bool {
    let mut arguments = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(LONGEST_COMMAND).read_to_end(&mut arguments));
    let named = read.is_ok() && arguments.split(|byte| *byte == 0).nth(1) == Some(sandbox.as_bytes());
    named && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.starts_with(LINK))
}

/// Why a monitor could not be born in its cgroup; none where that is not what ended its first process.
fn refused(sandbox: &str, place: &MonitorPlace, status: ExitStatus) -> Option<Error> {
    let MonitorPlace::Born(leaf) = place else { return None };
    let errno = status.code().filter(|code| *code > 0)?;
    Some(Error::Kernel {
        call: format!("start the monitor of sandbox {sandbox} in cgroup {}", leaf.path.display()),
        source: std::io::Error::from_raw_os_error(errno),
    })
}

/// Puts a monitor that answers where it belongs, and reaps its first process.
fn settle(first: &mut Child, place: &MonitorPlace) -> Result<()> {
    match place {
        MonitorPlace::WithDaemon => Ok(()),
        // Another process answers, so that the first is at its end.
        MonitorPlace::Born(_) => first
            .wait()
            .map(drop)
            .map_err(|source| Error::Kernel { call: "reap the first process of a monitor".into(), source }),
        MonitorPlace::Moved(leaf) => leaf.take(first.id()),
    }
}

/// A memfd that nobody can change any more.
pub(crate) fn sealed(name: &std::ffi::CStr, bytes: &[u8]) -> Result<OwnedFd> {
    let failed = |source| Error::Kernel { call: "memfd_create".into(), source };
    let memfd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| failed(errno.into()))?;
    let mut file = File::from(memfd);
    file.write_all(bytes).map_err(failed)?;
    let memfd = OwnedFd::from(file);
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&memfd, seals).map_err(|errno| failed(errno.into()))?;
    Ok(memfd)
}

/// Borrowed views of owned descriptors.
pub(crate) fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}
