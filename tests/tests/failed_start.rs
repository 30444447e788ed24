//! A start that fails is the container's end, as kubelet expects of a runtime: it sees an exited container with the reason
//! `StartError` and backs off. One that was not even tried leaves the container as it was created.

use serde_json::{Value, json};
use slipway_proto::runtime::v1 as cri;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::{Node, Pod, Residue, grpc, machine, monitor, wait};
use std::process::Stdio;

async fn status(node: &Node, container: &str) -> cri::ContainerStatus {
    let mut client = RuntimeServiceClient::new(grpc::channel(node).await);
    let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: false };
    let answer = client.container_status(request).await.expect("the container's status");
    answer.into_inner().status.expect("a status")
}

/// Causes for which a container fails to start, each with the name in its error.
fn failures(node: &Node) -> Vec<(&'static str, Value, &'static str)> {
    let absent = json!({"host_path": node.path("file/absent"), "container_path": "/x"});
    let onto = json!({"host_path": node.path("file"), "container_path": "/etc"});
    vec![
        ("missing", json!({"command": ["/no/such/program"]}), "/no/such/program"),
        ("plain", json!({"command": ["/plain"]}), "/plain"),
        ("source", json!({"mounts": [absent]}), "file/absent"),
        ("place", json!({"mounts": [onto]}), "/etc"),
        ("user", json!({"linux": {"security_context": {"run_as_username": "stranger"}}}), "stranger"),
        ("directory", json!({"working_dir": "/plain/x"}), "/plain"),
    ]
}

#[tokio::test]
async fn a_start_that_fails_is_the_end_of_the_container_over_restarts_too() {
    let mut node = Node::start();
    node.build("busybox:1", "RUN echo text >/plain\n");
    std::fs::write(node.path("file"), "").expect("a file");
    let pod = Pod::start(&node, "web", json!({}));
    let pod_id = pod.id.clone();
    let base = Residue::of(&node);
    let mut ended = Vec::new();
    for (name, more, named) in failures(&node) {
        let id = pod.create(name, "exit 0", more).ok().to_owned();
        let error = node.crictl(&["start", &id]).error().to_owned();
        assert!(error.contains(named), "{name}: {error}");
        let status = status(&node, &id).await;
        assert_eq!(status.state(), cri::ContainerState::ContainerExited, "{name}: {status:#?}");
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{name}");
        assert_eq!(status.started_at, 0, "{name}");
        assert!(status.finished_at >= status.created_at, "{name}: {status:#?}");
        // crictl quotes what it was told.
        assert!(error.replace('\\', "").contains(&status.message), "{name}: {error}: {status:#?}");
        assert!(status.message.contains(named), "{name}: {status:#?}");
        ended.push((id, status));
    }
    let kept = |line: &String| !line.contains("/containers/") || line.starts_with("mount");
    let left: Vec<_> = Residue::of(&node).beyond(&base).into_iter().filter(kept).collect();
    assert!(left.is_empty(), "{left:#?}");
    node.kill();
    node.launch();
    for (id, before) in &ended {
        assert_eq!(status(&node, id).await, *before);
        let again = node.crictl(&["start", id]);
        assert!(again.error().contains("exited"), "{again:#?}");
        assert_eq!(status(&node, id).await, *before, "a second start changes nothing");
        assert!(node.crictl(&["exec", "-s", id, "true"]).error().contains("exited"));
        let _ = node.crictl(&["stop", id]).ok();
        let _ = node.crictl(&["rm", id]).ok();
    }
    let _ = std::fs::remove_dir_all(node.path("logs"));
    base.returns(&node, "their removal");
    // The pod is none the worse for it.
    let fine = node.container(&pod_id, "web", "fine", "exit 3");
    assert_eq!(node.exited(&fine)["exitCode"], 3);
}

/// A limit below what a start itself takes ended in "the child was killed before its exec", which names nothing to change.
#[tokio::test]
async fn a_memory_limit_too_small_to_start_is_named() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let mut named = 0;
    for limit in [4096, 16_384, 65_536, 131_072, 262_144, 524_288] {
        let more = json!({"linux": {"resources": {"memory_limit_in_bytes": limit}}});
        let id = pod.create(&format!("c{limit}"), "exit 0", more).ok().to_owned();
        let started = node.crictl(&["start", &id]);
        let status = status(&node, &id).await;
        if started.status == 0 {
            continue;
        }
        named += 1;
        let words = format!("memory limit of {limit} bytes");
        assert!(started.error().contains(&words), "{limit}: {started:#?}");
        assert!(status.message.contains(&words), "{limit}: {status:#?}");
    }
    assert!(named > 0, "no limit is too small");
    // Other failures keep their words.
    let more = json!({"command": ["/no/such"], "linux": {"resources": {"memory_limit_in_bytes": 64 << 20}}});
    let error = pod.refuses("program", "", more);
    assert!(error.contains("/no/such") && !error.contains("memory"), "{error}");
}

