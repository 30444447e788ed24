//! Features of newer kernels are denied to the daemon, one by one: every fallback does the same work here.

use serde_json::json;
use slipway_tests::{Node, Output, folder, machine};
use std::process::Command;

/// The most lower directories that an image's overlay can have: its container adds one more to the kernel's old limit.
const LAYERS: usize = 127;

#[test]
fn an_image_of_127_layers_runs_with_and_without_lowerdir_append() {
    let mut node = Node::start();
    let copies: String =
        (0..LAYERS - 2).map(|number| format!("COPY root/etc/passwd /layers/{number}\n")).collect();
    node.build("deep:1", &copies);
    let script = "set -e; ls /layers | wc -l; sort -u /layers/* | wc -l; echo new >/layers/0; rm /layers/1; mkdir /bin/x; ls /layers | wc -l; grep -c 'lowerdir=0:1:2:' /proc/self/mountinfo || true";
    // Before Linux 6.7 the fallback is the only way.
    let own = if machine::kernel() >= (6, 7) { "0" } else { "1" };
    for (denied, short_names) in [(&[][..], own), (&["lowerdir-append"], "1")] {
        node.relaunch_without(denied);
        let run = node.slipway(&["run", "--rm", "deep:1", "sh", "-c", script]);
        let lines: Vec<&str> = run.ok().lines().map(str::trim).collect();
        assert_eq!(lines, ["125", "3", "124", short_names], "without {denied:?}: {run:#?}");
    }
}

#[test]
fn containers_start_stop_and_run_out_of_memory_without_clone_into_cgroup_and_cgroup_kill() {
    for denied in ["clone-into-cgroup", "cgroup-kill"] {
        let node = Node::without(&[denied]);
        node.build("busybox:1", "");
        let pod = node.pod("web", json!({}));
        // Children that ignore the signal, in sessions of their own: only the cgroup knows them.
        let script = "trap '' TERM; for i in 1 2 3; do setsid sleep 1000 & done; sleep 1000";
        let container = node.container(&pod, "web", "main", script);
        let pid = node.crictl(&["inspect", &container]).json()["info"]["pid"].clone();
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process's cgroup");
        let of_memory =
            cgroup.lines().find(|line| line.contains("memory") || line.starts_with("0::/slipway"));
        assert!(of_memory.is_some_and(|line| line.ends_with(&container)), "{denied}: {cgroup}");
        assert_eq!(node.crictl(&["exec", "-s", &container, "echo", "in"]).ok(), "in");
        let _ = node.crictl(&["stop", "-t", "0", &container]).ok();
        assert_eq!(node.exited(&container)["exitCode"], 137, "{denied}");
        let left = Output::of(Command::new("find").args(["/sys/fs/cgroup", "-name", &container]));
        let _ = node.crictl(&["rm", &container]).ok();
        for directory in left.stdout.lines() {
            assert!(!std::path::Path::new(directory).exists(), "{denied}: {directory} is left");
        }
        let limits = json!({"linux": {"resources": {"memory_limit_in_bytes": 20_971_520, "memory_swap_limit_in_bytes": 20_971_520}}});
        let script = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";
        let file = node.container_file("eater", "busybox:1", script, limits);
        let pod_file = node.path("web.pod.json").display().to_string();
        let eater = node.crictl(&["create", &pod, &file, &pod_file]).ok().to_owned();
        let _ = node.crictl(&["start", &eater]).ok();
        assert_eq!(node.exited(&eater)["reason"], "OOMKilled", "{denied}");
    }
}

#[test]
fn the_limit_of_open_files_is_the_daemons_own_without_sys_resource() {
    let node = Node::without(&["sys-resource"]);
    node.build("busybox:1", "");
    let own = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).expect("the daemon's limits");
    let line = own.lines().find_map(|line| line.strip_prefix("Max open files")).expect("that limit");
    let hard: u64 = line.split_whitespace().nth(1).and_then(|hard| hard.parse().ok()).expect("a number");
    let run = node.slipway(&["run", "--rm", "busybox:1", "sh", "-c", "ulimit -Hn; ulimit -Sn"]);
    assert_eq!(run.ok(), format!("{}\n1024", hard.min(524_288)));
}

#[test]
fn features_are_shown_and_an_unknown_one_is_refused_by_its_name() {
    let node = Node::without(&["lowerdir-append"]);
    let info = node.slipway(&["info"]).json();
    let kernel = &info["config"]["features"]["kernel"];
    assert_eq!(kernel["lowerdir-append"], false, "{info:#}");
    assert_eq!(kernel["cgroup-kill"], machine::unified(), "{info:#}");
    let config = node.path("other.toml");
    std::fs::write(&config, "[runtime]\ndisable_features = [\"warp-drive\"]\n").expect("a configuration");
    let refused = Output::of(
        Command::new(folder("SLIPWAY_PROGRAMS").join("slipwayd"))
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(node.path("other"))
            .arg("--state")
            .arg(node.path("other-run")),
    );
    assert!(refused.error().contains("\"warp-drive\""), "{refused:#?}");
    assert_eq!(refused.error().lines().count(), 1, "{refused:#?}");
}
