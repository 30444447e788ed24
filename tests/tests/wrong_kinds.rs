//! Something of another kind stands where the node has a directory or its socket. The daemon sets it aside, says so until it
//! is removed, and serves.

use serde_json::json;
use slipway_tests::{Node, Output, wait};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts something in a place that is free.
type Way = (&'static str, fn(&Path));

const WAYS: [Way; 4] = [
    ("a file", |path| std::fs::write(path, "no directory").expect("a file")),
    ("a FIFO", |path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    }),
    ("a link to nothing", |path| std::os::unix::fs::symlink("/no/such", path).expect("a link")),
    ("a directory", |path| std::fs::create_dir_all(path.join("below")).expect("a directory")),
];

/// The directories of a node but for what images and containers have in theirs.
fn directories(node: &Node, top: &str) -> Vec<PathBuf> {
    let device = node.path(top).symlink_metadata().expect("a directory of the node").dev();
    let (mut found, mut folders) = (Vec::new(), vec![node.path(top)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a directory").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let contents =
                ["fs", "kept", "upper", "etc"].contains(&name.as_str()) || name.starts_with("work");
            let metadata = entry.path().symlink_metadata();
            if metadata.is_ok_and(|found| found.is_dir() && found.dev() == device) && !contents {
                folders.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Starts the daemon, which may fail, and says whether it answers.
fn launches(node: &mut Node) -> bool {
    let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.launch()));
    started.is_ok() && node.crictl(&["version"]).status == 0
}

/// The daemon serves: images can be built, a pod and a container come and go.
fn works(node: &Node, told: &str) {
    node.build("busybox:1", "");
    let more = json!({"linux": {"security_context": {"namespace_options": {"network": 0}}}});
    let made = node.crictl(&["runp", &node.pod_file("probe", more)]);
    assert_eq!(made.status, 0, "{told}: {made:#?}\n{}", node.log());
    let container = node.container(made.ok(), "probe", "main", "exit 3");
    assert_eq!(node.exited(&container)["exitCode"], 3, "{told}");
    let _ = node.crictl(&["rmp", "-f", made.ok()]).ok();
    let pruned = node.slipway(&["prune"]);
    assert_eq!(pruned.status, 0, "{told}: {pruned:#?}");
}

/// Asserts that Status and `check` name the file that stood in the way, and that `check --repair` removes it.
fn is_reported(node: &Node, path: &Path, told: &str) {
    let name = path.file_name().expect("a name").to_string_lossy();
    let aside = path.with_file_name(format!(".aside-{name}")).display().to_string();
    let check = node.slipway(&["check"]);
    assert!(check.stdout.contains(&aside), "{told}: {check:#?}\n{}", node.log());
    let info = node.crictl(&["info"]).json();
    let runtime = &info["status"]["conditions"][0];
    assert_eq!((&runtime["status"], &runtime["reason"]), (&json!(true), &json!("RecordsDamaged")), "{told}");
    assert!(info["damaged"].to_string().contains(&aside), "{told}: {info:#}");
    let repaired = node.slipway(&["check", "--repair"]);
    assert!(repaired.status < 2, "{told}: {repaired:#?}");
    assert!(!node.slipway(&["check"]).stdout.contains(&aside), "{told}: {repaired:#?}");
}

/// Each directory below one of the node's two is in turn replaced in each way, while a pod runs.
fn every_directory_of(top: &str) {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let host = json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": 0}}}});
    for (number, (way, damage)) in WAYS[..3].iter().enumerate() {
        let mut done: Vec<String> = Vec::new();
        loop {
            let pod = node.pod("web", host.clone());
            let _running = node.container(&pod, "web", "main", "exec sleep 1000");
            // One of a kind: ids and digests differ.
            let kind = |path: &PathBuf| {
                let below = path.strip_prefix(node.path("")).expect("a path of the node");
                let hex = |part: &str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
                let parts = below.iter().map(|part| part.to_string_lossy().into_owned());
                parts.map(|part| if hex(&part) { "*".into() } else { part }).collect::<Vec<_>>().join("/")
            };
            let found = directories(&node, top);
            let next =
                found.into_iter().map(|path| (kind(&path), path)).find(|(kind, _)| !done.contains(kind));
            let Some((kind, path)) = next else { break };
            let told = format!("{} is {way}", path.display());
            node.kill();
            let elsewhere = node.path(format!("elsewhere-{number}-{}", done.len()));
            std::fs::rename(&path, &elsewhere).expect("it is moved");
            damage(&path);
            assert!(launches(&mut node), "{told}\n{}", node.log());
            let removed = node.crictl(&["rmp", "-f", &pod]);
            assert_eq!(removed.status, 0, "{told}: {removed:#?}\n{}", node.log());
            wait("the pod's removal", || node.crictl(&["pods", "-q"]).stdout.trim().is_empty());
            works(&node, &told);
            // A file in the place of a pod's or container's own is removed with the pod.
            if kind.contains('*') {
                let check = node.slipway(&["check", "--repair"]);
                assert!(check.status < 2, "{told}: {check:#?}");
            } else {
                is_reported(&node, &path, &told);
            }
            done.push(kind);
            let _ = std::fs::remove_dir_all(node.path("logs"));
        }
        assert!(done.len() > 4, "{done:?}");
        let _ = node.crictl(&["rmp", "-f", "-a"]);
    }
}

#[test]
fn whatever_stands_where_a_directory_of_the_root_belongs_is_set_aside() {
    every_directory_of("lib");
}

#[test]
fn whatever_stands_where_a_directory_of_the_state_belongs_is_set_aside() {
    every_directory_of("run");
}

/// A regular file in place of the socket in the state directory kept the daemon from starting, with the words that it "exists
/// and is no socket"; nothing there is anybody's but the daemon's.
#[test]
fn whatever_stands_in_the_place_of_the_socket_or_of_a_scratch_file_is_set_aside() {
    let mut node = Node::start();
    for (way, damage) in WAYS {
        node.kill();
        let path = node.socket();
        let _ = std::fs::remove_file(&path);
        damage(&path);
        let told = format!("the socket is {way}");
        assert!(launches(&mut node), "{told}\n{}", node.log());
        works(&node, &told);
        is_reported(&node, &path, &told);
    }
    // Names that the daemon writes to from time to time.
    for name in ["lib/.writable", "run/.writable", "lib/pause.new", "lib/pause"] {
        for (way, damage) in &WAYS[1..] {
            let path = node.path(name);
            let _ = std::fs::remove_file(&path);
            damage(&path);
            let told = format!("{name} is {way}");
            let info = node.crictl(&["info"]).json();
            assert_eq!(info["status"]["conditions"][0]["status"], true, "{told}: {info:#}");
            works(&node, &told);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
    }
}

/// A path that the configuration names may be anyone's: it is never moved.
#[test]
fn a_file_at_a_configured_listen_path_is_refused_by_its_name_and_left_as_it_is() {
    let mut node = Node::start();
    node.kill();
    let listen = node.path("mine");
    std::fs::write(&listen, "precious").expect("a file");
    let mut daemon = Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd"));
    daemon.arg("--config").arg(node.path("config.toml")).arg("--root").arg(node.path("lib"));
    daemon.arg("--state").arg(node.path("run")).arg("--listen").arg(format!("unix://{}", listen.display()));
    let refused = Output::of(&mut daemon);
    assert!(refused.error().contains(&listen.display().to_string()), "{refused:#?}");
    assert_eq!(std::fs::read_to_string(&listen).expect("the file"), "precious");
}
