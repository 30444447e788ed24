//! A child between clone and exec: which descriptors it has, where it is, and what it may do, when its container could see
//! it.

use crate::places::open;
use crate::plans::{plan, sealed};
use crate::pod::{NEW_NS, NEW_PID, Options, Pod, shell};
use rustix::fs::OFlags;
use rustix::net::SendFlags;
use slipway_monitor::exit_file;
use slipway_monitor::plan::{Join, Step};
use slipway_monitor::protocol::{IdRange, Reply, Request};
use slipway_monitor::wire::List;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Before exec; the last sync point.
const LAST: u8 = 4;

fn listed(pid: i32) -> BTreeMap<u32, String> {
    let directory = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let target = std::fs::read_link(&path).unwrap().display().to_string();
            (path.file_name().unwrap().to_str().unwrap().parse().unwrap(), target)
        })
        .collect()
}

fn pids_of(pid: i32) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap()
}

/// Starts a container to its last sync point and gives its child.
fn start(pod: &Pod, name: &str, options: Options) -> (crate::client::Client, i32) {
    let daemon = pod.connect();
    let reply = pod.start(&daemon, name, &Options { pause_at: LAST, ..options });
    let Reply::AtSyncPoint { pid, point: LAST, .. } = reply else { panic!("{reply:?}") };
    (daemon, pid)
}

fn user_namespace(pod: &Pod) -> Vec<OwnedFd> {
    let daemon = pod.connect();
    let map = || List(vec![IdRange { inside: 0, outside: 300_000, count: 65_536 }]);
    let (uids, gids, hostname) = (map(), map(), "inside".into());
    daemon.send(&Request::Namespaces { kinds: 0x5c00_0000, uids, gids, hostname, sysctls: List(vec![]) });
    let (reply, namespaces) = daemon.receive();
    assert_eq!(reply, Reply::Done {});
    pod.give_root_to(300_000);
    namespaces
}

/// Marked to be closed on exec was not enough: exec resolves the path of its program first.
#[test]
fn a_child_has_closed_everything_but_its_streams_and_its_channel_before_it_executes() {
    for variant in ["plain", "user namespace", "shared processes"] {
        let Some(pod) = Pod::new() else { return };
        let options = match variant {
            "plain" => shell("exit 5"),
            "user namespace" => Options { namespaces: Some(user_namespace(&pod)), ..shell("exit 5") },
            _ => {
                let daemon = pod.connect();
                let Reply::Started { pid, .. } = pod.start(&daemon, "first", &shell("sleep 1000")) else {
                    panic!("not started")
                };
                let processes = open(Path::new(&format!("/proc/{pid}/ns/pid")), OFlags::RDONLY);
                Options { processes: Some(processes), ..shell("exit 5") }
            }
        };
        let shared = options.processes.is_some();
        let (daemon, pid) = start(&pod, "one", options);
        let open = listed(pid);
        assert_eq!(open.len(), 4, "{variant}: {open:?}");
        let mut kinds: Vec<_> = open.values().map(|target| target.split(':').next().unwrap()).collect();
        kinds.sort_unstable();
        // Without a node of its own the container's input is a pipe that has ended.
        let input = if variant == "user namespace" { "pipe" } else { "/dev/null" };
        assert_eq!(kinds, [input, "pipe", "pipe", "socket"], "{variant}: {open:?}");
        assert_eq!(open[&0].split(':').next(), Some(input), "{variant}: {open:?}");
        if shared {
            assert_eq!(pids_of(pid), pids_of(std::process::id().cast_signed()), "it can be seen already");
        }
        let go_on = Request::Continue { container: "one".into() };
        assert_eq!(pod.connect().ask(&go_on), Reply::Done {});
        let reply = daemon.next();
        assert!(
            matches!(reply, Reply::Started { pid: started, .. } if (started != pid) == shared),
            "{reply:?}"
        );
        let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
        assert_eq!(exit.wait_status >> 8, 5, "{variant}");
    }
}

