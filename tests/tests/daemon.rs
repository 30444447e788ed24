//! The daemon's edge: what it serves and says that it does not, to whom, and how it starts and ends.

use serde_json::json;
use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::image_service_client::ImageServiceClient;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::{Node, Output, grpc, node};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

/// Asks for calls with empty requests, each of which has to be refused as not served, in a sentence.
macro_rules! unserved {
    ($client:ident: $($call:ident($request:ident)),* $(,)?) => {
        $(
            let status = $client.$call(cri::$request::default()).await.expect_err(stringify!($call));
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{status:?}");
            assert!(status.message().split(' ').count() > 4, "no sentence: {status:?}");
        )*
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_served_says_so_in_a_sentence() {
    let node = Node::start();
    let channel = grpc::channel(&node).await;
    let mut pods = RuntimeServiceClient::new(channel.clone());
    unserved!(pods:
        exec(ExecRequest), attach(AttachRequest), port_forward(PortForwardRequest),
        container_stats(ContainerStatsRequest), list_container_stats(ListContainerStatsRequest),
        stream_container_stats(StreamContainerStatsRequest), pod_sandbox_stats(PodSandboxStatsRequest),
        list_pod_sandbox_stats(ListPodSandboxStatsRequest), stream_pod_sandbox_stats(StreamPodSandboxStatsRequest),
        list_metric_descriptors(ListMetricDescriptorsRequest), list_pod_sandbox_metrics(ListPodSandboxMetricsRequest),
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest), get_container_events(GetEventsRequest),
        update_container_resources(UpdateContainerResourcesRequest),
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest),
        stream_pod_sandboxes(StreamPodSandboxesRequest), stream_containers(StreamContainersRequest),
        checkpoint_container(CheckpointContainerRequest),
    );
    let mut images = ImageServiceClient::new(channel);
    unserved!(images: stream_images(StreamImagesRequest));
}

#[test]
fn kubelet_neither_sees_nor_touches_what_others_run() {
    let node = Node::start();
    node.build("busybox:1", "");
    let container =
        node.slipway(&["run", "-d", "--name", "mine", "busybox:1", "sleep", "1000"]).ok().to_owned();
    assert_eq!(node.crictl(&["ps", "-a", "-q"]).ok(), "");
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), "");
    for verb in ["inspect", "start", "stop", "rm", "logs", "exec"] {
        let extra: &[&str] = if verb == "exec" { &["-s", &container, "true"] } else { &[&container] };
        unknown(&node, &[&[verb], extra].concat());
    }
    let pods = std::fs::read_dir(node.path("lib/pods")).expect("the pods are listed");
    for pod in pods.map(|pod| pod.expect("a pod").file_name().into_string().expect("an id")) {
        for verb in ["inspectp", "stopp", "rmp"] {
            unknown(&node, &[verb, &pod]);
        }
    }
    assert_eq!(node.slipway(&["exec", "mine", "echo", "alive"]).ok(), "alive");
    let _ = node.slipway(&["rm", "-f", "mine"]).ok();
}

/// The CRI wants stops and removals of what is not there to succeed; all else is not found.
fn unknown(node: &Node, words: &[&str]) {
    let output = node.crictl(words);
    let gone = ["stop", "rm", "stopp", "rmp"].contains(&words[0]) && output.status == 0;
    assert!(gone || output.error().contains("NotFound"), "{output:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_daemon_ends_the_work_under_way_first() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "exec sleep 1000");
    let mut client = RuntimeServiceClient::new(grpc::channel(&node).await);
    let script = "touch /tmp/begun; sleep 1; echo done";
    let request = cri::ExecSyncRequest {
        container_id: container.clone(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: 30,
    };
    let under_way = tokio::spawn(async move { client.exec_sync(request).await });
    while node.crictl(&["exec", "-s", &container, "ls", "/tmp/begun"]).status != 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
    let answer = under_way.await.expect("the call returns").expect("the call succeeds").into_inner();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "done\n");
    assert!(!node.socket().exists(), "the socket goes with the daemon");
    node.launch();
    assert_eq!(node.status(&container)["state"], "CONTAINER_RUNNING");
}

fn daemon(arguments: &[&str]) -> Output {
    Output::of(Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd")).args(arguments))
}

#[test]
fn the_socket_and_the_store_are_for_their_owner_alone() {
    let node = Node::start();
    let mode = |name: &str| std::fs::metadata(node.path(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!(mode("run/slipway.sock"), 0o600);
    assert_eq!((mode("run"), mode("lib")), (0o700, 0o700));
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let node = Node::start();
    let [root, state] = ["lib", "other"].map(|name| node.path(name).display().to_string());
    let refused = daemon(&["--config", "/dev/null", "--root", &root, "--state", &state]);
    assert!(refused.error().contains(&root), "{refused:#?}");
    assert_eq!(refused.error().lines().count(), 1, "{refused:#?}");
}

#[test]
fn a_wrong_configuration_is_told_by_its_file_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("slipwayd.toml").display().to_string();
    for (text, word) in [
        ("[network]\nbrigde = \"x\"\n", "brigde"),
        ("[image]\nmax_layer_entries = \"many\"\n", "max_layer_entries"),
        ("[image\n", "line 1"),
        ("root = \"here\"\n", "root"),
        ("[network]\nsubnets = [\"10.0.0.0/40\"]\n", "10.0.0.0/40"),
        ("log = \"[[\"\n", "log"),
    ] {
        std::fs::write(&file, text).expect("the configuration is written");
        let state = folder.path().join("state").display().to_string();
        let root = folder.path().join("root").display().to_string();
        let places: &[&str] = if word == "root" { &[] } else { &["--root", &root] };
        let refused = daemon(&[&["--config", &file, "--state", &state], places].concat());
        assert!(refused.error().contains(word), "{word}: {refused:#?}");
        assert_eq!(refused.error().lines().count(), 1, "{refused:#?}");
    }
}

#[test]
fn the_socket_is_where_the_arguments_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let [root, state, socket] = ["root", "state", "there/cri.sock"].map(|name| folder.path().join(name));
    let (config, cgroups) = (folder.path().join("slipwayd.toml"), node::cgroup_root(997));
    std::fs::write(&config, format!("[runtime]\ncgroup_root = \"{cgroups}\"\n")).expect("a configuration");
    let mut daemon = Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd"))
        .arg("--config")
        .arg(&config)
        .arg("--root")
        .arg(&root)
        .arg("--state")
        .arg(&state)
        .arg(format!("--listen=unix://{}", socket.display()))
        .stderr(Stdio::null())
        .spawn()
        .expect("slipwayd starts");
    for _ in 0..1000 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let endpoint = format!("unix://{}", socket.display());
    let version = Output::of(Command::new(slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipway")).args([
        "--address",
        &endpoint,
        "version",
    ]));
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the signal is sent");
    assert!(daemon.wait().expect("the daemon is reaped").success());
    node::remove_cgroups(&cgroups);
    assert!(version.ok().contains("slipway"), "{version:#?}");
}
