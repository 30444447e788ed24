//! The defaults of a pod that asks for nothing, or for something that its node has not: those of the runtimes that
//! Kubernetes users come from.

use serde_json::{Value, json};
use slipway_tests::machine::unified;
use slipway_tests::{Need, Node, Pod, Residue, netns, skip};
use std::fs;
use std::path::Path;

fn node() -> Node {
    let node = Node::start();
    node.build("busybox:1", "");
    node
}

fn security(context: &Value) -> Value {
    json!({"linux": {"security_context": context}})
}

fn resources(resources: &Value) -> Value {
    json!({"linux": {"resources": resources}})
}

/// Starts the node's daemon again with a line more in a section of its configuration.
fn configure(node: &mut Node, section: &str, line: &str) {
    node.kill();
    let path = node.path("config.toml");
    let config = fs::read_to_string(&path).expect("the configuration is read");
    let head = format!("[{section}]");
    fs::write(path, config.replace(&head, &format!("{head}\n{line}"))).expect("it is written");
    node.launch();
}

/// Every pod with `seLinuxOptions` was refused on a node without SELinux, where other runtimes ignore them. kubelet sends
/// such options of its own accord.
#[test]
fn selinux_options_are_ignored_on_a_node_without_selinux() {
    let test = "selinux_options_are_ignored_on_a_node_without_selinux";
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return skip(test, "a kernel without SELinux");
    }
    let node = node();
    let options = json!({"selinux_options": {"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"}});
    let pod = Pod::start(&node, "web", security(&options));
    assert_eq!(pod.says("main", "echo afloat", security(&options)), "afloat\n");
}

/// A refusal spoke of a field that "is not supported yet", and not of the profile that the node can't have.
#[test]
fn a_node_without_apparmor_takes_its_default_and_refuses_a_profile_by_name() {
    let test = "a_node_without_apparmor_takes_its_default_and_refuses_a_profile_by_name";
    if fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y") {
        return skip(test, "a kernel without AppArmor");
    }
    let node = node();
    let pod = Pod::start(&node, "web", json!({}));
    for (number, wish) in [
        json!({}),
        json!({"apparmor": {"profile_type": 0}}),
        json!({"apparmor": {"profile_type": 1}}),
        json!({"apparmor_profile": "runtime/default"}),
        json!({"apparmor_profile": "unconfined"}),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(pod.says(&format!("c{number}"), "echo afloat", security(&wish)), "afloat\n", "{wish}");
    }
    for wish in [
        json!({"apparmor": {"profile_type": 2, "localhost_ref": "harbour"}}),
        json!({"apparmor": {"profile_type": 2, "localhost_ref": "localhost/harbour"}}),
        json!({"apparmor_profile": "localhost/harbour"}),
    ] {
        let error = pod.refuses("bad", "true", security(&wish));
        let named = ["InvalidArgument", "harbour", "no AppArmor", "apparmor"];
        assert!(named.iter().all(|part| error.contains(part)), "{wish}: {error}");
    }
}

const OPEN: &str = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range | tr '\\n\\t' '  '";

/// Images whose user is not root listen on port 80 and send pings under other runtimes, and could do neither here.
#[test]
fn a_pod_s_network_is_open_to_every_user_unless_the_pod_or_the_configuration_says_otherwise() {
    let mut node = node();
    let bridged = |sysctls: Value| json!({"linux": {"sysctls": sysctls, "security_context": {"namespace_options": {"network": 0}}}});
    let inside = json!({});
    let host = [("net", "ipv4/ip_unprivileged_port_start"), ("net", "ipv4/ping_group_range")]
        .map(|(top, name)| fs::read_to_string(format!("/proc/sys/{top}/{name}")).expect("a parameter"));
    let pod = Pod::start(&node, "open", bridged(json!({})));
    assert_eq!(pod.says("read", OPEN, inside.clone()), "0 0 2147483647 ");
    let user =
        security(&json!({"run_as_user": {"value": 1000}, "capabilities": {"drop_capabilities": ["ALL"]}}));
    let script = "nc -l -p 80 & while ! grep -q ':0050 ' /proc/net/tcp*; do kill -0 $! || exit 1; sleep 0.05; done; echo 80";
    assert_eq!(pod.says("port", script, user), "80\n");
    // busybox's ping knows raw sockets alone.
    let ping = "python3 -c 'import os; from socket import *; os.setgroups([]); os.setresgid(1000, 1000, 1000); \
        os.setresuid(1000, 1000, 1000); socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)'";
    let _ = netns::sh(&node.bridge_pod("ping", &[]).netns, ping).ok();

    let own =
        bridged(json!({"net.ipv4.ip_unprivileged_port_start": "1000", "net/ipv4/ping_group_range": "5 6"}));
    let pod = Pod::start(&node, "own", own);
    assert_eq!(pod.says("read", OPEN, inside.clone()), "1000 5 6 ");
    let pod = Pod::start(&node, "host", json!({}));
    let expected = host.map(|value| value.trim().replace('\t', " ")).join(" ") + " ";
    assert_eq!(pod.says("read", OPEN, json!({})), expected);

    configure(&mut node, "network", "unprivileged_ports = false\nunprivileged_icmp = false");
    let pod = Pod::start(&node, "closed", bridged(json!({})));
    assert_eq!(pod.says("read", OPEN, inside), "1024 1 0 ");
}

const FILTER: &str = "sed -n 's/^Seccomp:[[:space:]]*//p' /proc/self/status";