/// A container that may trace can take the channel of a process that it sees, and report through it. A forged pid would
/// name any process of the host as the container's, to be entered and killed.
#[test]
fn a_report_of_another_process_than_the_child_is_not_heard() {
    let Some(pod) = Pod::new() else { return };
    let Reply::Started { pid: init, .. } = pod.start(&pod.connect(), "first", &shell("sleep 1000")) else {
        panic!("not started")
    };
    let processes = open(Path::new(&format!("/proc/{init}/ns/pid")), OFlags::RDONLY);
    let (daemon, pid) = start(&pod, "one", Options { processes: Some(processes), ..shell("sleep 1000") });
    let number = *listed(pid).iter().find(|(_, target)| target.starts_with("socket")).unwrap().0;
    let child = rustix::process::Pid::from_raw(pid).unwrap();
    let child = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()).unwrap();
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let taken = rustix::process::pidfd_getfd(&child, number.cast_signed(), flags).unwrap();
    let own = std::process::id().to_le_bytes();
    let report = |kind: u8| [&[kind][..], &own, &[0; 4]].concat();
    // A pid, a sync point, success, a failure, something unknown, nothing; and more than anybody reads at once.
    for packet in
        [report(1), report(2), report(4), report(5), report(77), Vec::new()].iter().cycle().take(200)
    {
        match rustix::net::send(&taken, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
    drop(taken);
    assert_eq!(pod.connect().ask(&Request::Continue { container: "one".into() }), Reply::Done {});
    let Reply::Started { pid, .. } = daemon.next() else { panic!("not started") };
    assert_ne!(pid, std::process::id().cast_signed());
    assert_eq!(pids_of(pid), pids_of(init));
}

/// `ld [nr]`, a jump for each of these calls, then `ret ALLOW`, `ret ERRNO(EPERM)`.
fn denies(calls: &[i64]) -> Vec<u8> {
    let mut program = vec![[0x20, 0, 0, 0, 0, 0, 0, 0]];
    for (number, call) in calls.iter().enumerate() {
        let [k0, k1, k2, k3] = u32::try_from(*call).unwrap().to_ne_bytes();
        let jump = u8::try_from(calls.len() - number).unwrap();
        program.push([0x15, 0, jump, 0, k0, k1, k2, k3]);
    }
    program.extend([[6, 0, 0, 0, 0, 0, 0xff, 0x7f], [6, 0, 0, 0, 1, 0, 5, 0]]);
    program.concat()
}

/// The filter is installed before the process can be seen in the container: what has to come after it passes, though a
/// filter that lists its program's calls alone would not let it.
#[test]
fn a_session_begins_under_a_filter_that_forbids_all_that_begins_it_and_counts_as_one_process() {
    let Some(pod) = Pod::new() else { return };
    let daemon = pod.connect();
    let Reply::Started { pid: init, .. } = pod.start(&daemon, "one", &shell("sleep 1000")) else {
        panic!("not started")
    };
    let calls = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_setsid, libc::SYS_sendmsg, libc::SYS_sendmmsg];
    let others = [libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_prlimit64];
    let calls = calls.into_iter().chain(others).collect::<Vec<_>>();
    let steps = vec![
        Step::Session { terminal: false },
        // One process: the one outside, which has the same user by then, must not count.
        Step::Limit { resource: libc::RLIMIT_NPROC, soft: 1, hard: 1 },
        Step::Seccomp { program: denies(&calls) },
        Step::Identity { uid: 54_321, gid: 54_321, groups: List(Vec::new()) },
    ];
    let mut made = plan(&shell("exit 7"), steps);
    let mut descriptors = Vec::new();
    for (number, (name, kind)) in [("pid", NEW_PID), ("mnt", NEW_NS)].iter().enumerate() {
        descriptors.push(open(Path::new(&format!("/proc/{init}/ns/{name}")), OFlags::RDONLY));
        made.join.0.push(Join { descriptor: u16::try_from(number).unwrap(), kind: *kind });
    }
    descriptors.insert(0, sealed(&made));
    for _ in 0..3 {
        descriptors.push(open(Path::new("/dev/null"), OFlags::RDWR));
    }
    let client = pod.connect();
    client.send_descriptors(&descriptors);
    let reply = client.ask(&Request::Exec { container: "one".into(), terminal: false, deadline_ms: 0 });
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    let Reply::Exited { exit, .. } = client.next() else { panic!("not told of its end") };
    assert_eq!(exit.wait_status >> 8, 7);
}
