//! Requests that can't be served: one line that names the thing, and nothing left behind.

use serde_json::json;
use slipway_tests::{Need, Node, Registry, lacks};

#[test]
fn absent_things_are_named() {
    let node = Node::start();
    for (arguments, name) in [
        (&["inspecti", "nothing:1"][..], "nothing"),
        (&["inspectp", "0123456789abcdef"][..], "0123456789abcdef"),
        (&["inspect", "0123456789abcdef"][..], "0123456789abcdef"),
        (&["start", "0123456789abcdef"][..], "0123456789abcdef"),
        (&["exec", "-s", "0123456789abcdef", "true"][..], "0123456789abcdef"),
    ] {
        let output = node.crictl(arguments);
        assert!(output.error().contains(name), "{output:#?}");
    }
}

#[test]
fn a_reference_that_does_not_parse_is_refused() {
    let node = Node::start();
    for reference in ["fleet/UPPER:1", "a//b", "x@sha256:12", "name:bad tag", "http://host/x"] {
        let output = node.crictl(&["pull", reference]);
        assert!(output.error().contains("InvalidArgument"), "{output:#?}");
    }
}

#[test]
fn a_registry_that_is_down_and_an_image_that_it_lacks_are_told_apart() {
    let node = Node::start();
    let absent = slipway_tests::registry::free_port();
    let down = node.crictl(&["pull", &format!("{absent}/fleet/busybox:1")]);
    assert!(down.error().contains(&absent.to_string()), "{down:#?}");
    let registry = Registry::start();
    let missing = registry.name("fleet/absent:1");
    let output = node.crictl(&["pull", &missing]);
    assert!(output.error().contains("NotFound") && output.error().contains("fleet/absent"), "{output:#?}");
}

#[test]
fn a_damaged_layer_is_refused_and_leaves_nothing() {
    let node = Node::start();
    let registry = Registry::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let _ = node.slipway(&["push", &name]).ok();
    let _ = node.crictl(&["rmi", &name]).ok();
    let _ = node.slipway(&["prune", "-a"]).ok();
    damage_largest_blob(&registry.storage());
    let output = node.crictl(&["pull", &name]);
    assert!(output.error().contains("sha256"), "{output:#?}");
    assert_eq!(node.crictl(&["images", "-q"]).ok(), "");
}

/// Flips a bit in the middle of the largest blob, its length unchanged.
fn damage_largest_blob(storage: &std::path::Path) {
    let output = std::process::Command::new("find")
        .arg(storage)
        .args(["-name", "data", "-printf", "%s %p\n"])
        .output()
        .expect("find runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let largest =
        text.lines().filter_map(|line| line.split_once(' ')).max_by_key(|(size, _)| size.parse::<u64>().ok());
    let (_, path) = largest.expect("a blob");
    let mut bytes = std::fs::read(path).expect("the blob is read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("the blob is damaged");
}

#[test]
fn a_name_in_use_names_its_owner_and_a_failed_start_frees_it() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = node.pod("web", json!({}));
    let pod_file = node.path("web.pod.json").display().to_string();
    let again = node.crictl(&["runp", &pod_file]);
    assert!(again.status == 0 && again.stdout.trim() == pod || again.stderr.contains(&pod), "{again:#?}");
    let lost = json!({"mounts": [{"host_path": "/dev/null/exist", "container_path": "/x"}]});
    let file = node.container_file("main", "busybox:1", "true", lost);
    let created = node.crictl(&["create", &pod, &file, &pod_file]);
    let refused = if created.status == 0 { node.crictl(&["start", created.ok()]) } else { created };
    assert!(refused.error().contains("/dev/null/exist"), "{refused:#?}");
    let _ = node.crictl(&["rm", "-f", "-a"]);
    let container = node.container(&pod, "web", "main", "exit 0");
    assert_eq!(node.exited(&container)["exitCode"], 0);
}

#[test]
fn a_host_port_in_use_is_named_and_leaves_no_pod() {
    if lacks("a_host_port_in_use_is_named_and_leaves_no_pod", &[Need::Nat]) {
        return;
    }
    let node = Node::start();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port to take");
    let port = taken.local_addr().expect("its address").port();
    let more = json!({
        "hostname": "web",
        "port_mappings": [{"container_port": 80, "host_port": port}],
        "linux": {"security_context": {"namespace_options": {"network": 0}}},
    });
    let output = node.crictl(&["runp", &node.pod_file("web", more)]);
    assert!(output.error().contains(&port.to_string()), "{output:#?}");
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), "");
}

#[test]
fn a_dockerfile_that_does_not_parse_names_its_line() {
    let node = Node::start();
    let context = tempfile::tempdir().expect("a context");
    std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPYY a b\n").expect("a Dockerfile");
    let output = node.slipway(&["build", "-t", "bad:1", &context.path().display().to_string()]);
    assert!(output.error().contains("COPYY") && output.error().contains('2'), "{output:#?}");
}
