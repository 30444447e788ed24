//! Trees that no path leads through and that no stack holds: made by containers, builds and contexts.

use rustix::fs::{Mode, OFlags};
use serde_json::json;
use slipway_tests::{Node, Pod, probe};
use std::path::Path;
use std::process::Stdio;

/// The daemon's memory limit, in kilobytes: a walk needs a few megabytes, and a path of 100,000 long names 25.
const MEMORY: u64 = 400 << 10;
const LEVELS: u64 = 100_000;

/// Makes directories in one another below one on the host.
fn chain(top: &Path, levels: u64, name: &str) {
    std::fs::create_dir_all(top).expect("a directory");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut here = rustix::fs::open(top, flags, Mode::empty()).expect("it opens");
    for _ in 0..levels {
        rustix::fs::mkdirat(&here, name, Mode::RWXU).expect("a level");
        here = rustix::fs::openat(&here, name, flags, Mode::empty()).expect("it opens");
    }
}

/// Whether a daemon is still the process that it was, and has never taken much memory.
#[track_caller]
fn is_well(node: &Node, pid: u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(!status.is_empty() && !status.contains("zombie"), "the daemon has died:\n{}", node.log());
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    let most: u64 = most.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(most < MEMORY, "the daemon has taken {most} kB");
    let _ = node.crictl(&["version"]).ok();
}

/// Waits for a count: it is good for 20 times as long as it took, and every call of crictl asks for one.
#[track_caller]
fn wait_for_inodes(node: &Node, fits: impl Fn(u64) -> bool) {
    wait_long("the number of inodes", || fits(inodes(node)));
}

