//! Limits: what is asked for is what the kernel holds a container to, on either version of cgroups.

use serde_json::{Value, json};
use slipway_tests::machine::unified;
use slipway_tests::{Need, Node, Pod, lacks};

fn resources(more: &Value) -> Value {
    json!({"linux": {"resources": more}})
}

/// The values of control files of the container's own cgroup, by their names on version 1 and on version 2.
fn read(files: &[(&str, &str)]) -> String {
    let path = |(legacy, new): &(&str, &str)| {
        let file = if unified() {
            (*new).to_owned()
        } else {
            format!("{}/{legacy}", legacy.split('.').next().unwrap_or_default())
        };
        format!("cat /sys/fs/cgroup/{file}")
    };
    files.iter().map(path).collect::<Vec<_>>().join("; ")
}

#[test]
fn memory_and_processor_limits_are_the_kernel_s() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let asked = json!({"memory_limit_in_bytes": 67_108_864, "memory_swap_limit_in_bytes": 67_108_864, "cpu_shares": 512,
        "cpu_quota": 50_000, "cpu_period": 200_000, "oom_score_adj": 500,
        "hugepage_limits": [{"page_size": "2MB", "limit": 0}, {"page_size": "1GB", "limit": 0}]});
    let id = pod.run("main", "exec sleep 1000", resources(&asked));
    let memory = read(&[("memory.limit_in_bytes", "memory.max")]);
    assert_eq!(pod.exec(&id, &memory), "67108864");
    // Where the kernel counts swap at all.
    let (swap, none) =
        if unified() { ("memory.swap.max", "0") } else { ("memory/memory.memsw.limit_in_bytes", "67108864") };
    let swap = pod.exec(&id, &format!("cd /sys/fs/cgroup; [ ! -e {swap} ] || cat {swap}"));
    assert!(swap.is_empty() || swap == none, "{swap}");
    let processor = if unified() {
        read(&[("", "cpu.max"), ("", "cpu.weight")])
    } else {
        read(&[("cpu.cfs_quota_us", ""), ("cpu.cfs_period_us", ""), ("cpu.shares", "")])
    };
    let expected = if unified() { "50000 200000\n59" } else { "50000\n200000\n512" };
    assert_eq!(pod.exec(&id, &processor), expected);
    assert_eq!(pod.exec(&id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj"), "500\n500");
    let told = &node.status(&id)["resources"]["linux"];
    assert_eq!(
        (&told["memoryLimitInBytes"], &told["cpuShares"], &told["oomScoreAdj"]),
        (&json!("67108864"), &json!("512"), &json!("500")),
        "{told:#}"
    );
    // Nothing that is wished sets nothing.
    let free = pod.run("free", "exec sleep 1000", json!({}));
    assert_ne!(pod.exec(&free, &memory), "67108864");
}

#[test]
fn a_cpuset_is_the_kernel_s() {
    if lacks("a_cpuset_is_the_kernel_s", &[Need::Cpuset]) {
        return;
    }
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let id = pod.run("main", "exec sleep 1000", resources(&json!({"cpuset_cpus": "0", "cpuset_mems": "0"})));
    let found = pod.exec(&id, &read(&[("cpuset.cpus", "cpuset.cpus"), ("cpuset.mems", "cpuset.mems")]));
    assert_eq!(found, "0\n0");
    assert_eq!(pod.exec(&id, "grep Cpus_allowed_list /proc/1/status | cut -f2"), "0");
    let nodes = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_else(|_| "0".into());
    for (field, there) in [("cpuset_cpus", None), ("cpuset_mems", Some(nodes.trim()))] {
        let created = pod.create(field, "true", resources(&json!({field: "0,4096"})));
        let error = created.error();
        assert!(error.contains("InvalidArgument") && error.contains(field), "{error}");
        assert!(error.contains("asks for 4096") && error.contains(there.unwrap_or("0")), "{error}");
    }
}

#[test]
fn unified_files_are_written_on_version_2_and_refused_by_name_on_version_1() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let asked = resources(&json!({"unified": {"memory.high": "33554432", "memory.oom.group": "1"}}));
    if !unified() {
        let created = pod.create("main", "true", asked);
        assert!(created.error().contains("unified") && created.error().contains("version 2"), "{created:#?}");
        return;
    }
    let id = pod.run("main", "exec sleep 1000", asked);
    assert_eq!(pod.exec(&id, "cd /sys/fs/cgroup; cat memory.high memory.oom.group"), "33554432\n1");
    for name in ["cgroup.procs", "memory.no_such_file"] {
        let error = pod.refuses("bad", "true", resources(&json!({"unified": {name: "1"}})));
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn limits_that_can_t_be_are_refused_by_their_names() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    for (number, (wish, named)) in [
        (json!({"oom_score_adj": 2000}), "oom_score_adj"),
        (json!({"memory_limit_in_bytes": -5}), "memory limit -5"),
        (
            json!({"memory_limit_in_bytes": 67_108_864, "memory_swap_limit_in_bytes": 1_048_576}),
            "memory and swap limit",
        ),
        (json!({"cpu_period": 10}), "cpu period 10"),
        (json!({"cpu_shares": -1}), "cpu_shares"),
        (json!({"cpuset_cpus": "zero"}), "cpuset_cpus"),
        (json!({"cpuset_cpus": "1-"}), "cpuset_cpus"),
        (json!({"cpuset_mems": "1-0"}), "cpuset_mems"),
        (json!({"hugepage_limits": [{"page_size": "huge", "limit": 1}]}), "huge"),
        (json!({"unified": {"../memory.max": "1"}}), "../memory.max"),
    ]
    .into_iter()
    .enumerate()
    {
        let created = pod.create(&format!("bad{number}"), "true", resources(&wish));
        assert!(
            created.error().contains(named) && created.error().contains("InvalidArgument"),
            "{wish}: {created:#?}"
        );
    }
    assert_eq!(node.crictl(&["ps", "-a", "-q"]).ok(), "");
}

/// A container whose first process outlives a child that was killed for memory, and then ends well, had "Completed" as its
/// reason: nobody learned that its limit is too small.
#[test]
fn a_child_that_is_killed_for_memory_is_the_reason_whatever_the_exit_status() {
    let node = Node::start();
    node.build("busybox:1", "");
    let pod = Pod::start(&node, "web", json!({}));
    let limit =
        resources(&json!({"memory_limit_in_bytes": 20_971_520, "memory_swap_limit_in_bytes": 20_971_520}));
    let eat = "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null";
    let failed = node.exited(&pod.run("failed", &format!("{eat}; exit 9"), limit.clone()));
    assert_eq!(
        (failed["exitCode"].as_i64(), failed["reason"].as_str()),
        (Some(9), Some("OOMKilled")),
        "{failed:#}"
    );
    let coped = node.exited(&pod.run("coped", &format!("{eat}; exit 0"), limit));
    assert_eq!(
        (coped["exitCode"].as_i64(), coped["reason"].as_str()),
        (Some(0), Some("OOMKilled")),
        "{coped:#}"
    );
}
