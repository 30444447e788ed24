//! No inode of the host is shared writable: whatever an unprivileged container reaches of the host's file systems, by any
//! path or descriptor, keeps its mode, owner, times and content. And no key of the daemon's is in reach either.

use serde_json::json;
use slipway_runtime::{ContainerId, Exec, PidMode};
use slipway_tests::build::{Context, built};
use slipway_tests::{Embedded, Node, Output, Pod, probe};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

/// Files that a pod's containers get from the runtime, made for that pod.
const OF_THE_POD: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "kmsg"];

/// Every file system that is mounted here, before any container's.
fn host_file_systems() -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let numbers = mounts.lines().filter_map(|line| line.split(' ').nth(2)?.split_once(':'));
    let device = |(major, minor): (&str, &str)| {
        rustix::fs::makedev(major.parse().expect("a number"), minor.parse().expect("a number"))
    };
    // Nodes below a mount may belong to another one: /dev itself where it is not mounted.
    let own = DEVICES.iter().filter_map(|name| fs::metadata(format!("/dev/{name}")).ok());
    let all: BTreeSet<u64> = numbers.map(device).chain(own.map(|stat| stat.dev())).collect();
    all.iter().fold(String::from(","), |list, device| format!("{list}{device},"))
}

type State = (u32, u32, u32, i64, i64, i64, i64);

fn nodes() -> Vec<(&'static str, State)> {
    let state = |name: &&'static str| {
        let stat = fs::metadata(format!("/dev/{name}")).ok()?;
        let times = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        Some((*name, (stat.mode(), stat.uid(), stat.gid(), times.0, times.1, times.2, times.3)))
    };
    DEVICES.iter().filter_map(state).collect()
}

#[track_caller]
fn changes_nothing(by: &str, said: &str) {
    let changed = said.lines().filter(|line| line.contains("changed "));
    let changed: Vec<_> = changed.filter(|line| !OF_THE_POD.iter().any(|own| line.ends_with(own))).collect();
    assert!(changed.is_empty(), "{by}: {changed:#?}");
    // It has seen some: sysfs at least is the host's.
    let reached = said.lines().find_map(|line| line.split_once("reached ")).expect("a count").1;
    assert_ne!(reached.trim(), "0", "{by}");
}

