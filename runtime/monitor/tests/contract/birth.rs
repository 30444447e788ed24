//! The cgroup in which the monitor's own process is created.

use crate::places::{Proc, open};
use crate::pod::{Pod, make_unified, shell};
use rustix::fs::OFlags;
use slipway_monitor::exit_file;
use slipway_monitor::protocol::{Reply, Request, VERSION};
use std::path::Path;
use std::process::{Command, Stdio};

/// The value of a field of `/proc/<pid>/status`.
fn status(pid: i32, word: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn a_monitor_is_born_in_the_cgroup_that_is_its_standard_output_and_has_the_same_parent() {
    let name = format!("birth-{}", std::process::id());
    let Some(cgroup) = make_unified(&name) else { return };
    let directory = open(&cgroup, OFlags::RDONLY | OFlags::DIRECTORY);
    let pod = Pod::started(Proc::Fresh, Stdio::from(directory)).unwrap();
    let daemon = pod.connect();
    let Reply::Hello { pid, .. } = daemon.ask(&Request::Hello { version: VERSION }) else { panic!() };
    assert_eq!(std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap(), format!("{pid}\n"));
    assert_eq!(status(pid, "PPid"), std::process::id().to_string());
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/1")).unwrap(), Path::new("/dev/null"));
    // It works as a monitor: it is the parent of its containers and learns of their end.
    let reply = pod.start(&daemon, "one", &shell("exit 3"));
    let Reply::Started { .. } = reply else { panic!("not started: {reply:?}") };
    let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
    assert_eq!(exit.wait_status >> 8, 3);
    drop((daemon, pod));
    std::fs::remove_dir(cgroup).unwrap();
}

#[test]
fn a_monitor_that_its_cgroup_refuses_ends_with_the_number_of_the_error() {
    let directory = || std::fs::File::open("/").unwrap();
    let (listener, _other) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-monitor"));
    let ended = command.stdin(Stdio::from(listener)).stdout(directory()).output().unwrap();
    assert_eq!(ended.status.code(), Some(rustix::io::Errno::BADF.raw_os_error()));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.starts_with("slipway-monitor: clone3 into the cgroup of monitors: "), "{said}");
}