/// A command in a container at its memory limit was killed by the kernel before it began, and kubelet's user was told "the
/// child was killed before its exec", which names nothing to change.
#[test]
fn a_command_that_a_container_s_memory_limit_does_not_let_begin_is_told_of_the_limit() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    // The kernel chooses whom it kills: most likely this monitor's children, until they have a value of their own.
    let monitor = format!("/proc/{}/oom_score_adj", monitor(&node, &pod.id));
    std::fs::write(monitor, "1000").expect("its monitor's children are the first to be killed");
    let [usage, limit] = match machine::unified() {
        true => ["memory.current", "memory.max"],
        false => ["memory.usage_in_bytes", "memory.limit_in_bytes"],
    };
    let is_named = |number: &u32| {
        let more = json!({"linux": {"resources": {"memory_limit_in_bytes": 64 << 20}}});
        let id = pod.run(&format!("c{number}"), "exec sleep 1000", more);
        let pid = node.crictl(&["inspect", &id]).json()["info"]["pid"].clone();
        let cgroup = memory_cgroup(pid.as_u64().expect("a pid"));
        // The kernel takes back all it can; from then on there is nothing left, unless something ends meanwhile.
        (0..3).any(|_| {
            let _ = std::fs::write(cgroup.join("memory.high"), "0");
            for _ in 0..50 {
                let used = std::fs::read_to_string(cgroup.join(usage)).unwrap_or_default();
                let _ = std::fs::write(cgroup.join(limit), used.trim());
            }
            let _ = std::fs::write(cgroup.join("memory.high"), "max");
            // Where the container itself was killed, the next one is tried.
            let Ok(limit) = std::fs::read_to_string(cgroup.join(limit)) else { return false };
            let refused = node.crictl(&["exec", "-s", &id, "true"]);
            assert!(!refused.stderr.contains("before its exec"), "{refused:#?}");
            refused.stderr.contains(&format!("memory limit of {} bytes", limit.trim()))
        })
    };
    // Which allocation meets the limit, that of a start or a later one, is up to the kernel.
    assert!((0..100).any(|number| is_named(&number)), "{}", node.log());
}

/// The directory in which a process's memory is counted.
fn memory_cgroup(pid: u64) -> std::path::PathBuf {
    let lines = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let (list, top) = match machine::unified() {
        true => ("", "/sys/fs/cgroup"),
        false => ("memory", "/sys/fs/cgroup/memory"),
    };
    let path = lines.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix(list)?.strip_prefix(":/")
    });
    std::path::Path::new(top).join(path.expect("its memory's cgroup"))
}

#[test]
fn a_start_that_is_not_tried_leaves_the_container_created() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.create("main", "exit 0", json!({})).ok().to_owned();
    let _ = node.crictl(&["stopp", &pod.id]).ok();
    assert!(node.crictl(&["start", &id]).error().contains("not ready"));
    assert_eq!(node.status(&id)["state"], "CONTAINER_CREATED");
    let _ = node.crictl(&["rm", &id]).ok();
}

#[test]
fn a_container_whose_end_can_not_be_read_is_reported_and_not_started_once_more() {
    let mut node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.create("main", "", json!({"command": ["/no/such/program"]})).ok().to_owned();
    assert!(node.crictl(&["start", &id]).error().contains("/no/such/program"));
    let record = node.path(format!("lib/containers/{id}/ended.1"));
    node.kill();
    let mut bytes = std::fs::read(&record).expect("the end's record");
    *bytes.last_mut().expect("a byte") ^= 1;
    std::fs::write(&record, bytes).expect("the record is damaged");
    node.launch();
    let status = node.status(&id);
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&json!("CONTAINER_EXITED"), &json!("MonitorLost")),
        "{status:#}"
    );
    assert!(status["message"].as_str().is_some_and(|told| told.contains("record")), "{status:#}");
    assert!(node.log().contains(&record.display().to_string()), "{}", node.log());
    let _ = node.crictl(&["rm", &id]).ok();
}

/// A refused start named a container by the id of its pod.
#[test]
fn a_start_in_a_stopped_pod_names_the_pod_as_such() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.create("main", "true", json!({})).ok().to_owned();
    let _ = node.crictl(&["stopp", &pod.id]).ok();
    let started = node.crictl(&["start", &id]);
    let error = started.error();
    assert!(error.contains(&format!("sandbox {} is not ready", pod.id)), "{error}");
}

/// A request for a start that another request has under way is told of its failure, and not that the container runs.
#[test]
fn of_two_starts_at_once_that_fail_neither_is_told_of_success() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.create("main", "", json!({"command": ["/no/such/program"]})).ok().to_owned();
    let start = || {
        let mut command = node.crictl_command(&["start", &id]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts")
    };
    let mut starts = [start(), start(), start()];
    assert!(starts.iter_mut().all(|start| !start.wait().expect("crictl ends").success()));
    assert_eq!(node.status(&id)["reason"], "StartError");
}

#[test]
fn who_is_attached_to_a_container_that_can_not_be_started_is_told_so() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.create("main", "", json!({"command": ["/no/such/program"], "stdin": true})).ok().to_owned();
    let monitor = format!("/proc/{}/fd", monitor(&node, &pod.id));
    let connections = || std::fs::read_dir(&monitor).expect("the monitor's descriptors").count();
    let before = connections();
    let mut attach = node.command();
    attach.args(["attach", &id]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let attach = attach.spawn().expect("slipway starts");
    wait("the client", || connections() > before);
    assert!(node.crictl(&["start", &id]).error().contains("/no/such/program"));
    let told = attach.wait_with_output().expect("slipway ends");
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(128), "{words}");
    assert!(words.contains("StartError") && words.contains("/no/such/program"), "{words}");
}

#[test]
fn a_run_that_fails_to_start_says_why_once_and_leaves_nothing() {
    let node = Node::start();
    node.build("busybox:1", "");
    let base = Residue::of(&node);
    for flags in [&[][..], &["--rm"], &["-d"], &["-d", "--rm"]] {
        let arguments = [&["run", "--name", "boat"], flags, &["busybox:1", "/no/such/program"]].concat();
        let ran = node.slipway(&arguments);
        assert_eq!((ran.status, ran.stderr.lines().count()), (127, 1), "{flags:?}: {ran:#?}");
        assert!(ran.stderr.contains("/no/such/program"), "{flags:?}: {ran:#?}");
        assert_eq!(node.slipway(&["ps", "-a", "-q"]).ok(), "", "{flags:?}");
        base.returns(&node, &format!("{flags:?}"));
    }
}
