//! The effects of a plan's steps on a process, as the process itself sees them.

use crate::pod::{Options, Pod, shell};
use slipway_monitor::exit_file;
use slipway_monitor::plan::{Parameter, Step};
use slipway_monitor::protocol::{Hierarchy, IdRange, Reply, Request};
use slipway_monitor::wire::List;

fn text(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap()
}

#[test]
fn a_process_has_the_identity_and_privileges_of_its_plan() {
    let Some(pod) = Pod::new() else { return };
    // `ld [4]; ret ALLOW`: a filter that allows all, so that `Seccomp: 2` shows in the status.
    let program = [[0x20, 0, 0, 0, 4, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0xff, 0x7f]].concat();
    let steps = vec![
        Step::OomScore { value: 321 },
        Step::OwnStreams { uid: 1000, gid: 1001 },
        Step::Limit { resource: 7, soft: 64, hard: 128 },
        Step::Bounding { set: 1 << 10 },
        Step::Identity { uid: 1000, gid: 1001, groups: List(vec![1002, 1003]) },
        Step::Capabilities { effective: 1 << 10, permitted: 1 << 10, inheritable: 1 << 10, ambient: 1 << 10 },
        Step::NoNewPrivileges {},
        Step::Seccomp { program },
    ];
    let script = "cat /proc/self/status /proc/self/oom_score_adj; ulimit -n; echo own > /dev/stdout";
    let options = Options { steps, ..shell(script) };
    let reply = pod.start(&pod.connect(), "one", &options);
    assert!(matches!(reply, Reply::Started { .. } | Reply::Refused { .. }), "{reply:?}");
    pod.wait_for_file("one.exit");
    let log = pod.file("one.log");
    for line in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t1001\t1001\t1001\t1001",
        "Groups:\t1002 1003 ",
        "CapEff:\t0000000000000400",
        "CapBnd:\t0000000000000400",
        "CapAmb:\t0000000000000400",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "F 321",
        "F 64",
        "F own",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(log.lines().any(|found| found.ends_with(line)), "{line}: {log}");
    }
}

