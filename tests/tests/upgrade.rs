//! The daemon is replaced under pods that run, by one of another release too: nothing of them is lost.

use serde_json::json;
use slipway_tests::{Node, OlderMonitor, Output, Pod, folder, wait};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Pods that a daemon is replaced under.
const PODS: usize = 50;

/// Echoes on port 7, counts in its log until the file is in its shared directory, and exits with a code of its own.
fn script(number: usize, group: usize) -> String {
    let code = number + 1;
    format!(
        "nc -ll -p 7 -e cat & i=0; until [ -e /shared/go-{group} ]; do echo line $i; i=$((i+1)); sleep 0.05; done; \
         echo end $i; exit {code}"
    )
}

/// A pod with a server, a connection to it, and what is known of its container.
struct Busy {
    number: usize,
    container: String,
    pid: serde_json::Value,
    connection: TcpStream,
}

impl Busy {
    fn start(node: &Node, number: usize) -> Self {
        let name = format!("pod-{number}");
        let pod = node.bridge_pod(&name, &[]);
        let mounts = json!({"mounts": [{"host_path": node.path("shared"), "container_path": "/shared"}]});
        let file = node.container_file(&name, "busybox:1", &script(number, number % 2), mounts);
        let pod_file = node.path(format!("{name}.pod.json")).display().to_string();
        let container = node.crictl(&["create", &pod.id, &file, &pod_file]).ok().to_owned();
        let _ = node.crictl(&["start", &container]).ok();
        let pid = node.crictl(&["inspect", &container]).json()["info"]["pid"].clone();
        let mut connection = None;
        wait("the pod's server", || {
            connection = TcpStream::connect((pod.addresses[0].as_str(), 7)).ok();
            connection.is_some()
        });
        let connection = connection.expect("a connection");
        connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        Self { number, container, pid, connection }
    }

    fn echoes(&mut self, word: &str) {
        self.connection.write_all(word.as_bytes()).expect("the connection lives");
        let mut answer = vec![0; word.len()];
        self.connection.read_exact(&mut answer).expect("the connection lives");
        assert_eq!(answer, word.as_bytes(), "pod {}", self.number);
    }

    /// It has ended with its code, and its log has every line.
    fn has_ended(&self, node: &Node) {
        let status = node.exited(&self.container);
        assert_eq!((&status["exitCode"], &status["reason"]), (&json!(self.number + 1), &json!("Error")));
        let log = node.crictl(&["logs", &self.container]);
        let lines: Vec<_> = log.stdout.lines().collect();
        let (last, counted) = lines.split_last().expect("lines");
        assert_eq!(*last, format!("end {}", counted.len()), "pod {}", self.number);
        for (number, line) in counted.iter().enumerate() {
            assert_eq!(*line, format!("line {number}"), "pod {}", self.number);
        }
    }
}

/// The daemon that the pods are made by: that of another release where `SLIPWAY_OLDER` names a folder with its programs.
fn older() -> Command {
    let programs =
        std::env::var_os("SLIPWAY_OLDER").map_or_else(|| folder("SLIPWAY_PROGRAMS"), PathBuf::from);
    Command::new(programs.join("slipwayd"))
}

