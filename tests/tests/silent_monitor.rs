//! A monitor that does not answer is not a dead one: calls to it end in time, its pod keeps its last state, the rest of
//! the node does not notice, and once it answers again nothing of what happened meanwhile is lost.

use serde_json::json;
use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::fault::{Held, kill, threads};
use slipway_tests::{Node, Pod, Residue, grpc, monitor, wait};
use std::process::Command;
use tonic::Code;

/// A script that goes on until a file `go` is in the pod's shared directory.
const AWAIT_GO: &str = "until [ -e /shared/go ]; do sleep 0.02; done;";

fn node() -> Node {
    let node = Node::start();
    node.build("busybox:1", "");
    std::fs::create_dir(node.path("shared")).expect("the shared directory");
    node
}

fn shared(node: &Node) -> serde_json::Value {
    json!({"mounts": [{"host_path": node.path("shared"), "container_path": "/shared"}]})
}

fn state(node: &Node, container: &str) -> String {
    node.status(container)["state"].as_str().expect("a state").to_owned()
}

/// Fifty calls of each kind.
fn calls(client: &RuntimeServiceClient<tonic::transport::Channel>, container: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    for _ in 0..50 {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            timeout: 1,
        };
        let mut asking = client.clone();
        calls.push(tokio::spawn(async move { asking.exec_sync(request).await.map(drop) }));
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            timeout: 0,
        };
        let mut asking = client.clone();
        calls.push(tokio::spawn(async move { asking.exec_sync(request).await.map(drop) }));
        let request = cri::ReopenContainerLogRequest { container_id: container.to_owned() };
        let mut asking = client.clone();
        calls.push(tokio::spawn(async move { asking.reopen_container_log(request).await.map(drop) }));
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: ["sleep", "0"].map(str::to_owned).to_vec(),
            timeout: 60,
        };
        let mut asking = client.clone();
        calls.push(tokio::spawn(async move { asking.exec_sync(request).await.map(drop) }));
    }
    calls
}

type Call = tokio::task::JoinHandle<Result<(), tonic::Status>>;

/// Connecting to a monitor had no deadline: once its listen backlog was full, each further call held a thread for ever,
/// 360 of 369 of them. Two hundred calls, more than the backlog holds, now end as unavailable, and their threads with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_stopped_monitor_end_as_unavailable_and_no_thread_stays_behind() {
    let node = node();
    let pod = Pod::start(&node, "web", json!({}));
    let container = pod.run("main", "exec sleep 1000", json!({}));
    let other = Pod::start(&node, "other", json!({}));
    let neighbour = other.run("main", "exec sleep 1000", json!({}));
    let client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let before = threads(node.pid());
    let held = Held::stop(monitor(&node, &pod.id));
    let calls = calls(&client, &container);
    wait("the calls' threads", || threads(node.pid()) > before + 100);
    // Beside them, lists and states answer, and so does every other pod.
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    assert_eq!(node.crictl(&["ps", "-q"]).ok().lines().count(), 2);
    assert_eq!(node.crictl(&["pods", "-q"]).ok().lines().count(), 2);
    assert_eq!(node.crictl(&["info"]).json()["status"]["conditions"][0]["status"], true);
    assert_eq!(other.exec(&neighbour, "echo afloat"), "afloat");
    for call in calls {
        let refused = call.await.expect("the call ends").expect_err("its monitor is stopped");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains(&pod.id), "{refused:?}");
    }
    let info = node.slipway(&["info"]);
    assert!(info.ok().contains("PodsReachable") && info.ok().contains(&pod.id), "{info:#?}");
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    held.go_on();
    wait("the monitor's answer", || node.crictl(&["exec", "-s", &container, "true"]).status == 0);
    wait("the end of the threads", || threads(node.pid()) <= before + 16);
    assert!(!node.slipway(&["info"]).ok().contains(&pod.id), "it is reachable again");
}

/// With the record of a pod and its copy damaged nothing names the monitor's process: where that did not answer either, the
/// pod could not be removed for as long as its monitor was stopped.
#[test]
fn a_damaged_pod_whose_monitor_is_stopped_is_listed_and_removed_with_its_monitor() {
    let mut node = node();
    let _ = node.crictl(&["version"]).ok();
    let base = Residue::of(&node);
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "exec sleep 1000");
    let other = node.pod("other", json!({}));
    let neighbour = node.container(&other, "other", "main", "exec sleep 1000");
    let process = monitor(&node, &pod);
    let held = Held::stop(process);
    node.kill();
    for folder in ["lib", "run/copies"] {
        std::fs::write(node.path(format!("{folder}/pods/{pod}/record")), "damaged")
            .expect("a damaged record");
    }
    node.launch();
    assert!(node.crictl(&["pods", "-q", "--no-trunc"]).ok().contains(&pod), "{}", node.log());
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    wait("the monitor's silence", || node.crictl(&["info"]).json()["unreachablePods"][&pod].is_object());
    let removed = node.crictl(&["rmp", "-f", &pod]);
    assert_eq!(removed.status, 0, "{removed:#?}\n{}", node.log());
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "its monitor is gone");
    drop(held);
    assert_eq!(node.crictl(&["exec", "-s", &neighbour, "echo", "afloat"]).ok(), "afloat");
    let _ = node.crictl(&["rmp", "-f", &other]).ok();
    let _ = std::fs::remove_dir_all(node.path("logs"));
    base.returns(&node, "a damaged pod");
    assert_eq!(node.slipway(&["check"]).ok(), "");
}

