//! The start of a daemon after a failure: a reboot, records that can't be read, a full disk, a file system that hangs,
//! concurrent requests.

use serde_json::json;
use slipway_tests::fault::{Strace, kill};
use slipway_tests::{Need, Node, Registry, Residue, lacks, residue, wait};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn node() -> Node {
    let node = Node::start();
    node.build("busybox:1", "");
    node
}

fn bridged() -> serde_json::Value {
    json!({"hostname": "web", "linux": {"security_context": {"namespace_options": {"network": 0}}}})
}

/// Takes away what a reboot does: processes, mounts, cgroups, links, the state directory; and names another boot.
fn reboot(node: &mut Node) {
    node.kill();
    residue::everyone(node).into_iter().for_each(kill);
    wait("the end of all processes", || residue::everyone(node).is_empty());
    node.unmount();
    std::fs::remove_dir_all(node.path("run")).expect("the state directory is removed");
    wait("the end of all cgroups", || {
        node.remove_cgroups();
        !Path::new("/sys/fs/cgroup/freezer").join(node.cgroup()).exists()
    });
    let _ = Command::new("ip").args(["link", "del", &node.bridge()]).stderr(Stdio::null()).status();
    let _ =
        Command::new("nft").args(["delete", "table", "inet", &node.table()]).stderr(Stdio::null()).status();
    let boot = node.path("boot_id");
    std::fs::write(&boot, "01234567-89ab-cdef-0123-456789abcdef\n").expect("another boot's name");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"").arg(boot);
    command.arg(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd"));
    node.launch_by(command);
}

#[test]
fn after_a_reboot_everything_has_ended_and_nothing_is_held() {
    let mut node = node();
    let pod = node.pod("web", bridged());
    let ended = node.container(&pod, "web", "ended", "exit 7");
    let running = node.container(&pod, "web", "running", "echo dirty >/made; sleep 1000");
    let own =
        node.slipway(&["run", "-d", "--name", "boat", "busybox:1", "sh", "-c", "echo >/made; sleep 1000"]);
    let own = own.ok().to_owned();
    assert_eq!(node.exited(&ended)["exitCode"], 7);
    let upper = |container: &str| node.path(format!("lib/containers/{container}/upper"));
    let (volatile, lasting) = (upper(&running), upper(&own));
    wait("what both have written", || volatile.join("made").exists() && lasting.join("made").exists());
    reboot(&mut node);
    let status = node.status(&running);
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(255), &json!("MonitorLost")), "{status:#}");
    assert!(status["message"].as_str().is_some_and(|message| message.contains("went down")), "{status:#}");
    assert_eq!(node.status(&ended)["exitCode"], 7);
    let state = node.crictl(&["inspectp", &pod]).json()["status"]["state"].clone();
    assert_eq!(state, "SANDBOX_NOTREADY");
    assert!(!volatile.exists() && lasting.join("made").exists(), "what was not synced is not trusted");
    let addresses = node.path("lib/addresses");
    wait("the addresses", || {
        let names = std::fs::read_dir(&addresses).expect("addresses").flatten();
        names.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count() == 0
    });
    let next = node.pod("next", bridged());
    let container = node.container(&next, "next", "main", "exit 3");
    assert_eq!(node.exited(&container)["exitCode"], 3);
    node.kill();
    node.launch();
    assert_eq!(
        node.status(&running)["finishedAt"],
        status["finishedAt"],
        "the end is told the same way again"
    );
    let _ = node.crictl(&["rmp", "-f", "-a"]).ok();
    let _ = node.slipway(&["rm", "-f", "boat"]).ok();
    assert_eq!(std::fs::read_dir(node.path("lib/pods")).expect("pods").count(), 0);
    assert_eq!(std::fs::read_dir(node.path("lib/containers")).expect("containers").count(), 0);
}

