//! The bridge, its addresses and the pods' veth pairs are compared with what they should be, and repaired.

use slipway_tests::sockets::{Server, ask_tcp};
use slipway_tests::{Node, World};

const BOTH: [&str; 2] = ["10.94.0.0/24", "fd94::/64"];
const GATEWAYS: [&str; 2] = ["10.94.0.1", "fd94::1"];

/// Once this daemon had made its bridge, it only looked at whether a bridge of that number was up: an address that someone
/// removed or added stayed so, and a bridge that someone removed left all running pods without a network until the next pod.
#[test]
fn a_bridge_that_someone_has_changed_is_repaired_by_status_and_before_the_next_pod() {
    let world = World::new();
    let node = Node::inside(world.node.path(), &BOTH, "");
    let pod = node.bridge_pod("one", &[]);
    let bridge = node.bridge();
    let _server = Server::tcp(world.node.path(), 80, "node");
    let reaches_the_node = |netns: &std::path::Path, told: &str| {
        for gateway in GATEWAYS {
            let answer = ask_tcp(netns, (gateway, 80)).unwrap_or_else(|error| panic!("{told}: {error}"));
            assert!(answer.starts_with("node"), "{told}: {answer}");
        }
    };
    let addresses = || {
        let shown =
            world.node.sh(&format!("ip -o address show dev {bridge} | grep -o 'inet6* [^ ]*' | sort"));
        shown.lines().filter(|line| !line.contains("fe80")).map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = addresses();
    reaches_the_node(&pod.netns, "at first");
    let pair = format!("ip -o link show master {bridge} | head -n 1 | cut -d: -f2 | cut -d@ -f1");
    let changes = [
        format!("ip address del 10.94.0.1/24 dev {bridge}"),
        format!("ip address del fd94::1/64 dev {bridge}"),
        format!("ip address add 10.95.0.1/24 dev {bridge}"),
        format!("ip link set {bridge} down"),
        format!("ip link set $({pair}) nomaster"),
        format!("ip link del {bridge}"),
    ];
    for (number, change) in changes.iter().enumerate() {
        let _ = world.node.sh(change);
        let (ready, reason, message) = node.network_ready();
        assert!(ready && reason.is_empty(), "{change}: {reason} {message}");
        assert_eq!(addresses(), whole, "{change}");
        reaches_the_node(&pod.netns, change);
        if change.contains("nomaster") {
            continue;
        }
        // And where no Status comes between the change and the next pod.
        let _ = world.node.sh(change);
        let next = node.bridge_pod(&format!("next-{number}"), &[]);
        assert_eq!(addresses(), whole, "{change}");
        reaches_the_node(&next.netns, change);
        reaches_the_node(&pod.netns, change);
        let _ = node.crictl(&["rmp", "-f", &next.id]).ok();
    }
}
