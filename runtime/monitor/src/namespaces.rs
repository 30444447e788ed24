//! A pod's namespaces, made by a short-lived child and kept alive by descriptors.
//!
//! ```text
//! monitor ─clone3([CLONE_NEWUSER])─► child waits ◄─ maps written, go ─ unshare the others, name, parameters
//!         ◄─ ready ─ waits ◄─ /proc/<pid>/ns/* opened ─ killed
//! ```

use crate::child::BEFORE;
use crate::child::identity::{become_root, sysctl};
use crate::launch::report;
use crate::launch::report::{Kind, Report};
use crate::setup::Pod;
use crate::sys::process::Side;
use crate::sys::socket::Rights;
use crate::sys::{Error, Result, file, process, socket};
use slipway_monitor::protocol::{IdRange, Parameter, Reply};
use slipway_monitor::wire::List;
use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const USER: u64 = libc::CLONE_NEWUSER.cast_unsigned() as u64;
const NET: u64 = libc::CLONE_NEWNET.cast_unsigned() as u64;
/// The namespaces of a pod that its monitor joins, too.
const ENTERED: u64 = NET | (libc::CLONE_NEWIPC | libc::CLONE_NEWUTS).cast_unsigned() as u64;
/// How long the child may take, in seconds.
const SECONDS: i64 = 10;

/// Kinds in the order of their bits, with their names below `/proc/<pid>/ns`. A pid namespace is made by its first
/// process, not ahead.
const KINDS: [(u64, &str); 7] = [
    (0x80, "time_for_children"),
    (libc::CLONE_NEWNS.cast_unsigned() as u64, "mnt"),
    (libc::CLONE_NEWCGROUP.cast_unsigned() as u64, "cgroup"),
    (libc::CLONE_NEWUTS.cast_unsigned() as u64, "uts"),
    (libc::CLONE_NEWIPC.cast_unsigned() as u64, "ipc"),
    (USER, "user"),
    (NET, "net"),
];

/// The namespaces to make and their settings.
#[derive(Debug)]
pub(crate) struct Order {
    /// `CLONE_NEW*` flags.
    pub(crate) kinds: u64,
    pub(crate) uids: List<IdRange>,
    pub(crate) gids: List<IdRange>,
    pub(crate) hostname: String,
    pub(crate) sysctls: List<Parameter>,
}

/// Makes the namespaces and opens them, in the order of their bits.
pub(crate) fn make(pod: &Pod, order: &Order) -> std::result::Result<Vec<OwnedFd>, Reply> {
    let refused = |why: String| Reply::Refused { why };
    let known = KINDS.iter().fold(0, |all, (kind, _)| all | kind);
    if order.kinds & !known != 0 {
        return Err(refused(format!("namespaces {:#x} can't be made ahead", order.kinds & !known)));
    }
    if (order.kinds & USER != 0) == (order.uids.0.is_empty() || order.gids.0.is_empty()) {
        return Err(refused("a user namespace comes with maps, and maps with a user namespace".into()));
    }
    let parameters = order.sysctls.0.iter().map(|one| CString::new(one.name.clone()));
    let names = parameters.collect::<std::result::Result<Vec<_>, _>>();
    let names = names.map_err(|_| refused("a kernel parameter's name has a NUL byte".into()))?;
    let system =
        |error: Error| Reply::StepFailed { step: BEFORE, what: error.call.into(), errno: error.errno };
    let (channel, theirs) = socket::pair().map_err(system)?;
    match process::clone3(order.kinds & USER, None).map_err(system)? {
        Side::Child => {
            drop(channel);
            run(pod.proc.as_fd(), theirs.as_fd(), (order, &names))
        }
        Side::Parent(pid) => {
            drop(theirs);
            let made = supervise(pod, order, (pid, channel.as_fd()));
            let _ = process::kill(pid, libc::SIGKILL);
            let _ = process::wait_for(pid);
            made
        }
    }
}