/// That a daemon comes after another one was tested with one pod and one release only.
#[test]
fn a_daemon_replaced_under_many_pods_loses_no_connection_no_log_line_and_no_exit() {
    let mut node = Node::start();
    node.kill();
    node.launch_by(older());
    node.build("busybox:1", "");
    std::fs::create_dir(node.path("shared")).expect("the shared directory");
    let mut pods: Vec<_> = (0..PODS).map(|number| Busy::start(&node, number)).collect();
    pods.iter_mut().for_each(|pod| pod.echoes("before"));
    node.kill();
    pods.iter_mut().for_each(|pod| pod.echoes("without a daemon"));
    std::fs::write(node.path("shared/go-0"), "").expect("half of them are told to end");
    let (ending, mut staying): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod.number % 2 == 0);
    node.launch();
    ending.iter().for_each(|pod| pod.has_ended(&node));
    staying.iter_mut().for_each(|pod| pod.echoes("after a death"));
    assert!(node.terminate().success(), "{}", node.log());
    staying.iter_mut().for_each(|pod| pod.echoes("between"));
    node.launch();
    for pod in &mut staying {
        pod.echoes("after an orderly end");
        assert_eq!(node.crictl(&["exec", "-s", &pod.container, "echo", "afloat"]).ok(), "afloat");
        let info = node.crictl(&["inspect", &pod.container]).json()["info"].clone();
        assert_eq!(info["pid"], pod.pid, "the same process");
    }
    std::fs::write(node.path("shared/go-1"), "").expect("the others are told to end");
    staying.iter().for_each(|pod| pod.has_ended(&node));
    for pod in node.crictl(&["pods", "-q", "--no-trunc"]).ok().lines() {
        let _ = node.crictl(&["rmp", "-f", pod]).ok();
    }
}

/// A daemon is promised to speak the version of the protocol before its own, and no test had a monitor of that version.
#[test]
fn pods_of_the_protocol_s_version_before_are_taken_up_and_do_all_that_pods_do() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let shared = json!({"linux": {"security_context": {"namespace_options": {"network": 0, "pid": 0}}}});
    let file = node.pod_file("web", shared);
    let pod = node.crictl(&["runp", &file]).ok().to_owned();
    let running =
        node.container(&pod, "web", "running", "trap 'exit 5' TERM; echo set; while :; do sleep 0.05; done");
    node.kill();
    let older = OlderMonitor::of(&node, &pod, 2);
    node.launch();
    let exec = |script: &str| node.crictl(&["exec", "-s", &running, "sh", "-c", script]);
    assert_eq!(exec("echo afloat").ok(), "afloat");
    assert_eq!(exec("exit 9").status, 1, "crictl's own");
    let fed = node
        .command()
        .args(["exec", "-i", &running, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut fed = fed.expect("slipway starts");
    fed.stdin.take().expect("its input").write_all(b"fed").expect("it reads");
    assert_eq!(fed.wait_with_output().expect("it ends").stdout, b"fed");
    let ended = node.container(&pod, "web", "ended", "seq 1000; exit 7");
    assert_eq!(node.exited(&ended)["exitCode"], 7);
    assert_eq!(node.crictl(&["logs", &ended]).stdout.lines().count(), 1000);
    let log = node.path("logs/web/running.log");
    std::fs::rename(&log, log.with_extension("1")).expect("the log is rotated");
    let _ = node.crictl(&["logs", "-r", &running]).status;
    let _ = node.crictl(&["stop", "-t", "20", &running]).ok();
    assert_eq!(node.status(&running)["exitCode"], 5);
    assert!(older.greetings() > 4, "{older:?}");
    let _ = node.crictl(&["rmp", "-f", &pod]).ok();
    assert_eq!(node.slipway(&["check"]).ok(), "");
}

/// A monitor of a version that the daemon does not speak has not ended: its containers go on, and the pod can be removed.
#[test]
fn a_pod_of_a_version_that_is_not_spoken_is_left_running_and_named_with_what_to_do() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let container = pod.run("main", "exec sleep 1000", json!({}));
    let pod = pod.id.clone();
    node.kill();
    let _older = OlderMonitor::of(&node, &pod, 1);
    node.launch();
    wait("the pod in question", || node.crictl(&["info"]).json()["unreachablePods"][&pod].is_object());
    let why = node.crictl(&["info"]).json()["unreachablePods"][&pod]["reason"].to_string();
    assert!(why.contains("version 1") && why.contains("the daemon that made the pod"), "{why}");
    assert_eq!(node.status(&container)["state"], "CONTAINER_RUNNING");
    let refused: Output = node.crictl(&["exec", "-s", &container, "true"]);
    assert!(refused.error().contains("Unavailable") && refused.error().contains(&pod), "{refused:#?}");
    let _ = node.crictl(&["rmp", "-f", &pod]).ok();
}
