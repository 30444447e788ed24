//! The contract of daemon and monitor, which outlives the daemon, kept by the whole product. The monitor's own tests prove it
//! at the protocol; these kill daemons, monitors and clients.

use serde_json::json;
use slipway_tests::fault::kill;
use slipway_tests::{Node, Residue, monitor, wait};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A node with an image, a pod, and a directory that containers see as /shared: a file `go` in it is their signal.
fn with_pod() -> (Node, String) {
    let node = Node::start();
    node.build("busybox:1", "");
    std::fs::create_dir(node.path("shared")).expect("the shared directory");
    let pod = node.pod("web", json!({}));
    (node, pod)
}

fn started(node: &Node, pod: &str, script: &str, more: serde_json::Value) -> String {
    let mut config = json!({"mounts": [{"host_path": node.path("shared"), "container_path": "/shared"}]});
    if let (Some(config), serde_json::Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    let file = node.container_file("main", "busybox:1", script, config);
    let pod_file = node.path("web.pod.json").display().to_string();
    let id = node.crictl(&["create", pod, &file, &pod_file]).ok().to_owned();
    let _ = node.crictl(&["start", &id]).ok();
    id
}

fn go(node: &Node) {
    std::fs::write(node.path("shared/go"), "").expect("the signal is given");
}

/// The file by which a monitor keeps a container's end.
fn exit_file(node: &Node, pod: &str, container: &str) -> PathBuf {
    node.path(format!("run/pods/{pod}/{container}.exit"))
}

const AWAIT_GO: &str = "until [ -e /shared/go ]; do sleep 0.02; done;";

#[test]
fn an_exit_while_the_daemon_is_dead_is_known_exactly_and_a_megabyte_of_log_is_complete() {
    let (mut node, pod) = with_pod();
    let container = started(&node, &pod, &format!("{AWAIT_GO} seq 150000; exit 42"), json!({}));
    node.kill();
    go(&node);
    wait("the exit file", || exit_file(&node, &pod, &container).exists());
    node.launch();
    let status = node.status(&container);
    assert_eq!(status["state"], "CONTAINER_EXITED", "known before the first question: {status:#}");
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(42), &json!("Error")), "{status:#}");
    let logs = node.crictl(&["logs", &container]);
    let expected: String = (1..=150_000).map(|number| format!("{number}\n")).collect();
    assert!(logs.stdout == expected, "{} of {} bytes", logs.stdout.len(), expected.len());
}

#[test]
fn a_stop_whose_daemon_dies_and_stays_dead_still_ends_the_container() {
    let (mut node, pod) = with_pod();
    let container = started(&node, &pod, "trap : TERM; echo deaf; while :; do sleep 0.05; done", json!({}));
    wait("the trap", || node.crictl(&["logs", &container]).stdout.contains("deaf"));
    let mut stop = node.crictl_command(&["stop", "-t", "2", &container]);
    let mut stop = stop.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts");
    let deadline = node.path(format!("run/pods/{pod}/{container}.stop"));
    wait("the deadline on disk", || deadline.exists());
    node.kill();
    assert!(!stop.wait().expect("crictl ends").success());
    assert!(!exit_file(&node, &pod, &container).exists(), "its grace is not over yet");
    wait("the exit file", || exit_file(&node, &pod, &container).exists());
    node.launch();
    let status = node.status(&container);
    assert_eq!(status["exitCode"], 137, "{status:#}");
    let time = |name: &str| status[name].as_str().expect("a time");
    assert!(time("finishedAt") > time("startedAt"), "{status:#}");
    assert!(!deadline.exists());
}

#[test]
fn a_kill_for_memory_is_known_though_no_daemon_saw_it_and_its_cgroup_is_gone() {
    let (mut node, pod) = with_pod();
    let limits = json!({"linux": {"resources": {
        "memory_limit_in_bytes": 20_971_520, "memory_swap_limit_in_bytes": 20_971_520,
    }}});
    let script = format!("{AWAIT_GO} exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    let container = started(&node, &pod, &script, limits);
    node.kill();
    go(&node);
    wait("the exit file", || exit_file(&node, &pod, &container).exists());
    node.remove_cgroups();
    node.launch();
    let status = node.status(&container);
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(137), &json!("OOMKilled")), "{status:#}");
    node.kill();
    node.launch();
    assert_eq!(node.status(&container)["reason"], "OOMKilled");
}

