//! A pod's monitor as the machine sees it: its name, and what it may still do.

use serde_json::json;
use slipway_tests::{Node, Output, Pod, build::Context, monitor, residue, wait};
use std::fs;
use std::process::{Command, Stdio};

/// The capabilities that a monitor keeps for its own work: SYS_ADMIN among them, and none that changes the machine by itself.
const OWN: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 12, 18, 19, 21, 24, 27, 31]);
/// The usual capabilities of a container.
const DEFAULT: u64 = 0xa804_25fb;

const fn bits(numbers: &[u32]) -> u64 {
    let (mut set, mut at) = (0, 0);
    while at < numbers.len() {
        set |= 1 << numbers[at];
        at += 1;
    }
    set
}

/// A set of capabilities in the status of a process.
fn set(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("such a line");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a set")
}

/// Permitted, bounding, effective, inheritable and ambient.
fn sets(pid: u32) -> [u64; 5] {
    ["CapPrm", "CapBnd", "CapEff", "CapInh", "CapAmb"].map(|name| set(pid, name))
}

/// ps and top showed monitors as "15", the number of a descriptor.
#[test]
fn a_monitor_has_its_name_in_ps_and_top() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let pid = monitor(&node, &pod.id).to_string();
    let ps = |form: &str| Output::of(Command::new("ps").args(["-o", form, "-p", &pid])).ok().to_owned();
    assert_eq!(ps("comm="), "slipway-monitor");
    assert_eq!(ps("args="), format!("slipway-monitor {}", pod.id));
    let top = Output::of(Command::new("top").args(["-b", "-n", "1", "-w", "200", "-p", &pid]));
    assert!(top.ok().contains("slipway-monitor"), "{top:#?}");
    let shared = json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": 0}}}});
    let shared = Pod::start(&node, "shared", shared);
    let id = shared.run("main", "exec sleep 1000", json!({}));
    assert_eq!(shared.exec(&id, "cat /proc/1/comm"), "pause");
}

/// A monitor kept every capability of the daemon's, whatever its pod's containers could ever have: a way into it was a
/// way to the machine's clock, modules and memory.
#[test]
fn a_monitor_keeps_what_its_work_needs_and_what_its_containers_may_still_be_given() {
    let node = Node::start();
    node.build("busybox:1", "");
    let all = set(node.pid(), "CapPrm") & set(node.pid(), "CapBnd");
    let (own, default) = (OWN & all, DEFAULT & all);
    let run = |name: &str, flags: &[&str]| {
        let arguments =
            [&["run", "-d", "--network", "host", "--name", name], flags, &["busybox:1", "sleep", "1000"]];
        let _ = node.slipway(&arguments.concat()).ok();
        let found = residue::processes(&node).into_iter().map(|(pid, _)| pid);
        found.max_by_key(|pid| started(*pid)).expect("a monitor")
    };
    // One container that can't be given more: the monitor can't get it back either.
    let confined = run("confined", &[]);
    assert_eq!(sets(confined), [own | default, own | default, own, 0, 0]);
    let exec =
        |name: &str| node.slipway(&["exec", name, "grep", "CapBnd", "/proc/self/status"]).ok().to_owned();
    assert!(exec("confined").ends_with(&format!("{default:016x}")));
    let privileged = run("privileged", &["--privileged"]);
    assert_eq!(sets(privileged), [all, all, own, 0, 0]);
    assert!(exec("privileged").ends_with(&format!("{all:016x}")));
    // Kubernetes may ask for any capability in any later container of a pod, which is made all the same.
    let pod = Pod::start(&node, "web", json!({}));
    assert_eq!(sets(monitor(&node, &pod.id)), [all, all, own, 0, 0]);
    let every = json!({"linux": {"security_context": {"capabilities": {"add_capabilities": ["ALL"]}}}});
    let id = pod.run("every", "exec sleep 1000", every);
    assert!(pod.exec(&id, "grep CapEff /proc/1/status").ends_with(&format!("{all:016x}")));
    for pid in [confined, privileged] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        assert!(status.contains("Seccomp:\t0"), "its containers would inherit a filter: {status}");
    }
}

/// When a process was started, in ticks since the machine's.
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

#[test]
fn the_monitor_of_a_build_keeps_no_more_than_a_run_needs() {
    let node = Node::start();
    node.build("busybox:1", "");
    let all = set(node.pid(), "CapPrm") & set(node.pid(), "CapBnd");
    let context = Context::new("FROM busybox:1\nRUN sleep 4321\n");
    let mut build = node.command();
    let log = fs::File::create(node.path("build.log")).expect("a file");
    build.args(["build", &context.path()]).stdout(Stdio::null()).stderr(log);
    let mut build = build.spawn().expect("slipway starts");
    let sleeps = || {
        let mut processes = fs::read_dir("/proc").expect("/proc").flatten();
        processes
            .any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x004321\0"))
    };
    wait("the RUN", sleeps);
    let (pid, command) = residue::processes(&node).into_iter().next().expect("a monitor");
    assert!(command.contains("build-"), "{command}");
    let kept = (OWN | DEFAULT) & all;
    assert_eq!(sets(pid), [kept, kept, OWN & all, 0, 0]);
    let _ = build.kill();
    let _ = build.wait();
    wait("the end of the build's monitor", || residue::processes(&node).is_empty());
}
