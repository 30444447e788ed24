//! Reports of a child to its monitor between clone and exec: one packet each, built on the stack.
//!
//! ```text
//! 0     kind (u8)      1..5  first number (i32)      5..9  second number (i32)      9..  the call's name
//! ```

use crate::sys::socket;
use crate::sys::socket::Rights;
use crate::sys::{Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The longest packet.
const LENGTH: usize = 64;

/// The first byte of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first child has made the process that will execute the program; with its pid.
    Pid = 1,
    /// The child waits at a sync point; with the point's bit.
    AtSyncPoint = 2,
    /// Carries the master of the child's terminal.
    Terminal = 3,
    /// The plan's steps are done: an end of the channel without a failure now means that exec has succeeded.
    Executing = 4,
    /// A step failed; with its index, the errno and the call's name.
    Failed = 5,
    /// Carries a detached mount for the daemon.
    Mount = 6,
}

/// A report as the monitor reads it.
#[derive(Debug)]
pub(crate) enum Report {
    Pid(i32),
    AtSyncPoint(u8),
    Terminal(OwnedFd),
    Mount(OwnedFd),
    Executing,
    Failed {
        step: u32,
        errno: i32,
        call: String,
    },
    /// Every copy of the channel's other end is closed.
    End,
}

/// Sends a report without a descriptor. Called by the child, so it allocates nothing.
pub(crate) fn tell(channel: BorrowedFd<'_>, kind: Kind, numbers: (i32, i32)) -> Result<()> {
    packet(Way { channel, pass: 0 }, kind, numbers, ("", &[]))
}

/// Sends the pid of the process that will execute the program and sends all further reports.
pub(crate) fn tell_pid(way: Way<'_>, pid: i32) -> Result<()> {
    packet(way, Kind::Pid, (pid, 0), ("", &[]))
}

/// Sends the master of a terminal or a mount.
pub(crate) fn tell_right(channel: BorrowedFd<'_>, kind: Kind, right: BorrowedFd<'_>) -> Result<()> {
    packet(Way { channel, pass: 0 }, kind, (0, 0), ("", &[right]))
}

/// Sends the failure of a step.
pub(crate) fn tell_failure(way: Way<'_>, step: u32, error: Error) -> Result<()> {
    packet(way, Kind::Failed, (step.cast_signed(), error.errno), (error.call, &[]))
}

/// The channel, and the number that lets a report pass the container's seccomp filter (see [`super::passage`]); 0
/// for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) channel: BorrowedFd<'a>,
    pub(crate) pass: u64,
}

fn packet(
    way: Way<'_>,
    kind: Kind,
    (first, second): (i32, i32),
    (call, rights): (&str, &[BorrowedFd<'_>]),
) -> Result<()> {
    let mut bytes = [0_u8; LENGTH];
    let head = [kind as u8].into_iter().chain(first.to_le_bytes()).chain(second.to_le_bytes());
    let mut length = 0;
    for (place, byte) in bytes.iter_mut().zip(head.chain(call.bytes())) {
        *place = byte;
        length += 1;
    }
    socket::send_past(way.channel, (bytes.get(..length).unwrap_or(&bytes), rights), 0, way.pass)
}

/// Waits for the monitor's message to continue; an error (`EPIPE`) if the monitor is gone.
pub(crate) fn wait(channel: BorrowedFd<'_>, pass: u64) -> Result<()> {
    let mut word = [0_u8; 1];
    match socket::receive_past(channel, &mut word, pass)? {
        0 => Err(Error { call: "wait for the monitor", errno: libc::EPIPE }),
        _ => Ok(()),
    }
}

/// Sends the child the message to continue.
pub(crate) fn go(channel: BorrowedFd<'_>) -> Result<()> {
    socket::send(channel, &[1], &[], 0)
}

/// A report and, on a channel with `SO_PASSCRED`, the pid of its sender.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) report: Report,
    pub(crate) sender: Option<i32>,
}

/// Reads a report; `None` if there is none yet.
pub(crate) fn read(channel: BorrowedFd<'_>, flags: i32, rights: Rights) -> Result<Option<Told>> {
    let mut buffer = [0_u8; LENGTH];
    let mut packet = match socket::receive_with(channel, &mut buffer, flags, rights) {
        Ok(packet) => packet,
        Err(error) if error.errno == libc::EAGAIN => return Ok(None),
        Err(error) if error.errno == libc::ECONNRESET => {
            return Ok(Some(Told { report: Report::End, sender: None }));
        }
        Err(error) => return Err(error),
    };
    let bytes = buffer.get(..packet.length).unwrap_or_default();
    let report = match (bytes, packet.sender) {
        // An empty packet with a sender is not the end of the channel.
        ([], Some(_)) => broken(),
        (bytes, _) => parse(bytes, packet.descriptors.pop()),
    };
    Ok(Some(Told { report, sender: packet.sender }))
}

fn broken() -> Report {
    Report::Failed { step: u32::MAX, errno: libc::EPROTO, call: "child's report".into() }
}

fn parse(bytes: &[u8], right: Option<OwnedFd>) -> Report {
    let Some((kind, rest)) = bytes.split_first() else { return Report::End };
    let Some((first, rest)) = rest.split_first_chunk() else { return broken() };
    let Some((second, call)) = rest.split_first_chunk() else { return broken() };
    let (first, second) = (i32::from_le_bytes(*first), i32::from_le_bytes(*second));
    match (kind, right) {
        (1, _) => Report::Pid(first),
        (2, _) => Report::AtSyncPoint(u8::try_from(first).unwrap_or(0)),
        (3, Some(master)) => Report::Terminal(master),
        (4, _) => Report::Executing,
        (6, Some(mount)) => Report::Mount(mount),
        (5, _) => Report::Failed {
            step: first.cast_unsigned(),
            errno: second,
            call: String::from_utf8_lossy(call).into_owned(),
        },
        _ => broken(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_failure_names_its_step_and_its_call() -> Result<()> {
        let (child, monitor) = socket::pair()?;
        let way = Way { channel: child.as_fd(), pass: 0 };
        tell_failure(way, 7, Error { call: "move_mount", errno: libc::EBUSY })?;
        drop(child);
        let told = read(monitor.as_fd(), 0, Rights::Taken)?.map(|told| told.report);
        assert!(
            matches!(&told, Some(Report::Failed { step: 7, errno: libc::EBUSY, call }) if call == "move_mount")
        );
        let told = read(monitor.as_fd(), 0, Rights::Taken)?.map(|told| told.report);
        assert!(matches!(told, Some(Report::End)));
        Ok(())
    }
}