fn at_terminal(bed: &Embedded, id: &ContainerId, command: [&str; 3]) -> String {
    let exec = Exec { argv: command.map(String::from).to_vec(), tty: true, ..Exec::default() };
    let mut session = bed.runtime.exec(id, &exec).expect("an exec");
    let mut said = Vec::new();
    // A terminal whose last process has ended gives EIO.
    let _ = fs::File::from(session.terminal.take().expect("a terminal")).read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// A container's root changed mode and owner of the host's /dev/null: through a masked file, through its standard input,
/// and in a user namespace by touch(1) on its device.
#[test]
fn a_container_changes_no_inode_of_the_host() {
    let devices = host_file_systems();
    let command = ["/bin/spy", "alter", &devices];
    let bed = Embedded::start(311);
    let before = nodes();
    for (name, mapped, pid) in [
        ("plain", false, PidMode::Container),
        ("shared", false, PidMode::Pod),
        ("mapped", true, PidMode::Container),
    ] {
        let pod = bed.pod(name, pid, mapped);
        for tty in [false, true] {
            let mut request = bed.request(&pod, &format!("start-{tty}"), &command);
            request.tty = tty;
            let id = bed.run(request).expect("a container");
            changes_nothing(&format!("{name}, start, terminal {tty}"), &bed.ended(&id).1);
        }
        let id = bed.run(bed.request(&pod, "main", &["/bin/sleep", "1000"])).expect("a container");
        let executed = bed.exec(&id, &command).expect("an exec");
        changes_nothing(&format!("{name}, exec"), &String::from_utf8_lossy(&executed.stdout));
        changes_nothing(&format!("{name}, exec with a terminal"), &at_terminal(&bed, &id, command));
        // The devices work, and so does what hides a file.
        let script = "echo x >/dev/null && cat /dev/null /proc/keys && cat </dev/null && [ ! -e /proc/kcore ] || cat /proc/kcore";
        let executed = bed.exec(&id, &["/bin/sh", "-c", script]).expect("an exec");
        assert_eq!((executed.code, executed.stdout.len(), executed.stderr.len()), (0, 0, 0), "{executed:?}");
        bed.runtime.remove_sandbox(&pod).expect("the sandbox goes");
        assert_eq!(nodes(), before, "{name}");
    }
}

#[test]
fn a_run_step_changes_no_inode_of_the_host() {
    let devices = host_file_systems();
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let before = nodes();
    let context = tempfile::tempdir_in(node.path("")).expect("a build context");
    let dockerfile = format!("FROM busybox:1\nRUN [\"/bin/spy\", \"alter\", \"{devices}\"]\n");
    fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let built = node.slipway(&["build", &context.path().display().to_string()]);
    assert_eq!(built.status, 0, "{built:#?}");
    changes_nothing("a build", &built.stderr);
    assert_eq!(nodes(), before);
}

/// The container's root can put a FIFO, a file or a link in the place of its null device: an exec neither waits for it nor
/// reads it.
#[test]
fn an_exec_without_input_reads_nothing_whatever_the_container_s_null_device_is() {
    let bed = Embedded::start(312);
    let pod = bed.pod("plain", PidMode::Container, false);
    for (number, replace) in [
        ":",
        "busybox rm /dev/null",
        "busybox rm /dev/null; busybox mkfifo /dev/null",
        "busybox rm /dev/null; echo secret >/dev/null",
        "busybox rm /dev/null; busybox ln -s /dev/zero /dev/null",
        "busybox rm /dev/null; busybox ln -s /proc/self/fd/0 /dev/null",
    ]
    .into_iter()
    .enumerate()
    {
        let script = format!("{replace}; echo ready; exec sleep 1000");
        let name = format!("c{number}");
        let id =
            bed.run(bed.request(&pod, &name, &["/bin/busybox", "sh", "-c", &script])).expect("a container");
        slipway_tests::wait("the script", || bed.log(&name).contains("ready"));
        let executed = bed.exec(&id, &["/bin/cat"]).expect("an exec");
        assert_eq!((executed.code, executed.stdout.len()), (0, 0), "{replace}: {executed:?}");
    }
}

/// A node whose daemon has a key in its session keyring, and the probe's image; none where the kernel has no keyrings.
fn keyed() -> Option<Node> {
    let mut node = Node::start();
    probe::compile(&node.path(""));
    let tool = node.path("spy");
    if Output::of(Command::new(&tool).arg("keyring")).stdout.trim() == "-1" {
        return None;
    }
    node.kill();
    let mut command = Command::new(&tool);
    command.args(["keyed", "slipway-secret"]).arg(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd"));
    node.launch_by(command);
    probe::build(&node, "busybox:1", "");
    Some(node)
}

/// Containers had the daemon's session keyring: a container without a filter read the keys of whoever had started the
/// daemon, and every container those of every other.
#[test]
fn each_container_and_each_exec_has_an_empty_session_keyring_of_its_own() {
    let Some(node) = keyed() else {
        return slipway_tests::skip(
            "each_container_and_each_exec_has_an_empty_session_keyring_of_its_own",
            "the kernel has no keyrings",
        );
    };
    let pod = Pod::start(&node, "web", json!({}));
    let free = || json!({"linux": {"security_context": {"seccomp": {"profile_type": 1}}}});
    let script = "spy key slipway-secret; spy keyring";
    let said: Vec<_> = ["one", "two"].map(|name| pod.says(name, script, free())).to_vec();
    let id = pod.run("main", "exec sleep 1000", free());
    let executed = [pod.exec(&id, script), pod.exec(&id, script)];
    let mut rings = BTreeSet::new();
    for said in said.iter().chain(&executed) {
        let (key, ring) = said.trim().split_once('\n').expect("two lines");
        assert_eq!(key, "ENOKEY", "{said}");
        assert!(
            ring.parse::<i64>().expect("a number") > 0 && rings.insert(ring.to_owned()),
            "{rings:?} {ring}"
        );
    }
}

/// The command of a RUN had the daemon's session keyring as containers had it. Its seccomp filter refuses keyctl(2), so
/// that the test suspends the filter from outside.
#[test]
fn each_run_of_a_build_has_an_empty_session_keyring_of_its_own() {
    const NAME: &str = "each_run_of_a_build_has_an_empty_session_keyring_of_its_own";
    let Some(node) = keyed() else { return slipway_tests::skip(NAME, "the kernel has no keyrings") };
    let mut rings = BTreeSet::new();
    for number in ["1", "2"] {
        let context =
            Context::new(&format!("FROM busybox:1\nRUN exec spy patient slipway-secret {number}\n"));
        let asks = format!("spy\0patient\0slipway-secret\0{number}\0");
        let output = std::thread::scope(|scope| {
            let building = scope.spawn(|| built(&node, &context, &[]));
            let mut pid = None;
            slipway_tests::wait("the command of the RUN", || {
                assert!(!building.is_finished(), "the build ended without it");
                pid = process_of(asks.as_bytes());
                pid.is_some()
            });
            let pid = pid.expect("a process").to_string();
            let suspended = Output::of(Command::new(node.path("spy")).args(["unfilter", &pid]));
            if suspended.status != 0 {
                Command::new("kill").args(["-9", &pid]).status().expect("kill");
                return Err(suspended.stdout);
            }
            Ok(building.join().expect("the build"))
        });
        let output = match output {
            Ok(output) => output,
            Err(errno) if errno.trim() == "EINVAL" => {
                return slipway_tests::skip(NAME, "the kernel can't suspend a seccomp filter");
            }
            Err(errno) => panic!("the filter is not suspended: {errno}"),
        };
        let ring = output.stderr.split_once("key ENOKEY ring ").map(|(_, rest)| rest);
        let ring = ring.unwrap_or_else(|| panic!("{output:#?}"));
        let digits: String = ring.chars().take_while(char::is_ascii_digit).collect();
        assert!(digits.parse::<i64>().expect("a ring") > 0 && rings.insert(digits), "{output:#?}");
    }
}

/// The process with these arguments.
fn process_of(arguments: &[u8]) -> Option<u32> {
    let pids = fs::read_dir("/proc").expect("proc").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == arguments))
}