/// A daemon connected to one monitor after the other before it served, and killed the live containers of one that did
/// not answer in ten seconds.
#[test]
fn a_daemon_that_finds_a_stopped_monitor_serves_all_others_and_loses_nothing_of_its_pod() {
    let mut node = node();
    let pod = Pod::start(&node, "web", json!({}));
    let script = format!("{AWAIT_GO} seq 20000; exit 42");
    let ending = pod.run("ending", &script, shared(&node));
    let staying = pod.run("staying", "exec sleep 1000", json!({}));
    let other = node.pod("other", json!({}));
    let neighbour = node.container(&other, "other", "main", "exec sleep 1000");
    let held = Held::stop(monitor(&node, &pod.id));
    let pod = pod.id.clone();
    node.kill();
    // It exits while its monitor can't see it, and no daemon is there.
    std::fs::write(node.path("shared/go"), "").expect("the signal is given");
    node.launch();
    assert_eq!(node.crictl(&["exec", "-s", &neighbour, "echo", "afloat"]).ok(), "afloat");
    for container in [&ending, &staying] {
        assert_eq!(state(&node, container), "CONTAINER_RUNNING", "its last state");
    }
    let sandbox = node.crictl(&["inspectp", &pod]).json()["status"]["state"].clone();
    assert_eq!(sandbox, "SANDBOX_READY");
    let refused = node.crictl(&["exec", "-s", &staying, "true"]);
    assert!(refused.error().contains("Unavailable") && refused.error().contains(&pod), "{refused:#?}");
    let info = node.slipway(&["info"]);
    assert!(info.ok().contains("PodsReachable") && info.ok().contains(&pod), "{info:#?}");
    assert_eq!(state(&node, &staying), "CONTAINER_RUNNING", "nothing of it is killed");
    held.go_on();
    let status = node.exited(&ending);
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(42), &json!("Error")), "{status:#}");
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(node.crictl(&["logs", &ending]).stdout, expected);
    assert_eq!(node.crictl(&["exec", "-s", &staying, "echo", "afloat"]).ok(), "afloat");
}

