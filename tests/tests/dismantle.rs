//! The end of an installation: nothing of the daemon's is left on the node but images and records.

use slipway_tests::bridge::tcp;
use slipway_tests::{Need, Node, Output, World, lacks};
use std::process::Command;

fn dismantle(world: &World, node: &Node) -> Output {
    let program = slipway_tests::folder("SLIPWAY_PROGRAMS").join("slipwayd");
    let mut command: Command = slipway_tests::netns::entering(world.node.path(), &program);
    command.arg("--config").arg(node.path("config.toml")).arg("--root").arg(node.path("lib"));
    Output::of(command.arg("--state").arg(node.path("run")).arg("--dismantle"))
}

fn cgroups(node: &Node) -> String {
    let config = std::fs::read_to_string(node.path("config.toml")).expect("the configuration");
    let root = config.split("cgroup_root = \"").nth(1).and_then(|rest| rest.split('"').next());
    let name = root.expect("a cgroup root").to_owned();
    Output::of(Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &name])).ok().to_owned()
}

#[test]
fn a_node_is_dismantled_when_no_pod_is_left_and_no_daemon_runs() {
    if lacks("a_node_is_dismantled_when_no_pod_is_left_and_no_daemon_runs", &[Need::Nat]) {
        return;
    }
    let world = World::new();
    let mut node = Node::inside(world.node.path(), &["10.94.0.0/24", "fd94::/64"], "");
    let pod = node.bridge_pod("one", &[tcp(8080, 80)]);
    assert!(!cgroups(&node).is_empty());
    assert!(dismantle(&world, &node).error().contains("another slipwayd"));
    assert!(node.terminate().success());
    let refused = dismantle(&world, &node);
    assert!(refused.error().contains(&pod.id) && refused.error().contains("rmp"), "{refused:#?}");
    node.launch();
    assert!(node.crictl(&["pods"]).ok().contains("Ready"));
    node.remove_pod(&pod.id);
    node.kill();
    let done = dismantle(&world, &node);
    assert_eq!(done.status, 0, "{done:#?}");
    assert_eq!(cgroups(&node), "");
    assert!(!world.node.sh("ip -o link").contains(&node.bridge()));
    assert_eq!(world.node.sh("nft list tables"), "");
    assert!(!node.path("run").exists(), "{:?}", std::fs::read_dir(node.path("run")).map(Iterator::count));
    assert!(node.path("lib").exists());
    assert_eq!(dismantle(&world, &node).status, 0, "twice is fine");
    node.launch();
    let pod = node.bridge_pod("two", &[tcp(8080, 80)]);
    node.remove_pod(&pod.id);
}
