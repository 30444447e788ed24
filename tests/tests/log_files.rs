//! The CRI's log files: lines whole and partial, a fresh file after a rotation, and links that lead nowhere.

use serde_json::json;
use slipway_proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use slipway_tests::{Node, Pod, grpc, wait};

#[test]
fn a_log_has_whole_and_partial_lines_and_goes_on_in_a_fresh_file() {
    let node = Node::start();
    node.build("busybox:1", "");
    // The directory that kubelet names is a link, as on nodes whose logs are on another disk.
    std::fs::create_dir(node.path("disk")).expect("a directory");
    std::os::unix::fs::symlink(node.path("disk"), node.path("logs")).expect("a link");
    let pod = Pod::start(&node, "web", json!({}));
    let script = "echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf tail; \
                  while [ ! -e /go ]; do sleep 0.02; done; echo after; printf torn";
    let id = pod.run("main", script, json!({}));
    let log = node.path("disk/web/main.log");
    wait("the log's first part", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 5)
    });
    let text = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<_> = text.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>()).collect();
    let mut shapes: Vec<_> = lines.iter().map(|line| (line[1], line[2], line[3].len())).collect();
    shapes.sort_unstable();
    let long = [
        ("stdout", "F", 3),
        ("stdout", "F", 40_000 - 2 * 16_384),
        ("stdout", "P", 16_384),
        ("stdout", "P", 16_384),
    ];
    assert_eq!(shapes, [&[("stderr", "F", 3)][..], &long].concat());
    assert!(lines.iter().all(|line| line[0].len() == "2026-01-01T00:00:00.000000000Z".len()), "{text}");

    let old = node.path("disk/web/main.log.1");
    std::fs::rename(&log, &old).expect("the log is renamed");
    reopen(&node, &id);
    let _ = pod.exec(&id, "touch /go");
    let _ = node.exited(&id);
    let fresh = std::fs::read_to_string(&log).expect("a fresh log");
    let ends: Vec<_> = fresh.lines().map(|line| line.splitn(3, ' ').nth(2).expect("a record")).collect();
    assert_eq!(ends, ["F tailafter", "P torn"]);
    assert_eq!(std::fs::read_to_string(&old).expect("the old log"), text);
}

#[test]
fn a_log_never_goes_where_a_link_leads() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let victim = node.path("victim");
    std::fs::write(&victim, "untouched").expect("a file of the host");
    std::fs::create_dir_all(node.path("logs/web")).expect("a directory");
    std::os::unix::fs::symlink(&victim, node.path("logs/web/main.log")).expect("a link");
    let error = pod.refuses("main", "echo overwritten", json!({}));
    assert!(error.contains("logs/web/main.log"), "{error}");
    for path in ["../../victim", "/etc/victim", "a/../../victim"] {
        let error = pod.refuses("out", "echo overwritten", json!({"log_path": path}));
        assert!(error.contains("log_path"), "{path}: {error}");
    }
    assert_eq!(std::fs::read_to_string(&victim).expect("the file"), "untouched");
}

/// ReopenContainerLog, which crictl has no verb for.
fn reopen(node: &Node, container: &str) {
    use slipway_proto::runtime::v1::ReopenContainerLogRequest;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut client = RuntimeServiceClient::new(grpc::channel(node).await);
        let request = ReopenContainerLogRequest { container_id: container.to_owned() };
        client.reopen_container_log(request).await.expect("the log is reopened");
    });
}