/// Joins a pod's network namespace.
pub(crate) fn enter_network(namespace: &OwnedFd) -> Result<()> {
    process::setns(namespace.as_fd(), NET)
}

/// Joins those of a pod's new namespaces that its monitor is to be in.
pub(crate) fn enter(kinds: u64, made: &[OwnedFd]) -> Result<()> {
    let kinds = KINDS.iter().map(|(kind, _)| *kind).filter(|kind| kinds & kind != 0);
    let mut entered = kinds.zip(made).filter(|(kind, _)| ENTERED & kind != 0);
    entered.try_for_each(|(kind, descriptor)| process::setns(descriptor.as_fd(), kind))
}

/// The child's life; it neither allocates nor parses.
fn run(proc: BorrowedFd<'_>, channel: BorrowedFd<'_>, order: (&Order, &[CString])) -> ! {
    if let Err(error) = live(proc, channel, order) {
        let _ = report::tell_failure(report::Way { channel, pass: 0 }, BEFORE, error);
    }
    process::exit_now(0)
}

fn live(proc: BorrowedFd<'_>, channel: BorrowedFd<'_>, (order, names): (&Order, &[CString])) -> Result<()> {
    report::wait(channel, 0)?;
    if order.kinds & USER != 0 {
        become_root()?;
    }
    let others = order.kinds & !USER;
    if others != 0 {
        process::unshare(others)?;
    }
    if !order.hostname.is_empty() {
        process::sethostname(order.hostname.as_bytes())?;
    }
    if order.kinds & NET != 0 {
        process::loopback_up(socket::datagram()?.as_fd())?;
    }
    for (name, parameter) in names.iter().zip(&order.sysctls.0) {
        sysctl(proc, name, parameter.value.as_bytes())?;
    }
    report::tell(channel, Kind::Executing, (0, 0))?;
    report::wait(channel, 0)
}

fn supervise(
    pod: &Pod,
    order: &Order,
    (pid, channel): (i32, BorrowedFd<'_>),
) -> std::result::Result<Vec<OwnedFd>, Reply> {
    let failed = |what: &str, errno| Reply::StepFailed { step: BEFORE, what: what.into(), errno };
    let system = |error: Error| failed(error.call, error.errno);
    if order.kinds & USER != 0 {
        write_map(pod, pid, ("uid_map", &order.uids.0)).map_err(system)?;
        write_map(pod, pid, ("gid_map", &order.gids.0)).map_err(system)?;
    }
    socket::limit_wait(channel, SECONDS).map_err(system)?;
    report::go(channel).map_err(system)?;
    match report::read(channel, 0, Rights::Dropped).map_err(system)?.map(|told| told.report) {
        Some(Report::Executing) => {}
        Some(Report::Failed { errno, call, .. }) => return Err(failed(&call, errno)),
        None => return Err(failed("make namespaces", libc::ETIMEDOUT)),
        Some(_) => return Err(failed("make namespaces", libc::ESRCH)),
    }
    let wanted = KINDS.iter().filter(|(kind, _)| order.kinds & kind != 0);
    wanted.map(|(_, name)| open(pod, &format!("{pid}/ns/{name}"), libc::O_RDONLY).map_err(system)).collect()
}

fn open(pod: &Pod, path: &str, flags: i32) -> Result<OwnedFd> {
    let path = CString::new(path).map_err(|_| Error { call: "path", errno: libc::EINVAL })?;
    file::openat(pod.proc.as_fd(), &path, flags, 0)
}

fn write_map(pod: &Pod, pid: i32, (name, ranges): (&str, &[IdRange])) -> Result<()> {
    let mut text = String::new();
    for IdRange { inside, outside, count } in ranges {
        let _ = writeln!(text, "{inside} {outside} {count}");
    }
    let map = open(pod, &format!("{pid}/{name}"), libc::O_WRONLY)?;
    let renamed = |error: Error| Error { call: "write the id map", ..error };
    // The kernel takes a map in one write.
    file::write(map.as_fd(), text.as_bytes()).map(drop).map_err(renamed)
}