/// A daemon that was out of descriptors took its failure to connect for the death of its monitors. (No tool raises the
/// limit of a running daemon without CAP_SYS_RESOURCE, so that another daemon comes after it.)
#[test]
fn a_daemon_without_descriptors_left_kills_nothing() {
    let mut node = node();
    let mut containers = Vec::new();
    for number in 0..24 {
        let pod = Pod::start(&node, &format!("pod-{number}"), json!({}));
        containers.push(pod.run("main", "exec sleep 1000", json!({})));
    }
    let pid = |node: &Node, id: &str| node.crictl(&["inspect", id]).json()["info"]["pid"].clone();
    let pids: Vec<_> = containers.iter().map(|id| pid(&node, id)).collect();
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("descriptors").count();
    // A pod has one connection: what is open without them, and a few more for the start.
    let limit = open - containers.len() + 10;
    node.kill();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
    command.arg(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd"));
    node.launch_by(command);
    let log = node.log();
    wait("pods that can't be reached", || {
        node.log().strip_prefix(&log).is_some_and(|more| more.matches("Too many open files").count() > 3)
            || log.matches("Too many open files").count() > 3
    });
    node.kill();
    node.launch();
    for (container, pid) in containers.iter().zip(&pids) {
        assert_eq!(node.crictl(&["exec", "-s", container, "echo", "afloat"]).ok(), "afloat");
        assert_eq!(&node.crictl(&["inspect", container]).json()["info"]["pid"], pid, "the same process");
    }
}

/// The same, and the attempts go on: once the daemon can connect, its pods are taken up.
#[test]
fn a_pod_that_could_not_be_asked_is_asked_again() {
    let mut node = node();
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "exec sleep 1000");
    node.kill();
    let mut command = Command::new("strace");
    // The tracer is a grandchild, so that the daemon is the child.
    command.args(["-D", "--follow-forks", "--trace=connect", "--inject=connect:error=EMFILE", "-o"]);
    command.arg(node.path("strace")).arg(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd"));
    node.launch_by(command);
    wait("a pod that can't be reached", || node.log().contains("connect: Too many open files"));
    let refused = node.crictl(&["exec", "-s", &container, "true"]);
    assert!(refused.error().contains("Unavailable") && refused.error().contains(&pod), "{refused:#?}");
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    kill(tracer(node.pid()));
    wait("the container", || {
        node.crictl(&["exec", "-s", &container, "echo", "afloat"]).stdout.trim() == "afloat"
    });
}

/// The process that traces another.
fn tracer(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon's status");
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.and_then(|tracer| tracer.trim().parse().ok()).expect("a tracer")
}

/// Nothing ended beside a stopped monitor: a stop waited for it, and a removal after a restart, too. The daemon now sends
/// the signal and kills after the grace by itself, and reads the status from the process that nobody has reaped.
#[test]
fn a_container_of_a_stopped_monitor_is_stopped_with_its_signal_its_grace_and_its_status() {
    for restarted in [false, true] {
        let mut node = node();
        let base = Residue::of(&node);
        let pod = Pod::start(&node, "web", json!({}));
        let polite =
            pod.run("polite", "trap 'exit 3' TERM; echo set; while :; do sleep 0.02; done", json!({}));
        let deaf = pod.run("deaf", "trap '' TERM; echo set; while :; do sleep 0.02; done", json!({}));
        for container in [&polite, &deaf] {
            wait("the trap", || node.crictl(&["logs", container]).stdout.contains("set"));
        }
        let created = pod.create("created", "exit 0", json!({})).ok().to_owned();
        let (pod, process) = (pod.id.clone(), monitor(&node, &pod.id));
        let held = Held::stop(process);
        if restarted {
            node.kill();
            node.launch();
        }
        let _ = node.crictl(&["stop", "-t", "20", &polite]).ok();
        assert_eq!(node.status(&polite)["exitCode"], 3, "restarted: {restarted}");
        let _ = node.crictl(&["stop", "-t", "1", &deaf]).ok();
        assert_eq!(node.status(&deaf)["exitCode"], 137, "restarted: {restarted}");
        // A created container is neither started nor ended by a call that its monitor never received.
        let refused = node.crictl(&["start", &created]);
        assert!(refused.error().contains("Unavailable") && refused.error().contains(&pod), "{refused:#?}");
        assert_eq!(state(&node, &created), "CONTAINER_CREATED");
        if restarted {
            let _ = node.crictl(&["rm", &polite]).ok();
            let _ = node.crictl(&["rmp", "-f", &pod]).ok();
            drop(held);
        } else {
            held.go_on();
            wait("the monitor's answer", || node.crictl(&["start", &created]).status == 0);
            assert_eq!(node.exited(&created)["exitCode"], 0);
            for (container, code) in [(&polite, 3), (&deaf, 137)] {
                assert_eq!(node.status(container)["exitCode"], code, "the first end counts");
            }
            let _ = node.crictl(&["rmp", "-f", &pod]).ok();
        }
        let _ = std::fs::remove_dir_all(node.path("logs"));
        base.returns(&node, "a stopped monitor");
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "its monitor is gone");
    }
}

/// A pod whose monitor was stopped could not be removed after a restart of the daemon.
#[test]
fn a_pod_of_a_stopped_monitor_is_removed_with_all_that_runs_in_it() {
    for restarted in [false, true] {
        let mut node = node();
        let base = Residue::of(&node);
        let pod = node.pod("web", json!({}));
        let container = node.container(&pod, "web", "main", "exec sleep 1000");
        let process = monitor(&node, &pod);
        let held = Held::stop(process);
        if restarted {
            node.kill();
            node.launch();
        }
        let _ = node.crictl(&["stopp", &pod]).ok();
        let status = node.status(&container);
        assert_eq!(
            (&status["state"], &status["exitCode"]),
            (&json!("CONTAINER_EXITED"), &json!(137)),
            "{status:#}"
        );
        let _ = node.crictl(&["rmp", &pod]).ok();
        drop(held);
        let _ = std::fs::remove_dir_all(node.path("logs"));
        base.returns(&node, "the removal");
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists(), "its monitor is gone");
    }
}

/// SIGTERM waited for whatever a thread waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_daemon_ends_though_calls_wait_for_a_stopped_monitor() {
    let mut node = node();
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "exec sleep 1000");
    let client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let before = threads(node.pid());
    let held = Held::stop(monitor(&node, &pod));
    let calls = calls(&client, &container);
    wait("the calls' threads", || threads(node.pid()) > before + 100);
    let status = node.terminate();
    assert!(status.code().is_some(), "{status:?}");
    for call in calls {
        assert!(call.await.expect("the call ends").is_err());
    }
    node.launch();
    assert_eq!(state(&node, &container), "CONTAINER_RUNNING");
    held.go_on();
    wait("the monitor's answer", || node.crictl(&["exec", "-s", &container, "true"]).status == 0);
}