/// Puts damaged records beside good ones.
fn hostile(directory: &Path) -> Vec<PathBuf> {
    let head = "slipway-record 1 4a1f0bd2-0000-0000-0000-000000000000 2 0000000000000000\n";
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("this boot's name");
    let ours = head.replace("4a1f0bd2-0000-0000-0000-000000000000", boot.trim());
    let records: [(&str, Vec<u8>); 6] = [
        ("no-line", b"slipway-record 1".to_vec()),
        ("cut", ours.clone().into_bytes()),
        ("sum", format!("{ours}{{}}").into_bytes()),
        ("version", ours.replace("record 1", "record 9").into_bytes()),
        ("binary", (0..=255).cycle().take(5000).collect()),
        ("huge", vec![b'x'; 40 << 20]),
    ];
    let mut kept = Vec::new();
    for (name, bytes) in records {
        for file in ["record", "request"] {
            let path = directory.join(format!("{name}-{file}")).join(file);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            std::fs::write(&path, &bytes).expect("a hostile record");
            // Without the runtime's record a directory is garbage, whatever else is in it.
            if file == "record" {
                kept.push(path);
            }
        }
    }
    for (name, record) in [("garbage", None), ("torn", Some(vec![0; 512])), ("empty", Some(Vec::new()))] {
        std::fs::create_dir_all(directory.join(name)).expect("a directory");
        if let Some(bytes) = record {
            std::fs::write(directory.join(name).join("record"), bytes).expect("a torn record");
        }
    }
    kept
}

fn are_listed_and_removed(node: &Node, records: &[PathBuf], list: &[&str], verb: &str) {
    for record in records {
        let directory = record.parent().expect("a directory");
        let id = directory.file_name().expect("a name").to_string_lossy().into_owned();
        let listed = node.crictl(&[list, &["-q", "--no-trunc"]].concat());
        assert!(listed.ok().contains(&id), "{id}: {listed:#?}");
        let _ = node.crictl(&[verb, "-f", &id]).ok();
        assert!(!directory.exists(), "{}", directory.display());
    }
}

