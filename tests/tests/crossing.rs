//! Requests that cross each other, that nobody waits for any more, or that come in crowds.

use serde_json::json;
use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::slipway_client::SlipwayClient;
use slipway_tests::{Node, Pod, Residue, grpc, residue, wait};
use std::process::Stdio;
use std::time::Duration;

fn node() -> Node {
    let node = Node::start();
    node.build("busybox:1", "");
    node
}

const FOREVER: &str = "while :; do sleep 0.05; done";

/// A second run of the same name joined the making of the first one's pod, failed at the container's name, and took the
/// pod away again, with the first one's container in it.
#[test]
fn of_several_runs_of_one_name_at_once_one_runs_and_the_others_are_refused() {
    let node = node();
    for round in 0..4 {
        let run = |number: u32| {
            let mut command = node.command();
            let script = format!("echo {number}; {FOREVER}");
            command.args([
                "run",
                "-d",
                "--network",
                "host",
                "--name",
                "boat",
                "busybox:1",
                "sh",
                "-c",
                &script,
            ]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("slipway starts")
        };
        let mut runs: Vec<_> = (0..4).map(run).collect();
        let ran = runs.iter_mut().filter_map(|run| run.wait().expect("slipway ends").success().then_some(()));
        assert_eq!(ran.count(), 1, "round {round}:\n{}", node.log());
        assert_eq!(node.slipway(&["exec", "boat", "echo", "afloat"]).ok(), "afloat", "round {round}");
        let _ = node.slipway(&["rm", "-f", "boat"]).ok();
    }
}

/// A container that was made for a client which had gone kept its name, and nothing but the daemon's restart freed that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_client_goes_leaves_nothing() {
    let node = node();
    let channel = grpc::channel(&node).await;
    let base = Residue::of(&node);
    let request = |detach| own::RunContainerRequest {
        name: "boat".into(),
        image: "busybox:1".into(),
        command: ["sh", "-c", FOREVER].map(str::to_owned).to_vec(),
        network: own::ContainerNetwork::Host.into(),
        detach,
        ..Default::default()
    };
    for (round, milliseconds) in [0, 1, 2, 4, 8, 12, 16, 24].into_iter().enumerate() {
        let mut client = SlipwayClient::new(channel.clone());
        let run = client.run_container(request(round % 2 == 0));
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(milliseconds), run).await {
            // It was faster than its client's patience, or its predecessor's name is not free yet.
            assert!(answer.is_ok() || answer.is_err_and(|status| status.message().contains("boat")));
        }
        wait("the removal of what nobody waits for", || {
            let _ = node.slipway(&["rm", "-f", "boat"]);
            Residue::of(&node).beyond(&base).is_empty()
        });
    }
    assert_eq!(
        node.slipway(&["run", "--rm", "--name", "boat", "busybox:1", "echo", "afloat"]).ok(),
        "afloat"
    );
}

#[test]
fn a_name_that_is_the_beginning_of_another_s_id_is_its_own() {
    let node = node();
    let run = |name: &str| {
        node.slipway(&["run", "-d", "--name", name, "busybox:1", "sh", "-c", FOREVER]).ok().to_owned()
    };
    let first = run("first");
    let name = &first[..4];
    let second = run(name);
    let _ = node.slipway(&["rm", "-f", name]).ok();
    let left = node.slipway(&["ps", "-q", "--no-trunc"]);
    assert!(left.ok().contains(&first) && !left.ok().contains(&second), "{left:#?}");
    assert_eq!(
        node.slipway(&["exec", &first[..8], "echo", "afloat"]).ok(),
        "afloat",
        "a short id is one still"
    );
}

#[test]
fn the_pod_of_a_run_that_ends_while_no_daemon_lives_goes_down_with_it() {
    let mut node = node();
    std::fs::create_dir(node.path("shared")).expect("the shared directory");
    let volume = format!("{}:/shared", node.path("shared").display());
    let script = "until [ -e /shared/go ]; do sleep 0.02; done; exit 4";
    let id = node.slipway(&["run", "-d", "--name", "boat", "-v", &volume, "busybox:1", "sh", "-c", script]);
    let id = id.ok().to_owned();
    node.kill();
    std::fs::write(node.path("shared/go"), "").expect("the signal is given");
    let ended = || {
        let pods = std::fs::read_dir(node.path("run/pods")).expect("the pods");
        pods.flatten().any(|pod| pod.path().join(format!("{id}.exit")).exists())
    };
    wait("its end", ended);
    assert!(!residue::everyone(&node).is_empty(), "its monitor waits for the next daemon");
    node.launch();
    wait("the end of its pod", || residue::everyone(&node).is_empty());
    assert!(node.slipway(&["ps", "-a"]).ok().contains("Exited (4)"));
    let _ = node.slipway(&["rm", "boat"]).ok();
}

/// `i64::MAX` seconds later is no moment that a clock can tell.
#[test]
fn a_stop_with_all_the_grace_there_is_waits_for_the_container() {
    let node = node();
    let pod = node.pod("web", json!({}));
    let script = "trap 'exit 6' TERM; echo begun; while :; do sleep 0.05; done";
    let id = node.container(&pod, "web", "main", script);
    wait("the trap", || node.crictl(&["logs", &id]).ok().contains("begun"));
    let stopped = node.crictl(&["stop", "-t", "9223372036854775807", &id]);
    assert_eq!(stopped.status, 0, "{stopped:#?}\n{}", node.log());
    assert_eq!(node.exited(&id)["exitCode"], 6);
}

#[test]
fn a_process_of_exec_sync_ends_with_the_client_that_waits_for_it() {
    let node = node();
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.run("main", "exec sleep 1000", json!({}));
    let mut client = node.crictl_command(&["exec", "-s", &id, "sleep", "1234"]);
    let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts");
    let runs = || pod.exec(&id, "ps").contains("1234");
    wait("the process", runs);
    client.kill().expect("the client is killed");
    let _ = client.wait();
    wait("the end of the process", || !runs());
}

/// More stops than there once were threads held up every other call for as long as their grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_stops_that_wait_holds_no_other_call_up() {
    let node = node();
    let pod = node.pod("web", json!({}));
    let id = node.container(&pod, "web", "main", "trap '' TERM; while :; do sleep 0.1; done");
    let channel = grpc::channel(&node).await;
    let stop = |timeout| cri::StopContainerRequest { container_id: id.clone(), timeout };
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let (mut client, request) = (RuntimeServiceClient::new(channel.clone()), stop(100));
        crowd.spawn(async move { client.stop_container(request).await });
    }
    let tasks = format!("/proc/{}/task", node.pid());
    let waiting = || std::fs::read_dir(&tasks).expect("the daemon's threads").count();
    wait("the crowd", || waiting() > 500);
    let mut client = RuntimeServiceClient::new(channel.clone());
    let list = client.list_containers(cri::ListContainersRequest::default());
    let listed = tokio::time::timeout(Duration::from_secs(60), list).await.expect("an answer");
    assert_eq!(listed.expect("a list").into_inner().containers.len(), 1);
    let _ = client.stop_container(stop(0)).await.expect("it is killed");
    while let Some(stopped) = crowd.join_next().await {
        let _ = stopped.expect("the call returns").expect("the container has been stopped");
    }
}