#[test]
fn a_filter_is_installed_with_the_flags_of_its_plan() {
    let Some(pod) = Pod::new() else { return };
    let program = || [[0x20, 0, 0, 0, 4, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0xff, 0x7f]].concat();
    let steps = |flags| {
        vec![Step::NoNewPrivileges {}, Step::SeccompFlags { flags }, Step::Seccomp { program: program() }]
    };
    // LOG and SPEC_ALLOW.
    let options = Options { steps: steps(2 | 4), ..shell("cat /proc/self/status") };
    let reply = pod.start(&pod.connect(), "one", &options);
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    pod.wait_for_file("one.exit");
    assert!(pod.file("one.log").contains("Seccomp:\t2"), "{}", pod.file("one.log"));
    // The flags reach the kernel: it refuses an unknown one.
    let options = Options { steps: steps(1 << 31), ..shell("true") };
    let reply = pod.start(&pod.connect(), "two", &options);
    assert!(matches!(reply, Reply::StepFailed { errno: libc::EINVAL, .. }), "{reply:?}");
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_stay_as_they_are() {
    let Some(pod) = Pod::new() else { return };
    let steps = vec![
        Step::Mask { path: text("proc/acpi"), file: 1 },
        Step::Mask { path: text("proc/absent"), file: 1 },
        Step::Mask { path: text("proc/kcore"), file: 1 },
        Step::Mask { path: text("proc/keys"), file: 1 },
        Step::Mask { path: text("proc/scsi"), file: 1 },
        Step::ReadOnly { path: text("proc/sys") },
        Step::ReadOnlyRoot {},
    ];
    let script = "cat /proc/keys /proc/kcore; ls /proc/scsi /proc/acpi; echo 1 > /proc/sys/vm/drop_caches && echo bad; \
                  echo > /made && echo bad; echo done";
    let options = Options { steps, null: true, ..shell(script) };
    let reply = pod.start(&pod.connect(), "one", &options);
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    pod.wait_for_file("one.exit");
    let log = pod.file("one.log");
    let output: Vec<_> = log.lines().filter(|line| line.contains(" stdout ")).collect();
    assert!(!log.contains("bad") && output.last().unwrap().ends_with("F done"), "{log}");
    assert!(log.matches("Read-only").count() == 2, "{log}");
}

#[test]
fn a_terminal_is_the_containers_own_and_takes_size_and_input() {
    let Some(pod) = Pod::new() else { return };
    let parameter = |key: &str, value: &str| Parameter { key: text(key), value: Some(text(value)) };
    let mode = 0o20666;
    let steps = vec![
        Step::MakeDevice { path: text("dev/tty"), mode, device: rustix::fs::makedev(5, 0), uid: 0, gid: 0 },
        Step::MakeDirectory { path: text("dev/pts"), mode: 0o755 },
        Step::Mount {
            kind: text("devpts"),
            target: text("dev/pts"),
            attributes: 0,
            parameters: List(vec![parameter("ptmxmode", "0666"), parameter("mode", "0620")]),
        },
    ];
    let script = "read line; stty size; tty; echo got $line; echo bye > /dev/tty";
    let options = Options { steps, terminal: true, ..shell(script) };
    let client = pod.connect();
    let attach = Request::Attach { container: "one".into(), streams: 3 };
    assert_eq!(client.ask(&attach), Reply::Done {});
    let daemon = pod.connect();
    let reply = pod.start(&daemon, "one", &options);
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    let resize = Request::Resize { container: "one".into(), width: 100, height: 40 };
    assert_eq!(daemon.ask(&resize), Reply::Done {});
    client.send(&Request::Input { bytes: b"hello\n".to_vec() });
    let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
    let log = pod.file("one.log");
    assert_eq!(exit.wait_status, 0, "{log}");
    for line in ["F 40 100\r", "F /dev/pts/0\r", "F got hello\r", "F bye\r"] {
        assert!(log.split('\n').any(|found| found.ends_with(line)), "{line:?}: {log}");
    }
}

#[test]
fn a_session_in_a_user_namespace_has_a_terminal_of_the_container() {
    let Some(pod) = Pod::new() else { return };
    let daemon = pod.connect();
    let map = || List(vec![IdRange { inside: 0, outside: 300_000, count: 65_536 }]);
    let (uids, gids) = (map(), map());
    let kinds = 0x5c00_0000;
    daemon.send(&Request::Namespaces { kinds, uids, gids, hostname: "inside".into(), sysctls: List(vec![]) });
    let (reply, namespaces) = daemon.receive();
    assert_eq!(reply, Reply::Done {});
    pod.give_root_to(300_000);
    let steps = vec![
        Step::MakeDirectory { path: text("dev/pts"), mode: 0o755 },
        Step::Mount {
            kind: text("devpts"),
            target: text("dev/pts"),
            attributes: 0,
            parameters: List(vec![Parameter { key: text("ptmxmode"), value: Some(text("0666")) }]),
        },
    ];
    let options = Options { namespaces: Some(namespaces), steps, ..shell("sleep 1000") };
    let Reply::Started { pid: init, .. } = pod.start(&daemon, "one", &options) else { panic!("not started") };
    let client = pod.connect();
    let (reply, masters) =
        pod.exec_terminal(&client, ("one", init), "read line; stty size; tty; id -u; exit 4");
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    let resize = Request::Resize { container: String::new(), width: 90, height: 30 };
    assert_eq!(client.ask(&resize), Reply::Done {});
    rustix::io::write(&masters[0], b"go\n").unwrap();
    let Reply::Exited { exit, .. } = client.next() else { panic!("not told of the end") };
    assert_eq!(exit.wait_status >> 8, 4);
    let expected = "go\r\n30 90\r\n/dev/pts/0\r\n0\r\n";
    let (mut output, mut length) = (vec![0; 4096], 0);
    // A read may return a part of the output.
    while length < expected.len() {
        let Ok(more @ 1..) = rustix::io::read(&masters[0], &mut output[length..]) else { break };
        length += more;
    }
    assert_eq!(String::from_utf8_lossy(&output[..length]), expected);
}

#[test]
fn a_container_is_born_in_its_cgroup_or_enters_it_and_is_killed_by_it() {
    for hierarchy in [Hierarchy::Unified {}, Hierarchy::UnifiedByHand {}] {
        is_killed_by_its_cgroup(hierarchy);
    }
}

fn is_killed_by_its_cgroup(hierarchy: Hierarchy) {
    let Some(pod) = Pod::new() else { return };
    let Some(cgroup) = pod.unified_cgroup() else { return };
    let daemon = pod.connect();
    let options = Options { cgroup: Some(cgroup), hierarchy, ..shell("cat /proc/self/cgroup; sleep 1000") };
    let reply = pod.start(&daemon, "one", &options);
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    pod.wait_for_text("one.log", "slipway-monitor-");
    let stop = Request::Stop { container: "one".into(), signal: 15, grace_ms: 0 };
    assert_eq!(daemon.ask(&stop), Reply::Done {});
    let exit = exit_file::parse("one", &pod.wait_for_file("one.exit")).unwrap();
    assert_eq!(exit.wait_status & 0x7f, 9);
    pod.remove_cgroups();
}
