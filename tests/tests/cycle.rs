//! The whole cycle with the real crictl and a real registry: build, push, remove, pull, pods, containers, logs, exec.

use serde_json::json;
use slipway_tests::registry::{PASSWORD, USER};
use slipway_tests::{Need, Node, Registry, lacks};

#[test]
fn a_daemon_answers_version_and_status() {
    let node = Node::start();
    assert!(node.crictl(&["version"]).ok().contains("RuntimeName:  slipway"));
    let status = node.crictl(&["info"]).json();
    let conditions = status["status"]["conditions"].as_array().expect("conditions").clone();
    assert!(conditions.iter().any(|c| c["type"] == "RuntimeReady" && c["status"] == true), "{status:#}");
}

#[test]
fn an_image_is_built_pushed_removed_and_pulled() {
    let node = Node::start();
    let registry = Registry::start();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "LABEL harbour=north\n");
    let built = node.crictl(&["inspecti", &name]).json()["status"]["id"].clone();
    let _ = node.slipway(&["push", &name]).ok();
    let _ = node.crictl(&["rmi", &name]).ok();
    assert!(node.crictl(&["inspecti", &name]).error().contains(&name));
    let _ = node.slipway(&["prune", "-a"]).ok();
    let _ = node.crictl(&["pull", &name]).ok();
    assert_eq!(node.crictl(&["inspecti", &name]).json()["status"]["id"], built);
}

#[test]
fn a_registry_with_a_password_refuses_strangers_and_serves_friends() {
    let node = Node::start();
    let registry = Registry::with_password();
    let name = registry.name("fleet/busybox:1");
    node.build(&name, "");
    let refused = node.slipway(&["push", &name]);
    assert!(refused.error().contains("authori") || refused.error().contains("credentials"), "{refused:#?}");
    let credentials = format!("{USER}:{PASSWORD}");
    let _ = node.slipway(&["push", "--creds", &credentials, &name]).ok();
    let _ = node.crictl(&["rmi", &name]).ok();
    assert_ne!(node.crictl(&["pull", &name]).status, 0);
    let _ = node.crictl(&["pull", "--creds", &credentials, &name]).ok();
}

#[test]
fn a_container_runs_logs_executes_and_ends() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = node.pod("web", json!({}));
    let container = node.container(&pod, "web", "main", "echo out; echo err >&2; exec sleep 1000");
    assert_eq!(node.crictl(&["exec", "-s", &container, "echo", "inside"]).ok(), "inside");
    assert_eq!(node.crictl(&["exec", "-s", &container, "sh", "-c", "exit 7"]).status, 1);
    let logs = node.crictl(&["logs", &container]);
    assert_eq!((logs.ok(), logs.stderr.trim()), ("out", "err"));
    assert!(node.crictl(&["ps"]).ok().contains("main"));
    let _ = node.crictl(&["stop", "-t", "1", &container]).ok();
    let status = node.exited(&container);
    assert_eq!(status["exitCode"], 137, "{status:#}");
    let _ = node.crictl(&["rm", &container]).ok();
    let _ = node.crictl(&["stopp", &pod]).ok();
    let _ = node.crictl(&["rmp", &pod]).ok();
    assert_eq!(node.crictl(&["pods", "-q"]).ok(), "");
}

#[test]
fn a_pod_on_the_bridge_has_an_address_and_a_name() {
    let node = Node::start();
    node.build("busybox:1", "");
    let (pod, container) = serve(&node, &json!([]));
    let address = node.crictl(&["inspectp", &pod]).json()["status"]["network"]["ip"].clone();
    let address = address.as_str().expect("an address");
    assert_eq!(fetch(&format!("http://{address}:8080/")), "afloat", "{}", node.log());
    let own = node.crictl(&["exec", "-s", &container, "wget", "-qO-", "http://127.0.0.1:8080/"]);
    assert_eq!(own.ok(), "afloat");
    assert_eq!(node.crictl(&["exec", "-s", &container, "hostname"]).ok(), "web");
}

#[test]
fn a_host_port_leads_to_the_pod() {
    if lacks("a_host_port_leads_to_the_pod", &[Need::Nat]) {
        return;
    }
    let node = Node::start();
    node.build("busybox:1", "");
    let port = slipway_tests::registry::free_port().port();
    let _ = serve(&node, &json!([{"protocol": 0, "container_port": 8080, "host_port": port}]));
    assert_eq!(fetch(&format!("http://127.0.0.1:{port}/")), "afloat", "{}", node.log());
}

/// A pod on the bridge whose container answers with one word over HTTP.
fn serve(node: &Node, ports: &serde_json::Value) -> (String, String) {
    let more = json!({
        "hostname": "web",
        "port_mappings": ports,
        "linux": {"security_context": {"namespace_options": {"network": 0}}},
    });
    let pod = node.pod("web", more);
    let script = "mkdir /www; echo afloat >/www/index.html; exec httpd -f -p 8080 -h /www";
    let container = node.container(&pod, "web", "main", script);
    (pod, container)
}

fn fetch(url: &str) -> String {
    for _ in 0..50 {
        let output =
            slipway_tests::Output::of(std::process::Command::new("curl").args(["-sf", "-m", "5", url]));
        if output.status == 0 {
            return output.stdout.trim().to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    String::from("nothing")
}

#[test]
fn a_container_killed_for_memory_says_so() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = node.pod("web", json!({}));
    let more = json!({"linux": {"resources": {"memory_limit_in_bytes": 20_971_520, "memory_swap_limit_in_bytes": 20_971_520}}});
    let file =
        node.container_file("eater", "busybox:1", "exec dd if=/dev/zero of=/dev/null bs=200M count=1", more);
    let pod_file = node.path("web.pod.json").display().to_string();
    let container = node.crictl(&["create", &pod, &file, &pod_file]).ok().to_owned();
    let _ = node.crictl(&["start", &container]).ok();
    let status = node.exited(&container);
    assert_eq!(
        (status["exitCode"].as_i64(), status["reason"].as_str()),
        (Some(137), Some("OOMKilled")),
        "{status:#}"
    );
}