#[test]
fn records_that_can_not_be_read_are_reported_and_listed_until_they_are_removed_and_the_rest_is_served() {
    let mut node = node();
    let pod = node.pod("web", bridged());
    let container = node.container(&pod, "web", "main", "sleep 1000");
    node.kill();
    let pods = hostile(&node.path("lib/pods"));
    let containers = hostile(&node.path("lib/containers"));
    node.launch();
    assert_eq!(node.crictl(&["exec", "-s", &container, "echo", "afloat"]).ok(), "afloat");
    let (log, check) = (node.log(), node.slipway(&["check"]));
    assert_eq!(check.status, 1, "{check:#?}");
    let info = node.crictl(&["info"]).json();
    let ready = &info["status"]["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("RuntimeReady"), &json!(true)), "{info:#}");
    assert_eq!(ready["reason"], "RecordsDamaged", "{info:#}");
    for path in pods.iter().chain(&containers) {
        let name = path.display().to_string();
        assert!(path.exists() && log.contains(&name), "{name}:\n{log}");
        assert!(check.stdout.contains(&name) && info.to_string().contains(&name), "{name}: {check:#?}");
    }
    are_listed_and_removed(&node, &containers, &["ps", "-a"], "rm");
    are_listed_and_removed(&node, &pods, &["pods"], "rmp");
    for name in ["garbage", "torn", "empty", "sum-request", "huge-request"] {
        assert!(!node.path(format!("lib/pods/{name}")).exists(), "{name}");
        assert!(!node.path(format!("lib/containers/{name}")).exists(), "{name}");
    }
    assert_eq!(node.slipway(&["check"]).ok(), "");
}

/// The records of a running pod and of its container, by their places below the root.
fn records_of(pod: &str, container: &str) -> [String; 4] {
    [
        format!("lib/pods/{pod}/record"),
        format!("lib/pods/{pod}/ready"),
        format!("lib/containers/{container}/record"),
        format!("lib/containers/{container}/started.1"),
    ]
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("the record");
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    std::fs::write(path, bytes).expect("the record is damaged");
}

/// A damaged request made a running container vanish while it ran, and its name free for a second one.
#[test]
fn a_running_pod_whose_record_is_damaged_or_gone_is_made_whole_and_loses_nothing() {
    let mut node = node();
    let pod = node.pod("web", bridged());
    let container = node.container(&pod, "web", "main", "sleep 1000");
    for file in records_of(&pod, &container) {
        for remove in [false, true] {
            let path = node.path(&file);
            node.kill();
            let before = Residue::of(&node);
            if remove {
                std::fs::remove_file(&path).expect("the record is removed")
            } else {
                flip(&path)
            }
            node.launch();
            let ran = node.crictl(&["exec", "-s", &container, "echo", "afloat"]);
            assert_eq!((ran.status, ran.stdout.trim()), (0, "afloat"), "{file}: {ran:#?}\n{}", node.log());
            assert!(node.log().contains(&path.display().to_string()), "{file}:\n{}", node.log());
            let check = node.slipway(&["check"]);
            assert!(check.ok().contains(&format!("{}: ", path.display())), "{file}: {check:#?}");
            let lost = before.beyond(&Residue::of(&node));
            assert!(lost.is_empty(), "{file}: {lost:#?}\n{}", node.log());
            node.kill();
            node.launch();
            assert_eq!(node.slipway(&["check"]).ok(), "", "{file}");
        }
    }
    let file = node.container_file("main", "busybox:1", "exit 0", json!({}));
    let pod_file = node.path("web.pod.json").display().to_string();
    let second = node.crictl(&["create", &pod, &file, &pod_file]);
    assert!(second.error().contains(&container), "the name is taken: {second:#?}");
}

/// A torn `started` made a container and its pod unremovable.
#[test]
fn a_running_pod_whose_record_is_damaged_for_good_is_listed_and_goes_without_a_rest() {
    let mut node = node();
    let _ = node.crictl(&["version"]).ok();
    let base = Residue::of(&node);
    for at in 0..4 {
        let pod = node.pod("web", bridged());
        let container = node.container(&pod, "web", "main", "sleep 1000");
        let file = records_of(&pod, &container)[at].clone();
        let copy = node.path(file.replace("lib/", "run/copies/"));
        node.kill();
        flip(&node.path(&file));
        flip(&copy);
        node.launch();
        let listed = node.crictl(&["ps", "-a", "-q", "--no-trunc"]);
        assert_eq!(listed.ok(), container, "{file}: {}", node.log());
        assert_eq!(node.status(&container)["state"], "CONTAINER_RUNNING", "{file}: {}", node.log());
        assert_eq!(node.crictl(&["pods", "-q", "--no-trunc"]).ok(), pod, "{file}: {}", node.log());
        let check = node.slipway(&["check"]);
        assert!(check.stdout.contains(&node.path(&file).display().to_string()), "{file}: {check:#?}");
        let _ = node.slipway(&["prune"]).ok();
        let _ = node.crictl(&["rm", "-f", &container]).ok();
        let _ = node.crictl(&["rmp", "-f", &pod]).ok();
        let _ = std::fs::remove_dir_all(node.path("logs"));
        base.returns(&node, &file);
        assert_eq!(node.slipway(&["check"]).ok(), "", "{file}");
    }
}

#[test]
fn a_container_that_is_created_while_its_pod_is_removed_leaves_nothing() {
    let node = node();
    let base = Residue::of(&node);
    let pod = node.pod("web", json!({}));
    let file = node.container_file("main", "busybox:1", "exit 0", json!({}));
    let pod_file = node.path("web.pod.json").display().to_string();
    // The creation's record takes long, so that the removal comes between it and the creation's end.
    let strace =
        Strace::attach_to_all(node.pid(), &["--inject=rename:delay_enter=400000", "-o", "/dev/null"]);
    let mut create = node.crictl_command(&["create", &pod, &file, &pod_file]);
    let create = create.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("crictl starts");
    wait("the container's directory", || {
        std::fs::read_dir(node.path("lib/containers")).expect("containers").count() > 0
    });
    let _ = node.crictl(&["rmp", "-f", &pod]).ok();
    let created = create.wait_with_output().expect("crictl ends");
    drop(strace);
    let error = String::from_utf8_lossy(&created.stderr).into_owned();
    // Where the creation was the first, it has gone with the pod.
    assert!(created.status.success() || error.contains(&pod), "{error}\n{}", node.log());
    assert_eq!(node.crictl(&["ps", "-a", "-q"]).ok(), "");
    let _ = std::fs::remove_dir_all(node.path("logs"));
    base.returns(&node, "both");
}

#[test]
fn a_bind_whose_file_system_is_silent_is_given_up_and_holds_nobody_else() {
    if lacks("a_bind_whose_file_system_is_silent_is_given_up_and_holds_nobody_else", &[Need::Fuse]) {
        return;
    }
    let node = node();
    let silent = node.path("silent");
    std::fs::create_dir(&silent).expect("a directory");
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
    let script = format!("exec 3<>/dev/fuse; mount -i -t fuse -o {options} none \"$0\" && exec sleep 1000");
    let mut server = Command::new("sh").args(["-c", &script]).arg(&silent).spawn().expect("sh starts");
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    wait("the silent file system", || mounts().contains(&silent.display().to_string()));
    let pod = node.pod("web", json!({}));
    let mounts = json!({"mounts": [{"host_path": silent.join("x"), "container_path": "/x"}]});
    let file = node.container_file("main", "busybox:1", "exit 0", mounts);
    let pod_file = node.path("web.pod.json").display().to_string();
    let create = || node.crictl(&["create", &pod, &file, &pod_file]).ok().to_owned();
    let id = create();
    let mut first = node.crictl_command(&["start", &id]);
    let first = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("crictl starts");
    let other = node.container(&pod, "web", "other", "exit 0");
    assert_eq!(node.exited(&other)["exitCode"], 0, "while the first waits");
    let first = first.wait_with_output().expect("crictl ends");
    let error = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(error.contains(&silent.display().to_string()) && error.contains("does not answer"), "{error}");
    let again = || {
        let _ = node.crictl(&["rm", "-f", "--all"]).ok();
        let id = create();
        (node.crictl(&["start", &id]), id)
    };
    let (refused, _) = again();
    assert!(refused.error().contains("still does not answer"), "{refused:#?}");
    server.kill().expect("the server is killed");
    let _ = server.wait();
    let _ = Command::new("umount").args(["-l"]).arg(&silent).status();
    std::fs::create_dir(silent.join("x")).expect("a directory");
    let mut started = again();
    wait("a start", || {
        started.0.status == 0 || {
            started = again();
            false
        }
    });
    assert_eq!(node.exited(&started.1)["exitCode"], 0);
}

fn small_disk(path: &Path, size: &str) {
    std::fs::create_dir_all(path).expect("a mount point");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(path).status();
    assert!(mounted.is_ok_and(|status| status.success()), "a small disk is mounted");
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("a file that fills the disk");
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_is_named_by_each_verb_and_costs_nothing_that_was_there() {
    let mut node = Node::start();
    node.kill();
    small_disk(&node.path("lib"), "size=64m");
    node.launch();
    let registry = Registry::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let _ = node.slipway(&["push", &name]).ok();
    let _ = node.crictl(&["rmi", &name]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    node.build("busybox:1", "ENV other=1\n");
    let pod = node.pod("web", json!({}));
    let running = node.container(&pod, "web", "running", "while :; do sleep 0.1; done");
    let base = Residue::of(&node);
    let file = node.container_file("main", "busybox:1", "exit 0", json!({}));
    let pod_file = node.path("web.pod.json").display().to_string();
    let other = node.pod_file("other", json!({}));
    let doomed = node.container_file("doomed", "busybox:1", "exit 0", json!({}));
    let doomed = node.crictl(&["create", &pod, &doomed, &pod_file]).ok().to_owned();
    fill(&node.path("lib/filler"));
    for arguments in [&["pull", &name][..], &["runp", &other], &["create", &pod, &file, &pod_file]] {
        let output = node.crictl(arguments);
        assert!(output.error().contains("No space left on device"), "{output:#?}");
    }
    let _ = node.crictl(&["rm", &doomed]).ok();
    std::fs::remove_file(node.path("lib/filler")).expect("there is room again");
    assert_eq!(node.crictl(&["exec", "-s", &running, "echo", "afloat"]).ok(), "afloat");
    let partial = |line: &String| line.contains("/blobs/") || line.contains("/partial");
    let left: Vec<_> = Residue::of(&node).beyond(&base).into_iter().filter(|line| !partial(line)).collect();
    assert!(left.is_empty(), "{left:#?}");
    let _ = node.crictl(&["pull", &name]).ok();
    let container = node.crictl(&["create", &pod, &file, &pod_file]).ok().to_owned();
    let _ = node.crictl(&["start", &container]).ok();
    assert_eq!(node.exited(&container)["exitCode"], 0);
}

#[test]
fn a_log_that_can_not_be_written_holds_no_container() {
    let node = node();
    small_disk(&node.path("logs"), "size=64k");
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "seq 100000; exit 4");
    assert_eq!(node.exited(&container)["exitCode"], 4);
    assert!(node.crictl(&["logs", &container]).stdout.starts_with("1\n2\n"));
}