#[test]
fn a_client_that_never_reads_costs_neither_the_container_nor_its_log_nor_another_client() {
    let node = Node::start();
    node.build("busybox:1", "");
    std::fs::create_dir(node.path("shared")).expect("the shared directory");
    // Less than a client's buffer at once, and 8 MB in all: the reader keeps up, the sleeper does not.
    let script = "until [ -e /shared/go ]; do echo waiting; sleep 0.02; done; \
                  for round in $(seq 40); do seq 30000; sleep 0.1; done; echo end";
    let volume = format!("{}:/shared", node.path("shared").display());
    let ran = node.slipway(&["run", "-d", "--name", "boat", "-v", &volume, "busybox:1", "sh", "-c", script]);
    let _ = ran.ok();
    let attach = |output: Stdio| {
        let mut command = node.command();
        command.args(["attach", "boat"]).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
        command.spawn().expect("slipway starts")
    };
    let mut sleeper = attach(Stdio::piped());
    let mut sleeping = BufReader::with_capacity(16, sleeper.stdout.take().expect("its output"));
    sleeping.read_line(&mut String::new()).expect("it is attached");
    let file = std::fs::File::create(node.path("read")).expect("a file for the reader");
    let mut reader = attach(file.into());
    let read = || std::fs::read_to_string(node.path("read")).expect("what the reader has");
    wait("the reader", || read().contains("waiting"));
    go(&node);
    assert!(reader.wait().expect("the reader ends").success(), "{}", last_words(&mut reader));
    let (log, heard) = (node.slipway(&["logs", "boat"]), read());
    let counted = |text: &str| text.lines().filter(|line| *line == "30000").count();
    assert_eq!((counted(log.ok()), counted(&heard)), (40, 40));
    assert_eq!(log.ok().lines().count(), 40 * 30_000 + 1 + log.ok().matches("waiting").count());
    assert!(log.ok().ends_with("end") && heard.ends_with("end\n"));
    let mut rest = String::new();
    sleeping.read_to_string(&mut rest).expect("what the sleeper was sent");
    assert!(!sleeper.wait().expect("the sleeper ends").success() && counted(&rest) < 40);
    assert!(last_words(&mut sleeper).contains("logs"), "it is told where the rest is");
    let _ = node.slipway(&["rm", "-f", "boat"]).ok();
}

fn last_words(client: &mut Child) -> String {
    let mut words = String::new();
    let stderr = client.stderr.as_mut().expect("its standard error");
    stderr.read_to_string(&mut words).expect("its last words");
    words
}

#[test]
fn a_session_ends_with_its_client_and_with_the_daemon_and_the_container_lives() {
    let (mut node, pod) = with_pod();
    let container = started(&node, &pod, "while :; do sleep 0.05; done", json!({}));
    for killed in ["client", "daemon"] {
        let script = "echo $$ >/shared/session; exec sleep 1000";
        let mut client = node.command();
        client.args(["exec", &container, "sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().expect("slipway starts");
        let noted = || std::fs::read_to_string(node.path("shared/session")).unwrap_or_default();
        wait("the session", || noted().ends_with('\n'));
        let process = format!("{}/cmdline", noted().trim());
        let is_there = |node: &Node| {
            let command = node.crictl(&["exec", "-s", &container, "cat", &format!("/proc/{process}")]);
            command.stdout.contains("1000")
        };
        assert!(is_there(&node), "{killed}");
        if killed == "client" {
            client.kill().expect("the client is killed");
        } else {
            node.kill();
        }
        let _ = client.wait();
        if killed == "daemon" {
            node.launch();
        }
        wait("the session's end", || !is_there(&node));
        assert_eq!(node.status(&container)["state"], "CONTAINER_RUNNING");
        std::fs::remove_file(node.path("shared/session")).expect("its note is removed");
    }
}

#[test]
fn a_monitor_that_is_killed_takes_its_containers_along_and_leaves_nothing() {
    let (mut node, web) = with_pod();
    let base = Residue::of(&node);
    for daemon_lives in [true, false] {
        let pod = node.pod("lost", json!({}));
        let file = node.path("lost.pod.json").display().to_string();
        let create = |name: &str, script: &str| {
            let container = node.container_file(name, "busybox:1", script, json!({}));
            let id = node.crictl(&["create", &pod, &container, &file]).ok().to_owned();
            let _ = node.crictl(&["start", &id]).ok();
            id
        };
        let (ended, running) = (create("ended", "exit 7"), create("running", "sleep 1000"));
        assert_eq!(node.exited(&ended)["exitCode"], 7);
        let lost = monitor(&node, &pod);
        if !daemon_lives {
            node.kill();
        }
        kill(lost);
        if !daemon_lives {
            node.launch();
        }
        let status = node.exited(&running);
        assert_eq!(
            (&status["exitCode"], &status["reason"]),
            (&json!(255), &json!("MonitorLost")),
            "{status:#}"
        );
        assert!(status["message"].as_str().is_some_and(|told| told.contains("monitor")), "{status:#}");
        assert_eq!(node.status(&ended)["exitCode"], 7);
        let status = node.crictl(&["inspectp", &pod]).json();
        assert_eq!(status["status"]["state"], "SANDBOX_NOTREADY", "{status:#}");
        let state = node.crictl(&["inspectp", &web]).json()["status"]["state"].clone();
        assert_eq!(state, "SANDBOX_READY", "the other pod is as it was");
        let _ = node.crictl(&["stopp", &pod]).ok();
        let _ = node.crictl(&["rmp", &pod]).ok();
        let _ = std::fs::remove_dir_all(node.path("logs/lost"));
        base.returns(&node, "the loss of a monitor");
    }
}