fn inodes(node: &Node) -> u64 {
    let info = node.crictl(&["imagefsinfo", "-o", "json"]).json();
    let used = &info["status"]["containerFilesystems"][0]["inodesUsed"]["value"];
    used.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no inodes: {info:#}"))
}

fn left_in(node: &Node, folder: &str) -> usize {
    std::fs::read_dir(node.path(folder)).map_or(0, Iterator::count)
}

/// Waits for the removal of all that an earlier daemon has left: the disk of a busy machine is slow.
#[track_caller]
fn wait_for_nothing_left(node: &Node) {
    for folder in ["lib/drafts", "lib/trash", "lib/build"] {
        wait_long(&format!("an empty {folder}"), || left_in(node, folder) == 0);
    }
}

#[track_caller]
fn wait_long(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Removal, disk usage and recovery recursed on the daemon's stack over what containers write: 14,000 levels of
/// directories killed it, and each restart of it.
#[test]
fn a_container_with_a_hundred_thousand_levels_is_counted_and_removed_and_survives_a_restart() {
    let mut node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let deep = |name: &str, length: u32| {
        let script = format!("mkdir /x && cd /x && probe deep {LEVELS} {length}");
        assert_eq!(pod.says(name, &script, json!({})), "ok\n");
    };
    let pid = node.pid();
    deep("short", 1);
    deep("long", 255);
    wait_for_inodes(&node, |counted| counted > 2 * LEVELS);
    assert!(node.slipway(&["df"]).ok().contains("containers"));
    is_well(&node, pid);
    let ids = node.crictl(&["ps", "-a", "-q"]).ok().to_owned();
    let (first, second) = ids.split_once('\n').expect("two containers");
    // A client may give up before a busy disk is done; the removal goes on.
    let _ = node.crictl(&["rm", first]);
    wait_long("the end of the first", || !node.path("lib/containers").join(first).exists());
    is_well(&node, pid);
    node.kill();
    node.launch();
    let pid = node.pid();
    wait_for_inodes(&node, |counted| counted > LEVELS);
    is_well(&node, pid);
    // A daemon that is killed while it removes leaves the rest of the tree without a record.
    let directory = node.path("lib/containers").join(second.trim());
    let mut rm = node.crictl_command(&["rm", second.trim()]);
    let mut rm = rm.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts");
    wait_long("the end of its record", || !directory.join("record").exists());
    node.kill();
    let _ = rm.wait();
    for folder in ["lib/drafts/.tmp-1-1/fs", "lib/trash/.tmp-1-1/fs", "lib/build/0123456789abcdef"] {
        chain(&node.path(folder), 20_000, "d");
    }
    node.launch();
    let pid = node.pid();
    wait_long("the end of the container", || !directory.exists());
    wait_for_nothing_left(&node);
    wait_for_inodes(&node, |counted| counted < LEVELS);
    is_well(&node, pid);
}

/// A million files in one directory were read into memory at once by whoever sorted them.
#[test]
fn a_directory_with_very_many_entries_is_counted_committed_checked_and_removed() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pid = node.pid();
    let count: u64 = if std::env::var_os("SLIPWAY_CRASHES").is_some() { 1_000_000 } else { 100_000 };
    let pod = Pod::start(&node, "web", json!({}));
    let script = format!("mkdir /x && cd /x && probe many {count} 200");
    let id = pod.run("main", &script, json!({}));
    wait_long("the files of the container", || node.status(&id)["state"] == "CONTAINER_EXITED");
    assert_eq!(node.crictl(&["logs", &id]).ok(), "ok");
    wait_for_inodes(&node, |counted| counted > count);
    let _ = node.crictl(&["rm", "-a"]).ok();
    wait_for_inodes(&node, |counted| counted < count);
    is_well(&node, pid);
    let context = node.path("many");
    std::fs::create_dir(&context).expect("a context");
    let text = format!("FROM busybox:1\nRUN {script}\nFROM busybox:1\nCOPY --from=0 /x /y\n");
    std::fs::write(context.join("Dockerfile"), text).expect("a Dockerfile");
    let _ = node.slipway(&["build", "-t", "many:1", &context.display().to_string()]).ok();
    let _ = node.slipway(&["check"]).ok();
    let _ = node.slipway(&["rmi", "many:1"]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    wait_for_nothing_left(&node);
    is_well(&node, pid);
}

/// A context on the host; a step of a build may not be given what the shell can't make.
fn context(node: &Node, name: &str, dockerfile: &str) -> String {
    let context = node.path(name);
    std::fs::create_dir_all(&context).expect("a context");
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    context.display().to_string()
}

/// The layer of a build was made with a path for each entry, and a COPY was chosen by recursion: a RUN or a context with
/// many levels killed the daemon.
#[test]
fn a_build_with_a_hundred_thousand_levels_is_refused_by_the_path_and_leaves_nothing() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pid = node.pid();
    let build = |folder: &str| node.slipway(&["build", "-t", "deep:1", folder]);
    let run = format!("FROM busybox:1\nRUN mkdir /x && cd /x && probe deep {LEVELS} 100\n");
    let refused = build(&context(&node, "run", &run));
    let error = refused.error();
    assert!(error.contains("/x/ddd") && error.contains("4095"), "{error}");
    is_well(&node, pid);
    wait_for_nothing_left(&node);
    let copied = context(&node, "copied", "FROM busybox:1\nCOPY . /y\n");
    chain(&node.path("copied/x"), LEVELS, "d");
    let refused = build(&copied);
    let error = refused.error();
    assert!(error.contains("x/d/d") && error.contains("4095") && error.contains(".dockerignore"), "{error}");
    std::fs::write(node.path("copied/.dockerignore"), "x\n!Dockerfile\n").expect("a .dockerignore");
    let _ = build(&copied).ok();
    is_well(&node, pid);
    assert_eq!(left_in(&node, "lib/containers"), 0);
    let _ = node.slipway(&["rmi", "deep:1"]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    wait_for_nothing_left(&node);
}

/// The deepest path that a container can make is possible in an image as well: it is committed, copied, checked, and begins
/// a volume.
#[test]
fn a_tree_as_deep_as_a_path_goes_through_every_step_of_an_image() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let pid = node.pid();
    // 2 and 500 times 8 bytes.
    let text = "FROM busybox:1 AS made\nRUN mkdir /x && cd /x && probe deep 500 7\n\
        RUN f=/x; i=0; while [ $i -lt 500 ]; do f=$f/ddddddd; i=$((i + 1)); done; echo cargo >$f/f; ln $f/f /x/again\n\
        FROM busybox:1\nCOPY --from=made /x /x\nVOLUME /x\n";
    let _ = node.slipway(&["build", "-t", "deep:1", &context(&node, "deep", text)]).ok();
    let _ = node.slipway(&["check"]).ok();
    let mut pod = Pod::start(&node, "web", json!({}));
    pod.image = "deep:1".into();
    let script = "f=/x; i=0; while [ $i -lt 500 ]; do f=$f/ddddddd; i=$((i + 1)); done; cat $f/f /x/again; \
        [ $f/f -ef /x/again ] && echo same";
    assert_eq!(pod.says("main", script, json!({})), "cargo\ncargo\nsame\n");
    is_well(&node, pid);
    let _ = node.crictl(&["rmp", "-f", &pod.id]).ok();
    let _ = node.slipway(&["rmi", "deep:1"]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    wait_for_nothing_left(&node);
    is_well(&node, pid);
}

/// Disk usage went by paths: a container that exchanged a directory for a link while it was read led the daemon to any
/// directory of the host, which was opened and counted.
#[test]
fn disk_usage_never_follows_a_directory_that_a_container_exchanges_for_a_link() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "");
    let outside = node.path("outside");
    std::fs::create_dir(&outside).expect("a directory");
    for number in 0..500 {
        std::fs::write(outside.join(number.to_string()), "canary").expect("a file");
    }
    let flags = rustix::fs::inotify::CreateFlags::NONBLOCK;
    let watch = rustix::fs::inotify::init(flags).expect("inotify");
    let opened = rustix::fs::inotify::WatchFlags::OPEN | rustix::fs::inotify::WatchFlags::ACCESS;
    rustix::fs::inotify::add_watch(&watch, &outside, opened).expect("a watch");
    let pod = Pod::start(&node, "web", json!({}));
    let quiet = inodes(&node);
    let script = format!(
        "mkdir -p /s && cd /s && for i in 0 1 2 3 4 5 6 7; do mkdir d$i && ln -s {} l$i && probe swap d$i l$i & done; \
         exec sleep 1000",
        outside.display()
    );
    let _ = pod.run("main", &script, json!({}));
    let least = inodes(&node);
    assert!(least > quiet);
    for _ in 0..300 {
        let _ = node.slipway(&["df"]).ok();
        assert!(inodes(&node) < quiet + 200, "what lies outside was counted");
    }
    let mut buffer = [0; 4096];
    let read = rustix::io::read(&watch, &mut buffer);
    assert_eq!(read, Err(rustix::io::Errno::AGAIN), "what lies outside was opened");
}