/// critest asks that a container without a seccomp profile has none, and kubelet always sends one. A container of `run` and
/// the step of a build have no one to ask for theirs.
#[test]
fn a_container_without_a_seccomp_profile_is_unconfined_unless_the_configuration_says_otherwise() {
    let mut node = node();
    let pod = Pod::start(&node, "web", json!({}));
    assert_eq!(pod.says("unset", FILTER, json!({})), "0\n");
    let default = security(&json!({"seccomp": {"profile_type": 0}}));
    assert_eq!(pod.says("asked", FILTER, default), "2\n");
    assert_eq!(node.slipway(&["run", "--rm", "busybox:1", "sh", "-c", FILTER]).ok(), "2");
    node.build("step:1", &format!("RUN {FILTER} >/seccomp\n"));
    assert_eq!(node.slipway(&["run", "--rm", "step:1", "cat", "/seccomp"]).ok(), "2");

    configure(&mut node, "runtime", "unset_seccomp_profile = \"RuntimeDefault\"");
    let pod = Pod::start(&node, "later", json!({}));
    assert_eq!(pod.says("unset-too", FILTER, json!({})), "2\n");
    let free = security(&json!({"seccomp": {"profile_type": 1}}));
    assert_eq!(pod.says("free", FILTER, free), "0\n");
}

/// Profiles that ask for a log of what they refuse were themselves refused.
#[test]
fn a_seccomp_profile_with_flags_works_and_one_with_a_listener_is_refused_by_name() {
    let node = node();
    let pod = Pod::start(&node, "web", json!({}));
    let profile = |name: &str, more: Value| {
        let mut text = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
        for (key, value) in more.as_object().expect("an object") {
            text[key] = value.clone();
        }
        let path = node.path(name);
        fs::write(&path, text.to_string()).expect("a profile");
        security(&json!({"seccomp": {"profile_type": 2, "localhost_ref": path}}))
    };
    let flags = ["LOG", "SPEC_ALLOW", "TSYNC"].map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    for number in 0..=flags.len() {
        let chosen = if number == flags.len() { flags.to_vec() } else { vec![flags[number].clone()] };
        for deny in [false, true] {
            let name = format!("c{number}{deny}");
            let mut wish = profile(&name, json!({"flags": chosen}));
            wish["linux"]["security_context"]["no_new_privs"] = json!(deny);
            let id = pod.run(&name, "exec sleep 1000", wish);
            let said = pod.exec(&id, &format!("{FILTER}; mkdir /x 2>&1 | grep -o 'not supported'"));
            assert_eq!(said, "2\nnot supported", "{chosen:?}");
        }
    }
    let error = pod.refuses("bad", "true", profile("bad", json!({"listenerPath": "/run/listener.sock"})));
    assert!(error.contains("listenerPath"), "{error}");
}

/// A container with a memory limit and no limit of swap could swap without bound.
#[test]
fn a_memory_limit_without_a_limit_of_swap_allows_no_swap() {
    let node = node();
    let pod = Pod::start(&node, "web", json!({}));
    let limit = 67_108_864;
    let id = pod.run("main", "exec sleep 1000", resources(&json!({"memory_limit_in_bytes": limit})));
    let (file, none) =
        if unified() { ("memory.swap.max", 0) } else { ("memory/memory.memsw.limit_in_bytes", limit) };
    // Where the kernel counts no swap there is none to limit.
    let counted = pod.exec(&id, &format!("cd /sys/fs/cgroup; [ ! -e {file} ] || cat {file}"));
    let there = pod.exec(&id, &format!("ls /sys/fs/cgroup/{file} 2>/dev/null | wc -l"));
    let expected = if there == "0" { String::new() } else { none.to_string() };
    assert_eq!(counted, expected);
    if unified() && there != "0" {
        // The request of kubelet for a pod that may swap.
        let asked = json!({"memory_limit_in_bytes": limit, "unified": {"memory.swap.max": "8388608"}});
        let id = pod.run("swaps", "exec sleep 1000", resources(&asked));
        assert_eq!(pod.exec(&id, &format!("cat /sys/fs/cgroup/{file}")), "8388608");
    }
}

/// A pod with huge pages could not start where only the kernel's limit of them is missing.
#[test]
fn a_limit_of_huge_pages_without_the_controller_is_a_warning() {
    if Need::HugePages.is_met() {
        return skip("a_limit_of_huge_pages_without_the_controller_is_a_warning", "no hugetlb controller");
    }
    let node = node();
    let pod = Pod::start(&node, "web", json!({}));
    let asked = json!({"hugepage_limits": [{"page_size": "2MB", "limit": 4_194_304}]});
    let id = pod.run("main", "exec sleep 1000", resources(&asked));
    let log = node.log();
    assert!(
        log.lines().any(|line| line.contains("WARN") && line.contains("hugetlb") && line.contains(&id)),
        "{log}"
    );
}

/// A stopped pod went on reporting an address which another pod had by then.
#[test]
fn a_stopped_pod_reports_no_address() {
    let node = node();
    let base = Residue::of(&node);
    let pod = node.bridge_pod("web", &[]);
    assert!(!pod.addresses[0].is_empty());
    let _ = node.crictl(&["stopp", &pod.id]).ok();
    let told = node.crictl(&["inspectp", &pod.id]).json();
    let network = &told["status"]["network"];
    assert!(network["ip"].as_str().is_none_or(str::is_empty), "{told:#}");
    assert!(network["additionalIps"].as_array().is_none_or(Vec::is_empty), "{told:#}");
    assert!(!told["info"].to_string().contains(&pod.addresses[0]), "{told:#}");
    let _ = node.crictl(&["rmp", &pod.id]).ok();
    base.returns(&node, "a stopped pod");
}
